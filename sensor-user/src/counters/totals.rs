//! The counters behind the metrics: everything counted since the state directory began.
//!
//! They only grow. Which ports have series of their own is part of them: a port that gets its own
//! series starts there at zero and takes only what comes from then on; what it had before stays in
//! [`PortLabel::Rest`], so no series ever goes down and the sums stay true.

use crate::counters::detail::Details;
use crate::country::Country;
use sensor_common::{Class, Slot, Tool, Transport};
use std::collections::BTreeMap;
use std::time::Duration;

/// Accesses and cumulative sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub accesses: u64,
    /// First time today that a source reached the port.
    pub sources: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.accesses += other.accesses;
        self.sources += other.sources;
    }
}

/// The `transport` and `port` labels of a bounded family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortLabel {
    /// A port with a series of its own.
    Own(Slot),
    /// All other ports of this transport: `port="other"`.
    Rest(Transport),
}

/// All counters, by label values. A series exists when its key does; the keys of
/// [`Totals::ports`], [`Totals::port_countries`], [`Totals::port_hours`] and
/// [`Totals::backscatter`] are bounded by the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// `teiten_packets_total`, by [`Class`].
    pub packets: [u64; Class::COUNT],
    /// `teiten_bytes_total`, by [`Class`].
    pub bytes: [u64; Class::COUNT],
    /// `teiten_accesses_total`, `teiten_sources_total`.
    pub ports: BTreeMap<PortLabel, Tally>,
    /// `teiten_country_accesses_total`, `teiten_country_sources_total`.
    pub countries: BTreeMap<Country, Tally>,
    /// `teiten_port_country_accesses_total`, `teiten_port_country_sources_total`: feature ports,
    /// from when they became one.
    pub port_countries: BTreeMap<(Slot, Country), Tally>,
    /// `teiten_port_hour_accesses_total`: feature ports from when they became one, the rest by
    /// transport; the hour is local, 0 to 23.
    pub port_hours: BTreeMap<(PortLabel, u8), u64>,
    /// `teiten_group_accesses_total`, `teiten_group_sources_total`.
    pub groups: BTreeMap<(String, Country), Tally>,
    /// `teiten_service_accesses_total`, `teiten_service_sources_total`. Accesses whose source could
    /// not be kept are under [`Country::UNKNOWN`].
    pub services: BTreeMap<(Slot, Country), Tally>,
    /// `teiten_hosts_total`.
    pub hosts: u64,
    /// `teiten_backscatter_packets_total`.
    pub backscatter: BTreeMap<PortLabel, u64>,
    /// `teiten_tool_accesses_total`, by [`Tool`].
    pub tools: [u64; Tool::COUNT],
    /// `teiten_source_table_overflow_packets_total`.
    pub overflow: u64,
    /// Sources that came when the day's source sets were full: they count as accesses, but neither as
    /// cumulative sources nor as unique hosts.
    pub set_overflow: u64,
    /// What is counted besides class and port.
    pub details: Details,
    /// `teiten_observation_seconds_total`.
    pub observed: Duration,
    /// The last generation that is in these totals.
    pub generation: u64,
}

/// One labelled series, as the series-hold remembers it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The metric's name, for families of two the accesses one: both are held together.
    pub metric: String,
    /// Label values in the order of the contract's table, joined by `,`.
    pub labels: String,
}
