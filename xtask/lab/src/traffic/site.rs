//! The sensor's place in the network, as senders of traffic know it.

use super::expectation::{Port, Transport};
use super::packet::{Tag, ethernet, ethertype};
use crate::netns::Mac;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a frame on the sensor's link begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet {
        /// The sensor's address.
        sensor: Mac,
        /// The address frames come from.
        from: Mac,
    },
    /// The IP header.
    Ip,
}

/// Which frames carry VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagging {
    /// None.
    Never,
    /// Now and then one, or two.
    Sometimes,
    /// All, with this one.
    Always(u16),
}

/// A sensor, as its configuration describes it.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its link.
    pub link: Link,
    /// Whether frames are tagged; Ethernet only.
    pub tagging: Tagging,
    /// Bytes of the longest frame, link header included.
    pub max_frame: usize,
    /// Observed IPv4 destinations.
    pub v4: Vec<Ipv4Net>,
    /// Observed IPv6 destinations.
    pub v6: Vec<Ipv6Net>,
    /// Configured services, TCP and UDP.
    pub services: Vec<Port>,
    /// Excluded sources.
    pub excluded: Vec<IpNet>,
}

impl Site {
    /// Whether the sensor observes `address`.
    pub fn observes(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.iter().any(|net| net.contains(&address)),
            IpAddr::V6(address) => self.v6.iter().any(|net| net.contains(&address)),
        }
    }

    /// Whether the sensor excludes `source`.
    pub fn excludes(&self, source: IpAddr) -> bool {
        self.excluded.iter().any(|net| net.contains(&source))
    }

    /// The excluded prefixes of address families that the sensor observes.
    pub fn excluded_reachable(&self) -> impl Iterator<Item = IpNet> {
        self.excluded.iter().copied().filter(|net| match net {
            IpNet::V4(_) => !self.v4.is_empty(),
            IpNet::V6(_) => !self.v6.is_empty(),
        })
    }

    /// Whether the sensor offers `port`.
    pub fn serves(&self, transport: Transport, port: u16) -> bool {
        self.services.contains(&Port(transport, port))
    }

    /// The frame that carries the IP packet `packet`, tagged as the site wants.
    pub fn frame(&self, rng: &mut impl Rng, packet: &[u8]) -> Vec<u8> {
        match self.link {
            Link::Ip => packet.to_vec(),
            Link::Ethernet { sensor, from } => {
                let kind = if packet.first().is_some_and(|first| first >> 4 == 6) {
                    ethertype::IPV6
                } else {
                    ethertype::IPV4
                };
                ethernet(sensor, from, &self.tags(rng), kind, packet)
            }
        }
    }

    /// The tags of one frame.
    pub fn tags(&self, rng: &mut impl Rng) -> Vec<Tag> {
        let kinds: &[u16] = match self.tagging {
            Tagging::Never => &[],
            Tagging::Always(id) => return vec![Tag { kind: ethertype::VLAN, id }],
            Tagging::Sometimes => match rng.random_range(0..10) {
                0 => &[ethertype::VLAN],
                1 => &[ethertype::QINQ, ethertype::VLAN],
                2 => &[ethertype::VLAN, ethertype::VLAN],
                _ => &[],
            },
        };
        kinds.iter().map(|kind| Tag { kind: *kind, id: rng.random_range(1..4095) }).collect()
    }
}

/// A random address of `net`, network and broadcast addresses of an IPv4 subnet left out.
pub(super) fn random_v4(rng: &mut impl Rng, net: Ipv4Net) -> Ipv4Addr {
    let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
    let edge = u32::from(net.prefix_len() < 31);
    Ipv4Addr::from(rng.random_range(first + edge..=last - edge))
}

/// A random address of `net`.
pub(super) fn random_v6(rng: &mut impl Rng, net: Ipv6Net) -> Ipv6Addr {
    Ipv6Addr::from(rng.random_range(u128::from(net.network())..=u128::from(net.broadcast())))
}
