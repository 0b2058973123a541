//! BERT sequence classifiers: cross-encoder/ms-marco-*, mixedbread and others.
//!
//! Devlin et al., 2018 (<https://arxiv.org/abs/1810.04805>); checkpoint names and the head (pooler,
//! tanh, classifier) as transformers' `BertForSequenceClassification`.

use candle_core::{Device, Module, Tensor};
use candle_nn::Linear;
use candle_transformers::models::bert::{BertModel, Config as CandleConfig, HiddenAct};

use crate::types::{Batch, ModelSpec, Output};

use super::super::load::{Names, open};
use super::super::padded::{Padded, forward_padded};
use super::super::registry::{Config, HiddenActivation};
use super::super::{EngineError, LoadError, Model, Weights};

/// On candle-transformers' own model, in padded rectangles.
pub(in crate::engine) struct Bert {
    spec: ModelSpec,
    encoder: BertModel,
    pooler: Linear,
    classifier: Linear,
    device: Device,
}

/// Where the checkpoint keeps what.
pub(in crate::engine) const NAMES: Names = Names {
    encoder: "bert",
    dense: "bert.pooler.dense",
    output: "classifier",
    padding_id: None,
};

impl Bert {
    pub(in crate::engine) fn load(
        config: &Config,
        spec: ModelSpec,
        weights: &Weights,
        device: &Device,
    ) -> Result<Self, LoadError> {
        let h = config.hidden_size;
        let vb = open(weights, config, NAMES, device)?;
        let failed = |e: candle_core::Error| weights.error(&e);

        let hidden_act = match config.hidden_activation()? {
            HiddenActivation::Gelu => HiddenAct::Gelu,
            HiddenActivation::GeluTanh => HiddenAct::GeluApproximate,
            HiddenActivation::Relu => HiddenAct::Relu,
        };
        let candle_config = CandleConfig {
            vocab_size: config.vocab_size,
            hidden_size: h,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            intermediate_size: config.intermediate_size,
            hidden_act,
            max_position_embeddings: config.max_position_embeddings,
            type_vocab_size: config.type_vocab_size,
            layer_norm_eps: config.layer_norm_eps,
            pad_token_id: config.pad_token_id.unwrap_or(0) as usize,
            ..CandleConfig::default()
        };
        Ok(Self {
            spec,
            encoder: BertModel::load(vb.pp("bert"), &candle_config).map_err(failed)?,
            pooler: candle_nn::linear(h, h, vb.pp("bert.pooler.dense")).map_err(failed)?,
            classifier: candle_nn::linear(h, 1, vb.pp("classifier")).map_err(failed)?,
            device: device.clone(),
        })
    }

    /// Logits of one padded batch, `[pairs]`.
    fn logits(&self, input: &Padded) -> candle_core::Result<Tensor> {
        // [pairs, tokens, hidden]
        let hidden = self
            .encoder
            .forward(&input.ids, &input.type_ids, Some(&input.mask))?;
        let first = hidden.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?; // [pairs, hidden]
        let pooled = self.pooler.forward(&first)?.tanh()?;
        self.classifier.forward(&pooled)?.squeeze(1)
    }
}

impl Model for Bert {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError> {
        // Masked positions are out of reach, so any id serves as padding.
        forward_padded(batch, 0, &self.device, |input| self.logits(input))
    }
}
