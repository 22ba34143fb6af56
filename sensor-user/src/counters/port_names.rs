//! What each port is known for: the table of `teiten_port_info` and the names in tables.

use sensor_common::{Slot, Transport};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Names and explanations by port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortTable(BTreeMap<Slot, PortEntry>);

/// What one port is known for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// Short name, as in IANA's registry where it has one.
    pub name: String,
    /// Explanation in English.
    pub en: String,
    /// Explanation in Japanese.
    pub ja: String,
    /// Where the explanation comes from.
    pub source: String,
}

/// Why a table of ports cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PortTableError {
    /// Not TOML, or not of the table's form.
    #[error("read the table of ports")]
    Form(#[source] toml::de::Error),
    /// No such transport.
    #[error("table of ports: port {port}: no transport is called \"{transport}\"; there are {known}")]
    Transport {
        /// As written.
        transport: String,
        /// As written.
        port: u16,
        /// The names that exist.
        known: String,
    },
    /// The port does not fit the transport.
    #[error("table of ports: {transport} has no port {port}; the last is {last}")]
    Range {
        /// As written.
        transport: String,
        /// As written.
        port: u16,
        /// The last one there is.
        last: u32,
    },
    /// The same port is there twice.
    #[error("table of ports: duplicate entry for {0}; keep one of them")]
    Twice(Slot),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PortsFile {
    #[serde(default)]
    port: Vec<ListedPort>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedPort {
    transport: String,
    port: u16,
    name: String,
    en: String,
    #[serde(default)]
    ja: String,
    #[serde(default)]
    source: String,
}

/// The explanations that come with this program, which the dashboards use too.
const EMBEDDED: &str = include_str!("../../../grafana/ports.toml");

impl PortTable {
    /// The table that comes with this program.
    ///
    /// # Errors
    /// As [`PortTable::parse`]; only a build with a broken table has one.
    pub fn embedded() -> Result<Self, PortTableError> {
        Self::parse(EMBEDDED)
    }

    /// Reads `[[port]]` tables with the keys `transport`, `port` (ICMP: the type; `other`: the
    /// protocol number), `name`, `en`, `ja` and `source`.
    ///
    /// # Errors
    /// [`PortTableError`] for text of another form, an unknown transport, a port that the transport
    /// does not have, and a port that is there twice.
    pub fn parse(text: &str) -> Result<Self, PortTableError> {
        let file: PortsFile = toml::from_str(text).map_err(PortTableError::Form)?;
        let mut table = BTreeMap::new();
        for ListedPort { transport: written, port, name, en, ja, source } in file.port {
            let Some(transport) = Transport::from_name(&written) else {
                let known = Transport::ALL.map(Transport::name).join(", ");
                return Err(PortTableError::Transport { transport: written, port, known });
            };
            if u32::from(port) >= transport.ports() {
                return Err(PortTableError::Range { transport: written, port, last: transport.ports() - 1 });
            }
            let slot = Slot::new(transport, port);
            if table.insert(slot, PortEntry { name, en, ja, source }).is_some() {
                return Err(PortTableError::Twice(slot));
            }
        }
        Ok(Self(table))
    }

    /// What is known of `slot`.
    pub fn get(&self, slot: Slot) -> Option<&PortEntry> {
        self.0.get(&slot)
    }

    /// All entries, ascending by port.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &PortEntry)> {
        self.0.iter().map(|(slot, entry)| (*slot, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_that_comes_with_the_program_can_be_read() {
        let table = PortTable::embedded().unwrap();
        assert_eq!(table.get(Slot::new(Transport::Tcp, 445)).unwrap().name, "microsoft-ds");
    }

    #[test]
    fn entries_are_found_by_port() {
        let table = PortTable::parse(
            r#"
            [[port]]
            transport = "tcp"
            port = 445
            name = "microsoft-ds"
            en = "file sharing"
            ja = "ファイル共有"
            source = "IANA"

            [[port]]
            transport = "icmp"
            port = 8
            name = "echo"
            en = "Ping"
            "#,
        )
        .unwrap();
        assert_eq!(table.get(Slot::new(Transport::Tcp, 445)).unwrap().name, "microsoft-ds");
        assert_eq!(table.get(Slot::new(Transport::Icmp, 8)).unwrap().en, "Ping");
        assert_eq!(table.get(Slot::new(Transport::Udp, 445)), None);
    }

    #[test]
    fn each_mistake_is_named() {
        let row = |transport: &str, port: u32| {
            format!("[[port]]\ntransport = \"{transport}\"\nport = {port}\nname = \"n\"\nen = \"e\"\n")
        };
        for (text, message) in [
            (
                row("quic", 443),
                "table of ports: port 443: no transport is called \"quic\"; \
                 there are tcp, udp, sctp, icmp, icmpv6, other",
            ),
            (row("icmp", 256), "table of ports: icmp has no port 256; the last is 255"),
            (row("tcp", 80).repeat(2), "table of ports: duplicate entry for 80/tcp; keep one of them"),
            (row("tcp", 65_536), "read the table of ports"),
            ("[[port]]\nnumber = 1".to_owned(), "read the table of ports"),
        ] {
            assert_eq!(PortTable::parse(&text).unwrap_err().to_string(), message);
        }
    }
}
