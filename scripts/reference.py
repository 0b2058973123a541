#!/usr/bin/env python3
"""Writes docs/reference/ from what the program itself says.

    python3 scripts/reference.py            writes the three pages anew
    python3 scripts/reference.py --check    fails, with the difference, if one of them is out of date

configuration.md comes from config/default.toml, the program's help (which flag sets which key) and its errors
(which values a key may have); cli.md from `rerankd COMMAND --help`; metrics.md from a running server's /metrics.
It needs target/release/rerankd, with the built-in model, and openssl.
"""

import difflib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

import self_signed

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target" / "release" / "rerankd"
PAGES = ROOT / "docs" / "reference"
DEFAULTS = ROOT / "config" / "default.toml"
METRICS = ROOT / "src" / "telemetry" / "metrics.rs"
# Headings of flags that several commands have.
SHARED = ["Server", "Model", "Engine", "Log", "Settings"]
# Nothing of the caller's settings may show.
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("RERANKD__")} | {"COLUMNS": "100"}


def program(*arguments, env=None):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=CLEAN | (env or {}))
    return done.returncode, done.stdout, done.stderr


def help_of(*command):
    code, text, errors = program(*command, "--help")
    if code != 0:
        sys.exit(f"rerankd {' '.join(command)} --help failed: {errors}")
    return text


def note(source):
    return f"<!-- Written by scripts/reference.py from {source}; don't edit. -->\n"


def wrap(text, indent=""):
    """Lines of at most 120 characters; code is not broken at its hyphens."""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


# --- cli.md


def flags_of(lines):
    """The flags of a section of help: (flags, meaning, values, variable)."""
    flags = []
    for line in lines:
        head = re.match(r"^ {2,6}(-\S.*?)(?: {2,}(\S.*))?$", line)
        if head:
            flags.append((head[1], [head[2] or ""]))
        elif flags:
            flags[-1][1].append(line.strip())
    return [(flag, *meaning_of(text)) for flag, text in flags]


def meaning_of(lines):
    text, items = [], []
    for line in lines:
        item = re.match(r"^- (\w+):\s+(.*)", line)
        if item:
            first = item[2].split()[0]
            meaning = item[2] if first.isupper() else item[2][0].lower() + item[2][1:]
            items.append(f"`{item[1]}` ({meaning})")
        elif line != "Possible values:":
            text.append(line)
    text = re.sub(r"\s+", " ", " ".join(text)).strip()

    def cut(pattern):
        nonlocal text
        found = re.search(pattern, text)
        text = text.replace(found[0], "").strip() if found else text
        return found[1] if found else ""

    variable = cut(r"\[env: (\S+?)\]")
    default = cut(r"\[default: (.*?)\]")
    values = cut(r"\[possible values: (.*?)\]")
    values = ", ".join(items or [f"`{value}`" for value in values.split(", ") if value])
    if values:
        text += f": {values}" if ":" not in text and ";" not in text else f". Values: {values}"
    if default:
        text += f"; default `{default}`"
    return text, variable


def table(flags):
    columns = ["flag", "what"] + (["variable"] if any(variable for _, _, variable in flags) else [])
    rows = [columns, ["---"] * len(columns)]
    for flag, text, variable in flags:
        rows.append([f"`{flag}`", text, f"`{variable}`" if variable else ""][: len(columns)])
    # A bar ends a cell, also within code.
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def sections(text):
    """A help text's parts: what it is about, its usage, its sections of flags, and what stands behind them."""
    about, _, rest = text.partition("Usage: ")
    usage, _, rest = rest.partition("\n\n")
    found, after, heading = {}, [], None
    for line in rest.splitlines():
        start = re.match(r"^([A-Z]\w+):$", line)
        if start and not after and start[1] in [*SHARED, "Options", "Commands", "Arguments"]:
            heading = start[1]
            found[heading] = []
        elif after or (line and not line.startswith(" ")):
            after.append(line)
        elif heading:
            found[heading].append(line)
    return about.strip(), textwrap.dedent("       " + usage), found, "\n".join(after).strip()


def cli_page():
    about, usage, parts, after = sections(help_of())
    commands = [line.split()[0] for line in parts["Commands"] if re.match(r"^  [a-z]", line)]
    commands = [name for name in commands if name != "help"]
    out = [
        "# Command line\n",
        note("`rerankd --help` and each command's"),
        about + "\n",
        f"```text\n{usage}\n```\n",
        "Flags that several commands have stand once, [at the end](#flags-of-several-commands). "
        "[commands.md](../commands.md)\nsays more of what `rerank` and `eval` read and write.\n",
        f"```text\n{after}\n```\n",
        "Exit codes: 0 done, 1 failed, 2 wrong usage or settings.\n",
    ]
    # Each shared section as the first command that has it prints it; the others must print the same.
    shared = {}
    for name in commands:
        about, usage, parts, after = sections(help_of(name))
        out.append(f"## rerankd {name}\n\n{about}.\n\n```text\n{usage}\n```\n")
        own = [flag for flag in flags_of(parts.get("Options", [])) if "--help" not in flag[0]]
        if own:
            out.append(table(own) + "\n")
        named = []
        for heading in SHARED:
            if heading not in parts:
                continue
            named.append(heading)
            for flag in flags_of(parts[heading]):
                users, flags = shared.setdefault(heading, ([], []))
                if name not in users:
                    users.append(name)
                if flag not in flags:
                    flags.append(flag)
        if named:
            links = ", ".join(f"[{heading}](#{heading.lower()})" for heading in named)
            out.append(f"And the flags of {links}.\n")
        if after:
            out.append(f"```text\n{after}\n```\n")
    out.append("## Flags of several commands\n")
    for heading, (users, flags) in shared.items():
        names = ", ".join(f"`{name}`" for name in users)
        out.append(f"### {heading}\n\n{wrap(f'Of {names}.')}\n\n{table(flags)}\n")
    return "\n".join(out)


# --- configuration.md


def allowed(key, default):
    """What a key's value must be, in the words of the program's own error."""
    probe = {bool: "?", int: "?", dict: "?"}.get(type(default), "?=?=?")
    # One of these files alone is refused whatever its name.
    keys = ["tls.cert_file", "tls.key_file", key] if key.startswith("tls.") else [key]
    code, _, errors = program("--print-config", env={variable(key): probe for key in keys})
    must = re.search(r"but it must be (.*)", errors)
    if code != 0 and not must:
        sys.exit(f"{key}: can't tell what it must be from: {errors}")
    if must:
        must = must[1].split("; did you mean")[0]
        choices = must.removeprefix("one of ")
        return must if choices == must else "one of " + ", ".join(f"`{choice}`" for choice in choices.split(", "))
    return "a list of texts" if isinstance(default, list) else "a text"


def variable(key):
    return "RERANKD__" + key.upper().replace(".", "__")


def shown(value):
    if isinstance(value, dict):
        return "{}"
    return json.dumps(value)


# Flags, variables and the like, where they stand without the marks of code. What is in marks matches first.
CODE = re.compile(
    r"`[^`]*`|\"[^\"]*\"|\{[^{}]*\}|(?:rerankd )?--[a-z][a-z-]*(?: FILE| cuda)?|\bRERANKD__\w+(?:=\S+)?|\[\[?\w+\]\]?"
    r"|\b(?:auth|batch|cache|cors|engine|limits|log|model|server|shutdown|tls|tokenize)\.[a-z_]+\b|(?<= )#(?= )"
    r"|(?<!\S)[\w/-]+\.(?:json|toml|md)\b|(?:GET |POST )?(?<!\S)/[\w/{}-]+|\b[a-z]+_[a-z_]+\b|(?<= )\*(?= )"
)


def coded(text):
    """The same with the marks of code around what a program reads."""
    return CODE.sub(lambda found: found[0] if found[0].startswith("`") else f"`{found[0]}`", text)


def paragraphs(comment):
    return wrap(coded(" ".join(line.removeprefix("#").strip() for line in comment)))


def configuration_page():
    text = DEFAULTS.read_text()
    defaults = tomllib.loads(text)
    flags = {v: f for f, _, v in [f for s in sections(help_of("serve"))[2].values() for f in flags_of(s)] if v}
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("["))
    out = [
        "# Configuration\n",
        note("config/default.toml"),
        paragraphs(lines[: start - 1]) + "\n",
        "[config/production.toml](../../config/production.toml) and "
        "[config/several-models.toml](../../config/several-models.toml) are examples\nof a `--config FILE`; "
        "[the hub's variables](../hub.md#settings) stand elsewhere.\n",
        "\n".join(f"- [`[{name}]`](#{name}): " + ", ".join(
            f"[`{key}`](#{name}{key})" for key in keys) for name, keys in defaults.items()) + "\n",
    ]
    section, comment = "", []
    for line in lines[start:]:
        if heading := re.match(r"^\[(\w+)\]$", line):
            section, comment = heading[1], []
            out.append(f"## {section}\n")
        elif line.startswith("#"):
            comment.append(line)
        elif setting := re.match(r"^(\w+) = ", line):
            key = f"{section}.{setting[1]}"
            default = defaults[section][setting[1]]
            flag = flags.get(variable(key))
            by = f"`{variable(key)}`" + (f", `{flag}`" if flag else "")
            must = allowed(key, default)
            if not comment:
                sys.exit(f"{key} has no comment of its own in {DEFAULTS.name}")
            out.append(f"### `{key}`\n\n{paragraphs(comment)}\n")
            value = wrap(f"- value: {coded(must)}", "  ")
            out.append(f"- default: `{shown(default)}`\n{value}\n- set by: {by}\n")
            comment = []
        elif comment:
            # What belongs to no key.
            out.append(paragraphs(comment) + "\n")
            comment = []
    return "\n".join(out)


# --- metrics.md


@contextmanager
def server(*flags, **settings):
    env = {f"RERANKD__{key}": str(value) for key, value in settings.items()}
    with tempfile.TemporaryFile("w+") as log:
        command = [PROGRAM, "--port", "0", "--log-format", "json", *flags]
        process = subprocess.Popen(command, env=CLEAN | env, stderr=log, text=True)
        try:
            address = None
            for _ in range(600):
                log.seek(0)
                lines = log.read()
                found = re.search(r'"address":"([^"]+)"', lines)
                address = found[1] if found else None
                if '"message":"ready"' in lines:
                    break
                if process.poll() is not None:
                    sys.exit(f"the server ended: {lines}")
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()


def ask(address, path, body=None, key=None):
    connection = http.client.HTTPConnection(address, timeout=60)
    headers = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})
    method = "GET" if body is None else "POST"
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    return connection.getresponse().read().decode()


def until(address, metric):
    """Waits for a metric, 20 seconds at most."""
    for _ in range(200):
        if metric in ask(address, "/metrics"):
            return
        time.sleep(0.1)


def leave(address, key):
    """Asks for much and goes away before the answer."""
    documents = [f"{i} " + "word " * 200 for i in range(900)]
    body = json.dumps({"query": "word", "documents": documents, "max_chunks_per_doc": 1})
    for _ in range(5):
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("POST", "/v1/rerank", body, {"x-api-key": key})
        time.sleep(0.2)
        connection.close()
        for _ in range(50):
            if "rerankd_requests_cancelled_total" in ask(address, "/metrics"):
                return
            time.sleep(0.1)


def scraped():
    """/metrics of servers that had traffic of every kind."""
    texts = []
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write("writer key admin\nprobe other metrics\n")
        keys.flush()
        with server("--keys-file", keys.name, CACHE__SCORES_MB=1, LIMITS__REQUEST_TIMEOUT_MS=600000) as address:
            twice = {"query": "word", "documents": ["a word", "a word", "another " * 2000]}
            ask(address, "/v1/rerank", twice, "key")
            ask(address, "/v1/rerank", twice, "key")
            leave(address, "key")
            ask(address, "/v1/rerank", twice, "other")
            ask(address, "/v2/repository/models/rerankd-builtin/unload", {}, "key")
            host, port = address.split(":")
            with socket.create_connection((host, int(port)), timeout=60) as stream:
                stream.sendall(b"no HTTP\r\n\r\n")
                stream.recv(1000)
            until(address, "rerankd_bad_heads_total")
            texts.append(ask(address, "/metrics"))
    # Many callers at once, whose requests are more than the queue holds.
    with server(LIMITS__MAX_QUEUE_TOKENS=100) as address:
        large = json.dumps({"query": "word", "documents": [f"{i} " + "word " * 200 for i in range(300)]})
        callers = [http.client.HTTPConnection(address, timeout=60) for _ in range(16)]
        for caller in callers:
            caller.request("POST", "/v1/rerank", large, {"content-type": "application/json"})
        until(address, "rerankd_requests_rejected_total")
        texts.append(ask(address, "/metrics"))
        for caller in callers:
            caller.close()
    # Nobody listens at the discard port; spans are sent within seconds.
    colbert = str(ROOT / "tests/fixtures/models/tiny-colbert")
    with server("--model", colbert, TRACES__ENDPOINT="http://127.0.0.1:9") as address:
        ask(address, "/v1/rerank", {"query": "word", "documents": ["a word"]})
        until(address, "rerankd_trace_exports_total")
        texts.append(ask(address, "/metrics"))
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = self_signed.pair(Path(folder))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with server(TLS__CERT_FILE=certificate, TLS__KEY_FILE=key, SERVER__HEALTH_PORT=port) as address:
            # Plain HTTP where TLS is spoken.
            ask(address, "/health")
            texts.append(ask(f"127.0.0.1:{port}", "/metrics"))
    return texts


def metrics_page():
    kinds, meanings, labels = {}, {}, {}
    for text in scraped():
        for line in text.splitlines():
            if found := re.match(r"# TYPE (\S+) (\w+)", line):
                kinds[found[1]] = found[2]
            elif found := re.match(r"# HELP (\S+) (.*)", line):
                meanings[found[1]] = found[2]
            elif found := re.match(r"(\w+)(?:\{(.*)\})? ", line):
                base = re.sub(r"_(bucket|sum|count)$", "", found[1])
                name = base if base in kinds else found[1]
                for label in re.findall(r'(\w+)="', found[2] or ""):
                    if label != "le" and label not in labels.setdefault(name, []):
                        labels[name].append(label)
    source = METRICS.read_text().split("fn describe()")[1].split("#[cfg(test)]")[0]
    missing = set(re.findall(r'"(rerankd_\w+)"', source)) - set(kinds)
    if missing:
        sys.exit(f"no traffic made these metrics appear: {', '.join(sorted(missing))}")

    def rows(prefix):
        out = ["| metric | type | labels | what |", "|---|---|---|---|"]
        for name in sorted(n for n in kinds if n.startswith(prefix)):
            of = ", ".join(f"`{label}`" for label in labels.get(name, []))
            out.append(f"| `{name}` | {kinds[name]} | {of} | {meanings.get(name, '')} |")
        return "\n".join(out) + "\n"

    return "\n".join([
        "# Metrics\n",
        note("a running server's /metrics"),
        "`GET /metrics` has these in Prometheus' text format. A metric appears once what it counts has happened for\n"
        "the first time. A histogram has the series `_bucket` (with the label `le`), `_sum` and `_count`.\n"
        "[operations.md](../operations.md#what-to-watch) says which to watch.\n",
        "## rerankd\n",
        rows("rerankd_"),
        "`route` is the path as the API documents it (with `{model}` in place of a name), `model` the served name, `key` the\n"
        "name of an API key, or `other` beyond 100 names.\n",
        "## The process\n",
        rows("process_"),
    ])


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is not there: cargo build --release")
    pages = {"cli.md": cli_page, "configuration.md": configuration_page, "metrics.md": metrics_page}
    stale = False
    for name, page in pages.items():
        path, text = PAGES / name, page().rstrip() + "\n"
        old = path.read_text() if path.exists() else ""
        if not check:
            PAGES.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif old != text:
            stale = True
            sys.stdout.writelines(difflib.unified_diff(
                old.splitlines(True), text.splitlines(True), f"docs/reference/{name}", "what the program says"))
    if stale:
        sys.exit("docs/reference is out of date: python3 scripts/reference.py")


if __name__ == "__main__":
    main()
