//! What models run on: a CPU's threads and kernels, or another device. Models share it.

use std::sync::Arc;

use rerankd_kernels::{Kernels, Team};

use crate::Dtype;

use super::error::LoadError;
use super::pin::pin;

/// Names of instruction sets in the settings; a CPU need not have each.
pub const INSTRUCTIONS: [&str; 6] = ["auto", "amx", "avx512", "avx2", "neon", "portable"];

/// Where and how models run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Threads of the engine on a CPU.
    pub threads: usize,
    /// `auto`, or the instruction set to use on a CPU: `amx` (AVX-512 with tiles), `avx512`, `avx2`, `neon` or
    /// `portable`.
    pub instructions: String,
    /// Whether each of the threads stays on one CPU.
    pub pin: bool,
}

/// What any number of models run on. A clone is the same threads, or the same device.
#[derive(Debug, Clone)]
pub struct Device {
    name: Arc<str>,
    pub(super) kind: Kind,
}

/// A device.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// This machine's own: one team of threads, whose rounds the models take in turn.
    Cpu { team: Arc<Team>, kernels: Kernels },
    /// One of candle's.
    Other(candle_core::Device),
}

impl Device {
    /// Starts the threads, or opens the device.
    ///
    /// # Errors
    /// If the device, or its instruction set, is not there.
    pub fn new(options: &Options) -> Result<Self, LoadError> {
        let error = |reason: String| LoadError::Device {
            device: options.device.clone(),
            reason,
        };
        let ordinal = ordinal(&options.device);
        let ordinal = ordinal.map_err(|()| error("is none of cpu, cuda and cuda:N".into()))?;
        let kind = match ordinal {
            None => {
                let kernels = Kernels::named(&options.instructions)?;
                let team = Team::new(options.threads).map_err(|e| error(e.to_string()))?;
                if options.pin {
                    pin(&team).map_err(LoadError::Pin)?;
                }
                Kind::Cpu {
                    kernels,
                    team: Arc::new(team),
                }
            }
            Some(_) if !candle_core::utils::cuda_is_available() => {
                return Err(error(
                    "this rerankd was built without CUDA; build it with --features cuda, or use --device cpu"
                        .into(),
                ));
            }
            Some(ordinal) => {
                let device = candle_core::Device::new_cuda(ordinal);
                Kind::Other(device.map_err(|e| error(e.to_string()))?)
            }
        };
        Ok(Self {
            name: options.device.as_str().into(),
            kind,
        })
    }

    /// The device's name in settings and logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many threads there are; `None` if the device is not a CPU.
    #[must_use]
    pub fn threads(&self) -> Option<usize> {
        match &self.kind {
            Kind::Cpu { team, .. } => Some(team.threads()),
            Kind::Other(_) => None,
        }
    }

    /// The instruction set that is used; `None` if the device is not a CPU.
    #[must_use]
    pub fn instructions(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Cpu { kernels, .. } => Some(kernels.name()),
            Kind::Other(_) => None,
        }
    }

    /// What products with weights of this type are computed in, and by what; `None` if the device is not a CPU.
    #[must_use]
    pub fn arithmetic(&self, dtype: Dtype) -> Option<&'static str> {
        match &self.kind {
            Kind::Cpu { kernels, .. } => Some(kernels.arithmetic(dtype)),
            Kind::Other(_) => None,
        }
    }

    /// Whether products with weights of this type are computed in f32, so that only their rounding can change anything.
    pub(super) fn multiplies_in_f32(&self, dtype: Dtype) -> bool {
        match &self.kind {
            Kind::Cpu { kernels, .. } => kernels.multiply_in_f32(dtype),
            Kind::Other(_) => dtype == Dtype::F32,
        }
    }

    /// Refuses a type that there are no kernels for.
    pub(super) fn takes(&self, dtype: Dtype) -> Result<(), LoadError> {
        match self.kind {
            Kind::Other(_) if dtype != Dtype::F32 => Err(LoadError::Device {
                device: self.name.to_string(),
                reason: format!("runs f32 only so far, not {}", dtype.name()),
            }),
            _ => Ok(()),
        }
    }
}

/// The number of a CUDA device's name, `None` for the CPU; an error if it is no device's name.
fn ordinal(device: &str) -> Result<Option<usize>, ()> {
    match device {
        "cpu" => Ok(None),
        "cuda" => Ok(Some(0)),
        other => {
            let number = other.strip_prefix("cuda:").ok_or(())?;
            number.parse().map(Some).map_err(drop)
        }
    }
}

/// Whether a text has the form of a device's name: `cpu`, `cuda` or `cuda:N`.
#[must_use]
pub fn is_device(name: &str) -> bool {
    ordinal(name).is_ok()
}
