"""A model folder as ONNX: `export.py MODEL FOLDER` writes FOLDER/model.onnx, --int8 two in int8 too.

Those have dynamic quantisation, per channel: model-int8.onnx with the reduced range that AVX2's sums in 16 bits need,
model-int8-full.onnx without, for processors that sum up in 32 bits (VNNI, AMX).
"""

import argparse
import os
from pathlib import Path


def export(model, folder, file):
    import torch
    import transformers

    from native import native
    from reference import Net

    folder = native(model, folder / "native")
    # Attention is spelt out, since the engines know their own fusions of that.
    net = Net(folder, "eager")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(["query"] * 2, ["text", "longer text"], padding=True, return_tensors="pt")
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded]
    torch.onnx.export(
        net, tuple(encoded[name] for name in names), file,
        input_names=names, output_names=["logits"], opset_version=17, dynamo=False,
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names} | {"logits": {0: "batch"}},
    )


def quantise(exact, int8, reduced):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(exact, int8, per_channel=True, reduce_range=reduced, weight_type=QuantType.QInt8)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--int8", action="store_true")
    arguments = parser.parse_args()
    exact = arguments.folder / "model.onnx"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    newest = max(file.stat().st_mtime for file in Path(arguments.model).rglob("*") if file.is_file())

    def old(file):
        return not file.exists() or file.stat().st_mtime < newest

    # Renamed at the end, so that what was broken off is not taken for an export.
    part = arguments.folder / "part.onnx"
    if old(exact):
        export(arguments.model, arguments.folder, part)
        os.replace(part, exact)
    for name, reduced in [("model-int8.onnx", True), ("model-int8-full.onnx", False)]:
        if arguments.int8 and old(arguments.folder / name):
            quantise(exact, part, reduced)
            os.replace(part, arguments.folder / name)


if __name__ == "__main__":
    main()
