//! Databases of addresses: files in `MaxMind`'s format or of text, read as a whole and flattened into
//! sorted ranges.
//!
//! A database is read into memory as a whole (a file that is overwritten in place would crash a
//! reader that maps it), walked once from end to end, and flattened. So a lookup is a search in a few
//! neighbouring numbers, and damage is found when a database is loaded, not at a lookup.
//!
//! What cannot come from the Internet has one value whatever a database says, and an IPv6 address that
//! holds an IPv4 address (6to4, Teredo, NAT64) has what that one has.

pub(crate) mod file;
pub(crate) mod mmdb;
pub(crate) mod special;
#[cfg(test)]
pub(crate) mod tests_mmdb;
pub(crate) mod text;

use crate::ranges::{Ranges, RangesBuilder, Value};
use crate::system::follow::ReadFault;
use maxminddb::MaxMindDbError;

/// Bytes that a database file may have; those of countries and networks are far smaller.
const MAX_BYTES: u64 = 1 << 30;

/// What is wrong with a database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseFault {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// It is too large.
    #[error("it has {bytes} bytes; such a database has at most {MAX_BYTES}")]
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
    #[error("line {number} is not `{form}`")]
    Line {
        /// From 1.
        number: usize,
        /// What a line is.
        form: &'static str,
    },
    /// A text database does not say when it was made.
    #[error("its age is unknown: it has no line like `# Generated: Thu, 25 Jun 2026 04:33:59 GMT`")]
    NoTime,
    /// It is another kind of database.
    #[error(
        "it is of type `{database_type}` and none of its records has `country.iso_code` or `country_code`; {}",
        if *.has_networks { "it holds networks: name it with --asn" } else { "give a country or city database" }
    )]
    NoCountries {
        /// As its metadata say.
        database_type: String,
        /// Whether its records have numbers of autonomous systems.
        has_networks: bool,
    },
    /// It is another kind of database.
    #[error(
        "it is of type `{database_type}` and none of its records has `autonomous_system_number` or `asn`; {}",
        if *.has_countries { "it holds countries: name it with --geoip" } else { "give an ASN database" }
    )]
    NoNetworks {
        /// As its metadata say.
        database_type: String,
        /// Whether its records have countries.
        has_countries: bool,
    },
    /// More than there can be.
    #[error("it names more than {most} networks; there are about 120,000")]
    TooManyNetworks {
        /// How many are taken.
        most: usize,
    },
}

impl From<std::io::Error> for DatabaseFault {
    fn from(error: std::io::Error) -> Self {
        ReadFault::Io(error).into()
    }
}

/// Ranges of both families.
pub(crate) type Families<V> = (Ranges<u32, V>, Ranges<u128, V>);

/// The networks of a database while it is read.
pub(crate) struct Builders<V> {
    /// IPv4 addresses.
    pub(crate) v4: RangesBuilder<u32, V>,
    /// IPv6 addresses.
    pub(crate) v6: RangesBuilder<u128, V>,
}

impl<V> Default for Builders<V> {
    fn default() -> Self {
        Self { v4: RangesBuilder::default(), v6: RangesBuilder::default() }
    }
}

impl<V: Value> Builders<V> {
    /// The ranges; what cannot come from the Internet has `special`.
    pub(crate) fn ranges(self, special: V) -> Families<V> {
        (self.v4.build(special_v4(special)), self.v6.build(special_v6(special)))
    }
}

/// What of IPv4 cannot come from the Internet, with a value for it.
pub(crate) fn special_v4<V: Value>(special: V) -> impl Iterator<Item = (u32, u8, V)> {
    special::v4().into_iter().map(move |block| (u32::from(block.network()), block.prefix_len(), special))
}

/// What of IPv6 cannot come from the Internet, with a value for it.
pub(crate) fn special_v6<V: Value>(special: V) -> impl Iterator<Item = (u128, u8, V)> {
    special::v6().into_iter().map(move |block| (u128::from(block.network()), block.prefix_len(), special))
}
