//! The schema and its versions.

use crate::ledger::error::LedgerError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// `TEIT`, so that `file` and we know whose database it is.
const APPLICATION_ID: i64 = 0x5445_4954;
/// What leads from version n to n + 1, the first of them from an empty file.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];
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
    let version = version(connection, path)?;
    apply(connection, version, MIGRATIONS).map_err(|error| LedgerError::sqlite(path, "migrating", error))
}

/// Makes the steps that a file of `version` lacks, all or none.
fn apply(connection: &mut Connection, version: i64, migrations: &[&str]) -> rusqlite::Result<()> {
    let missing = migrations.get(usize::try_from(version).unwrap_or(0)..).unwrap_or_default();
    if missing.is_empty() {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    for step in missing {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", migrations.len() as i64)?;
    tx.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A later release, whose second version has one more table.
    const LATER: [&str; 2] = [MIGRATIONS[0], "CREATE TABLE invented (number INTEGER PRIMARY KEY) STRICT;"];

    #[test]
    fn a_file_of_an_older_release_gets_the_steps_that_it_lacks() {
        let mut connection = Connection::open_in_memory().unwrap();
        let path = Path::new(":memory:");
        migrate(&mut connection, path).unwrap();
        connection.execute("INSERT INTO generation (number) VALUES (7)", []).unwrap();
        apply(&mut connection, VERSION, &LATER).unwrap();
        let count = |table| -> i64 {
            connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!((count("invented"), count("generation")), (0, 1));
        // And this release leaves it alone.
        let error = version(&connection, path).unwrap_err();
        assert!(matches!(error, LedgerError::Newer { found: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before() {
        let mut connection = Connection::open_in_memory().unwrap();
        let path = Path::new(":memory:");
        migrate(&mut connection, path).unwrap();
        let broken = [LATER[0], "CREATE TABLE invented (number INTEGER) STRICT; nonsense"];
        apply(&mut connection, VERSION, &broken).unwrap_err();
        assert_eq!(version(&connection, path).unwrap(), VERSION);
        assert!(!connection.table_exists(None, "invented").unwrap());
    }
}
