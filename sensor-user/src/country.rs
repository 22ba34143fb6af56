//! What is known of a source by its address.

pub use sensor_counters::{AutonomousSystem, Country};

/// Where a source is among the networks of [`Locate::networks`]: 0 for none, or one more than the place.
pub type AsPlace = u32;

/// What is known of a source by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its country.
    pub country: Country,
    /// Its list: 0 for none, or one more than the place in [`Locate::lists`].
    pub list: u16,
    /// Its network.
    pub network: AsPlace,
}

impl Who {
    /// Of a source of which the country is all that is known.
    pub const fn of(country: Country) -> Self {
        Self { country, list: 0, network: 0 }
    }
}

/// Tells who a source is: databases, or a table in a test.
pub trait Locate {
    /// Country of an IPv4 address, given as a number, most significant byte first.
    fn v4(&self, address: u32) -> Country;
    /// Country of an IPv6 address, given as a number, most significant byte first.
    fn v6(&self, address: u128) -> Country;
    /// All that is known of an IPv4 address.
    fn who_v4(&self, address: u32) -> Who {
        Who::of(self.v4(address))
    }
    /// All that is known of an IPv6 address.
    fn who_v6(&self, address: u128) -> Who {
        Who::of(self.v6(address))
    }
    /// The names of the lists.
    fn lists(&self) -> &[String] {
        &[]
    }
    /// What tells it, with what tells its state: for a record of how it was known.
    fn databases(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// The networks.
    fn networks(&self) -> &[AutonomousSystem] {
        &[]
    }
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
