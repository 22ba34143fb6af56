//! Files in `MaxMind`'s format (version 2.0).

use super::{Builders, DatabaseFault, special};
use crate::ranges::Value;
use jiff::Timestamp;
use maxminddb::{Reader, WithinOptions};
use serde::de::DeserializeOwned;
use std::collections::hash_map::{Entry, HashMap};
use std::net::IpAddr;

/// A file that was read.
pub(crate) struct Mmdb {
    reader: Reader<Vec<u8>>,
    /// When it was built, as its metadata say.
    pub(crate) built: Timestamp,
    /// The kind of database, as its metadata say.
    pub(crate) database_type: String,
}

impl Mmdb {
    /// The database in these bytes, of which only the metadata have been looked at.
    ///
    /// # Errors
    ///
    /// They are no such database.
    pub(crate) fn open(bytes: Vec<u8>) -> Result<Self, DatabaseFault> {
        let reader = Reader::from_source(bytes)?;
        let metadata = reader.metadata();
        let built = i64::try_from(metadata.build_epoch)
            .ok()
            .and_then(|epoch| Timestamp::from_second(epoch).ok())
            .ok_or(DatabaseFault::BuildTime { epoch: metadata.build_epoch })?;
        let database_type = metadata.database_type.clone();
        Ok(Self { reader, built, database_type })
    }

    /// Every network with the value of its record, and whether a record has any. `value` is called once for
    /// each record, of which many networks may have one.
    ///
    /// # Errors
    ///
    /// The file is damaged, or `value` fails.
    pub(crate) fn networks<R: DeserializeOwned, V: Value>(
        &self,
        mut value: impl FnMut(R) -> Result<V, DatabaseFault>,
    ) -> Result<(Builders<V>, bool), DatabaseFault> {
        let nodes = self.reader.metadata().node_count;
        let mut builders = Builders::default();
        let mut records = HashMap::new();
        // Neighbours often have the same record.
        let mut last = None;
        // A tree of n nodes has n + 1 leaves, and IPv4's can be reached as up to four aliases too. In a
        // damaged file nodes can be reached over many paths, up to 2^128 of them. The reader leaves
        // aliases out when asked, but then goes through those paths on its own, uncounted.
        let mut leaves = (u64::from(nodes) + 1) * 5;
        let everything = WithinOptions::default().include_networks_without_data().include_aliased_networks();
        for leaf in self.reader.networks(everything)? {
            let leaf = leaf?;
            leaves = leaves.checked_sub(1).ok_or(DatabaseFault::NotATree { nodes })?;
            // Where no network is, nothing is known.
            let Some(offset) = leaf.offset() else { continue };
            let found = match last {
                Some((known, found)) if known == offset => found,
                _ => match records.entry(offset) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        let found = leaf.decode::<R>()?.map_or(Ok(V::NOTHING), &mut value)?;
                        *new.insert(found)
                    }
                },
            };
            last = Some((offset, found));
            let network = leaf.network()?;
            match network.ip() {
                IpAddr::V4(address) => builders.v4.push(u32::from(address), network.prefix(), found),
                // Where IPv4's ranges or the special blocks decide.
                IpAddr::V6(address)
                    if special::embedded_v4(address.into()).is_some()
                        || address.to_ipv4_mapped().is_some() => {}
                IpAddr::V6(address) => {
                    builders.v6.push(u128::from(address), network.prefix(), found);
                    // A network around ::/96, where databases keep IPv4, is all of IPv4.
                    if address.is_unspecified() && network.prefix() <= 96 {
                        builders.v4.push(0, 0, found);
                    }
                }
            }
        }
        let has_any = records.values().any(|&found| found != V::NOTHING);
        Ok((builders, has_any))
    }

    /// Whether a record can be read as `R` and has what `is_one` looks for.
    pub(crate) fn has<R: DeserializeOwned>(&self, is_one: impl Fn(&R) -> bool) -> bool {
        let found = self.networks::<R, u16>(|record| Ok(is_one(&record).into()));
        found.is_ok_and(|(_, has_any)| has_any)
    }
}
