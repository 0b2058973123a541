#!/usr/bin/env python3
"""Writes fuzz/seeds/ (what each target begins with) and fuzz/models/ (models of a few weights, for the target `weights`).

python3 fuzz/seeds.py [--rerankd target/release/rerankd]. Parquet and Arrow need the program, which writes them."""

import argparse
import gzip
import io
import json
import pathlib
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import types
import zipfile
import zlib
from collections import OrderedDict

HERE = pathlib.Path(__file__).resolve().parent
TINY = HERE.parent / "tests/fixtures/models"


def seed(target, name, *parts):
    """One seed; numbers are the bytes that choose."""
    folder = HERE / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    whole = b"".join(bytes([p]) if isinstance(p, int) else p.encode() if isinstance(p, str) else p for p in parts)
    (folder / name).write_bytes(whole)


def http():
    query, documents = "rivers", ["rivers carve valleys", "the sea"]
    pairs = [[query, d] for d in documents]
    tensors = [
        {"name": "query", "datatype": "BYTES", "shape": [1, 1], "data": [[query]]},
        {"name": "documents", "datatype": "BYTES", "shape": [2], "data": documents},
    ]
    bodies = {
        "native": (0, {"query": query, "documents": documents, "top_n": 1, "return_documents": True, "max_tokens_per_doc": 9}),
        "native_objects": (0, {"query": query, "documents": [{"text": "a", "title": "b"}, {"text": "c"}], "rank_fields": ["title", "text"]}),
        "native_more": (1, {"model": "tiny-bert", "query": query, "documents": documents, "explain": True, "min_score": 0.1, "priority": "batch", "truncation_side": "left", "max_chunks_per_doc": 3, "overlap_tokens": 2}),
        "native_queries": (0, {"queries": [query, "sea"], "documents": documents, "combine": "max"}),
        "native_fusion": (0, {"query": query, "documents": documents, "first_stage_scores": [0.5, 1e9], "fusion": {"method": "rrf", "k": 60}}),
        "native_cascade": (0, {"query": query, "documents": documents, "cascade": [{"model": "tiny-bert", "keep": 1}, {"model": "tiny-qwen3-seqcls"}]}),
        "native_prompt": (0, {"model": "tiny-qwen3-seqcls", "query": query, "documents": documents, "instruction": "Is it wet?"}),
        "native_list": (0, {"model": "tiny-jina-v3", "query": query, "documents": documents}),
        "native_vectors": (0, {"model": "tiny-colbert-st", "query": query, "documents": documents}),
        "tei": (2, {"query": query, "texts": documents, "raw_scores": True, "return_text": True, "truncate": True, "truncation_direction": "Left"}),
        "weaviate": (2, {"query": query, "property": "a", "documents": documents}),
        "infinity_shared": (2, {"query": query, "documents": documents, "raw_scores": True, "model": "default/not-specified"}),
        "mixedbread": (4, {"query": query, "input": documents, "top_k": 1, "return_input": True}),
        "llama_cpp": (3, {"query": query, "texts": documents}),
        "dashscope": (5, {"model": "tiny-bert", "input": {"query": {"text": query}, "documents": documents}, "parameters": {"top_n": 1, "return_documents": True}}),
        "vertex": (10, {"instances": [{"query": query, "texts": documents}, {"query": "sea", "texts": ["a"]}], "parameters": None}),
        "predict": (11, {"inputs": pairs, "raw_scores": True}),
        "predict_one": (11, {"inputs": [query, "sea"]}),
        "score": (12, {"text_1": query, "text_2": documents}),
        "score_pairs": (13, {"queries": [query, query], "documents": documents}),
        "score_items": (13, {"queries": query, "items": documents}),
        "score_content": (12, {"data_1": {"content": [{"type": "text", "text": query}]}, "data_2": documents}),
        "infinity": (14, {"query": query, "documents": documents, "return_documents": True, "top_n": 1}),
        "voyage": (15, {"query": query, "documents": documents, "top_k": 1, "truncation": False}),
        "nim": (16, {"query": {"text": query}, "passages": [{"text": d} for d in documents], "truncate": "END"}),
        "pinecone": (18, {"query": query, "documents": [{"id": "1", "text": d} for d in documents], "rank_fields": ["text"], "parameters": {"truncate": "END"}}),
        "infer": (19, {"id": "1", "inputs": tensors, "outputs": [{"name": "scores"}]}),
    }
    for name, (path, body) in bodies.items():
        seed("http", name, path, json.dumps(body))
    seed("http", "surrogate", 0, '{"query": "\\ud800 \\u0000", "documents": ["\\udc00\\ud83d", ""], "top_n": 1e0}')
    seed("http", "deep", 2, '{"query": "a", "texts": ' + "[" * 100 + "]" * 100 + "}")
    seed("http", "broken", 1, b'\xef\xbb\xbf{"query": "a", "documents": ["\xff"]')


def codings():
    body = json.dumps({"query": "rivers", "texts": ["rivers carve valleys", "the sea"]}).encode()
    raw = zlib.compressobj(wbits=-15)
    bare = raw.compress(body) + raw.flush()
    # A brotli stream of one uncompressed block: 4 bits of sizes, a length of 16 bits, then the bytes and an empty last one.
    bits = 0b0 | (len(body) - 1) << 4 | 1 << 20
    brotli = bits.to_bytes(3, "little") + body + b"\x03"
    zstd = subprocess.run(["zstd", "-q", "-c"], input=body, capture_output=True, check=True).stdout
    for place, name, bytes_ in [
        (0, "gzip", gzip.compress(body, mtime=0)),
        (0, "gzip_twice", gzip.compress(body[:9], mtime=0) + gzip.compress(body[9:], mtime=0)),
        (0, "gzip_bomb", gzip.compress(b" " * 100_000, mtime=0)),
        (1, "deflate", zlib.compress(body)),
        (1, "deflate_bare", bare),
        (2, "brotli", brotli),
        (3, "zstd", zstd),
        (3, "zstd_skipped", b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd),
        (3, "zstd_bomb", subprocess.run(["zstd", "-q", "-c"], input=b" " * 100_000, capture_output=True, check=True).stdout),
        (4, "brotli_gzip", gzip.compress(brotli, mtime=0)),
        (5, "gzip_zstd", subprocess.run(["zstd", "-q", "-c"], input=gzip.compress(body, mtime=0), capture_output=True, check=True).stdout),
    ]:
        seed("codings", name, place, bytes_)


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    """A field of a message of protocol buffers."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def grpc():
    rerank = field(1, "rivers") + field(2, "rivers carve valleys") + field(2, "the sea") + field(3, 1) + field(4, 1) + field(5, 1) + field(6, 1)
    one = field(1, "rivers") + field(2, "the sea") + field(3, 1)
    pair = field(1, "rivers") + field(1, "the sea") + field(2, 1) + field(4, 1)

    def tensor(name, shape, texts):
        contents = b"".join(field(8, text) for text in texts)
        packed = b"".join(varint(n) for n in shape)
        return field(1, name) + field(2, "BYTES") + field(3, packed) + field(5, contents)

    infer = field(1, "tiny-bert") + field(3, "id") + field(5, tensor("query", [1], ["rivers"])) + field(5, tensor("documents", [2, 1], ["a", "b"]))
    parameter = field(4, field(1, "raw_scores") + field(2, field(1, 1)))
    raw = b"".join(field(5, field(1, name) + field(2, "BYTES") + field(3, bytes([count]))) for name, count in [("query", 1), ("documents", 2)])
    raw = field(1, "tiny-bert") + parameter + raw + field(7, struct.pack("<I", 1) + b"a") + field(7, struct.pack("<I", 1) + b"b" + struct.pack("<I", 0))
    seed("grpc", "rerank", 0, 0, rerank)
    seed("grpc", "rerank_gzip", 0, 1, gzip.compress(rerank, mtime=0))
    seed("grpc", "stream", 1, 2, one)
    seed("grpc", "frames", 1, 3, b"\0" + struct.pack(">I", len(one)) + one)
    seed("grpc", "predict", 2, 0, pair)
    seed("grpc", "infer", 3, 0, infer)
    seed("grpc", "infer_raw", 3, 0, raw)
    seed("grpc", "metadata", 4, 0, field(1, "tiny-bert"))
    seed("grpc", "info", 7, 0)
    seed("grpc", "health", 8, 0, field(1, "tei.v1.Rerank"))
    seed("grpc", "reflection", 9, 0, field(3, "tei.proto") + field(7, "x"))


def template():
    chat = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}<i>{{ m.content }}</i>\n{% elif m.role == 'query' %}"
        "Q: {{ m['content'] | trim }}\n{% else %}D: {{ m.content }}{% endif %}{% endfor %}"
    )
    for name, source in {
        "chat": chat,
        "macro": "{% macro a(x) %}[{{ x }}]{% endmacro %}{{ a(messages[0].content) }} {{ a(messages[1].content) }}",
        "methods": "{% set ns = namespace(x='') %}{% for m in messages %}{% set ns.x = ns.x ~ m.role.upper() ~ m.content.strip() %}{% endfor %}{{ ns.x }}{{ raise_exception('no') if false }}",
        "repeated": "{{ 'a' * 1000000 }}{{ messages }}",
        "range": "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "recursive": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
        "filters": "{{ messages | map(attribute='content') | list | join(',') | replace('a', 'bb') | indent(4) | tojson }}{{ '%s' % 'x' }}{{ 'a'.split(',') }}{{ 'x' | center(80) }}",
        "length": "{% if messages[1].content | length > 30 %}{{ messages[1].content[:30] }}{% endif %}",
        "generation": "{% generation %}{{ messages[0].content }}{% endgeneration %}{{ messages[1].content }}",
    }.items():
        seed("template", name, 0, source)
    seed("template", "parts", 1, "{% for m in messages %}{% for p in m.content %}{{ m.role }}: {{ p.text }}\n{% endfor %}{% endfor %}")


def tokenizer_files():
    fixtures = TINY.parent / "tokenizers"
    pieces = b""
    for piece, score, kind in [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("\u2581a", -1.0, 1), ("\u2581", -2.0, 1), ("b", -3.0, 1), ("<0x41>", 0.0, 6)]:
        pieces += field(1, field(1, piece) + b"\x15" + struct.pack("<f", score) + field(3, kind))
    unigram = pieces + field(2, field(3, 1)) + field(3, field(1, "identity") + field(3, 1) + field(4, 1))
    bpe = pieces + field(2, field(3, 2) + field(35, 1))
    added = [{"id": 0, "content": "[UNK]", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}]
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##b": 4, "river": 5, "##s": 6}
    word = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                           "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
                           "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}}},
        "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary},
    }
    seed("tokenizer_files", "wordpiece", 0, json.dumps(word))
    unigram_json = dict(word, normalizer={"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
                        pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
                        model={"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["\u2581a", -1.0], ["b", -2.0]], "byte_fallback": False})
    seed("tokenizer_files", "unigram", 1, json.dumps(unigram_json))
    bpe_json = dict(word, normalizer=None, post_processor=None,
                    pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "(?i:'s|'t)|\\p{L}+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": False}, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]},
                    model={"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                           "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})
    seed("tokenizer_files", "bpe", 2, json.dumps(bpe_json))
    seed("tokenizer_files", "vocab_txt", 3, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\nriver\n##s\n")
    seed("tokenizer_files", "albert", 4, unigram)
    seed("tokenizer_files", "camembert", 5, unigram)
    seed("tokenizer_files", "deberta", 6, bpe)
    for place, file, name in [(7, "tokenizer_config.json", "tiny-bert"), (8, "tokenizer_config.json", "tiny-xlmr"), (11, "config.json", "tiny-mpnet")]:
        seed("tokenizer_files", f"{file}_{name}", place, (TINY / name / file).read_bytes())
    seed("tokenizer_files", "special_tokens_map", 9, json.dumps({"bos_token": "<s>", "mask_token": {"content": "<mask>", "lstrip": True}, "additional_special_tokens": ["<a>"]}))
    seed("tokenizer_files", "added_tokens", 10, json.dumps({"[MASK]": 128000, "<a>": 3}))
    assert fixtures.is_dir()


def texts():
    for which, name in enumerate(["wordpiece", "unigram", "bytes", "deberta", "modernbert", "prompt", "llama", "t5"]):
        seed("texts", name, which, 0, 255, 255, 1, 0, "rivers\0Rivers carve valleys, and na\u00efve \u6771\u4eac \U0001f30a\u200d flows.\n\n 2024-11-27")
    seed("texts", "windows", 0, 0x44, 16, 255, 8, 3, "rivers\0" + "rivers carve valleys and the sea " * 8)
    seed("texts", "left", 1, 0x41, 20, 40, 1, 0, "a\0" + "the sea, \u6d77 " * 9)
    seed("texts", "whole", 5, 0x40, 255, 255, 1, 0, "\0<|im_end|> [MASK] </s>  \t")


class Storage:
    def __init__(self, key, count):
        self.key, self.count = key, count


class Tensor:
    def __init__(self, storage, shape):
        self.storage, self.shape = storage, shape

    def __reduce__(self):
        strides = [1]
        for size in reversed(self.shape[1:]):
            strides.insert(0, strides[0] * size)
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (self.storage, 0, tuple(self.shape), tuple(strides[: len(self.shape)]), False, OrderedDict())


def stand_in():
    """What PyTorch's pickles name, so that Python can write such a pickle without it."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    utils._rebuild_tensor_v2 = types.FunctionType((lambda: None).__code__, {}, "_rebuild_tensor_v2")
    utils._rebuild_tensor_v2.__module__, utils._rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    torch._utils = utils
    sys.modules["torch"], sys.modules["torch._utils"] = torch, utils
    return torch


class Pickler(pickle._Pickler):
    def persistent_id(self, object_):
        if isinstance(object_, Storage):
            return ("storage", sys.modules["torch"].FloatStorage, object_.key, "cpu", object_.count)
        return None


def pickled(shapes, values):
    stand_in()
    names, out = list(shapes), io.BytesIO()
    tensors = OrderedDict((n, Tensor(Storage(str(i), len(values[n]) // 4), shapes[n])) for i, n in enumerate(names))
    data = io.BytesIO()
    Pickler(data, 2).dump(tensors)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("model/data.pkl"), data.getvalue())
        archive.writestr(zipfile.ZipInfo("model/byteorder"), "little")
        for i, name in enumerate(names):
            archive.writestr(zipfile.ZipInfo(f"model/data/{i}"), values[name])
        archive.writestr(zipfile.ZipInfo("model/version"), "3\n")
    return out.getvalue()


def safetensors(shapes, values, dtype):
    header, data = {}, b""
    for name, shape in shapes.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values[name])]}
        data += values[name]
    head = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(head)) + head + data


def gguf(shapes, values, kind, more=b""):
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    infos, data = b"", b""
    for name, shape in shapes.items():
        size = b"".join(struct.pack("<Q", n) for n in reversed(shape))
        norm = len(shape) == 1
        infos += text(name) + struct.pack("<I", len(shape)) + size + struct.pack("<IQ", 0 if norm else kind, len(data))
        data += values[name] + bytes(-len(values[name]) % 32)
    meta = text("general.architecture") + struct.pack("<I", 8) + text("qwen3")
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), 1 + bool(more)) + meta + more + infos
    return head + bytes(-len(head) % 32) + data


def weights():
    rng = random.Random(7)
    models = HERE / "models"
    shutil.rmtree(models, ignore_errors=True)
    size = 4
    shapes = {"bert.embeddings.word_embeddings.weight": [8, size], "bert.embeddings.position_embeddings.weight": [8, size], "bert.embeddings.token_type_embeddings.weight": [2, size]}

    def dense(name, out, into):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [out, into], [out]

    def norm(name):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [size], [size]

    norm("bert.embeddings.LayerNorm")
    layer = "bert.encoder.layer.0"
    for part in ["query", "key", "value"]:
        dense(f"{layer}.attention.self.{part}", size, size)
    dense(f"{layer}.attention.output.dense", size, size)
    norm(f"{layer}.attention.output.LayerNorm")
    dense(f"{layer}.intermediate.dense", size, size)
    dense(f"{layer}.output.dense", size, size)
    norm(f"{layer}.output.LayerNorm")
    dense("bert.pooler.dense", size, size)
    dense("classifier", 1, size)

    def count(shape):
        product = 1
        for n in shape:
            product *= n
        return product

    floats = {n: b"".join(struct.pack("<f", rng.uniform(-1, 1)) for _ in range(count(s))) for n, s in shapes.items()}
    halves = {n: b"".join(struct.pack("<e", rng.uniform(-1, 1)) for _ in range(count(s))) for n, s in shapes.items()}
    config = {
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 8, "hidden_size": size, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": size, "hidden_act": "gelu", "max_position_embeddings": 8, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0, "id2label": {"0": "LABEL_0"},
    }
    vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n"
    hidden = 32
    qwen = {
        "model_type": "qwen3", "architectures": ["Qwen3ForSequenceClassification"], "vocab_size": 8, "hidden_size": hidden, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": hidden, "hidden_act": "silu", "max_position_embeddings": 8, "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "tie_word_embeddings": True, "attention_bias": False, "pad_token_id": 0, "id2label": {"0": "LABEL_0"},
    }
    for name, settings in [("bert", config), ("bert-pickled", config), ("qwen3", qwen)]:
        (models / name).mkdir(parents=True)
        (models / name / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
        (models / name / "vocab.txt").write_text(vocabulary)
    seed("weights", "safetensors", 0, safetensors(shapes, floats, "F32"))
    seed("weights", "safetensors_half", 0, safetensors(shapes, halves, "F16"))
    seed("weights", "pickled", 1, pickled(shapes, floats))
    rows = {"token_embd.weight": [8, hidden], "output_norm.weight": [hidden], "cls.output.weight": [1, hidden]}
    for part, shape in {
        "attn_norm": [hidden], "attn_q": [32, hidden], "attn_k": [16, hidden], "attn_v": [16, hidden], "attn_q_norm": [16], "attn_k_norm": [16], "attn_output": [hidden, 32],
        "ffn_norm": [hidden], "ffn_gate": [hidden, hidden], "ffn_up": [hidden, hidden], "ffn_down": [hidden, hidden],
    }.items():
        rows[f"blk.0.{part}.weight"] = shape

    def blocks(shape, kind):
        if len(shape) == 1 or kind == 0:
            return b"".join(struct.pack("<f", rng.uniform(-1, 1)) for _ in range(count(shape)))
        size = {2: 16, 8: 32}[kind]
        return b"".join(struct.pack("<e", rng.uniform(0, 0.1)) + rng.randbytes(size) for _ in range(count(shape) // 32))

    for name, kind in [("gguf_q4_0", 2), ("gguf_q8_0", 8)]:
        seed("weights", name, 2, gguf(rows, {n: blocks(s, kind) for n, s in rows.items()}, kind))
    text = b"general.alignment"
    more = struct.pack("<Q", len(text)) + text + struct.pack("<II", 4, 0)
    seed("weights", "gguf_alignment", 2, gguf({}, {}, 0, more))


def model_configs():
    # The target's table: models in its order, their files in the order of their paths.
    source = (HERE / "fuzz_targets/model_configs.rs").read_text()
    names = re.findall(r'^    \("(tiny-[^"]+)", ', source, re.MULTILINE)
    for place, name in enumerate(names):
        files = [p for p in (TINY / name).rglob("*") if p.is_file() and p.name.endswith((".json", ".jinja", ".metadata")) and p.name != "tokenizer.json"]
        for number, path in enumerate(sorted(files, key=lambda p: p.parts)):
            if path.stat().st_size < 4_000:
                seed("model_configs", f"{name}-{'-'.join(path.relative_to(TINY / name).parts)}", place, number, path.read_bytes())


def config():
    default = (HERE.parent / "config/default.toml").read_text()
    lines = [line for line in default.splitlines() if line and not line.lstrip().startswith("#")]
    seed("config", "default", 0, "\n".join(lines) + "\n")
    seed("config", "models", 0, '[[models]]\nid = "a/b"\nname = "a"\naliases = ["x"]\nweight = 3\n[models.fusion]\nmethod = "rrf"\n[[models]]\nid = "builtin"\npreload = false\ncompression = { layers = [8], ratio = 2 }\n')
    seed("config", "variables", 0, "[server]\nport = 1\n---\nRERANKD__SERVER__PORT=99\nRERANKD__MODEL__ALIASES=a,b\nRERANKD__MODEL__TRUNCATION=document\nRERANKD__METRICS__ALIASES=tei\nRERANKD__SERVER__PROT=1\n")
    seed("config", "wrong", 0, "[server]\nport = \"x\"\nhots = 1\n[limits\n")
    seed("config", "keys", 1, "# keys\nsecret-key\nalice key-of-alice admin requests_per_minute=10 weight=3 priority=batch\nbob sha256:" + "ab" * 32 + " metrics concurrent=2\n")
    seed("config", "keys_twice", 1, "alice one weight=3\nalice two weight=4\n")


def rows(rerankd):
    pair = '{"query": "rivers", "document": "rivers carve valleys", "id": 1}\n{"query": "rivers", "document": {"text": "the sea"}}\n\n'
    lists = '{"query": "rivers", "documents": ["a", {"text": "b", "n": [1, null]}], "x": 1.5e3}\n{"query": null, "documents": [3]}\n'
    seed("rows", "pairs", 0, 2, pair)
    seed("rows", "lists", 0, 4, lists)
    seed("rows", "gzip", 1, 0, gzip.compress(pair.encode(), mtime=0))
    if not rerankd:
        return
    with tempfile.TemporaryDirectory() as folder:
        for text, what in [('{"query": "rivers", "document": "the sea"}\n{"query": "a", "document": null}\n', "pairs"), ('{"query": "rivers", "documents": ["the sea", "b"]}\n', "lists")]:
            source = pathlib.Path(folder) / f"{what}.jsonl"
            source.write_text(text)
            for place, ending in [(2, "parquet"), (3, "arrow"), (4, "arrows")]:
                out = pathlib.Path(folder) / f"{what}-scored.{ending}"
                model = TINY / "tiny-bert"
                subprocess.run([rerankd, "score", "--model", model, "--on-error", "null", source, out], check=True, capture_output=True)
                seed("rows", f"{what}_{ending}", place, 0, out.read_bytes())


def collection():
    seed("collection", "queries", 0, '{"_id": "q1", "text": "rivers"}\n{"_id": 2, "text": "sea", "metadata": {}}\n')
    seed("collection", "corpus", 1, '{"_id": "d1", "title": "t", "text": "rivers carve"}\n{"_id": "d2", "title": null, "text": ""}\n')
    seed("collection", "qrels", 2, "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n2\td2\t-1\n")
    seed("collection", "qrels_trec", 2, "q1 0 d1 1\n2 0 d2 2\n")
    seed("collection", "candidates", 3, '{"query_id": "q1", "candidates": [{"doc_id": "d1", "score": 1}, {"doc_id": "d2", "bm25": 2}]}\n')
    seed("collection", "run", 4, "q1 Q0 d1 1 0.5 a\nq1 Q0 d2 2 1e-3 a\n2\tQ0\td2\t1\tnan\ta\n")
    seed("collection", "gzip", 5, gzip.compress(b'{"_id": "q1", "text": "rivers"}\n', mtime=0))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rerankd", type=pathlib.Path)
    rerankd = parser.parse_args().rerankd
    for make in [http, codings, grpc, template, tokenizer_files, texts, weights, model_configs, config, collection]:
        make()
    rows(rerankd and rerankd.resolve())


if __name__ == "__main__":
    main()
