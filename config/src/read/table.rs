//! Tables with a fixed set of keys.

use serde_json::Value;

use super::suggest::nearest;
use crate::errors::quote;
use crate::problems::{Problems, Span};

/// A table whose keys are known. Implemented by [`keys!`].
pub(crate) trait Table: Default {
    /// What the table is, for messages: "a container".
    const WHAT: &'static str;
    /// Its keys.
    const KEYS: &'static [&'static str];
    /// Keys that a person may well expect here, and why they aren't.
    const REFUSED: &'static [(&'static str, &'static str)];

    /// Keys without which the table means nothing.
    const REQUIRED: &'static [&'static str];

    /// Reads every key; what is wrong is noted and left out.
    fn read_table(table: &toml::de::DeTable<'_>, problems: &mut Problems) -> Self;

    /// Whether the key stands in the file, be its value readable or not, or one that is likely to be meant for it: what has had
    /// its complaint isn't missing as well.
    fn given(&self, key: &str) -> bool;

    /// The JSON Schema of each key.
    fn properties() -> serde_json::Map<String, Value>;

    /// The JSON Schema of the table.
    fn table_schema() -> Value {
        serde_json::json!({
            "type": "object",
            "properties": Self::properties(),
            "required": Self::REQUIRED,
            "additionalProperties": false,
        })
    }
}

/// More keys than this are no help to a reader.
const MAX_LISTED: usize = 16;

/// Notes a key that the table doesn't have. The result is the key that it was meant to be, if it looks like one.
pub(crate) fn check_unknown<T: Table>(key: &str, span: &Span, problems: &mut Problems) -> Option<&'static str> {
    if let Some((_, reason)) = T::REFUSED.iter().find(|(name, _)| *name == key) {
        problems.error(span, format!("`{key}` can't be set here")).help(*reason);
        return None;
    }
    let full = problems.is_full();
    let problem = problems.error(span, format!("unknown key {} in {}", quote(key), T::WHAT));
    if full {
        return None;
    }
    let meant = nearest(key, T::KEYS.iter().copied());
    let refused = nearest(key, T::REFUSED.iter().map(|(name, _)| *name));
    let refused = refused.and_then(|meant| T::REFUSED.iter().find(|(name, _)| *name == meant));
    match meant {
        Some(name) => problem.help(format!("did you mean `{name}`?")),
        None if refused.is_some() => {
            let (name, reason) = refused.copied().unwrap_or_default();
            problem.help(format!("if you meant `{name}`: {reason}"))
        }
        None if T::KEYS.len() > MAX_LISTED => {
            problem.help(format!("the keys of {} are Compose's; `garboard schema` prints them all", T::WHAT))
        }
        None => problem.help(format!("the keys of {} are: {}", T::WHAT, T::KEYS.join(", "))),
    };
    meant
}

/// The key that a field stands for: `r#type` is `type`.
pub(crate) const fn key_name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// The name of a key as it is written, where that can't be a field's name.
macro_rules! key_of {
    ($key:ident) => {
        $crate::read::key_name(stringify!($key))
    };
    ($key:ident $written:literal) => {
        $written
    };
}
pub(crate) use key_of;

/// Describes a table: a struct of optional fields, one per key, whose documentation is the key's description in the JSON
/// Schema; and keys that are refused, with the reason.
macro_rules! keys {
    (
        $(#[doc = $what_doc:literal])*
        $vis:vis struct $name:ident ($what:literal) requires [$($required:literal),*] {
            $( $(#[doc = $doc:literal])+ $key:ident $(($written:literal))?: $type:ty, )*
        }
        refused { $( $refused:literal => $reason:expr, )* }
    ) => {
        $(#[doc = $what_doc])*
        #[derive(Debug, Default)]
        $vis struct $name {
            $( $(#[doc = $doc])+ $vis $key: Option<$crate::read::Field<$type>>, )*
            /// The keys that stand in the file.
            given: Vec<&'static str>,
        }

        impl $crate::read::Table for $name {
            const WHAT: &'static str = $what;
            const KEYS: &'static [&'static str] = &[$( $crate::read::key_of!($key $($written)?) ),*];
            const REQUIRED: &'static [&'static str] = &[$( $required ),*];
            const REFUSED: &'static [(&'static str, &'static str)] = &[$( ($refused, $reason) ),*];

            fn read_table(table: &toml::de::DeTable<'_>, problems: &mut $crate::problems::Problems) -> Self {
                let mut read = Self::default();
                for (key, item) in table {
                    match key.get_ref().as_ref() {
                        $( name if name == $crate::read::key_of!($key $($written)?) => {
                            read.given.push($crate::read::key_of!($key $($written)?));
                            read.$key = <$type as $crate::read::Shape>::read(item, problems)
                                .map(|value| $crate::read::Field { key: key.span(), span: item.span(), value });
                        } )*
                        unknown => read.given.extend($crate::read::check_unknown::<Self>(unknown, &key.span(), problems)),
                    }
                }
                read
            }

            fn given(&self, key: &str) -> bool {
                debug_assert!(Self::KEYS.contains(&key));
                self.given.contains(&key)
            }

            fn properties() -> serde_json::Map<String, serde_json::Value> {
                let mut properties = serde_json::Map::new();
                $(
                    let mut schema = <$type as $crate::read::Shape>::schema();
                    if let Some(object) = schema.as_object_mut() {
                        let description = concat!($($doc, "\n"),+);
                        let description = description.lines().map(str::trim).collect::<Vec<_>>().join(" ");
                        object.insert("description".into(), description.trim().into());
                    }
                    properties.insert($crate::read::key_of!($key $($written)?).into(), schema);
                )*
                properties
            }
        }

        impl $crate::read::Shape for $name {
            fn read(item: &$crate::read::Item<'_>, problems: &mut $crate::problems::Problems) -> Option<Self> {
                match item.get_ref() {
                    toml::de::DeValue::Table(table) => Some($crate::read::Table::read_table(table, problems)),
                    _ => {
                        $crate::read::wrong_type(item, concat!("a table (", $what, ")"), problems);
                        None
                    }
                }
            }

            fn schema() -> serde_json::Value {
                <Self as $crate::read::Table>::table_schema()
            }
        }
    };
}
pub(crate) use keys;
