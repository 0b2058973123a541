#!/usr/bin/env python3
"""Runs the kernels' tests for aarch64 under QEMU, on an x86-64 machine with Debian 12.

    python3 scripts/emulate_arm64.py [--] [ARGUMENT OF THE TESTS ...]

Ends with 0 only if all tests passed. What it needs comes from Debian's packages, as root: QEMU and a cross compiler are
installed; the standard library for aarch64 (with Debian's own Rust, since a toolchain of rustup's has it only after
`rustup target add aarch64-unknown-linux-gnu`, and is used then) is unpacked into target/arm64. This checks results, not
speed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "target" / "arm64"
TRIPLE = "aarch64-unknown-linux-gnu"
TOOLS = {"qemu-aarch64": "qemu-user", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"}
DEBIAN_RUSTC = "/usr/bin/rustc"


def run(*command, **options):
    if subprocess.run(command, **options).returncode != 0:
        sys.exit(f"emulate_arm64.py: {' '.join(map(str, command))} failed; its message above says why")


def output(*command):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def install(packages):
    run("apt-get", "update", "--quiet")
    run("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *packages)


def standard_library():
    """Variables for cargo: a compiler, and flags with the standard library for aarch64."""
    installed = Path(output("rustc", "--print", "sysroot").strip())
    if (installed / "lib/rustlib" / TRIPLE).is_dir():
        return {}
    sysroot = FOLDER / "unpacked/usr"
    if not (sysroot / "lib/rustlib" / TRIPLE).is_dir():
        if not Path("/usr/share/doc/rustc-web").is_dir():
            install(["rustc-web"])
        unpack_for_arm64("libstd-rust-web-dev")
    return {"RUSTC": DEBIAN_RUSTC, "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS": f"--sysroot {sysroot}"}


def unpack_for_arm64(package):
    """Unpacks the package and the libraries that it names; this machine's list of architectures stays as it is."""
    (FOLDER / "lists/partial").mkdir(parents=True, exist_ok=True)
    (FOLDER / "packages").mkdir(exist_ok=True)
    settings = [
        f"Dir::State::lists={FOLDER / 'lists'}",
        f"Dir::Cache={FOLDER / 'cache'}",
        "Acquire::Languages=none",
        "APT::Sandbox::User=root",
        "APT::Architectures::=amd64",
        "APT::Architectures::=arm64",
    ]
    options = [word for setting in settings for word in ("-o", setting)]
    run("apt-get", *options, "update", "--quiet")
    depends = output("apt-cache", *options, "depends", f"{package}:arm64").split()
    libraries = {word.removesuffix(":arm64") for word in depends if word.startswith("libstd-rust-web")}
    wanted = [f"{name}:arm64" for name in sorted(libraries | {package})]
    run("apt-get", *options, "download", "--quiet", *wanted, cwd=FOLDER / "packages")
    for archive in (FOLDER / "packages").glob("*.deb"):
        run("dpkg", "-x", archive, FOLDER / "unpacked")
    shutil.rmtree(FOLDER / "packages")
    shutil.rmtree(FOLDER / "lists")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="*", help="the tests'; after -- if they begin with a dash")
    arguments = parser.parse_args().arguments
    missing = [packages for tool, packages in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        install(" ".join(missing).split())
    variables = {
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER": "aarch64-linux-gnu-gcc",
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER": "qemu-aarch64 -L /usr/aarch64-linux-gnu",
        **standard_library(),
    }
    command = ["cargo", "test", "--release", "--locked", "--package", "rerankd-kernels", "--lib", "--target", TRIPLE]
    command += ["--target-dir", FOLDER / "build", "--", *arguments]
    started = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env=os.environ | variables).returncode
    print(f"emulate_arm64.py: code {code} after {time.monotonic() - started:.0f} s")
    sys.exit(code)


if __name__ == "__main__":
    main()
