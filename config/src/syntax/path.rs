//! Paths.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::errors::quote;
use crate::read::{Fault, Word};

/// A path inside a container: absolute, without `.`, `..`, doubled or trailing slashes (these two are removed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AbsolutePath(pub(crate) String);

/// A path on the machine that builds, absolute or from the declaration's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePath(pub(crate) PathBuf);

/// `PATH_MAX`, with its NUL.
const LONGEST: usize = 4095;
/// `NAME_MAX`
const LONGEST_COMPONENT: usize = 255;

impl Word for AbsolutePath {
    const EXPECTED: &'static str = "an absolute path";

    fn parse(text: &str) -> Result<Self, Fault> {
        check(text)?;
        if !text.starts_with('/') {
            return Err(Fault::new(format!("{} isn't an absolute path", quote(text))).help("begin it with `/`"));
        }
        let parts: Vec<_> = text.split('/').filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| matches!(*part, "." | "..")) {
            return Err(
                Fault::new(format!("{} has a `.` or `..` in it", quote(text))).help("write the path without it")
            );
        }
        if parts.iter().any(|part| part.len() > LONGEST_COMPONENT) {
            return Err(Fault::new(format!("a name in the path is longer than {LONGEST_COMPONENT} bytes")));
        }
        Ok(Self(format!("/{}", parts.join("/"))))
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": "^/" })
    }
}

impl Word for FilePath {
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, Fault> {
        check(text)?;
        Ok(Self(PathBuf::from(text)))
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

fn check(text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        Err(Fault::new("the path is empty"))
    } else if text.chars().any(char::is_control) {
        Err(Fault::new("the path holds a control character"))
    } else if text.len() > LONGEST {
        Err(Fault::new(format!("the path is longer than {LONGEST} bytes")))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_normalised_or_refused() {
        for (text, expected) in [
            ("/", Some("/")),
            ("/a", Some("/a")),
            ("//a///b/", Some("/a/b")),
            ("/a b/ü", Some("/a b/ü")),
            ("/...", Some("/...")),
            ("", None),
            ("a", None),
            ("./a", None),
            ("/a/../b", None),
            ("/a/.", None),
            ("/a\nb", None),
            ("/a\0b", None),
        ] {
            assert_eq!(AbsolutePath::parse(text).ok().map(|path| path.0).as_deref(), expected, "{text:?}");
        }
        assert!(AbsolutePath::parse(&format!("/{}", "x".repeat(256))).is_err());
        assert!(AbsolutePath::parse(&"/x".repeat(3000)).is_err());
    }
}
