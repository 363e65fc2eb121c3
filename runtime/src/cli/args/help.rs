//! Help pages as they are printed.

use super::commands::PAGES;
use super::page::{Flag, Page};

const AFTER: &str = "\nExit status: 0 done, 1 failed (exec: 255); run and exec give the program's own, or 128 + the signal that ended it.\n";

/// The whole page.
pub(super) fn print(page: &Page) -> String {
    let flags: Vec<_> = page.all_flags().map(|flag| (flag_shown(flag), described(flag))).collect();
    let arguments: Vec<_> =
        page.arguments.iter().map(|argument| (argument.shown(), argument.help.to_owned())).collect();

    let mut text = format!("{}\n\nUsage: {}", page.about, page.call());
    // Besides help.
    if flags.len() > 1 {
        text += " [OPTIONS]";
    }
    arguments.iter().for_each(|(shown, _)| text += &format!(" {shown}"));
    text += "\n";
    if page.name.is_empty() {
        let commands = PAGES.iter().map(|page| (page.name.to_owned(), page.about.to_owned())).collect();
        text += &list("Commands", commands);
    } else {
        text += &list("Arguments", arguments);
    }
    text += &list("Options", flags);
    if page.name.is_empty() {
        text += AFTER;
    }
    text
}

/// What there is and what it does, in two columns.
fn list(heading: &str, rows: Vec<(String, String)>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let width = rows.iter().map(|(shown, _)| shown.len()).max().unwrap_or(0);
    let rows = rows.iter().map(|(shown, help)| format!("  {shown:width$}  {help}\n"));
    format!("\n{heading}:\n{}", rows.collect::<String>())
}

fn flag_shown(flag: &Flag) -> String {
    match flag.shorts.chars().next() {
        Some(letter) => format!("-{letter}, {}", flag.shown()),
        None => format!("    {}", flag.shown()),
    }
}

fn described(flag: &Flag) -> String {
    if flag.values.is_empty() {
        return flag.help.to_owned();
    }
    format!("{} [possible values: {}]", flag.help, flag.values.join(", "))
}
