//! Compiles prefixes and ports into what the program reads: the rules of a generation, and the contents
//! of the tries.

use crate::samples::{Choice, SampleSettings};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sensor_common::layout::{
    EXCLUDE_V4, EXCLUDE_V6, HAS_SERVICES, INLINE_PREFIXES, OBSERVE_ALL, OBSERVE_TRIE, PrefixV4, PrefixV6,
    Rules, SAMPLE, SERVICE_WORDS,
};
use sensor_common::{Slot, Transport};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Which packets count, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Destinations that count as the sensor.
    pub observe: Vec<IpNet>,
    /// Sources that are excluded.
    pub excluded: Vec<IpNet>,
    /// Services that are really offered here; TCP, UDP and SCTP ports.
    pub services: BTreeSet<Slot>,
    /// What is sampled. The kernel side knows no feature ports: see [`Policy::with_features`].
    pub samples: SampleSettings,
}

/// The same, as the program reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compiled {
    /// For every block of the next generation.
    pub rules: Rules,
    /// What the tries must hold.
    pub observed_v4: BTreeSet<Ipv4Net>,
    pub observed_v6: BTreeSet<Ipv6Net>,
    pub excluded_v4: BTreeSet<Ipv4Net>,
    pub excluded_v6: BTreeSet<Ipv6Net>,
    /// Ports whose packets are sampled.
    pub sampled: Choice,
}

impl Policy {
    /// The same, with the feature ports among those that are sampled if these are.
    pub fn with_features(&self, features: impl FnOnce() -> BTreeSet<Slot>) -> Cow<'_, Self> {
        if !self.samples.choice.features {
            return Cow::Borrowed(self);
        }
        let mut policy = self.clone();
        policy.samples.choice.features = false;
        policy.samples.choice.slots.extend(features());
        Cow::Owned(policy)
    }

    /// Addresses that count as the sensor, (IPv4, IPv6); overlapping prefixes count once.
    pub fn monitored_addresses(&self) -> (f64, f64) {
        let (v4, v6) = split(&self.observe);
        // A sum of no numbers is -0.0, which would be shown so.
        let size = |bits: u8| f64::from(bits).exp2();
        (
            v4.iter().fold(0.0, |sum, net| sum + size(32 - net.prefix_len())),
            v6.iter().fold(0.0, |sum, net| sum + size(128 - net.prefix_len())),
        )
    }

    /// Puts the first prefixes of each family inline and the rest into tries.
    #[expect(clippy::large_stack_arrays, reason = "24 KiB, on threads with megabytes")]
    pub(super) fn compile(&self) -> Compiled {
        let (observed_v4, observed_v6) = split(&self.observe);
        let (excluded_v4, excluded_v6) = split(&self.excluded);
        let mut rules = Rules {
            flags: 0,
            prefixes: 0,
            observed_v4: [PrefixV4::NONE; INLINE_PREFIXES],
            observed_v6: [PrefixV6::NONE; INLINE_PREFIXES],
            services: [0; SERVICE_WORDS],
        };
        for (prefix, net) in rules.observed_v4.iter_mut().zip(&observed_v4) {
            *prefix = PrefixV4 {
                network: u32::from_ne_bytes(net.network().octets()),
                mask: u32::from_ne_bytes(net.netmask().octets()),
            };
        }
        for (prefix, net) in rules.observed_v6.iter_mut().zip(&observed_v6) {
            *prefix = PrefixV6 { network: words(net.network()), mask: words(net.netmask()) };
        }
        let observed_v4: BTreeSet<_> = observed_v4.into_iter().skip(INLINE_PREFIXES).collect();
        let observed_v6: BTreeSet<_> = observed_v6.into_iter().skip(INLINE_PREFIXES).collect();
        for slot in &self.services {
            if matches!(slot.transport(), Transport::Tcp | Transport::Udp | Transport::Sctp) {
                let index = slot.index() as usize;
                rules.services[index / 64] |= 1 << (index % 64);
            }
        }
        for (flag, set) in [
            (OBSERVE_ALL, self.observes_everything()),
            (OBSERVE_TRIE, !observed_v4.is_empty() || !observed_v6.is_empty()),
            (EXCLUDE_V4, !excluded_v4.is_empty()),
            (EXCLUDE_V6, !excluded_v6.is_empty()),
            (SAMPLE, !self.samples.choice.is_off()),
            (HAS_SERVICES, rules.services.iter().any(|word| *word != 0)),
        ] {
            if set {
                rules.flags |= flag;
            }
        }
        Compiled {
            rules,
            observed_v4,
            observed_v6,
            excluded_v4: excluded_v4.into_iter().collect(),
            excluded_v6: excluded_v6.into_iter().collect(),
            sampled: self.samples.choice.clone(),
        }
    }

    fn observes_everything(&self) -> bool {
        let (v4, v6) = split(&self.observe);
        v4.iter().any(|net| net.prefix_len() == 0) && v6.iter().any(|net| net.prefix_len() == 0)
    }
}

/// By family, without prefixes that lie in others.
fn split(nets: &[IpNet]) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let mut v4 = Vec::new();
    let mut v6 = Vec::new();
    for net in nets {
        match net {
            IpNet::V4(net) => v4.push(net.trunc()),
            IpNet::V6(net) => v6.push(net.trunc()),
        }
    }
    (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6))
}

/// An address as two words, as the program reads them from a packet.
fn words(address: std::net::Ipv6Addr) -> [u64; 2] {
    let bytes = address.octets();
    let (first, rest) = bytes.split_first_chunk().expect("16 bytes");
    let second = rest.first_chunk().expect("8 bytes are left");
    [u64::from_ne_bytes(*first), u64::from_ne_bytes(*second)]
}

/// The services in a generation's rules.
pub(super) fn services(rules: &Rules) -> BTreeSet<Slot> {
    let bits = (0..SERVICE_WORDS * 64).filter(|index| rules.services[index / 64] >> (index % 64) & 1 != 0);
    bits.filter_map(|index| Slot::from_index(index as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(observe: &[&str]) -> Policy {
        Policy { observe: observe.iter().map(|net| net.parse().unwrap()).collect(), ..Policy::default() }
    }

    fn v4(compiled: &Compiled, address: [u8; 4]) -> bool {
        let address = u32::from_ne_bytes(address);
        compiled.rules.observed_v4.iter().any(|prefix| prefix.contains(address))
    }

    #[test]
    fn a_host_observes_its_own_address_and_no_other() {
        let compiled = policy(&["192.0.2.7/32", "2001:db8::7/128"]).compile();
        assert!(v4(&compiled, [192, 0, 2, 7]));
        assert!(!v4(&compiled, [192, 0, 2, 8]));
        assert!(!v4(&compiled, [0, 0, 0, 0]));
        assert_eq!(compiled.rules.flags, 0);
        assert!(compiled.rules.observed_v6[0].contains(words("2001:db8::7".parse().unwrap())));
        assert!(!compiled.rules.observed_v6[0].contains(words("2001:db8::8".parse().unwrap())));
        assert!(!compiled.rules.observed_v6[1].contains(words("::".parse().unwrap())));
    }

    #[test]
    fn a_telescope_observes_its_prefix() {
        let compiled = policy(&["198.18.0.0/16"]).compile();
        assert!(v4(&compiled, [198, 18, 0, 0]) && v4(&compiled, [198, 18, 255, 255]));
        assert!(!v4(&compiled, [198, 19, 0, 0]));
        assert_eq!(policy(&["198.18.0.0/16"]).monitored_addresses(), (65_536.0, 0.0));
    }

    #[test]
    fn prefixes_beyond_the_inline_ones_go_into_the_trie() {
        let nets = ["10.0.0.1/32", "10.0.0.3/32", "10.0.0.5/32", "10.0.0.7/32", "10.0.0.9/32"];
        let compiled = policy(&nets).compile();
        assert_eq!(compiled.rules.flags, OBSERVE_TRIE);
        assert_eq!(compiled.observed_v4, BTreeSet::from(["10.0.0.9/32".parse().unwrap()]));
    }

    #[test]
    fn overlapping_prefixes_are_counted_once() {
        let nets = ["10.0.0.0/24", "10.0.0.0/25", "10.0.0.9/32"];
        assert_eq!(policy(&nets).monitored_addresses(), (256.0, 0.0));
    }

    #[test]
    fn nothing_observed_is_zero_without_a_sign() {
        let (v4, v6) = policy(&[]).monitored_addresses();
        assert_eq!(format!("{v4:?} {v6:?}"), "0.0 0.0");
    }

    #[test]
    fn every_address_of_both_families_needs_no_comparison() {
        assert_eq!(policy(&["0.0.0.0/0", "::/0"]).compile().rules.flags, OBSERVE_ALL);
        assert_eq!(policy(&["0.0.0.0/0"]).compile().rules.flags, 0);
    }

    #[test]
    fn services_are_read_back_from_the_rules() {
        let services = BTreeSet::from([Slot::new(Transport::Tcp, 22), Slot::new(Transport::Udp, 65_535)]);
        let compiled = Policy { services: services.clone(), ..Policy::default() }.compile();
        assert_eq!(compiled.rules.flags, HAS_SERVICES);
        assert_eq!(super::services(&compiled.rules), services);
    }
}
