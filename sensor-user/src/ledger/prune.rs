//! What is no longer kept.

use rusqlite::Connection;

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
    tx.execute(
        "INSERT INTO carried (kind, first, second)
         SELECT series.kind, sum(hour_series.first), sum(hour_series.second)
         FROM hour JOIN hour_series ON hour_series.hour = hour.start
         JOIN series ON series.id = hour_series.series WHERE hour.day = ?1 GROUP BY series.kind
         ON CONFLICT DO UPDATE SET first = first + excluded.first, second = second + excluded.second",
        [oldest],
    )?;
    tx.execute("DELETE FROM hour_series WHERE hour IN (SELECT start FROM hour WHERE day = ?1)", [oldest])?;
    for table in [
        "hour",
        "day_port",
        "day_backscatter",
        "day_sample",
        "day_sample_rest",
        "day_asn",
        "day_breadth",
        "day",
    ] {
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
