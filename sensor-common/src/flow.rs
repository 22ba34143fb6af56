//! The conversations of this host: what it started, and the connections it accepted.
//!
//! What this host sends ([`depart`]) makes and keeps up *flows*; a packet that arrives belongs to one
//! when it comes from the remote end of the flow to its local end in time ([`conversation`]). Nothing
//! that arrives makes a flow, but for the segment that completes a handshake, since it proves that its
//! sender saw this host's sequence number. Nothing that arrives prolongs one either (RFC 4787,
//! REQ-6: only outbound packets are sure to be this host's will).
//!
//! A remote host can make this host send: an echo reply, an ICMP error, a RST, a SYN+ACK, a UDP server's
//! reply. The first three make no flow at all, a SYN+ACK only leaves a note ([`HalfOpen`]), and a UDP
//! datagram to a peer that was heard from unasked ([`heard_set`]) is taken for the reply. Nor does a
//! connection that is over live on by what the kernel sends back to its remote end.
//!
//! # What remote hosts can fill
//!
//! What this host started ([`Table::Started`]) is kept apart from what remote hosts can make it remember:
//! the connections it accepted ([`Table::Accepted`]), those it offers, and the notes of unasked datagrams.
//! Of those the least recently used make room. A flow that this host started stays for its whole life,
//! whatever arrives; a connection whose first segment was not seen counts as accepted, until the socket
//! tables say that no listener has its port. What a declared service sends offers nothing, since all that
//! arrives there is [`Class::Service`] before flows are asked.
//!
//! # Who spoke first
//!
//! A UDP peer that speaks first owns the conversation: what this host sends to it within
//! [`REPLY_TIMEOUT`] is a reply. This ends when the peer is silent for as long, and at once when this host
//! had started a conversation between the same addresses and ports within [`MEMORY`], which a remote host
//! cannot bring about.
//!
//! Notes are bounded, so a flood of unasked datagrams displaces some. From a port that has replied to
//! remote hosts before, and where such a note may have been lost, a datagram counts as a reply: an answer
//! to this host that is counted as an access does less harm than a remote host that is not counted.
//!
//! # Who answers a group
//!
//! A question to a multicast or broadcast address is answered by others than the address that was asked,
//! for [`GROUP_TIMEOUT`]. Of UDP, an answer to the port that asked belongs to it when it comes
//!
//! - from an address that is near ([`is_near`]), whatever its port: SSDP and WS-Discovery answer from
//!   where they like; or
//! - from the port that was asked, whatever its address, such as mDNS to a one-shot querier, LLMNR, SSDP.
//!
//! When the port that asked is the one that was asked (mDNS daemons, `NetBIOS`), both must hold: such ports
//! ask all the time, and remote hosts scan them. Of ICMP, the identifier decides. TFTP's server answers a
//! request to its port 69 from another port (RFC 1350, section 4), so all ports of that address may.
//!
//! The rules are the same for the program in the kernel and on the host; [`Flows`] says where flows are kept.

use crate::branchless;
use crate::classify::{Class, Conversation, Intent, is_group};
use crate::frame::{Frame, MAX_OFFSET};
use crate::parse::{Address, AddressBytes, Packet, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
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

/// How long answers to a question to a group, or from other ports than the asked one, come in time,
/// nanoseconds. Devices spread their answers to SSDP over the seconds that the question names, 5 at most
/// (`UPnP` Device Architecture 2.0, section 1.3.2); older ones take longer.
pub const GROUP_TIMEOUT: u64 = 30 * SECOND;
/// How long it is remembered with whom this host started a UDP conversation, nanoseconds.
pub const MEMORY: u64 = 24 * 3600 * SECOND;

/// Flows that this host started and that are kept at most: 2.6 MiB of keys, 4 to 8 MiB with what the
/// kernel needs.
pub const MAX_FLOWS: usize = 65_536;
/// Accepted connections that are kept at most; the least recently used make room.
pub const MAX_ACCEPTED: usize = 65_536;
/// UDP conversations that are over and remembered at most.
pub const MAX_REMEMBERED: usize = 16_384;
/// Offered connections that are kept at most; the oldest makes room.
pub const MAX_HALF_OPEN: usize = 16_384;
/// Notes of unasked datagrams.
pub const HEARD_NOTES: usize = 65_536;
/// Notes of one set ([`heard_set`]), a cache line's half. Between a request and its reply a flood of
/// 8,000 other datagrams displaces one note in 600, one of 1,000 one in two million.
pub const HEARD_WAYS: usize = 4;
const WAY_BITS: u32 = HEARD_WAYS.ilog2();

/// The notes of unasked datagrams, then one note for each set: when it last lost a note in its time.
pub const HEARD_ENTRIES: usize = HEARD_NOTES + HEARD_NOTES / HEARD_WAYS;

/// IPv6 extension headers that are skipped at most in what an ICMP error quotes.
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
    /// UDP: asked of a group, or answered from other ports.
    Group = 6,
}

/// Where a flow is kept: by whose doing it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// This host started it.
    Started,
    /// A TCP connection that a remote host opened, or whose beginning was not seen.
    Accepted,
}

/// What is known of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowState {
    /// When this host last sent something, `CLOCK_MONOTONIC`, nanoseconds.
    pub sent: u64,
    /// A [`Phase`].
    pub phase: u32,
    /// When it began, `CLOCK_MONOTONIC`, seconds.
    pub began: u32,
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

/// What is known of each port, and state that all flows share.
#[repr(C)]
pub struct Asked {
    /// Seed of [`heard_set`]; 0 until the daemon has set it.
    pub seed: u64,
    /// [`STARTED`] and [`PINGED_GROUP`].
    pub any: u64,
    /// What this host has sent from each TCP or UDP port, bits that the programs set: [`ASKED`],
    /// [`ACCEPTS`], [`ASKED_GROUP`], [`REPLIES`]. The index is [`Slot::index`].
    pub ports: [u8; ASKED_PORTS],
    /// What the daemon knows of each port, bits that it alone writes: [`SERVED`], [`SERVICE`].
    pub known: [u8; ASKED_PORTS],
    /// When this host last sent a datagram of a flow, by a hash of its remote address and ports
    /// ([`Entry::place`](crate::recent::Entry::place)); as [`sent_at`] has it. Flows whose places are the same
    /// share a time, so a recent one proves nothing, and one that is not ([`may_live`]) proves that there is no flow.
    pub sent_to: [u16; SENT_TO],
}

/// A bit of [`Asked::any`]: this host has sent something that may be answered.
pub const STARTED: u64 = 1;
/// A bit of [`Asked::any`]: it has sent an ICMP request to a group.
pub const PINGED_GROUP: u64 = 1 << 1;

/// A bit of [`Asked::ports`]: this host has sent from it.
pub const ASKED: u8 = 1;
/// A bit of [`Asked::ports`]: this host has offered or had connections here that it did not start.
pub const ACCEPTS: u8 = 1 << 1;
/// A bit of [`Asked::ports`]: this host has asked a group from it, or what answers from other ports.
pub const ASKED_GROUP: u8 = 1 << 2;
/// A bit of [`Asked::ports`]: this host has replied from it to a remote host that spoke first.
pub const REPLIES: u8 = 1 << 3;

/// A bit of [`Asked::known`]: when the observation began, a server was there already, which may be about
/// to answer a datagram that was not seen. The daemon takes it back after [`REPLY_TIMEOUT`].
pub const SERVED: u8 = 1;
/// A bit of [`Asked::known`]: a service is declared here.
pub const SERVICE: u8 = 1 << 1;

/// Places of [`Asked::sent_to`], 512 KiB.
pub const SENT_TO: usize = 262_144;

/// `now`, nanoseconds, in units of [`Asked::sent_to`]: 2^33 ns modulo 2^16 (6.5 days).
#[inline(always)]
pub const fn sent_at(now: u64) -> u16 {
    (now >> 33) as u16
}

/// Whether a UDP flow can be alive at `now`, nanoseconds, when [`Asked::sent_to`] has `sent` at its place. Another
/// CPU's clock may be ahead by a tick, and of two that write at once the later write may have the earlier time: a
/// unit either way is allowed for.
#[inline(always)]
pub const fn may_live(sent: u16, now: u64) -> bool {
    const AGE: u16 = (UDP_TIMEOUT >> 33) as u16 + 2;
    sent_at(now).wrapping_sub(sent).wrapping_add(1) <= AGE + 1
}

/// Ports of TCP and of UDP.
pub const ASKED_PORTS: usize = 2 * 65_536;

/// Counters of flows; the value is the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FlowCounter {
    /// Flows made.
    Created = 0,
    /// Flows that could not be made, because there are [`MAX_FLOWS`] already.
    Failed = 1,
    /// Datagrams that started nothing, because they reply to a remote host that spoke first.
    Replies = 2,
    /// Notes of unasked datagrams that were displaced within their time.
    Displaced = 3,
    /// Among [`FlowCounter::Replies`], those that were taken for a reply because a note may have been
    /// displaced.
    Unsure = 4,
}

impl FlowCounter {
    /// How many there are.
    pub const COUNT: usize = 5;
}

// The program and the daemon share this memory, and the kernel compares keys byte by byte, padding
// included.
const _: () = {
    assert!(size_of::<FlowKey>() == 16 + 16 + 2 + 2 + 1 + 3);
    assert!(size_of::<FlowState>() == 16);
    assert!(size_of::<HalfOpen>() == 8);
    assert!(size_of::<Asked>() == 16 + 2 * ASKED_PORTS + 2 * SENT_TO);
    assert!(SENT_TO.is_power_of_two());
    assert!(HEARD_NOTES.is_power_of_two() && HEARD_WAYS.is_power_of_two());
};

impl FlowState {
    /// A flow whose first packet this host sends at `now`, nanoseconds.
    #[inline(always)]
    pub const fn new(phase: Phase, now: u64) -> Self {
        Self { sent: now, phase: phase as u32, began: (now / SECOND) as u32 }
    }

    /// The same flow after this host has sent something more at `now`, nanoseconds.
    #[inline(always)]
    const fn then(self, phase: Phase, now: u64) -> Self {
        Self { sent: now, phase: phase as u32, began: self.began }
    }

    /// Whether it is a UDP conversation, over or not, that this host remembers at `now`, nanoseconds.
    #[inline(always)]
    pub const fn is_remembered(&self, now: u64) -> bool {
        self.phase == Phase::Udp as u32 && now.saturating_sub(self.sent) <= MEMORY
    }

    /// Time from its first to its last datagram, seconds.
    pub const fn lasted(&self) -> u64 {
        (self.sent / SECOND).saturating_sub(self.began as u64)
    }

    /// Until when answers belong to it, nanoseconds.
    #[inline(always)]
    pub const fn end(&self) -> u64 {
        const OPENING: u32 = Phase::Opening as u32;
        const ESTABLISHED: u32 = Phase::Established as u32;
        const CLOSING: u32 = Phase::Closing as u32;
        const UDP: u32 = Phase::Udp as u32;
        const GROUP: u32 = Phase::Group as u32;
        let timeout = match self.phase {
            OPENING => TCP_OPENING_TIMEOUT,
            ESTABLISHED => TCP_ESTABLISHED_TIMEOUT,
            CLOSING => TCP_CLOSING_TIMEOUT,
            UDP => UDP_TIMEOUT,
            GROUP => GROUP_TIMEOUT,
            _ => ICMP_TIMEOUT,
        };
        self.sent.saturating_add(timeout)
    }

    /// Whether an answer at `now` (nanoseconds) still belongs to it.
    #[inline(always)]
    pub const fn is_alive(&self, now: u64) -> bool {
        now <= self.end()
    }
}

/// The port of a note that names only an address.
const NO_PORT: u16 = 0;
/// The remote port of a flow whose answers may come from any port.
const ANY_PORT: u16 = 0;
/// The remote address of a flow whose answers may come from any address.
const ANY_ADDRESS: [u8; 16] = [0; 16];
/// TFTP's server is asked here (RFC 1350).
const TFTP: u16 = 69;

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

    /// The remote and the local address, each as two words as they lie in memory.
    #[inline(always)]
    pub const fn address_words(&self) -> ([u64; 2], [u64; 2]) {
        // SAFETY: both are 16 bytes at multiples of 8 in a key that is aligned to 8, and any bytes make words.
        unsafe { (*(&raw const self.remote).cast(), *(&raw const self.local).cast()) }
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
        match packet.dst.bytes() {
            AddressBytes::V4(dst) => {
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
            AddressBytes::V6(dst) => {
                let header: [u8; 8] = frame.load(begin)?;
                if header[0] >> 4 != 6 || frame.load::<16>(begin + 8)? != dst {
                    return None;
                }
                self.remote = frame.load(begin + 24)?;
                // This host may have fragmented it, or a program of its own put options before it.
                let mut next = header[6];
                let mut after = begin + 40;
                for _ in 0..MAX_QUOTED_EXTENSIONS {
                    after += match next {
                        0 | 43 | 60 => {
                            let extension: [u8; 2] = frame.load(after)?;
                            next = extension[0];
                            (usize::from(extension[1]) + 1) * 8
                        }
                        44 => {
                            let fragment: [u8; 8] = frame.load(after)?;
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
                at = after;
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
/// remote hosts from choosing datagrams that displace each other.
#[inline(always)]
pub fn heard_set(seed: u64, remote: &Address, remote_port: u16, local_port: u16) -> (u32, u32) {
    let ports = u64::from(local_port) << 16 | u64::from(remote_port);
    // A round of its own, since ports and address together would be what their exclusive or is.
    let mut hash = mix(seed, ports);
    match remote.bytes() {
        AddressBytes::V4(bytes) => hash = mix(hash, u64::from(u32::from_ne_bytes(bytes))),
        AddressBytes::V6(bytes) => {
            let (words, _) = bytes.as_chunks::<8>();
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

/// The note of when a set last lost one in its time.
#[inline(always)]
const fn loss_of(set: u32) -> u32 {
    HEARD_NOTES as u32 + set / HEARD_WAYS as u32
}

/// Whether a note still says that what departs is a reply.
#[inline(always)]
const fn is_current(note: u64, now: u64) -> bool {
    note != 0 && age_of(note, now) <= (REPLY_TIMEOUT >> 20) as u32
}

/// Notes an unasked datagram from `remote` and its port to a local port; the oldest of its set makes
/// room.
#[inline(always)]
pub fn hear<T: Flows>(remote: &Address, remote_port: u16, local_port: u16, flows: &T) {
    let (set, tag) = heard_set(flows.seed(), remote, remote_port, local_port);
    let now = flows.now();
    // The greatest age, and below it the place in the set. Which it is no processor can predict.
    let mut oldest = 0;
    for (way, note) in flows.notes(set).into_iter().enumerate() {
        // The note of the same tuple is the one to renew, however young.
        let age = age_of(note, now) | branchless::ones_if_zero(tag_of(note) ^ tag);
        oldest = branchless::greater(oldest, u64::from(age) << WAY_BITS | way as u64);
    }
    let place = set + (oldest & (HEARD_WAYS as u64 - 1)) as u32;
    if oldest >> WAY_BITS != u64::from(u32::MAX) && is_current(flows.note(place), now) {
        flows.set_note(loss_of(set), note(1, now));
        flows.count(FlowCounter::Displaced);
    }
    flows.set_note(place, note(tag, now));
}

/// Whether `remote` and its port were heard from unasked by a local port.
#[inline(always)]
fn was_heard<T: Flows>(remote: &Address, remote_port: u16, local_port: u16, flows: &T) -> bool {
    let (set, tag) = heard_set(flows.seed(), remote, remote_port, local_port);
    let now = flows.now();
    let mut was_heard = false;
    for note in flows.notes(set) {
        was_heard |= tag_of(note) == tag && is_current(note, now);
    }
    was_heard
}

/// Whether a datagram that departs may go to a remote host that spoke first, whose note was displaced:
/// from a port that has replied to others, or where a service is declared.
#[inline(always)]
fn may_be_reply<T: Flows>(packet: &Packet, flows: &T) -> bool {
    let port = Slot::new(Transport::Udp, packet.source_port);
    if flows.port(port) & REPLIES == 0 && flows.known(port) & SERVICE == 0 {
        return false;
    }
    let (set, _) = heard_set(flows.seed(), &packet.dst, packet.port, packet.source_port);
    is_current(flows.note(loss_of(set)), flows.now())
}

/// Whether a datagram that departs goes to a peer that was heard from unasked. When only unreadable
/// packets of a peer have arrived ([`arrived_unread`]), no port is known; a connected socket has chosen
/// its peer itself.
#[inline(always)]
fn is_reply<T: Flows>(packet: &Packet, is_connected: &impl Fn() -> bool, flows: &T) -> bool {
    if was_heard(&packet.dst, packet.port, packet.source_port, flows) {
        flows.mark(Slot::new(Transport::Udp, packet.source_port), REPLIES);
        return true;
    }
    matches!(packet.dst.bytes(), AddressBytes::V6(_))
        && !is_connected()
        && was_heard(&packet.dst, NO_PORT, NO_PORT, flows)
}

/// Whether a datagram that departs is taken for a server's answer to one that came before
/// observation began. Two servers of one port, as of NTP or IKE, ask each other.
#[inline(always)]
fn answers_unseen<T: Flows>(packet: &Packet, is_connected: &impl Fn() -> bool, flows: &T) -> bool {
    packet.port != packet.source_port
        && flows.known(Slot::new(Transport::Udp, packet.source_port)) & SERVED != 0
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

/// Storage of flows: maps in the kernel, memory in `teiten replay`.
pub trait Flows {
    /// Now, `CLOCK_MONOTONIC`, nanoseconds.
    fn now(&self) -> u64;
    /// What this host has ever sent: [`STARTED`], [`PINGED_GROUP`].
    fn any(&self) -> u64;
    /// Sets bits of [`Flows::any`].
    fn start(&self, bits: u64);
    /// What this host has sent from this TCP or UDP port, as in [`Asked::ports`].
    fn port(&self, port: Slot) -> u8;
    /// Sets bits of [`Flows::port`].
    fn mark(&self, port: Slot, bits: u8);
    /// What the configuration and the socket tables say of this TCP or UDP port, as in [`Asked::known`].
    fn known(&self, port: Slot) -> u8;
    /// The flow with this key.
    fn get(&self, table: Table, key: &FlowKey) -> Option<FlowState>;
    /// Notes that the flow with this key was found at `now`, and lives until `end`, both in nanoseconds.
    #[inline(always)]
    fn found(&self, _key: &FlowKey, _now: u64, _end: u64) {}
    /// Notes that this host sends a datagram of the flow with this key at `now`, nanoseconds.
    #[inline(always)]
    fn sent(&self, _key: &FlowKey, _now: u64) {}
    /// Replaces the flow with this key by what `next` returns; `false` when there is no flow, or `next`
    /// returns `None`.
    fn update(&self, table: Table, key: &FlowKey, next: impl FnOnce(FlowState) -> Option<FlowState>) -> bool;
    /// Adds a flow, and counts it or the failure.
    fn create(&self, table: Table, key: &FlowKey, state: FlowState);
    /// Whether this host remembers that it started the UDP conversation with this key, which is over and
    /// no longer among the flows.
    fn remembers(&self, key: &FlowKey) -> bool;
    /// The offered connection with this key.
    fn half_open(&self, key: &FlowKey) -> Option<HalfOpen>;
    /// Notes an offered connection.
    fn offer(&self, key: &FlowKey, half_open: HalfOpen);
    /// Removes an offered connection, which was accepted.
    fn accepted(&self, key: &FlowKey);
    /// Seed of [`heard_set`].
    fn seed(&self) -> u64;
    /// One of [`HEARD_ENTRIES`] notes; 0 when it was never written.
    fn note(&self, at: u32) -> u64;
    /// The notes of the set that begins at this index.
    #[inline(always)]
    fn notes(&self, set: u32) -> [u64; HEARD_WAYS] {
        [self.note(set), self.note(set + 1), self.note(set + 2), self.note(set + 3)]
    }
    /// Writes the note at this index.
    fn set_note(&self, at: u32, note: u64);
    /// [`hear`], which the program in the kernel overrides with a separate function.
    #[inline(always)]
    fn hear(&self, remote: &Address, remote_port: u16, local_port: u16)
    where
        Self: Sized,
    {
        hear(remote, remote_port, local_port, self);
    }
    /// Adds 1 to a counter.
    fn count(&self, counter: FlowCounter);
}

/// Whether `packet`, which has arrived and means `intent` on its own, can be part of a conversation at
/// all: only then [`conversation`] is worth its lookups.
///
/// A bare SYN and every other segment without ACK and RST starts something, no matter who sent it; and what
/// comes to a port that this host never sent from is an answer to nothing.
#[inline(always)]
pub fn may_be_ours<T: Flows>(packet: &Packet, intent: Intent, flows: &T) -> bool {
    match packet.transport {
        Transport::Tcp => {
            (packet.is_cut || packet.control & (TCP_ACK | TCP_RST) != 0)
                && flows.port(Slot::new(Transport::Tcp, packet.port)) & ASKED != 0
        }
        Transport::Udp => match intent {
            Intent::Start | Intent::Answer => flows.port(Slot::new(Transport::Udp, packet.port)) & ASKED != 0,
            Intent::Neither => false,
        },
        Transport::Icmp | Transport::Icmpv6 => match intent {
            Intent::Answer => flows.any() != 0,
            Intent::Start | Intent::Neither => false,
        },
        Transport::Sctp | Transport::Other => false,
    }
}

/// A frame whose quoted packet is read by a function that may be its own.
pub trait Quotes {
    /// [`FlowKey::set_quoted`] of this frame and its `packet`.
    fn quoted(&self, packet: &Packet, key: &mut FlowKey) -> bool;
}

impl<F: Frame + ?Sized> Quotes for F {
    #[inline(always)]
    fn quoted(&self, packet: &Packet, key: &mut FlowKey) -> bool {
        key.set_quoted(self, packet)
    }
}

/// What `packet`, which has arrived and [`may_be_ours`], is to this host's conversations. `key` is room
/// for its key, since the program's stack is small.
#[inline(always)]
pub fn conversation<F: Quotes + ?Sized, T: Flows>(
    frame: &F,
    packet: &Packet,
    key: &mut FlowKey,
    flows: &T,
) -> Conversation {
    let quotes = is_error(packet);
    let is_known = if quotes { frame.quoted(packet, key) } else { key.set_incoming(packet) };
    if !is_known {
        return Conversation::None;
    }
    let now = flows.now();
    let resets = matches!(packet.transport, Transport::Tcp) && packet.control & TCP_RST != 0;
    let accepts = key.protocol == TCP && flows.port(Slot::new(Transport::Tcp, key.local_port)) & ACCEPTS != 0;
    let belongs = |table, key: &FlowKey| match alive(table, key, now, flows) {
        Some(state) => {
            if resets {
                close(table, key, now, flows);
            } else if !quotes {
                flows.found(key, now, state.end());
            }
            true
        }
        None => false,
    };
    if accepts && belongs(Table::Accepted, key) || belongs(Table::Started, key) {
        return Conversation::Ours;
    }
    match packet.transport {
        Transport::Tcp => handshake(packet, key, now, flows),
        Transport::Udp | Transport::Icmp | Transport::Icmpv6 if !quotes && answers_group(key, now, flows) => {
            Conversation::Ours
        }
        _ => Conversation::None,
    }
}

#[inline(always)]
fn alive<T: Flows>(table: Table, key: &FlowKey, now: u64, flows: &T) -> Option<FlowState> {
    flows.get(table, key).filter(|state| state.is_alive(now))
}

#[inline(always)]
fn is_alive<T: Flows>(table: Table, key: &FlowKey, now: u64, flows: &T) -> bool {
    alive(table, key, now, flows).is_some()
}

/// Whether an answer without a flow of its own, whose key is `key`, is one to a question to a group, or
/// comes from another port than was asked. Overwrites the key.
#[inline(always)]
fn answers_group<T: Flows>(key: &mut FlowKey, now: u64, flows: &T) -> bool {
    if key.protocol != UDP {
        key.remote = ANY_ADDRESS;
        return flows.any() & PINGED_GROUP != 0 && is_alive(Table::Started, key, now, flows);
    }
    if flows.port(Slot::new(Transport::Udp, key.local_port)) & ASKED_GROUP == 0 {
        return false;
    }
    let is_near = is_near(&key.local, &key.remote);
    let port = key.remote_port;
    key.remote_port = ANY_PORT;
    if is_alive(Table::Started, key, now, flows) {
        return true;
    }
    key.remote = ANY_ADDRESS;
    if is_near && is_alive(Table::Started, key, now, flows) {
        return true;
    }
    key.remote_port = port;
    (is_near || port != key.local_port) && is_alive(Table::Started, key, now, flows)
}

/// Whether the address `remote` may be on a link of `local`: both mapped into IPv6, network byte order.
/// Only this host's own network can have a private or link-local address; else the first 24 bits of
/// IPv4 and 64 of IPv6 are the same.
#[inline(always)]
pub const fn is_near(local: &[u8; 16], remote: &[u8; 16]) -> bool {
    const fn word(address: &[u8; 16], at: usize) -> u64 {
        let mut word = 0;
        let mut index = at;
        while index < at + 8 {
            word = word << 8 | address[index] as u64;
            index += 1;
        }
        word
    }
    let (net, host) = (word(remote, 0), word(remote, 8));
    if net == 0 && host >> 32 == 0xffff {
        let address = host as u32;
        return address >> 24 == 10
            || address >> 20 == 0xac1
            || address >> 16 == 0xc0a8
            || address >> 16 == 0xa9fe
            || (word(local, 0) == 0 && word(local, 8) >> 8 == host >> 8);
    }
    net >> 54 == 0xfe80 >> 6 || net >> 57 == 0xfc >> 1 || word(local, 0) == net
}

/// Ends a connection that the other end has reset. This host sends nothing more that would show its end,
/// and remote hosts that only connect and reset would fill the table for two hours.
#[inline(always)]
fn close<T: Flows>(table: Table, key: &FlowKey, now: u64, flows: &T) {
    const SOONER: u64 = TCP_ESTABLISHED_TIMEOUT - TCP_CLOSING_TIMEOUT;
    flows.update(table, key, |state| {
        let is_established = state.phase == Phase::Established as u32;
        let end = state.then(Phase::Closing, now.min(state.sent.saturating_add(SOONER)));
        is_established.then_some(end)
    });
}

/// What a segment without a flow is to the connections that this host offers.
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
        flows.create(Table::Accepted, key, FlowState::new(Phase::Established, now));
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
        | Class::Other => flows.hear(&packet.src, packet.source_port, packet.port),
        Class::NonIp | Class::Malformed | Class::Fragment | Class::Solicited => {}
    }
}

/// Like [`arrived`], for an IPv6 packet from `src` whose ports could not be read, or are malformed. The
/// kernel accepts packets that the parser rejects: any number of extension headers, and a datagram
/// whose length is 0 (RFC 2675).
#[inline(always)]
pub fn arrived_unread<T: Flows>(src: &Address, flows: &T) {
    flows.hear(src, NO_PORT, NO_PORT);
}

/// Learns from `packet`, which this host sends; `to_group` when the link's destination is a group.
/// `is_connected` tells whether it belongs to a connection of a socket, by which connections older than the
/// daemon are known, and what the kernel sends back to a remote host is not taken for one.
#[inline(always)]
pub fn depart<T: Flows>(packet: &Packet, to_group: bool, is_connected: impl Fn() -> bool, flows: &T) {
    let Some(mut key) = FlowKey::of_outgoing(packet) else { return };
    let now = flows.now();
    match packet.transport {
        Transport::Tcp => send_segment(packet, &key, now, &is_connected, flows),
        Transport::Udp | Transport::Icmp | Transport::Icmpv6 if to_group || is_group(&packet.dst) => {
            ask_group(&mut key, now, flows);
        }
        Transport::Udp => send_datagram(packet, &mut key, now, &is_connected, flows),
        Transport::Icmp | Transport::Icmpv6 => ask(&key, Phase::Icmp, now, flows),
        Transport::Sctp | Transport::Other => {}
    }
}

/// Prolongs a flow of what this host starts, or makes it.
#[inline(always)]
fn ask<T: Flows>(key: &FlowKey, phase: Phase, now: u64, flows: &T) {
    let continues =
        flows.update(Table::Started, key, |state| state.is_alive(now).then_some(state.then(phase, now)));
    if !continues {
        flows.create(Table::Started, key, FlowState::new(phase, now));
    }
}

/// Makes the flows of a question to a group, which other addresses than the asked one answer.
#[inline(always)]
fn ask_group<T: Flows>(key: &mut FlowKey, now: u64, flows: &T) {
    key.remote = ANY_ADDRESS;
    if key.protocol != UDP {
        flows.start(PINGED_GROUP);
        ask(key, Phase::Icmp, now, flows);
        return;
    }
    flows.mark(Slot::new(Transport::Udp, key.local_port), ASKED | ASKED_GROUP);
    ask(key, Phase::Group, now, flows);
    if key.remote_port != key.local_port {
        key.remote_port = ANY_PORT;
        ask(key, Phase::Group, now, flows);
    }
}

#[inline(always)]
fn send_segment<T: Flows>(
    packet: &Packet,
    key: &FlowKey,
    now: u64,
    is_connected: &impl Fn() -> bool,
    flows: &T,
) {
    let port = Slot::new(Transport::Tcp, packet.source_port);
    if packet.control & (TCP_RST | TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK {
        if flows.known(port) & SERVICE == 0 {
            flows.mark(port, ASKED | ACCEPTS);
            flows.offer(key, HalfOpen { sequence: packet.sequence, sent: (now / SECOND) as u32 });
        }
        return;
    }
    // RFC 9293, section 3.10.7.2, looks at RST, ACK and SYN in this order, and at nothing else of a
    // segment to a listener; one without any of them is a probe of this host.
    let opens = packet.control & (TCP_ACK | TCP_RST | TCP_SYN) == TCP_SYN;
    // A segment whose flags lie beyond its first fragment is a probe too, unless it belongs to a connection.
    let probes = packet.control & (TCP_ACK | TCP_RST | TCP_SYN) == 0 && !(packet.is_cut && is_connected());
    let phase = if opens || probes {
        Phase::Opening
    } else if packet.control & (TCP_RST | TCP_FIN) != 0 {
        Phase::Closing
    } else {
        Phase::Established
    };
    let next = |state: FlowState| {
        if !state.is_alive(now) {
            return None;
        }
        let is_closing = state.phase == Phase::Closing as u32 && !opens;
        Some(match is_closing || probes {
            // A connection that is closed on this side may continue for long on the other.
            true if is_closing && is_connected() => state.then(Phase::Closing, now),
            true => state,
            false => state.then(phase, now),
        })
    };
    if !opens && flows.port(port) & ACCEPTS != 0 && flows.update(Table::Accepted, key, next) {
        return;
    }
    if flows.update(Table::Started, key, next) {
        return;
    }
    if opens || probes {
        flows.mark(port, ASKED);
        flows.create(Table::Started, key, FlowState::new(phase, now));
    } else if packet.control & TCP_RST == 0 && is_connected() {
        flows.mark(port, ASKED | ACCEPTS);
        flows.create(Table::Accepted, key, FlowState::new(phase, now));
    }
}

#[inline(always)]
fn send_datagram<T: Flows>(
    packet: &Packet,
    key: &mut FlowKey,
    now: u64,
    is_connected: &impl Fn() -> bool,
    flows: &T,
) {
    let port = Slot::new(Transport::Udp, packet.source_port);
    let continues = flows.update(Table::Started, key, |state| {
        if state.is_alive(now) {
            Some(state.then(Phase::Udp, now))
        } else if state.is_remembered(now) {
            flows.count(FlowCounter::Created);
            Some(FlowState::new(Phase::Udp, now))
        } else {
            None
        }
    });
    if !continues {
        let is_known = is_reply(packet, is_connected, flows) || answers_unseen(packet, is_connected, flows);
        let is_unsure = !is_known && may_be_reply(packet, flows);
        if (is_known || is_unsure) && !flows.remembers(key) {
            flows.count(FlowCounter::Replies);
            if is_unsure {
                flows.count(FlowCounter::Unsure);
            }
            return;
        }
        flows.mark(port, ASKED);
        flows.create(Table::Started, key, FlowState::new(Phase::Udp, now));
    }
    flows.sent(key, now);
    if packet.port == TFTP {
        flows.mark(port, ASKED_GROUP);
        key.remote_port = ANY_PORT;
        ask(key, Phase::Group, now, flows);
    }
}
