//! What a range of days saw, by port, by country and by network, most accesses first.

use super::error::LedgerError;
use super::growth;
use super::moment::day_number;
use crate::counters::totals::Tally;
use crate::country::Country;
use jiff::civil::Date;
use rusqlite::{Connection, Row};
use sensor_common::Slot;
use sensor_counters::{AutonomousSystem, NetworkLabel};
use std::ops::RangeInclusive;
use std::path::Path;

/// Sums of a range of days. Cumulative sources are additive, so these are those of the reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    /// Days of the range that were observed.
    pub days: u64,
    /// All accesses and cumulative sources.
    pub total: Tally,
    /// By port, whether it has a series of its own or not.
    pub ports: Vec<(Slot, Tally)>,
    /// By country.
    pub countries: Vec<(Country, Tally)>,
    /// By network, whether it has a series of its own or not, and of none.
    pub networks: Vec<(NetworkLabel, Tally)>,
}

pub(super) fn ranking(
    connection: &Connection,
    path: &Path,
    days: &RangeInclusive<Date>,
) -> Result<Ranking, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "ranking", error);
    // One snapshot, while a daemon may write.
    let snapshot = connection.unchecked_transaction().map_err(fail)?;
    let range = [day_number(*days.start()), day_number(*days.end())];
    let sum = |row: &Row<'_>, at| -> rusqlite::Result<Tally> {
        Ok(Tally { accesses: row.get::<_, i64>(at)? as u64, sources: row.get::<_, i64>(at + 1)? as u64 })
    };
    let mut ranking = Ranking {
        days: snapshot
            .query_row("SELECT count(*) FROM day WHERE day BETWEEN ?1 AND ?2", range, |row| {
                row.get::<_, i64>(0)
            })
            .map_err(fail)? as u64,
        ..Ranking::default()
    };
    let mut statement = snapshot
        .prepare(
            "SELECT slot, sum(accesses), sum(sources) FROM day_port WHERE day BETWEEN ?1 AND ?2
             GROUP BY slot HAVING sum(accesses) > 0 ORDER BY sum(accesses) DESC, sum(sources) DESC, slot",
        )
        .map_err(fail)?;
    for row in statement.query_map(range, |row| Ok((row.get(0)?, sum(row, 1)?))).map_err(fail)? {
        let (slot, tally) = row.map_err(fail)?;
        ranking.total += tally;
        ranking.ports.extend(Slot::from_index(slot).map(|slot| (slot, tally)));
    }
    drop(statement);
    let countries = growth::query(
        "series.labels, sum(hour_series.first), sum(hour_series.second)",
        &["country"],
        "JOIN series ON series.id = hour_series.series WHERE hour.day BETWEEN ?1 AND ?2
         GROUP BY series.id HAVING sum(hour_series.first) > 0
         ORDER BY sum(hour_series.first) DESC, sum(hour_series.second) DESC, series.labels",
    );
    let mut statement = snapshot.prepare(&countries).map_err(fail)?;
    for row in statement.query_map(range, |row| Ok((row.get::<_, String>(0)?, sum(row, 1)?))).map_err(fail)? {
        let (country, tally) = row.map_err(fail)?;
        ranking.countries.extend(Country::from_label(&country).map(|country| (country, tally)));
    }
    drop(statement);
    let mut statement = snapshot
        .prepare(
            "SELECT asn, name, sum(accesses), sum(sources) FROM day_asn LEFT JOIN network USING (asn)
             WHERE day BETWEEN ?1 AND ?2 GROUP BY asn HAVING sum(accesses) > 0
             ORDER BY sum(accesses) DESC, sum(sources) DESC, asn",
        )
        .map_err(fail)?;
    let rows = statement
        .query_map(range, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?, sum(row, 2)?)));
    for row in rows.map_err(fail)? {
        let (number, name, tally) = row.map_err(fail)?;
        let label = match (u32::try_from(number), name) {
            (Ok(0), _) => Some(NetworkLabel::Nowhere),
            (Ok(number), Some(name)) => {
                Some(NetworkLabel::Own(AutonomousSystem { number, name: name.into() }))
            }
            _ => None,
        };
        ranking.networks.extend(label.map(|label| (label, tally)));
    }
    Ok(ranking)
}
