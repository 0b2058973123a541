"""huggingface-api-haystack, in an environment of its own."""

from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

from conftest import BASE, DOCUMENTS, KEY, QUERY, TOO_MANY, WRONG_KEY, index_of, raises


def rank(texts, top_k=3, key=KEY):
    ranker = HuggingFaceTEIRanker(
        url=BASE, top_k=top_k, token=Secret.from_token(key), max_retries=1
    )
    documents = [Document(content=text) for text in texts]
    return ranker.run(query=QUERY, documents=documents)["documents"]


def test_ranking(check):
    check(((index_of(d.content), d.score) for d in rank(DOCUMENTS)), 3)


def test_errors():
    raises(RuntimeError, lambda: rank(DOCUMENTS, key=WRONG_KEY))
    raises(RuntimeError, lambda: rank(TOO_MANY))
    assert rank([]) == []
