"""What the programs that drive the real server share: commands, npm's packages, the server itself."""

import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(command, **more):
    print("$", " ".join(map(str, command)), flush=True)
    subprocess.run(command, check=True, **more)


def node_modules(work, package, files):
    """Installs what a package.json names, unless it is there; copies files beside it; returns the folder."""
    folder = work / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done.json"
    if not done.exists() or done.read_text() != package.read_text():
        shutil.copy(package, folder / "package.json")
        flags = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel", "error"]
        run(["npm", "install", *flags], cwd=folder)
        shutil.copy(package, done)
    for file in files:
        shutil.copy(file, folder / file.name)
    return folder


@contextmanager
def server(log, **settings):
    """Runs the built server; gives its address. In its log, a file, no error may stand at the end."""
    settings = {"SERVER__PORT": "0", "LOG__FORMAT": "json", **settings}
    env = {**os.environ, **{f"RERANKD__{k}": v for k, v in settings.items()}}
    with log.open("w") as output:
        process = subprocess.Popen([ROOT / "target" / "release" / "rerankd"], env=env, stdout=output, stderr=output)
    try:
        address = None
        while address is None or '"ready"' not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.02)
            address = re.search(r'"address":"([^"]+)"', log.read_text())
        yield f"http://{address[1]}"
    finally:
        process.terminate()
        process.wait()
    assert '"ERROR"' not in log.read_text(), log.read_text()[-4000:]
