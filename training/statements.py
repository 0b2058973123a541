"""Makes the lists of the second edition: long statements, clauses and exact terms that ask for passages of
150 to 400 words, with a share of the question sets' so that what was learnt of them stays.

    python3 training/statements.py --data ../shared/data/corpora --model models/minilm --work target/training

Reads WORK/rules.jsonl (made if missing) and writes WORK/lists.jsonl in prepare.py's format: the first document
answers; near-duplicates of it stay in the list, and the teacher says how good they are. Nothing of
shared/data/collections is read. Embeddings of passages are kept in WORK/embedded.npz for the next time.
"""

import argparse
import json
import random
import re
from hashlib import sha256
from pathlib import Path

import bm25s
import numpy as np
import torch

from encoder import BiEncoder
from prepare import LIST, SENTENCE, read, top
from rules import write_rules

# Words of a passage, and of a statement that asks for one.
PASSAGE, STATEMENT = (110, 300), (25, 150)
# Share of the label in a list's target: of judged pairs, of pairs that were made. In the latter other parts of the
# same document can answer as well, so that the teacher says most. Of those of synthetic.py, which a retriever found.
JUDGED, MADE, SYNTHETIC = 0.5, 0.2, 0.35
# Shares of the lists.
SHARES = {"rules": 0.42, "abstracts": 0.2, "scenarios": 0.14, "questions": 0.24}
QUESTIONS = ["squad-train-win", "nq-oracle", "nq-qed", "tydiqa-en", "boolq-dev", "tatqa", "chunkeval", "hotpotqa-mini"]
STYLES = {"statement": 0.3, "neighbour": 0.34, "heading": 0.11, "keywords": 0.1, "sentence": 0.15}


def chunks(text, rng):
    """A section's passages, cut at sentences."""
    passages, words, limit = [], [], rng.randint(*PASSAGE)
    for sentence in SENTENCE.split(text):
        parts = sentence.split()[:limit]
        if words and len(words) + len(parts) > limit:
            passages.append(" ".join(words))
            words, limit = [], rng.randint(*PASSAGE)
        words += parts
    if len(words) >= 40:
        passages.append(" ".join(words))
    return passages


def statement(passage, rng, least, most):
    """Sentences of a passage with `least` to `most` words in all, and the rest of it; None if it has no such."""
    parts = SENTENCE.split(passage)
    starts = list(range(len(parts)))
    rng.shuffle(starts)
    for at in starts:
        words, end = [], at
        aim = rng.randint(least, most)
        while end < len(parts) and len(words) + len(parts[end].split()) <= most and len(words) < aim:
            words += parts[end].split()
            end += 1
        rest = " ".join(parts[:at] + parts[end:])
        if len(words) >= least and len(rest.split()) >= 40:
            return " ".join(words), rest
    return None


def asked(title, heading, passage, others, rng):
    """A query for a section's passage in one of STYLES, and the passage; None if that style gives none."""
    style = rng.choices(list(STYLES), STYLES.values())[0]
    # A page's name without what says its section of the manual, as people write it.
    name = re.sub(r"\.\d\w*$", "", title)
    shown = f"{heading} {passage}" if rng.random() < 0.5 else passage
    if style == "statement":
        found = statement(passage, rng, *STATEMENT)
    elif style == "sentence":
        found = statement(passage, rng, 8, 25)
    elif style == "neighbour":
        near = rng.choice(others).split() if others else []
        length = rng.randint(*STATEMENT)
        found = (f"{name} {' '.join(near[:length])}", passage) if len(near) >= 20 else None
    elif style == "heading":
        number = re.match(r"[\d.]+\d", heading)
        query = f"{name} {number.group()}" if number and rng.random() < 0.3 else f"{name} {heading}"
        found = (query, f"{heading} {passage}" if number else shown)
    else:
        rare = [w.strip(".,;:()\"'") for w in passage.split() if len(w) > 4]
        found = (" ".join([name, *rng.sample(rare, min(len(rare), rng.randint(2, 6)))]), shown)
    return found and (*found, style)


def made(work, corpora, rng, pool):
    """(query, passage, given negatives, label, style) by kind, and all the passages."""
    kinds = {kind: [] for kind in SHARES}
    passages = []
    rows = [json.loads(line) for line in (work / "rules.jsonl").open()]
    by_source = {}
    for row in rows:
        by_source.setdefault(row["source"], []).append(row)
    # The manual pages are most of the text; the rules proper shall not drown in them.
    picked = []
    for source, found in sorted(by_source.items()):
        if not source.startswith("manpages"):
            picked += found
    manuals = by_source["manpages"] + by_source["manpages-dev"]
    picked += rng.sample(manuals, min(len(manuals), max(100, pool // 4)))
    rng.shuffle(picked)
    for row in picked:
        parts = chunks(row["text"], rng)[:6]
        passages += parts
        for i, part in enumerate(parts):
            found = asked(row["title"], row["heading"], part, parts[:i] + parts[i + 1 :], rng)
            if found:
                kinds["rules"].append((found[0], found[1], [], MADE, found[2]))
    for row in read(corpora / "qa" / "pubmedqa.jsonl.gz"):
        passages.append(row["positive"])
        found = statement(row["positive"], rng, *STATEMENT) if rng.random() < 0.6 else (row["query"], row["positive"])
        if found:
            title = f"{row['query']} " if found[0] != row["query"] and rng.random() < 0.4 else ""
            kinds["abstracts"].append((title + found[0], found[1], [], MADE, "abstract"))
    for row in read(corpora / "qa" / "conditionalqa.jsonl.gz"):
        passages.append(row["positive"])
        query = row["query"]
        if row.get("scenario") and rng.random() < 0.7:
            query = f"{row['scenario']} {query}"
        kinds["scenarios"].append((query, row["positive"], [], JUDGED, "scenario"))
    for name in QUESTIONS:
        rows = read(corpora / "qa" / f"{name}.jsonl.gz")
        for row in rng.sample(rows, min(len(rows), 1500)):
            passages.append(row["positive"])
            kinds["questions"].append((row["query"], row["positive"], row.get("negatives") or [], JUDGED, name))
    return kinds, passages


def embed(encoder, texts, kept):
    """Embeddings of texts, those in `kept` from there; a stopped run's are kept too."""
    names = [sha256(text.encode()).hexdigest()[:24] for text in texts]
    known = {}
    if kept.exists():
        with np.load(kept) as held:
            known = dict(zip(held["names"].tolist(), held["vectors"]))
    missing = [i for i, name in enumerate(names) if name not in known]
    for start in range(0, len(missing), 512):
        part = missing[start : start + 512]
        vectors = encoder.encode([texts[i] for i in part], f"{start}/{len(missing)}")
        known.update(zip((names[i] for i in part), vectors))
        temporary = kept.with_suffix(".part.npz")
        np.savez(temporary, names=np.array(list(known)), vectors=np.stack(list(known.values())))
        temporary.rename(kept)
    return np.stack([known[name] for name in names])


def write_lists(args):
    rng = random.Random(args.seed)
    rules = args.work / "rules.jsonl"
    if not rules.exists():
        write_rules(rules)
    kinds, texts = made(args.work, args.data, rng, args.pool)
    pairs = []
    for kind, share in SHARES.items():
        pairs += rng.sample(kinds[kind], min(len(kinds[kind]), round(args.lists * share)))
    synthetic = args.work / "synthetic.jsonl"
    if synthetic.exists():
        rows = [json.loads(line) for line in synthetic.open()]
        pairs += [(row["query"], row["passage"], [], SYNTHETIC, f"synthetic {row['style']}") for row in rows]
    rng.shuffle(pairs)
    # What BM25 finds for the queries among all passages; only these are embedded.
    everything = sorted(set(texts) | {p for _, p, *_ in pairs} | {n for _, _, given, *_ in pairs for n in given[:3]})
    place = {text: i for i, text in enumerate(everything)}
    index = bm25s.BM25()
    index.index(bm25s.tokenize(everything, stopwords="en", show_progress=False), show_progress=False)
    words = bm25s.tokenize([pair[0] for pair in pairs], stopwords="en", return_ids=False, show_progress=False)
    keyword = [index.get_scores(found) if found else None for found in words]
    needed = set()
    near = []
    for pair, scores in zip(pairs, keyword):
        found = [] if scores is None else top(scores[None], 12)[0].tolist()
        # The first ones are the hardest; some from further down show what is plainly worse.
        far = [] if scores is None else rng.sample(top(scores[None], 60)[0].tolist()[12:], 3)
        near.append((found, far))
        needed |= {place[pair[1]], *(place[n] for n in pair[2][:3]), *found[: args.near], *far}
    needed = sorted(needed)
    print(f"{len(pairs)} queries, {len(everything)} passages, {len(needed)} to embed", flush=True)
    torch.manual_seed(args.seed)
    encoder = BiEncoder(args.model, max_tokens=args.embed_tokens)
    kept = args.work / "embedded.npz"
    vectors = embed(encoder, [everything[i] for i in needed], kept)
    row_of = {place: row for row, place in enumerate(needed)}
    queries = embed(encoder, [pair[0] for pair in pairs], kept)
    similar = queries @ vectors.T
    part = (args.work / "lists.jsonl").with_suffix(".part")
    styles = {}
    with part.open("w") as lines:
        for i, (query, positive, given, label, style) in enumerate(pairs):
            if keyword[i] is None or similar[i][row_of[place[positive]]] < 0.1:
                continue
            scores = keyword[i] / max(float(keyword[i].max()), 1e-6)
            dense = [needed[j] for j in top(similar[i][None], 10)[0]]
            found, far = near[i]
            mined = rng.sample(found[: args.near], min(len(found), 3)) + rng.sample(dense, 4) + far[:1] + dense + far
            # The passage that a statement was taken out of is the statement itself.
            chosen = [place[positive]] + [place[n] for n in given[:3]]
            for j in mined:
                if len(chosen) == LIST:
                    break
                if j not in chosen and j in row_of and query[-60:] not in everything[j]:
                    chosen.append(j)
            row = {
                "query": query,
                "documents": [everything[j] for j in chosen],
                "similarities": [round(float(similar[i][row_of[j]]), 4) for j in chosen],
                "keyword": [round(float(scores[j]), 4) for j in chosen],
                "label": label,
                "style": style,
            }
            styles[style] = styles.get(style, 0) + 1
            lines.write(json.dumps(row) + "\n")
    part.rename(args.work / "lists.jsonl")
    print(f"lists: {styles}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of corpora")
    parser.add_argument("--model", type=Path, default=Path("models/minilm"), help="the bi-encoder")
    parser.add_argument("--work", type=Path, default=Path("target/training"))
    parser.add_argument("--lists", type=int, default=8000)
    parser.add_argument("--pool", type=int, default=4000, help="four times the sections of manual pages that are used")
    parser.add_argument("--near", type=int, default=6, help="of BM25's best, how many are embedded for each query")
    parser.add_argument("--embed-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=21)
    write_lists(parser.parse_args())


if __name__ == "__main__":
    main()
