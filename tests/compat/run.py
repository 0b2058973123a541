#!/usr/bin/env python3
"""Drives the real rerank clients, in Python and JavaScript, against the real server, and checks the
server against its own openapi.yaml.

    python3 tests/compat/run.py            everything; what CI runs (some minutes)
    python3 tests/compat/run.py clients    only the clients
    python3 tests/compat/run.py schema     only openapi.yaml: validated, then fuzzed by schemathesis

Needs Python 3 and Cargo, and Node.js with npm for the JavaScript clients. The environments are made
under target/compat, with the versions that stand in requirements/ and package.json.
"""

import argparse
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import drive  # noqa: E402
from drive import ROOT, node_modules, run  # noqa: E402

WORK = ROOT / "target" / "compat"
KEY = "compat-key"
MAX_DOCUMENTS = 20

# Environment: the tests that run in it. Some clients can't stand each other's dependencies.
PYTHON = {
    "main": ["test_cohere.py", "test_litellm.py", "test_frameworks.py", "test_sdks.py", "test_readme.py"],
    "infinity": ["test_infinity.py"],
    "haystack": ["test_haystack_tei.py"],
    "grpc": ["test_grpc.py"],
}


def environment(name):
    """Makes a virtual environment, unless it is there with these requirements."""
    folder, requirements = WORK / name, HERE / "requirements" / f"{name}.txt"
    done = folder / "requirements.txt"
    if not done.exists() or done.read_text() != requirements.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", folder])
        pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "--no-deps", "--requirement", requirements])
        shutil.copy(requirements, done)
    return folder / "bin"


@contextmanager
def server(aliases):
    """Runs the server on a tiny model; gives its address."""
    with tempfile.TemporaryDirectory() as folder:
        keys, log = Path(folder) / "keys", Path(folder) / "log"
        keys.write_text(f"compat {KEY}\n")
        settings = {
            "MODEL__ID": str(HERE.parent / "fixtures" / "models" / "tiny-bert"),
            "MODEL__ALIASES": aliases,
            "LIMITS__MAX_DOCUMENTS": str(MAX_DOCUMENTS),
            "AUTH__KEYS_FILE": str(keys),
        }
        with drive.server(log, **settings) as base:
            yield base
        text = log.read_text()
        assert '"key":"compat"' in text and KEY not in text, "logs name keys, and never hold them"


def clients():
    with ThreadPoolExecutor() as pool:
        bins = {name: pool.submit(environment, name) for name in PYTHON}
        npm = pool.submit(node_modules, WORK, HERE / "package.json", [HERE / "clients.mjs", ROOT / "README.md"])
        bins, npm = {name: made.result() for name, made in bins.items()}, npm.result()
    run([bins["grpc"] / "python", ROOT / "scripts" / "protos.py", "--check"])
    with server("rerank-*,jina-reranker-*") as base:
        env = {
            **os.environ,
            "RERANKD_URL": base,
            "RERANKD_KEY": KEY,
            "RERANKD_MAX_DOCUMENTS": str(MAX_DOCUMENTS),
            # Some clients would look things up, or count their users, on the internet.
            "HF_HUB_OFFLINE": "1",
            "HAYSTACK_TELEMETRY_ENABLED": "False",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        for name, tests in PYTHON.items():
            pytest = [bins[name] / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
            run([*pytest, "-W", "ignore", *tests], cwd=HERE, env=env)
        run(["node", "--test", "--test-reporter", "spec", "clients.mjs"], cwd=npm, env=env)


def schema():
    tools = environment("schema")
    run([tools / "openapi-spec-validator", ROOT / "openapi.yaml"])
    checks = [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    ]
    # Any model's name is an alias here, or most made-up requests would end in 404.
    with server("*") as base:
        command = [tools / "schemathesis", "run", ROOT / "openapi.yaml", "--url", base]
        command += ["--header", f"Authorization: Bearer {KEY}", "--checks", ",".join(checks)]
        # With less, 504 is the right answer.
        command += ["--header", "x-request-timeout-ms: 30000"]
        command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "100"]
        # How many made-up bodies it throws away itself says nothing of the server.
        command += ["--suppress-health-check", "filter_too_much"]
        run([*command, "--seed", "1", "--workers", "1"], cwd=WORK)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["clients", "schema"])
    what = parser.parse_args().what
    WORK.mkdir(parents=True, exist_ok=True)
    run(["cargo", "build", "--release", "--locked"], cwd=ROOT)
    if what in (None, "clients"):
        clients()
    if what in (None, "schema"):
        schema()


if __name__ == "__main__":
    main()
