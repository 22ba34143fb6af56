//! What packets held, in the ledger's file.

use super::error::LedgerError;
use super::moment::{day_number, day_of_number};
use super::seal::Seal;
use crate::samples::{Chosen, DaySamples, Edit, Row, Sketch};
use jiff::civil::Date;
use rusqlite::{Connection, params};
use sensor_common::Slot;
use std::ops::RangeInclusive;
use std::path::Path;

/// Days with what packets held on them, ascending; those without are left out.
pub type SampledDays = Vec<(Date, DaySamples)>;

/// Writes what a fold changes.
pub(super) fn write(tx: &Connection, day: i64, edits: &[Edit], seal: &mut Seal) -> rusqlite::Result<()> {
    for edit in edits {
        match edit {
            Edit::Put { row, before } => put(tx, day, row, *before, seal)?,
            Edit::Drop(row) => {
                tx.prepare_cached("DELETE FROM day_sample WHERE day = ?1 AND slot = ?2 AND content = ?3")?
                    .execute(params![day, row.slot.index(), row.key as i64])?;
                add(seal, row, row.numbers().map(i64::wrapping_neg));
            }
            Edit::Rest(slot, packets) => rest(tx, day, *slot, *packets, seal)?,
        }
    }
    Ok(())
}

/// Writes a whole day into a file that has nothing of it.
pub(super) fn write_day(
    tx: &Connection,
    day: i64,
    samples: &DaySamples,
    seal: &mut Seal,
) -> rusqlite::Result<()> {
    for row in samples.rows() {
        put(tx, day, row, None, seal)?;
    }
    for (slot, packets) in samples.rest() {
        rest(tx, day, slot, packets, seal)?;
    }
    Ok(())
}

fn add(seal: &mut Seal, row: &Row, values: [i64; Row::NUMBERS]) {
    seal.add("day_sample", &[i64::from(row.slot.index()).into(), (row.key as i64).into()], &values);
}

fn put(
    tx: &Connection,
    day: i64,
    row: &Row,
    before: Option<[i64; Row::NUMBERS]>,
    seal: &mut Seal,
) -> rusqlite::Result<()> {
    let numbers = row.numbers();
    let [first, last, packets, sources, variants, checksum] = numbers;
    tx.prepare_cached(
        "INSERT OR REPLACE INTO day_sample (day, slot, content, first_ns, last_ns, packets, sources, variants,
             checksum, origins, source_hashes, variant_hashes, packet, begin, length)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        day,
        row.slot.index(),
        row.key as i64,
        first,
        last,
        packets,
        sources,
        variants,
        checksum,
        row.origins_text(),
        row.sources.to_bytes(),
        row.variants.to_bytes(),
        row.packet.bytes,
        row.packet.begin as i64,
        row.packet.length as i64,
    ])?;
    let before = before.unwrap_or_default();
    add(seal, row, std::array::from_fn(|at| numbers[at].wrapping_sub(before[at])));
    Ok(())
}

fn rest(tx: &Connection, day: i64, slot: Slot, packets: u64, seal: &mut Seal) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO day_sample_rest (day, slot, packets) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET packets = packets + excluded.packets",
    )?
    .execute(params![day, slot.index(), packets as i64])?;
    seal.add("day_sample_rest", &[i64::from(slot.index()).into()], &[packets as i64]);
    Ok(())
}

/// What packets held on a day.
pub(super) fn of_day(connection: &Connection, path: &Path, day: i64) -> Result<DaySamples, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "reading samples", error);
    let corrupt =
        || LedgerError::Corrupt { path: path.to_owned(), reason: format!("a sample of {day} is none") };
    let mut rows = Vec::new();
    let mut statement = connection
        .prepare_cached(
            "SELECT slot, content, first_ns, last_ns, packets, origins, source_hashes, variant_hashes, packet, begin,
                 length
             FROM day_sample WHERE day = ?1 ORDER BY slot, first_ns, content",
        )
        .map_err(fail)?;
    let mut found = statement.query([day]).map_err(fail)?;
    while let Some(row) = found.next().map_err(fail)? {
        let number = |at| row.get::<_, i64>(at).map_err(fail);
        let bytes = |at| row.get::<_, Vec<u8>>(at).map_err(fail);
        let slot = u32::try_from(number(0)?).ok().and_then(Slot::from_index).ok_or_else(corrupt)?;
        let origins: String = row.get(5).map_err(fail)?;
        let packet = bytes(8)?;
        let begin = usize::try_from(number(9)?).ok().filter(|begin| *begin <= packet.len());
        rows.push(Row {
            slot,
            key: number(1)? as u64,
            first: number(2)?,
            last: number(3)?,
            packets: number(4)? as u64,
            origins: serde_json::from_str(&origins).map_err(|_| corrupt())?,
            sources: Sketch::from_bytes(&bytes(6)?).ok_or_else(corrupt)?,
            variants: Sketch::from_bytes(&bytes(7)?).ok_or_else(corrupt)?,
            packet: Chosen {
                begin: begin.ok_or_else(corrupt)?,
                bytes: packet,
                length: usize::try_from(number(10)?).map_err(|_| corrupt())?,
            },
        });
    }
    let mut statement = connection
        .prepare_cached("SELECT slot, packets FROM day_sample_rest WHERE day = ?1")
        .map_err(fail)?;
    let rest = statement
        .query_map([day], |row| Ok((Slot::from_index(row.get(0)?), row.get::<_, i64>(1)? as u64)))
        .map_err(fail)?
        .filter_map(|row| row.map(|(slot, packets)| Some((slot?, packets))).transpose())
        .collect::<rusqlite::Result<Vec<_>>>()
        .map_err(fail)?;
    Ok(DaySamples::new(rows, rest))
}

/// What packets held on the days of `range`.
pub(super) fn of_days(
    connection: &Connection,
    path: &Path,
    range: &RangeInclusive<Date>,
) -> Result<SampledDays, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "reading samples", error);
    let mut days = connection
        .prepare(
            "SELECT DISTINCT day FROM (SELECT day FROM day_sample UNION SELECT day FROM day_sample_rest)
             WHERE day BETWEEN ?1 AND ?2 ORDER BY day",
        )
        .map_err(fail)?;
    let days: Vec<i64> = days
        .query_map([day_number(*range.start()), day_number(*range.end())], |row| row.get(0))
        .map_err(fail)?
        .collect::<rusqlite::Result<_>>()
        .map_err(fail)?;
    let day = |number: i64| Some((day_of_number(number)?, number));
    days.into_iter()
        .filter_map(day)
        .map(|(date, number)| Ok((date, of_day(connection, path, number)?)))
        .collect()
}

/// How many samples a day has, their packets and those of the rest, and how many have not their checksum.
pub(super) fn sums(connection: &Connection, day: i64) -> rusqlite::Result<[i128; 4]> {
    let mut sums = [0; 4];
    let mut statement = connection.prepare_cached(
        "SELECT packets, checksum, origins, source_hashes, variant_hashes, packet, begin, length
         FROM day_sample WHERE day = ?1",
    )?;
    let mut rows = statement.query([day])?;
    while let Some(row) = rows.next()? {
        let checksum = crate::samples::checksum(
            row.get_ref(2)?.as_str()?,
            row.get_ref(3)?.as_blob()?,
            row.get_ref(4)?.as_blob()?,
            row.get(6)?,
            row.get(7)?,
            row.get_ref(5)?.as_blob()?,
        );
        sums[0] += 1;
        sums[1] += i128::from(row.get::<_, i64>(0)?);
        sums[3] += i128::from(row.get::<_, i64>(1)? != i64::from(checksum));
    }
    let mut statement = connection.prepare_cached("SELECT packets FROM day_sample_rest WHERE day = ?1")?;
    for packets in statement.query_map([day], |row| row.get::<_, i64>(0))? {
        sums[2] += i128::from(packets?);
    }
    Ok(sums)
}
