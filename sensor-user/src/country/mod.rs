//! The country of a source address.

pub mod names;

pub use sensor_counters::Country;

/// Gives the country of an address: a GeoIP database, or a table in a test.
pub trait Locate {
    /// Country of an IPv4 address, given as a number, most significant byte first.
    fn v4(&self, address: u32) -> Country;
    /// Country of an IPv6 address, given as a number, most significant byte first.
    fn v6(&self, address: u128) -> Country;
}
