//! The columns of a file and what it says of itself: version 1, described in `docs/archive.md`.

use sensor_columns::{Field, Kind};

/// The version of the schema. A column that is added leaves it as it is; one that changes its meaning raises
/// it.
pub(super) const VERSION: &str = "1";

const fn field(name: &'static str, kind: Kind, optional: bool) -> Field {
    Field { name, kind, optional }
}

/// Places of the columns.
pub(super) mod column {
    pub(in crate::archive) const HOUR: usize = 0;
    pub(in crate::archive) const SOURCE: usize = 1;
    pub(in crate::archive) const TRANSPORT: usize = 2;
    pub(in crate::archive) const PORT: usize = 3;
    pub(in crate::archive) const CLASS: usize = 4;
    pub(in crate::archive) const PACKETS: usize = 5;
    pub(in crate::archive) const COUNTRY: usize = 6;
    pub(in crate::archive) const ASN: usize = 7;
    pub(in crate::archive) const NETWORK: usize = 8;
    pub(in crate::archive) const LIST: usize = 9;
    pub(in crate::archive) const TOOL: usize = 10;
    pub(in crate::archive) const FIRST: usize = 11;
    pub(in crate::archive) const LAST: usize = 12;
}

/// The columns.
pub(super) static FIELDS: [Field; 13] = [
    field("hour", Kind::U8, false),
    field("source", Kind::Prefixed, true),
    field("transport", Kind::Text, false),
    field("port", Kind::U16, false),
    field("class", Kind::Text, false),
    field("packets", Kind::I64, false),
    field("country", Kind::Text, true),
    field("asn", Kind::U32, true),
    field("network", Kind::Text, true),
    field("list", Kind::Text, true),
    field("tool", Kind::Text, true),
    field("first_seen", Kind::Instant, false),
    field("last_seen", Kind::Instant, false),
];

/// Values of the column `class`.
pub(super) const CLASSES: [&str; 2] = ["access", "service"];

/// Keys of what a file says of itself.
pub(super) mod key {
    pub(in crate::archive) const SCHEMA: &str = "teiten.schema";
    pub(in crate::archive) const SENSOR: &str = "teiten.sensor";
    pub(in crate::archive) const TIMEZONE: &str = "teiten.timezone";
    pub(in crate::archive) const DAY: &str = "teiten.day";
    pub(in crate::archive) const HOUR: &str = "teiten.hour";
    pub(in crate::archive) const LEDGER: &str = "teiten.ledger";
    pub(in crate::archive) const COMMITS: &str = "teiten.commits";
    pub(in crate::archive) const GENERATIONS: &str = "teiten.generations";
    pub(in crate::archive) const ROWS: &str = "teiten.rows";
    pub(in crate::archive) const PACKETS: &str = "teiten.packets";
    pub(in crate::archive) const OBSERVED_SECONDS: &str = "teiten.observed_seconds";
    pub(in crate::archive) const OBSERVED: &str = "teiten.observed";
    pub(in crate::archive) const PROGRAM: &str = "teiten.program";
    pub(in crate::archive) const DATABASES: &str = "teiten.databases";
}
