//! Ports: one listener for each on the machine's network.

use std::collections::BTreeMap;

use super::{require, value};
use crate::container::{NetworkMode, Port, Protocol};
use crate::errors::quote;
use crate::keys::PortKeys;
use crate::problems::{Problems, Span};
use crate::read::{Field, List, ShortOrLong};
use crate::syntax::{PortNumbers, PortShort, check_published};

/// A container that listens on more is written wrongly; also bounds what a few bytes can make of themselves.
const MAX_RANGE: u16 = 1024;

/// The ports of all containers so far, each with its container's name and its place. A port is in it once, so that it is bounded by what
/// ports there are, whatever is declared.
pub(super) type Taken = BTreeMap<Port, (String, Span)>;

/// The ports of one container that nobody has `taken`. `declared`: its network is, and not the default.
pub(super) fn ports(
    field: Option<Field<List<ShortOrLong<PortShort, PortKeys>>>>,
    (network, declared): (NetworkMode, bool),
    container: &str,
    taken: &mut Taken,
    problems: &mut Problems,
) -> Vec<Port> {
    let Some(field) = field else {
        return Vec::new();
    };
    if network == NetworkMode::None && !field.value.0.is_empty() {
        problems
            .error(&field.key, "a container with a network of its own can't be reached, so it can't have ports")
            .help(format!(
                "{}: network_mode = \"host\" (networks between the machine and its containers aren't supported yet)",
                if declared { "write" } else { "add" }
            ));
        return Vec::new();
    }
    let mut ports = Vec::new();
    for entry in field.value.0 {
        let port = match entry.value {
            ShortOrLong::Short(port) => Some(port),
            ShortOrLong::Long(keys) => long(keys, &entry.span, problems),
        };
        let Some(PortShort { numbers: PortNumbers { first, last }, protocol }) = port else { continue };
        if last - first >= MAX_RANGE {
            problems
                .error(&entry.span, format!("a range of more than {MAX_RANGE} ports"))
                .help("declare only the ports that the program listens on");
            continue;
        }
        for number in first..=last {
            let port = Port { protocol, number };
            if let Some((other, place)) = taken.get(&port) {
                clash(port, container, other, &entry.span, place, problems);
                break;
            }
            taken.insert(port, (container.to_owned(), entry.span.clone()));
            ports.push(port);
        }
    }
    ports.sort_unstable();
    ports
}

/// Notes a port that is declared already. Each entry has one such complaint, however many ports it stands for.
fn clash(port: Port, container: &str, other: &str, span: &Span, place: &Span, problems: &mut Problems) {
    let Port { protocol, number } = port;
    if container == other {
        problems
            .error(span, format!("port {number}/{protocol} is given twice"))
            .help("leave out one of them")
            .related(place, "first given here");
    } else {
        problems
            .error(span, format!("port {number}/{protocol} is already taken by the container {}", quote(other)))
            .help("let one of them listen on another port: they share the machine's network")
            .related(place, "taken here");
    }
}

fn long(keys: PortKeys, span: &Span, problems: &mut Problems) -> Option<PortShort> {
    require(&keys, "target", span, "`target` of the port is missing", "add: target = 80", problems);
    let target = keys.target?;
    if let Some(published) = keys.published
        && let Err(fault) = check_published(published.value, target.value)
    {
        fault.report(&published.span, problems);
    }
    Some(PortShort { numbers: target.value, protocol: value(keys.protocol).unwrap_or(Protocol::Tcp) })
}
