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
    let mut next = next;
    let mut at = at;
    let mut more_fragments = false;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(next) {
            return Ok(Extensions { next, at, more_fragments });
        }
        let header: [u8; 4] = frame.load(at).ok_or(Unparsed::Truncated)?;
        at += match next {
            44 => {
                let fragment = u16::from_be_bytes([header[2], header[3]]);
                if fragment & 0xfff8 != 0 {
                    return Err(Unparsed::Fragment);
                }
                more_fragments = fragment & 1 != 0;
                8
            }
            // Authentication (RFC 4302): units of 4 bytes, not counting the first two.
            51 => (usize::from(header[1]) + 2) * 4,
            // Hop-by-hop, routing, destination options, mobility, HIP, shim6: units of 8 bytes, not
            // counting the first.
            _ => (usize::from(header[1]) + 1) * 8,
        };
        next = header[0];
        if at > MAX_OFFSET {
            return Err(Unparsed::TooManyExtensions);
        }
    }
    if is_extension(next) {
        Err(Unparsed::TooManyExtensions)
    } else {
        Ok(Extensions { next, at, more_fragments })
    }
}

/// The result of [`skip`] in one word. The verifier knows no constants in it, so it follows fewer paths.
#[inline(always)]
pub const fn to_bits(found: Result<Extensions, Unparsed>) -> u64 {
    match found {
        Ok(Extensions { next, at, more_fragments }) => {
            1 << 32 | (more_fragments as u64) << 31 | (next as u64) << 16 | at as u64
        }
        Err(Unparsed::Fragment) => 2,
        Err(Unparsed::TooManyExtensions) => 1,
        Err(Unparsed::Truncated | Unparsed::NotIp | Unparsed::BadHeader) => 0,
    }
}

/// The reverse of [`to_bits`].
///
/// # Errors
///
/// As [`skip`].
#[inline(always)]
pub const fn from_bits(bits: u64) -> Result<Extensions, Unparsed> {
    if bits >> 32 == 0 {
        return Err(match bits {
            2 => Unparsed::Fragment,
            1 => Unparsed::TooManyExtensions,
            _ => Unparsed::Truncated,
        });
    }
    Ok(Extensions {
        next: (bits >> 16) as u8,
        at: (bits & (2 * MAX_OFFSET as u64 - 1)) as usize,
        more_fragments: bits >> 31 & 1 != 0,
    })
}

const _: () = assert!(MAX_OFFSET.is_power_of_two() && 2 * MAX_OFFSET <= 1 << 16);
