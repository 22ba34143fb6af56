//! IPv6 extension headers (RFC 8200, section 4).

use crate::frame::{Frame, MAX_OFFSET, Unparsed};

/// Extension headers that are skipped at most. Linux has no such limit.
const MAX_EXTENSION_HEADERS: usize = 64;

/// What follows the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// Its protocol number.
    pub next: u8,
    /// Where it begins, bytes from the start of the frame; at most [`MAX_OFFSET`].
    pub at: usize,
    /// Whether this is a first fragment.
    pub more_fragments: bool,
}

/// Whether a protocol number is that of an extension header.
#[inline(always)]
pub const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
}

/// Skips the extension headers that begin with one of the kind `next` at `at` (bytes from the
/// start of the frame).
///
/// # Errors
///
/// [`Unparsed::Truncated`], [`Unparsed::TooManyExtensions`], or [`Unparsed::Fragment`].
#[inline(always)]
pub fn skip<F: Frame + ?Sized>(frame: &F, next: u8, at: usize) -> Result<Extensions, Unparsed> {
    ExtensionWalk::new(next, at).through(|walk| walk.step(frame))
}

/// How far extension headers are skipped, in one word. Where a function of its own takes each step, the verifier checks
/// one header instead of all that there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionWalk(u64);

impl ExtensionWalk {
    /// There is another header.
    const GOES_ON: u64 = 1 << 33;
    /// What follows is found.
    const FOUND: u64 = 1 << 32;
    const MORE_FRAGMENTS: u64 = 1 << 31;
    /// The frame ends within a header.
    pub const TRUNCATED: Self = Self(0);
    const TOO_MANY: Self = Self(1);
    const FRAGMENT: Self = Self(2);

    /// Before a header of the kind `next` at `at` (bytes from the start of the frame).
    #[inline(always)]
    pub const fn new(next: u8, at: usize) -> Self {
        Self::before(next, at, 0)
    }

    #[inline(always)]
    const fn before(next: u8, at: usize, more_fragments: u64) -> Self {
        let state = if is_extension(next) { Self::GOES_ON } else { Self::FOUND };
        Self(state | more_fragments | (next as u64) << 16 | at as u64)
    }

    /// As a number; [`ExtensionWalk::from_bits`] reads it.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The reverse of [`ExtensionWalk::bits`].
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Takes steps as long as there is a header.
    ///
    /// # Errors
    ///
    /// As [`skip`].
    #[inline(always)]
    pub fn through(self, step: impl Fn(Self) -> Self) -> Result<Extensions, Unparsed> {
        let mut walk = self;
        for _ in 0..MAX_EXTENSION_HEADERS {
            if walk.0 & Self::GOES_ON == 0 {
                break;
            }
            walk = step(walk);
        }
        walk.result()
    }

    /// Skips one header.
    #[inline(always)]
    #[must_use]
    pub fn step<F: Frame + ?Sized>(self, frame: &F) -> Self {
        let mut at = self.at();
        let mut more_fragments = self.0 & Self::MORE_FRAGMENTS;
        let Some(header) = frame.load::<4>(at) else { return Self::TRUNCATED };
        at += match self.next() {
            44 => {
                let fragment = u16::from_be_bytes([header[2], header[3]]);
                if fragment & 0xfff8 != 0 {
                    return Self::FRAGMENT;
                }
                more_fragments = u64::from(fragment & 1) << 31;
                8
            }
            // Authentication (RFC 4302): units of 4 bytes, not counting the first two.
            51 => (usize::from(header[1]) + 2) * 4,
            // Hop-by-hop, routing, destination options, mobility, HIP, shim6: units of 8 bytes, not
            // counting the first.
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if at > MAX_OFFSET {
            return Self::TOO_MANY;
        }
        Self::before(header[0], at, more_fragments)
    }

    #[inline(always)]
    const fn next(self) -> u8 {
        (self.0 >> 16) as u8
    }

    #[inline(always)]
    const fn at(self) -> usize {
        (self.0 & (2 * MAX_OFFSET as u64 - 1)) as usize
    }

    #[inline(always)]
    const fn result(self) -> Result<Extensions, Unparsed> {
        if self.0 & Self::FOUND == 0 {
            return Err(match self {
                Self::FRAGMENT => Unparsed::Fragment,
                Self::TRUNCATED => Unparsed::Truncated,
                _ => Unparsed::TooManyExtensions,
            });
        }
        Ok(Extensions {
            next: self.next(),
            at: self.at(),
            more_fragments: self.0 & Self::MORE_FRAGMENTS != 0,
        })
    }
}

const _: () = assert!(MAX_OFFSET.is_power_of_two() && 2 * MAX_OFFSET <= 1 << 16);
