//! The conversation that gets and keeps a DHCPv4 lease (RFC 2131, section 4.4), as a pure automaton: it is told the time and what
//! arrived, and says what to send and to set.

use std::net::Ipv4Addr;

use super::address;
use super::dhcp::{Kind, Query, Reply, Route};

/// How long to wait for the first answer; doubled with every attempt.
const FIRST_WAIT: u64 = 1000;
const LONGEST_WAIT: u64 = 64_000;
/// Requests for one offer before asking anew.
const REQUESTS: u32 = 4;
/// A renewal isn't repeated sooner (RFC 2131, section 4.4.5), and no lease is taken for shorter.
const MINUTE: u64 = 60_000;

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Its network's prefix length.
    pub prefix: u8,
    /// Routes, the default one among them.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Bytes of the longest packet, if the network's isn't the interface's own.
    pub mtu: Option<u16>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send to every server.
    Broadcast(Vec<u8>),
    /// Send to this one.
    Unicast(Ipv4Addr, Vec<u8>),
    /// Use this lease from now on.
    Configure(Lease),
    /// Stop using the address.
    Deconfigure,
}

/// Times in milliseconds at which a lease must be seen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    renew: u64,
    rebind: u64,
    expire: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Asking for offers.
    Selecting,
    /// Taking an offer.
    Requesting { offer: Reply },
    /// Having a lease; past its renewal time also asking to keep it.
    Bound { address: Ipv4Addr, server: Option<Ipv4Addr>, times: Times },
}

/// A client on one interface.
#[derive(Debug)]
pub struct Client {
    mac: [u8; 6],
    hostname: String,
    xid: u32,
    state: State,
    attempt: u32,
    /// How often a server refused what it had offered, without a lease since.
    refused: u32,
    deadline: u64,
}

impl Client {
    /// A client that has no lease and wants to ask at once. `seed` makes its transactions its own.
    pub fn new(mac: [u8; 6], hostname: &str, seed: u32, now: u64) -> Self {
        let hostname = hostname.to_owned();
        Self { mac, hostname, xid: seed, state: State::Selecting, attempt: 0, refused: 0, deadline: now }
    }

    /// When [`Self::tick`] wants to be called, in milliseconds of the same clock.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// How often it has asked without an answer.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// A server has offered an address.
    pub fn has_offer(&self) -> bool {
        matches!(self.state, State::Requesting { .. })
    }

    /// How often in a row a server has refused what was offered.
    pub fn refusals(&self) -> u32 {
        self.refused
    }

    /// The deadline has passed.
    pub fn tick(&mut self, now: u64) -> Vec<Action> {
        match self.state.clone() {
            State::Selecting => self.discover(now),
            State::Requesting { offer } if self.attempt < REQUESTS => self.request(&offer, now),
            State::Requesting { .. } => self.restart(now),
            State::Bound { times, .. } if now >= times.expire => {
                let mut actions = vec![Action::Deconfigure];
                actions.extend(self.restart(now));
                actions
            }
            State::Bound { address, server, times } => self.renew(address, server, times, now),
        }
    }

    /// A datagram has arrived.
    pub fn receive(&mut self, data: &[u8], now: u64) -> Vec<Action> {
        let Some(reply) = Reply::parse(data, self.mac).filter(|reply| reply.xid == self.xid) else { return Vec::new() };
        match (&self.state, reply.kind) {
            (State::Selecting, Kind::Offer) if is_usable(reply.address) => {
                self.attempt = 0;
                self.state = State::Requesting { offer: reply.clone() };
                self.request(&reply, now)
            }
            (State::Requesting { .. } | State::Bound { .. }, Kind::Ack) if is_usable(reply.address) => {
                self.bind(&reply, now)
            }
            // Another server may say no to what is asked of this one.
            (State::Requesting { offer }, Kind::Nak)
                if reply.server.is_none() || offer.server.is_none() || reply.server == offer.server =>
            {
                self.refuse(now)
            }
            (State::Bound { times, .. }, Kind::Nak) if now >= times.renew => {
                let mut actions = vec![Action::Deconfigure];
                actions.extend(self.restart(now));
                actions
            }
            _ => Vec::new(),
        }
    }

    fn discover(&mut self, now: u64) -> Vec<Action> {
        self.xid = self.xid.wrapping_add(1);
        self.wait(now);
        let query = self.query(Kind::Discover);
        vec![Action::Broadcast(query.encode())]
    }

    fn request(&mut self, offer: &Reply, now: u64) -> Vec<Action> {
        self.wait(now);
        let query = Query { requested: Some(offer.address), server: offer.server, ..self.query(Kind::Request) };
        vec![Action::Broadcast(query.encode())]
    }

    fn renew(&mut self, address: Ipv4Addr, server: Option<Ipv4Addr>, times: Times, now: u64) -> Vec<Action> {
        if now < times.renew {
            self.deadline = times.renew;
            return Vec::new();
        }
        self.xid = self.xid.wrapping_add(1);
        let bytes = Query { current: Some(address), ..self.query(Kind::Request) }.encode();
        let (until, action) = match server {
            Some(server) if now < times.rebind => (times.rebind, Action::Unicast(server, bytes)),
            _ => (times.expire, Action::Broadcast(bytes)),
        };
        // Halfway to the next change of manners, but at most once a minute.
        let half = until.saturating_sub(now).checked_div(2).unwrap_or(0).max(MINUTE);
        self.deadline = now.saturating_add(half).min(until);
        vec![action]
    }

    fn bind(&mut self, ack: &Reply, now: u64) -> Vec<Action> {
        let seconds = |value: Option<u32>| value.map(|s| u64::from(s).saturating_mul(1000));
        // No lease time, or the longest: for ever.
        let length = seconds(ack.lease.filter(|s| *s != u32::MAX)).unwrap_or(u64::MAX).max(MINUTE);
        let part = |eighths: u64| length.checked_div(8).unwrap_or(0).saturating_mul(eighths);
        // No sooner, whatever the server says: it would be asked without a pause.
        let least = MINUTE.saturating_div(2);
        let rebind = seconds(ack.rebind).filter(|t| (least..length).contains(t)).unwrap_or_else(|| part(7));
        let renew = seconds(ack.renew).filter(|t| (least..rebind).contains(t)).unwrap_or_else(|| part(4).min(rebind));
        let times = Times {
            renew: now.saturating_add(renew),
            rebind: now.saturating_add(rebind),
            expire: now.saturating_add(length),
        };
        (self.attempt, self.refused) = (0, 0);
        self.deadline = times.renew;
        let server = match &self.state {
            State::Requesting { offer } => ack.server.or(offer.server),
            State::Bound { server, .. } => ack.server.or(*server),
            State::Selecting => ack.server,
        };
        self.state = State::Bound { address: ack.address, server, times };
        vec![Action::Configure(Lease {
            address: ack.address,
            prefix: ack.netmask.map_or(24, address::prefix),
            routes: routes(ack),
            dns: ack.dns.clone(),
            mtu: ack.mtu,
        })]
    }

    /// Asks anew, but not at once: who offers and refuses may do so for ever.
    fn refuse(&mut self, now: u64) -> Vec<Action> {
        let wait = patience(self.refused);
        self.refused = self.refused.saturating_add(1).min(32);
        self.state = State::Selecting;
        self.attempt = 0;
        self.deadline = now.saturating_add(wait);
        Vec::new()
    }

    fn restart(&mut self, now: u64) -> Vec<Action> {
        self.state = State::Selecting;
        self.attempt = 0;
        self.discover(now)
    }

    /// Sets the deadline for an answer: doubled with every attempt, with up to a second of jitter, so that machines which
    /// started together don't ask together.
    fn wait(&mut self, now: u64) {
        let wait = patience(self.attempt);
        let jitter = u64::from(self.xid.wrapping_mul(0x9e37_79b9) >> 22);
        self.attempt = self.attempt.saturating_add(1).min(32);
        self.deadline = now.saturating_add(wait).saturating_add(jitter);
    }

    fn query(&self, kind: Kind) -> Query<'_> {
        let (xid, mac, hostname) = (self.xid, self.mac, self.hostname.as_str());
        Query { kind, xid, mac, current: None, requested: None, server: None, hostname }
    }
}

/// The routes that the server names; else the default one over its first router.
fn routes(ack: &Reply) -> Vec<Route> {
    if !ack.routes.is_empty() {
        return ack.routes.clone();
    }
    let by = |router: &Ipv4Addr| Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway: Some(*router) };
    ack.routers.first().map(by).into_iter().collect()
}

/// How long to wait after so many times in vain.
fn patience(times: u32) -> u64 {
    FIRST_WAIT.checked_shl(times).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
}

/// Not every address can be an interface's.
fn is_usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::dhcp::tests::{MAC, reply};
    use proptest::prelude::*;

    const SERVER: &[u8] = &[54, 4, 10, 0, 2, 2];
    const HOUR: &[u8] = &[51, 4, 0, 0, 14, 16];

    fn xid(actions: &[Action]) -> u32 {
        let (Action::Broadcast(bytes) | Action::Unicast(_, bytes)) = &actions[actions.len() - 1] else {
            panic!("a message")
        };
        u32::from_be_bytes(bytes[4..8].try_into().unwrap())
    }

    fn bound() -> Client {
        let mut client = Client::new(MAC, "demo", 1, 0);
        let asked = client.tick(0);
        let requested = client.receive(&reply(2, xid(&asked), &[SERVER]), 10);
        assert!(matches!(requested[..], [Action::Broadcast(_)]));
        let actions = client.receive(
            &reply(
                5,
                xid(&requested),
                &[SERVER, HOUR, &[3, 4, 10, 0, 2, 2], &[1, 4, 255, 255, 0, 0], &[26, 2, 5, 180]],
            ),
            20,
        );
        let route = Route { destination: [0; 4].into(), prefix: 0, gateway: Some([10, 0, 2, 2].into()) };
        let lease =
            Lease { address: [10, 0, 2, 15].into(), prefix: 16, routes: vec![route], dns: vec![], mtu: Some(1460) };
        assert_eq!(actions, [Action::Configure(lease)]);
        client
    }

    #[test]
    fn a_lease_is_renewed_with_its_server_then_with_any_then_given_up() {
        let mut client = bound();
        assert_eq!(client.deadline(), 20 + 1_800_000);
        assert!(
            matches!(client.tick(1_800_020)[..], [Action::Unicast(server, _)] if server == Ipv4Addr::new(10, 0, 2, 2))
        );
        assert!(matches!(client.tick(3_150_020)[..], [Action::Broadcast(_)]));
        assert!(matches!(client.tick(3_600_020)[..], [Action::Deconfigure, Action::Broadcast(_)]));
    }

    #[test]
    fn another_server_s_no_is_none() {
        let mut client = Client::new(MAC, "demo", 1, 0);
        let asked = client.tick(0);
        let requested = client.receive(&reply(2, xid(&asked), &[SERVER]), 10);
        assert!(client.has_offer());
        // One that takes itself for the only one refuses what was asked of the other.
        assert!(client.receive(&reply(6, xid(&requested), &[&[54, 4, 10, 0, 2, 99]]), 11).is_empty());
        assert!(client.has_offer() && client.refusals() == 0);
        assert!(matches!(client.receive(&reply(5, xid(&requested), &[SERVER, HOUR]), 12)[..], [Action::Configure(_)]));
        // Control: its own.
        let mut client = Client::new(MAC, "demo", 1, 0);
        let asked = client.tick(0);
        let requested = client.receive(&reply(2, xid(&asked), &[SERVER]), 10);
        client.receive(&reply(6, xid(&requested), &[SERVER]), 11);
        assert_eq!((client.has_offer(), client.refusals()), (false, 1));
    }

    #[test]
    fn named_routes_stand_in_place_of_the_router() {
        let mut client = bound();
        let asked = client.tick(1_800_020);
        let message = reply(5, xid(&asked), &[HOUR, &[3, 4, 10, 0, 2, 2], &[121, 5, 0, 10, 0, 2, 9]]);
        let [Action::Configure(lease)] = &client.receive(&message, 1_800_030)[..] else { panic!("a lease") };
        let route = Route { destination: [0; 4].into(), prefix: 0, gateway: Some([10, 0, 2, 9].into()) };
        assert_eq!(lease.routes, [route]);
    }

    #[test]
    fn a_renewed_lease_lasts_from_then() {
        let mut client = bound();
        let asked = client.tick(1_800_020);
        let actions = client.receive(&reply(5, xid(&asked), &[HOUR]), 1_800_030);
        assert!(matches!(actions[..], [Action::Configure(_)]));
        assert_eq!(client.deadline(), 1_800_030 + 1_800_000);
        assert!(matches!(client.tick(client.deadline())[..], [Action::Unicast(..)]), "its server is remembered");
    }

    #[test]
    fn silence_is_met_with_patience() {
        let mut client = Client::new(MAC, "demo", 1, 0);
        let mut now = 0;
        let waits: Vec<u64> = (0..10)
            .map(|_| {
                assert!(matches!(client.tick(now)[..], [Action::Broadcast(_)]));
                let wait = client.deadline() - now;
                now = client.deadline();
                wait
            })
            .collect();
        assert!(waits[0] >= 1000 && waits[0] < 2100 && waits[9] >= 64_000 && waits[9] < 65_100, "{waits:?}");
    }

    #[test]
    fn a_refusal_or_a_mute_server_starts_over() {
        let mut client = Client::new(MAC, "demo", 1, 0);
        let asked = client.tick(0);
        let requested = client.receive(&reply(2, xid(&asked), &[SERVER]), 10);
        assert_eq!(client.receive(&reply(6, xid(&requested), &[]), 20), []);
        assert_eq!((&client.state, client.deadline()), (&State::Selecting, 1_020));
        let asked = client.tick(client.deadline());
        client.receive(&reply(2, xid(&asked), &[SERVER]), 30);
        for _ in 0..REQUESTS {
            client.tick(client.deadline());
        }
        assert_eq!(client.state, State::Selecting);
    }

    #[test]
    fn who_offers_and_refuses_is_asked_more_and_more_rarely() {
        let mut client = Client::new(MAC, "demo", 1, 0);
        let mut now = 0;
        let waits: Vec<u64> = (0..8)
            .map(|_| {
                let asked = client.tick(now);
                let requested = client.receive(&reply(2, xid(&asked), &[SERVER]), now);
                client.receive(&reply(6, xid(&requested), &[]), now);
                let wait = client.deadline() - now;
                now = client.deadline();
                wait
            })
            .collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000]);
        assert_eq!(client.refusals(), 8);
        let asked = client.tick(now);
        let requested = client.receive(&reply(2, xid(&asked), &[SERVER]), now);
        client.receive(&reply(5, xid(&requested), &[SERVER, HOUR]), now);
        assert_eq!(client.refusals(), 0);
    }

    #[test]
    fn no_server_has_itself_asked_without_a_pause() {
        for (renew, rebind) in [(0, 0), (0, 100), (1, 3599), (29, 30), (40, 20), (30, 40)] {
            let mut client = bound();
            let asked = client.tick(1_800_020);
            let message = reply(
                5,
                xid(&asked),
                &[HOUR, &[58, 4, 0, 0, 0, renew], &[59, 4, 0, 0, (rebind >> 8) as u8, rebind as u8]],
            );
            client.receive(&message, 1_800_030);
            assert!(client.deadline() >= 1_800_030 + 30_000, "{renew} {rebind}");
        }
    }

    #[test]
    fn strangers_are_not_heard() {
        let mut client = Client::new(MAC, "demo", 1, 0);
        let asked = client.tick(0);
        assert!(
            client.receive(&reply(2, xid(&asked).wrapping_add(1), &[SERVER]), 10).is_empty(),
            "another transaction"
        );
        assert!(client.receive(&reply(5, xid(&asked), &[SERVER]), 10).is_empty(), "an ack nobody asked for");
        let mut none = reply(2, xid(&asked), &[SERVER]);
        none[16..20].fill(0);
        assert!(client.receive(&none, 10).is_empty(), "no address");
    }

    proptest! {
        #[test]
        fn it_always_wants_to_be_called_again(steps in proptest::collection::vec((0u8..8, 0u64..10_000_000, any::<[u8; 12]>()), 0..60)) {
            let mut client = Client::new(MAC, "demo", 1, 0);
            let mut now = 0;
            for (kind, pass, options) in steps {
                now += pass;
                if kind == 0 {
                    client.tick(now);
                    prop_assert!(client.deadline() > now, "a tick moves the deadline");
                } else {
                    let message = reply(kind, client.xid, &[&[51, 4], &options[..4], &[58, 4], &options[4..8], &[59, 4], &options[8..]]);
                    client.receive(&message, now);
                }
            }
        }
    }
}
