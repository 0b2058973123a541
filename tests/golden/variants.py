"""Writes variants.json: tiny models with altered files, and what the reference makes of each.

    .venv/bin/python tests/golden/variants.py

A variant names a tiny model and how its files differ: `edits` sets keys of a JSON file (a new one, if
need be), `remove` deletes files, `vocabulary` writes the vocabulary of tokenizer.json as the older
files and deletes it. The reference is sentence-transformers' CrossEncoder, with all its defaults.
"""

import json
import shutil
import tempfile
from pathlib import Path

import sentence_transformers
import torch
import transformers

TESTS = Path(__file__).resolve().parent.parent
MODELS = TESTS / "fixtures" / "models"

QUERY = "How do RIVERS shape the Länder?"
DOCUMENTS = [
    "Rivers carve valleys and carry sediment to the sea.",
    "Ünïcödé: ein Fluß, une RIVIÈRE, река, 河流 e\u0301",
    "[SEP] <s> </s> [CLS] special  tokens <mask> [MASK] as text",
    " ".join(["the water of the river runs down to the sea and the land changes"] * 9 + ["rain"]),
    "",
]

IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
TRANSFORMER = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}
SAVED = {"model_type": "CrossEncoder", "prompts": {}, "default_prompt_name": None, "activation_fn": SIGMOID}


def saved(saved=None, transformer=None, **files):
    """A folder as sentence-transformers 6 saves it."""
    return {
        "modules.json": MODULES,
        "config_sentence_transformers.json": SAVED | (saved or {}),
        "sentence_bert_config.json": TRANSFORMER | (transformer or {}),
        **files,
    }


def tokenizer(**settings):
    return {"tokenizer_config.json": settings}


def variants():
    """Name, model, edits, and what else differs."""
    bert, roberta, xlmr = "tiny-bert", "tiny-roberta", "tiny-xlmr"
    own = dict(tokenizer_class="BertTokenizer")
    yield "activation in sentence-transformers' file", bert, saved({"activation_fn": IDENTITY}), {}
    yield (
        "activation in both files", bert,
        saved({"activation_fn": IDENTITY}) | {"config.json": {"sentence_transformers": {"activation_fn": SIGMOID}}}, {},
    )
    yield "saved with the older key of another activation", roberta, saved(), {}
    yield "saved without an activation", roberta, saved({"activation_fn": None}), {}
    yield (
        "sentence-transformers' files without modules", bert,
        {k: v for k, v in saved({"activation_fn": IDENTITY}, {"max_seq_length": 20}).items() if k != "modules.json"}, {},
    )
    yield (
        "of another kind of model", bert,
        saved({"activation_fn": IDENTITY, "model_type": "SentenceTransformer"}, {"max_seq_length": 20}), {},
    )
    yield "max_seq_length", bert, saved(None, {"max_seq_length": 20}), {}
    yield (
        "settings of the tokenizer in sentence_bert_config.json", bert,
        saved(None, {"max_seq_length": 20, "processor_kwargs": {"model_max_length": 24, "do_lower_case": False}})
        | tokenizer(**own), {},
    )
    yield (
        "settings of processing", bert,
        saved(None, {"max_seq_length": 20, "processing_kwargs": {"text": {"max_length": 16}}}), {},
    )
    yield "lowercased before all else", bert, saved(None, {"do_lower_case": True}) | tokenizer(do_lower_case=False, **own), {}
    yield (
        "a default prompt", bert,
        saved({"default_prompt_name": "q", "prompts": {"q": "why does water flow? ", "other": "x"}}), {},
    )
    yield "cased", bert, tokenizer(do_lower_case=False, **own), {}
    yield "cased, with accents stripped", bert, tokenizer(do_lower_case=False, strip_accents=True, **own), {}
    yield "accents kept", bert, tokenizer(tokenizer_class="BertTokenizerFast", strip_accents=False), {}
    yield "Chinese characters not split", bert, tokenizer(tokenize_chinese_chars=False, **own), {}
    yield (
        "settings that are not there are the class's, whatever tokenizer.json says", bert,
        {"tokenizer.json": {
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                           "strip_accents": None, "lowercase": False},
            "post_processor": None,
        }}, {"remove": ["tokenizer_config.json"]},
    )
    yield "settings of no class are not applied", bert, tokenizer(do_lower_case=False, strip_accents=False), {}
    yield "no post-processor", bert, {"tokenizer.json": {"post_processor": None}}, {}
    yield "no post-processor, but a class", bert, {"tokenizer.json": {"post_processor": None}} | tokenizer(**own), {}
    yield "the beginning is cut", bert, tokenizer(truncation_side="left"), {}
    yield (
        "the beginning is cut, as tokenizer.json says", bert,
        {"tokenizer.json": {"truncation": {"direction": "Left", "max_length": 12, "strategy": "LongestFirst", "stride": 0}}}, {},
    )
    yield "no segments", bert, tokenizer(model_input_names=["input_ids", "attention_mask"]), {}
    yield "other special tokens", bert, tokenizer(cls_token="[MASK]", sep_token={"__type": "AddedToken", "content": "[PAD]", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}, **own), {}
    yield "special tokens split", bert, tokenizer(split_special_tokens=True, **own), {}
    yield "more special tokens", bert, tokenizer(extra_special_tokens=["river"]), {}
    flags = dict(lstrip=False, normalized=False, rstrip=False, single_word=False)
    yield (
        "tokens that tokenizer_config.json lists", bert,
        tokenizer(added_tokens_decoder={
            "3": dict(content="[SEP]", special=True, **flags), "2": dict(content="[CLS]", special=True, **flags),
            "4": dict(content="[MASK]", special=True, **flags | {"lstrip": True}),
        }, **own), {},
    )
    yield "the older key of the length", bert, tokenizer(max_len=20), {"without": {"tokenizer_config.json": ["model_max_length"]}}
    yield "vocab.txt", bert, tokenizer(**own), {"vocabulary": True}
    yield "vocab.txt, cased", bert, tokenizer(do_lower_case=False, **own), {"vocabulary": True}
    yield "vocab.txt alone", bert, {}, {"vocabulary": True, "remove": ["tokenizer_config.json"]}
    yield (
        "vocab.txt with older files of tokens", bert,
        {"special_tokens_map.json": {"cls_token": "[MASK]", "sep_token": {"content": "[SEP]", "lstrip": False,
         "normalized": False, "rstrip": False, "single_word": False}}, "added_tokens.json": {"river": 404}} | tokenizer(**own),
        {"vocabulary": True},
    )
    yield "no class of model", bert, {"config.json": {"architectures": None, "id2label": {"0": "a", "1": "b"}}}, {}
    roberta_class = dict(tokenizer_class="RobertaTokenizer")
    yield "RoBERTa's tokenizer", roberta, tokenizer(**roberta_class), {}
    yield (
        "RoBERTa's tokenizer with a space before", roberta,
        {"tokenizer.json": {"post_processor": None}} | tokenizer(add_prefix_space=True, **roberta_class), {},
    )
    yield "vocab.json and merges.txt", roberta, tokenizer(**roberta_class), {"vocabulary": True}
    # Without a length the reference fails on what is longer than the position table.
    xlmr_class = dict(tokenizer_class="XLMRobertaTokenizerFast", model_max_length=128)
    yield "XLM-RoBERTa's tokenizer", xlmr, {"tokenizer.json": {"post_processor": None}} | tokenizer(**xlmr_class), {}
    yield "XLM-RoBERTa's tokenizer without a space before", xlmr, tokenizer(add_prefix_space=False, **xlmr_class), {}
    yield (
        "no post-processor for XLM-RoBERTa", xlmr,
        {"tokenizer.json": {"post_processor": None}} | tokenizer(model_max_length=128), {},
    )


def write_vocabulary(folder):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    words = sorted(model["vocab"], key=model["vocab"].get)
    (folder / "tokenizer.json").unlink()
    if "merges" in model:
        merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
        (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    else:
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")


def main():
    written = []
    for name, model, edits, more in variants():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder) / "model"
            shutil.copytree(MODELS / model, folder)
            if more.get("vocabulary"):
                write_vocabulary(folder)
            for file in more.get("remove", []):
                (folder / file).unlink()
            for file, edit in edits.items():
                value = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
                value = edit if isinstance(edit, list) else value | edit
                for key in more.get("without", {}).get(file, []):
                    del value[key]
                (folder / file).write_text(json.dumps(value, ensure_ascii=False))
            encoder = sentence_transformers.CrossEncoder(str(folder), device="cpu")
            prompt = encoder._resolve_prompt(None, None)
            ids = [encoder.preprocess([(QUERY, d)], prompt=prompt)["input_ids"][0].tolist() for d in DOCUMENTS]
            scores = [float(encoder.predict([(QUERY, d)])[0]) for d in DOCUMENTS]
        written.append(dict(name=name, model=model, edits=edits, **more, tokens=[len(i) for i in ids], ids=ids, scores=scores))
        print(name, [len(i) for i in ids], [round(s, 4) for s in scores])
    golden = dict(
        reference=dict(
            transformers=transformers.__version__,
            sentence_transformers=sentence_transformers.__version__,
            torch=torch.__version__,
        ),
        query=QUERY,
        documents=DOCUMENTS,
        variants=written,
    )
    text = json.dumps(golden, ensure_ascii=True)
    (TESTS / "golden" / "variants.json").write_text(text.replace('{"name"', '\n {"name"') + "\n")


if __name__ == "__main__":
    main()
