"""Translates model folders of two families whose published code is remote, but whose arithmetic transformers has.

Imports no PyTorch, so that engines without it do not carry its memory.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

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
    """The folder itself, or a translation in `place` that transformers loads without remote code.

    A translation that is newer than the folder's weights is taken as it is.
    """
    model = Path(model).resolve()
    config = json.loads((model / "config.json").read_text())
    is_new = config["model_type"] == "new"
    if not is_new and "xlm-roberta-flash-implementation" not in str(config.get("auto_map")):
        return model
    target, source = Path(place) / model.name, model / "model.safetensors"
    made = target / "config.json"
    if made.exists() and made.stat().st_mtime > source.stat().st_mtime:
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in model.iterdir():
        if file.is_file() and file.name != "config.json":
            (target / file.name).symlink_to(file)
    if is_new:
        config = as_gte(config)
    else:
        (target / "model.safetensors").unlink()
        save_file(as_xlm_roberta(load_file(source)), target / "model.safetensors", {"format": "pt"})
    config.pop("auto_map")
    # Last, since its presence says that the folder is whole.
    made.write_text(json.dumps(config, indent=1))
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
            for part, rows in zip(parts, np.split(tensor, 3)):
                translated[name.replace(fused, part)] = np.ascontiguousarray(rows)
        else:
            translated[name] = tensor
    return translated
