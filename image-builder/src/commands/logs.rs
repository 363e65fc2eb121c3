//! `garboard logs`: what a container printed.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::port::{self, Port, Told};
use crate::cli;
use crate::plain::plain;

/// As many lines as there may be.
const ALL: u32 = 1_000_000;

/// Runs the command.
pub fn run(options: &cli::Logs) -> Result<ExitCode> {
    let mut port = Port::open(&options.target)?;
    // Without a name it is the kernel's.
    let request = json!({
        "request": "logs", "container": options.container, "tail": options.lines, "follow": options.follow,
        "previous": options.previous,
    });
    let reply = port.ask(&request)?;
    for line in reply["lines"].as_array().into_iter().flatten() {
        print(line, options.target.json)?;
    }
    let dropped = reply["dropped"].as_u64().unwrap_or(0);
    if dropped > 0 && options.previous {
        eprintln!("garboard: {dropped} bytes are missing among these lines");
    } else if dropped > 0 {
        eprintln!("garboard: {dropped} bytes were printed too fast to be kept");
    }
    if !options.follow {
        return Ok(ExitCode::SUCCESS);
    }
    port.follow(&reply)?;
    loop {
        match port.told()? {
            Told::Unread => return Ok(ExitCode::SUCCESS),
            Told::Line(line) => match line["type"].as_str() {
                Some("log") if line["container"] == json!(options.container) => print(&line, options.target.json)?,
                Some("missed") => {
                    let lines = line["lines"].as_u64().unwrap_or(0);
                    eprintln!("garboard: {lines} lines came too fast and are missing here");
                }
                _ => {}
            },
            Told::StartedOver => {
                eprintln!("garboard: the machine has started over; this is what it has printed since");
                let all = json!({"request": "logs", "container": options.container, "tail": ALL, "follow": true});
                for line in port.ask(&all)?["lines"].as_array().into_iter().flatten() {
                    print(line, options.target.json)?;
                }
            }
        }
    }
}

fn print(line: &Value, as_json: bool) -> Result<()> {
    if as_json {
        return super::print_json_line(line);
    }
    // One of an earlier boot has a time of the clock, unless it was damaged.
    let time = match line.get("time") {
        None => port::time(&line["time_ms"]),
        Some(time) => plain(time.as_str().unwrap_or("-")),
    };
    super::print(&format!("{time} {}\n", plain(line["text"].as_str().unwrap_or_default())))
}
