//! Packets that may be sampled, as functions of the program pass them on.

use sensor_common::{Packet, Slot, Transport};

/// A packet that may be sampled, in one word, so that functions can return it: the index of its slot, where its
/// content begins, and whether it is one of the first.
#[derive(Clone, Copy)]
pub struct Candidate(u32);

/// Bits of the slot's index.
const SLOT_BITS: u32 = 18;
const _: () = assert!(Slot::COUNT <= 1 << SLOT_BITS);
/// The bit that says that it is one of the first.
const FIRST: u32 = 1 << 31;
/// Bits of the content's offset in the frame, bytes.
const CONTENT_BITS: u32 = 31 - SLOT_BITS;

impl Candidate {
    /// Of a packet to the [`Slot`] of this index; `is_first` when it is one of the first of its port.
    #[inline(always)]
    pub fn new(slot: usize, packet: &Packet, is_first: bool) -> Self {
        // Options of TCP count as content.
        let header = if matches!(packet.transport, Transport::Tcp) { 20 } else { 8 };
        let content = (packet.offset as u32 + header) & ((1 << CONTENT_BITS) - 1);
        Self(slot as u32 | content << SLOT_BITS | if is_first { FIRST } else { 0 })
    }

    /// From [`Candidate::bits`], unless it is 0.
    #[inline(always)]
    pub fn from_bits(bits: u32) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    /// The word, at least 8 since headers take as many bytes; 0 for no candidate.
    #[inline(always)]
    pub fn bits(candidate: Option<Self>) -> u32 {
        match candidate {
            Some(Self(bits)) => bits,
            None => 0,
        }
    }

    #[inline(always)]
    pub fn slot(self) -> usize {
        (self.0 & ((1 << SLOT_BITS) - 1)) as usize
    }

    #[inline(always)]
    pub fn is_first(self) -> bool {
        self.0 & FIRST != 0
    }

    /// Bytes of the frame before the content.
    #[inline(always)]
    pub fn content(self) -> u32 {
        (self.0 & !FIRST) >> SLOT_BITS
    }
}
