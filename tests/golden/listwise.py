"""The tiny listwise reranker: jina-reranker-v3, which reads a block of documents and the query in one prompt.

Its code lies beside its weights; here the layers are transformers' Qwen3, and prompt, projector, cosines and the
joining of blocks are written after that code.
"""

import torch
import transformers
from safetensors.torch import load_file
from torch import nn

import cases
import decoder_vocabularies
import prompts
from decoder_cases import CAT, INSTRUCTION, ODD_INSTRUCTION, RIVERS
from decoders import finish, must_be_the_file, plain_of, seeded
from fixture import must_differ, new_folder, write_json, write_tokenizer, write_weights
from qwen import ROLES, qwen3
from remote import Renamed

QUERY_MARK, DOCUMENT_MARK = "<|rerank_token|>", "<|embed_token|>"
# Of the tests; the published limits are 512 and 2048 tokens, 125 documents and the tokenizer's length.
LIMITS = dict(query_tokens=24, document_tokens=40, block_documents=4, length=140)
PUBLISHED = dict(query_tokens=512, document_tokens=2048, block_documents=125, length=131072)
TOKENS, PROJECTED = 2048, 512


class Listwise(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.model = transformers.Qwen3Model(config)
        half = config.hidden_size // 2
        self.projector = nn.Sequential(
            nn.Linear(config.hidden_size, half, bias=False), nn.ReLU(), nn.Linear(half, PROJECTED, bias=False)
        )

    def vectors(self, ids, marks):
        """The projected states at the query's mark and at the documents'."""
        ids = torch.tensor([ids])
        states = self.model(input_ids=ids).last_hidden_state[0]
        query, documents = (self.projector(states[ids[0] == mark]) for mark in marks)
        assert len(query) == 1
        return query[0], documents


def prompt_of(instruction, query, documents):
    def clean(text):
        return text.replace(QUERY_MARK, "").replace(DOCUMENT_MARK, "")

    query = clean(query)
    passages = [
        f'<passage id="{i}">\n{clean(document)}{DOCUMENT_MARK}\n</passage>\n' for i, document in enumerate(documents)
    ]
    asked = f"<instruct>\n{instruction}\n</instruct>\n" if instruction else ""
    return "".join([
        f"<|im_start|>system\n{prompts.JINA_SYSTEM}<|im_end|>\n<|im_start|>user\n",
        prompts.JINA_PASSAGES.format(count=len(documents), query=query), asked, *passages,
        f"<query>\n{query}{QUERY_MARK}\n</query>", prompts.QWEN3_SUFFIX,
    ])


def cut(tokenizer, text, limit):
    """The text, and its tokens' number; a text at the limit or above is what its first tokens decode to."""
    ids = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
    return (tokenizer.decode(ids) if len(ids) >= limit else text), len(ids)


def blocks_of(tokenizer, query, documents, limits):
    query, length = cut(tokenizer, query, limits["query_tokens"])
    blocks, block = [], []
    room = limits["length"] - 2 * length
    for document in documents:
        document, taken = cut(tokenizer, document, limits["document_tokens"])
        block.append(document)
        room -= taken
        if len(block) >= limits["block_documents"] or room <= limits["document_tokens"]:
            blocks.append(block)
            block, room = [], limits["length"] - 2 * length
    return query, blocks + [block] * bool(block)


def score_of(model, tokenizer, marks, case, limits, weighted=True):
    instruction, query, documents = case
    query, blocks = blocks_of(tokenizer, query, documents, limits)
    ids = [tokenizer(prompt_of(instruction, query, block))["input_ids"] for block in blocks]
    queries, vectors, weights = [], [], []
    with torch.no_grad():
        for prompt in ids:
            asked, found = model.vectors(prompt, marks)
            queries.append(asked)
            vectors.append(found)
            weights.append((1 + torch.cosine_similarity(found, asked[None], dim=-1)).max() / 2)
    weights = torch.stack(weights) if weighted else torch.ones(len(weights))
    merged = (torch.stack(queries) * weights[:, None]).sum(dim=0) / weights.sum()
    scores = torch.cosine_similarity(torch.cat(vectors), merged[None], dim=-1).tolist()
    return dict(
        truncation="longest_first", instruction=instruction, query=case[1],
        documents=documents, blocks=[len(block) for block in blocks], ids=ids, logits=scores, scores=scores,
    )


def tried():
    odd = [
        f"a mark {DOCUMENT_MARK} in the text", f"{QUERY_MARK}", "", " begins with a blank", "\nbegins with a newline",
        "ends with a newline\n", "<|im_end|>\n<|im_start|>assistant", "</passage>\n<passage id=\"0\">\n", "?",
    ]
    many = [f"{word} {RIVERS}" for word in "one two three four five six seven eight nine".split()]
    long = cases.LONG_DOCUMENT
    made = [
        (None, cases.QUERY, [RIVERS, CAT]),
        (None, cases.QUERY, [CAT, RIVERS]),
        (None, cases.QUERY, [RIVERS]),
        (None, cases.QUERY, [CAT, CAT, CAT]),
        (None, cases.QUERY, many),
        (None, cases.QUERY, odd),
        (None, f"is it {QUERY_MARK}so?\n", odd[:3]),
        (None, cases.OTHER_QUERY, cases.OTHER_DOCUMENTS),
        (None, cases.QUERY, [long, RIVERS, "река " * 40 + "🌊" * 20, CAT, long]),
        (None, cases.LONG_QUERY, [RIVERS, long, CAT]),
        (INSTRUCTION, cases.QUERY, [RIVERS, CAT]),
        (INSTRUCTION, cases.QUERY, many),
        (ODD_INSTRUCTION, cases.QUERY, [RIVERS, CAT, ""]),
    ]
    return made


def jina_v3():
    name = "tiny-jina-v3"
    folder = new_folder(name)
    tokenizer, pad = decoder_vocabularies.qwen_bpe(more_special=["<|score_token|>", DOCUMENT_MARK, QUERY_MARK])
    write_tokenizer(folder, tokenizer, pad, TOKENS, ROLES, type_ids=False)
    config = qwen3(
        tokenizer, architectures=["JinaForRanking"],
        auto_map={"AutoConfig": "modeling.JinaForRankingConfig", "AutoModel": "modeling.JinaForRanking"},
        max_position_embeddings=TOKENS, rope_theta=3500000, tie_word_embeddings=False,
    )
    write_json(folder / "config.json", config)
    plain = transformers.Qwen3Config(**plain_of(config), attn_implementation="eager")
    model = seeded(Listwise(plain), 80)
    write_weights(folder, Renamed(model.state_dict()), torch.bfloat16)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    must_be_the_file(folder, auto)
    marks = auto.convert_tokens_to_ids([QUERY_MARK, DOCUMENT_MARK])

    def score(model=model, limits=LIMITS, weighted=True):
        return [score_of(model, auto, marks, case, limits, weighted) for case in tried()]

    made = score()
    for case, whole in zip(made, score(limits=PUBLISHED)):
        if whole["ids"] != case["ids"]:
            case["published"] = dict(blocks=whole["blocks"], ids=whole["ids"], logits=whole["logits"])
    assert {len(case["ids"]) for case in made} >= {1, 2, 3}
    assert any(case["blocks"][0] < LIMITS["block_documents"] and len(case["blocks"]) > 1 for case in made)
    must_differ(made, score(weighted=False), "blocks of equal weight")
    must_differ(made, score(limits=LIMITS | dict(block_documents=125, length=131072)), "one block")
    must_differ(made, score(limits=LIMITS | dict(document_tokens=2048)), "documents not cut")
    must_differ(made[:1], [dict(logits=made[1]["logits"][::-1])], "the other order")
    bent = Listwise(plain).eval()
    bent.load_state_dict(model.state_dict())
    bent.projector[1] = nn.GELU()
    must_differ(made, score(bent), "GELU in the projector")
    finish(
        name, "jina-reranker-v3: each block of documents is one prompt, so that ids has a list for each block, blocks "
        "its documents' number and logits the cosine of each document; limits are those that the scores are made "
        "with, published what the published limits make where that is another. Marks are taken out of the texts after "
        "cutting; any other tag in a text becomes that tag's token",
        made, tokens=TOKENS, spread=0.05, limits=LIMITS,
    )
