//! The schema and its versions.

use super::write::checksum;
use crate::ledger::error::LedgerError;
use crate::ledger::seal;
use crate::ledger::series::{Pair, Series};
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// `TEIT`, so that `file` and we know whose database it is.
const APPLICATION_ID: i64 = 0x5445_4954;
/// What leads from version n to n + 1.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
];
/// The first version with seals.
const SEALED: i64 = 4;
/// The first version that has details, and series for what was counted before.
const DETAILED: i64 = 6;
/// The schema's version in this release.
pub(in crate::ledger) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Whether the file is a ledger, and of which version.
pub(in crate::ledger) fn version(connection: &Connection, path: &Path) -> Result<i64, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "opening", error);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(fail);
    let application = pragma("application_id")?;
    let version = pragma("user_version")?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fail)?;
    if application != APPLICATION_ID && tables > 0 {
        let ours = connection.table_exists(None, "hour_series").map_err(fail)?;
        return Err(if ours {
            LedgerError::Corrupt { path: path.to_owned(), reason: "application_id changed".to_owned() }
        } else {
            LedgerError::Foreign { path: path.to_owned() }
        });
    }
    let known = VERSION;
    if version > known {
        return Err(LedgerError::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(version)
}

/// Brings the schema to this release's version.
pub(in crate::ledger) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "migrating", error);
    let version = version(connection, path)?;
    let steps = MIGRATIONS.get(usize::try_from(version).unwrap_or(0)..).unwrap_or_default();
    if steps.is_empty() {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(fail)?;
    for step in steps {
        tx.execute_batch(step).map_err(fail)?;
    }
    if version < DETAILED {
        let sum = checksum_of_all(&tx, path)?;
        tx.execute("UPDATE state SET checksum = ?1", [sum as i64]).map_err(fail)?;
    }
    if version < SEALED.max(DETAILED) {
        seal::everything(&tx).map_err(fail)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
    tx.pragma_update(None, "user_version", VERSION).map_err(fail)?;
    tx.commit().map_err(fail)
}

/// The checksum of the counters, from their rows.
fn checksum_of_all(connection: &Connection, path: &Path) -> Result<u64, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "migrating", error);
    let mut statement = connection.prepare("SELECT kind, labels, first, second FROM series").map_err(fail)?;
    let rows = statement.query_map([], |row| {
        let (kind, labels): (String, String) = (row.get(0)?, row.get(1)?);
        let value: Pair = [row.get::<_, i64>(2)? as u64, row.get::<_, i64>(3)? as u64];
        // What names no series is found when the ledger is loaded.
        Ok(Series::parse(&kind, &labels).map_or(0, |series| checksum(&series, value)))
    });
    rows.map_err(fail)?.try_fold(0_u64, |sum, row| Ok(sum.wrapping_add(row.map_err(fail)?)))
}
