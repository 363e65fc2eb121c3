//! Last words: those of the boot before, told once they are known, and those of this one.

use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

use super::Supervisor;
use crate::events::Kind as EventKind;
use crate::last_words::{Cause, End, Previous};
use crate::supervise::Exit;
use crate::work::report::{self, DataState};
use crate::worker::Kind;

/// What is known of boots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Words {
    /// How the one before ended.
    pub(super) previous: Option<Previous>,
    /// This one's number, once it is kept.
    pub(super) boot: Option<u64>,
    /// Why this one ends, once it does.
    why: String,
}

impl Supervisor {
    /// It is known what there is of a data filesystem: now for what it keeps.
    pub(super) fn start_words(&mut self) {
        let places = self.options.words.clone();
        // What can only be read still tells of the boot before.
        let kept = matches!(self.data.state, DataState::Mounted | DataState::Readonly);
        let directory = if kept { places.directory.as_os_str() } else { OsStr::new("") };
        let reset = self.watchdog.as_ref().is_some_and(|watchdog| watchdog.has_reset);
        let watchdog = OsStr::new(if reset { "reset" } else { "" });
        self.start_worker(Kind::Words, &[directory, places.pstore.as_os_str(), watchdog]);
    }

    /// What its worker says.
    pub(super) fn take_words(&mut self, words: report::Words) {
        match words {
            report::Words::Previous(previous) => {
                // That nothing keeps it is no news of the boot before.
                if previous.cause != Cause::Unknown {
                    let text = previous.sentence();
                    self.record(EventKind::Previous, None, &text);
                    self.console.say(&text);
                }
                self.words.previous = Some(previous);
            }
            report::Words::Kept(boot) => self.words.boot = Some(boot),
            report::Words::Fault(text) => self.note(text),
        }
    }

    /// Its worker ended, and may have said nothing, or not all: a disk may hang.
    pub(super) fn words_ended(&mut self, exit: Exit) {
        if self.words.previous.is_some() {
            if !exit.success() {
                self.note(format!("keep how this boot goes: its worker {}", super::telling::ending(exit)));
            }
        } else {
            let text = format!("how the boot before ended is not known: its worker {}", super::telling::ending(exit));
            self.words.previous = Some(Previous::unknown(&text));
            self.note(text);
        }
    }

    /// This boot is about to end, and why.
    pub(super) fn ends_for(&mut self, why: &str) {
        why.clone_into(&mut self.words.why);
        self.context_changed = true;
    }

    /// The last worker, which keeps that.
    pub(super) fn start_stop(&mut self) {
        let Some(goal) = self.state.common().goal else { return };
        let end = End::now(goal.into(), &self.words.why);
        // What has failed meanwhile would only hold the end up.
        let arguments = self.options.words.arguments(self.data_now().state == DataState::Mounted, &end);
        self.start_worker(Kind::Stop, &arguments.each_ref().map(OsString::as_os_str));
    }
}
