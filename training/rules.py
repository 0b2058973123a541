"""Free text of rules and procedures to make queries from: licences, Debian's policy and other manuals, and the Linux
manual pages, as whole sections with their numbers.

    python3 training/rules.py rules.jsonl

Writes a line {"title", "heading", "text", "source"} for each section, in the documents' order. Needs a Debian machine.
"""

import gzip
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from texts import Sections

HTML = {
    "debian-policy": "usr/share/doc/debian-policy",
    "developers-reference": "usr/share/developers-reference",
    "harden-doc": "usr/share/doc/harden-doc/html/en-US",
}
PLAIN = {"doc-debian": "usr/share/doc/debian"}
MAN = ["manpages", "manpages-dev"]
LICENCES = Path("/usr/share/common-licenses")
CLAUSE = re.compile(r"^\s*((?:section|article|§)?\s*\d+(?:\.\d+)*[.)]?|[a-z]\))\s+(\S.{0,70})", re.I)


def read(path):
    opened = gzip.open(path, "rt", errors="replace") if path.suffix == ".gz" else path.open(errors="replace")
    with opened as lines:
        return lines.read()


def html(folder):
    for path in sorted(folder.rglob("*.html")):
        if path.is_dir() or path.stem in ("genindex", "search", "index", "toc", "upgrading-checklist"):
            continue
        parser = Sections()
        parser.feed(read(path))
        sections = [(heading, " ".join(words)) for heading, words in parser.sections if heading not in Sections.CHROME]
        for heading, text in sections:
            yield sections[0][0], heading, text


def plain(path):
    """A text file's clauses: a paragraph that begins with a number begins one."""
    title, heading, words = path.name.removesuffix(".gz").removesuffix(".txt"), "", []
    for paragraph in re.split(r"\n\s*\n", read(path)):
        found = CLAUSE.match(paragraph)
        if found and words:
            yield title, heading, " ".join(words)
            words = []
        if found:
            heading = f"{found.group(1)} {re.split(r'[.:]', found.group(2))[0]}".strip()
        words += paragraph.split()
    yield title, heading, " ".join(words)


def manual(path):
    """A manual page's sections, without its troff."""
    title, heading, words = path.name.removesuffix(".gz"), "", []
    for line in read(path).splitlines():
        if line.startswith((".SH", ".SS")):
            if words:
                yield title, heading, " ".join(words)
            heading, words = line[3:].strip(' "'), []
            continue
        if line.startswith((".\\\"", "'\\\"", ".TH", ".PD", ".EX", ".EE", ".TS", ".TE", ".nf", ".fi", ".in", ".sp")):
            continue
        line = re.sub(r"^\.[A-Z]{1,3}\b ?", "", line) if line.startswith(".") else line
        line = re.sub(r"\\f[A-Z]|\\f\(\w\w|\\s[-+]?\d|\\[&/,:%]", "", line)
        line = re.sub(r"\\\[bu\]|\\\(bu", "-", line).replace("\\-", "-").replace("\\e", "\\").replace('"', "")
        words += re.sub(r"\\\[\w+\]|\\\(\w\w", " ", line).split()
    if words:
        yield title, heading, " ".join(words)


def sections():
    for path in sorted(LICENCES.iterdir()):
        if not path.is_symlink():
            yield from ((*section, "licences") for section in plain(path))
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o777)
        for name in [*HTML, *PLAIN, *MAN]:
            subprocess.run(["apt-get", "-qq", "download", name], cwd=temporary, check=True)
            (package,) = Path(temporary).glob(f"{name}_*.deb")
            folder = Path(temporary) / name
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
            if name in HTML:
                found = html(folder / HTML[name])
            elif name in PLAIN:
                # Of the constitution and the social contract the current edition alone.
                files = sorted((folder / PLAIN[name]).iterdir())
                files = [path for path in files if not re.search(r"\.\d\.\d", path.name)]
                found = (section for path in files for section in plain(path))
            else:
                found = (section for path in sorted(folder.glob("usr/share/man/man*/*.gz")) for section in manual(path))
            yield from ((*section, name) for section in found)


def write_rules(out: Path):
    """Writes `out`, a section a line."""
    counts, seen = {}, set()
    part = out.with_suffix(".part")
    with part.open("w") as lines:
        for title, heading, text, source in sections():
            if len(text.split()) < 40 or text in seen:
                continue
            seen.add(text)
            counts[source] = counts.get(source, 0) + 1
            row = {"title": title, "heading": heading, "text": text, "source": source}
            lines.write(json.dumps(row) + "\n")
    part.rename(out)
    print(f"{out}: {counts}")


if __name__ == "__main__":
    write_rules(Path(sys.argv[1]))
