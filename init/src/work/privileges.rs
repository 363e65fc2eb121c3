//! What each worker may: the capabilities that its work needs, and no others.
//!
//! Workers read what others wrote: disks, answers from the network, images. Each stays root, as that is who owns what it works
//! on, but root with a few capabilities out of forty, that no program it might execute could get back.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// The capabilities that a worker keeps, by its word; `None`: there is no such worker.
fn needed(kind: &str) -> Option<CapabilitySet> {
    use CapabilitySet as C;
    Some(match kind {
        "modules" => C::SYS_MODULE,
        // Mounts, partitions; growing ext4 takes SYS_RESOURCE.
        "data" => C::SYS_ADMIN | C::SYS_RESOURCE,
        // Addresses and routes, the interface that a socket is bound to, port 68.
        "network" => C::NET_ADMIN | C::NET_RAW | C::NET_BIND_SERVICE,
        // Layers merged by a mount; the owners, modes, attributes and nodes of an image.
        "volumes" => C::SYS_ADMIN | C::CHOWN | C::DAC_OVERRIDE | C::FOWNER | C::FSETID | C::SETFCAP | C::MKNOD,
        // A program for a container may need whatever the container has; the other questions give up all before they are asked.
        "health" => C::all(),
        // Whatever PID 1 has.
        "launch" => C::all(),
        // Whatever the container's own programs have.
        "shell" => C::all(),
        // The one computes, the other writes where its user may.
        "passphrase" | "stopped" => C::empty(),
        // Mounts pstore; what the kernel said is for those who may read its log.
        "words" => C::SYS_ADMIN | C::SYSLOG,
        // What they work on is root's, and theirs alone.
        "keep" | "previous" => C::empty(),
        // Unmounts.
        "stop" => C::SYS_ADMIN,
        _ => return None,
    })
}

/// Leaves the calling thread with what the worker `kind` needs. Irrevocable.
pub fn keep(kind: &str) -> Result<(), Errno> {
    let needed = needed(kind).ok_or(Errno::INVAL)?;
    // One that becomes a container's program isn't to be kept from what that may do.
    if needed == CapabilitySet::all() { Ok(()) } else { reduce_to(needed) }
}

/// Leaves the calling thread without privileges. Irrevocable.
pub fn keep_none() -> Result<(), Errno> {
    reduce_to(CapabilitySet::empty())
}

fn reduce_to(needed: CapabilitySet) -> Result<(), Errno> {
    // Nobody can keep what they don't have.
    let kept = needed & capabilities(None)?.permitted;
    // The bounding set first, as that takes a capability.
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the kernel's last one.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    clear_ambient_capability_set()?;
    set_no_new_privs(true)?;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of the calling thread's status.
    fn status(name: &str) -> String {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    }

    /// What only NET_ADMIN may do.
    fn is_network_administrator() -> bool {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 4096).is_ok()
    }

    #[test]
    fn a_worker_keeps_what_it_needs_and_no_more() {
        const VOLUMES: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 21 | 1 << 27 | 1 << 31;
        for (kind, runs, kept) in [
            ("modules", true, 1 << 16),
            ("data", true, 1 << 21 | 1 << 24),
            ("network", true, 1 << 10 | 1 << 12 | 1 << 13),
            ("volumes", false, VOLUMES),
            ("words", false, 1 << 21 | 1 << 34),
            ("stop", false, 1 << 21),
            ("keep", false, 0),
            ("previous", false, 0),
            ("passphrase", false, 0),
            ("stopped", false, 0),
        ] {
            let test = move || {
                let own = u64::from_str_radix(&status("CapPrm:"), 16).unwrap();
                assert!(is_network_administrator(), "the control: these tests run as root");
                if runs {
                    // There is no plan here, so its body ends at once.
                    assert!(!std::path::Path::new(garboard_runtime::plan::PATH).exists());
                    assert_eq!(crate::work::run(kind, &[]), 0);
                } else {
                    keep(kind).unwrap();
                }
                let kept = kept & own;
                for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
                    assert_eq!(u64::from_str_radix(&status(set), 16).unwrap(), kept, "{kind} {set}");
                }
                assert_eq!((status("CapInh:"), status("CapAmb:")), ("0".repeat(16), "0".repeat(16)));
                assert_eq!(status("NoNewPrivs:"), "1");
                assert_eq!(is_network_administrator(), kind == "network");
            };
            std::thread::spawn(test).join().unwrap();
        }
    }

    #[test]
    fn an_unknown_worker_does_nothing() {
        assert_eq!(keep("nosuch"), Err(Errno::INVAL));
        assert_eq!(crate::work::run("nosuch", &[]), 1);
    }
}
