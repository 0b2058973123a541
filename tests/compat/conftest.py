"""What all clients' tests share: where the server is, and what its native route answers."""

import json
import math
import os
import urllib.request

import pytest

BASE = os.environ["RERANKD_URL"]
KEY = os.environ["RERANKD_KEY"]
MAX_DOCUMENTS = int(os.environ["RERANKD_MAX_DOCUMENTS"])

QUERY = "how do rivers shape the land?"
DOCUMENTS = [
    "A cat sleeps in the sun.",
    "Rivers carve valleys and carry sediment to the sea.",
    "Bread is made of flour, water and salt.",
    "The moon draws the tides.",
    "Glaciers and rivers shape the land over thousands of years.",
]


@pytest.fixture(scope="session")
def native():
    """The native route's ranking: (index, score), best first."""
    body = json.dumps({"query": QUERY, "documents": DOCUMENTS}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(f"{BASE}/v1/rerank", body, headers)
    with urllib.request.urlopen(request) as answer:
        results = json.load(answer)["results"]
    return [(r["index"], r["relevance_score"]) for r in results]


@pytest.fixture
def check(native):
    """Compares a client's (index, score) pairs with the native route's."""

    def check(results, top_n):
        results = list(results)
        assert [i for i, _ in results] == [i for i, _ in native[:top_n]], "another order"
        for (_, score), (_, expected) in zip(results, native):
            assert math.isclose(score, expected, rel_tol=1e-5), (score, expected)
        scores = [score for _, score in results]
        assert scores == sorted(scores, reverse=True)
        assert len(results) == top_n

    return check


def index_of(text):
    """A document's index by its text, for clients that keep only that."""
    return DOCUMENTS.index(text)


def raises(exception, call):
    """The client's own exception, raised in time and with a message."""
    with pytest.raises(exception) as caught:
        call()
    # A subclass of pytest's own or of a JSON error would mean that the client was broken.
    assert not isinstance(caught.value, (json.JSONDecodeError, KeyError, TypeError)), caught.value
    return caught.value


WRONG_KEY = "wrong"
TOO_MANY = [f"document {i}" for i in range(MAX_DOCUMENTS + 1)]
