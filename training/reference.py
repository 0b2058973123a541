"""Writes tests/golden/builtin.json: logits of the built-in model by transformers, which the engine must
give within 1e-4.

    python3 training/reference.py models/builtin tests/golden/builtin.json
"""

import json
import sys
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from encoder import load

LONG = "Rain falls on the hills, and the river carries it through the valley to the sea. " * 60
CASES = [
    (
        "What is the capital of France?",
        ["Berlin is the capital and largest city of Germany.", "Paris is the capital of France.", ""],
    ),
    (
        "why do rivers reach the sea",
        [LONG, "Water flows downhill until it meets the ocean.", "A cat sleeps. " * 9, "Über Flüsse, 河流, 🌊"],
    ),
]


def main(folder: Path, out: Path):
    model = load(folder).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    limit = json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"]
    cases = []
    for query, documents in CASES:
        logits = []
        for document in documents:
            pair = tokenizer(
                [query],
                [document],
                truncation="longest_first",
                max_length=min(limit, model.config.max_position_embeddings),
                return_token_type_ids=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits.append(round(model(**pair).logits.item(), 6))
        cases.append({"query": query, "documents": documents, "logits": logits})
    out.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
