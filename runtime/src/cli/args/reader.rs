//! The command line, taken apart by a page's table: one flag or argument after the other, and the value that comes with it.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::Arg;

use super::help;
use super::page::{Argument, Flag, Page, Place, Takes};

/// What there is instead of a command to execute.
#[derive(Debug)]
pub(in crate::cli) enum Instead {
    /// Somebody asked for help, or for the version.
    Print(String),
    /// It can't be understood.
    Refuse(String),
}

pub(in crate::cli) type Parsed<T> = Result<T, Instead>;

pub(in crate::cli) struct Reader {
    line: lexopt::Parser,
    page: &'static Page,
    /// What was read last, as messages have it, and its value.
    shown: String,
    value: OsString,
    /// The arguments there are still to be.
    arguments: &'static [Argument],
    /// Whether the rest has begun.
    rest: bool,
    /// Whether `--` has been there, the end of flags.
    ended: bool,
    /// A container that may have been meant as a flag.
    doubtful: Option<OsString>,
}

impl Reader {
    pub(super) fn new(line: lexopt::Parser, page: &'static Page) -> Self {
        Self {
            line,
            page,
            shown: String::new(),
            value: OsString::new(),
            arguments: page.arguments,
            rest: false,
            ended: false,
            doubtful: None,
        }
    }

    /// Reads on by another page.
    pub(super) fn turn_to(&mut self, page: &'static Page) {
        self.page = page;
        self.arguments = page.arguments;
    }

    /// The next flag's long name, or the next argument's. After the last, all that is needed has been there.
    pub(in crate::cli) fn next(&mut self) -> Parsed<Option<&'static str>> {
        if let Some(value) = self.verbatim() {
            return self.argument(value).map(Some);
        }
        if let Some((flag, attached)) = self.single_dashed() {
            return self.flag(flag, attached).map(Some);
        }
        let page = self.page;
        let (flag, is_long) = match self.line.next() {
            Ok(Some(Arg::Long(name))) => (page.long(name).ok_or_else(|| format!("--{name}")), true),
            Ok(Some(Arg::Short(letter))) => (page.short(letter).ok_or_else(|| format!("-{letter}")), false),
            Ok(Some(Arg::Value(value))) => return self.argument(value).map(Some),
            Ok(None) => return self.end(),
            // A letter's, as in `-q=value`: this is the only error there is here, and it says so.
            Err(error) => return Err(self.refuse(&error.to_string())),
        };
        match flag {
            Ok(flag) => {
                // After a letter that takes no value there are more letters.
                let attached =
                    if is_long || matches!(flag.takes, Takes::Value(_)) { self.line.optional_value() } else { None };
                self.flag(flag, attached).map(Some)
            }
            Err(name) => Err(self.unknown(&name)),
        }
    }

    /// What was read last, as a path.
    pub(in crate::cli) fn path(&mut self) -> Parsed<PathBuf> {
        match std::mem::take(&mut self.value) {
            path if path.is_empty() => Err(self.valueless()),
            path => Ok(path.into()),
        }
    }

    /// What was read last, as text.
    pub(in crate::cli) fn text(&mut self) -> Parsed<String> {
        let text = std::mem::take(&mut self.value).into_string();
        text.map_err(|value| self.invalid(&value, ": it isn't UTF-8"))
    }

    /// What was read last, as what `parse` makes of it.
    pub(in crate::cli) fn parsed<T, E: Display>(&mut self, parse: impl FnOnce(&str) -> Result<T, E>) -> Parsed<T> {
        let text = self.text()?;
        parse(&text).map_err(|error| self.invalid(text.as_ref(), &format!(": {error}")))
    }

    /// What was read last, as a number.
    pub(in crate::cli) fn number<T: FromStr<Err: Display>>(&mut self) -> Parsed<T> {
        self.parsed(str::parse)
    }

    /// The error that names what is wrong, and the page that says how it would be right.
    pub(in crate::cli) fn refuse(&self, what: &str) -> Instead {
        let command = if self.page.name.is_empty() { String::new() } else { format!("{}: ", self.page.name) };
        Instead::Refuse(format!("{command}{what}; try '{} --help'", self.page.call()))
    }

    /// The error of a flag that the command doesn't have.
    pub(in crate::cli) fn unknown(&self, name: &str) -> Instead {
        self.refuse(&format!("unknown flag '{name}'"))
    }

    pub(super) fn missing(&self, argument: &str) -> Instead {
        self.refuse(&format!("required argument '{argument}' is missing"))
    }

    fn invalid(&self, value: &OsStr, why: &str) -> Instead {
        self.refuse(&format!("invalid value '{}' for '{}'{why}", value.display(), self.shown))
    }

    fn valueless(&self) -> Instead {
        self.refuse(&format!("a value is required for '{}' but none was supplied", self.shown))
    }

    /// Takes what can only be an argument, however much it looks like flags.
    fn verbatim(&mut self) -> Option<OsString> {
        let argument = self.arguments.first().filter(|argument| argument.hyphens)?;
        // Not amid the letters of a flag.
        let mut raw = self.line.try_raw_args()?;
        let next = raw.peek()?;
        // What ps(1) and other programs may be given, such as `-fL`, is ours only if all of it is.
        let whole = argument.place == Place::Rest;
        if !self.rest && is_flags(self.page, next, whole) {
            return None;
        }
        if !whole && next.as_encoded_bytes().starts_with(b"-") {
            self.doubtful = Some(next.to_owned());
        }
        raw.next()
    }

    /// Takes a long flag with one hyphen, as Go's programs have them, runc among them, and the value that is attached to it.
    fn single_dashed(&mut self) -> Option<(&'static Flag, Option<OsString>)> {
        // Not amid the letters of a flag.
        let mut raw = self.line.try_raw_args()?;
        let next = raw.peek()?;
        self.ended |= next == "--";
        if self.ended {
            return None;
        }
        let (flag, attached) = long_with_one_hyphen(self.page, next)?;
        let attached = attached.map(OsStr::to_owned);
        raw.next();
        Some((flag, attached))
    }

    fn argument(&mut self, value: OsString) -> Parsed<&'static str> {
        let Some((argument, others)) = self.arguments.split_first() else {
            let what = format!("unexpected argument '{}'", value.display());
            return Err(match &self.doubtful {
                Some(flag) => {
                    let flag = flag.display();
                    self.refuse(&format!("{what}, as '{flag}' is no flag and was taken for the container"))
                }
                None => self.refuse(&what),
            });
        };
        match argument.place {
            Place::Rest => self.rest = true,
            Place::Needed | Place::Optional => self.arguments = others,
        }
        self.shown = argument.shown();
        self.value = value;
        Ok(argument.name)
    }

    fn end(&self) -> Parsed<Option<&'static str>> {
        match self.arguments.first() {
            Some(argument) if argument.place == Place::Needed => Err(self.missing(&argument.shown())),
            _ => Ok(None),
        }
    }

    fn flag(&mut self, flag: &'static Flag, attached: Option<OsString>) -> Parsed<&'static str> {
        self.shown = flag.shown();
        self.value = match (flag.takes, attached) {
            (Takes::Nothing, None) => OsString::new(),
            (Takes::Nothing, Some(value)) => {
                return Err(self.refuse(&format!("unexpected value '{}' for '{}'", value.display(), self.shown)));
            }
            (Takes::Optional(_), None) => {
                let raw = self.line.try_raw_args();
                let apart = raw.and_then(|mut raw| raw.next_if(|next| flag.apart.iter().any(|value| next == *value)));
                apart.unwrap_or_else(|| "true".into())
            }
            (Takes::Value(_) | Takes::Optional(_), Some(value)) => value,
            (Takes::Value(_), None) => self.next_value()?,
        };
        if !flag.values.is_empty() && !flag.values.iter().any(|value| self.value == *value) {
            return Err(self.invalid(&self.value, &format!(" [possible values: {}]", flag.values.join(", "))));
        }
        if flag.long == "help" {
            return Err(Instead::Print(help::print(self.page)));
        }
        Ok(flag.long)
    }

    /// What follows a flag, unless it is the next flag.
    fn next_value(&mut self) -> Parsed<OsString> {
        let page = self.page;
        let next = self.line.try_raw_args().and_then(|mut raw| raw.next_if(|next| !is_flags(page, next, true)));
        next.ok_or_else(|| self.valueless())
    }
}

/// Whether this is flags that the page has, or `--`, their end. Letters are flags if each of them is one; unless the `whole` has to
/// be flags, those behind a flag that takes a value are its value.
fn is_flags(page: &Page, argument: &OsStr, whole: bool) -> bool {
    if long_with_one_hyphen(page, argument).is_some() {
        return true;
    }
    let argument = argument.to_string_lossy();
    if let Some(long) = argument.strip_prefix("--") {
        return long.is_empty() || page.long(long.split('=').next().unwrap_or(long)).is_some();
    }
    let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) else { return false };
    for letter in letters.chars() {
        match page.short(letter) {
            None => return false,
            Some(flag) if !whole && matches!(flag.takes, Takes::Value(_)) => return true,
            Some(_) => {}
        }
    }
    true
}

/// The page's flag that this is, and what stands behind `=`. No word of the pages is made of letters that are all flags without a value, and
/// what else it may be (`-b` with `undle`) nobody means.
fn long_with_one_hyphen<'a>(page: &Page, argument: &'a OsStr) -> Option<(&'static Flag, Option<&'a OsStr>)> {
    let word = argument.as_bytes().strip_prefix(b"-")?;
    let (name, attached) = match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (word.get(..at)?, word.get(at.saturating_add(1)..).map(OsStr::from_bytes)),
        None => (word, None),
    };
    let flag = page.long(std::str::from_utf8(name).ok()?)?;
    Some((flag, attached))
}
