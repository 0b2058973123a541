"""The tiny models' tokenizers: each of the kind that the family's published models have."""

import io
import tempfile
from collections import Counter
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = (Path(__file__).parent / "corpus.txt").read_text(encoding="utf-8").splitlines()


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


def modernbert_bpe():
    """ModernBERT's: BPE of bytes with BERT's special tokens, which follow the vocabulary, and runs of blanks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True, special=False) for n in (4, 3, 2)])
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    special = [AddedToken(token, lstrip=token == "[MASK]", normalized=False) for token in special]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken("[unused0]", normalized=True, special=False)])
    tokenizer.post_processor = template(tokenizer, "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
    return tokenizer, "[PAD]"


def mpnet_wordpiece():
    """MPNet's: BERT's words, where the words' own [UNK] is not the <unk> of the special tokens."""
    tokenizer, _ = wordpiece()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    vocab = special + [word for word in words if word not in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")] + ["<mask>"]
    of_mpnet = Tokenizer(
        models.WordPiece(
            {token: i for i, token in enumerate(vocab)}, unk_token="[UNK]", max_input_chars_per_word=100
        )
    )
    of_mpnet.normalizer, of_mpnet.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    of_mpnet.decoder = tokenizer.decoder
    of_mpnet.add_special_tokens(special + [AddedToken("<mask>", lstrip=True, normalized=False)])
    of_mpnet.post_processor = template(of_mpnet, "<s>:0 $A:0 </s>:0", "<s>:0 $A:0 </s>:0 </s>:0 $B:1 </s>:1")
    return of_mpnet, "<pad>"


def template(tokenizer, single, pair):
    names = {part.split(":")[0] for part in pair.split() if "$" not in part}
    special = [(name, tokenizer.token_to_id(name)) for name in sorted(names)]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)


# Sentencepiece's own normalisation weighs 300 kB; these few of its rules show that it is obeyed.
RULES = {
    "\t": " ", "\n": " ", "\a": "", "\u00ad": "", "\u200b": " ",
    "\ufb01": "fi", "\u212b": "\u00c5", "\u2026": "...",
}


def sentencepiece_unigram(first, last, pair, normalizer=None, words=False, lowercase=False, more=()):
    """A unigram model of pieces between `first` and `last`, and its special tokens.

    `normalizer` makes the normaliser of sentencepiece's charsmap; without it, transformers 5's for
    DeBERTa is written, which has no charsmap. `words` splits at blanks first, as older files do. `more` are
    pieces that there must be.
    """
    lines = [line.lower() if lowercase else line for line in CORPUS]
    trained = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as rules:
        for source, target in RULES.items():
            sides = (" ".join(f"{ord(c):X}" for c in side) for side in (source, target))
            rules.write("\t".join(sides) + "\n")
        rules.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=trained,
            vocab_size=500,
            normalization_rule_tsv=rules.name,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    vocab = [(token, 0.0) for token in first]
    vocab += [(piece.piece, piece.score) for piece in proto.pieces[3:]]
    vocab += [(piece, -6.0) for piece in more if piece not in dict(vocab)]
    vocab += [(token, 0.0) for token in last]
    unknown = next(i for i, token in enumerate(first) if token.lower() in ("<unk>", "[unk]"))
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=unknown))
    charsmap = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    blanks = normalizers.Replace(Regex(" {2,}"), " ")
    if normalizer is None:
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
                normalizers.NFC(),
                normalizers.Strip(left=False, right=True),
            ]
        )
    else:
        tokenizer.normalizer = normalizers.Sequence([*normalizer, charsmap, blanks])
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace]) if words else metaspace
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    for token in [*first, *last]:
        lstrip = token.lower() in ("[mask]", "<mask>")
        tokenizer.add_special_tokens([AddedToken(token, lstrip=lstrip, normalized=False)])
    single = pair[: pair.index("$B")].split()
    while len(single) > 3:
        single.pop()
    tokenizer.post_processor = template(tokenizer, " ".join(single), pair)
    return tokenizer, next(token for token in first if token.lower() in ("<pad>", "[pad]"))


BERT_PAIR = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
ROBERTA_PAIR = "<s>:0 $A:0 </s>:0 </s>:0 $B:0 </s>:0"


def deberta_v3_unigram():
    first = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    return sentencepiece_unigram(first, ["[MASK]"], BERT_PAIR, normalizer=[normalizers.Strip()])


def deberta_v2_unigram():
    first = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    return sentencepiece_unigram(first, ["[MASK]"], BERT_PAIR)


def albert_unigram():
    cleaned = [
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
        normalizers.NFKD(),
        normalizers.StripAccents(),
        normalizers.Lowercase(),
    ]
    first = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    return sentencepiece_unigram(first, [], BERT_PAIR, normalizer=cleaned, words=True, lowercase=True)


def camembert_unigram():
    """CamemBERT's: fairseq's tokens keep their places, unused, so <s> is not 0."""
    first = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    return sentencepiece_unigram(first, ["<mask>"], ROBERTA_PAIR, normalizer=[], words=True)


def xlmr_unigram():
    return sentencepiece_unigram(["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"], ROBERTA_PAIR, normalizer=[], words=True)
