"""One peer as a process: `serve.py ENGINE --model FOLDER --threads 2`, spoken to like benches/worker.rs.

A request is a line of JSON, `{"query", "documents", "batch"}`; the answer has the logits and the seconds of
tokenising and scoring, batch by batch in the given order.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from llama import llama_cpp
from native import native

ENGINES = [
    "onnxruntime", "openvino", "sentence-transformers", "openvino default", "onnxruntime int8",
    "onnxruntime int8 full", "sentence-transformers bf16",
    *(f"{name}{type_}" for name in ("llama.cpp", "llama.cpp lean") for type_ in ("", " bf16", " int8")),
]


def onnx_runtime(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {i.name for i in session.get_inputs()}
    return lambda x: session.run(["logits"], {k: v for k, v in x.items() if k in names})[0]


def open_vino(path, threads, exact):
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": threads}
    if exact:
        config["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = core.compile_model(core.read_model(path), "CPU", config)
    names = {i.any_name for i in compiled.inputs}
    request = compiled.create_infer_request()
    return lambda x: request.infer({k: v for k, v in x.items() if k in names})[0].copy()


def with_tokenizer(folder, longest, forward):
    """Scores with the tokenizers library before a function from arrays of token ids to logits."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    padding = json.loads((folder / "config.json").read_text())["pad_token_id"]
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding(pad_id=padding, pad_token=tokenizer.id_to_token(padding))

    def score(query, documents, batch):
        logits = []
        for i in range(0, len(documents), batch):
            encoded = tokenizer.encode_batch([(query, document) for document in documents[i : i + batch]])
            inputs = {
                "input_ids": np.array([e.ids for e in encoded], np.int64),
                "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
                "token_type_ids": np.array([e.type_ids for e in encoded], np.int64),
            }
            logits.extend(forward(inputs).reshape(-1).tolist())
        return logits

    return score


def sentence_transformers(folder, longest, threads, bf16):
    import torch
    from sentence_transformers import CrossEncoder, MultiVectorEncoder

    torch.set_num_threads(threads)
    weights = {"dtype": torch.bfloat16 if bf16 else torch.float32}
    if is_late_interaction(folder):
        vectors = MultiVectorEncoder(str(folder), device="cpu", model_kwargs=weights)

        def score(query, documents, batch):
            asked = vectors.encode_query([query], show_progress_bar=False)
            read = vectors.encode_document(documents, batch_size=batch, show_progress_bar=False)
            return vectors.similarity(asked, read)[0].tolist()

        return score
    encoder = CrossEncoder(
        str(folder), device="cpu", max_length=longest, activation_fn=torch.nn.Identity(), model_kwargs=weights
    )

    def score(query, documents, batch):
        pairs = [(query, document) for document in documents]
        return encoder.predict(pairs, batch_size=batch, show_progress_bar=False).tolist()

    return score


def is_late_interaction(folder):
    """Whether the folder is a ColBERT, in PyLate's or in Stanford's files."""
    settings = folder / "config_sentence_transformers.json"
    kind = json.loads(settings.read_text()).get("model_type") if settings.exists() else None
    return kind in ("ColBERT", "MultiVectorEncoder") or (folder / "artifact.metadata").exists()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--model", required=True)
    parser.add_argument("--exports", type=Path, required=True, help="the folder that export.py or to_gguf.py wrote to")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--longest", type=int, required=True, help="pairs are cut at so many tokens")
    arguments = parser.parse_args()
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    name, *flags = arguments.engine.split()
    folder = native(arguments.model, arguments.exports / "native")
    if name == "sentence-transformers":
        score = sentence_transformers(folder, arguments.longest, arguments.threads, "bf16" in flags)
    elif name == "llama.cpp":
        type_ = flags[-1] if flags and flags[-1] != "lean" else "f32"
        file = arguments.exports / f"{type_}.gguf"
        score = llama_cpp(file, arguments.threads, arguments.longest, pooled="lean" not in flags)
    else:
        path = arguments.exports / f"{'-'.join(['model', *(f for f in flags if f != 'default')])}.onnx"
        if name == "openvino":
            forward = open_vino(path, arguments.threads, exact="default" not in flags)
        else:
            forward = onnx_runtime(path, arguments.threads)
        score = with_tokenizer(folder, arguments.longest, forward)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        logits = score(request["query"], request["documents"], request["batch"])
        answer = {"logits": logits, "seconds": time.perf_counter() - start}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
