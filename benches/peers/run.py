#!/usr/bin/env python3
"""rerankd against its peers: the same model, texts and threads, in turn, in one run.

    python3 benches/peers/run.py --model models/minilm

Makes its own virtual environment (target/peers), exports the model to ONNX, builds rerankd, runs
every workload on every engine, round by round, checks that the scores agree, and prints ratios of
medians. --write adds the table to benches/results. Every engine is a process of its own and tokenises
within its time.
"""

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import texts

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PLACE = ROOT / "target" / "peers"
# Some engines' threads spin for a while after their work, which would slow the next engine's.
PAUSE = 0.3
# Documents that every engine scores before a workload is timed.
WARM_UP = 8
# Rounds of what takes an engine a minute.
LONG_ROUNDS = 3
PEERS = "onnxruntime,openvino,sentence-transformers,onnxruntime int8"


def in_environment():
    """Starts itself again in the virtual environment, making it first if need be."""
    python = PLACE / "bin" / "python"
    if Path(sys.prefix).resolve() == PLACE.resolve():
        os.environ["HF_HUB_OFFLINE"] = "1"
        return
    if not (PLACE / "ready").exists():
        print("making the peers' virtual environment in target/peers (some GB, some minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", PLACE], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
        (PLACE / "ready").touch()
    os.execv(python, [python, *sys.argv])


class Ended(Exception):
    """An engine's process ended before it answered."""


class Engine:
    """An engine's process, which answers a line of JSON with one."""

    def __init__(self, command, environment=None):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {})
        )
        # Its first line says that it is ready.
        self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            command = " ".join(map(str, self.process.args))
            raise Ended(f"{command} ended with status {self.process.wait()}; its own words are above")
        return json.loads(line)

    def score(self, documents, batch):
        """The documents' logits, and the seconds."""
        request = {"query": texts.QUERY, "documents": documents, "batch": batch}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.read()
        return answer["logits"], answer["seconds"]

    def peak_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def build():
    """Builds the worker; returns its path."""
    command = ["cargo", "bench", "--bench", "worker", "--no-run", "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines()]
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "worker")


def rerankd(binary, model, threads, flags=()):
    return Engine([binary, "--model", model, "--threads", str(threads), *flags])


def peer(name, model, onnx, threads, longest):
    command = [sys.executable, HERE / "serve.py", name, "--model", model, "--onnx", onnx, "--threads", str(threads)]
    return Engine([*command, "--longest", str(longest)], {
        "OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true",
    })


def export(model, int8):
    """Exports the model to ONNX, in a process that ends; returns the folder."""
    onnx = PLACE / "onnx" / Path(model).resolve().name
    subprocess.run([sys.executable, HERE / "export.py", model, onnx, *(["--int8"] if int8 else [])], check=True)
    return onnx


def exact(engine):
    return not any(name in engine for name in ("int8", "f16"))


def machine():
    cpu = [l.split(":")[1].strip() for l in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in l]
    flags = Path("/proc/cpuinfo").read_text()
    sets = [f for f in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if f in flags]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return f"{cpu[0]}, {len(cpu)} CPUs, {' '.join(sets)}; commit {commit.stdout.strip()}"


class Comparison:
    """The first engine's logits of a workload, and how far the others' are from them."""

    def __init__(self, workload):
        self.workload, self.reference = workload, None

    def check(self, engine, logits):
        self.reference = self.reference or logits
        worst = max(abs(x - y) for x, y in zip(self.reference, logits, strict=True))
        # A difference that is not a number must not pass either.
        if exact(engine) and not worst <= 1e-4:
            sys.exit(f"{self.workload}: {engine}'s logits differ by {worst}")
        print(f"{self.workload}: {engine}'s logits differ by at most {worst:.1e}", file=sys.stderr)


def in_turn(workload, documents, batch, engines, rounds):
    """Each engine's seconds, one after the other in each round."""
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
    return times


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="models/minilm", help="model folder (default: models/minilm)")
    parser.add_argument("--threads", type=int, default=2, help="of every engine (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="each engine runs each workload once a round")
    parser.add_argument("--peers", default=PEERS, help=f"default: {PEERS}")
    parser.add_argument("--rerankd", action="append", default=[], metavar="NAME=FLAGS",
                        help="a rerankd engine beside the f32 one, such as 'avx2=--instructions avx2'")
    parser.add_argument("--only-peers", action="store_true", help="without rerankd: the first peer is the reference")
    parser.add_argument("--workloads", default="abcdef", help="their letters (default: abcdef)")
    parser.add_argument("--without-best", action="store_true", help="leave out e with the peers' documents one by one")
    parser.add_argument("--write", action="store_true", help="write the table to benches/results")
    arguments = parser.parse_args()
    in_environment()
    import transformers

    from native import native

    model, threads = arguments.model, arguments.threads
    wanted = [name for name in arguments.peers.split(",") if name]
    onnx = export(model, "onnxruntime int8" in wanted)
    tokenizer = transformers.AutoTokenizer.from_pretrained(native(model, onnx / "native"))
    config = json.loads((Path(model) / "config.json").read_text())
    longest = texts.longest(tokenizer, config)
    starts = {}
    if not arguments.only_peers:
        binary = build()
        ours = {"rerankd": []} | {f"rerankd {n}": f.split() for n, f in (x.split("=", 1) for x in arguments.rerankd)}
        starts = {n: lambda f=f: rerankd(binary, model, threads, f) for n, f in ours.items()}
    starts |= {n: lambda n=n: peer(n, model, onnx, threads, longest) for n in wanted}
    first, *_ = starts
    lines = [
        f"# {Path(model).name}, {threads} threads",
        "",
        f"{datetime.date.today()}; {machine()}; {arguments.rounds} rounds, medians. Pairs per second (the higher the"
        f" better); in brackets the ratio of {'rerankd' if first == 'rerankd' else first}'s f32 to it; where there is"
        " one pair, also in milliseconds.",
        "",
        "| workload | " + " | ".join(starts) + " |",
        "|---|" + "---|" * len(starts),
    ]
    all_workloads = texts.workloads(tokenizer, longest).items()
    chosen = [(name, *rest) for name, rest in all_workloads if name[0] in arguments.workloads]
    if arguments.without_best:
        chosen = [workload for workload in chosen if not workload[0].endswith("best")]
    long = [workload for workload in chosen if workload[0][0] == "f"]
    peaks = []
    if short := [workload for workload in chosen if workload not in long]:
        engines = {name: start() for name, start in starts.items()}
        for name, documents, batch in short:
            times = in_turn(name, documents, batch, engines, arguments.rounds)
            lines.append(row(name, documents, times, None))
            print(lines[-1], file=sys.stderr, flush=True)
        for name, engine in engines.items():
            with engine:
                peaks.append(f"{name} {engine.peak_mb():.0f} MB")
    for name, documents, batch in long:
        lines.append(row(name, documents, *alone(name, documents, batch, starts, min(arguments.rounds, LONG_ROUNDS))))
        print(lines[-1], file=sys.stderr, flush=True)
    lines.append("")
    if peaks:
        lines.append(f"Peak memory of the processes, after a to e: {', '.join(peaks)}.")
    if long:
        lines.append(
            f"f: at most {LONG_ROUNDS} rounds, each engine alone in a new process, with that process's peak memory."
        )
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
