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

ENGINES = ["onnxruntime", "openvino", "sentence-transformers", "onnxruntime int8"]


def onnx_runtime(path, threads):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {i.name for i in session.get_inputs()}
    return lambda x: session.run(["logits"], {k: v.astype(np.int64) for k, v in x.items() if k in names})[0]


def open_vino(path, threads):
    import numpy as np
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(path), "CPU", config)
    names = {i.any_name for i in compiled.inputs}
    request = compiled.create_infer_request()
    return lambda x: request.infer({k: v.astype(np.int64) for k, v in x.items() if k in names})[0].copy()


def with_tokenizer(model, longest, forward):
    """Scores with transformers' tokenizer before a function from arrays of token ids to logits."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)

    def score(query, documents, batch):
        logits = []
        for i in range(0, len(documents), batch):
            part = documents[i : i + batch]
            encoded = tokenizer(
                [query] * len(part), part, padding=True, truncation=True, max_length=longest, return_tensors="np"
            )
            logits.extend(forward(dict(encoded)).reshape(-1).tolist())
        return logits

    return score


def sentence_transformers(model, longest, threads, place):
    import torch
    from sentence_transformers import CrossEncoder

    import reference

    torch.set_num_threads(threads)
    folder = reference.native(model, place)
    encoder = CrossEncoder(str(folder), device="cpu", max_length=longest, activation_fn=torch.nn.Identity())

    def score(query, documents, batch):
        pairs = [(query, document) for document in documents]
        return encoder.predict(pairs, batch_size=batch, show_progress_bar=False).tolist()

    return score


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--model", required=True)
    parser.add_argument("--onnx", type=Path, required=True, help="what export.py wrote")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--longest", type=int, required=True, help="pairs are cut at so many tokens")
    arguments = parser.parse_args()
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    if arguments.engine == "sentence-transformers":
        score = sentence_transformers(arguments.model, arguments.longest, arguments.threads, arguments.onnx / "st")
    else:
        make = open_vino if arguments.engine == "openvino" else onnx_runtime
        path = arguments.onnx / ("model-int8.onnx" if "int8" in arguments.engine else "model.onnx")
        score = with_tokenizer(arguments.model, arguments.longest, make(path, arguments.threads))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        logits = score(request["query"], request["documents"], request["batch"])
        answer = {"logits": logits, "seconds": time.perf_counter() - start}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
