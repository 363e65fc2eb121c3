//! What is wrong with a declaration, and how it is shown to a person.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

/// One thing that is wrong with a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The place it is about.
    pub place: Place,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Another place that has to do with it, and how.
    pub related: Option<(Place, String)>,
}

/// A place in a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Byte range in the text.
    pub span: Range<usize>,
}

/// Everything that is wrong with a declaration, in the order of the file; never empty.
///
/// `Display` draws each error with its `file:line:column`, the offending line and the fix, without colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    file: String,
    source: String,
    errors: Vec<Error>,
    omitted: usize,
}

/// Most columns a drawn line takes; annotate-snippets cuts longer ones around the caret.
const WIDTH: usize = 120;

impl Errors {
    pub(crate) fn new(file: &str, source: &str, errors: Vec<Error>, omitted: usize) -> Self {
        Self { file: printable(file), source: source.to_owned(), errors, omitted }
    }

    /// The name of the file, as [`crate::parse`] was given it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Each error.
    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.errors.iter()
    }

    /// How many more there were, beyond the number that is worth reading.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// As `Display` draws them, with the colours of a terminal (ANSI escape sequences).
    pub fn to_ansi(&self) -> String {
        self.render(&Renderer::styled().term_width(WIDTH))
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut out = String::new();
        for error in &self.errors {
            out.push_str(&renderer.render(&[self.group(error)]));
            out.push_str("\n\n");
        }
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    fn group<'a>(&'a self, error: &'a Error) -> Group<'a> {
        let title = Level::ERROR.primary_title(&*error.message);
        let snippet = self.snippet(&error.place);
        let snippet = snippet.annotation(AnnotationKind::Primary.span(self.within_line(&error.place)));
        let group = match &error.related {
            Some((place, label)) => {
                let mark = AnnotationKind::Context.span(self.within_line(place)).label(&**label);
                match place.line == error.place.line {
                    true => title.element(snippet.annotation(mark)),
                    false => title.element(snippet).element(self.snippet(place).annotation(mark)),
                }
            }
            None => title.element(snippet),
        };
        match &error.help {
            Some(help) => group.element(Level::HELP.message(&**help)),
            None => group,
        }
    }

    /// The line on which `place` begins. Only that line is handed over, so that the cost doesn't grow with the file.
    fn snippet<'a>(&'a self, place: &Place) -> Snippet<'a, Annotation<'a>> {
        let line = line_around(&self.source, place.span.start);
        let text = self.source.get(line).unwrap_or_default();
        Snippet::source(text).path(&*self.file).line_start(place.line)
    }

    /// The part of `place` that lies on its first line, in bytes from the line's begin.
    fn within_line(&self, place: &Place) -> Range<usize> {
        let line = line_around(&self.source, place.span.start);
        let start = place.span.start.saturating_sub(line.start).min(line.len());
        start..place.span.end.saturating_sub(line.start).clamp(start, line.len())
    }

    fn summary(&self) -> String {
        let total = self.errors.len().saturating_add(self.omitted);
        let plural = if total == 1 { "error" } else { "errors" };
        match self.omitted {
            0 => format!("{}: {total} {plural}", self.file),
            _ => format!("{}: {total} {plural}, of which the first {} are shown", self.file, self.errors.len()),
        }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain().term_width(WIDTH)))
    }
}

impl std::error::Error for Errors {}

/// The range of the line that holds the byte at `offset`, without its line feed (and carriage return).
fn line_around(text: &str, offset: usize) -> Range<usize> {
    let bytes = text.as_bytes();
    let offset = offset.min(bytes.len());
    let start = bytes[..offset].iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
    let mut end = bytes[offset..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| offset + n);
    if end > start && bytes[end - 1] == b'\r' {
        end -= 1;
    }
    start..end
}

impl Place {
    /// The place of a byte range, moved to character boundaries within the text.
    pub(crate) fn of(text: &str, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
        let line = line_around(text, start);
        let before = text.get(line.start..start.max(line.start)).unwrap_or_default();
        Self {
            line: text[..line.start].bytes().filter(|&b| b == b'\n').count() + 1,
            column: before.chars().count() + 1,
            span: start..end,
        }
    }
}

/// `text` with control characters escaped, so that it can't play tricks on a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Marks that reorder or hide the text around them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A piece of the declaration between backticks, cut to a readable length.
pub(crate) fn quote(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        None => format!("`{}`", printable(text)),
        Some((cut, _)) => format!("`{}...`", printable(&text[..cut])),
    }
}
