//! A model of months of observation, as the counters that sensors would have exposed.
//!
//! Ten sensors, six months that end with the month of one of the seed reports (or fewer that end now). The totals that
//! the report prints are exact; what it only draws (ports, regions, hours, the other months) is a
//! plausible model, the same for the same report on every machine.

pub mod prometheus;
pub mod record;
pub mod serve;

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::civil::{Date, date};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Seconds by which the model's zone, Asia/Tokyo, is ahead of UTC.
pub const UTC_OFFSET: i64 = 32_400;

/// The report whose month ends the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryReport {
    /// November 2005: 543,415 accesses, 404 sources per sensor and day.
    November2005,
    /// July 2010: 116,141 accesses, 50,845 cumulative sources.
    July2010,
    /// The months before a day, in the manner of July 2010; that day itself is not in it.
    Before(Date),
}

/// Country and weight.
type Region = (&'static str, u32);

/// Transport, port, weight of accesses, accesses per source, whence.
type PortModel = (&'static str, u16, f64, f64, &'static [Region]);

/// One month: its first day, and the totals of all sensors.
#[derive(Clone, Copy, Debug)]
pub struct Month {
    /// The first day.
    pub first: Date,
    /// Its days, fewer than the calendar's when it still runs.
    pub days: u8,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

impl Month {
    fn new(first: Date, accesses: u64, sources: u64) -> Self {
        Self { first, days: first.days_in_month() as u8, accesses, sources }
    }

    /// As many days from `first` as there are before `end`, four tenths of July 2010's amounts.
    fn until(first: Date, end: Date) -> Self {
        let running = first.year() == end.year() && first.month() == end.month();
        let days = if running { end.day() - 1 } else { first.days_in_month() } as u8;
        Self { first, days, accesses: 46_456 * u64::from(days) / 31, sources: 20_338 * u64::from(days) / 31 }
    }

    /// Epoch second of the first local midnight.
    pub fn start(&self) -> i64 {
        midnight(self.first)
    }

    /// Epoch second of the local midnight that ends the month.
    pub fn end(&self) -> i64 {
        self.start() + i64::from(self.days) * 86_400
    }
}

impl HistoryReport {
    /// The six months, the report's own last. The report prints 543,415 accesses, and 116,141
    /// accesses with 50,845 sources; 404 sources per sensor and day are 121,200 in a November.
    pub fn months(self) -> [Month; 6] {
        match self {
            Self::November2005 => [
                Month::new(date(2005, 6, 1), 486_210, 126_033),
                Month::new(date(2005, 7, 1), 477_401, 127_105),
                Month::new(date(2005, 8, 1), 458_822, 124_012),
                Month::new(date(2005, 9, 1), 453_017, 121_544),
                Month::new(date(2005, 10, 1), 527_036, 133_318),
                Month::new(date(2005, 11, 1), 543_415, 121_200),
            ],
            Self::Before(day) => {
                let running = i32::from(day.day() > 1);
                std::array::from_fn(|index| {
                    let back = jiff::Span::new().months(5 + 1 - running - index as i32);
                    Month::until(day.first_of_month() - back, day)
                })
            }
            Self::July2010 => [
                Month::new(date(2010, 2, 1), 117_611, 49_294),
                Month::new(date(2010, 3, 1), 125_557, 52_718),
                Month::new(date(2010, 4, 1), 123_024, 51_622),
                Month::new(date(2010, 5, 1), 123_388, 52_089),
                Month::new(date(2010, 6, 1), 123_613, 52_507),
                Month::new(date(2010, 7, 1), 116_141, 50_845),
            ],
        }
    }

    /// How many sensors there are: the reports' ten, or as few as soon make a history to look at.
    pub const fn sensors(self) -> usize {
        match self {
            Self::November2005 | Self::July2010 => 10,
            Self::Before(_) => 4,
        }
    }

    /// The ports that the report names or could have named.
    fn ports(self) -> &'static [PortModel] {
        const WORLD: &[Region] = &[
            ("CN", 26),
            ("US", 18),
            ("JP", 10),
            ("KR", 8),
            ("TW", 8),
            ("RU", 6),
            ("BR", 5),
            ("DE", 4),
            ("FR", 3),
            ("IN", 3),
            ("GB", 2),
            ("IT", 2),
            ("TH", 1),
            ("VN", 1),
            ("PL", 1),
            ("unknown", 1),
        ];
        const HOME: &[Region] =
            &[("JP", 60), ("CN", 14), ("KR", 8), ("TW", 6), ("US", 6), ("DE", 2), ("FR", 2), ("HK", 2)];
        const CHINA: &[Region] = &[("CN", 88), ("HK", 4), ("TW", 3), ("US", 3), ("KR", 2)];
        match self {
            Self::November2005 => &[
                ("tcp", 135, 25.0, 5.0, HOME),
                ("tcp", 445, 23.0, 4.5, HOME),
                ("udp", 1026, 9.0, 3.0, CHINA),
                ("udp", 1027, 7.0, 3.0, CHINA),
                ("tcp", 139, 6.5, 3.5, HOME),
                ("icmp", 8, 6.0, 2.0, WORLD),
                ("tcp", 1433, 4.5, 3.0, WORLD),
                ("udp", 137, 3.5, 3.0, WORLD),
                ("udp", 1028, 2.5, 3.0, CHINA),
                ("udp", 1030, 2.0, 3.0, CHINA),
                ("udp", 1029, 1.5, 3.0, CHINA),
                ("udp", 1434, 1.2, 1.2, WORLD),
                ("tcp", 4899, 1.0, 2.0, WORLD),
                ("tcp", 1025, 1.0, 2.0, WORLD),
                ("tcp", 80, 0.8, 2.0, WORLD),
                ("tcp", 3306, 0.7, 2.0, WORLD),
                ("tcp", 22, 0.6, 2.0, WORLD),
                ("tcp", 23, 0.3, 1.5, WORLD),
            ],
            Self::July2010 | Self::Before(_) => &[
                ("tcp", 445, 32.0, 2.4, WORLD),
                ("tcp", 1433, 9.0, 2.0, CHINA),
                ("tcp", 135, 8.0, 2.5, HOME),
                ("icmp", 8, 6.0, 1.8, WORLD),
                ("tcp", 139, 5.0, 2.2, HOME),
                ("tcp", 22, 4.5, 4.0, WORLD),
                ("tcp", 23, 3.5, 2.0, WORLD),
                ("tcp", 9415, 0.0, 1.5, CHINA),
                ("udp", 5060, 0.4, 2.2, WORLD),
                ("udp", 27649, 0.0, 1.1, WORLD),
                ("tcp", 3389, 2.0, 2.0, WORLD),
                ("tcp", 80, 2.0, 2.0, WORLD),
                ("tcp", 8080, 1.5, 1.5, CHINA),
                ("udp", 1026, 1.0, 2.0, CHINA),
                ("udp", 1027, 0.8, 2.0, CHINA),
                ("udp", 1434, 0.8, 1.1, WORLD),
                ("tcp", 2967, 1.2, 2.0, WORLD),
                ("tcp", 5900, 0.6, 2.0, WORLD),
            ],
        }
    }

    /// What the reports tell, as a factor or an addition to a port's weight.
    fn event(self, transport: &str, port: u16, day: Date, sensor: usize) -> (f64, f64) {
        match (self, transport, port) {
            // From October 2005 the pop-up spam climbs while its sources become fewer.
            (Self::November2005, "udp", 1026..=1030) => match day.month() {
                10 => (1.25, 0.0),
                11 => (1.5, 0.0),
                _ => (1.0, 0.0),
            },
            (Self::July2010, "udp", 5060) if day >= date(2010, 7, 9) && sensor < 7 => (1.0, 5.0),
            (Self::July2010, "udp", 27_649)
                if day >= date(2010, 7, 2) && day <= date(2010, 7, 9) && sensor == 3 =>
            {
                (1.0, 60.0)
            }
            (Self::July2010, "tcp", 9415) if day.month() == 7 && sensor != 2 => (1.0, 3.0),
            // The same events in the last weeks before the day.
            (Self::Before(end), "udp", 5060) if sensor < 7 && (end - day).get_days() <= 10 => (1.0, 5.0),
            (Self::Before(end), "udp", 27_649)
                if sensor == 3 && (8..16).contains(&(end - day).get_days()) =>
            {
                (1.0, 60.0)
            }
            (Self::Before(end), "tcp", 9415) if sensor != 2 && (end - day).get_days() <= 20 => (1.0, 3.0),
            _ => (1.0, 0.0),
        }
    }
}

/// Epoch second of a local midnight.
pub fn midnight(day: Date) -> i64 {
    day.to_zoned(jiff::tz::TimeZone::UTC).expect("a date of the model").timestamp().as_second() - UTC_OFFSET
}

/// Metric and labels, as in the exposition.
type Series = (&'static str, String);

/// A series as it grows: its value now (of a counter), and what was scraped of it.
#[derive(Default)]
struct Growth {
    now: u64,
    samples: Vec<(i64, f64)>,
}

#[derive(Default)]
struct Counters {
    counters: BTreeMap<Series, Growth>,
    gauges: BTreeMap<Series, Vec<(i64, f64)>>,
}

impl Counters {
    /// Counts, and lets a new series begin with the 0 of `since`.
    fn add(&mut self, metric: &'static str, labels: String, amount: u64, since: i64) {
        let growth = self
            .counters
            .entry((metric, labels))
            .or_insert_with(|| Growth { now: 0, samples: vec![(since, 0.0)] });
        growth.now += amount;
    }

    fn now(&self, metric: &'static str, labels: &str) -> u64 {
        self.counters.get(&(metric, labels.to_owned())).map_or(0, |growth| growth.now)
    }

    fn snapshot(&mut self, at: i64) {
        for growth in self.counters.values_mut() {
            growth.samples.push((at, growth.now as f64));
        }
    }

    fn gauge(&mut self, metric: &'static str, labels: String, at: i64, value: f64) {
        self.gauges.entry((metric, labels)).or_default().push((at, value));
    }

    /// Every series with its samples; gauges last.
    fn series(&self) -> impl Iterator<Item = (&Series, &[(i64, f64)])> {
        let counters = self.counters.iter().map(|(series, growth)| (series, growth.samples.as_slice()));
        counters.chain(self.gauges.iter().map(|(series, samples)| (series, samples.as_slice())))
    }
}

/// One access of the model.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Index of the sensor.
    pub sensor: usize,
    /// First second of the hour, since the epoch.
    pub hour: i64,
    /// `tcp`, `udp` or `icmp`.
    pub transport: &'static str,
    /// Port, or type of ICMP; 0 is any that has no series of its own.
    pub port: u16,
    /// Number of the source among those of this sensor on this day; each goes to one port.
    pub source: u64,
    /// Code of the source's country, or `unknown`.
    pub country: &'static str,
}

/// Gives each access of the history to `each`: by day, then sensor, then port.
pub fn accesses(report: HistoryReport, each: &mut dyn FnMut(&Access)) {
    generate(report, each);
}

fn generate(report: HistoryReport, each: &mut dyn FnMut(&Access)) -> Counters {
    let mut rng = ChaCha8Rng::seed_from_u64(20_051_100 + u64::from(report == HistoryReport::July2010));
    let mut counters = Counters::default();
    for month in report.months() {
        simulate(report, month, &mut rng, &mut counters, each);
    }
    counters
}

/// Writes the history in the form that `promtool tsdb create-blocks-from openmetrics` takes.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_openmetrics(report: HistoryReport, out: &mut dyn Write) -> io::Result<()> {
    let mut counters = generate(report, &mut |_| ());
    tail(report, &mut counters);
    for ((metric, labels), samples) in counters.series() {
        for (at, value) in samples {
            writeln!(out, "{metric}{{{labels}}} {value} {at}")?;
        }
    }
    writeln!(out, "# EOF")
}

/// Every counter of the first sensor at the end of the history: metric, labels without those of the target, and value.
pub fn sensor_series(report: HistoryReport) -> Vec<(String, String, f64)> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut counters = Counters::default();
    for month in report.months() {
        simulate(report, month, &mut rng, &mut counters, &mut |_| ());
    }
    let first = "job=\"teiten\",instance=\"192.0.2.1:9477\",sensor=\"sensor-01\"";
    let own = |((metric, labels), value): (&Series, f64)| {
        let labels = labels.strip_prefix(first)?;
        Some(((*metric).to_owned(), labels.trim_start_matches(',').to_owned(), value))
    };
    let gauges = counters.gauges.keys().map(|series| (series, 1.0));
    counters
        .counters
        .iter()
        .map(|(series, growth)| (series, growth.now as f64))
        .chain(gauges)
        .filter_map(own)
        .collect()
}

struct Cell {
    day: usize,
    sensor: usize,
    port: usize,
    accesses: f64,
    sources: f64,
}

fn simulate(
    report: HistoryReport,
    month: Month,
    rng: &mut ChaCha8Rng,
    counters: &mut Counters,
    each: &mut dyn FnMut(&Access),
) {
    const SPARSE: usize = 150;
    let days: Vec<Date> =
        month.first.series(jiff::Span::new().days(1)).take(usize::from(month.days)).collect();
    let mut ports = report.ports().to_vec();
    let known = ports.len();
    // Ports that hardly anybody looks for: one access now and then.
    let mut sparse = ChaCha8Rng::seed_from_u64(7);
    let whence = ports[0].4;
    for index in 0..SPARSE {
        let transport = if index % 3 == 0 { "udp" } else { "tcp" };
        ports.push((transport, 2000 + 211 * index as u16 + sparse.random_range(0..200), 0.004, 1.1, whence));
    }
    ports.push(("tcp", 0, 0.8, 1.1, whence));
    ports.push(("udp", 0, 0.5, 1.1, whence));
    let mut cells = Vec::new();
    for (day, date) in days.iter().enumerate() {
        for sensor in 0..report.sensors() {
            for (port, (transport, number, weight, ratio, _)) in ports.iter().enumerate() {
                let rare = port >= known && port < known + SPARSE;
                if rare && rng.random_range(0..100) >= 4 {
                    continue;
                }
                let (factor, extra) = report.event(transport, *number, *date, sensor);
                let noise = rng.random_range(0.7..1.3) * (0.9 + 0.02 * sensor as f64);
                let accesses = (weight * factor + extra) * noise * if rare { 25.0 } else { 1.0 };
                if accesses > 0.0 {
                    let sources = accesses / ratio / factor / factor;
                    cells.push(Cell { day, sensor, port, accesses, sources });
                }
            }
        }
    }
    let sources = apportion(month.sources, cells.iter().map(|c| c.sources));
    let more = apportion(
        month.accesses - month.sources,
        cells.iter().zip(&sources).map(|(c, s)| if *s > 0 { c.accesses } else { 0.0 }),
    );
    let mut index = 0;
    for (day, date) in days.iter().enumerate() {
        let since = midnight(*date);
        for sensor in 0..report.sensors() {
            let name =
                format!("job=\"teiten\",instance=\"192.0.2.{0}:9477\",sensor=\"sensor-{0:02}\"", sensor + 1);
            let mut total = 0;
            let mut hosts = 0;
            while index < cells.len() && (cells[index].day, cells[index].sensor) == (day, sensor) {
                let cell = &cells[index];
                let (sources, accesses) = (sources[index], sources[index] + more[index]);
                index += 1;
                if sources == 0 {
                    continue;
                }
                let (transport, number, _, _, whence) = ports[cell.port];
                let of_cell = cell_counters(
                    &name,
                    (transport, number, cell.port < known),
                    (accesses, sources),
                    whence,
                    since,
                    rng,
                    counters,
                );
                for (source, country, hour) in of_cell {
                    let (hour, source) = (since + 3600 * hour as i64, hosts + source as u64);
                    each(&Access { sensor, hour, transport, port: number, source, country });
                }
                total += accesses;
                hosts += sources;
            }
            day_counters(report, &name, sensor, (total, hosts), since, rng, counters);
        }
        counters.snapshot(since + 86_400);
    }
}

/// Everything that one port's accesses of a day at one sensor are counted in. Returns source, country and hour
/// of each.
fn cell_counters(
    sensor: &str,
    (transport, number, feature): (&str, u16, bool),
    (accesses, sources): (u64, u64),
    whence: &[(&'static str, u32)],
    since: i64,
    rng: &mut ChaCha8Rng,
    counters: &mut Counters,
) -> Vec<(usize, &'static str, usize)> {
    let label = if number == 0 { "other".to_owned() } else { number.to_string() };
    let port = format!("{sensor},transport=\"{transport}\",port=\"{label}\"");
    counters.add("teiten_accesses_total", port.clone(), accesses, since);
    counters.add("teiten_sources_total", port.clone(), sources, since);
    let countries: Vec<(usize, &'static str)> = (0..sources as usize)
        .map(|source| (source, whence.choose_weighted(rng, |w| w.1).expect("regions have weights").0))
        .collect();
    let mut by_country: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (_, country) in &countries {
        let entry = by_country.entry(country).or_default();
        entry.0 += 1;
        entry.1 += 1;
    }
    let mut whose = countries.clone();
    for _ in sources..accesses {
        let source = *countries.choose(rng).expect("a cell has sources");
        by_country.get_mut(source.1).expect("a source's region").0 += 1;
        whose.push(source);
    }
    // The share of each tool is kept over the days: what a day has none of, a later one has.
    let mut seen = counters.now("teiten_accesses_total", &port) - accesses;
    for (country, (accesses, sources)) in by_country {
        for (tool, amount) in tools(transport, number, seen, accesses) {
            let tool = format!("tool=\"{tool}\"");
            let mut add = |metric, labels| counters.add(metric, labels, amount, since);
            add("teiten_tool_accesses_total", format!("{sensor},{tool}"));
            add("teiten_country_tool_accesses_total", format!("{sensor},country=\"{country}\",{tool}"));
            if feature {
                add("teiten_port_tool_accesses_total", format!("{port},{tool}"));
            }
        }
        seen += accesses;
        let labels = format!("{sensor},country=\"{country}\"");
        counters.add("teiten_country_accesses_total", labels.clone(), accesses, since);
        counters.add("teiten_country_sources_total", labels, sources, since);
        if feature {
            let labels = format!("{port},country=\"{country}\"");
            counters.add("teiten_port_country_accesses_total", labels.clone(), accesses, since);
            counters.add("teiten_port_country_sources_total", labels, sources, since);
        }
        if transport == "udp" && (1026..=1039).contains(&number) {
            let labels = format!("{sensor},group=\"messenger\",country=\"{country}\"");
            counters.add("teiten_group_accesses_total", labels.clone(), accesses, since);
            counters.add("teiten_group_sources_total", labels, sources, since);
        }
    }
    by_list(&port, feature, sensor, (accesses, sources), since, counters);
    let port = if feature { label } else { "other".to_owned() };
    let mut hours = [0; 24];
    let mut each = Vec::with_capacity(whose.len());
    for (source, country) in whose {
        // Evenings are busier than nights.
        let hour =
            if rng.random_range(0..3) == 0 { rng.random_range(18..24) } else { rng.random_range(0..24) };
        hours[hour] += 1;
        each.push((source, country, hour));
    }
    for (hour, amount) in hours.into_iter().enumerate().filter(|(_, amount)| *amount > 0) {
        let labels = format!("{sensor},transport=\"{transport}\",port=\"{port}\",hour=\"{hour:02}\"");
        counters.add("teiten_port_hour_accesses_total", labels, amount, since);
    }
    each
}

/// Source lists of the model's sensors, and of a hundred accesses to a port that is scanned for research, so many from each.
const LISTS: [(&str, u64); 2] = [("research", 34), ("cloud", 9)];

/// The first sensors have no source lists.
fn has_lists(sensor: &str) -> bool {
    !(sensor.ends_with("sensor-01\"") || sensor.ends_with("sensor-02\""))
}

/// Accesses and sources of a port by source list, on a sensor that has lists; all in none where it has not.
fn by_list(
    port: &str,
    feature: bool,
    sensor: &str,
    (accesses, sources): (u64, u64),
    since: i64,
    counters: &mut Counters,
) {
    // Of three ports, one is of no interest to those who search the whole Internet.
    let of_lists = has_lists(sensor) && port.bytes().map(u64::from).sum::<u64>() % 3 > 0;
    let seen = counters.now("teiten_accesses_total", port) - accesses;
    let mut rest = (accesses, sources);
    let mut amounts = Vec::new();
    for (list, share) in LISTS {
        let share = if of_lists { share } else { 0 };
        let accesses = ((seen + accesses) * share / 100 - seen * share / 100).min(rest.0);
        let sources = u64::from(accesses > 0).min(rest.1);
        rest = (rest.0 - accesses, rest.1 - sources);
        amounts.push((list, accesses, sources));
    }
    amounts.push(("none", rest.0, rest.1));
    for (list, accesses, sources) in amounts {
        if list != "none" && !has_lists(sensor) {
            continue;
        }
        let labels = format!("list=\"{list}\"");
        let mut add =
            |metric, of: &str, amount| counters.add(metric, format!("{of},{labels}"), amount, since);
        add("teiten_list_accesses_total", sensor, accesses);
        add("teiten_list_sources_total", sensor, sources);
        if feature && has_lists(sensor) {
            add("teiten_port_list_accesses_total", port, accesses);
            add("teiten_port_list_sources_total", port, sources);
        }
    }
}

/// The tools of `accesses` to a port after `seen` others: of a hundred, so many by each, and the rest by none that is known.
fn tools(transport: &str, number: u16, seen: u64, accesses: u64) -> Vec<(&'static str, u64)> {
    if transport != "tcp" {
        return Vec::new();
    }
    let of_hundred: &[(&str, u64)] = match number {
        23 => &[("mirai", 55), ("zmap", 8), ("masscan", 4)],
        22 | 3389 => &[("zmap", 18), ("zmap4", 9), ("masscan", 12), ("nmap", 3)],
        445 | 1433 => &[("masscan", 22), ("zmap", 5), ("stateless", 3)],
        _ => &[("zmap", 16), ("masscan", 11), ("zmap4", 4), ("stateless", 2), ("nmap", 1)],
    };
    let mut amounts = Vec::new();
    let mut rest = accesses;
    for (tool, share) in of_hundred {
        // Several may be due at once.
        let amount = ((seen + accesses) * share / 100 - seen * share / 100).min(rest);
        rest -= amount;
        amounts.push((*tool, amount));
    }
    amounts.push(("other", rest));
    amounts.retain(|(_, amount)| *amount > 0);
    amounts
}

/// What is counted for a sensor as a whole.
fn day_counters(
    report: HistoryReport,
    name: &str,
    sensor: usize,
    (total, sources): (u64, u64),
    since: i64,
    rng: &mut ChaCha8Rng,
    counters: &mut Counters,
) {
    let end = since + 86_400;
    counters.add("teiten_observation_seconds_total", name.to_owned(), 86_400, since);
    counters.add("teiten_hosts_total", name.to_owned(), sources * 9 / 10, since);
    counters.add("teiten_source_table_overflow_packets_total", name.to_owned(), 0, since);
    for (port, amount) in [("80", 6), ("443", 2), ("6667", 4)] {
        let amount = rng.random_range(amount / 2..amount * 2);
        counters.add(
            "teiten_backscatter_packets_total",
            format!("{name},transport=\"tcp\",port=\"{port}\""),
            amount,
            since,
        );
    }
    for (class, amount) in [
        ("access", total),
        ("backscatter", 12),
        ("solicited", 2400),
        ("other_destination", 300),
        ("other", 40),
        ("malformed", 1),
    ] {
        counters.add("teiten_packets_total", format!("{name},class=\"{class}\""), amount, since);
    }
    // The maintenance sensor offers SSH, and someone guesses its passwords every few days.
    if sensor == 0 {
        let guesses =
            if report == HistoryReport::November2005 && rng.random_range(0..4) == 0 { 12_000 } else { 60 };
        for (country, share) in [("KR", 6), ("CN", 3), ("US", 1)] {
            let labels = format!("{name},transport=\"tcp\",port=\"22\",country=\"{country}\"");
            counters.add("teiten_service_accesses_total", labels.clone(), guesses * share / 10, since);
            counters.add("teiten_service_sources_total", labels, share / 2 + 1, since);
        }
    }
    for port in crate::dashboards::ports::table().iter().filter(|_| sensor == 0) {
        let labels = format!(
            "{name},transport=\"{}\",port=\"{}\",name=\"{}\",description=\"{}\"",
            port.transport, port.port, port.name, port.en
        );
        counters.gauge("teiten_port_info", labels, end, 1.0);
    }
    let info = format!("{name},timezone=\"Asia/Tokyo\",interface=\"eth0\",xdp_mode=\"native\"");
    counters.gauge("teiten_sensor_info", info, end, 1.0);
}

/// The last two days as a scraper sees them: gauges, and counters that fill by the hour.
fn tail(report: HistoryReport, counters: &mut Counters) {
    let end = report.months()[5].end();
    for sensor in 1..=report.sensors() {
        let name = format!("job=\"teiten\",instance=\"192.0.2.{sensor}:9477\",sensor=\"sensor-{sensor:02}\"");
        for at in (end - 2 * 86_400..=end).step_by(300) {
            let drains = ((at - end + 2 * 86_400) / 10) as f64;
            let mut gauge =
                |metric, more: &str, value| counters.gauge(metric, format!("{name}{more}"), at, value);
            // Any process that keeps scraping would miss these targets.
            if !matches!(report, HistoryReport::Before(_)) {
                gauge("up", "", 1.0);
            }
            gauge("scrape_duration_seconds", "", 0.012);
            // The third sensor's line is without a carrier for an hour.
            let dark = sensor == 3 && (end - 36_000..end - 32_400).contains(&at);
            gauge("teiten_up", "", f64::from(u8::from(!dark)));
            for reason in [
                "detached",
                "link_down",
                "no_carrier",
                "no_address",
                "wrong_interface",
                "unreadable",
                "silent",
            ] {
                let blind = dark && reason == "no_carrier";
                gauge("teiten_blind", &format!(",reason=\"{reason}\""), f64::from(u8::from(blind)));
            }
            gauge("teiten_build_info", ",version=\"0.1.0\",revision=\"model\"", 1.0);
            gauge("teiten_monitored_addresses", ",family=\"ipv4\"", 1.0);
            gauge("teiten_last_drain_timestamp_seconds", "", (at - 4) as f64);
            gauge("teiten_geoip_build_timestamp_seconds", "", (end - 20 * 86_400) as f64);
            gauge("teiten_geoip_info", ",source=\"file\"", 1.0);
            for (list, prefixes, days) in [("research", 21_300.0, 6), ("cloud", 8_450.0, 41)] {
                if has_lists(&name) {
                    let labels = format!(",list=\"{list}\"");
                    gauge("teiten_source_list_prefixes", &labels, prefixes);
                    let changed = (end - days * 86_400) as f64;
                    gauge("teiten_source_list_modified_timestamp_seconds", &labels, changed);
                }
            }
            for (le, share) in [("0.005", 0.6), ("0.02", 0.95), ("0.1", 1.0), ("+Inf", 1.0)] {
                gauge("teiten_drain_duration_seconds_bucket", &format!(",le=\"{le}\""), drains * share);
            }
        }
    }
    for ((metric, _), samples) in &mut counters.gauges {
        if *metric == "teiten_sensor_info" {
            samples.extend(
                (end - 2 * 86_400 + 300..end)
                    .step_by(300)
                    .filter(|at| (end - at) % 86_400 != 0)
                    .map(|at| (at, 1.0)),
            );
            samples.sort_by_key(|(at, _)| *at);
        }
    }
    for ((metric, _), Growth { samples, .. }) in &mut counters.counters {
        if !matches!(
            *metric,
            "teiten_accesses_total" | "teiten_sources_total" | "teiten_observation_seconds_total"
        ) {
            continue;
        }
        // Within a day a counter goes up evenly, in whole steps.
        let mut filled = Vec::new();
        for pair in samples.windows(2) {
            let ((from, before), (to, after)) = (pair[0], pair[1]);
            filled.push(pair[0]);
            if to > end - 2 * 86_400 {
                for at in (from + 3600..to).step_by(3600) {
                    let share = (at - from) as f64 / (to - from) as f64;
                    filled.push((at, (before + (after - before) * share).floor()));
                }
            }
        }
        filled.extend(samples.last());
        *samples = filled;
    }
}

/// Whole numbers in proportion to `weights` that add up to `total`: largest remainders first.
fn apportion(total: u64, weights: impl Iterator<Item = f64>) -> Vec<u64> {
    let weights: Vec<f64> = weights.collect();
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|w| w / sum * total as f64).collect();
    let mut whole: Vec<u64> = exact.iter().map(|e| e.floor() as u64).collect();
    let missing = total - whole.iter().sum::<u64>();
    let mut order: Vec<usize> = (0..exact.len()).filter(|i| weights[*i] > 0.0).collect();
    order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()).then(a.cmp(b)));
    for index in order.into_iter().cycle().take(missing as usize) {
        whole[index] += 1;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_before_a_day_ends_with_the_day_before() {
        let months = HistoryReport::Before(date(2026, 3, 5)).months();
        assert_eq!(
            months.map(|m| (m.first.month(), m.days)),
            [(10, 31), (11, 30), (12, 31), (1, 31), (2, 28), (3, 4)]
        );
        assert_eq!(months[5].end(), midnight(date(2026, 3, 5)));
    }

    #[test]
    fn on_the_first_of_a_month_the_history_is_six_whole_months() {
        let months = HistoryReport::Before(date(2026, 3, 1)).months();
        assert_eq!(
            months.map(|m| (m.first.month(), m.days)),
            [(9, 30), (10, 31), (11, 30), (12, 31), (1, 31), (2, 28)]
        );
    }
}
