"""The tiny decoders of Llama's kind: a causal one in sentence-transformers' files, Nemotron's that looks both ways."""

import torch
import transformers
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from torch import nn

import decoder_cases
import decoder_vocabularies
from decoders import TOKENS, answer, changed, finish, loaded, plain_of, seeded, small, st_layout, write_folder
from fixture import EXACT, must_differ, new_folder, write_json, write_tokenizer, write_weights
from remote import Renamed

ROLES = dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|finetune_right_pad_id|>",
             clean_up_tokenization_spaces=False)
SCALING = dict(factor=8.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=64,
               rope_type="llama3")
SIGMOID = "torch.nn.modules.activation.Sigmoid"


def config_of(tokenizer, **other):
    return small(**dict(
        architectures=["LlamaForCausalLM"],
        bos_token_id=tokenizer.token_to_id("<|begin_of_text|>"),
        eos_token_id=tokenizer.token_to_id("<|eot_id|>"),
        hidden_act="silu",
        hidden_size=48,
        initializer_range=0.041666666666666664,
        mlp_bias=False,
        model_type="llama",
        num_key_value_heads=2,
        pretraining_tp=1,
        rms_norm_eps=1e-05,
        rope_scaling=SCALING,
        rope_theta=10000,
        tie_word_embeddings=True,
        torch_dtype="float32",
        transformers_version="4.51.3",
        vocab_size=tokenizer.get_vocab_size(),
    ) | other)


def llama():
    name = "tiny-llama"
    vocabulary = decoder_vocabularies.llama_bpe()
    folder = write_folder(name, vocabulary, config_of(vocabulary[0]), 60, roles=ROLES)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    true, false = auto.convert_tokens_to_ids(["yes", "no"])
    st_layout(folder, true, false, activation=SIGMOID)
    turn = "{{- '<|start_header_id|>%s<|end_header_id|>\\n\\n' }}"
    (folder / "chat_template.jinja").write_text(
        "\n".join([
            "{{- bos_token }}",
            "{%- set ns = namespace(asked='Is the passage about the query?') %}",
            "{%- for message in messages %}",
            "    {%- if message.role == 'system' %}",
            "        {%- set ns.asked = message['content'] | trim %}",
            "    {%- endif %}",
            "{%- endfor %}",
            turn % "system",
            "{{- ns.asked + '<|eot_id|>' }}",
            turn % "user",
            "{%- for message in messages if message.role != 'system' %}",
            "    {{- message.role | capitalize ~ ': ' ~ message.content | trim }}",
            "    {%- if not loop.last %}{{- '\\n' }}{% else %}{{- '<|eot_id|>' }}{% endif %}",
            "{%- endfor %}",
            turn % "assistant",
        ])
    )

    def assemble(instruction, query, document):
        asked = "Is the passage about the query?" if instruction is None else instruction.strip()
        turns = [
            ("system", asked), ("user", f"Query: {query.strip()}\nDocument: {document.strip()}"),
        ]
        text = "".join(f"<|start_header_id|>{role}<|end_header_id|>\n\n{said}<|eot_id|>" for role, said in turns)
        text = f"<|begin_of_text|>{text}<|start_header_id|>assistant<|end_header_id|>\n\n"
        return auto(text, add_special_tokens=False)["input_ids"]

    tried = decoder_cases.of_all()

    def score(config=None):
        return decoder_cases.written(tried, assemble, answer(loaded(folder, config), true, false), torch.sigmoid)

    made = score()
    decoder_cases.must_agree(made, CrossEncoder(str(folder), device="cpu", model_kwargs=EXACT))
    rope = dict(transformers.AutoConfig.from_pretrained(folder).rope_parameters)
    for mistake in [
        dict(rope_type="default", rope_theta=10000), rope | dict(low_freq_factor=2.0),
        rope | dict(high_freq_factor=8.0), rope | dict(original_max_position_embeddings=128),
    ]:
        must_differ(made, score(changed(folder, rope_parameters=mistake)), mistake)
    finish(
        name, "a Llama in sentence-transformers 6's files: Llama 3's positions and vocabulary, a chat template with a "
        "loop, a namespace and trim, which takes blanks off the texts; sigmoid of the logit of yes less that of no. "
        "The prompt is tokenised at once, so that a tag such as <|eot_id|> in a text becomes that tag's token",
        made,
    )


class BothWays(nn.Module):
    """transformers' own layers of Llama with a mask of zeros, the mean of all states, and one output."""

    def __init__(self, config):
        super().__init__()
        self.model = transformers.LlamaModel(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)

    def states(self, ids, causal=False):
        ids = torch.tensor([ids])
        # A mask of four dimensions is taken as it is: nothing is added to any position's weight.
        mask = None if causal else torch.zeros(1, 1, ids.shape[1], ids.shape[1])
        return self.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[0]


def nemotron():
    name, temperature = "tiny-nemotron", 0.5
    folder = new_folder(name)
    tokenizer, pad = decoder_vocabularies.llama_bpe()
    write_tokenizer(folder, tokenizer, pad, TOKENS, ROLES, type_ids=False)
    code = "llama_bidirectional_model"
    config = config_of(
        tokenizer,
        architectures=["LlamaBidirectionalForSequenceClassification"],
        auto_map={
            "AutoConfig": f"{code}.LlamaBidirectionalConfig",
            "AutoModelForSequenceClassification": f"{code}.LlamaBidirectionalForSequenceClassification",
        },
        head_dim=12,
        id2label={"0": "LABEL_0"},
        label2id={"LABEL_0": 0},
        model_type="llama_bidirec",
        pad_token_id=tokenizer.token_to_id(pad),
        pooling="avg",
        temperature=temperature,
    )
    write_json(folder / "config.json", config)
    plain = transformers.LlamaConfig(**plain_of(config), attn_implementation="eager")
    model = seeded(BothWays(plain), 61)
    write_weights(folder, Renamed(model.state_dict()))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.eval()
    auto = transformers.PreTrainedTokenizerFast.from_pretrained(folder)

    def assemble(instruction, query, document):
        return auto(f"question:{query} \n \n passage:{document}")["input_ids"]

    tried = decoder_cases.of_all(instructions=False)

    def score(pool=lambda states: states.mean(dim=0), causal=False, temperature=temperature):
        return decoder_cases.written(
            tried, assemble, lambda ids: model.score(pool(model.states(ids, causal)))[0] / temperature, torch.sigmoid
        )

    made = score()
    # The first token sees the last: with a causal mask it could not.
    with torch.no_grad():
        ids = made[0]["ids"][0]
        seen = model.states(ids)[0] - model.states(ids[:-1] + [0])[0]
        hidden = model.states(ids, causal=True)[0] - model.states(ids[:-1] + [0], causal=True)[0]
        flagged = transformers.LlamaConfig(**plain.to_dict() | dict(is_causal=False), attn_implementation="eager")
        other = BothWays(flagged)
        other.load_state_dict(model.state_dict())
        twice = (other.eval().states(ids, causal=True) - model.states(ids)).abs().max()
    assert seen.abs().max() > 1e-3 and hidden.abs().max() == 0 and twice < 1e-5, (seen, hidden, twice)
    must_differ(made, score(causal=True), "a causal mask")
    must_differ(made, score(pool=lambda states: states[-1]), "the last token alone")
    must_differ(made, score(temperature=1.0), "without the temperature")
    finish(
        name, "llama-nemotron-rerank: a Llama whose tokens see both ways, the mean of all states, score.weight over "
        "the temperature; the tokenizer puts <|begin_of_text|> first. The text is tokenised at once, so that a tag "
        "such as <|eot_id|> in a text becomes that tag's token; it takes no instruction",
        made,
    )
