//! RFC 4180.

use super::super::error::LedgerError;
use super::Snapshot;
use super::table::{self, COLUMNS, PortNames};
use crate::country::Country;
use std::borrow::Cow;
use std::io::{BufWriter, Write};

pub(super) fn write(ledgers: &[Snapshot<'_>], out: &mut dyn Write) -> Result<(), LedgerError> {
    let mut out = BufWriter::new(out);
    let names = PortNames::embedded();
    write!(out, "{}\r\n", COLUMNS.join(",")).map_err(LedgerError::Output)?;
    for (snapshot, source) in ledgers {
        let sensor = table::sensor(snapshot, source)?;
        let sensor = field(&sensor);
        table::rows(snapshot, source, &mut |row| {
            let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
            write!(
                out,
                "{},{},{},{},{},{},{},{},{},{},{}",
                row.day,
                row.kind,
                row.transport.unwrap_or_default(),
                number(row.port.map(u64::from)),
                row.country.as_ref().map_or("", Country::label),
                row.hour.map(|hour| format!("{hour:02}")).unwrap_or_default(),
                number(row.accesses),
                number(row.sources),
                field(row.name.as_deref().unwrap_or_default()),
                number(row.value),
                sensor,
            )
            .and_then(|()| {
                names.of(&row).iter().try_for_each(|name| write!(out, ",{}", field(name.unwrap_or_default())))
            })
            .and_then(|()| write!(out, ",{}", number(row.asn.map(u64::from))))
            .and_then(|()| out.write_all(b"\r\n"))
            .map_err(LedgerError::Output)
        })?;
    }
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
