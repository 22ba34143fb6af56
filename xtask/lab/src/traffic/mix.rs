//! A seeded mix of everything that reaches a sensor, and of everything that only a hostile sender
//! makes: each packet with what it must count as.

mod duplex;

pub use duplex::{Duplex, Round};

use super::expectation::{Class, Expectation, Meaning, Port, Tool, Transport};
use super::packet::{
    Extension, Fragment, Frames, Ip, Tag, Tcp, ethernet, ethertype, flag, icmp, protocol, sctp, udp,
};
use super::site::{Link, Site, random_v4, random_v6};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One frame, and what it must count as.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Bytes from the link header on.
    pub frame: Vec<u8>,
    /// What it must count as.
    pub meaning: Meaning,
}

/// What kind of packet to make; how often is a matter of its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ARP, LLDP, spanning tree, MPLS with something else than IP, LCP in `PPPoE`, nine VLAN tags.
    NonIp,
    /// One of [`Flaw`].
    Malformed(Flaw),
    /// A fragment other than the first, to any destination.
    LaterFragment,
    /// A first fragment of an access.
    FirstFragment,
    /// To someone else's unicast address.
    OtherUnicast,
    /// To a multicast group.
    Multicast,
    /// To 255.255.255.255.
    Broadcast,
    /// Anything well-formed from an excluded source.
    Excluded,
    /// From an excluded source to someone else: not for the sensor in the first place.
    ExcludedToOther,
    /// A packet to a service that tries to start something.
    ServiceAccess,
    /// Any other packet to a service.
    ServiceTraffic,
    /// SYN+ACK, RST.
    TcpBackscatter,
    /// ICMP answers and errors.
    IcmpBackscatter,
    /// A DNS response.
    DnsBackscatter,
    /// INIT ACK, ABORT.
    SctpBackscatter,
    /// TCP SYN of a tool.
    Syn(Tool),
    /// TCP segments with neither ACK nor RST that are no plain SYN: FIN, NULL, Xmas.
    TcpProbe,
    /// UDP.
    Udp,
    /// UDP from port 53 that is no DNS response.
    UdpFromDnsPort,
    /// UDP with a DHCP port at one end only.
    UdpNearDhcp,
    /// ICMP requests.
    IcmpRequest,
    /// SCTP INIT, or no chunk at all.
    SctpAccess,
    /// GRE, ESP and the like.
    OtherProtocol,
    /// TCP with ACK that is neither SYN+ACK nor RST.
    StrayAck,
    /// DHCP and `DHCPv6`.
    Dhcp,
    /// Neighbour discovery, MLD, router ICMP and message types without meaning.
    IcmpHousekeeping,
    /// IGMP to the sensor's own address.
    Igmp,
    /// SCTP chunks in the middle of an association.
    SctpTraffic,
}

/// What is wrong with a malformed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flaw {
    /// The frame ends within the IP header.
    IpHeaderCut,
    /// IPv4 header length below five words.
    HeaderLength,
    /// The version is not the one of the `EtherType`.
    Version,
    /// IPv4 total length below the header's.
    TotalLength,
    /// IPv4 options that end beyond the frame.
    OptionsCut,
    /// The frame ends within the transport header.
    TransportCut,
    /// The frame is long enough, but the IP length ends within the transport header.
    TransportCutByLength,
    /// TCP data offset below five words.
    TcpOffset,
    /// TCP options that end beyond the IP packet.
    TcpOptionsCut,
    /// UDP length below eight bytes.
    UdpLengthShort,
    /// UDP length beyond the IP packet, which is no fragment.
    UdpLengthLong,
    /// The frame ends within an IPv6 extension header.
    ExtensionCut,
    /// More IPv6 extension headers than the parser follows (64).
    TooManyExtensions,
    /// An IPv6 extension header that ends beyond the IP packet.
    ExtensionTooLong,
    /// The frame ends within a VLAN tag.
    VlanCut,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::IpHeaderCut,
        Self::HeaderLength,
        Self::Version,
        Self::TotalLength,
        Self::OptionsCut,
        Self::TransportCut,
        Self::TransportCutByLength,
        Self::TcpOffset,
        Self::TcpOptionsCut,
        Self::UdpLengthShort,
        Self::UdpLengthLong,
        Self::ExtensionCut,
        Self::TooManyExtensions,
        Self::ExtensionTooLong,
        Self::VlanCut,
    ];

    /// Whether a link without Ethernet headers can carry it.
    const fn needs_ethernet(self) -> bool {
        matches!(self, Self::Version | Self::VlanCut)
    }
}

impl Kind {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let flaws = Flaw::ALL.map(Self::Malformed);
        let tools = Tool::ALL.map(Self::Syn);
        let plain = [
            Self::NonIp,
            Self::LaterFragment,
            Self::FirstFragment,
            Self::OtherUnicast,
            Self::Multicast,
            Self::Broadcast,
            Self::Excluded,
            Self::ExcludedToOther,
            Self::ServiceAccess,
            Self::ServiceTraffic,
            Self::TcpBackscatter,
            Self::IcmpBackscatter,
            Self::DnsBackscatter,
            Self::SctpBackscatter,
            Self::TcpProbe,
            Self::Udp,
            Self::UdpFromDnsPort,
            Self::UdpNearDhcp,
            Self::IcmpRequest,
            Self::SctpAccess,
            Self::OtherProtocol,
            Self::StrayAck,
            Self::Dhcp,
            Self::IcmpHousekeeping,
            Self::Igmp,
            Self::SctpTraffic,
        ];
        flaws.into_iter().chain(tools).chain(plain).collect()
    }

    /// How often, against the others.
    fn weight(self) -> u32 {
        match self {
            Self::Syn(Tool::Other) => 60,
            Self::Udp => 40,
            Self::Syn(_) => 15,
            Self::IcmpRequest | Self::TcpBackscatter => 10,
            Self::Malformed(_) => 1,
            _ => 5,
        }
    }

    /// Whether `site` can be sent such a packet.
    fn fits(self, site: &Site) -> bool {
        let ethernet = matches!(site.link, Link::Ethernet { .. });
        match self {
            Self::NonIp => ethernet,
            Self::Malformed(flaw) => ethernet || !flaw.needs_ethernet(),
            Self::Excluded | Self::ExcludedToOther => site.excluded_reachable().next().is_some(),
            Self::ServiceAccess | Self::ServiceTraffic => !site.services.is_empty(),
            // Tools are known by the IPv4 header, and IGMP is IPv4's.
            Self::Syn(_) | Self::Igmp | Self::Broadcast => !site.v4.is_empty(),
            _ => true,
        }
    }
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

    fn non_ip(&mut self) -> Sample {
        let Link::Ethernet { sensor, from } = self.site.link else { unreachable!("fits Ethernet only") };
        let mut content = vec![0; self.rng.random_range(28..=60)];
        self.rng.fill(content.as_mut_slice());
        let tags = self.site.tags(&mut self.rng);
        let frame = match self.rng.random_range(0..6) {
            0 => {
                // Request, Ethernet and IPv4 (RFC 826).
                content[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
                ethernet([0xff; 6], from, &tags, ethertype::ARP, &content)
            }
            1 => ethernet([1, 0x80, 0xc2, 0, 0, 0x0e], from, &tags, ethertype::LLDP, &content),
            // Spanning tree: IEEE 802.3 with a length instead of a type.
            2 => ethernet([1, 0x80, 0xc2, 0, 0, 0], from, &tags, content.len() as u16, &content),
            3 => {
                // The bottom of the stack, then a pseudowire's control word (RFC 4385).
                content[2] |= 1;
                content[4] &= 0x0f;
                ethernet(sensor, from, &tags, ethertype::MPLS, &content)
            }
            4 => {
                // An echo request of LCP (RFC 1661, section 5.8).
                content[..12].copy_from_slice(&[0x11, 0, 0, 7, 0, 10, 0xc0, 0x21, 9, 1, 0, 8]);
                ethernet(sensor, from, &tags, ethertype::PPPOE_SESSION, &content)
            }
            _ => {
                let tag = Tag { kind: ethertype::VLAN, id: self.rng.random_range(1..4095) };
                let ip = self.ip();
                let syn = self.tcp_segment(&ip, 40_000, 23, flag::SYN);
                let kind = if ip.dst.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
                ethernet(sensor, from, &[tag; 9], kind, &ip.packet(protocol::TCP, &syn))
            }
        };
        Sample { frame, meaning: Meaning::Plain(Class::NonIp) }
    }

    fn syn(&mut self, tool: Tool) -> Sample {
        let v6 = tool == Tool::Other && self.v6();
        let mut ip = self.ip_of(v6);
        let port = self.port(Transport::Tcp);
        let mut tcp = Tcp {
            src: self.client_port(),
            dst: port,
            sequence: self.rng.random(),
            flags: *[flag::SYN, flag::SYN, flag::SYN, flag::SYN | flag::ECE | flag::CWR]
                .choose(&mut self.rng)
                .expect("four"),
            options: self.tcp_options(),
            ..Tcp::default()
        };
        sign(tool, &mut ip, &mut tcp, &mut self.rng);
        let packet = ip.packet(protocol::TCP, &tcp.segment(&ip, &[]));
        self.wrap(
            &packet,
            Meaning::Access { src: ip.src, port: Port(Transport::Tcp, port), tool: Some(tool) },
        )
    }

    fn tcp_probe(&mut self) -> Sample {
        let ip = self.ip();
        let (src, port) = (self.client_port(), self.port(Transport::Tcp));
        // NULL, FIN, Xmas, PSH, URG.
        let flags = *[0, flag::FIN, flag::FIN | flag::PSH | flag::URG, flag::PSH, flag::URG]
            .choose(&mut self.rng)
            .expect("five");
        let packet = ip.packet(protocol::TCP, &self.tcp_segment(&ip, src, port, flags));
        self.wrap(&packet, Meaning::Access { src: ip.src, port: Port(Transport::Tcp, port), tool: None })
    }

    fn udp_access(&mut self, ip: &Ip, src: u16, port: u16, payload: &[u8]) -> Sample {
        let packet = ip.packet(protocol::UDP, &udp(ip, src, port, payload));
        self.wrap(&packet, Meaning::Access { src: ip.src, port: Port(Transport::Udp, port), tool: None })
    }

    fn udp(&mut self) -> Sample {
        let ip = self.ip();
        let (src, port, payload) = (self.client_port(), self.port(Transport::Udp), self.payload());
        self.udp_access(&ip, src, port, &payload)
    }

    /// A query, or too short for a DNS header's flags: then only padding can look like a response.
    fn udp_from_dns_port(&mut self) -> Sample {
        let ip = self.ip();
        let port = self.port(Transport::Udp);
        let mut payload = self.payload();
        match payload.get_mut(2) {
            Some(flags) if self.rng.random_bool(0.5) => *flags &= 0x7f,
            _ => payload.truncate(self.rng.random_range(0..=2)),
        }
        self.udp_access(&ip, 53, port, &payload)
    }

    fn udp_near_dhcp(&mut self) -> Sample {
        let ip = self.ip();
        let ports = if ip.dst.is_ipv4() { [67, 68] } else { [546, 547] };
        let dhcp = *ports.choose(&mut self.rng).expect("two");
        let payload = self.payload();
        if self.rng.random_bool(0.5) {
            let src = self.client_port();
            self.udp_access(&ip, src, dhcp, &payload)
        } else {
            let port = loop {
                let port = self.port(Transport::Udp);
                if !ports.contains(&port) {
                    break port;
                }
            };
            self.udp_access(&ip, dhcp, port, &payload)
        }
    }

    fn icmp_message(&mut self, ip: &Ip, kind: u8) -> Vec<u8> {
        let payload = self.payload();
        icmp(ip, kind, self.rng.random_range(0..4), self.rng.random(), &payload)
    }

    fn icmp_request(&mut self) -> Sample {
        let ip = self.ip();
        // Echo, timestamp, information, address mask; echo, node information (RFC 4620).
        let (transport, kinds): (_, &[u8]) = if ip.dst.is_ipv4() {
            (Transport::Icmp, &[8, 8, 13, 15, 17])
        } else {
            (Transport::Icmpv6, &[128, 128, 139])
        };
        let kind = *kinds.choose(&mut self.rng).expect("some");
        let packet = ip.packet(icmp_number(&ip), &self.icmp_message(&ip, kind));
        self.wrap(&packet, Meaning::Access { src: ip.src, port: Port(transport, kind.into()), tool: None })
    }

    fn icmp_backscatter(&mut self) -> Sample {
        let ip = self.ip();
        let (transport, kinds): (_, &[u8]) = if ip.dst.is_ipv4() {
            (Transport::Icmp, &[0, 3, 4, 5, 11, 12, 14, 16, 18])
        } else {
            (Transport::Icmpv6, &[1, 2, 3, 4, 129, 140])
        };
        let kind = *kinds.choose(&mut self.rng).expect("some");
        let packet = ip.packet(icmp_number(&ip), &self.icmp_message(&ip, kind));
        self.wrap(&packet, Meaning::Backscatter(Port(transport, kind.into())))
    }

    fn icmp_housekeeping(&mut self) -> Sample {
        let ip = self.ip();
        // Router advertisement and solicitation, and numbers that name nothing; MLD, router and
        // neighbour discovery, redirect, inverse discovery.
        let kinds: &[u8] = if ip.dst.is_ipv4() {
            &[9, 10, 1, 2, 7, 30, 40, 255]
        } else {
            &[130, 131, 132, 133, 134, 135, 136, 137, 141, 142, 143, 0, 127, 200, 255]
        };
        let kind = *kinds.choose(&mut self.rng).expect("some");
        let packet = ip.packet(icmp_number(&ip), &self.icmp_message(&ip, kind));
        self.wrap(&packet, Meaning::Plain(Class::Other))
    }

    fn sctp(&mut self, chunk: Option<u8>) -> Sample {
        let ip = self.ip();
        let (src, port) = (self.client_port(), self.port(Transport::Sctp));
        let packet = ip.packet(protocol::SCTP, &sctp(src, port, self.rng.random(), chunk));
        let meaning = match chunk {
            None | Some(1) => Meaning::Access { src: ip.src, port: Port(Transport::Sctp, port), tool: None },
            Some(2 | 6) => Meaning::Backscatter(Port(Transport::Sctp, src)),
            Some(_) => Meaning::Plain(Class::Other),
        };
        // Padding must not be read as a chunk.
        self.wrap(&packet, meaning)
    }

    fn other_protocol(&mut self) -> Sample {
        let ip = self.ip();
        // IP in IP, IPv6 in IP, GRE, ESP, EIGRP, OSPF, PIM, VRRP, L2TP; AH is an extension on IPv6.
        let numbers: &[u8] = if ip.dst.is_ipv4() {
            &[4, 41, 47, 50, 51, 88, 89, 103, 112, 115]
        } else {
            &[4, 41, 47, 50, 88, 89, 103, 112, 115]
        };
        let number = *numbers.choose(&mut self.rng).expect("some");
        let packet = ip.packet(number, &self.payload());
        let port = Port(Transport::Other, number.into());
        self.wrap(&packet, Meaning::Access { src: ip.src, port, tool: None })
    }

    fn tcp_backscatter(&mut self) -> Sample {
        let ip = self.ip();
        let (src, dst) = (self.rng.random(), self.port(Transport::Tcp));
        let flags = *[flag::SYN | flag::ACK, flag::RST, flag::RST | flag::ACK, flag::RST | flag::SYN]
            .choose(&mut self.rng)
            .expect("four");
        let packet = ip.packet(protocol::TCP, &self.tcp_segment(&ip, src, dst, flags));
        self.wrap(&packet, Meaning::Backscatter(Port(Transport::Tcp, src)))
    }

    fn dns_backscatter(&mut self) -> Sample {
        let ip = self.ip();
        let port = self.port(Transport::Udp);
        let mut message = vec![0; self.rng.random_range(3..=400)];
        self.rng.fill(message.as_mut_slice());
        message[2] |= 0x80;
        let packet = ip.packet(protocol::UDP, &udp(&ip, 53, port, &message));
        self.wrap(&packet, Meaning::Backscatter(Port(Transport::Udp, 53)))
    }

    fn stray_ack(&mut self) -> Sample {
        let ip = self.ip();
        let (src, dst) = (self.rng.random(), self.port(Transport::Tcp));
        let flags = flag::ACK
            | *[0, flag::PSH, flag::FIN, flag::PSH | flag::FIN, flag::URG]
                .choose(&mut self.rng)
                .expect("five");
        let packet = ip.packet(protocol::TCP, &self.tcp_segment(&ip, src, dst, flags));
        self.wrap(&packet, Meaning::Plain(Class::Other))
    }

    fn dhcp(&mut self) -> Sample {
        let ip = self.ip();
        let ports = if ip.dst.is_ipv4() { [67, 68] } else { [546, 547] };
        let src = *ports.choose(&mut self.rng).expect("two");
        let dst = *ports.choose(&mut self.rng).expect("two");
        let packet = ip.packet(protocol::UDP, &udp(&ip, src, dst, &self.payload()));
        self.wrap(&packet, Meaning::Plain(Class::Other))
    }

    fn igmp(&mut self) -> Sample {
        let ip = self.ip_of(false);
        // A membership query (RFC 9776), to this host alone.
        let packet = ip.packet(protocol::IGMP, &[0x11, 0x64, 0xee, 0x9b, 0, 0, 0, 0]);
        self.wrap(&packet, Meaning::Plain(Class::Other))
    }

    fn service(&mut self, starts: bool) -> Sample {
        let ip = self.ip();
        let service = *self.site.services.choose(&mut self.rng).expect("asked for a service");
        let Port(transport, port) = service;
        let packet = match (transport, starts) {
            (Transport::Udp, true) => {
                let src = self.client_port();
                ip.packet(protocol::UDP, &udp(&ip, src, port, &self.payload()))
            }
            (Transport::Udp, false) => {
                let response = [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
                ip.packet(protocol::UDP, &udp(&ip, 53, port, &response))
            }
            (_, true) => {
                let flags = *[flag::SYN, flag::FIN, 0].choose(&mut self.rng).expect("three");
                let src = self.client_port();
                ip.packet(protocol::TCP, &self.tcp_segment(&ip, src, port, flags))
            }
            (_, false) => {
                let flags = *[flag::ACK, flag::RST, flag::SYN | flag::ACK, flag::FIN | flag::ACK]
                    .choose(&mut self.rng)
                    .expect("four");
                let src = self.client_port();
                ip.packet(protocol::TCP, &self.tcp_segment(&ip, src, port, flags))
            }
        };
        let meaning = if starts {
            Meaning::ServiceAccess { src: ip.src, port: service }
        } else {
            Meaning::Plain(Class::Service)
        };
        self.wrap(&packet, meaning)
    }

    fn later_fragment(&mut self) -> Sample {
        // Any process that it is for.
        let mut ip = if self.rng.random_bool(0.8) { self.ip() } else { self.ip_elsewhere() };
        ip.extensions.truncate(5);
        ip.fragment =
            Some(Fragment { offset: self.rng.random_range(1..8192), more: self.rng.random_bool(0.5) });
        let number =
            *[protocol::TCP, protocol::UDP, icmp_number(&ip), 47].choose(&mut self.rng).expect("four");
        let packet = ip.packet(number, &self.payload());
        self.wrap(&packet, Meaning::Plain(Class::Fragment))
    }

    /// It has the transport header, so it counts like the datagram, whose UDP length goes beyond it.
    fn first_fragment(&mut self) -> Sample {
        let mut ip = self.ip();
        ip.extensions.truncate(5);
        ip.fragment = Some(Fragment { offset: 0, more: true });
        let (src, port) = (self.client_port(), self.port(Transport::Udp));
        let mut datagram = udp(&ip, src, port, &[0x55; 1000]);
        datagram.truncate(8 * self.rng.random_range(1..=20));
        let packet = ip.packet(protocol::UDP, &datagram);
        self.wrap(&packet, Meaning::Access { src: ip.src, port: Port(Transport::Udp, port), tool: None })
    }

    fn malformed(&mut self, flaw: Flaw) -> Sample {
        let meaning = Meaning::Plain(Class::Malformed);
        // Any process that it is for: a header that cannot be read does not say.
        let v6 = match flaw {
            Flaw::HeaderLength | Flaw::TotalLength | Flaw::OptionsCut => false,
            Flaw::ExtensionCut | Flaw::TooManyExtensions | Flaw::ExtensionTooLong => true,
            _ => self.v6(),
        };
        let observed = !if v6 { self.site.v6.is_empty() } else { self.site.v4.is_empty() };
        let dst = if observed && self.rng.random_bool(0.7) { self.sensor(v6) } else { self.elsewhere(!v6) };
        let mut ip = Ip::new(self.remote(v6), dst);
        let header = if v6 { 40 } else { 20 };
        let tcp = |ip: &Ip| Tcp { src: 40_000, dst: 23, flags: flag::SYN, ..Tcp::default() }.segment(ip, &[]);
        let packet = match flaw {
            Flaw::IpHeaderCut => {
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                packet.truncate(self.rng.random_range(1..header));
                packet
            }
            Flaw::HeaderLength => {
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                packet[0] = 0x40 | self.rng.random_range(0..5);
                packet
            }
            Flaw::Version => {
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                let version =
                    *[0, 1, 2, 3, 5, 7, 8, 15, if v6 { 4 } else { 6 }].choose(&mut self.rng).expect("nine");
                packet[0] = (version << 4) | (packet[0] & 0x0f);
                let Link::Ethernet { sensor, from } = self.site.link else {
                    unreachable!("fits Ethernet only")
                };
                let kind = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
                let tags = self.site.tags(&mut self.rng);
                return Sample { frame: ethernet(sensor, from, &tags, kind, &packet), meaning };
            }
            Flaw::TotalLength => {
                ip.options = vec![1; 8];
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                // 0 means the frame's length in captures of a sending host with segmentation offload.
                packet[2..4].copy_from_slice(&self.rng.random_range(1..28_u16).to_be_bytes());
                packet
            }
            Flaw::OptionsCut => {
                ip.options = vec![1; 40];
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                packet.truncate(self.rng.random_range(20..60));
                packet
            }
            Flaw::TransportCut | Flaw::TransportCutByLength => {
                let (number, transport) = match self.rng.random_range(0..4) {
                    0 => (protocol::TCP, tcp(&ip)),
                    1 => (protocol::UDP, udp(&ip, 40_000, 161, &[])),
                    2 => (icmp_number(&ip), icmp(&ip, if v6 { 128 } else { 8 }, 0, [0; 4], &[])),
                    _ => (protocol::SCTP, sctp(40_000, 80, 0, None)),
                };
                let kept = self.rng.random_range(0..transport.len());
                if flaw == Flaw::TransportCut {
                    let mut packet = ip.packet(number, &transport);
                    packet.truncate(header + kept);
                    packet
                } else {
                    let mut packet = ip.packet(number, &transport[..kept]);
                    packet.extend_from_slice(&transport[kept..]);
                    packet
                }
            }
            Flaw::TcpOffset | Flaw::TcpOptionsCut => {
                let mut segment = tcp(&ip);
                let words: u8 = if flaw == Flaw::TcpOffset {
                    self.rng.random_range(0..5)
                } else {
                    self.rng.random_range(6..16)
                };
                segment[12] = words << 4;
                ip.packet(protocol::TCP, &segment)
            }
            Flaw::UdpLengthShort | Flaw::UdpLengthLong => {
                let mut datagram = udp(&ip, 40_000, 161, &[0x30; 20]);
                let length: u16 = if flaw == Flaw::UdpLengthShort {
                    self.rng.random_range(0..8)
                } else {
                    self.rng.random_range(29..=65_535)
                };
                datagram[4..6].copy_from_slice(&length.to_be_bytes());
                ip.packet(protocol::UDP, &datagram)
            }
            Flaw::ExtensionCut => {
                ip.extensions = vec![Extension::Raw { number: protocol::DESTINATION_OPTIONS, words: 0 }];
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                packet.truncate(40 + self.rng.random_range(0..8));
                packet
            }
            Flaw::TooManyExtensions => {
                let count = self.rng.random_range(65..=90);
                ip.extensions =
                    vec![Extension::Raw { number: protocol::DESTINATION_OPTIONS, words: 0 }; count];
                ip.packet(protocol::TCP, &tcp(&ip))
            }
            Flaw::ExtensionTooLong => {
                ip.extensions = vec![Extension::Raw { number: protocol::DESTINATION_OPTIONS, words: 0 }];
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                // 8 bytes of header and 20 of TCP are there.
                packet[41] = self.rng.random_range(4..=255);
                packet
            }
            Flaw::VlanCut => {
                let Link::Ethernet { sensor, from } = self.site.link else {
                    unreachable!("fits Ethernet only")
                };
                let cut = vec![0; self.rng.random_range(0..4)];
                let tag = Tag { kind: ethertype::QINQ, id: 7 };
                let tags = if self.rng.random_bool(0.5) { vec![tag] } else { Vec::new() };
                return Sample { frame: ethernet(sensor, from, &tags, ethertype::VLAN, &cut), meaning };
            }
        };
        let mut frame = self.site.frame(&mut self.rng, &packet);
        if flaw == Flaw::HeaderLength && frame.len() < 60 && matches!(self.site.link, Link::Ethernet { .. }) {
            frame.resize(60, 0);
        }
        Sample { frame, meaning }
    }
}

/// `ZMap`'s IP identification (Durumeric et al. 2013).
const ZMAP_ID: u16 = 54_321;

/// masscan's IP identification: the low 16 bits of destination ^ port ^ sequence number, as masscan
/// 1.3.2 sends it.
fn masscan_id(dst: Ipv4Addr, port: u16, sequence: u32) -> u16 {
    (u32::from(dst) ^ u32::from(port) ^ sequence) as u16
}

/// What `ZMap` 4 writes as options, with the time where it writes it: `smallest-probes`, `windows`, `linux`, `bsd`.
fn zmap_options(rng: &mut impl Rng) -> Vec<u8> {
    let [a, b, c, d]: [u8; 4] = rng.random();
    match rng.random_range(0..4) {
        0 => vec![2, 4, 5, 0xb4],
        1 => vec![2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2],
        2 => vec![2, 4, 5, 0xb4, 4, 2, 8, 10, a, b, c, d, 0, 0, 0, 0, 1, 3, 3, 7],
        _ => vec![2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, a, b, c, d, 0, 0, 0, 0, 4, 2, 0, 0],
    }
}

/// Gives a SYN the mark of `tool`, and of no other. Those of IPv6 have no tool.
pub(super) fn sign(tool: Tool, ip: &mut Ip, tcp: &mut Tcp, rng: &mut impl Rng) {
    match tool {
        Tool::Zmap4 => {
            (ip.may_fragment, tcp.window, tcp.options) = (true, Some(u16::MAX), zmap_options(rng));
        }
        Tool::Nmap => {
            (ip.may_fragment, ip.ttl) = (true, rng.random_range(20..=59));
            (tcp.window, tcp.options) = (Some(1024), vec![2, 4, 5, 0xb4]);
        }
        Tool::Stateless => (ip.ttl, tcp.options) = (rng.random_range(200..=255), Vec::new()),
        // Beyond this a SYN would bear the marks of a stateless tool.
        Tool::Other if tcp.options.is_empty() => ip.ttl = ip.ttl.min(199),
        Tool::Zmap | Tool::Masscan | Tool::Mirai | Tool::Other => {}
    }
    let IpAddr::V4(dst) = ip.dst else { return };
    loop {
        tcp.sequence = if tool == Tool::Mirai { dst.into() } else { rng.random() };
        ip.id = match tool {
            Tool::Zmap => ZMAP_ID,
            Tool::Masscan => masscan_id(dst, tcp.dst, tcp.sequence),
            Tool::Mirai | Tool::Zmap4 | Tool::Nmap | Tool::Stateless | Tool::Other => rng.random(),
        };
        let marks = [
            (Tool::Mirai, tcp.sequence == u32::from(dst)),
            (Tool::Zmap, ip.id == ZMAP_ID),
            (Tool::Masscan, ip.id == masscan_id(dst, tcp.dst, tcp.sequence)),
        ];
        if marks.into_iter().all(|(other, marked)| marked == (other == tool)) {
            return;
        }
    }
}

fn icmp_number(ip: &Ip) -> u8 {
    if ip.dst.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 }
}
