"""Makes the training lists: a query, a document that answers it, and hard negatives.

Every list also carries the bi-encoder's similarity of each document to the query, which training
distils, and by which likely false negatives are dropped. Reads only shared/data/corpora; nothing of
shared/data/collections.
"""

import gzip
import json
import random
import re
from pathlib import Path

import bm25s
import numpy as np

from encoder import BiEncoder

# Most pairs of each source: templated and many-answers sets are capped.
CAPS = {"medquad": 5000, "tldr": 1500, "nl2bash": 1000, "qmsum": 300, "peps": 500}
WORDNET, SENTENCES = 12_000, 24_000
LIST = 8
# A negative whose similarity comes this near to the positive's is likely a second positive.
MARGIN = 0.95
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])")


def read(path):
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def labelled(corpora, rng):
    """(query, positive, given negatives) of all question sets and of WordNet."""
    pairs = []
    for path in sorted((corpora / "qa").glob("*.jsonl.gz")):
        name = path.name.removesuffix(".jsonl.gz")
        rows = read(path)
        rng.shuffle(rows)
        for row in rows[: CAPS.get(name, len(rows))]:
            pairs.append((row["query"], row["positive"], row.get("negatives") or []))
    return pairs


def glosses(corpora, rng):
    """A WordNet synset's words as a query for its gloss."""
    rows = read(corpora / "wordnet_glosses.jsonl.gz")
    rng.shuffle(rows)
    pairs = []
    for row in rows:
        word, text = rng.choice(row["lemmas"]), row["gloss"]
        if len(text.split()) >= 6:
            question = rng.choice(["{}", "what is {}", "define {}"])
            pairs.append((question.format(word), text, []))
        if len(pairs) == WORDNET:
            return pairs
    return pairs


def sections(corpora):
    """Windows of the PostgreSQL manual, each with its page's title."""
    windows = []
    for row in read(corpora / "postgresql_doc_sections.jsonl.gz"):
        words, title = row["text"].split(), row["title"]
        for start in range(0, min(len(words), 800), 80):
            text = " ".join(words[start : start + 90])
            if len(text) > 200:
                windows.append((title, text))
    return windows


def sentence_queries(passages, rng, count):
    """Inverse cloze: a sentence of a passage, or some of its words, asks for the rest."""
    pairs = []
    for passage in rng.sample(passages, min(len(passages), count * 2)):
        parts = SENTENCE.split(passage)
        whole = [p for p in parts if 5 <= len(p.split()) <= 30]
        if len(parts) < 3 or not whole:
            continue
        query = rng.choice(whole)
        rest = " ".join(p for p in parts if p is not query)
        if rng.random() < 0.5:
            words = [w.strip(".,;:()\"'") for w in query.split() if len(w) > 3]
            query = " ".join(rng.sample(words, min(len(words), rng.randint(2, 6)))) or query
        pairs.append((query, rest, []))
        if len(pairs) == count:
            break
    return pairs


def candidates(queries, passages, similar, keyword, rng, count):
    """Of each query: neighbours by the bi-encoder and by BM25, from near to far."""
    for i in range(len(queries)):
        near, words = similar[i].tolist(), keyword[i].tolist()
        picked = rng.sample(near[:20], 8) + near[20::6] + rng.sample(words, 8)
        picked += [rng.randrange(len(passages)) for _ in range(2)]
        rng.shuffle(picked)
        yield list(dict.fromkeys(picked))[:count]


def prepare(corpora: Path, model: Path, out: Path, seed: int):
    """Writes `out`: one list a line, {"query", "documents", "similarities"}; the first document is
    the one that answers."""
    rng = random.Random(seed)
    pairs = labelled(corpora, rng)
    texts = sorted({positive for _, positive, _ in pairs})
    manual = sections(corpora)
    pairs += glosses(corpora, rng)
    pairs += [(title, text, []) for title, text in manual if title]
    pairs += sentence_queries(texts + [text for _, text in manual], rng, SENTENCES)
    rng.shuffle(pairs)

    queries = [query for query, _, _ in pairs]
    passages = sorted({p for _, p, _ in pairs} | {n for _, _, given in pairs for n in given})
    place = {text: i for i, text in enumerate(passages)}
    print(f"{len(queries)} queries, {len(passages)} passages", flush=True)
    encoder = BiEncoder(model)
    embedded = encoder.encode(passages, "passages")
    asked = encoder.encode(queries, "queries")

    rows = range(0, len(asked), 512)
    similar = np.concatenate([top(asked[i : i + 512] @ embedded.T, 60) for i in rows])
    index = bm25s.BM25()
    index.index(bm25s.tokenize(passages, stopwords="en", show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(queries, stopwords="en", show_progress=False)
    keyword, _ = index.retrieve(tokens, k=20, n_threads=2, show_progress=True)

    written = 0
    with out.open("w") as lines:
        mined = candidates(queries, passages, similar, keyword, rng, 24)
        for i, ((query, positive, given), near) in enumerate(zip(pairs, mined)):
            positive_place = place[positive]
            truth = float(asked[i] @ embedded[positive_place])
            negatives = [place[text] for text in given[:3]]
            for j in near:
                if len(negatives) == LIST - 1:
                    break
                if j in negatives or j == positive_place or passages[j] in given:
                    continue
                if float(asked[i] @ embedded[j]) < max(MARGIN * truth, 0.35):
                    negatives.append(j)
            documents = [positive_place, *negatives]
            similarities = [round(float(asked[i] @ embedded[j]), 4) for j in documents]
            # Where even the bi-encoder sees no relation the pair teaches noise.
            if truth < 0.1:
                continue
            row = {
                "query": query,
                "documents": [passages[j] for j in documents],
                "similarities": similarities,
            }
            lines.write(json.dumps(row) + "\n")
            written += 1
    print(f"{out}: {written} lists", flush=True)


def top(scores, count):
    """The places of each row's greatest values, in descending order."""
    places = np.argpartition(-scores, count, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1)
    return np.take_along_axis(places, order, axis=1)
