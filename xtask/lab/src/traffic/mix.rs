//! A seeded mix of everything that reaches a sensor, and of everything that only a hostile sender
//! makes: each packet with what it must count as.

mod duplex;
mod kind;
mod makers;
mod tools;

pub use duplex::{Duplex, Round};
pub use kind::{Flaw, Kind};
pub(super) use tools::sign;

use super::expectation::{Class, Expectation, Meaning, Transport};
use super::packet::{Extension, Fragment, Frames, Ip, Tcp, flag, icmp, protocol, sctp, udp};
use super::site::{Link, Site, random_v4, random_v6};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tools::ZMAP_ID;

/// One frame, and what it must count as.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Bytes from the link header on.
    pub frame: Vec<u8>,
    /// What it must count as.
    pub meaning: Meaning,
}

/// The generator: an endless iterator, the same for the same seed and site.
#[derive(Clone, Debug)]
pub struct Mix {
    rng: ChaCha8Rng,
    site: Site,
    kinds: Vec<Kind>,
    weights: WeightedIndex<u32>,
    hosts: Vec<IpAddr>,
}

/// Ports that remote hosts like, so that some are hit often.
const POPULAR: [u16; 16] =
    [22, 23, 80, 443, 445, 1433, 2323, 3389, 5060, 5555, 6379, 8080, 8443, 1900, 123, 161];

impl Mix {
    /// For `site`, from `seed`.
    ///
    /// # Panics
    ///
    /// When the site observes nothing.
    pub fn new(site: Site, seed: u64) -> Self {
        assert!(!site.v4.is_empty() || !site.v6.is_empty(), "a site observes some addresses");
        let kinds: Vec<Kind> = Kind::all().into_iter().filter(|kind| kind.fits(&site)).collect();
        let weights = WeightedIndex::new(kinds.iter().map(|kind| kind.weight())).expect("none is zero");
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut mix = Self { rng, kinds, weights, site, hosts: Vec::new() };
        mix.hosts = (0..4096)
            .map(|index| if index % 4 == 3 { mix.remote_v6().into() } else { mix.remote_v4().into() })
            .collect();
        mix
    }

    /// Adds `count` packets to `frames` and to `expectation`.
    pub fn fill(&mut self, count: usize, frames: &mut Frames, expectation: &mut Expectation) {
        for _ in 0..count {
            let sample = self.sample();
            expectation.add(&sample.meaning, sample.frame.len());
            frames.push(&sample.frame);
        }
    }

    /// The next packet.
    pub fn sample(&mut self) -> Sample {
        let kind = self.kinds[self.weights.sample(&mut self.rng)];
        self.sample_of(kind)
    }

    /// The next packet, of `kind`.
    pub fn sample_of(&mut self, kind: Kind) -> Sample {
        match kind {
            Kind::NonIp => self.non_ip(),
            Kind::Malformed(flaw) => self.malformed(flaw),
            Kind::LaterFragment => self.later_fragment(),
            Kind::FirstFragment => self.first_fragment(),
            Kind::OtherUnicast => {
                let ip = self.ip_elsewhere();
                self.anything(&ip, Meaning::Plain(Class::OtherDestination))
            }
            Kind::Multicast => {
                let ip = self.ip_multicast();
                self.anything(&ip, Meaning::Plain(Class::OtherDestination))
            }
            Kind::Broadcast => {
                let src = self.remote_v4();
                let ip = self.dress(Ip::new(src.into(), Ipv4Addr::BROADCAST.into()));
                self.anything(&ip, Meaning::Plain(Class::OtherDestination))
            }
            Kind::Excluded => {
                let ip = self.ip_excluded();
                self.anything(&ip, Meaning::Plain(Class::Excluded))
            }
            Kind::ExcludedToOther => {
                let mut ip = self.ip_excluded();
                ip.dst = self.elsewhere(ip.src.is_ipv4());
                self.anything(&ip, Meaning::Plain(Class::OtherDestination))
            }
            Kind::ServiceAccess => self.service(true),
            Kind::ServiceTraffic => self.service(false),
            Kind::TcpBackscatter => self.tcp_backscatter(),
            Kind::IcmpBackscatter => self.icmp_backscatter(),
            Kind::DnsBackscatter => self.dns_backscatter(),
            Kind::SctpBackscatter => {
                let chunk = *[2, 6].choose(&mut self.rng).expect("two");
                self.sctp(Some(chunk))
            }
            Kind::Syn(tool) => self.syn(tool),
            Kind::TcpProbe => self.tcp_probe(),
            Kind::Udp => self.udp(),
            Kind::UdpFromDnsPort => self.udp_from_dns_port(),
            Kind::UdpNearDhcp => self.udp_near_dhcp(),
            Kind::IcmpRequest => self.icmp_request(),
            Kind::SctpAccess => {
                let chunk = *[Some(1), None].choose(&mut self.rng).expect("two");
                self.sctp(chunk)
            }
            Kind::OtherProtocol => self.other_protocol(),
            Kind::StrayAck => self.stray_ack(),
            Kind::Dhcp => self.dhcp(),
            Kind::IcmpHousekeeping => self.icmp_housekeeping(),
            Kind::Igmp => self.igmp(),
            Kind::SctpTraffic => {
                // DATA, SACK, HEARTBEAT, HEARTBEAT ACK, SHUTDOWN, ERROR, COOKIE ECHO.
                let chunk = *[0, 3, 4, 5, 7, 9, 10].choose(&mut self.rng).expect("seven");
                self.sctp(Some(chunk))
            }
        }
    }

    // Addresses.

    fn v6(&mut self) -> bool {
        match (self.site.v4.is_empty(), self.site.v6.is_empty()) {
            (true, _) => true,
            (_, true) => false,
            _ => self.rng.random_bool(0.25),
        }
    }

    fn remote_v4(&mut self) -> Ipv4Addr {
        loop {
            let address = Ipv4Addr::from(self.rng.random_range(0x0100_0000..0xe000_0000_u32));
            if !self.is_known(address.into()) && !address.is_loopback() {
                return address;
            }
        }
    }

    /// Of the part of the address space that is given out, `2000::/3`.
    fn remote_v6(&mut self) -> Ipv6Addr {
        loop {
            let address = Ipv6Addr::from((self.rng.random::<u128>() >> 3) | (1 << 125));
            if !self.is_known(address.into()) {
                return address;
            }
        }
    }

    fn is_known(&self, address: IpAddr) -> bool {
        self.site.observes(address) || self.site.excludes(address)
    }

    /// One of a few thousand hosts, or one never seen before.
    fn remote(&mut self, v6: bool) -> IpAddr {
        if self.rng.random_bool(0.7) {
            for _ in 0..64 {
                let host = *self.hosts.choose(&mut self.rng).expect("thousands");
                if host.is_ipv6() == v6 {
                    return host;
                }
            }
        }
        if v6 { self.remote_v6().into() } else { self.remote_v4().into() }
    }

    fn sensor(&mut self, v6: bool) -> IpAddr {
        if v6 {
            let net: Ipv6Net = *self.site.v6.choose(&mut self.rng).expect("asked for IPv6");
            random_v6(&mut self.rng, net).into()
        } else {
            let net: Ipv4Net = *self.site.v4.choose(&mut self.rng).expect("asked for IPv4");
            random_v4(&mut self.rng, net).into()
        }
    }

    fn elsewhere(&mut self, v4: bool) -> IpAddr {
        if v4 { self.remote_v4().into() } else { self.remote_v6().into() }
    }

    /// A header from a remote host to the sensor.
    fn ip(&mut self) -> Ip {
        let v6 = self.v6();
        self.ip_of(v6)
    }

    fn ip_of(&mut self, v6: bool) -> Ip {
        let (src, dst) = (self.remote(v6), self.sensor(v6));
        self.dress(Ip::new(src, dst))
    }

    fn ip_elsewhere(&mut self) -> Ip {
        let v6 = self.v6();
        let (src, dst) = (self.remote(v6), self.elsewhere(!v6));
        self.dress(Ip::new(src, dst))
    }

    fn ip_multicast(&mut self) -> Ip {
        let v6 = self.v6();
        let src = self.remote(v6);
        let dst: IpAddr = if v6 {
            let low = self.rng.random::<u128>() >> 16;
            let scope = *[0xff02_u128, 0xff05, 0xff0e, 0xff15].choose(&mut self.rng).expect("four");
            Ipv6Addr::from((scope << 112) | low).into()
        } else {
            Ipv4Addr::from(self.rng.random_range(0xe000_0000..0xf000_0000_u32)).into()
        };
        self.dress(Ip::new(src, dst))
    }

    /// What varies in headers without changing what a packet counts as.
    fn dress(&mut self, mut ip: Ip) -> Ip {
        ip.ttl = self.rng.random_range(1..=255);
        ip.id = self.plain_id();
        if ip.dst.is_ipv4() {
            if self.rng.random_bool(0.1) {
                // No-operations and an end of list (RFC 791).
                let words = self.rng.random_range(1..=10);
                ip.options = vec![1; words * 4];
                *ip.options.last_mut().expect("at least a word") = 0;
            }
        } else if self.rng.random_bool(0.2) {
            let count = self.rng.random_range(1..=6);
            let room = if self.rng.random_bool(0.2) {
                // An atomic fragment (RFC 6946) is whole.
                ip.fragment = Some(Fragment::default());
                count - 1
            } else {
                count
            };
            ip.extensions = (0..room).map(|index| self.extension(index == 0)).collect();
        }
        ip
    }

    /// Hop-by-hop options stand first or not at all.
    fn extension(&mut self, first: bool) -> Extension {
        let words = self.rng.random_range(0..=4);
        match self.rng.random_range(0..6) {
            0 if first => Extension::Raw { number: 0, words },
            1 => Extension::Raw { number: 43, words },
            2 => Extension::Authentication(self.rng.random_range(1..=6)),
            3 => Extension::Raw { number: 135, words },
            _ => Extension::Raw { number: protocol::DESTINATION_OPTIONS, words },
        }
    }

    /// An identification that is not `ZMap`'s.
    fn plain_id(&mut self) -> u16 {
        loop {
            let id = self.rng.random();
            if id != ZMAP_ID {
                return id;
            }
        }
    }

    /// A header from an excluded source to the sensor.
    fn ip_excluded(&mut self) -> Ip {
        let nets: Vec<IpNet> = self.site.excluded_reachable().collect();
        let (src, v6): (IpAddr, _) = match *nets.choose(&mut self.rng).expect("asked for an excluded source")
        {
            IpNet::V4(net) => (random_v4(&mut self.rng, net).into(), false),
            IpNet::V6(net) => (random_v6(&mut self.rng, net).into(), true),
        };
        let dst = self.sensor(v6);
        self.dress(Ip::new(src, dst))
    }

    // Ports and payloads.

    /// A port that is no service.
    fn port(&mut self, transport: Transport) -> u16 {
        loop {
            let port = match self.rng.random_range(0..10) {
                0..=5 => *POPULAR.choose(&mut self.rng).expect("sixteen"),
                6 => self.rng.random_range(0..1024),
                _ => self.rng.random(),
            };
            if !self.site.serves(transport, port) {
                return port;
            }
        }
    }

    /// A source port of no meaning: neither DNS nor DHCP.
    fn client_port(&mut self) -> u16 {
        self.rng.random_range(1024..=65_535)
    }

    /// A UDP port of no meaning that is no service.
    fn client_port_for_udp(&mut self) -> u16 {
        loop {
            let port = self.client_port();
            if !self.site.serves(Transport::Udp, port) {
                return port;
            }
        }
    }

    fn payload(&mut self) -> Vec<u8> {
        let length = match self.rng.random_range(0..50) {
            0 => self.site.max_frame.saturating_sub(700),
            1..=25 => 0,
            _ => self.rng.random_range(1..=400),
        };
        let mut payload = vec![0; length];
        self.rng.fill(payload.as_mut_slice());
        payload
    }

    fn tcp_options(&mut self) -> Vec<u8> {
        // Maximum segment size; that and selective acknowledgements; window scale.
        let all = [2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 7];
        all[..*[0, 0, 4, 8, 12].choose(&mut self.rng).expect("five")].to_vec()
    }

    // Samples.

    /// The frame of `packet`; short Ethernet frames are padded now and then, with bytes that would
    /// read as anything.
    fn wrap(&mut self, packet: &[u8], meaning: Meaning) -> Sample {
        let mut frame = self.site.frame(&mut self.rng, packet);
        if matches!(self.site.link, Link::Ethernet { .. }) && frame.len() < 60 && self.rng.random_bool(0.5) {
            let length = frame.len();
            frame.resize(60, 0);
            self.rng.fill(&mut frame[length..]);
        }
        Sample { frame, meaning }
    }

    fn tcp_segment(&mut self, ip: &Ip, src: u16, dst: u16, flags: u8) -> Vec<u8> {
        let tcp = Tcp {
            src,
            dst,
            sequence: self.rng.random(),
            acknowledgement: if flags & flag::ACK == 0 { 0 } else { self.rng.random() },
            flags,
            window: None,
            options: self.tcp_options(),
        };
        let payload = self.payload();
        tcp.segment(ip, &payload)
    }

    /// Any well-formed packet: of what kind does not matter for `meaning`.
    fn anything(&mut self, ip: &Ip, meaning: Meaning) -> Sample {
        let (src, dst) = (self.rng.random(), self.rng.random());
        let packet = match self.rng.random_range(0..5) {
            0 => {
                let flags = self.rng.random();
                ip.packet(protocol::TCP, &self.tcp_segment(ip, src, dst, flags))
            }
            1 => ip.packet(protocol::UDP, &udp(ip, src, dst, &self.payload())),
            2 => ip
                .packet(icmp_number(ip), &icmp(ip, self.rng.random(), 0, self.rng.random(), &self.payload())),
            3 => ip.packet(protocol::SCTP, &sctp(src, dst, self.rng.random(), Some(self.rng.random()))),
            _ => ip.packet(47, &self.payload()),
        };
        self.wrap(&packet, meaning)
    }
}

fn icmp_number(ip: &Ip) -> u8 {
    if ip.dst.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 }
}
