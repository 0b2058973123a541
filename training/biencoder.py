"""Ranks a collection's candidates with the start model as the bi-encoder that it was, and writes a run
file in TREC's format, for `rerankd eval --run`: what the cross-encoder has to beat.

    python3 training/biencoder.py ../shared/data/collections/cranfield models/minilm minilm.trec
"""

import json
import sys
from pathlib import Path

from encoder import BiEncoder


def rows(path):
    return [json.loads(line) for line in path.open()]


def main(collection: Path, model: Path, out: Path):
    corpus = {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in rows(collection / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in rows(collection / "queries.jsonl")}
    encoder = BiEncoder(model, max_tokens=256)
    places = {doc: i for i, doc in enumerate(corpus)}
    documents = encoder.encode(list(corpus.values()), "documents")
    asked = dict(zip(queries, encoder.encode(list(queries.values()), "queries")))
    with out.open("w") as lines:
        for row in rows(collection / "candidates.jsonl"):
            query = row["query_id"]
            scored = [(float(asked[query] @ documents[places[c["doc_id"]]]), c["doc_id"]) for c in row["candidates"]]
            for rank, (score, doc) in enumerate(sorted(scored, reverse=True), 1):
                lines.write(f"{query} Q0 {doc} {rank} {score:.6f} minilm-bi-encoder\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
