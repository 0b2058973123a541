"""Writes tests/golden/builtin.json: logits of the built-in model by transformers, which the engine must
give within 1e-4.

    python3 training/reference.py models/builtin tests/golden/builtin.json
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

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
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if f"{name}.scale" in tensors]:
        tensors[name] = tensors[name].float() * tensors.pop(f"{name}.scale")[:, None]
    config = BertConfig.from_pretrained(folder)
    model = BertForSequenceClassification(config).eval()
    missing = [name for name in model.load_state_dict(tensors, strict=False).missing_keys if "position_ids" not in name]
    assert not missing, missing
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
                max_length=min(limit, config.max_position_embeddings),
                return_token_type_ids=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits.append(round(model(**pair).logits.item(), 6))
        cases.append({"query": query, "documents": documents, "logits": logits})
    out.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
