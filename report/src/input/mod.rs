//! Where the counts come from: what each series of each sensor grew by on each local day.
//!
//! The series are those of the catalogue, so every input speaks of the same counters, and a report does not know
//! which one it was made from.

pub(crate) mod ledger;
pub(crate) mod parquet;
pub(crate) mod prometheus;

use crate::words::Text;
use anyhow::Result;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sensor_common::Slot;
use sensor_counters::{Pair, Series};
use std::ops::RangeInclusive;

/// A sensor, and what its input knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Sensor {
    pub(crate) name: String,
    /// Its zone; `None` when the input does not say.
    pub(crate) timezone: Option<TimeZone>,
    /// Versions of the program.
    pub(crate) versions: Vec<String>,
    /// How many addresses it observed at most: IPv4, IPv6.
    pub(crate) addresses: Option<[u64; 2]>,
    /// Days on which its country databases were built.
    pub(crate) geoip: Vec<Date>,
}

impl Sensor {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            timezone: None,
            versions: Vec::new(),
            addresses: None,
            geoip: Vec::new(),
        }
    }
}

/// What one series of one sensor grew by on one day. Several readings of the same add up.
pub(crate) struct Reading<'a> {
    /// Index in [`Input::sensors`].
    pub(crate) sensor: usize,
    pub(crate) day: Date,
    pub(crate) series: &'a Series,
    /// The numbers in the order of the catalogue; 0 for one that another reading has.
    pub(crate) value: Pair,
}

/// What packets to a port held: one content on one day of one sensor.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Index in [`Input::sensors`].
    pub(crate) sensor: usize,
    pub(crate) slot: Slot,
    /// The same for this content on every day and sensor.
    pub(crate) id: String,
    pub(crate) packets: u64,
    pub(crate) sources: u64,
    /// For people, with what must not be published hidden.
    pub(crate) text: String,
}

/// A source of counts.
pub(crate) trait Input {
    /// The sensors, by name.
    fn sensors(&self) -> &[Sensor];

    /// Calls `each` with what the series of these kinds grew by on the days.
    ///
    /// # Errors
    ///
    /// The counts cannot be read.
    fn read(
        &mut self,
        kinds: &[&str],
        days: &RangeInclusive<Date>,
        each: &mut dyn FnMut(&Reading<'_>),
    ) -> Result<()>;

    /// Checks that no two parts of the input observed the same time of these days as one sensor that is chosen.
    ///
    /// # Errors
    ///
    /// Two of them did; or they cannot be read.
    fn observed_once(&self, _days: &RangeInclusive<Date>, _chosen: &dyn Fn(&str) -> bool) -> Result<()> {
        Ok(())
    }

    /// What packets of these days held, where the input has samples.
    ///
    /// # Errors
    ///
    /// The samples cannot be read.
    fn samples(&mut self, _days: &RangeInclusive<Date>) -> Result<Vec<Sample>> {
        Ok(Vec::new())
    }

    /// What the counts were read from.
    fn origin(&self) -> Text;

    /// What this input cannot know, and what it said of itself while it was read. `names` has what the report calls
    /// each of the sensors; `None` is one that is not in it.
    fn limits(&self, names: &[Option<&str>]) -> Vec<Text>;
}
