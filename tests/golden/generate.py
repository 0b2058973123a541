"""Writes the tiny models in tests/fixtures/models and the reference's logits for them.

    python3 -m venv .venv && .venv/bin/pip install -r tests/golden/requirements.txt
    .venv/bin/python tests/golden/generate.py [NAME ...]

Without names it writes all. The weights are seeded and random; the reference is Hugging Face
transformers, or sentence-transformers for models of its modules, or remote.py for models whose code
lies beside their weights. CI does not run this: what it writes is committed. Each tokenizer.json
carries a truncation of 12 tokens and a fixed padding, as many published ones do: a server that obeyed
them would give other logits.
"""

import sys

import torch

import bge
import biencoders
import classic
import encoders
import late
import listwise
import llama
import modular
import qwen
import remote
import t5

WRITERS = {
    "tiny-modernbert": encoders.modernbert,
    "tiny-modernbert-cls": encoders.modernbert_cls,
    "tiny-ettin": modular.ettin,
    "tiny-ettin-mean": modular.ettin_mean,
    "tiny-deberta": encoders.deberta,
    "tiny-deberta-v2": encoders.deberta_v2,
    "tiny-distilbert": encoders.distilbert,
    "tiny-electra": encoders.electra,
    "tiny-mpnet": encoders.mpnet,
    "tiny-albert": encoders.albert,
    "tiny-camembert": encoders.camembert,
    "tiny-jina-v2": remote.jina_v2,
    "tiny-gte": remote.gte,
    "tiny-jina-v1": remote.jina_v1,
    "tiny-nli": encoders.nli,
    "tiny-two-label": encoders.two_label,
    "tiny-qwen3-st": qwen.qwen3_st,
    "tiny-qwen3-plain": qwen.qwen3_plain,
    "tiny-qwen3-seqcls": qwen.qwen3_seqcls,
    "tiny-mxbai-v2": qwen.mxbai_v2,
    "tiny-zerank": qwen.zerank,
    "tiny-ctxl": qwen.ctxl,
    "tiny-llama": llama.llama,
    "tiny-nemotron": llama.nemotron,
    "tiny-bge-gemma": bge.gemma,
    "tiny-minicpm-layerwise": bge.minicpm_layerwise,
    "tiny-gemma2-lightweight": bge.gemma2_lightweight,
    "tiny-jina-v3": listwise.jina_v3,
    "tiny-colbert": late.colbert,
    "tiny-colbert-st": late.colbert_st,
    "tiny-colbert-stanford": late.colbert_stanford,
    "tiny-biencoder": biencoders.biencoder,
    "tiny-qwen3-embedding": biencoders.qwen3_embedding,
    "tiny-monot5": t5.monot5,
    "tiny-rankt5": t5.rankt5,
}


def main():
    torch.set_num_threads(1)
    known = [*classic.SEEDS, *WRITERS]
    wanted = sys.argv[1:] or known
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        sys.exit(f"no such models: {', '.join(unknown)}; there are {', '.join(known)}")
    classic.write(wanted)
    for name, write in WRITERS.items():
        if name in wanted:
            write()


if __name__ == "__main__":
    main()
