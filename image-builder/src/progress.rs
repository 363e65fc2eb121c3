//! What a person sees while waiting. Nothing on a pipe, nothing left behind.

use std::borrow::Cow;
use std::time::Duration;

use crate::plain::plain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two frames of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// Progress of a long piece of work, on stderr if that is a terminal.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// `quiet`: never shown.
    pub fn new(quiet: bool) -> Self {
        // indicatif draws nothing by itself when stderr is not a terminal.
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    /// A step of unknown length.
    pub fn step(&self, what: impl Into<Cow<'static, str>>) {
        self.bar.unset_length();
        self.bar.set_style(style("{spinner} {msg}"));
        self.bar.set_message(what);
    }

    /// A step over so many bytes; [`Progress::advance`] counts them.
    pub fn bytes(&self, what: impl Into<Cow<'static, str>>, length: u64) {
        self.bar.set_style(style("{spinner} {msg} {wide_bar} {bytes} of {total_bytes}"));
        self.bar.set_length(length);
        self.bar.set_position(0);
        self.bar.set_message(what);
    }

    /// So many bytes more are done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{}", plain(line)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a plain spinner stands in for a malformed one.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_well_formed() {
        for template in ["{spinner} {msg}", "{spinner} {msg} {wide_bar} {bytes} of {total_bytes}"] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
