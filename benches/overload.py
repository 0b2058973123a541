#!/usr/bin/env python3
"""Offers a server ten times what it can do, and tells what becomes of it: the promises of docs/operations.md.

    cargo build --release
    python3 benches/overload.py                    the built-in model, 30 s of overload
    python3 benches/overload.py --sizes 1 5 --timeout-ms 500 -- --dtype f32

It fails where a promise is broken by more than the machine's noise: the last lines tell which. What follows `--` are flags of the server. It needs Python alone, and little CPU: the load comes from one thread with
bodies made before, and work is counted by the server's own CPU time, since both share the machine.

- capacity: four clients, 32 documents a request (where all have one document, 16 clients with one), each sent when the
  last is answered
- goodput: pairs answered in time for a second of the server's CPU, over the same at capacity
- wait: an answer's time less what the same request takes a server that has nothing else to do
- back: when a lone request takes at most twice its usual time again, after the last request of the load was sent, and
  after the last was answered
"""

import argparse
import json
import os
import random
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

WORDS = """the of and patients study treatment effect result group control after during trial dose response weeks
measured pressure risk disease therapy outcome cells protein gene analysis method data model system time rate""".split()
ROOT = Path(__file__).resolve().parent.parent
# Seconds.
LIMIT = 30


class Server:
    """The program on a free port."""

    def __init__(self, binary, flags):
        command = [binary, "serve", "--port", "0", "--log-format", "json", "--log-level", "warn,rerankd=info", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            said = json.loads(line) if line.startswith("{") else {"message": line}
            if said["message"] == "listening":
                host, port = said["address"].rsplit(":", 1)
                self.address = (host, int(port))
            if said["message"] == "ready":
                break
        else:
            sys.exit("the server ended")
        # The log must be read, or its lines are dropped.
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()

    def cpu(self):
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def scored(self):
        """Pairs that the engine has scored."""
        connection = Connection(self.address)
        connection.send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", 0)
        text = connection.finish()[1].decode()
        lines = [line for line in text.splitlines() if line.startswith("rerankd_pairs_scored_total")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def setting(self, binary, flags, key):
        printed = subprocess.run([binary, "serve", "--print-config", *flags], capture_output=True, text=True)
        line = next(line for line in printed.stdout.splitlines() if line.startswith(f"{key} = "))
        return int(line.split(" = ")[1])


class Connection:
    """One request at a time, without blocking."""

    def __init__(self, address):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def send(self, request, size):
        self.unsent, self.received, self.size, self.start = memoryview(request), bytearray(), size, time.monotonic()
        self.write()

    def write(self):
        while self.unsent:
            try:
                self.unsent = self.unsent[self.socket.send(self.unsent):]
            except BlockingIOError:
                return
            except OSError:
                self.unsent = self.unsent[:0]

    def read(self):
        """The status and the body once the answer is there, 0 if the connection broke, else None."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            return 0, b""
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        while found and head[9:12] == b"100":
            self.received = body
            head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return None
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if not lengths or len(body) < int(lengths[0]):
            return None
        return int(head[9:12]), bytes(body)

    def finish(self):
        """Waits for the answer."""
        selector = selectors.DefaultSelector()
        while True:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)
            selector.register(self.socket, events)
            selector.select(LIMIT)
            selector.unregister(self.socket)
            self.write()
            if (answer := self.read()) is not None:
                return answer


class Load:
    """Requests on as many connections as are needed."""

    def __init__(self, address, bodies):
        self.address, self.bodies = address, bodies
        self.selector, self.idle, self.busy = selectors.DefaultSelector(), [], set()
        # Size, status and seconds of each answer.
        self.done = []

    def send(self, size):
        connection = self.idle.pop() if self.idle else Connection(self.address)
        connection.send(random.choice(self.bodies[size]), size)
        self.busy.add(connection)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        self.selector.register(connection.socket, events, connection)

    def poll(self, seconds):
        """Handles what comes within so many seconds, and returns how many requests ended."""
        ended = 0
        for key, events in self.selector.select(max(seconds, 0)):
            connection = key.data
            if events & selectors.EVENT_WRITE:
                connection.write()
                if not connection.unsent:
                    self.selector.modify(connection.socket, selectors.EVENT_READ, connection)
            if events & selectors.EVENT_READ and (answer := connection.read()) is not None:
                self.selector.unregister(connection.socket)
                self.busy.discard(connection)
                self.done.append((connection.size, answer[0], time.monotonic() - connection.start))
                ended += 1
                if answer[0]:
                    self.idle.append(connection)
                else:
                    connection.socket.close()
        return ended


def requests(size, timeout_ms, count=16):
    """Some requests of so many documents of 60 words."""
    made = []
    for _ in range(count):
        documents = [" ".join(random.choices(WORDS, k=60)) for _ in range(size)]
        query = "how long do the effects of the treatment last"
        body = json.dumps({"query": query, "documents": documents}).encode()
        limit = f"x-request-timeout-ms: {timeout_ms}\r\n" if timeout_ms else ""
        head = f"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{limit}content-length: {len(body)}"
        made.append(head.encode() + b"\r\n\r\n" + body)
    return made


def closed_loop(load, clients, size, seconds):
    end = time.monotonic() + seconds
    for _ in range(clients):
        load.send(size)
    while load.busy:
        for _ in range(load.poll(1)):
            if time.monotonic() < end:
                load.send(size)


def open_loop(load, sizes, rate, seconds):
    """Requests at a rate, whatever becomes of them; returns when the last was sent."""
    start = next_one = time.monotonic()
    while (now := time.monotonic()) < start + seconds:
        while next_one <= now:
            load.send(random.choice(sizes))
            next_one += random.expovariate(rate)
        load.poll(next_one - time.monotonic())
    return time.monotonic()


def lone(address, bodies):
    connection = Connection(address)
    connection.send(random.choice(bodies), 1)
    status, _ = connection.finish()
    connection.socket.close()
    return status, time.monotonic() - connection.start


def until_normal(load, usual, last_sent):
    """Sends lone requests until one takes its usual time; returns them, and when the load's last answer came."""
    seen, last_answer = [], last_sent
    connection = None
    while True:
        if load.poll(0.005) and not load.busy:
            last_answer = time.monotonic()
        if connection is None:
            connection = Connection(load.address)
            connection.send(random.choice(load.bodies[1]), 1)
        if (answer := connection.read()) is not None:
            took = time.monotonic() - connection.start
            seen.append((time.monotonic(), answer[0], took))
            connection.socket.close()
            connection = None
            is_usual = answer[0] == 200 and took <= 2 * usual + 0.01
            if not load.busy and is_usual or time.monotonic() > last_sent + LIMIT:
                return seen, last_answer


def percentile(times, share):
    times = sorted(times)
    return times[min(int(share * len(times)), len(times) - 1)] if times else float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target/release/rerankd")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 5, 32, 200], help="documents of a request")
    parser.add_argument("--factor", type=float, default=10, help="the load, in capacities")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--timeout-ms", type=int, default=0, help="how long the clients wait")
    parser.add_argument("flags", nargs="*", help="of the server, after --")
    args = parser.parse_args()
    binary = str(args.binary)
    server = Server(binary, args.flags)
    try:
        is_kept = measure(args, binary, server)
    finally:
        server.process.terminate()
        server.process.wait()
    sys.exit(not is_kept)


def measure(args, binary, server):
    most_wait = server.setting(binary, args.flags, "max_queue_ms") / 1e3
    bodies = {size: requests(size, args.timeout_ms) for size in {1, *args.sizes}}
    patient = {size: requests(size, 0) for size in {1, 32, *args.sizes}}
    own = {size: statistics.median(lone(server.address, patient[size])[1] for _ in range(5)) for size in patient}
    # A request costs something besides its pairs.
    clients, documents = (16, 1) if args.sizes == [1] else (4, 32)
    closed_loop(Load(server.address, patient), clients, documents, 3)

    load, start, cpu = Load(server.address, patient), time.monotonic(), server.cpu()
    closed_loop(load, clients, documents, 10)
    pairs = sum(size for size, status, _ in load.done if status == 200)
    capacity, of_cpu = pairs / (time.monotonic() - start), pairs / (server.cpu() - cpu)
    print(f"capacity: {capacity:.1f} pairs/s, {of_cpu:.1f} for a second of CPU")

    load, scored, cpu = Load(server.address, bodies), server.scored(), server.cpu()
    rate = args.factor * capacity * len(args.sizes) / sum(args.sizes)
    start, client = time.monotonic(), time.process_time()
    last_sent = open_loop(load, args.sizes, rate, args.seconds)
    client = (time.process_time() - client) / (last_sent - start)
    seen, last_answer = until_normal(load, own[1], last_sent)
    limit = args.timeout_ms / 1e3 or LIMIT
    good = [(size, took) for size, status, took in load.done if status == 200 and took <= limit]
    pairs, scored = sum(size for size, _ in good), server.scored() - scored - len(seen)
    cpu = server.cpu() - cpu
    statuses = Counter(status for _, status, _ in load.done)
    print(f"offered: {len(load.done)} requests in {args.seconds:.0f} s, {rate * statistics.mean(args.sizes):.0f} pairs/s")
    print("statuses: " + ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())))
    print(f"answered in time: {pairs / (last_answer - start):.1f} pairs/s; the client took {client:.2f} of a core")
    goodput, of_scored = pairs / cpu / of_cpu, pairs / scored
    print(f"goodput: {goodput:.3f} of capacity by the server's CPU; {of_scored:.3f} of what was scored")
    print("documents  answered  own ms   p50 ms   p99 ms  p99 of the wait  waited no more than max_queue_ms")
    for size in sorted(set(args.sizes)):
        times = [took for of_size, took in good if of_size == size]
        waits = [took - own[size] for took in times]
        within = sum(wait <= most_wait for wait in waits) / max(len(waits), 1)
        columns = [1e3 * x for x in (own[size], percentile(times, 0.5), percentile(times, 0.99), percentile(waits, 0.99))]
        print(f"{size:9}  {len(times):8}  " + "  ".join(f"{ms:7.0f}" for ms in columns) + f"          {within:.3f}")
    within = sum(took - own[size] <= most_wait for size, took in good) / max(len(good), 1)
    print(f"of all answers {within:.3f} waited no more than max_queue_ms ({1e3 * most_wait:.0f})")
    refused = [took for _, status, took in load.done if status in (429, 503)]
    print(f"refused in: p50 {1e3 * percentile(refused, 0.5):.1f} ms, p99 {1e3 * percentile(refused, 0.99):.1f} ms")
    worst = max(took for _, _, took in seen)
    print(f"a lone request: usually {1e3 * own[1]:.0f} ms, at most {1e3 * worst:.0f} ms after the load; back "
          f"{seen[-1][0] - last_sent:.2f} s after the last request, {seen[-1][0] - last_answer:.2f} s after the last answer")
    # Of thousands of refusals a second each costs the server what a request does, though no engine time.
    least = 0.85 if args.sizes == [1] else 0.9
    expected = {200, 429, 503} | ({504} if args.timeout_ms else set())
    promises = [
        (f"goodput is at least {least}", goodput >= least),
        ("what is scored is answered", of_scored >= 0.9),
        ("a request is answered or refused", set(statuses) <= expected),
        ("a refusal comes at once", percentile(refused, 0.5) < 0.1),
        ("a lone request after the load takes its usual time", seen[-1][0] - last_answer < 1),
    ]
    broken = [promise for promise, is_kept in promises if not is_kept]
    for promise in broken:
        print(f"BROKEN: {promise}")
    return not broken


if __name__ == "__main__":
    main()
