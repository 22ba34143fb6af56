//! What happened in the period, by the rules of the alerts on daily data.
//!
//! Normal is a port's median day of the 28 days before on the same sensor, each scaled to a day observed in full; a day
//! of which less than six hours were observed does not count. A port rises where its days are beyond what they do by
//! chance. The rules are those of `grafana/prometheus/rules`, without the comparison with the same day of other weeks:
//! one sample a day has no time of the week.

use crate::data::Data;
use jiff::ToSpan as _;
use jiff::civil::Date;
use sensor_common::Slot;
use sensor_counters::{Country, PortLabel, Tally};
use std::collections::BTreeMap;

/// Days that make up what is normal.
const WEEKS: usize = 28;
/// The least that is assumed of how much days differ, and what is assumed of those of which less than a week is known.
const LEAST_SPREAD: f64 = 0.15;
const UNKNOWN_SPREAD: f64 = 0.3;
/// Accesses of the period below which a port is left out.
const LEAST_ACCESSES: u64 = 60;

/// By how many spreads one day, the mean of two days and that of three must be above normal: those of the alerts.
const SOURCES_BEYOND: [f64; 3] = [3.8, 2.45, 1.9];
const ACCESSES_BEYOND: [f64; 3] = [5.0, 3.25, 2.55];

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// A port rose on several sensors at once.
    Spread(Rise),
    /// A port rose on one sensor only.
    Single(Rise),
    /// Accesses rose while sources fell, mean days of the period against those of the one before.
    Divergence { names: Vec<Subject>, accesses: [f64; 2], sources: [f64; 2] },
    /// A port is high in the ranking that hardly was in it before.
    New { port: Slot, rank: usize, now: Tally, before: u64, sensors: usize, regions: Vec<(Country, u64)> },
    /// A region rose.
    Region { country: Country, first: Date, last: Date, mean: f64, normal: f64 },
}

/// What accesses and sources were compared of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Port(Slot),
    Group(String),
}

/// A port that rose.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rise {
    pub(crate) port: Slot,
    pub(crate) first: Date,
    pub(crate) last: Date,
    /// Whether it had not ended with the days that were read.
    pub(crate) lasts: bool,
    /// Sensors on which it rose, as indexes.
    pub(crate) sensors: Vec<usize>,
    /// Accesses and sources of its days, on these sensors.
    pub(crate) total: Tally,
    /// Mean accesses of its days, and of a normal one, all sensors.
    pub(crate) mean: f64,
    pub(crate) normal: f64,
    /// Regions by accesses, where the port has them.
    pub(crate) regions: Vec<(Country, u64)>,
    /// Its rank in the period, when it is among the busiest.
    pub(crate) rank: Option<usize>,
}

/// Days of one port or region: all sensors and each.
struct Course {
    /// By sensor and day of the span: accesses and sources of a day in full.
    accesses: Vec<Vec<Option<f64>>>,
    sources: Vec<Vec<Option<f64>>>,
}

/// How far days are from normal.
struct Excess {
    /// Logarithm of the day over normal.
    rise: Vec<Option<f64>>,
    spread: Vec<f64>,
    total: Vec<f64>,
    normal: Vec<f64>,
}

fn median(mut days: Vec<f64>) -> Option<f64> {
    days.sort_by(f64::total_cmp);
    let half = days.len() / 2;
    match days.len() {
        0 => None,
        // Of two the smaller one, lest a spike be half of its own normal.
        1 | 2 => Some(days[0]),
        n if n % 2 == 1 => Some(days[half]),
        _ => Some(f64::midpoint(days[half - 1], days[half])),
    }
}

fn deviation(days: &[f64]) -> f64 {
    let mean = days.iter().sum::<f64>() / days.len() as f64;
    (days.iter().map(|day| (day - mean).powi(2)).sum::<f64>() / days.len() as f64).sqrt()
}

impl Course {
    /// The normal day of a sensor before `day`.
    fn normal(series: &[Option<f64>], day: usize) -> Option<f64> {
        // A port is young until it was seen, and its days before that are none.
        let born = series.iter().position(|value| value.is_some_and(|value| value > 0.0))?;
        let before = &series[day.saturating_sub(WEEKS)..day];
        let known = before.iter().flatten().count();
        let days: Vec<f64> =
            series[day.saturating_sub(WEEKS).max(born)..day.max(born)].iter().flatten().copied().collect();
        if days.len() * 2 > known { median(days) } else { None }
    }

    fn excess(series: &[Vec<Option<f64>>], knows: &[Vec<bool>]) -> Excess {
        let length = series.first().map_or(0, Vec::len);
        let mut excess =
            Excess { rise: Vec::new(), spread: Vec::new(), total: Vec::new(), normal: Vec::new() };
        for day in 0..length {
            let (mut total, mut normal, mut any) = (0.0, 0.0, false);
            for (sensor, days) in series.iter().enumerate() {
                if let (true, Some(value)) = (knows[sensor][day], days[day]) {
                    any = true;
                    total += value;
                    normal += Self::normal(days, day).unwrap_or(0.0);
                }
            }
            excess.rise.push(any.then(|| ((total + 5.0) / (normal + 5.0)).ln()));
            excess.total.push(total);
            excess.normal.push(normal);
            let past: Vec<f64> =
                excess.rise[day.saturating_sub(WEEKS)..day].iter().flatten().copied().collect();
            excess
                .spread
                .push(if past.len() >= 7 { deviation(&past) } else { UNKNOWN_SPREAD }.max(LEAST_SPREAD));
        }
        excess
    }
}

impl Excess {
    /// Mean of the last `days` rises.
    fn mean(&self, day: usize, days: usize) -> Option<f64> {
        let last: Option<Vec<f64>> = (0..days).map(|ago| *self.rise.get(day.checked_sub(ago)?)?).collect();
        last.map(|last| last.iter().sum::<f64>() / days as f64)
    }

    /// Whether a day, or the mean of the last two or three, is so many deviations above normal.
    fn is_beyond(&self, day: usize, deviations: [f64; 3], least: f64) -> bool {
        self.rise[day].is_some_and(|rise| rise >= least)
            && (1..=3).any(|days| {
                self.mean(day, days).is_some_and(|mean| mean >= deviations[days - 1] * self.spread[day])
            })
    }
}

/// Everything that happened, in the order in which a report tells it.
pub(crate) fn find(data: &Data) -> Vec<Event> {
    let length = data.observed.first().map_or(0, Vec::len);
    // No day of the period is over where it ends before it begins.
    let days = (*data.days.end() - *data.days.start()).get_days() + 1;
    let end = data.offset + usize::try_from(days).unwrap_or(0);
    if data.sensors.is_empty() || end <= data.offset || length == 0 {
        return Vec::new();
    }
    let end = end.min(length);
    // Whether a sensor has a day to compare with.
    let knows: Vec<Vec<bool>> = (0..data.sensors.len())
        .map(|sensor| {
            (0..length)
                .map(|day| (day.saturating_sub(WEEKS)..day).any(|past| data.coverage(sensor, past) >= 0.25))
                .collect()
        })
        .collect();
    let ranking = ranking(&data.own().ports);
    let mut events = Vec::new();
    let mut risen = Vec::new();
    for slot in ranking.iter().copied() {
        if data.own().ports[&PortLabel::Own(slot)].accesses < LEAST_ACCESSES {
            break;
        }
        let course = course(data, slot);
        for event in rises(data, slot, &course, &knows, end, &ranking) {
            risen.push(slot);
            events.push(event);
        }
    }
    events.sort_by_key(|event| match event {
        Event::Spread(rise) => (0, rise.first, std::cmp::Reverse(rise.total.accesses)),
        Event::Single(rise) => (1, rise.first, std::cmp::Reverse(rise.total.accesses)),
        _ => (2, Date::ZERO, std::cmp::Reverse(0)),
    });
    events.extend(newcomers(data, &ranking, &risen));
    events.extend(divergence(data));
    events.extend(regions(data, end));
    events
}

/// Ports by accesses, the busiest first.
pub(crate) fn ranking(ports: &BTreeMap<PortLabel, Tally>) -> Vec<Slot> {
    let mut ranked: Vec<(Slot, Tally)> = ports
        .iter()
        .filter_map(|(label, tally)| match label {
            PortLabel::Own(slot) if tally.accesses > 0 => Some((*slot, *tally)),
            _ => None,
        })
        .collect();
    ranked.sort_by_key(|(slot, tally)| {
        (std::cmp::Reverse(tally.accesses), std::cmp::Reverse(tally.sources), *slot)
    });
    ranked.into_iter().map(|(slot, _)| slot).collect()
}

fn course(data: &Data, slot: Slot) -> Course {
    let length = data.observed[0].len();
    let mut raw = vec![vec![Tally::default(); length]; data.sensors.len()];
    for point in data.detail.get(&slot).map_or(&[][..], Vec::as_slice) {
        raw[point.sensor as usize][point.day as usize] += point.tally;
    }
    let full = |value: &dyn Fn(&Tally) -> u64| -> Vec<Vec<Option<f64>>> {
        raw.iter()
            .enumerate()
            .map(|(sensor, days)| {
                days.iter()
                    .enumerate()
                    .map(|(day, tally)| {
                        let coverage = data.coverage(sensor, day);
                        (coverage >= 0.25).then(|| value(tally) as f64 / coverage.min(1.0))
                    })
                    .collect()
            })
            .collect()
    };
    Course { accesses: full(&|tally| tally.accesses), sources: full(&|tally| tally.sources) }
}

/// The stretches in which a port rose.
fn rises(
    data: &Data,
    slot: Slot,
    course: &Course,
    knows: &[Vec<bool>],
    end: usize,
    ranking: &[Slot],
) -> Vec<Event> {
    let accesses = Course::excess(&course.accesses, knows);
    let sources = Course::excess(&course.sources, knows);
    // Normal of each sensor, as it was before the stretch.
    let normal = |sensor: usize, day: usize| Course::normal(&course.accesses[sensor], day).unwrap_or(0.0);
    let up = |day: usize, before: usize, least: f64, factor: f64| -> Vec<usize> {
        (0..data.sensors.len())
            .filter(|sensor| {
                knows[*sensor][day]
                    && course.accesses[*sensor][day]
                        .is_some_and(|value| value >= least && value >= factor * normal(*sensor, before))
            })
            .collect()
    };
    let knowing = |day: usize| knows.iter().filter(|days| days[day]).count();
    let spikes = |day: usize| {
        let by_sources = sources.is_beyond(day, SOURCES_BEYOND, 0.5)
            && sources.total[day] >= 20.0
            && accesses.total[day] >= 60.0;
        let by_accesses = accesses.is_beyond(day, ACCESSES_BEYOND, 0.7)
            && accesses.total[day] >= 100.0
            && up(day, day, 20.0, 2.0).len() as f64 >= 0.3 * knowing(day) as f64;
        let alone = up(day, day, 100.0, 4.0).len() == 1 && accesses.is_beyond(day, ACCESSES_BEYOND, 0.7);
        by_sources || by_accesses || alone
    };
    let mut events = Vec::new();
    let mut day = data.offset;
    while day < end {
        if !spikes(day) {
            day += 1;
            continue;
        }
        // It lasts while it is half as busy again as it was before, with two days of patience.
        let first = day;
        let base = accesses.normal[first];
        let mut last = first;
        let mut next = first + 1;
        while next < end && next <= last + 3 {
            if accesses.total[next] >= (1.5 * base).max(60.0) || spikes(next) {
                last = next;
            }
            next += 1;
        }
        let length = (last - first + 1) as f64;
        let sum = |sensor: usize| course.accesses[sensor][first..=last].iter().flatten().sum::<f64>();
        let up_on = |least: f64, factor: f64| -> Vec<usize> {
            (0..data.sensors.len())
                .filter(|sensor| {
                    let mean = sum(*sensor) / length;
                    knows[*sensor][first] && mean >= least && mean >= factor * normal(*sensor, first)
                })
                .collect()
        };
        let several = up_on(5.0, 1.5);
        let busiest = up_on(100.0, 4.0);
        let dates = |at: usize| *data.span.start() + i64::try_from(at).unwrap_or(0).days();
        let rise = |sensors: Vec<usize>| {
            let mut total = Tally::default();
            for point in data.detail.get(&slot).map_or(&[][..], Vec::as_slice) {
                if (first..=last).contains(&(point.day as usize))
                    && sensors.contains(&(point.sensor as usize))
                {
                    total += point.tally;
                }
            }
            Rise {
                port: slot,
                first: dates(first),
                last: dates(last),
                lasts: last + 1 == end,
                sensors,
                total,
                mean: accesses.total[first..=last].iter().sum::<f64>() / length,
                normal: base,
                regions: regions_of(data, slot, first - data.offset..=last - data.offset),
                rank: ranking.iter().position(|other| *other == slot).map(|at| at + 1),
            }
        };
        if several.len() >= 2 && several.len() as f64 >= 0.2 * knowing(first) as f64 {
            events.push(Event::Spread(rise(several)));
        } else if let [sensor] = busiest[..] {
            events.push(Event::Single(rise(vec![sensor])));
        }
        day = last + 3;
    }
    events
}

/// Regions of a feature port on some days of the period, by accesses.
fn regions_of(data: &Data, slot: Slot, days: std::ops::RangeInclusive<usize>) -> Vec<(Country, u64)> {
    let mut regions: Vec<(Country, u64)> = data
        .port_countries
        .get(&slot)
        .into_iter()
        .flatten()
        .map(|(country, amounts)| {
            let sum =
                amounts.iter().enumerate().filter(|(day, _)| days.contains(day)).map(|(_, it)| it.accesses);
            (*country, sum.sum())
        })
        .filter(|(_, sum)| *sum > 0)
        .collect();
    regions.sort_by_key(|(country, sum)| (std::cmp::Reverse(*sum), *country));
    regions
}

/// Ports among the first ten that were not among the first thirty.
fn newcomers(data: &Data, ranking: &[Slot], risen: &[Slot]) -> Vec<Event> {
    if data.last().observed() == 0 {
        return Vec::new();
    }
    let before = self::ranking(&data.last().ports);
    let length = data.dates().len();
    ranking
        .iter()
        .take(10)
        .enumerate()
        .filter(|(_, slot)| !risen.contains(slot) && !before.iter().take(30).any(|other| other == *slot))
        .filter(|(_, slot)| data.own().ports[&PortLabel::Own(**slot)].accesses >= LEAST_ACCESSES)
        .map(|(at, slot)| Event::New {
            port: *slot,
            rank: at + 1,
            now: data.own().ports[&PortLabel::Own(*slot)],
            before: data.last().ports.get(&PortLabel::Own(*slot)).map_or(0, |tally| tally.accesses),
            sensors: data
                .sensor_ports
                .iter()
                .filter(|ports| ports.contains_key(&PortLabel::Own(*slot)))
                .count(),
            regions: regions_of(data, *slot, 0..=length.saturating_sub(1)),
        })
        .collect()
}

/// Mean accesses and sources of a day, before and now.
type Compared = (Subject, [f64; 2], [f64; 2]);

/// Ports and groups whose accesses rose while their sources fell. The mean of n days deviates by 1 / sqrt(n) of what
/// one does, so a period tells smaller changes apart than a day.
fn divergence(data: &Data) -> Option<Event> {
    let (own, last) = (data.own().observed() as f64, data.last().observed() as f64);
    if own <= 0.0 || last <= 0.0 {
        return None;
    }
    let day = 86_400e9;
    let means = |now: Tally, before: Tally| {
        let sensors = [own / data.dates().len() as f64 / day, last / data.dates().len() as f64 / day];
        let sensors = sensors[0].max(sensors[1]);
        let scale = |amount: u64, observed: f64| amount as f64 / observed * day * sensors;
        (
            [scale(before.accesses, last), scale(now.accesses, own)],
            [scale(before.sources, last), scale(now.sources, own)],
        )
    };
    let mut found: Vec<Compared> = Vec::new();
    let mut test = |subject: Subject, now: Tally, before: Tally| {
        let (accesses, sources) = means(now, before);
        // Fewer than thirty sources a day differ by chance.
        let clear = sources[0] >= 30.0 || before.sources >= 900;
        if clear && accesses[1] >= 1.15 * accesses[0] && sources[1] <= 0.9 * sources[0] {
            found.push((subject, accesses, sources));
        }
    };
    for (group, now) in &data.own().groups {
        test(Subject::Group(group.clone()), *now, data.last().groups.get(group).copied().unwrap_or_default());
    }
    for slot in ranking(&data.own().ports) {
        let label = PortLabel::Own(slot);
        test(
            Subject::Port(slot),
            data.own().ports[&label],
            data.last().ports.get(&label).copied().unwrap_or_default(),
        );
    }
    // Ports are part of the sum; a group would count its ports twice.
    let ports: Vec<_> = found.iter().filter(|(subject, ..)| matches!(subject, Subject::Port(_))).collect();
    let named: Vec<_> = if ports.is_empty() { found.iter().collect() } else { ports };
    let add = |values: fn(&Compared) -> [f64; 2]| {
        named.iter().fold([0.0, 0.0], |sum: [f64; 2], it| [sum[0] + values(it)[0], sum[1] + values(it)[1]])
    };
    (!named.is_empty()).then(|| Event::Divergence {
        names: named.iter().map(|(subject, ..)| subject.clone()).collect(),
        accesses: add(|it| it.1),
        sources: add(|it| it.2),
    })
}

/// Regions whose accesses rose.
fn regions(data: &Data, end: usize) -> Vec<Event> {
    let length = data.observed[0].len();
    let observed: Vec<f64> = (0..length)
        .map(|day| (0..data.sensors.len()).map(|sensor| data.coverage(sensor, day)).sum())
        .collect();
    let most = observed.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return Vec::new();
    }
    let knows =
        vec![(0..length).map(|day| (day.saturating_sub(WEEKS)..day).any(|it| observed[it] > 0.0)).collect()];
    let mut events = Vec::new();
    for (country, days) in &data.country_days {
        let series: Vec<Option<f64>> = (0..length)
            .map(|day| {
                let value = days.get(day).map_or(0, |tally| tally.accesses);
                (observed[day] >= 0.25 * most).then(|| value as f64 * most / observed[day])
            })
            .collect();
        let excess = Course::excess(&[series], &knows);
        let rises = |day: usize| excess.is_beyond(day, ACCESSES_BEYOND, 0.7) && excess.total[day] >= 100.0;
        let Some(first) = (data.offset..end).find(|day| rises(*day)) else { continue };
        let last = (first..end)
            .take_while(|day| excess.total[*day] >= 1.5 * excess.normal[first])
            .last()
            .unwrap_or(first);
        let on = |at: usize| *data.span.start() + i64::try_from(at).unwrap_or(0).days();
        events.push(Event::Region {
            country: *country,
            first: on(first),
            last: on(last),
            mean: excess.total[first..=last].iter().sum::<f64>() / (last - first + 1) as f64,
            normal: excess.normal[first],
        });
    }
    events.sort_by(|a, b| match (a, b) {
        (Event::Region { mean: a, .. }, Event::Region { mean: b, .. }) => b.total_cmp(a),
        _ => std::cmp::Ordering::Equal,
    });
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_two_days_is_the_smaller_one() {
        assert_eq!(median(vec![9.0, 1.0]), Some(1.0));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_port_that_is_seen_first_on_a_day_has_no_normal_before_it() {
        let mut days = vec![Some(0.0); 40];
        days[30] = Some(50.0);
        assert_eq!(Course::normal(&days, 30), None);
        days[..30].fill(Some(4.0));
        assert_eq!(Course::normal(&days, 30), Some(4.0));
    }

    #[test]
    fn the_alerts_ask_for_the_same_deviations() {
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../grafana/prometheus/rules/teiten-alerts.yml");
        let rules = std::fs::read_to_string(rules).expect("the alerts");
        for (counter, beyond) in [("sources", SOURCES_BEYOND), ("accesses", ACCESSES_BEYOND)] {
            for (rise, deviations) in ["rise", "rise2d", "rise3d"].iter().zip(beyond) {
                let asked = format!(
                    "transport_port:teiten_{counter}:{rise} >= {deviations} * transport_port:teiten_{counter}:spread"
                );
                assert!(rules.contains(&asked), "the alerts do not ask `{asked}`");
            }
        }
    }

    #[test]
    fn a_day_beyond_chance_is_a_rise_and_a_usual_one_is_not() {
        let mut days: Vec<Option<f64>> = (0..60).map(|day| Some(100.0 + f64::from(day % 5) * 8.0)).collect();
        days[50] = Some(500.0);
        let excess = Course::excess(&[days], &[vec![true; 60]]);
        let beyond: Vec<usize> =
            (29..60).filter(|day| excess.is_beyond(*day, ACCESSES_BEYOND, 0.7)).collect();
        assert_eq!(beyond, [50]);
    }
}
