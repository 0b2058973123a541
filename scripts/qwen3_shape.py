"""The folder of a Qwen3-Reranker's shape, as sentence-transformers 6 lays it out, for shapes.py.

Written tensor by tensor, so that making it takes little more memory than the bf16 weights.
"""

import json
import math

from texts import LONG_QUERY, WORDS

HEADS, KV_HEADS, HEAD_SIZE = 16, 8, 128
VOCABULARY = 151669
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
# One expression with its line ends spelt out, since a template's own ones depend on how it is read.
TEMPLATE = r"""{%%- set fallback = %(instruction)s -%%}
{%%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default(fallback) -%%}
{%%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%%}
{%%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%%}
{{- "<|im_start|>system\n" ~ %(system)s ~ "<|im_end|>\n<|im_start|>user\n<Instruct>: " ~ instruction
  ~ "\n<Query>: " ~ query ~ "\n<Document>: " ~ document
  ~ "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n" -}}
"""


def tokenizer():
    """Qwen's kind, small: each word of the template, of the query and of the documents is one token."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    text = " ".join([SYSTEM, INSTRUCTION, "Instruct Query Document system user assistant yes no", LONG_QUERY, *WORDS])
    words = sorted({word.strip('".,') for word in text.split()})
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # The trainer merges as long as a pair is left, so that each word ends as one token.
    trainer = trainers.BpeTrainer(
        vocab_size=10000, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    trained.train_from_iterator([form for word in words for form in (word, f" {word}")], trainer)
    model = json.loads(trained.to_str())["model"]
    made = Qwen2Tokenizer(
        vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]],
        eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None,
    )
    made.add_tokens([AddedToken("<|im_start|>", special=True), *(AddedToken(t) for t in ("<think>", "</think>"))])
    for word in words:
        assert len(made.encode(word)) == len(made.encode(f" {word}")) == 1, word
    made.padding_side = "left"
    # As published, though the configuration says 40,960.
    made.model_max_length = 131072
    return made


def qwen3(folder, hidden, layers, feed_forward):
    made = tokenizer()
    made.save_pretrained(folder)
    true, false = made.convert_tokens_to_ids(["yes", "no"])
    write(folder, "config.json", {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": made.pad_token_id, "eos_token_id": made.eos_token_id, "head_dim": HEAD_SIZE,
        "hidden_act": "silu", "hidden_size": hidden, "initializer_range": 0.02, "intermediate_size": feed_forward,
        "max_position_embeddings": 40960, "max_window_layers": layers, "model_type": "qwen3",
        "num_attention_heads": HEADS, "num_hidden_layers": layers, "num_key_value_heads": KV_HEADS,
        "pad_token_id": made.pad_token_id, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
        "use_sliding_window": False, "vocab_size": VOCABULARY,
    })
    logit_score_files(folder, true, false, {"prompts": {"query": INSTRUCTION}, "default_prompt_name": "query"})
    template = TEMPLATE % {"instruction": json.dumps(INSTRUCTION), "system": json.dumps(SYSTEM)}
    (folder / "chat_template.jinja").write_text(template)
    weights(folder / "model.safetensors", hidden, layers, feed_forward)


def logit_score_files(folder, true, false, prompts):
    """What sentence-transformers 6 adds to a causal model's folder: the score is one token's logit less another's."""
    write(folder, "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_LogitScore",
         "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"},
    ])
    write(folder, "sentence_bert_config.json", {
        "transformer_task": "text-generation",
        "modality_config": {
            "text": {"method": "forward", "method_output_name": "logits"},
            "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
        },
        "module_output_name": "causal_logits",
    })
    write(folder, "config_sentence_transformers.json", {
        "model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity", **prompts,
    })
    (folder / "1_LogitScore").mkdir()
    write(folder / "1_LogitScore", "config.json", {
        "true_token_id": true, "false_token_id": false, "module_input_name": "causal_logits",
    })


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def weights(file, hidden, layers, feed_forward):
    """Seeded bf16 weights with which activations keep their size: what goes into the residual stream is small."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    residual = 1 / math.sqrt(2 * layers)

    def matrix(rows, columns, scale):
        made = torch.randn(rows, columns, generator=generator)
        return made.mul_(scale).to(torch.bfloat16)

    def norm(size):
        return torch.randn(size, generator=generator).mul_(0.1).add_(1.0).to(torch.bfloat16)

    tensors = {"model.embed_tokens.weight": matrix(VOCABULARY, hidden, 0.05), "model.norm.weight": norm(hidden)}
    queries, keys = HEADS * HEAD_SIZE, KV_HEADS * HEAD_SIZE
    for layer in range(layers):
        sizes = {
            "self_attn.q_proj": (queries, hidden, 1), "self_attn.k_proj": (keys, hidden, 1),
            "self_attn.v_proj": (keys, hidden, 1), "self_attn.o_proj": (hidden, queries, residual),
            "mlp.gate_proj": (feed_forward, hidden, 1), "mlp.up_proj": (feed_forward, hidden, 1),
            "mlp.down_proj": (hidden, feed_forward, residual),
        }
        for name, (rows, columns, gain) in sizes.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = matrix(rows, columns, gain / math.sqrt(columns))
        norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden,
                 "self_attn.q_norm": HEAD_SIZE, "self_attn.k_norm": HEAD_SIZE}
        for name, size in norms.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = norm(size)
    save_file(tensors, file, {"format": "pt"})
