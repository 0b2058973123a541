"""Averages the weights of two models of the same shape, which can rank better than both, most of all on
text unlike what was trained on (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").

    python3 training/average.py models/builtin target/training/model target/training/average --share 0.5
"""

import argparse
from pathlib import Path

from encoder import export, load


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="the second model's share")
    args = parser.parse_args()
    model, other = load(args.first), load(args.second).state_dict()
    model.load_state_dict({name: tensor.lerp(other[name], args.share) for name, tensor in model.state_dict().items()})
    export(model, args.second, args.out)


if __name__ == "__main__":
    main()
