//! The long table that `teiten ledger export --format parquet` writes.

use super::{Input, Reading, Sensor};
use crate::words::Text;
use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::{Field, Row};
use anyhow::{Context as _, Result, bail};
use jiff::ToSpan as _;
use jiff::civil::{Date, date};
use sensor_counters::{Pair, Series, Unit, counter, join};
use std::collections::BTreeSet;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Exported files.
pub(crate) struct Tables {
    sensors: Vec<Sensor>,
    files: Vec<PathBuf>,
}

impl Tables {
    /// Reads which sensors the files have.
    pub(crate) fn open(files: &[PathBuf]) -> Result<Self> {
        let mut names = BTreeSet::new();
        for file in files {
            each_row(file, &mut |row| {
                names.insert(row.sensor.to_owned());
                Ok(())
            })?;
        }
        let sensors: Vec<Sensor> = names.iter().map(|name| Sensor::named(name)).collect();
        if sensors.is_empty() {
            bail!("--parquet: no rows; export days that were observed");
        }
        Ok(Self { sensors, files: files.to_vec() })
    }
}

/// One row of the table.
#[derive(Default)]
struct LongRow<'a> {
    day: Date,
    kind: &'a str,
    sensor: &'a str,
    transport: Option<&'a str>,
    port: Option<String>,
    country: Option<&'a str>,
    hour: Option<String>,
    name: Option<&'a str>,
    accesses: Option<u64>,
    sources: Option<u64>,
    value: Option<u64>,
    asn: Option<String>,
}

fn each_row(path: &Path, each: &mut dyn FnMut(&LongRow<'_>) -> Result<()>) -> Result<()> {
    let context = || format!("--parquet {}", path.display());
    let file = File::open(path).with_context(context)?;
    let reader = SerializedFileReader::new(file).with_context(context)?;
    let columns: Vec<String> = reader
        .metadata()
        .file_metadata()
        .schema()
        .get_fields()
        .iter()
        .map(|field| field.name().to_owned())
        .collect();
    for needed in [
        "day",
        "kind",
        "sensor",
        "transport",
        "port",
        "country",
        "hour",
        "name",
        "accesses",
        "sources",
        "value",
    ] {
        if !columns.iter().any(|column| column == needed) {
            bail!(
                "--parquet {}: no column {needed:?}; give what `teiten ledger export --format parquet` writes",
                path.display()
            );
        }
    }
    for row in reader.get_row_iter(None).with_context(context)? {
        each(&long_row(&row.with_context(context)?)).with_context(context)?;
    }
    Ok(())
}

fn long_row(row: &Row) -> LongRow<'_> {
    let mut line = LongRow::default();
    for (column, field) in row.get_column_iter() {
        let number = match field {
            Field::ULong(value) => Some(*value),
            Field::UInt(value) => Some(u64::from(*value)),
            Field::UShort(value) => Some(u64::from(*value)),
            Field::UByte(value) => Some(u64::from(*value)),
            _ => None,
        };
        let text = if let Field::Str(text) = field { Some(text.as_str()) } else { None };
        match column.as_str() {
            "day" => {
                if let Field::Date(days) = field {
                    line.day = date(1970, 1, 1).checked_add(days.days()).unwrap_or(Date::ZERO);
                }
            }
            "kind" => line.kind = text.unwrap_or_default(),
            "sensor" => line.sensor = text.unwrap_or_default(),
            "transport" => line.transport = text,
            "port" => line.port = number.map(|port| port.to_string()),
            "country" => line.country = text,
            "hour" => line.hour = number.map(|hour| format!("{hour:02}")),
            "name" => line.name = text,
            "accesses" => line.accesses = number,
            "sources" => line.sources = number,
            "value" => line.value = number,
            // Tables of earlier releases do not have it.
            "asn" => line.asn = number.map(|asn| asn.to_string()),
            _ => {}
        }
    }
    line
}

/// The kind of counter that a row is of, and how many of the counter's units its numbers have.
fn kind_of<'a>(line: &LongRow<'a>) -> (&'a str, u64) {
    if line.kind == "observed_milliseconds" { ("observed", 1_000_000) } else { (line.kind, 1) }
}

/// The series of a row and its numbers; `None` for kinds that are a second number of another one.
fn series(line: &LongRow<'_>) -> Option<(Series, Pair)> {
    let (kind, scale) = kind_of(line);
    let counter = counter(kind)?;
    let mut labels = String::new();
    for label in counter.labels {
        let value = match *label {
            "transport" => line.transport?,
            "port" => line.port.as_deref().or(line.name)?,
            "country" => line.country?,
            "hour" => line.hour.as_deref()?,
            "asn" => line.asn.as_deref().or(line.name)?,
            _ => line.name?,
        };
        join(&mut labels, value);
    }
    let value = |unit: Unit| match unit {
        Unit::Accesses if !counter.labels.is_empty() => line.accesses,
        Unit::Sources if !counter.labels.is_empty() => line.sources,
        _ => line.value.map(|value| value * scale),
    };
    let mut pair = [0, 0];
    for (slot, number) in pair.iter_mut().zip(counter.numbers) {
        *slot = value(number.unit).unwrap_or(0);
    }
    if counter.numbers.len() == 2 && counter.numbers[1].unit == Unit::Bytes {
        pair[1] = 0;
    }
    Some((counter.parse(&labels)?, pair))
}

impl Input for Tables {
    fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    fn read(
        &mut self,
        kinds: &[&str],
        days: &RangeInclusive<Date>,
        each: &mut dyn FnMut(&Reading<'_>),
    ) -> Result<()> {
        for file in &self.files {
            each_row(file, &mut |line| {
                if days.contains(&line.day)
                    && kinds.contains(&kind_of(line).0)
                    && let Some((series, value)) = series(line)
                {
                    let sensor = self.sensors.iter().position(|sensor| sensor.name == line.sensor);
                    let sensor = sensor.context("the file changed while it was read")?;
                    each(&Reading { sensor, day: line.day, series: &series, value });
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn origin(&self) -> Text {
        let count = self.files.len();
        Text::new(
            format!("{count} Parquet {} exported from ledgers", if count == 1 { "file" } else { "files" }),
            format!("台帳から書き出したParquetファイル（{count}個）"),
        )
    }

    fn limits(&self, _names: &[Option<&str>]) -> Vec<Text> {
        vec![Text::new(
            "Exported tables hold neither the time zones of the sensors, nor the versions of the programs, nor the \
             number of the observed addresses, nor the build of the country database.",
            "書き出した表には、観測点のタイムゾーン、プログラムの版、観測アドレス数、国データベースの作成日は含まれない。",
        )]
    }
}
