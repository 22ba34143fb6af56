//! The headline's numbers.

use crate::data::Data;
use crate::words::decimal;

/// A number with its name, which is the same in every report.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Number {
    pub(crate) name: &'static str,
    /// `None` where there is no base for it.
    pub(crate) value: Option<serde_json::Number>,
}

/// The headline of the period and of the one before.
pub(crate) fn headline(data: &Data) -> Vec<Number> {
    let (own, last) = (data.own(), data.last());
    let whole = |name, value: Option<u64>| Number { name, value: value.map(Into::into) };
    let before = |amount: u64| (last.observed() > 0).then_some(amount);
    vec![
        whole("sensors", Some(own.sensors() as u64)),
        whole("accesses", Some(own.total.accesses)),
        whole("cumulative_sources", Some(own.total.sources)),
        whole("accesses_per_sensor_day", own.per_sensor_day(own.total.accesses)),
        whole("sources_per_sensor_day", own.per_sensor_day(own.total.sources)),
        Number {
            name: "accesses_per_source",
            value: decimal(own.total.accesses, own.total.sources)
                .and_then(|text| serde_json::from_str(&text.replace(',', "")).ok()),
        },
        whole("unique_hosts", Some(data.hosts)),
        whole("observed_seconds", Some(own.observed() / 1_000_000_000)),
        whole("accesses_before", before(last.total.accesses)),
        whole("cumulative_sources_before", before(last.total.sources)),
        whole("accesses_per_sensor_day_before", last.per_sensor_day(last.total.accesses)),
        whole("sources_per_sensor_day_before", last.per_sensor_day(last.total.sources)),
    ]
}
