"""Makes the training lists: a query, a document that answers it, and hard negatives.

Every list also carries the bi-encoder's similarity of each document to the query and BM25's score,
which training distils; by the similarity likely false negatives are dropped. Reads only
shared/data/corpora and what texts.py wrote; nothing of shared/data/collections.
"""

import gzip
import json
import random
import re
from pathlib import Path

import bm25s
import numpy as np
from tqdm import tqdm

from encoder import BiEncoder

# Most pairs of each source: templated and many-answers sets are capped.
CAPS = {
    "squad-train-win": 6000,
    "medquad": 3000,
    "tydiqa-en": 3000,
    "boolq-dev": 2000,
    "conditionalqa": 1500,
    "tldr": 600,
    "nl2bash": 400,
    "qmsum": 300,
    "peps": 500,
}
WORDNET, MANUAL, TITLES, SENTENCES = 3000, 2000, 7000, 9000
# Share of the label in a list's target, of judged pairs and of those that were made.
JUDGED, MADE = 0.6, 0.35
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
            positive, title = row["positive"], row.get("title")
            if title and rng.random() < 0.5:
                positive = f"{title} {positive}"
            pairs.append((row["query"], positive, row.get("negatives") or []))
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
        whole = [i for i, p in enumerate(parts) if 5 <= len(p.split()) <= 30]
        if len(parts) < 3 or not whole:
            continue
        at = rng.choice(whole)
        # Now and then a long query: two sentences.
        end = at + (2 if len(parts) > 4 and rng.random() < 0.15 else 1)
        query = " ".join(parts[at:end])
        rest = " ".join(parts[:at] + parts[end:])
        if end == at + 1 and rng.random() < 0.5:
            words = [w.strip(".,;:()\"'") for w in query.split() if len(w) > 3]
            query = " ".join(rng.sample(words, min(len(words), rng.randint(2, 6)))) or query
        pairs.append((query, rest, []))
        if len(pairs) == count:
            break
    return pairs


def technical(path, rng):
    """(title, text) of what texts.py wrote: half of them package descriptions."""
    rows = [json.loads(line) for line in path.open()]
    rng.shuffle(rows)
    packages = [row for row in rows if row["source"] == "debian-descriptions"]
    others = [row for row in rows if row["source"] != "debian-descriptions"]
    return [(row["title"], row["text"]) for row in packages[: 2 * TITLES] + others[: 2 * TITLES]]


def candidates(near, words, passages, rng, count):
    """Neighbours of a query by the bi-encoder and by BM25, from near to far."""
    picked = rng.sample(near[:20], 8) + near[20::6] + rng.sample(words, 8)
    picked += [rng.randrange(len(passages)) for _ in range(2)]
    rng.shuffle(picked)
    return list(dict.fromkeys(picked))[:count]


def prepare(corpora: Path, texts: Path, model: Path, out: Path, seed: int):
    """Writes `out`: one list a line, {"query", "documents", "similarities", "keyword", "label"}; the
    first document is the one that answers. "keyword" is BM25's score as a share of the query's best."""
    rng = random.Random(seed)
    judged = labelled(corpora, rng)
    manual, titled = sections(corpora), technical(texts, rng)
    made = glosses(corpora, rng)
    made += rng.sample([(title, text, []) for title, text in manual if title], MANUAL)
    made += [(title, text, []) for title, text in rng.sample(titled, TITLES)]
    running = sorted({positive for _, positive, _ in judged}) + [text for _, text in manual + titled]
    made += sentence_queries(running, rng, SENTENCES)
    pairs = [(*pair, JUDGED) for pair in judged] + [(*pair, MADE) for pair in made]
    rng.shuffle(pairs)

    queries = [query for query, *_ in pairs]
    passages = sorted({p for _, p, *_ in pairs} | {n for _, _, given, _ in pairs for n in given})
    place = {text: i for i, text in enumerate(passages)}
    print(f"{len(queries)} queries, {len(passages)} passages", flush=True)
    encoder = BiEncoder(model)
    embedded = encoder.encode(passages, "passages")
    asked = encoder.encode(queries, "queries")

    rows = range(0, len(asked), 512)
    similar = np.concatenate([top(asked[i : i + 512] @ embedded.T, 60) for i in rows])
    index = bm25s.BM25()
    index.index(bm25s.tokenize(passages, stopwords="en", show_progress=False), show_progress=False)
    words = bm25s.tokenize(queries, stopwords="en", return_ids=False, show_progress=False)

    written = 0
    with out.open("w") as lines:
        for i, (query, positive, given, label) in enumerate(tqdm(pairs, desc="lists", mininterval=5)):
            positive_place = place[positive]
            truth = float(asked[i] @ embedded[positive_place])
            # Where even the bi-encoder sees no relation the pair teaches noise.
            if truth < 0.1 or not words[i]:
                continue
            keyword = index.get_scores(words[i])
            keyword /= max(float(keyword.max()), 1e-6)
            mined = candidates(similar[i].tolist(), top(keyword[None], 20)[0].tolist(), passages, rng, 24)
            negatives = [place[text] for text in given[:3]]
            for j in mined:
                if len(negatives) == LIST - 1:
                    break
                if j in negatives or j == positive_place or passages[j] in given:
                    continue
                if float(asked[i] @ embedded[j]) < max(MARGIN * truth, 0.35):
                    negatives.append(j)
            documents = [positive_place, *negatives]
            row = {
                "query": query,
                "documents": [passages[j] for j in documents],
                "similarities": [round(float(asked[i] @ embedded[j]), 4) for j in documents],
                "keyword": [round(float(keyword[j]), 4) for j in documents],
                "label": label,
            }
            lines.write(json.dumps(row) + "\n")
            written += 1
    print(f"{out}: {written} lists", flush=True)


def top(scores, count):
    """The places of each row's greatest values, in descending order."""
    places = np.argpartition(-scores, count, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1)
    return np.take_along_axis(places, order, axis=1)
