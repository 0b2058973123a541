"""Distils a cross-encoder into some of its own layers: WORK/model is the smaller one.

    python3 training/distil.py models/builtin --tokenizer models/builtin --lists target/training/w2/lists.jsonl \\
        --work target/training/four --keep 0 1 3 4 --minutes 40

The student learns the teacher's logits, within each list and as they are, and the hidden states after the layers that
it keeps, after its last layer the teacher's last ones. No labels are needed, so a list of a short query is also read
as sentences, one of each document. The rate falls to 0 over `--minutes`. A stopped run goes on from its checkpoint.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn.functional import kl_div, log_softmax, mse_loss

from encoder import export, load, pad
from prepare import SENTENCE
from train import fit

# The longest query that is also asked of single sentences, in words.
SHORT = 30
# Weights of the parts of the loss besides the listwise one.
LOGIT, HIDDEN = 0.05, 1.0


def sentence(document, rng):
    """One of a document's sentences of 6 to 60 words, or its first 40 words."""
    found = [part for part in SENTENCE.split(document) if 6 <= len(part.split()) <= 60]
    return rng.choice(found) if found else " ".join(document.split()[:40])


def batches(rows, lists, seed):
    """Batches without end, in a seeded order; those of a batch are of like length."""
    rng = random.Random(seed)
    while True:
        order = []
        for row in rows:
            short = len(row["query"].split()) <= SHORT
            order.append((row["query"], row["documents"]))
            if short:
                order.append((row["query"], [sentence(document, rng) for document in row["documents"]]))
        order.sort(key=lambda pair: sum(map(len, pair[1])) + 8 * len(pair[0]))
        groups = [order[i : i + lists] for i in range(0, len(order), lists)]
        rng.shuffle(groups)
        yield from groups


def encode(batch, tokenizer, room):
    """Ids, mask and types of a batch's pairs."""
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    pairs = []
    for query, documents in batch:
        asked = tokenizer.encode(query, add_special_tokens=False).ids
        for encoded in tokenizer.encode_batch(documents, add_special_tokens=False):
            head, tail = fit(asked, encoded.ids, room - 3)
            pairs.append(([cls, *head, sep], [*tail, sep]))
    ids, mask = pad([head + tail for head, tail in pairs], "cpu")
    types = torch.zeros_like(ids)
    for row, (head, tail) in enumerate(pairs):
        types[row, len(head) : len(head) + len(tail)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def loss_of(student, teacher, mask, after, sizes):
    """The student's distance to the teacher, its parts by name. `after`: the teacher's states for each layer's."""
    mine, theirs = student.logits[:, 0], teacher.logits[:, 0]
    listwise = sum(
        kl_div(log_softmax(a, 0), log_softmax(b, 0), log_target=True, reduction="sum")
        for a, b in zip(mine.split(sizes), theirs.split(sizes))
    ) / len(sizes)
    real = mask.bool()
    hidden = 0
    for place, state in enumerate(after, 1):
        wanted = teacher.hidden_states[state][real]
        hidden = hidden + mse_loss(student.hidden_states[place][real], wanted) / wanted.var() / len(after)
    return {"listwise": listwise, "logit": LOGIT * mse_loss(mine, theirs), "hidden": HIDDEN * hidden}


def by_list(inputs, sizes):
    """A batch list by list, so that little memory is needed at once."""
    start = 0
    for size in sizes:
        part = {name: tensor[start : start + size] for name, tensor in inputs.items()}
        longest = int(part["attention_mask"].sum(1).max())
        yield {name: tensor[:, :longest] for name, tensor in part.items()}, [size]
        start += size


def smaller(folder, keep, frozen):
    """The model with the layers `keep`, of which the first `frozen` are not trained."""
    model = load(folder, attn_implementation="sdpa")
    model.bert.encoder.layer = torch.nn.ModuleList([model.bert.encoder.layer[i] for i in keep])
    model.config.num_hidden_layers = len(keep)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for module in [model.bert.embeddings, *model.bert.encoder.layer[:frozen]]:
        module.requires_grad_(False)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the folder with tokenizer.json")
    parser.add_argument("--lists", type=Path, nargs="+", required=True, help="files of lists")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--keep", type=int, nargs="+", default=[0, 1, 3, 4], help="layers that the student begins with")
    parser.add_argument("--frozen", type=int, default=0, help="how many of these are not trained")
    parser.add_argument("--batch", type=int, default=4, help="lists in a batch")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--minutes", type=float, default=40, help="how long it trains, stops not counted")
    parser.add_argument("--seed", type=int, default=41)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    teacher = load(args.teacher, attn_implementation="sdpa").eval()
    student = smaller(args.teacher, args.keep, args.frozen).train()
    after = [*(layer + 1 for layer in args.keep[:-1]), teacher.config.num_hidden_layers]
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows = [json.loads(line) for path in args.lists for line in path.open()]
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=args.rate, weight_decay=0.01)
    saved, step, spent = args.work / "checkpoint.pt", 0, 0.0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        student.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    order, mean, last, limit = batches(rows, args.batch, args.seed), {}, spent, args.minutes * 60
    for _ in range(step):
        next(order)
    while spent < limit:
        begun, batch = time.monotonic(), next(order)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1.0, (step + 1) / 20) * (1 - spent / limit)
        sizes = [len(documents) for _, documents in batch]
        for inputs, size in by_list(encode(batch, tokenizer, args.max_tokens), sizes):
            with torch.no_grad():
                wanted = teacher(**inputs, output_hidden_states=True)
            parts = loss_of(
                student(**inputs, output_hidden_states=True), wanted, inputs["attention_mask"], after, size
            )
            (sum(parts.values()) / len(sizes)).backward()
            for name, value in parts.items():
                mean[name] = 0.99 * mean.get(name, value.item()) + 0.01 * value.item()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, spent = step + 1, spent + time.monotonic() - begun
        if step % 10 == 0:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in mean.items())
            print(f"step {step}, {spent:.0f} s, {spent / step:.2f} s a step: {shown}", flush=True)
        if spent - last > 300 or spent >= limit:
            last = spent
            state = {"model": student.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent}
            torch.save(state, saved.with_suffix(".part"))
            saved.with_suffix(".part").rename(saved)
            export(student, args.tokenizer, args.work / "model")


if __name__ == "__main__":
    main()
