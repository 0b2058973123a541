//! Numbers and flags as clients spell them: pydantic's lax mode, which the servers of most dialects have.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};

/// A flag that may be absent, null, a boolean, 1 or 0, or a word such as "true" or "False".
pub(in crate::http) fn flag<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<bool>, D::Error> {
    deserializer.deserialize_any(FlagVisitor)
}

/// A whole number that may be absent, null, a number such as 3 or 3.0, or a string of one.
pub(in crate::http) fn whole<'de, D: Deserializer<'de>, N: TryFrom<i128>>(
    deserializer: D,
) -> Result<Option<N>, D::Error> {
    deserializer.deserialize_any(WholeVisitor(PhantomData))
}

/// A number that may be absent, null, or a string of one. It need not be finite.
pub(in crate::http) fn number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<f32>, D::Error> {
    deserializer.deserialize_any(NumberVisitor)
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Option<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(value as f32))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(value as f32))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(value as f32))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let number = text.trim().parse().ok().map(Some);
        number.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

struct FlagVisitor;

impl Visitor<'_> for FlagVisitor {
    type Value = Option<bool>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        match value {
            0 | 1 => Ok(Some(value == 1)),
            _ => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        match value {
            0.0 => Ok(Some(false)),
            1.0 => Ok(Some(true)),
            _ => Err(E::invalid_value(Unexpected::Float(value), &self)),
        }
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Self::Value, E> {
        const TRUE: [&str; 6] = ["true", "1", "yes", "y", "on", "t"];
        const FALSE: [&str; 6] = ["false", "0", "no", "n", "off", "f"];
        let is = |known: &&str| word.trim().eq_ignore_ascii_case(known);
        match (TRUE.iter().any(is), FALSE.iter().any(is)) {
            (false, false) => Err(E::invalid_value(Unexpected::Str(word), &self)),
            (value, _) => Ok(Some(value)),
        }
    }
}

struct WholeVisitor<N>(PhantomData<N>);

impl<N: TryFrom<i128>> WholeVisitor<N> {
    fn convert<E: Error>(value: i128) -> Result<Option<N>, E> {
        let expected = if value < 0 {
            "a whole number that is not negative"
        } else {
            "a smaller number"
        };
        let found = value.to_string();
        let wrong = |_| E::invalid_value(Unexpected::Other(&found), &expected);
        N::try_from(value).map(Some).map_err(wrong)
    }
}

impl<N: TryFrom<i128>> Visitor<'_> for WholeVisitor<N> {
    type Value = Option<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Self::convert(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Self::convert(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        if value.fract() != 0.0 {
            return Err(E::invalid_value(Unexpected::Float(value), &self));
        }
        if value.abs() > 1e18 {
            return Err(E::invalid_value(
                Unexpected::Float(value),
                &"a smaller number",
            ));
        }
        Self::convert(value as i128)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let digits = text.trim();
        let wrong = || E::invalid_value(Unexpected::Str(text), &self);
        match (digits.parse::<i128>(), digits.parse::<f64>()) {
            (Ok(value), _) => Self::convert(value),
            (_, Ok(value)) if value.is_finite() && value.fract() == 0.0 => self.visit_f64(value),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn whole_numbers_come_as_numbers_and_strings() {
        let read = |value: Value| whole::<_, usize>(value).map_err(|e| e.to_string());
        for value in [
            json!(3),
            json!(3.0),
            json!("3"),
            json!(" 3.0 "),
            json!("+3"),
        ] {
            assert_eq!(read(value), Ok(Some(3)));
        }
        assert_eq!(read(json!(null)), Ok(None));
        assert_eq!(read(json!(u64::MAX)), Ok(Some(usize::MAX)));
        assert_eq!(whole::<_, i64>(json!("-1")).unwrap(), Some(-1));
        for value in [
            json!(3.5),
            json!("3.5"),
            json!(-1),
            json!("-1"),
            json!(-1.0),
            json!(1e300),
            json!("1e300"),
            json!("inf"),
            json!("NaN"),
            json!(""),
            json!("three"),
            json!(true),
            json!([3]),
            json!({}),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains("number"), "{value}: {error}");
        }
    }

    #[test]
    fn flags_come_as_booleans_words_and_digits() {
        for (values, expected) in [
            (
                json!([true, "true", "True", "TRUE", "1", 1, 1.0, "yes", "on"]),
                Some(true),
            ),
            (
                json!([false, "false", "False", "0", 0, 0.0, "no", "off"]),
                Some(false),
            ),
            (json!([null]), None),
        ] {
            for value in values.as_array().unwrap() {
                assert_eq!(flag(value).unwrap(), expected, "{value}");
            }
        }
        for value in [
            json!("maybe"),
            json!(""),
            json!(2),
            json!(-1),
            json!(0.5),
            json!([]),
            json!({}),
        ] {
            let error = flag(&value).unwrap_err().to_string();
            assert!(error.contains("true or false"), "{value}: {error}");
        }
    }
}
