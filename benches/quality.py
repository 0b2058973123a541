#!/usr/bin/env python3
"""What reduced precision does to the ranking: nDCG@10 and Kendall's tau against f32.

    python3 benches/quality.py --model models/minilm --data ../shared/data/collections
    python3 benches/quality.py --tau --collections cranfield --model tests/fixtures/models/tiny-bert --model ...

Scores the candidates (candidates.jsonl) of each collection's first queries in f32 and in the other
types, in turn, with rerankd's own engine, and prints nDCG@10 of each and tau (tau-b of the logits of
a query's candidates, f32 against the other): the mean over the queries, and the least. --tau leaves nDCG@10
out, which says nothing of random weights.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def worker():
    """Builds the peers benchmark's worker; returns its path."""
    command = ["cargo", "bench", "--bench", "worker", "--no-run", "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines()]
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "worker")


def lines(path):
    with path.open() as file:
        yield from map(json.loads, file)


def collection(folder, count):
    """(query, documents, gains, ideal gains) of each of the first queries that have judgements."""
    corpus = {d["_id"]: " ".join(filter(None, (d.get("title"), d["text"]))) for d in lines(folder / "corpus.jsonl")}
    queries = {q["_id"]: q["text"] for q in lines(folder / "queries.jsonl")}
    judged = {}
    for row in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, gain = row.split("\t")[:3]
        judged.setdefault(query, {})[document] = int(gain)
    found = []
    for line in lines(folder / "candidates.jsonl"):
        gains = judged.get(line["query_id"])
        if gains and len(found) < count:
            ids = [c["doc_id"] for c in line["candidates"]]
            ideal = sorted(gains.values(), reverse=True)
            found.append((queries[line["query_id"]], [corpus[i] for i in ids], [gains.get(i, 0) for i in ids], ideal))
    return found


def ndcg(gains, ideal, depth=10):
    """nDCG with linear gains and a logarithmic discount, as trec_eval has it."""
    dcg = lambda values: sum(max(g, 0) / math.log2(i + 2) for i, g in enumerate(values[:depth]))
    return dcg(gains) / dcg(ideal) if dcg(ideal) > 0 else 0.0


def tau(xs, ys):
    """Kendall's tau-b."""
    sign = lambda x: (x > 0) - (x < 0)
    n, agree, tied_x, tied_y = len(xs), 0, 0, 0
    for i in range(n):
        for j in range(i):
            a, b = sign(xs[i] - xs[j]), sign(ys[i] - ys[j])
            agree += a * b
            tied_x += a == 0
            tied_y += b == 0
    pairs = n * (n - 1) / 2
    return agree / math.sqrt((pairs - tied_x) * (pairs - tied_y))


def score(binary, model, flags, queries, name):
    command = [binary, "--model", model, *flags]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    logits = []
    for i, (query, documents, _, _) in enumerate(queries):
        process.stdin.write(json.dumps({"query": query, "documents": documents}) + "\n")
        process.stdin.flush()
        logits.append(json.loads(process.stdout.readline())["logits"])
        if sys.stderr.isatty():
            print(f"\r{name}: {i + 1}/{len(queries)} queries ", end="", file=sys.stderr, flush=True)
    process.stdin.close()
    process.wait()
    return logits


def mean_ndcg(queries, logits):
    values = []
    for (_, _, gains, ideal), scores in zip(queries, logits):
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        values.append(ndcg([gains[i] for i in order], ideal))
    return sum(values) / len(values)


def row(binary, model, variants, queries, name, only_tau):
    """The cells that hold measurements."""
    exact = score(binary, model, [], queries, name)
    before = mean_ndcg(queries, exact)
    cells = [] if only_tau else [f"{before:.4f}"]
    for flags in variants.values():
        logits = score(binary, model, flags, queries, name)
        taus = [tau(x, y) for x, y in zip(exact, logits)]
        after = mean_ndcg(queries, logits)
        ndcgs = "" if only_tau else f"{after:.4f} ({after - before:+.4f}), "
        cells.append(f"{ndcgs}{sum(taus) / len(taus):.4f}, {min(taus):.4f}")
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", action="append", help="model folder, may be repeated (default: models/minilm)")
    parser.add_argument("--tau", action="store_true", help="without nDCG@10")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/collections",
                        help="folder of collections in BEIR's format with candidates.jsonl")
    parser.add_argument("--collections", help="names, separated by commas (default: all)")
    parser.add_argument("--queries", type=int, default=50, help="of each collection, the first (default: 50)")
    parser.add_argument("--variant", action="append", metavar="NAME=FLAGS",
                        help="what to hold against f32 (default: int8, int8 on AVX2, f16 and bf16)")
    arguments = parser.parse_args()
    variants = arguments.variant or [
        "int8=--dtype int8", "int8 on AVX2=--dtype int8 --instructions avx2", "f16=--dtype f16", "bf16=--dtype bf16",
    ]
    variants = {name: flags.split() for name, flags in (v.split("=", 1) for v in variants)}
    binary = worker()
    names = arguments.collections.split(",") if arguments.collections else sorted(p.name for p in arguments.data.iterdir())
    wanted = "tau: mean, least" if arguments.tau else "nDCG@10, tau: mean, least"
    columns = ["model", "collection", "queries", *([] if arguments.tau else ["f32 nDCG@10"])]
    print(f"| {' | '.join([*columns, *(f'{v} {wanted}' for v in variants)])} |")
    print("|" + "---|" * (len(columns) + len(variants)), flush=True)
    for model in arguments.model or ["models/minilm"]:
        for name in names:
            queries = collection(arguments.data / name, arguments.queries)
            cells = [Path(model).name, name, str(len(queries))]
            print(f"| {' | '.join(cells + row(binary, model, variants, queries, name, arguments.tau))} |", flush=True)


if __name__ == "__main__":
    main()
