#!/usr/bin/env python3
"""Makes rerankd's packages in target/packages/ and tries them.

    python3 scripts/package.py all          each of these, in this order, and `try`
    python3 scripts/package.py binary       an archive: program, manual pages, completions, licences, systemd unit
    python3 scripts/package.py wheel        a wheel that carries the program (maturin, from PyPI's index)
    python3 scripts/package.py deb          a Debian package with a systemd unit (needs dpkg-dev)
    python3 scripts/package.py sbom         the list of all libraries in CycloneDX's format, taken from the wheel
    python3 scripts/package.py checksums    SHA256SUMS of what is in target/packages/
    python3 scripts/package.py try          installs and runs each package that is there, in folders of its own

They are for the system and processor that this runs on. The first call compiles rerankd with link-time optimisation
(profile dist: about 15 minutes on two cores); `--profile release` takes what `cargo build --release` makes, to try the
packaging quickly. Of the same program and commit, archive and Debian package are the same byte for byte.
"""

import argparse
import functools
import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PACKAGES = TARGET / "packages"
# What is put together before it is packed.
WORK = TARGET / "packaging"
TOOLS = TARGET / "tools"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
MACHINE = platform.machine()
MATURIN = "1.16.0"
# Beginnings of the names of files with a library's licence.
LICENCES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")
SHELLS = {
    "bash": "share/bash-completion/completions/rerankd",
    "zsh": "share/zsh/vendor-completions/_rerankd",
    "fish": "share/fish/vendor_completions.d/rerankd.fish",
}


def run(*command, **options):
    """Runs a command and returns what it prints; ends the script with its words if it fails."""
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True} | options
    done = subprocess.run([str(word) for word in command], **options)
    if done.returncode != 0:
        sys.exit(f"package.py: {' '.join(map(str, command))} failed with code {done.returncode}")
    return done.stdout


def tool(name, hint):
    if shutil.which(name) is None:
        sys.exit(f"package.py: {name} is missing; {hint}")
    return name


def commit_time():
    """Seconds; all times in packages are this, so that they can be made again alike."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct"))


def report(file, note=""):
    print(f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}: {file.stat().st_size:,} bytes{note}")


def build(profile):
    """The program, compiled if need be."""
    started = time.monotonic()
    run("cargo", "build", "--locked", "--profile", profile)
    program = TARGET / profile / "rerankd"
    report(program, f", {time.monotonic() - started:.0f} s")
    return program


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def manual(program, folder):
    """Manual pages, packed as Debian wants them."""
    run(program, "man", "--folder", folder)
    for page in sorted(folder.iterdir()):
        page.with_name(page.name + ".gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()


def completions(program, prefix):
    for shell, place in SHELLS.items():
        file = prefix / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(run(program, "completions", shell))


@functools.cache
def third_party():
    """The licences of all that is compiled in, each text once."""
    ask = ["--package", "rerankd", "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}"]
    tree = run("cargo", "tree", "--locked", *ask)
    libraries = {line.removesuffix(" (*)").replace(" (proc-macro)", "") for line in tree.splitlines()}
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1"))
    packages = [package for package in metadata["packages"] if package["source"]]
    folders = {f"{p['name']} v{p['version']}": Path(p["manifest_path"]).parent for p in packages}
    holders = {}
    for library in sorted(libraries):
        name, licence = library.split("|")
        # Those of this workspace are under its own licence.
        if name not in folders:
            continue
        files = [file for file in sorted(folders[name].iterdir()) if file.name.upper().startswith(LICENCES)]
        files = [file for file in files if file.is_file()]
        texts = [file.read_text(errors="replace").strip() for file in files] or ["(The library brings no text of it.)"]
        for text in dict.fromkeys(texts):
            holders.setdefault(text, []).append(f"{name}: {licence}")
    parts = ["\n".join([*names, "", text, ""]) for text, names in holders.items()]
    # What else is within the program.
    parts += [file.read_text() for file in sorted(ROOT.glob("src/**/licences.txt"))]
    return f"\n{'=' * 100}\n\n".join(["What is compiled into rerankd, and under which licences.\n", *parts])


def licences(folder):
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "models/builtin/NOTICE", folder / "NOTICE")
    (folder / "THIRD-PARTY.txt").write_text(third_party())


def binary(profile):
    name = f"rerankd-{VERSION}-{MACHINE}-linux"
    program = build(profile)
    folder = fresh(WORK / "binary") / name
    folder.mkdir()
    shutil.copy(program, folder)
    for file in ["README.md", "LICENSE", "CHANGELOG.md", "config/default.toml", "packaging/rerankd.service"]:
        shutil.copy(ROOT / file, folder)
    licences(folder)
    manual(program, folder / "share/man/man1")
    completions(program, folder)
    archive = PACKAGES / f"{name}.tar.gz"
    stamp = commit_time()

    def plain(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = stamp
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with gzip.GzipFile(archive, "wb", mtime=stamp) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(folder, name, filter=plain)
    report(archive)


def wheel(profile):
    maturin = TOOLS / "python/bin/maturin"
    if not maturin.exists() or MATURIN not in run(maturin, "--version"):
        run(sys.executable, "-m", "venv", TOOLS / "python")
        run(TOOLS / "python/bin/pip", "install", "--quiet", f"maturin=={MATURIN}")
    out = fresh(WORK / "wheel")
    texts = ROOT / "packaging/python/rerankd/THIRD-PARTY.txt"
    texts.write_text(third_party())
    try:
        # It calls cargo with the same profile and folder: what `binary` has compiled is taken as it is.
        run(maturin, "build", "--locked", "--profile", profile, "--out", out)
    finally:
        texts.unlink()
    (made,) = out.iterdir()
    made = made.replace(PACKAGES / made.name)
    report(made)
    return made


def deb(profile):
    tool("dpkg-deb", "a Debian package is made on Debian or Ubuntu only")
    tool("dpkg-shlibdeps", "`apt install dpkg-dev` brings it")
    program = build(profile)
    # Laid out as in a source package, as dpkg-shlibdeps wants it.
    source = fresh(WORK / "deb")
    root = source / "debian/rerankd"
    control = root / "DEBIAN"
    control.mkdir(parents=True)
    files = {
        program: "usr/bin/rerankd",
        ROOT / "packaging/rerankd.service": "usr/lib/systemd/system/rerankd.service",
        ROOT / "packaging/rerankd.toml": "etc/rerankd/rerankd.toml",
        ROOT / "packaging/debian/copyright": "usr/share/doc/rerankd/copyright",
        ROOT / "README.md": "usr/share/doc/rerankd/README.md",
    }
    for file, place in files.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / place)
    licences(root / "usr/share/doc/rerankd")
    changes = (ROOT / "CHANGELOG.md").read_bytes()
    (root / "usr/share/doc/rerankd/changelog.gz").write_bytes(gzip.compress(changes, mtime=0))
    manual(program, root / "usr/share/man/man1")
    completions(program, root / "usr")
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) // 1024 + 1

    (source / "debian/control").write_text("Source: rerankd\n\nPackage: rerankd\nArchitecture: any\n")
    depends = run("dpkg-shlibdeps", "-O", root / "usr/bin/rerankd", cwd=source).strip()
    architecture = run("dpkg", "--print-architecture").strip()
    text = (ROOT / "packaging/debian/control").read_text()
    depends = depends.removeprefix("shlibs:Depends=")
    (control / "control").write_text(
        text.format(version=VERSION, architecture=architecture, size=size, depends=depends)
    )
    (control / "conffiles").write_text("/etc/rerankd/rerankd.toml\n")
    for script in ["postinst", "prerm", "postrm"]:
        shutil.copy(ROOT / "packaging/debian" / script, control)
    sums = [
        f"{hashlib.md5(file.read_bytes()).hexdigest()}  {file.relative_to(root)}\n"
        for file in sorted(root.rglob("*"))
        if file.is_file() and control not in file.parents and "etc" not in file.relative_to(root).parts
    ]
    (control / "md5sums").write_text("".join(sums))
    runnable = {root / "usr/bin/rerankd", *(control / script for script in ["postinst", "prerm", "postrm"])}
    for file in [root, *root.rglob("*")]:
        file.chmod(0o755 if file.is_dir() or file in runnable else 0o644)
    package = PACKAGES / f"rerankd_{VERSION}_{architecture}.deb"
    stamp = os.environ | {"SOURCE_DATE_EPOCH": str(commit_time())}
    run("dpkg-deb", "--root-owner-group", "--build", root, package, env=stamp)
    report(package)


def sbom(profile):
    wheels = list(PACKAGES.glob(f"rerankd-{VERSION}-*.whl")) or [wheel(profile)]
    # maturin has cargo-cyclonedx in it, and puts what that says into the wheel.
    inside = f"rerankd-{VERSION}.dist-info/sboms/rerankd.cyclonedx.json"
    file = PACKAGES / f"rerankd-{VERSION}-{MACHINE}-linux.cdx.json"
    with zipfile.ZipFile(wheels[0]) as archive:
        file.write_bytes(archive.read(inside))
    report(file)


def checksums(_profile):
    files = sorted(file for file in PACKAGES.iterdir() if file.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (PACKAGES / "SHA256SUMS").write_text("".join(lines))
    report(PACKAGES / "SHA256SUMS", f", of {len(files)} files")


def attempt(_profile):
    # What tries the packages knows nothing of how they are made.
    run(sys.executable, ROOT / "scripts/try_packages.py", PACKAGES, stdout=None)


STEPS = {"binary": binary, "wheel": wheel, "deb": deb, "sbom": sbom, "checksums": checksums, "try": attempt}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--profile dist|release] STEP...",
    )
    parser.add_argument("steps", metavar="STEP", nargs="+", choices=[*STEPS, "all"], help="one or more of the above")
    parser.add_argument("--profile", choices=["dist", "release"], default="dist", help="what is packed (default: dist)")
    arguments = parser.parse_args()
    if "all" in arguments.steps:
        fresh(PACKAGES)
    PACKAGES.mkdir(parents=True, exist_ok=True)
    if arguments.steps != ["try"]:
        # It would speak of what is about to change.
        (PACKAGES / "SHA256SUMS").unlink(missing_ok=True)
    for step in STEPS if "all" in arguments.steps else arguments.steps:
        STEPS[step](arguments.profile)


if __name__ == "__main__":
    main()
