//! The `PromQL` of the panels, composed from a few shapes.
//!
//! A day's sample is at the midnight that ends the day, up to a quarter of an hour late. The
//! two hours by which every window is moved take in that sample and a change of daylight saving.

use super::rules;
use sensor_common::Tool;

/// Only the sensors that were chosen.
pub(super) const SENSOR: &str = r#"sensor=~"$sensor""#;

/// The end of the dashboard's time range, as an argument of `@`.
pub(super) const TO: &str = "@ ${__to:date:seconds}";

fn selector(record: &str, matchers: &str) -> String {
    let comma = if matchers.is_empty() { "" } else { "," };
    format!("{record}{{{SENSOR}{comma}{matchers}}}")
}

/// Recorded series of a counter.
#[derive(Clone, Copy)]
pub(super) struct Counter {
    record: Record,
    /// Whether the running day is left out although it is recorded.
    finished: bool,
}

#[derive(Clone, Copy)]
enum Record {
    /// Of a counter in the catalogue, by its name without `_total` and the labels that are summed away.
    Of(&'static str, &'static [&'static str]),
    /// Of nothing that is counted: `level:metric`.
    Named(&'static str),
}

const fn counter(metric: &'static str) -> Counter {
    sum(metric, &[])
}

const fn sum(metric: &'static str, over: &'static [&'static str]) -> Counter {
    Counter { record: Record::Of(metric, over), finished: false }
}

const fn recorded(record: &'static str) -> Counter {
    Counter { record: Record::Named(record), finished: true }
}

pub(super) const ACCESSES: Counter = sum("teiten_accesses", rules::PORT);
pub(super) const SOURCES: Counter = sum("teiten_sources", rules::PORT);
pub(super) const HOSTS: Counter = counter("teiten_hosts");
pub(super) const OBSERVED: Counter = counter("teiten_observation_seconds");
pub(super) const PORT_ACCESSES: Counter = counter("teiten_accesses");
pub(super) const PORT_SOURCES: Counter = counter("teiten_sources");
pub(super) const COUNTRY_ACCESSES: Counter = counter("teiten_country_accesses");
pub(super) const COUNTRY_SOURCES: Counter = counter("teiten_country_sources");
pub(super) const PORT_COUNTRY_ACCESSES: Counter = counter("teiten_port_country_accesses");
pub(super) const PORT_COUNTRY_SOURCES: Counter = counter("teiten_port_country_sources");
pub(super) const PORT_HOUR_ACCESSES: Counter = counter("teiten_port_hour_accesses");
pub(super) const GROUP_ACCESSES: Counter = counter("teiten_group_accesses");
pub(super) const GROUP_SOURCES: Counter = counter("teiten_group_sources");
pub(super) const SERVICE_ACCESSES: Counter = counter("teiten_service_accesses");
pub(super) const SERVICE_SOURCES: Counter = counter("teiten_service_sources");
pub(super) const BACKSCATTER: Counter = counter("teiten_backscatter_packets");
pub(super) const LIST_ACCESSES: Counter = counter("teiten_list_accesses");
pub(super) const PORT_LIST_ACCESSES: Counter = counter("teiten_port_list_accesses");
pub(super) const TOOLS: Counter = counter("teiten_tool_accesses");
pub(super) const PORT_TOOLS: Counter = counter("teiten_port_tool_accesses");
pub(super) const COUNTRY_TOOLS: Counter = counter("teiten_country_tool_accesses");
pub(super) const CLASSES: Counter = counter("teiten_packets");
pub(super) const OVERFLOW: Counter = counter("teiten_source_table_overflow_packets");

impl Counter {
    fn series(self, operation: &str, matchers: &str) -> String {
        let record = match self.record {
            Record::Of(metric, over) => rules::family(metric, over).record(operation),
            Record::Named(record) => format!("{record}:{operation}"),
        };
        selector(&record, matchers)
    }

    /// Whether the running day is recorded and wanted.
    fn has_today(self) -> bool {
        match self.record {
            Record::Of(metric, over) => !self.finished && rules::family(metric, over).today,
            Record::Named(_) => false,
        }
    }

    /// The amount of each day that ends in the range, at the day's first instant, and of the running day.
    ///
    /// Grafana puts the points at the midnights that the offset from UTC at the range's end gives: in a month
    /// with a change of daylight saving an hour from some days' first instants, and the first point up to a day
    /// before the range.
    pub(super) fn daily(self, by: &str, matchers: &str) -> String {
        let day = format!(
            "last_over_time({}[1d] offset -26h) and on () vector(time()) > ${{__from:date:seconds}} - 79200",
            self.series("day", matchers)
        );
        let today = if self.has_today() {
            format!(
                " or last_over_time({}[1d] offset -1d) and on () vector(time()) > {} - 10800",
                self.series("today", matchers),
                newest_day()
            )
        } else {
            String::new()
        };
        format!("sum by ({by}) ({day}{today})")
    }

    /// The amount of each finished day, at the day's first instant.
    pub(super) fn finished_daily(self, by: &str, matchers: &str) -> String {
        Self { finished: true, ..self }.daily(by, matchers)
    }

    /// The amount of the finished days of the range; in the first day of an installation, of
    /// what there is of it.
    pub(super) fn total(self, by: &str, matchers: &str) -> String {
        let days =
            format!("sum_over_time({}[${{__range_s}}s] {TO} offset -2h)", self.series("day", matchers));
        let first = if self.has_today() {
            format!(
                " or last_over_time({}[1d] {TO}) unless on (sensor) {}",
                self.series("today", matchers),
                OBSERVED.days()
            )
        } else {
            String::new()
        };
        format!("sum by ({by}) ({days}{first})")
    }

    fn days(self) -> String {
        format!("count_over_time({}[${{__range_s}}s] {TO} offset -2h)", self.series("day", ""))
    }

    /// The months before the range, as many as `window` reaches back, with the label `month`. A month is
    /// recorded on the first day of the next one.
    fn months_before(self, by: &str, window: &str) -> String {
        format!(
            "sum by ({by}) (last_over_time({}[{window}] @ ${{__from:date:seconds}} offset -26h))",
            self.series("month", "")
        )
    }

    /// The month before the range.
    pub(super) fn last_month(self, by: &str) -> String {
        self.months_before(by, "27d")
    }

    /// The sum of the five months before the range and the range itself. Both are summed before
    /// they are joined: a join of single sensors' series costs more than everything else.
    pub(super) fn six_months_sum(self, by: &str) -> String {
        format!(
            r#"sum by ({by}) ({} or label_replace({}, "part", "range", "", ""))"#,
            self.months_before(by, "125d"),
            self.total(by, "")
        )
    }

    /// The five months before the range and the range itself, label `month`.
    pub(super) fn six_months(self, by: &str) -> String {
        let month_by = if by.is_empty() { "month".to_owned() } else { format!("month, {by}") };
        format!(
            "({} or {} * on () group_left (month) {})",
            self.months_before(&month_by, "125d"),
            self.total(by, ""),
            this_month()
        )
    }
}

impl Counter {
    /// As [`Self::six_months`], as parts of `whole`, of which they are all.
    pub(super) fn six_months_shares(self, by: &str, whole: Self) -> String {
        format!("({} / on (month) group_left () {})", self.six_months(by), whole.six_months(""))
    }
}

/// The full hour after the newest finished day was recorded, which is at most an hour and a quarter after the running
/// day's start; 0 on the first day of an installation. The range may end in the future, and begin after the last
/// midnight.
fn newest_day() -> String {
    let recorded = format!("(max(last_over_time({}[1h])) * 0 + time())", OBSERVED.series("day", ""));
    format!(
        "(max_over_time({recorded}[${{__range_s}}s:1h] {TO} offset -2h) \
         or max_over_time({recorded}[2d:1h] @ ${{__from:date:seconds}} offset -2h) or vector(0))"
    )
}

/// 1 for each sensor while a day runs of which it observed less than 95 %, or nothing although it had observed
/// within 28 days. A day is judged by what is recorded at its end, and its absence a day later, when sensors of all
/// zones have ended it.
pub(super) fn gaps() -> String {
    let day = OBSERVED.series("day", "");
    let any_day = day.replace(&format!("{{{SENSOR}}}"), "");
    let newest =
        format!("max_over_time((max(last_over_time({any_day}[1h])) * 0 + time())[35d:1h] {TO} offset -2d)");
    format!(
        "max by (sensor) (last_over_time({day}[1d] offset -1d)) < bool {LEAST_OF_A_FULL_DAY} == 1 \
         or max by (sensor) (last_over_time({day}[28d])) * 0 + 1 \
         unless on (sensor) last_over_time({day}[26h] offset -26h) \
         and on () vector(time()) < {newest} - 93600"
    )
}

/// 95 % of 24 hours; the day on which summer time begins has more.
const LEAST_OF_A_FULL_DAY: u32 = 82_080;

/// The rank from 1 to `n` of each element of `amount` among those with the same labels `within`, by the labels `by`: of
/// the n lists of the one, two, … n largest an element is in as many as its rank is from the end. Equals may share one.
pub(super) fn ranks(amount: &str, within: &str, by: &str, n: usize) -> String {
    let within = if within.is_empty() { String::new() } else { format!("by ({within}) ") };
    let lists: Vec<String> = (1..=n)
        .map(|k| format!(r#"label_replace(topk {within}({k}, {amount}), "list", "{k}", "", "")"#))
        .collect();
    format!("{} - count by ({by}) ({})", n + 1, lists.join(" or "))
}

/// One element whose label `month` is the range's, as in `2005-11`. Two days into the range it
/// is the same month in every time zone.
fn this_month() -> String {
    let inside = "vector(${__from:date:seconds} + 172800)";
    format!(
        r#"label_replace(count_values("month", year({inside}) * 100 + month({inside})), "month", "$1-$2", "month", "(....)(..)")"#
    )
}

/// Days of all sensors together that the range's amounts are divided by: 86,400 observed seconds are
/// one. Less than six hours of one sensor are no base for a day's figure.
fn sensor_days() -> String {
    format!("({} / 86400 >= 0.25)", OBSERVED.total("", ""))
}

/// Per sensor and day, rounded half up.
pub(super) fn per_sensor_day(counter: Counter) -> String {
    format!("floor({} / {} + 0.5)", counter.total("", ""), sensor_days())
}

/// Per sensor and day for six months, rounded half up.
pub(super) fn per_sensor_day_six_months(counter: Counter) -> String {
    let days = recorded("sensor:teiten_days");
    let days = format!(
        "({} or {} * on () group_left (month) {})",
        days.months_before("month", "125d"),
        sensor_days(),
        this_month()
    );
    format!("floor({} / on (month) {days} + 0.5)", counter.six_months(""))
}

/// The six months as numbers, January of year 0 being 0, and half a month of room on each side.
pub(super) fn month_numbers() -> String {
    let numbers = recorded("sensor:teiten_month_number");
    let inside = "vector(${__from:date:seconds} + 172800)";
    let months = format!(
        "(max by (month) ({}) or {} * scalar(year({inside}) * 12 + month({inside}) - 1))",
        numbers.months_before("month", "125d").replacen("sum by", "max by", 1),
        this_month()
    );
    format!(
        r#"{months} or label_replace(min({months}) - 0.5, "month", "before", "", "") or label_replace(max({months}) + 0.5, "month", "after", "", "")"#
    )
}

/// Sources that a source list holds; list="none" is the rest.
pub(super) const LISTED: &str = r#"list!="none""#;

/// `whole`, by the labels `by`, less what of it came from sources of lists. What no list is known of came from none: days
/// and sensors without lists, and accesses whose source was not kept.
pub(super) fn unlisted(whole: &str, listed: &str, by: &str) -> String {
    format!("({whole} - on ({by}) ({listed} or on ({by}) {whole} * 0))")
}

/// The busiest source lists of a counter, day by day, in the label `name`, under them in `none` what is left of `whole`;
/// nothing where nothing is counted by list.
pub(super) fn by_list_daily(
    (whole, counter): (Counter, Counter),
    matchers: &str,
    none: &str,
    other: &str,
) -> String {
    let comma = if matchers.is_empty() { "" } else { "," };
    let listed = format!("{LISTED}{comma}{matchers}");
    let rank = format!("topk({LISTS}, {})", counter.total("list", &listed));
    let name = |expression: &str| format!(r#"label_replace({expression}, "name", "$1", "list", "(.*)")"#);
    let rest = unlisted(&whole.daily("", matchers), &counter.daily("", &listed), "");
    let rest = format!("({rest} and on () count({}))", counter.total("list", matchers));
    format!(
        r#"{} or label_replace(label_replace({rest}, "name", "{none}", "", ""), "by_size", "0", "", "")"#,
        top(&counter.daily("list", &listed), &rank, "list", "", &name, other)
    )
}

/// As many source lists as can be distinguished in a stack.
const LISTS: usize = 8;

/// Gives ports the name that reports print, in the label `name`.
pub(super) fn named(expression: &str) -> String {
    format!(
        r#"label_replace(label_replace(label_join({expression}, "name", "/", "port", "transport"), "name", "Ping (ICMP)", "name", "8/icmp"), "name", "Ping (ICMPv6)", "name", "128/icmpv6")"#
    )
}

/// The elements of `expression` that are in `rank`, which orders the label sets `by`, with the label
/// `by_size`: the larger the amount of `rank`, the smaller its text.
///
/// Prometheus sorts the series of a range by their labels, and no panel reads this one: it comes first in
/// the alphabet, so series are in the order of their size, and of their names where they are equal. A count of
/// below 9e14, and of 0, has fifteen digits there.
pub(super) fn sized(expression: &str, rank: &str, by: &str) -> String {
    format!(
        r#"({expression} * on ({by}) group_left (by_size) count_values by ({by}) ("by_size", 999999999999999 - {rank}))"#
    )
}

/// The label `by_size` of what comes after everything that has a size.
const LAST: &str = "z";

/// Every element of `expression`, in the order of `rank`; the label set `other`, where there is one, is the last.
pub(super) fn all_sized(expression: &str, rank: &str, by: &str, other: Option<&str>) -> String {
    let sized = format!("({} or on ({by}) {expression})", sized(expression, rank, by));
    other.map_or_else(
        || sized.clone(),
        |other| format!(r#"label_replace({sized}, "by_size", "{LAST}", "{by}", "{other}")"#),
    )
}

/// The largest of `expression` and the sum of all others under the name `other`, which is the last.
///
/// `rank` orders the label sets `by`; `rest` are the labels that the sum of the others keeps.
pub(super) fn top(
    expression: &str,
    rank: &str,
    by: &str,
    rest: &str,
    name: &dyn Fn(&str) -> String,
    other: &str,
) -> String {
    format!("{} or {}", name(&sized(expression, rank, by)), others(expression, rank, by, rest, other))
}

/// As many sensors as can be distinguished in a stack.
const SENSORS: usize = 15;

/// The busiest sensors of a counter, day by day, in the label `name`, the others as one.
pub(super) fn by_sensor_daily(counter: Counter, matchers: &str, other: &str) -> String {
    let rank = format!("topk({SENSORS}, {})", counter.total("sensor", matchers));
    let name = |expression: &str| format!(r#"label_replace({expression}, "name", "$1", "sensor", "(.*)")"#);
    top(&counter.daily("sensor", matchers), &rank, "sensor", "", &name, other)
}

/// As [`top`], the largest first and the others last.
pub(super) fn top_sorted(
    expression: &str,
    rank: &str,
    by: &str,
    rest: &str,
    name: &dyn Fn(&str) -> String,
    other: &str,
) -> String {
    format!(
        "sort_desc({}) or {}",
        name(&sized(expression, rank, by)),
        others(expression, rank, by, rest, other)
    )
}

/// The label `name` of the others, whose place is the last.
pub(super) fn named_other(expression: &str, other: &str) -> String {
    format!(
        r#"label_replace(label_replace({expression}, "name", "{other}", "", ""), "by_size", "{LAST}", "", "")"#
    )
}

fn others(expression: &str, rank: &str, by: &str, rest: &str, other: &str) -> String {
    let rest = if rest.is_empty() { String::new() } else { format!("by ({rest}) ") };
    named_other(&format!("sum {rest}({expression} unless on ({by}) {rank})"), other)
}

/// As [`top`] for ports, for an `expression` that is too dear to be evaluated twice: every port
/// of `ports` is given its name first, and the amounts are summed by name and `rest`.
pub(super) fn top_by_name(expression: &str, ports: &str, rank: &str, rest: &str, other: &str) -> String {
    let names = named(&sized(&format!("({rank} > bool -1)"), rank, PORT));
    let others = named_other(&format!("(({ports} unless on ({PORT}) {rank}) > bool -1)"), other);
    format!(
        "sum by ({rest}, name, by_size) ({expression} * on ({PORT}) group_left (name, by_size) ({names} or {others}))"
    )
}

/// The ports of `rank`, the largest first, and what is left of `whole`, which has no labels, under the name
/// `other`.
pub(super) fn top_of(expression: &str, rank: &str, whole: &str, other: &str) -> String {
    let ranked = format!("({expression} and on ({PORT}) {rank})");
    format!(
        "sort_desc({}) or {}",
        named(&sized(expression, rank, PORT)),
        named_other(&format!("({whole} - (sum({ranked}) or vector(0)))"), other)
    )
}

/// The regions of `rank`, the largest first, and what is left of `whole`, which has no labels, under the name
/// `other`; nothing where no region is known.
pub(super) fn top_regions_of(expression: &str, rank: &str, whole: &str, other: &str) -> String {
    let ranked = format!("({expression} and on (country) {rank})");
    format!(
        "sort_desc({}) or {}",
        country(&sized(expression, rank, "country")),
        named_other(&format!("({whole} - sum({ranked}))"), other)
    )
}

/// Parts of 1 of each tool in each label set `by` of `amounts`, which are those of `rank`: rows in its order, tools by
/// their sum, `other` last. Every row has every tool, since columns come in the order in which rows show them.
pub(super) fn tool_shares(
    amounts: &str,
    rank: &str,
    by: &str,
    other: &str,
    name: &dyn Fn(&str) -> String,
) -> String {
    let tools: Vec<String> = Tool::ALL
        .iter()
        .map(|tool| format!(r#"label_replace({rank} * 0, "tool", "{}", "", "")"#, tool.name()))
        .collect();
    let sums = format!("sum by (tool) ({amounts})");
    let all = format!("({amounts} or ({}) and on (tool) ({sums} > 0))", tools.join(" or "));
    let columns = all_sized(&format!("({all} / on ({by}) group_left () {rank})"), &sums, "tool", Some(other));
    let rows = format!(r#"count_values by ({by}) ("row_size", 999999999999999 - {rank})"#);
    name(&format!(
        r#"label_join({columns} * on ({by}) group_left (row_size) {rows}, "by_size", " ", "by_size", "row_size")"#
    ))
}

/// The label `name` for regions: their code.
pub(super) fn country(expression: &str) -> String {
    format!(r#"label_replace({expression}, "name", "$1", "country", "(.*)")"#)
}

pub(super) const PORT: &str = "transport, port";

/// The busiest ports of the range.
pub(super) fn top_ports(counter: Counter, n: usize) -> String {
    format!("topk({n}, {})", counter.total(PORT, r#"port!="other""#))
}

/// The busiest regions of the range.
pub(super) fn top_countries(counter: Counter, n: usize) -> String {
    format!("topk({n}, {})", counter.total("country", r#"country!="unknown""#))
}
