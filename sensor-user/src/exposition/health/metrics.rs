//! The metrics of the sensor's own state, made from it at each scrape.

use super::{ArchiveHealth, HealthState, lock};
use crate::exposition::SensorInfo;
use crate::sight::Reason;
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use sensor_counters::{Kind, OTHERS, Other};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Registers what [`OTHERS`] describes; each scrape reads `state`.
pub(super) fn register(registry: &Registry, state: &Arc<Mutex<HealthState>>) -> prometheus::Result<()> {
    let description = |other: &Other| {
        let labels = other.labels.iter().map(|&label| label.to_owned()).collect();
        Desc::new(other.name.to_owned(), other.help.to_owned(), labels, HashMap::new())
    };
    registry.register(Box::new(HealthCollector {
        state: Arc::clone(state),
        descriptions: OTHERS.iter().map(description).collect::<prometheus::Result<_>>()?,
    }))
}

/// Reads the state at each scrape.
struct HealthCollector {
    state: Arc<Mutex<HealthState>>,
    descriptions: Vec<Desc>,
}

impl Collector for HealthCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        lock(&self.state).families()
    }
}

/// The catalogue's entry of a metric.
pub(super) fn described(name: &str) -> &'static Other {
    OTHERS.iter().find(|other| other.name == name).expect("each metric is described")
}

/// A family of series, each with the values of its labels in their order; absent when there are none.
fn family<const N: usize>(name: &str, series: impl IntoIterator<Item = ([String; N], f64)>) -> MetricFamily {
    let Other { name, kind, labels, help } = described(name);
    debug_assert_eq!(labels.len(), N, "{name}");
    let metric = |(values, value): ([String; N], f64)| {
        let label = |(name, value): (&&str, String)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value(value);
            label
        };
        let mut labels: Vec<_> = labels.iter().zip(values).map(label).collect();
        // As the library's own metrics have them.
        labels.sort_by(|a, b| a.name().cmp(b.name()));
        let mut metric = Metric::from_label(labels);
        if *kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    };
    let mut family = MetricFamily::default();
    family.set_name((*name).to_owned());
    family.set_help((*help).to_owned());
    family.set_field_type(if *kind == Kind::Counter { MetricType::COUNTER } else { MetricType::GAUGE });
    family.set_metric(series.into_iter().map(metric).collect());
    family
}

/// A family of one series without labels.
fn single(name: &str, value: f64) -> MetricFamily {
    family(name, [([], value)])
}

/// An information: a series of value 1.
fn info<const N: usize>(labels: [&str; N]) -> ([String; N], f64) {
    (labels.map(str::to_owned), 1.0)
}

impl HealthState {
    fn families(&self) -> Vec<MetricFamily> {
        let has = |reason| self.blind.iter().any(|blind| blind.reason == reason);
        let interfaces = |info: &SensorInfo| -> Vec<_> {
            let interfaces = info.interfaces.iter().zip(&info.xdp_modes);
            let labels = |(interface, mode): (&String, &String)| {
                [info.sensor.clone(), info.timezone.clone(), interface.clone(), mode.clone()]
            };
            interfaces.map(labels).map(|labels| (labels, 1.0)).collect()
        };
        let sensor = self.sensor.as_ref();
        let geoip = self.geoip.as_ref();
        let flows = &self.flows;
        let archive = |name, value: fn(&ArchiveHealth) -> u64| {
            family(name, self.archive.as_ref().map(|archive| ([], value(archive) as f64)))
        };
        let mut families = vec![
            single("teiten_up", self.is_up(self.now).into()),
            family(
                "teiten_blind",
                Reason::ALL.map(|reason| ([reason.name().to_owned()], has(reason).into())),
            ),
            family(
                "teiten_last_drain_timestamp_seconds",
                self.last_drain.map(|(_, at)| ([], at.as_duration().as_secs_f64())),
            ),
            family("teiten_geoip_build_timestamp_seconds", geoip.map(|(build, _)| ([], *build as f64))),
            family("teiten_geoip_info", geoip.map(|(_, source)| info([source]))),
            family(
                "teiten_source_list_prefixes",
                self.lists.iter().map(|(list, prefixes, _)| ([list.clone()], *prefixes as f64)),
            ),
            family(
                "teiten_source_list_modified_timestamp_seconds",
                self.lists.iter().filter_map(|(list, _, at)| Some(([list.clone()], (*at)?))),
            ),
            archive("teiten_archive_failing", |it| it.failing.into()),
            archive("teiten_archive_files", |it| it.files),
            archive("teiten_archive_bytes", |it| it.bytes),
            archive("teiten_archive_dropped_files_total", |it| it.dropped_files),
            archive("teiten_archive_dropped_bytes_total", |it| it.dropped_bytes),
            archive("teiten_archive_dropped_packets_total", |it| it.dropped_packets),
            family("teiten_asn_build_timestamp_seconds", self.asn.map(|build| ([], build as f64))),
            family(
                "teiten_day_hosts",
                self.breadth
                    .iter()
                    .filter(|(ports, ..)| *ports != "unknown")
                    .map(|(ports, hosts, _)| ([(*ports).to_owned()], *hosts as f64)),
            ),
            family(
                "teiten_day_accesses",
                self.breadth.iter().map(|(ports, _, sent)| ([(*ports).to_owned()], *sent as f64)),
            ),
            single("teiten_drain_failures_total", self.drain_failures as f64),
            family(
                "teiten_reload_failures_total",
                self.reload_failures.iter().map(|(what, count)| ([what.name().to_owned()], *count as f64)),
            ),
            family(
                "teiten_monitored_addresses",
                self.monitored
                    .into_iter()
                    .flat_map(|sizes| ["ipv4", "ipv6"].into_iter().zip(sizes))
                    .map(|(family, size)| ([family.to_owned()], size)),
            ),
            family("teiten_sensor_info", sensor.map(interfaces).unwrap_or_default()),
            family("teiten_build_info", sensor.map(|it| info([&it.version, &it.revision]))),
            family("teiten_ledger_info", self.ledger.map(|identity| info([&format!("{identity:016x}")]))),
            family("teiten_port_info", self.ports.iter().map(|port| (port.clone(), 1.0))),
            single("teiten_ledger_damaged", (self.is_ledger_damaged || self.is_ledger_lacking).into()),
            family("teiten_flow_tracking", self.flow_tracking.iter().map(|(name, how)| info([name, how]))),
        ];
        families.extend(
            [
                ("teiten_flows", flows.entries),
                ("teiten_flows_accepted", flows.accepted),
                ("teiten_flows_created_total", flows.created),
                ("teiten_flow_failures_total", flows.failed),
                ("teiten_flow_replies_total", flows.replies),
                ("teiten_flow_replies_unsure_total", flows.unsure),
                ("teiten_flow_notes_displaced_total", flows.displaced),
                ("teiten_series_held", self.held as u64),
                ("teiten_http_connections", self.http_connections),
            ]
            .map(|(name, value)| single(name, value as f64)),
        );
        families.extend([
            single("teiten_render_seconds_total", self.rendering.as_secs_f64()),
            family(
                "teiten_http_requests_total",
                self.http_requests
                    .iter()
                    .map(|((handler, code), count)| ([handler.clone(), code.clone()], *count as f64)),
            ),
            family(
                "teiten_http_connections_closed_total",
                self.http_closed.iter().map(|(why, count)| ([why.name().to_owned()], *count as f64)),
            ),
        ]);
        families.extend(self.drain_duration.collect());
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::Health;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_of_the_catalogue_has_a_family() {
        let health = Health::new(&Registry::new()).unwrap();
        let families: BTreeSet<_> =
            health.state().families().iter().map(|family| family.name().to_owned()).collect();
        let described: BTreeSet<_> = OTHERS.iter().map(|other| other.name.to_owned()).collect();
        assert_eq!(families, described);
    }
}
