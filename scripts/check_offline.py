"""Runs examples/offline/ray_data.py against a server, and holds its scores against those of `rerankd score`.

    python3 scripts/check_offline.py

It needs target/release/rerankd, with the built-in model. Ray and pyarrow are installed into target/offline, from
Python's index (300 MB). Spark's example is compiled only.
"""

import json
import math
import os
import pathlib
import py_compile
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import drive  # noqa: E402

PACKAGES = ["ray[data]==2.60.0", "pyarrow==26.0.1", "pandas==3.1.1"]
EXAMPLES = ROOT / "examples" / "offline"
ROWS = 600


def environment():
    python = ROOT / "target" / "offline" / "bin" / "python"
    if not python.exists():
        drive.run([sys.executable, "-m", "venv", python.parent.parent])
    drive.run([python, "-m", "pip", "install", "-q", *PACKAGES])
    return python


def main():
    python = environment()
    program = ROOT / "target" / "release" / "rerankd"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        lines = folder / "pairs.jsonl"
        row = lambda i: {"id": i, "query": f"river {i % 7}", "document": f"The river {i} runs to the sea. " * (1 + i % 5)}
        lines.write_text("".join(json.dumps(row(i)) + "\n" for i in range(ROWS)))
        pairs = folder / "pairs"
        pairs.mkdir()
        code = "import sys, pandas; pandas.read_json(sys.argv[1], lines=True).to_parquet(sys.argv[2])"
        drive.run([python, "-c", code, lines, pairs / "part.parquet"])
        drive.run([program, "score", pairs / "part.parquet", folder / "expected.jsonl"])
        with drive.server(folder / "log") as base:
            env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(EXAMPLES)}
            drive.run([python, EXAMPLES / "ray_data.py", base, pairs, folder / "scored"], env=env)
        code = "import sys, pandas; pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True)"
        drive.run([python, "-c", code, folder / "scored", folder / "scored.jsonl"])
        read = lambda path: {row["id"]: row["score"] for row in map(json.loads, path.read_text().splitlines())}
        expected, scored = read(folder / "expected.jsonl"), read(folder / "scored.jsonl")
    assert len(expected) == ROWS and expected.keys() == scored.keys()
    worst = max(abs(expected[i] - scored[i]) for i in expected)
    assert math.isfinite(worst) and worst < 1e-6, worst
    py_compile.compile(str(EXAMPLES / "spark.py"), doraise=True)
    print(f"{ROWS} rows have the same scores by Ray and by rerankd score (greatest difference {worst:.1e})")


if __name__ == "__main__":
    main()
