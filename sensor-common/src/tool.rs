//! Which scanner made a TCP SYN, by what its authors left in the headers.
//!
//! The rules apply in the order of [`Tool::of`]; `docs/classification.md` lists them.
//!
//! - Mirai sends sequence number = destination address (Antonakakis et al., "Understanding the
//!   Mirai Botnet", USENIX Security 2017, section 4.1).
//! - `ZMap` before 4.1 sends IP identification 54321 (Durumeric, Wustrow, Halderman, "ZMap: Fast
//!   Internet-wide Scanning and Its Security Applications", USENIX Security 2013).
//! - `ZMap` from 4.1 sends a random identification, but imitates the options of three systems, together with
//!   the largest window and without DF, which none of those systems does ([ZMap], `make_ip_header`,
//!   `make_tcp_header` and `set_tcp_options` in `packet.c`).
//! - masscan sends IP identification = destination address ^ destination port ^ sequence number, of
//!   which 16 bits remain, the low ones (Durumeric, Bailey, Halderman, "An Internet-Wide View of
//!   Internet-Wide Scanning", USENIX Security 2014, section 3.1; [masscan], `templ-pkt.c`).
//! - nmap's raw scans send window 1024, only the option of the segment size, and a TTL from 37 to 59
//!   ([nmap], `build_tcp` and `build_ip_raw` in `tcpip.cc`, `sendIPScanProbe`).
//! - Tools that keep no state of their connections write no options and a large TTL (Hiesgen et al.,
//!   "Spoki", USENIX Security 2022, section 3; with window 1024 it is the filter `large-scale-scan` of
//!   CAIDA's Corsaro 3).
//!
//! A random identification matches `ZMap`'s or masscan's rule once in 65,536 packets, a random sequence
//! number Mirai's once in 2^32. The rules of `ZMap`, `ZMap` 4 and masscan need an IPv4 header, as does
//! Mirai's. Of a first fragment only what the first 16 bytes of TCP and the IP header tell is asked.
//!
//! [ZMap]: https://github.com/zmap/zmap
//! [masscan]: https://github.com/robertdavidgraham/masscan
//! [nmap]: https://github.com/nmap/nmap

use crate::frame::Frame;
use crate::parse::{AddressBytes, IP_DONT_FRAGMENT, IP_MORE_FRAGMENTS, Packet, TCP_ACK, TCP_RST, TCP_SYN};
use crate::port::Transport;

/// The `tool` label's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tool {
    /// None of the known ones.
    Other = 0,
    /// `ZMap` before 4.1.
    Zmap = 1,
    /// masscan.
    Masscan = 2,
    /// Mirai and its descendants.
    Mirai = 3,
    /// `ZMap` from 4.1.
    Zmap4 = 4,
    /// nmap's raw scans.
    Nmap = 5,
    /// One that keeps no state of its connections.
    Stateless = 6,
}

/// TTLs and hop limits from here on are none of an ordinary system that is less than 56 routers away, but
/// for systems that begin at 255.
const HIGH_TTL: u8 = 200;

/// The highest TTL that nmap begins with.
const NMAP_TTL: u8 = 59;

/// `ZMap`'s window from 4.1 on.
const ZMAP_WINDOW: u16 = u16::MAX;

/// nmap's window.
const NMAP_WINDOW: u16 = 1024;

/// The option of a segment size of 1,460 bytes.
const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];

impl Tool {
    /// How many there are.
    pub const COUNT: usize = 7;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Other, Self::Zmap, Self::Masscan, Self::Mirai, Self::Zmap4, Self::Nmap, Self::Stateless];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Zmap => "zmap",
            Self::Masscan => "masscan",
            Self::Mirai => "mirai",
            Self::Zmap4 => "zmap4",
            Self::Nmap => "nmap",
            Self::Stateless => "stateless",
        }
    }

    /// The tool with this number; those without one are [`Tool::Other`].
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        if number < Self::COUNT as u32 {
            // SAFETY: the numbers below the count are those of the variants. A match would be a branch for
            // each, which the verifier follows one by one.
            unsafe { core::mem::transmute::<u8, Self>(number as u8) }
        } else {
            Self::Other
        }
    }

    /// The tool that made `packet`, which was read from `frame`, or `None` when it is not a TCP SYN.
    #[inline(always)]
    pub fn of<F: Marks + ?Sized>(frame: &F, packet: &Packet) -> Option<Self> {
        if !matches!(packet.transport, Transport::Tcp)
            || packet.control & (TCP_SYN | TCP_ACK | TCP_RST) != TCP_SYN
        {
            return None;
        }
        let is_masscan = match packet.dst.bytes() {
            AddressBytes::V4(dst) => {
                let dst = u32::from_be_bytes(dst);
                if packet.sequence == dst {
                    return Some(Self::Mirai);
                }
                if packet.identification == 54_321 {
                    return Some(Self::Zmap);
                }
                packet.identification == (dst ^ u32::from(packet.port) ^ packet.sequence) as u16
            }
            AddressBytes::V6(_) => false,
        };
        let syn = Syn::of(packet, is_masscan);
        Some(if syn.may_have_marked_options(packet.window) {
            frame.tool(syn)
        } else if is_masscan {
            Self::Masscan
        } else {
            Self::Other
        })
    }

    /// The tool that made a SYN of neither Mirai nor the older `ZMap`, with the options that `frame` holds.
    #[inline(always)]
    pub fn of_options<F: Frame + ?Sized>(frame: &F, syn: Syn) -> Self {
        let at = syn.offset();
        // Header length and flags, window.
        let [length, _, window @ ..] = frame.load::<4>(at + 12).unwrap_or([0; 4]);
        let (length, window) = (length >> 4, u16::from_be_bytes(window));
        if syn.is_v4()
            && window == ZMAP_WINDOW
            && syn.may_be_cut()
            && has_zmap_options(frame, at + 20, length)
        {
            Self::Zmap4
        } else if syn.is_masscan() {
            Self::Masscan
        } else if window == NMAP_WINDOW
            && length == 6
            && syn.hop_limit() <= NMAP_TTL
            && syn.may_be_cut()
            && frame.load(at + 20).map(u32::from_ne_bytes) == Some(u32::from_ne_bytes(MSS))
        {
            Self::Nmap
        } else if length == 5 && syn.hop_limit() >= HIGH_TTL {
            Self::Stateless
        } else {
            Self::Other
        }
    }
}

/// A frame that tells the tool of a SYN by a function that may be its own.
pub trait Marks {
    /// [`Tool::of_options`] of this frame.
    fn tool(&self, syn: Syn) -> Tool;
}

impl Marks for [u8] {
    #[inline(always)]
    fn tool(&self, syn: Syn) -> Tool {
        Tool::of_options(self, syn)
    }
}

/// What [`Packet`] knows of a SYN that tells its tool, as one word, because the program in the kernel passes it
/// to a function: the offset of the TCP header from bit 16 on (16 bits), TTL or hop limit from bit 8 on (8),
/// and [`Packet::fragmentation`] with the two flags below.
#[derive(Clone, Copy, Debug)]
pub struct Syn(pub u64);

/// The IP header is that of IPv4, in [`Syn`].
const IS_V4: u64 = 1;
/// The identification is masscan's.
const IS_MASSCAN: u64 = 2;

impl Syn {
    #[inline(always)]
    const fn of(packet: &Packet, is_masscan: bool) -> Self {
        let is_v4 = matches!(packet.dst.bytes(), AddressBytes::V4(_));
        let fragmentation = packet.fragmentation & (IP_DONT_FRAGMENT | IP_MORE_FRAGMENTS);
        Self(
            (packet.offset as u64) << 16
                | (packet.hop_limit as u64) << 8
                | fragmentation as u64
                | if is_masscan { IS_MASSCAN } else { 0 }
                | if is_v4 { IS_V4 } else { 0 },
        )
    }

    /// Whether the options can tell the tool of a SYN with this `window`. Those of a fragment may lie beyond
    /// what was sent.
    #[inline(always)]
    const fn may_have_marked_options(self, window: u16) -> bool {
        !self.is_fragment()
            && (self.hop_limit() >= HIGH_TTL || window == ZMAP_WINDOW || window == NMAP_WINDOW)
    }

    #[inline(always)]
    const fn is_v4(self) -> bool {
        self.0 & IS_V4 != 0
    }

    #[inline(always)]
    const fn is_masscan(self) -> bool {
        self.0 & IS_MASSCAN != 0
    }

    #[inline(always)]
    const fn offset(self) -> usize {
        (self.0 >> 16) as u16 as usize
    }

    #[inline(always)]
    const fn hop_limit(self) -> u8 {
        (self.0 >> 8) as u8
    }

    #[inline(always)]
    const fn is_fragment(self) -> bool {
        self.0 & IP_MORE_FRAGMENTS as u64 != 0
    }

    /// DF is not set; IPv6 has no such bit.
    #[inline(always)]
    const fn may_be_cut(self) -> bool {
        self.0 & IP_DONT_FRAGMENT as u64 == 0
    }
}

/// Whether the options at `at`, of a header of `length` words, are those of `--probe-args`
/// `smallest-probes`, `windows` (the default), `linux` or `bsd`.
#[inline(always)]
fn has_zmap_options<F: Frame + ?Sized>(frame: &F, at: usize, length: u8) -> bool {
    // Word by word, because the program in the kernel would compare arrays on its stack.
    let is = |word: usize, bytes: [u8; 4]| {
        frame.load(at + word * 4).map(u32::from_ne_bytes) == Some(u32::from_ne_bytes(bytes))
    };
    is(0, MSS)
        && match length {
            6 => true,
            8 => is(1, [1, 3, 3, 8]) && is(2, [1, 1, 4, 2]),
            // The time is the third word.
            10 => is(1, [4, 2, 8, 10]) && is(3, [0; 4]) && is(4, [1, 3, 3, 7]),
            // The fourth.
            11 => is(1, [1, 3, 3, 6]) && is(2, [1, 1, 8, 10]) && is(4, [0; 4]) && is(5, [4, 2, 0, 0]),
            _ => false,
        }
}
