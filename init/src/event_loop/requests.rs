//! The status port's requests, answered.

use std::path::Path;

use super::Supervisor;
use super::sources::Source;
use crate::status::protocol::{self, Answer, DEFAULT_TAIL, Line, Question, Request};
use crate::status::{PORT_NAME, Port, find};
use crate::supervise::Goal;

/// Bytes of a log that one `logs` reply holds.
const LONGEST_LOG: usize = 128 << 10;
/// Requests answered in one turn of the loop.
const REQUESTS_PER_TURN: usize = 8;

impl Supervisor {
    /// Opens the port once it is there; until then, called for each device that comes.
    pub(super) fn look_for_port(&mut self) {
        if self.port.is_some() {
            return;
        }
        let Some(path) = find(Path::new("/sys/class/virtio-ports"), PORT_NAME) else { return };
        match Port::open(&path) {
            Ok(port) => {
                self.use_port(port);
                // Nothing else of what devices do is ours.
                if let Some(uevents) = self.uevents.take() {
                    self.sources.remove(&uevents);
                }
            }
            Err(e) => log::warn!("open {}: {e}", path.display()),
        }
    }

    pub(super) fn use_port(&mut self, port: Port) {
        self.sources.add_edges(&port, Source::Port);
        self.port = Some(port);
        self.port_again = true;
        self.common_dirty = true;
    }

    /// Reads and answers requests, a bounded number.
    pub(super) fn serve_port(&mut self) {
        let Some(mut port) = self.port.take() else { return };
        port.write();
        let mut more = true;
        for _ in 0..REQUESTS_PER_TURN {
            match port.request() {
                Some(Ok(line)) => {
                    let reply = self.answer(&line);
                    port.reply(&reply);
                    port.write();
                }
                Some(Err(())) => {
                    let message = format!("a request has at most {} bytes", protocol::LONGEST_REQUEST);
                    port.reply(&protocol::encode(None, Answer::Error { message }));
                    port.write();
                }
                None => {
                    more = port.read(&mut self.buffer);
                    if !more {
                        break;
                    }
                }
            }
        }
        // While a reply waits for its reader, the next edge continues.
        self.port_again = more && !port.busy();
        self.port = Some(port);
    }

    fn answer(&mut self, line: &[u8]) -> Vec<u8> {
        let Request { id, question } = match protocol::parse(line) {
            Ok(request) => request,
            Err((id, message)) => return protocol::encode(id, Answer::Error { message }),
        };
        match question {
            Question::Status => protocol::encode(id, Answer::Status { snapshot: Box::new(self.snapshot()) }),
            Question::Logs { container, tail } => protocol::encode(id, self.logs(&container, tail)),
            Question::Trace => protocol::encode(id, Answer::Trace { steps: self.trace.steps() }),
            Question::Poweroff => {
                self.shut_down(Goal::PowerOff, "asked by the status port");
                protocol::encode(id, Answer::Ok)
            }
            Question::Reboot => {
                self.shut_down(Goal::Reboot, "asked by the status port");
                protocol::encode(id, Answer::Ok)
            }
        }
    }

    fn logs<'a>(&self, container: &'a str, tail: Option<usize>) -> Answer<'a> {
        let Some(index) = self.plan.containers.iter().position(|c| c.name == container) else {
            return Answer::Error { message: format!("no container is named {container:?}") };
        };
        let entries = self.rings.tail(index, tail.unwrap_or(DEFAULT_TAIL), LONGEST_LOG);
        let line = |e: crate::logs::Entry| Line {
            time_ms: e.time_ms,
            text: String::from_utf8_lossy(&e.text).into_owned(),
            continues: e.continues,
        };
        Answer::Logs { container, lines: entries.into_iter().map(line).collect(), dropped: self.rings.dropped(index) }
    }
}
