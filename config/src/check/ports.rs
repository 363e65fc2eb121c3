//! Ports: one listener for each on the machine's network.

use std::collections::BTreeMap;

use super::{Draft, require, value};
use crate::container::{NetworkMode, Port, Protocol};
use crate::errors::quote;
use crate::keys::PortKeys;
use crate::problems::{Problems, Span};
use crate::read::{Field, List, ShortOrLong};
use crate::syntax::{PortNumbers, PortShort, check_published};

/// A container that listens on more is written wrongly; also bounds what a few bytes can make of themselves.
const MAX_RANGE: u16 = 1024;

/// The ports of one container, each with its place.
pub(super) fn ports(
    field: Option<Field<List<ShortOrLong<PortShort, PortKeys>>>>,
    network: NetworkMode,
    problems: &mut Problems,
) -> (Vec<Port>, Vec<Span>) {
    let Some(field) = field else {
        return (Vec::new(), Vec::new());
    };
    if network == NetworkMode::None && !field.value.0.is_empty() {
        problems
            .error(&field.key, "a container with a network of its own can't be reached, so it can't have ports")
            .help(
                "add: network_mode = \"host\" (networks between the machine and its containers aren't supported yet)",
            );
        return (Vec::new(), Vec::new());
    }
    let mut ports: BTreeMap<Port, Span> = BTreeMap::new();
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
            if let Some(before) = ports.insert(Port { protocol, number }, entry.span.clone()) {
                let message = format!("port {number}/{protocol} is given twice");
                problems.error(&entry.span, message).help("leave out one of them").related(&before, "first given here");
                break;
            }
        }
    }
    ports.into_iter().unzip()
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

/// Notes ports that two containers declare.
pub(super) fn check_clashes(drafts: &[Draft], problems: &mut Problems) {
    let mut taken: BTreeMap<Port, (&str, &Span)> = BTreeMap::new();
    for draft in drafts {
        let mut last = None;
        for (port, span) in draft.container.ports.iter().zip(&draft.ports) {
            // One complaint for each entry, however many ports it stands for.
            if last == Some(span) {
                continue;
            }
            match taken.get(port) {
                Some((other, place)) => {
                    let Port { number, protocol } = port;
                    problems
                        .error(
                            span,
                            format!("port {number}/{protocol} is already taken by the container {}", quote(other)),
                        )
                        .help("let one of them listen on another port: they share the machine's network")
                        .related(place, "taken here");
                    last = Some(span);
                }
                None => {
                    taken.insert(*port, (&draft.container.name, span));
                }
            }
        }
    }
}
