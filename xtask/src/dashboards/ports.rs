//! The explanations of ports, from the file that the sensor reads too.

use std::sync::LazyLock;

use serde::Deserialize;

/// An entry of `grafana/ports.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// `tcp`, `udp`, `icmp` or `icmpv6`.
    pub transport: String,
    /// Destination port, the type for ICMP.
    pub port: u16,
    /// The registered or customary name of the service.
    pub name: String,
    /// What the port is known for, in English.
    pub en: String,
    /// The same in Japanese.
    pub ja: String,
    /// Where that is written.
    pub source: String,
}

#[derive(Deserialize)]
struct File {
    port: Vec<Port>,
}

/// Every explained port.
pub fn table() -> &'static [Port] {
    static TABLE: LazyLock<Vec<Port>> = LazyLock::new(|| {
        let file: File =
            toml::from_str(include_str!("../../../grafana/ports.toml")).expect("ports.toml is valid");
        file.port
    });
    &TABLE
}
