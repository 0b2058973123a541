"""voyageai, mixedbread, dashscope, xinference-client and rerankers' APIRanker."""

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


def test_dashscope(check):
    import dashscope

    dashscope.base_http_api_url = f"{BASE}/api/v1"

    def rerank(documents, key=KEY, model="tiny-bert", **more):
        return dashscope.TextReRank.call(
            model=model, query=QUERY, documents=documents, api_key=key, **more
        )

    answer = rerank(DOCUMENTS, top_n=3, return_documents=True)
    assert answer.status_code == 200, answer
    results = answer.output.results
    check(((r.index, r.relevance_score) for r in results), 3)
    # As an attribute the SDK has none of them.
    assert all(r["document"]["text"] == DOCUMENTS[r.index] for r in results)
    assert answer.usage.total_tokens > 0 and answer.request_id
    for documents, more, status, code in (
        (DOCUMENTS, {"key": WRONG_KEY}, 401, "InvalidApiKey"),
        (DOCUMENTS, {"model": "other"}, 404, "ModelNotFound"),
        (TOO_MANY, {}, 400, "InvalidParameter"),
    ):
        answer = rerank(documents, **more)
        assert (answer.status_code, answer.code) == (status, code), answer
        assert answer.message and answer.request_id


def test_dashscope_compatible(check):
    import openai

    # Model Studio's documentation calls this path with OpenAI's client.
    for path in ("/compatible-api/v1", "/v1"):
        client = openai.OpenAI(api_key=KEY, base_url=BASE + path, max_retries=0)
        body = {"model": "tiny-bert", "query": QUERY, "documents": DOCUMENTS, "top_n": 2}
        answer = client.post("/reranks", body=body, cast_to=object)
        check(((r["index"], r["relevance_score"]) for r in answer["results"]), 2)


@pytest.mark.parametrize("name", ["tiny-bert", "rerank-v3.5"])
def test_xinference(check, name):
    from xinference_client import RESTfulClient

    model = RESTfulClient(BASE, api_key=KEY).get_model(name)
    results = model.rerank(DOCUMENTS, QUERY, top_n=2, return_len=True)
    check(((r["index"], r["relevance_score"]) for r in results["results"]), 2)
    assert all(r["document"] is None for r in results["results"])
    assert results["meta"]["tokens"]["input_tokens"] > 0
    results = model.rerank(DOCUMENTS, QUERY, return_documents=True)["results"]
    assert [r["document"]["text"] for r in results] == [DOCUMENTS[r["index"]] for r in results]
    raises(RuntimeError, lambda: model.rerank([], QUERY))
    raises(RuntimeError, lambda: model.rerank(TOO_MANY, QUERY))
    raises(RuntimeError, lambda: RESTfulClient(BASE, api_key=KEY).get_model("other"))
    raises(RuntimeError, lambda: RESTfulClient(BASE, api_key=WRONG_KEY).get_model(name))


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
