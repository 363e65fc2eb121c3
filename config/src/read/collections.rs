//! Lists, tables with free keys, and the forms that Compose accepts for either.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toml::de::DeValue;

use super::scalars::{integer, length_fault};
use super::{At, Item, Shape, Table, Text, Word, wrong_type};
use crate::errors::quote;
use crate::problems::Problems;

/// A list. Entries that can't be read are noted and left out; if none is left, there is no list.
#[derive(Debug)]
pub(crate) struct List<T>(pub(crate) Vec<At<T>>);

impl<T: Shape> Shape for List<T> {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        match item.get_ref() {
            DeValue::Array(array) => {
                let entries: Vec<_> = array.iter().filter_map(|item| At::read(item, problems)).collect();
                (array.is_empty() || !entries.is_empty()).then_some(Self(entries))
            }
            _ => {
                wrong_type(item, "a list", problems);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// A list, or one entry without the brackets.
#[derive(Debug)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<At<T>>);

impl<T: Shape> Shape for OneOrMany<T> {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        match item.get_ref() {
            DeValue::Array(_) => List::read(item, problems).map(|list| Self(list.0)),
            _ => At::read(item, problems).map(|one| Self(vec![one])),
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [T::schema(), List::<T>::schema()] })
    }
}

/// Compose's short form (one string or number) or long form (a table).
#[derive(Debug)]
pub(crate) enum ShortOrLong<S, L> {
    Short(S),
    Long(L),
}

impl<S: Word, L: Table + Shape> Shape for ShortOrLong<S, L> {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        match item.get_ref() {
            DeValue::Table(_) => L::read(item, problems).map(Self::Long),
            _ => S::read(item, problems).map(Self::Short),
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [S::word_schema(), L::schema()] })
    }
}

/// A command: a list of words, or one string that is split as a shell would (quotes and backslashes, nothing else).
#[derive(Debug)]
pub(crate) struct Words(pub(crate) Vec<String>);

impl Shape for Words {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        match item.get_ref() {
            DeValue::Array(_) => List::<Text>::read(item, problems)
                .map(|list| Self(list.0.into_iter().map(|word| word.value.0).collect())),
            DeValue::String(text) if text.contains('\0') => Text::read(item, problems).map(|_| Self(Vec::new())),
            DeValue::String(text) => match shell_words::split(text) {
                Ok(words) if has_comment(text, &words) => {
                    problems
                        .error(&item.span(), "a `#` at the beginning of a word makes a comment of the rest of the line")
                        .help("put the word in quotes (\"program '#1'\"), or write the command as a list: [\"program\", \"#1\"]");
                    None
                }
                Ok(words) => match words.iter().find_map(|word| length_fault(word.len())) {
                    Some(fault) => {
                        fault.report(&item.span(), problems);
                        None
                    }
                    None => Some(Self(words)),
                },
                Err(_) => {
                    problems
                        .error(&item.span(), "a quote in this command is never closed")
                        .help("close it, or write the command as a list: [\"program\", \"argument\"]");
                    None
                }
            },
            _ => {
                wrong_type(item, "a string or a list of strings", problems);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "string" }, List::<Text>::schema()] })
    }
}

/// Whether `words` lack a part of `command` that was taken for a comment: with another letter in the place of each `#` they would be
/// others.
fn has_comment(command: &str, words: &[String]) -> bool {
    let plain = shell_words::split(&command.replace('#', "x")).unwrap_or_default();
    !plain.iter().map(String::len).eq(words.iter().map(String::len))
}

/// A table whose keys the declaration chooses, in its order. Entries that can't be read are noted and left out; if none is
/// left, there is no table.
#[derive(Debug)]
pub(crate) struct Named<T>(pub(crate) Vec<(At<String>, At<T>)>);

impl<T: Shape> Shape for Named<T> {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let DeValue::Table(table) = item.get_ref() else {
            wrong_type(item, "a table", problems);
            return None;
        };
        let mut entries = Vec::with_capacity(table.len());
        for (key, item) in table {
            if let Some(value) = At::read(item, problems) {
                entries.push((At { span: key.span(), value: key.get_ref().to_string() }, value));
            }
        }
        (table.is_empty() || !entries.is_empty()).then_some(Self(entries))
    }

    fn schema() -> Value {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

/// Names with a text each: a table, or a list of `NAME=value` strings. Names are unique; the order is kept.
#[derive(Debug)]
pub(crate) struct Pairs(pub(crate) Vec<(At<String>, At<String>)>);

/// The same, in which a name alone has an empty text.
#[derive(Debug)]
pub(crate) struct Labels(pub(crate) Pairs);

impl Shape for Labels {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        Pairs::read_with(item, problems, |_, _| Some("")).map(Self)
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "object", "additionalProperties": Scalar::schema() },
            { "type": "array", "items": { "type": "string", "minLength": 1 } },
        ] })
    }
}

impl Shape for Pairs {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        Self::read_with(item, problems, |At { span, value }, problems| {
            problems
                .error(span, format!("{} has no value", quote(value)))
                .help("write \"NAME=value\"; nothing is taken over from the shell in which an appliance is built");
            None
        })
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "object", "additionalProperties": Scalar::schema() },
            { "type": "array", "items": { "type": "string", "pattern": "=" } },
        ] })
    }
}

impl Pairs {
    /// `alone` has the text of an entry that is a name only, or none if that is an error.
    fn read_with(
        item: &Item<'_>,
        problems: &mut Problems,
        alone: impl Fn(&At<String>, &mut Problems) -> Option<&'static str>,
    ) -> Option<Self> {
        let entries = match item.get_ref() {
            DeValue::Table(_) => {
                let named = Named::<Scalar>::read(item, problems)?;
                named.0.into_iter().map(|(key, At { span, value })| (key, At { span, value: value.0 })).collect()
            }
            DeValue::Array(_) => {
                let list = List::<Text>::read(item, problems)?;
                let mut entries = Vec::with_capacity(list.0.len());
                for At { span, value } in list.0 {
                    let entry = At { span, value: value.0 };
                    let at = |value: &str| At { span: entry.span.clone(), value: value.to_owned() };
                    match entry.value.split_once('=') {
                        Some((name, text)) => entries.push((at(name), at(text))),
                        None => entries.extend(alone(&entry, problems).map(|text| (at(&entry.value), at(text)))),
                    }
                }
                entries
            }
            _ => {
                wrong_type(item, "a table or a list of \"NAME=value\" strings", problems);
                return None;
            }
        };
        Some(Self(unique(entries, problems)))
    }
}

/// The entries with empty and repeated names noted and left out.
fn unique(entries: Vec<(At<String>, At<String>)>, problems: &mut Problems) -> Vec<(At<String>, At<String>)> {
    let mut seen = BTreeMap::new();
    let mut kept = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        if name.value.is_empty() || name.value.contains(['=', '\0']) {
            problems.error(&name.span, "a name is empty or holds `=` or NUL").help("write \"NAME=value\"");
        } else if let Some(first) = seen.get(&name.value) {
            let message = format!("{} is given twice", quote(&name.value));
            problems.error(&name.span, message).help("leave out one of them").related(first, "first given here");
        } else if let Some(fault) = length_fault(name.value.len() + 1 + value.value.len()) {
            fault.report(&value.span, problems);
        } else {
            seen.insert(name.value.clone(), name.span.clone());
            kept.push((name, value));
        }
    }
    kept
}

/// A text, or a number or boolean that stands for its text, as in Compose.
#[derive(Debug)]
struct Scalar(String);

impl Shape for Scalar {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        match item.get_ref() {
            DeValue::String(_) => Text::read(item, problems).map(|text| Self(text.0)),
            DeValue::Boolean(value) => Some(Self(value.to_string())),
            DeValue::Float(float) => Some(Self(float.as_str().to_owned())),
            value @ DeValue::Integer(_) => match integer(value) {
                Some(number) => Some(Self(number.to_string())),
                None => {
                    problems.error(&item.span(), "the number is too large").help("put it in quotes");
                    None
                }
            },
            _ => {
                wrong_type(item, Text::EXPECTED, problems);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": ["string", "number", "boolean"] })
    }
}
