"""cohere-python: v1, v2 and async."""

import asyncio

import cohere
import pytest
from cohere.errors import UnauthorizedError, UnprocessableEntityError

from conftest import BASE, DOCUMENTS, KEY, QUERY, TOO_MANY, WRONG_KEY, raises


def v1(key=KEY):
    return cohere.Client(key, base_url=BASE, client_name="compat")


def v2(key=KEY):
    return cohere.ClientV2(key, base_url=BASE)


@pytest.mark.parametrize("top_n", [1, 3, 5])
def test_ranking(check, top_n):
    for client in (v1(), v2()):
        response = client.rerank(
            model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=top_n
        )
        check(((r.index, r.relevance_score) for r in response.results), top_n)
        assert response.id
        assert response.meta.billed_units.search_units == 1


def test_async(check):
    async def rank():
        for client in (
            cohere.AsyncClientV2(KEY, base_url=BASE),
            cohere.AsyncClient(KEY, base_url=BASE),
        ):
            response = await client.rerank(
                model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=2
            )
            check(((r.index, r.relevance_score) for r in response.results), 2)

    asyncio.run(rank())


def test_documents_with_fields_come_back_whole(check):
    documents = [{"body": text, "id": str(i)} for i, text in enumerate(DOCUMENTS)]
    response = v1().rerank(
        model="rerank-v3.5",
        query=QUERY,
        documents=documents,
        rank_fields=["body"],
        return_documents=True,
        max_chunks_per_doc=4,
    )
    check(((r.index, r.relevance_score) for r in response.results), 5)
    for result in response.results:
        assert result.document.body == DOCUMENTS[result.index]
        assert result.document.id == str(result.index)


def test_errors():
    for client in (v1, v2):

        def rerank(documents, key=KEY):
            return client(key).rerank(model="rerank-v3.5", query=QUERY, documents=documents)

        assert "key" in str(raises(UnauthorizedError, lambda: rerank(DOCUMENTS, WRONG_KEY)))
        raises(UnprocessableEntityError, lambda: rerank([]))
        raises(UnprocessableEntityError, lambda: rerank(TOO_MANY))
