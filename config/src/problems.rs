//! Where the reader and the checks put what they find wrong, with byte ranges; turned into [`Errors`] at the end.

use std::ops::Range;

use crate::errors::{Error, Errors, Place};

/// A byte range of the declaration.
pub(crate) type Span = Range<usize>;

/// More than this many errors help nobody; the rest are counted. Also bounds what a hostile file can make us keep.
const MAX_KEPT: usize = 100;

/// One error before its line and column are known.
#[derive(Debug)]
pub(crate) struct Problem {
    span: Span,
    message: String,
    help: Option<String>,
    related: Option<(Span, String)>,
}

impl Problem {
    /// What to do about it.
    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Another place that has to do with it.
    pub(crate) fn related(&mut self, span: &Span, label: impl Into<String>) -> &mut Self {
        self.related = Some((span.clone(), label.into()));
        self
    }
}

/// What is wrong so far.
#[derive(Debug)]
pub(crate) struct Problems {
    found: Vec<Problem>,
    omitted: usize,
    /// Takes the place of a problem that isn't kept, so that callers needn't care.
    overflow: Problem,
}

impl Problems {
    pub(crate) fn new() -> Self {
        let overflow = Problem { span: 0..0, message: String::new(), help: None, related: None };
        Self { found: Vec::new(), omitted: 0, overflow }
    }

    /// Notes an error at `span`.
    pub(crate) fn error(&mut self, span: &Span, message: impl Into<String>) -> &mut Problem {
        let problem = Problem { span: span.clone(), message: message.into(), help: None, related: None };
        if self.is_full() {
            self.omitted = self.omitted.saturating_add(1);
            self.overflow = problem;
            return &mut self.overflow;
        }
        self.found.push(problem);
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    /// Whether further ones are only counted, so that a costly help is wasted on them.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= MAX_KEPT
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many there are, kept or not: to see whether a step found any.
    pub(crate) fn count(&self) -> usize {
        self.found.len().saturating_add(self.omitted)
    }

    /// Forgets the problems from number `first` on that begin on a line on which one before `first` begins: the parser's guess
    /// at a broken line isn't worth a second complaint.
    pub(crate) fn drop_echoes(&mut self, text: &str, first: usize) {
        let line = |span: &Span| text.as_bytes()[..span.start.min(text.len())].iter().filter(|&&b| b == b'\n').count();
        let broken: std::collections::BTreeSet<usize> = self.found.iter().take(first).map(|p| line(&p.span)).collect();
        let mut index = 0;
        self.found.retain(|problem| {
            index += 1;
            index <= first || !broken.contains(&line(&problem.span))
        });
    }

    /// The errors in the order of the file.
    pub(crate) fn into_errors(mut self, file: &str, text: &str) -> Errors {
        self.found.sort_by_key(|problem| problem.span.start);
        let errors = self.found.into_iter().map(|problem| Error {
            place: Place::of(text, problem.span),
            message: problem.message,
            help: problem.help,
            related: problem.related.map(|(span, label)| (Place::of(text, span), label)),
        });
        Errors::new(file, text, errors.collect(), self.omitted)
    }
}
