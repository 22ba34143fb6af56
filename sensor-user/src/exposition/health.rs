//! The sensor's own state: whether it counts, how its drains go, what it observes.

use super::SensorInfo;
use crate::counters::port_names::PortTable;
use crate::observation::FlowStatus;
use crate::sight::{Blind, Reason, sees};
use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{
    Counter, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use sensor_counters::OTHERS;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of `teiten_drain_duration_seconds`: an idle drain takes milliseconds, one of a
/// million sources about a second.
const DRAIN_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Setters for the metrics that are not totals. All of them may be called from any thread.
pub struct Health {
    registry: Registry,
    changes: AtomicU64,
    attached: AtomicBool,
    drains: Mutex<Drains>,
    blind: Mutex<Vec<Blind>>,
    up: IntGauge,
    blind_reasons: IntGaugeVec,
    // Without labels, so that they are absent until they are known: 0 would be the year 1970.
    last_drain: GaugeVec,
    geoip_build: GaugeVec,
    geoip_info: GaugeVec,
    drain_duration: Histogram,
    drain_failures: IntCounter,
    reload_failures: IntCounterVec,
    monitored: GaugeVec,
    sensor_info: GaugeVec,
    ledger_info: GaugeVec,
    build_info: GaugeVec,
    port_info: GaugeVec,
    ledger_damaged: IntGauge,
    /// Whether the ledger is damaged, and whether it lacks something.
    ledger: [AtomicBool; 2],
    flow_tracking: GaugeVec,
    flows: IntGauge,
    flows_accepted: IntGauge,
    flows_created: IntCounter,
    flow_failures: IntCounter,
    flow_replies: IntCounter,
    flow_replies_unsure: IntCounter,
    flow_notes_displaced: IntCounter,
    held: IntGauge,
    render_seconds: Counter,
    http_requests: IntCounterVec,
    http_connections: IntGauge,
    http_closed: IntCounterVec,
}

struct Drains {
    /// A drain older than this is not current.
    current_for: Duration,
    last: Option<(Instant, Timestamp)>,
}

/// Why the web server ended a connection from its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What of the configuration can be reloaded while running, for
/// `teiten_reload_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The country database.
    Geoip,
    /// The configuration file, flags and environment.
    Config,
    /// `--web.config.file` and the certificates it names.
    Web,
}

impl Reload {
    const ALL: [Self; 3] = [Self::Geoip, Self::Config, Self::Web];

    const fn name(self) -> &'static str {
        match self {
            Self::Geoip => "geoip",
            Self::Config => "config",
            Self::Web => "web",
        }
    }
}

/// Name, help text and labels of a metric.
fn opts(name: &str) -> (Opts, &'static [&'static str]) {
    let other = OTHERS.iter().find(|other| other.name == name).expect("each metric is described");
    (Opts::new(other.name, other.help), other.labels)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Health {
    /// Registers everything; a drain is current for `current_for`, until
    /// [`Health::set_current_for`] says otherwise.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name| register(registry, IntGauge::with_opts(opts(name).0)?);
        let gauges = |name| {
            let (opts, labels) = opts(name);
            register(registry, GaugeVec::new(opts, labels)?)
        };
        let counters = |name| {
            let (opts, labels) = opts(name);
            register(registry, IntCounterVec::new(opts, labels)?)
        };
        let counter = |name| register(registry, IntCounter::with_opts(opts(name).0)?);
        let health = Self {
            registry: registry.clone(),
            changes: AtomicU64::new(0),
            attached: AtomicBool::new(false),
            drains: Mutex::new(Drains { current_for: Duration::from_secs(30), last: None }),
            blind: Mutex::new(Vec::new()),
            up: gauge("teiten_up")?,
            blind_reasons: {
                let (opts, labels) = opts("teiten_blind");
                register(registry, IntGaugeVec::new(opts, labels)?)?
            },
            last_drain: gauges("teiten_last_drain_timestamp_seconds")?,
            geoip_build: gauges("teiten_geoip_build_timestamp_seconds")?,
            geoip_info: gauges("teiten_geoip_info")?,
            drain_duration: register(
                registry,
                Histogram::with_opts(
                    HistogramOpts::from(opts("teiten_drain_duration_seconds").0)
                        .buckets(DRAIN_BUCKETS.to_vec()),
                )?,
            )?,
            drain_failures: counter("teiten_drain_failures_total")?,
            reload_failures: counters("teiten_reload_failures_total")?,
            monitored: gauges("teiten_monitored_addresses")?,
            sensor_info: gauges("teiten_sensor_info")?,
            ledger_info: gauges("teiten_ledger_info")?,
            build_info: gauges("teiten_build_info")?,
            port_info: gauges("teiten_port_info")?,
            ledger: [AtomicBool::new(false), AtomicBool::new(false)],
            ledger_damaged: gauge("teiten_ledger_damaged")?,
            flow_tracking: gauges("teiten_flow_tracking")?,
            flows: gauge("teiten_flows")?,
            flows_accepted: gauge("teiten_flows_accepted")?,
            flows_created: counter("teiten_flows_created_total")?,
            flow_failures: counter("teiten_flow_failures_total")?,
            flow_replies: counter("teiten_flow_replies_total")?,
            flow_replies_unsure: counter("teiten_flow_replies_unsure_total")?,
            flow_notes_displaced: counter("teiten_flow_notes_displaced_total")?,
            held: gauge("teiten_series_held")?,
            render_seconds: register(registry, Counter::with_opts(opts("teiten_render_seconds_total").0)?)?,
            http_requests: counters("teiten_http_requests_total")?,
            http_connections: gauge("teiten_http_connections")?,
            http_closed: counters("teiten_http_connections_closed_total")?,
        };
        for reason in Reason::ALL {
            health.blind_reasons.with_label_values(&[reason.name()]);
        }
        for closed in Closed::ALL {
            health.http_closed.with_label_values(&[closed.name()]);
        }
        for handler in ["landing", "metrics", "status", "healthy", "ready", "none"] {
            health.http_requests.with_label_values(&[handler, if handler == "none" { "404" } else { "200" }]);
        }
        for reload in Reload::ALL {
            health.reload_failures.with_label_values(&[reload.name()]);
        }
        Ok(health)
    }

    /// The registry, for collectors of the caller's own.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn drains(&self) -> std::sync::MutexGuard<'_, Drains> {
        // Plain values, whole after every statement: a panic elsewhere does not spoil them.
        self.drains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often something here was set.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the XDP program is attached.
    pub fn set_attached(&self, attached: bool) {
        self.attached.store(attached, Ordering::Release);
        self.changed();
    }

    /// Everything that keeps the sensor from seeing its line now.
    pub fn set_blind(&self, blind: Vec<Blind>) {
        *self.lock_blind() = blind;
        self.changed();
    }

    fn lock_blind(&self) -> std::sync::MutexGuard<'_, Vec<Blind>> {
        // Replaced as a whole: a panic elsewhere does not spoil it.
        self.blind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps the sensor from seeing its line.
    pub fn blind(&self) -> Vec<Blind> {
        self.lock_blind().clone()
    }

    /// The identity of the ledger; what was set before goes away.
    pub fn set_ledger(&self, identity: u64) {
        self.ledger_info.reset();
        self.ledger_info.with_label_values(&[&format!("{identity:016x}")]).set(1.0);
        self.changed();
    }

    /// How long after a drain the next one must have been committed: three intervals.
    pub fn set_current_for(&self, current_for: Duration) {
        self.drains().current_for = current_for;
        self.changed();
    }

    /// A drain was committed at `now`, which the wall clock calls `at`, and took `took` from the
    /// swap.
    pub fn drained(&self, now: Instant, at: Timestamp, took: Duration) {
        self.drains().last = Some((now, at));
        self.last_drain.with_label_values::<&str>(&[]).set(at.as_duration().as_secs_f64());
        self.drain_duration.observe(took.as_secs_f64());
        self.changed();
    }

    /// A drain could not be committed.
    pub fn drain_failed(&self) {
        self.drain_failures.inc();
        self.changed();
    }

    /// A file could not be reloaded.
    pub fn reload_failed(&self, what: Reload) {
        self.reload_failures.with_label_values(&[what.name()]).inc();
        self.changed();
    }

    /// Shows whether the ledger, or what lies beside it, is known to be damaged.
    pub fn set_ledger_damaged(&self, damaged: bool) {
        self.set_ledger_state(0, damaged);
    }

    /// Shows whether the ledger is known to lack something that it had.
    pub fn set_ledger_lacking(&self, lacking: bool) {
        self.set_ledger_state(1, lacking);
    }

    fn set_ledger_state(&self, which: usize, value: bool) {
        self.ledger[which].store(value, Ordering::Relaxed);
        self.ledger_damaged.set(self.ledger.iter().any(|it| it.load(Ordering::Relaxed)).into());
        self.changed();
    }

    /// When the country database in use was built, seconds since the epoch, and whether it is the `embedded`
    /// one or a `file`.
    pub fn set_geoip(&self, epoch_seconds: u64, source: &str) {
        self.geoip_info.reset();
        self.geoip_info.with_label_values(&[source]).set(1.0);
        self.geoip_build.with_label_values::<&str>(&[]).set(epoch_seconds as f64);
        self.changed();
    }

    /// How many addresses of each family count as the sensor.
    pub fn set_monitored_addresses(&self, ipv4: f64, ipv6: f64) {
        self.monitored.with_label_values(&["ipv4"]).set(ipv4);
        self.monitored.with_label_values(&["ipv6"]).set(ipv6);
        self.changed();
    }

    /// The sensor's name, zone, interfaces and build; what was set before goes away.
    pub fn set_sensor(&self, info: &SensorInfo) {
        self.sensor_info.reset();
        for (interface, mode) in info.interfaces.iter().zip(&info.xdp_modes) {
            self.sensor_info.with_label_values(&[&info.sensor, &info.timezone, interface, mode]).set(1.0);
        }
        self.build_info.reset();
        self.build_info.with_label_values(&[&info.version, &info.revision]).set(1.0);
        self.changed();
    }

    /// How it is learned what each interface sends (`tcx`, `clsact` or `none`); what was set before
    /// goes away.
    pub fn set_flow_tracking<'a>(&self, interfaces: impl Iterator<Item = (&'a str, &'a str)>) {
        self.flow_tracking.reset();
        for (interface, method) in interfaces {
            self.flow_tracking.with_label_values(&[interface, method]).set(1.0);
        }
        self.changed();
    }

    /// What is known of flows; its counters count from when the maps in the kernel were made.
    pub fn set_flows(&self, status: &FlowStatus) {
        self.flows.set(status.entries as i64);
        self.flows_accepted.set(status.accepted as i64);
        for (counter, value) in [
            (&self.flows_created, status.created),
            (&self.flow_failures, status.failed),
            (&self.flow_replies, status.replies),
            (&self.flow_replies_unsure, status.unsure),
            (&self.flow_notes_displaced, status.displaced),
        ] {
            counter.inc_by(value.saturating_sub(counter.get()));
        }
        self.changed();
    }

    /// How many conversations of this host could not be kept.
    pub fn flow_failures(&self) -> u64 {
        self.flow_failures.get()
    }

    /// The interfaces of which it is not known what they send.
    pub fn untracked(&self) -> Vec<String> {
        let families = self.flow_tracking.collect();
        let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        metrics
            .filter_map(|metric| {
                let value = |name: &str| metric.get_label().iter().find(|label| label.name() == name);
                let is_none = value("method").is_some_and(|label| label.value() == "none");
                value("interface").filter(|_| is_none).map(|label| label.value().to_owned())
            })
            .collect()
    }

    /// Explains all ports of `table`; what was set before goes away.
    pub fn set_ports(&self, table: &PortTable) {
        self.port_info.reset();
        for (slot, entry) in table.iter() {
            let port = slot.port().to_string();
            self.port_info
                .with_label_values(&[slot.transport().name(), &port, &entry.name, &entry.en])
                .set(1.0);
        }
        self.changed();
    }

    /// Whether a drain was committed, and not too long ago.
    pub fn is_current(&self, now: Instant) -> bool {
        let drains = self.drains();
        drains.last.is_some_and(|(last, _)| now.saturating_duration_since(last) <= drains.current_for)
    }

    /// Whether the sensor can see its line: the XDP program is attached, the drain is current, and no
    /// reason for blindness is certain.
    pub fn is_up(&self, now: Instant) -> bool {
        self.attached.load(Ordering::Acquire) && self.is_current(now) && sees(&self.lock_blind())
    }

    /// Why the sensor is not up, a line for each reason.
    pub fn why_not_up(&self, now: Instant) -> Vec<String> {
        let mut why: Vec<String> = self
            .blind()
            .into_iter()
            .filter(|blind| blind.reason.is_certain())
            .map(|blind| format!("{}: {blind}", blind.reason))
            .collect();
        if !self.is_current(now) {
            why.push("no drain was committed within three intervals".to_owned());
        } else if why.is_empty() && !self.attached.load(Ordering::Acquire) {
            why.push("the program is not attached to every interface".to_owned());
        }
        why
    }

    /// When the last drain was committed, by the wall clock.
    pub fn last_drain(&self) -> Option<Timestamp> {
        self.drains().last.map(|(_, at)| at)
    }

    /// How many drains could not be committed.
    pub fn drain_failures(&self) -> u64 {
        self.drain_failures.get()
    }

    /// When the country database in use was built, seconds since the epoch; `None` until it is known.
    pub fn geoip_build(&self) -> Option<u64> {
        let family = self.geoip_build.collect().pop()?;
        family.get_metric().first().map(|metric| metric.get_gauge().get_value() as u64)
    }

    /// Size of the observed IPv4 and IPv6 space; `None` until it is known.
    pub fn monitored_addresses(&self) -> Option<[f64; 2]> {
        let is_known = !self.monitored.collect().pop()?.get_metric().is_empty();
        is_known.then(|| ["ipv4", "ipv6"].map(|family| self.monitored.with_label_values(&[family]).get()))
    }

    /// A connection was opened.
    pub(crate) fn http_opened(&self) {
        self.http_connections.inc();
    }

    /// A connection is gone; `why` when that was the server's doing.
    pub(crate) fn http_gone(&self, why: Option<Closed>) {
        self.http_connections.dec();
        if let Some(why) = why {
            self.http_closed.with_label_values(&[why.name()]).inc();
        }
    }

    /// A request was answered.
    pub(crate) fn http_request(&self, handler: &str, code: &str) {
        self.http_requests.with_label_values(&[handler, code]).inc();
    }

    /// Brings what depends on the time and on the holds up to date, before a render.
    pub(super) fn refresh(&self, now: Instant, held: usize) {
        let blind = self.lock_blind();
        let sees = sees(&blind);
        for reason in Reason::ALL {
            let holds = blind.iter().any(|blind| blind.reason == reason);
            self.blind_reasons.with_label_values(&[reason.name()]).set(i64::from(holds));
        }
        drop(blind);
        self.up.set(i64::from(sees && self.attached.load(Ordering::Acquire) && self.is_current(now)));
        self.held.set(held as i64);
    }

    /// A render took this long.
    pub(super) fn rendered(&self, took: Duration) {
        self.render_seconds.inc_by(took.as_secs_f64());
    }
}
