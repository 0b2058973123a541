#!/usr/bin/env python3
"""Runs the kernels' tests on an emulated x86-64 CPU that has what this one lacks: AVX-512, AVX-VNNI, AMX.

    python3 scripts/emulate_x86.py [--cpu amx] [--] [ARGUMENT OF THE TESTS ...]
    python3 scripts/emulate_x86.py --cpu vnni --program PATH [--] [ARGUMENT ...]

Bochs, an interpreter of a whole PC, boots Debian's kernel with the program as its only one; what the program prints
is printed here, and its code is this script's. All comes from the packages of Debian 13 and its backports
into target/emulated (nothing is installed), by apt-get of a machine with Debian. This checks results, not speed.
"""

import argparse
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "target" / "emulated"
UNPACKED = FOLDER / "root"
LIBRARIES = UNPACKED / "usr/lib/x86_64-linux-gnu"
# The tools whose packages, with all that those need, are unpacked.
TOOLS = ["bochs", "bochs-term", "xorriso", "isolinux", "syslinux-common", "busybox-static"]
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
KERNEL = "linux-image-cloud-amd64"
# Bochs of this suite, since the next one's (3.1) divides wrongly; Linux of its backports, since 6.12 has no setcpuid.
SUITE = "trixie"
BACKPORTS = f"{SUITE}-backports"

ICE_LAKE = "corei7_icelake_u"
# Bochs' name for each CPU, and options of Linux.
CPUS = {
    # Without protection keys: Bochs and Linux count the bytes of their state differently beside that of tiles.
    # Bochs has no XFD, without which Linux uses no tiles; so Linux is told that it is there.
    "amx": (
        f'{ICE_LAKE}, add_features="avx512bf16 avx_vnni amx amx_int8 amx_bf16", exclude_features="pku"',
        "setcpuid=324",
    ),
    "bf16": (f'{ICE_LAKE}, add_features="avx512bf16"', ""),
    "vnni": (ICE_LAKE, ""),
    "avx512": ("corei7_skylake_x", ""),
    "avx-vnni": ('corei7_haswell_4770, add_features="avx_vnni"', ""),
    "avx2": ("corei7_haswell_4770", ""),
    "sse4": ("corei5_lynnfield_750", ""),
}

# Tests whose results Bochs makes wrong. It takes the signed bytes of AMX's tdpbusd as unsigned ones, up to 3.1: with
# that mended in its source (the second bytes of DPBDUS, cpu/avx/amx.cc), the test passes.
WRONG_HERE = {"amx": ["int8::tiles"]}

# The CPU's own clock is the only one; nothing that costs instructions.
LINUX = "console=ttyS0 loglevel=2 hpet=disable nokaslr mitigations=off nosmp tsc=reliable random.trust_cpu=on"

# Threads take turns (chrt -f) only where one waits, since Linux does not keep a thread's tiles without XFD (see CPUS).
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox stty -F /dev/ttyS0 raw -echo
export HOME=/tmp RUST_BACKTRACE=1 RUST_TEST_THREADS=1
cd /tmp
echo @@begin
/chrt -f 1 /bin/busybox sh /command
echo "@@end $?"
# Waits until that is sent.
/bin/busybox stty -F /dev/ttyS0 raw -echo
/bin/busybox poweroff -f
"""

BOCHS = """
config_interface: textconfig
display_library: term
romimage: file={unpacked}/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file={unpacked}/usr/share/vgabios/vgabios.bin
cpu: model={cpu}, ips=50000000, reset_on_triple_fault=0
memory: guest=1024, host=1024
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={folder}/disc.iso, status=inserted
com1: enabled=1, mode=file, dev={folder}/printed
log: {folder}/log
panic: action=fatal
error: action=ignore
info: action=report
debug: action=ignore
speaker: enabled=0
clock: sync=none
"""


def run(*command, **options):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, **options)
    if done.returncode != 0:
        sys.exit(f"emulate_x86.py: {' '.join(map(str, command))} failed; its message above says why")
    return done.stdout


def fetch():
    """Debian's packages into target/emulated, once."""
    if (FOLDER / "complete").exists():
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    for folder in ("lists/partial", "archives/partial"):
        (FOLDER / folder).mkdir(parents=True)
    (FOLDER / "nothing-installed").touch()
    targets = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian")
    address = next((line for line in targets.splitlines() if "security" not in line), None)
    if address is None:
        sys.exit("emulate_x86.py: apt-get knows no packages of Debian yet: run apt-get update first")
    source = f"Types: deb\nURIs: {address}\nSuites: {SUITE} {BACKPORTS}\nComponents: main\n"
    (FOLDER / "suites.sources").write_text(f"{source}Architectures: amd64\nSigned-By: {KEYS}\n")
    places = {
        "Dir::Etc::sourcelist": FOLDER / "suites.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": FOLDER / "lists",
        "Dir::State::status": FOLDER / "nothing-installed",
        "Dir::Cache": FOLDER,
        "Dir::Cache::archives": FOLDER / "archives",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in places.items() for word in ("-o", f"{name}={value}")]
    run("apt-get", *options, "update", "--quiet")
    run("apt-get", *options, "install", "--quiet", "--yes", "--download-only", "--no-install-recommends", *TOOLS)
    # The package of the kernel itself, without its modules and what would install it.
    depends = run("apt-cache", *options, "--target-release", BACKPORTS, "depends", KERNEL)
    version = re.search(r"Depends: linux-image-(\d\S+)", depends)[1]
    run("apt-get", *options, "download", "--quiet", f"linux-binary-{version}", cwd=FOLDER / "archives")
    for archive in sorted((FOLDER / "archives").glob("*.deb")):
        run("dpkg", "-x", archive, UNPACKED)
        archive.unlink()
    shutil.rmtree(FOLDER / "lists")
    (FOLDER / "complete").touch()


def of_unpacked(program):
    """The command for one of the unpacked programs, with the libraries that came with it."""
    return [LIBRARIES / "ld-linux-x86-64.so.2", "--library-path", LIBRARIES, UNPACKED / "usr/bin" / program]


def tests():
    """The kernels' tests, built."""
    command = ["cargo", "test", "--release", "--locked", "--package", "rerankd-kernels", "--lib", "--no-run"]
    lines = run(*command, "--message-format", "json", cwd=ROOT).splitlines()
    messages = [json.loads(line) for line in lines if line.startswith("{")]
    return next(message["executable"] for message in messages if message.get("executable"))


def with_libraries(program, folder, name):
    """Copies a program of this machine, and the libraries that it names, into a tree of the emulated one."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(program, target)
    named = subprocess.run(["ldd", program], text=True, capture_output=True).stdout
    for library in re.findall(r"(/\S+) \(0x", named):
        place = folder / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)


def archive(folder):
    """The tree as the kernel reads it at its start (cpio, "newc")."""
    parts = []
    entries = [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*"))]
    for number, (name, path) in enumerate([*entries, ("TRAILER!!!", None)], 1):
        content = path.read_bytes() if path and path.is_file() else b""
        mode = 0 if path is None else path.stat().st_mode
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        head = ("070701" + "".join(f"{field:08X}" for field in fields) + name).encode() + b"\0"
        parts += [head, b"\0" * (-len(head) % 4), content, b"\0" * (-len(content) % 4)]
    return b"".join(parts)


def disc(folder, program, arguments, linux):
    """A disc that starts the program."""
    tree = folder / "tree"
    for name in ("bin", "dev"):
        (tree / name).mkdir(parents=True)
    shutil.copy(UNPACKED / "usr/bin/busybox", tree / "bin/busybox")
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    with_libraries(shutil.which("chrt"), tree, "chrt")
    with_libraries(program, tree, "program")
    words = " ".join("'" + argument.replace("'", "'\\''") + "'" for argument in arguments)
    (tree / "command").write_text(f"exec /program {words}\n")
    boot = folder / "boot"
    boot.mkdir()
    (boot / "tree").write_bytes(archive(tree))
    shutil.copy(next((UNPACKED / "usr/lib/modules").glob("*/vmlinuz")), boot / "linux")
    for part in ("ISOLINUX/isolinux.bin", "syslinux/modules/bios/ldlinux.c32"):
        shutil.copy(UNPACKED / "usr/lib" / part, boot)
    menu = "DEFAULT it\nPROMPT 0\nLABEL it\nKERNEL linux\nINITRD tree\n"
    (boot / "isolinux.cfg").write_text(f"{menu}APPEND {LINUX} {linux}\n")
    loader = ["-b", "isolinux.bin", "-c", "catalog", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
    run(*of_unpacked("xorriso"), "-as", "mkisofs", "-quiet", "-o", folder / "disc.iso", *loader, boot)


def drain(terminal):
    """Reads what Bochs draws on its terminal, which nobody looks at."""
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:
        pass


def emulate(folder, cpu, seconds):
    """Runs the disc; prints what the program prints, and returns its code."""
    (folder / "bochsrc").write_text(BOCHS.format(unpacked=UNPACKED, folder=folder, cpu=cpu))
    variables = {
        "LTDL_LIBRARY_PATH": LIBRARIES / "bochs/plugins",
        "BXSHARE": UNPACKED / "usr/share/bochs",
        "TERM": "xterm",
        "TERMINFO_DIRS": f"{UNPACKED}/lib/terminfo:{UNPACKED}/usr/lib/terminfo:{UNPACKED}/usr/share/terminfo",
    }
    seen, drawn = pty.openpty()
    command = [*of_unpacked("bochs-bin"), "-q", "-f", folder / "bochsrc"]
    machine = subprocess.Popen(command, stdin=drawn, stdout=drawn, stderr=drawn, env=os.environ | variables)
    threading.Thread(target=drain, args=[seen], daemon=True).start()
    printed, started, at, begun, code = folder / "printed", time.monotonic(), 0, False, None
    while code is None:
        ended = machine.poll() is not None or time.monotonic() - started > seconds
        text = printed.read_bytes()[at:] if printed.exists() else b""
        # Whole lines only, but for the last.
        text = text if ended else text[: text.rfind(b"\n") + 1]
        at += len(text)
        for line in text.decode(errors="replace").splitlines():
            if found := re.fullmatch(r"@@end (\d+)", line):
                code = int(found[1])
            elif line == "@@begin":
                begun = True
            elif code is None:
                print(line, flush=True, file=sys.stdout if begun else sys.stderr)
        if ended or b"Kernel panic" in text:
            break
        time.sleep(0.2)
    machine.kill()
    machine.wait()
    if code is None:
        log = (folder / "log").read_text(errors="replace").splitlines() if (folder / "log").exists() else []
        print(*[line for line in log if "ips = " not in line][-20:], sep="\n", file=sys.stderr)
        sys.exit(f"emulate_x86.py: no code of the program within {seconds} s; Linux' and Bochs' last words are above")
    return code


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", choices=CPUS, default="amx", help="what the CPU has, and all before it (default: amx)")
    parser.add_argument("--program", help="a program of this machine in place of the kernels' tests")
    parser.add_argument("--seconds", type=int, default=7200, help="longest time (default: 7200)")
    parser.add_argument("arguments", nargs="*", help="the program's, or the tests'; after -- if they begin with a dash")
    arguments = parser.parse_args()
    fetch()
    program, given = arguments.program or tests(), arguments.arguments
    if not arguments.program:
        given += [word for name in WRONG_HERE.get(arguments.cpu, []) for word in ("--skip", name)]
    cpu, linux = CPUS[arguments.cpu]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        disc(Path(folder), program, given, linux)
        code = emulate(Path(folder), cpu, arguments.seconds)
    print(f"emulate_x86.py: code {code} after {time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
