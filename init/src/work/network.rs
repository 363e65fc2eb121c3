//! The `network` worker: gives the uplink its address and keeps it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use garboard_runtime::plan::{self, Addressing, Plan};

use super::lease::{Action, Client, Lease};
use super::report::{Network, NetworkState};
use super::{address, dhcp, emit};
use crate::boot;
use crate::etc_files;
use crate::sys::net;

/// How long the uplink's interface, and then its carrier, may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);
const CARRIER_PATIENCE: Duration = Duration::from_secs(5);
/// Whether the interface is still the same is looked at as often, in milliseconds.
const LOOK_MS: u64 = 60_000;
const PAUSE: Duration = Duration::from_millis(20);
/// `ARPHRD_ETHER`
const ETHERNET: &str = "1";

/// Configures the uplink as the plan says. With DHCP it never ends.
pub fn run() -> i32 {
    let plan = match boot::read_plan() {
        Ok(plan) => plan,
        Err(error) => return emit(&failed(None, error.to_string())),
    };
    if plan.network.address == Addressing::None {
        return emit(&Network::default());
    }
    let interface = match find_interface(plan.network.interface.as_deref()) {
        Ok(interface) => interface,
        Err(reason) => return emit(&failed(None, reason)),
    };
    let result = match &plan.network.address {
        Addressing::Static { addresses, gateways } => configure_static(&interface, addresses, gateways, &plan.sysctls),
        Addressing::Dhcp => keep_lease(&interface, &plan),
        Addressing::None => Ok(Network::default()),
    };
    emit(&result.unwrap_or_else(|reason| failed(Some(interface), reason)))
}

fn failed(uplink: Option<String>, detail: String) -> Network {
    Network { uplink, addresses: Vec::new(), state: NetworkState::Failed, detail }
}

/// The named interface, else the first Ethernet interface that is a device.
fn find_interface(name: Option<&str>) -> Result<String, String> {
    let start = Instant::now();
    loop {
        let found = interfaces();
        let uplink = match name {
            Some(name) => found.iter().find(|found| *found == name),
            None => found.first(),
        };
        if let Some(uplink) = uplink {
            return Ok(uplink.clone());
        }
        if start.elapsed() >= PATIENCE {
            let wanted = name.map_or("an Ethernet interface".to_owned(), |name| format!("interface {name}"));
            let there = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            return Err(format!(
                "find {wanted}: Ethernet interfaces are: {there}; attach one, or build with its module"
            ));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Ethernet interfaces that belong to a device, in the order the kernel found them.
fn interfaces() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else { return Vec::new() };
    let read = |path: &Path| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let mut found: Vec<(u32, String)> = entries
        .flatten()
        .filter(|entry| entry.path().join("device").exists() && read(&entry.path().join("type")) == ETHERNET)
        .filter_map(|entry| {
            let index = read(&entry.path().join("ifindex")).parse().ok()?;
            Some((index, entry.file_name().into_string().ok()?))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name).collect()
}

/// Sets the interface up and waits a little for its carrier; without one everything is set all the same.
fn bring_up(socket: &UdpSocket, interface: &str) -> Result<(), String> {
    net::set_up(socket.as_fd(), interface).map_err(|e| format!("set up interface {interface}: {e}"))?;
    let start = Instant::now();
    while start.elapsed() < CARRIER_PATIENCE && !net::is_running(socket.as_fd(), interface).unwrap_or(true) {
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// What a router says must not give it addresses and routes besides those declared. Before it is up, when the kernel begins to ask;
/// settings that are declared stand.
fn listen_to_no_router(interface: &str, sysctls: &[(String, String)]) -> Result<(), String> {
    for name in ["accept_ra", "autoconf"] {
        let declared = |(other, _): &(String, String)| {
            let other = other.replace('/', ".");
            [interface, "default"].iter().any(|whose| other == format!("net.ipv6.conf.{whose}.{name}"))
        };
        if sysctls.iter().any(declared) {
            continue;
        }
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/{name}");
        match std::fs::write(&path, "0") {
            // A kernel without IPv6.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => other.map_err(|e| format!("write {path}: {e}"))?,
        }
    }
    Ok(())
}

fn configure_static(
    interface: &str,
    addresses: &[String],
    gateways: &[String],
    sysctls: &[(String, String)],
) -> Result<Network, String> {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|e| format!("open a socket: {e}"))?;
    listen_to_no_router(interface, sysctls)?;
    bring_up(&socket, interface)?;
    let mut ipv4 = 0u32;
    for text in addresses {
        let fault = |cause: &dyn std::fmt::Display| format!("give {interface} the address {text}: {cause}");
        let (address, prefix) = address::parse(text).ok_or_else(|| fault(&"not ADDRESS/PREFIX"))?;
        match address {
            IpAddr::V4(address) => {
                // Further addresses stand under aliases, as the ioctls have one per name.
                let label = if ipv4 == 0 { interface.to_owned() } else { format!("{interface}:{ipv4}") };
                ipv4 = ipv4.saturating_add(1);
                net::set_address(socket.as_fd(), &label, address, address::netmask(prefix)).map_err(|e| fault(&e))?;
            }
            IpAddr::V6(address) => net::add_address6(interface, address, prefix).map_err(|e| fault(&e))?,
        }
    }
    for text in gateways {
        let fault = |cause: &dyn std::fmt::Display| format!("route by the gateway {text}: {cause}");
        match text.parse().map_err(|e| fault(&e))? {
            IpAddr::V4(gateway) => net::add_default_route(socket.as_fd(), interface, gateway),
            IpAddr::V6(gateway) => net::add_default_route6(interface, gateway),
        }
        .map_err(|e| fault(&e))?;
    }
    let uplink = Some(interface.to_owned());
    Ok(Network { uplink, addresses: addresses.to_vec(), state: NetworkState::Up, detail: String::new() })
}

/// Gets a lease and keeps it for as long as the machine runs. Returns only when that can't be tried.
fn keep_lease(interface: &str, plan: &Plan) -> Result<Network, String> {
    let mac = mac_of(interface)?;
    let socket =
        UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68)).map_err(|e| format!("open port 68: {e}"))?;
    // Sockets of an interface that is gone are deaf, also if another one of that name comes.
    let number = || net::index(&socket, interface).map_err(|e| format!("find interface {interface}: {e}"));
    let first = number()?;
    net::bind_to_device(socket.as_fd(), interface)
        .and_then(|()| socket.set_broadcast(true))
        .map_err(|e| format!("use port 68 on {interface}: {e}"))?;
    bring_up(&socket, interface)?;

    let start = Instant::now();
    let now = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut client = Client::new(mac, &plan.hostname, seed(), now());
    let own_mtu = net::mtu(socket.as_fd(), interface).map_err(|e| format!("look at {interface}: {e}"))?;
    let mut uplink = Uplink { interface, socket: &socket, plan, own_mtu, applied: None };
    uplink.filter(false);
    uplink.report_asking("asking for a DHCP lease");
    let mut buffer = [0; dhcp::MAX_LENGTH];
    loop {
        let wait = client.deadline().saturating_sub(now());
        let actions = if wait == 0 {
            let actions = client.tick(now());
            if client.attempts() == 4 {
                let offered = "a DHCP server offers an address and doesn't confirm it";
                uplink.report_asking(if client.has_offer() { offered } else { "no DHCP server has answered yet" });
            }
            actions
        } else {
            let _ = socket.set_read_timeout(Some(Duration::from_millis(wait.clamp(1, LOOK_MS))));
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let refusals = client.refusals();
                    let actions = client.receive(buffer.get(..length).unwrap_or_default(), now());
                    if refusals < 4 && client.refusals() == 4 {
                        uplink.report_asking("a DHCP server refuses the address that it offers");
                    }
                    actions
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                    Vec::new()
                }
                // The interface may be gone for a while; the error must not become a busy loop.
                Err(_) => {
                    std::thread::sleep(Duration::from_secs(1));
                    Vec::new()
                }
            }
        };
        actions.into_iter().for_each(|action| uplink.perform(action));
        if number()? != first {
            return Err(format!("interface {interface} is another one than before"));
        }
    }
}

/// What the actions of the conversation are done with.
struct Uplink<'a> {
    interface: &'a str,
    socket: &'a UdpSocket,
    plan: &'a Plan,
    /// Bytes of the longest packet where no lease says anything else.
    own_mtu: u16,
    /// The lease that was last applied.
    applied: Option<Lease>,
}

impl Uplink<'_> {
    fn perform(&mut self, action: Action) {
        match action {
            // What can't be sent now is sent again: the conversation does not count on any message.
            Action::Broadcast(message) => {
                let _ = self.socket.send_to(&message, (Ipv4Addr::BROADCAST, 67));
            }
            Action::Unicast(server, message) => {
                let _ = self.socket.send_to(&message, (server, 67));
            }
            Action::Configure(lease) => {
                let text = format!("{}/{}", lease.address, lease.prefix);
                // A route that a server gives no more would stay, and stay in front of others; without the address there are none.
                let other = |before: &Lease| (before.prefix, &before.routes) != (lease.prefix, &lease.routes);
                // Of what a worker before this one has left nothing is known.
                if self.applied.as_ref().is_none_or(other) {
                    let _ = net::clear_address(self.socket.as_fd(), self.interface);
                }
                let detail = match self.configure(&lease) {
                    Ok(()) => String::new(),
                    Err(e) => format!("the lease could not be applied in full: {e}"),
                };
                self.filter(true);
                self.report(vec![text], NetworkState::Up, detail);
                self.applied = Some(lease);
            }
            Action::Deconfigure => {
                self.applied = None;
                self.filter(false);
                let _ = net::set_mtu(self.socket.as_fd(), self.interface, self.own_mtu);
                let _ = net::clear_address(self.socket.as_fd(), self.interface);
                self.report(Vec::new(), NetworkState::Configuring, "the DHCP lease ended and was not renewed".into());
            }
        }
    }

    /// Has the kernel look where packets come from, if that is declared. Without an address there is no way back to anybody, and a
    /// server's answers would be dropped.
    fn filter(&self, on: bool) {
        for (path, value) in filters(&self.plan.sysctls, self.interface) {
            // Where it can't be written, it is as it was before.
            let _ = std::fs::write(path, if on { value } else { "0" });
        }
    }

    /// Does all of it, whatever part fails.
    fn configure(&self, lease: &Lease) -> Result<(), String> {
        let (socket, netmask) = (self.socket.as_fd(), address::netmask(lease.prefix));
        let address = net::set_address(socket, self.interface, lease.address, netmask);
        let mut results = vec![address.map_err(|e| format!("address: {e}"))];
        let mtu = lease.mtu.unwrap_or(self.own_mtu);
        // Drivers may begin anew to change it.
        if net::mtu(socket, self.interface).is_ok_and(|present| present != mtu) {
            results.push(net::set_mtu(socket, self.interface, mtu).map_err(|e| format!("MTU {mtu}: {e}")));
        }
        for route in &lease.routes {
            let network = (route.destination, address::netmask(route.prefix));
            let added = net::add_route(socket, self.interface, network, route.gateway);
            results.push(added.map_err(|e| format!("route to {}/{}: {e}", route.destination, route.prefix)));
        }
        let mut servers = self.plan.network.dns.clone();
        servers.extend(lease.dns.iter().map(ToString::to_string));
        let names = etc_files::write_resolv_conf(Path::new(plan::RUN), &servers);
        results.push(names.map_err(|e| format!("write resolv.conf: {e}")));
        let faults: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }

    fn report_asking(&self, detail: &str) {
        self.report(Vec::new(), NetworkState::Configuring, detail.into());
    }

    fn report(&self, addresses: Vec<String>, state: NetworkState, detail: String) {
        // PID 1 that no longer listens ends its workers itself.
        let _ = emit(&Network { uplink: Some(self.interface.to_owned()), addresses, state, detail });
    }
}

/// Files of the declared `rp_filter` settings that are in force on this interface, and what is declared.
fn filters<'a>(sysctls: &'a [(String, String)], interface: &str) -> Vec<(String, &'a str)> {
    let of = |name: &str| format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
    let declared = |name: &str| {
        let whole = format!("net.ipv4.conf.{name}.rp_filter");
        sysctls.iter().rev().find(|(known, _)| known.replace('/', ".") == whole).map(|(_, value)| value.trim())
    };
    // What the interface began with, it may have from there.
    let own = declared(interface).or_else(|| declared("default"));
    let both = [("all", declared("all")), (interface, own)];
    both.into_iter().filter_map(|(name, value)| Some((of(name), value.filter(|value| *value != "0")?))).collect()
}

fn mac_of(interface: &str) -> Result<[u8; 6], String> {
    let path = format!("/sys/class/net/{interface}/address");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("read {path}: {e}"))?;
    parse_mac(text.trim()).ok_or_else(|| format!("read {path}: not an Ethernet address: {}", text.trim()))
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// A number that other machines don't share. Not secret: it only tells conversations apart.
fn seed() -> u32 {
    let mut bytes = [0; 4];
    match File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => std::process::id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_filters_of_the_uplink_are_found() {
        let declared = |name: &str, value: &str| (format!("net.ipv4.conf.{name}.rp_filter"), value.to_owned());
        let sysctls = [declared("all", "2"), declared("eth0", "1"), declared("eth1", "1"), declared("default", "1")];
        let file = |name: &str| format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        assert_eq!(filters(&sysctls, "eth0"), [(file("all"), "2"), (file("eth0"), "1")]);
        assert_eq!(filters(&sysctls, "eth2"), [(file("all"), "2"), (file("eth2"), "1")]);
        assert_eq!(filters(&[declared("all", "0")], "eth0"), []);
    }

    #[test]
    fn ethernet_addresses_are_read() {
        assert_eq!(parse_mac("52:54:00:12:34:56"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        for text in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "zz:54:00:12:34:56"] {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }
}
