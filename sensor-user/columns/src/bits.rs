//! Packed numbers: the hybrid of runs and bits for codes and levels, and deltas for lengths.

use crate::thrift::{read_varint, unzigzag, varint, zigzag};

/// Bits that hold `value`.
pub(crate) const fn width(value: u32) -> u32 {
    u32::BITS - value.leading_zeros()
}

/// Appends numbers of `width` bits each, the lowest bit first, and fills the last byte.
fn pack(out: &mut Vec<u8>, values: impl Iterator<Item = u32>, width: u32) {
    let mut held = 0_u64;
    let mut bits = 0;
    for value in values {
        held |= u64::from(value) << bits;
        bits += width;
        if bits >= 32 {
            out.extend_from_slice(&(held as u32).to_le_bytes());
            held >>= 32;
            bits -= 32;
        }
    }
    while bits > 0 {
        out.push(held as u8);
        held >>= 8;
        bits = bits.saturating_sub(8);
    }
}

/// Appends `count` numbers of `width` bits each to `into`. `None` when `bytes` are too few.
fn unpack(bytes: &[u8], count: usize, width: u32, into: &mut Vec<u32>) -> Option<()> {
    if width == 0 {
        into.resize(into.len() + count, 0);
        return Some(());
    }
    if bytes.len() < (count * width as usize).div_ceil(8) {
        return None;
    }
    let mask = u64::MAX >> (64 - width);
    let mut held = 0_u64;
    let mut bits = 0;
    let mut words = bytes.chunks(4);
    for _ in 0..count {
        if bits < width {
            let mut word = [0; 4];
            let next = words.next()?;
            word[..next.len()].copy_from_slice(next);
            held |= u64::from(u32::from_le_bytes(word)) << bits;
            bits += 32;
        }
        into.push((held & mask) as u32);
        held >>= width;
        bits -= width;
    }
    Some(())
}

/// A run of equal numbers at least this long is stored as such.
const RUN: usize = 8;

/// Appends `values`, each of at most `width` bits, as runs and groups of eight (`RLE` in the format).
pub(crate) fn hybrid(out: &mut Vec<u8>, values: &[u32], width: u32) {
    // Where the numbers begin that are in no run.
    let mut loose = 0;
    let mut at = 0;
    while at < values.len() {
        let value = values[at];
        let length = 1 + values[at + 1..].iter().take_while(|next| **next == value).count();
        // Groups are of eight, so what is loose takes as many from the run as it lacks.
        let lacks = (at - loose).next_multiple_of(8) - (at - loose);
        if length >= RUN + lacks {
            bits(out, &values[loose..at + lacks], width);
            run(out, value, length - lacks, width);
            loose = at + length;
        }
        at += length;
    }
    bits(out, &values[loose..], width);
}

fn run(out: &mut Vec<u8>, value: u32, length: usize, width: u32) {
    varint(out, (length as u64) << 1);
    out.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8) as usize]);
}

fn bits(out: &mut Vec<u8>, values: &[u32], width: u32) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    varint(out, (groups as u64) << 1 | 1);
    let padding = std::iter::repeat_n(0, groups * 8 - values.len());
    pack(out, values.iter().copied().chain(padding), width);
}

/// Appends `count` numbers to `into` as [`hybrid`] wrote them. `None` when `bytes` hold no such thing.
pub(crate) fn read_hybrid(bytes: &[u8], width: u32, count: usize, into: &mut Vec<u32>) -> Option<()> {
    if width > 32 {
        return None;
    }
    let end = into.len() + count;
    let mut at = 0;
    while into.len() < end {
        let head = read_varint(bytes, &mut at)?;
        let left = end - into.len();
        if head & 1 == 0 {
            let length = usize::try_from(head >> 1).ok()?.min(left);
            if length == 0 {
                return None;
            }
            let size = width.div_ceil(8) as usize;
            let mut value = [0; 4];
            value[..size].copy_from_slice(bytes.get(at..at + size)?);
            at += size;
            into.resize(into.len() + length, u32::from_le_bytes(value));
        } else {
            let groups = usize::try_from(head >> 1).ok()?;
            let size = groups.checked_mul(width as usize)?;
            let packed = bytes.get(at..at.checked_add(size)?)?;
            at += size;
            let length = groups.checked_mul(8)?.min(left);
            if length == 0 {
                return None;
            }
            unpack(packed, length, width, into)?;
        }
    }
    Some(())
}

const BLOCK: usize = 128;
const MINIBLOCKS: usize = 4;
const MINIBLOCK: usize = BLOCK / MINIBLOCKS;

/// Appends numbers below 2^31 as differences (`DELTA_BINARY_PACKED`).
pub(crate) fn deltas(out: &mut Vec<u8>, values: &[u32]) {
    varint(out, BLOCK as u64);
    varint(out, MINIBLOCKS as u64);
    varint(out, values.len() as u64);
    let first = values.first().copied().unwrap_or(0);
    varint(out, zigzag(first.into()));
    let mut differences = [0_i64; BLOCK];
    let mut before = i64::from(first);
    for block in values.get(1..).unwrap_or_default().chunks(BLOCK) {
        let mut least = i64::MAX;
        for (difference, value) in differences.iter_mut().zip(block) {
            *difference = i64::from(*value) - before;
            before = i64::from(*value);
            least = least.min(*difference);
        }
        varint(out, zigzag(least));
        let widths = out.len();
        out.extend_from_slice(&[0; MINIBLOCKS]);
        for (at, miniblock) in differences[..block.len()].chunks(MINIBLOCK).enumerate() {
            let above = |difference: &i64| (difference - least) as u32;
            let most = miniblock.iter().map(above).max().unwrap_or(0);
            out[widths + at] = width(most) as u8;
            let padding = std::iter::repeat_n(0, MINIBLOCK - miniblock.len());
            pack(out, miniblock.iter().map(above).chain(padding), width(most));
        }
    }
}

/// Appends the numbers to `into` as [`deltas`] wrote them, `most` of them at most, and moves `at` behind
/// them. `None` when `bytes` hold no such thing.
pub(crate) fn read_deltas(bytes: &[u8], at: &mut usize, most: usize, into: &mut Vec<u32>) -> Option<()> {
    let block = usize::try_from(read_varint(bytes, at)?).ok()?;
    let miniblocks = usize::try_from(read_varint(bytes, at)?).ok()?;
    let count = usize::try_from(read_varint(bytes, at)?).ok()?;
    let mut value = unzigzag(read_varint(bytes, at)?);
    if block != BLOCK || miniblocks != MINIBLOCKS || count > most {
        return None;
    }
    if count == 0 {
        return Some(());
    }
    into.push(u32::try_from(value).ok()?);
    let mut left = count - 1;
    let mut packed = Vec::with_capacity(MINIBLOCK);
    while left > 0 {
        let least = unzigzag(read_varint(bytes, at)?);
        let widths = bytes.get(*at..*at + MINIBLOCKS)?;
        *at += MINIBLOCKS;
        for &width in widths {
            if left == 0 {
                break;
            }
            if width > 32 {
                return None;
            }
            let size = MINIBLOCK * usize::from(width) / 8;
            packed.clear();
            unpack(bytes.get(*at..*at + size)?, MINIBLOCK, width.into(), &mut packed)?;
            *at += size;
            for above in packed.iter().take(left) {
                value = value.checked_add(least)?.checked_add(i64::from(*above))?;
                into.push(u32::try_from(value).ok()?);
            }
            left = left.saturating_sub(MINIBLOCK);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers with runs in them.
    fn values(most: u32) -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec((0..=most, prop_oneof![Just(1), 1_usize..40]), 0..60)
            .prop_map(|runs| runs.into_iter().flat_map(|(value, times)| vec![value; times]).collect())
    }

    proptest! {
        #[test]
        fn the_hybrid_is_read_as_written(
            (most, values) in prop::sample::select(&[0_u32, 1, 5, 255, 65_000, u32::MAX][..])
                .prop_flat_map(|most| (Just(most), values(most))),
        ) {
            let mut out = Vec::new();
            hybrid(&mut out, &values, width(most));
            let mut read = Vec::new();
            prop_assert_eq!(read_hybrid(&out, width(most), values.len(), &mut read), Some(()));
            prop_assert_eq!(read, values);
        }

        #[test]
        fn deltas_are_read_as_written(values in values(1 << 30)) {
            let mut out = Vec::new();
            deltas(&mut out, &values);
            let (mut read, mut at) = (Vec::new(), 0);
            prop_assert_eq!(read_deltas(&out, &mut at, values.len(), &mut read), Some(()));
            prop_assert_eq!((read, at), (values, out.len()));
        }

        #[test]
        fn other_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..80), width in 0_u32..40) {
            let mut into = Vec::new();
            let _ = read_hybrid(&bytes, width, 1000, &mut into);
            prop_assert!(into.len() <= 1000);
            let _ = read_deltas(&bytes, &mut 0, 1000, &mut into);
        }
    }
}
