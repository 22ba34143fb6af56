//! Conversations that a CPU has found among the flows a moment ago.
//!
//! Each CPU keeps some in a table of its own, so that most packets of this host's conversations need no lookup
//! among the flows. The verdict is that of a lookup: an entry holds both addresses and both ports, and ends with
//! the flow or after some seconds ([`LIFETIME`]), while a connection that ends lives on for four minutes
//! ([`TCP_CLOSING_TIMEOUT`](crate::flow::TCP_CLOSING_TIMEOUT)). Only an accepted connection that was evicted from
//! its full table is known here for some seconds more.
//!
//! The end of an entry is counted in ticks of the kernel's clock, of which the program reads the number without a
//! call. A tick takes 1 to 10 ms, as the kernel was built; nothing here needs to know which.

use crate::flow::{FlowKey, SENT_TO};
use crate::parse::{Address, AddressBytes, Packet, TCP_ACK, TCP_RST, TCP_SYN};
use crate::port::Transport;

/// Entries of IPv4 of each CPU.
pub const RECENT_V4: usize = 32_768;
/// Entries of IPv6 of each CPU.
pub const RECENT_V6: usize = 8192;
/// Entries of one set of IPv4, a cache line. A conversation is in the set that its hash names; of those that are there
/// already, the oldest makes room.
pub const RECENT_WAYS_V4: usize = 4;
/// The same of IPv6.
pub const RECENT_WAYS_V6: usize = 2;

/// An entry's end has units of 2^6 ticks.
const UNIT: u32 = 6;
/// How long an entry holds at most, units: 0.8 s where a tick takes 1 ms, 8.3 s where it takes 10 ms.
pub const LIFETIME: u64 = 13;
/// The longest tick, nanoseconds.
const LONGEST_TICK: u64 = 10_000_000;
/// Bits of [`Recent`] below the ports.
const PORTS: u32 = 32;
/// The bits of the end.
const LAST: u64 = (u32::MAX - 1) as u64;
/// The bit of [`Recent`] that tells UDP from TCP.
const IS_UDP: u64 = 1;

/// Ports and transport of a conversation, and the end of an entry, as one word: from the high bits, the remote
/// and the local port (16 each), the last unit of time in which the entry holds (31, which take 4 years or more), and
/// whether it is UDP.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent(u64);

impl Recent {
    /// That of `packet`, which has arrived, without an end; `None` when it is never looked up here. What may
    /// begin or end a connection is not.
    #[inline(always)]
    pub const fn of(packet: &Packet) -> Option<Self> {
        let transport = match packet.transport {
            Transport::Tcp if !packet.is_cut && packet.control & (TCP_ACK | TCP_RST | TCP_SYN) == TCP_ACK => {
                0
            }
            Transport::Udp => IS_UDP,
            _ => return None,
        };
        Some(Self((packet.source_port as u64) << 48 | (packet.port as u64) << PORTS | transport))
    }

    /// That of the flow `key`, which was looked up at `ticks` and lives for `life`, nanoseconds; `None` when it is
    /// neither TCP nor UDP.
    #[inline(always)]
    pub const fn of_flow(key: &FlowKey, ticks: u64, life: u64) -> Option<Self> {
        let transport = match key.protocol {
            6 => 0,
            17 => IS_UDP,
            _ => return None,
        };
        // What is left of the present unit does not count, and where ticks are shorter, the life ends earlier.
        let units = (life / LONGEST_TICK) >> UNIT;
        let last =
            (ticks >> UNIT).wrapping_add(if units < LIFETIME { units } else { LIFETIME }).wrapping_sub(1);
        let ports = (key.remote_port as u64) << 48 | (key.local_port as u64) << PORTS;
        Some(Self(ports | (last << 1) & LAST | transport))
    }

    /// Ports, end and transport as one word.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The one that [`Recent::bits`] returned.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The remote and the local port, 16 bits each.
    #[inline(always)]
    const fn ports(self) -> u64 {
        self.0 >> PORTS
    }

    /// The local port; `None` when it is one of TCP.
    #[inline(always)]
    pub const fn udp_port(self) -> Option<u16> {
        if self.0 & IS_UDP != 0 { Some(self.ports() as u16) } else { None }
    }

    /// 0 while the entry holds, at `ticks`; else 1. Not a comparison, since the program would make a branch of it,
    /// and of a branch that cannot be predicted a processor waits for the entry.
    #[inline(always)]
    pub const fn is_over(self, ticks: u64) -> u64 {
        let left = ((self.0 & LAST) >> 1).wrapping_sub(ticks >> UNIT) & (LAST >> 1);
        (LIFETIME - 1).wrapping_sub(left) >> 63
    }

    /// Ports and transport.
    #[inline(always)]
    const fn without_end(self) -> u64 {
        self.0 & !LAST
    }
}

/// The two halves of a word as they lie in memory.
#[inline(always)]
const fn halves(word: u64) -> [u32; 2] {
    if cfg!(target_endian = "little") {
        [word as u32, (word >> 32) as u32]
    } else {
        [(word >> 32) as u32, word as u32]
    }
}

/// The first word and a half of IPv4 addresses that are mapped into IPv6, as they lie in memory.
const MAPPED: (u64, u32) = (0, u32::from_ne_bytes([0, 0, 0xff, 0xff]));

/// The word with these halves as they lie in memory.
#[inline(always)]
const fn joined(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        (second as u64) << 32 | first as u64
    } else {
        (first as u64) << 32 | second as u64
    }
}

/// Spreads the bits of `word` to the high ones (Knuth, "The Art of Computer Programming", volume 3,
/// section 6.4: multiplicative hashing by the golden ratio).
#[inline(always)]
const fn spread(word: u64) -> u64 {
    word.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// An entry of IPv4: two words, because the program in the kernel passes them to a function.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentV4 {
    /// The remote address in the upper half, the local one in the lower; each as it lies in memory.
    pub addresses: u64,
    /// Ports, transport and end.
    pub recent: Recent,
}

/// An entry of IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentV6 {
    /// The remote address and the local one, each as two words as they lie in memory.
    pub addresses: [u64; 4],
    /// Ports, transport and end.
    pub recent: Recent,
}

/// An entry of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// IPv4.
    V4(RecentV4),
    /// IPv6.
    V6(RecentV6),
}

impl Entry {
    /// What `packet`, which has arrived, is looked up by; `None` when it never is.
    #[inline(always)]
    pub const fn of(packet: &Packet) -> Option<Self> {
        let Some(recent) = Recent::of(packet) else { return None };
        Some(match (packet.src.bytes(), packet.dst.bytes()) {
            (AddressBytes::V4(remote), AddressBytes::V4(local)) => Self::v4(remote, local, recent),
            _ => Self::v6(&packet.src, &packet.dst, recent),
        })
    }

    /// That of the flow `key`, which was looked up at `ticks` and lives for `life`, nanoseconds; `None` when it is
    /// neither TCP nor UDP.
    #[inline(always)]
    pub const fn of_flow(key: &FlowKey, ticks: u64, life: u64) -> Option<Self> {
        let Some(recent) = Recent::of_flow(key, ticks, life) else { return None };
        let ([a, b], [c, d]) = key.address_words();
        let ([remote_half, remote], [local_half, local]) = (halves(b), halves(d));
        let is_mapped = a | c == MAPPED.0 && remote_half == MAPPED.1 && local_half == MAPPED.1;
        Some(if is_mapped {
            Self::V4(RecentV4 { addresses: (remote as u64) << 32 | local as u64, recent })
        } else {
            Self::V6(RecentV6 { addresses: [a, b, c, d], recent })
        })
    }

    /// Its place in [`Asked::sent_to`](crate::flow::Asked::sent_to).
    #[inline(always)]
    pub const fn place(&self, seed: u64) -> usize {
        match self {
            Self::V4(entry) => entry.place(seed),
            Self::V6(entry) => entry.place(seed),
        }
    }

    #[inline(always)]
    const fn v4(remote: [u8; 4], local: [u8; 4], recent: Recent) -> Self {
        let addresses = (u32::from_ne_bytes(remote) as u64) << 32 | u32::from_ne_bytes(local) as u64;
        Self::V4(RecentV4 { addresses, recent })
    }

    #[inline(always)]
    const fn v6(remote: &Address, local: &Address, recent: Recent) -> Self {
        let ([a, b], [c, d]) = (remote.words(), local.words());
        Self::V6(RecentV6 { addresses: [a, b, c, d], recent })
    }
}

/// The place in [`Asked::sent_to`](crate::flow::Asked::sent_to) of a remote address, by its words as they lie in
/// memory, and ports as the upper half of [`Recent::bits`]. The seed keeps remote hosts from choosing places.
#[inline(always)]
const fn place(seed: u64, remote: [u64; 2], ports: u64) -> usize {
    // Bits that multiplication moved up come down again before the next one.
    let first = spread(seed ^ remote[0]);
    let second = spread(first ^ (first >> 32) ^ remote[1]);
    let last = spread(second ^ (second >> 32) ^ ports);
    (last >> (u64::BITS - SENT_TO.ilog2())) as usize
}

impl RecentV4 {
    /// The place of the conversation in [`Asked::sent_to`](crate::flow::Asked::sent_to).
    #[inline(always)]
    pub const fn place(&self, seed: u64) -> usize {
        // As that of the mapped address, by which flows are kept.
        place(seed, [MAPPED.0, joined(MAPPED.1, (self.addresses >> 32) as u32)], self.recent.ports())
    }

    /// The first place of its set among [`RECENT_V4`].
    #[inline(always)]
    pub const fn set(&self) -> usize {
        let hash = spread(spread(self.addresses) ^ self.recent.without_end());
        (hash >> (u64::BITS - RECENT_V4.ilog2())) as usize & !(RECENT_WAYS_V4 - 1)
    }

    /// 0 when this entry is that of `wanted`; its end is looked at apart ([`Recent::is_over`]).
    #[inline(always)]
    pub const fn differs(&self, wanted: &Self) -> u64 {
        (self.addresses ^ wanted.addresses) | (self.recent.without_end() ^ wanted.recent.without_end())
    }
}

impl RecentV6 {
    /// The place of the conversation in [`Asked::sent_to`](crate::flow::Asked::sent_to).
    #[inline(always)]
    pub const fn place(&self, seed: u64) -> usize {
        let [a, b, _, _] = self.addresses;
        place(seed, [a, b], self.recent.ports())
    }

    /// The first place of its set among [`RECENT_V6`].
    #[inline(always)]
    pub const fn set(&self) -> usize {
        let [a, b, c, d] = self.addresses;
        let hash = spread(spread(spread(a ^ c) ^ b ^ d) ^ self.recent.without_end());
        (hash >> (u64::BITS - RECENT_V6.ilog2())) as usize & !(RECENT_WAYS_V6 - 1)
    }

    /// 0 when this entry is that of `wanted`; its end is looked at apart ([`Recent::is_over`]).
    #[inline(always)]
    pub const fn differs(&self, wanted: &Self) -> u64 {
        let ([a, b, c, d], other) = (self.addresses, wanted.addresses);
        (a ^ other[0])
            | (b ^ other[1])
            | (c ^ other[2])
            | (d ^ other[3])
            | (self.recent.without_end() ^ wanted.recent.without_end())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::flow::{may_live, sent_at};
    use crate::parse::TCP_FIN;
    use std::vec::Vec;

    const SECOND: u64 = 1_000_000_000;
    const V4: [Address; 2] = [Address::v4([192, 0, 2, 1]), Address::v4([198, 51, 100, 7])];
    const V6: [Address; 2] = [
        Address::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        Address::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
    ];

    /// From the second address, port 443, to the first, port 40000.
    fn packet([local, remote]: [Address; 2], transport: Transport, control: u8) -> Packet {
        Packet {
            src: remote,
            dst: local,
            transport,
            port: 40_000,
            source_port: 443,
            control,
            sequence: 0,
            acknowledgement: 0,
            window: 0,
            identification: 0,
            fragmentation: 0,
            hop_limit: 64,
            dns_response: false,
            is_cut: false,
            offset: 20,
        }
    }

    fn key(packet: &Packet) -> FlowKey {
        let mut key = FlowKey::default();
        assert!(key.set_incoming(packet));
        key
    }

    #[test]
    fn a_flow_is_found_by_its_packets_and_no_others() {
        let (ticks, life) = (100_000, 1000 * SECOND);
        let mut packets = Vec::new();
        for ends in [V4, V6] {
            for transport in [Transport::Tcp, Transport::Udp] {
                let one = packet(ends, transport, TCP_ACK);
                let [local, remote] = ends;
                packets.extend([
                    one,
                    Packet { port: 40_001, ..one },
                    Packet { source_port: 444, ..one },
                    Packet { src: local, dst: remote, ..one },
                ]);
            }
        }
        for (at, flow) in packets.iter().enumerate() {
            let stored = Entry::of_flow(&key(flow), ticks, life).unwrap();
            for (other, packet) in packets.iter().enumerate() {
                let is = match (stored, Entry::of(packet).unwrap()) {
                    (Entry::V4(stored), Entry::V4(wanted)) => {
                        let is = stored.differs(&wanted) == 0;
                        assert!(!is || stored.set() == wanted.set());
                        is
                    }
                    (Entry::V6(stored), Entry::V6(wanted)) => {
                        let is = stored.differs(&wanted) == 0;
                        assert!(!is || stored.set() == wanted.set());
                        is
                    }
                    _ => false,
                };
                assert_eq!(is, at == other, "{flow:?}\n{packet:?}");
                let places = [stored, Entry::of(packet).unwrap()].map(|entry| entry.place(0x5eed));
                assert!(!is || places[0] == places[1], "{packet:?}");
            }
        }
    }

    #[test]
    fn no_flow_that_is_alive_is_ruled_out() {
        for (sent, tick) in [(0, 4_000_000), (86_400 * 365 * SECOND, 0), (u64::from(u16::MAX) << 33, 1 << 33)]
        {
            // The reader's clock may be a tick late.
            assert!(may_live(sent_at(sent + tick), sent));
            for age in 0..=120 {
                assert!(may_live(sent_at(sent), sent + age * SECOND), "{sent} {age}");
            }
            // Of two CPUs that write at once the one that is a unit behind may be the later.
            assert!(may_live(sent_at(sent).wrapping_sub(1), sent + 120 * SECOND), "{sent}");
            assert!(!may_live(sent_at(sent), sent + 155 * SECOND), "{sent}");
        }
    }

    #[test]
    fn a_flow_has_one_place_whatever_header_its_packets_have() {
        let mapped = |address: Address| Address::v6(address.mapped());
        let native = packet(V4, Transport::Udp, 0);
        let as_v6 = packet(V4.map(mapped), Transport::Udp, 0);
        let places = [
            Entry::of(&native).unwrap(),
            Entry::of(&as_v6).unwrap(),
            Entry::of_flow(&key(&native), 0, SECOND).unwrap(),
            Entry::of_flow(&key(&as_v6), 0, SECOND).unwrap(),
        ]
        .map(|entry| entry.place(0x5eed));
        assert_eq!(places, [places[0]; 4]);
    }

    #[test]
    fn places_are_spread_over_all_there_are() {
        for (local, remotes) in [(V4[0], 0u32), (V6[0], 1)] {
            let mut places: Vec<usize> = (0..SENT_TO as u32)
                .map(|at| {
                    let [a, b, c, d] = (at * 64).to_be_bytes();
                    let remote = match remotes {
                        0 => Address::v4([9, b, c, d]),
                        _ => Address::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]),
                    };
                    Entry::of(&packet([local, remote], Transport::Udp, 0)).unwrap().place(0x5eed)
                })
                .collect();
            places.sort_unstable();
            places.dedup();
            // Of a random function's places 1 - 1/e are taken.
            assert!(places.len() > SENT_TO / 2, "{local:?} {}", places.len());
        }
    }

    #[test]
    fn an_entry_ends_with_its_flow_or_after_some_seconds() {
        let key = key(&packet(V4, Transport::Udp, 0));
        // The kernel's ticks begin five minutes before 2^32 (`INITIAL_JIFFIES` of `linux/jiffies.h`).
        for began in [0, 77, (1 << 32) - 300_000, (1 << 37) - 100, u64::MAX - 100] {
            for life in [0, SECOND / 2, SECOND, 5 * SECOND, 120 * SECOND, 7440 * SECOND] {
                let recent = Recent::of_flow(&key, began, life).unwrap();
                let held = (0..20_000).take_while(|ticks| recent.is_over(began.wrapping_add(*ticks)) == 0);
                let held = held.count() as u64;
                assert!(
                    (held..20_000).all(|ticks| recent.is_over(began.wrapping_add(ticks)) == 1),
                    "{began} {life}"
                );
                // The kernel has 100 to 1000 ticks a second. A unit has 64.
                let most = (life / 10_000_000).min(13 * 64);
                assert!(held <= most && held + 2 * 64 > most, "{began} {life} {held}");
            }
        }
    }

    #[test]
    fn the_place_of_no_entry_holds_none() {
        let wanted = Entry::of(&packet(V4, Transport::Udp, 0)).unwrap();
        let Entry::V4(wanted) = wanted else { panic!("{wanted:?}") };
        assert_ne!(RecentV4::default().differs(&wanted), 0);
    }

    #[test]
    fn what_begins_or_ends_a_connection_is_looked_up_among_the_flows() {
        for control in [TCP_SYN, TCP_SYN | TCP_ACK, TCP_RST, TCP_RST | TCP_ACK, TCP_FIN, 0] {
            assert_eq!(Entry::of(&packet(V4, Transport::Tcp, control)), None, "{control:02x}");
        }
        assert!(Entry::of(&packet(V4, Transport::Tcp, TCP_ACK | TCP_FIN)).is_some());
        assert_eq!(Entry::of(&Packet { is_cut: true, ..packet(V4, Transport::Tcp, TCP_ACK) }), None);
        assert_eq!(Entry::of(&packet(V4, Transport::Icmp, 0)), None);
    }
}
