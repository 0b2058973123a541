#!/usr/bin/env python3
"""rerankd against its peers: the same model, texts and threads, in turn, in one run.

    python3 benches/peers/run.py --model models/minilm

Makes its own virtual environment (target/peers), exports the model to ONNX, builds rerankd, runs
every workload on every engine, round by round, checks that the scores agree, and prints ratios of
medians. --write adds the table to benches/results. Every engine tokenises within its time.
"""

import argparse
import datetime
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PLACE = ROOT / "target" / "peers"
# Some engines' threads spin for a while after their work, which would slow the next engine's.
PAUSE = 0.3
QUERY = "how long do the effects of the treatment last"
WORDS = (
    "the of and patients study treatment effect result group control after during clinical trial dose "
    "response weeks significant measured increase blood pressure high low risk disease therapy outcome "
    "cells protein gene expression analysis method data model system time rate flow surface layer"
).split()


def in_environment():
    """Starts itself again in the virtual environment, making it first if need be."""
    python = PLACE / "bin" / "python"
    if Path(sys.prefix).resolve() == PLACE.resolve():
        return
    if not (PLACE / "ready").exists():
        print("making the peers' virtual environment in target/peers (some GB, some minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", PLACE], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
        (PLACE / "ready").touch()
    os.execv(python, [python, *sys.argv])


def workloads(tokenizer):
    """Name to (query, documents, batch sizes of the peers)."""
    generator = random.Random(0)

    def of_tokens(count):
        """A document with which the pair has just `count` tokens (each word is one)."""
        used = len(tokenizer([QUERY], [""])["input_ids"][0])
        text = " ".join(generator.choice(WORDS) for _ in range(count - used))
        assert len(tokenizer([QUERY], [text])["input_ids"][0]) == count
        return text

    def of_words(count):
        return " ".join(generator.choice(WORDS) for _ in range(count))

    mixed = [of_words(generator.randint(20, 350)) for _ in range(100)]
    return {
        "a: 32 x 128": (QUERY, [of_tokens(128) for _ in range(32)], 32),
        "b: 32 x 256": (QUERY, [of_tokens(256) for _ in range(32)], 32),
        "c: 8 x 512": (QUERY, [of_tokens(512) for _ in range(8)], 32),
        "d: 1 x 128": (QUERY, [of_tokens(128)], 1),
        "e: 100 mixed, usual": (QUERY, mixed, 32),
        "e: 100 mixed, best": (QUERY, mixed, 1),
    }


class Rerankd:
    def __init__(self, binary, model, threads, flags):
        command = [binary, "--model", model, "--threads", str(threads), *flags]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        json.loads(self.process.stdout.readline())

    def score(self, query, documents, _batch):
        self.process.stdin.write(json.dumps({"query": query, "documents": documents}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["logits"], answer["seconds"]

    def peak_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


class Peer:
    """An engine of Python's: tokenises and scores batch by batch, in the given order."""

    def __init__(self, tokenizer, forward):
        self.tokenizer, self.forward = tokenizer, forward

    def score(self, query, documents, batch):
        start, logits = time.perf_counter(), []
        for i in range(0, len(documents), batch):
            part = documents[i : i + batch]
            encoded = self.tokenizer(
                [query] * len(part), part, padding=True, truncation=True, max_length=512, return_tensors="np"
            )
            logits.extend(self.forward(dict(encoded)).reshape(-1).tolist())
        return logits, time.perf_counter() - start


def export(model, folder):
    """The model as ONNX, and that again with dynamic int8 (per channel, reduced range)."""
    import torch
    import transformers
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exact, int8 = folder / "model.onnx", folder / "model-int8.onnx"
    if not int8.exists():
        folder.mkdir(parents=True, exist_ok=True)
        net = transformers.AutoModelForSequenceClassification.from_pretrained(
            model, attn_implementation="eager"
        ).eval()
        names = ["input_ids", "attention_mask", "token_type_ids"]
        example = {n: torch.ones(2, 8, dtype=torch.long) for n in names}
        torch.onnx.export(
            net, (example["input_ids"], example["attention_mask"], example["token_type_ids"]), exact,
            input_names=names, output_names=["logits"], opset_version=17, dynamo=False,
            dynamic_axes={n: {0: "batch", 1: "tokens"} for n in names} | {"logits": {0: "batch"}},
        )
        quantize_dynamic(exact, int8, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    return exact, int8


def peers(model, threads, wanted):
    import numpy as np
    import onnxruntime
    import openvino
    import torch
    import transformers
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    exact, int8 = export(model, PLACE / "onnx" / Path(model).resolve().name)

    def onnx(path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = {i.name for i in session.get_inputs()}
        return lambda x: session.run(["logits"], {k: v.astype(np.int64) for k, v in x.items() if k in names})[0]

    def open_vino():
        core = openvino.Core()
        config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(exact), "CPU", config)
        names = {i.any_name for i in compiled.inputs}
        request = compiled.create_infer_request()
        return lambda x: request.infer({k: v.astype(np.int64) for k, v in x.items() if k in names})[0].copy()

    class SentenceTransformers:
        def __init__(self):
            self.encoder = CrossEncoder(str(model), device="cpu", max_length=512, activation_fn=torch.nn.Identity())

        def score(self, query, documents, batch):
            start = time.perf_counter()
            scores = self.encoder.predict(
                [(query, d) for d in documents], batch_size=batch, show_progress_bar=False
            )
            return scores.tolist(), time.perf_counter() - start

    made = {
        "onnxruntime": lambda: Peer(tokenizer, onnx(exact)),
        "openvino": lambda: Peer(tokenizer, open_vino()),
        "sentence-transformers": SentenceTransformers,
        "onnxruntime int8": lambda: Peer(tokenizer, onnx(int8)),
    }
    return tokenizer, {name: made[name]() for name in made if name in wanted}


def build():
    """Builds the worker; returns its path."""
    command = ["cargo", "bench", "--bench", "worker", "--no-run", "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines()]
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "worker")


def exact(engine):
    return not any(name in engine for name in ("int8", "f16"))


def machine():
    cpu = [l.split(":")[1].strip() for l in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in l]
    flags = Path("/proc/cpuinfo").read_text()
    sets = [f for f in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if f in flags]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return f"{cpu[0]}, {len(cpu)} CPUs, {' '.join(sets)}; commit {commit.stdout.strip()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="models/minilm", help="model folder (default: models/minilm)")
    parser.add_argument("--threads", type=int, default=2, help="of every engine (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="each engine runs each workload once a round")
    parser.add_argument("--peers", default="onnxruntime,openvino,sentence-transformers,onnxruntime int8")
    parser.add_argument("--rerankd", action="append", default=[], metavar="NAME=FLAGS",
                        help="a rerankd engine beside the f32 one, such as 'avx2=--instructions avx2'")
    parser.add_argument("--write", action="store_true", help="write the table to benches/results")
    arguments = parser.parse_args()
    in_environment()

    os.environ["HF_HUB_OFFLINE"] = "1"
    binary = build()
    tokenizer, engines = peers(arguments.model, arguments.threads, arguments.peers.split(","))
    ours = {"rerankd": []} | {f"rerankd {n}": f.split() for n, f in (x.split("=", 1) for x in arguments.rerankd)}
    engines = {n: Rerankd(binary, arguments.model, arguments.threads, f) for n, f in ours.items()} | engines
    lines = [
        f"# {Path(arguments.model).name}, {arguments.threads} threads",
        "",
        f"{datetime.date.today()}; {machine()}; {arguments.rounds} rounds, medians. Pairs per second (the higher the"
        " better); in brackets the ratio of rerankd's f32 to it; d also in milliseconds.",
        "",
        "| workload | " + " | ".join(engines) + " |",
        "|---|" + "---|" * len(engines),
    ]
    for name, (query, documents, batch) in workloads(tokenizer).items():
        times = {e: [] for e in engines}
        reference = None
        for round_ in range(arguments.rounds + 1):
            for engine, it in engines.items():
                time.sleep(PAUSE)
                # What takes milliseconds is repeated; the first run of each turn wakes the threads.
                for repeat in range(21 if len(documents) == 1 else 1):
                    logits, seconds = it.score(query, documents, batch)
                    # The first round warms up.
                    if round_ > 0 and (repeat > 0 or len(documents) > 1):
                        times[engine].append(seconds)
                if round_ > 0:
                    continue
                reference = reference or logits
                worst = max(abs(x - y) for x, y in zip(reference, logits))
                if exact(engine) and worst > 1e-4:
                    sys.exit(f"{name}: {engine}'s logits differ by {worst}")
                print(f"{name}: {engine}'s logits differ by at most {worst:.1e}", file=sys.stderr)
        speed = {e: len(documents) / statistics.median(t) for e, t in times.items()}
        cells = [
            f"{speed[e]:.1f}" + (f" ({speed['rerankd'] / speed[e]:.2f}x)" if e != "rerankd" else "")
            + (f", {1000 / speed[e]:.1f} ms" if len(documents) == 1 else "")
            for e in engines
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
    lines.append("")
    for name in ours:
        lines.append(f"Peak memory of {name}: {engines[name].peak_mb():.0f} MB.")
    lines.append(f"Of this process with all peers in it: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB.")
    print("\n".join(lines))
    if arguments.write:
        cpu = "-".join(re.findall("[a-z0-9]+", machine().split(",")[0].lower().replace("(r)", "")))
        name = f"{datetime.date.today()}-{Path(arguments.model).name}-{cpu}.md"
        target = ROOT / "benches" / "results" / name
        target.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
