//! Several files of one hour become one, whose rows are in order and each there once.
//!
//! All of them are in order, so a row of each is all that has to be compared, and a page of each is in memory.

use super::about::About;
use super::name::FileName;
use super::rows::{CODED, FileRows, RowKey, coded};
use super::schema::{FIELDS, column};
use super::write::{WrittenRows, program};
use jiff::civil::Date;
use sensor_columns::{Code, PAGE_ROWS, ReadError, Table, Writer};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// Files that are merged at once: a page of each, a megabyte, is in memory.
pub(super) const FAN_IN: usize = 16;

/// Zstandard's level for what stays.
const LEVEL: i32 = 3;

/// Why files were not merged.
#[derive(Debug, thiserror::Error)]
pub(super) enum MergeError {
    /// The result cannot be written.
    #[error("write the merged file")]
    Write(#[source] io::Error),
    /// One of them cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        #[source]
        source: ReadError,
    },
}

/// A row of the result that has not been written: its codes there, and what is added up.
struct MergedRow {
    codes: [Code; CODED.len()],
    packets: i64,
    first: i64,
    last: i64,
}

/// One file, and what its codes are in the result.
struct Input {
    path: PathBuf,
    rows: FileRows,
    group: usize,
    codes: [Vec<Option<Code>>; CODED.len()],
}

/// Columns whose values make a row, in addition to source and target.
const KEPT: [usize; 9] = [
    column::HOUR,
    column::TRANSPORT,
    column::PORT,
    column::CLASS,
    column::COUNTRY,
    column::ASN,
    column::NETWORK,
    column::LIST,
    column::TOOL,
];

impl Input {
    fn open(path: PathBuf) -> Result<(Self, About), MergeError> {
        let opened = File::open(&path).map_err(ReadError::from).and_then(Table::open);
        let table = match opened {
            Ok(table) => table,
            Err(source) => return Err(MergeError::Read { path, source }),
        };
        let about = About::of(table.metadata());
        Ok((Self { path, rows: FileRows::new(table), group: 0, codes: Default::default() }, about))
    }

    fn next(&mut self) -> Result<Option<RowKey>, MergeError> {
        let fail = |source| MergeError::Read { path: self.path.clone(), source };
        let more = self.rows.next().map_err(fail)?;
        if self.group != self.rows.group() {
            self.group = self.rows.group();
            self.codes = Default::default();
        }
        Ok(more.then(|| self.rows.key()))
    }

    /// The row, by the codes of the result.
    fn row<W: Write>(&mut self, writer: &mut Writer<W>) -> MergedRow {
        let mut codes = [Code::NONE; CODED.len()];
        for column in KEPT {
            let Some(code) = self.rows.code(column) else { continue };
            let known = &mut self.codes[coded(column)];
            if known.len() <= code {
                known.resize(code + 1, None);
            }
            codes[coded(column)] = *known[code].get_or_insert_with(|| {
                match (self.rows.number(column), self.rows.text(column)) {
                    (Some(number), _) => writer.number(column, number),
                    (None, Some(text)) => writer.text(column, text),
                    (None, None) => Code::NONE,
                }
            });
        }
        let number = |column| self.rows.number(column).unwrap_or(0);
        MergedRow {
            codes,
            packets: number(column::PACKETS),
            first: number(column::FIRST),
            last: number(column::LAST),
        }
    }
}

/// Merges `paths` into a file of this name.
pub(super) fn merge<W: Write>(
    paths: Vec<PathBuf>,
    day: Date,
    name: FileName,
    out: W,
) -> Result<(W, WrittenRows), MergeError> {
    let mut inputs = Vec::with_capacity(paths.len());
    let mut about = About::default();
    for path in paths {
        let (input, of_file) = Input::open(path)?;
        inputs.push(input);
        about.merge(of_file);
    }
    about.programs.insert(program());
    let mut heap = BinaryHeap::new();
    for (at, input) in inputs.iter_mut().enumerate() {
        heap.extend(input.next()?.map(|key| Reverse((key, at))));
    }
    let mut writer = Writer::new(out, &FIELDS, LEVEL).map_err(MergeError::Write)?;
    let mut output = MergedRows { written: WrittenRows::default(), in_page: 0 };
    // Rows of the same source and target; more than one where a database changed in between.
    let mut same: Vec<MergedRow> = Vec::new();
    let mut source: Option<Vec<u8>> = None;
    let mut current: Option<RowKey> = None;
    while let Some(Reverse((key, at))) = heap.pop() {
        if current != Some(key) {
            output.write(&mut writer, source.as_deref(), &mut same).map_err(MergeError::Write)?;
            current = Some(key);
            source = inputs[at].rows.source().map(<[u8]>::to_vec);
        }
        let row = inputs[at].row(&mut writer);
        match same.iter_mut().find(|other| other.codes == row.codes) {
            Some(other) => {
                other.packets = other.packets.saturating_add(row.packets);
                other.first = other.first.min(row.first);
                other.last = other.last.max(row.last);
            }
            None => same.push(row),
        }
        heap.extend(inputs[at].next()?.map(|key| Reverse((key, at))));
    }
    output.write(&mut writer, source.as_deref(), &mut same).map_err(MergeError::Write)?;
    let MergedRows { written, .. } = output;
    let pairs = about.pairs(day, name, written.rows, written.packets);
    Ok((writer.finish(&program(), &pairs).map_err(MergeError::Write)?, written))
}

struct MergedRows {
    written: WrittenRows,
    in_page: usize,
}

impl MergedRows {
    /// Writes the rows of a source and target, and forgets them.
    fn write<W: Write>(
        &mut self,
        writer: &mut Writer<W>,
        source: Option<&[u8]>,
        rows: &mut Vec<MergedRow>,
    ) -> io::Result<()> {
        for MergedRow { codes, packets, first, last } in rows.drain(..) {
            writer.push_prefixed(column::SOURCE, source);
            for column in KEPT {
                writer.push(column, codes[coded(column)]);
            }
            for (column, value) in [(column::PACKETS, packets), (column::FIRST, first), (column::LAST, last)]
            {
                let code = writer.number(column, value);
                writer.push(column, code);
            }
            self.written.rows += 1;
            self.written.packets += packets as u64;
            self.in_page += 1;
            if self.in_page == PAGE_ROWS {
                writer.end_page()?;
                self.in_page = 0;
            }
        }
        Ok(())
    }
}
