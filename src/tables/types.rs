//! Which types the columns of JSON lines have in a table, so that each value is held as it is or refused.

use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::lines::TWICE;
use crate::lenient;

/// What always helps.
const HINT: &str = "JSON lines can be written whatever they hold";

/// Of a JSON value what its type depends on.
enum Json {
    Null,
    Bool,
    Integer(i128),
    Decimal(f64),
    Text,
    List(Vec<Json>),
    /// In the order in which they stand.
    Object(Vec<(String, Json)>),
}

impl Json {
    fn what(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool => "true or false".into(),
            Self::Integer(value) => format!("the integer {value}"),
            Self::Decimal(value) => format!("the number {value}"),
            Self::Text => "a text".into(),
            Self::List(_) => "a list".into(),
            Self::Object(_) => "an object".into(),
        }
    }

    /// Whether it may be an integer that 64 bits don't hold.
    fn is_huge(&self) -> bool {
        match self {
            Self::Decimal(value) => value.abs() >= i64::MAX as f64,
            Self::List(items) => items.iter().any(Self::is_huge),
            Self::Object(fields) => fields.iter().any(|(_, value)| value.is_huge()),
            _ => false,
        }
    }
}

struct JsonVisitor;

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(JsonVisitor)
    }
}

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Decimal(value))
    }

    fn visit_str<E>(self, _: &str) -> Result<Json, E> {
        Ok(Json::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = from.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}

/// Why a value has no place in a table: the names that lead to it, the innermost first, and what is wrong.
struct Misfit(Vec<String>, String);

impl Misfit {
    fn new(reason: &str) -> Self {
        Self(Vec::new(), format!("{reason}; {HINT}"))
    }

    fn within(mut self, name: &str) -> Self {
        self.0.push(name.to_owned());
        self
    }

    fn told(mut self, line: usize) -> String {
        self.0.reverse();
        format!("line {line}: \"{}\" {}", self.0.join("."), self.1)
    }
}

/// The fields of a line.
fn fields(line: usize, text: &str) -> Result<Vec<(String, Json)>, String> {
    let fields = match lenient::from_json(text.as_bytes()) {
        Ok(Json::Object(fields)) => fields,
        Ok(other) => return Err(super::lines::no_object(line, text, &other.what())),
        Err(error) => return Err(super::lines::no_object(line, text, &error.to_string())),
    };
    if fields.iter().any(|(_, value)| value.is_huge())
        && let Some(number) = long_integer(text)
    {
        return Err(format!(
            "line {line}: {number} is an integer that 64 bits don't hold; {HINT}"
        ));
    }
    Ok(fields)
}

/// The first integer in a JSON text that is too long for 64 bits.
fn long_integer(text: &str) -> Option<&str> {
    // What is between quotes is text; a quote behind a backslash ends none.
    let (mut is_text, mut is_escaped, mut start) = (false, false, None);
    for (at, char) in text.char_indices() {
        let is_of_number = !is_text && (char.is_ascii_digit() || "+-.eE".contains(char));
        match (start, is_of_number) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                let number = &text[from..at];
                let is_integer = number.bytes().all(|b| b.is_ascii_digit() || b == b'-');
                let fits = number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
                if is_integer && !fits && number.len() > 1 {
                    return Some(number);
                }
                start = None;
            }
            _ => {}
        }
        match char {
            '"' if !is_escaped => is_text = !is_text,
            _ => {}
        }
        is_escaped = is_text && char == '\\' && !is_escaped;
    }
    None
}

fn once(fields: &[(String, Json)]) -> Result<(), Misfit> {
    let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        // As lines they are refused too.
        Some(pair) => Err(Misfit(vec![pair[0].to_owned()], TWICE.into())),
        None => Ok(()),
    }
}

/// What the numbers of a column are, each with a line that has one.
#[derive(Clone, Default)]
struct Numbers {
    decimal: Option<usize>,
    negative: Option<usize>,
    /// Too large for a signed integer.
    large: Option<(usize, i128)>,
    /// No double is equal to it.
    inexact: Option<(usize, i128)>,
}

#[derive(Clone, Default)]
enum Kind {
    #[default]
    Null,
    Bool,
    Numbers(Numbers),
    Text,
    List(Box<Column>),
    Object(Vec<(String, Column)>),
}

#[derive(Clone, Default)]
struct Column {
    kind: Kind,
    /// The first line that has a value.
    since: usize,
}

/// The types of the columns of lines, in the order in which they come.
#[derive(Default)]
pub(super) struct Types(Vec<(String, Column)>);

impl Types {
    /// Looks at one more line.
    pub(super) fn add(&mut self, line: usize, text: &str) -> Result<(), String> {
        add_fields(&mut self.0, fields(line, text)?, line).map_err(|misfit| misfit.told(line))
    }

    /// What holds all lines.
    pub(super) fn schema(&self) -> Result<Schema, String> {
        let fields = of_fields(&self.0).map_err(|(line, misfit)| misfit.told(line))?;
        Ok(Schema::new(fields))
    }
}

fn add_fields(
    columns: &mut Vec<(String, Column)>,
    fields: Vec<(String, Json)>,
    line: usize,
) -> Result<(), Misfit> {
    once(&fields)?;
    for (i, (name, value)) in fields.into_iter().enumerate() {
        // Most lines have the same fields in the same order.
        let is_there = columns.get(i).is_some_and(|(known, _)| *known == name);
        let found = match is_there {
            true => Some(i),
            false => columns.iter().position(|(known, _)| *known == name),
        };
        let at = found.unwrap_or_else(|| {
            columns.push((name.clone(), Column::default()));
            columns.len() - 1
        });
        let column = &mut columns[at].1;
        column
            .add(value, line)
            .map_err(|misfit| misfit.within(&name))?;
    }
    Ok(())
}

impl Column {
    fn add(&mut self, value: Json, line: usize) -> Result<(), Misfit> {
        if matches!(value, Json::Null) {
            return Ok(());
        }
        if matches!(self.kind, Kind::Null) {
            self.since = line;
            self.kind = match value {
                Json::Null => Kind::Null,
                Json::Bool => Kind::Bool,
                Json::Integer(_) | Json::Decimal(_) => Kind::Numbers(Numbers::default()),
                Json::Text => Kind::Text,
                Json::List(_) => Kind::List(Box::default()),
                Json::Object(_) => Kind::Object(Vec::new()),
            };
        }
        match (&mut self.kind, value) {
            (Kind::Bool, Json::Bool) | (Kind::Text, Json::Text) => {}
            (Kind::Numbers(numbers), Json::Decimal(_)) => {
                numbers.decimal.get_or_insert(line);
            }
            (Kind::Numbers(numbers), Json::Integer(value)) => {
                if value < 0 {
                    numbers.negative.get_or_insert(line);
                }
                if i64::try_from(value).is_err() {
                    numbers.large.get_or_insert((line, value));
                }
                if !is_exact(value) {
                    numbers.inexact.get_or_insert((line, value));
                }
            }
            (Kind::List(items), Json::List(values)) => {
                for value in values {
                    items.add(value, line)?;
                }
            }
            (Kind::Object(columns), Json::Object(fields)) => add_fields(columns, fields, line)?,
            (kind, value) => {
                let before = match kind {
                    Kind::Null | Kind::Bool => "true or false",
                    Kind::Numbers(_) => "a number",
                    Kind::Text => "a text",
                    Kind::List(_) => "a list",
                    Kind::Object(_) => "an object",
                };
                let place = match self.since == line {
                    true => "elsewhere in the same line".to_owned(),
                    false => format!("in line {}", self.since),
                };
                let what = value.what();
                return Err(Misfit::new(&format!("is {what}, but {before} {place}")));
            }
        }
        Ok(())
    }

    /// Its type, or what is wrong and in which line.
    fn data_type(&self) -> Result<DataType, (usize, Misfit)> {
        Ok(match &self.kind {
            Kind::Null => DataType::Null,
            Kind::Bool => DataType::Boolean,
            Kind::Text => DataType::Utf8,
            Kind::List(items) => {
                DataType::List(Arc::new(Field::new_list_field(items.data_type()?, true)))
            }
            Kind::Object(columns) => DataType::Struct(of_fields(columns)?),
            Kind::Numbers(numbers) => match numbers {
                Numbers {
                    decimal: Some(decimal),
                    inexact: Some((line, value)),
                    ..
                } => {
                    let reason = format!(
                        "is {value}, but no integer in line {decimal}, and no number of 64 bits with decimals \
                         is {value}"
                    );
                    return Err((*line, Misfit::new(&reason)));
                }
                Numbers {
                    decimal: Some(_), ..
                } => DataType::Float64,
                Numbers {
                    negative: Some(negative),
                    large: Some((line, value)),
                    ..
                } => {
                    let reason = format!(
                        "is {value}, but negative in line {negative}, and no integer of 64 bits can be both"
                    );
                    return Err((*line, Misfit::new(&reason)));
                }
                Numbers { large: Some(_), .. } => DataType::UInt64,
                _ => DataType::Int64,
            },
        })
    }
}

fn of_fields(columns: &[(String, Column)]) -> Result<Fields, (usize, Misfit)> {
    let fields = columns.iter().map(|(name, column)| {
        let of = column.data_type();
        let of = of.map_err(|(line, misfit)| (line, misfit.within(name)))?;
        Ok(Field::new(name, of, true))
    });
    fields.collect()
}

/// Whether a double holds it as it is.
fn is_exact(value: i128) -> bool {
    value as f64 as i128 == value
}

/// Whether the columns hold a line as it is.
pub(super) fn check(line: usize, text: &str, schema: &Schema) -> Result<(), String> {
    let fields = fields(line, text)?;
    fit_fields(&fields, schema.fields()).map_err(|misfit| misfit.told(line))
}

fn fit_fields(fields: &[(String, Json)], columns: &Fields) -> Result<(), Misfit> {
    once(fields)?;
    for (i, (name, value)) in fields.iter().enumerate() {
        let column = columns.get(i).filter(|column| column.name() == name);
        let column = column.or_else(|| Some(columns.find(name)?.1));
        let fit = match column {
            Some(column) => fit(value, column.data_type()),
            None => Err(Misfit::new(
                "is new: the first lines, which say what columns there are, don't have it",
            )),
        };
        fit.map_err(|misfit| misfit.within(name))?;
    }
    Ok(())
}

fn fit(value: &Json, of: &DataType) -> Result<(), Misfit> {
    let is_held = match (value, of) {
        (Json::Null, _) | (Json::Bool, DataType::Boolean) | (Json::Text, DataType::Utf8) => true,
        (Json::Integer(value), DataType::Int64) => i64::try_from(*value).is_ok(),
        (Json::Integer(value), DataType::UInt64) => u64::try_from(*value).is_ok(),
        (Json::Integer(value), DataType::Float64) => is_exact(*value),
        (Json::Decimal(_), DataType::Float64) => true,
        (Json::List(items), DataType::List(item)) => {
            return items
                .iter()
                .try_for_each(|value| fit(value, item.data_type()));
        }
        (Json::Object(fields), DataType::Struct(columns)) => return fit_fields(fields, columns),
        _ => false,
    };
    match is_held {
        true => Ok(()),
        false => Err(Misfit::new(&format!(
            "is {}, which doesn't fit the type that the first lines have there, {of}",
            value.what()
        ))),
    }
}

#[cfg(test)]
mod tests;
