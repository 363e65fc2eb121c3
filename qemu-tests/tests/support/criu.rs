//! criu on a machine whose kernel it knows.

use std::path::Path;

use crate::guest::Guest;
use crate::support::older_kernel;

/// What criu looks for in the kernel before it does anything, in an order in which it can be loaded; and overlays.
const MODULES: [&str; 12] = [
    "net/ipv4/inet_diag.ko",
    "net/ipv4/tcp_diag.ko",
    "net/ipv4/udp_diag.ko",
    "net/unix/unix_diag.ko",
    "net/packet/af_packet_diag.ko",
    "net/netlink/netlink_diag.ko",
    "drivers/net/tun.ko",
    "drivers/net/veth.ko",
    "lib/libcrc32c.ko",
    "net/netfilter/nfnetlink.ko",
    "net/netfilter/nf_tables.ko",
    "fs/overlayfs/overlay.ko",
];

/// What a script does before it calls criu, which works there as a container's root, too.
pub const PREPARE: &str = "chmod 1777 /tmp; for module in /modules/*; do insmod $module; done; ip link set lo up\n";

/// Adds it, and what it needs.
pub fn add(guest: &mut Guest) {
    // It keeps filesystems in memory by tar, with options that busybox's has not.
    for program in ["/usr/sbin/criu", "/usr/bin/tar"] {
        guest.program(Path::new(program));
    }
    let modules = older_kernel().1.join("kernel");
    for (number, name) in MODULES.iter().enumerate() {
        guest.file(&format!("modules/{number:02}"), &modules.join(name));
    }
}
