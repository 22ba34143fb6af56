//! Random packets both ways, through the programs in the kernel and through the tables that `teiten
//! replay` keeps: every verdict the same, and the same flows at the end.
//!
//! Time continues by steps that come no nearer than five seconds to any timeout of a question or of a
//! connection, in the kernel by writing older times into its maps; both sides read the same clock.

use super::*;
use crate::replay::{Conversations, PacketWorld, Rules};
use sensor_common::flow::{self, FlowKey, FlowState, HEARD_ENTRIES, HEARD_WAYS, HalfOpen};
use sensor_common::parse::source_v6;

/// Packets sent and received.
const PACKETS: usize = 24_000;
/// Seconds of one step: no multiple of it below four hours is nearer to 60, 120, 240 or 7,440.
const STEP: u64 = 43;
const SECOND: u64 = 1_000_000_000;

const HERE: [&str; 2] = ["198.51.100.7", "2001:db8::7"];
const ALSO_HERE: [&str; 2] = ["198.51.100.8", "2001:db8::8"];
const THERE: [[&str; 2]; 3] =
    [["192.0.2.53", "2001:db8:1::53"], ["192.0.2.80", "2001:db8:1::80"], ["203.0.113.66", "2001:db8:2::66"]];
const EXCLUDED: [&str; 2] = ["10.0.0.9", "2001:db8:a::9"];
const GROUPS: [[&str; 2]; 2] = [["224.0.0.251", "ff02::fb"], ["255.255.255.255", "ff02::1"]];

/// Random packets of few addresses, ports and numbers, so that they often have to do with each other.
struct Packets {
    random: SplitMix,
}

impl Packets {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.below(from.len())]
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.random.below(chance) == 0
    }

    fn here(&mut self) -> [&'static str; 2] {
        if self.one_in(5) { ALSO_HERE } else { HERE }
    }

    /// An IP packet from this host, or to it.
    fn packet(&mut self, leaves: bool) -> Vec<u8> {
        let family = usize::from(self.one_in(3));
        let here = self.here()[family];
        let there = match self.random.below(25) {
            0 => self.pick(&GROUPS),
            1 => EXCLUDED,
            _ => self.pick(&THERE),
        }[family];
        let is_group = GROUPS.iter().any(|group| group[family] == there);
        let (src, dst) = match (leaves, is_group) {
            (true, _) => (here, there),
            (false, false) => (there, here),
            (false, true) => (THERE[0][family], there),
        };
        let near = self.pick(&[40_000, 40_001, 53, 22, 123, 68, 546]);
        let far = self.pick(&[53, 123, 443, 67, 547]);
        let (from, to) = if leaves { (near, far) } else { (far, near) };
        let (protocol, payload) = match self.random.below(12) {
            0..5 => (6, self.tcp(from, to)),
            5..8 => (17, self.udp(from, to)),
            8..10 => self.echo(family),
            10 => self.error(leaves, family),
            _ => (self.pick(&[47, 132, 2]), vec![1; 16]),
        };
        self.behind_ip(family, protocol, src, dst, &payload)
    }

    fn tcp(&mut self, from: u16, to: u16) -> Vec<u8> {
        let flags = self.pick(&[0x02, 0x02, 0x12, 0x12, 0x10, 0x10, 0x18, 0x04, 0x14, 0x11, 0x01, 0, 0x29]);
        let sequence = self.pick(&[1000_u32, 1001, 0xffff_ffff]);
        let acknowledgement = self.pick(&[0_u32, 1001, 1002]);
        let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
        segment.extend(sequence.to_be_bytes());
        segment.extend(acknowledgement.to_be_bytes());
        segment.extend([0x50, flags, 4, 0, 0, 0, 0, 0]);
        segment
    }

    fn udp(&mut self, from: u16, to: u16) -> Vec<u8> {
        let flags = self.pick(&[0x01, 0x81]);
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 20, 0, 0, 7, 7, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0]]
            .concat()
    }

    fn echo(&mut self, family: usize) -> (u8, Vec<u8>) {
        let identifier = self.pick(&[7, 8]);
        if family == 0 {
            (1, vec![self.pick(&[8, 8, 0, 0, 13, 14, 17, 18]), 0, 0, 0, 0, identifier, 0, 1])
        } else {
            (58, vec![self.pick(&[128, 128, 129, 129, 139, 140, 135, 136]), 0, 0, 0, 0, identifier, 0, 1])
        }
    }

    /// An ICMP error about a packet that its receiver may have sent, or of something close to one.
    fn error(&mut self, leaves: bool, family: usize) -> (u8, Vec<u8>) {
        let mut quoted = self.packet(!leaves);
        if self.one_in(4) {
            quoted.truncate(self.random.below(quoted.len()));
        }
        let (protocol, kind) =
            if family == 0 { (1, self.pick(&[3, 4, 5, 11, 12])) } else { (58, self.pick(&[1, 2, 3, 4])) };
        (protocol, [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &quoted].concat())
    }

    fn behind_ip(&mut self, family: usize, protocol: u8, src: &str, dst: &str, payload: &[u8]) -> Vec<u8> {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let mut bytes = Vec::new();
        if family == 0 {
            let options: &[u8] = if self.one_in(10) { &[1, 1, 1, 1] } else { &[] };
            // First and later fragments, now and then; first ones that end before the header does.
            let fragment = if self.one_in(10) { self.pick(&[0x2000_u16, 0x2000, 1]) } else { 0 };
            let kept = if fragment == 0x2000 { self.pick(&[8, 16, 1_000]) } else { payload.len() };
            let payload = &payload[..kept.min(payload.len())];
            let length = (20 + options.len() + payload.len()) as u16;
            bytes.extend([0x45 + options.len() as u8 / 4, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([0, 7]);
            bytes.extend(fragment.to_be_bytes());
            bytes.extend([64, protocol, 0, 0]);
            bytes.extend(ip_bytes(src));
            bytes.extend(ip_bytes(dst));
            bytes.extend(options);
        } else {
            let extension: &[u8] = match self.random.below(20) {
                0 => &[0, 0, 1, 4, 0, 0, 0, 0],
                1 => &[0, 0, 0, 1, 0, 0, 0, 9],
                _ => &[],
            };
            let next = match extension {
                [] => protocol,
                [_, _, 1, ..] => 60,
                _ => 44,
            };
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(((extension.len() + payload.len()) as u16).to_be_bytes());
            bytes.extend([next, 64]);
            bytes.extend(ip_bytes(src));
            bytes.extend(ip_bytes(dst));
            bytes.extend(extension);
            if next != protocol {
                bytes[40] = protocol;
            }
        }
        bytes.extend(payload);
        bytes
    }

    /// A frame, and what its link is.
    fn frame(&mut self, leaves: bool) -> (Link, Vec<u8>) {
        let packet = self.packet(leaves);
        let frame = if self.one_in(8) {
            return (Link::Ip, packet);
        } else {
            let kind: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
            let tags: &[u8] = match self.random.below(10) {
                0 => &[0x81, 0, 0, 5],
                1 => &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6],
                _ => &[],
            };
            [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], tags, &kind, &packet].concat()
        };
        let is_broken = self.one_in(12);
        (Link::Ethernet, if is_broken { mutate(&frame, &mut self.random) } else { frame })
    }
}

fn ip_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Ends of a flow, protocol, and how far it is.
type Alive = ([u8; 16], [u8; 16], u16, u16, u8, u32);

/// Both sides, given the same packets.
struct Both {
    kernel: Harness,
    host: Conversations,
    rules: Rules,
    /// When the test began, nanoseconds after the machine did.
    began: u64,
    /// Nanoseconds that were added to the time.
    added: u64,
}

impl Both {
    fn new() -> Option<Self> {
        let policy = Policy {
            observe: nets(&["198.51.100.0/24", "2001:db8::/32"]),
            excluded: nets(&["10.0.0.0/8", "2001:db8:a::/48"]),
            services: BTreeSet::from([Slot::new(Transport::Tcp, 22), Slot::new(Transport::Udp, 123)]),
            ..Policy::default()
        };
        let services: Vec<Slot> = policy.services.iter().copied().collect();
        let rules = Rules::new(&policy.observe, &policy.excluded, &services, &[]);
        let mut kernel = Harness::new(policy, 1024)?;
        kernel.kernel.generations.use_flows();
        let host = Conversations::of_services(&services);
        // Its clock then begins when the machine did, as the kernel's.
        host.set_time(0);
        Some(Self { kernel, host, rules, began: monotonic_nanos(), added: 0 })
    }

    fn set_time(&self) {
        self.host.set_time((monotonic_nanos() + self.added) as i64);
    }

    fn leaves(&mut self, link: Link, frame: &[u8]) {
        self.set_time();
        let layer = if link == Link::Ip { LinkLayer::Ip } else { LinkLayer::Ethernet };
        self.kernel.send(layer, frame);
        if let Ok(packet) = parse(frame, link) {
            // The socket of a test run has no connection.
            flow::depart(&packet, link == Link::Ethernet && frame[0] & 1 != 0, || false, &self.host);
        }
    }

    fn arrives(&mut self, link: Link, frame: &[u8], program: &str) -> Class {
        self.set_time();
        let parsed = parse(frame, link);
        let verdict = judge(
            frame,
            &parsed,
            &PacketWorld { rules: &self.rules, conversations: Some((&self.host, frame)) },
        );
        match &parsed {
            Ok(packet) => self.host.arrived(packet, verdict.class),
            Err(_) if verdict.class == Class::Malformed => {
                if let Some(src) = source_v6(frame, link) {
                    self.host.arrived_unread(&src);
                }
            }
            Err(_) => {}
        }
        let before = self.kernel.snapshot();
        self.kernel.run(program, frame, 1);
        let class = verdict.class;
        let wanted = expected(&before, &(verdict, parsed.err()), frame.len());
        assert_eq!(self.kernel.snapshot(), wanted, "{class:?} {parsed:?}\n{frame:02x?}");
        class
    }

    /// Lets time continue; `false` when the machine has not run for long enough to have such old flows.
    fn wait(&mut self) -> bool {
        let nanoseconds = STEP * SECOND;
        if self.added + nanoseconds > self.began {
            return false;
        }
        self.added += nanoseconds;
        self.kernel.age_flows(nanoseconds);
        self.age::<FlowKey, HalfOpen>("HALF_OPEN", |offer| HalfOpen {
            sent: offer.sent - STEP as u32,
            ..offer
        });
        // The lower half is the time, in units of 2^20 ns.
        self.age::<u32, [u64; HEARD_WAYS]>("HEARD", |notes| {
            notes.map(|note| match note {
                0 => 0,
                note => {
                    note & !0xffff_ffff | u64::from((note as u32).wrapping_sub((nanoseconds >> 20) as u32))
                }
            })
        });
        true
    }

    fn age<K: Copy + Default, V: Copy + Default + PartialEq>(&self, map: &str, older: impl Fn(V) -> V) {
        let map = sys::open_pinned(&self.kernel.kernel.pins.map(map)).expect("a pinned map");
        let mut entries = Vec::new();
        sys::for_each_entry(map.as_fd(), |key: &K, value: &V| entries.push((*key, *value))).expect("entries");
        for (key, value) in entries.into_iter().filter(|(_, value)| *value != older(*value)) {
            sys::insert(map.as_fd(), &key, &older(value)).expect("an older entry");
        }
    }

    /// The flows of both sides that are not over, with how far they are.
    fn alive(&self) -> [BTreeSet<Alive>; 2] {
        let alive = |key: &FlowKey, state: &FlowState| {
            (key.local, key.remote, key.local_port, key.remote_port, key.protocol, state.phase)
        };
        let now = monotonic_nanos();
        let kernel = self
            .kernel
            .flows()
            .iter()
            .filter(|(_, state)| state.is_alive(now))
            .map(|(k, s)| alive(k, s))
            .collect();
        self.set_time();
        [kernel, self.host.alive().map(|(key, state)| alive(&key, &state)).collect()]
    }
}

#[test]
fn kernel_and_host_agree_on_every_packet_of_both_ways() {
    assert_eq!(HEARD_ENTRIES / HEARD_WAYS % 4096, 0, "all notes are read");
    let Some(mut both) = Both::new() else { return };
    let mut packets = Packets { random: SplitMix(3) };
    let mut seen = [0_u64; Class::COUNT];
    let mut steps = 0;
    for number in 0..PACKETS {
        if packets.one_in(300) && both.wait() {
            steps += 1;
        }
        let leaves = packets.one_in(3);
        let (link, frame) = packets.frame(leaves);
        // Without a whole IP header no host sends, and the kernel's test run does not either.
        let header = match (leaves && link == Link::Ethernet, &frame[12..14]) {
            (true, [0x08, 0x00]) => 14 + 20,
            (true, [0x86, 0xdd]) => 14 + 40,
            _ => 14,
        };
        if frame.len() <= header {
            continue;
        }
        if leaves {
            both.leaves(link, &frame);
        } else {
            let program = match (link, number % 2) {
                (Link::Ethernet, 0) => "teiten_eth",
                (Link::Ethernet, _) => "teiten_eth_frags",
                (Link::Ip, 0) => "teiten_ip",
                (Link::Ip, _) => "teiten_ip_frags",
            };
            seen[both.arrives(link, &frame, program) as usize] += 1;
        }
    }
    let [kernel, host] = both.alive();
    assert_eq!(kernel, host);
    // The mix reaches every class many times, and flows both began and ended.
    for class in Class::ALL.into_iter().filter(|class| *class != Class::NonIp) {
        assert!(seen[class as usize] > 100, "{}: {seen:?}", class.name());
    }
    let (counts, status) = (both.host.counts(), both.kernel.kernel.flows.status());
    assert_eq!((counts.created, counts.failed, counts.replies), (status.created, 0, status.replies));
    assert!(counts.created > 500 && counts.replies > 300 && !kernel.is_empty(), "{counts:?}");
    eprintln!("{PACKETS} packets, {steps} steps of {STEP} s: {counts:?} {seen:?}");
}
