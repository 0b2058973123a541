#!/usr/bin/env python3
"""Writes eval.json: made-up runs and judgements with the measures that pytrec_eval gives them.

    python3 -m venv target/golden-eval
    target/golden-eval/bin/pip install -q pytrec-eval-terrier==0.5.11
    target/golden-eval/bin/python tests/golden/eval.py

MRR@10 is recip_rank, or 0 where the first relevant document comes after the tenth.
"""

import json
import random
from pathlib import Path

import pytrec_eval

rng = random.Random(7)
qrels, run = {}, {}
for q in range(40):
    documents = [f"d{i}" for i in range(rng.choice([3, 12, 80]))]
    # Coarse scores, so that there are ties; some relevant documents are not retrieved.
    scores = {d: rng.choice([rng.uniform(-3, 3), float(rng.randrange(-2, 3))]) for d in documents}
    judged = rng.sample(documents, min(len(documents), rng.randrange(1, 15)))
    relevance = {d: rng.choice([-1, 0, 0, 1, 1, 2, 3]) for d in judged}
    relevance.update({f"missed{i}": 1 for i in range(rng.choice([0, 0, 2]))})
    qrels[f"q{q}"], run[f"q{q}"] = relevance, scores
# trec_eval keeps scores in 32 bits: these are equal, and the ids decide.
qrels["ties"], run["ties"] = {"a": 1, "b": 0}, {"a": 1.00000001, "b": 1.0, "c": 0.99999999}
names = {"ndcg_cut_10", "recip_rank", "map", "recall_10,50"}
measures = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(run)
for values in measures.values():
    reciprocal = values.pop("recip_rank")
    values["mrr_10"] = reciprocal if reciprocal >= 0.1 - 1e-9 else 0.0
golden = {
    "qrels": qrels,
    "run": {q: list(scores.items()) for q, scores in run.items()},
    "measures": measures,
}
Path(__file__).with_name("eval.json").write_text(json.dumps(golden, indent=None) + "\n")
