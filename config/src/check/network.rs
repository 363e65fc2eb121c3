//! The machine's own addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::appliance::{Address, Cidr, Network};
use crate::errors::quote;
use crate::keys::NetworkKeys;
use crate::problems::{Problems, Span};
use crate::read::{At, Field, OneOrMany, Table};
use crate::syntax::{AddressEntry, InterfaceName, Ip};

/// Bytes of the longest name of an interface (`IFNAMSIZ` without its NUL).
const LONGEST_NAME: usize = 15;

pub(super) fn network(keys: Option<NetworkKeys>, problems: &mut Problems) -> Network {
    let keys = keys.unwrap_or_default();
    let broken = keys.given("address") && keys.address.is_none();
    let mut address = keys.address.map(|field| address(field.value, &field.span, problems)).unwrap_or_default();
    if let Some(field) = keys.gateway.filter(|_| !broken) {
        match &mut address {
            Address::Static { addresses, gateways } => {
                *gateways = field.value.0.iter().map(|gateway| gateway.value.0).collect();
                check_gateways(&field, addresses, problems);
            }
            Address::Dhcp => {
                problems
                    .error(&field.key, "DHCP names the gateway")
                    .help("leave it out, or give the machine a fixed `address`");
            }
            Address::None => {
                problems
                    .error(&field.key, "without an uplink there is no gateway")
                    .help("leave it out, or give the machine an `address`");
            }
        }
    }
    if let Some(field) = &keys.interface {
        check_interface(field, &address, problems);
    }
    Network {
        address,
        interface: keys.interface.map(|field| field.value.0),
        dns: keys.dns.map(|field| field.value.0.into_iter().map(|ip| ip.value.0).collect()).unwrap_or_default(),
    }
}

fn address(entries: OneOrMany<AddressEntry>, span: &Span, problems: &mut Problems) -> Address {
    let mut addresses = Vec::new();
    let mut seen: BTreeMap<IpAddr, &Span> = BTreeMap::new();
    let alone = entries.0.len() == 1;
    for At { span, value } in &entries.0 {
        match value {
            AddressEntry::None if alone => return Address::None,
            AddressEntry::Dhcp if alone => return Address::Dhcp,
            AddressEntry::None | AddressEntry::Dhcp => {
                problems
                    .error(span, "\"dhcp\" and \"none\" can't stand beside other addresses")
                    .help("write one or the other");
            }
            AddressEntry::Static(cidr) => {
                if let Some(first) = seen.insert(cidr.address, span) {
                    problems
                        .error(span, format!("the address {} is given twice", cidr.address))
                        .help("leave out one of them")
                        .related(first, "first given here");
                }
                if let Some(why) = no_host(cidr.address, Some(*cidr)) {
                    problems
                        .error(span, format!("{} can't be a machine's address: it is {why}", cidr.address))
                        .help("write the machine's own address in that network, such as \"192.0.2.7/24\"");
                }
                addresses.push(*cidr);
            }
        }
    }
    if entries.0.is_empty() {
        problems
            .error(span, "the list of addresses is empty")
            .help("write \"none\" for a machine without an uplink, or \"dhcp\"");
    }
    Address::Static { addresses, gateways: Vec::new() }
}

fn check_gateways(field: &Field<OneOrMany<Ip>>, addresses: &[Cidr], problems: &mut Problems) {
    let gateways = &field.value.0;
    if gateways.is_empty() {
        problems.error(&field.span, "the list of gateways is empty").help("leave the key out");
    }
    let mut firsts: [Option<&At<Ip>>; 2] = [None; 2];
    for gateway in gateways {
        let first = &mut firsts[usize::from(gateway.value.0.is_ipv4())];
        if let Some(first) = first {
            problems
                .error(&gateway.span, format!("{} would be a second default gateway", gateway.value.0))
                .help("one of IPv4 and one of IPv6 can be named")
                .related(&first.span, "the first one");
        } else {
            *first = Some(gateway);
            check_gateway(gateway, addresses, problems);
        }
    }
}

fn check_gateway(field: &At<Ip>, addresses: &[Cidr], problems: &mut Problems) {
    let found = field.value.0;
    let network = addresses.iter().copied().find(|cidr| cidr.contains(found));
    if let Some(own) = addresses.iter().find(|cidr| cidr.address == found) {
        problems
            .error(&field.span, format!("the gateway {} is the machine's own address", own.address))
            .help("write the address of the router");
    } else if let Some(why) = no_host(found, network) {
        problems
            .error(&field.span, format!("{found} can't be a gateway: it is {why}"))
            .help("write the address of the router");
    } else if network.is_none() && !is_on_link(found, addresses) {
        problems
            .error(&field.span, format!("the gateway {found} isn't in the network of any address"))
            .help("check the gateway, the address and the length of its prefix");
    }
}

/// Whether a gateway outside of all networks is reached over the link itself: a link-local one is, and so is that of an IPv4 address that
/// is a network of its own (PID 1 makes the route).
fn is_on_link(gateway: IpAddr, addresses: &[Cidr]) -> bool {
    match gateway {
        IpAddr::V4(_) => addresses.iter().any(|cidr| cidr.address.is_ipv4() && cidr.prefix == 32),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Why an address is no single machine's on an Ethernet, `network` being the one in which it is.
fn no_host(address: IpAddr, network: Option<Cidr>) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("no address");
    } else if address.is_multicast() {
        return Some("a group's (multicast)");
    } else if address.is_loopback() {
        return Some("the loopback's");
    }
    let IpAddr::V4(ip) = address else { return None };
    let prefix = network.map_or(32, |cidr| cidr.prefix);
    // Smaller networks have neither (RFC 3021).
    let hosts = u32::MAX.checked_shr(prefix.into()).filter(|_| prefix < 31).unwrap_or_default();
    match ip.to_bits() & hosts {
        _ if ip == Ipv4Addr::BROADCAST => Some("everybody's (broadcast)"),
        0 if hosts != 0 => Some("the network's own"),
        last if last == hosts && hosts != 0 => Some("everybody's in its network (broadcast)"),
        _ => None,
    }
}

/// Each further IPv4 address stands under an alias of the interface, `NAME:1`, which is no longer than a name.
fn check_interface(field: &Field<InterfaceName>, address: &Address, problems: &mut Problems) {
    let name = &field.value.0;
    let Address::Static { addresses, .. } = address else {
        if *address == Address::None {
            problems
                .error(&field.key, "without an uplink no interface is set up")
                .help("leave it out, or give the machine an `address`");
        }
        return;
    };
    let further = addresses.iter().filter(|cidr| cidr.address.is_ipv4()).count().saturating_sub(1);
    let longest = format!("{name}:{further}");
    if further > 0 && longest.len() > LONGEST_NAME {
        problems
            .error(
                &field.span,
                format!("the name {} is too long for so many IPv4 addresses", quote(name)),
            )
            .help(format!(
                "they stand under the names \"{name}:1\" and so on, of at most {LONGEST_NAME} characters: give the interface fewer"
            ));
    }
}
