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

mod flood;
mod inbox;
mod observe;
mod schedule;
mod stages;

pub use inbox::{Inbox, InboxClosed, Outbox, inbox};

use crate::config::XdpMode;
use crate::counters::totals::Totals;
use crate::country::Locate;
use crate::exposition::{Exposition, Reloadable};
use crate::geoip;
use crate::kernel::interface::Interface;
use crate::kernel::{Drained, Full, Kernel, KernelError, Mode, NotSwitched, Outlook, Policy, Spare};
use crate::ledger::{BandSums, Folded, Ledger, LedgerError, LedgerSettings};
use crate::observation::Observation;
use crate::sight::traffic::Traffic;
use crate::sight::{Blind, Reason, ReasonOrigin, SightChange, Watch};
use crate::system::clock::{self, Jump, Reading};
use crate::system::condition::{Fault, Notice};
use crate::system::follow::Look;
use crate::who::lists::SourceList;
use crate::who::{self, Register};
use flood::Flood;
use inbox::Event;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sensor_common::Class;
use stages::Stages;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
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

/// Takes everything that is pinned into the ledger; returns how many packets that were.
///
/// # Errors
///
/// As [`Drain::run`].
pub fn finish(
    kernel: &mut Kernel,
    spare: Spare,
    ledger: &mut Ledger,
    timezone: &TimeZone,
    locate: &dyn Locate,
) -> Result<u64, DrainError> {
    let mut packets = 0;
    let mut take = |drained: Drained, ledger: &mut Ledger| {
        let at = at_of(&drained, timezone);
        let observation = observe::observation(drained, at);
        match ledger.fold(&observation, locate, &[]) {
            Ok(Folded::AlreadyTaken) => Ok(()),
            Ok(Folded::Taken { .. }) => {
                packets += observation.counts.packets.iter().sum::<u64>();
                Ok(())
            }
            Err(error) => Err(DrainError::Uncommitted { fate: None, source: error.into() }),
        }
    };
    let spare = match spare {
        Spare::Full(full) => {
            take(kernel.read(&full)?, ledger)?;
            kernel.recycle(full)
        }
        Spare::Empty(spare) => spare,
    };
    kernel.tidy(&spare)?;
    for drained in kernel.earlier()? {
        take(drained, ledger)?;
    }
    kernel.forget_earlier()?;
    let full = kernel.switch(spare, &Policy::default()).map_err(|NotSwitched { error, .. }| error)?;
    take(kernel.read(&full)?, ledger)?;
    Ok(packets)
}

/// The instant that a generation of an earlier daemon counts for, as far as the clocks can tell now.
fn at_of(drained: &Drained, timezone: &TimeZone) -> Timestamp {
    let now = Reading::take();
    let wall = |nanos| now.at_nanos(nanos).wall;
    schedule::attribute(wall(drained.began), wall(drained.began.saturating_add(drained.nanos)), timezone)
}

/// A generation that is drained and not committed.
struct Pending {
    observation: Observation,
    /// To be given back once it is committed; `None` when an earlier layout's pins hold it.
    full: Option<Full>,
    /// Whether it has entries in the source table.
    table_used: bool,
    /// When it was switched away from.
    switched: Instant,
    /// For how long it was current.
    lasted: Duration,
    stages: Stages,
}

impl Pending {
    fn new(drained: Drained, full: Option<Full>, at: Timestamp, switched: Instant) -> Self {
        let table_used = drained.table_used();
        let mut stages = Stages::switched(switched);
        let observation = observe::observation(drained, at);
        stages.aggregated();
        let lasted = observation.observed;
        Self { observation, full, table_used, switched, lasted, stages }
    }
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
                    tell(jump);
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
                DrainCommand::Geoip(path) => {
                    if let Err(error) = self.geoip.follow(geoip::DatabaseFiles::new(path)) {
                        error!(error = &error as &dyn std::error::Error, "GeoIP database not reloaded");
                    }
                }
                DrainCommand::Asn(path) => {
                    if let Err(error) = self.asn.follow(who::AsnFiles::new(path)) {
                        error!(error = &error as &dyn std::error::Error, "ASN database not reloaded");
                    }
                }
                DrainCommand::Lists(lists) => {
                    if let Err(error) = self.lists.follow(who::ListFiles::new(lists)) {
                        error!(error = &error as &dyn std::error::Error, "source lists not reloaded");
                    }
                }
                DrainCommand::Stop { detach } => return self.stop(state, detach),
            }
            while !state.fault.is_failing() && self.kernel.fill() >= FULL_ENOUGH {
                self.step(&mut state);
            }
        }
    }

    /// Says that there are counts of a time without a daemon, and on which day they count.
    fn tell_taken_over(&self, began: &Reading) {
        if began.age() < Duration::from_secs(1) {
            return;
        }
        let local = |at: Timestamp| at.to_zoned(self.timezone.clone());
        let now = Timestamp::now();
        let at = local(schedule::attribute(began.wall, now, &self.timezone));
        let since = local(began.wall);
        info!(since = %since, day = %at.date(), hour = at.hour(), "the pinned program counted while no daemon ran; its counts are taken over");
        if since.date() != local(now).date() {
            warn!(
                since = %since,
                day = %at.date(),
                "packets counted since then span several days and cannot be split; counting all of them on this day"
            );
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

    /// Whether every interface is attached.
    fn is_attached(&self) -> bool {
        self.interfaces.iter().all(|name| self.kernel.is_attached(name))
    }

    /// Shows how many addresses are observed.
    pub fn show_monitored(&self) {
        let (v4, v6) = self.policy.monitored_addresses();
        self.exposition.health().set_monitored_addresses(v4, v6);
    }

    /// Tells from when the rules hold; a generation that cannot be committed keeps the old ones.
    fn tell_policy(&self, state: &DrainState) {
        let Policy { observe, excluded, services, .. } = &self.policy;
        if state.pending.is_some() || state.fault.is_failing() {
            warn!(
                "rules changed but not applied, because the last generation cannot be committed; they apply with the next drain that can"
            );
        } else {
            info!(
                observed = observe.len(),
                excluded = excluded.len(),
                services = services.len(),
                "counting by the changed rules from now on"
            );
        }
    }

    /// Brings up to date whether the sensor can see, and tells what has changed.
    fn look(&mut self, state: &DrainState) {
        let detached = self.interfaces.iter().filter(|name| !self.kernel.is_attached(name)).map(|name| {
            let advice = match state.refused.get(name) {
                Some(error) => format!("attaching failed and is tried again with every drain: {error}"),
                None => "it is attached as soon as it can be".to_owned(),
            };
            let what = format!("the program is not attached to interface {name}");
            Blind::new(Reason::Detached, Some(name), what, advice)
        });
        let detached = detached.collect();
        self.watch.set(ReasonOrigin::Attachments, detached, clock::monotonic_nanos());
        let (health, blind) = (self.exposition.health(), self.watch.blind());
        if health.blind() != blind {
            health.set_blind(blind);
        }
        for change in self.watch.changes(clock::now()) {
            tell_sight(&change);
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

    /// Observes what is to be observed now.
    fn observe(&mut self, scene: Scene, state: &mut DrainState) {
        let Scene { names, policy, interfaces, released_first, blind } = scene;
        let (has_moved, is_changed) = (names != self.interfaces, policy != self.policy);
        if is_changed {
            self.policy = policy;
        }
        if has_moved || is_changed {
            self.step(state);
        }
        if is_changed {
            // What is shown is counted by already.
            self.show_monitored();
            self.tell_policy(state);
        }
        if has_moved {
            // An unwanted one that is gone is no gap.
            self.interfaces.retain(|name| names.contains(name));
            self.release_where(|name| released_first.contains(name) && !names.contains(name));
        }
        for interface in &interfaces {
            self.attach(interface, state);
        }
        if has_moved {
            // Only now: until the new interfaces are attached, the ones of before count.
            self.release_where(|name| !names.contains(name));
        }
        // With those that are not there.
        self.interfaces = names;
        self.watch.set(ReasonOrigin::Network, blind, clock::monotonic_nanos());
        self.look(state);
        if state.attached && !self.is_attached() {
            self.step(state);
        }
    }

    /// Ends the attachments to the interfaces that are not wanted.
    fn release_where(&mut self, is_unwanted: impl Fn(&String) -> bool) {
        match self.kernel.release_where(is_unwanted) {
            Ok(released) => {
                for name in released {
                    info!(interface = name, "no longer observed; its attachment has ended");
                }
            }
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "an attachment could not be ended; what arrives there is still counted"
            ),
        }
    }

    fn attach(&mut self, interface: &Interface, state: &mut DrainState) {
        if self.kernel.is_attached(&interface.name) {
            return;
        }
        let is_known = self.kernel.attachments().any(|(name, ..)| name == interface.name);
        if is_known {
            self.look(state);
        }
        // What has been counted so far lies before a gap.
        state.attached = false;
        self.step(state);
        // What the current generation counts from now on is observed, be it begun just now or, when the
        // step failed, in the midst of the gap.
        match self.kernel.attach_again(interface, self.mode) {
            // That a known one is attached again is logged with the end of that state.
            Ok(_) if is_known => {}
            Ok(mode) => info!(interface = interface.name, mode = mode.name(), "observing"),
            // The link was on its way down; it is looked at again when it is back.
            Err(KernelError::Gone { .. }) => {
                debug!(interface = interface.name, "gone before it was attached again");
                return;
            }
            Err(error) => {
                // It is tried again with every drain, and logged once.
                let told = error.to_string();
                if state.refused.get(&interface.name) != Some(&told) {
                    error!(
                        interface = interface.name,
                        error = &error as &dyn std::error::Error,
                        "cannot attach again"
                    );
                    state.refused.insert(interface.name.clone(), told);
                }
                self.look(state);
                return;
            }
        }
        state.refused.remove(&interface.name);
        if !self.interfaces.contains(&interface.name) {
            self.interfaces.push(interface.name.clone());
        }
        state.attached = self.is_attached();
        self.exposition.health().set_attached(state.attached);
        self.look(state);
    }

    /// Tells when the ledger lacks what an earlier daemon had committed: it was put in place from a
    /// copy, or commits at the end of its write-ahead log were lost with the file system.
    fn compare_with_pins(&mut self) {
        let last = self.ledger.last_generation();
        if let Some(committed) = self.kernel.committed().filter(|committed| *committed > last) {
            error!(
                ledger_ends_at = last,
                committed,
                "the ledger lacks drains that had been committed: is it a copy, or is its write-ahead log damaged? \
                 Counting continues; what was in them is missing from its days and counters"
            );
            self.ledger.note_loss(format!(
                "the ledger ended at drain {last} when this daemon started, and drains up to {committed} had been \
                 committed: what was in them is missing from its days and counters"
            ));
        }
    }

    /// A generation that a daemon was killed over.
    fn take_left_over(&mut self, state: &mut DrainState) -> Result<(), DrainError> {
        match state.spare.take() {
            Some(Spare::Full(full)) => {
                let drained = self.kernel.read(&full)?;
                info!(
                    generation = drained.number,
                    "generation from before the restart found; it is counted unless the ledger already has it"
                );
                let at = at_of(&drained, &self.timezone);
                state.pending = Some(Pending::new(drained, Some(full), at, clock::now()));
                if let Err(error) = self.commit(state) {
                    self.report(state, &error);
                }
            }
            Some(Spare::Empty(spare)) => {
                // Entries of generations that are in the ledger already may be left.
                self.kernel.tidy(&spare)?;
                state.spare = Some(Spare::Empty(spare));
            }
            None => {}
        }
        Ok(())
    }

    /// What a release with an earlier layout has left; its pins go once all of it is in the ledger.
    fn take_earlier(&mut self, state: &mut DrainState) -> Result<(), DrainError> {
        if !self.kernel.has_earlier() {
            return Ok(());
        }
        for drained in self.kernel.earlier()? {
            let at = at_of(&drained, &self.timezone);
            state.pending = Some(Pending::new(drained, None, at, clock::now()));
            self.commit(state)?;
        }
        Ok(self.kernel.forget_earlier()?)
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

    /// Takes over databases that were read again, and says in the log what has become of them.
    fn look_at_databases(&mut self, state: &mut DrainState) {
        let health = self.exposition.health();
        let geoip = self.geoip.look();
        if geoip == Look::Reloaded {
            let database = self.geoip.current();
            health.set_geoip(database.built().as_second() as u64, database.source());
            info!(built = %database.built(), "GeoIP database reloaded");
        }
        let lists = self.lists.look();
        if lists == Look::Reloaded {
            let current = self.lists.current();
            health.set_lists(current.read());
            info!(
                lists = current.names().len(),
                prefixes = current.read().iter().map(|list| list.prefixes).sum::<usize>(),
                "source lists reloaded"
            );
        }
        let asn = self.asn.look();
        if asn == Look::Reloaded {
            let database = self.asn.current();
            health.set_asn(database.read());
            let built = database.read().map(|read| tracing::field::display(read.built));
            info!(built, networks = database.networks().len(), "ASN database reloaded");
        }
        state.swollen |= [geoip, lists, asn].contains(&Look::Reloaded);
        for (what, look, fault, lasts) in [
            (Reloadable::Geoip, geoip, self.geoip.fault().map(as_error), &mut state.geoip_fault),
            (Reloadable::Lists, lists, self.lists.fault().map(as_error), &mut state.lists_fault),
            (Reloadable::Asn, asn, self.asn.fault().map(as_error), &mut state.asn_fault),
        ] {
            if look == Look::Failed {
                health.reload_failed(what);
            }
            health.set_unread(what, fault.map(crate::error_chain));
            tell_fault(what, fault, lasts);
        }
    }

    /// Commits what waits for it, switches, and commits that.
    fn try_step(&mut self, state: &mut DrainState) -> Result<(), DrainError> {
        state.tried = clock::now();
        self.maintain_flows();
        tell_pinned(state, self.kernel.keep_pinned());
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
                    tell_recycled(state, self.kernel.tidy(&spare));
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

/// For databases of several types.
fn as_error<E: std::error::Error + 'static>(error: &E) -> &(dyn std::error::Error + 'static) {
    error
}

/// Says in the log that a database cannot be read, or can be again.
fn tell_fault(what: Reloadable, fault: Option<&(dyn std::error::Error + 'static)>, lasts: &mut Fault) {
    let (name, meanwhile) = match what {
        Reloadable::Geoip => ("GeoIP database", "sources are located by the one before"),
        Reloadable::Lists => ("source lists", "sources are judged by those before"),
        Reloadable::Asn => ("ASN database", "networks are those of the one before"),
        Reloadable::Config | Reloadable::Web => ("configuration", "what was read before stays in use"),
    };
    let now = clock::now();
    let Some(error) = fault else {
        if let Some(Notice::Ended(drains)) = lasts.worked(now) {
            info!(drains, "{name} readable again; drains that used what was read before");
        }
        return;
    };
    match lasts.failed(&crate::error_chain(error), now) {
        Some(Notice::Lasts(drains)) => error!(error, drains, "{name} still not reloaded; {meanwhile}"),
        Some(_) => error!(error, "{name} not reloaded; {meanwhile}"),
        None => {}
    }
}

/// What the drain remembers between steps.
struct DrainState {
    /// A generation that is to be committed.
    pending: Option<Pending>,
    /// The generation that is not current; `None` while it is pending.
    spare: Option<Spare>,
    /// The clocks when the current generation became it.
    switched: Reading,
    /// When a commit was tried last.
    tried: Instant,
    /// Whether all interfaces have been attached since the last switch.
    attached: bool,
    /// Why interfaces could not be attached again, by name.
    refused: HashMap<String, String>,
    /// What has arrived lately, and the day on which it was learned what is normal.
    traffic: Traffic,
    learned: Option<Date>,
    /// The drain fails; what it had drained is pending.
    fault: Fault,
    /// The country database in use is not the one of its files.
    geoip_fault: Fault,
    /// The source lists in use are not those of their files.
    lists_fault: Fault,
    /// The ASN database in use is not that of its file.
    asn_fault: Fault,
    /// Drained generations cannot be emptied.
    recycle_fault: Fault,
    /// Pins are missing that cannot be made again.
    pin_fault: Fault,
    /// Whether there may be memory to give back.
    swollen: bool,
    flood: Flood,
}

impl DrainState {
    fn new(kernel: &Kernel, spare: Spare) -> Self {
        let now = Reading::take();
        Self {
            pending: None,
            spare: Some(spare),
            switched: now.at_nanos(kernel.began()),
            tried: now.steady,
            attached: true,
            refused: HashMap::new(),
            traffic: Traffic::default(),
            learned: None,
            fault: Fault::default(),
            geoip_fault: Fault::default(),
            lists_fault: Fault::default(),
            asn_fault: Fault::default(),
            recycle_fault: Fault::default(),
            pin_fault: Fault::default(),
            // The country database and the ledger were just read.
            swollen: true,
            flood: Flood::default(),
        }
    }
}

/// Says in the log whether drained generations can be emptied.
fn tell_recycled(state: &mut DrainState, recycled: Result<(), KernelError>) {
    let now = clock::now();
    let Err(error) = recycled else {
        if let Some(Notice::Ended(failures)) = state.recycle_fault.worked(now) {
            info!(failures, "drained generations are emptied again");
        }
        return;
    };
    let error: &dyn std::error::Error = &error;
    match state.recycle_fault.failed(&crate::error_chain(error), now) {
        Some(Notice::Lasts(failures)) => {
            error!(error, failures, "drained generation still not emptied; retrying with the next drain");
        }
        Some(_) => error!(error, "drained generation not emptied; retrying with the next drain"),
        None => {}
    }
}

/// Says in the log whether everything is pinned; `Ok(true)`: again.
fn tell_pinned(state: &mut DrainState, pinned: Result<bool, KernelError>) {
    const CONSEQUENCE: &str = "packets after this daemon ends will not be counted. Restart teiten, which mounts and \
                               pins as at any start";
    let now = clock::now();
    match pinned {
        Ok(again) => {
            let over = state.pin_fault.worked(now);
            if again || over.is_some() {
                warn!("pins were removed while running; pinned again");
            }
        }
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            match state.pin_fault.failed(&crate::error_chain(error), now) {
                Some(Notice::Lasts(failures)) => {
                    warn!(error, failures, "pins are still missing and cannot be made again; {CONSEQUENCE}");
                }
                Some(_) => {
                    warn!(error, "pins were removed while running and cannot be made again; {CONSEQUENCE}");
                }
                None => {}
            }
        }
    }
}

/// Says in the log what became of the sensor's sight.
fn tell_sight(change: &SightChange) {
    match change {
        SightChange::Begun { blind, untold } => {
            let interface = blind.interface.as_deref();
            let Blind { reason, .. } = blind;
            if *untold == 0 {
                warn!(reason = reason.name(), interface, "blind: {blind}");
            } else {
                warn!(
                    reason = reason.name(),
                    interface, untold, "blind; {untold} changes since the last line were not logged: {blind}"
                );
            }
        }
        SightChange::Ended { reason, interface, lasted } => {
            let after = crate::format::spoken(lasted.as_secs_f64());
            let what = if *reason == Reason::Detached { "attached again" } else { "sees again" };
            info!(
                reason = reason.name(),
                interface = interface.as_deref(),
                after,
                "{what}: {reason} is over; its time counts as observed from now on, unless another reason holds"
            );
        }
    }
}

/// Says in the log what became of the wall clock.
fn tell(jump: Jump) {
    if !jump.asleep.is_zero() {
        info!(slept = ?jump.asleep, "the machine was suspended; nothing was seen meanwhile");
    }
    if jump.set.abs() >= SignedDuration::from_secs(1) {
        warn!(
            by = %format_args!("{:#}", jump.set),
            now = %Timestamp::now(),
            "the wall clock was set; what is counted from now on belongs to the new time"
        );
    }
}
