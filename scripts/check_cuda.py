#!/usr/bin/env python3
"""Checks that rerankd compiles for CUDA, on a machine without a GPU and without CUDA's toolkit.

    python3 scripts/check_cuda.py

The compiler comes as packages of Python's index into target/cuda/toolkit. The check is `cargo check --release
--features cuda` with target/cuda as its folder: the GPU's kernels are compiled by nvcc, rerankd's code is checked,
nothing is linked and nothing runs. It takes 6 to 15 minutes on two cores, most of it one run of nvcc. To build rerankd for a GPU, see
docs/packages.md.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "target" / "cuda"
TOOLKIT = TARGET / "toolkit"
# All of one version, and of none that the library for CUDA does not know yet.
PARTS = ["nvidia-cuda-nvcc", "nvidia-cuda-runtime", "nvidia-cuda-cccl", "nvidia-nvvm", "nvidia-cuda-crt"]
VERSION = "13.0.*"


def toolkit():
    """The toolkit's folder, with bin, include and nvvm in it."""
    found = sorted(TOOLKIT.glob("lib/python*/site-packages/nvidia/cu*/bin/nvcc"))
    if not found:
        subprocess.run([sys.executable, "-m", "venv", TOOLKIT], check=True)
        wanted = [f"{part}=={VERSION}" for part in PARTS]
        if subprocess.run([TOOLKIT / "bin/pip", "install", "--quiet", *wanted]).returncode != 0:
            sys.exit("check_cuda.py: pip could not install the toolkit; its message above says why")
        found = sorted(TOOLKIT.glob("lib/python*/site-packages/nvidia/cu*/bin/nvcc"))
    if not found:
        sys.exit(f"check_cuda.py: no nvcc is in {TOOLKIT}; remove that folder and try again")
    return found[0].parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compute-cap", default="80", metavar="N", help="compute capability (default: 80, an A100's)")
    arguments = parser.parse_args()
    folder = toolkit()
    variables = os.environ | {
        "CUDA_HOME": str(folder),
        "CUDA_COMPUTE_CAP": arguments.compute_cap,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    started = time.monotonic()
    command = ["cargo", "check", "--release", "--locked", "--features", "cuda", "--target-dir", TARGET]
    code = subprocess.run(command, cwd=ROOT, env=variables).returncode
    print(f"check_cuda.py: code {code} after {time.monotonic() - started:.0f} s")
    sys.exit(code)


if __name__ == "__main__":
    main()
