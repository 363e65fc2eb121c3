//! What a help page says of a command, which is also what the reader goes by.

/// A command, or the program itself, whose name is empty.
pub(super) struct Page {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// In groups, so that commands can share some.
    pub(super) flags: &'static [&'static [Flag]],
    pub(super) arguments: &'static [Argument],
}

/// A flag as it is called and described.
#[derive(Debug)]
pub(in crate::cli) struct Flag {
    /// Its letters, of which help shows the first.
    pub(super) shorts: &'static str,
    /// What the commands know it by, whichever way it was called.
    pub(super) long: &'static str,
    pub(super) takes: Takes,
    /// The only values there are, unless empty.
    pub(super) values: &'static [&'static str],
    /// Those that count as an optional value as the next word, too.
    pub(super) apart: &'static [&'static str],
    pub(super) help: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Takes {
    Nothing,
    Value(&'static str),
    /// Only with `=`, or where the flag says so. Without, it is `true`.
    Optional(&'static str),
}

/// An argument that is no flag.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) name: &'static str,
    pub(super) place: Place,
    /// Whether what begins with a hyphen and is no flag is it, too.
    pub(super) hyphens: bool,
    pub(super) help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Needed,
    Optional,
    /// With all that follows, flags or not.
    Rest,
}

const HELP: &Flag = &Flag::switch("h", "help", "Print help");

impl Page {
    /// All flags, in the order of the help.
    pub(super) fn all_flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.flags.iter().copied().flatten().chain(std::iter::once(HELP))
    }

    pub(super) fn long(&self, name: &str) -> Option<&'static Flag> {
        self.all_flags().find(|flag| flag.long == name)
    }

    pub(super) fn short(&self, letter: char) -> Option<&'static Flag> {
        self.all_flags().find(|flag| flag.shorts.contains(letter))
    }

    /// How it is called on the command line.
    pub(super) fn call(&self) -> String {
        format!("{} {}", super::NAME, self.name).trim_end().to_owned()
    }
}

impl Flag {
    pub(in crate::cli) const fn switch(shorts: &'static str, long: &'static str, help: &'static str) -> Self {
        Self { shorts, long, takes: Takes::Nothing, values: &[], apart: &[], help }
    }

    pub(in crate::cli) const fn value(
        shorts: &'static str,
        long: &'static str,
        value: &'static str,
        help: &'static str,
    ) -> Self {
        Self { takes: Takes::Value(value), ..Self::switch(shorts, long, help) }
    }

    pub(super) const fn optional(
        shorts: &'static str,
        long: &'static str,
        value: &'static str,
        help: &'static str,
    ) -> Self {
        Self { takes: Takes::Optional(value), ..Self::switch(shorts, long, help) }
    }

    /// It has no other values.
    pub(in crate::cli) const fn one_of(self, values: &'static [&'static str]) -> Self {
        Self { values, ..self }
    }

    /// These are its value as the next word, too: nothing else that may come there is called so.
    pub(super) const fn apart(self, apart: &'static [&'static str]) -> Self {
        Self { apart, ..self }
    }

    /// As messages and help have it.
    pub(super) fn shown(&self) -> String {
        match self.takes {
            Takes::Nothing => format!("--{}", self.long),
            Takes::Value(value) => format!("--{} <{value}>", self.long),
            Takes::Optional(value) => format!("--{}[=<{value}>]", self.long),
        }
    }
}

impl Argument {
    pub(super) const fn new(name: &'static str, place: Place, hyphens: bool, help: &'static str) -> Self {
        Self { name, place, hyphens, help }
    }

    /// As messages and help have it.
    pub(super) fn shown(&self) -> String {
        match self.place {
            Place::Needed => format!("<{}>", self.name),
            Place::Optional => format!("[{}]", self.name),
            Place::Rest => format!("[{}]...", self.name),
        }
    }
}
