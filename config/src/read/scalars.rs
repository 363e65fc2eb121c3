//! Single values.

use serde_json::{Value, json};
use toml::de::DeValue;

use super::{Item, Shape, nearest, wrong_type};
use crate::errors::quote;
use crate::problems::Problems;

/// Why a string isn't the value it should be, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Notes this at `span`.
    pub(crate) fn report(self, span: &crate::problems::Span, problems: &mut Problems) {
        let problem = problems.error(span, self.message);
        if let Some(help) = self.help {
            problem.help(help);
        }
    }
}

/// A value that is written as one string.
pub(crate) trait Word: Sized {
    /// What it is, for messages: "a duration such as \"10s\"".
    const EXPECTED: &'static str;

    /// The value of `text`.
    fn parse(text: &str) -> Result<Self, Fault>;

    /// The value of a whole number, where one may be written without quotes.
    fn from_integer(_number: i64) -> Option<Result<Self, Fault>> {
        None
    }

    /// The same of one that is written in this radix, for words that mean their digits.
    fn from_digits(number: i64, _radix: u32) -> Option<Result<Self, Fault>> {
        Self::from_integer(number)
    }

    /// JSON Schema of the string form.
    fn word_schema() -> Value;
}

impl<T: Word> Shape for T {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let result = match item.get_ref() {
            DeValue::String(text) => Some(T::parse(text)),
            DeValue::Integer(written) => {
                integer(item.get_ref()).and_then(|number| T::from_digits(number, written.radix()))
            }
            _ => None,
        };
        match result {
            Some(Ok(value)) => Some(value),
            Some(Err(fault)) => {
                fault.report(&item.span(), problems);
                None
            }
            None => {
                wrong_type(item, T::EXPECTED, problems);
                None
            }
        }
    }

    fn schema() -> Value {
        T::word_schema()
    }
}

/// One of a few words.
pub(crate) trait Choice: Copy + 'static {
    /// What it is, for messages: "a restart policy".
    const WHAT: &'static str;
    /// The words.
    const CHOICES: &'static [(&'static str, Self)];
    /// Words that a person may well expect here, and why they aren't. One that ends in a colon stands for all that begin with it.
    const REFUSED: &'static [(&'static str, &'static str)] = &[];
}

impl<T: Choice> Word for T {
    const EXPECTED: &'static str = "a string";

    fn parse(text: &str) -> Result<Self, Fault> {
        if let Some((_, value)) = T::CHOICES.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let refused = |word: &str| if word.ends_with(':') { text.starts_with(word) } else { text == word };
        if let Some((_, reason)) = T::REFUSED.iter().find(|(word, _)| refused(word)) {
            return Err(Fault::new(format!("{} isn't {} here", quote(text), T::WHAT)).help(*reason));
        }
        let words: Vec<_> = T::CHOICES.iter().map(|(word, _)| *word).collect();
        let fault = Fault::new(format!("{} isn't {}", quote(text), T::WHAT));
        Err(match nearest(text, words.iter().copied()) {
            Some(word) => fault.help(format!("did you mean \"{word}\"?")),
            None if words.len() == 1 => fault.help(format!("write {}, or leave it out", quoted_list(&words))),
            None => fault.help(format!("write one of: {}", quoted_list(&words))),
        })
    }

    fn word_schema() -> Value {
        json!({ "enum": T::CHOICES.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
    }
}

/// `"a", "b"`
pub(crate) fn quoted_list(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// Bytes of the longest argument or `NAME=value` that a program can be given: `MAX_ARG_STRLEN` in Linux is one more, for the NUL.
pub(crate) const LONGEST_TEXT: usize = (128 << 10) - 1;

/// What is wrong with a text of so many bytes, if anything.
pub(crate) fn length_fault(length: usize) -> Option<Fault> {
    let fault = || {
        Fault::new(format!(
            "the text has {length} bytes; the kernel gives no program more than {LONGEST_TEXT} in one piece"
        ))
        .help("put it into a file of the image")
    };
    (length > LONGEST_TEXT).then(fault)
}

/// Any text that a program can be given: without NUL, which no system call could take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl Word for Text {
    const EXPECTED: &'static str = "a string";

    fn parse(text: &str) -> Result<Self, Fault> {
        match length_fault(text.len()) {
            _ if text.contains('\0') => Err(Fault::new("the text holds a NUL character")),
            Some(fault) => Err(fault),
            None => Ok(Self(text.to_owned())),
        }
    }

    fn word_schema() -> Value {
        json!({ "type": "string" })
    }
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Switch(pub(crate) bool);

impl Shape for Switch {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        match item.get_ref() {
            DeValue::Boolean(value) => Some(Self(*value)),
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                problems
                    .error(&item.span(), "expected a boolean, found a string")
                    .help(format!("leave out the quotes: {text}"));
                None
            }
            _ => {
                wrong_type(item, "true or false", problems);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Int<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Int<MIN, MAX> {
    pub(crate) fn get(self) -> i64 {
        self.0
    }

    /// The number, where `MIN` isn't negative.
    pub(crate) fn unsigned(self) -> u64 {
        self.0.unsigned_abs()
    }
}

impl<const MIN: i64, const MAX: i64> Shape for Int<MIN, MAX> {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let DeValue::Integer(_) = item.get_ref() else {
            wrong_type(item, "a whole number", problems);
            return None;
        };
        match integer(item.get_ref()) {
            Some(number) if (MIN..=MAX).contains(&number) => Some(Self(number)),
            _ => {
                problems.error(&item.span(), format!("the number must be from {MIN} to {MAX}"));
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// The number that a TOML integer stands for; `None` for other types and beyond 64 bits.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok(),
        _ => None,
    }
}
