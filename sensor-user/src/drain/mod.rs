//! The drain: switches generations, folds what they saw into the ledger, shows it.
//!
//! It runs on a thread of its own, because every step blocks: the switch waits until no program runs
//! in the old generation, and the ledger's commit waits for the disk. The thread wakes at each
//! interval, at each boundary of a local hour, when the wall clock is set, and on command.
//!
//! A packet belongs to the hour that the wall clock showed when it was counted. So a clock that is set
//! ends a generation as a boundary does, and what was counted before counts by the clock of before.
//!
//! A generation that could not be committed is kept and tried again; counting continues in the other
//! one, whose logs and table hold what comes meanwhile.

mod attach;
mod databases;
mod flood;
mod inbox;
mod left_over;
mod notices;
mod observe;
mod schedule;
mod stages;
mod state;

pub use inbox::{Inbox, InboxClosed, Outbox, inbox};
pub use left_over::finish;

use crate::config::XdpMode;
use crate::counters::totals::Totals;
use crate::exposition::Exposition;
use crate::geoip;
use crate::kernel::interface::Interface;
use crate::kernel::{Drained, Full, Kernel, KernelError, Mode, NotSwitched, Outlook, Policy, Spare};
use crate::ledger::{BandSums, Folded, Ledger, LedgerError, LedgerSettings};
use crate::sight::{Blind, ReasonOrigin, Watch};
use crate::system::clock::{self, Reading};
use crate::system::condition::Notice;
use crate::who::lists::SourceList;
use crate::who::{self, Register};
use inbox::Event;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sensor_common::Class;
use state::{DrainState, Pending};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

/// Fill of a log at which a drain does not wait for its time.
const FULL_ENOUGH: f64 = 0.25;
/// A drain that failed is tried again after this long at the latest.
const RETRY: Duration = Duration::from_secs(5);
/// Pairs of source and target that take so much memory that it is worth giving back.
const MANY: usize = 1 << 16;

/// Why the drain ended without a command.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The kernel side failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The drain cannot wait for what comes.
    #[error("wait for the next drain")]
    Wait(#[source] nix::errno::Errno),
    /// The last counts could not be committed; they stay pinned.
    #[error("counts could not be committed{}", fate.as_deref().unwrap_or_default())]
    Uncommitted {
        /// What becomes of them, once that is known.
        fate: Option<String>,
        /// Why not.
        #[source]
        source: Box<LedgerError>,
    },
}

impl DrainError {
    /// With what becomes of the counts that could not be committed.
    #[must_use]
    pub fn with_fate(self, outlook: &Outlook) -> Self {
        match self {
            Self::Uncommitted { source, .. } => {
                let fate = if outlook.holds_counts() {
                    "; they stay pinned in the kernel, and the next start takes them in".to_owned()
                } else {
                    format!("; they are lost unless the next start finds them: {outlook}")
                };
                Self::Uncommitted { fate: Some(fate), source }
            }
            error => error,
        }
    }
}

/// A command for the drain.
#[derive(Debug)]
pub enum DrainCommand {
    /// A log may be filling up.
    Wake,
    /// Other settings of the ledger.
    Settings(Box<LedgerSettings>),
    /// Another drain interval.
    Interval(Duration),
    /// The file of another country database; `None` for the embedded one.
    Geoip(Option<PathBuf>),
    /// The file of another ASN database, or none.
    Asn(Option<PathBuf>),
    /// Other source lists.
    Lists(Vec<SourceList>),
    /// What is to be observed as the network is now.
    Network(Box<Scene>),
    /// Drain a last time and end.
    Stop {
        /// End the attachments and remove the pins.
        detach: bool,
    },
}

/// What is to be observed, and what of it there is.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The interfaces to observe, and no others.
    pub names: Vec<String>,
    /// Which packets count from now on.
    pub policy: Policy,
    /// The interfaces of these names that are there; the attachment to one may have ended with an
    /// earlier one of its name.
    pub interfaces: Vec<Interface>,
    /// The links whose attachments end before others are made: they would keep the kernel from attaching,
    /// or count the same packets.
    pub released_first: Vec<String>,
    /// What keeps the sensor from seeing.
    pub blind: Vec<Blind>,
}

/// Called after each commit, before the totals are shown, with the ledger, its totals, and how each
/// interface is attached.
pub type Committed = Box<dyn FnMut(&Ledger, &Arc<Totals>, &[(String, Mode)]) + Send>;

/// What the drain works on.
pub struct Drain {
    /// The kernel side.
    pub kernel: Kernel,
    /// Where counts go.
    pub ledger: Ledger,
    /// Where they are shown.
    pub exposition: Arc<Exposition>,
    /// Regions.
    pub geoip: geoip::Watcher,
    /// Lists of sources.
    pub lists: who::ListWatcher,
    /// Networks.
    pub asn: who::AsnWatcher,
    /// What counts.
    pub policy: Policy,
    /// Zone of hours and days.
    pub timezone: TimeZone,
    /// Time between drains.
    pub interval: Duration,
    /// How to attach.
    pub mode: XdpMode,
    /// The interfaces to observe.
    pub interfaces: Vec<String>,
    /// Whether the sensor can see its line.
    pub watch: Watch,
    /// Asks for the interfaces to be looked at, since one is not attached.
    pub detached: Arc<Notify>,
    /// Called after each commit.
    pub committed: Committed,
}

impl Drain {
    /// Takes in what an earlier daemon left, then drains until a command stops it.
    ///
    /// # Errors
    ///
    /// When the kernel side fails, or the last counts cannot be committed; nothing counted is lost
    /// then, since all of it stays pinned.
    pub fn run(mut self, spare: Spare, mut inbox: Inbox) -> Result<(), DrainError> {
        let mut state = DrainState::new(&self.kernel, spare);
        self.compare_with_pins();
        self.exposition.health().set_ledger(self.ledger.numbering().ledger);
        self.take_left_over(&mut state)?;
        self.tell_taken_over(&state.switched);
        self.step(&mut state);
        loop {
            let event = inbox.wait(|reading| self.rest(&state, reading)).map_err(DrainError::Wait)?;
            let command = match event {
                Event::Due => {
                    self.step(&mut state);
                    if !self.is_attached() {
                        self.detached.notify_one();
                    }
                    continue;
                }
                Event::Jump(jump) => {
                    notices::tell_jump(jump);
                    self.step(&mut state);
                    continue;
                }
                Event::Closed => return self.stop(state, false),
                Event::Command(command) => command,
            };
            match command {
                DrainCommand::Wake => {
                    // What woke us may be in a generation that is drained already.
                    if self.kernel.fill() >= FULL_ENOUGH {
                        self.step(&mut state);
                    }
                }
                DrainCommand::Network(scene) => self.observe(*scene, &mut state),
                DrainCommand::Settings(settings) => {
                    self.step(&mut state);
                    self.timezone = settings.timezone.clone();
                    self.ledger.reconfigure(*settings);
                }
                DrainCommand::Interval(interval) => {
                    self.interval = interval;
                    self.exposition.health().set_current_for(interval * 3);
                }
                DrainCommand::Geoip(path) => self.follow_geoip(path),
                DrainCommand::Asn(path) => self.follow_asn(path),
                DrainCommand::Lists(lists) => self.follow_lists(lists),
                DrainCommand::Stop { detach } => return self.stop(state, detach),
            }
            while !state.fault.is_failing() && self.kernel.fill() >= FULL_ENOUGH {
                self.step(&mut state);
            }
        }
    }

    /// How long it is until the next drain is due.
    fn rest(&self, state: &DrainState, reading: &Reading) -> Duration {
        if state.fault.is_failing() {
            let tried = reading.steady.saturating_duration_since(state.tried);
            return self.interval.min(RETRY).saturating_sub(tried);
        }
        let since = reading.steady.saturating_duration_since(state.switched.steady);
        let end = schedule::hour_end(state.switched.wall, &self.timezone);
        schedule::wait(reading.wall, end, since, self.interval)
    }

    /// Does what is due, and tells when it cannot be done; it is tried again then.
    fn step(&mut self, state: &mut DrainState) {
        if let Err(error) = self.try_step(state) {
            self.report(state, &error);
        }
    }

    fn report(&self, state: &mut DrainState, error: &DrainError) {
        let (what, error): (_, &dyn std::error::Error) = match error {
            DrainError::Uncommitted { source, .. } => ("commit failed", source.as_ref()),
            error @ (DrainError::Kernel(_) | DrainError::Wait(_)) => ("generation switch failed", error),
        };
        let why = crate::error_chain(error);
        self.exposition.health().drain_failed(&format!("{what}: {why}"));
        let Some(tell) = state.fault.failed(&why, clock::now()) else { return };
        let counting = if self.is_attached() {
            "counting continues in the kernel"
        } else {
            "packets are not counted, because an interface is not attached"
        };
        let retry = self.interval.min(RETRY);
        if let Notice::Lasts(failures) = tell {
            error!(error, failures, "{what} again; {counting}; retrying every {retry:?}");
        } else {
            error!(error, "{what}; {counting}; retrying every {retry:?}");
        }
    }

    /// Commits what waits for it, switches, and commits that.
    fn try_step(&mut self, state: &mut DrainState) -> Result<(), DrainError> {
        state.tried = clock::now();
        self.maintain_flows();
        notices::tell_pinned(state, self.kernel.keep_pinned());
        let attached = self.is_attached();
        self.exposition.health().set_attached(attached);
        // When in between an attachment ended is not known.
        state.attached &= attached;
        self.look(state);
        self.commit(state)?;
        self.take_earlier(state)?;
        let switched = clock::now();
        self.kernel.number_for(self.ledger.numbering());
        let Some((full, drained)) = self.switch(state)? else { return Ok(()) };
        state.flood.tell(&drained, switched);
        let now = Reading::take();
        let began = std::mem::replace(&mut state.switched, now);
        let ended = if began.jump(&now).is_some() { began.wall_at(now.steady) } else { now.wall };
        let at = schedule::attribute(began.wall, ended, &self.timezone);
        let mut pending = Pending::new(drained, Some(full), at, switched);
        let seen = self.watch.take_seen(clock::monotonic_nanos());
        pending.observation.observed =
            if state.attached { pending.observation.observed.min(seen) } else { Duration::ZERO };
        state.attached = attached;
        state.pending = Some(pending);
        let committed = self.commit(state);
        self.look(state);
        committed
    }

    /// Switches generations, unless the last one could not be read, and reads the last one; `None` while
    /// that is pending.
    fn switch(&mut self, state: &mut DrainState) -> Result<Option<(Full, Drained)>, DrainError> {
        let full = match state.spare.take() {
            Some(Spare::Empty(spare)) => {
                match self.kernel.switch(spare, &self.policy.with_features(|| self.ledger.feature_ports())) {
                    Ok(full) => full,
                    Err(NotSwitched { spare, error }) => {
                        state.spare = Some(Spare::Empty(spare));
                        return Err(error.into());
                    }
                }
            }
            Some(Spare::Full(full)) => full,
            None => return Ok(None),
        };
        match self.kernel.read(&full) {
            Ok(drained) => Ok(Some((full, drained))),
            Err(error) => {
                state.spare = Some(Spare::Full(full));
                Err(error.into())
            }
        }
    }

    /// Judges what has arrived in a generation that is in the ledger now.
    fn judge_traffic(&mut self, state: &mut DrainState, pending: &Pending) {
        let Pending { observation, lasted, .. } = pending;
        let packets = |class: Class| observation.counts.packets[class as usize];
        let read = observation.counts.packets.iter().sum::<u64>() - packets(Class::NonIp);
        let accesses = packets(Class::Access);
        state.traffic.take(*lasted, observation.observed, accesses, &observation.counts.details, read);
        let day = observation.at.to_zoned(self.timezone.clone()).date();
        if state.learned != Some(day) {
            match self.ledger.past_days() {
                Ok(days) => {
                    state.traffic.learn(&days);
                    // This stretch is among them.
                    if state.learned.is_none() && accesses == 0 {
                        state.traffic.resume(&days);
                    }
                }
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "past days cannot be read; silence is judged by what was known before"
                ),
            }
            state.learned = Some(day);
        }
        self.watch.set(ReasonOrigin::Traffic, state.traffic.blind(), clock::monotonic_nanos());
    }

    /// Folds what is pending, if anything is; on failure it stays so.
    fn commit(&mut self, state: &mut DrainState) -> Result<(), DrainError> {
        let Some(mut pending) = state.pending.take() else { return Ok(()) };
        self.look_at_databases(state);
        let register = Register {
            geoip: Arc::clone(self.geoip.current()),
            lists: Arc::clone(self.lists.current()),
            asn: Arc::clone(self.asn.current()),
        };
        let released = self.exposition.due(clock::now());
        let begin = clock::now();
        match self.ledger.fold(&pending.observation, &register, &released) {
            Ok(folded) => {
                pending.stages.folded(begin);
                let in_ledger = clock::now();
                // A value is shown only once the ledger knows that it may be.
                let released = match folded {
                    Folded::Taken { .. } => released,
                    Folded::AlreadyTaken => {
                        debug!(generation = pending.observation.generation, "was in the ledger already");
                        Vec::new()
                    }
                };
                if let Some(full) = pending.full.take() {
                    let spare = self.kernel.recycle(full);
                    notices::tell_recycled(state, self.kernel.tidy(&spare));
                    state.spare = Some(Spare::Empty(spare));
                }
                let totals = Arc::new(self.ledger.totals().clone());
                let attachments: Vec<_> =
                    self.kernel.attachments().map(|(name, _, mode)| (name.to_owned(), mode)).collect();
                (self.committed)(&self.ledger, &totals, &attachments);
                let bands = self.ledger.breadth();
                self.exposition.health().set_breadth(
                    bands.map(|(band, BandSums { hosts, accesses })| (band.label(), hosts, accesses)),
                );
                self.exposition.update(totals);
                self.exposition.release(&released);
                self.exposition.health().drained(
                    clock::now(),
                    Timestamp::now(),
                    clock::now().saturating_duration_since(pending.switched),
                );
                let pairs = pending.observation.sources_v4.len() + pending.observation.sources_v6.len();
                pending.stages.log(pending.observation.generation, pairs, pending.table_used, in_ledger);
                self.judge_traffic(state, &pending);
                if let Some(Notice::Ended(failures)) = state.fault.worked(clock::now()) {
                    info!(failures, "commits resumed; what was counted in the meantime is in the ledger");
                }
                drop(pending);
                // In a flood the next generation needs it again.
                if pairs >= MANY {
                    state.swollen = true;
                } else if std::mem::take(&mut state.swollen) {
                    crate::system::memory::give_back();
                }
                Ok(())
            }
            Err(error) => {
                state.pending = Some(pending);
                Err(DrainError::Uncommitted { fate: None, source: error.into() })
            }
        }
    }

    fn stop(mut self, mut state: DrainState, detach: bool) -> Result<(), DrainError> {
        if detach {
            let names: Vec<_> = self.kernel.attachments().map(|(name, _, _)| name.to_owned()).collect();
            for name in names {
                self.kernel.release(&name)?;
            }
            // Until now they were attached, which is what the last drain has to know.
            self.interfaces.clear();
        }
        // A ledger that had to be reopened accepts counts at the second attempt.
        if self.try_step(&mut state).is_err()
            && let Err(error) = self.try_step(&mut state)
        {
            return Err(error.with_fate(&self.kernel.outlook()));
        }
        if detach {
            self.kernel.detach()?;
            info!("detached, pins removed");
        } else {
            self.kernel.outlook().tell();
        }
        Ok(())
    }
}
