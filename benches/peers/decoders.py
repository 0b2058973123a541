"""Decoders, whose peers are sentence-transformers and llama.cpp: a row for each type of the weights.

One query of 20 words, 20 documents of 200 tokens, in the model's own prompt. Each engine runs alone in a process of
its own, since the weights of all would not fit beside each other. A peer gets the documents 1, 4 or 20 in a batch,
whichever is the fastest of one try each (--batch leaves the tries out). An engine that takes SLOW seconds for a
single document reads 4 of them, once, one at a time: torch's bf16 where the processor has none.
"""

import json
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import texts
from engines import HERE, PLACE, Comparison, Ended, build, peer, rerankd

PEERS = "sentence-transformers,llama.cpp,llama.cpp lean"
TYPES = "f32,bf16,int8"
BATCHES = [1, 4, 20]
# Longer than any pair here, the prompt included.
LONGEST = 512
SLOW = 20


def is_decoder(model):
    config = json.loads((Path(model) / "config.json").read_text())
    return config.get("architectures", [""])[0].endswith("ForCausalLM")


def install():
    """llama.cpp is built from source, so only where it is wanted."""
    if not find_spec("llama_cpp"):
        print("building llama.cpp (ten minutes)", file=sys.stderr, flush=True)
        requirements = HERE / "requirements-llama.txt"
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", requirements], check=True)


def export(model, types):
    """The folder of the model's GGUF files, each written in a process that ends."""
    folder = PLACE / "gguf" / Path(model).resolve().name
    for type_ in types:
        file = folder / f"{type_}.gguf"
        subprocess.run([sys.executable, HERE / "to_gguf.py", model, file, "--type", type_], check=True)
    return folder


def documents(count):
    made = texts.Texts(None)
    return [made.of_words(200) for _ in range(count)]


def fastest(start, documents, sizes):
    """The batch size with which the documents take the least time."""
    if len(sizes) == 1:
        return sizes[0]
    with start() as engine:
        if slow(engine, documents):
            return 1
        seconds = {size: engine.score(documents, size, texts.LONG_QUERY)[1] for size in sizes}
    return min(seconds, key=seconds.get)


def slow(engine, documents):
    """Warms up, and tells whether one document takes long."""
    return min(engine.score(documents[:1], 1, texts.LONG_QUERY)[1] for _ in range(2)) > SLOW


def measure(name, start, batch, documents, rounds, comparison):
    """Pairs per second, peak memory in megabytes, and seconds until it is ready."""
    begun = time.monotonic()
    with start() as engine:
        ready = time.monotonic() - begun
        if slow(engine, documents):
            documents, batch, rounds = documents[:4], 1, 1
        answers = [engine.score(documents, batch, texts.LONG_QUERY) for _ in range(rounds)]
        comparison.check(name, answers[0][0])
        seconds = statistics.median(seconds for _, seconds in answers)
        return len(documents) / seconds, engine.peak_mb(), ready


def lines(model, ours, peers, types, threads, rounds, count, sizes):
    """The table's lines; `ours` is a name and flags for each rerankd."""
    exports = PLACE / "gguf"
    if any(name.startswith("llama.cpp") for name in peers):
        install()
        exports = export(model, types)
    binary = build() if ours else None
    columns = [*ours, *peers]
    yield "| weights | " + " | ".join(columns) + " |"
    yield "|---|" + "---|" * len(columns)
    texts_ = documents(count)
    comparison = Comparison(f"{count} x 200")
    for type_ in types:
        cells, base = [], None
        for column in columns:
            name = column if type_ == "f32" else f"{column} {type_}"
            if name == "sentence-transformers int8":
                cells.append("-")
                continue
            if column in ours:
                start = lambda: rerankd(binary, model, threads, ["--dtype", type_, *ours[column]])
            else:
                start = lambda: peer(name, model, exports, threads, LONGEST)
            try:
                batch = len(texts_) if column in ours else fastest(start, texts_, sizes)
                speed, memory, ready = measure(name, start, batch, texts_, rounds, comparison)
            except Ended as error:
                print(error, file=sys.stderr)
                cells.append("failed")
                continue
            base = speed if column == columns[0] else base
            ratio = f" ({base / speed:.2f}x)" if base and column != columns[0] else ""
            in_batch = "" if column in ours else f", {batch} in a batch"
            cells.append(f"{speed:.3g}{ratio}, {memory:.0f} MB, ready in {ready:.1f} s{in_batch}")
            print(f"{name}: {cells[-1]}", file=sys.stderr, flush=True)
        yield f"| {type_} | " + " | ".join(cells) + " |"
