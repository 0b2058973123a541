#!/usr/bin/env python3
"""Makes model folders in the full size of published rerankers, with seeded random weights.

    python3 scripts/shapes.py ettin-17m target/shapes/ettin-17m
    python3 scripts/shapes.py --list

For speed, memory and exactness where the real weights can't be had; the scores mean nothing. Files,
configuration and tensors' names are as published; the tokenizer is a small one of the family's kind, of
which the embedding table's first rows are used. Runs in the virtual environment of benches/peers, which
it makes (benches/peers/README.md).
"""

import argparse
import json
import math
import shutil
import string
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches" / "peers"))

from engines import in_environment  # noqa: E402
from qwen3_shape import qwen3  # noqa: E402
from texts import QUERY, WORDS  # noqa: E402

SEED = 0


# Tokenizers. Each of the words is one token, alone or behind a space.

WORDS = sorted({*WORDS, *QUERY.split()})
LETTERS = [chr(c) for c in range(33, 127)]


def wordpiece(unused=()):
    """BERT's; `unused` are plain words of its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = special + [*unused] + LETTERS + [f"##{letter}" for letter in LETTERS] + [w for w in WORDS if len(w) > 1]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return framed(tokenizer, special, "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")


def byte_level():
    """ModernBERT's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # The trainer merges as long as a pair is left, so that each word ends as one token.
    trainer = trainers.BpeTrainer(
        vocab_size=10000, special_tokens=special, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([form for word in WORDS for form in (word, f" {word}")], trainer)
    return framed(tokenizer, special, "[CLS] $A [SEP] $B [SEP]", model_input_names=["input_ids", "attention_mask"])


def unigram(special, unknown, frame, **settings):
    """Of sentencepiece's kind: DeBERTa-v3's and XLM-RoBERTa's."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = [(token, 0.0) for token in special if token not in ("[MASK]", "<mask>")]
    vocab += [(f"▁{word}", -5.0) for word in WORDS] + [(letter, -12.0) for letter in ["▁", *LETTERS]]
    vocab += [(token, 0.0) for token in special if token in ("[MASK]", "<mask>")]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=special.index(unknown)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return framed(tokenizer, special, frame, **settings)


def deberta_tokenizer():
    return unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], "[UNK]", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")


def xlm_roberta_tokenizer():
    names = ["input_ids", "attention_mask"]
    return unigram(
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<unk>", "<s> $A </s> </s> $B </s>", model_input_names=names
    )


def framed(tokenizer, special, pair, **settings):
    """With special tokens around a pair, as transformers' tokenizer."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=pair[: pair.index(" $B")].removesuffix(" </s>") if "<s>" in special else pair[: pair.index(" $B")],
        pair=pair,
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in special],
    )
    for form in (form for word in WORDS for form in (word, f"{word} {word}")):
        assert len(tokenizer.encode(form, add_special_tokens=False).ids) == len(form.split()), form
    roles = {"pad": "pad_token", "unk": "unk_token", "cls": "cls_token", "sep": "sep_token", "mask": "mask_token",
             "s": "cls_token", "/s": "sep_token"}
    roles = {roles[token.strip("[]<>").lower()]: token for token in special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles, **settings)


# Weights.


def randomise(model, seed):
    """Fills all parameters as if trained: activations keep their size, and no bias is 0 or norm 1.

    A matrix that takes n values gets a deviation of 1/sqrt(n), one into a residual stream that nothing
    normalises less; embeddings, which a norm follows, any.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    layers = len([name for name, _ in model.named_modules() if name.endswith(".mlp_norm")])
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.normal_(generator=generator)
            if parameter.dim() == 1:
                parameter.mul_(0.1).add_(1.0 if name.endswith("weight") else 0.0)
            elif "embeddings" in name:
                parameter.mul_(0.05 if "word" in name or "tok_" in name or "rel_" in name else 0.02)
            else:
                parameter.div_(math.sqrt(parameter.shape[1]))
                if name.endswith(".Wo.weight"):
                    parameter.div_(math.sqrt(layers))


# Families. Each writes a folder, given the shape.

ONE_LABEL = {"num_labels": 1, "id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}


def save(model, tokenizer, folder, longest):
    tokenizer.model_max_length = longest
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def bert(folder, hidden, layers, heads):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden,
        vocab_size=30522, **ONE_LABEL,
    )
    model = BertForSequenceClassification(config)
    randomise(model, SEED)
    save(model, wordpiece(), folder, 512)


def modernbert_config(tokenizer, hidden, layers, feed_forward, local_theta, **settings):
    from transformers import ModernBertConfig

    ids = {role: getattr(tokenizer, f"{role}_id") for role in ("pad_token", "cls_token", "sep_token")}
    return ModernBertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64, intermediate_size=feed_forward,
        vocab_size=50368, max_position_embeddings=8192, local_attention=128, global_attn_every_n_layers=3,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": local_theta},
        },
        bos_token_id=ids["cls_token"], eos_token_id=ids["sep_token"],
        **{f"{role}_id": id_ for role, id_ in ids.items()}, **settings,
    )


def modernbert(folder, hidden, layers, feed_forward):
    from transformers import ModernBertForSequenceClassification

    tokenizer = byte_level()
    config = modernbert_config(
        tokenizer, hidden, layers, feed_forward, 10000.0, classifier_pooling="mean", **ONE_LABEL
    )
    model = ModernBertForSequenceClassification(config)
    randomise(model, SEED)
    save(model, tokenizer, folder, 8192)


def modular(folder, hidden, layers, feed_forward):
    """sentence-transformers' modules: encoder, first token, dense, norm, dense."""
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules.transformer import Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.sentence_transformer.modules.layer_norm import LayerNorm
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling
    from transformers import ModernBertModel

    tokenizer = byte_level()
    save(ModernBertModel(modernbert_config(tokenizer, hidden, layers, feed_forward, 160000.0)), tokenizer, folder, 8192)
    modules = [
        Transformer(str(folder)),
        Pooling(hidden, "cls"),
        Dense(hidden, hidden, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(hidden),
        Dense(hidden, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    encoder = CrossEncoder(modules=modules, device="cpu", activation_fn=torch.nn.Identity())
    shutil.rmtree(folder)
    randomise(encoder, SEED)
    encoder.save_pretrained(str(folder), create_model_card=False)


def pylate(folder, hidden, layers, feed_forward, size):
    """PyLate's late interaction: encoder and dense, a vector for each token."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import AddedToken
    from transformers import ModernBertModel

    tokenizer = byte_level()
    # Each marker is one token, and comes after all others.
    tokenizer.add_tokens([AddedToken(marker, special=True, normalized=False) for marker in ("[Q] ", "[D] ")])
    model = ModernBertModel(modernbert_config(tokenizer, hidden, layers, feed_forward, 160000.0))
    randomise(model, SEED)
    save(model, tokenizer, folder, 512)
    (folder / "1_Dense").mkdir()
    write_config(folder / "1_Dense", {
        "in_features": hidden, "out_features": size, "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    })
    generator = torch.Generator().manual_seed(SEED)
    dense = torch.randn(size, hidden, generator=generator).div_(math.sqrt(hidden))
    save_file({"linear.weight": dense}, folder / "1_Dense" / "model.safetensors")
    write_json(folder / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ])
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 511, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", {
        "model_type": "ColBERT", "prompts": {"query": "", "document": ""}, "default_prompt_name": None,
        "similarity_fn_name": "MaxSim", "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 48,
        "document_length": 512, "attend_to_expansion_tokens": False, "do_query_expansion": False,
        "skiplist_words": list(string.punctuation),
    })


def stanford(folder, hidden, layers, heads, size):
    """ColBERT's own files: the projection beside a BERT, its settings in artifact.metadata."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertModel

    tokenizer = wordpiece(["[unused0]", "[unused1]"])
    config = BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden,
        vocab_size=30522,
    )
    model = BertModel(config, add_pooling_layer=False)
    randomise(model, SEED)
    save(model, tokenizer, folder, 512)
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    generator = torch.Generator().manual_seed(SEED)
    tensors["linear.weight"] = torch.randn(size, hidden, generator=generator).div_(math.sqrt(hidden))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    write_config(folder, json.loads((folder / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]})
    write_json(folder / "artifact.metadata", {
        "query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_token": "[Q]", "doc_token": "[D]",
        "query_maxlen": 32, "doc_maxlen": 300, "dim": size, "attend_to_mask_tokens": False, "mask_punctuation": True,
        "similarity": "cosine",
    })


def deberta(folder, hidden, layers, heads):
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    config = DebertaV2Config(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden,
        vocab_size=128100, max_position_embeddings=512, type_vocab_size=0, layer_norm_eps=1e-7,
        relative_attention=True, max_relative_positions=-1, position_buckets=256, pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False, pooler_dropout=0,
        pooler_hidden_act="gelu", pooler_hidden_size=hidden, **ONE_LABEL,
    )
    model = DebertaV2ForSequenceClassification(config)
    randomise(model, SEED)
    save(model, deberta_tokenizer(), folder, 512)


def new(folder, hidden, layers, heads):
    """Made as transformers' "gte", whose saved tensors have the published names but for the prefix."""
    from safetensors.torch import load_file, save_file
    from transformers import GteConfig, GteForSequenceClassification

    shape = dict(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden,
        vocab_size=250048, max_position_embeddings=8192, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-12,
    )
    model = GteForSequenceClassification(GteConfig(**shape, num_labels=1))
    randomise(model, SEED)
    save(model, xlm_roberta_tokenizer(), folder, 8192)
    tensors = load_file(folder / "model.safetensors")
    tensors = {f"new.{name[4:]}" if name.startswith("gte.") else name: tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    remote = {"AutoConfig": "configuration.NewConfig", "AutoModel": "modeling.NewModel",
              "AutoModelForSequenceClassification": "modeling.NewForSequenceClassification"}
    config = shape | {
        "architectures": ["NewForSequenceClassification"], "model_type": "new",
        "auto_map": {key: f"Alibaba-NLP/new-impl--{name}" for key, name in remote.items()},
        "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
        "initializer_range": 0.02, "layer_norm_type": "layer_norm", "logn_attention_clip1": False,
        "logn_attention_scale": False, "pack_qkv": True, "position_embedding_type": "rope",
        "rope_scaling": {"factor": 8.0, "type": "ntk"}, "rope_theta": 20000, "dtype": "float32",
        "unpad_inputs": False, "use_memory_efficient_attention": False,
    }
    write_config(folder, config)


def jina(folder, hidden, layers, heads):
    """XLM-RoBERTa with other names of the tensors, and query, key and value in one."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    shape = dict(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden,
        vocab_size=250002, max_position_embeddings=1026, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1,
        bos_token_id=0, eos_token_id=2,
    )
    model = XLMRobertaForSequenceClassification(XLMRobertaConfig(**shape, num_labels=1))
    randomise(model, SEED)
    save(model, xlm_roberta_tokenizer(), folder, 1024)
    tensors = load_file(folder / "model.safetensors")
    published = {}
    for name, tensor in tensors.items():
        if ".self.key." in name or ".self.value." in name:
            continue
        if ".self.query." in name:
            parts = [tensors[name.replace("query", part)] for part in ("query", "key", "value")]
            name, tensor = name.replace("attention.self.query", "mixer.Wqkv"), torch.cat(parts)
        elif name.startswith("roberta.encoder"):
            for standard, theirs in [
                ("attention.output.dense", "mixer.out_proj"), ("attention.output.LayerNorm", "norm1"),
                ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"), ("output.LayerNorm", "norm2"),
            ]:
                name = name.replace(standard, theirs)
        else:
            name = name.replace("embeddings.LayerNorm", "emb_ln")
        published[name.replace("encoder.layer.", "encoder.layers.")] = tensor
    save_file(published, folder / "model.safetensors", {"format": "pt"})
    code = "jinaai/xlm-roberta-flash-implementation--"
    config = shape | {
        "architectures": ["XLMRobertaForSequenceClassification"], "model_type": "xlm-roberta",
        "auto_map": {
            "AutoConfig": f"{code}configuration_xlm_roberta.XLMRobertaFlashConfig",
            "AutoModelForSequenceClassification": f"{code}modeling_xlm_roberta.XLMRobertaForSequenceClassification",
        },
        "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "initializer_range": 0.02, "num_labels": 1,
        "position_embedding_type": "absolute", "dtype": "float32", "use_cache": False, "use_flash_attn": False,
    }
    write_config(folder, config)


def write_config(folder, config):
    write_json(folder / "config.json", config)


def write_json(file, content):
    file.write_text(json.dumps(content, indent=1) + "\n")


# The published sizes: family, hidden size, layers, heads or the feed-forward width, and the vectors' size.
SHAPES = {
    "minilm-l6": (bert, 384, 6, 12),
    "bert-base": (bert, 768, 12, 12),
    "ettin-17m": (modular, 256, 7, 384),
    "ettin-32m": (modular, 384, 10, 576),
    "ettin-150m": (modular, 768, 22, 1152),
    "gte-modernbert-base": (modernbert, 768, 22, 1152),
    "mxbai-rerank-xsmall-v1": (deberta, 384, 12, 6),
    "mxbai-rerank-base-v1": (deberta, 768, 12, 12),
    "gte-multilingual-reranker-base": (new, 768, 12, 12),
    "jina-reranker-v2-base-multilingual": (jina, 768, 12, 12),
    # mxbai-edge-colbert-v0-17m and answerai-colbert-small-v1.
    "colbert-17m": (pylate, 256, 7, 384, 48),
    "answerai-colbert-small": (stanford, 384, 12, 12, 96),
    "qwen3-reranker-0.6b": (qwen3, 1024, 28, 3072),
    # Not published: the same in short, for quick tries.
    "qwen3-tiny-bench": (qwen3, 1024, 4, 3072),
}
# Those of which a pair of texts is one input; check_shapes.py checks these.
CROSS_ENCODERS = [name for name, (family, *_) in SHAPES.items() if family not in (pylate, stanford, qwen3)]


def make(name, folder):
    """Writes the folder unless it is there."""
    folder = Path(folder)
    if (folder / "made").exists():
        return
    family, *shape = SHAPES[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    family(folder, *shape)
    # Last, since its presence says that the folder is whole.
    (folder / "made").touch()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("name", nargs="?", choices=SHAPES)
    parser.add_argument("folder", nargs="?", type=Path, help="where it is made (default: target/shapes/NAME)")
    parser.add_argument("--list", action="store_true", help="print the names")
    arguments = parser.parse_args()
    if arguments.list or not arguments.name:
        print("\n".join(SHAPES))
        return
    in_environment()
    folder = arguments.folder or ROOT / "target" / "shapes" / arguments.name
    make(arguments.name, folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
