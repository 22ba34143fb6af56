//! The counts of a report, read once from an input and added up as the figures need them.

use crate::input::{Input, Reading, Sample, Sensor};
use crate::period::{Period, each_day};
use crate::words::quotient;
use anyhow::{Result, ensure};
use jiff::ToSpan as _;
use jiff::civil::Date;
use sensor_common::{Class, Slot, Tool};
use sensor_counters::{Country, NetworkLabel, PortLabel, Series, Tally};
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

/// Periods that a report compares: its own and those before it.
pub(crate) const PERIODS: usize = 6;

/// Days before the period that tell what is normal in it: 28 for the median of a day, and as many for how much the
/// days differ from theirs.
const NORMAL_DAYS: i64 = 56;

/// An observed day in nanoseconds.
const DAY: u64 = 86_400_000_000_000;

/// One period, all sensors.
#[derive(Debug)]
pub(crate) struct Sums {
    pub(crate) period: Period,
    days: RangeInclusive<Date>,
    pub(crate) total: Tally,
    pub(crate) ports: BTreeMap<PortLabel, Tally>,
    pub(crate) countries: BTreeMap<Country, Tally>,
    pub(crate) hours: BTreeMap<(PortLabel, u8), u64>,
    pub(crate) groups: BTreeMap<String, Tally>,
    /// Observed time of each sensor, nanoseconds.
    pub(crate) observed: Vec<u64>,
}

impl Sums {
    fn new(period: Period, sensors: usize) -> Self {
        Self {
            period,
            days: period.days(),
            total: Tally::default(),
            ports: BTreeMap::new(),
            countries: BTreeMap::new(),
            hours: BTreeMap::new(),
            groups: BTreeMap::new(),
            observed: vec![0; sensors],
        }
    }

    /// Observed time of all sensors.
    pub(crate) fn observed(&self) -> u64 {
        self.observed.iter().sum()
    }

    /// How many sensors observed at all.
    pub(crate) fn sensors(&self) -> usize {
        self.observed.iter().filter(|time| **time > 0).count()
    }

    /// An amount for each sensor and day, by observed time; less than six hours are no base for it.
    pub(crate) fn per_sensor_day(&self, amount: u64) -> Option<u64> {
        let observed = self.observed();
        if observed < DAY / 4 { None } else { quotient(amount, observed, DAY) }
    }
}

/// Amounts of each day of the period.
pub(crate) type Days = Vec<Tally>;

/// One day of one sensor and port; several of the same add up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// Index in [`Data::span`].
    pub(crate) day: u32,
    pub(crate) sensor: u32,
    pub(crate) tally: Tally,
}

/// Everything that a report tells.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) period: Period,
    /// Days of the period that are over.
    pub(crate) days: RangeInclusive<Date>,
    pub(crate) sensors: Vec<Sensor>,
    /// Oldest first; the report's own last.
    pub(crate) sums: Vec<Sums>,
    /// First day that is compared; the period begins `offset` days later.
    pub(crate) span: RangeInclusive<Date>,
    pub(crate) offset: usize,
    /// How many days the period and the span have.
    length: usize,
    span_length: usize,
    pub(crate) ports: BTreeMap<PortLabel, Days>,
    pub(crate) countries: BTreeMap<Country, Days>,
    pub(crate) port_countries: BTreeMap<Slot, BTreeMap<Country, Days>>,
    pub(crate) groups: BTreeMap<String, BTreeMap<Country, Days>>,
    /// By sensor and port.
    pub(crate) services: BTreeMap<(usize, Slot), Days>,
    pub(crate) tools: BTreeMap<Tool, u64>,
    /// By source list; `none` for the rest.
    pub(crate) lists: BTreeMap<String, Tally>,
    /// By network, those without a series of their own too if the input has them.
    pub(crate) networks: BTreeMap<NetworkLabel, Tally>,
    /// Of the sensors, what packets of the period held.
    pub(crate) samples: Vec<Sample>,
    pub(crate) packets: BTreeMap<Class, u64>,
    pub(crate) backscatter: BTreeMap<PortLabel, u64>,
    pub(crate) hosts: u64,
    pub(crate) overflow: u64,
    pub(crate) set_overflow: u64,
    /// Of each sensor: its ports in the period.
    pub(crate) sensor_ports: Vec<BTreeMap<PortLabel, Tally>>,
    /// Of each sensor: observed time of each day of `span`, nanoseconds.
    pub(crate) observed: Vec<Vec<u64>>,
    /// Of each port with a series: its days of `span`, by sensor.
    pub(crate) detail: HashMap<Slot, Vec<Point>>,
    /// Of each region and group: all sensors' amounts on each day of `span`.
    pub(crate) country_days: BTreeMap<Country, Days>,
    pub(crate) group_days: BTreeMap<String, Days>,
}

/// What all periods need.
const ALL: [&str; 5] = ["port", "country", "port_hour", "group", "observed"];
/// What only the report's own period needs.
const OWN: [&str; 10] = [
    "port_country",
    "service",
    "tool",
    "list",
    "asn",
    "packets",
    "backscatter",
    "hosts",
    "overflow",
    "set_overflow",
];
/// What the days before the period tell of what is normal.
const NORMAL: [&str; 4] = ["port", "country", "group", "observed"];

/// The days that a report reads.
pub(crate) fn reach(period: Period) -> RangeInclusive<Date> {
    let normal = period.first - NORMAL_DAYS.days();
    period.before(PERIODS as i32 - 1).first.min(normal)..=period.last()
}

impl Data {
    /// Reads the periods from `input`, as far as their days were over on `today`, of the sensors that `chosen`
    /// names, or all. Calls `step` after each part with how many there are.
    pub(crate) fn read(
        input: &mut dyn Input,
        period: Period,
        today: Date,
        chosen: &dyn Fn(&str) -> bool,
        step: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        // New numbers for those that are chosen.
        let mut numbers = Vec::new();
        let mut sensors = Vec::new();
        for sensor in input.sensors() {
            numbers.push(chosen(&sensor.name).then_some(sensors.len()));
            sensors.extend(chosen(&sensor.name).then(|| sensor.clone()));
        }
        let yesterday = today - 1.day();
        let start = period.first - NORMAL_DAYS.days();
        let span = start..=period.last();
        let length = each_day(&span).count();
        let count = sensors.len();
        let mut data = Self {
            period,
            days: period.first..=period.last().min(yesterday),
            sums: (0..PERIODS).rev().map(|back| Sums::new(period.before(back as i32), count)).collect(),
            span,
            offset: NORMAL_DAYS as usize,
            length: each_day(&period.days()).count(),
            span_length: length,
            ports: BTreeMap::new(),
            countries: BTreeMap::new(),
            port_countries: BTreeMap::new(),
            groups: BTreeMap::new(),
            services: BTreeMap::new(),
            tools: BTreeMap::new(),
            lists: BTreeMap::new(),
            networks: BTreeMap::new(),
            samples: Vec::new(),
            packets: BTreeMap::new(),
            backscatter: BTreeMap::new(),
            hosts: 0,
            overflow: 0,
            set_overflow: 0,
            sensor_ports: vec![BTreeMap::new(); count],
            observed: vec![vec![0; length]; count],
            detail: HashMap::new(),
            country_days: BTreeMap::new(),
            group_days: BTreeMap::new(),
            sensors,
        };
        let oldest = data.sums[0].period.first;
        let mut parts: Vec<(Vec<&str>, RangeInclusive<Date>)> =
            data.sums.iter().map(|sums| (ALL.to_vec(), sums.period.days())).collect();
        parts.push((OWN.to_vec(), period.days()));
        if start < oldest {
            parts.push((NORMAL.to_vec(), start..=oldest - 1.day()));
        }
        let steps = parts.len();
        let mut observed: BTreeMap<(usize, Date), u64> = BTreeMap::new();
        for (kinds, days) in parts {
            let days = *days.start()..=(*days.end()).min(yesterday);
            if days.start() <= days.end() {
                input.read(&kinds, &days, &mut |reading| {
                    if let Some(sensor) = numbers[reading.sensor] {
                        if *reading.series == Series::Observed {
                            *observed.entry((sensor, reading.day)).or_default() += reading.value[0];
                        }
                        data.add(&Reading { sensor, ..*reading });
                    }
                })?;
            }
            step(steps);
        }
        for ((sensor, day), time) in observed {
            let seconds = time / 1_000_000_000;
            // A day without a known zone may have 25 hours; samples of a Prometheus come a quarter of an hour late.
            ensure!(
                seconds <= data.length(sensor, day) + 3600,
                "sensor {:?} has {:.1} h of observation on {day}: two machines have this name, or a part of the input is \
                 given twice; give each day of a sensor once, and two machines their own --sensor-name, or name the \
                 other sensors with --sensors",
                data.sensors[sensor].name,
                seconds as f64 / 3600.0
            );
        }
        if data.days.start() <= data.days.end() {
            let samples = input.samples(&data.days)?;
            data.samples = samples.into_iter().filter(|sample| numbers[sample.sensor].is_some()).collect();
        }
        Ok(data)
    }

    /// Index of a day in [`Self::span`].
    fn day(&self, day: Date) -> Option<usize> {
        let days = (day - *self.span.start()).get_days();
        usize::try_from(days).ok().filter(|_| self.span.contains(&day))
    }

    fn add(&mut self, reading: &Reading<'_>) {
        let &Reading { sensor, day, series, value } = reading;
        let tally = Tally { accesses: value[0], sources: value[1] };
        let at = self.day(day);
        let own = self.sums[PERIODS - 1].days.contains(&day);
        // Days of the period by their own numbers.
        let own_at = at.filter(|_| own).map(|at| at - self.offset);
        let (length, span) = (self.length, self.span_length);
        let days = |entry: &mut Days, at: Option<usize>, length: usize| {
            if let Some(at) = at {
                entry.resize(length, Tally::default());
                entry[at] += tally;
            }
        };
        let sums = self.sums.iter_mut().find(|sums| sums.days.contains(&day));
        match series {
            Series::Port(label) => {
                if let Some(sums) = sums {
                    *sums.ports.entry(*label).or_default() += tally;
                    sums.total += tally;
                }
                if own {
                    days(self.ports.entry(*label).or_default(), own_at, length);
                    *self.sensor_ports[sensor].entry(*label).or_default() += tally;
                }
                if let (Some(at), PortLabel::Own(slot)) = (at, label) {
                    let point = Point { day: at as u32, sensor: sensor as u32, tally };
                    self.detail.entry(*slot).or_default().push(point);
                }
            }
            Series::Country(country) => {
                if let Some(sums) = sums {
                    *sums.countries.entry(*country).or_default() += tally;
                }
                if own {
                    days(self.countries.entry(*country).or_default(), own_at, length);
                }
                days(self.country_days.entry(*country).or_default(), at, span);
            }
            Series::PortHour(label, hour) => {
                if let Some(sums) = sums {
                    *sums.hours.entry((*label, *hour)).or_default() += value[0];
                }
            }
            Series::Group(group, country) => {
                if let Some(sums) = sums {
                    *sums.groups.entry(group.clone()).or_default() += tally;
                }
                if own {
                    let countries = self.groups.entry(group.clone()).or_default();
                    days(countries.entry(*country).or_default(), own_at, length);
                }
                days(self.group_days.entry(group.clone()).or_default(), at, span);
            }
            Series::Observed => {
                if let Some(sums) = sums {
                    sums.observed[sensor] += value[0];
                }
                if let Some(at) = at {
                    self.observed[sensor][at] += value[0];
                }
            }
            Series::PortCountry(slot, country) if own => {
                let countries = self.port_countries.entry(*slot).or_default();
                days(countries.entry(*country).or_default(), own_at, length);
            }
            Series::Service(slot, _) if own => {
                days(self.services.entry((sensor, *slot)).or_default(), own_at, length);
            }
            Series::Tool(tool) if own => *self.tools.entry(*tool).or_default() += value[0],
            Series::List(list) if own => *self.lists.entry(list.clone()).or_default() += tally,
            Series::Asn(network) if own => *self.networks.entry(network.clone()).or_default() += tally,
            Series::Packets(class) if own => *self.packets.entry(*class).or_default() += value[0],
            Series::Backscatter(label) if own => *self.backscatter.entry(*label).or_default() += value[0],
            Series::Hosts if own => self.hosts += value[0],
            Series::Overflow if own => self.overflow += value[0],
            Series::SetOverflow if own => self.set_overflow += value[0],
            _ => {}
        }
    }

    /// The report's own period.
    pub(crate) fn own(&self) -> &Sums {
        &self.sums[PERIODS - 1]
    }

    /// The period before.
    pub(crate) fn last(&self) -> &Sums {
        &self.sums[PERIODS - 2]
    }

    /// The days of the period, also those that are not over.
    pub(crate) fn dates(&self) -> Vec<Date> {
        each_day(&self.period.days()).collect()
    }

    /// Whether a day of the period, by its number, was observed by any sensor.
    pub(crate) fn was_observed(&self, day: usize) -> bool {
        self.observed.iter().any(|days| days[self.offset + day] > 0)
    }

    /// The observed part of a sensor's day of the span, 1 for all of it.
    pub(crate) fn coverage(&self, sensor: usize, day: usize) -> f64 {
        self.observed[sensor][day] as f64 / DAY as f64
    }

    /// Seconds of a day of the span at a sensor, which may have 23 or 25 hours.
    pub(crate) fn length(&self, sensor: usize, day: Date) -> u64 {
        let Some(zone) = &self.sensors[sensor].timezone else { return 86_400 };
        let at = |day: Date| day.to_zoned(zone.clone()).map(|start| start.timestamp().as_second());
        match (at(day), at(day + 1.day())) {
            (Ok(start), Ok(end)) => (end - start).unsigned_abs(),
            _ => 86_400,
        }
    }
}
