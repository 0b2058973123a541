"""LangChain, LlamaIndex and Haystack integrations."""

import math
import os

import pytest

from conftest import BASE, DOCUMENTS, KEY, QUERY, TOO_MANY, WRONG_KEY, index_of, raises


class LangChain:
    """A compressor of LangChain documents, and the exception of its client."""

    def __init__(self, make, exception, score=float):
        self.make, self.exception, self.score = make, exception, score

    def rank(self, texts, top_n, key=KEY):
        from langchain_core.documents import Document

        documents = [Document(page_content=text) for text in texts]
        ranked = self.make(key, top_n).compress_documents(documents, QUERY)
        return [
            (d.page_content, self.score(d.metadata["relevance_score"])) for d in ranked
        ]


class LlamaIndex:
    """A postprocessor of LlamaIndex nodes, and the exception of its client."""

    def __init__(self, make, exception):
        self.make, self.exception = make, exception

    def rank(self, texts, top_n, key=KEY):
        from llama_index.core.schema import NodeWithScore, TextNode

        nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in texts]
        ranked = self.make(key, top_n).postprocess_nodes(nodes, query_str=QUERY)
        return [(n.node.get_content(), n.score) for n in ranked]


class Haystack:
    """A ranker of Haystack documents, and the exception of its client."""

    def __init__(self, make, exception):
        self.make, self.exception = make, exception

    def rank(self, texts, top_n, key=KEY):
        from haystack import Document

        documents = [Document(content=text) for text in texts]
        ranked = self.make(key, top_n).run(query=QUERY, documents=documents)["documents"]
        return [(d.content, d.score) for d in ranked]


def langchain_cohere():
    from cohere.errors import UnauthorizedError, UnprocessableEntityError
    from langchain_cohere import CohereRerank

    return LangChain(
        lambda key, n: CohereRerank(
            model="rerank-v3.5", base_url=BASE, cohere_api_key=key, top_n=n
        ),
        (UnauthorizedError, UnprocessableEntityError),
    )


def langchain_voyageai():
    import voyageai
    from langchain_voyageai import VoyageAIRerank

    def make(key, top_n):
        os.environ["VOYAGE_API_KEY"] = key
        reranker = VoyageAIRerank(model="rerank-2", api_key=key, top_k=top_n)
        # The integration has no setting for the address; its client has.
        reranker.client = voyageai.Client(api_key=key, base_url=f"{BASE}/voyage/v1")
        return reranker

    return LangChain(make, voyageai.error.VoyageError)


def langchain_nvidia():
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    return LangChain(
        lambda key, n: NVIDIARerank(
            model="tiny-bert", base_url=f"{BASE}/v1", api_key=key, top_n=n
        ),
        Exception,  # The client raises no narrower one.
        lambda logit: 1 / (1 + math.exp(-logit)),
    )


def llama_index_tei():
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return LlamaIndex(
        lambda key, n: TextEmbeddingInference(
            base_url=BASE, auth_token=f"Bearer {key}", top_n=n
        ),
        AssertionError,  # It asserts that the answer has a score for each text.
    )


def llama_index_jinaai():
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return LlamaIndex(
        lambda key, n: JinaRerank(
            base_url=f"{BASE}/v1", api_key=key, model="jina-reranker-v2", top_n=n
        ),
        RuntimeError,
    )


def llama_index_cohere():
    from cohere.errors import UnauthorizedError, UnprocessableEntityError
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return LlamaIndex(
        lambda key, n: CohereRerank(
            base_url=BASE, api_key=key, model="rerank-v3.5", top_n=n, max_retries=1
        ),
        (UnauthorizedError, UnprocessableEntityError),
    )


def haystack_jina():
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    return Haystack(
        lambda key, n: JinaRanker(
            model="jina-reranker-v2",
            base_url=f"{BASE}/v1/rerank",
            api_key=Secret.from_token(key),
            top_k=n,
        ),
        RuntimeError,
    )


def haystack_cohere():
    from cohere.errors import UnauthorizedError, UnprocessableEntityError
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return Haystack(
        lambda key, n: CohereRanker(
            model="rerank-v3.5",
            api_base_url=BASE,
            api_key=Secret.from_token(key),
            top_k=n,
        ),
        (UnauthorizedError, UnprocessableEntityError),
    )


CLIENTS = [
    langchain_cohere,
    langchain_voyageai,
    langchain_nvidia,
    llama_index_tei,
    llama_index_jinaai,
    llama_index_cohere,
    haystack_jina,
    haystack_cohere,
]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("top_n", [1, 3])
def test_ranking(check, client, top_n):
    ranked = client().rank(DOCUMENTS, top_n)
    check([(index_of(text), score) for text, score in ranked], top_n)


@pytest.mark.parametrize("client", CLIENTS)
def test_errors(client):
    client = client()
    wrong_key = raises(client.exception, lambda: client.rank(DOCUMENTS, 3, WRONG_KEY))
    too_many = raises(client.exception, lambda: client.rank(TOO_MANY, 3))
    if client.exception is not AssertionError:
        assert "the API key is not valid" in str(wrong_key)
        assert "at most" in str(too_many)


@pytest.mark.parametrize("client", CLIENTS)
def test_no_documents(client):
    # All of them answer an empty list themselves, or tell the server's error.
    client = client()
    try:
        assert client.rank([], 3) == []
    except client.exception as error:
        assert "document" in str(error)
