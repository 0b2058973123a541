#!/usr/bin/env python3
"""rerankd against its peers: the same model, texts and threads, in turn, in one run.

    python3 benches/peers/run.py --model models/minilm

Makes its own virtual environment (target/peers), exports the model to ONNX, builds rerankd, runs
every workload on every engine, round by round, checks that the scores agree, and prints ratios of
medians. --write adds the table to benches/results. Every engine is a process of its own and tokenises
within its time. A decoder is measured as decoders.py says.
"""

import argparse
import datetime
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import decoders
import texts
from engines import HERE, PLACE, ROOT, Comparison, Ended, build, in_environment, machine, peer, rerankd

# Some engines' threads spin for a while after their work, which would slow the next engine's.
PAUSE = 0.3
# Documents that every engine scores before a workload is timed.
WARM_UP = 8
# Rounds of what takes an engine a minute.
LONG_ROUNDS = 3
PEERS = "onnxruntime,openvino,sentence-transformers,openvino default,sentence-transformers bf16,onnxruntime int8"
# Where the processor sums up products of bytes in 32 bits, int8 needs no reduced range.
WIDE = ("avx512_vnni", "avx_vnni", "amx_int8")


def export(model, wanted):
    """Exports the model to ONNX if a peer runs that, in a process that ends; returns the folder."""
    onnx = PLACE / "onnx" / Path(model).resolve().name
    if any(name.startswith(("onnxruntime", "openvino")) for name in wanted):
        int8 = ["--int8"] if any("int8" in name for name in wanted) else []
        subprocess.run([sys.executable, HERE / "export.py", model, onnx, *int8], check=True)
    return onnx


def default_peers():
    flags = Path("/proc/cpuinfo").read_text().split()
    return PEERS + (",onnxruntime int8 full" if any(f in flags for f in WIDE) else "")


def in_turn(workload, documents, batch, engines, rounds):
    """Each engine's seconds, one after the other in each round, and how far its logits are off."""
    times = {e: [] for e in engines}
    comparison = Comparison(workload)
    for round_ in range(rounds + 1):
        for engine, it in engines.items():
            time.sleep(PAUSE)
            # What takes milliseconds is repeated; the first run of each turn wakes the threads.
            for repeat in range(21 if len(documents) == 1 else 1):
                # The first round warms up.
                logits, seconds = it.score(documents if round_ > 0 else documents[:WARM_UP], batch)
                if round_ > 0 and (repeat > 0 or len(documents) > 1):
                    times[engine].append(seconds)
            if round_ == 1:
                comparison.check(engine, logits)
    return times, comparison


def alone(workload, documents, batch, starts, rounds):
    """Each engine's seconds and peak memory in megabytes, in a process that does nothing else."""
    times, memory = {}, {}
    comparison = Comparison(workload)
    for name, start in starts.items():
        with start() as engine:
            logits, _ = engine.score(documents, batch)
            comparison.check(name, logits)
            times[name] = [engine.score(documents, batch)[1] for _ in range(rounds)]
            memory[name] = engine.peak_mb()
    return times, memory


def row(workload, documents, times, memory):
    first, *_ = times
    speed = {e: len(documents) / statistics.median(t) for e, t in times.items()}
    cells = [
        (f"{speed[e]:.1f}" if speed[e] >= 10 else f"{speed[e]:.3g}")
        + (f" ({speed[first] / speed[e]:.2f}x)" if e != first else "")
        + (f", {1000 / speed[e]:.1f} ms" if len(documents) == 1 else "")
        + (f", {memory[e]:.0f} MB" if memory else "")
        for e in times
    ]
    return f"| {workload} | " + " | ".join(cells) + " |"


def encoder_lines(arguments, ours, wanted):
    """The table's lines for a model that is no decoder; `ours` is a name and flags for each rerankd."""
    import transformers

    from native import native

    model, threads = arguments.model, arguments.threads
    onnx = export(model, wanted)
    tokenizer = transformers.AutoTokenizer.from_pretrained(native(model, onnx / "native"))
    config = json.loads((Path(model) / "config.json").read_text())
    longest = texts.longest(tokenizer, config)
    binary = build() if ours else None
    starts = {n: lambda f=f: rerankd(binary, model, threads, f) for n, f in ours.items()}
    starts |= {n: lambda n=n: peer(n, model, onnx, threads, longest) for n in wanted}
    lines = ["| workload | " + " | ".join(starts) + " |", "|---|" + "---|" * len(starts)]
    all_workloads = texts.workloads(tokenizer, longest).items()
    chosen = [(name, *rest) for name, rest in all_workloads if name[0] in arguments.workloads]
    if arguments.without_best:
        chosen = [workload for workload in chosen if not workload[0].endswith("best")]
    long = [workload for workload in chosen if workload[0][0] == "f"]
    peaks, comparisons = [], []
    if short := [workload for workload in chosen if workload not in long]:
        engines = {name: start() for name, start in starts.items()}
        for name, documents, batch in short:
            times, comparison = in_turn(name, documents, batch, engines, arguments.rounds)
            comparisons.append(comparison)
            lines.append(row(name, documents, times, None))
            print(lines[-1], file=sys.stderr, flush=True)
        for name, engine in engines.items():
            with engine:
                peaks.append(f"{name} {engine.peak_mb():.0f} MB")
    for name, documents, batch in long:
        lines.append(row(name, documents, *alone(name, documents, batch, starts, min(arguments.rounds, LONG_ROUNDS))))
        print(lines[-1], file=sys.stderr, flush=True)
    lines.append("")
    if comparisons:
        lines.append(max(comparisons, key=lambda comparison: len(comparison.reference)).told())
    if peaks:
        lines.append(f"Peak memory of the processes, after a to e: {', '.join(peaks)}.")
    if long:
        lines.append(
            f"f: at most {LONG_ROUNDS} rounds, each engine alone in a new process, with that process's peak memory."
        )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="models/minilm", help="model folder (default: models/minilm)")
    parser.add_argument("--threads", type=int, default=2, help="of every engine (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="each engine runs each workload once a round")
    parser.add_argument("--peers", help=f"default: {default_peers()}; of a decoder: {decoders.PEERS}")
    parser.add_argument("--rerankd", action="append", default=[], metavar="NAME=FLAGS",
                        help="a rerankd engine beside the f32 one, such as 'avx2=--instructions avx2'")
    parser.add_argument("--only-peers", action="store_true", help="without rerankd: the first peer is the reference")
    parser.add_argument("--workloads", default="abcdef", help="their letters (default: abcdef)")
    parser.add_argument("--types", default=decoders.TYPES, help=f"of a decoder's weights (default: {decoders.TYPES})")
    parser.add_argument("--documents", type=int, default=20, help="a decoder's documents of 200 tokens (default: 20)")
    parser.add_argument("--batch", type=int, help="a decoder's documents in a batch of a peer (default: the best)")
    parser.add_argument("--without-best", action="store_true", help="leave out e with the peers' documents one by one")
    parser.add_argument("--write", action="store_true", help="write the table to benches/results")
    arguments = parser.parse_args()
    in_environment()
    model, threads = arguments.model, arguments.threads
    decoder = decoders.is_decoder(model)
    peers = arguments.peers if arguments.peers is not None else decoders.PEERS if decoder else default_peers()
    wanted = [name for name in peers.split(",") if name]
    ours = {"rerankd": []} | {f"rerankd {n}": f.split() for n, f in (x.split("=", 1) for x in arguments.rerankd)}
    ours = {} if arguments.only_peers else ours
    first, *_ = [*ours, *wanted]
    rounds = min(arguments.rounds, LONG_ROUNDS) if decoder else arguments.rounds
    lines = [
        f"# {Path(model).name}, {threads} threads",
        "",
        f"{datetime.date.today()}; {machine()}; {rounds} rounds, medians. Pairs per second (the higher the"
        f" better); in brackets the ratio of {first}'s {'' if decoder else 'f32 '}to it"
        + (", of the same type of weights." if decoder else "; where there is one pair, also in milliseconds."),
        "",
    ]
    if decoder:
        types = arguments.types.split(",")
        sizes = [arguments.batch] if arguments.batch else decoders.BATCHES
        lines += decoders.lines(model, ours, wanted, types, threads, rounds, arguments.documents, sizes)
    else:
        lines += encoder_lines(arguments, ours, wanted)
    print("\n".join(lines))
    if arguments.write:
        cpu = "-".join(re.findall("[a-z0-9]+", machine().split(",")[0].lower().replace("(r)", "")))
        name = f"{datetime.date.today()}-{Path(model).name}-{cpu}.md"
        target = ROOT / "benches" / "results" / name
        target.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    try:
        main()
    except Ended as error:
        sys.exit(str(error))
