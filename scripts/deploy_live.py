"""Prometheus reads two running servers; every query has a result. For check_deploy.py."""

import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import yaml

import self_signed
from deploy_tools import clean

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def background(command, log, **more):
    with log.open("w") as file:
        process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file, **more)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(what, log):
    until = time.monotonic() + 30
    while not (found := what()):
        if time.monotonic() > until:
            sys.exit(f"it did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.05)
    return found


@contextmanager
def server(program, log, **settings):
    """A server with a cross-encoder and a ColBERT, all caches, and API keys."""
    settings = {"SERVER__PORT": "0", "LOG__FORMAT": "json", "CACHE__SCORES_MB": "8", **settings}
    environment = clean() | {f"RERANKD__{name}": value for name, value in settings.items()}
    late = ROOT / "tests" / "fixtures" / "models" / "tiny-colbert"
    with background([program, "--model", "builtin", "--model", f"late={late}"], log, env=environment):
        address = wait_for(lambda: '"ready"' in log.read_text() and re.search(r'"address":"([^"]+)"', log.read_text()), log)
        yield address[1]


def ask(address, query, texts, model="rerankd-builtin"):
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    body = {"model": model, "query": query, "documents": texts}
    headers = {"content-type": "application/json", "authorization": "Bearer secret-of-the-check"}
    connection.request("POST", "/v1/rerank", json.dumps(body), headers)
    return connection, connection.getresponse


def load(address, over):
    """Requests that make every metric: the same again, a document twice, a long one, many, a client that goes."""
    number = 0
    while not over.wait(0.3):
        number += 1
        for model in ("rerankd-builtin", "late"):
            texts = ["the card", "the card", f"an office {number}", "long " * (3000 if number % 5 == 0 else 50)]
            # Twice the same, for the cache of scores; then others of the same documents, for that of vectors.
            connection, answer = ask(address, f"a refund {number // 2}", texts, model)
            answer().read()
            connection.close()
        if number % 4 == 0:
            connection, _ = ask(address, "a refund", [f"office {number} {place} " * 20 for place in range(40)])
            time.sleep(0.05)
            connection.close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_ready(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=10).status == 200
    except OSError:
        return False


def results(port, text):
    address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": text})
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)["data"]["result"]


def without_result(program, rules, queries):
    """The queries, each with where it stands, that have no result within 40 seconds."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        keys = folder / "keys"
        keys.write_text("me secret-of-the-check\n")
        certificate, key = self_signed.pair(folder)
        health = free_port()
        # The second one refuses whatever waits, the third speaks TLS but at its health port.
        with (
            server(program, folder / "a.log", AUTH__KEYS_FILE=str(keys)) as first,
            server(program, folder / "b.log", AUTH__KEYS_FILE=str(keys), LIMITS__MAX_QUEUE_MS="4") as second,
            server(program, folder / "c.log", TLS__CERT_FILE=certificate, TLS__KEY_FILE=key, SERVER__HEALTH_PORT=str(health)),
        ):
            (folder / "prometheus.yml").write_text(yaml.safe_dump({
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(rules)],
                # As the chart's ServiceMonitor names them.
                "scrape_configs": [{"job_name": "r-rerankd", "static_configs": [
                    {"targets": [first, second, f"127.0.0.1:{health}"], "labels": {"namespace": "search"}}]}],
            }))
            port = free_port()
            command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                       f"--web.listen-address=127.0.0.1:{port}"]
            over, log = threading.Event(), folder / "prometheus.log"
            threads = [threading.Thread(target=load, args=(address, over)) for address in (first, first, second, second)]
            with background(command, log):
                wait_for(lambda: is_ready(port), log)
                for thread in threads:
                    thread.start()
                try:
                    left = [(where, concrete(text)) for where, text in queries]
                    until = time.monotonic() + 40
                    while time.monotonic() < until and left:
                        time.sleep(2)
                        left = [(where, text) for where, text in left if not results(port, when_well(text))]
                finally:
                    over.set()
                    for thread in threads:
                        thread.join()
            return left


def concrete(query):
    """A panel's query as Grafana sends it, all jobs and replicas chosen."""
    return query.replace("$job", ".*").replace("$instance", ".*").replace("$__rate_interval", "10s")


def when_well(text):
    """An alert's query has no result where all is well: what it compares has, of answers with any status."""
    return re.sub(r"\s*(?:==|[<>]=?)\s*[\d.]+\s*$", "", text).replace('status=~"5..", status!="503"', "")
