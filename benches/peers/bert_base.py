#!/usr/bin/env python3
"""Writes a model folder in BERT-base's shape (12 layers, hidden size 768) with seeded random weights.

    target/peers/bin/python benches/peers/bert_base.py models/minilm models/bert-base

The tokenizer is the first folder's. Good for measuring speed, and for nothing else. `run.py` makes
the virtual environment.
"""

import shutil
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_labels=1)).eval()
    model.save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    print(f"{target}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} million weights")


if __name__ == "__main__":
    main()
