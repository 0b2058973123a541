"""gRPC: tritonclient, and code that is made of proto/ as clients make it."""

import importlib
import re
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc
from tritonclient.utils import InferenceServerException

from conftest import BASE, DOCUMENTS, KEY, QUERY, TOO_MANY, WRONG_KEY, raises

PROTO = Path(__file__).resolve().parent.parent.parent / "proto"
TARGET = BASE.removeprefix("http://")
MODEL = "tiny-bert"


def metadata(key=KEY):
    return [("authorization", f"Bearer {key}")]


@pytest.fixture(scope="session")
def channel():
    with grpc.insecure_channel(TARGET) as channel:
        yield channel


@pytest.fixture(scope="session")
def tei(tmp_path_factory):
    """The modules that protoc makes of proto/tei.proto: the messages, and the services' stubs."""
    folder = tmp_path_factory.mktemp("stubs")
    arguments = [f"--proto_path={PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *arguments, "tei.proto"]) == 0
    sys.path.insert(0, str(folder))
    return importlib.import_module("tei_pb2"), importlib.import_module("tei_pb2_grpc")


def pairs(response):
    return [(rank.index, rank.score) for rank in response.ranks]


def code_of(call):
    return raises(grpc.RpcError, call).code()


def test_tei(check, channel, tei):
    messages, services = tei
    stub = services.RerankStub(channel)

    def rerank(texts, key=KEY, **fields):
        request = messages.RerankRequest(query=QUERY, texts=texts, truncate=True, **fields)
        return stub.Rerank(request, metadata=metadata(key), timeout=60)

    response = rerank(DOCUMENTS, return_text=True)
    check(pairs(response), len(DOCUMENTS))
    assert all(rank.text == DOCUMENTS[rank.index] for rank in response.ranks)
    assert response.metadata.compute_chars > sum(map(len, DOCUMENTS))
    assert not any(rank.HasField("text") for rank in rerank(DOCUMENTS).ranks)

    def stream():
        for text in DOCUMENTS:
            yield messages.RerankStreamRequest(query=QUERY, text=text, truncate=True)

    check(pairs(stub.RerankStream(stream(), metadata=metadata())), len(DOCUMENTS))
    assert code_of(lambda: rerank(DOCUMENTS, WRONG_KEY)) == grpc.StatusCode.UNAUTHENTICATED
    assert code_of(lambda: rerank([])) == grpc.StatusCode.INVALID_ARGUMENT
    assert code_of(lambda: rerank(TOO_MANY)) == grpc.StatusCode.INVALID_ARGUMENT
    left = messages.TRUNCATION_DIRECTION_LEFT
    assert len(rerank(["word " * 2000], truncation_direction=left).ranks) == 1


def test_teis_other_services(channel, native, tei):
    messages, services = tei
    info = services.InfoStub(channel).Info(messages.InfoRequest(), metadata=metadata())
    assert (info.model_id, info.model_type) == (MODEL, messages.MODEL_TYPE_RERANKER)
    assert (info.model_dtype, info.max_client_batch_size) == ("float32", len(TOO_MANY) - 1)
    assert info.version and info.max_input_length and info.max_batch_tokens and info.tokenization_workers
    predict = services.PredictStub(channel).PredictPair
    request = messages.PredictPairRequest(inputs=[QUERY, DOCUMENTS[native[0][0]]])
    [prediction] = predict(request, metadata=metadata()).predictions
    assert prediction.score == pytest.approx(native[0][1], rel=1e-5)
    assert code_of(lambda: services.PredictStub(channel).PredictPair(request)) == grpc.StatusCode.UNAUTHENTICATED


def texts(name, shape, strings):
    tensor = triton.InferInput(name, shape, "BYTES")
    tensor.set_data_from_numpy(np.array([s.encode() for s in strings], dtype=np.object_).reshape(shape))
    return tensor


def test_tritonclient(check, native):
    headers = dict(metadata())
    with triton.InferenceServerClient(TARGET) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready(MODEL, headers=headers)
        assert client.get_server_metadata(headers=headers).name == "rerankd"
        model = client.get_model_metadata(MODEL, headers=headers)
        assert [tensor.name for tensor in model.inputs] == ["query", "documents"]
        assert [tensor.name for tensor in model.outputs] == ["scores"]

        def infer(documents, key=KEY, name=MODEL, **options):
            inputs = [texts("query", [1], [QUERY]), texts("documents", [len(documents)], documents)]
            result = client.infer(name, inputs, headers=dict(metadata(key)), **options)
            return result.as_numpy("scores")

        for options in [{}, {"compression_algorithm": "gzip"}, {"compression_algorithm": "deflate"}]:
            scores = infer(DOCUMENTS, **options)
            assert scores.dtype == np.float32 and scores.shape == (len(DOCUMENTS),)
            check([(i, scores[i]) for i, _ in native], len(DOCUMENTS))
        error = raises(InferenceServerException, lambda: infer(DOCUMENTS, WRONG_KEY))
        assert error.status() == "StatusCode.UNAUTHENTICATED"
        error = raises(InferenceServerException, lambda: infer(TOO_MANY))
        assert error.status() == "StatusCode.INVALID_ARGUMENT"
        error = raises(InferenceServerException, lambda: infer(DOCUMENTS, name="other"))
        assert error.status() == "StatusCode.NOT_FOUND" and MODEL in error.message()
        # More than is scored in a millisecond; the model reads no more than its length of each.
        long = [f"{i} " + "a river runs to the sea " * 100 for i in range(len(TOO_MANY) - 1)]
        error = raises(InferenceServerException, lambda: infer(long, client_timeout=0.001))
        assert error.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_nims_tensors_in_tritonclient(native):
    with triton.InferenceServerClient(TARGET) as client:
        n = len(DOCUMENTS)
        inputs = [texts("query", [n, 1], [QUERY] * n), texts("passage", [n, 1], DOCUMENTS)]
        outputs = [triton.InferRequestedOutput(name) for name in ["index", "logit", "token_count"]]
        # NIM writes tiny-bert so.
        result = client.infer(
            "tiny_bert", inputs, outputs=outputs, headers=dict(metadata()), parameters={"truncate": "END"}
        )
        index, logit = result.as_numpy("index"), result.as_numpy("logit")
        assert (index.dtype, logit.dtype) == (np.int32, np.float32)
        assert index.shape == logit.shape == (n, 1)
        assert index.ravel().tolist() == [i for i, _ in native]
        count = result.as_numpy("token_count")
        assert count.shape == (n,) and count.dtype == np.int32 and (count > 3).all()
        assert logit.ravel().tolist() == sorted(logit.ravel().tolist(), reverse=True)


def test_health_and_reflection(channel):
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ["", "tei.v1.Rerank"]:
        assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == serving
    watched = health.Watch(health_pb2.HealthCheckRequest())
    assert next(watched).status == serving
    watched.cancel()
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "tei.v1.Rerank" in database.get_services()
    infer = DescriptorPool(database).FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelInfer"]
    assert "raw_input_contents" in infer.input_type.fields_by_name


def test_the_example_in_the_docs(tei, capsys):
    page = (PROTO.parent / "docs" / "api.md").read_text()
    [example] = re.findall(r"```python\n(import grpc\n.*?)```", page, re.S)
    example = example.replace("localhost:8080", TARGET).replace("timeout=5", f"metadata={metadata()!r}, timeout=60")
    exec(example, {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert sorted(index for index, _ in printed) == ["0", "1"]
    assert float(printed[0][1]) >= float(printed[1][1])
