//! What makes outputs of hidden states.

use rerankd_kernels::Activation;

/// From the hidden states to the labels' logits, or to vectors.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Head {
    pub(in super::super) pooling: Pooling,
    /// Where there are labels, the last is a linear layer with an output for each.
    pub(in super::super) steps: Vec<Step>,
    /// What the outputs mean; none if they are vectors.
    pub(in super::super) labels: Vec<String>,
}

/// Which hidden state of a sequence the head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Pooling {
    /// The first token's. So the last layer is computed for first tokens only.
    First,
    /// The last token's; likewise.
    Last,
    /// The mean of all.
    Mean,
    /// What a decoder says first, which sees all.
    Decoder(Decoder),
}

/// A decoder behind the encoder, as wide, with as many heads and the same feed-forward part. Only its first position
/// is computed, at which it has been given nothing but one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Decoder {
    /// Layers; at least one.
    pub(in super::super) layers: usize,
    /// That token.
    pub(in super::super) start: u32,
}

impl Pooling {
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::First => "cls",
            Self::Last => "last",
            Self::Mean => "mean",
            Self::Decoder(_) => "decoder",
        }
    }

    /// Whether the head reads some tokens only, so that the last layer is computed for nothing else.
    pub(in super::super) fn is_of_tokens(self) -> bool {
        matches!(self, Self::First | Self::Last)
    }

    /// The decoder, if there is one.
    pub(in super::super) fn decoder(self) -> Option<Decoder> {
        match self {
            Self::Decoder(decoder) => Some(decoder),
            Self::First | Self::Last | Self::Mean => None,
        }
    }
}

/// A step of the head, and what its tensors' names begin with.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Step {
    pub(in super::super) tensor: String,
    pub(in super::super) kind: StepKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum StepKind {
    Linear {
        outputs: usize,
        bias: bool,
        activation: Activation,
        /// Whether what goes in, or a product with it if the widths differ, is added; without an activation only.
        residual: bool,
    },
    Norm {
        epsilon: f64,
        bias: bool,
    },
    /// One output: the product with a row of a table, less that with another.
    Answer {
        row: u32,
        minus: Option<u32>,
    },
    /// Outputs are limited to ± this, smoothly: `cap tanh(x / cap)`.
    Cap(f32),
    /// Outputs are multiplied.
    Scale(f32),
}

impl Step {
    /// Where a linear layer's second one is, whose products are added.
    pub(in super::super) fn residual(&self) -> String {
        let path = self.tensor.rsplit_once('/').map_or("", |(path, _)| path);
        format!("{path}/residual")
    }

    pub(in super::super) fn linear(
        tensor: impl Into<String>,
        outputs: usize,
        bias: bool,
        activation: Activation,
    ) -> Self {
        Self {
            tensor: tensor.into(),
            kind: StepKind::Linear {
                outputs,
                bias,
                activation,
                residual: false,
            },
        }
    }

    pub(in super::super) fn norm(tensor: impl Into<String>, epsilon: f64, bias: bool) -> Self {
        Self {
            tensor: tensor.into(),
            kind: StepKind::Norm { epsilon, bias },
        }
    }
}

impl Head {
    /// Values in a row of its outputs, made of hidden states of `hidden_size`.
    pub(in super::super) fn width(&self, hidden_size: usize) -> usize {
        let of_step = |step: &Step| match step.kind {
            StepKind::Linear { outputs, .. } => Some(outputs),
            StepKind::Answer { .. } => Some(1),
            StepKind::Norm { .. } | StepKind::Cap(_) | StepKind::Scale(_) => None,
        };
        let last = self.steps.iter().rev().find_map(of_step);
        last.unwrap_or(hidden_size)
    }

    /// Its steps, as a log says them.
    pub(in super::super) fn describe(&self) -> String {
        let steps = self.steps.iter().map(|step| match step.kind {
            StepKind::Norm { .. } => "norm",
            StepKind::Answer { minus: None, .. } => "token's logit",
            StepKind::Answer { .. } => "difference of two tokens' logits",
            StepKind::Cap(_) => "cap",
            StepKind::Scale(_) => "scale",
            StepKind::Linear { activation, .. } => match activation {
                Activation::None => "linear",
                Activation::Gelu => "linear + gelu",
                Activation::GeluTanh => "linear + gelu_tanh",
                Activation::QuickGelu => "linear + quick_gelu",
                Activation::Relu => "linear + relu",
                Activation::Silu => "linear + silu",
                Activation::Tanh => "linear + tanh",
            },
        });
        steps.collect::<Vec<_>>().join(", ")
    }
}
