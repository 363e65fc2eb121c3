//! Network addresses.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::digits::decimal;
use crate::appliance::Cidr;
use crate::errors::quote;
use crate::read::{Fault, Word};

/// One entry of `[network] address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressEntry {
    None,
    Dhcp,
    Static(Cidr),
}

/// An IPv4 or IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ip(pub(crate) IpAddr);

impl Word for AddressEntry {
    const EXPECTED: &'static str = "\"dhcp\", \"none\" or an address such as \"192.0.2.7/24\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "dhcp" => Ok(Self::Dhcp),
            "none" => Ok(Self::None),
            _ => cidr(text).map(Self::Static),
        }
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": "^(dhcp|none|[0-9A-Fa-f:.]+/[1-9][0-9]{0,2})$" })
    }
}

impl Word for Ip {
    const EXPECTED: &'static str = "an IP address";

    fn parse(text: &str) -> Result<Self, Fault> {
        text.parse().map(Self).map_err(|_| {
            let fault = Fault::new(format!("{} isn't an IP address", quote(text)));
            match text.split_once('/') {
                Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
                    fault.help(format!("leave out the prefix: \"{address}\""))
                }
                _ => fault.help("write it as \"192.0.2.7\" or \"2001:db8::7\""),
            }
        })
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+$" })
    }
}

fn cidr(text: &str) -> Result<Cidr, Fault> {
    let wrong = || {
        Fault::new(format!("{} isn't {}", quote(text), AddressEntry::EXPECTED))
            .help("an address is written with the length of its network prefix, such as \"192.0.2.7/24\" or \"2001:db8::7/64\"")
    };
    let Some((address, prefix)) = text.split_once('/') else {
        return match text.parse::<IpAddr>() {
            Ok(address) => {
                let prefix = if address.is_ipv4() { 24 } else { 64 };
                Err(Fault::new(format!("the address {} has no prefix length", quote(text)))
                    .help(format!("add the size of its network, such as \"{address}/{prefix}\"")))
            }
            Err(_) => Err(wrong()),
        };
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    match decimal::<u8>(prefix) {
        Some(prefix) if (1..=bits).contains(&prefix) => Ok(Cidr { address, prefix }),
        _ => Err(Fault::new(format!("{} isn't a prefix length", quote(prefix)))
            .help(format!("write a number from 1 to {bits}"))),
    }
}

/// One entry of `extra_hosts` in its list form: `name=address` or `name:address`, an IPv6 address in brackets or not.
pub(crate) fn host_entry(text: &str) -> Result<(String, IpAddr), Fault> {
    let Some((name, address)) = text.split_once('=').or_else(|| text.split_once(':')) else {
        return Err(
            Fault::new(format!("{} isn't a host with its address", quote(text))).help("write \"name=192.0.2.7\"")
        );
    };
    Ok((name.to_owned(), host_address(address)?))
}

/// An address in `extra_hosts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostAddress(pub(crate) IpAddr);

impl Word for HostAddress {
    const EXPECTED: &'static str = Ip::EXPECTED;

    fn parse(text: &str) -> Result<Self, Fault> {
        host_address(text).map(Self)
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]+)$" })
    }
}

fn host_address(text: &str) -> Result<IpAddr, Fault> {
    if text == "host-gateway" {
        return Err(Fault::new("`host-gateway` isn't supported here")
            .help("there is no bridge network to have a gateway; a container on the machine's network reaches it as 127.0.0.1"));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    Ip::parse(bare).map(|ip| ip.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_prefix() {
        for text in ["192.0.2.7/24", "10.0.0.1/32", "2001:db8::7/64", "::1/128"] {
            match AddressEntry::parse(text) {
                Ok(AddressEntry::Static(cidr)) => assert_eq!(cidr.to_string(), text),
                other => panic!("{text}: {other:?}"),
            }
        }
        for text in [
            "",
            "192.0.2.7",
            "192.0.2.7/",
            "192.0.2.7/0",
            "192.0.2.7/33",
            "192.0.2.7/+24",
            "192.0.2.7/024",
            "192.0.2/24",
            "::1/129",
            "DHCP",
            "a/b",
        ] {
            assert!(AddressEntry::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hosts_in_every_form() {
        for (text, name, address) in [
            ("db=10.0.0.2", "db", "10.0.0.2"),
            ("db:10.0.0.2", "db", "10.0.0.2"),
            ("db=::1", "db", "::1"),
            ("db:::1", "db", "::1"),
            ("db=[::1]", "db", "::1"),
        ] {
            assert_eq!(host_entry(text), Ok((name.to_owned(), address.parse().unwrap())), "{text}");
        }
        for text in ["db", "db=", "db=x", "db=host-gateway", ""] {
            assert!(host_entry(text).is_err(), "{text:?}");
        }
    }
}
