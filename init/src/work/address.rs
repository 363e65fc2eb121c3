//! Addresses with prefixes.

use std::net::{IpAddr, Ipv4Addr};

/// `ADDRESS/PREFIX`; `None` if it is not that.
pub fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= longest).then_some((address, prefix))
}

/// The netmask of an IPv4 prefix length.
pub fn netmask(prefix: u8) -> Ipv4Addr {
    let host_bits = 32u32.saturating_sub(u32::from(prefix));
    Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
}

/// The prefix length of an IPv4 netmask.
pub fn prefix(netmask: Ipv4Addr) -> u8 {
    u8::try_from(netmask.to_bits().leading_ones()).unwrap_or(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_have_prefixes() {
        assert_eq!(parse("192.0.2.7/24"), Some(("192.0.2.7".parse().unwrap(), 24)));
        assert_eq!(parse("2001:db8::7/64"), Some(("2001:db8::7".parse().unwrap(), 64)));
        for text in ["192.0.2.7", "192.0.2.7/33", "2001:db8::7/129", "/24", "x/1", ""] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn masks_and_prefixes_agree(length in 0u8..=32) {
            prop_assert_eq!(prefix(netmask(length)), length);
        }
    }
}
