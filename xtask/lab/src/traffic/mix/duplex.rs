//! The mix of a sensor that also speaks: it asks partners, who answer, and accepts connections; remote hosts
//! imitate all of that.
//!
//! What belongs to a conversation is known because this module made both of its sides. The rule of
//! docs/classification.md: `solicited` belongs to something the host started or to a connection it
//! accepted; everything else counts as it would if the host had never spoken.

use super::{Mix, Sample, icmp_number, sign};
use crate::traffic::expectation::{Class, Expectation, Meaning, Port, Tool, Transport};
use crate::traffic::packet::{Fragment, Frames, Ip, Tcp, flag, icmp, protocol, udp};
use crate::traffic::site::{Link, Site};
use rand::Rng;
use rand::seq::IndexedRandom;
use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

/// Conversations that the sensor begins at most: it keeps 65,536.
const MAX_STARTED: usize = 50_000;
/// Connections that it offers at most: of 16,384 it forgets none.
const MAX_OFFERED: usize = 10_000;
/// Rounds after which no one answers any more: long before a conversation is over.
const ROUNDS: u64 = 3;

/// What the sensor sends, and then what reaches it.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// From the sensor's interface. All of it is sent before any of the rest.
    pub sent: Frames,
    /// To the sensor's interface, in order.
    pub received: Frames,
}

/// How a conversation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum DuplexKind {
    Tcp,
    Udp,
    /// A request of this type; its identifier is the local port.
    Icmp(u8),
}

/// The two ends of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    kind: DuplexKind,
    local: IpAddr,
    local_port: u16,
    remote: IpAddr,
    remote_port: u16,
}

/// Something that the sensor has asked.
#[derive(Clone, Debug)]
struct Question {
    ends: Ends,
    /// The packet that asked, from the IP header on.
    packet: Vec<u8>,
    /// In which round it was asked last.
    round: u64,
}

/// A remote host that waits for the sensor's next round.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    local: IpAddr,
    local_port: u16,
    remote: IpAddr,
    remote_port: u16,
}

/// The generator.
#[derive(Clone, Debug)]
pub struct Duplex {
    mix: Mix,
    /// The site from the other side, for frames that the sensor sends.
    outward: Site,
    partners: Vec<IpAddr>,
    questions: VecDeque<Question>,
    /// All conversations, over or not.
    started: HashSet<Ends>,
    /// Who of the partners has sent a datagram that no one asked for: remote, its port, local port.
    heard: HashSet<(IpAddr, u16, u16)>,
    /// Remote hosts who sent a SYN.
    knocking: Vec<Waiting>,
    /// A remote host whose datagram is replied to.
    replied: Option<Waiting>,
    offered: usize,
    round: u64,
}

/// Ports that hosts ask.
const ASKED: [u16; 8] = [53, 53, 80, 123, 443, 443, 853, 5671];

impl Duplex {
    /// For `site`, from `seed`.
    ///
    /// # Panics
    ///
    /// When the site observes nothing.
    pub fn new(site: Site, seed: u64) -> Self {
        let mut outward = site.clone();
        if let Link::Ethernet { sensor, from } = site.link {
            outward.link = Link::Ethernet { sensor: from, from: sensor };
        }
        let mut mix = Mix::new(site, seed);
        let partners = (0..2000)
            .map(|_| if mix.v6() { mix.remote_v6().into() } else { mix.remote_v4().into() })
            .collect();
        Self {
            mix,
            outward,
            partners,
            questions: VecDeque::new(),
            started: HashSet::new(),
            heard: HashSet::new(),
            knocking: Vec::new(),
            replied: None,
            offered: 0,
            round: 0,
        }
    }

    /// How many conversations the sensor has begun or accepted.
    pub fn started(&self) -> u64 {
        self.started.len() as u64
    }

    /// The next round, of `count` packets that reach the sensor, at least 4; what they must count as is
    /// added to `expectation`.
    pub fn round(&mut self, count: usize, expectation: &mut Expectation) -> Round {
        self.round += 1;
        let mut round = Round::default();
        let mut samples = Vec::with_capacity(count);
        // The reply first, and what it replies to last: in between no one is heard.
        self.reply(&mut round, &mut samples);
        self.accept(&mut round, &mut samples);
        for _ in 0..count / 25 {
            self.ask(&mut round);
        }
        self.stray(&mut round, &mut samples);
        while samples.len() + 1 < count {
            let sample = match self.mix.rng.random_range(0..10) {
                0..=3 => self.answer(),
                4 | 5 => self.imitation(),
                6 => Some(self.knock()),
                _ => Some(self.mix.sample()),
            };
            samples.extend(sample);
        }
        samples.push(self.unasked());
        for sample in &samples {
            expectation.add(&sample.meaning, sample.frame.len());
            round.received.push(&sample.frame);
        }
        round
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.mix.rng.random_bool(probability)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.mix.rng).expect("there is some")
    }

    /// What the sensor's interface sends.
    fn send(&mut self, round: &mut Round, packet: &[u8]) {
        round.sent.push(&self.outward.frame(&mut self.mix.rng, packet));
    }

    fn segment(
        &mut self,
        ip: &Ip,
        ports: [u16; 2],
        flags: u8,
        sequence: u32,
        acknowledgement: u32,
    ) -> Vec<u8> {
        let [src, dst] = ports;
        let options = self.mix.tcp_options();
        let tcp = Tcp { src, dst, sequence, acknowledgement, flags, window: None, options };
        ip.packet(protocol::TCP, &tcp.segment(ip, &[]))
    }

    // What the sensor starts, and answers to it.

    /// A header between two addresses that varies where it does not matter. Hosts do not send extension
    /// headers unasked.
    fn plain(&mut self, src: IpAddr, dst: IpAddr) -> Ip {
        let mut ip = self.mix.dress(Ip::new(src, dst));
        ip.extensions.clear();
        ip.fragment = (src.is_ipv6() && self.chance(0.1)).then(Fragment::default);
        ip
    }

    fn new_ends(&mut self) -> Ends {
        loop {
            let remote = self.pick(&self.partners.clone());
            let local = self.mix.sensor(remote.is_ipv6());
            let request = if remote.is_ipv6() { 128 } else { self.pick(&[8, 8, 13]) };
            let kind = self.pick(&[DuplexKind::Tcp, DuplexKind::Udp, DuplexKind::Icmp(request)]);
            let local_port = self.mix.client_port();
            let remote_port = if matches!(kind, DuplexKind::Icmp(_)) { 0 } else { self.pick(&ASKED) };
            let ends = Ends { kind, local, local_port, remote, remote_port };
            let is_service = match kind {
                DuplexKind::Tcp => self.mix.site.serves(Transport::Tcp, local_port),
                DuplexKind::Udp => self.mix.site.serves(Transport::Udp, local_port),
                DuplexKind::Icmp(_) => false,
            };
            // To someone who was just heard, a datagram is a reply.
            let is_reply = self.heard.contains(&(remote, remote_port, local_port));
            if !is_service && !is_reply && !self.started.contains(&ends) {
                return ends;
            }
        }
    }

    /// The sensor asks someone, or someone again.
    fn ask(&mut self, round: &mut Round) {
        let is_full = self.started.len() >= MAX_STARTED;
        if !self.questions.is_empty() && (is_full || self.chance(0.2)) {
            let index = self.mix.rng.random_range(0..self.questions.len());
            let question = &mut self.questions[index];
            question.round = self.round;
            let packet = question.packet.clone();
            self.send(round, &packet);
            return;
        }
        let ends = self.new_ends();
        let ip = self.plain(ends.local, ends.remote);
        let payload = self.mix.payload();
        let packet = match ends.kind {
            DuplexKind::Tcp => {
                let sequence = self.mix.rng.random();
                self.segment(&ip, [ends.local_port, ends.remote_port], flag::SYN, sequence, 0)
            }
            DuplexKind::Udp => {
                ip.packet(protocol::UDP, &udp(&ip, ends.local_port, ends.remote_port, &payload))
            }
            DuplexKind::Icmp(request) => {
                let [high, low] = ends.local_port.to_be_bytes();
                ip.packet(icmp_number(&ip), &icmp(&ip, request, 0, [high, low, 0, 1], &payload))
            }
        };
        self.send(round, &packet);
        self.started.insert(ends);
        self.questions.push_back(Question { ends, packet, round: self.round });
        // Those that no one answers any more stay to be asked again.
        if self.questions.len() > 500 {
            self.questions.pop_front();
        }
    }

    /// A question that is still to be answered.
    fn question(&mut self) -> Option<Question> {
        for _ in 0..16 {
            let question = self.questions.get(self.mix.rng.random_range(0..self.questions.len().max(1)))?;
            if question.round + ROUNDS > self.round {
                return Some(question.clone());
            }
        }
        None
    }

    /// What comes back from whom the sensor asked.
    fn answer(&mut self) -> Option<Sample> {
        let question = self.question()?;
        if self.chance(0.15) {
            return Some(self.error(&question.packet, question.ends.local, Meaning::Plain(Class::Solicited)));
        }
        if question.ends.kind == DuplexKind::Tcp && self.chance(0.1) {
            // A SYN starts something, from any host.
            return Some(self.start(&question.ends));
        }
        Some(self.reply_of(&question.ends, Meaning::Plain(Class::Solicited)).0)
    }

    /// From the remote to the local end, as an answer; and what it would count as if no one had asked.
    fn reply_of(&mut self, ends: &Ends, meaning: Meaning) -> (Sample, Meaning) {
        let ip = Ip::new(ends.remote, ends.local);
        let ip = self.mix.dress(ip);
        let (packet, alone) = match ends.kind {
            DuplexKind::Tcp => self.tcp_reply(&ip, ends),
            DuplexKind::Udp => self.udp_reply(&ip, ends),
            DuplexKind::Icmp(request) => {
                let reply = match request {
                    128 => 129,
                    8 => 0,
                    other => other + 1,
                };
                let [high, low] = ends.local_port.to_be_bytes();
                let payload = self.mix.payload();
                let transport = if ends.local.is_ipv4() { Transport::Icmp } else { Transport::Icmpv6 };
                let message = icmp(&ip, reply, 0, [high, low, 0, 1], &payload);
                (ip.packet(icmp_number(&ip), &message), Meaning::Backscatter(Port(transport, reply.into())))
            }
        };
        (self.mix.wrap(&packet, meaning), alone)
    }

    fn tcp_reply(&mut self, ip: &Ip, ends: &Ends) -> (Vec<u8>, Meaning) {
        let flags = self.pick(&[
            flag::SYN | flag::ACK,
            flag::ACK,
            flag::ACK | flag::PSH,
            flag::FIN | flag::ACK,
            flag::RST,
            flag::RST | flag::ACK,
        ]);
        let ports = [ends.remote_port, ends.local_port];
        let (sequence, acknowledgement) = (self.mix.rng.random(), self.mix.rng.random());
        let alone = if flags & (flag::SYN | flag::RST) == 0 {
            Meaning::Plain(Class::Other)
        } else {
            Meaning::Backscatter(Port(Transport::Tcp, ends.remote_port))
        };
        (self.segment(ip, ports, flags, sequence, acknowledgement), alone)
    }

    fn udp_reply(&mut self, ip: &Ip, ends: &Ends) -> (Vec<u8>, Meaning) {
        let mut payload = self.mix.payload();
        let mut alone =
            Meaning::Access { src: ends.remote, port: Port(Transport::Udp, ends.local_port), tool: None };
        if ends.remote_port == 53 {
            // Identification, flags of a response, counts.
            payload.splice(0..0, [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
            alone = Meaning::Backscatter(Port(Transport::Udp, 53));
        }
        (ip.packet(protocol::UDP, &udp(ip, ends.remote_port, ends.local_port, &payload)), alone)
    }

    /// An ICMP error about `quoted`, from anywhere, to `to`.
    fn error(&mut self, quoted: &[u8], to: IpAddr, meaning: Meaning) -> Sample {
        let v6 = to.is_ipv6();
        // Unreachable, quench, redirect, time exceeded, parameter problem; unreachable, too big, time
        // exceeded, parameter problem.
        let kind = if v6 { self.pick(&[1, 2, 3, 4]) } else { self.pick(&[3, 4, 5, 11, 12]) };
        let router = self.mix.remote(v6);
        let ip = self.mix.dress(Ip::new(router, to));
        let header = match (v6, quoted[6]) {
            (true, protocol::FRAGMENT) => 48,
            (true, _) => 40,
            (false, _) => usize::from(quoted[0] & 15) * 4,
        };
        // RFC 792 asks for 64 bits after the header; RFC 1812 and RFC 4443 for as much as fits.
        let kept = if self.chance(0.5) { header + 8 } else { quoted.len().min(500) };
        let message = icmp(&ip, kind, 0, [0; 4], &quoted[..kept]);
        let packet = ip.packet(icmp_number(&ip), &message);
        let transport = if v6 { Transport::Icmpv6 } else { Transport::Icmp };
        let meaning = match meaning {
            Meaning::Plain(Class::Solicited) => meaning,
            _ => Meaning::Backscatter(Port(transport, u16::from(kind))),
        };
        self.mix.wrap(&packet, meaning)
    }

    /// A SYN from the remote to the local end.
    fn start(&mut self, ends: &Ends) -> Sample {
        let mut ip = self.mix.dress(Ip::new(ends.remote, ends.local));
        let mut tcp = Tcp {
            src: ends.remote_port,
            dst: ends.local_port,
            sequence: self.mix.rng.random(),
            flags: flag::SYN,
            ..Tcp::default()
        };
        sign(Tool::Other, &mut ip, &mut tcp, &mut self.mix.rng);
        let packet = ip.packet(protocol::TCP, &tcp.segment(&ip, &[]));
        let port = Port(Transport::Tcp, ends.local_port);
        self.mix.wrap(&packet, Meaning::Access { src: ends.remote, port, tool: Some(Tool::Other) })
    }

    // Imitations of answers.

    /// Almost an answer: from another host, from another port, to another port, with another identifier,
    /// of another kind, or an error about a packet that never was.
    fn imitation(&mut self) -> Option<Sample> {
        let question = self.question()?;
        let mut ends = question.ends;
        let v6 = ends.local.is_ipv6();
        let is_icmp = matches!(ends.kind, DuplexKind::Icmp(_));
        match self.mix.rng.random_range(0..5) {
            0 => ends.remote = self.mix.remote(v6),
            1 if !is_icmp => ends.remote_port = self.mix.client_port(),
            2 => {
                ends.local_port = match ends.kind {
                    DuplexKind::Tcp => self.mix.port(Transport::Tcp),
                    DuplexKind::Udp => self.mix.port(Transport::Udp),
                    DuplexKind::Icmp(_) => self.mix.rng.random(),
                }
            }
            3 => match ends.kind {
                DuplexKind::Tcp if !self.mix.site.serves(Transport::Udp, ends.local_port) => {
                    ends.kind = DuplexKind::Udp;
                }
                DuplexKind::Udp if !self.mix.site.serves(Transport::Tcp, ends.local_port) => {
                    ends.kind = DuplexKind::Tcp;
                }
                DuplexKind::Icmp(8) => ends.kind = DuplexKind::Icmp(13),
                _ => return None,
            },
            _ => return Some(self.false_error(&question)),
        }
        // Ports of DHCP make housekeeping of a datagram.
        let is_dhcp = [67, 68, 546, 547].contains(&ends.local_port);
        if self.started.contains(&ends) || (is_dhcp && ends.kind == DuplexKind::Udp) {
            return None;
        }
        let (sample, alone) = self.reply_of(&ends, Meaning::Plain(Class::Other));
        if ends.kind == DuplexKind::Udp {
            self.heard.insert((ends.remote, ends.remote_port, ends.local_port));
        }
        Some(Sample { meaning: alone, ..sample })
    }

    /// An error about something like `question` that the sensor never sent.
    fn false_error(&mut self, question: &Question) -> Sample {
        let ends = question.ends;
        let v6 = ends.local.is_ipv6();
        let (mut src, mut dst) = (ends.local, ends.remote);
        match self.mix.rng.random_range(0..3) {
            // From someone else, or the other way round.
            0 => src = self.mix.remote(v6),
            1 => std::mem::swap(&mut src, &mut dst),
            _ => dst = self.mix.remote(v6),
        }
        let ip = self.plain(src, dst);
        let quoted = match ends.kind {
            DuplexKind::Tcp => self.segment(&ip, [ends.local_port, ends.remote_port], flag::SYN, 1, 0),
            DuplexKind::Udp => ip.packet(protocol::UDP, &udp(&ip, ends.local_port, ends.remote_port, &[])),
            DuplexKind::Icmp(request) => {
                let [high, low] = ends.local_port.to_be_bytes();
                ip.packet(icmp_number(&ip), &icmp(&ip, request, 0, [high, low, 0, 1], &[]))
            }
        };
        self.error(&quoted, ends.local, Meaning::Plain(Class::Backscatter))
    }

    // Connections that the sensor accepts, and replies.

    /// A remote host's SYN that the sensor may answer in the next round.
    fn knock(&mut self) -> Sample {
        let v6 = self.mix.v6();
        let (remote, local) = (self.mix.remote(v6), self.mix.sensor(v6));
        let (remote_port, local_port) = (self.mix.client_port(), self.mix.port(Transport::Tcp));
        if self.knocking.len() < 4 && self.offered < MAX_OFFERED {
            self.knocking.push(Waiting { local, local_port, remote, remote_port });
        }
        self.start(&Ends { kind: DuplexKind::Tcp, local, local_port, remote, remote_port })
    }

    /// The sensor answers those who knocked by SYN+ACK, and they take it up, or do not.
    fn accept(&mut self, round: &mut Round, samples: &mut Vec<Sample>) {
        for waiting in std::mem::take(&mut self.knocking) {
            let Waiting { local, local_port, remote, remote_port } = waiting;
            let ends = Ends { kind: DuplexKind::Tcp, local, local_port, remote, remote_port };
            if self.started.contains(&ends) {
                continue;
            }
            self.offered += 1;
            let sequence: u32 = self.mix.rng.random();
            let ip = self.plain(local, remote);
            let offer = self.segment(
                &ip,
                [local_port, remote_port],
                flag::SYN | flag::ACK,
                sequence,
                self.round as u32,
            );
            self.send(round, &offer);
            let right = sequence.wrapping_add(1);
            let backscatter = Meaning::Backscatter(Port(Transport::Tcp, remote_port));
            let (other, ours) = (Meaning::Plain(Class::Other), Meaning::Plain(Class::Solicited));
            let course: &[(u8, u32, Meaning)] = match self.mix.rng.random_range(0..4) {
                0 => &[(flag::RST, 0, other)],
                1 => {
                    &[(flag::ACK, right.wrapping_add(1), other), (flag::SYN | flag::ACK, right, backscatter)]
                }
                2 => &[(flag::ACK, right, ours), (flag::ACK | flag::PSH, right, ours), (flag::RST, 0, ours)],
                _ => &[
                    (flag::ACK, sequence, other),
                    (flag::FIN | flag::ACK, right, ours),
                    (flag::ACK, 7, ours),
                ],
            };
            for (flags, acknowledgement, meaning) in course {
                let ip = self.mix.dress(Ip::new(remote, local));
                let number = self.mix.rng.random();
                let packet = self.segment(&ip, [remote_port, local_port], *flags, number, *acknowledgement);
                samples.push(self.mix.wrap(&packet, *meaning));
                if *meaning == ours {
                    self.started.insert(ends);
                }
            }
        }
    }

    /// A datagram that the sensor will reply to.
    fn unasked(&mut self) -> Sample {
        let v6 = self.mix.v6();
        let (remote, local) = (self.mix.remote(v6), self.mix.sensor(v6));
        let (remote_port, local_port) = (self.mix.client_port(), self.mix.client_port_for_udp());
        self.replied = Some(Waiting { local, local_port, remote, remote_port });
        self.datagram(remote, remote_port, local, local_port)
    }

    fn datagram(&mut self, remote: IpAddr, remote_port: u16, local: IpAddr, local_port: u16) -> Sample {
        let ip = self.mix.dress(Ip::new(remote, local));
        let payload = self.mix.payload();
        self.mix.udp_access(&ip, remote_port, local_port, &payload)
    }

    /// The sensor replies to the last datagram of the round before; that starts nothing.
    fn reply(&mut self, round: &mut Round, samples: &mut Vec<Sample>) {
        if let Some(Waiting { local, local_port, remote, remote_port }) = self.replied.take() {
            let ip = self.plain(local, remote);
            self.send(round, &ip.packet(protocol::UDP, &udp(&ip, local_port, remote_port, b"reply")));
            samples.push(self.datagram(remote, remote_port, local, local_port));
        }
    }

    /// The sensor's kernel answers a remote host by itself: an ACK without a connection, a RST, an echo
    /// reply. That starts nothing either.
    fn stray(&mut self, round: &mut Round, samples: &mut Vec<Sample>) {
        let v6 = self.mix.v6();
        let (remote, local) = (self.mix.remote(v6), self.mix.sensor(v6));
        let (remote_port, local_port) = (self.mix.client_port(), self.mix.port(Transport::Tcp));
        let ip = self.plain(local, remote);
        let flags = self.pick(&[flag::RST, flag::RST | flag::ACK, flag::ACK]);
        let answer = self.segment(&ip, [local_port, remote_port], flags, 1, 1);
        self.send(round, &answer);
        let (request, reply) = if v6 { (128, 129) } else { (8, 0) };
        let answer = ip.packet(icmp_number(&ip), &icmp(&ip, reply, 0, [7; 4], &[]));
        self.send(round, &answer);
        for kind in [DuplexKind::Tcp, DuplexKind::Icmp(request)] {
            let local_port = if kind == DuplexKind::Tcp { local_port } else { 0x0707 };
            let ends = Ends { kind, local, local_port, remote, remote_port };
            let (sample, alone) = self.reply_of(&ends, Meaning::Plain(Class::Other));
            samples.push(Sample { meaning: alone, ..sample });
        }
    }
}
