#!/usr/bin/env python3
"""A preprocessor of mdBook: links that leave docs/ become their text and the file's path; the book has only docs/."""

import json
import posixpath
import re
import sys

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s]+)\)")


def unlinked(chapter):
    folder = posixpath.join("docs", posixpath.dirname(chapter["path"] or ""))

    def replaced(link):
        path = posixpath.normpath(posixpath.join(folder, link[2].partition("#")[0]))
        if path.startswith("docs/"):
            return link[0]
        return f"`{path}`" if path in link[1] else f"{link[1]} (`{path}` in the repository)"

    chapter["content"] = LINK.sub(replaced, chapter["content"])


def walk(items):
    for item in items:
        if isinstance(item, dict) and "Chapter" in item:
            unlinked(item["Chapter"])
            walk(item["Chapter"]["sub_items"])


if sys.argv[1:2] == ["supports"]:
    sys.exit(0)
_, book = json.load(sys.stdin)
walk(book.get("items", book.get("sections", [])))
json.dump(book, sys.stdout)
