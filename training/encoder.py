"""The bi-encoder that the cross-encoder starts from and learns from, all-MiniLM-L6-v2, and a
cross-encoder's folder, read and written."""

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import BertConfig, BertForSequenceClassification, BertModel


def half(device):
    """Whether to compute in bf16: not on a CPU without instructions for it, where a step took ten times as long
    (AMD EPYC with AVX2 only)."""
    return device != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class BiEncoder:
    """Mean-pooled, normalised embeddings."""

    def __init__(self, folder: Path, max_tokens=160):
        self.model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(self.device)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.no_padding()

    @torch.inference_mode()
    def encode(self, texts, what):
        """[texts, hidden size], float32."""
        encoded = [e.ids for e in self.tokenizer.encode_batch(texts)]
        order = np.argsort([len(ids) for ids in encoded], kind="stable")
        out = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        bar = tqdm(total=len(texts), desc=what, unit="text", mininterval=5)
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            ids, mask = pad([encoded[i] for i in batch], self.device)
            with torch.autocast(self.device, torch.bfloat16, enabled=half(self.device)):
                hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            hidden, weights = hidden.float(), mask.unsqueeze(-1).float()
            pooled = (hidden * weights).sum(1) / weights.sum(1)
            out[batch] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
            bar.update(len(batch))
        bar.close()
        return out


def pad(sequences, device):
    """Token ids [n, longest] and their mask, from lists of ids."""
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)


def load(folder: Path, **options):
    """The one-label cross-encoder in a folder, whose weights may be compact (compact.py)."""
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if f"{name}.scale" in tensors]:
        tensors[name] = tensors[name].float() * tensors.pop(f"{name}.scale")[:, None]
    config = BertConfig.from_pretrained(folder, num_labels=1, **options)
    model = BertForSequenceClassification(config)
    missing = [name for name in model.load_state_dict(tensors, strict=False).missing_keys if "position_ids" not in name]
    assert not missing, missing
    return model


def export(model, start, out):
    """Writes a model folder in the Hugging Face layout."""
    model.save_pretrained(out)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(start / file, out / file)
