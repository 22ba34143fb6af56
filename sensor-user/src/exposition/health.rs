//! The sensor's own state: whether it counts, how its drains go, what it observes. Plain values, from which the
//! status, readiness and, at each scrape, the metrics are made.

mod metrics;

use super::{Reloadable, SensorInfo};
use crate::counters::port_names::PortTable;
use crate::observation::FlowStatus;
use crate::sight::{Blind, sees};
use crate::who::asn::AsnRead;
use crate::who::lists::Read;
use jiff::Timestamp;
use prometheus::{Histogram, HistogramOpts, Registry};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Upper bounds of `teiten_drain_duration_seconds`: an idle drain takes milliseconds, one of a
/// million sources about a second.
const DRAIN_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Paths of the web server, as `teiten_http_requests_total` names them, and what they answer as a rule.
const HANDLERS: [(&str, &str); 6] = [
    ("landing", "200"),
    ("metrics", "200"),
    ("status", "200"),
    ("healthy", "200"),
    ("ready", "200"),
    ("none", "404"),
];

/// The state that is not counted by the ledger. Everything may be called from any thread.
pub struct Health {
    changes: AtomicU64,
    state: Arc<Mutex<HealthState>>,
}

/// How the archive is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveHealth {
    /// Whether the last drain is not in it.
    pub failing: bool,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that its bounds have dropped.
    pub dropped_files: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// The packets in them.
    pub dropped_packets: u64,
}

struct HealthState {
    /// A drain older than this is not current.
    current_for: Duration,
    last_drain: Option<(Instant, Timestamp)>,
    drain_duration: Histogram,
    drain_failures: u64,
    /// Why the last drain was not committed.
    drain_fault: Option<String>,
    is_attached: bool,
    blind: Vec<Blind>,
    reload_failures: BTreeMap<Reloadable, u64>,
    /// What could not be read when it was read last, and why.
    unread: BTreeMap<Reloadable, String>,
    sensor: Option<SensorInfo>,
    /// Size of the observed IPv4 and IPv6 space.
    monitored: Option<[f64; 2]>,
    /// Interfaces, and how it is learned what they send.
    flow_tracking: Vec<(String, String)>,
    flows: FlowStatus,
    ledger: Option<u64>,
    is_ledger_damaged: bool,
    is_ledger_lacking: bool,
    /// Build time of the country database, seconds since the epoch, and its source.
    geoip: Option<(u64, String)>,
    /// Source lists: name, prefixes, and when the file was changed last, seconds since the epoch.
    lists: Vec<(String, usize, Option<f64>)>,
    archive: Option<ArchiveHealth>,
    /// Build time of the ASN database, seconds since the epoch.
    asn: Option<i64>,
    /// Ports that sources of the day have reached, the hosts, and what they sent.
    breadth: Vec<(&'static str, u64, u64)>,
    /// Transport, port, name and description.
    ports: Vec<[String; 4]>,
    http_requests: BTreeMap<(String, String), u64>,
    http_connections: u64,
    http_closed: BTreeMap<Closed, u64>,
    /// Series that the series-hold keeps at 0, as of the last render.
    held: usize,
    rendering: Duration,
    /// When the last render began.
    now: Instant,
}

/// Why the web server ended a connection from its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closed {
    /// It had to make room for a newer one.
    Evicted,
    /// It took longer than a limit allows.
    Timeout,
    /// TLS was not agreed on, or the client showed no certificate that is allowed.
    Handshake,
    /// What it sent is not HTTP.
    Protocol,
}

impl Closed {
    const ALL: [Self; 4] = [Self::Evicted, Self::Timeout, Self::Handshake, Self::Protocol];

    const fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Timeout => "timeout",
            Self::Handshake => "handshake",
            Self::Protocol => "protocol",
        }
    }
}

fn lock(state: &Mutex<HealthState>) -> MutexGuard<'_, HealthState> {
    // Plain values, whole after every statement: a panic elsewhere does not spoil them.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HealthState {
    fn is_current(&self, now: Instant) -> bool {
        self.last_drain.is_some_and(|(last, _)| now.saturating_duration_since(last) <= self.current_for)
    }

    fn is_up(&self, now: Instant) -> bool {
        self.is_attached && self.is_current(now) && sees(&self.blind)
    }
}

impl Health {
    /// Registers the metrics; a drain is current for half a minute, until [`Health::set_current_for`] says
    /// otherwise.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let duration = metrics::described("teiten_drain_duration_seconds");
        let duration = HistogramOpts::new(duration.name, duration.help).buckets(DRAIN_BUCKETS.to_vec());
        let state = Arc::new(Mutex::new(HealthState {
            current_for: Duration::from_secs(30),
            last_drain: None,
            drain_duration: Histogram::with_opts(duration)?,
            drain_failures: 0,
            drain_fault: None,
            is_attached: false,
            blind: Vec::new(),
            reload_failures: Reloadable::ALL.map(|reload| (reload, 0)).into(),
            unread: BTreeMap::new(),
            sensor: None,
            monitored: None,
            flow_tracking: Vec::new(),
            flows: FlowStatus::default(),
            ledger: None,
            is_ledger_damaged: false,
            is_ledger_lacking: false,
            geoip: None,
            lists: Vec::new(),
            archive: None,
            asn: None,
            breadth: Vec::new(),
            ports: Vec::new(),
            http_requests: HANDLERS.map(|(handler, code)| ((handler.to_owned(), code.to_owned()), 0)).into(),
            http_connections: 0,
            http_closed: Closed::ALL.map(|closed| (closed, 0)).into(),
            held: 0,
            rendering: Duration::ZERO,
            now: Instant::now(),
        }));
        metrics::register(registry, &state)?;
        Ok(Self { changes: AtomicU64::new(0), state })
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        lock(&self.state)
    }

    /// How often something here was set.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn change(&self, change: impl FnOnce(&mut HealthState)) {
        change(&mut self.state());
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the XDP program is attached.
    pub fn set_attached(&self, attached: bool) {
        self.change(|state| state.is_attached = attached);
    }

    /// Everything that keeps the sensor from seeing its line.
    pub fn set_blind(&self, blind: Vec<Blind>) {
        self.change(|state| state.blind = blind);
    }

    /// What keeps the sensor from seeing its line.
    pub fn blind(&self) -> Vec<Blind> {
        self.state().blind.clone()
    }

    /// The identity of the ledger.
    pub fn set_ledger(&self, identity: u64) {
        self.change(|state| state.ledger = Some(identity));
    }

    /// How long after a drain the next one must have been committed: three intervals.
    pub fn set_current_for(&self, current_for: Duration) {
        self.change(|state| state.current_for = current_for);
    }

    /// A drain was committed at `now`, which the wall clock calls `at`, and took `took` from the
    /// swap.
    pub fn drained(&self, now: Instant, at: Timestamp, took: Duration) {
        self.change(|state| {
            state.last_drain = Some((now, at));
            state.drain_fault = None;
            state.drain_duration.observe(took.as_secs_f64());
        });
    }

    /// A drain could not be committed, for this reason.
    pub fn drain_failed(&self, why: &str) {
        self.change(|state| {
            state.drain_failures += 1;
            state.drain_fault = Some(why.to_owned());
        });
    }

    /// Why the last drain could not be committed; `None` when it was. With it, whether packets are counted in the
    /// kernel meanwhile.
    pub fn drain_fault(&self) -> Option<(String, bool)> {
        let state = self.state();
        state.drain_fault.clone().map(|why| (why, state.is_attached))
    }

    /// A file could not be reloaded.
    pub fn reload_failed(&self, what: Reloadable) {
        self.change(|state| *state.reload_failures.entry(what).or_default() += 1);
    }

    /// Records why `what` could not be read when it was read last; `None` when it could.
    pub fn set_unread(&self, what: Reloadable, why: Option<String>) {
        let is_known = self.state().unread.get(&what) == why.as_ref();
        if !is_known {
            self.change(|state| match why {
                Some(why) => drop(state.unread.insert(what, why)),
                None => drop(state.unread.remove(&what)),
            });
        }
    }

    /// What could not be read when it was read last, and why.
    pub fn unread(&self) -> BTreeMap<Reloadable, String> {
        self.state().unread.clone()
    }

    /// Whether the ledger, or what lies beside it, is known to be damaged.
    pub fn set_ledger_damaged(&self, damaged: bool) {
        self.change(|state| state.is_ledger_damaged = damaged);
    }

    /// Whether the ledger is known to lack something that it had.
    pub fn set_ledger_lacking(&self, lacking: bool) {
        self.change(|state| state.is_ledger_lacking = lacking);
    }

    /// When the country database in use was built, seconds since the epoch, and whether it is the `embedded`
    /// one or a `file`.
    pub fn set_geoip(&self, epoch_seconds: u64, source: &str) {
        self.change(|state| state.geoip = Some((epoch_seconds, source.to_owned())));
    }

    /// How the archive is; without this there is none.
    pub fn set_archive(&self, archive: ArchiveHealth) {
        self.change(|state| state.archive = Some(archive));
    }

    /// How the archive is; `None` when there is none.
    pub fn archive(&self) -> Option<ArchiveHealth> {
        self.state().archive
    }

    /// The ASN database in use.
    pub fn set_asn(&self, read: Option<&AsnRead>) {
        self.change(|state| state.asn = read.map(|read| read.built.as_second()));
    }

    /// When the ASN database was built, seconds since the epoch.
    pub fn asn_build(&self) -> Option<i64> {
        self.state().asn
    }

    /// Of the running day: how many ports sources have reached, the unique hosts that have, and what they sent.
    pub fn set_breadth(&self, bands: impl Iterator<Item = (&'static str, u64, u64)>) {
        let breadth = bands.collect();
        self.change(|state| state.breadth = breadth);
    }

    /// The source lists in use.
    pub fn set_lists(&self, lists: &[Read]) {
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64());
        let lists =
            lists.iter().map(|list| (list.name.clone(), list.prefixes, list.modified.and_then(seconds)));
        let lists = lists.collect();
        self.change(|state| state.lists = lists);
    }

    /// How many addresses of each family count as the sensor.
    pub fn set_monitored_addresses(&self, ipv4: f64, ipv6: f64) {
        self.change(|state| state.monitored = Some([ipv4, ipv6]));
    }

    /// The sensor's name, zone, interfaces and build.
    pub fn set_sensor(&self, info: &SensorInfo) {
        self.change(|state| state.sensor = Some(info.clone()));
    }

    /// How packets that each interface sends are seen: `tcx`, `clsact` or `none`.
    pub fn set_flow_tracking<'a>(&self, interfaces: impl Iterator<Item = (&'a str, &'a str)>) {
        let tracking = interfaces.map(|(interface, method)| (interface.to_owned(), method.to_owned()));
        let tracking = tracking.collect();
        self.change(|state| state.flow_tracking = tracking);
    }

    /// What is known of flows. What is counted since the maps in the kernel were made does not go down.
    pub fn set_flows(&self, status: &FlowStatus) {
        self.change(|state| {
            let flows = &mut state.flows;
            *flows = FlowStatus {
                entries: status.entries,
                accepted: status.accepted,
                created: status.created.max(flows.created),
                failed: status.failed.max(flows.failed),
                replies: status.replies.max(flows.replies),
                unsure: status.unsure.max(flows.unsure),
                displaced: status.displaced.max(flows.displaced),
            };
        });
    }

    /// How many conversations of this host could not be kept.
    pub fn flow_failures(&self) -> u64 {
        self.state().flows.failed
    }

    /// The interfaces of which it is not known what they send.
    pub fn untracked(&self) -> Vec<String> {
        let state = self.state();
        let untracked = state.flow_tracking.iter().filter(|(_, method)| method == "none");
        untracked.map(|(interface, _)| interface.clone()).collect()
    }

    /// Explains all ports of `table`.
    pub fn set_ports(&self, table: &PortTable) {
        let ports = table.iter().map(|(slot, entry)| {
            let (transport, port) = (slot.transport().name().to_owned(), slot.port().to_string());
            [transport, port, entry.name.clone(), entry.en.clone()]
        });
        let ports = ports.collect();
        self.change(|state| state.ports = ports);
    }

    /// Whether a drain was committed, and not too long ago.
    pub fn is_current(&self, now: Instant) -> bool {
        self.state().is_current(now)
    }

    /// Whether the sensor can see its line: the XDP program is attached, the drain is current, and no
    /// reason for blindness is certain.
    pub fn is_up(&self, now: Instant) -> bool {
        self.state().is_up(now)
    }

    /// Why the sensor is not up, a line for each reason.
    pub fn why_not_up(&self, now: Instant) -> Vec<String> {
        let state = self.state();
        let certain = state.blind.iter().filter(|blind| blind.reason.is_certain());
        let mut why: Vec<String> = certain.map(|blind| format!("{}: {blind}", blind.reason)).collect();
        if !state.is_current(now) {
            let because = state.drain_fault.as_ref().map(|why| format!(": {why}"));
            why.push(format!("no drain was committed within three intervals{}", because.unwrap_or_default()));
        } else if why.is_empty() && !state.is_attached {
            why.push("the program is not attached to every interface".to_owned());
        }
        why
    }

    /// When the last drain was committed, by the wall clock.
    pub fn last_drain(&self) -> Option<Timestamp> {
        self.state().last_drain.map(|(_, at)| at)
    }

    /// How many drains could not be committed.
    pub fn drain_failures(&self) -> u64 {
        self.state().drain_failures
    }

    /// When the country database in use was built, seconds since the epoch; `None` until it is known.
    pub fn geoip_build(&self) -> Option<u64> {
        self.state().geoip.as_ref().map(|(build, _)| *build)
    }

    /// Size of the observed IPv4 and IPv6 space; `None` until it is known.
    pub fn monitored_addresses(&self) -> Option<[f64; 2]> {
        self.state().monitored
    }

    /// A connection was opened.
    pub(crate) fn http_opened(&self) {
        self.state().http_connections += 1;
    }

    /// A connection is gone; `why` when that was the server's doing.
    pub(crate) fn http_gone(&self, why: Option<Closed>) {
        let mut state = self.state();
        state.http_connections = state.http_connections.saturating_sub(1);
        if let Some(why) = why {
            *state.http_closed.entry(why).or_default() += 1;
        }
    }

    /// A request was answered.
    pub(crate) fn http_request(&self, handler: &str, code: &str) {
        let of = (handler.to_owned(), code.to_owned());
        *self.state().http_requests.entry(of).or_default() += 1;
    }

    /// Brings what depends on the time and on the holds up to date, before a render.
    pub(super) fn refresh(&self, now: Instant, held: usize) {
        let mut state = self.state();
        state.now = now;
        state.held = held;
    }

    /// A render took this long.
    pub(super) fn rendered(&self, took: Duration) {
        self.state().rendering += took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_says_why_no_drain_is_committed() {
        let health = Health::new(&Registry::new()).unwrap();
        health.set_current_for(Duration::from_secs(30));
        health.set_attached(true);
        let start = Instant::now();
        health.drained(start, Timestamp::UNIX_EPOCH, Duration::ZERO);
        health.drain_failed("ledger: disk full");
        let later = start + Duration::from_secs(31);
        let expected = "no drain was committed within three intervals: ledger: disk full";
        assert_eq!(health.why_not_up(later), [expected]);
        assert_eq!(health.drain_fault(), Some(("ledger: disk full".to_owned(), true)));
        health.drained(later, Timestamp::UNIX_EPOCH, Duration::ZERO);
        assert_eq!((health.why_not_up(later), health.drain_fault()), (Vec::new(), None));
    }

    #[test]
    fn counters_of_flows_do_not_go_down_and_gauges_do() {
        let health = Health::new(&Registry::new()).unwrap();
        health.set_flows(&FlowStatus { entries: 5, created: 9, failed: 3, ..FlowStatus::default() });
        health.set_flows(&FlowStatus { entries: 1, created: 2, failed: 4, ..FlowStatus::default() });
        let expected = FlowStatus { entries: 1, created: 9, failed: 4, ..FlowStatus::default() };
        assert_eq!(health.state().flows, expected);
        assert_eq!(health.flow_failures(), 4);
    }

    #[test]
    fn interfaces_whose_sending_is_not_learned_are_named() {
        let health = Health::new(&Registry::new()).unwrap();
        health.set_flow_tracking([("eth0", "tcx"), ("eth1", "none")].into_iter());
        assert_eq!(health.untracked(), ["eth1"]);
    }
}
