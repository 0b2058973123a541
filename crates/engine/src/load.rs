//! From a model's files to the model.

use crate::{Dtype, ModelSpec};

use super::Model;
use super::checkpoint::Checkpoint;
use super::device::{Device, Kind};
use super::error::LoadError;
use super::families::{Described, describe};
use super::files::ModelFiles;
use super::packed::PackedEncoder;
use super::padded::PaddedEncoder;

/// Does what [`load`] does before it opens the weights.
///
/// # Errors
/// As [`load`].
pub fn check(files: &ModelFiles, dtype: Dtype, device: &Device) -> Result<ModelSpec, LoadError> {
    Ok(checked(files, dtype, device)?.spec())
}

fn checked(files: &ModelFiles, dtype: Dtype, device: &Device) -> Result<Described, LoadError> {
    device.takes(dtype)?;
    let described = describe(files)?;
    if let Kind::Other(_) = device.kind {
        PaddedEncoder::takes(&described, device.name())?;
    }
    Ok(described)
}

/// Checks the weights' names and shapes as [`load`] does, and reads no values. Returns how many bytes they take at least,
/// kept in `dtype`.
///
/// # Errors
/// As [`load`].
pub fn check_weights(files: &ModelFiles, dtype: Dtype) -> Result<u64, LoadError> {
    let described = describe(files)?;
    Ok(Checkpoint::open(files, &described, dtype)?.least_bytes(dtype))
}

/// What should be known of weights that hold more layers than are used. Reads no values; what is wrong with them is left
/// to [`load`].
#[must_use]
pub fn unused_layers(files: &ModelFiles) -> Option<String> {
    let described = describe(files).ok()?;
    let checkpoint = Checkpoint::open(files, &described, Dtype::F32).ok()?;
    Some(format!(
        "the weights hold {} layers, but config.json says {}; the others are not used",
        checkpoint.layers?, described.arch.layers
    ))
}

/// The type that suits a model's weights, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suits {
    /// The type.
    pub dtype: Dtype,
    /// Why, in some words.
    pub why: &'static str,
}

/// What the weights of a model are best kept in on a device where nobody says: what its files name, else what takes
/// the least memory without changing a score, which is the half-precision type that they are stored in, if any, and
/// else f32. Opens the weights and reads no values; what is wrong with them is left to [`load`].
#[must_use]
pub fn suits(files: &ModelFiles, device: &Device) -> Suits {
    const STORED: &str = "as its weights are stored";
    let f32_since = |why| Suits {
        dtype: Dtype::F32,
        why,
    };
    if let Kind::Other(_) = device.kind {
        return f32_since("the only type on this device");
    }
    if let Some(dtype) = files.dtype {
        return Suits { dtype, why: STORED };
    }
    let half = describe(files)
        .and_then(|described| Checkpoint::open(files, &described, Dtype::F32))
        .map(|checkpoint| checkpoint.half());
    match half {
        Ok(Some(dtype)) if device.multiplies_in_f32(dtype) => Suits { dtype, why: STORED },
        Ok(Some(_)) => f32_since(
            "since this machine multiplies in the type of its weights, which is less exact",
        ),
        Ok(None) | Err(_) => f32_since("exact"),
    }
}

/// Reads, checks and loads a model; its weights are kept in `dtype`.
///
/// # Errors
/// [`LoadError`], which names the file and, where it applies, the tensor.
pub fn load(
    files: &ModelFiles,
    dtype: Dtype,
    device: &Device,
) -> Result<Box<dyn Model>, LoadError> {
    let described = checked(files, dtype, device)?;
    let checkpoint = Checkpoint::open(files, &described, dtype)?;
    Ok(match &device.kind {
        Kind::Cpu { team, kernels } => {
            let team = team.clone();
            let packed = PackedEncoder::load(&described, &checkpoint, dtype, *kernels, team)?;
            Box::new(packed)
        }
        Kind::Other(device) => Box::new(PaddedEncoder::load(&described, &checkpoint, device)?),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::device::Options;
    use super::super::files::{ModelFile, Task, Weights};
    use super::*;
    use crate::{Batch, Sequence};

    const MODELS: [&str; 2] = ["tiny-bert", "tiny-xlmr"];

    fn files(name: &str) -> ModelFiles {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
        let folder = folder.join(name);
        let shards = ["model-00001-of-00002", "model-00002-of-00002"];
        let weights: Vec<_> = match name {
            "tiny-bert" => vec![folder.join("model.safetensors")],
            _ => shards
                .map(|s| folder.join(format!("{s}.safetensors")))
                .into(),
        };
        ModelFiles {
            name: name.into(),
            revision: None,
            note: None,
            dtype: None,
            config: ModelFile::Disk(folder.join("config.json")),
            weights: Weights::Safetensors(weights),
            modules: Vec::new(),
            task: Task::Labels,
            cutoff_layer: None,
            compression: None,
            others: BTreeMap::new(),
        }
    }

    fn cpu() -> Device {
        let options = Options {
            device: "cpu".into(),
            threads: 2,
            instructions: "auto".into(),
            pin: false,
        };
        Device::new(&options).unwrap()
    }

    fn batch() -> Batch {
        let sequence = |length: usize| {
            let ids = (0..length).map(|i| (5 + (i * 37 + length) % 300) as u32);
            Sequence::new(ids.collect(), vec![0; length])
        };
        Batch::pack(&[5, 70, 6, 90, 41].map(sequence))
    }

    /// On other devices a model is another program; on a CPU it must agree with the kernels.
    #[test]
    fn padded_and_packed_engines_give_the_same_logits() {
        for name in MODELS {
            let files = files(name);
            let mut packed = load(&files, Dtype::F32, &cpu()).unwrap();
            let described = describe(&files).unwrap();
            let checkpoint = Checkpoint::open(&files, &described, Dtype::F32).unwrap();
            let device = candle_core::Device::Cpu;
            let mut padded = PaddedEncoder::load(&described, &checkpoint, &device).unwrap();
            let (a, b) = (
                packed.forward(&batch()).unwrap(),
                padded.forward(&batch()).unwrap(),
            );
            for (a, b) in a.iter().zip(&b) {
                assert!(
                    (a.values()[0] - b.values()[0]).abs() < 1e-4,
                    "{name}: {a:?} {b:?}"
                );
            }
            // Panels may have room for more outputs than there are.
            let (packed, padded) = (packed.weight_bytes(), padded.weight_bytes());
            assert!(packed >= padded && packed < 2 * padded, "{packed} {padded}");
        }
    }

    #[test]
    fn models_share_the_threads_even_when_they_run_at_once() {
        let device = cpu();
        let expected = MODELS.map(|name| {
            let mut alone = load(&files(name), Dtype::F32, &cpu()).unwrap();
            alone.forward(&batch()).unwrap()
        });
        std::thread::scope(|scope| {
            for (name, expected) in MODELS.iter().zip(&expected) {
                let mut model = load(&files(name), Dtype::F32, &device).unwrap();
                scope.spawn(move || {
                    for _ in 0..50 {
                        assert_eq!(&model.forward(&batch()).unwrap(), expected);
                    }
                });
            }
        });
    }

    #[test]
    fn fewer_bits_take_less_memory() {
        let bytes = |dtype| {
            let model = load(&files("tiny-xlmr"), dtype, &cpu()).unwrap();
            model.weight_bytes()
        };
        let [full, half, quarter] = [Dtype::F32, Dtype::F16, Dtype::Int8].map(bytes);
        assert!(
            half < full * 3 / 4 && quarter <= half,
            "{full} {half} {quarter}"
        );
    }
}
