//! The sensor's addresses, as samples hide them.

use crate::prefixes::PrefixSet;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

/// Prefixes that are shorter than these many bits, of IPv4 and of IPv6, are most of what numbers there are: as
/// prefixes they hide nothing.
const SHORTEST: [u8; 2] = [8, 16];

/// Numbers from here on are addresses of a prefix. Below are those of which the first two or the last two bytes are zero,
/// and texts are full of such numbers.
const LEAST: u32 = 1 << 16;

/// Numbers below this have fewer than seven digits.
pub(super) const SHORT: u32 = 1_000_000;

/// The sensor's addresses. What it costs to ask for one does not depend on how many there are.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnAddresses {
    /// Those that are known one by one.
    single: PrefixSet,
    /// These, and those of prefixes.
    all: PrefixSet,
    /// One bit for each upper half that IPv4 addresses in `all` have. Empty: there are none.
    halves: Vec<u64>,
    /// The same for the upper halves of those with their bytes reversed.
    reversed: Vec<u64>,
    /// Single addresses that are numbers below [`SHORT`] in either order of their bytes, ascending.
    short: Vec<u32>,
    has_prefixes: bool,
}

fn set(bits: &mut Vec<u64>, half: u32) {
    bits.resize(1 << 10, 0);
    bits[half as usize >> 6] |= 1 << (half & 63);
}

fn is_set(bits: &[u64], half: u32) -> bool {
    bits.get(half as usize >> 6).is_some_and(|word| word >> (half & 63) & 1 != 0)
}

/// Whether it is in most contents, and no one's.
fn is_anyones(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_unspecified() || address.is_broadcast(),
        IpAddr::V6(address) => address.to_bits() <= 1,
    }
}

impl OwnAddresses {
    /// The addresses `single`, and those in `prefixes`.
    pub(super) fn new(single: &BTreeSet<IpAddr>, prefixes: &[IpNet]) -> Self {
        let (mut ones, mut whole): (Vec<IpNet>, Vec<IpNet>) =
            prefixes.iter().partition(|prefix| prefix.prefix_len() == prefix.max_prefix_len());
        ones.extend(single.iter().copied().map(IpNet::from));
        ones.retain(|prefix| !is_anyones(prefix.addr()));
        whole.retain(|prefix| prefix.prefix_len() >= SHORTEST[usize::from(prefix.addr().is_ipv6())]);
        let mut short = Vec::new();
        for own in &ones {
            match own.addr() {
                IpAddr::V4(own) => short.extend([own.to_bits(), own.to_bits().swap_bytes()]),
                IpAddr::V6(own) => short.extend(u32::try_from(own.to_bits())),
            }
        }
        short.retain(|number| *number < SHORT);
        short.sort_unstable();
        let all = PrefixSet::new(ones.iter().chain(&whole));
        let (mut halves, mut reversed) = (Vec::new(), Vec::new());
        for &(first, last) in all.ranges_v4() {
            for half in first >> 16..=last >> 16 {
                set(&mut halves, half);
            }
            if last - first >= 0xffff {
                // All lower halves that there are.
                reversed = vec![u64::MAX; 1 << 10];
            } else {
                (first..=last).for_each(|low| set(&mut reversed, (low as u16).swap_bytes().into()));
            }
        }
        Self { single: PrefixSet::new(&ones), all, halves, reversed, short, has_prefixes: !whole.is_empty() }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether there is none of IPv4.
    pub(super) fn is_without_v4(&self) -> bool {
        self.halves.is_empty()
    }

    /// Whether it is the sensor's.
    pub(super) fn has_v4(&self, address: u32) -> bool {
        is_set(&self.halves, address >> 16)
            && self.all.contains_v4(address)
            && !is_anyones(IpAddr::V4(address.into()))
    }

    /// Whether it is the sensor's, and known as one.
    pub(super) fn has_single_v4(&self, address: u32) -> bool {
        is_set(&self.halves, address >> 16) && self.single.contains_v4(address)
    }

    /// Whether it is the sensor's.
    pub(super) fn has_v6(&self, address: u128) -> bool {
        self.all.contains_v6(address) && address > 1
    }

    /// Whether it is the sensor's, and known as one.
    pub(super) fn has_single_v6(&self, address: u128) -> bool {
        self.single.contains_v6(address)
    }

    /// Whether a number is an IPv4 address of the sensor, in either order of its bytes.
    pub(super) fn is_number(&self, number: u32) -> bool {
        (is_set(&self.halves, number >> 16) || is_set(&self.reversed, number >> 16))
            && [number, number.swap_bytes()].into_iter().any(|address| {
                if number < LEAST { self.has_single_v4(address) } else { self.has_v4(address) }
            })
    }

    /// Whether a number below [`SHORT`] is an address of the sensor.
    pub(super) fn is_short_number(&self, number: u32) -> bool {
        self.short.binary_search(&number).is_ok() || (self.has_prefixes && self.is_number(number))
    }

    /// Whether a number below [`SHORT`] can be an address of the sensor at all.
    pub(super) fn may_be_short(&self) -> bool {
        !self.short.is_empty() || self.has_prefixes
    }

    /// Whether this address of a packet is the sensor's, or has one of its IPv4 addresses in it, as one of
    /// 6to4 does.
    pub(super) fn is_in(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.has_v4(address.to_bits()),
            IpAddr::V6(address) => {
                let known = |part: &[u8; 4]| self.has_single_v4(u32::from_be_bytes(*part));
                self.has_v6(address.to_bits())
                    || address.octets().array_windows().any(known)
                    || embedded(address).is_some_and(|address| self.has_v4(address))
            }
        }
    }
}

/// The IPv4 address in one of IPv6: 6to4 (RFC 3056, 2), mapped (RFC 4291, 2.5.5.2), of a translator (RFC 6052,
/// 2.1).
fn embedded(address: Ipv6Addr) -> Option<u32> {
    match address.octets() {
        [0x20, 2, a, b, c, d, ..]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(single: &[&str], prefixes: &[&str]) -> OwnAddresses {
        let prefixes: Vec<IpNet> = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        OwnAddresses::new(&single.iter().map(|own| own.parse().unwrap()).collect(), &prefixes)
    }

    fn v4(text: &str) -> u32 {
        text.parse::<std::net::Ipv4Addr>().unwrap().to_bits()
    }

    #[test]
    fn addresses_are_known_one_by_one_or_by_their_prefix() {
        let own = own(
            &["198.51.100.7", "0.0.0.0", "255.255.255.255"],
            &["203.0.112.0/20", "192.0.2.9/32", "0.0.0.0/1"],
        );
        for (address, is_own, is_single) in [
            ("198.51.100.7", true, true),
            ("192.0.2.9", true, true),
            ("203.0.112.0", true, false),
            ("203.0.127.255", true, false),
            ("203.0.128.0", false, false),
            ("198.51.100.8", false, false),
            ("0.0.0.0", false, false),
            ("10.0.0.1", false, false),
            ("255.255.255.255", false, false),
        ] {
            assert_eq!(
                (own.has_v4(v4(address)), own.has_single_v4(v4(address))),
                (is_own, is_single),
                "{address}"
            );
            assert_eq!(own.is_number(v4(address).swap_bytes()), is_own, "{address}");
        }
    }

    #[test]
    fn a_number_of_few_digits_is_an_address_that_is_known_as_one() {
        // 10.0.0.0 reversed is 10, and 10.1.0.0 is 266.
        let single = own(&["10.0.0.0", "10.1.0.0"], &[]);
        assert!(single.is_short_number(10) && single.is_number(266) && !single.is_short_number(11));
        let prefix = own(&[], &["10.0.0.0/8"]);
        assert!(!prefix.is_short_number(10) && !prefix.is_number(266));
        // 10.0.1.0 reversed.
        assert!(prefix.is_short_number(65_546));
    }

    #[test]
    fn addresses_of_ipv6_have_those_of_ipv4_in_them() {
        let own = own(&["198.51.100.7"], &["203.0.112.0/20", "2001:db8:7::/48"]);
        for (address, expected) in [
            ("2001:db8:7:1::2", true),
            ("2001:db8:8::", false),
            ("2002:cb00:7101::1", true),
            ("::ffff:203.0.113.1", true),
            ("64:ff9b::203.0.113.1", true),
            ("2001:db8::203.0.113.1", false),
            ("2001:db8::198.51.100.7", true),
            ("::1", false),
        ] {
            assert_eq!(own.is_in(address.parse().unwrap()), expected, "{address}");
        }
    }
}
