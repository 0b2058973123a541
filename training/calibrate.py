"""Fits how a model's logits become probabilities on development collections, and puts it into the model's head, which
changes no order.

    python3 training/calibrate.py target/training/average target/training/calibrated \\
        --collections ../shared/data/collections/{cranfield,cisi,selqa-sent} --runs target/training/eval/average \\
        --plot docs/reliability.svg

Reads the run files that `rerankd eval` wrote for that model. Every collection counts as much as each other. A
candidate without a judgement counts as not relevant, so that the probability is one of being judged relevant among
BM25's best 50 there: elsewhere there are more or fewer relevant ones, and it is high or low by that.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from encoder import export, load

BINS = 10


def judged(collection, run):
    """Logits and labels of a run's documents, and each one's query."""
    relevant = {}
    for line in (collection / "qrels.tsv").open():
        query, doc, grade = line.rstrip("\n").split("\t")[:3]
        if grade.lstrip("-").isdigit() and int(grade) > 0:
            relevant.setdefault(query, set()).add(doc)
    logits, labels = [], []
    for line in run.open():
        query, _, doc, _, score, *_ = line.split()
        if query in relevant:
            logits.append(float(score))
            labels.append(doc in relevant[query])
    return np.array(logits), np.array(labels, float)


def fit(logits, labels, weights):
    """Slope and shift of the least weighted log loss, by Newton's method."""
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    at = np.array([1.0, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ at))
        gradient = design.T @ (weights * (p - labels))
        hessian = design.T @ (design * (weights * p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        move = np.linalg.solve(hessian, gradient)
        at -= move
        if np.abs(move).max() < 1e-9:
            break
    return at


def bins(p, labels, weights):
    """(mean probability, share relevant, weight) of BINS bins of like width."""
    found = []
    for low in range(BINS):
        inside = (p >= low / BINS) & ((p < (low + 1) / BINS) | (low == BINS - 1))
        weight = weights[inside].sum()
        if weight > 0:
            mean = (weights[inside] * p[inside]).sum() / weight
            found.append((mean, (weights[inside] * labels[inside]).sum() / weight, weight))
    return found


def error(p, labels, weights):
    """Expected calibration error."""
    return sum(weight * abs(mean - share) for mean, share, weight in bins(p, labels, weights)) / weights.sum()


def plot(before, after, out):
    """A reliability plot of two lists of bins."""

    def at(mean, share):
        return f"{40 + 320 * mean:.1f},{340 - 320 * share:.1f}"

    def drawn(found, colour):
        points = " ".join(at(mean, share) for mean, share, _ in found)
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 380 390" font-family="sans-serif" font-size="12">',
        '<rect width="380" height="390" fill="#fff"/>',
        '<rect x="40" y="20" width="320" height="320" fill="none" stroke="#888"/>',
        '<line x1="40" y1="340" x2="360" y2="20" stroke="#bbb" stroke-dasharray="4"/>',
        drawn(before, "#c0562f"),
        drawn(after, "#2f6fc0"),
        '<text x="50" y="40" fill="#c0562f">before</text><text x="50" y="56" fill="#2f6fc0">after</text>',
        '<text x="200" y="375" text-anchor="middle">score (mean of a bin)</text>',
        '<text x="14" y="180" text-anchor="middle" transform="rotate(-90 14 180)">share judged relevant</text>',
    ]
    for tick in (0, 0.5, 1):
        parts.append(f'<text x="{40 + 320 * tick:.0f}" y="356" text-anchor="middle">{tick}</text>')
        parts.append(f'<text x="36" y="{344 - 320 * tick:.0f}" text-anchor="end">{tick}</text>')
    out.write_text("\n".join([*parts, "</svg>"]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--collections", type=Path, nargs="+", required=True)
    parser.add_argument("--runs", type=Path, required=True, help="the folder with a folder for each collection")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    found = {}
    for collection in args.collections:
        (run,) = (args.runs / collection.name).glob("*.trec")
        found[collection.name] = judged(collection, run)
    logits = np.concatenate([l for l, _ in found.values()])
    labels = np.concatenate([y for _, y in found.values()])
    weights = np.concatenate([np.full(len(l), 1 / len(l)) for l, _ in found.values()])
    slope, shift = fit(logits, labels, weights)
    before, after = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-(slope * logits + shift)))
    print(json.dumps({"slope": round(slope, 4), "shift": round(shift, 4)}))
    print(f"calibration error: {error(before, labels, weights):.4f} before, {error(after, labels, weights):.4f} after")
    for name, (l, y) in found.items():
        one = np.ones_like(l)
        p, q = 1 / (1 + np.exp(-l)), 1 / (1 + np.exp(-(slope * l + shift)))
        kept = [np.quantile(q[y > 0], 1 - share) for share in (0.9, 0.95)]
        cut = [(q < k).mean() for k in kept]
        print(
            f"{name}: {error(p, y, one):.4f} before, {error(q, y, one):.4f} after; {y.mean():.3f} relevant; "
            f"90 % of them score at least {kept[0]:.4f} ({cut[0]:.0%} of all fall below), "
            f"95 % {kept[1]:.4f} ({cut[1]:.0%})"
        )
    if args.plot:
        plot(bins(before, labels, weights), bins(after, labels, weights), args.plot)
    model = load(args.model)
    with torch.no_grad():
        model.classifier.weight.mul_(slope)
        model.classifier.bias.mul_(slope).add_(shift)
    export(model, args.model, args.out)


if __name__ == "__main__":
    main()
