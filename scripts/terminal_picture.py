#!/usr/bin/env python3
"""Draws docs/images/rerank.svg: commands in a terminal, with what the real program prints.

    python3 scripts/terminal_picture.py                         with target/release/rerankd
    python3 scripts/terminal_picture.py --binary PATH --out FILE

The commands are run in examples/. The last line is the time that the last one took, the fastest of 20 runs: draw it on
a machine that does nothing else.
"""

import argparse
import os
import shlex
import subprocess
import time
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = [
    ["cat", "notes.txt"],
    ["rerankd", "rerank", "--query", "When do I get my money back?", "--file", "notes.txt", "--top-n", "3"],
]
# A terminal is dark on a light page and on a dark one.
BACKGROUND, BAR, TEXT, DIM, PROMPT, BEST = "#12161d", "#232a35", "#d5dbe5", "#8a94a6", "#6cb6ff", "#7ee2a8"
SIZE, WIDTH, HEIGHT, LEFT, TOP = 14, 8.4, 21, 20, 58


def run(command, binary):
    """Standard output of a command, and the seconds it took."""
    env = {**os.environ, "COLUMNS": "100"}
    real = [str(binary) if word == "rerankd" else word for word in command]
    start = time.monotonic()
    done = subprocess.run(real, cwd=ROOT / "examples", env=env, check=True, capture_output=True, text=True)
    return done.stdout.rstrip("\n").split("\n"), time.monotonic() - start


def typed(command):
    return " ".join(f'"{word}"' if shlex.quote(word) != word else word for word in command)


def lines(binary):
    """Each line of the screen as a list of (text, colour)."""
    for command in COMMANDS:
        yield [("$ ", PROMPT), (typed(command), TEXT)]
        printed, _ = run(command, binary)
        table = command[0] == "rerankd"
        for number, line in enumerate(printed):
            colour = (DIM, BEST)[number] if table and number < 2 else TEXT
            yield [(line, colour)]
        yield []
    seconds = min(run(COMMANDS[-1], binary)[1] for _ in range(20))
    yield [(f"{seconds:.2f} s from start to end: the model is within the program, on a CPU, offline", DIM)]


def draw(screen):
    columns = max(sum(len(text) for text, _ in line) for line in screen)
    width, height = round(2 * LEFT + columns * WIDTH), TOP + len(screen) * HEIGHT
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="rerankd ranks the lines of a file in a terminal">'
    )
    yield f'<rect width="{width}" height="{height}" rx="10" fill="{BACKGROUND}"/>'
    yield f'<path d="M0 36V10A10 10 0 0 1 10 0H{width - 10}A10 10 0 0 1 {width} 10V36Z" fill="{BAR}"/>'
    for x, colour in ((20, "#ff5f57"), (40, "#febc2e"), (60, "#28c840")):
        yield f'<circle cx="{x}" cy="18" r="6" fill="{colour}"/>'
    family = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    yield f'<g font-family="{family}" font-size="{SIZE}" xml:space="preserve">'
    for row, line in enumerate(screen):
        column = 0
        for text, colour in line:
            # The length holds the columns in line, whatever font is found.
            start, length = LEFT + column * WIDTH, len(text) * WIDTH
            at = f'x="{start:.1f}" y="{TOP + row * HEIGHT}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"'
            yield f'<text {at} fill="{colour}" style="white-space:pre">{escape(text)}</text>'
            column += len(text)
    yield "</g>\n</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "rerankd")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "rerank.svg")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(draw(list(lines(options.binary.resolve())))))


if __name__ == "__main__":
    main()
