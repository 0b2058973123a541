"""Fits how a model's logits become probabilities on development collections. With OUT it puts that into the model's
head, which changes no order.

    python3 training/calibrate.py models/builtin --collections ../shared/data/collections/{cranfield,cisi,selqa-sent} \\
        --tests ../shared/data/collections/covidqa-doc --runs target/training/eval/builtin --plot target/reliability.svg

Reads the run files that `rerankd eval` wrote for that model. Every collection counts as much as each other. A
candidate without a judgement counts as not relevant, so that the probability is one of being judged relevant among
BM25's best 50 there: elsewhere there are more or fewer relevant ones, and it is high or low by that. How much, the
error of each collection under what the others alone give says, and that of --tests; who knows the share of relevant
ones adds the difference of its log-odds to the fitted collections' to the shift.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from encoder import export, load

BINS = 10


def sigmoid(logits):
    return np.exp(-np.logaddexp(0, -logits))


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


def loss(at, design, labels, weights):
    z = design @ at
    return (weights * (np.logaddexp(0, z) - labels * z)).sum()


def fit(logits, labels, weights):
    """Slope and shift of the least weighted log loss, by Newton's method with steps that shorten until they help."""
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    at = np.array([1.0, 0.0])
    for _ in range(100):
        p = sigmoid(design @ at)
        gradient = design.T @ (weights * (p - labels))
        hessian = design.T @ (design * (weights * p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        move, now = np.linalg.solve(hessian, gradient), loss(at, design, labels, weights)
        while loss(at - move, design, labels, weights) > now and np.abs(move).max() > 1e-9:
            move /= 2
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


def fitted(found):
    """Slope and shift for collections that count alike."""
    weights = np.concatenate([np.full(len(l), 1 / len(l)) for l, _ in found])
    return fit(np.concatenate([l for l, _ in found]), np.concatenate([y for _, y in found]), weights)


def odds(share):
    return np.log(share / (1 - share))


def table(logits, probabilities, labels, weights):
    """A reliability table in Markdown."""
    print("| probability | score | share judged relevant | share of all |\n|---|---|---|---|")
    for low in range(BINS):
        inside = (probabilities >= low / BINS) & (probabilities < (low + 1) / BINS)
        weight = weights[inside].sum()
        if weight > 0:
            mean, score, share = ((weights[inside] * x[inside]).sum() / weight for x in (probabilities, logits, labels))
            name, part = f"{low / BINS:.1f} to {(low + 1) / BINS:.1f}", weight / weights.sum()
            print(f"| {name}: {mean:.3f} | {score:.2f} | {share:.3f} | {part:.1%} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--collections", type=Path, nargs="+", required=True)
    parser.add_argument("--tests", type=Path, nargs="*", default=[], help="collections that are measured, not fitted")
    parser.add_argument("--runs", type=Path, required=True, help="the folder with a folder for each collection")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    found = {}
    for collection in args.collections + args.tests:
        (run,) = (args.runs / collection.name).glob("*.trec")
        found[collection.name] = judged(collection, run)
    names = [collection.name for collection in args.collections]
    slope, shift = fitted([found[name] for name in names])
    logits = np.concatenate([found[name][0] for name in names])
    labels = np.concatenate([found[name][1] for name in names])
    weights = np.concatenate([np.full(len(found[name][0]), 1 / len(found[name][0])) for name in names])
    before, after = sigmoid(logits), sigmoid(slope * logits + shift)
    print(json.dumps({"slope": round(slope, 4), "shift": round(shift, 4)}))
    share = np.mean([found[name][1].mean() for name in names])
    print(f"{share:.4f} relevant, log-odds {odds(share):.4f}")
    print(f"calibration error: {error(before, labels, weights):.4f} before, {error(after, labels, weights):.4f} after")
    table(logits, after, labels, weights)
    for name, (l, y) in found.items():
        one = np.ones_like(l)
        rest = [found[other] for other in names if other != name]
        others = fitted(rest)
        known = others[1] - odds(np.mean([y.mean() for _, y in rest])) + odds(y.mean())
        forms = (1, 0), (slope, shift), others, (others[0], known)
        errors = [error(sigmoid(a * l + b), y, one) for a, b in forms]
        kept = [np.quantile(l[y > 0], 1 - share) for share in (0.9, 0.95)]
        shown = ", ".join(
            f"{share} % of them have a logit of {k:.3f} or more, a score of {sigmoid(k):.4f}, and "
            f"{(l < k).mean():.0%} of all candidates less"
            for share, k in zip((90, 95), kept)
        )
        print(
            f"{name}: {len(l)} candidates, {y.mean():.3f} relevant; error {errors[0]:.4f} before, {errors[1]:.4f} "
            f"after, {errors[2]:.4f} by the other collections' slope {others[0]:.4f} and shift {others[1]:.4f}, "
            f"{errors[3]:.4f} where that shift is moved by how many are relevant here; {shown}"
        )
    if args.plot:
        plot(bins(before, labels, weights), bins(after, labels, weights), args.plot)
    if args.out:
        model = load(args.model)
        with torch.no_grad():
            model.classifier.weight.mul_(slope)
            model.classifier.bias.mul_(slope).add_(shift)
        export(model, args.model, args.out)


if __name__ == "__main__":
    main()
