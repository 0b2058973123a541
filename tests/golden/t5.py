"""The tiny T5 rerankers, scored by what the decoder says first; the reference is transformers' T5."""

import torch
import transformers
from tokenizers import processors

import decoder_cases
import vocabularies
from decoders import finish, loaded, seeded
from fixture import must_differ, new_folder, write_json, write_tokenizer, write_weights
from remote import Renamed

TOKENS = 512
ROLES = dict(eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
EXTRA = 12


def vocabulary():
    """T5's: unigram pieces, true and false among them, and the extra tokens from the last number to the first."""
    extra = [f"<extra_id_{i}>" for i in reversed(range(EXTRA))]
    tokenizer, pad = vocabularies.sentencepiece_unigram(
        ["<pad>", "</s>", "<unk>"], extra, "$A </s> $B </s>", normalizer=[], words=True,
        more=["\u2581true", "\u2581false"],
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return tokenizer, pad


def config_of(tokenizer, **other):
    return dict(
        architectures=["T5ForConditionalGeneration"],
        d_ff=48,
        d_kv=10,
        d_model=32,
        decoder_start_token_id=0,
        dropout_rate=0.1,
        eos_token_id=1,
        feed_forward_proj="relu",
        initializer_factor=1.0,
        is_encoder_decoder=True,
        layer_norm_epsilon=1e-06,
        model_type="t5",
        n_positions=TOKENS,
        num_decoder_layers=2,
        num_heads=4,
        num_layers=3,
        pad_token_id=0,
        relative_attention_max_distance=24,
        relative_attention_num_buckets=8,
        torch_dtype="float32",
        transformers_version="4.16.2",
        use_cache=True,
        vocab_size=-(-tokenizer.get_vocab_size() // 64) * 64,
    ) | other


def write_t5(name, about, config, seed, text, answers, mistakes, more=lambda scores: {}):
    """`answers` picks the score from the logits of the decoder's first position, by the tokenizer's ids."""
    folder = new_folder(name)
    tokenizer, pad = vocabulary()
    write_tokenizer(folder, tokenizer, pad, TOKENS, ROLES, type_ids=False)
    write_json(folder / "config.json", config_of(tokenizer, **config))
    read = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.T5ForConditionalGeneration(read)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    if read.scale_decoder_outputs:
        tied.add("lm_head.weight")
    else:
        # transformers 5 ties what T5 1.1's files hold apart.
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    seeded(model, seed)
    state = {key: value for key, value in model.state_dict().items() if key not in tied}
    write_weights(folder, Renamed(state))
    auto = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    pick = answers(auto.convert_tokens_to_ids)
    tried = decoder_cases.of_all(instructions=False)

    def assemble(instruction, query, document):
        return auto(text.format(query=query, document=document))["input_ids"]

    def score(change=lambda model: None, pick=pick):
        model = loaded(folder, kind=transformers.T5ForConditionalGeneration)
        model.lm_head.weight = torch.nn.Parameter(state.get("lm_head.weight", state["shared.weight"]))
        change(model)

        def logit_of(ids):
            start = torch.tensor([[model.config.decoder_start_token_id]])
            return pick(model(input_ids=torch.tensor([ids]), decoder_input_ids=start).logits[0, 0])

        return decoder_cases.written(tried, assemble, logit_of, torch.sigmoid)

    made = score()
    for case in made:
        case |= more(case)
    for mistake, change in mistakes(auto.convert_tokens_to_ids).items():
        must_differ(made, score(**change), mistake)
    finish(name, about, made, tokens=TOKENS)


def one_bucket_less(model):
    for stack in (model.encoder, model.decoder):
        for block in stack.block:
            attention = block.layer[0].SelfAttention
            if attention.has_relative_attention_bias:
                attention.relative_attention_max_distance = 16


def unscaled(model):
    model.config.scale_decoder_outputs = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight * model.config.d_model**0.5)


def monot5():
    def answers(id_of):
        return lambda logits: logits[id_of("\u2581true")] - logits[id_of("\u2581false")]

    def log_probabilities(case):
        logits = torch.tensor(case["logits"])
        return dict(log_probabilities=torch.nn.functional.logsigmoid(logits).tolist())

    write_t5(
        "tiny-monot5",
        "monoT5: the decoder's first logits, that of \u2581true less that of \u2581false; log_probabilities are what "
        "the published code gives, the logarithm of \u2581true's share. Tied weights, so that the decoder's state is "
        "scaled by d_model^-0.5 first; it takes no instruction",
        {}, 100, "Query: {query} Document: {document} Relevant:", answers,
        lambda id_of: {
            "the decoder's state not scaled": dict(change=unscaled),
            "other buckets": dict(change=one_bucket_less),
            "without the other answer": dict(pick=lambda logits: logits[id_of("\u2581true")]),
        },
        log_probabilities,
    )


def rankt5():
    write_t5(
        "tiny-rankt5",
        "RankT5: the decoder's first logit of <extra_id_10>; gated layers and own output weights, as T5 1.1 has them, "
        "so that the decoder's state is not scaled; it takes no instruction",
        dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False), 101, "Query: {query} Document: {document}",
        lambda id_of: lambda logits: logits[id_of("<extra_id_10>")],
        lambda id_of: {
            "another extra token": dict(pick=lambda logits: logits[id_of("<extra_id_9>")]),
            "the decoder's state scaled": dict(
                pick=lambda logits: logits[id_of("<extra_id_10>")] * 32**-0.5
            ),
            "other buckets": dict(change=one_bucket_less),
        },
    )
