//! What series grew by: sums over hours.

use rusqlite::Connection;
use sensor_counters::{Pair, Series};
use std::collections::HashMap;

/// The ids of series lie in blocks of so many, each of one kind. So the rows that a kind has in an hour are
/// together in `hour_series`, whose key is hour and id, and no second copy of them by kind is needed.
const BLOCK: i64 = 256;

/// The ids of new series.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    /// One more than the highest id of each kind.
    next: HashMap<&'static str, i64>,
    /// Begin of the first block that is free.
    end: i64,
}

impl Default for Ids {
    fn default() -> Self {
        Self { next: HashMap::new(), end: BLOCK }
    }
}

impl Ids {
    /// Notes an id that is in use.
    pub(super) fn note(&mut self, kind: &'static str, id: i64) {
        let next = self.next.entry(kind).or_default();
        *next = (id + 1).max(*next);
        self.end = self.end.max((id / BLOCK + 1) * BLOCK);
    }

    /// An id for a series of this kind.
    pub(super) fn next(&mut self, kind: &'static str) -> i64 {
        let id = match self.next.get(kind) {
            Some(next) if next % BLOCK != 0 => *next,
            _ => self.end,
        };
        self.note(kind, id);
        id
    }
}

/// A query over what series of some kinds grew by in each hour: `hour`, `hour_series` and `block.kind`
/// can be selected. `kinds` are of the catalogue.
pub(super) fn query(select: &str, kinds: &[&str], rest: &str) -> String {
    let kinds = kinds.iter().map(|kind| format!("'{kind}'")).collect::<Vec<_>>().join(", ");
    format!(
        "WITH block AS MATERIALIZED (
             SELECT DISTINCT kind, id / {BLOCK} * {BLOCK} AS low FROM series WHERE kind IN ({kinds}))
         SELECT {select} FROM hour CROSS JOIN block CROSS JOIN hour_series
             ON hour_series.hour = hour.start
             AND hour_series.series BETWEEN block.low AND block.low + {last}
         {rest}",
        last = BLOCK - 1
    )
}

/// Blocks in which series of several kinds are, which [`query`] would take for one; none unless the file was
/// altered.
pub(super) fn mixed_blocks(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row(
        &format!(
            "SELECT count(*) FROM (
                 SELECT id / {BLOCK} FROM series GROUP BY id / {BLOCK} HAVING count(DISTINCT kind) > 1)"
        ),
        [],
        |row| row.get(0),
    )
}

/// What each series grew by on a day. Sums of an altered file wrap around.
pub(super) fn of_day(connection: &Connection, day: i64) -> rusqlite::Result<Vec<(Series, Pair)>> {
    let mut sums: HashMap<i64, Pair> = HashMap::new();
    let mut statement = connection.prepare_cached(
        "SELECT series, first, second FROM hour JOIN hour_series ON hour_series.hour = hour.start WHERE day = ?1",
    )?;
    let mut rows = statement.query([day])?;
    while let Some(row) = rows.next()? {
        let [first, second] = sums.entry(row.get(0)?).or_default();
        *first = first.wrapping_add(row.get::<_, i64>(1)? as u64);
        *second = second.wrapping_add(row.get::<_, i64>(2)? as u64);
    }
    let mut names = connection.prepare_cached("SELECT kind, labels FROM series WHERE id = ?1")?;
    let mut grown = Vec::with_capacity(sums.len());
    for (id, sum) in sums {
        let mut rows = names.query([id])?;
        if let Some(row) = rows.next()?
            && let Some(series) = Series::parse(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?)
        {
            grown.push((series, sum));
        }
    }
    Ok(grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_one_kind_each_also_after_the_ids_were_read_again() {
        let mut ids = Ids::default();
        let mut of: HashMap<i64, &str> = HashMap::new();
        for round in 0..900 {
            for kind in ["port", "country", "hosts"] {
                if kind == "hosts" && round > 0 {
                    continue;
                }
                assert_eq!(of.insert(ids.next(kind), kind), None);
            }
            if round % 100 == 0 {
                let mut again = Ids::default();
                for (id, kind) in &of {
                    again.note(kind, *id);
                }
                ids = again;
            }
        }
        let mut blocks: HashMap<i64, &str> = HashMap::new();
        for (id, kind) in of {
            assert_eq!(*blocks.entry(id / BLOCK).or_insert(kind), kind);
        }
        // 900 ports and 900 countries take four blocks each.
        assert_eq!(blocks.len(), 4 + 4 + 1);
    }
}
