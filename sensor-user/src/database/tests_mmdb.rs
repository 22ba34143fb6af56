//! Writes databases: the few parts of `MaxMind`'s format (version 2.0) that the tests need.

use std::collections::BTreeMap;

pub(crate) enum Value {
    Text(&'static str),
    Number(u32),
    Map(Vec<(&'static str, Value)>),
}

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => write_text(text, out),
            Self::Number(number) => {
                out.push(6 << 5 | 4);
                out.extend(number.to_be_bytes());
            }
            Self::Map(entries) => {
                out.push(7 << 5 | entries.len() as u8);
                for (key, value) in entries {
                    write_text(key, out);
                    value.write(out);
                }
            }
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Of 29 bytes and more, what is above 28 follows in a byte.
    match text.len().checked_sub(29) {
        None => out.push(2 << 5 | text.len() as u8),
        Some(more) => {
            out.extend([0b010_11101, u8::try_from(more).expect("still longer ones have another form")]);
        }
    }
    out.extend(text.as_bytes());
}

pub(crate) const RECORD_BITS: u32 = 24;

#[derive(Clone, Copy)]
pub(crate) enum Record {
    Nothing,
    Node(u32),
    Data(u32),
}

/// A database of networks (address bits from the most significant on, prefix length) of 32 or 128
/// bits.
pub(crate) fn database(bits: u8, kind: &'static str, networks: &[(u128, u8, Value)], epoch: u32) -> Vec<u8> {
    let mut nodes = vec![[Record::Nothing; 2]];
    let mut data = Vec::new();
    for (address, prefix_len, value) in networks {
        let offset = data.len() as u32;
        value.write(&mut data);
        let mut node = 0;
        for depth in 0..*prefix_len {
            let side = usize::from(address >> (bits - 1 - depth) & 1 == 1);
            if depth + 1 == *prefix_len {
                nodes[node][side] = Record::Data(offset);
            } else if let Record::Node(next) = nodes[node][side] {
                node = next as usize;
            } else {
                nodes.push([Record::Nothing; 2]);
                nodes[node][side] = Record::Node(nodes.len() as u32 - 1);
                node = nodes.len() - 1;
            }
        }
    }
    assemble(bits, kind, &nodes, &data, epoch)
}

pub(crate) fn assemble(
    bits: u8,
    kind: &'static str,
    nodes: &[[Record; 2]],
    data: &[u8],
    epoch: u32,
) -> Vec<u8> {
    let count = nodes.len() as u32;
    let mut out = Vec::new();
    for record in nodes.iter().flatten() {
        let number = match *record {
            Record::Nothing => count,
            Record::Node(node) => node,
            Record::Data(offset) => count + 16 + offset,
        };
        out.extend(&number.to_be_bytes()[1..]);
    }
    out.extend([0; 16]);
    out.extend(data);
    out.extend(b"\xab\xcd\xefMaxMind.com");
    let metadata = BTreeMap::from([
        ("binary_format_major_version", Value::Number(2)),
        ("binary_format_minor_version", Value::Number(0)),
        ("build_epoch", Value::Number(epoch)),
        ("database_type", Value::Text(kind)),
        ("description", Value::Map(vec![("en", Value::Text("test"))])),
        ("ip_version", Value::Number(if bits == 32 { 4 } else { 6 })),
        ("languages", Value::Map(vec![])),
        ("node_count", Value::Number(count)),
        ("record_size", Value::Number(RECORD_BITS)),
    ]);
    out.push(7 << 5 | metadata.len() as u8);
    for (key, value) in &metadata {
        write_text(key, &mut out);
        match (*key, value) {
            // An empty array.
            ("languages", _) => out.extend([0, 4]),
            // A number of 64 bits, in the four bytes it needs.
            ("build_epoch", Value::Number(number)) => {
                out.extend([4, 2]);
                out.extend(number.to_be_bytes());
            }
            // A number of 16 bits.
            (
                "binary_format_major_version" | "binary_format_minor_version" | "ip_version" | "record_size",
                Value::Number(number),
            ) => {
                out.push(5 << 5 | 2);
                out.extend(&number.to_be_bytes()[2..]);
            }
            _ => value.write(&mut out),
        }
    }
    out
}
