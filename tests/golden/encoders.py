"""The tiny models whose reference is transformers' own code: their settings as published files spell them."""

import torch

import vocabularies
from fixture import BERT_ROLES, ROBERTA_ROLES, write_encoder

ONE_LABEL = dict(id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})


def modernbert():
    config = dict(
        architectures=["ModernBertForSequenceClassification"],
        attention_bias=False,
        attention_dropout=0.0,
        bos_token_id=404,
        classifier_activation="gelu",
        classifier_bias=False,
        classifier_dropout=0.0,
        classifier_pooling="mean",
        cls_token_id=404,
        decoder_bias=True,
        deterministic_flash_attn=False,
        embedding_dropout=0.0,
        eos_token_id=405,
        global_attn_every_n_layers=3,
        global_rope_theta=160000.0,
        gradient_checkpointing=False,
        hidden_activation="gelu",
        hidden_size=32,
        initializer_cutoff_factor=2.0,
        initializer_range=0.02,
        intermediate_size=48,
        layer_norm_eps=1e-05,
        local_attention=16,
        local_rope_theta=10000.0,
        max_position_embeddings=160,
        mlp_bias=False,
        mlp_dropout=0.0,
        model_type="modernbert",
        norm_bias=False,
        norm_eps=1e-05,
        num_attention_heads=2,
        num_hidden_layers=5,
        pad_token_id=406,
        position_embedding_type="absolute",
        repad_logits_with_grad=False,
        sep_token_id=405,
        sparse_pred_ignore_index=-100,
        sparse_prediction=False,
        torch_dtype="float32",
        transformers_version="4.48.0",
        **ONE_LABEL,
    )
    write_encoder(
        "tiny-modernbert", "mean of all tokens before the head; settings as transformers 4 writes them",
        vocabularies.modernbert_bpe(), config, 10, limit=160, roles=BERT_ROLES, max_tokens=160, edges=[9, 17],
        mistakes=[
            dict(local_attention=14), dict(local_attention=18), dict(classifier_pooling="cls"),
            dict(layer_types=["full_attention"] + ["sliding_attention"] * 4), dict(hidden_activation="gelu_new"),
        ],
    )


def modernbert_cls():
    kinds = ["full_attention", "sliding_attention"] * 2
    config = dict(
        architectures=["ModernBertForSequenceClassification"],
        attention_bias=True,
        attention_dropout=0.0,
        bos_token_id=404,
        classifier_activation="gelu",
        classifier_bias=True,
        classifier_dropout=0.0,
        classifier_pooling="cls",
        cls_token_id=404,
        decoder_bias=True,
        deterministic_flash_attn=False,
        dtype="float16",
        embedding_dropout=0.0,
        eos_token_id=405,
        hidden_activation="gelu",
        hidden_size=32,
        initializer_cutoff_factor=2.0,
        initializer_range=0.02,
        intermediate_size=48,
        layer_types=kinds,
        local_attention=16,
        max_position_embeddings=160,
        mlp_bias=True,
        mlp_dropout=0.0,
        model_type="modernbert",
        norm_bias=True,
        norm_eps=1e-05,
        num_attention_heads=4,
        num_hidden_layers=4,
        pad_token_id=406,
        rope_parameters={
            "full_attention": {"rope_theta": 160000.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
        },
        sep_token_id=405,
        sparse_pred_ignore_index=-100,
        sparse_prediction=False,
        tie_word_embeddings=True,
        transformers_version="5.23.0",
        **ONE_LABEL,
    )
    one_theta = {kind: {"rope_theta": 10000.0, "rope_type": "default"} for kind in kinds}
    write_encoder(
        "tiny-modernbert-cls", "first token before the head, every optional bias, other layer types than the "
        "default; settings as transformers 5 writes them; 16-bit weights, widened to 32 bits",
        vocabularies.modernbert_bpe(), config, 11, limit=160, roles=BERT_ROLES, max_tokens=160, edges=[9, 17],
        dtype=torch.float16,
        mistakes=[
            dict(local_attention=14), dict(local_attention=18), dict(classifier_pooling="mean"),
            dict(layer_types=["full_attention"] + ["sliding_attention"] * 2 + ["full_attention"]),
            dict(rope_parameters=one_theta),
        ],
    )


def deberta():
    config = dict(
        architectures=["DebertaV2ForSequenceClassification"],
        attention_probs_dropout_prob=0.1,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        hidden_size=32,
        initializer_range=0.02,
        intermediate_size=64,
        layer_norm_eps=1e-07,
        max_position_embeddings=128,
        max_relative_positions=-1,
        model_type="deberta-v2",
        norm_rel_ebd="layer_norm",
        num_attention_heads=4,
        num_hidden_layers=3,
        pad_token_id=0,
        pooler_dropout=0,
        pooler_hidden_act="gelu",
        pooler_hidden_size=32,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        position_buckets=8,
        relative_attention=True,
        share_att_key=True,
        torch_dtype="float32",
        transformers_version="4.38.1",
        type_vocab_size=0,
        **ONE_LABEL,
    )
    write_encoder(
        "tiny-deberta", "DeBERTa-v3: positions in buckets, one projection for content and positions",
        vocabularies.deberta_v3_unigram(), config, 12, limit=512, max_tokens=128, edges=[5, 9], type_ids=True,
        roles=BERT_ROLES | dict(bos_token="[CLS]", eos_token="[SEP]"),
        mistakes=[
            dict(max_position_embeddings=100), dict(pooler_hidden_act="tanh"), dict(norm_rel_ebd="none"),
            dict(pos_att_type=["c2p"]), dict(pos_att_type=["p2c"]), dict(layer_norm_eps=1e-2),
        ],
    )


def deberta_v2():
    config = dict(
        architectures=["DebertaV2ForSequenceClassification"],
        attention_head_size=8,
        attention_probs_dropout_prob=0.1,
        embedding_size=24,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        hidden_size=32,
        initializer_range=0.02,
        intermediate_size=64,
        layer_norm_eps=1e-07,
        max_position_embeddings=96,
        max_relative_positions=12,
        model_type="deberta-v2",
        num_attention_heads=4,
        num_hidden_layers=2,
        pad_token_id=0,
        pooler_dropout=0,
        pooler_hidden_act="tanh",
        pooler_hidden_size=32,
        pos_att_type="p2c|c2p",
        position_biased_input=True,
        position_buckets=-1,
        relative_attention=True,
        share_att_key=False,
        dtype="float32",
        transformers_version="5.23.0",
        type_vocab_size=2,
        sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity", "version": "6.2.0"},
        **ONE_LABEL,
    )
    write_encoder(
        "tiny-deberta-v2", "DeBERTa-v2: no buckets, own projections of positions, absolute positions and token "
        "types too, embeddings narrower than the layers",
        vocabularies.deberta_v2_unigram(), config, 13, limit=96, max_tokens=96, edges=[12, 13], type_ids=True,
        roles=BERT_ROLES | dict(bos_token="[CLS]", eos_token="[SEP]"),
        mistakes=[dict(pooler_hidden_act="gelu"), dict(pos_att_type="c2p"), dict(position_biased_input=False)],
    )


def distilbert():
    config = dict(
        activation="gelu",
        architectures=["DistilBertForSequenceClassification"],
        attention_dropout=0.1,
        dim=32,
        dropout=0.1,
        hidden_dim=64,
        initializer_range=0.02,
        max_position_embeddings=128,
        model_type="distilbert",
        n_heads=4,
        n_layers=2,
        pad_token_id=0,
        qa_dropout=0.1,
        seq_classif_dropout=0.2,
        sinusoidal_pos_embds=False,
        tie_weights_=True,
        torch_dtype="float32",
        transformers_version="4.34.0",
        **ONE_LABEL,
    )
    write_encoder(
        "tiny-distilbert", "DistilBERT: no token types, ReLU in the head", vocabularies.wordpiece(), config, 14,
        limit=512, roles=BERT_ROLES, max_tokens=128, mistakes=[dict(activation="relu")],
    )


def bert_like(kind, **keys):
    return dict(
        architectures=[f"{kind}ForSequenceClassification"],
        attention_probs_dropout_prob=0.1,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        hidden_size=32,
        initializer_range=0.02,
        intermediate_size=64,
        layer_norm_eps=1e-12,
        max_position_embeddings=128,
        model_type=kind.lower(),
        num_attention_heads=4,
        num_hidden_layers=2,
        pad_token_id=0,
        torch_dtype="float32",
        transformers_version="4.34.0",
        type_vocab_size=2,
    ) | keys


def electra():
    config = bert_like(
        "Electra",
        classifier_dropout=None,
        embedding_size=24,
        position_embedding_type="absolute",
        summary_activation="gelu",
        summary_last_dropout=0.1,
        summary_type="first",
        summary_use_proj=True,
        use_cache=True,
        **ONE_LABEL,
    )
    write_encoder(
        "tiny-electra", "ELECTRA: embeddings narrower than the layers, GELU in the head", vocabularies.wordpiece(),
        config, 15, limit=512, roles=BERT_ROLES, max_tokens=128, type_ids=True,
        mistakes=[dict(hidden_act="relu"), dict(layer_norm_eps=1e-2)],
    )


def two_label():
    config = bert_like("Electra", embedding_size=32, position_embedding_type="absolute")
    write_encoder(
        "tiny-two-label", "ELECTRA of two labels, which config.json does not name", vocabularies.wordpiece(), config,
        16, limit=64, roles=BERT_ROLES, max_tokens=64, type_ids=True,
    )


def nli():
    labels = ["contradiction", "entailment", "neutral"]
    config = bert_like(
        "Bert",
        gradient_checkpointing=False,
        id2label={str(i): label for i, label in enumerate(labels)},
        label2id={label: i for i, label in enumerate(labels)},
        position_embedding_type="absolute",
        use_cache=True,
    )
    write_encoder(
        "tiny-nli", "BERT of three labels", vocabularies.wordpiece(), config, 17, limit=64, roles=BERT_ROLES,
        max_tokens=64, type_ids=True,
    )


def mpnet():
    config = bert_like(
        "MPNet",
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-05,
        max_position_embeddings=162,
        pad_token_id=1,
        relative_attention_num_buckets=32,
        **ONE_LABEL,
    )
    config.pop("type_vocab_size")
    write_encoder(
        "tiny-mpnet", "MPNet: biases of relative positions in buckets, which every layer shares",
        vocabularies.mpnet_wordpiece(), config, 18, limit=512, roles=ROBERTA_ROLES | dict(unk_token="[UNK]"),
        max_tokens=160, edges=[8, 9, 128, 129], mistakes=[dict(layer_norm_eps=1e-2), dict(hidden_act="relu")],
    )


def albert():
    config = bert_like(
        "Albert",
        attention_probs_dropout_prob=0,
        bos_token_id=2,
        classifier_dropout_prob=0.1,
        down_scale_factor=1,
        embedding_size=24,
        eos_token_id=3,
        gap_size=0,
        hidden_act="gelu_new",
        hidden_dropout_prob=0,
        inner_group_num=1,
        layers_to_keep=[],
        net_structure_type=0,
        num_hidden_groups=1,
        num_hidden_layers=3,
        num_memory_blocks=0,
        **ONE_LABEL,
    )
    write_encoder(
        "tiny-albert", "ALBERT: one layer's weights used three times, embeddings narrower than the layers, tanh "
        "approximation of GELU", vocabularies.albert_unigram(), config, 19, limit=512, max_tokens=128, type_ids=True,
        roles=BERT_ROLES | dict(bos_token="[CLS]", eos_token="[SEP]", unk_token="<unk>", pad_token="<pad>"),
        mistakes=[dict(num_hidden_layers=2), dict(hidden_act="gelu")],
    )


def camembert():
    config = bert_like(
        "Camembert",
        bos_token_id=5,
        eos_token_id=6,
        layer_norm_eps=1e-05,
        max_position_embeddings=130,
        pad_token_id=1,
        type_vocab_size=1,
        **ONE_LABEL,
    )
    write_encoder(
        "tiny-camembert", "CamemBERT: RoBERTa's layers behind a sentencepiece vocabulary whose <s> is not 0",
        vocabularies.camembert_unigram(), config, 20, limit=512, roles=ROBERTA_ROLES, max_tokens=128,
        mistakes=[dict(layer_norm_eps=1e-2)],
    )
