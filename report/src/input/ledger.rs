//! State directories, or copies of `ledger.sqlite`.

use super::{Input, Reading, Sensor};
use crate::words::Text;
use anyhow::{Context as _, Result, bail, ensure};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sensor_counters::{Pair, Series};
use sensor_user::ledger::{Ledger, Reader};
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

    fn origin(&self) -> Text {
        let count = self.readers.len();
        Text::new(
            format!("{count} {} of sensors", if count == 1 { "ledger" } else { "ledgers" }),
            format!("観測点の台帳（{count}個）"),
        )
    }

    fn limits(&self) -> Vec<Text> {
        let mut limits = vec![Text::new(
            "Ledgers hold neither the versions of the programs, nor the number of the observed addresses, nor the \
             build of the country database.",
            "台帳には、プログラムの版、観測アドレス数、国データベースの作成日は含まれない。",
        )];
        for (reader, sensor, _) in &self.readers {
            let name = &self.sensors[*sensor].name;
            if let Some(damage) = reader.log_damage() {
                limits.push(Text::new(
                    format!("The ledger of {name} is damaged: {damage}"),
                    format!("{name}の台帳は破損している（{damage}）"),
                ));
            }
            if let Some(lost) = reader.lost_commits() {
                limits.push(Text::new(
                    format!("The ledger of {name} lacks commits: {lost}"),
                    format!("{name}の台帳には失われた記録がある（{lost}）"),
                ));
            }
        }
        limits
    }
}
