//! What can be asked for. A command's flags stand in a table, by which its help is printed and the command line is taken apart;
//! the tables of commands that are mostly flags stand with them.

mod commands;
mod exec;
mod global;
mod help;
mod making;
mod page;
mod reader;
mod small;
#[cfg(test)]
mod tests;

pub(super) use commands::Command;
pub(super) use exec::Exec;
pub(super) use global::{CgroupManager, Global, LogFormat, LogPlace};
pub(super) use making::{Create, Making, Name, Run};
pub(super) use page::Flag;
pub(super) use reader::{Instead, Parsed, Reader};
pub(super) use small::{Delete, Format, Kill, List, Ps, Spec};

const NAME: &str = "garboard-runtime";

#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) global: Global,
    /// What the command was called.
    pub(super) name: &'static str,
    pub(super) command: Command,
}

impl Arguments {
    /// What this process was called with.
    pub(super) fn of_process() -> Parsed<Self> {
        Self::read(lexopt::Parser::from_env())
    }

    fn read(line: lexopt::Parser) -> Parsed<Self> {
        let mut reader = Reader::new(line, &global::PAGE);
        let mut global = Global::default();
        let page = loop {
            match reader.next()? {
                Some("COMMAND") => break commands::named(&mut reader)?,
                Some(flag) => global.take(flag, &mut reader)?,
                None => return Err(reader.missing("<COMMAND>")),
            }
        };
        reader.turn_to(page);
        let command = commands::read(page.name, &mut reader)?;
        Ok(Self { global, name: page.name, command })
    }
}
