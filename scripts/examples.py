#!/usr/bin/env python3
"""Runs the examples of docs/ against the program and compares what it answers with what the pages say.

    python3 scripts/examples.py            runs all of them
    python3 scripts/examples.py --write    puts the answer behind each example that has none or another one

An example is a block of `sh` in which curl asks localhost:8080; the block of `json` or `text` that follows it is the
answer. `"..."` as a list's last entry or as a key, and ... at the end of a text stand for what was left out. Numbers
may differ a little, since machines round differently, and what is new each time (ids, times) is not compared.
`<!-- server: COMMAND -->` before an example says how its server is started; $TMP is a folder for it. It needs curl and
target/release/rerankd, with the built-in model.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target" / "release" / "rerankd"
EXAMPLE = re.compile(
    r"(?:<!-- server: (?P<server>.*?) -->\n+)?```sh\n(?P<command>[^`]*?localhost:8080[^`]*?)```\n"
    r"(?:\n+```(?P<kind>json|text)\n(?P<answer>.*?)\n```\n)?", re.S)
# New each time, or another machine's.
CHANGING = {"id", "request_id", "created", "load_ms", "uptime_seconds", "version", "sha", "instructions", "threads"}
WIDTH = 116


def same(said, found, key=""):
    if key in CHANGING:
        return True
    if isinstance(said, dict) and isinstance(found, dict):
        wanted = said.keys() - {"..."}
        complete = "..." in said or wanted == found.keys()
        return complete and wanted <= found.keys() and all(same(said[k], found[k], k) for k in wanted)
    if isinstance(said, list) and isinstance(found, list):
        if said and said[-1] == "...":
            said, found = said[:-1], found[: len(said) - 1]
        return len(said) == len(found) and all(map(same, said, found))
    if isinstance(said, bool) or isinstance(found, bool):
        return said is found
    if isinstance(said, (int, float)) and isinstance(found, (int, float)):
        # Kinds of CPU round otherwise in int8 (docs/scores.md); a weight is a difference of two logits.
        return abs(said - found) <= (0.25 if key == "weight" else 0.03) + 0.03 * abs(found)
    if isinstance(said, str) and said.endswith("...") and isinstance(found, str):
        return found.startswith(said[:-3])
    return said == found


def pretty(value, indent=0):
    """JSON with as much on a line as fits."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= WIDTH or not isinstance(value, (dict, list)) or not value:
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{json.dumps(k)}: {pretty(v, indent + 2)}" for k, v in value.items()]
        left, right = "{", "}"
    else:
        parts = [pretty(v, indent + 2) for v in value]
        left, right = "[", "]"
    return f"{left}\n{inner}" + f",\n{inner}".join(parts) + f"\n{' ' * indent}{right}"


class Servers:
    """A server for each command that starts one, started when it is first needed."""

    def __init__(self):
        self.running = {}
        self.folder = tempfile.TemporaryDirectory()

    def address(self, command):
        if command not in self.running:
            log = Path(self.folder.name) / f"log-{len(self.running)}"
            start = r"exec env \1$PROGRAM --port 0 --log-format json"
            script = re.sub(r"((?:RERANKD__\w+=\S+ )*)rerankd\b", start, command)
            env = os.environ | {"PROGRAM": str(PROGRAM), "TMP": self.folder.name}
            with log.open("w") as stderr:
                process = subprocess.Popen(["bash", "-euc", script], stderr=stderr, cwd=ROOT, env=env)
            for _ in range(300):
                text = log.read_text()
                if '"message":"ready"' in text or process.poll() is not None:
                    break
                time.sleep(0.1)
            found = re.search(r'"address":"([^"]+)"', text)
            if process.poll() is not None or not found:
                sys.exit(f"{command} does not serve: {text}")
            self.running[command] = (process, found[1])
        return self.running[command][1]

    def stop(self):
        for process, _ in self.running.values():
            process.terminate()
            process.wait()
        self.folder.cleanup()


def run(command, address, must_succeed):
    # Where no answer is shown, a status of an error is one.
    curl = 'curl() { command curl -f "$@"; }\n' if must_succeed else ""
    command = curl + command.replace("localhost:8080", address)
    return subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT)


def answer(text):
    """What a text says, and the block that shows it."""
    try:
        value = json.loads(text)
    except ValueError:
        text = text.replace("\r", "").strip()
        return text, f"```text\n{text}\n```" if text else ""
    return value, f"```json\n{pretty(value)}\n```"


def main():
    write = sys.argv[1:] == ["--write"]
    if sys.argv[1:] and not write:
        sys.exit(__doc__)
    servers, faults, count = Servers(), [], 0
    try:
        for page in sorted((ROOT / "docs").rglob("*.md")):
            text = page.read_text()
            out, end = [], 0
            for example in EXAMPLE.finditer(text):
                count += 1
                place = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, example.start('command')) + 1}"
                must_succeed = not example["kind"] and not write
                done = run(example["command"], servers.address(example["server"] or "rerankd"), must_succeed)
                if done.returncode != 0:
                    faults.append(f"{place}: exit code {done.returncode}: {done.stdout}{done.stderr}")
                    continue
                found, shown = answer(done.stdout)
                if example["kind"]:
                    said, _ = answer(example["answer"])
                    if same(said, found):
                        continue
                if write and shown:
                    out.append(text[end:example.end("command")] + f"```\n\n{shown}\n")
                    end = example.end()
                elif example["kind"]:
                    faults.append(f"{place}: the answer is {done.stdout}")
            if write and out:
                page.write_text("".join(out) + text[end:])
    finally:
        servers.stop()
    print("\n".join(faults) or f"{count} examples are as the pages say")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
