//! The catalogue's counters as Prometheus families.

use super::hold::Veil;
use prometheus::core::Desc;
use prometheus::proto::{Counter as CounterValue, LabelPair, Metric, MetricFamily, MetricType};
use sensor_counters::{COUNTERS, Counter, Number, Pair, Series, Totals, Unit};
use std::collections::HashMap;

/// What Prometheus must know of all the families in advance.
pub(super) fn descriptions() -> prometheus::Result<Vec<Desc>> {
    let metrics = COUNTERS.iter().flat_map(|counter| counter.metrics().map(move |it| (counter, it)));
    metrics
        .map(|(counter, (_, name, number))| {
            let labels = counter.labels.iter().map(|&label| label.to_owned()).collect();
            Desc::new(name.to_owned(), number.help.to_owned(), labels, HashMap::new())
        })
        .collect()
}

/// All families, with the series that `veil` hides at 0.
pub(super) fn collect(totals: &Totals, veil: &Veil) -> Vec<MetricFamily> {
    COUNTERS.iter().flat_map(|counter| families_of(counter, totals, veil)).collect()
}

/// The one or two families of a counter.
fn families_of(counter: &'static Counter, totals: &Totals, veil: &Veil) -> Vec<MetricFamily> {
    let mut metrics: Vec<Vec<Metric>> = counter.metrics().map(|_| Vec::new()).collect();
    totals.each(counter, &mut |series, value| {
        let is_hidden = !veil.is_empty() && veil.hides(&series);
        let labels = labels(counter, &series);
        for ((at, _, number), metrics) in counter.metrics().zip(&mut metrics) {
            let shown = if is_hidden { 0.0 } else { shown(number, value, at) };
            let mut counter = CounterValue::default();
            counter.set_value(shown);
            let mut metric = Metric::from_label(labels.clone());
            metric.set_counter(counter);
            metrics.push(metric);
        }
    });
    let family = |((_, name, number), metrics): ((usize, &str, &Number), Vec<Metric>)| {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(number.help.to_owned());
        family.set_field_type(MetricType::COUNTER);
        family.set_metric(metrics);
        family
    };
    counter.metrics().zip(metrics).map(family).collect()
}

fn labels(counter: &Counter, series: &Series) -> Vec<LabelPair> {
    let mut names = counter.labels.iter();
    let mut pairs = Vec::with_capacity(counter.labels.len());
    series.values(&mut |value| {
        let mut pair = LabelPair::default();
        pair.set_name(names.next().map_or_else(String::new, |&name| name.to_owned()));
        pair.set_value(value.to_owned());
        pairs.push(pair);
    });
    pairs
}

fn shown(number: &Number, value: Pair, at: usize) -> f64 {
    match number.unit {
        Unit::Nanoseconds => std::time::Duration::from_nanos(value[at]).as_secs_f64(),
        _ => value[at] as f64,
    }
}
