//! The recording rules: what each counter did in each local day and month.
//!
//! | operation | holds | when |
//! |---|---|---|
//! | `:midnight` | the counter at the start of a local day | once a day |
//! | `:replaced` | of a sensor that was replaced, what takes the place of `:midnight` for the rest of that day: 0 less what was counted on it before | when that is noticed |
//! | `:day` | the amount of the local day that has just ended | once a day |
//! | `:today` | the amount of the day that runs | every ten minutes |
//! | `:month` | the amount of the month that has just ended, label `month` | once a month |
//! | `:hour` | the amount of the last hour | every hour |
//! | `:full` | the amount of the local day that has just ended, scaled to a day observed in full; none when less than six hours of it were observed; of a port without the source lists that alerts leave out | once a day |
//! | `:delta24h` | the amount of the last 24 hours, without those lists too | every five minutes |
//! | `:normal` | the median `:full` of the last 28 days | every five minutes |
//! | `:excess` | the logarithm of the last 24 hours over normal, of all sensors | every five minutes |
//! | `:rise` | the same, less what is usual at this time of the week | every five minutes |
//! | `:rise2d`, `:rise3d` | its mean at this time of the last two and three days | every five minutes |
//! | `:spread` | the standard deviation of `:rise` over the last 28 days | every five minutes |
//!
//! All of them are differences of samples that exist. `increase()` would extrapolate to the
//! window's edges, and a day's accesses would not be whole numbers.

mod normal;

use normal::{normal, unusual};
use sensor_counters::COUNTERS;
use std::fmt::Write as _;

use super::site::Site;

/// A counter of the catalogue together with the labels that its daily series keep.
pub(super) struct Family {
    /// Name without `_total`.
    metric: &'static str,
    /// Labels of the counter that are summed away before the difference is taken.
    over: &'static [&'static str],
    /// Which operations are recorded beside `:midnight` and `:day`.
    pub(super) today: bool,
    month: bool,
    hour: bool,
    /// `:full` and `:delta24h`.
    full: bool,
    /// `:normal`.
    alert: bool,
    /// The same counter by source list: what `:full` and `:delta24h` leave out of it.
    by_list: Option<&'static str>,
}

impl Family {
    const fn new(metric: &'static str) -> Self {
        Self {
            metric,
            over: &[],
            today: true,
            month: false,
            hour: false,
            full: false,
            alert: false,
            by_list: None,
        }
    }

    const fn over(mut self, over: &'static [&'static str]) -> Self {
        self.over = over;
        self
    }

    const fn today(mut self, today: bool) -> Self {
        self.today = today;
        self
    }

    const fn month(mut self) -> Self {
        self.month = true;
        self
    }

    const fn hour(mut self) -> Self {
        self.hour = true;
        self
    }

    const fn full(mut self) -> Self {
        self.full = true;
        self
    }

    const fn alert(mut self) -> Self {
        self.alert = true;
        self.full()
    }

    const fn by_list(mut self, metric: &'static str) -> Self {
        self.by_list = Some(metric);
        self
    }

    /// `amount`, less what `read` reads of the records of an operation for the source lists that alerts leave out.
    fn less_lists(&self, amount: &str, operation: &str, read: fn(&str) -> String) -> String {
        let Some(metric) = self.by_list else { return amount.to_owned() };
        let listed = read(&family(metric, &[]).record(operation));
        let labels = self.labels().join(", ");
        format!(
            "            sum by (sensor, {labels}) (
{amount}
            or -({listed} and on (list) last_over_time({LEFT_OUT}[15m]))
            )"
        )
    }

    /// Labels beside `sensor`, in the catalogue's order.
    fn labels(&self) -> Vec<&'static str> {
        let counter = COUNTERS.iter().find(|counter| {
            counter.metrics().any(|(_, name, _)| name.strip_suffix("_total") == Some(self.metric))
        });
        let labels = counter.unwrap_or_else(|| panic!("the catalogue has no {}_total", self.metric)).labels;
        labels.iter().copied().filter(|label| !self.over.contains(label)).collect()
    }

    /// The counter now, also of a sensor that does not say how long it has observed.
    fn now(&self, site: &Site) -> String {
        self.now_by(site, LAST)
    }

    /// The same by [`LAST`] or [`MOST`].
    fn now_by(&self, site: &Site, function: &str) -> String {
        if self.metric == FAMILIES[0].metric {
            observed(site, function, None)
        } else {
            self.counter_by(site, function, "")
        }
    }

    /// `level:metric:operation`.
    pub(super) fn record(&self, operation: &str) -> String {
        let mut name = String::from("sensor");
        for label in self.labels() {
            name.push('_');
            name.push_str(label);
        }
        format!("{name}:{}:{operation}", self.metric)
    }

    /// The counter as last scraped. Fifteen minutes bridge a restart of Prometheus or a missed
    /// scrape; `max` takes the newer of two series when a sensor changed its address.
    fn counter(&self, site: &Site, at: &str) -> String {
        self.counter_by(site, LAST, at)
    }

    fn counter_by(&self, site: &Site, function: &str, at: &str) -> String {
        let list = |more: &[&str]| {
            let labels = self.labels();
            let labels: Vec<&str> = ["sensor"].iter().chain(&labels).chain(more).copied().collect();
            labels.join(", ")
        };
        let counter = format!(
            "max by ({}) ({function}({}_total{{{}}}[15m]{at}))",
            list(self.over),
            self.metric,
            site.matcher()
        );
        if self.over.is_empty() { counter } else { format!("sum by ({}) ({counter})", list(&[])) }
    }
}

/// How long each sensor has observed, as last scraped; one that does not say so observed for as long as
/// it was scraped, and as `ago` is.
fn observed(site: &Site, function: &str, ago: Option<(&str, u32)>) -> String {
    let (at, since) = ago.map_or_else(Default::default, |(window, seconds)| {
        (format!(" offset {window}"), format!(" - {seconds}"))
    });
    let accesses = format!("last_over_time(teiten_accesses_total{{{}}}[15m]{at})", site.matcher());
    format!(
        "({} or max by (sensor) ({accesses}) * 0 + time(){since})",
        FAMILIES[0].counter_by(site, function, &at)
    )
}

/// How a counter is read of a quarter of an hour. A counter that begins again at 0 has for so long its old value by
/// [`MOST`], so that a look every ten minutes sees the last one that was scraped, and the new one when no
/// sample of the old one is left.
const LAST: &str = "last_over_time";
const MOST: &str = "max_over_time";

/// The source lists that alerts leave out, one element each; none unless an installation has rules that record it.
const LEFT_OUT: &str = "list:teiten_alerts:left_out";

/// The labels of a port.
pub(super) const PORT: &[&str] = &["transport", "port"];
const COUNTRY: &[&str] = &["country"];

/// Every counter that has daily series. The first one tells whether a sensor was observed; those by list come before
/// the ones that are less by them.
const FAMILIES: &[Family] = &[
    Family::new("teiten_observation_seconds").full(),
    Family::new("teiten_port_list_accesses").full(),
    Family::new("teiten_port_list_sources").full(),
    Family::new("teiten_accesses").over(PORT).month().hour().alert(),
    Family::new("teiten_sources").over(PORT).month().hour(),
    Family::new("teiten_hosts"),
    Family::new("teiten_accesses").month().hour().alert().by_list("teiten_port_list_accesses"),
    Family::new("teiten_sources").month().alert().by_list("teiten_port_list_sources"),
    Family::new("teiten_country_accesses").month(),
    Family::new("teiten_country_sources").month(),
    Family::new("teiten_port_country_accesses"),
    Family::new("teiten_port_country_sources"),
    Family::new("teiten_port_hour_accesses").month().today(false),
    Family::new("teiten_group_accesses"),
    Family::new("teiten_group_sources"),
    Family::new("teiten_group_accesses").over(COUNTRY).today(false).alert(),
    Family::new("teiten_group_sources").over(COUNTRY).today(false).alert(),
    Family::new("teiten_service_accesses"),
    Family::new("teiten_service_sources"),
    Family::new("teiten_service_accesses").over(COUNTRY).today(false).alert(),
    Family::new("teiten_service_sources").over(COUNTRY).today(false).alert(),
    Family::new("teiten_backscatter_packets").alert(),
    Family::new("teiten_list_accesses").month(),
    Family::new("teiten_list_sources").month(),
    Family::new("teiten_asn_accesses"),
    Family::new("teiten_asn_sources"),
    Family::new("teiten_tool_accesses"),
    Family::new("teiten_port_tool_accesses"),
    Family::new("teiten_country_tool_accesses"),
    Family::new("teiten_packets").today(false),
    Family::new("teiten_source_table_overflow_packets").today(false),
];

/// The daily series of a counter, summed over these labels.
pub(super) fn family(metric: &str, over: &[&str]) -> &'static Family {
    FAMILIES
        .iter()
        .find(|family| family.metric == metric && family.over == over)
        .unwrap_or_else(|| panic!("no rule records {metric} over {over:?}"))
}

/// See [`super::daily_series`].
pub(super) fn daily_series(counters: &[(&str, &str, f64)]) -> Vec<(String, String, f64)> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let kept = family.labels();
        let mut sums: std::collections::BTreeMap<String, f64> = std::collections::BTreeMap::new();
        for (_, labels, value) in
            counters.iter().filter(|(metric, ..)| metric.strip_suffix("_total") == Some(family.metric))
        {
            let is_kept = |label: &&str| label.split('=').next().is_some_and(|name| kept.contains(&name));
            let labels: Vec<&str> = labels.split(',').filter(is_kept).collect();
            *sums.entry(labels.join(",")).or_default() += value;
        }
        let operations = [("midnight", true), ("day", true), ("today", family.today), ("full", family.full)];
        for (operation, _) in operations.into_iter().filter(|(_, recorded)| *recorded) {
            all.extend(sums.iter().map(|(labels, sum)| (family.record(operation), labels.clone(), *sum)));
        }
    }
    all
}

/// What the file is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Prometheus evaluates the rules as time goes by. What was not evaluated at midnight is
    /// made up for in the next quarter of an hour, and a rule looks at its own last sample so
    /// that it does so once.
    Live,
    /// `cargo xtask record` evaluates at midnight exactly: nothing is missed, and a rule cannot see its
    /// own samples.
    Backfill,
}

const HEAD: &str = "# Generated by `cargo xtask dashboards`.\n";

/// The UTC offset of each sensor, which the other rules need.
///
/// # Errors
/// When the bundled time zone database cannot be read.
fn zone(site: &Site) -> anyhow::Result<String> {
    Ok(format!(
        "{HEAD}groups:\n  - name: teiten-zone\n    interval: 1m\n    rules:\n{}",
        super::zones::rules(site)?
    ))
}

/// Every rule file and its text, in the order in which they need each other.
///
/// # Errors
/// When the bundled time zone database cannot be read.
pub(super) fn files(site: &Site) -> anyhow::Result<Vec<(&'static str, String)>> {
    let head = |text: String| format!("{HEAD}groups:\n{text}");
    let backfill = format!("{HEAD}# For `cargo xtask record`, see the README.\ngroups:\n");
    Ok(vec![
        ("rules/teiten-zone.yml", zone(site)?),
        ("rules/teiten-day.yml", head(days(site, Mode::Live)?)),
        ("rules/teiten-month.yml", head(months(Mode::Live)?)),
        ("rules/teiten-hour.yml", head(hours(site, Mode::Live)?)),
        ("rules/teiten-today.yml", head(today(site)?)),
        ("rules/teiten-normal.yml", head(normal(site)?)),
        ("rules/teiten-unusual.yml", head(unusual()?)),
        ("backfill/teiten-day.yml", format!("{backfill}{}", days(site, Mode::Backfill)?)),
        ("backfill/teiten-month.yml", format!("{backfill}{}", months(Mode::Backfill)?)),
        ("backfill/teiten-hour.yml", format!("{backfill}{}", hours(site, Mode::Backfill)?)),
    ])
}

/// How long each sensor that says so has observed, as last scraped.
fn said(site: &Site) -> String {
    FAMILIES[0].counter(site, "")
}

/// Seconds since local midnight, one value for each sensor.
const SECOND_OF_DAY: &str = "(time() + sensor:teiten_utc_offset:seconds) % 86400";

/// The number of the local day, one value for each sensor.
const DAY: &str = "floor((time() + sensor:teiten_utc_offset:seconds) / 86400)";

/// Six observed hours are the least that a day's rate can be estimated from.
const LEAST_OF_A_DAY: u32 = 21_600;

fn days(site: &Site, mode: Mode) -> anyhow::Result<String> {
    let mut out = String::from("  - name: teiten-day\n    interval: 1m\n    rules:\n");
    let window = if mode == Mode::Live { 900 } else { 60 };
    let once = |record: &str| match mode {
        Mode::Live => format!("\n          unless last_over_time({record}[30m])"),
        Mode::Backfill => String::new(),
    };
    if mode == Mode::Live {
        unnoticed(site, &mut out)?;
    }
    for family in FAMILIES {
        let (midnight, day) = (family.record("midnight"), family.record("day"));
        let counter = if family.today && mode == Mode::Live {
            format!("({} unless on (sensor) {UNNOTICED})", family.now_by(site, MOST))
        } else {
            family.now(site)
        };
        let (once_midnight, once_day) = (once(&midnight), once(&day));
        // A sensor that cannot be reached at midnight keeps what it last said today.
        let fallback = if family.today && mode == Mode::Live {
            let today = family.record("today");
            let start = start(family, &format!("last_over_time({midnight}[26h] offset 16m)"), 1);
            format!("\n            or ({start} + last_over_time({today}[1430m]))")
        } else {
            String::new()
        };
        let before = format!("last_over_time({midnight}[8d] offset 16m)");
        let before = if family.today && mode == Mode::Live { start(family, &before, 1) } else { before };
        // What a sensor counted that began after midnight belongs to the new day.
        write!(
            out,
            "      - record: {midnight}
        expr: >-
          (
            {counter}
            * on (sensor) group_left () ({} > bool {SECOND_OF_DAY}){fallback}
          )
          and on (sensor) {SECOND_OF_DAY} < {window}{once_midnight}
      - record: {day}
        expr: >-
          (
{}
          )
          and on (sensor) {SECOND_OF_DAY} < {window}{once_day}
",
            observed(site, LAST, None),
            difference(
                &format!("last_over_time({midnight}[15m])"),
                &before,
                "last_over_time(sensor:teiten_observation_seconds:midnight[8d] offset 16m)",
                &format!("({} < 90000 > on (sensor) {SECOND_OF_DAY})", said(site)),
            )
        )?;
    }
    for family in FAMILIES.iter().filter(|f| f.full) {
        let full = family.record("full");
        let day = format!("            last_over_time({}[15m])", family.record("day"));
        write!(
            out,
            "      - record: {full}
        expr: >-
          (
{} * 86400
            / on (sensor) group_left () (last_over_time(sensor:teiten_observation_seconds:day[15m]) >= {LEAST_OF_A_DAY})
          )
          and on (sensor) {SECOND_OF_DAY} < {window}{}
",
            family.less_lists(&day, "day", |listed| format!("last_over_time({listed}[15m])")),
            once(&full)
        )?;
    }
    Ok(out)
}

/// When today each sensor was last counted, in seconds since local midnight.
const LAST_TODAY: &str = "sensor:teiten_today:second_of_day";

/// There while a sensor is seen to have been replaced: 1 when the old one was counted today, 0 when not.
const REPLACED: &str = "sensor:teiten_replaced:counted";

/// The number of the local day on which a sensor was last replaced.
const REPLACED_ON: &str = "sensor:teiten_replaced:day";

/// Where the counters of a family were when a day began, the running one or `ago` days before it: at `midnight`, or where a
/// sensor that was replaced on that day counts as if they had been.
fn start(family: &Family, midnight: &str, ago: u32) -> String {
    let replaced = family.record("replaced");
    let day = if ago == 0 { DAY.to_owned() } else { format!("{DAY} - {ago}") };
    format!(
        "((last_over_time({replaced}[26h]) and on (sensor) (last_over_time({REPLACED_ON}[26h]) == on (sensor) {day})) or {midnight})"
    )
}

/// There around midnight for a sensor that was replaced in the last minutes of the day, since the last look.
const UNNOTICED: &str = "sensor:teiten_replaced:unnoticed";

/// A sensor that was replaced so shortly before midnight that no look has seen it ends its day as the last look left it;
/// what the new one counted since belongs to the next day.
fn unnoticed(site: &Site, out: &mut String) -> std::fmt::Result {
    let observed = &FAMILIES[0];
    let midnight = format!("last_over_time({}[26h] offset 16m)", observed.record("midnight"));
    write!(
        out,
        "      - record: {UNNOTICED}
        expr: >-
          {} - on (sensor) {}
          < on (sensor) last_over_time({}[1430m])
          and on (sensor) {SECOND_OF_DAY} < 900
",
        observed.counter_by(site, MOST, ""),
        start(observed, &midnight, 1),
        observed.record("today"),
    )
}

/// The counters of a sensor that was replaced, or lost its ledger, begin again at 0: what is counted of the running day
/// falls. From then on they count as if they had been below 0 at midnight by what was counted today before, so that the
/// day has all parts, however often that happens. The first two minutes of a day are for its `:midnight`.
fn replaced(site: &Site, out: &mut String) -> std::fmt::Result {
    let observed = &FAMILIES[0];
    let said = observed.counter_by(site, MOST, "");
    let midnight = format!("last_over_time({}[26h])", observed.record("midnight"));
    // One of yesterday evening is later in its day than it is now, or has left the window.
    let counted = format!("(last_over_time({LAST_TODAY}[1430m]) <= bool on (sensor) {SECOND_OF_DAY})");
    write!(
        out,
        "      - record: {REPLACED}
        expr: >-
          {counted}
          and on (sensor) (
            {said} - on (sensor) ({} or {said} * 0)
            < on (sensor) last_over_time({}[1430m]) * on (sensor) {counted}
          )
          and on (sensor) {SECOND_OF_DAY} >= 120
",
        start(observed, &midnight, 0),
        observed.record("today"),
    )?;
    for family in FAMILIES.iter().filter(|f| f.today) {
        write!(
            out,
            "      - record: {}
        expr: -last_over_time({}[1430m]) * on (sensor) group_left () {REPLACED}
",
            family.record("replaced"),
            family.record("today"),
        )?;
    }
    write!(
        out,
        "      - record: {REPLACED_ON}
        expr: {DAY} and on (sensor) {REPLACED}
      - record: {LAST_TODAY}
        expr: ({SECOND_OF_DAY} >= 120) and on (sensor) {said}
"
    )
}

fn today(site: &Site) -> anyhow::Result<String> {
    let mut out = String::from("  - name: teiten-today\n    interval: 10m\n    rules:\n");
    replaced(site, &mut out)?;
    for family in FAMILIES.iter().filter(|f| f.today) {
        let start = start(family, &format!("last_over_time({}[26h])", family.record("midnight")), 0);
        let amount = difference(
            &family.now_by(site, MOST),
            &start,
            "last_over_time(sensor:teiten_observation_seconds:midnight[26h])",
            &format!("{} < 90000", said(site)),
        );
        // What only the replaced sensor has counted stays.
        write!(
            out,
            "      - record: {}
        expr: >-
          (
{amount}
            or -({start} < 0)
          )
          and on (sensor) {SECOND_OF_DAY} >= 120
",
            family.record("today"),
        )?;
    }
    Ok(out)
}

/// `now - then`, where a counter that went down has started again, and one that is not yet
/// known starts at 0 if its sensor was known then or is `young`. Any process that connects Prometheus to an
/// older sensor must not see its whole past as one day.
///
/// Where `then` is known its sensor is too, so that one condition on the sensor serves both.
fn difference(now: &str, then: &str, sensor_then: &str, young: &str) -> String {
    format!(
        "            {now} - ({then} <= {now} or {now} * 0)
            and on (sensor) (
              {sensor_then}
              or {young}
            )"
    )
}

fn months(mode: Mode) -> anyhow::Result<String> {
    let mut out = String::from("  - name: teiten-month\n    interval: 10m\n    rules:\n");
    let local = "time() + sensor:teiten_utc_offset:seconds";
    let last = format!("{local} - 172800");
    let mut rule = |record: &str, value: &str| -> std::fmt::Result {
        // What was not evaluated in the first hour of a month is made up for on its first day.
        let once = match mode {
            Mode::Live => format!("{SECOND_OF_DAY} >= 900\n          unless last_over_time({record}[1d])"),
            Mode::Backfill => format!("({SECOND_OF_DAY} >= 900 and {SECOND_OF_DAY} < 1800)"),
        };
        write!(
            out,
            "      - record: {record}
        expr: >-
          (
{value}          )
          * on (sensor) group_left (month) label_replace(
            count_values by (sensor) (\"month\", year({last}) * 100 + month({last})),
            \"month\", \"$1-$2\", \"month\", \"(....)(..)\"
          )
          and on (sensor) day_of_month({local}) == 1
          and on (sensor) {once}
"
        )
    };
    // The days of a month that has 28 to 31 of them.
    let over_month = |function: &str, day: &str| {
        let lengths = [28, 29, 30, 31].map(|length| {
            let window = (length - 1) * 24 + 12;
            format!("({function}({day}[{window}h]) and on (sensor) days_in_month({last}) == {length})")
        });
        format!("            {}\n", lengths.join("\n            or "))
    };
    // 86,400 observed seconds are a day.
    let observed = over_month("sum_over_time", &FAMILIES[0].record("day"));
    rule("sensor:teiten_days:month", &format!("            (\n{observed}            ) / 86400\n"))?;
    // For an axis of months: January of year 0 is 0.
    rule(
        "sensor:teiten_month_number:month",
        &format!("            year({last}) * 12 + month({last}) - 1\n"),
    )?;
    for family in FAMILIES.iter().filter(|f| f.month) {
        rule(&family.record("month"), &over_month("sum_over_time", &family.record("day")))?;
    }
    Ok(out)
}

fn hours(site: &Site, mode: Mode) -> anyhow::Result<String> {
    let mut out = String::from("  - name: teiten-hour\n    interval: 1m\n    rules:\n");
    for family in FAMILIES.iter().filter(|f| f.hour) {
        write!(
            out,
            "      - record: {}
        expr: >-
          (
{}
          )
          and on (sensor) (time() + sensor:teiten_utc_offset:seconds) % 3600 < {}
",
            family.record("hour"),
            rolling(site, family, "1h", 3600),
            if mode == Mode::Live {
                "300\n          unless last_over_time(RECORD[30m])".replace("RECORD", &family.record("hour"))
            } else {
                "60".to_owned()
            }
        )?;
    }
    Ok(out)
}

fn rolling(site: &Site, family: &Family, window: &str, seconds: u32) -> String {
    let then = family.counter(site, &format!(" offset {window}"));
    let young = format!("{} < {}", said(site), seconds + 3600);
    difference(&family.now(site), &then, &observed(site, LAST, Some((window, seconds))), &young)
}
