//! State directories, or copies of `ledger.sqlite`.

use super::{Input, Reading, Sample, Sensor};
use crate::words::Text;
use anyhow::{Context as _, Result, bail, ensure};
use jiff::SignedDuration;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sensor_common::{Slot, Transport};
use sensor_counters::{Pair, Series};
use sensor_user::ledger::{DaySummary, Ledger, LogDamage, LostCommits, Reader};
use sensor_user::samples::show::{Query, ShownContent};
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

/// How many readings go from a thread that reads to the one that adds up at a time.
const BATCH: usize = 4096;

/// Ledgers, each open for reading.
pub(crate) struct Ledgers {
    sensors: Vec<Sensor>,
    /// Each with the index of its sensor. One sensor may have several, one after the other.
    readers: Vec<(Reader, usize, PathBuf)>,
}

impl Ledgers {
    /// Opens all of them.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut identities: HashMap<u64, &Path> = HashMap::new();
        let mut sensors: BTreeMap<String, Sensor> = BTreeMap::new();
        let mut readers = Vec::new();
        for path in paths {
            let reader =
                Ledger::open_read_only(path).with_context(|| format!("--ledger {}", path.display()))?;
            let Some(origin) = reader.origin()? else {
                bail!("--ledger {}: no observation is in it yet; leave it out", path.display());
            };
            if let Some(other) = identities.insert(origin.identity, path) {
                bail!(
                    "{} and {} are the same ledger, whose counts would be added twice; give one of them",
                    other.display(),
                    path.display()
                );
            }
            let timezone = TimeZone::get(&origin.timezone)
                .with_context(|| format!("{}: time zone {:?}", path.display(), origin.timezone))?;
            let sensor =
                sensors.entry(origin.sensor.clone()).or_insert_with(|| Sensor::named(&origin.sensor));
            ensure!(
                sensor.timezone.as_ref().is_none_or(|known| *known == timezone),
                "{}: sensor {:?} has another time zone in another ledger; their days differ",
                path.display(),
                origin.sensor
            );
            sensor.timezone = Some(timezone);
            readers.push((reader, origin.sensor, path.clone()));
        }
        let sensors: Vec<Sensor> = sensors.into_values().collect();
        let readers = readers
            .into_iter()
            .map(|(reader, name, path)| {
                let index = sensors.iter().position(|sensor| sensor.name == name).expect("entered above");
                (reader, index, path)
            })
            .collect();
        Ok(Self { sensors, readers })
    }
}

/// Whether two ledgers have the same time of a day: more than there is from the first to the last observation of
/// both.
fn is_twice(a: &DaySummary, b: &DaySummary) -> bool {
    // An observation is known by its end, and one of captures is up to an hour long.
    let most = b.last.max(a.last).duration_since(b.first.min(a.first)) + SignedDuration::from_hours(1);
    a.day == b.day && a.observed + b.observed > most.unsigned_abs()
}

/// Characters of a content in a table.
const SHOWN: usize = 300;
/// Hexadecimal digits of a content that is no text.
const SHOWN_DIGITS: usize = 64;

/// A content in one line.
fn said(content: &ShownContent) -> String {
    let mut parts: Vec<String> = content.name.iter().cloned().collect();
    if let Some(text) = &content.text {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        parts.push(cut(&lines.join(" / "), SHOWN));
    } else if let Some(hex) = content.hex.as_ref().filter(|_| content.name.is_none()) {
        parts.push(cut(hex, SHOWN_DIGITS));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(": ")
}

fn cut(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

impl Input for Ledgers {
    fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    fn read(
        &mut self,
        kinds: &[&str],
        days: &RangeInclusive<Date>,
        each: &mut dyn FnMut(&Reading<'_>),
    ) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(self.readers.len());
        let share = self.readers.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            let (send, receive) = mpsc::sync_channel::<Vec<(usize, Date, Series, Pair)>>(8);
            let workers: Vec<_> = self
                .readers
                .chunks_mut(share)
                .map(|readers| {
                    let send = send.clone();
                    scope.spawn(move || -> Result<()> {
                        for (reader, sensor, path) in readers {
                            let mut batch = Vec::with_capacity(BATCH);
                            reader
                                .growth(kinds, days, &mut |day, series, value| {
                                    batch.push((*sensor, day, series.clone(), value));
                                    if batch.len() == BATCH {
                                        // A receiver that is gone has failed, and says so itself.
                                        let _ = send.send(std::mem::take(&mut batch));
                                    }
                                })
                                .with_context(|| format!("--ledger {}", path.display()))?;
                            let _ = send.send(batch);
                        }
                        Ok(())
                    })
                })
                .collect();
            drop(send);
            for (sensor, day, series, value) in receive.into_iter().flatten() {
                each(&Reading { sensor, day, series: &series, value });
            }
            workers.into_iter().try_for_each(|worker| worker.join().expect("a reader does not panic"))
        })
    }

    fn observed_once(&self, days: &RangeInclusive<Date>, chosen: &dyn Fn(&str) -> bool) -> Result<()> {
        for (index, sensor) in self.sensors.iter().enumerate().filter(|(_, sensor)| chosen(&sensor.name)) {
            let mut others: Vec<(&Path, Vec<DaySummary>)> = Vec::new();
            let of_sensor: Vec<_> = self.readers.iter().filter(|(_, of, _)| *of == index).collect();
            if of_sensor.len() < 2 {
                continue;
            }
            for (reader, _, path) in of_sensor {
                let mut own = reader.days().with_context(|| format!("--ledger {}", path.display()))?;
                own.retain(|day| days.contains(&day.day));
                for (other, theirs) in &others {
                    let twice = own
                        .iter()
                        .flat_map(|day| theirs.iter().map(move |their| (their, day)))
                        .find(|(their, day)| is_twice(their, day));
                    if let Some((their, day)) = twice {
                        let hours = |day: &DaySummary| day.observed.as_secs_f64() / 3600.0;
                        bail!(
                            "{} and {} observed the same time of {} as sensor {:?} ({:.1} h and {:.1} h of that day), and \
                             would be added up; give one of them, and if they are of two machines, give each of these \
                             its own --sensor-name",
                            other.display(),
                            path.display(),
                            day.day,
                            sensor.name,
                            hours(their),
                            hours(day)
                        );
                    }
                }
                others.push((path, own));
            }
        }
        Ok(())
    }

    fn samples(&mut self, days: &RangeInclusive<Date>) -> Result<Vec<Sample>> {
        let mut known = Vec::new();
        for (reader, sensor, path) in &self.readers {
            let samples = reader.samples(&(Date::MIN..=Date::MAX));
            known.push((*sensor, samples.with_context(|| format!("--ledger {}", path.display()))?));
        }
        let query = Query::default();
        // The days of all sensors, since each knows addresses that must not be shown.
        let all_days = known.iter().flat_map(|(_, days)| days);
        let masker = query.masker(all_days.flat_map(|(_, samples)| samples.rows()));
        let mut contents = Vec::new();
        for (sensor, samples) in &known {
            let of_report = samples.iter().filter(|(day, _)| days.contains(day));
            for port in query.of_days(of_report, masker.as_ref()) {
                let Some(transport) = Transport::from_name(port.transport) else { continue };
                let slot = Slot::new(transport, port.port);
                contents.extend(port.contents.iter().map(|content| Sample {
                    sensor: *sensor,
                    slot,
                    id: content.id.clone(),
                    packets: content.packets,
                    sources: content.sources,
                    text: said(content),
                }));
            }
        }
        Ok(contents)
    }

    fn origin(&self) -> Text {
        let count = self.readers.len();
        Text::new(
            format!("{count} {} of sensors", if count == 1 { "ledger" } else { "ledgers" }),
            format!("観測点の台帳（{count}個）"),
        )
    }

    fn limits(&self, names: &[Option<&str>]) -> Vec<Text> {
        let mut limits = vec![Text::new(
            "Ledgers hold neither the versions of the programs, nor the number of the observed addresses, nor the \
             build of the country database.",
            "台帳には、プログラムの版、観測アドレス数、国データベースの作成日は含まれない。",
        )];
        for (reader, sensor, _) in &self.readers {
            let Some(name) = names[*sensor] else { continue };
            // Without the log's path, which says nothing to those who read the report.
            if let Some(LogDamage { byte, commits, .. }) = reader.log_damage() {
                let plural = if *commits == 1 { "" } else { "s" };
                limits.push(Text::new(
                    format!(
                        "The ledger of {name} is damaged: its write-ahead log from byte {byte} on, and {commits} \
                         commit{plural} in it, cannot be read and are not in this report."
                    ),
                    format!(
                        "{name}の台帳は破損している（ログの{byte}バイト目以降、{commits}回分の記録が読めず、本報告に含まれない）。"
                    ),
                ));
            }
            if let Some(LostCommits { present, made }) = reader.lost_commits() {
                limits.push(Text::new(
                    format!(
                        "The ledger of {name} lacks commits: it has {present} of the {made} that were made."
                    ),
                    format!(
                        "{name}の台帳には失われた記録がある（{made}回分のうち{present}回分までしかない）。"
                    ),
                ));
            }
        }
        limits
    }
}
