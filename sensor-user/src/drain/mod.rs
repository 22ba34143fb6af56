//! The drain: switches generations, folds what they saw into the ledger, shows it.
//!
//! It runs on a thread of its own, because every step blocks: the switch waits until no program runs
//! in the old generation, and the ledger's commit waits for the disk. The thread wakes at each
//! interval, at each boundary of a local hour, and when it is told to.
//!
//! A generation that could not be committed is kept and tried again; counting goes on in the other
//! one, whose logs and table hold what comes meanwhile.

mod observe;
mod schedule;

use crate::config::XdpMode;
use crate::country::Locate;
use crate::exposition::{Exposition, Reload};
use crate::geoip;
use crate::kernel::interface::Interface;
use crate::kernel::{Drained, Kernel, KernelError, Mode, Policy};
use crate::ledger::{Folded, Ledger, LedgerError, Settings};
use crate::observation::Observation;
use crate::totals::Totals;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

/// Fill of a log at which a drain does not wait for its time.
const FULL_ENOUGH: f64 = 0.25;
/// A generation that could not be committed is tried again after this long at the latest.
const RETRY: Duration = Duration::from_secs(5);

/// Why the drain ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The kernel side failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The last counts could not be committed; they stay pinned.
    #[error(
        "the last counts could not be committed; they stay pinned in the kernel, and the next start takes them in"
    )]
    Uncommitted(#[source] LedgerError),
}

/// What the drain is told.
#[derive(Debug)]
pub enum Command {
    /// A log may be filling up.
    Wake,
    /// Other packets count from now on.
    Policy(Policy),
    /// Other settings of the ledger.
    Settings(Box<Settings>),
    /// Another drain interval.
    Interval(Duration),
    /// Attach to this interface, whose attachment may have ended with an earlier one of its name.
    Attach(Interface),
    /// Drain a last time and end.
    Stop {
        /// End the attachments and remove the pins.
        detach: bool,
    },
}

/// Is told after each commit, before the totals are shown: the ledger, its totals, and how each
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
    /// What counts.
    pub policy: Policy,
    /// Zone of hours and days.
    pub timezone: TimeZone,
    /// Time between drains.
    pub interval: Duration,
    /// How to attach.
    pub mode: XdpMode,
    /// Identity of the ledger, as pinned generations carry it.
    pub ledger_identity: u64,
    /// Told after each commit.
    pub committed: Committed,
}

/// Takes everything that is pinned into the ledger; returns how many packets that were.
///
/// # Errors
///
/// As [`Drain::run`].
pub fn finish(
    kernel: &mut Kernel,
    ledger: &mut Ledger,
    ledger_identity: u64,
    locate: &dyn Locate,
) -> Result<u64, DrainError> {
    let mut packets = 0;
    let mut take = |drained: Drained, ledger: &mut Ledger| {
        let observation = observe::observation(drained, Timestamp::now(), ledger_identity);
        match ledger.fold(&observation, locate, &[]) {
            Ok(Folded::AlreadyTaken) => Ok(()),
            Ok(Folded::Taken { .. }) => {
                packets += observation.packets.iter().sum::<u64>();
                Ok(())
            }
            Err(error) => Err(DrainError::Uncommitted(error)),
        }
    };
    if let Some(drained) = kernel.left_over()? {
        take(drained, ledger)?;
    }
    kernel.recycle(true)?;
    let drained = kernel.switch(&Policy::default())?;
    take(drained, ledger)?;
    Ok(packets)
}

/// A generation that is drained and not committed.
struct Pending {
    observation: Observation,
    /// Whether it has entries in the source table.
    table_used: bool,
    /// When it was switched away from.
    switched: Instant,
}

impl Drain {
    /// Takes in what an earlier daemon left, then drains until told to stop.
    ///
    /// # Errors
    ///
    /// When the kernel side fails, or the last counts cannot be committed; nothing counted is lost
    /// then, since all of it stays pinned.
    pub fn run(mut self, commands: &Receiver<Command>) -> Result<(), DrainError> {
        let mut state = State::new(&self.timezone);
        self.take_left_over(&mut state)?;
        self.step(&mut state)?;
        loop {
            let wait = if state.pending.is_some() {
                self.interval.min(RETRY)
            } else {
                schedule::wait(Timestamp::now(), state.hour_end, state.switched.elapsed(), self.interval)
            };
            match commands.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => self.step(&mut state)?,
                Ok(Command::Wake) => {
                    // What woke us may be in a generation that is drained already.
                    if self.kernel.fill() >= FULL_ENOUGH {
                        self.step(&mut state)?;
                    }
                }
                Ok(Command::Policy(policy)) => {
                    if policy != self.policy {
                        self.policy = policy;
                        self.show_monitored();
                        self.step(&mut state)?;
                        self.tell_policy(&state);
                    }
                }
                Ok(Command::Settings(settings)) => {
                    self.timezone = settings.timezone.clone();
                    self.step(&mut state)?;
                    self.ledger.reconfigure(*settings);
                }
                Ok(Command::Interval(interval)) => {
                    self.interval = interval;
                    self.exposition.health().set_current_for(interval * 3);
                }
                Ok(Command::Attach(interface)) => self.attach(&interface, &mut state)?,
                Ok(Command::Stop { detach }) => return self.stop(state, detach),
                Err(RecvTimeoutError::Disconnected) => return self.stop(state, false),
            }
            while state.pending.is_none() && self.kernel.fill() >= FULL_ENOUGH {
                self.step(&mut state)?;
            }
        }
    }

    /// Shows how many addresses are observed.
    pub fn show_monitored(&self) {
        let (v4, v6) = self.policy.monitored_addresses();
        self.exposition.health().set_monitored_addresses(v4, v6);
    }

    /// Tells from when the rules hold; a generation that cannot be committed keeps the old ones.
    fn tell_policy(&self, state: &State) {
        let Policy { observe, exclude, services } = &self.policy;
        if state.pending.is_some() {
            warn!("the changed rules hold as soon as the drained generation can be committed");
        } else {
            info!(
                observed = observe.len(),
                excluded = exclude.len(),
                services = services.len(),
                "counting by the changed rules from now on"
            );
        }
    }

    /// Keeps up the flows and shows how they are.
    fn maintain_flows(&mut self) {
        let status = self.kernel.maintain_flows();
        let tracking: Vec<_> = self.kernel.tracking().map(|(name, by)| (name, by.name())).collect();
        let health = self.exposition.health();
        health.set_flow_tracking(tracking.into_iter());
        health.set_flows(&status);
    }

    fn attach(&mut self, interface: &Interface, state: &mut State) -> Result<(), DrainError> {
        if self.kernel.is_attached(&interface.name) {
            return Ok(());
        }
        // What was counted until now was counted while attached.
        self.step(state)?;
        self.kernel.release(&interface.name)?;
        match self.kernel.attach(interface, self.mode) {
            Ok(mode) => info!(interface = interface.name, mode = mode.name(), "attached again"),
            Err(error) => error!(interface = interface.name, %error, "cannot attach again"),
        }
        Ok(())
    }

    /// A generation that a daemon was killed over.
    fn take_left_over(&mut self, state: &mut State) -> Result<(), DrainError> {
        if let Some(drained) = self.kernel.left_over()? {
            info!(
                generation = drained.number,
                "taking in a generation that was drained and maybe not committed"
            );
            let pending = self.pending(drained, Timestamp::now(), Instant::now());
            state.pending = Some(pending);
            self.commit(state);
            if state.pending.is_some() {
                return Ok(());
            }
        }
        // Entries of generations that are in the ledger already may be left too.
        self.kernel.recycle(true)?;
        Ok(())
    }

    /// Switches, unless a generation still waits to be committed, and commits.
    fn step(&mut self, state: &mut State) -> Result<(), DrainError> {
        self.maintain_flows();
        if state.pending.is_some() {
            self.commit(state);
            if state.pending.is_some() {
                return Ok(());
            }
        }
        let switched = Instant::now();
        let drained = match self.kernel.switch(&self.policy) {
            Ok(drained) => drained,
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "cannot switch generations");
                self.exposition.health().drain_failed();
                // It may have been read badly after the switch itself went well.
                match self.kernel.left_over()? {
                    Some(drained) => drained,
                    None => return Ok(()),
                }
            }
        };
        let now = Timestamp::now();
        let at = schedule::attribute(now, state.hour_end);
        state.switched = switched;
        state.hour_end = schedule::hour_end(now, &self.timezone);
        let mut pending = self.pending(drained, at, switched);
        if !state.attached {
            pending.observation.observed = Duration::ZERO;
        }
        state.attached = self.kernel.attachments().all(|(name, _, _)| self.kernel.is_attached(name));
        self.exposition.health().set_attached(state.attached);
        state.pending = Some(pending);
        self.commit(state);
        Ok(())
    }

    fn pending(&self, drained: Drained, at: Timestamp, switched: Instant) -> Pending {
        let table_used = drained.table_used;
        let observation = observe::observation(drained, at, self.ledger_identity);
        Pending { observation, table_used, switched }
    }

    /// Folds what is pending; on failure it stays so.
    fn commit(&mut self, state: &mut State) {
        let Some(pending) = state.pending.take() else { return };
        match self.geoip.reload_if_changed() {
            Ok(true) => {
                self.exposition.health().set_geoip_build(self.geoip.current().built().as_second() as u64);
                info!(built = %self.geoip.current().built(), "reloaded the GeoIP database");
            }
            Ok(false) => {}
            Err(error) => {
                self.exposition.health().reload_failed(Reload::Geoip);
                error!(error = &error as &dyn std::error::Error, "keeping the GeoIP database that is loaded");
            }
        }
        let released = self.exposition.due(Instant::now());
        match self.ledger.fold(&pending.observation, self.geoip.current().as_ref(), &released) {
            Ok(folded) => {
                // A value is shown only once the ledger knows that it may be.
                let released = match folded {
                    Folded::Taken { .. } => released,
                    Folded::AlreadyTaken => {
                        debug!(generation = pending.observation.generation, "was in the ledger already");
                        Vec::new()
                    }
                };
                if let Err(error) = self.kernel.recycle(pending.table_used) {
                    error!(error = &error as &dyn std::error::Error, "cannot empty the drained generation");
                }
                let totals = Arc::new(self.ledger.totals().clone());
                let attachments: Vec<_> =
                    self.kernel.attachments().map(|(name, _, mode)| (name.to_owned(), mode)).collect();
                (self.committed)(&self.ledger, &totals, &attachments);
                self.exposition.update(totals);
                self.exposition.release(&released);
                self.exposition.health().drained(
                    Instant::now(),
                    Timestamp::now(),
                    pending.switched.elapsed(),
                );
                if state.failing {
                    info!("the ledger takes counts in again");
                    state.failing = false;
                }
            }
            Err(error) => {
                self.exposition.health().drain_failed();
                error!(
                    error = &error as &dyn std::error::Error,
                    "cannot commit; counting goes on in the kernel, and this is tried again"
                );
                state.failing = true;
                state.pending = Some(pending);
            }
        }
    }

    fn stop(mut self, mut state: State, detach: bool) -> Result<(), DrainError> {
        if detach {
            let names: Vec<_> = self.kernel.attachments().map(|(name, _, _)| name.to_owned()).collect();
            for name in names {
                self.kernel.release(&name)?;
            }
        }
        self.step(&mut state)?;
        if let Some(pending) = state.pending.take() {
            let error = self.ledger.fold(&pending.observation, self.geoip.current().as_ref(), &[]).err();
            if let Some(error) = error {
                return Err(DrainError::Uncommitted(error));
            }
        }
        if detach {
            self.kernel.detach()?;
            info!("detached, pins removed");
        } else {
            info!("the pinned program goes on counting; `teiten detach` ends it");
        }
        Ok(())
    }
}

/// What the drain remembers between steps.
struct State {
    pending: Option<Pending>,
    /// When the current generation became it.
    switched: Instant,
    /// End of the local hour that the current generation belongs to.
    hour_end: Timestamp,
    /// Whether all interfaces were attached since the last switch.
    attached: bool,
    /// Whether the last commit failed.
    failing: bool,
}

impl State {
    fn new(timezone: &TimeZone) -> Self {
        Self {
            pending: None,
            switched: Instant::now(),
            hour_end: schedule::hour_end(Timestamp::now(), timezone),
            attached: true,
            failing: false,
        }
    }
}
