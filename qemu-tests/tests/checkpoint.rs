//! Checkpoints by the real criu, on a machine whose kernel it knows.

#[path = "support/guest.rs"]
mod guest;
#[path = "support/oci.rs"]
mod oci;
mod support;

use std::path::Path;

use guest::Guest;
use oci::{boot, bundle};
use support::older_kernel;

/// What criu looks for in the kernel before it does anything, in an order in which it can be loaded.
const MODULES: [&str; 11] = [
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
];

const IMAGES: &str = r#"
runtime=garboard-runtime
cd /bundle
for module in /modules/*; do insmod $module; done
ip link set lo up
# It counts. Its streams are pipes, of which others can take the places.
sleep 1000 | $runtime run --detach one 2>&1 | cat >/tmp/before &
until $runtime state one 2>/dev/null | grep -q running; do sleep 0.1; done
sleep 1
$runtime checkpoint --image-path /tmp/images one
echo checkpoint $?
$runtime state one >/dev/null 2>&1
echo gone $?
sleep 1
sleep 1000 | $runtime restore --detach --image-path /tmp/images one 2>&1 | cat >/tmp/after &
for i in 1 2 3 4 5 6 7 8 9 10; do $runtime state one 2>/dev/null | grep -q running || sleep 1; done
sleep 2
echo restored $($runtime state one | grep status)
echo before $(head -n 1 /tmp/before) $(tail -n 1 /tmp/before)
echo after $(head -n 1 /tmp/after) $(tail -n 1 /tmp/after)
echo inside $(cat /sys/fs/cgroup/one/cgroup.procs | wc -l)
$runtime exec one /bin/busybox true
echo exec $?
$runtime delete --force one
echo deleted $?
"#;

#[test]
fn a_container_goes_on_from_its_images() {
    let mut guest = Guest::new(IMAGES);
    let count = "i=0; while :; do echo $i; i=$((i + 1)); sleep 0.2; done";
    bundle(&mut guest, &["/bin/busybox", "sh", "-c", count]);
    // It keeps filesystems in memory by tar, with options that busybox's has not.
    for program in ["/usr/sbin/criu", "/usr/bin/tar"] {
        guest.program(Path::new(program));
    }
    let modules = older_kernel().1.join("kernel");
    for (number, name) in MODULES.iter().enumerate() {
        guest.file(&format!("modules/{number:02}"), &modules.join(name));
    }
    let found = boot(guest);
    assert_eq!((found["checkpoint"].as_str(), found["gone"].as_str()), ("0", "1"));
    assert!(found["restored"].contains("running"), "{}", found["restored"]);
    let ends = |when: &str| -> Vec<u32> { found[when].split(' ').map(|number| number.parse().unwrap()).collect() };
    let (before, after) = (ends("before"), ends("after"));
    assert_eq!((before[0], after[0]), (0, before[1] + 1));
    assert!(after[1] > after[0]);
    // The shell, and perhaps its sleep.
    assert!(["1", "2"].contains(&found["inside"].as_str()), "{}", found["inside"]);
    assert_eq!((found["exec"].as_str(), found["deleted"].as_str()), ("0", "0"));
}
