"""The tiny models made of sentence-transformers' modules, saved by sentence-transformers itself."""

import tempfile
from pathlib import Path

import torch
import transformers
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

import cases
import vocabularies
from fixture import BERT_ROLES, EXACT, must_differ, new_folder, seeded, write_golden, write_json, write_tokenizer

HIDDEN, TOKENS = 32, 160


def backbone(folder, layers, seed):
    write_tokenizer(folder, *vocabularies.modernbert_bpe(), TOKENS, BERT_ROLES, type_ids=False)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.ModernBertConfig(
        vocab_size=len(auto),
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        local_attention=16,
        max_position_embeddings=TOKENS,
        bos_token_id=auto.cls_token_id,
        cls_token_id=auto.cls_token_id,
        eos_token_id=auto.sep_token_id,
        sep_token_id=auto.sep_token_id,
        pad_token_id=auto.pad_token_id,
    )
    seeded(transformers.AutoModel.from_config(config), seed).save_pretrained(folder)


def write_modular(name, about, layers, head, seed, older_pooling=False):
    folder = new_folder(name)
    with tempfile.TemporaryDirectory() as plain:
        backbone(Path(plain), layers, seed)
        transformer = Transformer(plain, transformer_task="feature-extraction", model_kwargs=EXACT)
    for module in head:
        seeded(module, seed := seed + 100)
    made = CrossEncoder(modules=[transformer, *head], device="cpu", activation_fn=torch.nn.Identity())
    made.save_pretrained(str(folder), create_model_card=False)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    if older_pooling:
        kinds = "cls_token mean_tokens max_tokens mean_sqrt_len_tokens weightedmean_tokens lasttoken".split()
        kinds = {f"pooling_mode_{kind}": kind == "mean_tokens" for kind in kinds}
        pooling = {"word_embedding_dimension": HIDDEN, **kinds, "include_prompt": True}
        write_json(folder / "1_Pooling" / "config.json", pooling)

    encoder = CrossEncoder(str(folder), device="cpu", max_length=TOKENS, model_kwargs=EXACT)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = cases.with_edges(auto, [9, 17, TOKENS])

    def score(modules):
        def logits_of(encoded):
            features = dict(encoded)
            for module in modules:
                features = module(features)
            return features["scores"]

        return cases.reference(auto, logits_of, pairs, TOKENS, torch.nn.Identity())

    written = score(list(encoder.eval()))
    cases.must_agree(written, encoder)
    for i in (i for i, module in enumerate(encoder) if isinstance(module, LayerNorm)):
        modules = list(encoder)
        left_out = modules.pop(i)
        must_differ(written, score(modules), f"without {type(left_out).__name__}")
    write_golden(name, about, TOKENS, written)


def ettin():
    write_modular(
        "tiny-ettin", "modules: ModernBERT, first token, dense without bias and GELU, norm, dense to one score",
        4,
        [
            Pooling(HIDDEN, "cls"),
            Dense(HIDDEN, HIDDEN, bias=False, activation_function=torch.nn.GELU()),
            LayerNorm(HIDDEN),
            Dense(HIDDEN, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
        ],
        20,
    )


def ettin_mean():
    write_modular(
        "tiny-ettin-mean", "modules: ModernBERT, mean of all tokens by the older settings, dense with bias and "
        "tanh, dense to one score",
        4,
        [
            Pooling(HIDDEN, "mean"),
            Dense(HIDDEN, HIDDEN // 2, bias=True, activation_function=torch.nn.Tanh()),
            Dense(HIDDEN // 2, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
        ],
        30,
        older_pooling=True,
    )
