"""Free technical text to make queries from: Debian's package descriptions, and sections of the manuals
of Python, Rust and Debian.

    python3 training/texts.py texts.jsonl

Writes a line {"title", "text", "source"} for each. Needs a Debian machine (as root, for apt-get update)
and the Rust toolchain with its documentation.
"""

import json
import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

MANUALS = ["python3.11-doc", "debian-handbook", "debian-policy", "debian-faq"]
BOOKS = ["book", "reference", "cargo", "nomicon", "rustc", "rustdoc", "edition-guide", "embedded-book", "rust-by-example"]
# Words of a text: shorter ones say too little, longer ones are cut into several.
SHORTEST, LONGEST = 15, 110


class Sections(HTMLParser):
    """A page's sections: [(heading, words)]."""

    CHROME = ("", "Navigation", "Keyboard shortcuts", "Table of Contents", "This Page", "Note", "Warning")
    SKIPPED = ("script", "style", "nav", "header", "footer", "head", "table")

    def __init__(self):
        super().__init__()
        self.sections, self.skipping, self.heading = [], 0, None

    def handle_starttag(self, tag, attrs):
        if tag in self.SKIPPED:
            self.skipping += 1
        elif tag in ("h1", "h2", "h3", "h4"):
            self.heading = ""

    def handle_endtag(self, tag):
        if tag in self.SKIPPED:
            self.skipping = max(0, self.skipping - 1)
        elif tag in ("h1", "h2", "h3", "h4") and self.heading is not None:
            self.sections.append((" ".join(self.heading.replace("¶", " ").split()), []))
            self.heading = None

    def handle_data(self, data):
        if self.skipping:
            return
        if self.heading is not None:
            self.heading += data
        elif self.sections:
            self.sections[-1][1].extend(data.replace("¶", " ").split())


def pages(folder, source):
    """Titles and texts of a folder of HTML."""
    for path in sorted(folder.rglob("*.html")):
        if path.is_dir() or path.name in ("print.html", "toc.html", "genindex.html", "searchindex.html", "search.html"):
            continue
        # Translations: page.de.html, es/page.html.
        if re.search(r"(\.(?!en)[a-z]{2}(-[a-z]{2})?\.html|/[a-z]{2}/[^/]+)$", str(path)):
            continue
        parser = Sections()
        parser.feed(path.read_text(errors="replace"))
        sections = [(re.sub(r"^[\d.\s]+", "", heading), words) for heading, words in parser.sections]
        sections = [(heading, words) for heading, words in sections if heading not in Sections.CHROME]
        for heading, words in sections:
            page = sections[0][0]
            title = heading if heading == page or len(heading.split()) > 3 else f"{page}: {heading}"
            for start in range(0, min(len(words), 4 * LONGEST), LONGEST):
                part = words[start : start + LONGEST]
                if len(part) >= SHORTEST:
                    yield {"title": title, "text": " ".join(part), "source": source}


def descriptions():
    """Debian's packages: the short description and the long one; of packages with the same, one."""
    subprocess.run(["apt-get", "-qq", "-o", "Acquire::Languages=en", "update"], check=True)
    seen = set()
    for path in sorted(Path("/var/lib/apt/lists").glob("*_main_i18n_Translation-en*")):
        text = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", path], check=True, capture_output=True, text=True)
        for entry in text.stdout.split("\n\n"):
            found = re.search(r"^Description-en: (.*)\n((?: .*\n?)*)", entry, re.M)
            if not found:
                continue
            title, body = found.group(1), " ".join(re.sub(r"^ \.$", "", found.group(2), flags=re.M).split())
            if body[:200] in seen or len(body.split()) < SHORTEST:
                continue
            seen.add(body[:200])
            yield {"title": title, "text": " ".join(body.split()[: 2 * LONGEST]), "source": "debian-descriptions"}


def manuals():
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o777)
        for name in MANUALS:
            subprocess.run(["apt-get", "-qq", "download", name], cwd=temporary, check=True)
            (package,) = Path(temporary).glob(f"{name}_*.deb")
            subprocess.run(["dpkg-deb", "-x", package, Path(temporary) / name], check=True)
            for folder in sorted((Path(temporary) / name).glob("usr/share/doc/*")):
                if folder.name == "debian-handbook":
                    folder = folder / "html" / "en-US"
                yield from pages(folder, name)


def books():
    root = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True).stdout.strip()
    for name in BOOKS:
        yield from pages(Path(root) / "share/doc/rust/html" / name, "rust")


def write_texts(out: Path):
    """Writes `out`, a text a line."""
    counts = {}
    seen = set()
    part = out.with_suffix(".part")
    with part.open("w") as lines:
        for rows in (descriptions(), manuals(), books()):
            for row in rows:
                if row["text"] in seen:
                    continue
                seen.add(row["text"])
                counts[row["source"]] = counts.get(row["source"], 0) + 1
                lines.write(json.dumps(row) + "\n")
    part.rename(out)
    print(f"{out}: {counts}")


if __name__ == "__main__":
    write_texts(Path(sys.argv[1]))
