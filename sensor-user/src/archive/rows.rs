//! Files row by row, in the order in which they were written: by source and target.

use super::schema::{CLASSES, FIELDS, column};
use sensor_columns::{ColumnPages, ReadError, Table, Texts};
use sensor_common::{Slot, Tool, Transport};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What orders the rows of a file: IPv4 sources by address, IPv6 sources, then what has no source; and by
/// target.
pub(super) type RowKey = (Address, u32, u16);

/// An address as it sorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Address {
    V4(u32),
    V6(u128),
    /// Not kept.
    None,
}

impl Address {
    /// Of the column `source`. What is no address of the archive's sorts last.
    pub(super) fn parse(text: Option<&[u8]>) -> Self {
        let Some(text) = text else { return Self::None };
        if let Some(address) = dotted(text) {
            return Self::V4(address);
        }
        let text = std::str::from_utf8(text).unwrap_or_default();
        text.parse().map_or(Self::None, |address: Ipv6Addr| Self::V6(address.to_bits()))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::V4(bits) => Ipv4Addr::from_bits(bits).fmt(f),
            Self::V6(bits) => Ipv6Addr::from_bits(bits).fmt(f),
            Self::None => Ok(()),
        }
    }
}

fn dotted(text: &[u8]) -> Option<u32> {
    let mut address = 0;
    let mut parts = 0;
    let mut part: Option<u32> = None;
    for &byte in text {
        match byte {
            b'0'..=b'9' => {
                let number = part.unwrap_or(0) * 10 + u32::from(byte - b'0');
                if number > 255 {
                    return None;
                }
                part = Some(number);
            }
            b'.' if parts < 3 => {
                address = address << 8 | part.take()?;
                parts += 1;
            }
            _ => return None,
        }
    }
    (parts == 3).then_some(address << 8 | part?)
}

/// The columns with dictionaries.
pub(super) const CODED: [usize; 12] = [
    column::HOUR,
    column::TRANSPORT,
    column::PORT,
    column::CLASS,
    column::PACKETS,
    column::COUNTRY,
    column::ASN,
    column::NETWORK,
    column::LIST,
    column::TOOL,
    column::FIRST,
    column::LAST,
];

/// Places of columns among the coded ones.
pub(super) const fn coded(column: usize) -> usize {
    // All before the source, and all after it.
    if column > column::SOURCE { column - 1 } else { column }
}

/// One page after the other of one file.
pub(super) struct FileRows {
    table: Table,
    group: usize,
    /// Columns of the group; `None` before the first.
    columns: Option<Columns>,
    texts: Texts,
    codes: [Vec<u32>; CODED.len()],
    row: usize,
}

struct Columns {
    source: ColumnPages,
    coded: Vec<ColumnPages>,
}

impl FileRows {
    /// Before the first row.
    pub(super) fn new(table: Table) -> Self {
        Self { table, group: 0, columns: None, texts: Texts::default(), codes: Default::default(), row: 0 }
    }

    /// Goes to the next row; `false` after the last. `began` is called when another row group begins, whose
    /// dictionaries are others.
    pub(super) fn next(&mut self) -> Result<bool, ReadError> {
        if self.columns.is_some() && self.row + 1 < self.texts.rows() {
            self.row += 1;
            return Ok(true);
        }
        self.row = 0;
        loop {
            if let Some(columns) = &mut self.columns {
                columns.source.next_texts(&mut self.texts)?;
                for (pages, codes) in columns.coded.iter_mut().zip(&mut self.codes) {
                    pages.next_codes(codes)?;
                    if codes.len() != self.texts.rows() {
                        return Err(ReadError::Damaged("pages of different rows"));
                    }
                }
                if self.texts.rows() > 0 {
                    return Ok(true);
                }
                self.group += 1;
            }
            if self.group >= self.table.groups().len() {
                self.columns = None;
                return Ok(false);
            }
            let coded = CODED.iter().map(|&at| self.table.column(self.group, &FIELDS[at]));
            self.columns = Some(Columns {
                source: self.table.column(self.group, &FIELDS[column::SOURCE])?,
                coded: coded.collect::<Result<_, _>>()?,
            });
        }
    }

    /// The row group of the row.
    pub(super) fn group(&self) -> usize {
        self.group
    }

    /// The text of the source.
    pub(super) fn source(&self) -> Option<&[u8]> {
        self.texts.get(self.row)
    }

    /// The code of a column with a dictionary; `None` for no value.
    pub(super) fn code(&self, column: usize) -> Option<usize> {
        let code = self.codes[coded(column)][self.row];
        (code != u32::MAX).then_some(code as usize)
    }

    fn pages(&self, column: usize) -> Option<&ColumnPages> {
        self.columns.as_ref().map(|columns| &columns.coded[coded(column)])
    }

    /// The value of a column of numbers.
    pub(super) fn number(&self, column: usize) -> Option<i64> {
        self.pages(column)?.dictionary().numbers().get(self.code(column)?).copied()
    }

    /// The value of a column of text with a dictionary.
    pub(super) fn text(&self, column: usize) -> Option<&str> {
        self.pages(column)?.dictionary().texts().get(self.code(column)?).map(AsRef::as_ref)
    }

    /// Where the row is in the order.
    pub(super) fn key(&self) -> RowKey {
        let transport =
            self.text(column::TRANSPORT).and_then(Transport::from_name).unwrap_or(Transport::Other);
        let port = self.number(column::PORT).unwrap_or(0) as u16;
        let service = u32::from(self.text(column::CLASS) == Some(CLASSES[1]));
        let tool = match self.text(column::TOOL) {
            None => 0,
            Some(name) => {
                Tool::ALL.iter().position(|tool| tool.name() == name).map_or(u16::MAX, |at| at as u16 + 1)
            }
        };
        let slot = Slot::new(transport, port).index();
        (Address::parse(self.source()), service << 31 | slot, tool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_of_coded_columns() {
        assert!(CODED.iter().enumerate().all(|(at, column)| coded(*column) == at));
    }

    #[test]
    fn texts_that_are_no_address() {
        for text in ["", ".", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1..2.3", "a.b.c.d", "1.2.3.4 "] {
            assert_eq!(dotted(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn addresses_come_back(bits: u32, wide: u128) {
            let text = Ipv4Addr::from_bits(bits).to_string();
            prop_assert_eq!(Address::parse(Some(text.as_bytes())), Address::V4(bits));
            prop_assert_eq!(Address::V4(bits).to_string(), text);
            let text = Ipv6Addr::from_bits(wide).to_string();
            prop_assert_eq!(Address::parse(Some(text.as_bytes())), Address::V6(wide));
        }
    }
}
