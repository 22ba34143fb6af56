//! The writer.

use crate::number::{DATA_PAGE, DELTA_BYTE_ARRAY, DICTIONARY_PAGE, MAGIC, PLAIN, RLE, RLE_DICTIONARY, ZSTD};
use crate::thrift::Struct;
use crate::{Field, GROUP_ROWS, Kind, PAGE_ROWS, Physical, bits};
use std::collections::HashMap;
use std::io::{self, Write};
use zstd::bulk::Compressor;

/// A value by its place in the dictionary of its column, for as long as the [`Writer`] lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(u32);

impl Code {
    /// No value.
    pub const NONE: Self = Self(u32::MAX);
}

/// Writes a file front to back.
pub struct Writer<W> {
    out: W,
    /// Bytes written.
    at: u64,
    fields: &'static [Field],
    columns: Vec<Column>,
    compressor: Compressor<'static>,
    /// Rows of the pages of this group that have ended.
    group_rows: usize,
    groups: Vec<WrittenGroup>,
}

/// What the footer says of a row group.
struct WrittenGroup {
    rows: usize,
    chunks: Vec<WrittenChunk>,
}

struct WrittenChunk {
    dictionary_at: Option<u64>,
    data_at: u64,
    compressed: u64,
    uncompressed: u64,
}

/// A column of the current group, and its dictionary, which grows from group to group.
#[derive(Default)]
struct Column {
    /// The page that has not ended, as codes.
    codes: Vec<u32>,
    dictionary: GrowingDictionary,
    /// Or as text: what each value shares with the one before, and what follows.
    shared: Vec<u32>,
    rest_lengths: Vec<u32>,
    rest: Vec<u8>,
    last: Vec<u8>,
    /// Whether a row of the page has a value; only of text.
    present: Vec<u32>,
    /// The pages that have ended, compressed.
    pages: Vec<u8>,
    uncompressed: u64,
}

#[derive(Default)]
struct GrowingDictionary {
    numbers: HashMap<i64, u32>,
    texts: HashMap<Box<str>, u32>,
    plain: Vec<u8>,
    count: u32,
}

impl<W: Write> Writer<W> {
    /// Begins a file of these columns. `level` is Zstandard's; below 1 are the fast ones.
    ///
    /// # Errors
    ///
    /// `out` cannot be written.
    pub fn new(mut out: W, fields: &'static [Field], level: i32) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        let mut compressor = Compressor::new(level)?;
        compressor.include_checksum(false)?;
        compressor.include_contentsize(true)?;
        Ok(Self {
            out,
            at: MAGIC.len() as u64,
            fields,
            columns: fields.iter().map(|_| Column::default()).collect(),
            compressor,
            group_rows: 0,
            groups: Vec::new(),
        })
    }

    /// The code of a number in the dictionary of a column of numbers.
    pub fn number(&mut self, column: usize, value: i64) -> Code {
        let physical = self.fields[column].kind.physical();
        let GrowingDictionary { numbers, plain, count, .. } = &mut self.columns[column].dictionary;
        let code = numbers.entry(value).or_insert_with(|| {
            match physical {
                // The bits of unsigned numbers.
                Physical::Int32 => plain.extend_from_slice(&(value as u32).to_le_bytes()),
                _ => plain.extend_from_slice(&value.to_le_bytes()),
            }
            *count += 1;
            *count - 1
        });
        Code(*code)
    }

    /// The code of a text in the dictionary of a column of [`Kind::Text`].
    pub fn text(&mut self, column: usize, value: &str) -> Code {
        let GrowingDictionary { texts, plain, count, .. } = &mut self.columns[column].dictionary;
        if let Some(code) = texts.get(value) {
            return Code(*code);
        }
        plain.extend_from_slice(&(value.len() as u32).to_le_bytes());
        plain.extend_from_slice(value.as_bytes());
        texts.insert(value.into(), *count);
        *count += 1;
        Code(*count - 1)
    }

    /// The next row's value of a column with a dictionary.
    #[inline]
    pub fn push(&mut self, column: usize, code: Code) {
        self.columns[column].codes.push(code.0);
    }

    /// The same value for the next `rows` rows.
    pub fn push_all(&mut self, column: usize, code: Code, rows: usize) {
        let codes = &mut self.columns[column].codes;
        codes.resize(codes.len() + rows, code.0);
    }

    /// The next row's value of a column of [`Kind::Prefixed`].
    #[inline]
    pub fn push_prefixed(&mut self, column: usize, value: Option<&[u8]>) {
        let column = &mut self.columns[column];
        column.present.push(u32::from(value.is_some()));
        let Some(value) = value else { return };
        let shared = value.iter().zip(&column.last).take_while(|(a, b)| a == b).count();
        column.shared.push(shared as u32);
        column.rest_lengths.push((value.len() - shared) as u32);
        column.rest.extend_from_slice(&value[shared..]);
        column.last.clear();
        column.last.extend_from_slice(value);
    }

    /// Ends a page, once every column has been given the same rows, [`PAGE_ROWS`] at most.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    ///
    /// # Panics
    ///
    /// The columns have different numbers of rows, or a column that is not optional a row without value.
    pub fn end_page(&mut self) -> io::Result<()> {
        let Some(rows) = self.columns.iter().map(|it| it.codes.len().max(it.present.len())).max() else {
            return Ok(());
        };
        assert!(rows <= PAGE_ROWS, "{rows} rows are more than a page has");
        if rows == 0 {
            return Ok(());
        }
        let mut plain = Vec::with_capacity(1 << 16);
        for (column, field) in self.columns.iter_mut().zip(self.fields) {
            assert_eq!(column.codes.len().max(column.present.len()), rows, "rows of column {}", field.name);
            plain.clear();
            let encoding = column.encode(*field, &mut plain);
            let compressed = self.compressor.compress(&plain)?;
            let header = page_header(DATA_PAGE, rows, encoding, plain.len(), &compressed);
            column.uncompressed += (header.len() + plain.len()) as u64;
            column.pages.extend_from_slice(&header);
            column.pages.extend_from_slice(&compressed);
        }
        self.group_rows += rows;
        if self.group_rows + PAGE_ROWS > GROUP_ROWS { self.end_group() } else { Ok(()) }
    }

    fn end_group(&mut self) -> io::Result<()> {
        if self.group_rows == 0 {
            return Ok(());
        }
        let mut chunks = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            let begin = self.at;
            let mut dictionary_at = None;
            let GrowingDictionary { plain, count, .. } = &column.dictionary;
            // A column without any value has none; its pages have no codes either.
            if *count > 0 {
                let compressed = self.compressor.compress(plain)?;
                let header = page_header(DICTIONARY_PAGE, *count as usize, PLAIN, plain.len(), &compressed);
                self.out.write_all(&header)?;
                self.out.write_all(&compressed)?;
                column.uncompressed += (header.len() + plain.len()) as u64;
                self.at += (header.len() + compressed.len()) as u64;
                dictionary_at = Some(begin);
            }
            let data_at = self.at;
            self.out.write_all(&column.pages)?;
            self.at += column.pages.len() as u64;
            chunks.push(WrittenChunk {
                dictionary_at,
                data_at,
                compressed: self.at - begin,
                uncompressed: std::mem::take(&mut column.uncompressed),
            });
            column.pages.clear();
        }
        self.groups.push(WrittenGroup { rows: std::mem::take(&mut self.group_rows), chunks });
        Ok(())
    }

    /// Ends the file, with what is to be known of it as a whole, and returns what it was written to.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn finish(mut self, created_by: &str, metadata: &[(&str, String)]) -> io::Result<W> {
        self.end_page()?;
        self.end_group()?;
        let mut footer = Vec::new();
        let mut of_file = Struct::new(&mut footer);
        let fields = self.fields;
        of_file.i32(1, 1);
        let root = std::iter::once(None);
        let elements: Vec<Option<&Field>> = root.chain(fields.iter().map(Some)).collect();
        of_file.structures(2, elements.into_iter(), |field, element| match field {
            None => {
                element.text(4, "schema");
                element.i32(5, fields.len() as i64);
            }
            Some(field) => schema_element(field, element),
        });
        of_file.i64(3, self.groups.iter().map(|group| group.rows as i64).sum());
        of_file.structures(4, self.groups.iter(), |group, out| row_group(group, fields, out));
        of_file.structures(5, metadata.iter(), |(key, value), pair| {
            pair.text(1, key);
            pair.text(2, value);
        });
        of_file.text(6, created_by);
        of_file.end();
        self.out.write_all(&footer)?;
        self.out.write_all(&(footer.len() as u32).to_le_bytes())?;
        self.out.write_all(MAGIC)?;
        Ok(self.out)
    }
}

impl Column {
    /// Takes the page's values into `plain`; returns their encoding.
    fn encode(&mut self, field: Field, plain: &mut Vec<u8>) -> i64 {
        if field.optional {
            // Levels have their length before them.
            plain.extend_from_slice(&[0; 4]);
            let codes = self.codes.iter().map(|code| u32::from(*code != Code::NONE.0));
            let levels: Vec<u32> = self.present.iter().copied().chain(codes).collect();
            bits::hybrid(plain, &levels, 1);
            let length = (plain.len() - 4) as u32;
            plain[..4].copy_from_slice(&length.to_le_bytes());
            self.codes.retain(|code| *code != Code::NONE.0);
        } else {
            let missing = self.present.contains(&0) || self.codes.contains(&Code::NONE.0);
            assert!(!missing, "column {} has a value in every row", field.name);
        }
        if field.kind == Kind::Prefixed {
            bits::deltas(plain, &self.shared);
            bits::deltas(plain, &self.rest_lengths);
            plain.extend_from_slice(&self.rest);
            self.shared.clear();
            self.rest_lengths.clear();
            self.rest.clear();
            self.present.clear();
            // A page is read without those before it.
            self.last.clear();
            return DELTA_BYTE_ARRAY;
        }
        // Readers look for a dictionary where a page says that it needs one.
        if self.codes.is_empty() {
            return PLAIN;
        }
        let width = bits::width(self.dictionary.count.saturating_sub(1));
        plain.push(width as u8);
        bits::hybrid(plain, &self.codes, width);
        self.codes.clear();
        RLE_DICTIONARY
    }
}

fn page_header(of: i64, values: usize, encoding: i64, plain: usize, compressed: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(48);
    let mut header = Struct::new(&mut out);
    header.i32(1, of);
    header.i32(2, plain as i64);
    header.i32(3, compressed.len() as i64);
    // The bits of an unsigned number.
    header.i32(4, i64::from(crc32fast::hash(compressed).cast_signed()));
    if of == DATA_PAGE {
        header.structure(5, |page| {
            page.i32(1, values as i64);
            page.i32(2, encoding);
            page.i32(3, RLE);
            page.i32(4, RLE);
        });
    } else {
        header.structure(7, |page| {
            page.i32(1, values as i64);
            page.i32(2, encoding);
        });
    }
    header.end();
    out
}

fn schema_element(field: &Field, element: &mut Struct<'_>) {
    element.i32(1, field.kind.physical() as i64);
    element.i32(3, field.optional.into());
    element.text(4, field.name);
    // For readers from before logical types: UTF8, TIMESTAMP_MICROS, UINT_8, UINT_16, UINT_32.
    let integer = |element: &mut Struct<'_>, converted: i64, bits: u8| {
        element.i32(6, converted);
        element.structure(10, |logical| {
            logical.structure(10, |integer| {
                integer.byte(1, bits);
                integer.bool(2, false);
            });
        });
    };
    match field.kind {
        Kind::Text | Kind::Prefixed => {
            element.i32(6, 0);
            element.structure(10, |logical| logical.structure(1, |_| {}));
        }
        Kind::U8 => integer(element, 11, 8),
        Kind::U16 => integer(element, 12, 16),
        Kind::U32 => integer(element, 13, 32),
        Kind::I64 => {}
        Kind::Instant => {
            element.i32(6, 10);
            element.structure(10, |logical| {
                logical.structure(8, |timestamp| {
                    timestamp.bool(1, true);
                    timestamp.structure(2, |unit| unit.structure(2, |_| {}));
                });
            });
        }
    }
}

fn row_group(group: &WrittenGroup, fields: &[Field], out: &mut Struct<'_>) {
    let begin = |chunk: &WrittenChunk| chunk.dictionary_at.unwrap_or(chunk.data_at) as i64;
    out.structures(1, group.chunks.iter().zip(fields), |(chunk, field), column| {
        column.i64(2, begin(chunk));
        column.structure(3, |meta| {
            meta.i32(1, field.kind.physical() as i64);
            match (field.kind, chunk.dictionary_at) {
                (Kind::Prefixed, _) => meta.i32s(2, &[RLE, DELTA_BYTE_ARRAY]),
                _ => meta.i32s(2, &[PLAIN, RLE, RLE_DICTIONARY]),
            }
            meta.texts(3, &[field.name]);
            meta.i32(4, ZSTD);
            meta.i64(5, group.rows as i64);
            meta.i64(6, chunk.uncompressed as i64);
            meta.i64(7, chunk.compressed as i64);
            meta.i64(9, chunk.data_at as i64);
            if let Some(at) = chunk.dictionary_at {
                meta.i64(11, at as i64);
            }
        });
    });
    let sum = |of: fn(&WrittenChunk) -> u64| group.chunks.iter().map(of).sum::<u64>() as i64;
    out.i64(2, sum(|chunk| chunk.uncompressed));
    out.i64(3, group.rows as i64);
    if let Some(first) = group.chunks.first() {
        out.i64(5, begin(first));
    }
    out.i64(6, sum(|chunk| chunk.compressed));
}
