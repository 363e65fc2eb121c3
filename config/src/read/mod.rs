//! From TOML values to typed values with their places.
//!
//! One description of a table (see [`keys!`](crate::read::keys)) gives its reader, its "did you mean" and its JSON Schema, so
//! these can't drift apart.

mod collections;
mod scalars;
mod suggest;
mod table;

use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

pub(crate) use collections::{Labels, List, Named, OneOrMany, Pairs, ShortOrLong, Words};
pub(crate) use scalars::{Choice, Fault, Int, Switch, Text, Word};
pub(crate) use suggest::nearest;
pub(crate) use table::{Table, check_unknown, key_name, key_of, keys};

use crate::problems::{Problems, Span};

/// A TOML value with its place.
pub(crate) type Item<'a> = Spanned<DeValue<'a>>;

/// A type that a TOML value can be read as.
pub(crate) trait Shape: Sized {
    /// The value; or `None`, with what is wrong noted in `problems`.
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self>;

    /// What [`Shape::read`] accepts, as JSON Schema.
    fn schema() -> Value;
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) span: Span,
    pub(crate) value: T,
}

impl<T: Shape> Shape for At<T> {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        T::read(item, problems).map(|value| Self { span: item.span(), value })
    }

    fn schema() -> Value {
        T::schema()
    }
}

/// A key's value with both places.
#[derive(Debug, Clone)]
pub(crate) struct Field<T> {
    /// Of the key.
    pub(crate) key: Span,
    /// Of the value.
    pub(crate) span: Span,
    pub(crate) value: T,
}

/// Notes that a value has the wrong type.
pub(crate) fn wrong_type(item: &Item<'_>, expected: &str, problems: &mut Problems) {
    problems.error(&item.span(), format!("expected {expected}, found {}", kind_of(item.get_ref())));
}

/// A TOML type as a person would call it.
fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
