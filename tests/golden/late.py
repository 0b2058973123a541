"""The tiny late-interaction models (a vector for each token) and bi-encoders (one for each text).

The reference is sentence-transformers; the scores computed again from transformers' states must agree.
"""

import json
import string
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.util import mean_maxsim
from tokenizers import AddedToken
from torch.nn.functional import normalize

import cases
import vocabularies
from decoder_cases import CAT, RIVERS, STARTS_AND_ENDS, TAGS
from decoders import finish
from fixture import BERT_ROLES, EXACT, must_differ, new_folder, seeded, write_json, write_tokenizer

HIDDEN, WIDE, QUERY_TOKENS, DOCUMENT_TOKENS = 32, 16, 16, 48
SKIPPED = list(string.punctuation)


def tried():
    return [
        (cases.QUERY, [RIVERS, CAT]),
        (cases.QUERY, [*STARTS_AND_ENDS, "...!?"]),
        (cases.QUERY, [*TAGS, "[Q] and [D] and [unused0] and [MASK]", "[UNK] \u2603 [PAD]"]),
        ("x", [RIVERS, cases.LONG_DOCUMENT, cases.LONG_DOCUMENT + " ."]),
        (cases.LONG_QUERY, [RIVERS, cases.LONG_DOCUMENT]),
        ("", [RIVERS, CAT]),
        ("is it so?\n", ["\nbegins with a newline", "", "."]),
        ("[Q] [unused0] what?", [RIVERS, "[D] [unused1] that."]),
        (cases.OTHER_QUERY, cases.OTHER_DOCUMENTS),
    ]


def write_projection(folder, seed, width=HIDDEN):
    weight = torch.randn(WIDE, width, generator=torch.Generator().manual_seed(seed)) / width**0.5
    folder.mkdir(exist_ok=True)
    save_file({"linear.weight": weight}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    return weight


def write_residual_projections(folder, seed, between=48):
    """Three linear layers as mxbai-edge-colbert has them, two of which add what goes in; and their product."""
    generator = torch.Generator().manual_seed(seed)
    product = torch.eye(HIDDEN)
    for i, (inputs, outputs) in enumerate([(HIDDEN, between), (between, between), (between, WIDE)], 1):
        path, residual = folder / f"{i}_Dense", i < 3
        path.mkdir(exist_ok=True)
        state = {"linear.weight": torch.randn(outputs, inputs, generator=generator) / inputs**0.5}
        if residual and inputs != outputs:
            state["residual.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
        (path / "model.safetensors").chmod(0o644)
        write_json(path / "config.json", dict(
            in_features=inputs, out_features=outputs, bias=False, use_residual=residual,
            activation_function="torch.nn.modules.linear.Identity",
            module_input_name="token_embeddings", module_output_name="token_embeddings",
        ))
        added = state.get("residual.weight", torch.eye(outputs, inputs) if residual else 0)
        product = (state["linear.weight"] + added) @ product
    return product


def modernbert(folder, seed):
    tokenizer, pad = vocabularies.modernbert_bpe()
    # PyLate adds its markers with the blank after them, as words that are no special tokens.
    tokenizer.add_tokens([AddedToken(marker, normalized=True, special=False) for marker in ("[Q] ", "[D] ")])
    write_tokenizer(folder, tokenizer, pad, DOCUMENT_TOKENS - 1, BERT_ROLES, type_ids=False)
    ids = {role: tokenizer.token_to_id(f"[{token}]") for role, token in
           [("bos", "CLS"), ("cls", "CLS"), ("eos", "SEP"), ("sep", "SEP"), ("pad", "PAD")]}
    config = transformers.ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, local_attention=16, max_position_embeddings=128,
        **{f"{role}_token_id": token for role, token in ids.items()},
    )
    seeded(transformers.AutoModel.from_config(config), seed).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def bert(folder, seed, dropped=("[unused0]", "[unused1]")):
    tokenizer, pad = vocabularies.wordpiece()
    state = json.loads(tokenizer.to_str())
    # BERT's unused words are in its vocabulary and are no added tokens.
    for word in dropped:
        state["model"]["vocab"][word] = len(state["model"]["vocab"])
    tokenizer = type(tokenizer).from_str(json.dumps(state))
    write_tokenizer(folder, tokenizer, pad, DOCUMENT_TOKENS, BERT_ROLES, type_ids=True)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64,
    )
    seeded(transformers.BertModel(config, add_pooling_layer=False), seed).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def encoded(encoder, text, task):
    """Token ids, rows that count and their vectors, of one text alone."""
    prompt = encoder.prompts.get(task)
    features = encoder.preprocess([text], prompt=prompt, task=task)
    ids, attended = features["input_ids"][0].tolist(), features["attention_mask"][0].tolist()
    with torch.no_grad():
        out = encoder(features, task=task)
    kept = out["attention_mask"][0].bool().nonzero().flatten().tolist()
    return ids, attended, kept, out["token_embeddings"][0][kept].float()


def by_formula(backbone, weight, ids, attended, kept):
    with torch.no_grad():
        states = backbone(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([attended])).last_hidden_state[0]
    return normalize(states @ weight.T, dim=-1)[kept]


def max_sim(query, document):
    return (query @ document.T).max(dim=1).values.sum().item()


def write_late(name, about, folder, backbone, weight, mistakes):
    encoder = MultiVectorEncoder(str(folder), device="cpu", model_kwargs=EXACT).eval()

    def score(change=lambda ids, attended, kept, task: (ids, attended, kept)):
        made = []
        for query, documents in tried():
            ids, attended, kept, vectors = encoded(encoder, query, "query")
            ours = by_formula(backbone, weight, ids, attended, kept)
            assert (ours - vectors).abs().max() < 1e-5, query
            ours = by_formula(backbone, weight, *change(ids, attended, kept, "query"))
            case = dict(truncation="longest_first", instruction=None, query=query, documents=documents,
                        query_ids=ids, query_attended=attended, query_kept=kept, ids=[], kept=[], logits=[])
            found = []
            for document in documents:
                theirs = encoded(encoder, document, "document")
                rows = by_formula(backbone, weight, *theirs[:3])
                assert not len(rows) or (rows - theirs[3]).abs().max() < 1e-5, document
                rows = by_formula(backbone, weight, *change(*theirs[:3], "document"))
                found.append(rows)
                case["ids"].append(theirs[0])
                case["kept"].append(theirs[2])
                case["logits"].append(max_sim(ours, rows) if len(rows) else 0.0)
            case["means"] = [logit / len(kept) for logit in case["logits"]]
            case["scores"] = case["logits"]
            if not made:
                case |= dict(query_vectors=ours.tolist(), vectors=[rows.tolist() for rows in found])
            made.append(case)
        return made

    made = score()
    for case in made[:5]:
        queries = encoder.encode_query([case["query"]])
        for document, logit in zip(case["documents"], case["logits"]):
            theirs = encoder.similarity(queries, encoder.encode_document([document]))
            assert abs(theirs.item() - logit) < 1e-4, (document, theirs, logit)
        means = mean_maxsim(queries, encoder.encode_document(case["documents"], batch_size=1))
        assert (means[0] - torch.tensor(case["means"])).abs().max() < 1e-5, case["query"]
    for mistake, change in mistakes.items():
        must_differ(made, score(change), mistake)
    finish(
        name, about + "; ids are a document's, query_ids the query's with its expansion, cut as the reference cuts; "
        "kept are the rows that score, logits the sums of the greatest products, means those over the query's rows, "
        "vectors of the first case's kept rows. A document none of whose rows is kept scores 0; a marker "
        "or [MASK] in a text becomes that token",
        made, tokens=DOCUMENT_TOKENS, query_tokens=QUERY_TOKENS,
    )


def all_rows(ids, attended, kept, task):
    return ids, attended, list(range(len(ids))) if task == "document" else kept


def no_expansion(ids, attended, kept, task):
    return ids, attended, [i for i in kept if attended[i]]


def attends(ids, attended, kept, task):
    return ids, [1] * len(ids), kept


def colbert():
    name = "tiny-colbert"
    folder = new_folder(name)
    modernbert(folder, 90)
    weight = write_projection(folder / "1_Dense", 91)
    write_json(folder / "1_Dense" / "config.json", dict(
        in_features=HIDDEN, out_features=WIDE, bias=False, activation_function="torch.nn.modules.linear.Identity",
    ))
    kinds = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    write_json(folder / "modules.json", [
        dict(idx=i, name=str(i), path=path, type=kind) for i, (path, kind) in enumerate(kinds)
    ])
    write_json(folder / "sentence_bert_config.json", dict(max_seq_length=DOCUMENT_TOKENS - 1, do_lower_case=False))
    write_json(folder / "config_sentence_transformers.json", dict(
        __version__=dict(sentence_transformers="4.0.2", transformers="4.52.3", pytorch="2.7.0", PyLate="1.2.0"),
        attend_to_expansion_tokens=False,
        default_prompt_name=None,
        do_query_expansion=True,
        document_length=DOCUMENT_TOKENS,
        document_prefix="[D] ",
        model_type="ColBERT",
        prompts=dict(query="", document=""),
        query_length=QUERY_TOKENS,
        query_prefix="[Q] ",
        similarity_fn_name="MaxSim",
        skiplist_words=SKIPPED,
    ))
    backbone = transformers.AutoModel.from_pretrained(folder, **EXACT).eval()
    write_late(
        name, "a ModernBERT in PyLate's files: markers [Q] and [D], queries filled with [MASK] that other tokens don't "
        "see, documents without punctuation's rows",
        folder, backbone, weight,
        {"punctuation kept": all_rows, "without the expansion": no_expansion, "an expansion that is seen": attends},
    )


def colbert_st():
    name = "tiny-colbert-st"
    folder = new_folder(name)
    bert(folder, 92)
    weight = write_residual_projections(folder, 93)
    modules = "sentence_transformers.base.modules."
    kinds = [
        ("", modules + "transformer.Transformer"),
        *((f"{i}_Dense", modules + "dense.Dense") for i in (1, 2, 3)),
        ("4_MultiVectorMask",
         "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"),
        ("5_Normalize", modules + "normalize.Normalize"),
    ]
    write_json(folder / "modules.json", [
        dict(idx=i, name=str(i), path=path, type=kind) for i, (path, kind) in enumerate(kinds)
    ])
    write_json(folder / "sentence_bert_config.json", dict(
        transformer_task="feature-extraction",
        modality_config=dict(text=dict(method="forward", method_output_name="last_hidden_state")),
        module_output_name="token_embeddings",
        document_length=DOCUMENT_TOKENS,
        query_expansion=dict(strategy="min", attend=True, length=QUERY_TOKENS, token=None),
    ))
    for path, config in [
        ("4_MultiVectorMask", dict(skiplist_words=["the", "."], skiplist_tasks=["query", "document"],
                                   keep_only_token_ids=None)),
        ("5_Normalize", dict(module_input_name="token_embeddings", module_output_name="token_embeddings")),
    ]:
        (folder / path).mkdir()
        write_json(folder / path / "config.json", config)
    write_json(folder / "config_sentence_transformers.json", dict(
        __version__=dict(pytorch="2.9.1", sentence_transformers="6.0.0", transformers="5.0.0"),
        default_prompt_name=None,
        model_type="MultiVectorEncoder",
        prompts=dict(query="search: ", document="passage: "),
        similarity_fn_name="maxsim",
    ))
    backbone = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False, **EXACT).eval()
    write_late(
        name, "a BERT in sentence-transformers 6's files: three projections, two with a residual; prompts as text, "
        "queries filled up to a length with [MASK] that other tokens see and longer ones left whole, two words skipped in queries and documents",
        folder, backbone, weight, {"all rows": all_rows},
    )


def colbert_stanford():
    name = "tiny-colbert-stanford"
    folder = new_folder(name)
    with tempfile.TemporaryDirectory() as plain:
        bert(Path(plain), 94)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (folder / file).write_bytes((Path(plain) / file).read_bytes())
        config = json.loads((Path(plain) / "config.json").read_text())
        state = {f"bert.{key}": value for key, value in load_file(Path(plain) / "model.safetensors").items()}
    config["architectures"] = ["HF_ColBERT"]
    write_json(folder / "config.json", config)
    generator = torch.Generator().manual_seed(95)
    weight = torch.randn(WIDE, HIDDEN, generator=generator) / HIDDEN**0.5
    save_file(state | {"linear.weight": weight}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "artifact.metadata", dict(
        attend_to_mask_tokens=False, dim=WIDE, doc_maxlen=DOCUMENT_TOKENS, doc_token="[D]",
        doc_token_id="[unused1]", mask_punctuation=True, query_maxlen=QUERY_TOKENS, query_token="[Q]",
        query_token_id="[unused0]", similarity="cosine",
    ))
    backbone = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False, **EXACT).eval()
    write_late(
        name, "a BERT in ColBERT's own files: markers [unused0] and [unused1], which are words of the vocabulary, "
        "linear.weight beside the backbone's weights, settings in artifact.metadata",
        folder, backbone, weight,
        {"punctuation kept": all_rows, "without the expansion": no_expansion, "an expansion that is seen": attends},
    )
