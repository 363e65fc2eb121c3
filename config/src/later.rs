//! What shows only with the images at hand, told as the parser's errors are: at the place of the declaration that it is about.

use toml::de::{DeTable, DeValue};

use crate::errors::Errors;
use crate::problems::{Problems, Span};

/// One thing that is wrong with a valid declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it may be about, the likeliest first, as paths of keys: `["containers", "web", "user"]`. The first that stands in the
    /// file is its place.
    pub about: Vec<Vec<String>>,
    /// What is wrong, in one sentence.
    pub message: String,
}

/// The errors that `faults` are in the declaration `text`, which must have been parsed. `file_name` is only for messages.
#[must_use]
pub fn place(file_name: &str, text: &str, faults: Vec<Fault>) -> Errors {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (table, _) = DeTable::parse_recoverable(text);
    let mut problems = Problems::new();
    for fault in faults {
        let span = fault.about.iter().find_map(|path| find(table.get_ref(), path));
        problems.error(&span.unwrap_or_default(), fault.message);
    }
    problems.into_errors(file_name, text)
}

/// The value at a path of keys; of a table, its name.
fn find(table: &DeTable<'_>, path: &[String]) -> Option<Span> {
    let (name, deeper) = path.split_first()?;
    let (key, item) = table.iter().find(|(key, _)| key.get_ref().as_ref() == name.as_str())?;
    match item.get_ref() {
        DeValue::Table(table) if !deeper.is_empty() => find(table, deeper),
        _ if !deeper.is_empty() => None,
        DeValue::Table(_) => Some(key.span()),
        _ => Some(item.span()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_at_the_first_of_its_keys_that_is_there() {
        let text = "name = \"x\"\n[containers.web]\nimage = \"i\"\nuser = \"www\"\n[containers.db]\nimage = \"j\"\n";
        let fault = |container: &str, keys: &[&str]| Fault {
            about: [
                keys.iter().map(|key| vec!["containers".into(), container.into(), (*key).into()]).collect(),
                vec![vec!["containers".into(), container.into()]],
            ]
            .concat(),
            message: container.to_owned(),
        };
        let faults = vec![
            fault("db", &["user", "image"]),
            fault("web", &["user", "image"]),
            fault("db", &[]),
            fault("none", &[]),
        ];
        let errors = place("x.toml", text, faults);
        let places: Vec<_> = errors.iter().map(|e| (e.message.as_str(), e.place.line, e.place.column)).collect();
        assert_eq!(places, [("none", 1, 1), ("web", 4, 8), ("db", 5, 13), ("db", 6, 9)]);
        assert!(errors.to_string().contains("x.toml:4:8"), "{errors}");
    }
}
