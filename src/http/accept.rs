//! The lists with weights of `Accept` and `Accept-Encoding`. RFC 9110, section 12.4.2.

use axum::http::{HeaderMap, HeaderName};

/// The parts of all headers of that name.
pub(super) fn parts(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(','))
}

/// What a part names, and its weight: 1 if none is given, `None` if it can't be read.
pub(super) fn weighted(part: &str) -> (&str, Option<f32>) {
    let mut parameters = part.split(';').map(str::trim);
    let name = parameters.next().unwrap_or_default();
    let weight = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_weight = name.trim().eq_ignore_ascii_case("q");
        is_weight.then(|| value.trim().parse().ok())
    });
    (name, weight.unwrap_or(Some(1.0)))
}
