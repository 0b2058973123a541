#!/usr/bin/env python3
"""Shows where the engine's time goes, and how near it is to what the machine could do.

    cargo build --release
    python3 benches/profile.py [--model MODEL] [--dtype f32 --dtype int8] [--words 90] [--documents 32]

Starts the server, keeps its threads at work with requests of equal documents for some seconds and samples by Linux's
`perf` (package linux-perf) which function each thread is in. Functions are summed up by part. A part that the compiler
has put into another one's function counts there: the bias, GELU and residual of f32's products are in `finish` only
where there is an activation, and the rounding of int8's activations is among its products. `--peak` takes the machine's
own limit in GFLOP/s of one thread (`cargo bench -p rerankd-kernels --bench limits`), for the share of it that products reach.
"""

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target/release/rerankd"
# The first that matches a function's name is its part.
PARTS = [
    ("products of linear layers", r"rerankd_kernels::(\w+::)+(linear|int8|tiles|vectors)\b|int8_in_tiles|with_rows"),
    ("activations, gates, residuals", r"rerankd_kernels::(\w+::)+(finish|activate)\b"),
    ("attention", r"rerankd_kernels::.*attention"),
    ("norms", r"rerankd_kernels::(\w+::)+(layer_norm|normalise_heads|rotate)\b"),
    ("embeddings, heads, order of work", r"rerankd_(kernels|engine)::"),
    ("tokenising", r"tokenizers|unicode|spm_|aho|onig|rerankd::(tokenize|scoring)"),
    ("threads that wait", r"futex|sched|nanosleep|crossbeam|rayon|parking|poll|idle|hlt"),
    ("HTTP, JSON, queue, the rest", r""),
]


def server(arguments):
    process = subprocess.Popen(
        [PROGRAM, "--port", "0", "--log-format", "json", *arguments], stderr=subprocess.PIPE, text=True
    )
    port = None
    for line in process.stderr:
        said = json.loads(line)
        if said["message"] == "listening":
            port = int(said["address"].rsplit(":", 1)[1])
        if said["message"] == "ready":
            threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
            return process, port
    sys.exit(f"profile.py: the server ended with code {process.wait()}; its last words are above")


def ask(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/v1/rerank", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    answer = json.loads(answer.read())
    if "results" not in answer:
        sys.exit(f"profile.py: {answer}")
    return answer["usage"]["total_tokens"], len(answer["results"])


def cpu_seconds(pid):
    """What a process has worked so far: its client has a part of the machine too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(arguments, dtype):
    process, port = server(["--model", arguments.model, "--dtype", dtype])
    words = "the river carves a valley through rock and carries sand down to the sea each spring".split()
    count = [0]

    def body():
        # No two are the same, so that nothing comes from a cache.
        count[0] += 1
        texts = [
            " ".join([str(count[0]), str(i)] + [words[j % len(words)] for j in range(arguments.words)])
            for i in range(arguments.documents)
        ]
        return json.dumps({"query": "what carves valleys?", "documents": texts, "max_chunks_per_doc": 1})

    end, done = time.monotonic() + arguments.seconds + 2, []

    def client():
        while time.monotonic() < end:
            done.append((time.monotonic(), *ask(port, body())))

    try:
        ask(port, body())
        clients = [threading.Thread(target=client) for _ in range(3)]
        for thread in clients:
            thread.start()
        time.sleep(1)
        with tempfile.TemporaryDirectory() as folder:
            data = f"{folder}/perf.data"
            begun, worked = time.monotonic(), cpu_seconds(process.pid)
            record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-p", str(process.pid), "-o", data]
            subprocess.run([*record, "--", "sleep", str(arguments.seconds)], check=True)
            taken, worked = time.monotonic() - begun, cpu_seconds(process.pid) - worked
            for thread in clients:
                thread.join()
            report = ["perf", "report", "-i", data, "--stdio", "-q", "--no-children", "-F", "overhead,sym", "-w", "0,0"]
            report = subprocess.run(report, check=True, capture_output=True, text=True).stdout
    finally:
        process.terminate()
        process.wait()
    inside = [(tokens, pairs) for at, tokens, pairs in done if begun <= at <= begun + taken]
    tokens, pairs = (sum(column) for column in zip(*inside))
    shares, others = {}, []
    for line in report.splitlines():
        if found := re.match(r"\s*([\d.]+)%\s+\[.\]\s+(.*)", line):
            part = next(part for part, pattern in PARTS if re.search(pattern, found[2]))
            shares[part] = shares.get(part, 0) + float(found[1])
            if part == PARTS[-1][0]:
                others.append(f"{found[1]} {found[2]}")
    if arguments.verbose:
        print(*others[:25], sep="\n", file=sys.stderr)
    return tokens / worked, pairs / worked, tokens / pairs, shares


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--dtype", action="append", choices=["f32", "f16", "bf16", "int8"])
    parser.add_argument("--words", type=int, default=90, help="words of a document (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=32, help="documents of a request (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=10, help="how long to sample (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=6, help="the model's (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=384, help="the model's (default: %(default)s)")
    parser.add_argument("--intermediate", type=int, default=1536, help="the model's (default: %(default)s)")
    parser.add_argument("--peak", type=float, help="GFLOP/s that one thread could do at best")
    parser.add_argument("--verbose", action="store_true", help="list the functions of the last part")
    arguments = parser.parse_args()
    dtypes = arguments.dtype or ["f32", "int8"]
    found = {dtype: measure(arguments, dtype) for dtype in dtypes}
    print(f"| share of the samples, % | {' | '.join(dtypes)} |\n|---{'|---' * len(dtypes)}|")
    for part, _ in PARTS:
        print(f"| {part} | " + " | ".join(f"{found[dtype][3].get(part, 0):.1f}" for dtype in dtypes) + " |")
    print("| pairs per second of CPU | " + " | ".join(f"{found[dtype][1]:.1f}" for dtype in dtypes) + " |")
    print("| tokens of a pair | " + " | ".join(f"{found[dtype][2]:.0f}" for dtype in dtypes) + " |")
    # Of the last layer, only the first token is computed behind its keys and values.
    hidden, intermediate = arguments.hidden, arguments.intermediate
    whole = 2 * (4 * hidden * hidden + 2 * hidden * intermediate)
    per_token = (arguments.layers - 1) * whole + 2 * 2 * hidden * hidden
    rates = [found[dtype][0] * per_token / 1e9 for dtype in dtypes]
    print("| GFLOP per second of CPU | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |")
    if arguments.peak:
        shares = [found[dtype][3].get(PARTS[0][0], 0) / 100 for dtype in dtypes]
        limits = [("all in all", rates), ("while products are computed", [r / s for r, s in zip(rates, shares)])]
        for name, rates in limits:
            row = " | ".join(f"{rate / arguments.peak:.2f}" for rate in rates)
            print(f"| of {arguments.peak:.0f} GFLOP/s, {name} | {row} |")


if __name__ == "__main__":
    main()
