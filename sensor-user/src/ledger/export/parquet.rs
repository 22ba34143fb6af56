//! Apache Parquet, for engines that read columns.

use super::super::error::LedgerError;
use super::Snapshot;
use super::table::{self, ExportRow, PortNames};
use crate::country::Country;
use bytes::Bytes;
use jiff::Unit;
use jiff::civil::date;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use std::io::Write;
use std::sync::Arc;

/// Rows in a row group: what is held in memory, and what a reader can skip by the group's statistics.
const GROUP: usize = 131_072;

/// The columns of [`table::COLUMNS`].
const SCHEMA: &str = "message ledger {
    required int32 day (DATE);
    required binary kind (STRING);
    optional binary transport (STRING);
    optional int32 port (INTEGER(16, false));
    optional binary country (STRING);
    optional int32 hour (INTEGER(8, false));
    optional int64 accesses (INTEGER(64, false));
    optional int64 sources (INTEGER(64, false));
    optional binary name (STRING);
    optional int64 value (INTEGER(64, false));
    required binary sensor (STRING);
    optional binary port_name (STRING);
    optional binary port_en (STRING);
    optional binary port_ja (STRING);
    optional binary country_en (STRING);
    optional binary country_ja (STRING);
    optional int64 asn (INTEGER(64, false));
}";

/// The writer wants an output that it can own and send to other threads, so it gets a buffer.
type ParquetWriter = SerializedFileWriter<Vec<u8>>;

pub(super) fn write(ledgers: &[Snapshot<'_>], out: &mut dyn Write) -> Result<(), LedgerError> {
    let names = PortNames::embedded();
    let mut writer = writer().map_err(LedgerError::Parquet)?;
    let mut group = Group::default();
    for (snapshot, source) in ledgers {
        let sensor = text(&table::sensor(snapshot, source)?);
        table::rows(snapshot, source, &mut |row| {
            group.push(&row, &sensor, names.of(&row));
            if group.rows == GROUP {
                group.write(&mut writer).map_err(LedgerError::Parquet)?;
                out.write_all(writer.inner()).map_err(LedgerError::Output)?;
                writer.inner_mut().clear();
            }
            Ok(())
        })?;
    }
    if group.rows > 0 {
        group.write(&mut writer).map_err(LedgerError::Parquet)?;
    }
    let rest = writer.into_inner().map_err(LedgerError::Parquet)?;
    out.write_all(&rest).map_err(LedgerError::Output)
}

fn writer() -> ParquetResult<ParquetWriter> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(compression).build();
    SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))
}

fn text(text: &str) -> ByteArray {
    text.as_bytes().to_vec().into()
}

fn constant(text: &'static str) -> ByteArray {
    Bytes::from_static(text.as_bytes()).into()
}

/// A column of a row group.
struct ColumnValues<T: DataType> {
    values: Vec<T::T>,
    /// For each row, 1 when it has a value and 0 when not.
    levels: Vec<i16>,
}

impl<T: DataType> Default for ColumnValues<T> {
    fn default() -> Self {
        Self { values: Vec::new(), levels: Vec::new() }
    }
}

impl<T: DataType> ColumnValues<T> {
    fn push(&mut self, value: Option<T::T>) {
        self.levels.push(value.is_some().into());
        self.values.extend(value);
    }

    fn write(&mut self, group: &mut SerializedRowGroupWriter<'_, Vec<u8>>) -> ParquetResult<()> {
        let mut column = group
            .next_column()?
            .ok_or_else(|| ParquetError::General("the schema has fewer columns than the table".to_owned()))?;
        column.typed::<T>().write_batch(&self.values, Some(&self.levels), None)?;
        column.close()?;
        self.values.clear();
        self.levels.clear();
        Ok(())
    }
}

/// Rows as columns.
#[derive(Default)]
struct Group {
    rows: usize,
    day: ColumnValues<Int32Type>,
    kind: ColumnValues<ByteArrayType>,
    transport: ColumnValues<ByteArrayType>,
    port: ColumnValues<Int32Type>,
    country: ColumnValues<ByteArrayType>,
    hour: ColumnValues<Int32Type>,
    accesses: ColumnValues<Int64Type>,
    sources: ColumnValues<Int64Type>,
    name: ColumnValues<ByteArrayType>,
    value: ColumnValues<Int64Type>,
    sensor: ColumnValues<ByteArrayType>,
    names: [ColumnValues<ByteArrayType>; 5],
    asn: ColumnValues<Int64Type>,
}

impl Group {
    fn push(&mut self, row: &ExportRow, sensor: &ByteArray, names: [Option<&str>; 5]) {
        let since_epoch = row.day.since((Unit::Day, date(1970, 1, 1))).map_or(0, |span| span.get_days());
        self.rows += 1;
        self.day.push(Some(since_epoch));
        self.kind.push(Some(constant(row.kind)));
        self.transport.push(row.transport.map(constant));
        self.port.push(row.port.map(i32::from));
        self.country.push(row.country.as_ref().map(|country| text(Country::label(country))));
        self.hour.push(row.hour.map(i32::from));
        // The schema says that the bits are those of unsigned numbers.
        self.accesses.push(row.accesses.map(u64::cast_signed));
        self.sources.push(row.sources.map(u64::cast_signed));
        self.name.push(row.name.as_deref().map(text));
        self.value.push(row.value.map(u64::cast_signed));
        self.sensor.push(Some(sensor.clone()));
        for (column, name) in self.names.iter_mut().zip(names) {
            column.push(name.map(text));
        }
        self.asn.push(row.asn.map(i64::from));
    }

    /// Writes the rows as a row group, and forgets them.
    fn write(&mut self, writer: &mut ParquetWriter) -> ParquetResult<()> {
        let mut group = writer.next_row_group()?;
        self.day.write(&mut group)?;
        self.kind.write(&mut group)?;
        self.transport.write(&mut group)?;
        self.port.write(&mut group)?;
        self.country.write(&mut group)?;
        self.hour.write(&mut group)?;
        self.accesses.write(&mut group)?;
        self.sources.write(&mut group)?;
        self.name.write(&mut group)?;
        self.value.write(&mut group)?;
        self.sensor.write(&mut group)?;
        for column in &mut self.names {
            column.write(&mut group)?;
        }
        self.asn.write(&mut group)?;
        group.close()?;
        self.rows = 0;
        Ok(())
    }
}
