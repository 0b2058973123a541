//! RoBERTa and XLM-RoBERTa sequence classifiers: BAAI/bge-reranker-base, -large, -v2-m3 and others.
//!
//! Liu et al., 2019 (<https://arxiv.org/abs/1907.11692>), Conneau et al., 2019
//! (<https://arxiv.org/abs/1911.02116>); checkpoint names and the head (dense, tanh, out_proj) as
//! transformers' `XLMRobertaForSequenceClassification`.

use candle_core::Device;
use candle_nn::Activation;
use candle_transformers::models::xlm_roberta::{
    Config as CandleConfig, XLMRobertaForSequenceClassification,
};

use crate::types::{Batch, ModelSpec, Output};

use super::super::load::{Names, open};
use super::super::padded::forward_padded;
use super::super::registry::{Config, HiddenActivation};
use super::super::{EngineError, LoadError, Model, Weights};

/// On candle-transformers' own model, in padded rectangles.
pub(in crate::engine) struct XlmRoberta {
    spec: ModelSpec,
    classifier: XLMRobertaForSequenceClassification,
    pad_token_id: u32,
    device: Device,
}

/// Where the checkpoint keeps what.
pub(in crate::engine) fn names(pad_token_id: u32) -> Names {
    Names {
        encoder: "roberta",
        dense: "classifier.dense",
        output: "classifier.out_proj",
        padding_id: Some(pad_token_id),
    }
}

impl XlmRoberta {
    pub(in crate::engine) fn load(
        config: &Config,
        pad_token_id: u32,
        spec: ModelSpec,
        weights: &Weights,
        device: &Device,
    ) -> Result<Self, LoadError> {
        let h = config.hidden_size;
        let vb = open(weights, config, names(pad_token_id), device)?;
        let hidden_act = match config.hidden_activation()? {
            HiddenActivation::Gelu => Activation::Gelu,
            HiddenActivation::GeluTanh => Activation::NewGelu,
            HiddenActivation::Relu => Activation::Relu,
        };
        let candle_config = CandleConfig {
            hidden_size: h,
            layer_norm_eps: config.layer_norm_eps,
            attention_probs_dropout_prob: 0.0,
            hidden_dropout_prob: 0.0,
            num_attention_heads: config.num_attention_heads,
            position_embedding_type: "absolute".into(),
            intermediate_size: config.intermediate_size,
            hidden_act,
            num_hidden_layers: config.num_hidden_layers,
            vocab_size: config.vocab_size,
            max_position_embeddings: config.max_position_embeddings,
            type_vocab_size: config.type_vocab_size,
            pad_token_id,
        };
        let classifier = XLMRobertaForSequenceClassification::new(1, &candle_config, vb)
            .map_err(|e| weights.error(&e))?;
        Ok(Self {
            spec,
            classifier,
            pad_token_id,
            device: device.clone(),
        })
    }
}

impl Model for XlmRoberta {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError> {
        forward_padded(batch, self.pad_token_id, &self.device, |input| {
            self.classifier
                .forward(&input.ids, &input.mask, &input.type_ids)?
                .squeeze(1)
        })
    }
}
