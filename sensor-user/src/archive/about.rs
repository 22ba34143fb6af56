//! What a file says of itself, and how that of several files becomes that of one.

use super::name::FileName;
use super::schema::{VERSION, key};
use crate::observation::spans::Spans;
use jiff::Timestamp;
use jiff::civil::Date;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Metadata of a file, without rows and packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    pub(super) sensor: String,
    pub(super) timezones: BTreeSet<String>,
    /// Numbers of the generations that a kernel counted, each up to the next number.
    pub(super) generations: Spans,
    /// Time of observation.
    pub(super) observed: Duration,
    /// Stretches that were observed, nanoseconds since the epoch.
    pub(super) spans: Spans,
    /// Programs that wrote it, with their revisions.
    pub(super) programs: BTreeSet<String>,
    /// Databases and lists that its sources were looked up in, with what tells their state.
    pub(super) databases: BTreeMap<String, BTreeSet<String>>,
}

/// Texts of a list in the metadata.
fn lines(texts: &BTreeSet<String>) -> String {
    texts.iter().cloned().collect::<Vec<_>>().join(", ")
}

impl About {
    /// Adds what another file says.
    pub(super) fn merge(&mut self, other: Self) {
        self.sensor = other.sensor;
        self.timezones.extend(other.timezones);
        self.generations.extend(&other.generations);
        self.observed += other.observed;
        self.spans.extend(&other.spans);
        self.programs.extend(other.programs);
        for (name, versions) in other.databases {
            self.databases.entry(name).or_default().extend(versions);
        }
    }

    /// The key-value pairs of a file.
    pub(super) fn pairs(
        &self,
        day: Date,
        name: FileName,
        rows: u64,
        packets: u64,
    ) -> Vec<(&'static str, String)> {
        let instant = |nanos| {
            Timestamp::from_nanosecond(i128::from(nanos)).map(|at| at.to_string()).unwrap_or_default()
        };
        let spans: Vec<[String; 2]> =
            self.spans.iter().map(|(begin, end)| [instant(begin), instant(end)]).collect();
        let ranges: Vec<String> = self
            .generations
            .iter()
            .map(
                |(first, end)| {
                    if first + 1 == end { first.to_string() } else { format!("{first}-{}", end - 1) }
                },
            )
            .collect();
        vec![
            (key::SCHEMA, VERSION.to_owned()),
            (key::SENSOR, self.sensor.clone()),
            (key::TIMEZONE, lines(&self.timezones)),
            (key::DAY, day.to_string()),
            (key::HOUR, name.hour.to_string()),
            (key::LEDGER, format!("{:016x}", name.ledger)),
            (key::COMMITS, format!("{}-{}", name.first, name.last)),
            (key::GENERATIONS, ranges.join(",")),
            (key::ROWS, rows.to_string()),
            (key::PACKETS, packets.to_string()),
            (
                key::OBSERVED_SECONDS,
                format!("{}.{:09}", self.observed.as_secs(), self.observed.subsec_nanos()),
            ),
            (key::OBSERVED, serde_json::to_string(&spans).unwrap_or_default()),
            (key::PROGRAM, lines(&self.programs)),
            (key::DATABASES, serde_json::to_string(&self.databases).unwrap_or_default()),
        ]
    }

    /// What a file says; what it lacks, or says in another way, is left out.
    pub(super) fn of(metadata: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| metadata.get(key).map_or("", String::as_str);
        let set = |key: &str| text(key).split(", ").filter(|it| !it.is_empty()).map(str::to_owned).collect();
        let mut about = Self {
            sensor: text(key::SENSOR).to_owned(),
            timezones: set(key::TIMEZONE),
            programs: set(key::PROGRAM),
            databases: serde_json::from_str(text(key::DATABASES)).unwrap_or_default(),
            ..Self::default()
        };
        if let Some((seconds, nanos)) = text(key::OBSERVED_SECONDS).split_once('.')
            && let (Ok(seconds), Ok(nanos)) = (seconds.parse(), nanos.parse::<u32>())
        {
            about.observed = Duration::new(seconds, nanos.min(999_999_999));
        }
        for range in text(key::GENERATIONS).split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            if let (Ok(first), Ok(last)) = (first.parse(), last.parse::<i64>()) {
                about.generations.add(first, last.saturating_add(1));
            }
        }
        let spans: Vec<[Timestamp; 2]> = serde_json::from_str(text(key::OBSERVED)).unwrap_or_default();
        for [begin, end] in spans {
            about.spans.add(nanos(begin), nanos(end));
        }
        about
    }
}

/// The instant in nanoseconds since the epoch; years beyond 2262 saturate.
pub(super) fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(generation: i64, second: i64) -> About {
        let mut about = About {
            sensor: "tokyo".to_owned(),
            timezones: BTreeSet::from(["Asia/Tokyo".to_owned()]),
            observed: Duration::from_millis(9_998),
            programs: BTreeSet::from(["teiten 0.1.0 (3fd0064)".to_owned()]),
            databases: BTreeMap::from([("country".to_owned(), BTreeSet::from(["2026-11-01".to_owned()]))]),
            ..About::default()
        };
        about.generations.add(generation, generation + 1);
        about.spans.add(second * 1_000_000_000, (second + 10) * 1_000_000_000);
        about
    }

    fn read(pairs: &[(&str, String)]) -> About {
        About::of(&pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn what_is_written_is_read_also_of_several() {
        let name = FileName { hour: 9, ledger: 7, first: 3, last: 5 };
        let day = jiff::civil::date(2026, 11, 29);
        let mut both = about(3, 1_000);
        both.merge(about(4, 1_010));
        both.merge(about(9, 1_030));
        let pairs = both.pairs(day, name, 12, 40);
        assert_eq!(read(&pairs), both);
        let text = |key| &pairs.iter().find(|(found, _)| *found == key).unwrap().1;
        assert_eq!(text(key::OBSERVED_SECONDS), "29.994000000");
        assert_eq!(text(key::GENERATIONS), "3-4,9");
        assert_eq!(
            text(key::OBSERVED),
            r#"[["1970-01-01T00:16:40Z","1970-01-01T00:17:00Z"],["1970-01-01T00:17:10Z","1970-01-01T00:17:20Z"]]"#
        );
        assert_eq!(text(key::DATABASES), r#"{"country":["2026-11-01"]}"#);
        assert_eq!(read(&[]), About::default());
    }
}
