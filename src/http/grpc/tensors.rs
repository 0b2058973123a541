//! Tensors of the Open Inference Protocol: strings in, numbers out, either typed or as raw bytes.

use bytes::{Buf, Bytes};

use super::inference_messages::{Contents, ModelInferRequest, ModelInferResponse, Tensor};
use crate::http::dialects::open_inference::left_over;
use crate::http::error::{ApiError, shortened};
use crate::rerank::RerankError;

/// A request's inputs.
pub(super) struct Inputs(Vec<(Tensor, Option<Bytes>)>);

impl Inputs {
    /// Takes them out of a request, each with its raw contents if it has such.
    pub(super) fn of(request: &mut ModelInferRequest) -> Result<Self, ApiError> {
        let inputs = std::mem::take(&mut request.inputs);
        let (count, raw) = (inputs.len(), &request.raw_input_contents);
        if !raw.is_empty() && raw.len() != count {
            let detail = format!("there are {} for {count} inputs", raw.len());
            return Err(ApiError::invalid("raw_input_contents", detail));
        }
        let raw = raw.iter().cloned().map(Some).chain(std::iter::repeat(None));
        Ok(Self(inputs.into_iter().zip(raw).collect()))
    }

    /// Whether there is one of a name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(tensor, _)| tensor.name == name)
    }

    /// Takes one's strings, of which there may be so many.
    pub(super) fn strings(&mut self, name: &str, most: usize) -> Result<Vec<String>, ApiError> {
        let place = self.0.iter().position(|(tensor, _)| tensor.name == name);
        let Some(place) = place else {
            let detail = format!(
                "there is no \"{name}\"; \"query\" and \"documents\", or \"query\" and \"passage\", are needed"
            );
            return Err(ApiError::invalid("inputs", detail));
        };
        let (tensor, raw) = self.0.swap_remove(place);
        let wrong =
            |part: &str, detail: String| ApiError::invalid(format!("inputs.{name}{part}"), detail);
        if tensor.datatype != "BYTES" {
            let datatype = shortened(&tensor.datatype);
            let detail = format!("datatype {datatype} can't be read; send BYTES");
            return Err(wrong("", detail));
        }
        // Counted first: each of no bytes would cost many.
        let too_many = |documents| match documents > most {
            true => Err(RerankError::TooManyDocuments {
                documents,
                max: most,
            }),
            false => Ok(()),
        };
        let elements = match raw {
            None => tensor.contents.unwrap_or_default().bytes_contents,
            Some(raw) => {
                too_many(elements(raw.clone()).count())?;
                let elements: Option<Vec<Bytes>> = elements(raw).collect();
                elements.ok_or_else(|| {
                    let detail =
                        "its raw contents must be strings, before each its length in 4 bytes";
                    wrong("", detail.to_owned())
                })?
            }
        };
        too_many(elements.len())?;
        let count = tensor.shape.iter().try_fold(1usize, |count, &size| {
            count.checked_mul(usize::try_from(size).ok()?)
        });
        if count != Some(elements.len()) {
            let detail = format!(
                "{:?} does not fit its {} strings",
                tensor.shape,
                elements.len()
            );
            return Err(wrong(".shape", detail));
        }
        let strings = elements.into_iter().enumerate().map(|(i, element)| {
            String::from_utf8(element.into())
                .map_err(|_| wrong("", format!("string {i} is not UTF-8")))
        });
        strings.collect()
    }

    /// Whether there is none that was not taken.
    pub(super) fn all_taken(&self) -> Result<(), ApiError> {
        match self.0.first() {
            None => Ok(()),
            Some((tensor, _)) => Err(left_over(&tensor.name)),
        }
    }
}

/// The strings of a tensor's raw contents; none where they can't be read on.
fn elements(mut raw: Bytes) -> impl Iterator<Item = Option<Bytes>> {
    std::iter::from_fn(move || {
        if raw.is_empty() {
            return None;
        }
        let length = raw.try_get_u32_le().ok();
        let length = length.and_then(|length| usize::try_from(length).ok());
        match length.filter(|&length| length <= raw.len()) {
            Some(length) => Some(Some(raw.split_to(length))),
            None => {
                raw.clear();
                Some(None)
            }
        }
    })
}

/// An output's values.
pub(super) enum Values {
    Int32(Vec<i32>),
    Fp32(Vec<f32>),
}

/// An output.
pub(super) struct Output {
    name: &'static str,
    shape: Vec<i64>,
    values: Values,
}

impl Output {
    /// One of one dimension.
    pub(super) fn list(name: &'static str, values: Values) -> Self {
        let count = match &values {
            Values::Int32(values) => values.len(),
            Values::Fp32(values) => values.len(),
        };
        Self {
            name,
            shape: vec![i64::try_from(count).unwrap_or(i64::MAX)],
            values,
        }
    }

    /// One of two dimensions, of which the second is 1.
    pub(super) fn column(name: &'static str, values: Values) -> Self {
        let mut output = Self::list(name, values);
        output.shape.push(1);
        output
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Adds it to a response, typed or raw.
    pub(super) fn add_to(self, response: &mut ModelInferResponse, is_raw: bool) {
        let datatype = match &self.values {
            Values::Int32(_) => "INT32",
            Values::Fp32(_) => "FP32",
        };
        let mut tensor = Tensor {
            name: self.name.to_owned(),
            datatype: datatype.to_owned(),
            shape: self.shape,
            contents: None,
        };
        if is_raw {
            let raw: Vec<u8> = match self.values {
                Values::Int32(values) => values.into_iter().flat_map(i32::to_le_bytes).collect(),
                Values::Fp32(values) => values.into_iter().flat_map(f32::to_le_bytes).collect(),
            };
            response.raw_output_contents.push(raw.into());
        } else {
            let mut contents = Contents::default();
            match self.values {
                Values::Int32(values) => contents.int_contents = values,
                Values::Fp32(values) => contents.fp32_contents = values,
            }
            tensor.contents = Some(contents);
        }
        response.outputs.push(tensor);
    }
}
