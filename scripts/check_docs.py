#!/usr/bin/env python3
"""Checks the Markdown of the repository against the repository.

    python3 scripts/check_docs.py

Relative links and their anchors lead somewhere; the paths that `curl` asks are in openapi.yaml; flags of `rerankd`,
variables, settings and metrics that are named exist. In docs/ every page is in SUMMARY.md once, a fenced block has a
language, and lines of prose are at most 120 characters long.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# Served, but no part of the API that openapi.yaml describes.
PAGES = {"/docs", "/docs/", "/openapi.json"}

defaults = tomllib.loads((ROOT / "config" / "default.toml").read_text())
SETTINGS = {f"{section}.{key}" for section, keys in defaults.items() for key in keys}
VARIABLES = {"RERANKD__" + key.upper().replace(".", "__") for key in SETTINGS}
PATHS = re.findall(r"^  (/\S*):$", (ROOT / "openapi.yaml").read_text(), re.M)
FLAGS = {"--version"} | set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", (DOCS / "reference" / "cli.md").read_text()))
METRICS = set(re.findall(r"`(\w+)` \| (?:counter|gauge|histogram)", (DOCS / "reference" / "metrics.md").read_text()))

SETTING = re.compile(r"(?<![\w./-])(?:" + "|".join(defaults) + r")\.[a-z_]+\b(?![.(/])")
# What looks like a setting, but is a file or a module.
FILES = re.compile(r"\.(?:rs|toml|md|json|py|yaml|txt|bin|safetensors|svg|service|txt)$")
COMMAND = re.compile(r"(?:^|[|&;]\s*|\$ |/)rerankd((?:\s+[^\s|;&>#]+)*)")
TEMPLATE = re.compile(r"RERANKD__(?:SECTION__KEY|SECTION|MODEL__\.\.\.)?")
LONGEST = 120

faults = []


class Page:
    """A file's headings, links, fenced blocks and prose."""

    def __init__(self, path):
        self.path = path
        self.in_docs = path.is_relative_to(DOCS)
        self.anchors, self.links, self.blocks, self.prose = {}, [], [], []
        fence = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            mark = re.match(r"^\s*(`{3,}|~{3,})(.*)$", line)
            if fence:
                if mark and mark[1] == fence and not mark[2].strip():
                    fence = None
                else:
                    self.blocks[-1][2].append((number, line))
            elif mark:
                fence = mark[1]
                self.blocks.append((number, mark[2].strip(), []))
            else:
                self.read(number, line)

    def read(self, number, line):
        self.prose.append((number, line))
        if heading := re.match(r"^#{1,6} (.*)$", line):
            self.anchor(slug(heading[1]))
        for name in re.findall(r'<a (?:id|name)="([^"]+)"', line):
            self.anchor(name)
        text = re.sub(r"(`+)[^`].*?\1", "", line)
        for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
            self.links.append((number, target))

    def anchor(self, name):
        count = self.anchors.get(name, 0)
        self.anchors[name] = count + 1
        if count:
            self.anchors[f"{name}-{count}"] = 1

    def fault(self, number, text):
        faults.append(f"{self.path.relative_to(ROOT)}:{number}: {text}")


def slug(heading):
    """A heading's anchor, as code hosts and mdBook make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def check_links(page, pages):
    for number, target in page.links:
        if re.match(r"^[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.path.parent / unquote(name)).resolve() if name else page.path
        if not path.exists():
            page.fault(number, f"{target} is not there")
        elif anchor and path.suffix == ".md":
            if anchor not in (pages.get(path) or Page(path)).anchors:
                page.fault(number, f"{target}: no heading has this anchor")


def check_summary(pages):
    summary = Page(DOCS / "SUMMARY.md")
    named = [(DOCS / target).resolve() for _, target in summary.links]
    for path in pages:
        if path.is_relative_to(DOCS) and path.name != "SUMMARY.md" and named.count(path) != 1:
            faults.append(f"docs/SUMMARY.md names {path.relative_to(DOCS)} {named.count(path)} times")


def asked(path):
    """Whether openapi.yaml has a path; names stand for its parameters."""
    for known in PATHS:
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+(?:/versions/[^/]+)?", re.escape(known))
        if re.fullmatch(pattern, path):
            return True
    return path in PAGES


def check_blocks(page):
    for start, language, lines in page.blocks:
        if not language and page.in_docs:
            page.fault(start, "a fenced block without a language")
        text = "\n".join(line for _, line in lines).replace("\\\n", " ")
        for command in re.findall(r"\bcurl\b[^|\n]*", text):
            for path in re.findall(r"(?:\$?\bB|:80\d\d|:\$PORT)(/[^\s'\"?]*)", command):
                if not asked(path):
                    page.fault(start, f"curl asks {path}, which openapi.yaml does not have")
        if language in ("sh", "bash", "console"):
            for line in text.splitlines():
                check_flags(page, start, line)


def check_flags(page, number, text):
    for arguments in COMMAND.findall(text):
        for flag in re.findall(r"(?:^|\s)(--?[a-z][a-z-]*)", arguments):
            if flag not in FLAGS:
                page.fault(number, f"rerankd has no flag {flag}")


def check_names(page):
    lines = page.prose + [line for _, _, lines in page.blocks for line in lines]
    for number, line in lines:
        for name in re.findall(r"RERANKD__[A-Z_]+", line):
            if name not in VARIABLES and not TEMPLATE.fullmatch(name) and name.rstrip("_") != "RERANKD__MODEL":
                page.fault(number, f"{name}: there is no such setting")
        for name in re.findall(r"\brerankd_[a-z_]+\b(?!\()", line):
            if re.sub(r"_(bucket|sum|count)$", "", name) not in METRICS and name not in METRICS:
                page.fault(number, f"{name}: there is no such metric")
    for number, line in page.prose:
        for span in re.findall(r"`([^`]+)`", line):
            for name in SETTING.findall(span):
                if name not in SETTINGS and not FILES.search(name):
                    page.fault(number, f"{name}: there is no such setting")
            if span.startswith("rerankd "):
                check_flags(page, number, span)
        if page.in_docs and len(line) > LONGEST and not re.match(r"^(\||\s*[-!]?\s*\[|<)", line):
            page.fault(number, f"{len(line)} characters")


def main():
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()
    pages = {path: Page(path) for path in (ROOT / name for name in files) if path.exists()}
    check_summary(pages)
    for page in pages.values():
        check_links(page, pages)
        check_blocks(page)
        # A change log names what is gone, too.
        if page.path.name != "CHANGELOG.md":
            check_names(page)
    print("\n".join(faults) or f"{len(pages)} pages are in order")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
