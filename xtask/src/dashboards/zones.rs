//! The UTC offset of every IANA time zone, as recording rules.
//!
//! `PromQL` knows neither zones nor daylight saving, but every sensor says its zone in
//! `teiten_sensor_info`. A rule for each group of zones that behave alike turns that label into
//! seconds, so that one rule file serves every observation centre unaltered.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;

use super::site::Site;

/// First and last year whose daylight saving is spelled out; outside of it the nearest known
/// offset holds. Zones without daylight saving are right at any time.
const YEARS: (i16, i16) = (2024, 2040);

/// What a zone does: its offset at the start, then every change as (epoch second, new offset).
type Behaviour = (i32, Vec<(i64, i32)>);

/// The rules, as entries of the YAML list below `rules:`.
///
/// # Errors
/// When the bundled time zone database cannot be read.
pub(super) fn rules(site: &Site) -> anyhow::Result<String> {
    let start: Timestamp = format!("{}-01-01T00:00:00Z", YEARS.0).parse()?;
    let end: Timestamp = format!("{}-01-01T00:00:00Z", YEARS.1 + 1).parse()?;
    let db = TimeZoneDatabase::bundled();
    let mut groups: BTreeMap<Behaviour, Vec<String>> = BTreeMap::new();
    for name in db.available() {
        let zone = db.get(name.as_str()).with_context(|| format!("time zone {name}"))?;
        let mut offset = zone.to_offset(start).seconds();
        let first = offset;
        let mut changes = Vec::new();
        for transition in zone.following(start).take_while(|t| t.timestamp() < end) {
            let to = transition.offset().seconds();
            if to != offset {
                changes.push((transition.timestamp().as_second(), to));
                offset = to;
            }
        }
        groups.entry((first, changes)).or_default().push(name.to_string());
    }
    let job = site.matcher();
    let mut out = String::new();
    for ((first, changes), mut names) in groups {
        names.sort();
        let mut offset = first.to_string();
        let mut from = first;
        for (at, to) in changes {
            let (sign, step) = if to > from { ('+', to - from) } else { ('-', from - to) };
            write!(offset, "\n            {sign} {step} * (time() >= bool {at})")?;
            from = to;
        }
        let zone = &names[0];
        let names = names.join("|").replace('+', "[+]");
        write!(
            out,
            r#"      - record: sensor_zone:teiten_utc_offset:seconds
        expr: >-
          max by (sensor) (last_over_time(teiten_sensor_info{{{job},timezone=~"{names}"}}[1d]))
          * ({offset})
        labels:
          zone: {zone}
"#
        )?;
    }
    // A sensor that does not say its zone has the dashboards'.
    let own = db.get(&site.zone).context("the dashboards' time zone")?.to_offset(start).seconds();
    writeln!(
        out,
        "      - record: sensor:teiten_utc_offset:seconds
        expr: >-
          max by (sensor) (sensor_zone:teiten_utc_offset:seconds)
          or max by (sensor) (teiten_accesses_total{{{job}}}) * 0 + {own}"
    )?;
    Ok(out)
}
