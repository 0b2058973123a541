#!/usr/bin/env python3
"""Compiles proto/ to proto/descriptors.bin, by which the server's reflection tells of its gRPC services.

    python3 scripts/protos.py            writes the file anew
    python3 scripts/protos.py --check    fails if it is out of date

It needs the Python package grpcio-tools, of which tests/compat/requirements/grpc.txt has a version;
tests/compat/run.py does the check.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent.parent / "proto"
DESCRIPTORS = PROTO / "descriptors.bin"


def compiled():
    """The messages and services of all files in proto/."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        files = [path.name for path in sorted(PROTO.glob("*.proto"))]
        code = protoc.main(["protoc", f"--proto_path={PROTO}", f"--descriptor_set_out={out}", *files])
        if code != 0:
            sys.exit(code)
        return FileDescriptorSet.FromString(out.read_bytes())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        DESCRIPTORS.write_bytes(compiled().SerializeToString(deterministic=True))
    # Compared as messages: versions of the compiler may write the same in other bytes.
    elif FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()) != compiled():
        sys.exit(f"{DESCRIPTORS} is out of date: python3 scripts/protos.py writes it anew")


if __name__ == "__main__":
    main()
