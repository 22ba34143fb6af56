//! Apache Parquet, for engines that read columns.

use super::super::error::LedgerError;
use super::Snapshot;
use super::table::{self, COLUMNS, Names, Row};
use crate::country::Country;
use arrow::array::{
    ArrayRef, Date32Builder, RecordBatch, StringBuilder, UInt8Builder, UInt16Builder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema};
use jiff::Unit;
use jiff::civil::date;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that are handed to the writer at once.
const BATCH: usize = 65_536;

pub(super) fn write(ledgers: &[Snapshot<'_>], out: &mut dyn Write) -> Result<(), LedgerError> {
    let names = Names::embedded();
    let types = [
        DataType::Date32,
        DataType::Utf8,
        DataType::Utf8,
        DataType::UInt16,
        DataType::Utf8,
        DataType::UInt8,
        DataType::UInt64,
        DataType::UInt64,
        DataType::Utf8,
        DataType::UInt64,
        DataType::Utf8,
        DataType::Utf8,
        DataType::Utf8,
        DataType::Utf8,
        DataType::Utf8,
        DataType::Utf8,
    ];
    let fields = COLUMNS.into_iter().zip(types);
    let schema = Arc::new(Schema::new(
        fields
            .map(|(name, kind)| Field::new(name, kind, !matches!(name, "day" | "kind" | "sensor")))
            .collect::<Vec<_>>(),
    ));
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let sink = Sink::default();
    let mut writer = ArrowWriter::try_new(sink.clone(), Arc::clone(&schema), Some(properties))
        .map_err(LedgerError::Parquet)?;
    let mut batch = Batch::default();
    for (snapshot, source) in ledgers {
        let sensor = table::sensor(snapshot, source)?;
        table::rows(snapshot, source, &mut |row| {
            batch.push(&row, &sensor, names.of(&row));
            if batch.rows == BATCH {
                writer.write(&batch.finish(&schema)?).map_err(LedgerError::Parquet)?;
                sink.drain(out)?;
            }
            Ok(())
        })?;
    }
    writer.write(&batch.finish(&schema)?).map_err(LedgerError::Parquet)?;
    writer.close().map_err(LedgerError::Parquet)?;
    sink.drain(out)
}

/// Rows as columns.
#[derive(Default)]
struct Batch {
    rows: usize,
    day: Date32Builder,
    kind: StringBuilder,
    transport: StringBuilder,
    port: UInt16Builder,
    country: StringBuilder,
    hour: UInt8Builder,
    accesses: UInt64Builder,
    sources: UInt64Builder,
    name: StringBuilder,
    value: UInt64Builder,
    sensor: StringBuilder,
    names: [StringBuilder; 5],
}

impl Batch {
    fn push(&mut self, row: &Row, sensor: &str, names: [Option<&str>; 5]) {
        let since_epoch = row.day.since((Unit::Day, date(1970, 1, 1))).map_or(0, |span| span.get_days());
        self.rows += 1;
        self.day.append_value(since_epoch);
        self.kind.append_value(row.kind);
        self.transport.append_option(row.transport);
        self.port.append_option(row.port);
        self.country.append_option(row.country.as_ref().map(Country::label));
        self.hour.append_option(row.hour);
        self.accesses.append_option(row.accesses);
        self.sources.append_option(row.sources);
        self.name.append_option(row.name.as_deref());
        self.value.append_option(row.value);
        self.sensor.append_value(sensor);
        for (column, name) in self.names.iter_mut().zip(names) {
            column.append_option(name);
        }
    }

    fn finish(&mut self, schema: &Arc<Schema>) -> Result<RecordBatch, LedgerError> {
        self.rows = 0;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.day.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.transport.finish()),
            Arc::new(self.port.finish()),
            Arc::new(self.country.finish()),
            Arc::new(self.hour.finish()),
            Arc::new(self.accesses.finish()),
            Arc::new(self.sources.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.sensor.finish()),
        ];
        columns.extend(self.names.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef));
        RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| LedgerError::Parquet(error.into()))
    }
}

/// Takes what the Parquet writer, which wants a writer it can own and send, has ready.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn drain(&self, out: &mut dyn Write) -> Result<(), LedgerError> {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(&ready).map_err(LedgerError::Output)?;
        ready.clear();
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
