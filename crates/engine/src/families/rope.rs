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
    let trained = match config.size_or_none(TRAINED)? {
        Some(trained) => Some(trained),
        None => settings.size_or_none(TRAINED)?,
    };
    let scaling = Scaling {
        settings: &settings,
        theta,
        trained: trained.unwrap_or(longest) as f64,
    };
    // What has no default, since a model that is stretched otherwise than in training gives other scores.
    let must = |kind: &str, given: bool, name: &str| match given {
        true => Ok(()),
        false => Err(format!(
            "{name} of the rope settings is missing, without which rope type \"{kind}\" is not known"
        )),
    };
    let has = |name: &str| !settings.0[name].is_null();
    let (frequencies, scale) = match kind.as_deref() {
        // It grows with sequences longer than `longest` only.
        Some("default" | "dynamic") => (plain, 1.0),
        None if !has("factor") => (plain, 1.0),
        None => {
            return Err(
                "rope_type of the rope settings is missing, though they have a factor".into(),
            );
        }
        Some(kind @ "linear") => {
            must(kind, has("factor"), "factor")?;
            let factor = settings.positive("factor", 1.0)? as f32;
            (plain.iter().map(|f| f / factor).collect(), 1.0)
        }
        Some(kind @ "llama3") => {
            for name in ["factor", "low_freq_factor", "high_freq_factor"] {
                must(kind, has(name), name)?;
            }
            must(kind, trained.is_some(), TRAINED)?;
            (scaling.llama3(&plain)?, 1.0)
        }
        Some(kind @ "yarn") => {
            must(kind, has("factor") || trained.is_some(), "factor")?;
            scaling.yarn(size, longest)?
        }
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

/// The field that says how long the sequences of training were.
const TRAINED: &str = "original_max_position_embeddings";

struct Scaling<'a> {
    settings: &'a Config,
    theta: f64,
    /// Length of the sequences of training.
    trained: f64,
}

impl Scaling<'_> {
    /// Long waves are stretched, short ones are not, and those between by parts (Llama 3.1, 2024, as transformers
    /// computes it).
    fn llama3(&self, plain: &[f32]) -> Result<Vec<f32>, String> {
        let factor = self.settings.positive("factor", 1.0)?;
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
        let factor = self
            .settings
            .positive("factor", longest as f64 / self.trained)?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_stretching_depends_on_must_be_there() {
        let read = |scaling: Value| {
            let config = json!({"max_position_embeddings": 64, "rope_scaling": scaling});
            super::read(&Config(config), 8, 64)
        };
        let llama3 = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32
        });
        let yarn = json!({"type": "yarn", "factor": 2.0});
        for scaling in [&llama3, &yarn, &json!(null), &json!({"type": "dynamic"})] {
            read(scaling.clone()).unwrap();
        }
        let without = |scaling: &Value, name: &str| {
            let mut scaling = scaling.clone();
            scaling.as_object_mut().unwrap().remove(name);
            (scaling, name.to_owned())
        };
        let names = llama3.as_object().unwrap().keys();
        let mut all: Vec<_> = names.map(|name| without(&llama3, name)).collect();
        all.push(without(&yarn, "factor"));
        all.push(without(&json!({"type": "linear", "factor": 2.0}), "factor"));
        for (scaling, name) in all {
            let error = read(scaling).unwrap_err();
            assert!(
                error.starts_with(&format!("{name} of the rope settings")),
                "{error}"
            );
        }
        let stretched = json!({"type": "yarn", "original_max_position_embeddings": 32});
        assert_eq!(
            read(stretched).unwrap(),
            read(json!({"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}))
                .unwrap()
        );
        for kind in ["longrope", "su"] {
            let error = read(json!({"type": kind, "short_factor": [1.0], "long_factor": [1.0]}));
            let error = error.unwrap_err();
            assert!(
                error.contains(kind) && error.contains("not supported"),
                "{error}"
            );
        }
    }
}
