//! The conversations of this host: what it started, and the connections it accepted.
//!
//! What this host sends ([`depart`]) makes and keeps up *flows*; a packet that arrives belongs to one
//! when it comes from the remote end of the flow to its local end in time ([`conversation`]). Nothing
//! that arrives makes a flow, but for the segment that completes a handshake, since it proves that its
//! sender saw this host's sequence number. Nothing that arrives prolongs one either (RFC 4787,
//! REQ-6: only outbound packets are sure to be this host's will).
//!
//! A stranger can make this host send: an echo reply, an ICMP error, a RST, a SYN+ACK, a UDP server's
//! reply. The first three make no flow at all, a SYN+ACK only leaves a note ([`HalfOpen`]), and a UDP
//! datagram to somebody who was heard from unasked ([`heard_set`]) is taken for the reply. Nor does a
//! connection that is over live on by what the kernel sends back to its remote end.
//!
//! The rules are the same for the program in the kernel and on the host; where flows are kept is told
//! by [`Flows`].

use crate::classify::{Class, Conversation, Intent, is_group};
use crate::parse::{Address, Frame, MAX_OFFSET, Octets, Packet, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use crate::port::{Slot, Transport};

/// One second, nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// How long a UDP flow lives after this host's last datagram, nanoseconds: RFC 4787, REQ-5, asks for
/// two minutes at least.
pub const UDP_TIMEOUT: u64 = 120 * SECOND;
/// The same for ICMP requests, nanoseconds: RFC 5508, REQ-1, asks for 60 seconds at least.
pub const ICMP_TIMEOUT: u64 = 60 * SECOND;
/// The same for a TCP connection that is not established, nanoseconds: RFC 5382, REQ-5, four minutes.
pub const TCP_OPENING_TIMEOUT: u64 = 240 * SECOND;
/// The same for an established TCP connection, nanoseconds: RFC 5382, REQ-5, 2 hours and 4 minutes.
pub const TCP_ESTABLISHED_TIMEOUT: u64 = (2 * 60 + 4) * 60 * SECOND;
/// The same for a TCP connection that this host is closing, nanoseconds: RFC 5382, REQ-5, four
/// minutes.
pub const TCP_CLOSING_TIMEOUT: u64 = 240 * SECOND;
/// How long an offered connection ([`HalfOpen`]) can be taken up, seconds: RFC 5382, REQ-5, as above.
pub const HALF_OPEN_SECONDS: u32 = 240;
/// How long after an unasked datagram one to its sender is taken for the reply, nanoseconds: as long as
/// this host's own question waits for an answer, so that who spoke first has started it. Slow servers
/// take more than ten seconds (a resolver that finds no name server, for one).
pub const REPLY_TIMEOUT: u64 = UDP_TIMEOUT;

/// Flows that are kept at most: 2.6 MiB of keys, 4 to 8 MiB with what the kernel needs.
pub const MAX_FLOWS: usize = 65_536;
/// Offered connections that are kept at most; the oldest makes room.
pub const MAX_HALF_OPEN: usize = 16_384;
/// Notes of unasked datagrams.
pub const HEARD_NOTES: usize = 65_536;
/// Notes of one set ([`heard_set`]), a cache line's half. Between a request and its reply a flood of
/// 8,000 other datagrams displaces one note in 600, one of 1,000 one in two million.
pub const HEARD_WAYS: usize = 4;

/// IPv6 extension headers that are looked behind in what an ICMP error quotes.
const MAX_QUOTED_EXTENSIONS: usize = 3;

/// The two ends of a flow; aligned so that addresses are written by words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// This host's address, network byte order; IPv4 as `::ffff:a.b.c.d`.
    pub local: [u8; 16],
    /// The other end's address, likewise.
    pub remote: [u8; 16],
    /// TCP and UDP: this host's port, host order. ICMP: the identifier, host order.
    pub local_port: u16,
    /// TCP and UDP: the other end's port, host order. ICMP: type of the request.
    pub remote_port: u16,
    /// IP protocol number: 1, 6, 17 or 58.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// How far a flow is, [`FlowState::phase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// TCP: this host has sent a SYN.
    Opening = 1,
    /// TCP: this host has acknowledged something.
    Established = 2,
    /// TCP: this host has sent a FIN or a RST.
    Closing = 3,
    /// UDP.
    Udp = 4,
    /// ICMP request.
    Icmp = 5,
}

/// What is known of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowState {
    /// When this host last sent something, `CLOCK_MONOTONIC`, nanoseconds.
    pub sent: u64,
    /// A [`Phase`].
    pub phase: u32,
    /// Zero.
    pub padding: u32,
}

/// A connection that this host offers: it has answered a SYN by a SYN+ACK.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HalfOpen {
    /// Sequence number of the SYN+ACK, host order.
    pub sequence: u32,
    /// When it was sent, `CLOCK_MONOTONIC`, seconds.
    pub sent: u32,
}

/// Ports that this host ever asked from, and what else is one for all flows.
#[repr(C)]
pub struct Asked {
    /// Seed of [`heard_set`]; 0 until the daemon has set it.
    pub seed: u64,
    /// Not 0 once this host has started anything.
    pub any: u64,
    /// [`ASKED`] once this host has sent from this TCP or UDP port, [`SERVED`] while it is taken for a
    /// server's: the index is [`Slot::index`].
    pub ports: [u8; ASKED_PORTS],
}

/// A bit of [`Asked::ports`]: this host has sent from it.
pub const ASKED: u8 = 1;
/// A bit of [`Asked::ports`]: when the observation began, a server was there already, which may be about
/// to answer a datagram that nobody has seen. The daemon takes it back after [`REPLY_TIMEOUT`].
pub const SERVED: u8 = 2;

/// Ports of TCP and of UDP.
pub const ASKED_PORTS: usize = 2 * 65_536;

/// What is counted about flows, indices into the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FlowCounter {
    /// Flows made.
    Created = 0,
    /// Flows that could not be made, because there are [`MAX_FLOWS`] already.
    Failed = 1,
    /// Datagrams that started nothing, because they reply to a stranger.
    Replies = 2,
}

impl FlowCounter {
    /// How many there are.
    pub const COUNT: usize = 3;
}

// The program and the daemon see the same memory; a key with padding that is not named would be
// compared with it.
const _: () = {
    assert!(size_of::<FlowKey>() == 16 + 16 + 2 + 2 + 1 + 3);
    assert!(size_of::<FlowState>() == 16);
    assert!(size_of::<HalfOpen>() == 8);
    assert!(size_of::<Asked>() == 16 + ASKED_PORTS);
    assert!(HEARD_NOTES.is_power_of_two() && HEARD_WAYS.is_power_of_two());
};

impl FlowState {
    /// A flow by which this host has sent something at `now`, nanoseconds.
    #[inline(always)]
    pub const fn new(phase: Phase, now: u64) -> Self {
        Self { sent: now, phase: phase as u32, padding: 0 }
    }

    /// Whether answers at `now` (nanoseconds) come in time.
    #[inline(always)]
    pub const fn is_alive(&self, now: u64) -> bool {
        const OPENING: u32 = Phase::Opening as u32;
        const ESTABLISHED: u32 = Phase::Established as u32;
        const CLOSING: u32 = Phase::Closing as u32;
        const UDP: u32 = Phase::Udp as u32;
        let timeout = match self.phase {
            OPENING => TCP_OPENING_TIMEOUT,
            ESTABLISHED => TCP_ESTABLISHED_TIMEOUT,
            CLOSING => TCP_CLOSING_TIMEOUT,
            UDP => UDP_TIMEOUT,
            _ => ICMP_TIMEOUT,
        };
        // Another CPU may have sent since this one read its clock.
        now.saturating_sub(self.sent) <= timeout
    }
}

/// The port of a note that is of an address alone.
const NO_PORT: u16 = 0;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The type of the ICMP request that a message of type `answer` answers.
#[inline(always)]
const fn request_of(transport: Transport, answer: u16) -> Option<u16> {
    match transport {
        Transport::Icmp => match answer {
            0 => Some(8),
            14 => Some(13),
            16 => Some(15),
            18 => Some(17),
            _ => None,
        },
        Transport::Icmpv6 => match answer {
            129 => Some(128),
            140 => Some(139),
            _ => None,
        },
        Transport::Tcp | Transport::Udp | Transport::Sctp | Transport::Other => None,
    }
}

/// Whether ICMP (`protocol` 1) or `ICMPv6` (58) of this type asks for an answer.
#[inline(always)]
const fn is_request(protocol: u8, kind: u16) -> bool {
    match protocol {
        ICMP => matches!(kind, 8 | 13 | 15 | 17),
        ICMPV6 => matches!(kind, 128 | 139),
        _ => false,
    }
}

/// Whether `packet` is an ICMP message that quotes the packet it is about.
#[inline(always)]
const fn is_error(packet: &Packet) -> bool {
    match packet.transport {
        Transport::Icmp => matches!(packet.port, 3 | 4 | 5 | 11 | 12),
        Transport::Icmpv6 => matches!(packet.port, 1..=4),
        Transport::Tcp | Transport::Udp | Transport::Sctp | Transport::Other => false,
    }
}

impl FlowKey {
    #[inline(always)]
    const fn new(protocol: u8, local: [u8; 16], local_port: u16, remote: [u8; 16], remote_port: u16) -> Self {
        Self { local, remote, local_port, remote_port, protocol, padding: [0; 3] }
    }

    /// The flow that a packet of this host belongs to: TCP, UDP, and ICMP requests.
    #[inline(always)]
    pub const fn of_outgoing(packet: &Packet) -> Option<Self> {
        let (protocol, local_port, remote_port) = match packet.transport {
            Transport::Tcp => (TCP, packet.source_port, packet.port),
            Transport::Udp => (UDP, packet.source_port, packet.port),
            Transport::Icmp if is_request(ICMP, packet.port) => (ICMP, packet.source_port, packet.port),
            Transport::Icmpv6 if is_request(ICMPV6, packet.port) => (ICMPV6, packet.source_port, packet.port),
            Transport::Icmp | Transport::Icmpv6 | Transport::Sctp | Transport::Other => return None,
        };
        Some(Self::new(protocol, packet.src.mapped(), local_port, packet.dst.mapped(), remote_port))
    }

    /// Becomes the key of the flow that a packet to this host belongs to, were there one; `false` when
    /// there can be none: it is not TCP, UDP or an ICMP answer.
    #[inline(always)]
    pub fn set_incoming(&mut self, packet: &Packet) -> bool {
        let (protocol, local_port, remote_port) = match packet.transport {
            Transport::Tcp => (TCP, packet.port, packet.source_port),
            Transport::Udp => (UDP, packet.port, packet.source_port),
            Transport::Icmp | Transport::Icmpv6 => {
                let protocol = if matches!(packet.transport, Transport::Icmp) { ICMP } else { ICMPV6 };
                match request_of(packet.transport, packet.port) {
                    Some(request) => (protocol, packet.source_port, request),
                    None => return false,
                }
            }
            Transport::Sctp | Transport::Other => return false,
        };
        self.local = packet.dst.mapped();
        self.remote = packet.src.mapped();
        self.set_ports(protocol, local_port, remote_port);
        true
    }

    #[inline(always)]
    fn set_ports(&mut self, protocol: u8, local_port: u16, remote_port: u16) {
        self.local_port = local_port;
        self.remote_port = remote_port;
        self.protocol = protocol;
        self.padding = [0; 3];
    }

    /// Becomes the key of the packet that an ICMP error to this host quotes (RFC 792: its IP header and
    /// 64 bits more; RFC 4443: more); `false` when that is none this host may have sent: from the
    /// address that the error came to, TCP, UDP or an ICMP request.
    #[inline(always)]
    pub fn set_quoted<F: Frame + ?Sized>(&mut self, frame: &F, packet: &Packet) -> bool {
        self.quote(frame, packet).is_some()
    }

    #[inline(always)]
    fn quote<F: Frame + ?Sized>(&mut self, frame: &F, packet: &Packet) -> Option<()> {
        // The parser bounds the offset, and the verifier must see that it does.
        let begin = (usize::from(packet.offset) & (2 * MAX_OFFSET - 1)) + 8;
        self.local = packet.dst.mapped();
        let protocol;
        let at;
        match packet.dst.octets() {
            Octets::V4(dst) => {
                let header: [u8; 20] = frame.load(begin)?;
                let length = usize::from(header[0] & 0x0f) * 4;
                let is_later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
                let src = [header[12], header[13], header[14], header[15]];
                if header[0] >> 4 != 4 || length < 20 || is_later || src != dst {
                    return None;
                }
                self.remote = Address::v4([header[16], header[17], header[18], header[19]]).mapped();
                protocol = header[9];
                at = begin + length;
            }
            Octets::V6(dst) => {
                let header: [u8; 8] = frame.load(begin)?;
                if header[0] >> 4 != 6 || frame.load::<16>(begin + 8)? != dst {
                    return None;
                }
                self.remote = frame.load(begin + 24)?;
                // This host may have fragmented it, or a program of its own put options before it.
                let mut next = header[6];
                let mut behind = begin + 40;
                for _ in 0..MAX_QUOTED_EXTENSIONS {
                    behind += match next {
                        0 | 43 | 60 => {
                            let extension: [u8; 2] = frame.load(behind)?;
                            next = extension[0];
                            (usize::from(extension[1]) + 1) * 8
                        }
                        44 => {
                            let fragment: [u8; 8] = frame.load(behind)?;
                            if fragment[2] != 0 || fragment[3] & 0xf8 != 0 {
                                return None;
                            }
                            next = fragment[0];
                            8
                        }
                        _ => break,
                    };
                }
                protocol = next;
                at = behind;
            }
        }
        let quoted: [u8; 8] = frame.load(at)?;
        let word = |at: usize| u16::from_be_bytes([quoted[at], quoted[at + 1]]);
        match protocol {
            TCP | UDP => self.set_ports(protocol, word(0), word(2)),
            ICMP | ICMPV6 if is_request(protocol, u16::from(quoted[0])) => {
                self.set_ports(protocol, word(4), u16::from(quoted[0]));
            }
            _ => return None,
        }
        Some(())
    }
}

/// Where an unasked datagram from `remote` and its port to a local port (host order) is noted: the first
/// of [`HEARD_WAYS`] notes below [`HEARD_NOTES`], and a tag to tell those of one set apart. This host's
/// address does not matter, since a datagram to a group is replied to from another one. The seed keeps
/// strangers from choosing datagrams that displace each other.
#[inline(always)]
pub fn heard_set(seed: u64, remote: &Address, remote_port: u16, local_port: u16) -> (u32, u32) {
    let ports = u64::from(local_port) << 16 | u64::from(remote_port);
    // A round of its own, since ports and address together would be what their exclusive or is.
    let mut hash = mix(seed, ports);
    match remote.octets() {
        Octets::V4(octets) => hash = mix(hash, u64::from(u32::from_ne_bytes(octets))),
        Octets::V6(octets) => {
            let (words, _) = octets.as_chunks::<8>();
            hash = mix(hash, u64::from_ne_bytes(words[0]));
            hash = mix(hash, u64::from_ne_bytes(words[1]));
        }
    }
    (hash as u32 & (HEARD_NOTES - HEARD_WAYS) as u32, (hash >> 32) as u32)
}

/// A note: the tag in the upper half, when it was heard in the lower, units of 2^20 ns of
/// [`Flows::now`], modulo 2^32 (52 days).
#[inline(always)]
const fn note(tag: u32, now: u64) -> u64 {
    (tag as u64) << 32 | (now >> 20) & 0xffff_ffff
}

#[inline(always)]
const fn tag_of(note: u64) -> u32 {
    (note >> 32) as u32
}

/// Age of a note, units of 2^20 ns.
#[inline(always)]
const fn age_of(note: u64, now: u64) -> u32 {
    ((now >> 20) as u32).wrapping_sub(note as u32)
}

/// Notes an unasked datagram from `remote` and its port to a local port; the oldest of its set makes
/// room.
#[inline(always)]
fn hear<T: Flows>(remote: &Address, remote_port: u16, local_port: u16, flows: &T) {
    let (set, tag) = heard_set(flows.seed(), remote, remote_port, local_port);
    let now = flows.now();
    let mut place = set;
    let mut oldest = 0;
    for at in set..set + HEARD_WAYS as u32 {
        let note = flows.note(at);
        // The note of the same tuple is the one to renew, however young.
        let age = if tag_of(note) == tag { u32::MAX } else { age_of(note, now) };
        if age >= oldest {
            oldest = age;
            place = at;
        }
    }
    flows.set_note(place, note(tag, now));
}

/// Whether `remote` and its port were heard from unasked by a local port.
#[inline(always)]
fn was_heard<T: Flows>(remote: &Address, remote_port: u16, local_port: u16, flows: &T) -> bool {
    let (set, tag) = heard_set(flows.seed(), remote, remote_port, local_port);
    let now = flows.now();
    let mut was_heard = false;
    for at in set..set + HEARD_WAYS as u32 {
        let note = flows.note(at);
        was_heard |= tag_of(note) == tag && age_of(note, now) <= (REPLY_TIMEOUT >> 20) as u32;
    }
    was_heard
}

/// Whether a datagram that departs goes to somebody who was heard from unasked. Of who was only heard
/// from by what could not be read ([`arrived_unread`]) no port is known; a socket with a fixed peer has
/// chosen it itself.
#[inline(always)]
fn is_reply<T: Flows>(packet: &Packet, is_connected: &impl Fn() -> bool, flows: &T) -> bool {
    was_heard(&packet.dst, packet.port, packet.source_port, flows)
        || matches!(packet.dst.octets(), Octets::V6(_))
            && !is_connected()
            && was_heard(&packet.dst, NO_PORT, NO_PORT, flows)
}

/// Whether a datagram that departs is taken for a server's answer to one that came before anybody
/// observed. Two servers of one port, as of NTP or IKE, ask each other.
#[inline(always)]
fn answers_unseen<T: Flows>(packet: &Packet, is_connected: &impl Fn() -> bool, flows: &T) -> bool {
    packet.port != packet.source_port
        && flows.served(Slot::new(Transport::Udp, packet.source_port))
        && !is_connected()
}

/// One round of `SplitMix64` (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
/// 2014).
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let mut mixed = hash ^ word;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Where flows are kept.
pub trait Flows {
    /// Now, `CLOCK_MONOTONIC`, nanoseconds.
    fn now(&self) -> u64;
    /// Whether this host has ever started anything.
    fn any(&self) -> bool;
    /// Whether this host has ever sent from this TCP or UDP port.
    fn asked(&self, port: Slot) -> bool;
    /// Notes that this host sends from this TCP or UDP port.
    fn ask(&self, port: Slot);
    /// Whether this UDP port is taken for a server's ([`SERVED`]).
    fn served(&self, port: Slot) -> bool;
    /// The flow with this key.
    fn get(&self, key: &FlowKey) -> Option<FlowState>;
    /// Writes what `next` makes of the flow with this key; `false` when there is none, or `next` has
    /// made nothing of it.
    fn update(&self, key: &FlowKey, next: impl FnOnce(FlowState) -> Option<FlowState>) -> bool;
    /// Makes a flow, and counts it, or the failure.
    fn create(&self, key: &FlowKey, state: FlowState);
    /// The offered connection with this key.
    fn half_open(&self, key: &FlowKey) -> Option<HalfOpen>;
    /// Notes an offered connection.
    fn offer(&self, key: &FlowKey, half_open: HalfOpen);
    /// Forgets an offered connection.
    fn accepted(&self, key: &FlowKey);
    /// Seed of [`heard_set`].
    fn seed(&self) -> u64;
    /// One of [`HEARD_NOTES`] notes of unasked datagrams; 0 when it was never written.
    fn note(&self, at: u32) -> u64;
    /// Writes one of them.
    fn set_note(&self, at: u32, note: u64);
    /// Counts a datagram that started nothing, because it replies to a stranger.
    fn replied(&self);
}

/// Whether `packet`, which has arrived and means `intent` on its own, can be part of a conversation at
/// all: only then [`conversation`] is worth its lookups.
///
/// A bare SYN and every other segment without ACK and RST starts something, whoever sent it; and what
/// comes to a port that this host never sent from is an answer to nothing.
#[inline(always)]
pub fn may_be_ours<T: Flows>(packet: &Packet, intent: Intent, flows: &T) -> bool {
    match packet.transport {
        Transport::Tcp => {
            (packet.is_cut || packet.control & (TCP_ACK | TCP_RST) != 0)
                && flows.asked(Slot::new(Transport::Tcp, packet.port))
        }
        Transport::Udp => match intent {
            Intent::Start | Intent::Answer => flows.asked(Slot::new(Transport::Udp, packet.port)),
            Intent::Neither => false,
        },
        Transport::Icmp | Transport::Icmpv6 => match intent {
            Intent::Answer => flows.any(),
            Intent::Start | Intent::Neither => false,
        },
        Transport::Sctp | Transport::Other => false,
    }
}

/// What `packet`, which has arrived and [`may_be_ours`], is to this host's conversations. `key` is room
/// for its key, since the program's stack is small.
#[inline(always)]
pub fn conversation<F: Frame + ?Sized, T: Flows>(
    frame: &F,
    packet: &Packet,
    key: &mut FlowKey,
    flows: &T,
) -> Conversation {
    let is_known = if is_error(packet) { key.set_quoted(frame, packet) } else { key.set_incoming(packet) };
    if !is_known {
        return Conversation::None;
    }
    let now = flows.now();
    if flows.get(key).is_some_and(|state| state.is_alive(now)) {
        if matches!(packet.transport, Transport::Tcp) && packet.control & TCP_RST != 0 {
            close(key, now, flows);
        }
        Conversation::Ours
    } else if matches!(packet.transport, Transport::Tcp) {
        handshake(packet, key, now, flows)
    } else {
        Conversation::None
    }
}

/// The other end has reset a connection: this host sends nothing more by which its end could be known,
/// and strangers who only connect and reset would fill the table with connections of two hours.
#[inline(always)]
fn close<T: Flows>(key: &FlowKey, now: u64, flows: &T) {
    const SOONER: u64 = TCP_ESTABLISHED_TIMEOUT - TCP_CLOSING_TIMEOUT;
    flows.update(key, |state| {
        let is_established = state.phase == Phase::Established as u32;
        let end = FlowState::new(Phase::Closing, now.min(state.sent.saturating_add(SOONER)));
        is_established.then_some(end)
    });
}

/// A segment that has no flow, against the connections that this host offers.
#[inline(always)]
fn handshake<T: Flows>(packet: &Packet, key: &FlowKey, now: u64, flows: &T) -> Conversation {
    if packet.is_cut || packet.control & (TCP_SYN | TCP_RST) == TCP_SYN {
        return Conversation::None;
    }
    let Some(offered) = flows.half_open(key) else { return Conversation::None };
    if ((now / SECOND) as u32).saturating_sub(offered.sent) > HALF_OPEN_SECONDS {
        Conversation::None
    } else if packet.control & TCP_RST != 0 {
        Conversation::Declined
    } else if packet.acknowledgement == offered.sequence.wrapping_add(1) {
        flows.create(key, FlowState::new(Phase::Established, now));
        flows.accepted(key);
        Conversation::Ours
    } else {
        Conversation::None
    }
}

/// Notes what must be known of `packet`, which has arrived, when a reply to it departs. `class` is the
/// packet's.
#[inline(always)]
pub fn arrived<T: Flows>(packet: &Packet, class: Class, flows: &T) {
    if !matches!(packet.transport, Transport::Udp) {
        return;
    }
    match class {
        Class::OtherDestination
        | Class::Excluded
        | Class::Service
        | Class::Backscatter
        | Class::Access
        | Class::Other => hear(&packet.src, packet.source_port, packet.port, flows),
        Class::NonIp | Class::Malformed | Class::Fragment | Class::Solicited => {}
    }
}

/// The same of an IPv6 packet from `src` that could not be read to its ports, or is [`Class::Malformed`]
/// by them. The kernel takes what is not taken here: any number of extension headers, and a datagram
/// whose length is 0 (RFC 2675).
#[inline(always)]
pub fn arrived_unread<T: Flows>(src: &Address, flows: &T) {
    hear(src, NO_PORT, NO_PORT, flows);
}

/// Learns from `packet`, which this host sends. `is_connected` tells whether there is a connection
/// behind it, by which connections older than the daemon are known, and what the kernel sends back to
/// a stranger is not taken for one.
#[inline(always)]
pub fn depart<T: Flows>(packet: &Packet, is_connected: impl Fn() -> bool, flows: &T) {
    // Whoever answers is not who was asked then.
    if is_group(&packet.dst) {
        return;
    }
    let Some(key) = FlowKey::of_outgoing(packet) else { return };
    let phase = match packet.transport {
        Transport::Tcp => {
            if packet.control & (TCP_RST | TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK {
                flows.ask(Slot::new(Transport::Tcp, packet.source_port));
                let sent = (flows.now() / SECOND) as u32;
                flows.offer(&key, HalfOpen { sequence: packet.sequence, sent });
                return;
            }
            if packet.control & (TCP_RST | TCP_FIN) != 0 {
                Phase::Closing
            } else if packet.control & TCP_SYN != 0 || packet.is_cut && !is_connected() {
                Phase::Opening
            } else {
                Phase::Established
            }
        }
        Transport::Udp => Phase::Udp,
        Transport::Icmp | Transport::Icmpv6 => Phase::Icmp,
        Transport::Sctp | Transport::Other => return,
    };
    let now = flows.now();
    let goes_on = flows.update(&key, |state| {
        if !state.is_alive(now) {
            return None;
        }
        let is_closing = state.phase == Phase::Closing as u32 && !matches!(phase, Phase::Opening);
        Some(match is_closing {
            // A connection that is closed on this side may go on for long on the other.
            true if is_connected() => FlowState::new(Phase::Closing, now),
            true => state,
            false => FlowState::new(phase, now),
        })
    });
    if goes_on {
        return;
    }
    let starts = match packet.transport {
        Transport::Tcp => {
            packet.control & TCP_RST == 0 && (matches!(phase, Phase::Opening) || is_connected())
        }
        Transport::Udp => {
            let replies =
                is_reply(packet, &is_connected, flows) || answers_unseen(packet, &is_connected, flows);
            if replies {
                flows.replied();
            }
            !replies
        }
        Transport::Icmp | Transport::Icmpv6 | Transport::Sctp | Transport::Other => true,
    };
    if !starts {
        return;
    }
    match packet.transport {
        Transport::Tcp | Transport::Udp => flows.ask(Slot::new(packet.transport, packet.source_port)),
        Transport::Icmp | Transport::Icmpv6 | Transport::Sctp | Transport::Other => {}
    }
    flows.create(&key, FlowState::new(phase, now));
}
