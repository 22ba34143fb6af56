//! RFC 4180.

use super::super::error::LedgerError;
use super::Source;
use super::table::{self, COLUMNS};
use rusqlite::Connection;
use std::borrow::Cow;
use std::io::{BufWriter, Write};

pub(super) fn write(
    snapshot: &Connection,
    source: &Source<'_>,
    out: &mut dyn Write,
) -> Result<(), LedgerError> {
    let mut out = BufWriter::new(out);
    let sensor = table::sensor(snapshot, source)?;
    let sensor = field(&sensor);
    write!(out, "{}\r\n", COLUMNS.join(",")).map_err(LedgerError::Output)?;
    table::rows(snapshot, source, &mut |row| {
        let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        write!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{}\r\n",
            row.day,
            row.kind,
            row.transport.unwrap_or_default(),
            number(row.port.map(u64::from)),
            row.country.as_deref().unwrap_or_default(),
            row.hour.map(|hour| format!("{hour:02}")).unwrap_or_default(),
            number(row.accesses),
            number(row.sources),
            field(row.name.as_deref().unwrap_or_default()),
            number(row.value),
            sensor,
        )
        .map_err(LedgerError::Output)
    })?;
    out.flush().map_err(LedgerError::Output)
}

/// Quotes what needs it.
fn field(text: &str) -> Cow<'_, str> {
    if text.contains(['"', ',', '\r', '\n']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_quoted_only_when_they_must_be() {
        assert_eq!(field("tokyo-1"), "tokyo-1");
        assert_eq!(field("a,b"), "\"a,b\"");
        assert_eq!(field("say \"x\""), "\"say \"\"x\"\"\"");
    }
}
