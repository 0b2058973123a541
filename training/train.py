"""Trains a cross-encoder on the question sets: WORK/model is a folder that rerankd serves.

    python3 training/train.py --data ../shared/data/corpora --work target/training

See training/README.md. Runs again from where it was stopped.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, softmax
from tqdm import tqdm

from encoder import export, half, load, pad
from prepare import prepare
from texts import write_texts

# Scale from cosine similarity to the teacher's logits, and where its sigmoid is a half.
TEACHER_SCALE, TEACHER_MIDDLE = 20.0, 0.55
# What BM25's score, as a share of the query's best, adds to the similarity (README.md).
KEYWORD = 0.3
# Weight of the pointwise loss, which only sets where scores lie between 0 and 1.
POINTWISE = 0.1


class Lists:
    """The training lists as token ids, in batches of like length."""

    def __init__(self, path, tokenizer, max_tokens):
        """Reads lists with pairs of at most `max_tokens`."""
        self.lists = []
        rows = [json.loads(line) for line in path.open()]
        for row in tqdm(rows, desc="tokenise", unit="list", mininterval=5):
            query = tokenizer.encode(row["query"], add_special_tokens=False).ids[: max_tokens - 3]
            encoded = tokenizer.encode_batch(row["documents"], add_special_tokens=False)
            documents = [e.ids[: max_tokens - 3] for e in encoded]
            similarities = torch.tensor(row["similarities"])
            teacher = TEACHER_SCALE * (similarities + KEYWORD * torch.tensor(row["keyword"]))
            target = (1 - row["label"]) * softmax(teacher, dim=0)
            target[0] += row["label"]
            point = torch.sigmoid(TEACHER_SCALE / 2 * (similarities - TEACHER_MIDDLE))
            point[0] = 0.95
            self.lists.append((query, documents, target, point))

    def batches(self, seed, lists):
        """All lists in a seeded order, `lists` a batch; those of a batch are of like length."""
        rng = random.Random(seed)
        order = list(range(len(self.lists)))
        rng.shuffle(order)
        batches = []
        for start in range(0, len(order), lists * 50):
            window = order[start : start + lists * 50]
            window.sort(key=lambda i: sum(map(len, self.lists[i][1])) + 8 * len(self.lists[i][0]))
            batches += [window[i : i + lists] for i in range(0, len(window), lists)]
        rng.shuffle(batches)
        return [[self.lists[i] for i in batch] for batch in batches]


def fit(query, document, room):
    """Both cut to `room` tokens together, the longer one first, as rerankd does."""
    query = query[: max(room // 2, room - len(document))]
    return query, document[: room - len(query)]


def forward(model, lists, special, device, chunk, max_tokens):
    """Logits of each list's documents. Pairs are cut to `max_tokens`."""
    cls, sep = special
    cut = [fit(query, document, max_tokens - 3) for query, documents, *_ in lists for document in documents]
    pairs = [([cls, *query, sep], [*document, sep]) for query, document in cut]
    order = sorted(range(len(pairs)), key=lambda i: -sum(map(len, pairs[i])))
    logits = [None] * len(pairs)
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        ids, mask = pad([pairs[i][0] + pairs[i][1] for i in part], device)
        types = torch.zeros_like(ids)
        for row, i in enumerate(part):
            types[row, len(pairs[i][0]) : len(pairs[i][0]) + len(pairs[i][1])] = 1
        with torch.autocast(device, torch.bfloat16, enabled=half(device)):
            out = model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
        for i, logit in zip(part, out.float()[:, 0]):
            logits[i] = logit
    return torch.stack(logits).split([len(documents) for _, documents, *_ in lists])


def loss_of(logits, lists):
    """Listwise cross-entropy to label and teacher, and a pointwise one for where scores lie."""
    pairs = sum(map(len, logits))
    loss = 0
    for row, (_, _, target, point) in zip(logits, lists):
        target, point = target.to(row.device), point.to(row.device)
        loss = loss - (target * log_softmax(row, dim=0)).sum() / len(lists)
        loss = loss + POINTWISE * binary_cross_entropy_with_logits(row, point, reduction="sum") / pairs
    return loss


def train(args, device):
    # On a CPU the backward pass of PyTorch's fused attention in bf16 took 41 % of a step; with the plain one
    # a step takes 0.6 of the time. In f32 the fused one is the faster (40 ms
    # against 53 for both passes of a layer, one core with AVX2).
    model = load(args.go_on or args.start, attn_implementation="eager" if half(device) else "sdpa")
    model.bert.encoder.layer = model.bert.encoder.layer[: args.layers]
    model.config.num_hidden_layers = args.layers
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if not args.go_on:
        torch.nn.init.normal_(model.classifier.weight, std=0.02)
        torch.nn.init.zeros_(model.classifier.bias)
    model.bert.embeddings.word_embeddings.weight.requires_grad = False
    model.to(device).train()
    head = [p for n, p in model.named_parameters() if n.startswith(("classifier", "bert.pooler"))]
    body = [p for n, p in model.named_parameters() if n.startswith(("bert.em", "bert.enc")) and p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": body, "lr": args.rate}, {"params": head, "lr": args.rate * 5}], weight_decay=0.01
    )
    tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    special = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    lists = Lists(args.work / "lists.jsonl", tokenizer, max(args.max_tokens, args.long_tokens))
    batches = lists.batches(args.seed, args.lists)
    steps = args.steps or args.epochs * len(batches)

    def rate(step):
        warm = min(1.0, (step + 1) / (0.05 * steps))
        return warm * max(0.0, 1 - step / steps)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    saved, step = args.work / "checkpoint.pt", 0
    if saved.exists():
        state = torch.load(saved, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step = state["step"]
    bar = tqdm(total=steps, initial=step, unit="step", mininterval=10)
    mean, last = None, time.monotonic()
    while step < steps:
        epoch, place = divmod(step, len(batches))
        if place == 0 and epoch > 0:
            batches = lists.batches(args.seed + epoch, args.lists)
        # Most steps read short pairs, of which two cores read twice as many; the others teach the
        # positions after them.
        long = random.Random(f"{args.seed} {step}").random() < args.long_share
        max_tokens = args.long_tokens if long else args.max_tokens
        logits = forward(model, batches[place], special, device, args.chunk, max_tokens)
        loss = loss_of(logits, batches[place])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        first = sum(row.argmax().item() == 0 for row in logits) / len(logits)
        now = (loss.item(), first)
        mean = now if mean is None else tuple(0.98 * m + 0.02 * n for m, n in zip(mean, now))
        step += 1
        bar.update()
        bar.set_postfix(loss=f"{mean[0]:.3f}", first=f"{mean[1]:.3f}", refresh=False)
        if time.monotonic() - last > args.save_minutes * 60 or step == steps:
            last = time.monotonic()
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "step": step,
            }
            torch.save(state, saved.with_suffix(".part"))
            saved.with_suffix(".part").rename(saved)
            export(model, args.start, args.work / "model")
    bar.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of corpora")
    parser.add_argument("--start", type=Path, default=Path("models/minilm"), help="the start model")
    parser.add_argument("--go-on", type=Path, help="a model that an earlier run trained")
    parser.add_argument("--texts", type=Path, help="what texts.py wrote; default: WORK/texts.jsonl")
    parser.add_argument("--work", type=Path, default=Path("target/training"))
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, help="instead of whole epochs")
    parser.add_argument("--lists", type=int, default=8, help="lists in a batch")
    parser.add_argument("--chunk", type=int, default=16, help="pairs in one pass")
    parser.add_argument("--max-tokens", type=int, default=128, help="longest pair of most steps")
    parser.add_argument("--long-tokens", type=int, default=256, help="longest pair of the other steps")
    parser.add_argument("--long-share", type=float, default=0.22, help="share of those other steps")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    lists = args.work / "lists.jsonl"
    if not lists.exists():
        part = lists.with_suffix(".part")
        texts = args.texts or args.work / "texts.jsonl"
        if not texts.exists():
            write_texts(texts)
        prepare(args.data, texts, args.start, part, args.seed)
        part.rename(lists)
    train(args, "cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()
