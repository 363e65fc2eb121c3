//! DHCPv4 messages (RFC 2131, options RFC 2132): the five that a client sends and the three it hears.
//!
//! Own code, because the maintained codec links a DNS library and its Unicode tables into PID 1 for options that nobody here
//! reads. Bytes only; the conversation is [`super::lease`]'s, the socket [`super::network`]'s.

use std::net::Ipv4Addr;

use super::address;
use crate::boot::field::bytes;

/// No message that a client must accept is longer (RFC 2131, section 2, and an Ethernet frame).
pub const MAX_LENGTH: usize = 1500;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Where options begin.
const OPTIONS: usize = 240;
/// Shorter messages are dropped by some relays (RFC 1542, section 2.1).
const MIN_LENGTH: usize = 300;

/// Bytes of a packet that every network must take.
const LEAST_MTU: u16 = 1280;

/// What a message is (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who has an address for me?
    Discover = 1,
    /// Here is one.
    Offer = 2,
    /// I take it, or keep it.
    Request = 3,
    /// It is yours.
    Ack = 5,
    /// It is not.
    Nak = 6,
}

/// A message that a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// Discover or request.
    pub kind: Kind,
    /// Transaction.
    pub xid: u32,
    /// Ethernet address.
    pub mac: [u8; 6],
    /// The address in use, when a lease is renewed.
    pub current: Option<Ipv4Addr>,
    /// The offered address that is taken (option 50).
    pub requested: Option<Ipv4Addr>,
    /// The server whose offer is taken (option 54).
    pub server: Option<Ipv4Addr>,
    /// Host name to tell the server (option 12).
    pub hostname: &'a str,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Offer, ack or nak.
    pub kind: Kind,
    /// Transaction.
    pub xid: u32,
    /// The address that is given.
    pub address: Ipv4Addr,
    /// The server.
    pub server: Option<Ipv4Addr>,
    /// Netmask.
    pub netmask: Option<Ipv4Addr>,
    /// Default gateways, the preferred first.
    pub routers: Vec<Ipv4Addr>,
    /// Routes that stand in place of `routers` if there are any (RFC 3442).
    pub routes: Vec<Route>,
    /// Name servers, the preferred first.
    pub dns: Vec<Ipv4Addr>,
    /// Bytes of the longest packet on this network (option 26).
    pub mtu: Option<u16>,
    /// Seconds that the address is given for.
    pub lease: Option<u32>,
    /// Seconds after which to renew.
    pub renew: Option<u32>,
    /// Seconds after which to ask any server.
    pub rebind: Option<u32>,
}

/// The way to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The network's address.
    pub destination: Ipv4Addr,
    /// Its prefix length, at most 32.
    pub prefix: u8,
    /// Who knows the way; `None`: the network is on the link.
    pub gateway: Option<Ipv4Addr>,
}

impl Query<'_> {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MIN_LENGTH);
        out.extend([1, 1, 6, 0]);
        out.extend(self.xid.to_be_bytes());
        // Without an address, answers must be broadcast: an ordinary socket can't hear others.
        let flags: u16 = if self.current.is_none() { 0x8000 } else { 0 };
        out.extend([0, 0]);
        out.extend(flags.to_be_bytes());
        out.extend(self.current.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        out.extend([0; 12]);
        out.extend(self.mac);
        out.resize(OPTIONS.saturating_sub(COOKIE.len()), 0);
        out.extend(COOKIE);
        let mut option = |code: u8, value: &[u8]| {
            if let Ok(length) = u8::try_from(value.len()) {
                out.extend([code, length]);
                out.extend(value);
            }
        };
        option(53, &[self.kind as u8]);
        let [a, b, c, d, e, f] = self.mac;
        option(61, &[1, a, b, c, d, e, f]);
        if let Some(address) = self.requested {
            option(50, &address.octets());
        }
        if let Some(server) = self.server {
            option(54, &server.octets());
        }
        if !self.hostname.is_empty() {
            option(12, self.hostname.as_bytes());
        }
        option(57, &u16::try_from(MAX_LENGTH).unwrap_or(1500).to_be_bytes());
        // Netmask, routes (asked for before routers, as RFC 3442 wants), routers, name servers, MTU, lease, renewal, rebinding.
        option(55, &[1, 121, 3, 6, 26, 51, 58, 59]);
        out.push(255);
        if out.len() < MIN_LENGTH {
            out.resize(MIN_LENGTH, 0);
        }
        out
    }
}

impl Reply {
    /// Reads a server's message to the client with that Ethernet address; `None` if it is none.
    pub fn parse(data: &[u8], mac: [u8; 6]) -> Option<Self> {
        if data.len() > MAX_LENGTH
            || data.get(..3)? != [2, 1, 6]
            || bytes::<6>(data, 28)? != mac
            || bytes(data, 236)? != COOKIE
        {
            return None;
        }
        let mut reply = Self {
            kind: Kind::Nak,
            xid: u32::from_be_bytes(bytes(data, 4)?),
            address: bytes::<4>(data, 16)?.into(),
            server: None,
            netmask: None,
            routers: Vec::new(),
            routes: Vec::new(),
            dns: Vec::new(),
            mtu: None,
            lease: None,
            renew: None,
            rebind: None,
        };
        let mut kind = None;
        // May come in pieces (RFC 3396).
        let mut classless = Vec::new();
        let mut rest = data.get(OPTIONS..)?;
        while let Some((code, tail)) = rest.split_first() {
            match code {
                0 => rest = tail,
                255 => break,
                _ => {
                    let (length, tail) = tail.split_first()?;
                    let (value, tail) = tail.split_at_checked(usize::from(*length))?;
                    reply.take(*code, value, &mut kind);
                    if *code == 121 {
                        classless.extend_from_slice(value);
                    }
                    rest = tail;
                }
            }
        }
        reply.kind = kind?;
        reply.routes = routes(&classless).unwrap_or_default();
        Some(reply)
    }

    fn take(&mut self, code: u8, value: &[u8], kind: &mut Option<Kind>) {
        let seconds = bytes::<4>(value, 0).map(u32::from_be_bytes);
        let address = bytes::<4>(value, 0).map(Ipv4Addr::from);
        match code {
            53 => {
                *kind = match value {
                    [2] => Some(Kind::Offer),
                    [5] => Some(Kind::Ack),
                    [6] => Some(Kind::Nak),
                    _ => None,
                }
            }
            1 => self.netmask = address,
            3 => self.routers = addresses(value),
            6 => self.dns = addresses(value),
            // What is shorter would take IPv6 away (RFC 8200, section 5).
            26 => self.mtu = bytes::<2>(value, 0).map(u16::from_be_bytes).filter(|mtu| *mtu >= LEAST_MTU),
            51 => self.lease = seconds,
            54 => self.server = address,
            58 => self.renew = seconds,
            59 => self.rebind = seconds,
            _ => {}
        }
    }
}

/// Addresses one after the other; eight are more than anyone uses.
fn addresses(value: &[u8]) -> Vec<Ipv4Addr> {
    value.chunks_exact(4).take(8).filter_map(|chunk| bytes::<4>(chunk, 0)).map(Ipv4Addr::from).collect()
}

/// More routes are not taken.
const MAX_ROUTES: usize = 32;

/// Routes one after the other: prefix length, the bytes of the network that it covers, gateway (RFC 3442). `None` if it is
/// anything else.
fn routes(mut value: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = value.split_first() {
        let (network, rest) = rest.split_at_checked(usize::from(prefix.div_ceil(8)))?;
        let mut octets = [0; 4];
        octets.get_mut(..network.len())?.copy_from_slice(network);
        let (gateway, rest) = rest.split_first_chunk::<4>()?;
        if prefix > 32 || routes.len() == MAX_ROUTES {
            return None;
        }
        // The kernel refuses bits beyond the prefix.
        let destination = Ipv4Addr::from(octets) & address::netmask(prefix);
        let gateway = Some(Ipv4Addr::from(*gateway)).filter(|gateway| !gateway.is_unspecified());
        routes.push(Route { destination, prefix, gateway });
        value = rest;
    }
    Some(routes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    /// A server's message.
    pub(crate) fn reply(kind: u8, xid: u32, options: &[&[u8]]) -> Vec<u8> {
        let mut data = vec![0; OPTIONS];
        data[..3].copy_from_slice(&[2, 1, 6]);
        data[4..8].copy_from_slice(&xid.to_be_bytes());
        data[16..20].copy_from_slice(&[10, 0, 2, 15]);
        data[28..34].copy_from_slice(&MAC);
        data[236..240].copy_from_slice(&COOKIE);
        data.extend([53, 1, kind]);
        data.extend(options.concat());
        data.push(255);
        data
    }

    #[test]
    fn queries_have_the_wire_format() {
        let query = Query {
            kind: Kind::Discover,
            xid: 0x0102_0304,
            mac: MAC,
            current: None,
            requested: None,
            server: None,
            hostname: "demo",
        };
        let bytes = query.encode();
        assert!(bytes.len() >= MIN_LENGTH);
        assert_eq!(bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0]);
        assert_eq!(bytes[28..34], MAC);
        assert_eq!(bytes[236..243], [99, 130, 83, 99, 53, 1, 1]);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("\x0c\x04demo"));
        let renewing = Query { current: Some([10, 0, 2, 15].into()), kind: Kind::Request, ..query }.encode();
        assert_eq!(renewing[10..16], [0, 0, 10, 0, 2, 15]);
    }

    #[test]
    fn replies_are_read() {
        let data = reply(
            2,
            7,
            &[
                &[1, 4, 255, 255, 255, 0],
                &[3, 4, 10, 0, 2, 2],
                &[0, 0],
                &[6, 8, 10, 0, 2, 3, 9, 9, 9, 9],
                &[51, 4, 0, 1, 0x51, 0x80],
            ],
        );
        let reply = Reply::parse(&data, MAC).unwrap();
        assert_eq!((reply.kind, reply.xid, reply.address), (Kind::Offer, 7, [10, 0, 2, 15].into()));
        assert_eq!(reply.netmask, Some([255, 255, 255, 0].into()));
        assert_eq!((reply.routers.len(), reply.dns.len(), reply.lease, reply.mtu), (1, 2, Some(86400), None));
    }

    #[test]
    fn an_mtu_is_one_that_ip_goes_through() {
        let mtu = |value: &[u8]| {
            let option = [&[26, u8::try_from(value.len()).unwrap()], value].concat();
            Reply::parse(&reply(5, 7, &[&option]), MAC).unwrap().mtu
        };
        assert_eq!(mtu(&1460_u16.to_be_bytes()), Some(1460));
        assert_eq!(mtu(&1280_u16.to_be_bytes()), Some(1280));
        for wrong in [&1279_u16.to_be_bytes()[..], &[0, 0], &[5], &[]] {
            assert_eq!(mtu(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn others_are_ignored() {
        let good = reply(5, 7, &[]);
        assert!(Reply::parse(&good, MAC).is_some());
        assert_eq!(Reply::parse(&good, [0; 6]), None, "for another client");
        assert_eq!(Reply::parse(&reply(1, 7, &[]), MAC), None, "a client's own message");
        assert_eq!(Reply::parse(&reply(5, 7, &[&[51, 200]]), MAC), None, "an option beyond the end");
        assert_eq!(Reply::parse(&good[..239], MAC), None, "truncated");
    }

    #[test]
    fn routes_are_read_even_in_pieces() {
        let data = reply(5, 7, &[&[121, 7, 24, 10, 0, 2, 10, 0, 2], &[121, 6, 9, 0, 172, 31, 1, 1]]);
        let expected = [
            Route { destination: [10, 0, 2, 0].into(), prefix: 24, gateway: Some([10, 0, 2, 9].into()) },
            Route { destination: [0; 4].into(), prefix: 0, gateway: Some([172, 31, 1, 1].into()) },
        ];
        assert_eq!(Reply::parse(&data, MAC).unwrap().routes, expected);
        let link = [Route { destination: [172, 31, 1, 0].into(), prefix: 25, gateway: None }];
        assert_eq!(routes(&[25, 172, 31, 1, 127, 0, 0, 0, 0]).unwrap(), link);
        for wrong in [&[33, 1, 2, 3, 4, 5, 1, 2, 3, 4][..], &[8, 10, 1, 2, 3], &[0, 1, 2, 3], &[0; 5 * 33]] {
            assert_eq!(routes(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_route_is_bounded_and_one_the_kernel_takes(value in proptest::collection::vec(any::<u8>(), 0..600)) {
            for route in routes(&value).unwrap_or_default() {
                prop_assert!(route.prefix <= 32);
                prop_assert_eq!(route.destination & !address::netmask(route.prefix), Ipv4Addr::UNSPECIFIED);
            }
        }

        #[test]
        fn routes_that_were_written_are_read(list in proptest::collection::vec((0_u8..=32, any::<[u8; 4]>(), any::<[u8; 4]>()), 0..=MAX_ROUTES)) {
            let mut value = Vec::new();
            for (prefix, network, gateway) in &list {
                value.push(*prefix);
                value.extend(&network[..usize::from(prefix.div_ceil(8))]);
                value.extend(gateway);
            }
            let read = routes(&value).unwrap();
            prop_assert_eq!(read.len(), list.len());
            for (route, (prefix, network, gateway)) in read.iter().zip(list) {
                prop_assert_eq!(route.prefix, prefix);
                prop_assert_eq!(route.destination, Ipv4Addr::from(network) & address::netmask(prefix));
                prop_assert_eq!(route.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED), Ipv4Addr::from(gateway));
            }
        }

        #[test]
        fn any_bytes_are_handled(options in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..900) {
            let mut data = reply(5, 1, &[&options]);
            let _ = Reply::parse(&data, MAC);
            data.truncate(cut);
            let _ = Reply::parse(&data, MAC);
            let _ = Reply::parse(&options, MAC);
        }
    }
}
