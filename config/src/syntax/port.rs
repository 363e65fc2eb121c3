//! Ports: `[[HOST_IP:]PUBLISHED:]TARGET[/PROTOCOL]`, each a number or a range.

use serde_json::{Value, json};

use super::digits::decimal;
use crate::container::Protocol;
use crate::errors::quote;
use crate::read::{Choice, Fault, Word};

/// One entry of `ports` in its short form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortShort {
    pub(crate) numbers: PortNumbers,
    pub(crate) protocol: Protocol,
}

/// A port or a range of ports, in order, without 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortNumbers {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl Choice for Protocol {
    const WHAT: &'static str = "a protocol";
    const CHOICES: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp), ("udp", Self::Udp)];
}

impl Word for PortNumbers {
    const EXPECTED: &'static str = "a port from 1 to 65535";

    fn parse(text: &str) -> Result<Self, Fault> {
        let number = |text: &str| decimal::<u16>(text).filter(|number| *number > 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(Fault::new(format!("{} isn't a port", quote(text)))
                .help("write a number from 1 to 65535, such as \"80\", or a range such as \"8000-8010\"")),
        }
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        Some(Self::parse(&number.to_string()))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [
            { "type": "string", "pattern": "^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$" },
            { "type": "integer", "minimum": 1, "maximum": 65535 },
        ] })
    }
}

impl Word for PortShort {
    const EXPECTED: &'static str = "a port such as 80, \"53/udp\" or \"8000-8010\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let (numbers, protocol) = match text.rsplit_once('/') {
            Some((numbers, protocol)) => (numbers, Protocol::parse(protocol)?),
            None => (text, Protocol::Tcp),
        };
        let (published, target) = match numbers.rsplit_once(':') {
            Some((published, target)) => (Some(published), PortNumbers::parse(target)?),
            None => (None, PortNumbers::parse(numbers)?),
        };
        if let Some(published) = published {
            let published = match published.rsplit_once(':') {
                Some((address, published)) => {
                    check_host_ip(address)?;
                    published
                }
                None => published,
            };
            if !published.is_empty() {
                check_published(PortNumbers::parse(published)?, target)?;
            }
        }
        Ok(Self { numbers: target, protocol })
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        PortNumbers::from_integer(number).map(|result| result.map(|numbers| Self { numbers, protocol: Protocol::Tcp }))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [
            { "type": "string", "pattern": r"^([^/]*:)?[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?(/(tcp|udp))?$" },
            { "type": "integer", "minimum": 1, "maximum": 65535 },
        ] })
    }
}

/// There is no address translation yet: the machine's port is the container's.
pub(crate) fn check_published(published: PortNumbers, target: PortNumbers) -> Result<(), Fault> {
    if published == target {
        return Ok(());
    }
    Err(Fault::new(format!("port {published} of the machine can't be sent to port {target} of the container")).help(format!(
        "ports aren't translated yet, because containers with ports share the machine's network: let the program listen on \
         {published} and write \"{published}\", or write \"{target}\""
    )))
}

/// Any address but the one that means all of them would be a promise that nothing keeps.
fn check_host_ip(address: &str) -> Result<(), Fault> {
    if matches!(address, "0.0.0.0" | "[::]" | "::" | "") {
        return Ok(());
    }
    Err(Fault::new(format!("a port can't be limited to the address {}", quote(address)))
        .help("a container with ports shares the machine's network: let its program listen on that address, and leave it out here"))
}

impl std::fmt::Display for PortNumbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_every_form() {
        for (text, first, last, protocol) in [
            ("80", 80, 80, Protocol::Tcp),
            ("80:80", 80, 80, Protocol::Tcp),
            (":80", 80, 80, Protocol::Tcp),
            ("53/udp", 53, 53, Protocol::Udp),
            ("53:53/udp", 53, 53, Protocol::Udp),
            ("8000-8010", 8000, 8010, Protocol::Tcp),
            ("8000-8010:8000-8010/tcp", 8000, 8010, Protocol::Tcp),
            ("0.0.0.0:80:80", 80, 80, Protocol::Tcp),
            ("[::]:80:80", 80, 80, Protocol::Tcp),
            ("65535", 65535, 65535, Protocol::Tcp),
        ] {
            let expected = PortShort { numbers: PortNumbers { first, last }, protocol };
            assert_eq!(PortShort::parse(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "0",
            "65536",
            "-1",
            "+80",
            "080",
            "80/sctp",
            "8080:80",
            "80:",
            "127.0.0.1:80:80",
            "80-70",
            "80-",
            "1-2-3",
            "a",
            "80/",
            "0-5",
        ] {
            assert!(PortShort::parse(text).is_err(), "{text:?}");
        }
        assert!(matches!(PortShort::from_integer(80), Some(Ok(_))));
        assert!(matches!(PortShort::from_integer(-80), Some(Err(_))));
    }
}
