"""The tiny bi-encoders, whose score is the cosine of two texts' vectors; the reference is SentenceTransformer."""

import torch
import transformers
from sentence_transformers import SentenceTransformer
from tokenizers import processors
from torch.nn.functional import normalize

import decoder_cases
import decoder_vocabularies
import fixture
import prompts
import vocabularies
from decoders import finish, must_be_the_file, seeded
from fixture import BERT_ROLES, EXACT, must_differ, new_folder, write_json, write_tokenizer, write_weights
from qwen import ROLES, qwen3
from remote import Renamed

TOKENS = 192


def st_files(folder, pooling, named, width):
    modules = "sentence_transformers.models."
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write_json(folder / "modules.json", [
        dict(idx=i, name=str(i), path=path, type=modules + kind) for i, (path, kind) in enumerate(kinds)
    ])
    names = "cls_token mean_tokens max_tokens mean_sqrt_len_tokens weightedmean_tokens lasttoken".split()
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", dict(
        word_embedding_dimension=width, **{f"pooling_mode_{kind}": kind == pooling for kind in names},
        include_prompt=True,
    ))
    write_json(folder / "sentence_bert_config.json", dict(max_seq_length=TOKENS, do_lower_case=False))
    write_json(folder / "config_sentence_transformers.json", dict(
        __version__=dict(sentence_transformers="3.0.0", transformers="4.41.2", pytorch="2.3.1"),
        default_prompt_name=None, prompts=named, similarity_fn_name="cosine",
    ))


def write_biencoder(name, about, folder, pool, prompt_of, tried, mistakes, instruction=None):
    """`prompt_of` makes what is put before a query, of an instruction or none."""
    encoder = SentenceTransformer(str(folder), device="cpu", model_kwargs=EXACT).eval()
    auto = encoder.tokenizer
    must_be_the_file(folder, auto)
    backbone = transformers.AutoModel.from_pretrained(folder, **EXACT).eval()

    def vector(ids, pool):
        states = backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]
        return normalize(pool(states), dim=-1)

    def score(pool=pool, prompt_of=prompt_of):
        made = []
        for asked, query, documents in tried:
            query_ids = auto(prompt_of(asked) + query)["input_ids"]
            ids = [auto(document)["input_ids"] for document in documents]
            with torch.no_grad():
                ours = vector(query_ids, pool)
                vectors = [vector(document, pool) for document in ids]
            logits = [float(ours @ other) for other in vectors]
            case = dict(truncation="longest_first", instruction=asked, query=query, documents=documents,
                        query_ids=query_ids, ids=ids, logits=logits, scores=logits)
            if not made:
                case |= dict(query_vector=ours.tolist(), vectors=[other.tolist() for other in vectors])
            made.append(case)
        return made

    made = score()
    for case in made:
        prompt = prompt_of(case["instruction"])
        query = encoder.encode_query([case["query"]], prompt=prompt, convert_to_tensor=True)
        documents = encoder.encode_document(case["documents"], batch_size=1, convert_to_tensor=True)
        theirs = encoder.similarity(query, documents)[0]
        assert (theirs - torch.tensor(case["logits"])).abs().max() < 1e-5, case["query"]
        if case["instruction"] is None:
            named = encoder.encode_query([case["query"]], convert_to_tensor=True)
            assert (named - query).abs().max() < 1e-6
    for mistake, change in mistakes.items():
        must_differ(made, score(**change), mistake)
    finish(
        name, about + "; ids are a document's and query_ids the query's, logits the cosines", made, instruction,
        tokens=TOKENS, spread=0.05,
    )


def biencoder():
    name, width = "tiny-biencoder", 32
    folder = new_folder(name)
    tokenizer, pad = vocabularies.wordpiece()
    write_tokenizer(folder, tokenizer, pad, TOKENS, BERT_ROLES, type_ids=True)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=width, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=TOKENS, architectures=["BertModel"],
    )
    fixture.seeded(transformers.BertModel(config), 96).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    st_files(folder, "mean_tokens", {}, width)
    write_biencoder(
        name, "a BERT as a bi-encoder: the mean of a text's states, normalised; it takes no instruction", folder,
        lambda states: states.mean(dim=0), lambda asked: "", decoder_cases.of_all(instructions=False),
        {"the first token": dict(pool=lambda states: states[0])},
    )


def qwen3_embedding():
    name = "tiny-qwen3-embedding"
    folder = new_folder(name)
    tokenizer, pad = decoder_vocabularies.qwen_bpe()
    end = tokenizer.token_to_id("<|endoftext|>")
    bytes_again = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    last = processors.TemplateProcessing(
        single="$A:0 <|endoftext|>:0", pair="$A:0 $B:1 <|endoftext|>:1", special_tokens=[("<|endoftext|>", end)]
    )
    tokenizer.post_processor = processors.Sequence([bytes_again, last])
    write_tokenizer(folder, tokenizer, pad, TOKENS, ROLES, type_ids=False)
    config = qwen3(tokenizer, eos_token_id=end, max_position_embeddings=TOKENS)
    write_json(folder / "config.json", config)
    read = transformers.AutoConfig.from_pretrained(folder)
    # The published tensors are the backbone's, without the model. of the causal model that config.json names.
    write_weights(folder, Renamed(seeded(transformers.Qwen3Model(read), 97).state_dict()))
    query = f"Instruct: {prompts.QWEN3_INSTRUCTION}\nQuery:"
    st_files(folder, "lasttoken", dict(query=query, document=""), config["hidden_size"])
    plain = lambda states: states[-1]
    write_biencoder(
        name, "Qwen3-Embedding, of the same architecture as Qwen3-Reranker: the last token's state, normalised; "
        "<|endoftext|> ends each text; the instruction stands before the query. A tag such as <|im_end|> in a text "
        "becomes that tag's token",
        folder, plain,
        lambda asked: query if asked is None else f"Instruct: {asked}\nQuery:", decoder_cases.of_all(),
        {
            "the mean": dict(pool=lambda states: states.mean(dim=0)),
            "without the prompt": dict(prompt_of=lambda asked: ""),
            "the last but one": dict(pool=lambda states: states[max(len(states) - 2, 0)]),
        },
        prompts.QWEN3_INSTRUCTION,
    )
