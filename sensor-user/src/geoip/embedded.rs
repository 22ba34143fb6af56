//! The database inside the binary: ranges as differences, which take a quarter of the text's size and of the
//! time to read it.
//!
//! Compressed with Zstandard. Numbers are LEB128, little-endian base 128, unless said otherwise:
//!
//! | | |
//! |---|---|
//! | seconds since 1970 of its making | 8 bytes, little-endian |
//! | IPv4 ranges, IPv6 ranges | 4 bytes each, little-endian |
//! | each range, IPv4 before IPv6 | addresses between the range before and this one; addresses in it, less one |
//! | country of each range, in the same order | 2 letters |
//!
//! `cargo xtask geoip` writes it.

use crate::country::Country;
use crate::database::{Builders, DatabaseFault};
use jiff::Timestamp;
use std::io;

const COMPRESSED: &[u8] = include_bytes!("../../geoip/country.bin.zst");

/// Room for it when it is decompressed, bytes; only what it fills becomes resident.
const ROOM: usize = 32 << 20;

/// What it holds.
pub(super) struct Embedded {
    pub(super) builders: Builders<Country>,
    pub(super) built: Timestamp,
}

pub(super) fn read() -> Result<Embedded, DatabaseFault> {
    let bytes = zstd::bulk::decompress(COMPRESSED, ROOM)?;
    decode(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "damaged").into())
}

/// `None` when it is cut short, or has more than the ranges that it names.
fn decode(mut bytes: &[u8]) -> Option<Embedded> {
    let bytes = &mut bytes;
    let built = Timestamp::from_second(i64::from_le_bytes(*take(bytes)?)).ok()?;
    let [v4_ranges, v6_ranges] = [u32::from_le_bytes(*take(bytes)?), u32::from_le_bytes(*take(bytes)?)];
    let countries = (v4_ranges as usize).checked_add(v6_ranges as usize)?.checked_mul(2)?;
    let (mut numbers, mut countries) = bytes.split_at_checked(bytes.len().checked_sub(countries)?)?;
    let mut embedded = Embedded { builders: Builders::default(), built };
    // The first address after the range before. After the last address of all there is no other range.
    let mut next = 0;
    for _ in 0..v4_ranges {
        let (first, last) = range(&mut numbers, &mut next)?;
        let (first, last) = (u32::try_from(first).ok()?, u32::try_from(last).ok()?);
        embedded.builders.v4.push_range(first, last, country(&mut countries)?);
    }
    next = 0;
    for _ in 0..v6_ranges {
        let (first, last) = range(&mut numbers, &mut next)?;
        embedded.builders.v6.push_range(first, last, country(&mut countries)?);
    }
    numbers.is_empty().then_some(embedded)
}

/// First and last address of the range that begins after `next`.
fn range(numbers: &mut &[u8], next: &mut u128) -> Option<(u128, u128)> {
    let first = next.checked_add(number(numbers)?)?;
    let last = first.checked_add(number(numbers)?)?;
    *next = last.wrapping_add(1);
    Some((first, last))
}

fn country(bytes: &mut &[u8]) -> Option<Country> {
    let code: &[u8; 2] = take(bytes)?;
    Some(std::str::from_utf8(code).ok().and_then(Country::from_code).unwrap_or(Country::UNKNOWN))
}

fn number(bytes: &mut &[u8]) -> Option<u128> {
    let (mut number, mut shift) = (0_u128, 0);
    loop {
        let &[byte] = take(bytes)?;
        number |= u128::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_or_too_long_is_refused() {
        let bytes = zstd::decode_all(COMPRESSED).unwrap();
        assert!(decode(&bytes).is_some());
        for cut in [0, 7, 15, 16, 17, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode(&bytes[..cut]).is_none(), "{cut}");
        }
        assert!(decode(&[&bytes[..], &[0]].concat()).is_none());
    }

    #[test]
    fn numbers_of_all_lengths_are_read() {
        for (bytes, expected) in [
            (&[0x00][..], Some(0)),
            (&[0x7f], Some(127)),
            (&[0x80, 0x01], Some(128)),
            (&[0xff, 0xff, 0x03], Some(65_535)),
            (&[0x80], None),
            (&[0xff; 20], None),
        ] {
            assert_eq!(number(&mut &bytes[..]), expected, "{bytes:?}");
        }
    }
}
