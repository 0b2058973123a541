//! The angles of decoders' rotary embeddings: settings as transformers 4 and 5 write them, and the ways of stretching
//! them to sequences longer than those of training.

use std::f64::consts::TAU;

use serde_json::Value;

use super::super::arch::Rotary;
use super::{Config, frequencies};

/// Reads the rotation of heads of `size` values, of a model for sequences up to `longest`.
pub(super) fn read(config: &Config, size: usize, longest: usize) -> Result<Rotary, String> {
    // transformers 5 has all in one object; 4 has the base beside it, and the object only where there is scaling.
    let of = |name: &str| match &config.0[name] {
        Value::Null => None,
        settings => Some(Config(settings.clone())),
    };
    let settings = of("rope_parameters").or_else(|| of("rope_scaling"));
    let settings = settings.unwrap_or(Config(Value::Null));
    let beside = config.positive("rope_theta", 10_000.0)?;
    let theta = settings.positive("rope_theta", beside)?;
    for config in [config, &settings] {
        if config.number("partial_rotary_factor", 1.0)? != 1.0 {
            return Err("partial_rotary_factor other than 1 is not supported".into());
        }
    }
    let kind: Option<String> = match settings.optional("rope_type", "a text")? {
        Some(kind) => Some(kind),
        None => settings.optional("type", "a text")?,
    };
    let plain = frequencies(theta, size);
    let trained = settings.size_or("original_max_position_embeddings", longest)?;
    let scaling = Scaling {
        settings: &settings,
        theta,
        trained: trained as f64,
    };
    let (frequencies, scale) = match kind.as_deref() {
        // It grows with sequences longer than `longest` only.
        None | Some("default" | "dynamic") => (plain, 1.0),
        Some("linear") => {
            let factor = scaling.factor(None)? as f32;
            (plain.iter().map(|f| f / factor).collect(), 1.0)
        }
        Some("llama3") => (scaling.llama3(&plain)?, 1.0),
        Some("yarn") => scaling.yarn(size, longest)?,
        Some(other) => {
            return Err(format!(
                "rope type \"{other}\" is not supported; rerankd has default, dynamic, linear, llama3 and yarn"
            ));
        }
    };
    Ok(Rotary {
        frequencies,
        local_frequencies: None,
        scale,
    })
}

struct Scaling<'a> {
    settings: &'a Config,
    theta: f64,
    /// Length of the sequences of training.
    trained: f64,
}

impl Scaling<'_> {
    fn factor(&self, default: Option<f64>) -> Result<f64, String> {
        match (self.settings.0.get("factor"), default) {
            (None | Some(Value::Null), None) => {
                Err("factor of the rope settings is missing".into())
            }
            _ => self.settings.positive("factor", default.unwrap_or(1.0)),
        }
    }

    /// Long waves are stretched, short ones are not, and those between by parts (Llama 3.1, 2024, as transformers
    /// computes it).
    fn llama3(&self, plain: &[f32]) -> Result<Vec<f32>, String> {
        let factor = self.factor(None)?;
        let low = self.settings.positive("low_freq_factor", 1.0)?;
        let high = self.settings.positive("high_freq_factor", 4.0)?;
        if high <= low {
            return Err(format!(
                "high_freq_factor is {high}, but it must be above low_freq_factor {low}"
            ));
        }
        let scaled = plain.iter().map(|&frequency| {
            let frequency = f64::from(frequency);
            let waves = self.trained * frequency / TAU;
            let share = ((waves - low) / (high - low)).clamp(0.0, 1.0);
            ((1.0 - share) * frequency / factor + share * frequency) as f32
        });
        Ok(scaled.collect())
    }

    /// By parts too, and scores grow a little with the stretching (Peng et al., 2023,
    /// <https://arxiv.org/abs/2309.00071>).
    fn yarn(&self, size: usize, longest: usize) -> Result<(Vec<f32>, f32), String> {
        let factor = self.factor(Some(longest as f64 / self.trained))?;
        let growth = |weight: f64| match factor <= 1.0 {
            true => 1.0,
            false => 0.1 * weight * factor.ln() + 1.0,
        };
        let [one, all] = ["mscale", "mscale_all_dim"];
        let (one, all) = (
            self.settings.number(one, 0.0)?,
            self.settings.number(all, 0.0)?,
        );
        let scale = match one != 0.0 && all != 0.0 {
            true => growth(one) / growth(all),
            false => growth(1.0),
        };
        let scale = self.settings.positive("attention_factor", scale)?;
        // The pair of values that turns so often within the sequences of training.
        let pair = |turns: f64| {
            size as f64 * (self.trained / (turns * TAU)).ln() / (2.0 * self.theta.ln())
        };
        let low = pair(self.settings.positive("beta_fast", 32.0)?);
        let high = pair(self.settings.positive("beta_slow", 1.0)?);
        let (low, high) = match self.settings.flag("truncate", true)? {
            true => (low.floor(), high.ceil()),
            false => (low, high),
        };
        let (low, mut high) = (low.max(0.0), high.min(size as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        let scaled = (0..size / 2).map(|i| {
            let power = self.theta.powf(2.0 * i as f64 / size as f64);
            let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            (stretched / (factor * power) + (1.0 - stretched) / power) as f32
        });
        Ok((scaled.collect(), scale as f32))
    }
}
