"""Writes fixtures/tokenizers and tokenizer_files.json: vocabulary files, and what transformers makes of them.

    .venv/bin/python tests/golden/tokenizer_files.py

A case is a folder of files without weights: `files` are copied from tests/fixtures, `json` is written.
The reference is transformers' AutoTokenizer.
"""

import io
import json
import shutil
import tempfile
from pathlib import Path

import sentencepiece
import tokenizers
import transformers

TESTS = Path(__file__).resolve().parent.parent
FIXTURES = TESTS / "fixtures"
CORPUS = (TESTS / "golden" / "corpus.txt").read_text(encoding="utf-8").splitlines()
USER_DEFINED = "<sea>"

QUERY = "How do RIVERS shape the Länder?"
DOCUMENT = "Rivers carve valleys [MASK] and <mask> carry  sediment."
TEXTS = [
    "",
    " ",
    "the river and the sea",
    "  The RIVER,  the SEA. And?  ",
    "two  spaces   and\ttabs\t\tand\nlines\n\nand\r\nmore",
    "no\u00a0break \u00a0 two\u00a0\u00a0b wide\u3000space\u3000\u3000x \u2009thin\u2028line\u0085x",
    "\u00a0. \u3000中 x\u00a0.y",
    "caf\u00e9 na\u00efve cafe\u0301 e\u0301\u0301 \u0301x Stra\u00dfe \u0130stanbul \u03a3\u0391\u03a3",
    "\ufb01ne \u2460 \u00bd \uff21\uff22\uff43 \uff11\uff12 \uff01 \u210c",
    "中文 字符,今日は東京に行く。中a文",
    "한국어 문장 \u1112\u1161\u11ab",
    "मराठी न\u093f ไทย مرحبا",
    "🙂 🙂🙂 a🙂b 👩\u200d👩 👍🏽",
    "1,234.56 10% 12 345 6, $5 2024-01-02",
    "don't `` '' ``tex'' \"quoted\" 'single' it's",
    "(in) [brackets] {here} a-b a--b -- c_d",
    "zero\u200bwidth \u200b \ufeffmark a\u00adb \u0001c\u0000d \u007f \ufffd",
    "[CLS] [SEP] [PAD] [UNK] [MASK] the[MASK]sea",
    "<s> </s> <pad> <unk> <mask> the <mask>sea <s>NOTUSED <unk>NOTUSED",
    "x <sea> the<sea>river <SEA> <mas",
    "▁the ▁ a▁b ▁▁ ##ing # Ġa",
    "water" * 30,
    "x" * 120 + " sea",
    "http://a.b/c?d=e&f=g#h \\ / | ~ ^",
    "trailing \u00a0",
    "\n leading",
    "river,sea;rain:water!the?and",
    "the <extra_id_0> sea<extra_id_99>",
]


def rules():
    """A small part of sentencepiece's nmt_nfkc, whose whole table takes a third of a megabyte."""
    pairs = {0xFF01 + i: [0x21 + i] for i in range(94)}
    pairs |= dict.fromkeys([0x09, 0x0A, 0x0D, 0xA0, 0x3000, 0x2009, 0x2028, 0x200B, 0xFEFF], [0x20])
    pairs |= dict.fromkeys([0x01, 0x7F, 0xAD], [])
    pairs |= {0xFB01: [0x66, 0x69], 0x2460: [0x31], 0xBD: [0x31, 0x2044, 0x32]}
    lines = [f"{source:X}\t{' '.join(f'{t:X}' for t in target)}\n" for source, target in pairs.items()]
    lines.append("65 301\tE9\n")
    return "".join(lines)


def sentencepiece_model(name, **settings):
    trained = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as table:
        table.write(rules())
        table.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=trained, vocab_size=300, hard_vocab_limit=False,
            normalization_rule_tsv=table.name, num_threads=1, minloglevel=2, **settings,
        )
    (FIXTURES / "tokenizers" / name).write_bytes(trained.getvalue())


def vocabularies():
    shutil.rmtree(FIXTURES / "tokenizers", ignore_errors=True)
    (FIXTURES / "tokenizers").mkdir()
    sentencepiece_model("fairseq.model", user_defined_symbols=[USER_DEFINED])
    sentencepiece_model(
        "deberta.model", pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]",
        eos_piece="[SEP]", unk_piece="[UNK]", user_defined_symbols=[USER_DEFINED],
    )
    sentencepiece_model(
        "albert.model", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]"],
        user_defined_symbols=["[MASK]", USER_DEFINED],
    )
    sentencepiece_model("bpe.model", model_type="bpe")
    sentencepiece_model("t5.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, user_defined_symbols=[USER_DEFINED])
    words = (FIXTURES / "models" / "tiny-legacy" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = [word for word in words if not (word.startswith("[") and len(word) > 1)]
    words = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", *words, "<mask>"]
    (FIXTURES / "tokenizers" / "mpnet.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def cases():
    """Name, model_type, vocabulary files, tokenizer_config.json or None, other JSON files."""

    def fixture(name):
        return f"tokenizers/{name}"

    def added(content, **flags):
        flags = dict(lstrip=False, normalized=False, rstrip=False, single_word=False, special=True) | flags
        return dict(__type="AddedToken", content=content, **flags)

    fairseq = {"sentencepiece.bpe.model": fixture("fairseq.model")}
    yield "XLM-RoBERTa", "xlm-roberta", fairseq, None, {}
    yield "XLM-RoBERTa, the fast class", "xlm-roberta", fairseq, dict(tokenizer_class="XLMRobertaTokenizerFast"), {}
    yield (
        "XLM-RoBERTa without a space before", "xlm-roberta", fairseq,
        dict(tokenizer_class="XLMRobertaTokenizer", add_prefix_space=False, mask_token=added("<mask>", lstrip=True)), {},
    )
    yield (
        "XLM-RoBERTa with tokens of its own", "xlm-roberta", fairseq,
        dict(bos_token="<b>", eos_token="<e>", additional_special_tokens=["river", added("rain", lstrip=True)]), {},
    )
    yield (
        "XLM-RoBERTa's tokenizer of a model that transformers doesn't know", "other", fairseq,
        dict(tokenizer_class="XLMRobertaTokenizer"), {},
    )
    yield "CamemBERT", "camembert", fairseq, None, {}
    yield (
        "CamemBERT with a mask that takes no space", "camembert", fairseq,
        dict(tokenizer_class="CamembertTokenizer", mask_token=added("<mask>"), additional_special_tokens=["river"]), {},
    )
    deberta = {"spm.model": fixture("deberta.model")}
    yield "DeBERTa", "deberta-v2", deberta, dict(do_lower_case=False, vocab_type="spm"), {}
    yield "DeBERTa, the fast class, lowercased", "deberta-v2", deberta, dict(
        do_lower_case=True, tokenizer_class="DebertaV2TokenizerFast"), {}
    yield "DeBERTa, split at punctuation", "deberta-v2", deberta, dict(
        split_by_punct=True, tokenizer_class="DebertaV2Tokenizer"), {}
    yield "DeBERTa without a space before", "deberta-v2", deberta, dict(add_prefix_space=False), {}
    yield (
        "DeBERTa with older files of tokens", "deberta-v2", deberta, dict(tokenizer_class="DebertaV2Tokenizer"),
        {
            "added_tokens.json": {"rain": 301, "[MASK]": 300},
            "special_tokens_map.json": {
                "bos_token": "[CLS]", "mask_token": {k: v for k, v in added("[MASK]", lstrip=True).items() if k not in ("__type", "special")},
                "additional_special_tokens": ["ignored"],
            },
        },
    )
    albert = {"spiece.model": fixture("albert.model")}
    yield "ALBERT", "albert", albert, None, {}
    yield "ALBERT, cased, with accents and segments", "albert", albert, dict(
        tokenizer_class="AlbertTokenizer", do_lower_case=False, keep_accents=True,
        model_input_names=["input_ids", "attention_mask", "token_type_ids"]), {}
    t5 = {"spiece.model": fixture("t5.model")}
    yield "T5", "t5", t5, None, {}
    yield "T5, the fast class, with its further tokens named", "t5", t5, dict(
        tokenizer_class="T5TokenizerFast", extra_ids=100,
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(100)]), {}
    yield "mT5", "mt5", t5, dict(tokenizer_class="T5Tokenizer", extra_ids=0), {}
    mpnet = {"vocab.txt": fixture("mpnet.txt")}
    yield "MPNet", "mpnet", mpnet, None, {}
    yield "MPNet, cased, the fast class", "mpnet", mpnet, dict(
        do_lower_case=False, tokenizer_class="MPNetTokenizerFast", mask_token="<mask>"), {}
    words = {"vocab.txt": "models/tiny-legacy/vocab.txt"}
    yield "DistilBERT", "distilbert", words, None, {}
    yield "DistilBERT, the class", "distilbert", words, dict(tokenizer_class="DistilBertTokenizer", strip_accents=False), {}
    yield "ELECTRA", "electra", words, None, {}
    yield "ELECTRA, the fast class", "electra", words, dict(tokenizer_class="ElectraTokenizerFast", do_lower_case=False), {}
    unchanged = {"tokenizer.json": "models/tiny-bert/tokenizer.json"}
    yield "ModernBERT's tokenizer.json is not rebuilt", "modernbert", unchanged, dict(
        tokenizer_class="BertTokenizer", do_lower_case=False, cls_token="[MASK]"), {}
    yield "ModernBERT's tokenizer.json without a class", "modernbert", unchanged, None, {}
    for name, kind, class_, settings in [
        ("deberta", "deberta-v2", "DebertaV2Tokenizer", dict(split_by_punct=True, do_lower_case=True)),
        ("camembert", "camembert", "CamembertTokenizerFast", dict(add_prefix_space=False)),
        ("albert", "albert", "AlbertTokenizerFast", dict(keep_accents=True)),
        ("t5", "t5", "T5TokenizerFast", dict(additional_special_tokens=["river"])),
    ]:
        saved = {"tokenizer.json": fixture(f"{name}.json")}
        yield f"{class_}'s tokenizer.json", kind, saved, None, {}
        yield f"{class_}'s tokenizer.json with other settings", kind, saved, dict(tokenizer_class=class_, **settings), {}
        yield f"{class_}'s tokenizer.json unchanged", kind, saved, dict(tokenizer_class="PreTrainedTokenizerFast", **settings), {}
    stripped = {"tokenizer.json": fixture("mpnet.json")}
    yield "MPNet's tokenizer.json", "mpnet", stripped, dict(tokenizer_class="MPNetTokenizer", do_lower_case=False), {}


def save(tokenizer, name, **changes):
    """Writes a tokenizer.json whose normalizer and post-processor are not what the class builds."""
    value = json.loads(tokenizer.backend_tokenizer.to_str()) | changes
    (FIXTURES / "tokenizers" / name).write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


SAVED = {
    # As of the older versions, which had sentencepiece's normalisation for DeBERTa.
    "DeBERTa": ("deberta.json", dict(post_processor=None)),
    "CamemBERT": ("camembert.json", dict(post_processor=None, added_tokens=[])),
    "ALBERT": ("albert.json", {}),
    "T5": ("t5.json", dict(post_processor=None)),
    "MPNet": ("mpnet.json", dict(normalizer=None, post_processor=None)),
}


def main():
    vocabularies()
    written = []
    for name, model_type, files, settings, more in cases():
        more = {"config.json": {"model_type": model_type, "vocab_size": 1000}} | more
        if settings is not None:
            more["tokenizer_config.json"] = settings
        with tempfile.TemporaryDirectory() as folder:
            for file, source in files.items():
                shutil.copy(FIXTURES / source, Path(folder) / file)
            for file, value in more.items():
                (Path(folder) / file).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        if name in SAVED:
            file, changes = SAVED[name]
            save(tokenizer, file, **changes)
        ids = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
        pair = tokenizer([QUERY], [DOCUMENT])
        types = pair.get("token_type_ids")
        written.append(dict(
            name=name, files=files, json=more, ids=ids, pair=pair["input_ids"][0], types=types[0] if types else None,
        ))
        print(name, type(tokenizer).__name__, len(tokenizer), pair["input_ids"][0][:12])
    golden = dict(
        reference=dict(transformers=transformers.__version__, tokenizers=tokenizers.__version__),
        query=QUERY, document=DOCUMENT, texts=TEXTS, cases=written,
    )
    text = json.dumps(golden, ensure_ascii=True)
    (TESTS / "golden" / "tokenizer_files.json").write_text(text.replace('{"name"', '\n {"name"') + "\n")


if __name__ == "__main__":
    main()
