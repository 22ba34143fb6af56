//! Databases as text, a range a line: `first,last,country`, addresses of IPv4 as numbers or dotted.
//!
//! Tor's `geoip` and `geoip6` are of this form. Debian keeps them up to date in the package `tor-geoipdb`.

use super::DatabaseFault;
use crate::country::Country;
use crate::ranges::RangesBuilder;
use jiff::Timestamp;
use std::net::{IpAddr, Ipv4Addr};

/// What the lines hold.
pub(super) struct Text {
    pub(super) v4: RangesBuilder<u32, Country>,
    pub(super) v6: RangesBuilder<u128, Country>,
    /// When the database was generated, as a comment says.
    generated: Option<Timestamp>,
    ranges: u64,
}

/// Whether these bytes are lines of text, not a database in `MaxMind`'s format.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    first.starts_with(b"#") || std::str::from_utf8(first).is_ok_and(|line| range(line).is_some())
}

impl Text {
    pub(super) fn new() -> Self {
        Self { v4: RangesBuilder::default(), v6: RangesBuilder::default(), generated: None, ranges: 0 }
    }

    /// Adds the lines of a file.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), DatabaseFault> {
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if let Some(comment) = line.strip_prefix(b"#") {
                let comment = std::str::from_utf8(comment).unwrap_or_default().trim();
                let time = comment.strip_prefix("Generated: ").map(jiff::fmt::rfc2822::parse);
                if let Some(Ok(time)) = time {
                    let time = time.timestamp();
                    self.generated = Some(self.generated.map_or(time, |before| before.min(time)));
                }
            } else if !line.is_empty() {
                let range = std::str::from_utf8(line).ok().and_then(range);
                let (first, last, country) = range.ok_or(DatabaseFault::Line { number: number + 1 })?;
                self.ranges += u64::from(country != Country::UNKNOWN);
                match (first, last) {
                    (IpAddr::V4(first), IpAddr::V4(last)) => {
                        self.v4.push_range(first.into(), last.into(), country);
                    }
                    (IpAddr::V6(first), IpAddr::V6(last)) => {
                        self.v6.push_range(first.into(), last.into(), country);
                    }
                    _ => return Err(DatabaseFault::Line { number: number + 1 }),
                }
            }
        }
        Ok(())
    }

    /// When it was generated, if it says so and has ranges.
    pub(super) fn built(&self) -> Result<Timestamp, DatabaseFault> {
        if self.ranges == 0 {
            return Err(DatabaseFault::NoCountries { database_type: "text".to_owned() });
        }
        self.generated.ok_or(DatabaseFault::NoTime)
    }
}

/// `first,last,country`; a country that is none is unknown.
fn range(line: &str) -> Option<(IpAddr, IpAddr, Country)> {
    let mut fields = line.trim_end().split(',').map(|field| field.trim_matches('"'));
    let (first, last, country) = (fields.next()?, fields.next()?, fields.next()?);
    let address = |field: &str| match field.parse::<u32>() {
        Ok(number) => Some(IpAddr::V4(Ipv4Addr::from(number))),
        Err(_) => field.parse().ok(),
    };
    let (first, last) = (address(first)?, address(last)?);
    let country = Country::from_code(country).unwrap_or(Country::UNKNOWN);
    (first <= last && fields.next().is_none()).then_some((first, last, country))
}
