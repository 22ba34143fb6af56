//! Thrift's compact protocol, in which Parquet writes headers and footers.

/// Writes one structure; its end is written by [`Struct::end`].
pub(crate) struct Struct<'a> {
    out: &'a mut Vec<u8>,
    last: i16,
}

const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

impl<'a> Struct<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, last: 0 }
    }

    /// Fields come in ascending order.
    fn field(&mut self, id: i16, of: u8) {
        self.out.push(((id - self.last) as u8) << 4 | of);
        self.last = id;
    }

    pub(crate) fn bool(&mut self, id: i16, value: bool) {
        self.field(id, if value { 1 } else { 2 });
    }

    pub(crate) fn byte(&mut self, id: i16, value: u8) {
        self.field(id, 3);
        self.out.push(value);
    }

    pub(crate) fn i32(&mut self, id: i16, value: i64) {
        self.field(id, I32);
        varint(self.out, zigzag(value));
    }

    pub(crate) fn i64(&mut self, id: i16, value: i64) {
        self.field(id, I64);
        varint(self.out, zigzag(value));
    }

    pub(crate) fn text(&mut self, id: i16, value: &str) {
        self.field(id, BINARY);
        varint(self.out, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn structure(&mut self, id: i16, write: impl FnOnce(&mut Struct<'_>)) {
        self.field(id, STRUCT);
        Self::inner(self.out, write);
    }

    fn inner(out: &mut Vec<u8>, write: impl FnOnce(&mut Struct<'_>)) {
        let mut inner = Struct::new(out);
        write(&mut inner);
        inner.end();
    }

    fn list(&mut self, id: i16, of: u8, length: usize) {
        self.field(id, LIST);
        if length < 15 {
            self.out.push((length as u8) << 4 | of);
        } else {
            self.out.push(0xf0 | of);
            varint(self.out, length as u64);
        }
    }

    pub(crate) fn structures<T>(
        &mut self,
        id: i16,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(T, &mut Struct<'_>),
    ) {
        self.list(id, STRUCT, items.len());
        for item in items {
            Self::inner(self.out, |inner| write(item, inner));
        }
    }

    pub(crate) fn i32s(&mut self, id: i16, items: &[i64]) {
        self.list(id, I32, items.len());
        for item in items {
            varint(self.out, zigzag(*item));
        }
    }

    pub(crate) fn texts(&mut self, id: i16, items: &[&str]) {
        self.list(id, BINARY, items.len());
        for item in items {
            varint(self.out, item.len() as u64);
            self.out.extend_from_slice(item.as_bytes());
        }
    }

    pub(crate) fn end(self) {
        self.out.push(0);
    }
}

/// A value that was read. Whatever is not asked for is read and forgotten.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Struct(Vec<(i16, Value<'a>)>),
}

impl<'a> Value<'a> {
    pub(crate) fn get(&self, id: i16) -> Option<&Value<'a>> {
        match self {
            Self::Struct(fields) => fields.iter().find(|(found, _)| *found == id).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(crate) fn number(&self, id: i16) -> Option<i64> {
        match self.get(id)? {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn bytes(&self, id: i16) -> Option<&'a [u8]> {
        match self.get(id)? {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn list(&self, id: i16) -> Option<&[Value<'a>]> {
        match self.get(id)? {
            Self::List(items) => Some(items),
            _ => None,
        }
    }
}

/// Nested deeper is nothing that Parquet has.
const DEPTH: u8 = 16;

/// Reads one structure from the beginning of `bytes`, and says how long it is. `None` when it is cut off or
/// none.
pub(crate) fn read(bytes: &[u8]) -> Option<(Value<'_>, usize)> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.structure(DEPTH)?;
    Some((value, reader.at))
}

/// Reads a number as [`varint`] writes it.
pub(crate) fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        read_varint(self.bytes, &mut self.at)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn structure(&mut self, depth: u8) -> Option<Value<'a>> {
        let depth = depth.checked_sub(1)?;
        let mut fields = Vec::new();
        let mut last = 0_i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(Value::Struct(fields));
            }
            let id = match head >> 4 {
                0 => i16::try_from(unzigzag(self.varint()?)).ok()?,
                delta => last.checked_add(i16::from(delta))?,
            };
            last = id;
            let value = match head & 0x0f {
                1 => Value::Number(1),
                2 => Value::Number(0),
                of => self.value(of, depth)?,
            };
            fields.push((id, value));
        }
    }

    fn value(&mut self, of: u8, depth: u8) -> Option<Value<'a>> {
        Some(match of {
            // Also the elements of a list of booleans, which take a byte each.
            1..=3 => Value::Number(i64::from(self.byte()?)),
            I16 | I32 | I64 => Value::Number(unzigzag(self.varint()?)),
            7 => Value::Bytes(self.take(8)?),
            BINARY => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            LIST | 10 => {
                let depth = depth.checked_sub(1)?;
                let head = self.byte()?;
                let length = match head >> 4 {
                    15 => usize::try_from(self.varint()?).ok()?,
                    length => usize::from(length),
                };
                // Each takes a byte at least.
                if length > self.bytes.len() - self.at {
                    return None;
                }
                let items = (0..length).map(|_| self.value(head & 0x0f, depth));
                Value::List(items.collect::<Option<_>>()?)
            }
            STRUCT => self.structure(depth)?,
            // Maps are nowhere in the format.
            _ => return None,
        })
    }
}
