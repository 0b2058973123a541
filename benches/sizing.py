#!/usr/bin/env python3
"""What models need and give: memory, time to load, pairs per second of each in f32 and in int8, in one run.

    python3 scripts/shapes.py ettin-32m
    python3 benches/sizing.py target/shapes/ettin-32m models/minilm

Each model and type in a process of its own, one after the other: two rounds after one that warms up, means.
"pairs" are of 128 and of 512 tokens (of the most that the model reads), "lone" is a single pair of 128. Memory is
the process's peak on this work, with rerankd's queue and tokenizer but without its HTTP server, which adds 5 to
6 MB. Runs in the virtual environment of benches/peers, which it makes.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches" / "peers"))

import engines  # noqa: E402
import texts  # noqa: E402

ROUNDS = 2


def seconds(engine, documents, rounds):
    engine.score(documents, len(documents))
    return statistics.mean(engine.score(documents, len(documents))[1] for _ in range(rounds))


def row(binary, model, dtype, threads):
    import transformers

    from native import native

    folder = native(model, ROOT / "target" / "sizing" / "native")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    longest = texts.longest(tokenizer, json.loads((model / "config.json").read_text()))
    made = texts.Texts(tokenizer)
    short = [made.of_tokens(128) for _ in range(16)]
    long = [made.of_tokens(min(512, longest)) for _ in range(8)]
    start = time.monotonic()
    with engines.rerankd(binary, model, threads, ["--dtype", dtype]) as engine:
        loaded = time.monotonic() - start
        lone = seconds(engine, short[:1], 5 * ROUNDS)
        speeds = [len(documents) / seconds(engine, documents, ROUNDS) for documents in (short, long)]
        size = sum(file.stat().st_size for file in model.glob("*.safetensors")) / 1e6
        cells = [f"{size:.0f} MB", dtype, f"{engine.peak_mb():.0f} MB", f"{loaded:.2f} s"]
        cells += [f"{speed:.3g}" for speed in speeds] + [f"{1000 * lone:.3g} ms"]
    return f"| {model.name} | {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="+", type=Path, help="model folders")
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    parser.add_argument("--dtypes", default="f32,int8", help="(default: f32,int8)")
    arguments = parser.parse_args()
    engines.in_environment()
    binary = engines.build()
    print(f"{engines.machine()}; {arguments.threads} threads; {ROUNDS} rounds, means.\n")
    print("| model | weights' file | dtype | peak memory | loaded in | pairs/s of 128 tokens | of 512 | lone pair of 128 |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for model in arguments.models:
        for dtype in arguments.dtypes.split(","):
            print(row(binary, model, dtype, arguments.threads), flush=True)


if __name__ == "__main__":
    try:
        main()
    except engines.Ended as error:
        sys.exit(str(error))
