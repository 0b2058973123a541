"""The tokenizers of the decoders: byte-level BPE as Qwen and Llama 3 have it, and Gemma's BPE of sentencepiece.

The structure of each tokenizer.json is the published one's; the merges are trained on corpus.txt and on the
prompts, so that a prompt is some dozens of tokens and not hundreds.
"""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import prompts
from vocabularies import CORPUS

# Words that must be one token each, as in every published vocabulary.
ANSWERS = ["yes", "no", "Yes", "No", "true", "false", "!"]
# What the pieces of a prompt make where they meet; published vocabularies have them as tokens.
JOINTS = ["\n\n", "?\n", ".\n", "!\n", " \n", "  ", "   ", ">:", ":\n", "\n\n\n"]
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_SPLIT = QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
QWEN_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
]
# Added tokens that are not special: a decoder would print them, an encoder finds them all the same.
QWEN_ADDED = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
LLAMA_SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
]
GEMMA_SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]


def lines():
    return CORPUS + [line for text in prompts.ALL for line in [text] * 4] + ANSWERS * 100 + JOINTS * 60


def trained(split, size):
    """A BPE of bytes whose words are cut by `split`, and byte level after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.train_from_iterator(
        lines(),
        trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    return tokenizer


def qwen_bpe(more_special=()):
    tokenizer = trained(QWEN_SPLIT, 640)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in QWEN_SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in QWEN_ADDED])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in more_special])
    return with_answers(tokenizer), "<|endoftext|>"


def llama_bpe():
    tokenizer = trained(LLAMA_SPLIT, 560)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in LLAMA_SPECIAL])
    # Llama 3 takes a word that is in the vocabulary whole, whatever the merges say.
    state = json.loads(tokenizer.to_str())
    state["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(add_prefix_space=True, trim_offsets=False, use_regex=True),
            processors.TemplateProcessing(
                single="<|begin_of_text|>:0 $A:0",
                pair="<|begin_of_text|>:0 $A:0 <|begin_of_text|>:1 $B:1",
                special_tokens=[("<|begin_of_text|>", begin)],
            ),
        ]
    )
    return with_answers(tokenizer), "<|finetune_right_pad_id|>"


def sentencepiece_bpe(special):
    """Pieces and merges of sentencepiece's BPE, where blanks are ▁ and what has no piece falls back to its bytes."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), behavior="merged_with_next", invert=False)
    text = lines()
    seen = sorted({letter for line in text for letter in line.replace(" ", "▁") if letter < "\u0180"} | {"▁", "\n"})
    learner.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=len(seen) + 330, initial_alphabet=seen, limit_alphabet=len(seen),
                                  show_progress=False)
    )
    state = json.loads(learner.to_str())["model"]
    learned = sorted(state["vocab"], key=state["vocab"].get)
    pieces = special + [f"<0x{byte:02X}>" for byte in range(256)] + ["\n\n", "▁▁", "▁▁▁▁"]
    pieces += [piece for piece in learned if piece not in pieces]
    # Runs of newlines and of blanks are pieces of Gemma's.
    runs = [("\n", "\n"), ("▁", "▁"), ("▁▁", "▁▁")]
    merges = runs + [tuple(pair) for pair in state["merges"] if tuple(pair) not in runs]
    tokenizer = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True,
                   byte_fallback=True)
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer


def with_first(tokenizer, first):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first}:0 $A:0", pair=f"{first}:0 $A:0 {first}:1 $B:1",
        special_tokens=[(first, tokenizer.token_to_id(first))],
    )
    return with_answers(tokenizer)


def gemma_bpe():
    tokenizer = sentencepiece_bpe(GEMMA_SPECIAL)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous", invert=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return with_first(tokenizer, "<bos>"), "<pad>"


def llama_sentencepiece():
    """Llama 2's and MiniCPM's: a text begins with a blank, a line break alone too."""
    tokenizer = sentencepiece_bpe(["<unk>", "<s>", "</s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return with_first(tokenizer, "<s>"), "<unk>"


def with_answers(tokenizer):
    blank = tokenizer.normalizer is not None and "Prepend" in repr(tokenizer.normalizer)
    for word in [*ANSWERS, "0", "1"]:
        assert blank or len(tokenizer.encode(word, add_special_tokens=False).ids) == 1, word
    return tokenizer
