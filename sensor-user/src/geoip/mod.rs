//! The country of a source address: from a database file in `MaxMind`'s format, or from the embedded
//! one.

mod embedded;
#[cfg(test)]
mod tests;
mod watcher;

pub use crate::database::DatabaseFault;
pub use crate::system::follow::ReadFault;
pub use watcher::{DatabaseFiles, Watcher};

use crate::country::{Country, Locate};
use crate::database::mmdb::Mmdb;
use crate::database::text::{self, Text};
use crate::database::{Families, file, special};
use embedded::Embedded;
use jiff::Timestamp;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a line of a text database is.
const LINE: &str = "first,last,country";

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

/// A country database: tells the country of an address in some ten nanoseconds. Of a file all is flattened
/// when it is read, of the embedded one each part when the first address in it is looked up.
///
/// What cannot come from the Internet is [`Country::PRIVATE`] whatever the database says, and an IPv6
/// address that holds an IPv4 address (6to4, Teredo, NAT64) is where that one is.
#[derive(Clone)]
pub struct GeoIp {
    countries: CountryTable,
    built: Timestamp,
    database_type: String,
    origin: DatabaseOrigin,
}

#[derive(Clone)]
enum CountryTable {
    /// Of a file.
    Flattened(Families<Country>),
    Embedded(Arc<Embedded>),
}

impl fmt::Debug for GeoIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("GeoIp");
        shown
            .field("origin", &self.origin)
            .field("database_type", &self.database_type)
            .field("built", &self.built);
        if let CountryTable::Flattened((v4, v6)) = &self.countries {
            shown.field("v4_ranges", &v4.len()).field("v6_ranges", &v6.len());
        }
        shown.finish()
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

/// The fields of a record that name a network, to tell what a database without countries is.
#[derive(Deserialize)]
struct NetworkRecord {
    autonomous_system_number: Option<serde::de::IgnoredAny>,
    asn: Option<serde::de::IgnoredAny>,
}

/// Ranges of both families, when they were made, and the database's kind.
type Flattened = (Families<Country>, Timestamp, String);

impl GeoIp {
    /// The embedded database.
    ///
    /// # Errors
    ///
    /// None in a binary that passed its tests.
    pub fn embedded() -> Result<Self, GeoIpError> {
        let origin = DatabaseOrigin::Embedded;
        match Embedded::open() {
            Ok(embedded) => Ok(Self {
                built: embedded.built(),
                countries: CountryTable::Embedded(Arc::new(embedded)),
                database_type: "text".to_owned(),
                origin,
            }),
            Err(reason) => Err(GeoIpError { origin, reason }),
        }
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
        let mut text = Text::default();
        add_lines(&mut text, &bytes).map_err(on(path))?;
        let ipv6 = file::of_ipv6(path);
        if let Some(bytes) = file::read_if_there(&ipv6).map_err(on(&ipv6))? {
            add_lines(&mut text, &bytes).map_err(on(&ipv6))?;
        }
        Self::new(flatten_text(text), DatabaseOrigin::File(path.to_owned()))
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
        Self::new(flatten_mmdb(bytes), origin)
    }

    fn new(flattened: Result<Flattened, DatabaseFault>, origin: DatabaseOrigin) -> Result<Self, GeoIpError> {
        match flattened {
            Ok((families, built, database_type)) => {
                Ok(Self { countries: CountryTable::Flattened(families), built, database_type, origin })
            }
            Err(reason) => Err(GeoIpError { origin, reason }),
        }
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
        match &self.countries {
            CountryTable::Flattened((v4, _)) => v4.get(address),
            CountryTable::Embedded(embedded) => embedded.v4(address),
        }
    }

    fn v6(&self, address: u128) -> Country {
        match (special::embedded_v4(address), &self.countries) {
            (Some(v4), _) => self.v4(v4),
            (None, CountryTable::Flattened((_, v6))) => v6.get(address),
            (None, CountryTable::Embedded(embedded)) => embedded.v6(address),
        }
    }
}

/// Adds lines; a country that is none is unknown.
fn add_lines(text: &mut Text<Country>, bytes: &[u8]) -> Result<(), DatabaseFault> {
    text.add(bytes, LINE, |fields| {
        let [country] = fields else { return Ok(None) };
        Ok(Some(Country::from_code(country).unwrap_or(Country::UNKNOWN)))
    })
}

fn flatten_text(text: Text<Country>) -> Result<Flattened, DatabaseFault> {
    let database_type = "text".to_owned();
    if !text.has_any {
        return Err(DatabaseFault::NoCountries { database_type, has_networks: false });
    }
    let built = text.generated.ok_or(DatabaseFault::NoTime)?;
    Ok((text.builders.ranges(Country::PRIVATE), built, database_type))
}

fn flatten_mmdb(bytes: Vec<u8>) -> Result<Flattened, DatabaseFault> {
    let mmdb = Mmdb::open(bytes)?;
    let country = |record: CountryRecord| Ok(record.country().unwrap_or(Country::UNKNOWN));
    let (builders, has_any) = mmdb.networks(country)?;
    if !has_any {
        let has_networks = mmdb
            .has(|record: &NetworkRecord| record.autonomous_system_number.is_some() || record.asn.is_some());
        return Err(DatabaseFault::NoCountries { database_type: mmdb.database_type, has_networks });
    }
    Ok((builders.ranges(Country::PRIVATE), mmdb.built, mmdb.database_type))
}
