"""A client for bulk work: one request at a time, again where the server is full. Standard library only."""

import json
import time
import urllib.error
import urllib.request

# Seconds for one request, its tries included.
PATIENCE = 600


class Scorer:
    """Scores pairs at a server. What comes from it stands behind interactive requests (x-request-priority)."""

    def __init__(self, url, key=None):
        self.url = f"{url.rstrip('/')}/score"
        self.headers = {"content-type": "application/json", "x-request-priority": "batch"}
        if key:
            self.headers["authorization"] = f"Bearer {key}"

    def score(self, queries, documents):
        """The score of each query with the document at its place."""
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
