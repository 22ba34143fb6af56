//! What is no longer kept.

use rusqlite::{Connection, params};

/// For each kind of series: the table that has it by day, and the columns to sum.
pub(super) const DAY_TABLES: [(&str, &str, &str, &str); 16] = [
    ("packets", "day_class", "packets", "bytes"),
    ("port", "day_port", "accesses", "sources"),
    ("country", "day_country", "accesses", "sources"),
    ("port_country", "day_port_country", "accesses", "sources"),
    ("port_hour", "day_port_hour", "accesses", "0"),
    ("group", "day_group", "accesses", "sources"),
    ("service", "day_service", "accesses", "sources"),
    ("hosts", "day", "hosts", "0"),
    ("backscatter", "day_backscatter", "packets", "0"),
    ("tool", "day_tool", "accesses", "0"),
    ("overflow", "day", "overflow", "0"),
    ("set_overflow", "day", "set_overflow", "0"),
    ("observed", "day", "observed_ns", "0"),
    ("unread", "day_detail", "CASE kind WHEN 'unread' THEN packets ELSE 0 END", "0"),
    ("malformed", "day_detail", "CASE kind WHEN 'malformed' THEN packets ELSE 0 END", "0"),
    ("assumed", "day_detail", "CASE kind WHEN 'assumed' THEN packets ELSE 0 END", "0"),
];

/// Pages given back to the file system after one commit, at most.
const PAGES: u32 = 512;

/// Deletes the oldest day when there are more than `keep`; its sums are carried, so that the counters
/// can still be accounted for. One day at a time, so that no commit takes long.
///
/// Days are counted as they are in the ledger, not by the calendar: a clock that was wrong by years
/// for a moment makes one more day, and does not delete the others.
pub(super) fn oldest_day(tx: &Connection, keep: u32, today: i64) -> rusqlite::Result<()> {
    let (days, oldest): (i64, Option<i64>) = tx
        .prepare_cached("SELECT count(*), min(day) FROM day WHERE day <> ?1")?
        .query_row([today], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // Today is one of those to keep.
    let Some(oldest) = oldest.filter(|_| days >= i64::from(keep.max(1))) else { return Ok(()) };
    for (kind, table, first, second) in DAY_TABLES {
        tx.execute(
            &format!(
                "INSERT INTO carried (kind, first, second)
                 SELECT ?1, coalesce(sum({first}), 0), coalesce(sum({second}), 0) FROM {table} WHERE day = ?2
                 ON CONFLICT DO UPDATE SET first = first + excluded.first, second = second + excluded.second"
            ),
            params![kind, oldest],
        )?;
    }
    tx.execute("DELETE FROM hour_series WHERE hour IN (SELECT start FROM hour WHERE day = ?1)", [oldest])?;
    tx.execute("DELETE FROM hour WHERE day = ?1", [oldest])?;
    for (_, table, ..) in DAY_TABLES {
        tx.execute(&format!("DELETE FROM {table} WHERE day = ?1"), [oldest])?;
    }
    Ok(())
}

/// Gives free pages back to the file system. A failure is no loss: the pages stay free for reuse.
pub(super) fn give_back_space(connection: &Connection) {
    let free = connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, u32>(0));
    // Some are left for the next fold.
    if free.is_ok_and(|free| free > 2 * PAGES) {
        // One step for each page.
        let result =
            connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})")).and_then(|mut statement| {
                let mut rows = statement.query([])?;
                while rows.next()?.is_some() {}
                Ok(())
            });
        if let Err(error) = result {
            tracing::debug!(%error, "ledger: free pages not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DAY_TABLES;
    use crate::ledger::series::kinds;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_of_series_has_its_day_table() {
        let tables: BTreeSet<_> = DAY_TABLES.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(tables, kinds().filter(|kind| *kind != "service_overflow").collect());
    }
}
