//! A seeded model of Internet background radiation, as one sensor on an ordinary line sees it.
//!
//! | part | modelled on |
//! |---|---|
//! | ports | NPA 2021-02 (445/tcp 9.3 %, 23/tcp 5.4 %, 1433/tcp 2.4 %, 22/tcp 2.1 %, 123/udp 1.5 % of 5,438.3 accesses per IP and day) and NICTER 2019 (23/tcp 24.2 %, 445/tcp 5.4 %, 22/tcp 3.5 %, 80/tcp 3.2 % of packets): between the two |
//! | research scanners | NICTER 2024-25: half of all packets from less than 1 % of the sources |
//! | tools | `ZMap` among research scanners, masscan among scans of all ports, Mirai on 23, 2323, 5555 and 37215/tcp |
//! | 5060/udp surge | July 2010's report: many countries at once |
//! | 9415/tcp | the same report: one port, mostly one country |
//! | 22/tcp run | the same report: tens of thousands in a row from few sources |
//! | flood | NICTER 2020-03-11: more than 70 million spoofed sources in one day |
//! | backscatter | Corsaro's rule: SYN+ACK, RST, ICMP answers and errors, DNS responses |
//! | the line itself | ARP, other hosts' broadcasts, stray ACKs |

use super::expectation::{Class, Expectation, Meaning, Port, Tool, Transport};
use super::mix::sign;
use super::packet::{Frames, Ip, Tcp, ethernet, ethertype, flag, icmp, protocol, udp};
use super::places::{has_v6, random_country, random_source};
use super::site::{Link, Site, random_v4, random_v6};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

/// How much there is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of everything random.
    pub seed: u64,
    /// Ticks that it lasts.
    pub ticks: u32,
    /// Packets in a tick without any event.
    pub per_tick: u32,
}

/// What exceeds the steady part at some tick, to be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// 5060/udp from many countries.
    SipSurge,
    /// One host goes through all 65,536 TCP ports.
    AllPorts,
    /// 9415/tcp, mostly from one country.
    OnePort,
    /// 22/tcp from three hosts.
    SshRun,
    /// SYNs with a random source each.
    SpoofedFlood,
}

impl Event {
    /// One line about it.
    pub const fn tells(self) -> &'static str {
        match self {
            Self::SipSurge => "5060/udp surges, from many countries at once",
            Self::AllPorts => "one host scans all 65,536 TCP ports (masscan)",
            Self::OnePort => "9415/tcp, new, mostly from one country",
            Self::SshRun => "22/tcp, thousands in a row from three hosts",
            Self::SpoofedFlood => "80/tcp flood, every packet with another spoofed source",
        }
    }

    /// When, in thousandths of the whole.
    const fn span(self) -> (u32, u32) {
        match self {
            Self::SipSurge => (150, 300),
            Self::OnePort => (320, 450),
            Self::SshRun => (400, 520),
            Self::AllPorts => (500, 800),
            Self::SpoofedFlood => (850, 900),
        }
    }

    const ALL: [Self; 5] = [Self::SipSurge, Self::OnePort, Self::SshRun, Self::AllPorts, Self::SpoofedFlood];
}

/// Destination ports of ordinary remote hosts, and how often.
const PORTS: [(Port, u32); 32] = [
    (Port(Transport::Tcp, 23), 148),
    (Port(Transport::Tcp, 445), 74),
    (Port(Transport::Tcp, 22), 28),
    (Port(Transport::Tcp, 80), 32),
    (Port(Transport::Tcp, 1433), 24),
    (Port(Transport::Udp, 123), 15),
    (Port(Transport::Tcp, 3389), 14),
    (Port(Transport::Tcp, 8080), 13),
    (Port(Transport::Tcp, 443), 13),
    (Port(Transport::Tcp, 2323), 12),
    (Port(Transport::Tcp, 5555), 11),
    (Port(Transport::Tcp, 81), 8),
    (Port(Transport::Tcp, 6379), 8),
    (Port(Transport::Tcp, 8443), 7),
    (Port(Transport::Tcp, 37_215), 6),
    (Port(Transport::Tcp, 5900), 6),
    (Port(Transport::Tcp, 3306), 5),
    (Port(Transport::Tcp, 25), 5),
    (Port(Transport::Tcp, 21), 4),
    (Port(Transport::Tcp, 8291), 4),
    (Port(Transport::Tcp, 5432), 3),
    (Port(Transport::Tcp, 9200), 3),
    (Port(Transport::Tcp, 2375), 3),
    (Port(Transport::Tcp, 27_017), 2),
    (Port(Transport::Udp, 5060), 10),
    (Port(Transport::Udp, 1900), 8),
    (Port(Transport::Udp, 53), 8),
    (Port(Transport::Udp, 161), 6),
    (Port(Transport::Udp, 389), 4),
    (Port(Transport::Udp, 11_211), 4),
    (Port(Transport::Udp, 1434), 3),
    (Port(Transport::Icmp, 8), 20),
];

/// Ports that Mirai and its descendants scan.
const MIRAI: [u16; 4] = [23, 2323, 5555, 37_215];

/// A remote host with a habit.
#[derive(Clone, Copy, Debug)]
struct Host {
    address: IpAddr,
    country: &'static str,
    port: Port,
    tool: Tool,
}

/// The model, tick by tick.
#[derive(Clone, Debug)]
pub struct Radiation {
    rng: ChaCha8Rng,
    site: Site,
    plan: Plan,
    tick: u32,
    bots: Vec<Host>,
    research: Vec<Host>,
    victims: Vec<IpAddr>,
    /// The next port of the scan of all ports; 65,536 when it is done.
    next_port: u32,
    scanner: IpAddr,
    brutes: [IpAddr; 3],
    expectation: Expectation,
    countries: BTreeMap<&'static str, u64>,
    by_source: HashMap<IpAddr, u64>,
}

impl Radiation {
    /// For `site`, which has a sensor's addresses of both families, no service, and an Ethernet link.
    ///
    /// # Panics
    ///
    /// When `site` lacks one of them.
    pub fn new(site: Site, plan: Plan) -> Self {
        assert!(!site.v4.is_empty() && !site.v6.is_empty(), "the model sends to both address families");
        assert!(site.services.is_empty() && site.excluded.is_empty(), "the model knows accesses only");
        assert!(matches!(site.link, Link::Ethernet { .. }), "the model has ARP");
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let bots = (0..3000).map(|_| bot(&mut rng)).collect();
        let research = (0..24).map(|index| research(&mut rng, index % 6 == 5)).collect();
        let victims = (0..40).map(|_| from_anywhere(&mut rng).0).collect();
        let scanner = random_source(&mut rng, "NL", false);
        let brutes = [(); 3].map(|()| random_source(&mut rng, "CN", false));
        Self {
            rng,
            site,
            plan,
            tick: 0,
            bots,
            research,
            victims,
            next_port: 0,
            scanner,
            brutes,
            expectation: Expectation::default(),
            countries: BTreeMap::new(),
            by_source: HashMap::new(),
        }
    }

    /// Everything sent so far.
    pub fn expectation(&self) -> &Expectation {
        &self.expectation
    }

    /// Accesses so far by the country that the source was taken from; spoofed ones are not in it.
    pub fn countries(&self) -> &BTreeMap<&'static str, u64> {
        &self.countries
    }

    /// Accesses so far by source, spoofed ones too.
    pub fn by_source(&self) -> &HashMap<IpAddr, u64> {
        &self.by_source
    }

    /// Fills `frames` with the packets of the next tick; `false` at the end of the model.
    pub fn next_tick(&mut self, frames: &mut Frames) -> bool {
        frames.clear();
        if self.tick >= self.plan.ticks {
            return false;
        }
        for _ in 0..self.plan.per_tick {
            self.steady(frames);
        }
        for event in Event::ALL {
            if self.is_on(event, self.tick) {
                self.event(event, frames);
            }
        }
        self.tick += 1;
        true
    }

    /// Events that begin with the next tick.
    pub fn beginning(&self) -> impl Iterator<Item = Event> {
        let tick = self.tick;
        let begin =
            move |event: &Event| self.is_on(*event, tick) && (tick == 0 || !self.is_on(*event, tick - 1));
        Event::ALL.into_iter().filter(begin)
    }

    fn is_on(&self, event: Event, tick: u32) -> bool {
        let (begin, end) = self.ticks_of(event);
        (begin..end).contains(&tick)
    }

    fn ticks_of(&self, event: Event) -> (u32, u32) {
        let (begin, end) = event.span();
        let at = |share: u32| (u64::from(self.plan.ticks) * u64::from(share) / 1000) as u32;
        (at(begin), at(end).max(at(begin) + 1))
    }

    fn event(&mut self, event: Event, frames: &mut Frames) {
        let rate = self.plan.per_tick;
        match event {
            Event::SipSurge => {
                for _ in 0..rate {
                    let (src, country) = from_anywhere(&mut self.rng);
                    self.udp(frames, src, country, 5060, SIP_OPTIONS);
                }
            }
            Event::OnePort => {
                for _ in 0..rate / 2 {
                    let country =
                        if self.rng.random_bool(0.85) { "CN" } else { random_country(&mut self.rng) };
                    let src = random_source(&mut self.rng, country, false);
                    self.syn(frames, src, country, 9415, Tool::Other);
                }
            }
            Event::SshRun => {
                for _ in 0..rate / 2 {
                    let src = *self.brutes.choose(&mut self.rng).expect("three");
                    self.syn(frames, src, "CN", 22, Tool::Other);
                }
            }
            Event::AllPorts => {
                let (begin, end) = self.ticks_of(event);
                let share = u64::from(self.tick + 1 - begin) * 65_536 / u64::from(end - begin);
                while u64::from(self.next_port) < share {
                    let port = self.next_port as u16;
                    self.next_port += 1;
                    self.syn(frames, self.scanner, "NL", port, Tool::Masscan);
                }
            }
            Event::SpoofedFlood => {
                for _ in 0..rate * 8 {
                    let src = Ipv4Addr::from(self.rng.random_range(0x0100_0000..0xe000_0000_u32));
                    if !src.is_loopback() && !self.site.observes(src.into()) {
                        self.access_tcp(frames, src.into(), 80, Tool::Other, flag::SYN);
                    }
                }
            }
        }
    }

    /// One packet of the steady part.
    fn steady(&mut self, frames: &mut Frames) {
        match self.rng.random_range(0..1000) {
            0..430 => {
                let host = *self.research.choose(&mut self.rng).expect("some");
                let port = if host.address.is_ipv6() || self.rng.random_bool(0.5) {
                    ordinary_port(&mut self.rng)
                } else {
                    Port(Transport::Tcp, self.rng.random_range(1..=65_535))
                };
                self.visit(frames, Host { port, ..host });
            }
            430..900 => {
                let host = *self.bots.choose(&mut self.rng).expect("thousands");
                self.visit(frames, host);
            }
            900..925 => self.probe(frames),
            925..985 => self.backscatter(frames),
            _ => self.line(frames),
        }
    }

    fn visit(&mut self, frames: &mut Frames, host: Host) {
        let Host { address, country, port: Port(transport, port), tool } = host;
        match transport {
            Transport::Tcp => {
                let tool = match tool {
                    Tool::Mirai if !MIRAI.contains(&port) => Tool::Other,
                    _ if address.is_ipv6() => Tool::Other,
                    tool => tool,
                };
                self.syn(frames, address, country, port, tool);
            }
            Transport::Udp => self.udp(frames, address, country, port, b"\x00\x00\x10\x00"),
            _ => {
                let ip = self.ip(address);
                let (transport, kind) =
                    if address.is_ipv6() { (Transport::Icmpv6, 128) } else { (Transport::Icmp, 8) };
                let message = icmp(&ip, kind, 0, self.rng.random(), &[0x61; 32]);
                let packet = ip.packet(if kind == 8 { protocol::ICMP } else { protocol::ICMPV6 }, &message);
                *self.countries.entry(country).or_default() += 1;
                let meaning =
                    Meaning::Access { src: address, port: Port(transport, kind.into()), tool: None };
                self.push(frames, &packet, &meaning);
            }
        }
    }

    /// FIN, NULL and Xmas.
    fn probe(&mut self, frames: &mut Frames) {
        let (src, country) = from_anywhere(&mut self.rng);
        let flags = *[0, flag::FIN, flag::FIN | flag::PSH | flag::URG].choose(&mut self.rng).expect("three");
        let Port(_, port) = PORTS[self.rng.random_range(0..5)].0;
        *self.countries.entry(country).or_default() += 1;
        self.access_tcp(frames, src, port, Tool::Other, flags);
    }

    fn syn(&mut self, frames: &mut Frames, src: IpAddr, country: &'static str, port: u16, tool: Tool) {
        *self.countries.entry(country).or_default() += 1;
        self.access_tcp(frames, src, port, tool, flag::SYN);
    }

    fn access_tcp(&mut self, frames: &mut Frames, src: IpAddr, port: u16, tool: Tool, flags: u8) {
        let mut ip = self.ip(src);
        let mut tcp =
            Tcp { src: self.client_port(), dst: port, sequence: self.rng.random(), flags, ..Tcp::default() };
        sign(tool, &mut ip, &mut tcp, &mut self.rng);
        let packet = ip.packet(protocol::TCP, &tcp.segment(&ip, &[]));
        let tool = (flags & flag::SYN != 0).then_some(tool);
        self.push(frames, &packet, &Meaning::Access { src, port: Port(Transport::Tcp, port), tool });
    }

    fn udp(&mut self, frames: &mut Frames, src: IpAddr, country: &'static str, port: u16, payload: &[u8]) {
        let ip = self.ip(src);
        let packet = ip.packet(protocol::UDP, &udp(&ip, self.client_port(), port, payload));
        *self.countries.entry(country).or_default() += 1;
        self.push(frames, &packet, &Meaning::Access { src, port: Port(Transport::Udp, port), tool: None });
    }

    /// Someone attacks a victim with our address as the source; the victim answers us.
    fn backscatter(&mut self, frames: &mut Frames) {
        let victim = *self.victims.choose(&mut self.rng).expect("forty");
        let ip = self.ip(victim);
        let dst = self.client_port();
        let port = *[80, 443, 22, 25_565].choose(&mut self.rng).expect("four");
        let number = if victim.is_ipv6() { protocol::ICMPV6 } else { protocol::ICMP };
        let (packet, answered) = match self.rng.random_range(0..10) {
            0..6 => {
                let flags = if self.rng.random_bool(0.7) { flag::SYN } else { flag::RST } | flag::ACK;
                let sequence = self.rng.random();
                let tcp = Tcp { src: port, dst, sequence, acknowledgement: 1, flags, ..Tcp::default() };
                (ip.packet(protocol::TCP, &tcp.segment(&ip, &[])), Port(Transport::Tcp, port))
            }
            6..8 => {
                let answer = [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
                (ip.packet(protocol::UDP, &udp(&ip, 53, dst, &answer)), Port(Transport::Udp, 53))
            }
            _ => {
                let (transport, kind) =
                    if victim.is_ipv6() { (Transport::Icmpv6, 1) } else { (Transport::Icmp, 3) };
                // Port unreachable, quoting what we are said to have sent.
                let quoted = Ip::new(ip.dst, victim);
                let quoted = quoted.packet(protocol::UDP, &udp(&quoted, dst, port, &[]));
                let code = if victim.is_ipv6() { 4 } else { 3 };
                let message = icmp(&ip, kind, code, [0; 4], &quoted);
                (ip.packet(number, &message), Port(transport, kind.into()))
            }
        };
        self.push(frames, &packet, &Meaning::Backscatter(answered));
    }

    /// What any line carries.
    fn line(&mut self, frames: &mut Frames) {
        let Link::Ethernet { from, .. } = self.site.link else { unreachable!("checked when made") };
        match self.rng.random_range(0..4) {
            0 => {
                let mut request = [0; 28];
                request[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
                request[8..14].copy_from_slice(&from);
                // Of an address that is not ours, so that no one answers.
                request[14..18].copy_from_slice(&[198, 18, 0, 1]);
                request[24..28].copy_from_slice(&[198, 18, 0, 2]);
                let frame = ethernet([0xff; 6], from, &[], ethertype::ARP, &request);
                self.expectation.add(&Meaning::Plain(Class::NonIp), frame.len());
                frames.push(&frame);
            }
            1 => {
                // NetBIOS name service, to everybody.
                let ip = Ip::new(Ipv4Addr::new(198, 18, 0, 9).into(), Ipv4Addr::BROADCAST.into());
                let packet = ip.packet(protocol::UDP, &udp(&ip, 137, 137, &[0x55; 50]));
                self.push(frames, &packet, &Meaning::Plain(Class::OtherDestination));
            }
            _ => {
                let (src, _) = from_anywhere(&mut self.rng);
                let ip = self.ip(src);
                let (sequence, dst) = (self.rng.random(), self.client_port());
                let tcp =
                    Tcp { src: 443, dst, sequence, acknowledgement: 1, flags: flag::ACK, ..Tcp::default() };
                let packet = ip.packet(protocol::TCP, &tcp.segment(&ip, &[]));
                self.push(frames, &packet, &Meaning::Plain(Class::Other));
            }
        }
    }

    /// A header from `src` to the sensor's address of the same family.
    fn ip(&mut self, src: IpAddr) -> Ip {
        let dst = if src.is_ipv6() {
            let net = *self.site.v6.choose(&mut self.rng).expect("checked when made");
            random_v6(&mut self.rng, net).into()
        } else {
            let net = *self.site.v4.choose(&mut self.rng).expect("checked when made");
            random_v4(&mut self.rng, net).into()
        };
        Ip { ttl: self.rng.random_range(40..120), id: self.rng.random(), ..Ip::new(src, dst) }
    }

    fn client_port(&mut self) -> u16 {
        self.rng.random_range(1024..=65_535)
    }

    fn push(&mut self, frames: &mut Frames, packet: &[u8], meaning: &Meaning) {
        let frame = self.site.frame(&mut self.rng, packet);
        self.expectation.add(meaning, frame.len());
        if let Meaning::Access { src, .. } = meaning {
            *self.by_source.entry(*src).or_default() += 1;
        }
        frames.push(&frame);
    }
}

/// `OPTIONS`, as SIP scanners send it (RFC 3261).
const SIP_OPTIONS: &[u8] =
    b"OPTIONS sip:100@sensor SIP/2.0\r\nVia: SIP/2.0/UDP 0.0.0.0:5061;branch=z9hG4bK1\r\n\r\n";

fn ordinary_port(rng: &mut impl Rng) -> Port {
    PORTS.choose_weighted(rng, |(_, weight)| *weight).expect("no weight is zero").0
}

/// An address of a country drawn by its weight, IPv6 now and then.
fn from_anywhere(rng: &mut impl Rng) -> (IpAddr, &'static str) {
    let country = random_country(rng);
    let v6 = has_v6(country) && rng.random_bool(0.08);
    (random_source(rng, country, v6), country)
}

fn bot(rng: &mut impl Rng) -> Host {
    let (address, country) = from_anywhere(rng);
    let port = ordinary_port(rng);
    // Most of what asks for Mirai's ports is one of its descendants.
    let tool = match port {
        Port(Transport::Tcp, port) if MIRAI.contains(&port) && rng.random_bool(0.7) => Tool::Mirai,
        Port(Transport::Tcp, _) if rng.random_bool(0.2) => {
            *[Tool::Masscan, Tool::Nmap, Tool::Stateless].choose(rng).expect("three")
        }
        _ => Tool::Other,
    };
    Host { address, country, port, tool }
}

fn research(rng: &mut impl Rng, v6: bool) -> Host {
    let country = *["US", "US", "GB", "NL", "DE"].choose(rng).expect("five");
    let port = ordinary_port(rng);
    let tool = if rng.random() { Tool::Zmap } else { Tool::Zmap4 };
    Host { address: random_source(rng, country, v6), country, port, tool }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn radiation(seed: u64) -> Radiation {
        let site = Site {
            link: Link::Ethernet { sensor: [2, 0, 0, 0, 0, 1], from: [2, 0, 0, 0, 0, 2] },
            tagging: super::super::Tagging::Never,
            max_frame: 1514,
            v4: vec!["198.18.0.1/32".parse().unwrap()],
            v6: vec!["2001:db8::1/128".parse().unwrap()],
            services: Vec::new(),
            excluded: Vec::new(),
        };
        Radiation::new(site, Plan { seed, ticks: 100, per_tick: 200 })
    }

    fn play(mut radiation: Radiation) -> (Radiation, Vec<Vec<u8>>, Vec<Event>) {
        let (mut frames, mut all, mut events) = (Frames::default(), Vec::new(), Vec::new());
        loop {
            events.extend(radiation.beginning());
            if !radiation.next_tick(&mut frames) {
                return (radiation, all, events);
            }
            all.extend(frames.iter().map(<[u8]>::to_vec));
        }
    }

    #[test]
    fn everything_sent_is_in_the_expectation_and_every_event_happens_once() {
        let (radiation, frames, mut events) = play(radiation(1));
        assert_eq!(radiation.expectation().total(), frames.len() as u64);
        events.sort();
        events.dedup();
        assert_eq!(events.len(), 5);
    }

    #[test]
    fn the_mix_has_the_published_shape() {
        let (radiation, ..) = play(radiation(1));
        let expected = radiation.expectation();
        // Every port was scanned, and nothing of this traffic is malformed or solicited.
        let tcp = expected.accesses.keys().filter(|port| port.0 == Transport::Tcp).count();
        assert_eq!(tcp, 65_536);
        for class in [Class::Malformed, Class::Solicited, Class::Service, Class::Excluded] {
            assert_eq!(expected.packets(class), 0, "{}", class.label());
        }
        for class in [Class::NonIp, Class::OtherDestination, Class::Backscatter, Class::Other] {
            assert!(expected.packets(class) > 0, "{}", class.label());
        }
        // 23/tcp leads the steady part: 20,000 packets, at least 8 % of them.
        assert!(expected.accesses[&Port(Transport::Tcp, 23)] > 1600);
        for tool in Tool::ALL {
            let least = if matches!(tool, Tool::Nmap | Tool::Stateless) { 50 } else { 500 };
            let count = expected.tools[&tool];
            assert!(count > least, "{count} by {}", tool.label());
        }
        assert!(radiation.countries().len() >= 40, "{:?}", radiation.countries());
        assert!(expected.sources.iter().any(|(src, _)| src.is_ipv6()));
    }

    #[test]
    fn the_same_seed_gives_the_same_packets() {
        assert_eq!(play(radiation(7)).1, play(radiation(7)).1);
        assert_ne!(play(radiation(7)).1, play(radiation(8)).1);
    }
}
