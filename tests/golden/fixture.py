"""Writes one tiny model's folder and its golden file."""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder

import cases

TESTS = Path(__file__).resolve().parent.parent
MODELS = TESTS / "fixtures" / "models"
# Many published tokenizer.json carry a truncation and a padding; a server must not obey them.
TRUNCATION_TRAP = 12
EXACT = dict(attn_implementation="eager", dtype=torch.float32)
BERT_ROLES = dict(unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")
ROBERTA_ROLES = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", cls_token="<s>", sep_token="</s>",
                     pad_token="<pad>", mask_token="<mask>")


def new_folder(name):
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_tokenizer(folder, tokenizer, pad, limit, roles, type_ids):
    set_trap(tokenizer, pad)
    tokenizer.save(str(folder / "tokenizer.json"))
    inputs = ["input_ids", "attention_mask"] + ["token_type_ids"] * type_ids
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit, **roles}
    write_json(folder / "tokenizer_config.json", settings | {"model_input_names": inputs})


def set_trap(tokenizer, pad):
    tokenizer.enable_truncation(TRUNCATION_TRAP)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad, length=TRUNCATION_TRAP)


def seeded(model, seed):
    """Weights large enough that logits differ well beyond the tolerance; no norm or bias is trivial."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator)
            if isinstance(module, torch.nn.LayerNorm):
                parameter.data = 1 + 0.2 * noise if name == "weight" else 0.1 * noise
            elif isinstance(module, torch.nn.Embedding):
                parameter.data = 0.5 * noise
            elif parameter.dim() == 1:
                parameter.data = 0.1 * noise
            else:
                parameter.data = noise * 1.2 / parameter.shape[1] ** 0.5
    return model.float().eval()


def write_weights(folder, model, dtype=torch.float32):
    state = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def must_differ(written, changed, mistake):
    """Some logit moves far beyond the tests' tolerance."""
    moved = max(
        (torch.tensor(ours["logits"]) - torch.tensor(theirs["logits"])).abs().max().item()
        for ours, theirs in zip(written, changed)
    )
    print(f"  {mistake}: moves a logit by {moved:.4f}")
    assert moved > 3e-4, mistake


def write_golden(name, about, max_tokens, written, spread=0.1, **more):
    logits = torch.tensor([value for case in written for value in case["logits"]])
    assert logits.std(dim=0).min() > spread, (name, logits.std(dim=0))
    golden = dict(model=name, about=about, reference=cases.versions(), max_tokens=max_tokens, **more, cases=written)
    path = TESTS / "golden" / f"{name}.json"
    path.write_text(json.dumps(golden, ensure_ascii=True, indent=1) + "\n")
    size = sum(f.stat().st_size for f in (MODELS / name).rglob("*") if f.is_file())
    pairs = sum(len(case["documents"]) for case in written)
    print(f"{name}: {size / 1000:.0f} kB, {pairs} pairs, at most {max_tokens} tokens")
    assert size < 1_000_000 and pairs >= 24


def write_encoder(name, about, tokenizer, config, seed, *, limit, roles, max_tokens, edges=(), type_ids=False,
                  dtype=torch.float32, mistakes=()):
    """A model of transformers' own, read again from what was written.

    `mistakes` are settings that must change some logit, so that a server that ignored one is caught.
    """
    folder = new_folder(name)
    write_tokenizer(folder, *tokenizer, limit, roles, type_ids)
    write_json(folder / "config.json", config | {"vocab_size": tokenizer[0].get_vocab_size()})
    read = transformers.AutoConfig.from_pretrained(folder)
    model = seeded(transformers.AutoModelForSequenceClassification.from_config(read), seed)
    write_weights(folder, model, dtype)

    auto = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = cases.with_edges(auto, [*edges, max_tokens])
    identity = dict(config.get("sentence_transformers", {})).get("activation_fn", "").endswith("Identity")
    single = model.config.num_labels == 1 and not identity
    activation = torch.sigmoid if single else torch.nn.Identity()

    def score(config=None):
        load = transformers.AutoModelForSequenceClassification.from_pretrained
        model, info = load(folder, config=config, output_loading_info=True, **EXACT)
        ill = info["missing_keys"] or info["mismatched_keys"] or (config is None and info["unexpected_keys"])
        assert not ill, info
        logits_of = lambda encoded: model.eval()(**encoded).logits
        return cases.reference(auto, logits_of, pairs, max_tokens, activation)

    written = score()
    cases.must_agree(written, CrossEncoder(str(folder), device="cpu", max_length=max_tokens, model_kwargs=EXACT))
    for mistake in mistakes:
        changed = score(transformers.AutoConfig.from_pretrained(folder, **mistake))
        must_differ(written, changed, mistake)
    write_golden(name, about, max_tokens, written)
