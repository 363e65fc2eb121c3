//! Errors of TOML itself, in words for a person who doesn't know TOML by heart.

use std::collections::BTreeSet;

use toml::de::Error;

use crate::errors::quote;
use crate::problems::{Problems, Span};

const YAML: &str = "this looks like YAML; an appliance is written in TOML: name = \"value\", and a table begins with [containers.NAME]";

/// Notes what the TOML parser found, one error for each line: on a broken line, the rest are its echoes.
pub(crate) fn report(text: &str, mistakes: &[Error], problems: &mut Problems) {
    let starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut reported = BTreeSet::new();
    let mut yaml = false;
    for mistake in mistakes {
        let span = mistake.span().unwrap_or(text.len()..text.len());
        let number = starts.partition_point(|start| *start <= span.start).saturating_sub(1);
        if !reported.insert(number) {
            continue;
        }
        let line = starts.get(number).and_then(|start| text.get(*start..)?.lines().next()).unwrap_or_default();
        if looks_like_yaml(line) {
            // A whole file of it needs one word only.
            if !std::mem::replace(&mut yaml, true) {
                problems.error(&span, "the line isn't TOML").help(YAML);
            }
        } else {
            report_one(text, mistake.message(), &span, problems);
        }
    }
}

fn looks_like_yaml(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("- ")
        || line.split_once(':').is_some_and(|(key, _)| !key.contains(['=', '"', '[', '#', '\'', '{', ',']))
}

fn report_one(text: &str, message: &str, span: &Span, problems: &mut Problems) {
    let found = text.get(span.clone()).unwrap_or_default();
    let starts = |prefix: &str| message.starts_with(prefix);
    let (message, help) = if starts("duplicate key") {
        (
            format!("{} is given twice", quote(found)),
            Some("a key or a table can stand only once: put both in one place, or rename one"),
        )
    } else if starts("string values must be quoted") && found.trim().is_empty() {
        ("the value is missing".to_owned(), None)
    } else if starts("string values must be quoted") && found.contains(char::is_whitespace) {
        (
            format!("{} isn't a value", quote(found)),
            Some("text goes in double quotes; the entries of a list have commas between them"),
        )
    } else if starts("string values must be quoted") {
        (format!("{} isn't a value", quote(found)), Some("text goes in double quotes"))
    } else if starts("key with no value") {
        ("the key has no value".to_owned(), Some("write: key = \"value\""))
    } else if (starts("invalid basic string") || starts("invalid literal string")) && found.is_empty() {
        ("the string is never closed".to_owned(), Some("close it with the quote that it began with, on the same line"))
    } else if starts("invalid multi-line") && found.is_empty() {
        ("a string in three quotes is never closed".to_owned(), Some("close it with three quotes of the same kind"))
    } else if starts("missing escaped value") || starts("too few unicode") || starts("too many unicode") {
        let help = "in double quotes a backslash begins an escape: write \\\\ for a backslash, or put the text in single quotes";
        ("the escape isn't one that TOML has".to_owned(), Some(help))
    } else if starts("recursion limit") || starts("cannot recurse") {
        ("lists or tables are nested too deeply".to_owned(), None)
    } else {
        (message.strip_suffix(", expected nothing").unwrap_or(message).to_owned(), None)
    };
    let problem = problems.error(span, message);
    if let Some(help) = help {
        problem.help(help);
    }
}
