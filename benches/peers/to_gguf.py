"""A Qwen3 reranker's folder as GGUF for llama.cpp: `to_gguf.py MODEL FILE --type bf16`.

As llama.cpp converts Qwen3-Reranker: the head's two rows as a classifier, pooled by rank, and the prompt as the
template "rerank". int8 is its Q8_0.
"""

import argparse
import json
import os
from pathlib import Path

TYPES = ["f32", "bf16", "int8"]
# How llama.cpp marks the places in its template.
QUERY, DOCUMENT = "{query}", "{document}"


def prompt(model):
    """The model's chat template with llama.cpp's places, under the model's own instruction."""
    import transformers

    settings = json.loads((model / "config_sentence_transformers.json").read_text())
    messages = [
        {"role": "system", "content": settings["prompts"][settings["default_prompt_name"]]},
        {"role": "query", "content": QUERY},
        {"role": "document", "content": DOCUMENT},
    ]
    return transformers.AutoTokenizer.from_pretrained(model).apply_chat_template(messages, tokenize=False)


def add_tokenizer(writer, model, config):
    import gguf

    file = json.loads((model / "tokenizer.json").read_text())
    tokens = {id_: token for token, id_ in file["model"]["vocab"].items()}
    added = {token["id"]: token for token in file["added_tokens"]}
    tokens |= {id_: token["content"] for id_, token in added.items()}
    count, kind = config["vocab_size"], gguf.TokenType
    # Rows of the embedding table without a token get a name of their own.
    writer.add_token_list([tokens.get(id_, f"[PAD{id_}]") for id_ in range(count)])
    writer.add_token_types([
        (kind.CONTROL if added[id_]["special"] else kind.USER_DEFINED) if id_ in added
        else kind.NORMAL if id_ in tokens else kind.UNUSED
        for id_ in range(count)
    ])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    merges = file["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template([{"name": "rerank", "template": prompt(model)}])


def add_sizes(writer, config):
    import gguf

    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(["yes", "no"])


def add_tensors(writer, model, config, type_):
    import gguf
    from safetensors import safe_open

    kinds = gguf.GGMLQuantizationType
    matrices = {"f32": kinds.F32, "bf16": kinds.BF16, "int8": kinds.Q8_0}[type_]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    head = json.loads((model / "1_LogitScore" / "config.json").read_text())

    def add(name, tensor):
        kind = matrices if tensor.dim() == 2 else kinds.F32
        writer.add_tensor(name, gguf.quantize(tensor.float().numpy(), kind), raw_dtype=kind)

    with safe_open(model / "model.safetensors", "pt") as file:
        for name in file.keys():
            add(names.get_name(name, try_suffixes=(".weight",)), file.get_tensor(name))
        rows = file.get_slice("model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight")
        ids = [head["true_token_id"], head["false_token_id"]]
        add("cls.output.weight", rows[ids])


def write(model, file, type_):
    import gguf

    config = json.loads((model / "config.json").read_text())
    assert config["model_type"] == "qwen3", "only Qwen3 is translated"
    # The temporary file keeps the tensors out of memory.
    writer = gguf.GGUFWriter(file, "qwen3", use_temp_file=True)
    add_sizes(writer, config)
    add_tokenizer(writer, model, config)
    add_tensors(writer, model, config, type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--type", choices=TYPES, required=True)
    arguments = parser.parse_args()
    newest = max(file.stat().st_mtime for file in arguments.model.rglob("*") if file.is_file())
    if arguments.file.exists() and arguments.file.stat().st_mtime > newest:
        return
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    # Renamed at the end, so that what was broken off is not taken for a whole file.
    part = arguments.file.with_suffix(".part")
    write(arguments.model, part, arguments.type)
    os.replace(part, arguments.file)


if __name__ == "__main__":
    main()
