"""The engines of a measurement, each a process of its own, and the environment and machine that they run on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import texts

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PLACE = ROOT / "target" / "peers"


def in_environment():
    """Starts itself again in the virtual environment, making it first if need be."""
    python = PLACE / "bin" / "python"
    if Path(sys.prefix).resolve() == PLACE.resolve():
        os.environ["HF_HUB_OFFLINE"] = "1"
        return
    requirements, ready = HERE / "requirements.txt", PLACE / "ready"
    if not ready.exists() or ready.read_text() != requirements.read_text():
        print("making the peers' virtual environment in target/peers (some GB, some minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", PLACE], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
        ready.write_text(requirements.read_text())
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

    def score(self, documents, batch, query=texts.QUERY):
        """The documents' logits, and the seconds."""
        request = {"query": query, "documents": documents, "batch": batch}
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


def peer(name, model, exports, threads, longest):
    command = [sys.executable, HERE / "serve.py", name, "--model", model, "--exports", exports]
    return Engine([*command, "--threads", str(threads), "--longest", str(longest)], {
        "OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true",
    })


def machine():
    cpu = [l.split(":")[1].strip() for l in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in l]
    flags = Path("/proc/cpuinfo").read_text()
    sets = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f in flags]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return f"{cpu[0]}, {len(cpu)} CPUs, {' '.join(sets)}; commit {commit.stdout.strip()}"


def exact(engine):
    return not any(name in engine for name in ("int8", "f16", "default"))


class Comparison:
    """The first engine's logits of a workload, and how far the others' are from them."""

    def __init__(self, workload):
        self.workload, self.reference, self.off = workload, None, {}

    def check(self, engine, logits):
        self.reference = self.reference or logits
        worst = max(abs(x - y) for x, y in zip(self.reference[: len(logits)], logits, strict=True))
        # A difference that is not a number must not pass either.
        if exact(engine) and not worst <= 1e-4:
            sys.exit(f"{self.workload}: {engine}'s logits differ by {worst}")
        print(f"{self.workload}: {engine}'s logits differ by at most {worst:.1e}", file=sys.stderr)
        self.off[engine] = (worst, logits)

    def told(self):
        """How far each engine's logits are from the first one's, and Kendall's tau of the two orders."""
        from scipy.stats import kendalltau

        first, *others = self.off
        told = [
            f"{engine} {worst:.1e} ({kendalltau(self.reference, logits).statistic:.3f})"
            for engine, (worst, logits) in self.off.items() if engine in others
        ]
        return f"{self.workload}: greatest difference from {first}'s logits, and tau: {', '.join(told)}."
