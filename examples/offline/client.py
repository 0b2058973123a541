"""A client for bulk work: one request at a time, again where the server is full. Standard library only."""

import json
import math
import time
import urllib.error
import urllib.request

# Seconds for one request, its tries included.
PATIENCE = 600
# The most pairs and bytes of a request: a server refuses what would take longer than its time limit.
PAIRS = 64
BYTES = 128 * 1024


class Scorer:
    """Scores pairs at a server. What comes from it stands behind interactive requests (x-request-priority)."""

    def __init__(self, url, key=None):
        self.url = f"{url.rstrip('/')}/score"
        self.headers = {"content-type": "application/json", "x-request-priority": "batch"}
        if key:
            self.headers["authorization"] = f"Bearer {key}"

    def score(self, queries, documents):
        """The score of each query with the document at its place; NaN where one is missing or the query is empty."""
        scores = [math.nan] * len(queries)
        places, size = [], 0
        for place, (query, document) in enumerate(zip(queries, documents, strict=True)):
            # Tables have None or NaN where a text is missing.
            if not (isinstance(query, str) and query and isinstance(document, str)):
                continue
            more = len(query.encode(errors="replace")) + len(document.encode(errors="replace"))
            if places and (len(places) == PAIRS or size + more > BYTES):
                self._fill(scores, places, queries, documents)
                places, size = [], 0
            places.append(place)
            size += more
        if places:
            self._fill(scores, places, queries, documents)
        return scores

    def _fill(self, scores, places, queries, documents):
        found = self._ask([queries[place] for place in places], [documents[place] for place in places])
        for place, score in zip(places, found, strict=True):
            scores[place] = score

    def _ask(self, queries, documents):
        body = json.dumps({"text_1": queries, "text_2": documents}).encode()
        until = time.monotonic() + PATIENCE
        while True:
            request = urllib.request.Request(self.url, body, self.headers)
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    return [pair["score"] for pair in json.load(answer)["data"]]
            except urllib.error.HTTPError as error:
                wait = float(error.headers.get("retry-after") or 1)
                if error.code not in (429, 503) or time.monotonic() + wait > until:
                    raise RuntimeError(f"{error}: {error.read().decode(errors='replace')}") from error
                time.sleep(wait)
            except OSError:
                # A restart: the address answers again soon.
                if time.monotonic() + 1 > until:
                    raise
                time.sleep(1)
