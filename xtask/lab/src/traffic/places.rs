//! Where remote hosts come from: large allocations of well-known networks, by country.

use super::site::{random_v4, random_v6};
use rand::Rng;
use rand::seq::IndexedRandom;
use std::net::IpAddr;

/// A country, how much of the radiation comes from it, and some of its address space.
struct Place {
    country: &'static str,
    /// Share of sources, against the other countries.
    weight: u32,
    prefixes: &'static [&'static str],
}

const fn place(country: &'static str, weight: u32, prefixes: &'static [&'static str]) -> Place {
    Place { country, weight, prefixes }
}

/// Allocations of incumbent carriers, ISPs and research networks, as the regional registries' whois
/// databases (APNIC, ARIN, RIPE NCC, LACNIC, AFRINIC) show them; no host in particular is meant. The
/// weights follow the order in which countries are named in public reports on such traffic.
const PLACES: &[Place] = &[
    place("CN", 180, &["36.96.0.0/12", "58.208.0.0/12", "114.80.0.0/14", "218.64.0.0/15", "240e::/20"]),
    place("US", 160, &["12.0.0.0/10", "71.192.0.0/12", "98.192.0.0/11", "2601::/20", "2600:1700::/28"]),
    place("RU", 70, &["95.24.0.0/14", "5.136.0.0/14", "178.64.0.0/14", "2a00:1370::/32"]),
    place("IN", 55, &["117.192.0.0/12", "49.36.0.0/14", "106.192.0.0/12", "2409:4000::/24"]),
    place("BR", 55, &["177.32.0.0/14", "189.0.0.0/14", "201.0.0.0/14"]),
    place("KR", 50, &["121.128.0.0/11", "175.192.0.0/12", "211.104.0.0/14"]),
    place("TW", 45, &["1.160.0.0/12", "36.224.0.0/12", "114.32.0.0/12"]),
    place("VN", 40, &["14.160.0.0/12", "113.160.0.0/12", "2405:4800::/32"]),
    place("NL", 35, &["145.90.0.0/16", "77.160.0.0/13", "2001:610::/32"]),
    place("DE", 35, &["79.192.0.0/11", "87.128.0.0/11", "93.192.0.0/11", "2003::/20"]),
    place("JP", 30, &["126.0.0.0/10", "133.11.0.0/16", "153.128.0.0/11", "2001:200::/32", "2001:240::/32"]),
    place("GB", 28, &["81.128.0.0/12", "86.128.0.0/11", "2a00:23c0::/28"]),
    place("FR", 25, &["90.0.0.0/11", "82.224.0.0/12", "2a01:e00::/26"]),
    place("ID", 25, &["36.64.0.0/12", "125.160.0.0/14"]),
    place("IR", 22, &["2.176.0.0/13", "5.160.0.0/16"]),
    place("TR", 20, &["78.160.0.0/12", "88.224.0.0/12"]),
    place("UA", 18, &["46.118.0.0/15"]),
    place("TH", 18, &["171.96.0.0/14", "49.228.0.0/15"]),
    place("HK", 18, &["219.76.0.0/15", "112.118.0.0/16"]),
    place("IT", 16, &["79.0.0.0/12", "87.0.0.0/13", "2001:760::/32"]),
    place("MX", 16, &["189.128.0.0/12"]),
    place("PL", 14, &["83.0.0.0/12", "79.184.0.0/14"]),
    place("ES", 14, &["80.24.0.0/14", "88.0.0.0/12"]),
    place("RO", 12, &["86.120.0.0/14"]),
    place("EG", 12, &["41.32.0.0/13", "197.32.0.0/12"]),
    place("PK", 12, &["39.32.0.0/12"]),
    place("CA", 12, &["24.64.0.0/14", "70.24.0.0/14", "2607:fea8::/32"]),
    place("AR", 12, &["190.48.0.0/14", "181.0.0.0/13"]),
    place("CO", 10, &["190.24.0.0/15", "186.80.0.0/14"]),
    place("MY", 10, &["175.136.0.0/14", "60.48.0.0/14"]),
    place("PH", 10, &["49.144.0.0/14", "112.198.0.0/16"]),
    place("SG", 10, &["116.14.0.0/15"]),
    place("ZA", 9, &["41.0.0.0/13"]),
    place("AU", 9, &["1.120.0.0/14", "101.160.0.0/12", "2001:8000::/21"]),
    place("SE", 8, &["78.64.0.0/13"]),
    place("CL", 7, &["190.160.0.0/14"]),
    place("KZ", 7, &["2.72.0.0/14"]),
    place("BG", 6, &["78.83.0.0/16"]),
    place("GR", 6, &["79.128.0.0/14"]),
    place("NO", 5, &["84.208.0.0/14", "2001:700::/32"]),
    place("FI", 5, &["91.152.0.0/14"]),
    place("CH", 5, &["85.0.0.0/14", "2001:620::/32"]),
    place("PT", 4, &["85.240.0.0/14"]),
    place("NZ", 3, &["122.56.0.0/14"]),
    place("NG", 3, &["105.112.0.0/13"]),
];

/// The countries of the table.
pub fn countries() -> impl Iterator<Item = &'static str> {
    PLACES.iter().map(|place| place.country)
}

/// A country, drawn by its share of the radiation.
pub(super) fn random_country(rng: &mut impl Rng) -> &'static str {
    PLACES.choose_weighted(rng, |place| place.weight).expect("no weight is zero").country
}

/// An address of `country`.
///
/// # Panics
///
/// When the table has no address of that family there; every country has IPv4.
pub(super) fn random_source(rng: &mut impl Rng, country: &str, v6: bool) -> IpAddr {
    let place = PLACES.iter().find(|place| place.country == country).expect("a country of the table");
    let prefixes: Vec<_> = place.prefixes.iter().filter(|prefix| prefix.contains(':') == v6).collect();
    let prefix = prefixes.choose(rng).expect("an address family of the country");
    if v6 {
        random_v6(rng, prefix.parse().expect("a prefix")).into()
    } else {
        random_v4(rng, prefix.parse().expect("a prefix")).into()
    }
}

/// Whether the table has IPv6 addresses of `country`.
pub(super) fn has_v6(country: &str) -> bool {
    let place = PLACES.iter().find(|place| place.country == country);
    place.is_some_and(|place| place.prefixes.iter().any(|prefix| prefix.contains(':')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// A line `FIRST,LAST,CODE` of the database, in which IPv4 addresses are numbers.
    fn range(line: &str) -> Option<(IpAddr, IpAddr, &str)> {
        let address = |text: &str| match text.parse::<u32>() {
            Ok(number) => std::net::Ipv4Addr::from(number).into(),
            Err(_) => text.parse().unwrap(),
        };
        let mut fields = line.split(',').take_while(|_| !line.starts_with('#'));
        Some((address(fields.next()?), address(fields.next()?), fields.next()?))
    }

    fn country<'a>(ranges: &[(IpAddr, IpAddr, &'a str)], address: IpAddr) -> Option<&'a str> {
        let (.., last, country) = ranges[..ranges.partition_point(|(first, ..)| *first <= address)].last()?;
        (address <= *last).then_some(*country)
    }

    /// The embedded database is the one that the demo's sensor asks; allocations are traded, so a few
    /// addresses of a large prefix may be elsewhere by now.
    #[test]
    fn addresses_are_where_the_table_says() {
        let packed = std::fs::read(command::root().join("sensor-user/geoip/country.txt.zst")).unwrap();
        let database = String::from_utf8(zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
        let ranges: Vec<_> = database.lines().filter_map(range).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut families, mut wrong) = ([0, 0], Vec::new());
        for place in PLACES {
            for prefix in place.prefixes {
                let v6 = prefix.contains(':');
                families[usize::from(v6)] += 1;
                let there = (0..200)
                    .filter(|_| {
                        let address: IpAddr = if v6 {
                            random_v6(&mut rng, prefix.parse().unwrap()).into()
                        } else {
                            random_v4(&mut rng, prefix.parse().unwrap()).into()
                        };
                        country(&ranges, address) == Some(place.country)
                    })
                    .count();
                if there < 160 {
                    wrong.push((place.country, *prefix, there));
                }
            }
        }
        assert!(wrong.is_empty(), "of 200 addresses there: {wrong:?}");
        assert!(families[0] >= 80 && families[1] >= 15, "{families:?} prefixes of IPv4 and IPv6");
        assert!(PLACES.len() >= 40);
    }
}
