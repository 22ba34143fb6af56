//! The reader of what the writer wrote.

use crate::number::{DATA_PAGE, DELTA_BYTE_ARRAY, DICTIONARY_PAGE, MAGIC, PLAIN, RLE_DICTIONARY, ZSTD};
use crate::thrift::{self, Value};
use crate::{Field, Kind, PAGE_ROWS, Physical, bits};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use zstd::bulk::Decompressor;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its bytes are not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// It lacks a column, or has it in another form.
    #[error("it has no column {0} as expected")]
    Column(&'static str),
}

fn damaged<T>(found: Option<T>, what: &'static str) -> Result<T, ReadError> {
    found.ok_or(ReadError::Damaged(what))
}

/// A page or a footer beyond this is none of the writer's.
const MOST: i64 = 1 << 30;

/// An open file.
#[derive(Clone, Debug)]
pub struct Table {
    file: Arc<File>,
    columns: Vec<ColumnType>,
    groups: Vec<Group>,
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
struct ColumnType {
    name: String,
    physical: i64,
    optional: bool,
}

#[derive(Clone, Debug)]
struct Group {
    rows: usize,
    chunks: Vec<Chunk>,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    dictionary_at: Option<u64>,
    data_at: u64,
    end: u64,
}

/// The values that the codes of a column stand for.
#[derive(Clone, Debug)]
pub enum Dictionary {
    /// Of columns of text.
    Texts(Vec<Box<str>>),
    /// Of columns of numbers.
    Numbers(Vec<i64>),
}

impl Dictionary {
    /// The texts; none of a column of numbers.
    pub fn texts(&self) -> &[Box<str>] {
        match self {
            Self::Texts(texts) => texts,
            Self::Numbers(_) => &[],
        }
    }

    /// The numbers; none of a column of text.
    pub fn numbers(&self) -> &[i64] {
        match self {
            Self::Numbers(numbers) => numbers,
            Self::Texts(_) => &[],
        }
    }
}

/// The texts of one page.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    bytes: Vec<u8>,
    /// Where each row's text ends; where the one before ends, when it has none and is not present.
    ends: Vec<u32>,
    present: Vec<u32>,
}

impl Texts {
    /// The text of a row of the page; `None` when the row has no value.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        if self.present[row] == 0 {
            return None;
        }
        let begin = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[begin as usize..self.ends[row] as usize])
    }

    /// Rows of the page.
    pub fn rows(&self) -> usize {
        self.present.len()
    }
}

impl Table {
    /// Reads the footer.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is cut off or damaged, or is in a form that the writer does not write.
    pub fn open(file: File) -> Result<Self, ReadError> {
        let length = file.metadata()?.len();
        let mut tail = [0; 8];
        let foot_at = damaged(length.checked_sub(8), "it is too short")?;
        file.read_exact_at(&mut tail, foot_at)?;
        if tail[4..] != *MAGIC {
            return Err(ReadError::Damaged("it does not end as Parquet does"));
        }
        let size = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
        let footer_at = damaged(foot_at.checked_sub(size.into()), "its footer is longer than the file")?;
        let mut footer = vec![0; size as usize];
        file.read_exact_at(&mut footer, footer_at)?;
        let (footer, _) = damaged(thrift::read(&footer), "its footer")?;
        let columns = damaged(columns(&footer), "its schema")?;
        let groups = damaged(groups(&footer, &columns, footer_at), "its row groups")?;
        let metadata = footer.list(5).unwrap_or_default().iter().filter_map(|pair| {
            let text = |id| pair.bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            Some((text(1)?, text(2).unwrap_or_default()))
        });
        Ok(Self { metadata: metadata.collect(), file: Arc::new(file), columns, groups })
    }

    /// What the file says of itself.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The rows of each row group.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.groups.iter().map(|group| group.rows)
    }

    /// The pages of a column in a row group.
    ///
    /// # Errors
    ///
    /// There is no such column, or its dictionary cannot be read.
    pub fn column(&self, group: usize, field: &Field) -> Result<ColumnPages, ReadError> {
        let at = self.columns.iter().position(|column| {
            column.name == field.name
                && column.physical == field.kind.physical() as i64
                && column.optional == field.optional
        });
        let at = at.ok_or(ReadError::Column(field.name))?;
        let Group { rows, chunks } = damaged(self.groups.get(group), "its row groups")?;
        let mut pages = ColumnPages {
            file: Arc::clone(&self.file),
            at: chunks[at].data_at,
            end: chunks[at].end,
            rows_left: *rows,
            optional: field.optional,
            dictionary: match field.kind.physical() {
                Physical::Bytes => Dictionary::Texts(Vec::new()),
                _ => Dictionary::Numbers(Vec::new()),
            },
            decompressor: Decompressor::new()?,
            raw: Vec::new(),
            plain: Vec::new(),
            levels: Vec::new(),
            shared: Vec::new(),
            lengths: Vec::new(),
        };
        if let Some(dictionary_at) = chunks[at].dictionary_at {
            let data_at = std::mem::replace(&mut pages.at, dictionary_at);
            let (count, encoding) = pages.next_page(DICTIONARY_PAGE)?;
            let found = (encoding == PLAIN).then(|| dictionary(&pages.plain, count, field.kind)).flatten();
            pages.dictionary = damaged(found, "a dictionary")?;
            pages.at = data_at;
        }
        Ok(pages)
    }
}

fn columns(footer: &Value<'_>) -> Option<Vec<ColumnType>> {
    let (root, elements) = footer.list(2)?.split_first()?;
    if root.number(5)? != elements.len() as i64 {
        return None;
    }
    let column = |element: &Value<'_>| {
        Some(ColumnType {
            name: std::str::from_utf8(element.bytes(4)?).ok()?.to_owned(),
            physical: element.number(1)?,
            optional: element.number(3)? == 1,
        })
    };
    elements.iter().map(column).collect()
}

fn groups(footer: &Value<'_>, columns: &[ColumnType], footer_at: u64) -> Option<Vec<Group>> {
    let chunk = |column: &Value<'_>| {
        let meta = column.get(3)?;
        if meta.number(4)? != ZSTD {
            return None;
        }
        let data_at = u64::try_from(meta.number(9)?).ok()?;
        let dictionary_at = meta.number(11).and_then(|at| u64::try_from(at).ok());
        let begin = dictionary_at.unwrap_or(data_at);
        let end = begin.checked_add(u64::try_from(meta.number(7)?).ok()?)?;
        (begin <= data_at && end <= footer_at).then_some(Chunk { dictionary_at, data_at, end })
    };
    let group = |group: &Value<'_>| {
        let chunks = group.list(1)?.iter().map(chunk).collect::<Option<Vec<_>>>()?;
        let rows = usize::try_from(group.number(3)?).ok()?;
        (chunks.len() == columns.len()).then_some(Group { rows, chunks })
    };
    footer.list(4)?.iter().map(group).collect()
}

fn dictionary(plain: &[u8], count: usize, kind: Kind) -> Option<Dictionary> {
    match kind.physical() {
        Physical::Int32 => {
            let numbers =
                plain.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four")));
            let numbers: Vec<i64> = numbers.map(i64::from).collect();
            (numbers.len() == count).then_some(Dictionary::Numbers(numbers))
        }
        Physical::Int64 => {
            let numbers =
                plain.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().expect("eight")));
            let numbers: Vec<i64> = numbers.collect();
            (numbers.len() == count).then_some(Dictionary::Numbers(numbers))
        }
        Physical::Bytes => {
            let mut texts = Vec::with_capacity(count.min(plain.len()));
            let mut rest = plain;
            while !rest.is_empty() {
                let (length, after) = rest.split_at_checked(4)?;
                let length = u32::from_le_bytes(length.try_into().expect("four"));
                let (text, after) = after.split_at_checked(length as usize)?;
                texts.push(std::str::from_utf8(text).ok()?.into());
                rest = after;
            }
            (texts.len() == count).then_some(Dictionary::Texts(texts))
        }
    }
}

/// The pages of one column of a row group, one after the other.
pub struct ColumnPages {
    file: Arc<File>,
    at: u64,
    end: u64,
    rows_left: usize,
    optional: bool,
    dictionary: Dictionary,
    decompressor: Decompressor<'static>,
    raw: Vec<u8>,
    plain: Vec<u8>,
    levels: Vec<u32>,
    shared: Vec<u32>,
    lengths: Vec<u32>,
}

/// Longer is no header of a page.
const HEADER: usize = 128;

impl ColumnPages {
    /// What the codes stand for.
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// Rows that no page has given yet.
    pub fn rows_left(&self) -> usize {
        self.rows_left
    }

    /// The codes of the next page's rows, [`u32::MAX`] for a row without value; every other one is in the
    /// dictionary. None after the last page.
    ///
    /// # Errors
    ///
    /// The page cannot be read.
    pub fn next_codes(&mut self, codes: &mut Vec<u32>) -> Result<(), ReadError> {
        codes.clear();
        if self.rows_left == 0 {
            return Ok(());
        }
        let (rows, encoding) = self.data_page()?;
        let decoded = match encoding {
            RLE_DICTIONARY => self.decode_codes(rows, codes),
            // Of rows without values.
            PLAIN if self.levels(rows) == Some(self.plain.len()) && !self.levels.contains(&1) => {
                codes.resize(rows, u32::MAX);
                Some(())
            }
            _ => None,
        };
        damaged(decoded, "a page of codes")
    }

    fn decode_codes(&mut self, rows: usize, codes: &mut Vec<u32>) -> Option<()> {
        let body = self.levels(rows)?;
        let (&width, packed) = self.plain.get(body..)?.split_first()?;
        let present = self.levels.iter().filter(|level| **level == 1).count();
        bits::read_hybrid(packed, width.into(), present, codes)?;
        let known = match &self.dictionary {
            Dictionary::Texts(texts) => texts.len(),
            Dictionary::Numbers(numbers) => numbers.len(),
        };
        if codes.iter().any(|code| *code as usize >= known) {
            return None;
        }
        if present < rows {
            // From behind, each to its row.
            let mut from = codes.len();
            codes.resize(rows, u32::MAX);
            for row in (0..rows).rev() {
                if self.levels[row] == 1 {
                    from -= 1;
                    codes[row] = codes[from];
                } else {
                    codes[row] = u32::MAX;
                }
            }
        }
        Some(())
    }

    /// The texts of the next page's rows, of a column of [`Kind::Prefixed`]. None after the last page.
    ///
    /// # Errors
    ///
    /// The page cannot be read.
    pub fn next_texts(&mut self, texts: &mut Texts) -> Result<(), ReadError> {
        texts.bytes.clear();
        texts.ends.clear();
        texts.present.clear();
        if self.rows_left == 0 {
            return Ok(());
        }
        let (rows, encoding) = self.data_page()?;
        if encoding != DELTA_BYTE_ARRAY {
            return Err(ReadError::Damaged("a page of texts"));
        }
        damaged(self.decode_texts(rows, texts), "a page of texts")
    }

    fn decode_texts(&mut self, rows: usize, texts: &mut Texts) -> Option<()> {
        let mut at = self.levels(rows)?;
        self.shared.clear();
        self.lengths.clear();
        bits::read_deltas(&self.plain, &mut at, rows, &mut self.shared)?;
        bits::read_deltas(&self.plain, &mut at, rows, &mut self.lengths)?;
        let mut values = self.shared.iter().zip(&self.lengths);
        let mut last = 0..0;
        for &level in &self.levels {
            if level == 1 {
                let (&shared, &length) = values.next()?;
                let (shared, length) = (shared as usize, length as usize);
                if shared > last.len() {
                    return None;
                }
                let begin = texts.bytes.len();
                texts.bytes.extend_from_within(last.start..last.start + shared);
                texts.bytes.extend_from_slice(self.plain.get(at..at.checked_add(length)?)?);
                at += length;
                last = begin..texts.bytes.len();
            }
            texts.ends.push(u32::try_from(texts.bytes.len()).ok()?);
        }
        std::mem::swap(&mut texts.present, &mut self.levels);
        values.next().is_none().then_some(())
    }

    /// Reads whether each row of the page has a value; returns where the values begin.
    fn levels(&mut self, rows: usize) -> Option<usize> {
        self.levels.clear();
        if !self.optional {
            self.levels.resize(rows, 1);
            return Some(0);
        }
        let (length, rest) = self.plain.split_at_checked(4)?;
        let length = u32::from_le_bytes(length.try_into().expect("four")) as usize;
        bits::read_hybrid(rest.get(..length)?, 1, rows, &mut self.levels)?;
        Some(4 + length)
    }

    /// Reads the next page; returns its rows and its encoding.
    fn data_page(&mut self) -> Result<(usize, i64), ReadError> {
        let (rows, encoding) = self.next_page(DATA_PAGE)?;
        if rows == 0 || rows > PAGE_ROWS || rows > self.rows_left {
            return Err(ReadError::Damaged("the rows of a page"));
        }
        self.rows_left -= rows;
        Ok((rows, encoding))
    }

    /// Reads and decompresses a page into `plain`; returns how many values it has, and of which encoding.
    fn next_page(&mut self, of: i64) -> Result<(usize, i64), ReadError> {
        let left = self.end.saturating_sub(self.at).min(HEADER as u64) as usize;
        self.raw.resize(left, 0);
        self.file.read_exact_at(&mut self.raw, self.at)?;
        let (header, length) = damaged(thrift::read(&self.raw), "the header of a page")?;
        let number =
            |id| damaged(header.number(id).filter(|it| (0..MOST).contains(it)), "the header of a page");
        let (found, plain, compressed) = (number(1)?, number(2)? as usize, number(3)? as usize);
        let checksum = header.number(4);
        let inner = damaged(header.get(if of == DATA_PAGE { 5 } else { 7 }), "the header of a page")?;
        let values = damaged(inner.number(1).filter(|it| (0..MOST).contains(it)), "the header of a page")?;
        if found != of {
            return Err(ReadError::Damaged("a page of another kind"));
        }
        let encoding = damaged(inner.number(2), "the header of a page")?;
        let begin = self.at + length as u64;
        if begin + compressed as u64 > self.end {
            return Err(ReadError::Damaged("a page that reaches beyond its column"));
        }
        self.raw.resize(compressed, 0);
        self.file.read_exact_at(&mut self.raw, begin)?;
        self.at = begin + compressed as u64;
        if checksum != Some(i64::from(crc32fast::hash(&self.raw).cast_signed())) {
            return Err(ReadError::Damaged("a page differs from its checksum"));
        }
        self.plain.clear();
        self.plain.reserve(plain);
        self.decompressor.decompress_to_buffer(&self.raw, &mut self.plain)?;
        if self.plain.len() != plain {
            return Err(ReadError::Damaged("a page of another length"));
        }
        Ok((values as usize, encoding))
    }
}
