//! Names of the archive's directories and files, which say what is in them.
//!
//! `day=2026-11-29/sensor=NAME/h13-00c0ffee00c0ffee-000000000017-000000000042.parquet` has what the commits 17
//! to 42 of the ledger with that identity counted in hour 13 of that day. So a file is recognised that holds
//! what the ledger never committed, and one whose rows another holds as well.

use jiff::civil::Date;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// Where the archive keeps what is no part of it, in its own directory.
pub(super) const WORK: &str = ".teiten";

/// The longest part of a path that file systems take is 255 bytes; `sensor=` and the end of a shortened one
/// need some.
const LONGEST: usize = 200;

/// Bytes that stand for themselves in the name of a directory.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// A sensor's name as part of a path: other bytes than letters, digits, `.`, `-` and `_` as `%2F`, as Hive
/// writes them. What gets too long ends in `~` and a part of the name's SHA-256.
pub(super) fn encoded(sensor: &str) -> String {
    let mut encoded = String::new();
    // What Hive takes for no value is a name here.
    let is_null = sensor.starts_with("__HIVE_DEFAULT_PARTITION__");
    for character in sensor.chars() {
        let before = encoded.len();
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            if is_plain(byte) && !(is_null && byte == b'_') {
                encoded.push(byte.into());
            } else {
                // Into memory.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        if encoded.len() > LONGEST {
            encoded.truncate(before);
            let hash = Sha256::digest(sensor.as_bytes());
            encoded.push('~');
            encoded.extend(hash[..8].iter().map(|byte| format!("{byte:02x}")));
            break;
        }
    }
    encoded
}

/// The directory of a day.
pub(super) fn day_dir(archive: &Path, day: Date) -> PathBuf {
    archive.join(format!("day={day}"))
}

/// The directory of a day and a sensor; `sensor` is [`encoded`].
pub(super) fn sensor_dir(archive: &Path, day: Date, sensor: &str) -> PathBuf {
    day_dir(archive, day).join(format!("sensor={sensor}"))
}

/// The day of a directory's name.
pub(super) fn day_of(name: &str) -> Option<Date> {
    let text = name.strip_prefix("day=")?;
    let day: Date = text.parse().ok()?;
    // No other way to write the same day.
    (day.to_string() == text).then_some(day)
}

/// What a file holds, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileName {
    /// The local hour of all its rows.
    pub(super) hour: u8,
    /// Identity of the ledger.
    pub(super) ledger: u64,
    /// The commits: each of them that counted in this hour, and no other, is in the file.
    pub(super) first: u64,
    pub(super) last: u64,
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hour, ledger, first, last } = self;
        write!(f, "h{hour:02}-{ledger:016x}-{first:012}-{last:012}.parquet")
    }
}

impl FileName {
    /// `None` for whatever else is there.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix('h')?.strip_suffix(".parquet")?.split('-');
        let mut part = || parts.next();
        let found = Self {
            hour: part()?.parse().ok()?,
            ledger: u64::from_str_radix(part()?, 16).ok()?,
            first: part()?.parse().ok()?,
            last: part()?.parse().ok()?,
        };
        (found.hour < 24 && found.first <= found.last && found.to_string() == name).then_some(found)
    }

    /// Whether it holds what one commit counted.
    pub(super) fn is_single(&self) -> bool {
        self.first == self.last
    }

    /// Whether every row of `other`, of the same day and sensor, is in this one too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self != other
            && self.hour == other.hour
            && self.ledger == other.ledger
            && self.first <= other.first
            && other.last <= self.last
    }
}

/// The names of a directory that count, and those whose rows others hold: an archive whose compaction was
/// interrupted on a file system that cannot exchange directories has such.
pub(super) fn without_covered(names: impl IntoIterator<Item = FileName>) -> (Vec<FileName>, Vec<FileName>) {
    let mut by_hour: BTreeMap<(u8, u64), Vec<FileName>> = BTreeMap::new();
    for name in names {
        by_hour.entry((name.hour, name.ledger)).or_default().push(name);
    }
    let (mut kept, mut covered) = (Vec::new(), Vec::new());
    for (_, mut names) in by_hour {
        // The widest that begin at the same commit first.
        names.sort_unstable_by_key(|name| (name.first, std::cmp::Reverse(name.last)));
        let mut widest: Option<FileName> = None;
        for name in names {
            if widest.is_some_and(|widest| widest.covers(&name)) {
                covered.push(name);
            } else {
                kept.push(name);
                widest = widest.filter(|widest| widest.last >= name.last).or(Some(name));
            }
        }
    }
    kept.sort_unstable_by_key(|name| (name.hour, name.ledger, name.first));
    (kept, covered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(hour: u8, first: u64, last: u64) -> FileName {
        FileName { hour, ledger: 0x00c0_ffee, first, last }
    }

    #[test]
    fn a_name_says_what_a_file_holds() {
        let text = "h13-0000000000c0ffee-000000000017-000000000042.parquet";
        assert_eq!(name(13, 17, 42).to_string(), text);
        assert_eq!(FileName::parse(text), Some(name(13, 17, 42)));
        for other in [
            "h24-0000000000c0ffee-000000000017-000000000042.parquet",
            "h13-0000000000c0ffee-000000000043-000000000042.parquet",
            "h13-c0ffee-000000000017-000000000042.parquet",
            "h13-0000000000c0ffee-000000000017-000000000042.parquet.part",
            "h13-0000000000c0ffee-000000000017.parquet",
            "data.parquet",
            "",
        ] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_another_file_holds_does_not_count() {
        let names =
            [name(1, 5, 9), name(1, 6, 6), name(1, 9, 9), name(1, 10, 10), name(2, 7, 7), name(1, 4, 4)];
        let (kept, covered) = without_covered(names);
        assert_eq!(kept, [name(1, 4, 4), name(1, 5, 9), name(1, 10, 10), name(2, 7, 7)]);
        assert_eq!(covered, [name(1, 6, 6), name(1, 9, 9)]);
        let other = FileName { ledger: 1, ..name(1, 6, 6) };
        assert_eq!(without_covered([name(1, 5, 9), other]).1, []);
    }

    #[test]
    fn days_are_written_in_one_way() {
        assert_eq!(day_of("day=2026-11-29"), Some(jiff::civil::date(2026, 11, 29)));
        for other in ["day=2026-1-29", "day=20261129", "2026-11-29", "day=2026-11-29T00:00", "day="] {
            assert_eq!(day_of(other), None, "{other}");
        }
    }

    #[test]
    fn hostile_names_stay_within_one_directory() {
        assert_eq!(encoded("tokyo-1.example"), "tokyo-1.example");
        assert_eq!(encoded("../../etc/passwd"), "..%2F..%2Fetc%2Fpasswd");
        assert_eq!(encoded("a=b%2F c"), "a%3Db%252F%20c");
        assert_eq!(encoded("東"), "%E6%9D%B1");
        assert_eq!(encoded("__HIVE_DEFAULT_PARTITION__"), "%5F%5FHIVE%5FDEFAULT%5FPARTITION%5F%5F");
        let (a, b) = (encoded(&"東".repeat(128)), encoded(&("東".repeat(127) + "京")));
        assert!(a != b && a.len() < 230 && a.starts_with("%E6%9D%B1"), "{a}");
    }

    /// As readers of partitions do it.
    fn decoded(encoded: &str) -> String {
        let mut bytes = Vec::with_capacity(encoded.len());
        let mut rest = encoded.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let hex = (byte == b'%').then(|| std::str::from_utf8(&after[..2]).unwrap());
            bytes.push(hex.map_or(byte, |hex| u8::from_str_radix(hex, 16).unwrap()));
            rest = if hex.is_some() { &after[2..] } else { after };
        }
        String::from_utf8(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn names_come_back(sensor in "\\PC{1,20}") {
            let encoded = encoded(&sensor);
            prop_assert!(encoded.bytes().all(|byte| is_plain(byte) || byte == b'%'));
            prop_assert_eq!(decoded(&encoded), sensor);
        }

        /// Whatever was compacted, each commit is in one file that counts.
        #[test]
        fn each_commit_counts_once(cuts in prop::collection::vec(1_u64..30, 0..6), singles in 1_u64..30) {
            let mut names: Vec<FileName> = (1..=singles).map(|at| name(3, at, at)).collect();
            let mut at = 1;
            for cut in cuts {
                if at + cut <= singles {
                    names.push(name(3, at, at + cut));
                }
                at += cut + 1;
            }
            let (kept, _) = without_covered(names);
            let commits: Vec<u64> = kept.iter().flat_map(|name| name.first..=name.last).collect();
            prop_assert_eq!(commits, (1..=singles).collect::<Vec<_>>());
        }
    }
}
