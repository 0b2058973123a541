#!/usr/bin/env python3
"""Tries the packages in a folder, each where nothing of rerankd is, and says what it saw.

    python3 scripts/try_packages.py                            those of target/packages
    python3 scripts/try_packages.py target/packages --debian FOLDER

Archive: unpacked into an empty folder, run with an empty environment. Wheel: installed into a new virtual
environment and out of it again. Debian package: installed by dpkg into an empty folder, or into the Debian system in
FOLDER (such as debootstrap makes; needs root); the unit is verified, its command is run, asked, told to reload and
stopped; then the package is purged. Checksums and the list of libraries are compared with what they speak of.
"""

import argparse
import gzip
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
NOTES = "Berlin is in Germany.\nParis is the capital of France.\nA recipe for bread.\n"
ASK = ["rerank", "--query", "What is the capital of France?", "--input-format", "text", "--format", "json"]
UNIT = "usr/lib/systemd/system/rerankd.service"


def check(holds, what):
    if not holds:
        sys.exit(f"try_packages.py: {what}: no")
    print(f"  {what}")


def output(*command, **options):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"try_packages.py: {shlex.join(map(str, command))} failed with code {done.returncode}")
    return done.stdout


def check_program(*command, **options):
    """It says its version, and ranks three lines."""
    said = output(*command, "--version", **options)
    check(said == f"rerankd {VERSION}\n", f"{command[-1]} --version: {said.strip()}")
    ranking = json.loads(output(*command, *ASK, input=NOTES, **options))
    check(ranking["results"][0]["index"] == 1, f"{command[-1]} rerank finds the capital of France")


def try_archive(file, folder):
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    (inside,) = folder.iterdir()
    check_program(inside / "rerankd", env={}, cwd=folder)
    pages = {page.name for page in inside.glob("share/man/man1/*")}
    check({"rerankd.1.gz", "rerankd-serve.1.gz"} <= pages, f"{len(pages)} manual pages")
    output("bash", "-n", inside / "share/bash-completion/completions/rerankd")
    check(True, "bash reads the completions")
    texts = ["README.md", "LICENSE", "NOTICE", "THIRD-PARTY.txt", "default.toml", "rerankd.service"]
    check(all((inside / text).stat().st_size for text in texts), ", ".join(texts))


def try_wheel(file, folder):
    output(sys.executable, "-m", "venv", folder / "venv")
    pip, python = folder / "venv/bin/pip", folder / "venv/bin/python"
    output(pip, "install", "--quiet", "--no-index", file)
    check_program(folder / "venv/bin/rerankd", env={})
    check_program(python, "-m", "rerankd", env={})
    (texts,) = folder.glob("venv/lib/python*/site-packages/rerankd/THIRD-PARTY.txt")
    check(texts.stat().st_size, "the licences of the libraries are in it")
    output(pip, "uninstall", "--quiet", "--yes", "rerankd")
    check(not list(folder.rglob("*rerankd*")), "pip uninstall leaves nothing")


def files_of(root):
    """All files but those in which dpkg keeps its own state."""
    files = [file for file in root.rglob("*") if file.is_file() or file.is_symlink()]
    own = [root / "var/lib/dpkg", root / "var/log"]
    return {file for file in files if not any(folder in file.parents for folder in own)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def try_unit(root):
    """Runs the unit's command as the unit says, but for the rights; `root` is put before its paths."""
    text = (root / UNIT).read_text()
    (start,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    (reload,) = re.findall(r"^ExecReload=/bin/kill -(\w+) \$MAINPID$", text, re.M)
    (longest,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
    port = str(free_port())
    command = [str(root / word[1:]) if word.startswith("/") else word for word in start.split()]
    variables = dict(value.split("=", 1) for value in re.findall(r"^Environment=(.*)$", text, re.M))
    variables |= {"HF_HUB_CACHE": str(root / "var/cache/rerankd"), "RERANKD__SERVER__PORT": port}
    limits = tomllib.loads(output(*command[:1], "--print-config", *command[2:], env=variables))["shutdown"]
    needs = (limits["pause_ms"] + limits["deadline_ms"]) / 1000
    check(needs < int(longest), f"the server stops within {needs:.0f} s, the unit waits {longest} s")
    server = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        health = [command[0], "health", "--url", f"http://127.0.0.1:{port}"]
        deadline = time.monotonic() + 30
        while subprocess.run(health, capture_output=True).returncode != 0:
            if time.monotonic() > deadline or server.poll() is not None:
                sys.exit(f"try_packages.py: `{shlex.join(command)}` is not healthy within 30 s")
            time.sleep(0.1)
        check(True, f"{start}: healthy")
        server.send_signal(signal.Signals[f"SIG{reload}"])
        connection = http.client.HTTPConnection("127.0.0.1", int(port))
        body = {"query": "What is the capital of France?", "documents": NOTES.splitlines()}
        connection.request("POST", "/v1/rerank", json.dumps(body), {"Content-Type": "application/json"})
        results = json.load(connection.getresponse())["results"]
        check(results[0]["index"] == 1, f"it answers /v1/rerank, after SIG{reload} too")
        server.terminate()
        check(server.wait(int(longest)) == 0, "SIGTERM ends it with code 0")
    finally:
        server.kill()


def try_deb(file, folder, debian):
    root = debian or folder
    if debian:
        shutil.copy(file, root / "tmp")
        dpkg = ["chroot", root, "dpkg"]
        package = f"/tmp/{file.name}"
        temporary = root / "tmp" / file.name
    else:
        (root / "var/lib/dpkg").mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        # An empty folder has no shell for the package's scripts, and none of the libraries.
        dpkg = ["dpkg", f"--root={root}", "--force-script-chrootless", "--force-depends", "--force-not-root"]
        package, temporary = file, None
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    quiet = {"stderr": subprocess.DEVNULL, "env": path}
    before = files_of(root)
    output(*dpkg, "--install", package, **quiet)
    listed = output(*dpkg, "--status", "rerankd", **quiet)
    check("Status: install ok installed" in listed, f"dpkg --install into {'FOLDER' if debian else 'an empty folder'}")
    check(" /etc/rerankd/rerankd.toml " in listed, "/etc/rerankd/rerankd.toml is a configuration file")
    check(output(*dpkg, "--verify", "rerankd", **quiet) == "", "dpkg --verify: each file is as it was packed")
    if shutil.which("systemd-analyze"):
        with tempfile.TemporaryDirectory() as copy:
            # Where this system looks for the unit's program.
            unit = Path(copy) / "rerankd.service"
            unit.write_text((root / UNIT).read_text().replace("/usr/bin/rerankd", str(root / "usr/bin/rerankd")))
            verify = ["systemd-analyze", "verify", "--man=no", unit]
            said = subprocess.run(verify, stderr=subprocess.PIPE, text=True, env=path).stderr
        wrong = [line for line in said.splitlines() if "rerankd" in line]
        check(not wrong, "\n".join(["systemd-analyze verify: nothing wrong with the unit", *wrong]))
    else:
        print("  the unit is not verified: systemd-analyze is missing")
    pages = list((root / "usr/share/man/man1").glob("rerankd*.1.gz"))
    check(all(gzip.open(page).read().startswith(b".") for page in pages), f"{len(pages)} manual pages")
    check_program(*(["chroot", root] if debian else []), "/usr/bin/rerankd" if debian else root / "usr/bin/rerankd")
    try_unit(root)

    # As a server that has run leaves it.
    (root / "var/cache/private/rerankd").mkdir(parents=True, exist_ok=True)
    (root / "var/cache/private/rerankd/model").touch()
    output(*dpkg, "--remove", "rerankd", **quiet)
    left = files_of(root) - before - {root / "var/cache/private/rerankd/model"}
    check(left == {root / "etc/rerankd/rerankd.toml"}, "dpkg --remove leaves the settings only")
    output(*dpkg, "--purge", "rerankd", **quiet)
    left = files_of(root) - before
    check(not left, "\n".join(["dpkg --purge leaves nothing", *map(str, left)]))
    if temporary:
        temporary.unlink()


def try_sbom(file):
    bom = json.loads(file.read_text())
    check((bom["bomFormat"], bom["metadata"]["component"]["name"]) == ("CycloneDX", "rerankd"), "CycloneDX, of rerankd")
    known = {(c["name"], c["version"]) for c in bom["components"]}
    locked = {(p["name"], p["version"]) for p in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    check(known <= locked and any(name == "tokio" for name, _ in known), f"{len(known)} libraries, all in Cargo.lock")


def try_checksums(file):
    lines = [line.split("  ") for line in file.read_text().splitlines()]
    right = all(hashlib.sha256((file.parent / name).read_bytes()).hexdigest() == digest for digest, name in lines)
    there = {other.name for other in file.parent.iterdir()} - {file.name}
    check(right and there == {name for _, name in lines}, f"{len(lines)} files, each as its checksum says")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="?", type=Path, default=ROOT / "target/packages", help="the packages' folder")
    parser.add_argument("--debian", type=Path, metavar="FOLDER", help="a Debian system to install the .deb into")
    arguments = parser.parse_args()
    kinds = {
        ".tar.gz": try_archive,
        ".whl": try_wheel,
        ".deb": lambda file, folder: try_deb(file, folder, arguments.debian and arguments.debian.resolve()),
        ".cdx.json": lambda file, _: try_sbom(file),
        "SHA256SUMS": lambda file, _: try_checksums(file),
    }
    tried = 0
    for file in sorted(arguments.packages.resolve().iterdir()):
        for end, attempt in kinds.items():
            if file.name.endswith(end):
                print(file.name)
                with tempfile.TemporaryDirectory() as folder:
                    attempt(file, Path(folder))
                tried += 1
    if tried == 0:
        sys.exit(f"try_packages.py: no package is in {arguments.packages}; scripts/package.py makes them")
    print(f"{tried} tried, all right")


if __name__ == "__main__":
    main()
