//! The country of each source that was sent, by the sensor's own database and without its code.

use crate::geoip;
use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use lab::command;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::thread::JoinHandle;

/// The database that a `teiten` of this checkout carries inside it.
const DATABASE: &str = "sensor-user/geoip/country.txt.zst";

/// Blocks between 1.0.0.0 and 223.255.255.255 that are not reachable from the Internet (IANA's
/// special-purpose registry): sources that a flood makes up can lie in them.
const PRIVATE: [&str; 11] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
];

/// The text of a database, whose ranges [`Database::locate`] looks addresses up in.
pub(super) struct Database {
    text: String,
}

impl Database {
    /// Starts to read the database on another thread: it has a million lines.
    pub(super) fn load() -> JoinHandle<Result<Self>> {
        std::thread::spawn(|| Self::read(&command::root().join(DATABASE)))
    }

    fn read(path: &Path) -> Result<Self> {
        let compressed = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let text = zstd::stream::decode_all(&compressed[..])
            .with_context(|| format!("decompress {}", path.display()))?;
        Ok(Self { text: String::from_utf8(text).with_context(|| format!("read {}", path.display()))? })
    }

    /// When it was built, in seconds since 1970.
    pub(super) fn built(&self) -> Result<u64> {
        let built = self.text.lines().find_map(|line| line.strip_prefix("# Generated: "));
        let built: Timestamp =
            jiff::fmt::rfc2822::parse(built.context("find when it was built")?)?.timestamp();
        Ok(built.as_second() as u64)
    }

    /// Accesses by the value of the `country` label.
    pub(super) fn locate(&self, sources: &HashMap<IpAddr, u64>) -> Result<BTreeMap<String, u64>> {
        let ranges = geoip::parse(&self.text)?;
        let private: Vec<Ipv4Net> = PRIVATE.map(|block| block.parse().expect("a prefix")).to_vec();
        let mut accesses = BTreeMap::new();
        for (source, count) in sources {
            let country = match source {
                IpAddr::V4(address) if private.iter().any(|block| block.contains(address)) => "private",
                // Asia/Pacific is a region, no country.
                _ => geoip::country_of(&ranges, *source).filter(|code| *code != "AP").unwrap_or("unknown"),
            };
            *accesses.entry(country.to_owned()).or_default() += count;
        }
        Ok(accesses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_the_country_of_its_range_or_a_word() {
        let database = Database {
            text:
                "# Generated: Thu, 25 Jun 2026 04:33:59 GMT\n16777216,16777471,AU\n167772160,184549375,US\n\
                   2001:200::,2001:200:ffff::,JP\n2001:300::,2001:300::,AP\n"
                    .to_owned(),
        };
        assert_eq!(database.built().unwrap(), 1_782_362_039);
        let sources = [
            ("1.0.0.0", 1),
            ("1.0.0.255", 2),
            ("1.0.1.0", 4),
            ("10.0.0.1", 8),
            ("2001:200::1", 16),
            ("2001:300::", 32),
        ];
        let sources = sources.map(|(address, count)| (address.parse().unwrap(), count)).into();
        let expected = [("AU", 3), ("JP", 16), ("private", 8), ("unknown", 36)];
        assert_eq!(
            database.locate(&sources).unwrap(),
            expected.map(|(country, count)| (country.to_owned(), count)).into()
        );
    }
}
