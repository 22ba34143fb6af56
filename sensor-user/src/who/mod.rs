//! Who a source is: the one step that gives, for an address, its country, its list and its network.

pub mod asn;
pub mod lists;
mod watcher;

pub use watcher::{AsnFiles, AsnWatcher, ListFiles, ListWatcher};

use crate::country::{AutonomousSystem, Country, Locate, Who};
use crate::geoip::GeoIp;
use asn::AsnDatabase;
use lists::Lists;
use std::sync::Arc;

/// The databases that tell it.
#[derive(Clone, Debug)]
pub struct Register {
    /// Countries.
    pub geoip: Arc<GeoIp>,
    /// Lists of the configuration.
    pub lists: Arc<Lists>,
    /// Networks.
    pub asn: Arc<AsnDatabase>,
}

impl Locate for Register {
    fn v4(&self, address: u32) -> Country {
        self.geoip.v4(address)
    }

    fn v6(&self, address: u128) -> Country {
        self.geoip.v6(address)
    }

    fn who_v4(&self, address: u32) -> Who {
        Who { country: self.geoip.v4(address), list: self.lists.v4(address), network: self.asn.v4(address) }
    }

    fn who_v6(&self, address: u128) -> Who {
        Who { country: self.geoip.v6(address), list: self.lists.v6(address), network: self.asn.v6(address) }
    }

    fn lists(&self) -> &[String] {
        self.lists.names()
    }

    fn databases(&self) -> Vec<(String, String)> {
        let country = ("country".to_owned(), self.geoip.built().strftime("%Y-%m-%d").to_string());
        let modified = |read: &lists::Read| {
            let modified = read.modified.and_then(|at| jiff::Timestamp::try_from(at).ok());
            modified.map_or_else(|| "unknown".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        };
        let lists = self.lists.read().iter().map(|read| (format!("list {}", read.name), modified(read)));
        let asn = self.asn.read().map(|read| ("asn".to_owned(), read.built.strftime("%Y-%m-%d").to_string()));
        std::iter::once(country).chain(lists).chain(asn).collect()
    }

    fn networks(&self) -> &[AutonomousSystem] {
        self.asn.networks()
    }
}
