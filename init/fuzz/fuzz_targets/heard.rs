//! Whatever a server on the network answers, the lease is usable and is seen to again.
//!
//! From the `init` directory: `cargo +nightly fuzz run heard -- -max_len=2048`
#![no_main]

use garboard_init::work::lease::{Action, Client};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// Where RFC 2131 has the transaction and the client's address.
const XID: std::ops::Range<usize> = 4..8;
const CHADDR: std::ops::Range<usize> = 28..34;
/// In milliseconds: longer than any lease that ends.
const LONGEST_SLEEP: u64 = 1 << 42;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut now = 0;
    let mut client = Client::new(MAC, "fuzz", 1, now);
    let mut xid = [0; 4];
    look(&client.tick(now), &mut xid);
    // Datagrams of as many bytes as their first two say. They answer what was asked, as others are dropped unread.
    let mut rest = bytes;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length) & 0x3ff).min(behind.len());
        let (datagram, after) = behind.split_at(length);
        let mut datagram = datagram.to_vec();
        for (place, value) in [(XID, xid.as_slice()), (CHADDR, &MAC)] {
            if let Some(field) = datagram.get_mut(place) {
                field.copy_from_slice(value);
            }
        }
        look(&client.receive(&datagram, now), &mut xid);
        // Time goes on, at times as far as it wants, but not to the end of time, where a lease for ever ends.
        now = if length % 2 == 0 { client.deadline().clamp(now, now + LONGEST_SLEEP) } else { now + 1 };
        if now >= client.deadline() {
            look(&client.tick(now), &mut xid);
            assert!(client.deadline() > now, "it would be asked again at once, for ever");
        }
        rest = after;
    }
});

fn look(actions: &[Action], xid: &mut [u8; 4]) {
    assert!(actions.len() <= 4);
    for action in actions {
        match action {
            Action::Broadcast(query) | Action::Unicast(_, query) => xid.copy_from_slice(&query[XID]),
            Action::Configure(lease) => {
                assert!(lease.prefix <= 32);
                assert!(!lease.address.is_unspecified() && !lease.address.is_multicast() && !lease.address.is_loopback());
            }
            Action::Deconfigure => {}
        }
    }
}
