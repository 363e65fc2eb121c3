//! `garboard events`: what happened in a running appliance.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::port::{self, Port, Told};
use crate::cli;
use crate::plain::plain;

/// Runs the command.
pub fn run(options: &cli::Events) -> Result<ExitCode> {
    let mut port = Port::open(&options.target)?;
    let reply = port.ask(&json!({"request": "events", "count": options.lines}))?;
    for event in reply["events"].as_array().into_iter().flatten() {
        print(event, options.target.json)?;
    }
    if options.follow {
        let mut last = reply["newest"].as_u64().unwrap_or(0);
        let reply = port.ask(&port::subscription(last))?;
        port.follow(&reply)?;
        loop {
            match port.told()? {
                Told::Unread => break,
                Told::Line(line) => {
                    let number = line["event"]["number"].as_u64().unwrap_or(0);
                    // After a crash of PID 1 some may come again.
                    if line["type"] == "event" && number > last {
                        last = number;
                        print(&line["event"], options.target.json)?;
                    }
                }
                Told::StartedOver => {
                    // It counts from 1 again.
                    last = 0;
                    port.ask(&port::subscription(last))?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(event: &Value, as_json: bool) -> Result<()> {
    if as_json { super::print_json_line(event) } else { super::print(&format!("{}\n", line(event))) }
}

/// Time, container, kind and text.
fn line(event: &Value) -> String {
    let word = |key: &str| event[key].as_str().unwrap_or_default();
    let container = event["container"].as_str().unwrap_or("-");
    let text = format!("{} {container:16} {:13} {}", port::time(&event["time_ms"]), word("kind"), word("text"));
    plain(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = json!({"number": 3, "time_ms": 12_034, "kind": "exited", "container": "web", "text": "a\nb"});
        assert_eq!(line(&event), "      12.034 web              exited        a\\u{a}b");
        let event = json!({"number": 3, "time_ms": 7, "kind": "note", "container": null, "text": "x"});
        assert_eq!(line(&event), "       0.007 -                note          x");
    }
}
