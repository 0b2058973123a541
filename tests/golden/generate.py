"""Writes the tiny models in tests/fixtures/models and the reference's logits for them.

    python3 -m venv .venv && .venv/bin/pip install -r tests/golden/requirements.txt
    .venv/bin/python tests/golden/generate.py

The weights are seeded and random; the reference is Hugging Face transformers. CI does not run this:
what it writes is committed. Each tokenizer.json carries a truncation of 12 tokens and a fixed
padding, as many published ones do: a server that obeyed them would give other logits.
"""

import io
import json
import shutil
from collections import Counter
from pathlib import Path

import sentence_transformers
import sentencepiece
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TESTS = Path(__file__).resolve().parent.parent
MODELS = TESTS / "fixtures" / "models"
SHAPE = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    num_labels=1,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
TRUNCATION_TRAP = 12
SEEDS = {"tiny-bert": 0, "tiny-roberta": 1, "tiny-xlmr": 2, "tiny-legacy": 3}

CORPUS = (TESTS / "golden" / "corpus.txt").read_text(encoding="utf-8").splitlines()

QUERY = "how do rivers shape the land?"
DOCUMENTS = [
    "Rivers carve valleys and carry sediment to the sea.",
    "A cat sleeps in the sun.",
    "",
    "   ",
    "tab\there, new\nline, nul \u0000 bell \u0007 and a soft\u00adhyphen \u200b zero width",
    "x" * 400,
    "Ünïcödé: ein Fluß, une rivière, река, 河流, 🌊 emoji and ﬁ ligature, Å ring",
    "[SEP] <s> </s> [CLS] special tokens as text",
    "UPPER lower MiXeD 1234567890 3.14159 -- ... !?",
]
LONG_QUERY = " ".join(["why does water flow downhill and where does it go"] * 12)
LONG_DOCUMENT = " ".join(["the water of the river runs down to the sea and the land changes"] * 12)


def wordpiece():
    """All characters and the most frequent words; the library's trainer breaks ties at random."""
    tokenizer = Tokenizer(models.WordPiece())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    split = tokenizer.pre_tokenizer.pre_tokenize_str
    words = Counter(w for line in CORPUS for w, _ in split(tokenizer.normalizer.normalize_str(line)))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(set("".join(words)))
    frequent = sorted((w for w in words if len(w) > 1), key=lambda w: (-words[w], w))[:300]
    vocab = special + letters + ["##" + letter for letter in letters] + frequent
    tokenizer.model = models.WordPiece(
        {token: i for i, token in enumerate(vocab)}, unk_token="[UNK]", max_input_chars_per_word=100
    )
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer, "[PAD]"


def byte_level_bpe():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return tokenizer, "<pad>"


def unigram():
    """XLM-R's: a sentencepiece unigram model behind sentencepiece's own normalisation."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=trained,
        vocab_size=500,
        normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    # As XLM-R's: fairseq's special tokens first, then the pieces after sentencepiece's own three.
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab += [(piece.piece, piece.score) for piece in proto.pieces[3:]]
    vocab += [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3))
    tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer, "<pad>"


def seeded(model, seed):
    """Weights large enough that logits differ well beyond the tolerance."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "LayerNorm.weight" in name:
            parameter.data = 1 + 0.1 * noise
        elif parameter.dim() == 1:
            parameter.data = 0.1 * noise
        elif "embeddings" in name:
            parameter.data = 0.5 * noise
        else:
            parameter.data = noise * 1.2 / parameter.shape[1] ** 0.5
    return model.float().eval()


def families():
    """Name, tokenizer, config, model_max_length, how the weights are stored, activation keys."""
    bert = transformers.BertConfig(
        max_position_embeddings=128, id2label={0: "LABEL_0"}, **SHAPE
    )
    roberta = dict(max_position_embeddings=130, bos_token_id=0, pad_token_id=1, eos_token_id=2)
    identity = "torch.nn.modules.linear.Identity"
    yield "tiny-bert", wordpiece(), bert, 96, "single", {}
    # As older checkpoints are: vocab.txt, the encoder's tensors without prefix, gamma and beta.
    small = SHAPE | dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    small = transformers.BertConfig(max_position_embeddings=64, id2label={0: "LABEL_0"}, **small)
    yield "tiny-legacy", wordpiece(), small, 64, "legacy", {}
    yield (
        "tiny-roberta", byte_level_bpe(),
        transformers.RobertaConfig(type_vocab_size=1, layer_norm_eps=1e-5, **roberta, **SHAPE),
        128, "pytorch", {"sbert_ce_default_activation_function": identity},
    )
    yield (
        "tiny-xlmr", unigram(),
        transformers.XLMRobertaConfig(type_vocab_size=1, layer_norm_eps=1e-5, **roberta, **SHAPE),
        int(1e30), "sharded", {"sentence_transformers": {"activation_fn": identity, "version": "6.2.0"}},
    )


def older_name(name):
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return name.removeprefix("bert.")


def write_weights(folder, model, how):
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if how == "single":
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    elif how == "pytorch":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        legacy = how == "legacy"
        if legacy:
            state = {older_name(name): tensor for name, tensor in state.items()}
        names = sorted(state)
        shards = [names[: len(names) // 2], names[len(names) // 2 :]]
        index = {"metadata": {}, "weight_map": {}}
        for number, shard in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            if legacy:
                file = f"pytorch_{file.removesuffix('safetensors')}bin"
                torch.save({n: state[n] for n in shard}, folder / file)
            else:
                save_file({n: state[n] for n in shard}, folder / file, metadata={"format": "pt"})
            index["weight_map"] |= {n: file for n in shard}
        file = "pytorch_model.bin.index.json" if legacy else "model.safetensors.index.json"
        (folder / file).write_text(json.dumps(index, indent=1))


def reference(folder, model, max_tokens, identity):
    """The logits of every case, each pair alone, as transformers and sentence-transformers see it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    cases = [
        ("longest_first", QUERY, DOCUMENTS),
        ("longest_first", "x", DOCUMENTS[:2]),
        ("longest_first", QUERY, [LONG_DOCUMENT]),
        ("longest_first", LONG_QUERY, [LONG_DOCUMENT, DOCUMENTS[0], ""]),
        ("only_second", "why does water flow downhill?", [LONG_DOCUMENT, DOCUMENTS[0]]),
    ]
    written = []
    for truncation, query, documents in cases:
        logits, ids = [], []
        for document in documents:
            # A list of one: a bare "" would be taken for no document at all.
            encoded = tokenizer(
                [query], [document], truncation=truncation, max_length=max_tokens, return_tensors="pt"
            )
            with torch.no_grad():
                logits.append(model(**encoded).logits[0, 0].item())
            ids.append(encoded["input_ids"][0].tolist())
        scores = logits if identity else torch.sigmoid(torch.tensor(logits)).tolist()
        written.append(
            dict(truncation=truncation, query=query, documents=documents, ids=ids, logits=logits, scores=scores)
        )
    # What this script calls a score must be what sentence-transformers calls one.
    encoder = sentence_transformers.CrossEncoder(str(folder), device="cpu", max_length=max_tokens)
    predicted = encoder.predict([(QUERY, d) for d in DOCUMENTS], batch_size=1)
    for ours, theirs in zip(written[0]["scores"], predicted):
        assert abs(ours - float(theirs)) < 1e-5, (ours, theirs)
    return written


def main():
    shutil.rmtree(MODELS, ignore_errors=True)
    for name, (tokenizer, pad), config, limit, how, keys in families():
        folder = MODELS / name
        folder.mkdir(parents=True)
        tokenizer.enable_truncation(TRUNCATION_TRAP)
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad, length=TRUNCATION_TRAP)
        tokenizer.save(str(folder / "tokenizer.json"))
        config.vocab_size = tokenizer.get_vocab_size()
        special = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
        special = {t["content"] for t in special}
        roles = dict(unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")
        if "<s>" in special:
            roles = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", cls_token="<s>",
                         sep_token="</s>", pad_token="<pad>", mask_token="<mask>")
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit, **roles}
        settings["model_input_names"] = ["input_ids", "attention_mask"]
        if config.model_type == "bert":
            settings["model_input_names"].append("token_type_ids")
        if how == "legacy":
            settings["tokenizer_class"] = "BertTokenizer"
            vocabulary = tokenizer.get_vocab()
            words = sorted(vocabulary, key=vocabulary.get)
            (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
            (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")

        model = transformers.AutoModelForSequenceClassification.from_config(config)
        seeded(model, SEEDS[name])
        written = json.loads(config.to_json_string(use_diff=False))
        wanted = (
            "model_type vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size "
            "hidden_act max_position_embeddings type_vocab_size layer_norm_eps pad_token_id id2label label2id"
        ).split()
        written = {k: written[k] for k in wanted} | keys
        written["architectures"] = [type(model).__name__]
        (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")
        write_weights(folder, model, how)

        positions = config.max_position_embeddings - (0 if config.model_type == "bert" else config.pad_token_id + 1)
        max_tokens = min(limit, positions)
        golden = dict(
            model=name,
            reference=dict(
                transformers=transformers.__version__,
                tokenizers=tokenizers.__version__,
                sentence_transformers=sentence_transformers.__version__,
                torch=torch.__version__,
            ),
            max_tokens=max_tokens,
            cases=reference(folder, model, max_tokens, identity=bool(keys)),
        )
        (TESTS / "golden" / f"{name}.json").write_text(json.dumps(golden, ensure_ascii=True, indent=1) + "\n")
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{name}: {size / 1000:.0f} kB, vocabulary {config.vocab_size}, at most {max_tokens} tokens")
        assert size < 1_000_000


if __name__ == "__main__":
    main()
