"""huggingface-api-haystack, in an environment of its own."""

import grpc
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

from conftest import BASE, DOCUMENTS, KEY, QUERY, TOO_MANY, WRONG_KEY, index_of, raises


def rank(texts, top_k=3, key=KEY, **options):
    # Over gRPC it wants no scheme.
    url = BASE.removeprefix("http://") if options else BASE
    ranker = HuggingFaceTEIRanker(
        url=url, top_k=top_k, token=Secret.from_token(key), max_retries=1, **options
    )
    documents = [Document(content=text) for text in texts]
    return ranker.run(query=QUERY, documents=documents)["documents"]


def test_ranking(check):
    check(((index_of(d.content), d.score) for d in rank(DOCUMENTS)), 3)


def test_errors():
    raises(RuntimeError, lambda: rank(DOCUMENTS, key=WRONG_KEY))
    raises(RuntimeError, lambda: rank(TOO_MANY))
    assert rank([]) == []


def test_grpc(check):
    check(((index_of(d.content), d.score) for d in rank(DOCUMENTS, use_grpc=True)), 3)
    error = raises(grpc.RpcError, lambda: rank(DOCUMENTS, key=WRONG_KEY, use_grpc=True))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    raises(grpc.RpcError, lambda: rank(TOO_MANY, use_grpc=True))
    assert rank([], use_grpc=True) == []
