//! The ledger's fold without its file: totals of a replay that keeps nothing.

use super::change;
use super::moment::{Moment, day_number};
use super::samples::SampledDays;
use super::sets::{self, DaySets, SetLimits};
use super::spill;
use super::state::{Day, GenerationId, LedgerSettings, LedgerState};
use super::store::PART;
use crate::counters::totals::Totals;
use crate::country::Locate;
use crate::observation::Observation;
use crate::samples::DaySamples;
use jiff::civil::Date;
use rusqlite::{Connection, params};
use sensor_common::Slot;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Counts as a [`Ledger`](super::Ledger) does, with a series for every port and without detail by
/// region and hour. Days may come in any order.
#[derive(Debug)]
pub struct Summary {
    state: LedgerState,
    settings: LedgerSettings,
    others: Others,
    /// What packets held on the other days.
    samples: BTreeMap<Date, DaySamples>,
}

impl Summary {
    /// Nothing counted yet.
    pub fn new(settings: LedgerSettings) -> Self {
        // Some places are held back for busy ports, so that there are more places than ports.
        let settings =
            LedgerSettings { max_ports: 2 * Slot::COUNT, feature_ports: 0, features: Vec::new(), ..settings };
        Self { state: LedgerState::empty(), settings, others: Others::default(), samples: BTreeMap::new() }
    }

    /// Takes in an observation.
    ///
    /// # Errors
    ///
    /// Source sets cannot be read from a temporary file, or those of another day not be put away in one.
    pub fn fold(&mut self, observation: &Observation, locate: &dyn Locate) -> io::Result<()> {
        let moment = Moment::of(observation.at, &self.settings.timezone);
        if moment.day != self.state.day.date {
            self.switch_to(moment.day)?;
        }
        let (state, settings) = (&self.state, &self.settings);
        let change =
            change::compute(state, &state.day, settings, &SetLimits::DAY, moment, observation, locate)?;
        self.state.apply(None, &change, GenerationId::Own(0), observation.at, &[]);
        spill::relieve(&mut self.state.day.sets, &SetLimits::DAY, Path::new(""));
        Ok(())
    }

    /// The counters.
    pub fn totals(&self) -> &Totals {
        &self.state.totals
    }

    /// What packets held, by ascending day.
    pub fn samples(&self) -> SampledDays {
        let Day { date, samples, .. } = &self.state.day;
        let mut days = self.samples.clone();
        if !samples.is_empty() {
            days.insert(*date, samples.clone());
        }
        days.into_iter().collect()
    }

    /// Switches to another day.
    fn switch_to(&mut self, date: Date) -> io::Result<()> {
        let sets = self.others.take(date)?;
        let samples = self.samples.remove(&date).unwrap_or_default();
        let mut left = std::mem::replace(&mut self.state.day, Day { sets, samples, ..Day::empty(date) });
        let samples = std::mem::take(&mut left.samples);
        if !samples.is_empty() {
            self.samples.insert(left.date, samples);
        }
        if self.state.heartbeat.is_some() { self.others.put(left.date, &left.sets) } else { Ok(()) }
    }
}

/// Source sets of the other days, encoded, in a private database of `SQLite`, which keeps few in memory
/// and more in a temporary file.
#[derive(Debug, Default)]
struct Others(Option<Connection>);

impl Others {
    fn put(&mut self, date: Date, sets: &DaySets) -> io::Result<()> {
        let connection = match &mut self.0 {
            Some(connection) => connection,
            none => none.insert(Self::open().map_err(io::Error::other)?),
        };
        for delta in sets.snapshot() {
            for part in sets::encode(&delta?, PART)? {
                connection
                    .execute("INSERT INTO part (day, bytes) VALUES (?1, ?2)", params![day_number(date), part])
                    .map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, date: Date) -> io::Result<DaySets> {
        let mut sets = DaySets::default();
        let Some(connection) = &self.0 else { return Ok(sets) };
        let parts = || -> rusqlite::Result<Vec<Vec<u8>>> {
            let parts = connection
                .prepare("SELECT bytes FROM part WHERE day = ?1 ORDER BY rowid")?
                .query_map([day_number(date)], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            connection.execute("DELETE FROM part WHERE day = ?1", [day_number(date)])?;
            Ok(parts)
        };
        for part in parts().map_err(io::Error::other)? {
            sets.load(&sets::decode(&part).map_err(io::Error::other)?);
            spill::relieve(&mut sets, &SetLimits::DAY, Path::new(""));
        }
        Ok(sets)
    }

    fn open() -> rusqlite::Result<Connection> {
        let connection = Connection::open("")?;
        connection.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE part (day INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;
             CREATE INDEX part_by_day ON part (day);",
        )?;
        Ok(connection)
    }
}
