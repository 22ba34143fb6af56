//! What is written is read, by this crate and by the `parquet` crate.

use super::*;
use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::Field as ParquetField;
use proptest::prelude::*;
use std::io::{Seek as _, Write as _};

const FIELDS: &[Field] = &[
    Field { name: "address", kind: Kind::Prefixed, optional: true },
    Field { name: "word", kind: Kind::Text, optional: true },
    Field { name: "port", kind: Kind::U16, optional: false },
    Field { name: "network", kind: Kind::U32, optional: true },
    Field { name: "packets", kind: Kind::I64, optional: false },
    Field { name: "at", kind: Kind::Instant, optional: false },
];

type Row = (Option<String>, Option<String>, u16, Option<u32>, i64, i64);

fn written(rows: &[Row], page: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), FIELDS, 1).unwrap();
    for page in rows.chunks(page) {
        for (address, word, port, network, packets, at) in page {
            writer.push_prefixed(0, address.as_deref().map(str::as_bytes));
            let word = word.as_ref().map_or(Code::NONE, |word| writer.text(1, word));
            writer.push(1, word);
            let port = writer.number(2, i64::from(*port));
            writer.push(2, port);
            let network = network.map_or(Code::NONE, |network| writer.number(3, network.into()));
            writer.push(3, network);
            let packets = writer.number(4, *packets);
            writer.push(4, packets);
            let at = writer.number(5, *at);
            writer.push_all(5, at, 1);
        }
        writer.end_page().unwrap();
    }
    writer.finish("a test", &[("zone", "Asia/Tokyo".to_owned()), ("none", String::new())]).unwrap()
}

fn file(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn read(bytes: &[u8]) -> Result<Vec<Row>, ReadError> {
    let table = Table::open(file(bytes))?;
    let mut rows = Vec::new();
    for group in 0..table.groups().len() {
        let mut addresses = table.column(group, &FIELDS[0])?;
        let mut others =
            FIELDS[1..].iter().map(|field| table.column(group, field)).collect::<Result<Vec<_>, _>>()?;
        let (mut texts, mut codes) = (Texts::default(), vec![Vec::new(); others.len()]);
        loop {
            addresses.next_texts(&mut texts)?;
            for (column, codes) in others.iter_mut().zip(&mut codes) {
                column.next_codes(codes)?;
                if codes.len() != texts.rows() {
                    return Err(ReadError::Damaged("pages of different rows"));
                }
            }
            if texts.rows() == 0 {
                break;
            }
            for (row, &word) in codes[0].iter().enumerate() {
                let number = |column: usize| {
                    let code = codes[column][row];
                    (code != u32::MAX).then(|| others[column].dictionary().numbers()[code as usize])
                };
                rows.push((
                    texts.get(row).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()),
                    (word != u32::MAX).then(|| others[0].dictionary().texts()[word as usize].to_string()),
                    number(1).unwrap() as u16,
                    number(2).map(|number| number as u32),
                    number(3).unwrap(),
                    number(4).unwrap(),
                ));
            }
        }
    }
    Ok(rows)
}

fn read_by_others(bytes: Vec<u8>) -> Vec<Row> {
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
    let rows = reader.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        let columns: Vec<&ParquetField> = row.get_column_iter().map(|(_, field)| field).collect();
        let text = |field: &ParquetField| match field {
            ParquetField::Str(text) => Some(text.clone()),
            ParquetField::Null => None,
            other => panic!("{other:?}"),
        };
        let [address, word, port, network, packets, at] = columns[..] else { panic!("{columns:?}") };
        (
            text(address),
            text(word),
            match port {
                ParquetField::UShort(port) => *port,
                other => panic!("{other:?}"),
            },
            match network {
                ParquetField::UInt(network) => Some(*network),
                ParquetField::Null => None,
                other => panic!("{other:?}"),
            },
            match packets {
                ParquetField::Long(packets) => *packets,
                other => panic!("{other:?}"),
            },
            match at {
                ParquetField::TimestampMicros(at) => *at,
                other => panic!("{other:?}"),
            },
        )
    });
    rows.collect()
}

fn row() -> impl Strategy<Value = Row> {
    let address = prop_oneof![
        Just(None),
        any::<u32>().prop_map(|bits| Some(std::net::Ipv4Addr::from_bits(bits & 0x0f03_ffff).to_string())),
        any::<u8>().prop_map(|last| Some(format!("2001:db8::{last:x}"))),
    ];
    let word = prop_oneof![
        Just(None),
        prop::sample::select(&["", "JP", "日本", "unknown"][..]).prop_map(|it| Some(it.to_owned()))
    ];
    (
        address,
        word,
        any::<u16>(),
        prop::option::of(any::<u32>()),
        prop_oneof![Just(1), any::<i64>()],
        any::<i64>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_are_read_as_they_were_written(rows in prop::collection::vec(row(), 0..200), page in 1_usize..80) {
        let bytes = written(&rows, page);
        prop_assert_eq!(read(&bytes).unwrap(), rows.clone());
        prop_assert_eq!(read_by_others(bytes), rows);
    }

    /// A single bit that is not as it was written is found, or is nothing that a row depends on.
    #[test]
    fn damage_is_found(rows in prop::collection::vec(row(), 1..40), place in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = written(&rows, 16);
        let at = place.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        // The footer has no checksum: names and numbers in it may differ and still be such.
        let footer = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap());
        if let Ok(read) = read(&bytes) && at + 8 + (footer as usize) < bytes.len() {
            prop_assert_eq!(read, rows);
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_refused(rows in prop::collection::vec(row(), 1..40), place in any::<prop::sample::Index>()) {
        let bytes = written(&rows, 16);
        prop_assert!(read(&bytes[..place.index(bytes.len())]).is_err());
    }
}

#[test]
fn more_rows_than_a_group_holds_make_several() {
    let rows: Vec<Row> = (0..GROUP_ROWS as u32 + 5)
        .map(|at| (Some(std::net::Ipv4Addr::from_bits(at * 7).to_string()), None, at as u16, None, 1, 7))
        .collect();
    let bytes = written(&rows, PAGE_ROWS);
    let table = Table::open(file(&bytes)).unwrap();
    assert_eq!(table.groups().collect::<Vec<_>>(), [GROUP_ROWS, 5]);
    assert_eq!(table.metadata()["zone"], "Asia/Tokyo");
    assert!(read(&bytes).unwrap() == rows);
}

#[test]
fn a_file_without_rows_is_one() {
    let bytes = written(&[], 1);
    assert_eq!(read(&bytes).unwrap(), []);
    assert_eq!(read_by_others(bytes), []);
}
