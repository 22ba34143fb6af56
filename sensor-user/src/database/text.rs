//! Databases as text, a range a line: `first,last,…`, addresses of IPv4 as numbers or dotted.

use super::{Builders, DatabaseFault};
use crate::ranges::Value;
use jiff::Timestamp;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

/// What the lines hold.
pub(crate) struct Text<V> {
    /// The ranges.
    pub(crate) builders: Builders<V>,
    /// When the database was generated, as a comment says; of several files the oldest.
    pub(crate) generated: Option<Timestamp>,
    /// Whether a range has a value.
    pub(crate) has_any: bool,
}

impl<V> Default for Text<V> {
    fn default() -> Self {
        Self { builders: Builders::default(), generated: None, has_any: false }
    }
}

/// Whether these bytes are lines of text, not a database in `MaxMind`'s format.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    first.starts_with(b"#") || std::str::from_utf8(first).is_ok_and(|line| range(line).is_some())
}

impl<V: Value> Text<V> {
    /// Adds the lines of a file. `value` gives what a range has from the fields behind its addresses; `form`
    /// is what a line is.
    ///
    /// # Errors
    ///
    /// A line is of another form, or `value` fails; `None` of it: the line is of another form.
    pub(crate) fn add(
        &mut self,
        bytes: &[u8],
        form: &'static str,
        mut value: impl FnMut(&[Cow<'_, str>]) -> Result<Option<V>, DatabaseFault>,
    ) -> Result<(), DatabaseFault> {
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if let Some(comment) = line.strip_prefix(b"#") {
                let comment = std::str::from_utf8(comment).unwrap_or_default().trim();
                let time = comment.strip_prefix("Generated: ").map(jiff::fmt::rfc2822::parse);
                if let Some(Ok(time)) = time {
                    let time = time.timestamp();
                    self.generated = Some(self.generated.map_or(time, |before| before.min(time)));
                }
            } else if !line.is_empty() {
                let refused = DatabaseFault::Line { number: number + 1, form };
                let Some((first, last, fields)) = std::str::from_utf8(line).ok().and_then(range) else {
                    return Err(refused);
                };
                let Some(value) = value(&fields)? else { return Err(refused) };
                self.has_any |= value != V::NOTHING;
                match (first, last) {
                    (IpAddr::V4(first), IpAddr::V4(last)) => {
                        self.builders.v4.push_range(first.into(), last.into(), value);
                    }
                    (IpAddr::V6(first), IpAddr::V6(last)) => {
                        self.builders.v6.push_range(first.into(), last.into(), value);
                    }
                    _ => return Err(refused),
                }
            }
        }
        Ok(())
    }
}

/// First and last address, and what follows them, at least one field.
fn range(line: &str) -> Option<(IpAddr, IpAddr, Vec<Cow<'_, str>>)> {
    let mut fields = fields(line);
    let address = |field: &str| match field.parse::<u32>() {
        Ok(number) => Some(IpAddr::V4(Ipv4Addr::from(number))),
        Err(_) => field.parse().ok(),
    };
    let rest = (fields.len() > 2).then(|| fields.split_off(2))?;
    let (first, last) = (address(&fields[0])?, address(&fields[1])?);
    (first <= last).then_some((first, last, rest))
}

/// The fields of a line of comma-separated values (RFC 4180): a comma within `"` is none, and `""` there is
/// one `"`.
fn fields(line: &str) -> Vec<Cow<'_, str>> {
    let mut fields = Vec::new();
    let mut rest = Some(line.trim_end());
    while let Some(text) = rest {
        let Some(quoted) = text.strip_prefix('"') else {
            let (field, behind) =
                text.split_once(',').map_or((text, None), |(it, behind)| (it, Some(behind)));
            fields.push(Cow::Borrowed(field));
            rest = behind;
            continue;
        };
        let mut field = String::new();
        let mut characters = quoted.char_indices().peekable();
        rest = None;
        while let Some((at, c)) = characters.next() {
            if c != '"' {
                field.push(c);
            } else if characters.next_if(|(_, next)| *next == '"').is_some() {
                field.push('"');
            } else {
                rest = quoted[at + 1..].split_once(',').map(|(_, behind)| behind);
                break;
            }
        }
        fields.push(Cow::Owned(field));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_as_rfc_4180_quotes_them() {
        assert_eq!(fields("1,2,AU\r"), ["1", "2", "AU"]);
        assert_eq!(fields("1,2,3,\"Say \"\"x\"\", Inc.\""), ["1", "2", "3", "Say \"x\", Inc."]);
        assert_eq!(fields("\"1\",\"2\",\"\","), ["1", "2", "", ""]);
        // Not ended: up to the end of the line.
        assert_eq!(fields("1,\"a,b"), ["1", "a,b"]);
    }

    #[test]
    fn a_line_is_a_range_of_one_family_and_a_field_at_least() {
        for line in ["1,2", "2,1,AU", "x,2,AU", "1.0.0.0,x,AU", ""] {
            assert_eq!(range(line), None, "{line}");
        }
        let (first, last, fields) = range("16777216,1.0.0.255,AU,\"a,b\"").unwrap();
        assert_eq!((first.to_string(), last.to_string()), ("1.0.0.0".to_owned(), "1.0.0.255".to_owned()));
        assert_eq!(fields, ["AU", "a,b"]);
    }
}
