"""A model folder in PyTorch, with transformers' and sentence-transformers' own code."""

import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModel, AutoModelForSequenceClassification


class Net(torch.nn.Module):
    """The forward pass of a folder that `native` gave: token ids, mask (and types), each of shape (pairs, tokens), to logits."""

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
