"""voyageai, mixedbread and rerankers' APIRanker."""

import pytest

from conftest import BASE, DOCUMENTS, KEY, QUERY, TOO_MANY, WRONG_KEY, raises


@pytest.mark.parametrize("top_k", [1, 3, None])
def test_voyageai(check, top_k):
    import voyageai

    client = voyageai.Client(api_key=KEY, base_url=f"{BASE}/voyage/v1")
    answer = client.rerank(QUERY, DOCUMENTS, model="rerank-2", top_k=top_k)
    check(((r.index, r.relevance_score) for r in answer.results), top_k or 5)
    assert answer.total_tokens > 0
    assert all(r.document == DOCUMENTS[r.index] for r in answer.results)


def test_voyageai_errors():
    import voyageai
    from voyageai import error

    def rerank(documents, key=KEY):
        client = voyageai.Client(api_key=key, base_url=f"{BASE}/voyage/v1")
        return client.rerank(QUERY, documents, model="rerank-2")

    raises(error.AuthenticationError, lambda: rerank(DOCUMENTS, WRONG_KEY))
    raises(error.InvalidRequestError, lambda: rerank([]))
    raises(error.InvalidRequestError, lambda: rerank(TOO_MANY))


def test_mixedbread(check):
    import mixedbread

    def rerank(documents, key=KEY, **more):
        client = mixedbread.Mixedbread(api_key=key, base_url=BASE, max_retries=0)
        return client.rerank(model="rerank-v3.5", query=QUERY, input=documents, **more)

    answer = rerank(DOCUMENTS, top_k=2, return_input=True)
    check(((r.index, r.score) for r in answer.data), 2)
    assert all(r.input == DOCUMENTS[r.index] for r in answer.data)
    assert answer.usage.total_tokens > 0
    assert answer.top_k == 2 and answer.return_input
    raises(mixedbread.AuthenticationError, lambda: rerank(DOCUMENTS, WRONG_KEY))
    raises(mixedbread.UnprocessableEntityError, lambda: rerank([]))
    raises(mixedbread.UnprocessableEntityError, lambda: rerank(TOO_MANY))


RANKERS = {
    "cohere": "/v1/rerank",
    "jina": "/v1/rerank",
    "voyage": "/voyage/v1/rerank",
    "mixedbread.ai": "/v1/reranking",
    "text-embeddings-inference": "/rerank",
}


@pytest.mark.parametrize("provider", RANKERS)
def test_rerankers(check, provider):
    from rerankers.models.api_rankers import APIRanker

    def rank(documents, key=KEY):
        ranker = APIRanker("tiny-bert", key, provider, url=BASE + RANKERS[provider])
        return ranker.rank(QUERY, documents)

    results = rank(DOCUMENTS).results
    check(((r.document.doc_id, r.score) for r in results), 5)
    # APIRanker looks at no status and parses whatever comes; that it fails at all is what it has.
    for documents, key in ((DOCUMENTS, WRONG_KEY), ([], KEY), (TOO_MANY, KEY)):
        with pytest.raises(Exception):
            rank(documents, key)
