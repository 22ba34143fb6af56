//! The country of a source address: from a database file in `MaxMind`'s format, or from the embedded
//! one.
//!
//! A database is read into memory as a whole (a file that is overwritten in place would crash a
//! reader that maps it), walked once from end to end, and flattened into sorted ranges. So a lookup
//! is a search in a few neighbouring numbers, and damage is found when a database is loaded, not at a
//! lookup.

mod embedded;
mod file;
mod special;
#[cfg(test)]
mod tests;
mod text;
mod watcher;

pub use watcher::{DatabaseFiles, Watcher};

use crate::country::{Country, Locate};
use crate::ranges::{Ranges, RangesBuilder};
use embedded::Embedded;
use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use maxminddb::{MaxMindDbError, Reader, WithinOptions};
use serde::Deserialize;
use std::collections::hash_map::{Entry, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use text::Text;

/// Bytes that a database file may have; country databases are far smaller.
const MAX_BYTES: u64 = 1 << 30;

/// Where a database came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseOrigin {
    /// The binary.
    Embedded,
    /// A file.
    File(PathBuf),
}

impl fmt::Display for DatabaseOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("the embedded country database"),
            Self::File(path) => write!(f, "the country database `{}`", path.display()),
        }
    }
}

/// Why a database was refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {origin}")]
pub struct GeoIpError {
    /// The database.
    pub origin: DatabaseOrigin,
    /// What is wrong with it.
    #[source]
    pub reason: DatabaseFault,
}

/// What is wrong with a database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseFault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file system does not answer.
    #[error("its file system has not answered for {seconds} s; is it a network that is down?")]
    Silent {
        /// Since when.
        seconds: u64,
    },
    /// It was written during the read.
    #[error("the file changed while it was read; replace it by renaming a finished file over it")]
    Changing,
    /// It is too large.
    #[error("it has {bytes} bytes; a country database has at most {MAX_BYTES}")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
    },
    /// The format is violated.
    #[error("it is truncated, damaged, or not in MaxMind's format")]
    Damaged(#[from] MaxMindDbError),
    /// The tree of networks has more leaves than nodes, so it is none.
    #[error("it is damaged: its search tree of {nodes} nodes contains a cycle")]
    NotATree {
        /// Nodes, as its metadata say.
        nodes: u32,
    },
    /// The metadata's build time cannot be represented.
    #[error("it is damaged: invalid build_epoch {epoch}")]
    BuildTime {
        /// As the metadata say.
        epoch: u64,
    },
    /// A line of a text database that cannot be parsed.
    #[error("line {number} is not `first,last,country`")]
    Line {
        /// From 1.
        number: usize,
    },
    /// A text database does not say when it was made.
    #[error("its age is unknown: it has no line like `# Generated: Thu, 25 Jun 2026 04:33:59 GMT`")]
    NoTime,
    /// It is another kind of database.
    #[error(
        "it is of type `{database_type}` and none of its records has `country.iso_code` or `country_code`; \
         give a country or city database"
    )]
    NoCountries {
        /// As its metadata say.
        database_type: String,
    },
}

/// A country database, flattened: tells the country of an address in some ten nanoseconds.
///
/// What cannot come from the Internet is [`Country::PRIVATE`] whatever the database says, and an IPv6
/// address that holds an IPv4 address (6to4, Teredo, NAT64) is where that one is.
#[derive(Clone)]
pub struct GeoIp {
    v4: Ranges<u32, Country>,
    v6: Ranges<u128, Country>,
    built: Timestamp,
    database_type: String,
    origin: DatabaseOrigin,
}

impl fmt::Debug for GeoIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoIp")
            .field("origin", &self.origin)
            .field("database_type", &self.database_type)
            .field("built", &self.built)
            .field("v4_ranges", &self.v4.len())
            .field("v6_ranges", &self.v6.len())
            .finish()
    }
}

/// The fields of a record that name a country, in all shapes that are around.
#[derive(Deserialize)]
struct CountryRecord {
    country: Option<CountryField>,
    country_code: Option<String>,
    registered_country: Option<CountryField>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CountryField {
    Record { iso_code: Option<String> },
    Text(String),
}

impl CountryField {
    fn code(&self) -> Option<&str> {
        match self {
            Self::Record { iso_code } => iso_code.as_deref(),
            Self::Text(text) => Some(text),
        }
    }
}

impl CountryRecord {
    /// `registered_country` is where the network is registered: the second best, for networks whose
    /// place `MaxMind` does not know.
    fn country(&self) -> Option<Country> {
        [
            self.country.as_ref().and_then(CountryField::code),
            self.country_code.as_deref(),
            self.registered_country.as_ref().and_then(CountryField::code),
        ]
        .into_iter()
        .flatten()
        .find_map(Country::from_code)
    }
}

/// Ranges of both families, when they were made, and the database's kind.
type Flattened = (Ranges<u32, Country>, Ranges<u128, Country>, Timestamp, String);

impl GeoIp {
    /// The embedded database.
    ///
    /// # Errors
    ///
    /// None in a binary that passed its tests.
    pub fn embedded() -> Result<Self, GeoIpError> {
        let flattened = embedded::read().map(|Embedded { v4, v6, built }| {
            let (v4, v6) = Self::ranges(v4, v6);
            (v4, v6, built, "text".to_owned())
        });
        Self::new(flattened, DatabaseOrigin::Embedded)
    }

    /// The database in a file. When it is text, the IPv6 ranges may be in `FILE6`.
    ///
    /// # Errors
    ///
    /// A file cannot be read, changes meanwhile, is damaged, or names no countries.
    pub fn load(path: &Path) -> Result<Self, GeoIpError> {
        let on = |path: &Path| {
            let origin = DatabaseOrigin::File(path.to_owned());
            move |reason| GeoIpError { origin, reason }
        };
        let bytes = file::read(path).map_err(on(path))?;
        if !text::is_text(&bytes) {
            return Self::from_mmdb(bytes, DatabaseOrigin::File(path.to_owned()));
        }
        let mut text = Text::new();
        text.add(&bytes).map_err(on(path))?;
        let ipv6 = file::of_ipv6(path);
        if let Some(bytes) = file::read_if_there(&ipv6).map_err(on(&ipv6))? {
            text.add(&bytes).map_err(on(&ipv6))?;
        }
        Self::new(Self::flatten_text(text), DatabaseOrigin::File(path.to_owned()))
    }

    /// The file's database, or the embedded one.
    ///
    /// # Errors
    ///
    /// As [`GeoIp::load`].
    pub fn open(path: Option<&Path>) -> Result<Self, GeoIpError> {
        path.map_or_else(Self::embedded, Self::load)
    }

    /// A database in `MaxMind`'s format.
    fn from_mmdb(bytes: Vec<u8>, origin: DatabaseOrigin) -> Result<Self, GeoIpError> {
        Self::new(Self::flatten_mmdb(bytes), origin)
    }

    fn new(flattened: Result<Flattened, DatabaseFault>, origin: DatabaseOrigin) -> Result<Self, GeoIpError> {
        match flattened {
            Ok((v4, v6, built, database_type)) => Ok(Self { v4, v6, built, database_type, origin }),
            Err(reason) => Err(GeoIpError { origin, reason }),
        }
    }

    fn flatten_text(text: Text) -> Result<Flattened, DatabaseFault> {
        let built = text.built()?;
        let (v4, v6) = Self::ranges(text.v4, text.v6);
        Ok((v4, v6, built, "text".to_owned()))
    }

    fn ranges(
        v4: RangesBuilder<u32, Country>,
        v6: RangesBuilder<u128, Country>,
    ) -> (Ranges<u32, Country>, Ranges<u128, Country>) {
        let special =
            |network: &Ipv4Net| (u32::from(network.network()), network.prefix_len(), Country::PRIVATE);
        let v4 = v4.build(special::v4().iter().map(special));
        let special =
            |network: &Ipv6Net| (u128::from(network.network()), network.prefix_len(), Country::PRIVATE);
        let v6 = v6.build(special::v6().iter().map(special));
        (v4, v6)
    }

    fn flatten_mmdb(bytes: Vec<u8>) -> Result<Flattened, DatabaseFault> {
        let reader = Reader::from_source(bytes)?;
        let metadata = reader.metadata();
        let built = i64::try_from(metadata.build_epoch)
            .ok()
            .and_then(|epoch| Timestamp::from_second(epoch).ok())
            .ok_or(DatabaseFault::BuildTime { epoch: metadata.build_epoch })?;
        let database_type = metadata.database_type.clone();

        let mut v4 = RangesBuilder::default();
        let mut v6 = RangesBuilder::default();
        let mut records = HashMap::new();
        // Neighbours are often of the same country.
        let mut last = None;
        // A tree of n nodes has n + 1 leaves, and IPv4's can be reached as up to four aliases too. In a
        // damaged file nodes can be reached over many paths, up to 2^128 of them. The reader leaves
        // aliases out when asked, but then goes through those paths on its own, uncounted.
        let mut leaves = (u64::from(metadata.node_count) + 1) * 5;
        let everything = WithinOptions::default().include_networks_without_data().include_aliased_networks();
        for leaf in reader.networks(everything)? {
            let leaf = leaf?;
            leaves = leaves.checked_sub(1).ok_or(DatabaseFault::NotATree { nodes: metadata.node_count })?;
            // Where no network is, nothing is known.
            let Some(offset) = leaf.offset() else { continue };
            let country = match last {
                Some((known, country)) if known == offset => country,
                _ => match records.entry(offset) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        let country = leaf.decode::<CountryRecord>()?.and_then(|record| record.country());
                        *new.insert(country.unwrap_or(Country::UNKNOWN))
                    }
                },
            };
            last = Some((offset, country));
            let network = leaf.network()?;
            match network.ip() {
                IpAddr::V4(address) => v4.push(u32::from(address), network.prefix(), country),
                // Where `v4` or the special blocks decide.
                IpAddr::V6(address)
                    if special::embedded_v4(address.into()).is_some()
                        || address.to_ipv4_mapped().is_some() => {}
                IpAddr::V6(address) => {
                    v6.push(u128::from(address), network.prefix(), country);
                    // A network around ::/96, where databases keep IPv4, is all of IPv4.
                    if address.is_unspecified() && network.prefix() <= 96 {
                        v4.push(0, 0, country);
                    }
                }
            }
        }
        if records.values().all(|&country| country == Country::UNKNOWN) {
            return Err(DatabaseFault::NoCountries { database_type });
        }
        let (v4, v6) = Self::ranges(v4, v6);
        Ok((v4, v6, built, database_type))
    }

    /// When the database was built, as its metadata say: `teiten_geoip_build_timestamp_seconds`.
    pub fn built(&self) -> Timestamp {
        self.built
    }

    /// The database's kind, as its metadata say.
    pub fn database_type(&self) -> &str {
        &self.database_type
    }

    /// Label `source` of `teiten_geoip_info`.
    pub fn source(&self) -> &'static str {
        match self.origin {
            DatabaseOrigin::Embedded => "embedded",
            DatabaseOrigin::File(_) => "file",
        }
    }

    /// Where the database came from.
    pub fn origin(&self) -> &DatabaseOrigin {
        &self.origin
    }
}

impl Locate for GeoIp {
    fn v4(&self, address: u32) -> Country {
        self.v4.get(address)
    }

    fn v6(&self, address: u128) -> Country {
        match special::embedded_v4(address) {
            Some(v4) => self.v4.get(v4),
            None => self.v6.get(address),
        }
    }
}
