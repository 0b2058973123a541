"""Writes a model's weights as compact safetensors: every matrix as 8-bit integers with a scale for
each row (src/engine/tensors.rs reads it), the rest in f32. A quarter of the size."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

# Longest pair that it was trained on; longer ones rank worse (README.md).
MAX_TOKENS = 256
# In how many windows of that a longer document is read, unless rerankd is told otherwise.
WINDOWS = 4
# Shares of a row's greatest weight that are tried as the greatest integer: clipping few large
# weights can cost less than coarser steps for all.
CLIPS = [1.0, 0.97, 0.94, 0.9, 0.86, 0.82]


def rows(matrix):
    """Integers [rows, columns] and scales [rows] with the least squared error over CLIPS."""
    greatest = matrix.abs().amax(dim=1).clamp_min(1e-12)
    best = None
    for clip in CLIPS:
        scale = greatest * clip / 127
        integers = (matrix / scale[:, None]).round().clamp(-127, 127)
        error = ((integers * scale[:, None] - matrix) ** 2).sum(dim=1)
        if best is None:
            best = [error, scale, integers]
        else:
            better = error < best[0]
            best[0] = torch.where(better, error, best[0])
            best[1] = torch.where(better, scale, best[1])
            best[2] = torch.where(better[:, None], integers, best[2])
    return best[2].to(torch.int8), best[1].float()


def compact(folder: Path, out: Path):
    """Writes `folder`'s model to `out`, with the SHA-256 of each file in SHA256SUMS."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name.endswith("position_ids"):
            continue
        if tensor.dim() == 2 and tensor.shape[0] > 1:
            tensors[name], tensors[f"{name}.scale"] = rows(tensor.float())
        else:
            tensors[name] = tensor.float().contiguous()
    save_file(dict(sorted(tensors.items())), out / "model.safetensors", {"format": "pt"})
    shutil.copy(folder / "tokenizer.json", out / "tokenizer.json")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_max_length"] = MAX_TOKENS
    settings["max_chunks_per_doc"] = WINDOWS
    (out / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")
    config = json.loads((folder / "config.json").read_text())
    for key in ("_name_or_path", "transformers_version", "dtype", "torch_dtype"):
        config.pop(key, None)
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    files = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    sums = [f"{sha256((out / file).read_bytes()).hexdigest()}  {file}\n" for file in files]
    (out / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    import sys

    compact(Path(sys.argv[1]), Path(sys.argv[2]))
