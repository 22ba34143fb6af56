//! The database inside the binary, in blocks of ranges. A block is decoded when the first address in it is
//! looked up, so a start costs nothing and a short run pays for what it meets.
//!
//! Integers are little-endian:
//!
//! | | |
//! |---|---|
//! | seconds since 1970 of its making | 8 bytes |
//! | number of IPv4 blocks, of IPv6 blocks | 4 bytes each |
//! | first address of each IPv4 block, then of each IPv6 block; the first of a family is 0 | 4, 16 bytes |
//! | where each block ends, counted from the beginning of the first, in the same order | 4 bytes |
//! | the blocks | each compressed with Zstandard |
//!
//! A block, decompressed; the last range ends where the next block, or the space, does:
//!
//! | | |
//! |---|---|
//! | number of ranges | 2 bytes |
//! | number of countries | 2 bytes |
//! | each country, `??` for what is in none | 2 letters |
//! | the size of each range but the last, *s* × 2^*n* with an odd *s* | *n*, and 128 if *s* is not 1 |
//! | the country of each range | its place among the countries, 1 byte |
//! | each *s* that is not 1 | (*s* − 3) / 2 in LEB128 |
//!
//! `cargo xtask geoip` writes it.

use crate::country::Country;
use crate::database::{DatabaseFault, special_v4, special_v6};
use crate::ranges::{Number, Ranges};
use jiff::Timestamp;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

const DATABASE: &[u8] = include_bytes!("../../geoip/country.bin");

/// Room for a block when it is decompressed, bytes: a block has at most 65,535 ranges, and of each at most
/// 19 bytes of its size.
const ROOM: usize = 2 << 20;

/// An address as the format has it.
trait StoredAddress: Number {
    /// Bytes of it.
    const SIZE: usize;
    /// From little-endian bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
    /// The address `odd` × 2^`exponent` after this one, if there is one.
    fn after(self, odd: u128, exponent: u32) -> Option<Self>;
    /// What cannot come from the Internet.
    fn private() -> impl Iterator<Item = (Self, u8, Country)>;
    /// As people write it.
    fn shown(self) -> IpAddr;
}

impl StoredAddress for u32 {
    const SIZE: usize = 4;
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_le_bytes(bytes.try_into().ok()?))
    }
    fn after(self, odd: u128, exponent: u32) -> Option<Self> {
        let odd = Self::try_from(odd).ok()?;
        self.checked_add(odd.checked_mul(1_u32.checked_shl(exponent)?)?)
    }
    fn private() -> impl Iterator<Item = (Self, u8, Country)> {
        special_v4(Country::PRIVATE)
    }
    fn shown(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }
}

impl StoredAddress for u128 {
    const SIZE: usize = 16;
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_le_bytes(bytes.try_into().ok()?))
    }
    fn after(self, odd: u128, exponent: u32) -> Option<Self> {
        self.checked_add(odd.checked_mul(1_u128.checked_shl(exponent)?)?)
    }
    fn private() -> impl Iterator<Item = (Self, u8, Country)> {
        special_v6(Country::PRIVATE)
    }
    fn shown(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }
}

/// The embedded database.
pub(super) struct Embedded {
    v4: Blocks<u32>,
    v6: Blocks<u128>,
    built: Timestamp,
}

impl Embedded {
    /// Reads where the blocks are.
    pub(super) fn open() -> Result<Self, DatabaseFault> {
        Self::of(DATABASE).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "damaged").into())
    }

    /// `None` when it is cut short, or the blocks are not in order.
    fn of(mut bytes: &'static [u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let built = Timestamp::from_second(i64::from_le_bytes(*chunk(bytes)?)).ok()?;
        let [v4, v6] = [u32::from_le_bytes(*chunk(bytes)?), u32::from_le_bytes(*chunk(bytes)?)];
        let (v4_firsts, v6_firsts) = (firsts::<u32>(bytes, v4)?, firsts::<u128>(bytes, v6)?);
        let ends = split(bytes, (v4 as usize).checked_add(v6 as usize)?.checked_mul(4)?)?;
        let mut begin = 0;
        let blocks: Option<Vec<&'static [u8]>> = ends
            .chunks_exact(4)
            .map(|end| {
                let end = u32::from_bytes(end)? as usize;
                let size = end.checked_sub(begin)?;
                begin = end;
                split(bytes, size)
            })
            .collect();
        let mut blocks = blocks?;
        let v6_blocks = blocks.split_off(v4 as usize);
        bytes.is_empty().then_some(())?;
        Some(Self { v4: Blocks::new(v4_firsts, blocks), v6: Blocks::new(v6_firsts, v6_blocks), built })
    }

    /// When it was made.
    pub(super) fn built(&self) -> Timestamp {
        self.built
    }

    #[inline]
    pub(super) fn v4(&self, address: u32) -> Country {
        self.v4.get(address)
    }

    /// The country of an address that does not hold an IPv4 address.
    #[inline]
    pub(super) fn v6(&self, address: u128) -> Country {
        self.v6.get(address)
    }
}

/// The first addresses of the blocks of a family, of which there are fewer than 2^16; the first is 0.
fn firsts<A: StoredAddress>(bytes: &mut &'static [u8], count: u32) -> Option<Vec<A>> {
    let count = usize::from(u16::try_from(count).ok()?);
    let firsts: Option<Vec<A>> =
        split(bytes, count * A::SIZE)?.chunks_exact(A::SIZE).map(A::from_bytes).collect();
    firsts.filter(|firsts| firsts.first() == Some(&A::default()) && firsts.is_sorted_by(|a, b| a < b))
}

/// The blocks of a family.
struct Blocks<A> {
    firsts: Vec<A>,
    /// Which block an address is in.
    places: Ranges<A, u16>,
    compressed: Vec<&'static [u8]>,
    decoded: Vec<OnceLock<Ranges<A, Country>>>,
}

impl<A: StoredAddress> Blocks<A> {
    fn new(firsts: Vec<A>, compressed: Vec<&'static [u8]>) -> Self {
        let numbers = (0..firsts.len() as u16).collect();
        Self {
            places: Ranges::new(firsts.clone(), numbers, A::default().last(0), std::iter::empty()),
            decoded: firsts.iter().map(|_| OnceLock::new()).collect(),
            firsts,
            compressed,
        }
    }

    #[inline]
    fn get(&self, address: A) -> Country {
        let place = usize::from(self.places.get(address));
        self.decoded[place].get_or_init(|| self.block(place)).get(address)
    }

    /// Not inlined: a block is decoded once. One that is damaged has no country: what comes from there is counted, and who
    /// reads the log learns where from.
    #[cold]
    fn block(&self, place: usize) -> Ranges<A, Country> {
        let (first, end) = (self.firsts[place], self.end(place));
        self.decoded(place).unwrap_or_else(|| {
            tracing::error!(
                from = %first.shown(),
                to = %end.shown(),
                "embedded country database is damaged; sources of these addresses are counted as of unknown country; \
                 install teiten again, or give --geoip FILE"
            );
            Ranges::new(vec![first], vec![Country::UNKNOWN], end, A::private())
        })
    }

    /// The last address of a block.
    fn end(&self, place: usize) -> A {
        let next = self.firsts.get(place + 1).and_then(|next| next.previous());
        next.unwrap_or(A::default().last(0))
    }

    /// The ranges of a block; `None` when it is damaged.
    fn decoded(&self, place: usize) -> Option<Ranges<A, Country>> {
        let bytes = zstd::bulk::decompress(self.compressed[place], ROOM).ok()?;
        decode(&bytes, self.firsts[place], self.end(place))
    }
}

/// The ranges of a block; `None` when it is cut short, or has more than it names.
fn decode<A: StoredAddress>(mut bytes: &[u8], first: A, end: A) -> Option<Ranges<A, Country>> {
    let bytes = &mut bytes;
    let [ranges, countries] =
        [chunk(bytes)?, chunk(bytes)?].map(|number| usize::from(u16::from_le_bytes(*number)));
    let countries: Vec<Country> = split(bytes, countries * 2)?.chunks_exact(2).map(country).collect();
    let sizes = split(bytes, ranges.checked_sub(1)?)?;
    let values: Option<Vec<Country>> =
        split(bytes, ranges)?.iter().map(|&place| countries.get(usize::from(place)).copied()).collect();
    let mut starts = Vec::with_capacity(ranges);
    starts.push(first);
    let mut start = first;
    for &size in sizes {
        let odd = if size < 0x80 { 1 } else { number(bytes)?.checked_mul(2)?.checked_add(3)? };
        start = start.after(odd, u32::from(size & 0x7f))?;
        starts.push(start);
    }
    let is_whole = bytes.is_empty() && start <= end;
    let values = values.filter(|_| is_whole)?;
    Some(Ranges::new(starts, values, end, A::private()))
}

fn country(code: &[u8]) -> Country {
    std::str::from_utf8(code).ok().and_then(Country::from_code).unwrap_or(Country::UNKNOWN)
}

/// A number in LEB128, little-endian base 128.
fn number(bytes: &mut &[u8]) -> Option<u128> {
    let (mut number, mut shift) = (0_u128, 0);
    loop {
        let &[byte] = chunk(bytes)?;
        number |= u128::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
}

fn chunk<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

fn split<'a>(bytes: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(size)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all<A: StoredAddress>(blocks: &Blocks<A>) {
        for place in 0..blocks.firsts.len() {
            assert!(blocks.decoded(place).is_some_and(|ranges| ranges.len() > 0), "block {place}");
        }
    }

    #[test]
    fn each_block_of_the_binary_can_be_decoded() {
        let embedded = Embedded::open().unwrap();
        decode_all(&embedded.v4);
        decode_all(&embedded.v6);
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused() {
        for cut in [0, 7, 15, 16, 17, 1000, 5000, DATABASE.len() / 2, DATABASE.len() - 1] {
            assert!(Embedded::of(&DATABASE[..cut]).is_none(), "{cut}");
        }
        assert!(Embedded::of([DATABASE, &[0]].concat().leak()).is_none());
    }

    #[test]
    fn addresses_of_a_damaged_block_are_of_unknown_country_and_others_stay() {
        let whole = Embedded::open().unwrap();
        let mut damaged = Embedded::open().unwrap();
        damaged.v4.compressed[1] = &damaged.v4.compressed[1][1..];
        let (first, end) = (whole.v4.firsts[1], whole.v4.end(1));
        let known = |at: &u32| !matches!(whole.v4(*at), Country::UNKNOWN | Country::PRIVATE);
        let within: Vec<u32> = (first..=end).step_by(997).filter(known).collect();
        assert!(!within.is_empty());
        assert!(within.iter().all(|at| damaged.v4(*at) == Country::UNKNOWN));
        for place in [0, 2] {
            let at = whole.v4.firsts[place] + 1;
            assert_eq!(damaged.v4(at), whole.v4(at));
        }
    }

    #[test]
    fn a_block_that_is_cut_short_or_too_long_is_refused() {
        let embedded = Embedded::open().unwrap();
        let (first, end) = (embedded.v4.firsts[1], embedded.v4.firsts[2] - 1);
        let bytes = zstd::bulk::decompress(embedded.v4.compressed[1], ROOM).unwrap();
        assert!(decode(&bytes, first, end).is_some());
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut], first, end).is_none(), "{cut}");
        }
        assert!(decode(&[&bytes[..], &[0]].concat(), first, end).is_none());
        assert!(decode(&bytes, first, first).is_none(), "ranges after the end");
    }

    #[test]
    fn sizes_countries_and_special_blocks_are_in_their_places() {
        // 9.0.0.0 to 9.255.255.255 JP; then 3 × 2^0 unknown, then US up to 10.1.0.0.
        let mut bytes = vec![3, 0, 3, 0];
        bytes.extend(b"US??JP");
        bytes.extend([24, 128, 2, 1, 0, 0]);
        let ranges = decode(&bytes, 0x0900_0000_u32, 0x0b00_0000).unwrap();
        let labels =
            [0x0900_0000, 0x09ff_ffff, 0x0a00_0000, 0x0a00_0003, 0x0b00_0000].map(|at| ranges.get(at));
        let [japan, states] = ["JP", "US"].map(|code| Country::from_code(code).unwrap());
        assert_eq!(labels, [japan, japan, Country::PRIVATE, Country::PRIVATE, states]);
        // A place among the countries that is none.
        bytes[13] = 3;
        assert!(decode(&bytes, 0x0900_0000_u32, 0x0b00_0000).is_none());
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
