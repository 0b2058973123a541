//! The head of modules that sentence-transformers puts behind a transformer: pooling, then linear layers and norms,
//! each in a folder of its own, the last with one score (its `custom_models` documentation; cross-encoder/ettin-*).

use std::collections::BTreeMap;

use rerankd_kernels::Activation;
use serde_json::Value;

use super::super::arch::{Head, Pooling, Step, StepKind};
use super::super::error::{LoadError, file_error};
use super::super::files::Module;
use super::{Config, MOST_LABELS, at_most};

/// The head of modules, in their order, on hidden states of `width`: one that makes scores.
pub(super) fn head(modules: &[Module], width: usize) -> Result<Head, LoadError> {
    let (pooling, steps) = read(modules, width)?;
    let last = modules.last().map(|module| &module.config);
    let wrong = |reason: &str| match last {
        Some(file) => file_error(file, reason),
        None => file_error("modules.json", reason),
    };
    let Some(pooling) = pooling else {
        return Err(wrong("the modules have no Pooling before the others"));
    };
    let outputs = match steps.last().map(|step| &step.kind) {
        Some(&StepKind::Linear { outputs, .. }) => outputs,
        _ => {
            return Err(wrong(
                "the last module makes an embedding, not scores: the model is no cross-encoder (a Dense with module_output_name \"scores\" would be the last)",
            ));
        }
    };
    at_most("out_features", outputs, MOST_LABELS).map_err(|reason| wrong(&reason))?;
    let labels = match outputs {
        1 => vec!["score".to_owned()],
        n => (0..n).map(|i| format!("LABEL_{i}")).collect(),
    };
    Ok(Head {
        pooling,
        steps,
        labels,
    })
}

/// The head of modules that make vectors: of each token if nothing is pooled.
pub(super) fn vectors(modules: &[Module], width: usize) -> Result<Head, LoadError> {
    let (pooling, steps) = read(modules, width)?;
    Ok(Head {
        pooling: pooling.unwrap_or(Pooling::First),
        steps,
        labels: Vec::new(),
    })
}

/// Which hidden states are pooled, if any are, and the steps after that.
fn read(modules: &[Module], mut width: usize) -> Result<(Option<Pooling>, Vec<Step>), LoadError> {
    let (mut pooling, mut steps) = (None, Vec::new());
    for module in modules {
        let file = &module.config;
        let wrong = |reason: String| file_error(file, reason);
        let config = Config::read(file)?;
        let last = module.kind.rsplit('.').next().unwrap_or_default();
        match last {
            "Pooling" if pooling.is_none() && steps.is_empty() => {
                pooling = Some(pooling_of(&config).map_err(wrong)?);
            }
            "Dense" => {
                let step = dense(&config, &module.path, width).map_err(wrong)?;
                if let StepKind::Linear { outputs, .. } = step.kind {
                    width = outputs;
                }
                steps.push(step);
            }
            "LayerNorm" => {
                let dimension = config.size("dimension").map_err(wrong)?;
                expect("dimension", dimension, width).map_err(wrong)?;
                let tensor = format!("{}/norm", module.path);
                steps.push(Step::norm(tensor, 1e-5, true));
            }
            // Vectors are normalised by those who compare them.
            "Dropout" | "Normalize" | "MultiVectorMask" => {}
            _ => {
                return Err(wrong(format!(
                    "module \"{}\" is not supported here; rerankd runs a Transformer followed by Pooling, Dense and LayerNorm",
                    module.kind
                )));
            }
        }
    }
    Ok((pooling, steps))
}

fn pooling_of(config: &Config) -> Result<Pooling, String> {
    let mode: Option<Value> = config.optional("pooling_mode", "a text or a list of texts")?;
    let modes: Vec<String> = match mode {
        Some(Value::String(mode)) => vec![mode],
        Some(modes) => serde_json::from_value(modes)
            .map_err(|_| "pooling_mode must be a text or a list of texts".to_owned())?,
        // As older versions wrote it.
        None => {
            let all: BTreeMap<String, Value> =
                serde_json::from_value(config.0.clone()).unwrap_or_default();
            let on = all.iter().filter(|(_, value)| **value == Value::Bool(true));
            let modes = on.filter_map(|(name, _)| name.strip_prefix("pooling_mode_"));
            modes
                .map(|mode| {
                    mode.trim_end_matches("_tokens")
                        .trim_end_matches("_token")
                        .to_owned()
                })
                .collect()
        }
    };
    match &modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cls"] => Ok(Pooling::First),
        ["lasttoken"] => Ok(Pooling::Last),
        // Where older files switch none on, it is the mean.
        ["mean"] | [] => Ok(Pooling::Mean),
        other => Err(format!(
            "pooling {} is not supported; rerankd has cls, mean and lasttoken",
            other.join(" with ")
        )),
    }
}

fn dense(config: &Config, path: &str, width: usize) -> Result<Step, String> {
    expect("in_features", config.size("in_features")?, width)?;
    let name: Option<String> = config.optional("activation_function", "a text")?;
    let name = name.unwrap_or_else(|| "torch.nn.modules.activation.Tanh".to_owned());
    let activation = match name.rsplit('.').next().unwrap_or_default() {
        "Identity" => Activation::None,
        "GELU" => Activation::Gelu,
        "ReLU" => Activation::Relu,
        "SiLU" => Activation::Silu,
        "Tanh" => Activation::Tanh,
        _ => {
            return Err(format!(
                "activation_function \"{name}\" is not supported; rerankd has Identity, GELU, ReLU, SiLU and Tanh"
            ));
        }
    };
    let residual = config.flag("use_residual", false)?;
    if residual && activation != Activation::None {
        return Err("use_residual with an activation_function is not supported".into());
    }
    let bias = config.flag("bias", true)?;
    let outputs = config.size("out_features")?;
    Ok(Step {
        tensor: format!("{path}/linear"),
        kind: StepKind::Linear {
            outputs,
            bias,
            activation,
            residual,
        },
    })
}

fn expect(name: &str, found: usize, width: usize) -> Result<(), String> {
    match found == width {
        true => Ok(()),
        false => Err(format!(
            "{name} is {found}, but what goes in has {width} values"
        )),
    }
}
