//! Sums that change with every single value, where the identities know sums over many.
//!
//! A seal is the sum over rows of each value times a weight, modulo 2^64; the weight comes from the
//! table, the row's key and the column. So a seal is updated by what is added, whatever the order, and
//! nothing that was there before has to be read. Weights are odd: one altered value, in
//! whichever bit, is always detected; several go undetected with a probability of 2^-63.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row};
use std::ops::AddAssign;

/// What a row's key is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    Number(i64),
    Text(&'a str),
}

impl From<i64> for Part<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a str> for Part<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

/// A sum over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seal(u64);

impl Seal {
    /// The value in the file.
    pub(super) const fn from_column(value: i64) -> Self {
        Self(value as u64)
    }

    /// The value for the file.
    pub(super) const fn column(self) -> i64 {
        self.0 as i64
    }

    /// Adds to the values of one row, in the order of its columns.
    pub(super) fn add(&mut self, table: &str, key: &[Part<'_>], values: &[i64]) {
        let row = key.iter().fold(hash(SEED, table.as_bytes()), |row, part| match part {
            Part::Number(number) => hash(row, &number.to_le_bytes()),
            Part::Text(text) => hash(hash(row, text.as_bytes()), &[0xff]),
        });
        for (column, value) in values.iter().enumerate() {
            self.0 = self.0.wrapping_add(weight(row, column).wrapping_mul(*value as u64));
        }
    }

    /// Adds the rows of a query: first the columns of the key, then the values.
    fn add_rows(
        &mut self,
        connection: &Connection,
        table: &str,
        keys: usize,
        sql: &str,
        parameters: impl rusqlite::Params,
    ) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            let key = (0..keys).map(|at| part(row, at)).collect::<rusqlite::Result<Vec<_>>>()?;
            let values = (keys..columns)
                .map(|at| Ok(row.get::<_, Option<i64>>(at)?.unwrap_or(i64::MIN)))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            self.add(table, &key, &values);
        }
        Ok(())
    }
}

fn part<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Part<'a>> {
    Ok(match row.get_ref(at)? {
        ValueRef::Integer(number) => Part::Number(number),
        value => Part::Text(value.as_str()?),
    })
}

impl AddAssign for Seal {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

/// FNV-1a's first value.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, whose results do not change with a release of a library.
fn hash(begin: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(begin, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The weight of a column in a row: every bit of `row` decides over every bit of it (`MurmurHash3`'s
/// last step).
const fn weight(row: u64, column: usize) -> u64 {
    let mut weight = row ^ (column as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    weight = (weight ^ (weight >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    weight = (weight ^ (weight >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (weight ^ (weight >> 33)) | 1
}

/// What the seal of a day covers: table, how many columns are the key, the rows of day `?1`.
const OF_DAY: [(&str, usize, &str); 9] = [
    ("day", 0, "SELECT first_ns, last_ns FROM day WHERE day = ?1"),
    ("day_port", 1, "SELECT slot, accesses, sources FROM day_port WHERE day = ?1"),
    ("day_backscatter", 1, "SELECT slot, packets FROM day_backscatter WHERE day = ?1"),
    (
        "day_sample",
        2,
        "SELECT slot, content, first_ns, last_ns, packets, sources, variants, checksum FROM day_sample WHERE day = ?1",
    ),
    ("day_sample_rest", 1, "SELECT slot, packets FROM day_sample_rest WHERE day = ?1"),
    ("day_asn", 1, "SELECT asn, accesses, sources FROM day_asn WHERE day = ?1"),
    ("day_breadth", 1, "SELECT ports, hosts, accesses FROM day_breadth WHERE day = ?1"),
    ("hour", 1, "SELECT start, stop, hour FROM hour WHERE day = ?1"),
    (
        "hour_series",
        2,
        "SELECT hour_series.hour, series, first, second FROM hour
         JOIN hour_series ON hour_series.hour = hour.start WHERE day = ?1",
    ),
];

/// The seal of a day, from its rows.
pub(super) fn of_day(connection: &Connection, day: i64) -> rusqlite::Result<Seal> {
    let mut seal = Seal::default();
    for (table, keys, sql) in OF_DAY {
        seal.add_rows(connection, table, keys, sql, [day])?;
    }
    Ok(seal)
}

/// Adds a delta of a day's source sets.
pub(super) fn add_delta(seal: &mut Seal, id: i64, bytes: &[u8]) {
    seal.add("set_delta", &[id.into()], &[i64::from(crc32fast::hash(bytes)), 1]);
}

/// The seal over all deltas of a day's source sets, from its rows.
pub(super) fn of_sets(connection: &Connection, day: i64) -> rusqlite::Result<Seal> {
    let mut seal = Seal::default();
    let mut statement = connection.prepare_cached("SELECT id, bytes FROM set_delta WHERE day = ?1")?;
    let mut rows = statement.query([day])?;
    while let Some(row) = rows.next()? {
        add_delta(&mut seal, row.get(0)?, row.get_ref(1)?.as_blob()?);
    }
    Ok(seal)
}

/// The seal over what series there are, which may be shown, and what networks are called, from their rows.
/// Their values have a checksum.
pub(super) fn of_names(connection: &Connection) -> rusqlite::Result<Seal> {
    let mut seal = Seal::default();
    seal.add_rows(connection, "series", 2, "SELECT kind, labels, id, born FROM series", [])?;
    seal.add_rows(connection, "released", 2, "SELECT kind, labels, 1 FROM released", [])?;
    seal.add_rows(connection, "network", 2, "SELECT asn, name, 1 FROM network", [])?;
    Ok(seal)
}

/// The seal over the state of the ledger, from its rows.
pub(super) fn of_state(connection: &Connection) -> rusqlite::Result<Seal> {
    let mut seal = Seal::default();
    for (table, keys, sql) in [
        (
            "state",
            2,
            "SELECT sensor, timezone, generation, commits, heartbeat_ns, rebuilt_day, checksum, since_ns, identity,
                 names
             FROM state",
        ),
        ("generation", 1, "SELECT number, 1 FROM generation"),
        ("foreign_generation", 2, "SELECT ledger, number, 1 FROM foreign_generation"),
        ("set_day", 1, "SELECT day, used, seal FROM set_day"),
        ("observed_span", 1, "SELECT begin_ns, end_ns FROM observed_span"),
    ] {
        seal.add_rows(connection, table, keys, sql, [])?;
    }
    Ok(seal)
}

/// A seal of the file.
pub(super) fn stored(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Option<Seal>> {
    let seal = connection.prepare_cached(sql)?.query_row(parameters, |row| row.get(0)).optional()?;
    Ok(seal.map(Seal::from_column))
}
