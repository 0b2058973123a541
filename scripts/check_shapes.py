#!/usr/bin/env python3
"""Checks rerankd's f32 logits in the full size of published rerankers against PyTorch.

    python3 scripts/check_shapes.py ettin-17m gte-modernbert-base
    python3 scripts/check_shapes.py                    all of them, some GB and a while

Makes the folder (scripts/shapes.py), scores a handful of pairs of 20 to 512 tokens, and of 2,000 and 8,192
where the model reads so many, each alone with transformers and sentence-transformers, and all in one request
with rerankd; fails if a logit differs by more than 1e-4. Then it deletes the folder, unless --keep is given.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches" / "peers"))

import engines  # noqa: E402
import shapes  # noqa: E402
import texts  # noqa: E402

LENGTHS = [20, 24, 130, 131, 512, 2000, 8192]
TOLERANCE = 1e-4


def reference(folder, threads):
    """Prints the documents and their logits as JSON; runs in a process that ends, since it takes memory."""
    import torch
    import transformers

    from native import native
    from reference import Net

    torch.set_num_threads(threads)
    translated = native(folder, folder / "native")
    tokenizer = transformers.AutoTokenizer.from_pretrained(translated)
    config = json.loads((folder / "config.json").read_text())
    longest = texts.longest(tokenizer, config)
    made = texts.Texts(tokenizer)
    documents = [made.of_tokens(length) for length in LENGTHS if length <= longest]
    # transformers' DeBERTa has no other attention than the one spelt out.
    net = Net(translated, "eager" if config["model_type"] == "deberta-v2" else "sdpa")
    logits = []
    with torch.inference_mode():
        for document in documents:
            encoded = tokenizer([texts.QUERY], [document], return_tensors="pt")
            logits.append(net(**encoded).item())
    print(json.dumps({"documents": documents, "logits": logits}))


def check(name, arguments, binary):
    """A row of the table, and whether the logits agree."""
    folder = ROOT / "target" / "shapes" / name
    command = [sys.executable, __file__, "--threads", str(arguments.threads)]
    subprocess.run([sys.executable, ROOT / "scripts" / "shapes.py", name, folder], check=True, stdout=sys.stderr)
    answer = subprocess.run([*command, "--reference", folder], check=True, stdout=subprocess.PIPE, text=True).stdout
    expected = json.loads(answer.splitlines()[-1])
    documents = expected["documents"]
    try:
        with engines.rerankd(binary, folder, arguments.threads, arguments.flags.split()) as engine:
            logits, seconds = engine.score(documents, len(documents))
            memory = engine.peak_mb()
    except engines.Ended as error:
        print(f"{name}: {error}", file=sys.stderr)
        return f"| {name} | rerankd did not score it: see above | | | | |", False
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    differences = [abs(a - b) for a, b in zip(expected["logits"], logits, strict=True)]
    worst = max(differences)
    # A difference that is not a number must not pass.
    good = all(difference <= TOLERANCE for difference in differences)
    for length, wanted, got in zip(LENGTHS, expected["logits"], logits):
        print(f"{name}: {length} tokens: {wanted:.6f}, rerankd {got:.6f}", file=sys.stderr)
    spread = max(expected["logits"]) - min(expected["logits"])
    longest = LENGTHS[len(documents) - 1]
    return f"| {name} | {longest} | {spread:.2f} | {worst:.1e} | {seconds:.1f} s | {memory:.0f} MB |", good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(shapes.CROSS_ENCODERS)}")
    parser.add_argument("--keep", action="store_true", help="leave the folders in target/shapes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flags", default="", help="more of rerankd's, such as '--instructions avx2'")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in shapes.CROSS_ENCODERS]:
        parser.error(f"no shape is called {unknown[0]}; there are {', '.join(shapes.CROSS_ENCODERS)}")
    engines.in_environment()
    if arguments.reference:
        reference(arguments.reference, arguments.threads)
        return
    binary = engines.build()
    rows, all_good = [], True
    for name in arguments.names or shapes.CROSS_ENCODERS:
        row, good = check(name, arguments, binary)
        rows.append(row)
        all_good = all_good and good
    print("| shape | longest pair | range of the logits | largest difference | rerankd, all pairs | its peak memory |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    if not all_good:
        sys.exit(f"rerankd's logits differ by more than {TOLERANCE}, or it did not score a shape")


if __name__ == "__main__":
    main()
