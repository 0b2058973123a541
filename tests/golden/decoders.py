"""The tiny decoders that say yes or no after a prompt: Qwen3-Reranker in its three spellings, and those like it."""

import json

import torch
import transformers
from sentence_transformers import CrossEncoder

import decoder_cases
import decoder_vocabularies
import prompts
from fixture import EXACT, must_differ, new_folder, write_golden, write_json, write_tokenizer, write_weights

TOKENS = 512
QWEN_ROLES = dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None, bos_token=None)
QWEN = dict(tokenizer_class="Qwen2Tokenizer", add_bos_token=False, add_prefix_space=False, errors="replace",
            split_special_tokens=False, clean_up_tokenization_spaces=False)
IDENTITY = "torch.nn.modules.linear.Identity"


def seeded(model, seed):
    """As `fixture.seeded`, with norms of decoders near the one that they multiply by."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        kind = type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator)
            if kind.endswith("RMSNorm"):
                # Gemma's norms add the one themselves.
                parameter.data = 0.2 * noise + (not kind.startswith("Gemma"))
            elif isinstance(module, torch.nn.Embedding):
                parameter.data = 0.5 * noise
            elif parameter.dim() == 1:
                parameter.data = 0.1 * noise
            else:
                parameter.data = noise * 1.2 / parameter.shape[1] ** 0.5
    return model.float().eval()


def qwen3(tokenizer, **other):
    """config.json as Qwen publishes it, in small; more rows of embeddings than tokens, as there."""
    return dict(
        architectures=["Qwen3ForCausalLM"],
        attention_bias=False,
        attention_dropout=0.0,
        bos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        head_dim=12,
        hidden_act="silu",
        hidden_size=32,
        initializer_range=0.02,
        intermediate_size=48,
        max_position_embeddings=TOKENS,
        max_window_layers=3,
        model_type="qwen3",
        num_attention_heads=4,
        num_hidden_layers=3,
        num_key_value_heads=2,
        rms_norm_eps=1e-06,
        rope_scaling=None,
        rope_theta=1000000,
        sliding_window=None,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        transformers_version="4.51.3",
        use_cache=True,
        use_sliding_window=False,
        vocab_size=-(-tokenizer.get_vocab_size() // 64) * 64,
    ) | other


def write_folder(name, vocabulary, config, seed, *, roles=QWEN_ROLES, settings=QWEN, dtype=torch.float32,
                 causal=transformers.AutoModelForCausalLM):
    folder = new_folder(name)
    tokenizer, pad = vocabulary
    write_tokenizer(folder, tokenizer, pad, TOKENS, roles, type_ids=False)
    path = folder / "tokenizer_config.json"
    write_json(path, json.loads(path.read_text()) | settings)
    write_json(folder / "config.json", config)
    model = seeded(causal.from_config(transformers.AutoConfig.from_pretrained(folder)), seed)
    write_decoder_weights(folder, model, dtype)
    return folder


def write_decoder_weights(folder, model, dtype):
    # Tied weights are stored once.
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    if not model.config.tie_word_embeddings:
        tied = set()
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    write_weights(folder, Stored(state), dtype)


class Stored:
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state


def loaded(folder, config=None, kind=transformers.AutoModelForCausalLM):
    model, info = kind.from_pretrained(folder, config=config, output_loading_info=True, **EXACT)
    ill = info["missing_keys"] or info["mismatched_keys"] or (config is None and info["unexpected_keys"])
    assert not ill, info
    return model.eval()


def answer(model, true, false=None):
    """The logit of one token at the last position, less that of the other."""

    def logit_of(ids):
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        return logits[true] - (logits[false] if false is not None else 0.0)

    return logit_of


def qwen3_template(folder):
    """The published template's manner: settings first, and a last line break that Jinja drops."""

    def first(role, default=""):
        return f'messages | selectattr("role", "eq", "{role}") | map(attribute="content") | first{default}'

    lines = [
        '{%- set asked = ' + first("system", f' | default("{prompts.QWEN3_INSTRUCTION}")') + " -%}",
        "{%- set query = " + first("query") + " -%}",
        "{%- set passage = " + first("document") + " -%}",
        prompts.QWEN3_PREFIX + "<Instruct>: {{ asked }}",
        "<Query>: {{ query }}",
        "<Document>: {{ passage }}" + prompts.QWEN3_SUFFIX,
    ]
    (folder / "chat_template.jinja").write_text("\n".join(lines) + "\n")


def st_layout(folder, true, false, instruction=None, activation=IDENTITY):
    """The files that sentence-transformers 6 writes beside a causal model."""
    modules = "sentence_transformers.base.modules.transformer.Transformer", (
        "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    )
    paths = ["", "1_LogitScore"]
    write_json(folder / "modules.json", [
        dict(idx=i, name=str(i), path=path, type=kind) for i, (path, kind) in enumerate(zip(paths, modules))
    ])
    (folder / "1_LogitScore").mkdir()
    score = dict(true_token_id=true, false_token_id=false, module_input_name="causal_logits")
    write_json(folder / "1_LogitScore" / "config.json", score)
    forward = dict(method="forward", method_output_name="logits")
    write_json(folder / "sentence_bert_config.json", dict(
        transformer_task="text-generation",
        modality_config=dict(text=forward, message=forward | dict(format="flat")),
        module_output_name="causal_logits",
    ))
    named = {} if instruction is None else dict(query=instruction)
    write_json(folder / "config_sentence_transformers.json", dict(
        __version__=dict(pytorch="2.9.1", sentence_transformers="5.4.0", transformers="5.0.0"),
        activation_fn=activation,
        default_prompt_name="query" if named else None,
        model_type="CrossEncoder",
        prompts=named,
    ))


def qwen3_body(instruction, query, document):
    asked = prompts.QWEN3_INSTRUCTION if instruction is None else instruction
    return f"<Instruct>: {asked}\n<Query>: {query}\n<Document>: {document}"


def as_the_card(tokenizer):
    """Prefix and suffix tokenised once, the body between them alone."""
    prefix = tokenizer.encode(prompts.QWEN3_PREFIX, add_special_tokens=False)
    suffix = tokenizer.encode(prompts.QWEN3_SUFFIX, add_special_tokens=False)
    return lambda *pair: prefix + tokenizer(qwen3_body(*pair))["input_ids"] + suffix


def finish(name, about, made, instruction=None, **more):
    longest = decoder_cases.longest(made)
    assert longest <= TOKENS, longest
    write_golden(name, about, TOKENS, made, default_instruction=instruction, **more)


def qwen3_st():
    name = "tiny-qwen3-st"
    vocabulary = decoder_vocabularies.qwen_bpe()
    folder = write_folder(name, vocabulary, qwen3(vocabulary[0]), 50)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    true, false = auto.convert_tokens_to_ids(["yes", "no"])
    st_layout(folder, true, false, prompts.QWEN3_INSTRUCTION)
    qwen3_template(folder)

    def assemble(*pair):
        whole = prompts.QWEN3_PREFIX + qwen3_body(*pair) + prompts.QWEN3_SUFFIX
        return auto(whole, add_special_tokens=False)["input_ids"]

    tried = decoder_cases.of_all()
    model = loaded(folder)

    def score(assemble=assemble, logit_of=answer(model, true, false)):
        return decoder_cases.written(tried, assemble, logit_of, torch.nn.Identity())

    made = score()
    decoder_cases.must_agree(made, CrossEncoder(str(folder), device="cpu", model_kwargs=EXACT))
    must_differ(made, score(logit_of=answer(model, true)), "without the other answer")
    must_differ(made, score(lambda *pair: assemble(*pair)[:-1]), "one line break less at the end")
    wrong = [dict(rope_theta=10000.0), dict(rms_norm_eps=1e-2)]
    for mistake in wrong:
        config = changed(folder, **mistake)
        must_differ(made, score(logit_of=answer(loaded(folder, config), true, false)), mistake)
    finish(
        name, "Qwen3-Reranker in sentence-transformers 6's files: a chat template, and the logit of yes less that of "
        "no. The whole prompt is tokenised at once, so that a tag such as <|im_end|> in a text becomes that tag's token",
        made, prompts.QWEN3_INSTRUCTION,
    )


def changed(folder, **settings):
    """The configuration with settings read otherwise; rotary ones lie in their own table in transformers 5."""
    config = transformers.AutoConfig.from_pretrained(folder)
    for key, value in settings.items():
        if key == "rope_theta":
            config.rope_parameters = dict(config.rope_parameters) | dict(rope_theta=value)
        else:
            setattr(config, key, value)
    return config


def qwen3_plain():
    name = "tiny-qwen3-plain"
    vocabulary = decoder_vocabularies.qwen_bpe()
    folder = write_folder(name, vocabulary, qwen3(vocabulary[0], tie_word_embeddings=False), 51)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    true, false = auto.convert_tokens_to_ids(["yes", "no"])
    assemble, tried, model = as_the_card(auto), decoder_cases.of_all(), loaded(folder)

    def score(assemble=assemble, logit_of=answer(model, true, false)):
        return decoder_cases.written(tried, assemble, logit_of, torch.sigmoid)

    made = score()
    for mistake in [dict(rope_theta=10000.0)]:
        must_differ(made, score(logit_of=answer(loaded(folder, changed(folder, **mistake)), true, false)), mistake)
    tied = loaded(folder)
    tied.lm_head.weight = tied.model.embed_tokens.weight
    must_differ(made, score(logit_of=answer(tied, true, false)), "the embeddings for the head")
    must_differ(made, score(lambda *pair: auto(qwen3_body(*pair))["input_ids"]), "without prefix and suffix")
    finish(
        name, "Qwen3-Reranker as first published: a causal model without files of sentence-transformers; config.json "
        "doesn't say that it is a reranker. The body is tokenised between prefix and suffix, so that a tag such as "
        "<|im_end|> in a text becomes that tag's token; own output weights",
        made, prompts.QWEN3_INSTRUCTION,
    )


def qwen3_seqcls():
    name, yarn = "tiny-qwen3-seqcls", dict(factor=4.0, original_max_position_embeddings=128, rope_type="yarn")
    vocabulary = decoder_vocabularies.qwen_bpe()
    one = dict(id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    config = qwen3(
        vocabulary[0], architectures=["Qwen3ForSequenceClassification"], rope_scaling=yarn,
        pad_token_id=vocabulary[0].token_to_id("<|endoftext|>"), **one
    )
    kind = transformers.AutoModelForSequenceClassification
    folder = write_folder(name, vocabulary, config, 52, dtype=torch.bfloat16, causal=kind)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    assemble, tried = as_the_card(auto), decoder_cases.of_all()

    def score(config=None):
        model = loaded(folder, config, kind)
        return decoder_cases.written(
            tried, assemble, lambda ids: model(input_ids=torch.tensor([ids])).logits[0, 0], torch.sigmoid
        )

    made = score()
    plain = dict(rope_type="default", rope_theta=1000000)
    rope = dict(transformers.AutoConfig.from_pretrained(folder).rope_parameters)
    for mistake in [
        plain, rope | dict(factor=2.0), rope | dict(attention_factor=1.0),
        dict(rope_type="linear", factor=4.0, rope_theta=1000000),
    ]:
        must_differ(made, score(changed(folder, rope_parameters=mistake)), mistake)
    finish(
        name, "Qwen3-Reranker made into a classifier of one label: score.weight of the last token, YaRN's positions, "
        "16-bit weights (bfloat16) widened to 32 bits; the prompt and tags in texts as of tiny-qwen3-plain",
        made, prompts.QWEN3_INSTRUCTION,
    )
