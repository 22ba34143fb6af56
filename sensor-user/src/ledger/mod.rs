//! The ledger: from observations to days, hours, cumulative sources and counters, in `SQLite`.
//!
//! [`Ledger::fold`] takes in one observation. It computes what changes without any input or output,
//! writes that in one transaction together with the generation's number, and only then changes what
//! is in memory. So each generation counts exactly once, whatever happens in between: a fold that
//! failed can be repeated, and one that is already in is recognised.
//!
//! # Days
//!
//! The instant of an observation gives its local day and hour. A source counts once for each target
//! and local day; the sets that know this are kept for the three days used last, so that a clock that
//! steps back by hours (or a zone in which local time goes back over midnight) neither counts twice
//! nor loses. The counters follow the order of the folds and never go down.
//!
//! # Which ports have series
//!
//! Configured ports always; others while there are places, the last of which only truly busy ports
//! get (`--max-ports`, `--feature-ports`). A port that gets its series begins there at zero with what
//! comes from then on; what it had before stays with the rest of its transport.
//!
//! # What is kept
//!
//! Day detail for the number of days in the settings, and the growth of every series by hour for
//! the same time; the sums of older days are carried. The source sets are bounded in memory and on disk; what
//! does not fit is counted in [`Totals::set_overflow`].
//!
//! [`Totals::set_overflow`]: crate::counters::totals::Totals::set_overflow

mod archivist;
mod aside;
mod breadth;
mod captures;
mod change;
mod commits;
mod error;
mod export;
mod files;
mod growth;
mod lock;
mod moment;
mod prune;
mod ranking;
mod reader;
mod runs;
mod samples;
mod seal;
mod selection;
mod sets;
mod spill;
mod state;
mod store;
mod summary;
mod undo;
mod varint;
mod verify;
mod wal;
mod watch;

#[cfg(test)]
mod tests;

pub use archivist::{ArchivedFold, Archivist, NotArchived};
pub use aside::{Aside, AsideKind, aside};
pub use breadth::{Band, BandSums, Breadth};
pub use commits::LostCommits;
pub use error::LedgerError;
pub use export::{Extent, Format};
pub use files::LEDGER_FILE;
pub use lock::{LOCK_FILE, make_state_dir};
pub use ranking::Ranking;
pub use reader::{ArchivedDay, ArchivedLedger, DaySummary, LedgerOrigin, Reader};
pub use samples::SampledDays;
pub use state::{ChartedPorts, LedgerSettings};
pub use summary::Summary;
pub use undo::NotThere;
pub use verify::{Failure, Verification};
pub use wal::LogDamage;
pub use watch::{Pace, Verifier};

use crate::counters::totals::{Tally, Totals};
use crate::country::{Country, Locate};
use crate::observation::{Numbering, Observation, PastDay};
use change::Change;
use jiff::Timestamp;
use jiff::civil::Date;
use moment::Moment;
use sensor_common::{Class, Slot};
use sensor_counters::{AutonomousSystem, NetworkLabel, Series};
use sets::SetLimits;
use state::{Day, GenerationId, LedgerState};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use store::{Entry, OfDay, Store};

/// What of a ledger is written in its state directory by a fixed name.
pub const FILES: [&str; 4] = [LEDGER_FILE, "ledger.sqlite-wal", "ledger.sqlite-shm", commits::COMMITS_FILE];

/// What became of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    /// It is in, on this local day and hour.
    Taken {
        /// Local day.
        day: Date,
        /// Local hour, 0 to 23.
        hour: u8,
    },
    /// Its generation was in already; nothing has changed.
    AlreadyTaken,
}

/// The ledger of one sensor, open for writing.
#[derive(Debug)]
pub struct Ledger {
    state: LedgerState,
    store: Store,
    settings: LedgerSettings,
    limits: SetLimits,
    archivist: Option<Box<dyn Archivist>>,
}

impl Ledger {
    /// Opens the ledger of a state directory, or begins one.
    ///
    /// The directory is locked until the ledger is dropped. A corrupt ledger is moved aside
    /// ([`Ledger::moved_aside`] has its new name, the log too) and a new one begun.
    ///
    /// # Errors
    ///
    /// The directory is missing, locked by another process or not writable; the ledger was written
    /// by a newer release or another program; `SQLite` fails.
    pub fn open(state_dir: &Path, settings: LedgerSettings) -> Result<Self, LedgerError> {
        let (store, state) = Store::open(state_dir)?;
        Ok(Self::with(store, state, settings))
    }

    /// Begins a ledger that lives in memory alone.
    ///
    /// # Errors
    ///
    /// `SQLite` fails.
    pub fn in_memory(settings: LedgerSettings) -> Result<Self, LedgerError> {
        let (store, state) = Store::in_memory()?;
        Ok(Self::with(store, state, settings))
    }

    fn with(store: Store, mut state: LedgerState, settings: LedgerSettings) -> Self {
        state.seed(&settings);
        Self { state, store, settings, limits: SetLimits::DAY, archivist: None }
    }

    /// Opens the ledger of a state directory for reading, also while a daemon writes it.
    ///
    /// # Errors
    ///
    /// As for [`Reader::open`].
    pub fn open_read_only(state_dir: &Path) -> Result<Reader, LedgerError> {
        Reader::open(state_dir)
    }

    /// Takes in an observation, and which series have been released from the hold since.
    ///
    /// Sources are located once each. Generation 0 is of no kernel and is always taken in.
    ///
    /// # Errors
    ///
    /// The ledger cannot be written. Nothing has changed then, and the same call can be repeated; a
    /// state directory that vanished is opened again once it exists again.
    pub fn fold(
        &mut self,
        observation: &Observation,
        locate: &dyn Locate,
        released: &[Series],
    ) -> Result<Folded, LedgerError> {
        if self.state.has_taken(GenerationId::of(observation, self.state.identity)) {
            return Ok(Folded::AlreadyTaken);
        }
        self.store.ensure(&mut self.state)?;
        self.state.seed(&self.settings);
        // It may be another ledger that is in place now.
        let generation = GenerationId::of(observation, self.state.identity);
        if self.state.has_taken(generation) {
            return Ok(Folded::AlreadyTaken);
        }
        let begin = Instant::now();
        let moment = Moment::of(observation.at, &self.settings.timezone);
        let mut loaded =
            if moment.day == self.state.day.date { None } else { Some(self.store.load_day(moment.day)?) };
        let computed = self.compute(loaded.as_ref(), moment, observation, locate);
        let mut change = match computed {
            Ok(change) => change,
            Err(error) => {
                self.reload(&mut loaded, moment.day, error)?;
                self.compute(loaded.as_ref(), moment, observation, locate)
                    .map_err(|source| LedgerError::Sets { path: self.store.path(), source })?
            }
        };
        let of_day = match &loaded {
            None => OfDay::Same(&self.state.day),
            Some((day, deltas)) => OfDay::Other(day, *deltas),
        };
        if self.store.is_batch() {
            self.admit_capture(&mut change)?;
        }
        if let Some(archivist) = &mut self.archivist {
            let is_batch = self.store.is_batch();
            archive(
                archivist.as_mut(),
                &self.state,
                &self.settings,
                &mut change,
                observation,
                locate,
                is_batch,
            )
            .map_err(|source| LedgerError::NotArchived { path: self.store.path(), source })?;
        }
        let computed = begin.elapsed();
        let entry = Entry {
            state: &self.state,
            day: of_day,
            settings: &self.settings,
            change: &change,
            generation,
            at: observation.at,
            released,
        };
        self.store.commit(&entry)?;
        let committed = begin.elapsed();
        self.state.apply(loaded.map(|(day, _)| day), &change, generation, observation.at, released);
        self.relieve();
        if !self.store.is_batch()
            && let Some(archivist) = &mut self.archivist
        {
            archivist.committed(self.state.commits);
        }
        tracing::debug!(
            generation = observation.generation,
            compute = ?computed,
            commit = ?committed.checked_sub(computed).unwrap(),
            apply = ?begin.elapsed().checked_sub(committed).unwrap(),
            "observation is in the ledger"
        );
        Ok(Folded::Taken { day: moment.day, hour: moment.hour })
    }

    fn compute(
        &self,
        loaded: Option<&(Day, u64)>,
        moment: Moment,
        observation: &Observation,
        locate: &dyn Locate,
    ) -> io::Result<Change> {
        let day = loaded.map_or(&self.state.day, |(day, _)| day);
        change::compute(&self.state, day, &self.settings, &self.limits, moment, observation, locate)
    }

    /// Makes the source sets of a day again from the ledger, since what of them is on disk cannot be read.
    fn reload(
        &mut self,
        loaded: &mut Option<(Day, u64)>,
        date: Date,
        error: io::Error,
    ) -> Result<(), LedgerError> {
        if !self.store.has_day() {
            return Err(LedgerError::Sets { path: self.store.path(), source: error });
        }
        tracing::error!(
            %error, day = %date,
            "source sets on disk cannot be read: they are made again from the ledger, and nothing is lost; check the disk"
        );
        let (day, deltas) = self.store.load_day(date)?;
        match loaded {
            Some(loaded) => *loaded = (day, deltas),
            None => self.state.day.sets = day.sets,
        }
        Ok(())
    }

    fn relieve(&mut self) {
        spill::relieve(&mut self.state.day.sets, &self.limits, &self.store.path());
    }

    /// Keeps the sources of all folds from now on in an archive.
    pub fn set_archivist(&mut self, archivist: Box<dyn Archivist>) {
        self.archivist = Some(archivist);
    }

    /// The ledger's identity, and how many commits it has: what an archive of it begins with.
    pub fn commits(&self) -> (u64, u64) {
        (self.state.identity, self.state.commits)
    }

    /// The counters.
    pub fn totals(&self) -> &Totals {
        &self.state.totals
    }

    /// The series that have been released from the hold.
    pub fn released(&self) -> &BTreeSet<Series> {
        &self.state.released
    }

    /// The highest generation that is in; 0 when there is none. Numbering continues after it.
    pub fn last_generation(&self) -> u64 {
        self.state.totals.generation
    }

    /// When the first observation that is in began.
    pub fn since(&self) -> Option<Timestamp> {
        self.state.since
    }

    /// How generations are to be numbered for this ledger. It changes with every fold, and altogether
    /// when another ledger is put in place.
    pub fn numbering(&self) -> Numbering {
        Numbering { ledger: self.state.identity, last: self.last_generation() }
    }

    /// Instant of the last observation that is in.
    pub fn last_heartbeat(&self) -> Option<Timestamp> {
        self.state.heartbeat
    }

    /// Corrupt ledgers that were moved aside since this one was opened, by their new names.
    pub fn moved_aside(&self) -> &[PathBuf] {
        self.store.moved_aside()
    }

    /// What this ledger is known to lack and no file in the state directory tells of.
    pub fn losses(&self) -> &[String] {
        self.store.losses()
    }

    /// Notes something that this ledger lacks, for [`Ledger::losses`].
    pub fn note_loss(&mut self, what: String) {
        self.store.note_loss(what);
    }

    /// Applies changed settings from the next fold on. Series that exist stay.
    pub fn reconfigure(&mut self, settings: LedgerSettings) {
        self.settings = settings;
        self.state.seed(&self.settings);
    }

    /// Every day that is kept, ascending.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn days(&self) -> Result<Vec<DaySummary>, LedgerError> {
        reader::days(self.store.connection()?, &self.store.path())
    }

    /// What the last days tell of what is normal here, ascending.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn past_days(&self) -> Result<Vec<PastDay>, LedgerError> {
        reader::past_days(self.store.connection()?, &self.store.path())
    }

    /// Writes the days of `range` to `out`.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read, or `out` not written.
    pub fn export(
        &self,
        format: Format,
        range: &RangeInclusive<Date>,
        out: &mut dyn Write,
    ) -> Result<(), LedgerError> {
        export::export(self.store.connection()?, &self.store.path(), format, &range.clone().into(), out)
    }

    /// The feature ports: those of the settings, and those that became one.
    pub fn feature_ports(&self) -> BTreeSet<Slot> {
        self.state.features(&self.settings)
    }

    /// What packets held, of the days of `range`, ascending.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn samples(&self, range: &RangeInclusive<Date>) -> Result<SampledDays, LedgerError> {
        samples::of_days(self.store.connection()?, &self.store.path(), range)
    }

    /// Checks the file and every identity, day by day.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read. What it holds wrongly is in the [`Verification`].
    pub fn verify(&self) -> Result<Verification, LedgerError> {
        verify::verify(self.store.connection()?, &self.store.path(), self.store.log_damage()?.as_ref())
    }

    /// Unique hosts of the day of the last observation and what they sent, by how many ports they reached.
    pub fn breadth(&self) -> impl Iterator<Item = (Band, BandSums)> {
        Band::ALL.into_iter().zip(self.state.day.breadth)
    }

    /// Every network of the day, most accesses first.
    fn networks(&self) -> Vec<(NetworkLabel, Tally)> {
        let mut numbers: Vec<(u32, Tally)> =
            self.state.day.networks.iter().map(|(number, tally)| (*number, *tally)).collect();
        numbers.sort_unstable_by_key(|(number, tally)| (std::cmp::Reverse(tally.accesses), *number));
        let label = |number| match self.state.names.get(&number) {
            Some(name) => NetworkLabel::Own(AutonomousSystem { number, name: Arc::clone(name) }),
            None => NetworkLabel::Nowhere,
        };
        numbers.into_iter().map(|(number, tally)| (label(number), tally)).collect()
    }

    /// The local day of the last observation; `None` before the first one.
    pub fn today(&self) -> Option<Today> {
        self.state.heartbeat?;
        let day = &self.state.day;
        let mut ports: Vec<(Slot, Tally)> = day.ports.iter().map(|(slot, tally)| (*slot, *tally)).collect();
        ports.sort_unstable_by_key(|(slot, tally)| (std::cmp::Reverse(tally.accesses), *slot));
        let mut countries: Vec<(Country, Tally)> =
            day.totals.countries.iter().map(|(country, tally)| (*country, *tally)).collect();
        countries.sort_unstable_by_key(|(country, tally)| (std::cmp::Reverse(tally.accesses), *country));
        let mut hours = [0; 24];
        for ((_, hour), accesses) in &day.totals.port_hours {
            hours[usize::from(*hour)] += accesses;
        }
        let mut total = Tally::default();
        for (_, tally) in &ports {
            total += *tally;
        }
        Some(Today {
            day: day.date,
            total,
            hosts: day.totals.hosts,
            hours,
            packets: Class::ALL
                .map(|class| day.totals.packets.get(&class).map_or(0, |volume| volume.packets)),
            ports,
            countries,
            networks: self.networks(),
            breadth: day.breadth,
            lists: day
                .totals
                .lists
                .iter()
                .map(|(list, tally)| {
                    let hosts = day.totals.list_hosts.get(list).copied().unwrap_or(0);
                    (list.clone(), *tally, hosts)
                })
                .collect(),
        })
    }
}

/// Gives what is about to be committed to the archive, and counts in the same commit whether it is there. Of
/// a batch all is taken in, or nothing.
fn archive(
    archivist: &mut dyn Archivist,
    state: &LedgerState,
    settings: &LedgerSettings,
    change: &mut Change,
    observation: &Observation,
    locate: &dyn Locate,
    is_batch: bool,
) -> Result<(), NotArchived> {
    let kept = archivist.keep(&ArchivedFold {
        observation,
        ledger: state.identity,
        commit: state.commits + 1,
        day: change.moment.day,
        hour: change.moment.hour,
        hour_began: change.moment.start,
        sensor: &settings.sensor_name,
        timezone: settings.timezone.iana_name().unwrap_or_default(),
        who_v4: &change.who_v4,
        who_v6: &change.who_v6,
        lists: &change.list_labels,
        networks: locate.networks(),
        databases: &locate.databases(),
    });
    let (series, packets) = match kept {
        Ok(packets) => (Series::Archived, packets),
        Err(error) if is_batch => return Err(error),
        Err(NotArchived { packets, .. }) => (Series::ArchiveLost, packets),
    };
    if packets > 0 {
        change.increments.push((series, [packets, 0]));
        change.increments.sort_unstable();
    }
    Ok(())
}

/// A local day as far as it is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Today {
    /// The day, by the observation time zone.
    pub day: Date,
    /// Accesses and cumulative sources.
    pub total: Tally,
    /// Unique hosts.
    pub hosts: u64,
    /// Accesses by local hour.
    pub hours: [u64; 24],
    /// Packets by [`Class`].
    pub packets: [u64; Class::COUNT],
    /// Every port, most accesses first.
    pub ports: Vec<(Slot, Tally)>,
    /// Every country, most accesses first.
    pub countries: Vec<(Country, Tally)>,
    /// Every network that was met and what is of none, most accesses first.
    pub networks: Vec<(NetworkLabel, Tally)>,
    /// Unique hosts and what they sent, by [`Band`].
    pub breadth: Breadth,
    /// Every source list that was met, in the order of names, with its unique hosts.
    pub lists: Vec<(String, Tally, u64)>,
}
