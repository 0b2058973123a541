#!/usr/bin/env python3
"""Drives the page at `/` in headless Chromium, against the real server.

    python3 tests/page/run.py                  the tests; what CI runs (about a minute)
    python3 tests/page/run.py --screenshots    also writes the screenshots to docs/images/

Needs Cargo, Node.js with npm, and Chromium: if there is none on the PATH, apt-get installs it, which takes
Debian or Ubuntu and root. Playwright and axe-core are installed under target/page, in the versions that
stand in package.json.
"""

import argparse
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from drive import ROOT, node_modules, run, server  # noqa: E402

WORK = ROOT / "target" / "page"
KEY = "page-key"
DECODER = str(ROOT / "tests" / "fixtures" / "models" / "tiny-qwen3-plain")
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]


def browser():
    """The path of Chromium, which is installed if need be."""
    find = lambda: next(filter(None, map(shutil.which, BROWSERS)), None)
    if find() is None and shutil.which("apt-get") and os.geteuid() == 0:
        run(["apt-get", "update", "-q"])
        run(["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium", "fonts-dejavu-core"])
    found = find()
    if found is None:
        raise SystemExit("there is no Chromium: install it (Debian: apt-get install chromium), or put it on the PATH")
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--screenshots", action="store_true", help="write docs/images/page*.png")
    screenshots = parser.parse_args().screenshots
    run(["cargo", "build", "--release", "--locked"], cwd=ROOT)
    chromium, npm = browser(), node_modules(WORK, HERE / "package.json", HERE.glob("*.mjs"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys = folder / "keys"
        keys.write_text(f"page {KEY}\n")
        keyed = {"AUTH__KEYS_FILE": str(keys), "LIMITS__MAX_QUEUE_MS": "4"}
        env = {
            **os.environ,
            "CHROMIUM": chromium,
            "OPEN": stack.enter_context(server(folder / "open.log", LIMITS__MAX_DOCUMENTS="100")),
            # All that comes with one key is one caller's, and a caller can't have more than this ahead.
            "KEYED": stack.enter_context(server(folder / "keyed.log", **keyed)),
            # A model that takes an instruction; its weights are random.
            "DECODER": stack.enter_context(
                server(folder / "decoder.log", MODEL__ID=DECODER, MODEL__PROMPT="qwen3-reranker")
            ),
            "KEY": KEY,
            "IMAGES": str(ROOT / "docs" / "images") if screenshots else "",
        }
        run(["node", "--test", "--test-reporter", "spec", "page.mjs"], cwd=npm, env=env)


if __name__ == "__main__":
    main()
