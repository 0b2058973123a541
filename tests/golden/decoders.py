"""What the tiny decoders share: seeded weights, folders, and the score that is a token's logit."""

import torch
import transformers
from tokenizers import Tokenizer

import decoder_cases
from fixture import EXACT, new_folder, write_golden, write_json, write_tokenizer, write_weights
from remote import Renamed

TOKENS = 512
IDENTITY = "torch.nn.modules.linear.Identity"


def seeded(model, seed):
    """As `fixture.seeded`, with norms of decoders near the one that they multiply by."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        kind = type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator)
            if kind.endswith(("RMSNorm", "T5LayerNorm")):
                # Gemma's norms add the one themselves.
                parameter.data = 0.2 * noise + (not kind.startswith("Gemma"))
            elif isinstance(module, torch.nn.Embedding):
                parameter.data = 0.5 * noise
            elif parameter.dim() == 1:
                parameter.data = 0.1 * noise
            else:
                parameter.data = noise * 1.2 / parameter.shape[1] ** 0.5
    return model.float().eval()


def small(**own):
    """A config.json: what the tiny decoders have in common, and what each has of its own."""
    common = dict(
        attention_bias=False,
        attention_dropout=0.0,
        intermediate_size=48,
        max_position_embeddings=TOKENS,
        num_attention_heads=4,
        num_hidden_layers=3,
        use_cache=True,
    )
    return dict(sorted((common | own).items()))


def plain_of(config):
    """What transformers' own class takes of the config.json of a model with code beside it."""
    return {key: value for key, value in config.items() if key not in ("auto_map", "architectures", "model_type")}


def write_folder(name, vocabulary, config, seed, *, roles, dtype=torch.float32,
                 causal=transformers.AutoModelForCausalLM):
    folder = new_folder(name)
    tokenizer, pad = vocabulary
    write_tokenizer(folder, tokenizer, pad, TOKENS, roles, type_ids=False)
    write_json(folder / "config.json", config)
    model = seeded(causal.from_config(transformers.AutoConfig.from_pretrained(folder)), seed)
    write_decoder_weights(folder, model, dtype)
    must_be_the_file(folder, transformers.AutoTokenizer.from_pretrained(folder))
    return folder


def must_be_the_file(folder, auto):
    """The tokenizer that transformers 5 builds of its class gives the tokens of tokenizer.json itself."""
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()
    for _, query, documents in decoder_cases.of_all():
        for text in [query, *documents]:
            for special in (False, True):
                found = auto(text, add_special_tokens=special)["input_ids"]
                assert found == plain.encode(text, add_special_tokens=special).ids, text


def write_decoder_weights(folder, model, dtype):
    # Tied weights are stored once.
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    if not model.config.tie_word_embeddings:
        tied = set()
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    write_weights(folder, Renamed(state), dtype)


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


def changed(folder, **settings):
    """The configuration with settings read otherwise; rotary ones lie in their own table in transformers 5."""
    config = transformers.AutoConfig.from_pretrained(folder)
    for key, value in settings.items():
        if key == "rope_theta":
            config.rope_parameters = dict(config.rope_parameters) | dict(rope_theta=value)
        else:
            setattr(config, key, value)
    return config


def finish(name, about, made, instruction=None, tokens=TOKENS, **more):
    longest = decoder_cases.longest(made)
    assert longest <= tokens, longest
    write_golden(name, about, tokens, made, default_instruction=instruction, **more)
