"""The tiny models of BERT, RoBERTa and XLM-RoBERTa: the ways in which older files differ too."""

import json

import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file

import cases
import vocabularies
from fixture import BERT_ROLES, ROBERTA_ROLES, TESTS, new_folder, set_trap, write_json

SHAPE = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    num_labels=1,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
SEEDS = {"tiny-bert": 0, "tiny-roberta": 1, "tiny-xlmr": 2, "tiny-legacy": 3}


def seeded(model, seed):
    """Weights large enough that logits differ well beyond the tolerance."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "LayerNorm.weight" in name:
            parameter.data = 1 + 0.1 * noise
        elif parameter.dim() == 1:
            parameter.data = 0.1 * noise
        elif "embeddings" in name:
            parameter.data = 0.5 * noise
        else:
            parameter.data = noise * 1.2 / parameter.shape[1] ** 0.5
    return model.float().eval()


def families():
    """Name, tokenizer, config, model_max_length, how the weights are stored, activation keys."""
    bert = transformers.BertConfig(
        max_position_embeddings=128, id2label={0: "LABEL_0"}, **SHAPE
    )
    roberta = dict(max_position_embeddings=130, bos_token_id=0, pad_token_id=1, eos_token_id=2)
    identity = "torch.nn.modules.linear.Identity"
    yield "tiny-bert", vocabularies.wordpiece(), bert, 96, "single", {}
    # As older checkpoints are: vocab.txt, the encoder's tensors without prefix, gamma and beta.
    small = SHAPE | dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    small = transformers.BertConfig(max_position_embeddings=64, id2label={0: "LABEL_0"}, **small)
    yield "tiny-legacy", vocabularies.wordpiece(), small, 64, "legacy", {}
    yield (
        "tiny-roberta", vocabularies.byte_level_bpe(),
        transformers.RobertaConfig(type_vocab_size=1, layer_norm_eps=1e-5, **roberta, **SHAPE),
        128, "pytorch", {"sbert_ce_default_activation_function": identity},
    )
    yield (
        "tiny-xlmr", vocabularies.unigram(),
        transformers.XLMRobertaConfig(type_vocab_size=1, layer_norm_eps=1e-5, **roberta, **SHAPE),
        int(1e30), "sharded", {"sentence_transformers": {"activation_fn": identity, "version": "6.2.0"}},
    )


def older_name(name):
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return name.removeprefix("bert.")


def write_weights(folder, model, how):
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if how == "single":
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    elif how == "pytorch":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        legacy = how == "legacy"
        if legacy:
            state = {older_name(name): tensor for name, tensor in state.items()}
        names = sorted(state)
        shards = [names[: len(names) // 2], names[len(names) // 2 :]]
        index = {"metadata": {}, "weight_map": {}}
        for number, shard in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            if legacy:
                file = f"pytorch_{file.removesuffix('safetensors')}bin"
                torch.save({n: state[n] for n in shard}, folder / file)
            else:
                save_file({n: state[n] for n in shard}, folder / file, metadata={"format": "pt"})
            index["weight_map"] |= {n: file for n in shard}
        file = "pytorch_model.bin.index.json" if legacy else "model.safetensors.index.json"
        (folder / file).write_text(json.dumps(index, indent=1))


def write(wanted):
    for name, (tokenizer, pad), config, limit, how, keys in families():
        if name in wanted:
            write_one(name, tokenizer, pad, config, limit, how, keys)


def write_one(name, tokenizer, pad, config, limit, how, keys):
    folder = new_folder(name)
    set_trap(tokenizer, pad)
    tokenizer.save(str(folder / "tokenizer.json"))
    config.vocab_size = tokenizer.get_vocab_size()
    roles = ROBERTA_ROLES if pad == "<pad>" else BERT_ROLES
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit, **roles}
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    if config.model_type == "bert":
        settings["model_input_names"].append("token_type_ids")
    if how == "legacy":
        settings["tokenizer_class"] = "BertTokenizer"
        vocabulary = tokenizer.get_vocab()
        words = sorted(vocabulary, key=vocabulary.get)
        (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        (folder / "tokenizer.json").unlink()
    write_json(folder / "tokenizer_config.json", settings)

    model = transformers.AutoModelForSequenceClassification.from_config(config)
    seeded(model, SEEDS[name])
    written = json.loads(config.to_json_string(use_diff=False))
    wanted = (
        "model_type vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size "
        "hidden_act max_position_embeddings type_vocab_size layer_norm_eps pad_token_id id2label label2id"
    ).split()
    written = {k: written[k] for k in wanted} | keys
    written["architectures"] = [type(model).__name__]
    write_json(folder / "config.json", written)
    write_weights(folder, model, how)

    positions = config.max_position_embeddings - (0 if config.model_type == "bert" else config.pad_token_id + 1)
    max_tokens = min(limit, positions)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    activation = torch.nn.Identity() if keys else torch.sigmoid
    logits_of = lambda encoded: model(**encoded).logits
    tried = cases.reference(auto, logits_of, cases.of_all(), max_tokens, activation)
    encoder = sentence_transformers.CrossEncoder(str(folder), device="cpu", max_length=max_tokens)
    cases.must_agree(tried, encoder)
    golden = dict(model=name, reference=cases.versions(), max_tokens=max_tokens, cases=tried)
    (TESTS / "golden" / f"{name}.json").write_text(json.dumps(golden, ensure_ascii=True, indent=1) + "\n")
