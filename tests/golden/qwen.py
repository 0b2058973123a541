"""The tiny decoders of Qwen's kind: Qwen3-Reranker in its three spellings, mxbai-rerank-v2, zerank and ctxl-rerank."""

import torch
import transformers
from sentence_transformers import CrossEncoder

import decoder_cases
import decoder_vocabularies
import prompts
from decoders import answer, changed, finish, loaded, small, st_layout, write_folder
from fixture import EXACT, must_differ

ROLES = dict(
    tokenizer_class="Qwen2Tokenizer", eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None, bos_token=None,
    add_bos_token=False, add_prefix_space=False, errors="replace", split_special_tokens=False,
    clean_up_tokenization_spaces=False,
)


def qwen3(tokenizer, **other):
    """config.json as Qwen publishes it, in small; more rows of embeddings than tokens, as there."""
    return small(**dict(
        architectures=["Qwen3ForCausalLM"],
        bos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        head_dim=12,
        hidden_act="silu",
        hidden_size=32,
        initializer_range=0.02,
        max_window_layers=3,
        model_type="qwen3",
        num_key_value_heads=2,
        rms_norm_eps=1e-06,
        rope_scaling=None,
        rope_theta=1000000,
        sliding_window=None,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        transformers_version="4.51.3",
        use_sliding_window=False,
        vocab_size=-(-tokenizer.get_vocab_size() // 64) * 64,
    ) | other)


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


def qwen3_body(instruction, query, document):
    asked = prompts.QWEN3_INSTRUCTION if instruction is None else instruction
    return f"<Instruct>: {asked}\n<Query>: {query}\n<Document>: {document}"


def as_the_card(tokenizer):
    """Prefix and suffix tokenised once, the body between them alone."""
    prefix = tokenizer.encode(prompts.QWEN3_PREFIX, add_special_tokens=False)
    suffix = tokenizer.encode(prompts.QWEN3_SUFFIX, add_special_tokens=False)
    return lambda *pair: prefix + tokenizer(qwen3_body(*pair))["input_ids"] + suffix


def qwen3_st():
    name = "tiny-qwen3-st"
    vocabulary = decoder_vocabularies.qwen_bpe()
    folder = write_folder(name, vocabulary, qwen3(vocabulary[0]), 50, roles=ROLES)
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
        "no. The prompt is tokenised at once, so that a tag such as <|im_end|> in a text becomes that tag's token",
        made, prompts.QWEN3_INSTRUCTION,
    )


def qwen3_plain():
    name = "tiny-qwen3-plain"
    vocabulary = decoder_vocabularies.qwen_bpe()
    folder = write_folder(name, vocabulary, qwen3(vocabulary[0], tie_word_embeddings=False), 51, roles=ROLES)
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
    folder = write_folder(name, vocabulary, config, 52, dtype=torch.bfloat16, causal=kind, roles=ROLES)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    assemble, tried = as_the_card(auto), decoder_cases.of_all()

    def score(config=None):
        model = loaded(folder, config, kind)
        return decoder_cases.written(
            tried, assemble, lambda ids: model(input_ids=torch.tensor([ids])).logits[0, 0], torch.sigmoid
        )

    made = score()
    for case in made:
        # The published card tokenises the query's half and the document's each alone, to the same tokens.
        for document, ids in zip(case["documents"], case["ids"]):
            body = qwen3_body(case["instruction"], case["query"], document)
            asked = prompts.QWEN3_PREFIX + body.removesuffix(f"<Document>: {document}")
            answered = f"<Document>: {document}{prompts.QWEN3_SUFFIX}"
            assert auto(asked)["input_ids"] + auto(answered)["input_ids"] == ids, document
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


def mxbai_v2():
    name = "tiny-mxbai-v2"
    vocabulary = decoder_vocabularies.qwen_bpe()
    config = qwen3(
        vocabulary[0], architectures=["Qwen2ForCausalLM"], model_type="qwen2", max_window_layers=1, sliding_window=16,
    )
    # Qwen2 has no head_dim of its own, and a window that it doesn't use.
    del config["head_dim"], config["attention_bias"], config["rope_scaling"]
    folder = write_folder(name, vocabulary, config, 53, roles=ROLES)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    true, false = auto.convert_tokens_to_ids(["1", "0"])

    def pieces(instruction, query, document):
        asked = f"instruction: {instruction}\n" if instruction else ""
        return [
            prompts.MXBAI_PREFIX, f"{asked}query: {query}", "\n", f"document: {document}", "\n", prompts.MXBAI_TASK,
            prompts.MXBAI_SUFFIX,
        ]

    def assemble(*pair):
        return [token for piece in pieces(*pair) for token in auto(piece, add_special_tokens=False)["input_ids"]]

    def at_once(*pair):
        return auto("".join(pieces(*pair)), add_special_tokens=False)["input_ids"]

    tried = decoder_cases.of_all()

    def score(assemble=assemble, config=None):
        model = loaded(folder, config)
        return decoder_cases.written(tried, assemble, answer(model, true, false), torch.nn.Identity())

    made = score()
    assert any(a != b for ours, theirs in zip(made, score(at_once)) for a, b in zip(ours["ids"], theirs["ids"]))
    must_differ(made, score(at_once), "the prompt tokenised at once")
    window = changed(folder, use_sliding_window=True, sliding_window=16)
    window.layer_types = ["full_attention"] + ["sliding_attention"] * 2
    must_differ(made, score(config=window), "the window that use_sliding_window turns off")
    finish(
        name, "mxbai-rerank-v2: a Qwen2, the logit of 1 less that of 0. Prefix, instruction and query, line break, "
        "document, line break, task and suffix are tokenised each alone and joined, so that tokens don't merge over "
        "their edges; a tag such as <|im_end|> in a text becomes that tag's token",
        made,
    )


def zerank():
    name = "tiny-zerank"
    vocabulary = decoder_vocabularies.qwen_bpe()
    folder = write_folder(name, vocabulary, qwen3(vocabulary[0]), 54, roles=ROLES)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    true, wrong = auto.convert_tokens_to_ids(["Yes", "yes"])
    st_layout(folder, true, None)
    system, query, document = (
        '{%- set ' + role + ' = (messages | selectattr("role", "equalto", "' + role + '") | list) -%}'
        for role in ("system", "query", "document")
    )
    (folder / "chat_template.jinja").write_text(
        "\n".join([
            system, query, document,
            "<|im_start|>system",
            "{% if system %}<query>{{ query[0].content }}</query>",
            "<instruction>{{ system[0]['content'] }}</instruction>{% else %}{{ query[0].content }}{% endif %}"
            "<|im_end|>",
            "<|im_start|>user",
            "{{ document[0].content }}<|im_end|>",
            "<|im_start|>assistant", "", "",
        ])
    )

    def assemble(instruction, query, document):
        if instruction:
            query = f"<query>{query}</query>\n<instruction>{instruction}</instruction>"
        turns = f"<|im_start|>system\n{query}<|im_end|>\n<|im_start|>user\n{document}"
        return auto(turns + prompts.MXBAI_SUFFIX, add_special_tokens=False)["input_ids"]

    tried, model = decoder_cases.of_all(), loaded(folder)

    def score(logit_of=answer(model, true)):
        return decoder_cases.written(tried, assemble, logit_of, torch.nn.Identity())

    made = score()
    decoder_cases.must_agree(made, CrossEncoder(str(folder), device="cpu", model_kwargs=EXACT))
    must_differ(made, score(answer(model, wrong)), "yes for Yes")
    must_differ(made, score(answer(model, true, auto.convert_tokens_to_ids("No"))), "less the logit of No")
    finish(
        name, "zerank: a Qwen3 in sentence-transformers 6's files, the logit of Yes alone (false_token_id is null), "
        "query in the system's turn and document in the user's. The prompt is tokenised at once, so that a tag such "
        "as <|im_end|> in a text becomes that tag's token",
        made,
    )


def ctxl():
    name = "tiny-ctxl"
    vocabulary = decoder_vocabularies.qwen_bpe()
    folder = write_folder(name, vocabulary, qwen3(vocabulary[0], tie_word_embeddings=False), 55, roles=ROLES)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    assert auto.convert_ids_to_tokens(0) == "!"

    def assemble(instruction, query, document):
        asked = f" {instruction}" if instruction else ""
        text = f"{prompts.CTXL_TASK}\n<Document> {document}\n<Query> {query}{asked} ??"
        return auto(text)["input_ids"]

    tried, model = decoder_cases.of_all(), loaded(folder)
    made = decoder_cases.written(tried, assemble, answer(model, 0), torch.nn.Identity())
    cut = decoder_cases.written(tried, lambda *pair: assemble(*pair)[:-1], answer(model, 0), torch.nn.Identity())
    must_differ(made, cut, "without the last marks")
    finish(
        name, "ctxl-rerank-v2: a Qwen3, plain text with the document first, the logit of the vocabulary's first "
        "token; the published code rounds it to 16 bits, which is left out here. The text is tokenised at once, so "
        "that a tag such as <|im_end|> in a text becomes that tag's token",
        made,
    )
