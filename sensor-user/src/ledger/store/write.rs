//! Writing one fold.

use super::{Commits, PART, SET_DAYS, Scope, Stored, StoredSeries};
use crate::counters::totals::PortLabel;
use crate::ledger::breadth::Band;
use crate::ledger::change::Change;
use crate::ledger::growth::Ids;
use crate::ledger::moment::{day_number, epoch_seconds};
use crate::ledger::prune;
use crate::ledger::samples;
use crate::ledger::seal::{self, Seal};
use crate::ledger::sets::{self, Delta};
use crate::ledger::state::{Day, GENERATIONS, GenerationId, LedgerSettings, LedgerState};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Savepoint, Transaction, TransactionBehavior, params};
use sensor_counters::{Pair, Series};
use std::collections::HashMap;
use std::ops::Deref;

/// What a commit takes in.
pub(in crate::ledger) struct Entry<'a> {
    pub(in crate::ledger) state: &'a LedgerState,
    pub(in crate::ledger) day: OfDay<'a>,
    pub(in crate::ledger) settings: &'a LedgerSettings,
    pub(in crate::ledger) change: &'a Change,
    pub(in crate::ledger) generation: GenerationId,
    pub(in crate::ledger) at: Timestamp,
    pub(in crate::ledger) released: &'a [Series],
}

/// The day of a fold.
#[derive(Clone, Copy)]
pub(in crate::ledger) enum OfDay<'a> {
    /// That of the fold before.
    Same(&'a Day),
    /// Another one, which was loaded; its source sets have this many deltas in the file.
    Other(&'a Day, u64),
}

impl<'a> OfDay<'a> {
    pub(in crate::ledger) fn day(self) -> &'a Day {
        match self {
            Self::Same(day) | Self::Other(day, _) => day,
        }
    }

    fn is_other(self) -> bool {
        matches!(self, Self::Other(..))
    }
}

/// How a fold is written.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) scope: Scope,
    pub(super) commits: Commits,
    pub(super) compact_after: u64,
}

/// What a fold makes of [`Stored`].
pub(super) struct Written {
    changed: HashMap<Series, StoredSeries>,
    ids: Ids,
    checksum: u64,
    names: Seal,
    deltas: u64,
}

impl Stored {
    /// Takes over what has been committed.
    pub(super) fn take_over(&mut self, written: Written) {
        let Written { changed, ids, checksum, names, deltas } = written;
        self.rows.extend(changed);
        (self.ids, self.checksum, self.names, self.deltas) = (ids, checksum, names, deltas);
    }
}

/// Writes one fold within a transaction.
pub(super) fn write(
    tx: &Connection,
    stored: &Stored,
    plan: Plan,
    entry: &Entry<'_>,
) -> Result<Written, WriteError> {
    let deltas = match entry.day {
        OfDay::Same(_) => stored.deltas,
        OfDay::Other(_, deltas) => deltas,
    };
    let mut writer = Writer {
        tx,
        plan,
        rows: &stored.rows,
        changed: HashMap::new(),
        ids: stored.ids.clone(),
        checksum: stored.checksum,
        names: stored.names,
        day_seal: Seal::default(),
        deltas,
    };
    writer.write(entry)?;
    let Writer { changed, ids, checksum, names, deltas, .. } = writer;
    Ok(Written { changed, ids, checksum, names, deltas })
}

pub(super) enum WriteError {
    Sqlite(rusqlite::Error),
    Encode(std::io::Error),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// A transaction, or a step of one.
pub(super) enum Step<'a> {
    Transaction(Transaction<'a>),
    Savepoint(Savepoint<'a>),
}

impl<'a> Step<'a> {
    pub(super) fn begin(connection: &'a mut Connection, commits: Commits) -> rusqlite::Result<Self> {
        Ok(match commits {
            Commits::Single => {
                Self::Transaction(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
            }
            Commits::Batch => Self::Savepoint(connection.savepoint()?),
        })
    }

    pub(super) fn commit(self) -> rusqlite::Result<()> {
        match self {
            Self::Transaction(transaction) => transaction.commit(),
            Self::Savepoint(savepoint) => savepoint.commit(),
        }
    }
}

impl Deref for Step<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Transaction(transaction) => transaction,
            Self::Savepoint(savepoint) => savepoint,
        }
    }
}

/// One fold's transaction.
struct Writer<'a> {
    tx: &'a Connection,
    plan: Plan,
    rows: &'a HashMap<Series, StoredSeries>,
    changed: HashMap<Series, StoredSeries>,
    ids: Ids,
    checksum: u64,
    /// The seal over the names of series.
    names: Seal,
    /// What this fold adds to the seal of its day.
    day_seal: Seal,
    deltas: u64,
}

impl Writer<'_> {
    fn write(&mut self, entry: &Entry<'_>) -> Result<(), WriteError> {
        let day = day_number(entry.change.moment.day);
        let born = self.hour(entry, day)?;
        if self.plan.scope == Scope::Everything {
            self.rebuild(entry, born)?;
        }
        for slot in entry.settings.configured_ports() {
            self.grow(&Series::Port(PortLabel::Own(slot)), [0, 0], born)?;
        }
        for series in &entry.change.lists {
            self.grow(series, [0, 0], born)?;
        }
        for network in &entry.change.named {
            self.name(network.number, &network.name)?;
        }
        self.day(entry, day)?;
        self.increments(entry, born)?;
        self.samples(entry, day)?;
        self.sets(entry, day)?;
        for series in entry.released {
            self.release(series)?;
        }
        self.seal_day(day)?;
        self.state(entry, day)?;
        prune::oldest_day(self.tx, entry.settings.keep_days, day)?;
        Ok(())
    }

    /// Adds to a series, which is made when it is not there; returns its row.
    fn grow(&mut self, series: &Series, by: Pair, born: i64) -> rusqlite::Result<i64> {
        let known = self.changed.get(series).or_else(|| self.rows.get(series)).copied();
        let row = match known {
            Some(row) if by == [0, 0] => return Ok(row.id),
            Some(StoredSeries { id, value }) => {
                let row = StoredSeries { id, value: [value[0] + by[0], value[1] + by[1]] };
                self.tx
                    .prepare_cached("UPDATE series SET first = ?2, second = ?3 WHERE id = ?1")?
                    .execute(params![id, row.value[0] as i64, row.value[1] as i64])?;
                self.checksum = self.checksum.wrapping_sub(checksum(series, value));
                row
            }
            None => {
                let row = StoredSeries { id: self.ids.next(series.kind()), value: by };
                self.tx
                    .prepare_cached(
                        "INSERT INTO series (id, kind, labels, born, first, second) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    )?
                    .execute(params![
                        row.id,
                        series.kind(),
                        series.labels(),
                        born,
                        by[0] as i64,
                        by[1] as i64
                    ])?;
                self.names.add(
                    "series",
                    &[series.kind().into(), series.labels().as_str().into()],
                    &[row.id, born],
                );
                row
            }
        };
        self.checksum = self.checksum.wrapping_add(checksum(series, row.value));
        self.changed.insert(series.clone(), row);
        Ok(row.id)
    }

    /// Writes everything in memory into an empty file; what the days held is carried.
    fn rebuild(&mut self, entry: &Entry<'_>, born: i64) -> Result<(), WriteError> {
        let mut carried: HashMap<&str, Pair> = HashMap::new();
        for (series, value) in entry.state.totals.all() {
            let sum = carried.entry(series.kind()).or_default();
            *sum = [sum[0] + value[0], sum[1] + value[1]];
            self.grow(&series, value, born)?;
        }
        for (kind, [first, second]) in carried {
            self.tx
                .prepare_cached("INSERT INTO carried (kind, first, second) VALUES (?1, ?2, ?3)")?
                .execute(params![kind, first as i64, second as i64])?;
        }
        for series in &entry.state.released {
            self.release(series)?;
        }
        for (number, name) in &entry.state.names {
            self.name(*number, name)?;
        }
        if let OfDay::Same(day) = entry.day {
            // The hosts that move between bands are in memory still.
            for (band, sums) in Band::ALL.into_iter().zip(day.breadth) {
                self.breadth(day_number(day.date), band, [sums.hosts as i64, sums.accesses as i64])?;
            }
        }
        for number in &entry.state.generations {
            self.tx
                .prepare_cached("INSERT OR IGNORE INTO generation (number) VALUES (?1)")?
                .execute([*number as i64])?;
        }
        for (ledger, number) in &entry.state.foreign {
            self.foreign(*ledger, *number)?;
        }
        Ok(())
    }

    /// Where the hour of this fold begins; it is noted when it is new.
    ///
    /// Hours are distinguished by their begin. An hour that is noted as another one, because the sensor's
    /// zone was changed within it, ends where the new zone was first used.
    fn hour(&mut self, entry: &Entry<'_>, day: i64) -> rusqlite::Result<i64> {
        let moment = entry.change.moment;
        let mut noted =
            self.tx.prepare_cached("SELECT start, day, hour FROM hour WHERE start >= ?1 AND start < ?2")?;
        let noted: Vec<(i64, i64, i64)> = noted
            .query_map([moment.start, moment.stop], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let ours = noted.iter().find(|(_, of, hour)| (*of, *hour) == (day, i64::from(moment.hour)));
        if let Some((start, ..)) = ours {
            return Ok(*start);
        }
        let is_free = |start: &i64| noted.iter().all(|(taken, ..)| taken != start);
        let changed = epoch_seconds(entry.change.began).clamp(moment.start, moment.stop - 1);
        let start = std::iter::once(moment.start)
            .chain(changed..moment.stop)
            .chain(moment.start..changed)
            .find(is_free)
            .unwrap_or(moment.start);
        self.tx
            .prepare_cached("INSERT INTO hour (start, stop, day, hour) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![start, moment.stop, day, moment.hour])?;
        self.day_seal.add("hour", &[start.into()], &[moment.stop, i64::from(moment.hour)]);
        Ok(start)
    }

    /// Writes the seal of the day with what this fold adds.
    fn seal_day(&self, day: i64) -> rusqlite::Result<()> {
        let mut seal =
            seal::stored(self.tx, "SELECT seal FROM day WHERE day = ?1", [day])?.unwrap_or_default();
        seal += self.day_seal;
        self.tx.prepare_cached("UPDATE day SET seal = ?2 WHERE day = ?1")?.execute([day, seal.column()])?;
        Ok(())
    }

    fn day(&mut self, entry: &Entry<'_>, day: i64) -> rusqlite::Result<()> {
        let at = nanosecond(entry.at);
        let before: Option<(i64, i64)> = self
            .tx
            .prepare_cached("SELECT first_ns, last_ns FROM day WHERE day = ?1")?
            .query_row([day], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (first, last) = before.map_or((at, at), |(first, last)| (first.min(at), last.max(at)));
        self.tx
            .prepare_cached(
                "INSERT INTO day (day, first_ns, last_ns) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET first_ns = excluded.first_ns, last_ns = excluded.last_ns",
            )?
            .execute([day, first, last])?;
        let (old_first, old_last) = before.unwrap_or_default();
        self.day_seal.add("day", &[], &[first.wrapping_sub(old_first), last.wrapping_sub(old_last)]);
        let mut port = self.tx.prepare_cached(
            "INSERT INTO day_port (day, slot, accesses, sources) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET accesses = accesses + excluded.accesses, sources = sources + excluded.sources",
        )?;
        for (slot, tally) in &entry.change.ports {
            let values = [tally.accesses as i64, tally.sources as i64];
            port.execute(params![day, slot.index(), values[0], values[1]])?;
            self.day_seal.add("day_port", &[i64::from(slot.index()).into()], &values);
        }
        let mut backscatter = self.tx.prepare_cached(
            "INSERT INTO day_backscatter (day, slot, packets) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET packets = packets + excluded.packets",
        )?;
        for (slot, packets) in &entry.change.backscatter {
            backscatter.execute(params![day, slot.index(), *packets as i64])?;
            self.day_seal.add("day_backscatter", &[i64::from(slot.index()).into()], &[*packets as i64]);
        }
        let mut network = self.tx.prepare_cached(
            "INSERT INTO day_asn (day, asn, accesses, sources) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET accesses = accesses + excluded.accesses, sources = sources + excluded.sources",
        )?;
        for (number, tally) in &entry.change.networks {
            let values = [tally.accesses as i64, tally.sources as i64];
            network.execute(params![day, number, values[0], values[1]])?;
            self.day_seal.add("day_asn", &[i64::from(*number).into()], &values);
        }
        for (band, values) in entry.change.breadth.bands() {
            self.breadth(day, band, values)?;
        }
        Ok(())
    }

    /// Adds to the hosts and accesses of a band; a host that moves leaves its former one.
    fn breadth(&mut self, day: i64, band: Band, values: [i64; 2]) -> rusqlite::Result<()> {
        let ports = i64::from(band.lowest());
        self.tx
            .prepare_cached(
                "INSERT INTO day_breadth (day, ports, hosts, accesses) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET hosts = hosts + excluded.hosts, accesses = accesses + excluded.accesses",
            )?
            .execute([day, ports, values[0], values[1]])?;
        self.day_seal.add("day_breadth", &[ports.into()], &values);
        Ok(())
    }

    /// Notes what a network is called.
    fn name(&mut self, number: u32, name: &str) -> rusqlite::Result<()> {
        self.tx
            .prepare_cached("INSERT INTO network (asn, name) VALUES (?1, ?2)")?
            .execute(params![number, name])?;
        self.names.add("network", &[i64::from(number).into(), name.into()], &[1]);
        Ok(())
    }

    fn increments(&mut self, entry: &Entry<'_>, born: i64) -> rusqlite::Result<()> {
        let mut by_hour = self.tx.prepare_cached(
            "INSERT INTO hour_series (hour, series, first, second) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET first = first + excluded.first, second = second + excluded.second",
        )?;
        for (series, value) in &entry.change.increments {
            let id = self.grow(series, *value, born)?;
            let values = [value[0] as i64, value[1] as i64];
            by_hour.execute(params![born, id, values[0], values[1]])?;
            self.day_seal.add("hour_series", &[born.into(), id.into()], &values);
        }
        Ok(())
    }

    /// Writes what packets held. An empty file gets also what the day has already.
    fn samples(&mut self, entry: &Entry<'_>, day: i64) -> rusqlite::Result<()> {
        if self.plan.scope == Scope::Everything {
            samples::write_day(self.tx, day, &entry.day.day().samples, &mut self.day_seal)?;
        }
        samples::write(self.tx, day, &entry.change.samples.edits, &mut self.day_seal)
    }

    fn sets(&mut self, entry: &Entry<'_>, day: i64) -> Result<(), WriteError> {
        let tx = self.tx;
        let is_rebuilt = self.plan.scope == Scope::Everything;
        if entry.day.is_other() || is_rebuilt {
            tx.execute(
                "INSERT INTO set_day (day, used) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET used = excluded.used",
                [day, entry.state.commits as i64 + 1],
            )?;
            // Captures come in any order, so the sets of all days that the ledger has are kept for them.
            let keep = match self.plan.commits {
                Commits::Single => SET_DAYS,
                Commits::Batch => i64::MAX,
            };
            tx.execute(
                "DELETE FROM set_day WHERE day NOT IN (SELECT day FROM day)
                 OR day NOT IN (SELECT day FROM set_day ORDER BY used DESC LIMIT ?1)",
                [keep],
            )?;
            tx.execute("DELETE FROM set_delta WHERE day NOT IN (SELECT day FROM set_day)", [])?;
        }
        let mut seal =
            seal::stored(tx, "SELECT seal FROM set_day WHERE day = ?1", [day])?.unwrap_or_default();
        let sets = &entry.day.day().sets;
        // What is so much that it is on disk is not written a second time to save rows.
        let is_due = self.deltas >= self.plan.compact_after && sets.disk() == 0;
        if is_due || (is_rebuilt && !entry.day.is_other()) {
            tx.execute("DELETE FROM set_delta WHERE day = ?1", [day])?;
            self.deltas = 0;
            seal = Seal::default();
            for delta in sets.snapshot() {
                self.delta(day, &delta.map_err(WriteError::Encode)?, &mut seal)?;
            }
        }
        self.delta(day, &entry.change.delta, &mut seal)?;
        tx.prepare_cached("UPDATE set_day SET seal = ?2 WHERE day = ?1")?.execute([day, seal.column()])?;
        Ok(())
    }

    fn delta(&mut self, day: i64, delta: &Delta, seal: &mut Seal) -> Result<(), WriteError> {
        if delta.is_empty() {
            return Ok(());
        }
        for bytes in sets::encode(delta, PART).map_err(WriteError::Encode)? {
            self.tx
                .prepare_cached("INSERT INTO set_delta (day, bytes) VALUES (?1, ?2)")?
                .execute(params![day, bytes])?;
            seal::add_delta(seal, self.tx.last_insert_rowid(), &bytes);
            self.deltas += 1;
        }
        Ok(())
    }

    fn release(&mut self, series: &Series) -> rusqlite::Result<()> {
        let (kind, labels) = (series.kind(), series.labels());
        let is_new = self
            .tx
            .prepare_cached("INSERT OR IGNORE INTO released (kind, labels) VALUES (?1, ?2)")?
            .execute([kind, &labels])?
            > 0;
        if is_new {
            self.names.add("released", &[kind.into(), labels.as_str().into()], &[1]);
        }
        Ok(())
    }

    fn state(&self, entry: &Entry<'_>, day: i64) -> rusqlite::Result<()> {
        match entry.generation {
            GenerationId::Own(0) => {}
            GenerationId::Own(number) => {
                self.tx
                    .prepare_cached("INSERT INTO generation (number) VALUES (?1)")?
                    .execute([number as i64])?;
                self.tx
                    .prepare_cached(
                        "DELETE FROM generation WHERE number NOT IN
                         (SELECT number FROM generation ORDER BY number DESC LIMIT ?1)",
                    )?
                    .execute([GENERATIONS as i64])?;
            }
            GenerationId::Foreign { ledger, number } => self.foreign(ledger, number)?,
        }
        let timezone = &entry.settings.timezone;
        self.tx
            .prepare_cached(
                "INSERT INTO state
                     (id, sensor, timezone, generation, commits, heartbeat_ns, rebuilt_day, checksum, since_ns, identity,
                      names)
                 VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT DO UPDATE SET sensor = excluded.sensor, timezone = excluded.timezone,
                     generation = excluded.generation, commits = excluded.commits,
                     heartbeat_ns = excluded.heartbeat_ns,
                     rebuilt_day = coalesce(excluded.rebuilt_day, rebuilt_day), checksum = excluded.checksum,
                     since_ns = excluded.since_ns, identity = excluded.identity, names = excluded.names",
            )?
            .execute(params![
                entry.settings.sensor_name,
                timezone.iana_name().unwrap_or_default(),
                entry.state.totals.generation.max(entry.generation.own()) as i64,
                entry.state.commits as i64 + 1,
                nanosecond(entry.at),
                (self.plan.scope == Scope::Everything).then_some(day),
                self.checksum as i64,
                nanosecond(entry.state.since.unwrap_or(entry.change.began)),
                entry.state.identity as i64,
                self.names.column(),
            ])?;
        let seal = seal::of_state(self.tx)?.column();
        self.tx.prepare_cached("UPDATE state SET seal = ?1")?.execute([seal])?;
        Ok(())
    }

    /// Notes that a generation is in that another ledger had numbered.
    fn foreign(&self, ledger: u64, number: u64) -> rusqlite::Result<()> {
        self.tx
            .prepare_cached("INSERT INTO foreign_generation (ledger, number) VALUES (?1, ?2)")?
            .execute([ledger as i64, number as i64])?;
        Ok(())
    }
}

/// The instant in nanoseconds since the epoch; years beyond 2262 saturate.
fn nanosecond(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

/// What one series adds to the checksum.
pub(super) fn checksum(series: &Series, value: Pair) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(series.kind().as_bytes());
    hasher.update(&[0]);
    hasher.update(series.labels().as_bytes());
    hasher.update(&value[0].to_le_bytes());
    hasher.update(&value[1].to_le_bytes());
    u64::from(hasher.finalize())
}
