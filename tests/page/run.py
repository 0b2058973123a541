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
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "page"
KEY = "page-key"
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]


def run(command, **more):
    print("$", " ".join(map(str, command)), flush=True)
    subprocess.run(command, check=True, **more)


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


def node_modules():
    """Installs Playwright and axe-core; returns the folder that the tests run in."""
    folder = WORK / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    package, done = HERE / "package.json", folder / "done.json"
    if not done.exists() or done.read_text() != package.read_text():
        shutil.copy(package, folder / "package.json")
        flags = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel", "error"]
        run(["npm", "install", *flags], cwd=folder)
        shutil.copy(package, done)
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, folder / script.name)
    return folder


@contextmanager
def server(**settings):
    """Runs the server on the built-in model; gives its address."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        settings = {"SERVER__PORT": "0", "LOG__FORMAT": "json", **settings}
        env = {**os.environ, **{f"RERANKD__{k}": v for k, v in settings.items()}}
        with log.open("w") as output:
            process = subprocess.Popen(
                [ROOT / "target" / "release" / "rerankd"], env=env, stdout=output, stderr=output
            )
        try:
            address = None
            while address is None or '"ready"' not in log.read_text():
                if process.poll() is not None:
                    raise SystemExit(f"the server did not start:\n{log.read_text()}")
                address = re.search(r'"address":"([^"]+)"', log.read_text())
            yield f"http://{address[1]}"
        finally:
            process.terminate()
            process.wait()
        assert '"ERROR"' not in log.read_text(), log.read_text()[-4000:]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--screenshots", action="store_true", help="write docs/images/page*.png")
    screenshots = parser.parse_args().screenshots
    run(["cargo", "build", "--release", "--locked"], cwd=ROOT)
    chromium, npm = browser(), node_modules()
    with ExitStack() as stack:
        keys = stack.enter_context(tempfile.NamedTemporaryFile("w"))
        keys.write(f"page {KEY}\n")
        keys.flush()
        env = {
            **os.environ,
            "CHROMIUM": chromium,
            "OPEN": stack.enter_context(server(LIMITS__MAX_DOCUMENTS="100")),
            # All that comes with one key is one caller's, and a caller can't have more than this ahead.
            "KEYED": stack.enter_context(server(AUTH__KEYS_FILE=keys.name, LIMITS__MAX_QUEUE_MS="4")),
            "KEY": KEY,
            "IMAGES": str(ROOT / "docs" / "images") if screenshots else "",
        }
        run(["node", "--test", "--test-reporter", "spec", "page.mjs"], cwd=npm, env=env)


if __name__ == "__main__":
    main()
