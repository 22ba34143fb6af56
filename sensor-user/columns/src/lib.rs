//! Parquet files of flat tables, as far as Teiten's archive needs them.
//!
//! The [`Writer`] takes a million rows within what a drain may cost: it is given dictionary codes, which the
//! caller knows beforehand, and text in ascending order, of which it stores what differs. The [`Table`] reads
//! what the writer wrote, page by page, so that files of any size are merged in constant memory. Both follow
//! the [format]; every reader of Parquet reads the files.
//!
//! A file has row groups of at most [`GROUP_ROWS`] rows. Each column of a group has a dictionary page, if it
//! has a dictionary, and data pages (version 1), Zstandard, with checksums. **The pages of all columns hold
//! the same rows**, at most [`PAGE_ROWS`]: this reader relies on it, others need not.
//!
//! [format]: https://github.com/apache/parquet-format

mod bits;
mod read;
mod thrift;
mod write;

pub use read::{ColumnPages, Dictionary, ReadError, Table, Texts};
pub use write::{Code, Writer};

/// Rows of a page, at most.
pub const PAGE_ROWS: usize = 16_384;
/// Rows of a row group, at most.
pub const GROUP_ROWS: usize = 64 * PAGE_ROWS;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether a row may have no value.
    pub optional: bool,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8, by a dictionary.
    Text,
    /// UTF-8 of which neighbours begin alike: each value is stored by what it shares with the one before.
    Prefixed,
    /// A number from 0 to 255, by a dictionary.
    U8,
    /// A number from 0 to 65,535, by a dictionary.
    U16,
    /// A number from 0 to 4,294,967,295, by a dictionary.
    U32,
    /// A number, by a dictionary.
    I64,
    /// An instant in microseconds since the epoch, by a dictionary.
    Instant,
}

/// How values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Physical {
    Int32 = 1,
    Int64 = 2,
    Bytes = 6,
}

impl Kind {
    const fn physical(self) -> Physical {
        match self {
            Self::Text | Self::Prefixed => Physical::Bytes,
            Self::U8 | Self::U16 | Self::U32 => Physical::Int32,
            Self::I64 | Self::Instant => Physical::Int64,
        }
    }
}

/// Numbers of the format (`parquet.thrift`).
mod number {
    pub(crate) const MAGIC: &[u8; 4] = b"PAR1";
    pub(crate) const DATA_PAGE: i64 = 0;
    pub(crate) const DICTIONARY_PAGE: i64 = 2;
    pub(crate) const PLAIN: i64 = 0;
    pub(crate) const RLE: i64 = 3;
    pub(crate) const DELTA_BYTE_ARRAY: i64 = 7;
    pub(crate) const RLE_DICTIONARY: i64 = 8;
    pub(crate) const ZSTD: i64 = 6;
}

#[cfg(test)]
mod tests;
