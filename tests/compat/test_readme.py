"""The README's own request, in Python: run as it stands there, with this server's address and key."""

import builtins
import json
import re
import urllib.request
from pathlib import Path

from conftest import BASE, KEY

README = Path(__file__).resolve().parents[2] / "README.md"


def blocks(language):
    text = README.read_text()
    return [
        block.replace("http://localhost:8080", BASE).replace("localhost:8080", BASE).replace("any-key", KEY)
        for block in re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def test_python_clients_rank_as_the_native_route_does(monkeypatch):
    printed = []
    monkeypatch.setattr(builtins, "print", printed.append)
    (block,) = blocks("python")
    names = {}
    exec(block, names)
    cohere, langchain, nodes = printed
    texts = names["documents"]

    body = json.dumps({"query": names["query"], "documents": texts}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    with urllib.request.urlopen(urllib.request.Request(f"{BASE}/v1/rerank", body, headers)) as answer:
        native = [r["index"] for r in json.load(answer)["results"]]
    assert sorted(native) == [0, 1]
    assert [r.index for r in cohere] == native
    assert [r["index"] for r in langchain] == native
    assert [texts.index(n.node.get_content()) for n in nodes] == native


def test_curl_asks_what_python_asks():
    (request,) = [block for block in blocks("sh") if "/v1/rerank" in block]
    body = json.loads(re.search(r"-d '(.*?)'", request, re.DOTALL)[1])
    (block,) = blocks("python")
    for text in (body["query"], *body["documents"]):
        assert f'"{text}"' in block
