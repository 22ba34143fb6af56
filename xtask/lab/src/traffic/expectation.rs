//! What a sensor must count, known from how packets were made: the rules of docs/classification.md, written
//! down a second time and without any of the sensor's code.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

/// The classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// `non_ip`
    NonIp,
    /// `malformed`
    Malformed,
    /// `fragment`
    Fragment,
    /// `other_destination`
    OtherDestination,
    /// `excluded`
    Excluded,
    /// `service`
    Service,
    /// `solicited`
    Solicited,
    /// `backscatter`
    Backscatter,
    /// `access`
    Access,
    /// `other`
    Other,
}

impl Class {
    /// All of them, in the order of decision.
    pub const ALL: [Self; 10] = [
        Self::NonIp,
        Self::Malformed,
        Self::Fragment,
        Self::OtherDestination,
        Self::Excluded,
        Self::Service,
        Self::Solicited,
        Self::Backscatter,
        Self::Access,
        Self::Other,
    ];

    /// The value of the `class` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NonIp => "non_ip",
            Self::Malformed => "malformed",
            Self::Fragment => "fragment",
            Self::OtherDestination => "other_destination",
            Self::Excluded => "excluded",
            Self::Service => "service",
            Self::Solicited => "solicited",
            Self::Backscatter => "backscatter",
            Self::Access => "access",
            Self::Other => "other",
        }
    }
}

/// The transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `icmp`
    Icmp,
    /// `icmpv6`
    Icmpv6,
    /// `sctp`
    Sctp,
    /// `other`
    Other,
}

impl Transport {
    /// The value of the `transport` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
            Self::Sctp => "sctp",
            Self::Other => "other",
        }
    }
}

/// A transport, and its port, message type or protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub Transport, pub u16);

impl fmt::Display for Port {
    /// `445/tcp`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.1, self.0.label())
    }
}

/// The scanners that leave a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// `zmap`
    Zmap,
    /// `masscan`
    Masscan,
    /// `mirai`
    Mirai,
    /// `zmap4`
    Zmap4,
    /// `nmap`
    Nmap,
    /// `stateless`
    Stateless,
    /// `other`
    Other,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Zmap, Self::Masscan, Self::Mirai, Self::Zmap4, Self::Nmap, Self::Stateless, Self::Other];

    /// The value of the `tool` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Zmap => "zmap",
            Self::Masscan => "masscan",
            Self::Mirai => "mirai",
            Self::Zmap4 => "zmap4",
            Self::Nmap => "nmap",
            Self::Stateless => "stateless",
            Self::Other => "other",
        }
    }
}

/// What one packet must count as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// One of `class`, and nothing else.
    Plain(Class),
    /// An access from `src` to `port`; a TCP SYN was made by `tool`.
    Access {
        /// Who sends it.
        src: IpAddr,
        /// To what.
        port: Port,
        /// By what, when it is a TCP SYN.
        tool: Option<Tool>,
    },
    /// A packet that tries to start something at a configured service.
    ServiceAccess {
        /// Who sends it.
        src: IpAddr,
        /// To what.
        port: Port,
    },
    /// Backscatter of what answers: by source port, or ICMP type.
    Backscatter(Port),
}

impl Meaning {
    /// The class among them.
    pub const fn class(&self) -> Class {
        match self {
            Self::Plain(class) => *class,
            Self::Access { .. } => Class::Access,
            Self::ServiceAccess { .. } => Class::Service,
            Self::Backscatter(_) => Class::Backscatter,
        }
    }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames: link header and padding included, frame check sequence not.
    pub bytes: u64,
}

/// What a sensor must have counted after some traffic, within one observation day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// Packets and bytes by class.
    pub classes: BTreeMap<Class, Volume>,
    /// Accesses by destination port.
    pub accesses: BTreeMap<Port, u64>,
    /// Who reached which port: as many as the day's cumulative sources.
    pub sources: HashSet<(IpAddr, Port)>,
    /// Accesses by source: as many sources as the day's unique hosts.
    pub hosts: HashMap<IpAddr, u64>,
    /// Backscatter by source port.
    pub backscatter: BTreeMap<Port, u64>,
    /// TCP SYN accesses by tool.
    pub tools: BTreeMap<Tool, u64>,
    /// Accesses to configured services.
    pub services: BTreeMap<Port, u64>,
    /// Who reached which service.
    pub service_sources: HashSet<(IpAddr, Port)>,
}

impl Expectation {
    /// Takes in one packet of `bytes` bytes.
    pub fn add(&mut self, meaning: &Meaning, bytes: usize) {
        let volume = self.classes.entry(meaning.class()).or_default();
        volume.packets += 1;
        volume.bytes += bytes as u64;
        match *meaning {
            Meaning::Plain(_) => {}
            Meaning::Access { src, port, tool } => {
                *self.accesses.entry(port).or_default() += 1;
                self.sources.insert((src, port));
                *self.hosts.entry(src).or_default() += 1;
                if let Some(tool) = tool {
                    *self.tools.entry(tool).or_default() += 1;
                }
            }
            Meaning::ServiceAccess { src, port } => {
                *self.services.entry(port).or_default() += 1;
                self.service_sources.insert((src, port));
            }
            Meaning::Backscatter(port) => *self.backscatter.entry(port).or_default() += 1,
        }
    }

    /// Takes in everything of `other`, of the same observation day.
    pub fn merge(&mut self, other: Self) {
        for (class, volume) in other.classes {
            let sum = self.classes.entry(class).or_default();
            sum.packets += volume.packets;
            sum.bytes += volume.bytes;
        }
        let ports = [
            (&mut self.accesses, other.accesses),
            (&mut self.backscatter, other.backscatter),
            (&mut self.services, other.services),
        ];
        for (sums, counts) in ports {
            for (port, count) in counts {
                *sums.entry(port).or_default() += count;
            }
        }
        for (tool, count) in other.tools {
            *self.tools.entry(tool).or_default() += count;
        }
        self.sources.extend(other.sources);
        for (src, count) in other.hosts {
            *self.hosts.entry(src).or_default() += count;
        }
        self.service_sources.extend(other.service_sources);
    }

    /// Packets of `class`.
    pub fn packets(&self, class: Class) -> u64 {
        self.classes.get(&class).map_or(0, |volume| volume.packets)
    }

    /// Bytes of `class`.
    pub fn bytes(&self, class: Class) -> u64 {
        self.classes.get(&class).map_or(0, |volume| volume.bytes)
    }

    /// All packets.
    pub fn total(&self) -> u64 {
        self.classes.values().map(|volume| volume.packets).sum()
    }

    /// Distinct sources by port.
    pub fn sources_by_port(&self) -> BTreeMap<Port, u64> {
        let mut by_port = BTreeMap::new();
        for (_, port) in &self.sources {
            *by_port.entry(*port).or_default() += 1;
        }
        by_port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three packets by hand: two SYNs of one source to 23/tcp, and one to 80/tcp.
    #[test]
    fn a_source_counts_once_for_each_port_and_a_host_once() {
        let src = IpAddr::from([198, 51, 100, 7]);
        let syn = |port| Meaning::Access { src, port: Port(Transport::Tcp, port), tool: Some(Tool::Other) };
        let mut expected = Expectation::default();
        for port in [23, 23, 80] {
            expected.add(&syn(port), 60);
        }
        assert_eq!(expected.classes[&Class::Access], Volume { packets: 3, bytes: 180 });
        assert_eq!(expected.accesses[&Port(Transport::Tcp, 23)], 2);
        assert_eq!(expected.sources.len(), 2);
        assert_eq!(expected.sources_by_port()[&Port(Transport::Tcp, 23)], 1);
        assert_eq!(expected.hosts.len(), 1);
        assert_eq!(expected.tools[&Tool::Other], 3);
    }
}
