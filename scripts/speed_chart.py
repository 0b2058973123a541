#!/usr/bin/env python3
"""Draws docs/images/speed.svg from the table of a run of benches/peers.

    python3 scripts/speed_chart.py
    python3 scripts/speed_chart.py benches/results/2026-11-24-bert-base-amd-epyc.md --out /tmp/speed.svg
"""

import argparse
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches" / "results" / "2026-11-24-minilm-amd-epyc.md"
# Columns of the table, with the name and the kind that a bar gets.
BARS = [
    ("rerankd int8", "rerankd, int8", "ours8"),
    ("onnxruntime int8", "ONNX Runtime, int8", "peer"),
    ("rerankd", "rerankd, f32", "ours"),
    ("openvino", "OpenVINO, f32", "peer"),
    ("onnxruntime", "ONNX Runtime, f32", "peer"),
    ("sentence-transformers", "sentence-transformers, f32", "peer"),
]
PANELS = [
    ("e: 100 mixed, best", "100 documents of 20 to 350 words", "the peers read one at a time, which is their best"),
    ("a: 32 x 128", "32 pairs of 128 tokens", "in batches; there is no padding to save"),
]
STYLE = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2733 }
.card { fill: #ffffff; stroke: #d5dae2 } .title { font-weight: 600 } .dim { fill: #5b6675; font-size: 12px }
.ours8 { fill: #b4490f } .ours { fill: #e08a4f } .peer { fill: #b3bcc9 }
@media (prefers-color-scheme: dark) {
  text { fill: #dfe4ec } .card { fill: #12161d; stroke: #2c3440 } .dim { fill: #9aa5b5 }
  .ours8 { fill: #ff9a57 } .ours { fill: #b8683a } .peer { fill: #4b5665 }
}
"""
WIDTH, LABELS, BAR, GAP, TOP = 760, 210, 14, 5, 74


def table(path):
    """The pairs per second of each workload and column, and the lines that say what was run where."""
    text = path.read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text if line.startswith("|")]
    columns = rows[0][1:]
    speeds = {}
    for row in rows[2:]:
        speeds[row[0]] = {name: float(cell.split()[0].rstrip(",")) for name, cell in zip(columns, row[1:])}
    about = next(line for line in text if line[:4].isdigit())
    return speeds, text[0].lstrip("# "), about.split(". Pairs")[0]


def draw(path):
    speeds, model, about = table(path)
    panel = 46 + len(BARS) * (BAR + GAP)
    height = TOP + len(PANELS) * panel + 34
    title = "Pairs scored a second (more is better)"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{title}: rerankd against its peers"><style>{STYLE}</style>'
    )
    yield f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>'
    yield f'<text x="20" y="30" class="title" style="font-size:15px">{title}</text>'
    yield '<text x="20" y="50" class="dim">A MiniLM cross-encoder of 6 layers on two cores of a CPU</text>'
    most = max(speeds[workload][name] for workload, _, _ in PANELS for name, _, _ in BARS)
    y = TOP
    for workload, heading, note in PANELS:
        yield f'<text x="20" y="{y + 14}" class="title">{escape(heading)}'
        yield f'<tspan class="dim" font-weight="400"> · {escape(note)}</tspan></text>'
        y += 26
        for name, label, kind in BARS:
            speed = speeds[workload][name]
            length = (WIDTH - LABELS - 80) * speed / most
            weight = ' style="font-weight:600"' if kind != "peer" else ""
            yield f'<text x="{LABELS - 8}" y="{y + 11}" text-anchor="end"{weight}>{escape(label)}</text>'
            yield f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>'
            yield f'<text x="{LABELS + length + 6:.1f}" y="{y + 11}"{weight}>{speed:.0f}</text>'
            y += BAR + GAP
        y += 20
    yield f'<text x="20" y="{height - 16}" class="dim">{escape(f"{model}; {about}")}</text>'
    yield "</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "speed.svg")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(draw(options.results)))


if __name__ == "__main__":
    main()
