//! What can be read again while the sensor runs, and what holds while that fails.

/// What of the configuration can be reloaded while running, for
/// `teiten_reload_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reloadable {
    /// The country database.
    Geoip,
    /// The source lists.
    Lists,
    /// The ASN database.
    Asn,
    /// The configuration file, flags and environment.
    Config,
    /// `--web.config.file` and the certificates it names.
    Web,
}

impl Reloadable {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Geoip, Self::Lists, Self::Asn, Self::Config, Self::Web];

    /// As `teiten_reload_failures_total` names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Geoip => "geoip",
            Self::Lists => "lists",
            Self::Asn => "asn",
            Self::Config => "config",
            Self::Web => "web",
        }
    }

    /// What it is, for messages.
    pub const fn subject(self) -> &'static str {
        match self {
            Self::Geoip => "GeoIP database",
            Self::Lists => "source lists",
            Self::Asn => "ASN database",
            Self::Config => "configuration",
            Self::Web => "web configuration",
        }
    }

    /// What holds while it cannot be read again, for messages.
    pub const fn meanwhile(self) -> &'static str {
        match self {
            Self::Geoip => "sources are located by the one before",
            Self::Lists => "sources are judged by those before",
            Self::Asn => "networks are those of the one before",
            Self::Config | Self::Web => "the one before applies",
        }
    }
}
