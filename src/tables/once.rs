//! A JSON value in which no field of an object stands twice: whether the first or the last counts, programs differ.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The value, and a field that stands twice in an object of it.
pub(crate) struct Once {
    pub(crate) value: Value,
    pub(crate) twice: Option<String>,
}

impl From<Value> for Once {
    fn from(value: Value) -> Self {
        Self { value, twice: None }
    }
}

struct OnceVisitor;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OnceVisitor)
    }
}

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Once;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Once, E> {
        Ok(Value::Null.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Once, E> {
        Ok(Value::Bool(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Once, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Once, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Once, E> {
        let number = Number::from_f64(value);
        Ok(number.map_or(Value::Null, Value::Number).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Once, E> {
        Ok(Value::from(value).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Once, E> {
        Ok(Value::String(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Once, A::Error> {
        let (mut items, mut twice) = (Vec::new(), None);
        while let Some(item) = from.next_element::<Once>()? {
            items.push(item.value);
            twice = twice.or(item.twice);
        }
        let value = Value::Array(items);
        Ok(Once { value, twice })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Once, A::Error> {
        let (mut fields, mut twice) = (Map::new(), None);
        while let Some((name, field)) = from.next_entry::<String, Once>()? {
            twice = twice.or(field.twice);
            if fields.contains_key(&name) {
                twice.get_or_insert_with(|| name.clone());
            }
            fields.insert(name, field.value);
        }
        let value = Value::Object(fields);
        Ok(Once { value, twice })
    }
}
