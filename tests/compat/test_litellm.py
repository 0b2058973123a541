"""LiteLLM's seven rerank providers, each with its own wire format."""

import math

import litellm
import pytest

from conftest import BASE, DOCUMENTS, KEY, QUERY, TOO_MANY, WRONG_KEY, raises

PROVIDERS = {
    "cohere/rerank-v3.5": BASE,
    "huggingface/tiny-bert": BASE,
    "hosted_vllm/tiny-bert": BASE,
    "infinity/tiny-bert": f"{BASE}/infinity",
    "jina_ai/jina-reranker-v2": f"{BASE}/v1/rerank",
    "voyage/rerank-2": f"{BASE}/voyage/v1/rerank",
    "nvidia_nim/tiny-bert": BASE,
}


def rerank(model, documents=DOCUMENTS, key=KEY, **more):
    return litellm.rerank(
        model=model,
        query=QUERY,
        documents=documents,
        api_base=PROVIDERS[model],
        api_key=key,
        **more,
    )


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("return_documents", [None, True, False])
def test_ranking(check, model, return_documents):
    response = rerank(model, top_n=2, return_documents=return_documents)
    # NVIDIA's API knows no top_n, and gives logits.
    nvidia = model.startswith("nvidia_nim")
    score = sigmoid if nvidia else float
    results = [(r["index"], score(r["relevance_score"])) for r in response.results]
    check(results[:2] if nvidia else results, 2)
    for result in response.results:
        document = result.get("document")
        assert document is None or document["text"] == DOCUMENTS[result["index"]]


@pytest.mark.parametrize("model", PROVIDERS)
def test_errors(model):
    wrong = litellm.AuthenticationError
    raises(wrong, lambda: rerank(model, key=WRONG_KEY))
    # LiteLLM maps TEI's 422 to APIError, the others' statuses to BadRequestError.
    refused = litellm.BadRequestError, litellm.APIError
    raises(refused, lambda: rerank(model, documents=[]))
    raises(refused, lambda: rerank(model, documents=TOO_MANY))
