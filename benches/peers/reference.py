"""A model folder in PyTorch, with transformers' and sentence-transformers' own code.

Two published families need remote code, but are in transformers under another name: their folders are
translated first (`native`).
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import AutoModel, AutoModelForSequenceClassification

# jina-reranker-v2's names of an XLM-RoBERTa's tensors; q, k and v are rows of one matrix there.
JINA_NAMES = [
    ("emb_ln.", "embeddings.LayerNorm."),
    ("encoder.layers.", "encoder.layer."),
    ("mixer.out_proj.", "attention.output.dense."),
    ("norm1.", "attention.output.LayerNorm."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
    ("norm2.", "output.LayerNorm."),
]
JINA_QKV = ("mixer.Wqkv.", ["attention.self.query.", "attention.self.key.", "attention.self.value."])


def native(model, place):
    """The folder itself, or a translation in `place` that transformers loads without remote code."""
    model = Path(model).resolve()
    config = json.loads((model / "config.json").read_text())
    remote = str(config.get("auto_map", ""))
    if config["model_type"] == "new":
        config, weights = as_gte(config), None
    elif config["model_type"] == "xlm-roberta" and "xlm-roberta-flash-implementation" in remote:
        weights = as_xlm_roberta(load_file(model / "model.safetensors"))
    else:
        return model
    target = Path(place) / model.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in model.iterdir():
        if file.is_file() and file.name != "config.json":
            (target / file.name).symlink_to(file)
    config.pop("auto_map", None)
    (target / "config.json").write_text(json.dumps(config, indent=1))
    if weights is not None:
        (target / "model.safetensors").unlink()
        save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


def as_gte(config):
    """The configuration of Alibaba-NLP's "new" models as transformers' "gte", which knows their tensors' names.

    Their NTK scaling by a factor s is a base s times as large, and all frequencies divided by s^(2/d), d a
    head's width (Su, 2023, <https://kexue.fm/archives/9706>).
    """
    factor, scaling = 1.0, config.pop("rope_scaling", None)
    if scaling:
        assert scaling["type"] == "ntk", f"unknown rope_scaling {scaling}"
        factor = scaling["factor"]
    width = config["hidden_size"] // config["num_attention_heads"]
    rope = {"rope_type": "linear", "factor": factor ** (2 / width), "rope_theta": config.pop("rope_theta") * factor}
    return config | {"model_type": "gte", "architectures": ["GteForSequenceClassification"], "rope_parameters": rope}


def as_xlm_roberta(tensors):
    translated = {}
    for name, tensor in tensors.items():
        for old, new in JINA_NAMES:
            name = name.replace(old, new)
        fused, parts = JINA_QKV
        if fused in name:
            for part, rows in zip(parts, tensor.chunk(3)):
                translated[name.replace(fused, part)] = rows.contiguous()
        else:
            translated[name] = tensor
    return translated


class Net(torch.nn.Module):
    """A native folder's forward pass: token ids, mask (and types), each of shape (pairs, tokens), to logits."""

    def __init__(self, folder, attention):
        super().__init__()
        options = {"attn_implementation": attention}
        self.head = None
        if (folder / "modules.json").exists():
            encoder = CrossEncoder(str(folder), device="cpu", model_kwargs=options)
            self.model = AutoModel.from_pretrained(folder, dtype=torch.float32, **options)
            self.head = torch.nn.ModuleList(list(encoder)[1:])
        else:
            self.model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **options)
        self.eval()

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        if self.head is None:
            return self.model(**inputs).logits
        features = {"token_embeddings": self.model(**inputs).last_hidden_state, "attention_mask": attention_mask}
        for module in self.head:
            features = module(features)
        return features["scores"]
