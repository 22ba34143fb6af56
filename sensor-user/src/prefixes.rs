//! Sets of addresses that are given as prefixes.

use crate::ranges::Number;
use ipnet::IpNet;
use sensor_common::{Address, AddressBytes};

/// A set of addresses given as prefixes.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefixSet {
    /// First and last address, ascending, apart from each other.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

fn joined<A: Number>(mut ranges: Vec<(A, A)>) -> Vec<(A, A)> {
    ranges.sort_unstable();
    let mut joined: Vec<(A, A)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if end.next().is_none_or(|next| first <= next) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined.shrink_to_fit();
    joined
}

fn within<A: Copy + Ord>(ranges: &[(A, A)], address: A) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after > 0 && address <= ranges[after - 1].1
}

impl PrefixSet {
    /// The addresses in any of `prefixes`, which may overlap.
    pub(crate) fn new<'a>(prefixes: impl IntoIterator<Item = &'a IpNet>) -> Self {
        let mut set = Self::default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => set.v4.push((net.network().into(), net.broadcast().into())),
                IpNet::V6(net) => set.v6.push((net.network().into(), net.broadcast().into())),
            }
        }
        Self { v4: joined(set.v4), v6: joined(set.v6) }
    }

    /// Whether it has no address at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether `address` is in it.
    #[inline]
    pub(crate) fn contains(&self, address: &Address) -> bool {
        match address.bytes() {
            AddressBytes::V4(address) => self.contains_v4(u32::from_be_bytes(address)),
            AddressBytes::V6(address) => self.contains_v6(u128::from_be_bytes(address)),
        }
    }

    /// Whether this IPv4 address, as a number, is in it.
    #[inline]
    pub(crate) fn contains_v4(&self, address: u32) -> bool {
        within(&self.v4, address)
    }

    /// Whether this IPv6 address, as a number, is in it.
    #[inline]
    pub(crate) fn contains_v6(&self, address: u128) -> bool {
        within(&self.v6, address)
    }

    /// First and last IPv4 address of each range, ascending.
    pub(crate) fn ranges_v4(&self) -> &[(u32, u32)] {
        &self.v4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> Address {
        Address::v4(text.parse::<std::net::Ipv4Addr>().unwrap().octets())
    }

    #[test]
    fn a_set_holds_the_addresses_of_its_prefixes_and_no_neighbour() {
        let prefixes = ["192.0.2.64/26", "192.0.2.0/24", "198.51.100.7/32", "0.0.0.0/32", "2001:db8::/32"];
        let set = PrefixSet::new(&prefixes.map(|prefix| prefix.parse().unwrap()));
        for inside in ["192.0.2.0", "192.0.2.255", "198.51.100.7", "0.0.0.0"] {
            assert!(set.contains(&v4(inside)), "{inside}");
        }
        for outside in ["192.0.1.255", "192.0.3.0", "198.51.100.6", "198.51.100.8", "0.0.0.1"] {
            assert!(!set.contains(&v4(outside)), "{outside}");
        }
        let v6 = |text: &str| Address::v6(text.parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert!(set.contains(&v6("2001:db8:ffff::")) && !set.contains(&v6("2001:db9::")));
        assert!(PrefixSet::default().is_empty() && !PrefixSet::default().contains(&v4("0.0.0.0")));
        let everything = PrefixSet::new(&["0.0.0.0/0".parse().unwrap()]);
        assert!(everything.contains(&v4("255.255.255.255")) && !everything.contains(&v6("::")));
    }

    #[test]
    fn neighbours_are_one_range() {
        let prefixes =
            ["192.0.2.0/32", "192.0.2.2/31", "192.0.2.1/32", "255.255.255.254/31", "255.255.255.255/32"];
        let set = PrefixSet::new(&prefixes.map(|prefix| prefix.parse().unwrap()));
        assert_eq!(set.ranges_v4(), [(0xc000_0200, 0xc000_0203), (0xffff_fffe, 0xffff_ffff)]);
    }
}
