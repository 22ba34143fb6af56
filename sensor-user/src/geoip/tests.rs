use super::*;
use crate::system::follow::Look;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::database::tests_mmdb::{self as writer, Record as TreeRecord, Value, database};

fn v4(text: &str) -> u32 {
    text.parse::<Ipv4Addr>().unwrap().into()
}

fn v6(text: &str) -> u128 {
    text.parse::<Ipv6Addr>().unwrap().into()
}

fn flat(code: &'static str) -> Value {
    Value::Map(vec![("country_code", Value::Text(code))])
}

fn of(code: &'static str) -> Value {
    Value::Map(vec![("iso_code", Value::Text(code))])
}

fn open(bytes: Vec<u8>) -> Result<GeoIp, GeoIpError> {
    GeoIp::from_mmdb(bytes, DatabaseOrigin::File("test.mmdb".into()))
}

fn labels<const N: usize>(geoip: &GeoIp, addresses: [&str; N]) -> [String; N] {
    addresses.map(|address| match address.parse().unwrap() {
        IpAddr::V4(address) => geoip.v4(address.into()).to_string(),
        IpAddr::V6(address) => geoip.v6(address.into()).to_string(),
    })
}

fn message(error: &GeoIpError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn every_shape_of_record_names_its_country() {
    let networks = [
        (v4("1.0.0.0").into(), 8, Value::Map(vec![("country", of("JP"))])),
        (v4("2.0.0.0").into(), 8, flat("de")),
        (v4("3.0.0.0").into(), 8, Value::Map(vec![("registered_country", of("US"))])),
        (v4("4.0.0.0").into(), 8, Value::Map(vec![("country", Value::Text("FR"))])),
        (
            v4("5.0.0.0").into(),
            8,
            Value::Map(vec![("country", Value::Text("Brazil")), ("country_code", Value::Text("BR"))]),
        ),
        (v4("6.0.0.0").into(), 8, Value::Map(vec![("registered_country", of("US")), ("country", of("GB"))])),
        (v4("7.0.0.0").into(), 8, Value::Map(vec![("continent", of("EU"))])),
        (v4("8.0.0.0").into(), 8, flat("")),
    ];
    let geoip = open(database(32, "Country", &networks, 1_700_000_000)).unwrap();
    assert_eq!(
        labels(&geoip, ["1.0.0.0", "2.0.0.1", "3.255.255.255", "4.1.1.1", "5.0.0.0", "6.0.0.0"]),
        ["JP", "DE", "US", "FR", "BR", "GB"]
    );
    assert_eq!(labels(&geoip, ["7.0.0.0", "8.0.0.0", "9.0.0.0"]), ["unknown"; 3]);
    assert_eq!(labels(&geoip, ["2600::1"]), ["unknown"], "an IPv4 database knows no IPv6 address");
    assert_eq!(geoip.built().as_second(), 1_700_000_000);
    assert_eq!(geoip.database_type(), "Country");
}

#[test]
fn ipv4_is_found_where_ipv6_databases_keep_it() {
    let networks = [
        (v4("1.2.3.0").into(), 128 - 8, flat("JP")),
        (v6("2600::"), 16, flat("US")),
        (v6("2a00::"), 12, flat("NL")),
    ];
    let geoip = open(database(128, "Country", &networks, 0)).unwrap();
    assert_eq!(
        labels(&geoip, ["1.2.3.4", "1.2.4.0", "2600::", "2600:ffff::1"]),
        ["JP", "unknown", "US", "US"]
    );
    assert_eq!(labels(&geoip, ["25ff:ffff::", "2a0f::", "2a10::"]), ["unknown", "NL", "unknown"]);
}

#[test]
fn a_network_around_all_of_ipv4_holds_for_ipv4() {
    let networks = [(0, 64, flat("CH"))];
    let geoip = open(database(128, "Country", &networks, 0)).unwrap();
    assert_eq!(labels(&geoip, ["1.2.3.4", "223.255.255.255", "10.0.0.1"]), ["CH", "CH", "private"]);
}

#[test]
fn what_cannot_come_from_the_internet_is_private_whatever_the_database_says() {
    let networks = [(0, 1, flat("US")), (1 << 127, 1, flat("DE"))];
    let geoip = open(database(128, "Country", &networks, 0)).unwrap();
    for (first, last, before, after) in [
        ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
        ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
        ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
        ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
        ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
        ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
        ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
        ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
        ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
        ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
        ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
        ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
        ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
        ("::", "::ffff:ffff", None, Some("::1:0:0")),
        ("::ffff:0.0.0.0", "::ffff:255.255.255.255", Some("::fffe:ffff:ffff"), Some("::1:0:0:0")),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Some("64:ff9b:0:ffff::"), Some("64:ff9b:2::")),
        ("100::", "100::ffff:ffff:ffff:ffff", Some("ff:ffff::"), Some("100:0:0:2::")),
        ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", Some("2001:1:ffff::"), Some("2001:2:1::")),
        ("2001:10::", "2001:1f:ffff::", Some("2001:f:ffff::"), Some("2001:20::")),
        ("2001:db8::", "2001:db8:ffff::", Some("2001:db7:ffff::"), Some("2001:db9::")),
        ("3fff::", "3fff:fff:ffff::", Some("3ffe:ffff::"), Some("3fff:1000::")),
        ("5f00::", "5f00:ffff::", Some("5eff:ffff::"), Some("5f01::")),
        ("fc00::", "fdff:ffff::", Some("fbff:ffff::"), Some("fe00::")),
        ("fe80::", "feff:ffff::", Some("fe7f:ffff::"), None),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
    ] {
        assert_eq!(labels(&geoip, [first, last]), ["private"; 2], "{first} to {last}");
        for neighbour in [before, after].into_iter().flatten() {
            assert_ne!(labels(&geoip, [neighbour]), ["private"], "{neighbour}, beside {first} to {last}");
        }
    }
}

#[test]
fn an_ipv6_address_that_holds_an_ipv4_address_is_where_that_is() {
    // 192.0.66.7 is c000:4207, inverted 3fff:bdf8.
    let networks = [(v4("192.0.66.0").into(), 120, flat("JP")), (v6("2000::"), 3, flat("US"))];
    let geoip = open(database(128, "Country", &networks, 0)).unwrap();
    for (address, expected) in [
        ("2002:c000:4207::1", "JP"),
        ("2002:a00:1::1", "private"),
        ("2001:0:4136:e378:8000:63bf:3fff:bdf8", "JP"),
        ("64:ff9b::c000:4207", "JP"),
        ("64:ff9b::a00:1", "private"),
        ("2003::1", "US"),
    ] {
        assert_eq!(labels(&geoip, [address]), [expected], "{address}");
    }
}

#[test]
fn other_kinds_of_database_are_refused_by_name() {
    let networks = [(v4("1.0.0.0").into(), 8, Value::Map(vec![("asn", Value::Number(2497))]))];
    let error = open(database(32, "GeoLite2-ASN", &networks, 0)).unwrap_err();
    assert_eq!(
        message(&error),
        "cannot use the country database `test.mmdb`: it is of type `GeoLite2-ASN` and none of its records \
         has `country.iso_code` or `country_code`; it holds networks: name it with --asn"
    );
}

#[test]
fn what_is_no_database_is_refused() {
    for bytes in [vec![], b"PK\x03\x04".to_vec(), vec![0; 100_000]] {
        let error = message(&open(bytes).unwrap_err());
        assert!(error.contains("it is truncated, damaged, or not in MaxMind's format"), "{error}");
    }
    let error = message(&GeoIp::load(Path::new("/nonexistent/a.mmdb")).unwrap_err());
    assert!(
        error.starts_with("cannot use the country database `/nonexistent/a.mmdb`: No such file"),
        "{error}"
    );
    let error = message(&GeoIp::load(Path::new("/dev/zero")).unwrap_err());
    assert!(error.ends_with("not a regular file"), "{error}");
}

#[test]
fn a_record_of_the_wrong_type_is_damage() {
    let networks = [(v4("1.0.0.0").into(), 8, Value::Map(vec![("country_code", Value::Number(81))]))];
    let error = message(&open(database(32, "Country", &networks, 0)).unwrap_err());
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn a_tree_that_loops_or_multiplies_is_refused_in_bounded_time() {
    let mut country = Vec::new();
    country.extend(b"\xe1\x4ccountry_code\x42JP");
    let looping = [[TreeRecord::Data(0), TreeRecord::Node(0)]];
    // Each node leads to the next by both sides: 2^100 paths over 101 nodes.
    let mut doubling: Vec<_> = (1..101).map(|next| [TreeRecord::Node(next); 2]).collect();
    doubling.push([TreeRecord::Data(0); 2]);
    for nodes in [&looping[..], &doubling[..]] {
        let error = message(&open(writer::assemble(128, "Country", nodes, &country, 0)).unwrap_err());
        assert!(error.contains("damaged"), "{error}");
    }
}

#[test]
fn no_damage_of_a_small_database_makes_it_panic_or_hang() {
    let networks = [
        (v4("1.2.3.0").into(), 120, Value::Map(vec![("country", of("JP"))])),
        (v6("2600::"), 16, flat("US")),
    ];
    let good = database(128, "Country", &networks, 1_700_000_000);
    assert!(open(good.clone()).is_ok());
    for end in 0..good.len() {
        assert!(open(good[..end].to_vec()).is_err(), "cut off at {end}");
    }
    let mut refused = 0;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut damaged = good.clone();
            damaged[at] ^= 1 << bit;
            // A flipped bit in a letter is another country, which cannot be detected.
            refused += usize::from(open(damaged).is_err());
        }
    }
    assert!(refused > good.len(), "{refused} of {} flips refused", good.len() * 8);
}

/// A small generator of its own (Marsaglia's xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What the lines of the embedded text and the rules for special addresses say about an address.
struct Lines(BTreeMap<IpAddr, (IpAddr, Country)>);

impl Lines {
    fn embedded() -> Self {
        const TEXT: &[u8] = include_bytes!("../../geoip/country.txt.zst");
        let text = String::from_utf8(zstd::decode_all(TEXT).unwrap()).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let [first, last, country] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let address = |text: &str| match text.parse::<u32>() {
                Ok(number) => Ipv4Addr::from(number).into(),
                Err(_) => text.parse().unwrap(),
            };
            (address(first), (address(last), Country::from_code(country).unwrap_or(Country::UNKNOWN)))
        });
        Self(lines.collect())
    }

    fn judge(&self, address: IpAddr) -> Country {
        let special = match address {
            IpAddr::V4(address) => special::v4().iter().any(|block| block.contains(&address)),
            IpAddr::V6(address) => special::v6().iter().any(|block| block.contains(&address)),
        };
        if special {
            return Country::PRIVATE;
        }
        let before = self.0.range(..=address).next_back();
        before
            .filter(|(_, (last, _))| address <= *last)
            .map_or(Country::UNKNOWN, |(_, (_, country))| *country)
    }
}

/// An IPv4 range's first and last address, and their neighbours outside.
fn around(first: u32, last: u32) -> [u32; 4] {
    [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
}

#[test]
fn the_embedded_database_says_what_its_file_says_at_every_edge_and_at_random() {
    let lines = Lines::embedded();
    let geoip = GeoIp::embedded().unwrap();
    let mut random = Random(0x7e17_e200);

    let (mut addresses, mut edges_v6): (Vec<u32>, Vec<u128>) = (Vec::new(), Vec::new());
    for (first, (last, _)) in &lines.0 {
        match (first, last) {
            (&IpAddr::V4(first), &IpAddr::V4(last)) => addresses.extend(around(first.into(), last.into())),
            (&IpAddr::V6(first), &IpAddr::V6(last)) => {
                let [first, last] = [first, last].map(u128::from);
                edges_v6.extend([first.wrapping_sub(1), first, last, last.wrapping_add(1)]);
            }
            _ => unreachable!("a line has one family"),
        }
    }
    for block in special::v4() {
        addresses.extend(around(block.network().into(), block.broadcast().into()));
    }
    let edges = addresses.len();
    assert!(edges > 1_000_000, "{edges} edges");
    addresses.extend((0..200_000).map(|_| random.next() as u32));
    for address in addresses {
        let expected = lines.judge(Ipv4Addr::from(address).into());
        assert_eq!(geoip.v4(address), expected, "{}", Ipv4Addr::from(address));
    }

    let mut addresses = edges_v6;
    for block in special::v6() {
        let [first, last] = [block.network(), block.broadcast()].map(u128::from);
        addresses.extend([first.wrapping_sub(1), first, last, last.wrapping_add(1)]);
    }
    assert!(addresses.len() > 500_000);
    // Half of them in the allocated eighth of the space, near its networks.
    addresses.extend((0..100_000).map(|_| u128::from(random.next()) << 64 | u128::from(random.next())));
    addresses.extend((0..100_000).map(|_| (0x2000_u128 | u128::from(random.next() >> 51)) << 112));
    for address in addresses.into_iter().filter(|&address| special::embedded_v4(address).is_none()) {
        let expected = lines.judge(Ipv6Addr::from(address).into());
        assert_eq!(geoip.v6(address), expected, "{}", Ipv6Addr::from(address));
    }
}

#[test]
fn the_embedded_database_knows_well_known_addresses() {
    let geoip = GeoIp::embedded().unwrap();
    assert_eq!(
        labels(&geoip, ["8.8.8.8", "202.12.27.33", "193.0.14.129", "10.1.2.3", "2001:dc3::35", "fe80::1"]),
        ["US", "JP", "NL", "private", "JP", "private"]
    );
    assert_eq!(geoip.origin(), &DatabaseOrigin::Embedded);
    assert!(geoip.built().as_second() > 1_700_000_000);
}

#[test]
fn a_changed_file_is_read_again_and_a_bad_one_does_not_replace_the_good_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("country.mmdb");
    let replace = |bytes: &[u8]| {
        let new = directory.path().join("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    let japan = database(32, "Country", &[(v4("1.0.0.0").into(), 8, flat("JP"))], 1);
    let france = database(32, "Country", &[(v4("1.0.0.0").into(), 8, flat("FR"))], 2);
    replace(&japan);
    let mut watcher = Watcher::open(Some(path.clone())).unwrap();
    let before = Arc::clone(watcher.current());
    assert_eq!(watcher.look_and_wait(), Look::Unchanged);

    replace(&france);
    assert_eq!(watcher.look_and_wait(), Look::Reloaded);
    assert_eq!(watcher.look_and_wait(), Look::Unchanged);
    assert_eq!(labels(watcher.current(), ["1.2.3.4"]), ["FR"]);
    assert_eq!(labels(&before, ["1.2.3.4"]), ["JP"], "who holds the old one keeps it");

    // Overwritten in place with half a file: reported once, and France stays.
    std::fs::write(&path, &japan[..japan.len() / 2]).unwrap();
    assert_eq!(watcher.look_and_wait(), Look::Failed);
    assert!(watcher.fault().is_some());
    assert_eq!(watcher.look_and_wait(), Look::Unchanged);
    assert_eq!(
        (labels(watcher.current(), ["1.2.3.4"]), watcher.current().built().as_second()),
        (["FR".to_owned()], 2)
    );

    std::fs::remove_file(&path).unwrap();
    assert_eq!(watcher.look_and_wait(), Look::Failed);
    assert!(watcher.fault().is_some());
    assert_eq!(watcher.look_and_wait(), Look::Unchanged);

    replace(&japan);
    assert_eq!(watcher.look_and_wait(), Look::Reloaded);
    assert_eq!(labels(watcher.current(), ["1.2.3.4"]), ["JP"]);
    assert!(watcher.fault().is_none());
}

#[test]
fn another_file_or_the_embedded_database_is_used_once_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, country| {
        let path = directory.path().join(name);
        let bytes = database(32, "Country", &[(v4("1.0.0.0").into(), 8, flat(country))], 1);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut watcher = Watcher::open(Some(file("a", "JP"))).unwrap();
    watcher.follow(DatabaseFiles::new(Some(file("b", "FR")))).unwrap();
    assert_eq!(labels(watcher.current(), ["1.2.3.4"]), ["JP"]);
    assert_eq!(watcher.look_and_wait(), Look::Reloaded);
    assert_eq!(labels(watcher.current(), ["1.2.3.4"]), ["FR"]);
    watcher.follow(DatabaseFiles::new(Some(directory.path().join("none")))).unwrap();
    assert_eq!(watcher.look_and_wait(), Look::Failed);
    assert_eq!(labels(watcher.current(), ["1.2.3.4"]), ["FR"]);
    watcher.follow(DatabaseFiles::new(None)).unwrap();
    assert_eq!(watcher.look_and_wait(), Look::Reloaded);
    assert_eq!((watcher.current().source(), watcher.look_and_wait()), ("embedded", Look::Unchanged));
}

#[test]
fn the_embedded_database_never_changes() {
    let mut watcher = Watcher::open(None).unwrap();
    assert_eq!(watcher.look_and_wait(), Look::Unchanged);
}

#[test]
fn what_may_block_in_place_of_the_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("country.mmdb");
    std::fs::write(&path, database(32, "Country", &[(v4("1.0.0.0").into(), 8, flat("JP"))], 1)).unwrap();
    let mut watcher = Watcher::open(Some(path.clone())).unwrap();
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(watcher.look_and_wait(), Look::Failed);
    let error = watcher.fault().unwrap();
    assert!(message(error).contains("not a regular file"), "{}", message(error));
    assert_eq!(labels(watcher.current(), ["1.2.3.4"]), ["JP"]);
    assert!(Watcher::open(Some(path)).is_err());
}

#[test]
fn the_ipv6_file_of_a_text_database_is_followed_and_checked_as_its_own_file() {
    let directory = tempfile::tempdir().unwrap();
    let (path, ipv6) = (directory.path().join("geoip"), directory.path().join("geoip6"));
    std::fs::write(
        &path,
        "# Generated: Thu, 25 Jun 2026 04:33:59 GMT
16777216,16777471,AU
",
    )
    .unwrap();
    let mut watcher = Watcher::open(Some(path.clone())).unwrap();
    assert_eq!(labels(watcher.current(), ["1.0.0.1", "2001:200::1"]), ["AU", "unknown"]);

    std::fs::write(
        &ipv6,
        "# Generated: Wed, 24 Jun 2026 04:33:59 GMT
2001:200::,2001:201::,JP
",
    )
    .unwrap();
    assert_eq!(watcher.look_and_wait(), Look::Reloaded);
    assert_eq!(watcher.look_and_wait(), Look::Unchanged);
    assert_eq!(labels(watcher.current(), ["1.0.0.1", "2001:200::1"]), ["AU", "JP"]);
    assert_eq!(watcher.current().built().to_string(), "2026-06-24T04:33:59Z", "the older of both");

    std::fs::write(
        &ipv6,
        "2001:200::,2001:201::,KR
nonsense
",
    )
    .unwrap();
    assert_eq!(watcher.look_and_wait(), Look::Failed);
    let error = message(watcher.fault().unwrap());
    assert!(error.contains("geoip6`: line 2 is not `first,last,country`"), "{error}");

    std::fs::remove_file(&ipv6).unwrap();
    nix::unistd::mkfifo(&ipv6, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(watcher.look_and_wait(), Look::Failed);
    let error = message(watcher.fault().unwrap());
    assert!(error.contains("geoip6`: not a regular file"), "{error}");
    assert_eq!(labels(watcher.current(), ["2001:200::1"]), ["JP"]);
    assert!(GeoIp::load(&path).is_err());

    std::fs::remove_file(&ipv6).unwrap();
    assert_eq!(watcher.look_and_wait(), Look::Reloaded);
    assert!(watcher.fault().is_none());
    assert_eq!(labels(watcher.current(), ["1.0.0.1", "2001:200::1"]), ["AU", "unknown"]);
}

#[test]
fn text_is_read_with_the_other_family_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("geoip");
    let v4 =
        "# Generated: Thu, 25 Jun 2026 04:33:59 GMT\n# made\n16777216,16777471,AU\n1.0.1.0,1.0.3.255,CN\n";
    std::fs::write(&path, v4).unwrap();
    let v6 = "2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP\n2001:201::,2001:202::,??\n";
    std::fs::write(directory.path().join("geoip6"), v6).unwrap();
    let geoip = GeoIp::load(&path).unwrap();
    assert_eq!(geoip.built().to_string(), "2026-06-25T04:33:59Z");
    assert_eq!((geoip.source(), geoip.database_type()), ("file", "text"));
    let v4 = |text: &str| geoip.v4(text.parse::<Ipv4Addr>().unwrap().into()).to_string();
    let v6 = |text: &str| geoip.v6(text.parse::<Ipv6Addr>().unwrap().into()).to_string();
    assert_eq!(
        [v4("1.0.0.255"), v4("1.0.1.0"), v4("1.0.4.0"), v4("10.0.0.1")],
        ["AU", "CN", "unknown", "private"]
    );
    assert_eq!([v6("2001:200::1"), v6("2001:201::1")], ["JP", "unknown"]);
    std::fs::remove_file(directory.path().join("geoip6")).unwrap();
    for (text, expected) in [
        (
            "# Generated: Thu, 25 Jun 2026 04:33:59 GMT\n1,2,AU\n3;4;JP\n",
            "line 3 is not `first,last,country`",
        ),
        ("1,2,AU\n", "its age is unknown: it has no line like `# Generated: "),
        ("# Generated: Thu, 25 Jun 2026 04:33:59 GMT\n", "it is of type `text` and none of its records"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = GeoIp::load(&path).unwrap_err();
        assert!(error.reason.to_string().starts_with(expected), "{error:?}");
    }
}
