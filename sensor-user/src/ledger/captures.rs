//! Captures counted into a ledger: all of them or none, in any order of days.
//!
//! The sets of all days stay in a ledger that captures are counted into, until a daemon works on it,
//! which keeps those of [`SET_DAYS`](super::store::SET_DAYS). A day whose sets are gone takes no more
//! captures, since its sources would count twice.

use super::Ledger;
use super::change::Change;
use super::error::LedgerError;
use super::moment::{Moment, day_number};
use super::seal;
use super::state::LedgerSettings;
use crate::observation::spans::Spans;
use jiff::civil::Date;
use rusqlite::{Connection, OptionalExtension as _, params};
use sensor_counters::Series;
use std::path::Path;

impl Ledger {
    /// Opens the ledger of a state directory, or begins one, to count captures into it. Nothing of
    /// what is folded stays before [`Ledger::finish_captures`]. Unless `any_sensor`, the ledger must
    /// be of the sensor and the time zone in `settings`.
    ///
    /// # Errors
    ///
    /// As for [`Ledger::open`]; or the ledger is of another sensor or zone.
    pub fn open_for_captures(
        state_dir: &Path,
        settings: LedgerSettings,
        any_sensor: bool,
    ) -> Result<Self, LedgerError> {
        let mut ledger = Self::open(state_dir, settings)?;
        let path = ledger.store.path();
        if !any_sensor {
            is_of(ledger.store.connection()?, &path, &ledger.settings)?;
        }
        ledger.store.begin_batch()?;
        Ok(ledger)
    }

    /// The stretches that earlier captures have observed.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn observed_spans(&self) -> Result<Spans, LedgerError> {
        let mut spans = Spans::default();
        let fail = |error| LedgerError::sqlite(&self.store.path(), "reading observed times", error);
        let connection = self.store.connection()?;
        let mut rows = connection.prepare("SELECT begin_ns, end_ns FROM observed_span").map_err(fail)?;
        for row in rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(fail)? {
            let (begin, end) = row.map_err(fail)?;
            spans.add(begin, end);
        }
        Ok(spans)
    }

    /// Commits all captures, which have observed `spans`, the earlier ones among them.
    ///
    /// # Errors
    ///
    /// The ledger cannot be written; it is as it was before these captures then.
    pub fn finish_captures(mut self, spans: &Spans) -> Result<(), LedgerError> {
        let path = self.store.path();
        replace_spans(self.store.connection()?, spans)
            .map_err(|error| LedgerError::sqlite(&path, "committing", error))?;
        if let Some(archivist) = &mut self.archivist {
            archivist.publish().map_err(|source| LedgerError::NotArchived { path, source })?;
        }
        self.store.finish_batch(&self.state)?;
        if let Some(archivist) = &mut self.archivist {
            archivist.committed(self.state.commits);
        }
        Ok(())
    }

    /// Whether a day can take more captures; `change` is then kept from observing an hour for longer
    /// than it lasts.
    pub(super) fn admit_capture(&self, change: &mut Change) -> Result<(), LedgerError> {
        let (path, connection) = (self.store.path(), self.store.connection()?);
        let fail = |error| LedgerError::sqlite(&path, "reading a day", error);
        if are_sets_gone(connection, change.moment.day).map_err(fail)? {
            return Err(LedgerError::SetsGone { path, day: change.moment.day });
        }
        let left = left_of_hour(connection, change.moment).map_err(fail)?;
        for (series, value) in &mut change.increments {
            if *series == Series::Observed {
                value[0] = value[0].min(left);
            }
        }
        Ok(())
    }
}

/// Whether the ledger is empty or of this sensor and zone.
fn is_of(connection: &Connection, path: &Path, settings: &LedgerSettings) -> Result<(), LedgerError> {
    let of: Option<(String, String)> = connection
        .query_row("SELECT sensor, timezone FROM state", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(|error| LedgerError::sqlite(path, "reading whose it is", error))?;
    let given = (settings.sensor_name.clone(), settings.timezone.iana_name().unwrap_or_default().to_owned());
    match of {
        Some(of) if of != given => {
            Err(LedgerError::OtherSensor { path: path.to_owned(), of: of.into(), given: given.into() })
        }
        _ => Ok(()),
    }
}

/// Whether a day has sources, but no longer knows which.
fn are_sets_gone(connection: &Connection, day: Date) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (
                 SELECT 1 FROM series CROSS JOIN hour
                 CROSS JOIN hour_series ON hour_series.hour = hour.start AND hour_series.series = series.id
                 WHERE series.kind IN ('hosts', 'set_overflow') AND hour.day = ?1 AND hour_series.first > 0)
             AND NOT EXISTS (SELECT 1 FROM set_day WHERE day = ?1)",
        )?
        .query_row([day_number(day)], |row| row.get(0))
}

/// Nanoseconds of an hour that were not observed yet.
fn left_of_hour(connection: &Connection, moment: Moment) -> rusqlite::Result<u64> {
    let observed: i64 = connection
        .prepare_cached(
            "SELECT coalesce(sum(hour_series.first), 0) FROM hour
             JOIN hour_series ON hour_series.hour = hour.start JOIN series ON series.id = hour_series.series
             WHERE hour.start >= ?1 AND hour.start < ?2 AND series.kind = ?3",
        )?
        .query_row(params![moment.start, moment.stop, Series::Observed.kind()], |row| row.get(0))?;
    Ok(((moment.stop - moment.start) * 1_000_000_000).saturating_sub(observed).max(0) as u64)
}

fn replace_spans(connection: &Connection, spans: &Spans) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM observed_span", [])?;
    let mut insert = connection.prepare("INSERT INTO observed_span (begin_ns, end_ns) VALUES (?1, ?2)")?;
    for (begin, end) in spans.iter() {
        insert.execute([begin, end])?;
    }
    connection.execute("UPDATE state SET seal = ?1", [seal::of_state(connection)?.column()])?;
    Ok(())
}
