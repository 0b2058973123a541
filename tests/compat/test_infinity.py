"""infinity-client, in an environment of its own: it pins an old httpx."""

import infinity_client
import pytest
from infinity_client.api.default import rerank as api
from infinity_client.models import RerankInput

from conftest import BASE, DOCUMENTS, KEY, QUERY, TOO_MANY, WRONG_KEY, raises


@pytest.mark.parametrize("path", ["", "/infinity"])
@pytest.mark.parametrize("return_documents", [True, False])
def test_ranking(check, path, return_documents):
    client = infinity_client.AuthenticatedClient(
        f"{BASE}{path}", token=KEY, raise_on_unexpected_status=True
    )
    body = RerankInput(
        query=QUERY, documents=DOCUMENTS, top_n=3, return_documents=return_documents
    )
    answer = api.sync(client=client, body=body)
    check(((r.index, r.relevance_score) for r in answer.results), 3)
    for result in answer.results:
        if return_documents:
            assert result.document == DOCUMENTS[result.index]
    assert answer.usage.total_tokens > 0


def test_errors():
    def rerank(documents, key=KEY):
        client = infinity_client.AuthenticatedClient(
            BASE, token=key, raise_on_unexpected_status=True
        )
        return api.sync(client=client, body=RerankInput(query=QUERY, documents=documents))

    own = infinity_client.errors.UnexpectedStatus
    raises(own, lambda: rerank(DOCUMENTS, WRONG_KEY))
    raises(own, lambda: rerank([]))
    raises(own, lambda: rerank(TOO_MANY))
