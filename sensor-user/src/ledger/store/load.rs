//! Loading what a daemon continues from.

use super::write::checksum;
use super::{Stored, StoredSeries};
use crate::counters::totals::Tally;
use crate::ledger::breadth::{Band, BandSums, Breadth};
use crate::ledger::error::LedgerError;
use crate::ledger::growth::{self, Ids};
use crate::ledger::moment::{day_number, day_of_number};
use crate::ledger::samples;
use crate::ledger::seal::Seal;
use crate::ledger::sets::{self, DaySets, SetLimits};
use crate::ledger::spill;
use crate::ledger::state::{Day, LedgerState};
use jiff::Timestamp;
use jiff::civil::Date;
use rusqlite::{Connection, OptionalExtension as _};
use sensor_common::Slot;
use sensor_counters::{Pair, Series};
use std::collections::HashMap;
use std::path::Path;

/// What a file holds.
pub(in crate::ledger) struct Loaded {
    pub(super) state: LedgerState,
    pub(super) stored: Stored,
    /// What opening found missing.
    pub(super) loss: Option<String>,
}

/// Loads what a daemon continues from.
pub(in crate::ledger) fn load(connection: &Connection, path: &Path) -> Result<Loaded, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "loading", error);
    let corrupt = |reason: String| LedgerError::Corrupt { path: path.to_owned(), reason };
    let mut state = LedgerState::empty();
    let stored = connection
        .query_row(
            "SELECT generation, commits, heartbeat_ns, checksum, identity, names FROM state WHERE id = 1",
            [],
            |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, Option<i64>>(2)?,
                    row.get::<_, i64>(3)?,
                    row.get::<_, i64>(4)?,
                    row.get::<_, i64>(5)?,
                ))
            },
        )
        .optional()
        .map_err(fail)?;
    let mut rows = HashMap::new();
    let mut ids = Ids::default();
    let mut sum = 0_u64;
    let mut statement =
        connection.prepare("SELECT id, kind, labels, first, second FROM series").map_err(fail)?;
    let mut found = statement.query([]).map_err(fail)?;
    while let Some(row) = found.next().map_err(fail)? {
        let (id, kind, labels): (i64, String, String) = row
            .try_into()
            .map_err(fail)
            .map(|(id, kind, labels, _, _): (i64, String, String, i64, i64)| (id, kind, labels))?;
        let value: Pair =
            [row.get::<_, i64>(3).map_err(fail)? as u64, row.get::<_, i64>(4).map_err(fail)? as u64];
        let series = Series::parse(&kind, &labels)
            .ok_or_else(|| corrupt(format!("series {id} is {kind:?} {labels:?}, which is none")))?;
        state.totals.add(&series, value);
        sum = sum.wrapping_add(checksum(&series, value));
        ids.note(series.kind(), id);
        if rows.insert(series, StoredSeries { id, value }).is_some() {
            return Err(corrupt(format!("series {kind:?} {labels:?} is there twice")));
        }
    }
    let expected = stored.map_or(0, |stored| stored.3 as u64);
    if sum != expected {
        return Err(corrupt(format!("checksum of the counters is {sum}, not {expected}")));
    }
    let mut deltas = 0;
    let mut names = Seal::default();
    if let Some((generation, commits, heartbeat, _, identity, of_names)) = stored {
        names = Seal::from_column(of_names);
        state.identity = identity as u64;
        state.totals.generation = generation as u64;
        state.commits = commits as u64;
        state.heartbeat = heartbeat.and_then(|ns| Timestamp::from_nanosecond(i128::from(ns)).ok());
        let mut statement = connection.prepare("SELECT number FROM generation").map_err(fail)?;
        for number in statement.query_map([], |row| row.get::<_, i64>(0)).map_err(fail)? {
            state.generations.insert(number.map_err(fail)? as u64);
        }
        let mut statement =
            connection.prepare("SELECT ledger, number FROM foreign_generation").map_err(fail)?;
        let foreign = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        for pair in foreign.map_err(fail)? {
            let (ledger, number) = pair.map_err(fail)?;
            state.foreign.insert((ledger as u64, number as u64));
        }
        let mut statement = connection.prepare("SELECT kind, labels FROM released").map_err(fail)?;
        let names = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(fail)?;
        for name in names {
            let (kind, labels): (String, String) = name.map_err(fail)?;
            let series = Series::parse(&kind, &labels)
                .ok_or_else(|| corrupt(format!("released series {kind:?} {labels:?} is none")))?;
            state.released.insert(series);
        }
        let mut statement = connection.prepare("SELECT asn, name FROM network").map_err(fail)?;
        let known = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
        for pair in known.map_err(fail)? {
            let (asn, name) = pair.map_err(fail)?;
            let number = u32::try_from(asn).map_err(|_| corrupt(format!("there is no network {asn}")))?;
            state.names.insert(number, name.into());
        }
        let last: Option<i64> = connection
            .query_row("SELECT day FROM set_day ORDER BY used DESC LIMIT 1", [], |row| row.get(0))
            .optional()
            .map_err(fail)?;
        if let Some(date) = last.and_then(day_of_number) {
            (state.day, deltas) = load_day(connection, path, date)?;
        }
    }
    Ok(Loaded { state, stored: Stored { rows, ids, checksum: sum, names, deltas }, loss: None })
}

/// When the first observation began.
pub(super) fn since(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let nanos: Option<Option<i64>> =
        connection.query_row("SELECT since_ns FROM state", [], |row| row.get(0)).optional()?;
    Ok(nanos.flatten().and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok()))
}

/// Loads one day, with how many deltas its sets have.
pub(in crate::ledger) fn load_day(
    connection: &Connection,
    path: &Path,
    date: Date,
) -> Result<(Day, u64), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "loading a day", error);
    let number = day_number(date);
    let mut day = Day::empty(date);
    day.ports = day_ports(connection, number).map_err(fail)?;
    day.backscatter = day_backscatter(connection, number).map_err(fail)?;
    day.networks = day_networks(connection, number).map_err(fail)?;
    day.breadth = day_breadth(connection, number).map_err(fail)?;
    if let Ok(before) = date.yesterday() {
        day.ports_before = day_ports(connection, day_number(before)).map_err(fail)?;
        day.backscatter_before = day_backscatter(connection, day_number(before)).map_err(fail)?;
        day.networks_before = day_networks(connection, day_number(before)).map_err(fail)?;
    }
    for (series, sum) in growth::of_day(connection, number).map_err(fail)? {
        day.totals.add(&series, sum);
    }
    day.samples = samples::of_day(connection, path, number)?;
    let (sets, deltas) = load_sets(connection, path, number)?;
    day.sets = sets;
    Ok((day, deltas))
}

/// Loads the source sets of a day, with how many deltas they are made of.
fn load_sets(connection: &Connection, path: &Path, day: i64) -> Result<(DaySets, u64), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "loading source sets", error);
    let mut sets = DaySets::default();
    let mut deltas = 0;
    let mut statement =
        connection.prepare_cached("SELECT bytes FROM set_delta WHERE day = ?1 ORDER BY id").map_err(fail)?;
    let mut rows = statement.query([day]).map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let bytes = row.get_ref(0).and_then(|value| Ok(value.as_blob()?)).map_err(fail)?;
        let delta =
            sets::decode(bytes).map_err(|reason| LedgerError::Corrupt { path: path.to_owned(), reason })?;
        sets.load(&delta);
        spill::relieve(&mut sets, &SetLimits::DAY, path);
        deltas += 1;
    }
    Ok((sets, deltas))
}

fn tally(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Tally> {
    Ok(Tally { accesses: row.get::<_, i64>(at)? as u64, sources: row.get::<_, i64>(at + 1)? as u64 })
}

fn day_ports(connection: &Connection, day: i64) -> rusqlite::Result<HashMap<Slot, Tally>> {
    let mut statement =
        connection.prepare_cached("SELECT slot, accesses, sources FROM day_port WHERE day = ?1")?;
    let rows = statement.query_map([day], |row| Ok((Slot::from_index(row.get(0)?), tally(row, 1)?)))?;
    rows.filter_map(|row| row.map(|(slot, tally)| Some((slot?, tally))).transpose()).collect()
}

fn day_backscatter(connection: &Connection, day: i64) -> rusqlite::Result<HashMap<Slot, u64>> {
    let mut statement =
        connection.prepare_cached("SELECT slot, packets FROM day_backscatter WHERE day = ?1")?;
    let rows = statement
        .query_map([day], |row| Ok((Slot::from_index(row.get(0)?), row.get::<_, i64>(1)? as u64)))?;
    rows.filter_map(|row| row.map(|(slot, packets)| Some((slot?, packets))).transpose()).collect()
}

fn day_networks(connection: &Connection, day: i64) -> rusqlite::Result<HashMap<u32, Tally>> {
    let mut statement =
        connection.prepare_cached("SELECT asn, accesses, sources FROM day_asn WHERE day = ?1")?;
    let rows =
        statement.query_map([day], |row| Ok((u32::try_from(row.get::<_, i64>(0)?), tally(row, 1)?)))?;
    rows.filter_map(|row| row.map(|(asn, tally)| Some((asn.ok()?, tally))).transpose()).collect()
}

fn day_breadth(connection: &Connection, day: i64) -> rusqlite::Result<Breadth> {
    let mut breadth = Breadth::default();
    let mut statement =
        connection.prepare_cached("SELECT ports, hosts, accesses FROM day_breadth WHERE day = ?1")?;
    let mut rows = statement.query([day])?;
    while let Some(row) = rows.next()? {
        if let Some(band) = Band::from_lowest(row.get(0)?) {
            breadth[band as usize] =
                BandSums { hosts: row.get::<_, i64>(1)? as u64, accesses: row.get::<_, i64>(2)? as u64 };
        }
    }
    Ok(breadth)
}
