#!/usr/bin/env python3
"""Fuzzes what reads input that others write: requests, model files, settings, rows (fuzz/fuzz_targets/).

    python3 scripts/fuzz.py [--target NAME ...] [--seconds 1800]
    python3 scripts/fuzz.py --list
    python3 scripts/fuzz.py --keep

Each target is built with coverage, AddressSanitizer and overflow checks and runs for the given time, one after the
other, on its seeds (fuzz/seeds/), the kept corpus (fuzz/corpus/) and what earlier runs found (fuzz/target/corpus/). An
input that ends the process, fails an assertion, takes 10 seconds or too much memory is a finding: it is written to
fuzz/artifacts/, the command that runs it again is printed, and the exit status is 1. `--keep` writes the smallest part
of what was found that covers the same code to fuzz/corpus/. The first build takes 15 to 30 minutes on two cores.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUZZ = ROOT / "fuzz"
TRIPLE = "x86_64-unknown-linux-gnu"
# No input may take longer, or make the process larger, or ask for so much at once.
LIMITS = ["-timeout=10", "-rss_limit_mb=1024", "-malloc_limit_mb=512"]
# Bytes of the longest input; each target's seeds are shorter.
LONGEST = {"weights": 32 << 10, "codings": 16 << 10, "template": 4 << 10, "texts": 2 << 10}
# Bytes of an input that is worth keeping, and of all that are kept of a target.
KEPT_INPUT, KEPT = 2 << 10, 24 << 10


def targets():
    return sorted(path.stem for path in (FUZZ / "fuzz_targets").glob("*.rs"))


def check_tools():
    if not shutil.which("rustup") or "nightly" not in subprocess.check_output(["rustup", "toolchain", "list"], text=True):
        sys.exit("fuzzing needs a nightly toolchain: rustup toolchain install nightly --profile minimal")
    if not shutil.which("cargo-fuzz"):
        sys.exit("fuzzing needs cargo-fuzz: cargo install cargo-fuzz")


def environment(temporary=None):
    # Freed memory is watched, but not much of it, since the limit on memory counts it.
    environment = dict(os.environ, ASAN_OPTIONS="detect_odr_violation=0:quarantine_size_mb=16:detect_leaks=0")
    if temporary:
        environment["TMPDIR"] = temporary
    return environment


def built(name):
    subprocess.run(
        ["cargo", "+nightly", "fuzz", "build", "--target", TRIPLE, "--codegen-units", "8", name], cwd=ROOT, check=True
    )
    return FUZZ / "target" / TRIPLE / "release" / name


def corpora(name):
    """Where finds go, and what a run begins with."""
    folders = [FUZZ / "target/corpus" / name, FUZZ / "seeds" / name, FUZZ / "corpus" / name]
    folders[0].mkdir(parents=True, exist_ok=True)
    return [folder for folder in folders if folder.is_dir()]


def run(name, seconds):
    """Whether a target found nothing."""
    program = built(name)
    artifacts = FUZZ / "artifacts"
    artifacts.mkdir(exist_ok=True)
    command = [program, *corpora(name), f"-max_total_time={seconds}", f"-artifact_prefix={artifacts}/{name}-"]
    command += [*LIMITS, f"-max_len={LONGEST.get(name, 8 << 10)}", "-detect_leaks=0", "-print_final_stats=1"]
    dictionary = FUZZ / "dictionaries" / f"{name}.dict"
    if dictionary.exists():
        command.append(f"-dict={dictionary}")
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    lines = []
    with tempfile.TemporaryDirectory(dir=memory, prefix="rerankd-fuzz-") as temporary:
        process = subprocess.Popen(
            command, env=environment(temporary), stderr=subprocess.PIPE, text=True, errors="replace", cwd=ROOT
        )
        for line in process.stderr:
            lines.append(line)
            # What it does all the time is not worth a line.
            if not re.match(r"#\d+\s+(NEW|REDUCE|RELOAD)", line):
                sys.stderr.write(line)
        found = process.wait() != 0
    last = [line for line in lines if re.match(r"#\d+\s", line)]
    print(f"{name}: {'a finding' if found else 'nothing found'}; {last[-1].strip() if last else 'no run'}")
    for line in lines:
        written = re.search(r"Test unit written to (\S+)", line)
        if written:
            print(f"run it again: {program.relative_to(ROOT)} {written[1]} {' '.join(LIMITS)}")
    return not found


def keep(name):
    """Writes the smallest part of what was found to fuzz/corpus/."""
    program = built(name)
    kept = FUZZ / "corpus" / name
    with tempfile.TemporaryDirectory() as merged:
        merging = [program, "-merge=1", merged, *corpora(name), *LIMITS, "-detect_leaks=0"]
        subprocess.run(merging, env=environment(), check=True, stderr=subprocess.DEVNULL, cwd=ROOT)
        seeds = {path.read_bytes() for path in (FUZZ / "seeds" / name).glob("*")}
        inputs = [path for path in Path(merged).iterdir() if path.stat().st_size <= KEPT_INPUT]
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        left = KEPT
        for path in sorted(inputs, key=lambda path: (path.stat().st_size, path.name)):
            left -= path.stat().st_size
            if left < 0:
                break
            if path.read_bytes() not in seeds:
                shutil.copy(path, kept / path.name)
    print(f"{name}: {len(list(kept.iterdir()))} inputs kept")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the targets")
    parser.add_argument("--target", action="append", choices=targets(), metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--seconds", type=int, default=1800, help="how long each target runs (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the smallest part of what was found, and run nothing")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(targets()))
        return
    check_tools()
    chosen = arguments.target or targets()
    if arguments.keep:
        for name in chosen:
            keep(name)
        return
    # One after the other, and all of them whatever one finds.
    clean = [run(name, arguments.seconds) for name in chosen]
    sys.exit(0 if all(clean) else 1)


if __name__ == "__main__":
    main()
