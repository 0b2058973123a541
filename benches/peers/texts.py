"""The texts that are scored: made of words that are one token each, so that lengths are exact."""

import random

QUERY = "how long do the effects of the treatment last"
# Of 20 words, for models whose prompt has the query before the document.
LONG_QUERY = (
    "which treatment gave a significant effect on blood pressure in patients with high risk of disease "
    "during the clinical trial"
)
WORDS = (
    "the of and patients study treatment effect result group control after during clinical trial dose "
    "response weeks significant measured increase blood pressure high low risk disease therapy outcome "
    "cells protein gene expression analysis method data model system time rate flow surface layer"
).split()
# The longest pair of the workloads.
LONG = 8192


class Texts:
    """Seeded documents for one tokenizer."""

    def __init__(self, tokenizer):
        self.tokenizer, self.generator = tokenizer, random.Random(0)

    def count(self, document):
        """The pair's tokens, special ones included."""
        return len(self.tokenizer([QUERY], [document])["input_ids"][0])

    def of_words(self, count):
        return " ".join(self.generator.choice(WORDS) for _ in range(count))

    def of_tokens(self, count):
        """A document with which the pair has just `count` tokens."""
        text = self.of_words(count - self.count(""))
        assert self.count(text) == count, "a word is not one token"
        return text


def longest(tokenizer, config):
    """The longest pair in tokens that a model reads."""
    # transformers gives a length of 1e30 where the files say none.
    return min(tokenizer.model_max_length, config["max_position_embeddings"])


def workloads(tokenizer, longest):
    """Name to (documents, batch size of the peers)."""
    texts = Texts(tokenizer)
    mixed = [texts.of_words(texts.generator.randint(20, 350)) for _ in range(100)]
    made = {
        "a: 32 x 128": ([texts.of_tokens(128) for _ in range(32)], 32),
        "b: 32 x 256": ([texts.of_tokens(256) for _ in range(32)], 32),
        "c: 8 x 512": ([texts.of_tokens(512) for _ in range(8)], 32),
        "d: 1 x 128": ([texts.of_tokens(128)], 1),
        "e: 100 mixed, usual": (mixed, 32),
        "e: 100 mixed, best": (mixed, 1),
    }
    if longest >= LONG:
        made[f"f: 1 x {LONG}"] = ([texts.of_tokens(LONG)], 1)
    return made
