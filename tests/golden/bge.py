"""The tiny rerankers of bge's decoders, whose texts are tokenised in pieces: Gemma, MiniCPM, a lighter Gemma 2.

Gemma is transformers' own. The other two have code beside their weights; here the layers are transformers' Llama and
Gemma 2, and what is done between them is written after that code.
"""

import torch
import transformers
from safetensors.torch import load_file
from torch import nn

import decoder_cases
import decoder_vocabularies
import prompts
from decoders import TOKENS, answer, finish, loaded, plain_of, seeded, small, write_folder
from fixture import must_differ, new_folder, write_json, write_tokenizer, write_weights
from remote import Renamed

ROLES = dict(
    tokenizer_class="GemmaTokenizer", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
    mask_token="<mask>", add_bos_token=True, add_eos_token=False, clean_up_tokenization_spaces=False,
)
PIECES = (
    "<bos>, A and the query, a line break, B and the passage, a line break and the task are tokenised each alone and "
    "joined, so that tokens don't merge over their edges; a special token in a text becomes that token; it takes no "
    "instruction"
)


class Pieces:
    """The token ids of a pair's pieces, with the lengths that compression goes by."""

    def __init__(self, tokenizer, task):
        self.ids_of = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
        self.first = [tokenizer.bos_token_id]
        self.last = self.ids_of("\n") + self.ids_of(task)

    def query(self, query):
        return self.first + self.ids_of(f"A: {query}")

    def __call__(self, instruction, query, document):
        return self.query(query) + self.ids_of("\n") + self.ids_of(f"B: {document}") + self.last


def with_heads(inner, config, config_class, seed):
    """A model of transformers, with a head of one output for each layer from start_layer on."""
    model = nn.Module()
    model.model = inner(config_class(**plain_of(config), attn_implementation="eager"))
    model.lm_head = nn.ModuleList()
    for _ in range(config["start_layer"], config["num_hidden_layers"] + 1):
        head = nn.Module()
        head.linear_head = nn.Linear(config["hidden_size"], 1, bias=False)
        model.lm_head.append(head)
    return seeded(model, seed)


def code_of(kind, **files):
    """What names the code beside the weights."""
    names = dict(AutoConfig="Config", AutoModel="Model", AutoModelForCausalLM="ForCausalLM")
    code = {auto: files["model"] if auto != "AutoConfig" else files["config"] for auto in names}
    return {auto: f"{code[auto]}.{kind}{name}" for auto, name in names.items()}


def config_of(tokenizer, **other):
    ids = {f"{role}_token_id": tokenizer.token_to_id(f"<{role}>") for role in ("bos", "eos", "pad")}
    return small(**dict(
        architectures=["GemmaForCausalLM"],
        head_dim=12,
        hidden_act="gelu",
        hidden_size=32,
        initializer_range=0.02,
        model_type="gemma",
        num_key_value_heads=1,
        rms_norm_eps=1e-06,
        rope_scaling=None,
        rope_theta=10000.0,
        torch_dtype="float32",
        transformers_version="4.38.1",
        vocab_size=tokenizer.get_vocab_size(),
    ) | ids | other)


def gemma():
    name = "tiny-bge-gemma"
    vocabulary = decoder_vocabularies.gemma_bpe()
    folder = write_folder(name, vocabulary, config_of(vocabulary[0]), 70, roles=ROLES)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    true, wrong = auto.convert_tokens_to_ids(["Yes", "yes"])
    assemble, tried = Pieces(auto, prompts.GEMMA_TASK), decoder_cases.of_all(instructions=False)

    def score(assemble=assemble, token=true, change=lambda model: None):
        model = loaded(folder)
        change(model)
        return decoder_cases.written(tried, assemble, answer(model, token), torch.sigmoid)

    def exact_gelu(model):
        for layer in model.model.layers:
            layer.mlp.act_fn = nn.GELU()

    def plain_norms(model):
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.weight.data -= 1

    made = score()
    must_differ(made, score(token=wrong), "yes for Yes")
    must_differ(made, score(change=exact_gelu), "the exact GELU for hidden_act gelu, which means the approximate one")
    must_differ(made, score(change=plain_norms), "norms that don't add one")
    must_differ(made, score(lambda *pair: assemble(*pair)[1:]), "without <bos>")
    finish(name, f"bge-reranker-v2-gemma: a Gemma, the logit of Yes. {PIECES}", made)


def minicpm_layerwise():
    name, start, layers, cutoff = "tiny-minicpm-layerwise", 2, 4, 3
    folder = new_folder(name)
    tokenizer, pad = decoder_vocabularies.llama_sentencepiece()
    roles = dict(bos_token="<s>", eos_token="</s>", pad_token="<unk>", unk_token="<unk>")
    write_tokenizer(folder, tokenizer, pad, TOKENS, roles, type_ids=False)
    kind = "LayerWiseMiniCPM"
    config = config_of(
        tokenizer,
        architectures=[f"{kind}ForCausalLM"],
        auto_map=code_of(kind, config="configuration_minicpm_reranker", model="modeling_minicpm_reranker"),
        bos_token_id=1,
        dim_model_base=16,
        eos_token_id=2,
        head_multi=True,
        head_type="simple",
        hidden_act="silu",
        model_type="minicpm",
        num_hidden_layers=layers,
        num_key_value_heads=4,
        rms_norm_eps=1e-05,
        scale_depth=1.4,
        scale_emb=3,
        start_layer=start,
        tie_word_embeddings=False,
    )
    # Neither is in the published file: heads are as wide as their share, no token pads.
    del config["head_dim"], config["pad_token_id"]
    write_json(folder / "config.json", config)

    model = with_heads(transformers.LlamaModel, config, transformers.LlamaConfig, 71)
    write_weights(folder, Renamed(model.state_dict()))
    auto = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    assemble, tried = Pieces(auto, prompts.GEMMA_TASK), decoder_cases.of_all(instructions=False)

    def score(at=cutoff, head=None, emb=config["scale_emb"], depth=config["scale_depth"]):
        """MiniCPM is a Llama whose embeddings and branches are scaled; the scales can lie in the weights."""
        model.load_state_dict(load_file(folder / "model.safetensors"))
        branch = depth / layers**0.5
        model.model.embed_tokens.weight.data *= emb
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.data *= branch
            layer.mlp.down_proj.weight.data *= branch

        def logit_of(ids):
            # The states before a layer of that number, normalised: after the last layer they are so already.
            states = model.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[at]
            states = states if at == layers else model.model.norm(states)
            return model.lm_head[at - start if head is None else head].linear_head(states[0, -1])[0]

        return decoder_cases.written(tried, assemble, logit_of, torch.sigmoid)

    made = score(layers)
    for at in range(start, layers):
        for case, other in zip(made, score(at)):
            case.setdefault("by_layer", {})[str(at)] = other["logits"]
    must_differ(made, score(cutoff), "a layer less")
    must_differ(made, score(layers, head=0), "the first head")
    must_differ(made, score(layers, emb=1), "embeddings not scaled")
    must_differ(made, score(layers, depth=layers**0.5), "branches not scaled")
    finish(
        name, "bge-reranker-v2-minicpm-layerwise: a head of one output for each layer from start_layer, read at the "
        "last token; logits are those after all layers, by_layer those of cutoff_layers. <s>" + PIECES[5:],
        made,
    )


def gemma2_lightweight():
    name, start, layers = "tiny-gemma2-lightweight", 2, 4
    folder = new_folder(name)
    tokenizer, pad = decoder_vocabularies.gemma_bpe()
    write_tokenizer(folder, tokenizer, pad, TOKENS, ROLES, type_ids=False)
    config = config_of(
        tokenizer,
        architectures=["CostWiseGemmaForCausalLM"],
        attn_logit_softcapping=3.0,
        auto_map=code_of("CostWiseGemma", config="gemma_config", model="gemma_model"),
        cache_implementation="hybrid",
        final_logit_softcapping=2.0,
        hidden_act="gelu_pytorch_tanh",
        hidden_activation="gelu_pytorch_tanh",
        layer_sep=1,
        layer_wise=True,
        model_type="cost_wise_gemma",
        num_hidden_layers=layers,
        num_key_value_heads=2,
        query_pre_attn_scalar=9,
        sliding_window=24,
        sliding_window_size=24,
        start_layer=start,
    )
    write_json(folder / "config.json", config)
    model = with_heads(transformers.Gemma2Model, config, transformers.Gemma2Config, 72)
    write_weights(folder, Renamed(model.state_dict()))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    auto = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    pieces, tried = Pieces(auto, prompts.GEMMA2_TASK), decoder_cases.of_all(instructions=False)

    def states_at(ids, query, at, compressed, ratio, window):
        """The normalised states before layer `at`; a passage's run of `ratio` states becomes its mean."""
        inner = model.model
        states = inner.embed_tokens(torch.tensor([ids]))
        for i, layer in enumerate(inner.layers[:at]):
            if ratio > 1 and i in compressed and i != 0:
                passage = states[0, query : states.shape[1] - len(pieces.last)]
                means = torch.stack([run.mean(dim=0) for run in passage.split(ratio)])
                states = torch.cat([states[:, :query], means[None], states[:, -len(pieces.last) :]], dim=1)
            places = torch.arange(states.shape[1])
            apart = places[:, None] - places[None, :]
            seen = (apart >= 0) & (apart < window if i % 2 == 0 else True)
            mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
            rope = inner.rotary_emb(states, places[None])
            states = layer(states, position_embeddings=rope, attention_mask=mask, position_ids=places[None])
        return inner.norm(states)

    scaled = type(model.model.embed_tokens).__name__ == "Gemma2TextScaledWordEmbedding"
    assert scaled, "the embedding layer multiplies by the root of its width"

    def score(at=layers, compressed=(), ratio=1, head=0, cap=2.0, window=24):
        def written(case):
            query = len(pieces.query(case[1]) + pieces.ids_of("\n"))

            def logit_of(ids):
                states = states_at(ids, query, at, compressed, ratio, window)
                value = model.lm_head[head].linear_head(states[0, -1])[0]
                return torch.tanh(value / cap) * cap if cap else value

            (made,) = decoder_cases.written([case], pieces, logit_of, torch.sigmoid)
            return made | dict(passages=[[query, len(ids) - len(pieces.last)] for ids in made["ids"]])

        return [written(case) for case in tried]

    made = score()
    # Without compression this is transformers' own Gemma 2.
    with torch.no_grad():
        for ids in made[0]["ids"]:
            whole = model.model(input_ids=torch.tensor([ids])).last_hidden_state
            assert (whole - states_at(ids, 1, layers, (), 1, 24)).abs().max() < 1e-5
    settings = [
        dict(at=3), dict(compressed=(1,), ratio=2), dict(compressed=(2,), ratio=4), dict(compressed=(1, 3), ratio=2),
        dict(at=3, compressed=(0, 2), ratio=8),
    ]
    for setting in settings:
        other = score(**setting)
        must_differ(made, other, setting)
        for case, theirs in zip(made, other):
            case.setdefault("settings", []).append(dict(
                cutoff_layer=setting.get("at", layers), compress_layers=list(setting.get("compressed", ())),
                compress_ratio=setting.get("ratio", 1), logits=theirs["logits"],
            ))
    for mistake in [dict(cap=None), dict(window=TOKENS), dict(window=23), dict(head=layers - start)]:
        must_differ(made, score(**mistake), mistake)
    finish(
        name, "bge-reranker-v2.5-gemma2-lightweight: a Gemma 2 with soft caps and windows, a head for each layer from "
        "start_layer; settings have other cut-off layers and compressions of the passages, whose tokens begin and end "
        "where passages says. The published code collects the states of the layers that are asked for and gives the "
        "first of them the first head: the one layer of a score always has head 0, whichever layer it is. " + PIECES,
        made,
    )
