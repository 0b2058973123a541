"""The pairs that the tiny models are tried with, and what the reference makes of them."""

import sentence_transformers
import tokenizers
import torch
import transformers

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
# What a model may count wrongly: the longest pair, its windows and its buckets.
WORDS = ["the", "water", "of", "river", "a", "to", "."]
OTHER_QUERY = "река течёт 河流 🌊?"
OTHER_DOCUMENTS = [
    "Река течёт через долину к морю. 河流经过山谷流向大海。",
    "🌊🌊🌊 emoji 👩‍👩‍👧 and a flag 🇫🇷",
    "[MASK] <mask> [PAD] <pad> [UNK] <unk>",
    "a    b  c\u2003d\u00a0e\r\nf",
    "river",
]


def exactly(tokenizer, query, tokens):
    """A document that makes with `query` a pair of exactly `tokens` tokens."""

    def length(document):
        return len(tokenizer([query], [document], truncation=False)["input_ids"][0])

    document, source = "", LONG_DOCUMENT.split()
    for i in range(tokens):
        longer = f"{document} {source[i % len(source)]}".strip()
        if length(longer) > tokens:
            break
        document = longer
    for word in WORDS * tokens:
        if length(document) == tokens:
            break
        longer = f"{document} {word}".strip()
        document = longer if length(longer) <= tokens else document
    assert length(document) == tokens, (query, tokens, document)
    return document


def of_all():
    return [
        ("longest_first", QUERY, DOCUMENTS),
        ("longest_first", "x", DOCUMENTS[:2]),
        ("longest_first", QUERY, [LONG_DOCUMENT]),
        ("longest_first", LONG_QUERY, [LONG_DOCUMENT, DOCUMENTS[0], ""]),
        ("only_second", "why does water flow downhill?", [LONG_DOCUMENT, DOCUMENTS[0]]),
    ]


def with_edges(tokenizer, edges):
    """The cases, with pairs of exactly as many tokens as each of `edges`, and of one more."""
    lengths = sorted({n for edge in edges for n in (edge, edge + 1)})
    fitted = [exactly(tokenizer, "x", n) for n in lengths]
    longest = [exactly(tokenizer, QUERY, n) for n in (max(edges), max(edges) + 1)]
    return of_all() + [
        ("longest_first", "x", fitted),
        ("longest_first", QUERY, longest),
        ("longest_first", OTHER_QUERY, OTHER_DOCUMENTS),
    ]


def reference(tokenizer, logits_of, cases, max_tokens, activation):
    """The token ids, logits and scores of every case, each pair alone."""
    written = []
    for truncation, query, documents in cases:
        logits, ids = [], []
        for document in documents:
            # A list of one: a bare "" would be taken for no document at all.
            encoded = tokenizer(
                [query], [document], truncation=truncation, max_length=max_tokens, return_tensors="pt"
            )
            with torch.no_grad():
                logits.append(logits_of(encoded)[0].tolist())
            ids.append(encoded["input_ids"][0].tolist())
        if all(len(row) == 1 for row in logits):
            logits = [row[0] for row in logits]
        scores = activation(torch.tensor(logits)).tolist()
        written.append(
            dict(truncation=truncation, query=query, documents=documents, ids=ids, logits=logits, scores=scores)
        )
    return written


def must_agree(cases, encoder):
    """What this script calls a score must be what sentence-transformers calls one."""
    for case in cases:
        if case["truncation"] == "longest_first":
            predicted = encoder.predict([(case["query"], d) for d in case["documents"]], batch_size=1)
            difference = (torch.tensor(case["scores"]) - torch.from_numpy(predicted)).abs().max()
            assert difference < 1e-5, (case["query"], difference)


def versions():
    return dict(
        transformers=transformers.__version__,
        tokenizers=tokenizers.__version__,
        sentence_transformers=sentence_transformers.__version__,
        torch=torch.__version__,
    )
