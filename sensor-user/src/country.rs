//! The country of a source address.

pub use sensor_counters::Country;

/// Gives the country of an address: a GeoIP database, or a table in a test.
pub trait Locate {
    /// Country of an IPv4 address, given as a number, most significant byte first.
    fn v4(&self, address: u32) -> Country;
    /// Country of an IPv6 address, given as a number, most significant byte first.
    fn v6(&self, address: u128) -> Country;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_country_of_the_embedded_database_has_a_name() {
        let geoip = crate::geoip::GeoIp::embedded().unwrap();
        let without: std::collections::BTreeSet<Country> = (0..1 << 16)
            .map(|block: u32| geoip.v4(block << 16 | 0x0101))
            .filter(|country| country.names().is_none())
            .collect();
        assert!(without.is_empty(), "{without:?}");
    }
}
