//! Documents as clients send them: strings, or objects of which some fields are ranked.

use std::fmt;
use std::sync::Arc;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::map::Entry;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::error::{ApiError, shortened};
use crate::http::extract::in_words;

/// A document: its text, or an object that holds it.
#[derive(Debug, Clone, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum DocumentInput {
    /// The text.
    Text(String),
    /// An object. `rank_fields` says which of its fields are ranked, one line each; only `text` if
    /// it is left out. The others are returned with the document.
    #[schema(value_type = Object, example = json!({"text": "Paris is the capital of France."}))]
    Object(Map<String, Value>),
}

/// serde's own for such an enum would copy each document once more, and not say what it found.
impl<'de> Deserialize<'de> for DocumentInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocumentVisitor;

        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = DocumentInput;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<DocumentInput, E> {
                Ok(DocumentInput::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<DocumentInput, E> {
                Ok(DocumentInput::Text(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DocumentInput, A::Error> {
                let mut object = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    match object.entry(name) {
                        Entry::Vacant(place) => drop(place.insert(map.next_value()?)),
                        Entry::Occupied(there) => {
                            let name = shortened(there.key());
                            return Err(A::Error::custom(format!("duplicate field `{name}`")));
                        }
                    }
                }
                Ok(DocumentInput::Object(object))
            }
        }

        deserializer.deserialize_any(DocumentVisitor)
    }
}

impl DocumentInput {
    /// The text that is scored, or what is wrong: where in the document, and how. `rank_fields` are the request's, none
    /// where its dialect has no such field.
    pub(super) fn text(
        &self,
        rank_fields: Option<&[String]>,
    ) -> Result<String, (&'static str, String)> {
        let object = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::Object(object) => object,
        };
        let Some(fields) = rank_fields.filter(|fields| !fields.is_empty()) else {
            let Some(text) = object.get("text") else {
                let mut detail = "an object needs a string \"text\"".to_owned();
                if rank_fields.is_some() {
                    detail += ", or name its fields in \"rank_fields\"";
                }
                return Err(("", detail));
            };
            let text = String::deserialize(text);
            return text.map_err(|error| (".text", in_words(&error.to_string())));
        };
        let values = fields.iter().filter_map(|field| match object.get(field)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        });
        let lines: Vec<String> = values.collect();
        if lines.is_empty() {
            let detail = format!("it has none of the rank_fields {fields:?}");
            return Err(("", detail));
        }
        Ok(lines.join("\n"))
    }

    /// A field of an object, if it is there and not null.
    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Text(_) => None,
            Self::Object(object) => object.get(name).filter(|value| !value.is_null()),
        }
    }

    /// The document as an object, a string under `text`.
    pub(super) fn into_object(self) -> Map<String, Value> {
        match self {
            Self::Text(text) => Map::from_iter([("text".to_owned(), Value::String(text))]),
            Self::Object(object) => object,
        }
    }

    /// The document as it came.
    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Text(text) => Value::String(text),
            Self::Object(object) => Value::Object(object),
        }
    }
}

/// The texts that are scored; `name` is the documents' field, for the error.
pub(super) fn texts(
    documents: &[DocumentInput],
    rank_fields: Option<&[String]>,
    name: &str,
) -> Result<Arc<[String]>, ApiError> {
    let texts = documents.iter().enumerate().map(|(i, document)| {
        let invalid = |(place, detail)| ApiError::invalid(format!("{name}[{i}]{place}"), detail);
        document.text(rank_fields).map_err(invalid)
    });
    texts.collect()
}

/// A field that has several names, of which a request has one.
pub(super) fn one_of<T, const N: usize>(
    (name, value): (&str, Option<T>),
    others: [(&str, Option<T>); N],
) -> Result<T, ApiError> {
    let names = others.each_ref().map(|(name, _)| *name).join("\" or \"");
    let others = others.into_iter();
    let values = [(name, value)].into_iter().chain(others);
    let mut sent = values.filter_map(|(name, value)| Some((name, value?)));
    match (sent.next(), sent.next()) {
        (Some((_, value)), None) => Ok(value),
        (None, _) => {
            let detail = format!("it is missing (\"{names}\" is accepted too)");
            Err(ApiError::invalid(name, detail))
        }
        (Some((first, _)), Some((second, _))) => {
            let detail = format!("send \"{first}\" or \"{second}\", not both");
            Err(ApiError::invalid(second, detail))
        }
    }
}

/// Documents to return with their scores: each is returned at most once, so it can be moved out.
#[derive(Debug, Default)]
pub(in crate::http) struct Returned(Option<Vec<Option<DocumentInput>>>);

impl Returned {
    /// The documents if they were asked for.
    pub(super) fn new(documents: Vec<DocumentInput>, asked: bool) -> Self {
        Self(asked.then(|| documents.into_iter().map(Some).collect()))
    }

    /// Takes one out.
    pub(super) fn take(&mut self, index: usize) -> Option<DocumentInput> {
        self.0.as_mut()?.get_mut(index)?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(value: Value) -> DocumentInput {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn rank_fields_are_read_in_their_order_and_the_missing_ones_left_out() {
        let fields = ["title".to_owned(), "none".to_owned(), "year".to_owned()];
        let book = document(json!({"year": 1999, "title": "Rivers", "text": "unread"}));
        assert_eq!(book.text(Some(&fields)).unwrap(), "Rivers\n1999");
        assert_eq!(book.text(None).unwrap(), "unread");
        assert_eq!(
            document(json!("plain")).text(Some(&fields)).unwrap(),
            "plain"
        );
        assert!(document(json!({"text": "x"})).text(Some(&fields)).is_err());
        assert!(document(json!({"text": 3})).text(None).is_err());
        // Advice only where it helps.
        let advice = |rank_fields| {
            document(json!({"title": "x"}))
                .text(rank_fields)
                .unwrap_err()
                .1
        };
        assert!(advice(Some(&[])).contains("rank_fields"));
        assert!(!advice(None).contains("rank_fields"));
    }
}
