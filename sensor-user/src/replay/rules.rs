//! The configured rules of observation, for packets of captures.

use super::flows::Conversations;
use crate::samples::{Chosen, SampleSettings};
use ipnet::IpNet;
use sensor_common::classify::Intent;
use sensor_common::flow::{self, FlowKey};
use sensor_common::{Address, AddressBytes, Conversation, Frame, Link, Packet, Slot, World};

/// A set of addresses given as prefixes.
#[derive(Clone, Debug, Default)]
pub struct PrefixSet {
    /// First and last address, ascending, apart from each other.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

fn joined<A: Copy + Ord>(mut ranges: Vec<(A, A)>) -> Vec<(A, A)> {
    ranges.sort_unstable();
    let mut joined: Vec<(A, A)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

fn within<A: Copy + Ord>(ranges: &[(A, A)], address: A) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after > 0 && address <= ranges[after - 1].1
}

impl PrefixSet {
    /// The addresses in any of `prefixes`, which may overlap.
    pub fn new(prefixes: &[IpNet]) -> Self {
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
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether `address` is in it.
    #[inline]
    pub fn contains(&self, address: &Address) -> bool {
        match address.bytes() {
            AddressBytes::V4(address) => within(&self.v4, u32::from_be_bytes(address)),
            AddressBytes::V6(address) => within(&self.v6, u128::from_be_bytes(address)),
        }
    }
}

/// What the configuration says about packets.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Destinations that count; empty: all.
    observed: PrefixSet,
    excluded: PrefixSet,
    /// The sensor's side in captures of both directions.
    local: PrefixSet,
    /// One bit for each slot.
    services: Box<[u64]>,
    samples: SampleSettings,
}

impl Rules {
    /// `local` empty: the capture holds only what the sensor received. `observe` empty: every address
    /// of the sensor's side counts, or every destination at all when that is empty, too.
    pub fn new(observe: &[IpNet], excluded: &[IpNet], services: &[Slot], local: &[IpNet]) -> Self {
        let mut bits = vec![0; Slot::COUNT.div_ceil(64)].into_boxed_slice();
        for slot in services {
            bits[slot.index() as usize / 64] |= 1 << (slot.index() % 64);
        }
        Self {
            observed: PrefixSet::new(if observe.is_empty() { local } else { observe }),
            excluded: PrefixSet::new(excluded),
            local: PrefixSet::new(local),
            services: bits,
            samples: SampleSettings::default(),
        }
    }

    /// The same, with what is sampled.
    #[must_use]
    pub fn with_samples(self, samples: SampleSettings) -> Self {
        Self { samples, ..self }
    }

    /// The first bytes of `packet`, which was parsed from `frame`, if it is chosen when it is an access.
    #[inline]
    pub(super) fn sample(&self, frame: &[u8], link: Link, packet: &Packet) -> Option<Chosen> {
        let SampleSettings { choice, bytes, .. } = &self.samples;
        if choice.is_off() || !choice.may_have(Slot::new(packet.transport, packet.port)) {
            return None;
        }
        Chosen::new(frame, link, packet, *bytes)
    }

    /// Whether the sensor's side can be distinguished from the other.
    pub(super) fn has_local(&self) -> bool {
        !self.local.is_empty()
    }

    /// Whether `src` is on the sensor's side, so that its packets are outbound.
    #[inline]
    pub(super) fn is_local(&self, src: &Address) -> bool {
        self.local.contains(src)
    }
}

/// What the classification of one packet asks for. When a capture holds only what the sensor received, nothing is known of
/// conversations, and each packet is judged on its own.
pub(crate) struct PacketWorld<'a, F: ?Sized> {
    pub(crate) rules: &'a Rules,
    /// The conversations of the sensor's side, and the packet's frame.
    pub(crate) conversations: Option<(&'a Conversations, &'a F)>,
}

impl<F: Frame + ?Sized> World for PacketWorld<'_, F> {
    #[inline]
    fn observes(&self, dst: &Address) -> bool {
        self.rules.observed.is_empty() || self.rules.observed.contains(dst)
    }

    #[inline]
    fn excludes(&self, src: &Address) -> bool {
        self.rules.excluded.contains(src)
    }

    #[inline]
    fn serves(&self, slot: Slot) -> bool {
        self.rules.services[slot.index() as usize / 64] >> (slot.index() % 64) & 1 != 0
    }

    #[inline]
    fn conversation(&self, packet: &Packet, intent: Intent) -> Conversation {
        match self.conversations {
            Some((flows, frame)) if flow::may_be_ours(packet, intent, flows) => {
                flow::conversation(frame, packet, &mut FlowKey::default(), flows)
            }
            _ => Conversation::None,
        }
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
}
