//! The network of a source: the number and name of its autonomous system, from a database file in
//! `MaxMind`'s format or of text.
//!
//! Names come from registries, where anybody can write them, so they are cleaned and cut as they are read.

use crate::country::{AsPlace, AutonomousSystem};
use crate::database::mmdb::Mmdb;
use crate::database::text::{self, Text};
use crate::database::{Builders, DatabaseFault, Families, file, special};
use crate::ranges::Ranges;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::hash_map::{Entry, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

/// What a line of a text database is: ip-location-db's form.
const LINE: &str = "first,last,asn,name";

/// Characters that a name has at most; registries' longest are cut.
pub const MAX_NAME: usize = 64;

/// Networks that a database may name. IANA's registries hold about 120,000.
const MAX_NETWORKS: usize = 1_000_000;

/// An ASN database, flattened.
#[derive(Clone)]
pub struct AsnDatabase {
    v4: Ranges<u32, AsPlace>,
    v6: Ranges<u128, AsPlace>,
    networks: Vec<AutonomousSystem>,
    read: Option<AsnRead>,
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsnRead {
    /// The file.
    pub path: PathBuf,
    /// When it was built: as its metadata or its `# Generated:` line say; of text without such a line, when
    /// the file was changed last.
    pub built: Timestamp,
    /// The kind of database, as its metadata say.
    pub database_type: String,
}

/// Why a database was refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the ASN database `{}`", path.display())]
pub struct AsnError {
    /// Its file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub reason: DatabaseFault,
}

impl fmt::Debug for AsnDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsnDatabase")
            .field("read", &self.read)
            .field("networks", &self.networks.len())
            .field("v4_ranges", &self.v4.len())
            .field("v6_ranges", &self.v6.len())
            .finish()
    }
}

/// The fields of a record that name a network, in all shapes that are around: `MaxMind`'s and DB-IP's
/// (`autonomous_system_number`, `autonomous_system_organization`), and `IPinfo`'s (`asn` like `AS15169`,
/// with `as_name` or `name`).
#[derive(Deserialize)]
struct AsnRecord {
    autonomous_system_number: Option<NumberField>,
    asn: Option<NumberField>,
    autonomous_system_organization: Option<NameField>,
    as_name: Option<NameField>,
    name: Option<NameField>,
    org: Option<NameField>,
    organization: Option<NameField>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberField {
    Number(u64),
    Text(String),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NameField {
    Text(String),
    Other(IgnoredAny),
}

/// The fields of a record that name a country, to tell what a database without networks is.
#[derive(Deserialize)]
struct AnyCountry {
    country: Option<IgnoredAny>,
    country_code: Option<IgnoredAny>,
}

impl AsnRecord {
    /// 0 when it has no number.
    fn number(&self) -> u32 {
        [&self.autonomous_system_number, &self.asn]
            .into_iter()
            .flatten()
            .find_map(|field| match field {
                NumberField::Number(number) => u32::try_from(*number).ok(),
                NumberField::Text(text) => number(text),
                NumberField::Other(_) => None,
            })
            .unwrap_or(0)
    }

    fn name(&self) -> &str {
        [&self.autonomous_system_organization, &self.as_name, &self.name, &self.org, &self.organization]
            .into_iter()
            .flatten()
            .find_map(|field| match field {
                NameField::Text(text) if !text.is_empty() => Some(text.as_str()),
                NameField::Text(_) | NameField::Other(_) => None,
            })
            .unwrap_or_default()
    }
}

/// `15169` or `AS15169`.
fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    let digits =
        text.get(..2).filter(|prefix| prefix.eq_ignore_ascii_case("AS")).map_or(text, |_| &text[2..]);
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A name in one line: without control characters and those that change the direction of text or cannot be
/// seen, with single spaces, cut after [`MAX_NAME`] characters.
fn cleaned(name: &str) -> String {
    let is_hidden = |c: &char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let words = name.split(char::is_whitespace).map(|word| word.chars().filter(|c| !is_hidden(c)).collect());
    let words: Vec<String> = words.filter(|word: &String| !word.is_empty()).collect();
    let line = words.join(" ");
    if line.chars().count() <= MAX_NAME {
        return line;
    }
    let kept: String = line.chars().take(MAX_NAME - 1).collect();
    format!("{}…", kept.trim_end())
}

/// The networks of a database while it is read, each number once.
#[derive(Default)]
struct AsNames {
    networks: Vec<AutonomousSystem>,
    /// By number.
    places: HashMap<u32, AsPlace>,
}

impl AsNames {
    /// The place of a network. It has the first name that the database gives it.
    fn place(&mut self, number: u32, name: &str) -> Result<AsPlace, DatabaseFault> {
        // AS 0 is no network: RFC 7607.
        if number == 0 {
            return Ok(0);
        }
        match self.places.entry(number) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(_) if self.networks.len() >= MAX_NETWORKS => {
                Err(DatabaseFault::TooManyNetworks { most: MAX_NETWORKS })
            }
            Entry::Vacant(new) => {
                let cleaned = cleaned(name);
                let name = if cleaned.is_empty() { format!("AS{number}") } else { cleaned };
                self.networks.push(AutonomousSystem { number, name: name.into() });
                Ok(*new.insert(self.networks.len() as AsPlace))
            }
        }
    }
}

impl AsnDatabase {
    /// No database: no source has a network.
    pub fn none() -> Self {
        Self::new(Builders::default().ranges(0), Vec::new(), None)
    }

    /// The database in a file, of both address families.
    ///
    /// # Errors
    ///
    /// The file cannot be read, changes meanwhile, is damaged, or names no networks.
    pub fn load(path: &Path) -> Result<Self, AsnError> {
        let fail = |reason| AsnError { path: path.to_owned(), reason };
        let bytes = file::read(path).map_err(fail)?;
        if text::is_text(&bytes) {
            // Before this there was a whole file, so there is a time.
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
            return Self::from_text(&bytes, path, modified.ok().and_then(|at| at.try_into().ok()))
                .map_err(fail);
        }
        Self::from_mmdb(bytes, path).map_err(fail)
    }

    /// The file's database, or none.
    ///
    /// # Errors
    ///
    /// As [`AsnDatabase::load`].
    pub fn open(path: Option<&Path>) -> Result<Self, AsnError> {
        path.map_or_else(|| Ok(Self::none()), Self::load)
    }

    fn new((v4, v6): Families<AsPlace>, networks: Vec<AutonomousSystem>, read: Option<AsnRead>) -> Self {
        Self { v4, v6, networks, read }
    }

    fn from_mmdb(bytes: Vec<u8>, path: &Path) -> Result<Self, DatabaseFault> {
        let mmdb = Mmdb::open(bytes)?;
        let mut register = AsNames::default();
        let (builders, has_any) =
            mmdb.networks(|record: AsnRecord| register.place(record.number(), record.name()))?;
        let Mmdb { built, ref database_type, .. } = mmdb;
        let database_type = database_type.clone();
        if !has_any {
            let is_country = |record: &AnyCountry| record.country.is_some() || record.country_code.is_some();
            return Err(DatabaseFault::NoNetworks { database_type, has_countries: mmdb.has(is_country) });
        }
        let read = AsnRead { path: path.to_owned(), built, database_type };
        Ok(Self::new(builders.ranges(0), register.networks, Some(read)))
    }

    fn from_text(bytes: &[u8], path: &Path, modified: Option<Timestamp>) -> Result<Self, DatabaseFault> {
        let mut register = AsNames::default();
        let mut text = Text::default();
        text.add(bytes, LINE, |fields| {
            let Some(number) = fields.first().and_then(|field| number(field)) else { return Ok(None) };
            register.place(number, fields.get(1).map_or("", AsRef::as_ref)).map(Some)
        })?;
        let database_type = "text".to_owned();
        if !text.has_any {
            return Err(DatabaseFault::NoNetworks { database_type, has_countries: false });
        }
        let built = text.generated.or(modified).ok_or(DatabaseFault::NoTime)?;
        let read = AsnRead { path: path.to_owned(), built, database_type };
        Ok(Self::new(text.builders.ranges(0), register.networks, Some(read)))
    }

    /// The file that was read; `None` without a database.
    pub fn read(&self) -> Option<&AsnRead> {
        self.read.as_ref()
    }

    /// Every network, each number once.
    pub fn networks(&self) -> &[AutonomousSystem] {
        &self.networks
    }

    /// The place of an IPv4 address.
    #[inline]
    pub fn v4(&self, address: u32) -> AsPlace {
        self.v4.get(address)
    }

    /// The place of an IPv6 address; of one that holds an IPv4 address, that one's.
    #[inline]
    pub fn v6(&self, address: u128) -> AsPlace {
        match special::embedded_v4(address) {
            Some(v4) => self.v4.get(v4),
            None => self.v6.get(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::tests_mmdb::{Value, database};
    use proptest::prelude::*;
    use std::error::Error as _;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn v4(text: &str) -> u128 {
        u32::from(text.parse::<Ipv4Addr>().unwrap()).into()
    }

    fn v6(text: &str) -> u128 {
        text.parse::<Ipv6Addr>().unwrap().into()
    }

    fn open(bytes: Vec<u8>) -> Result<AsnDatabase, DatabaseFault> {
        AsnDatabase::from_mmdb(bytes, Path::new("test.mmdb"))
    }

    fn text(lines: &str) -> Result<AsnDatabase, DatabaseFault> {
        AsnDatabase::from_text(lines.as_bytes(), Path::new("asn.csv"), Some(Timestamp::UNIX_EPOCH))
    }

    /// Number and name of an address's network.
    fn of(database: &AsnDatabase, address: &str) -> Option<(u32, String)> {
        let place = match address.parse().unwrap() {
            IpAddr::V4(address) => database.v4(address.into()),
            IpAddr::V6(address) => database.v6(address.into()),
        };
        let network = &database.networks()[place.checked_sub(1)? as usize];
        Some((network.number, network.name.to_string()))
    }

    fn named(number: u32, name: &str) -> (u32, String) {
        (number, name.to_owned())
    }

    fn maxmind(number: u32, name: &'static str) -> Value {
        Value::Map(vec![
            ("autonomous_system_number", Value::Number(number)),
            ("autonomous_system_organization", Value::Text(name)),
        ])
    }

    #[test]
    fn every_shape_of_record_names_its_network() {
        let ipinfo = |asn, key, name| {
            Value::Map(vec![("asn", asn), (key, Value::Text(name)), ("country", Value::Text("Japan"))])
        };
        let networks = [
            (v4("1.0.0.0"), 8, maxmind(2497, "IIJ Internet Initiative")),
            (v4("2.0.0.0"), 8, ipinfo(Value::Text("AS15169"), "as_name", "Google LLC")),
            (v4("3.0.0.0"), 8, ipinfo(Value::Number(16_509), "name", "Amazon.com, Inc.")),
            (v4("4.0.0.0"), 8, ipinfo(Value::Text("4294967295"), "org", "The last")),
            (v4("5.0.0.0"), 8, Value::Map(vec![("asn", Value::Number(64_500))])),
            (v4("6.0.0.0"), 8, maxmind(0, "not routed")),
            (v4("7.0.0.0"), 8, ipinfo(Value::Text(""), "as_name", "")),
            (v4("8.0.0.0"), 8, maxmind(2497, "another name")),
            (v4("9.0.0.0"), 8, ipinfo(Value::Text("AS9"), "name", "")),
            (v4("11.0.0.0"), 8, Value::Map(vec![("asn", Value::Number(11)), ("name", Value::Number(1))])),
        ];
        let database = open(database(32, "ASN", &networks, 1_700_000_000)).unwrap();
        assert_eq!(of(&database, "1.2.3.4"), Some(named(2497, "IIJ Internet Initiative")));
        assert_eq!(of(&database, "2.0.0.0"), Some(named(15_169, "Google LLC")));
        assert_eq!(of(&database, "3.255.255.255"), Some(named(16_509, "Amazon.com, Inc.")));
        assert_eq!(of(&database, "4.0.0.1"), Some(named(u32::MAX, "The last")));
        assert_eq!(of(&database, "5.0.0.1"), Some(named(64_500, "AS64500")));
        assert_eq!(
            [of(&database, "6.0.0.1"), of(&database, "7.0.0.1"), of(&database, "99.0.0.1")],
            [const { None }; 3]
        );
        assert_eq!(
            of(&database, "8.0.0.1"),
            Some(named(2497, "IIJ Internet Initiative")),
            "one number, one name"
        );
        assert_eq!(of(&database, "9.0.0.1"), Some(named(9, "AS9")));
        assert_eq!(of(&database, "11.0.0.1"), Some(named(11, "AS11")));
        assert_eq!(of(&database, "2600::1"), None, "an IPv4 database knows no IPv6 address");
        let read = database.read().unwrap();
        assert_eq!((read.built.as_second(), read.database_type.as_str()), (1_700_000_000, "ASN"));
    }

    #[test]
    fn ipv4_in_ipv6_trees_and_addresses_that_hold_ipv4_have_the_network_of_that() {
        let networks = [
            (v4("1.2.3.0"), 120, maxmind(1, "one")),
            (v6("2600::"), 16, maxmind(2, "two")),
            (v6("2002::"), 16, maxmind(3, "the relay")),
        ];
        let database = open(database(128, "ASN", &networks, 0)).unwrap();
        assert_eq!(of(&database, "1.2.3.4"), Some(named(1, "one")));
        assert_eq!(of(&database, "1.2.4.1"), None);
        assert_eq!(of(&database, "2600::1"), Some(named(2, "two")));
        assert_eq!(of(&database, "2002:102:304::1"), Some(named(1, "one")), "6to4 of 1.2.3.4");
    }

    #[test]
    fn what_cannot_come_from_the_internet_is_of_no_network() {
        let database = open(database(128, "ASN", &[(0, 1, maxmind(1, "all"))], 0)).unwrap();
        assert_eq!(of(&database, "1.2.3.4"), Some(named(1, "all")));
        for address in ["10.0.0.1", "192.0.2.1", "127.0.0.1", "::1", "2001:db8::1", "fe80::1"] {
            assert_eq!(of(&database, address), None, "{address}");
        }
    }

    #[test]
    fn text_of_ip_location_db_is_read() {
        let database = text(
            "1.0.0.0,1.0.0.255,13335,\"Cloudflare, Inc.\"\n16778240,16779263,38803,Gtelecom Pty Ltd\r\n\
             # Generated: Thu, 25 Jun 2026 04:33:59 GMT\n1.1.0.0,1.1.0.255,AS7\n\
             2001:200::,2001:200:1b9:ffff:ffff:ffff:ffff:ffff,2500,WIDE Project\n",
        )
        .unwrap();
        assert_eq!(of(&database, "1.0.0.255"), Some(named(13_335, "Cloudflare, Inc.")));
        assert_eq!(of(&database, "1.0.4.0"), Some(named(38_803, "Gtelecom Pty Ltd")));
        assert_eq!(of(&database, "1.1.0.1"), Some(named(7, "AS7")));
        assert_eq!(of(&database, "2001:200::7"), Some(named(2500, "WIDE Project")));
        assert_eq!(of(&database, "1.0.1.0"), None);
        assert_eq!(database.read().unwrap().built.to_string(), "2026-06-25T04:33:59Z");
        let undated = text("1,2,3,x\n").unwrap();
        assert_eq!(undated.read().unwrap().built, Timestamp::UNIX_EPOCH, "as old as the file");
    }

    #[test]
    fn other_kinds_of_database_are_refused_by_name() {
        let countries = [(v4("1.0.0.0"), 8, Value::Map(vec![("country_code", Value::Text("JP"))]))];
        let refused = |result: Result<AsnDatabase, DatabaseFault>| result.unwrap_err().to_string();
        assert_eq!(
            refused(open(database(32, "GeoLite2-Country", &countries, 0))),
            "it is of type `GeoLite2-Country` and none of its records has `autonomous_system_number` or `asn`; \
             it holds countries: name it with --geoip"
        );
        let domains = [(v4("1.0.0.0"), 8, Value::Map(vec![("domain", Value::Text("example.com"))]))];
        assert!(refused(open(database(32, "Domain", &domains, 0))).ends_with("`asn`; give an ASN database"));
        assert_eq!(refused(text("16777216,16777471,AU\n")), "line 1 is not `first,last,asn,name`");
        assert!(refused(text("# nothing\n1,2,0,none\n")).starts_with("it is of type `text` and none"));
        let error = AsnDatabase::load(Path::new("/nonexistent/a.mmdb")).unwrap_err();
        assert_eq!(error.to_string(), "cannot use the ASN database `/nonexistent/a.mmdb`");
        assert!(error.source().unwrap().to_string().starts_with("No such file"));
    }

    #[test]
    fn names_are_one_line_of_bounded_length() {
        assert_eq!(cleaned(" Example \t\r\n Net\u{0}work\u{1b}[31m\u{202e} "), "Example Network[31m");
        assert_eq!(cleaned("日本インターネット"), "日本インターネット");
        assert_eq!(cleaned("\u{7}\u{200b}"), "");
        let long = cleaned(&"é".repeat(65));
        assert_eq!((long.chars().count(), long.ends_with("é…")), (64, true));
        assert_eq!(cleaned(&"x".repeat(64)), "x".repeat(64));
    }

    proptest! {
        #[test]
        fn no_name_is_longer_or_has_what_a_terminal_obeys(name in any::<String>()) {
            let cleaned = cleaned(&name);
            prop_assert!(cleaned.chars().count() <= MAX_NAME);
            prop_assert!(!cleaned.chars().any(char::is_control));
            prop_assert_eq!(cleaned.trim(), cleaned.as_str());
            prop_assert_eq!(super::cleaned(&cleaned), cleaned.clone());
        }

        /// Against a search through all networks; they do not overlap.
        #[test]
        fn an_address_has_the_network_that_holds_it(
            networks in prop::collection::btree_map(256_u32..0xe000, 1..6_u32, 1..40),
            addresses in prop::collection::vec(any::<u32>(), 0..40),
        ) {
            let networks: Vec<(u32, u32)> = networks.into_iter().collect();
            let record = |&(network, number): &(u32, u32)| (u128::from(network) << 16, 16, maxmind(number, "x"));
            let records: Vec<_> = networks.iter().map(record).collect();
            let database = open(database(32, "ASN", &records, 0)).unwrap();
            let edges = networks.iter().flat_map(|&(network, _)| [network << 16, network << 16 | 0xffff]);
            for address in addresses.into_iter().chain(edges) {
                let is_special = special::v4().iter().any(|block| block.contains(&Ipv4Addr::from(address)));
                let holder = networks.iter().find(|(network, _)| *network == address >> 16 && !is_special);
                let found = database.v4(address).checked_sub(1).map(|at| database.networks()[at as usize].number);
                prop_assert_eq!(found, holder.map(|(_, number)| *number), "{}", Ipv4Addr::from(address));
            }
        }
    }
}
