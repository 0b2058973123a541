"""The tiny models whose published code lies beside their weights, so that another must be the reference.

Of gte's "new" it is transformers' own GTE, which reads the same weights; of jina-reranker-v2 it is
XLM-RoBERTa, of which that is a spelling; of jina-reranker-v1 it is the few lines below, written after
the paper (arXiv 2310.19923) and the names of the published tensors.
"""

import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from torch import nn
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

import cases
import vocabularies
from fixture import (
    EXACT,
    ROBERTA_ROLES,
    must_differ,
    new_folder,
    seeded,
    write_golden,
    write_json,
    write_tokenizer,
    write_weights,
)

ONE_LABEL = dict(id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})


class Renamed:
    """What `write_weights` needs of a model whose tensors are stored under other names."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state


def tried(folder, logits_of, max_tokens):
    # The automatic class would ask whether to run the code that config.json names.
    auto = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return cases.reference(auto, logits_of, cases.with_edges(auto, [max_tokens]), max_tokens, torch.sigmoid)


def with_other_config(folder, config):
    """Scores by transformers and sentence-transformers of the same files but for config.json."""
    with tempfile.TemporaryDirectory() as other:
        for file in folder.iterdir():
            shutil.copy(file, other)
        write_json(Path(other) / "config.json", config)
        load = transformers.AutoModelForSequenceClassification.from_pretrained
        model, info = load(other, output_loading_info=True, **EXACT)
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        max_tokens = config["max_tokens"]
        written = tried(other, lambda encoded: model.eval()(**encoded).logits, max_tokens)
        encoder = CrossEncoder(other, device="cpu", max_length=max_tokens, model_kwargs=EXACT)
        cases.must_agree(written, encoder)
        return written


def gte():
    name, heads, head, factor, theta, tokens = "tiny-gte", 2, 16, 8.0, 20000, 128
    folder = new_folder(name)
    tokenizer = vocabularies.xlmr_unigram()
    write_tokenizer(folder, *tokenizer, 32768, ROBERTA_ROLES, type_ids=False)
    shape = dict(
        attention_probs_dropout_prob=0.0,
        classifier_dropout=0.0,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        hidden_size=heads * head,
        initializer_range=0.02,
        intermediate_size=48,
        layer_norm_eps=1e-12,
        max_position_embeddings=tokens,
        num_attention_heads=heads,
        num_hidden_layers=2,
        pad_token_id=1,
        type_vocab_size=1,
        vocab_size=tokenizer[0].get_vocab_size(),
        **ONE_LABEL,
    )
    code = "Alibaba-NLP/new-impl--"
    models = ["Model", "ForMaskedLM", "ForMultipleChoice", "ForQuestionAnswering", "ForSequenceClassification",
              "ForTokenClassification"]
    written = dict(
        architectures=["NewForSequenceClassification"],
        auto_map={"AutoConfig": f"{code}configuration.NewConfig"}
        | {f"AutoModel{kind.removeprefix('Model')}": f"{code}modeling.New{kind}" for kind in models},
        layer_norm_type="layer_norm",
        logn_attention_clip1=False,
        logn_attention_scale=False,
        model_type="new",
        pack_qkv=True,
        position_embedding_type="rope",
        rope_scaling={"factor": factor, "type": "ntk"},
        rope_theta=theta,
        torch_dtype="float32",
        transformers_version="4.39.1",
        unpad_inputs=False,
        use_memory_efficient_attention=False,
        **shape,
    )
    write_json(folder / "config.json", written)

    width, inner = heads * head, 48
    linear = {"new.pooler.dense": (width, width, True), "classifier": (width, 1, True)}
    norms = ["new.embeddings.LayerNorm"]
    for i in range(2):
        layer = f"new.encoder.layer.{i}."
        linear[layer + "attention.qkv_proj"] = (width, 3 * width, True)
        linear[layer + "attention.o_proj"] = (width, width, True)
        linear[layer + "mlp.up_gate_proj"] = (width, 2 * inner, False)
        linear[layer + "mlp.down_proj"] = (inner, width, True)
        norms += [layer + "attn_ln", layer + "mlp_ln"]
    modules = {n: nn.Linear(a, b, bias=bias) for n, (a, b, bias) in linear.items()}
    modules |= {n: nn.LayerNorm(width) for n in norms}
    modules["new.embeddings.word_embeddings"] = nn.Embedding(written["vocab_size"], width)
    modules["new.embeddings.token_type_embeddings"] = nn.Embedding(1, width)
    state = {}
    for i, (module_name, module) in enumerate(modules.items()):
        state |= {f"{module_name}.{n}": t for n, t in seeded(module, 4000 + i).state_dict().items()}
    state["classifier.weight"] *= 3
    write_weights(folder, Renamed(state))

    # The published code's NTK scaling is, of the ways that transformers knows, a linear one of another base:
    # frequencies (theta * factor)^(-2i/d) / factor^(2/d).
    def by_gte(**rope):
        config = dict(architectures=["GteForSequenceClassification"], model_type="gte", max_tokens=tokens)
        return with_other_config(folder, config | shape | {"rope_parameters": rope})

    golden = by_gte(rope_type="linear", rope_theta=theta * factor, factor=factor ** (2 / head))
    must_differ(golden, by_gte(rope_type="default", rope_theta=theta), "no scaling")
    must_differ(golden, by_gte(rope_type="default", rope_theta=theta * factor), "a base alone")
    about = "mGTE (model_type new): rotary positions with NTK scaling, gated layers, all post-norm"
    write_golden(name, about, tokens, golden)


def jina_v2():
    name, tokens = "tiny-jina-v2", 128
    folder = new_folder(name)
    tokenizer = vocabularies.xlmr_unigram()
    write_tokenizer(folder, *tokenizer, 1024, ROBERTA_ROLES, type_ids=False)
    shape = dict(
        architectures=["XLMRobertaForSequenceClassification"],
        attention_probs_dropout_prob=0.1,
        bos_token_id=0,
        classifier_dropout=None,
        eos_token_id=2,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        hidden_size=32,
        initializer_range=0.02,
        intermediate_size=64,
        layer_norm_eps=1e-05,
        max_position_embeddings=tokens + 2,
        model_type="xlm-roberta",
        num_attention_heads=4,
        num_hidden_layers=2,
        pad_token_id=1,
        position_embedding_type="absolute",
        type_vocab_size=1,
        vocab_size=tokenizer[0].get_vocab_size(),
        **ONE_LABEL,
    )
    code, module = "configuration_xlm_roberta", "modeling_xlm_roberta"
    written = shape | dict(
        auto_map={
            "AutoConfig": f"{code}.XLMRobertaFlashConfig",
            "AutoModel": f"{module}.XLMRobertaModel",
            "AutoModelForPreTraining": f"{module}.XLMRobertaForPreTraining",
            "AutoModelForSequenceClassification": f"{module}.XLMRobertaForSequenceClassification",
        },
        emb_pooler=None,
        load_trained_adapters=False,
        output_past=True,
        torch_dtype="bfloat16",
        transformers_version="4.40.0",
        truncate_dim=None,
        use_cache=False,
        use_flash_attn=True,
    )
    model = seeded(transformers.XLMRobertaForSequenceClassification(transformers.XLMRobertaConfig(**shape)), 51)
    write_weights(folder, model, torch.bfloat16)
    golden = with_other_config(folder, shape | {"max_tokens": tokens})

    usual = load_file(folder / "model.safetensors")
    stored = {}
    for tensor_name, tensor in usual.items():
        for old, new in (
            ("embeddings.LayerNorm", "emb_ln"), ("encoder.layer.", "encoder.layers."),
            ("attention.output.dense", "mixer.out_proj"), ("attention.output.LayerNorm", "norm1"),
            ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"), ("output.LayerNorm", "norm2"),
        ):
            tensor_name = tensor_name.replace(old, new)
        if ".attention.self." not in tensor_name:
            stored[tensor_name] = tensor
    for i in range(2):
        for kind in ("weight", "bias"):
            own = f"roberta.encoder.layer.{i}.attention.self."
            parts = [usual[f"{own}{part}.{kind}"] for part in ("query", "key", "value")]
            stored[f"roberta.encoder.layers.{i}.mixer.Wqkv.{kind}"] = torch.cat(parts)
    write_weights(folder, Renamed(stored), torch.bfloat16)
    write_json(folder / "config.json", written)
    about = "jina-reranker-v2: XLM-RoBERTa with other names and fused weights, bfloat16, widened to 32 bits"
    write_golden(name, about, tokens, golden)


class JinaBert(nn.Module):
    """BERT with ALiBi instead of positions and gated layers; modules are named as the published tensors are."""

    def __init__(self, vocabulary, width, layers, heads, inner, eps=1e-12):
        super().__init__()
        self.width, self.heads = width, heads
        self.bert = nn.ModuleDict(
            dict(
                embeddings=nn.ModuleDict(
                    dict(
                        word_embeddings=nn.Embedding(vocabulary, width),
                        token_type_embeddings=nn.Embedding(2, width),
                        LayerNorm=nn.LayerNorm(width, eps=eps),
                    )
                ),
                encoder=nn.ModuleDict(dict(layer=nn.ModuleList(self.layer(inner, eps) for _ in range(layers)))),
                pooler=nn.ModuleDict(dict(dense=nn.Linear(width, width))),
            )
        )
        self.classifier = nn.Linear(width, 1)
        # The slopes of m heads: 2^(-8k/m) for a power of two; else those of the power below, and then every
        # second of the power above.
        whole = 2 ** (heads.bit_length() - 1)
        self.slopes = [2 ** (-8 * k / whole) for k in range(1, whole + 1)]
        self.slopes += [2 ** (-8 * k / (2 * whole)) for k in range(1, 2 * (heads - whole), 2)]

    def layer(self, inner, eps):
        width, modules = self.width, lambda **named: nn.ModuleDict(named)
        norm = lambda: nn.LayerNorm(width, eps=eps)
        square = lambda: nn.Linear(width, width)
        return modules(
            attention=modules(
                self=modules(query=square(), key=square(), value=square()),
                output=modules(dense=square(), LayerNorm=norm()),
            ),
            mlp=modules(
                gated_layers=nn.Linear(width, 2 * inner, bias=False), wo=nn.Linear(inner, width), layernorm=norm()
            ),
        )

    def forward(self, ids, slopes=None, act=nn.functional.gelu, gate_first=True):
        embeddings, n = self.bert["embeddings"], len(ids)
        kinds = torch.zeros_like(ids)
        x = embeddings["LayerNorm"](
            embeddings["word_embeddings"](ids) + embeddings["token_type_embeddings"](kinds)
        )
        places = torch.arange(n)
        distance = (places[:, None] - places[None, :]).abs()
        bias = -torch.tensor(slopes or self.slopes)[:, None, None] * distance
        for layer in self.bert["encoder"]["layer"]:
            x = self.attend(layer["attention"], x, bias)
            first, second = layer["mlp"]["gated_layers"](x).chunk(2, dim=-1)
            gated = act(first) * second if gate_first else first * act(second)
            x = layer["mlp"]["layernorm"](x + layer["mlp"]["wo"](gated))
        return self.classifier(torch.tanh(self.bert["pooler"]["dense"](x[0])))[None]

    def attend(self, attention, x, bias):
        split = lambda y: y.view(len(x), self.heads, -1).transpose(0, 1)
        q, k, v = (split(attention["self"][part](x)) for part in ("query", "key", "value"))
        weights = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + bias, dim=-1)
        mixed = (weights @ v).transpose(0, 1).reshape(len(x), -1)
        return attention["output"]["LayerNorm"](x + attention["output"]["dense"](mixed))


def jina_v1():
    name, tokens, width, heads = "tiny-jina-v1", 160, 48, 6
    folder = new_folder(name)
    tokenizer = vocabularies.byte_level_bpe()
    write_tokenizer(folder, *tokenizer, tokens, ROBERTA_ROLES, type_ids=False)
    code = "jinaai/jina-bert-implementation--"
    kinds = ["", "ForMaskedLM", "ForQuestionAnswering", "ForSequenceClassification", "ForTokenClassification"]
    vocabulary = tokenizer[0].get_vocab_size()
    written = dict(
        architectures=["JinaBertForSequenceClassification"],
        attention_probs_dropout_prob=0.1,
        attn_implementation=None,
        auto_map={"AutoConfig": f"{code}configuration_bert.JinaBertConfig"}
        | {f"AutoModel{kind}": f"{code}modeling_bert.JinaBert{kind or 'Model'}" for kind in kinds},
        classifier_dropout=None,
        emb_pooler="mean",
        feed_forward_type="geglu",
        gradient_checkpointing=False,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        hidden_size=width,
        initializer_range=0.02,
        intermediate_size=64,
        layer_norm_eps=1e-12,
        max_position_embeddings=tokens,
        model_type="bert",
        num_attention_heads=heads,
        num_hidden_layers=2,
        pad_token_id=0,
        position_embedding_type="alibi",
        torch_dtype="float32",
        transformers_version="4.38.2",
        type_vocab_size=2,
        use_cache=True,
        vocab_size=vocabulary,
    )
    write_json(folder / "config.json", written)
    model = seeded(JinaBert(vocabulary, width, 2, heads, 64), 52)
    for count in (4, 6, 8, 12):
        # Of a sequence of two tokens, BLOOM's bias of the second is the slope.
        of_bloom = build_alibi_tensor(torch.ones(1, 2), count, torch.float32)[:, 0, 1]
        assert torch.allclose(of_bloom, torch.tensor(JinaBert(1, count, 0, count, 1).slopes)), count
    write_weights(folder, model)

    def score(**mistake):
        return tried(folder, lambda encoded: model(encoded["input_ids"][0], **mistake), tokens)

    golden = score()
    of_a_power = [2 ** (-8 * k / heads) for k in range(1, heads + 1)]
    must_differ(golden, score(slopes=of_a_power), "slopes as of a power of two")
    must_differ(golden, score(gate_first=False), "the other half activated")
    must_differ(golden, score(act=nn.functional.relu), "relu")
    about = "jina-reranker-v1 (JinaBERT): ALiBi of six heads, gated layers; config.json names no labels"
    write_golden(name, about, tokens, golden)
