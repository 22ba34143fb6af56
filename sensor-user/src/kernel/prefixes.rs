//! The prefixes of configurations, in tries that hold [`PREFIX_SETS`] sets of them side by side.
//!
//! The rules of a generation name their set. What the next generation needs goes into the set that the
//! current one does not use, so packets of the current generation are judged as before until the switch,
//! and for ever when the switch fails.

use super::KernelError;
use super::rules::Compiled;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use ipnet::{Ipv4Net, Ipv6Net};
use sensor_common::layout::{PREFIX_SETS, SET_BITS, trie_key_v4, trie_key_v6};
use std::collections::BTreeSet;
use std::io;

/// The tries.
pub(super) struct Prefixes {
    observed_v4: Trie<2>,
    observed_v6: Trie<5>,
    excluded_v4: Trie<2>,
    excluded_v6: Trie<5>,
}

impl Prefixes {
    /// Reads what the maps hold that `take` gives by name.
    ///
    /// # Errors
    ///
    /// What `take` or `bpf(2)` returns.
    pub(super) fn open(
        mut take: impl FnMut(&'static str) -> Result<aya::maps::Map, KernelError>,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            observed_v4: Trie::open("OBSERVED_V4", &mut take)?,
            observed_v6: Trie::open("OBSERVED_V6", &mut take)?,
            excluded_v4: Trie::open("EXCLUDED_V4", &mut take)?,
            excluded_v6: Trie::open("EXCLUDED_V6", &mut take)?,
        })
    }

    /// A set that holds exactly the prefixes of `compiled`. The set `current` is in use, and not changed.
    ///
    /// # Errors
    ///
    /// What `bpf(2)` returns.
    pub(super) fn hold(&mut self, current: u32, compiled: &Compiled) -> Result<u32, KernelError> {
        if self.holds(current, compiled) {
            return Ok(current);
        }
        let next = (current + 1) % PREFIX_SETS;
        self.fill(next, compiled)?;
        Ok(next)
    }

    fn holds(&self, set: u32, compiled: &Compiled) -> bool {
        let Compiled { observed_v4, observed_v6, excluded_v4, excluded_v6, .. } = compiled;
        self.observed_v4.holds(set, observed_v4.iter().map(|net| prefix_v4(set, *net)))
            && self.observed_v6.holds(set, observed_v6.iter().map(|net| prefix_v6(set, net)))
            && self.excluded_v4.holds(set, excluded_v4.iter().map(|net| prefix_v4(set, *net)))
            && self.excluded_v6.holds(set, excluded_v6.iter().map(|net| prefix_v6(set, net)))
    }

    /// Makes `set`, which must not be in use, hold exactly the prefixes of `compiled`.
    ///
    /// # Errors
    ///
    /// What `bpf(2)` returns.
    pub(super) fn fill(&mut self, set: u32, compiled: &Compiled) -> Result<(), KernelError> {
        let Compiled { observed_v4, observed_v6, excluded_v4, excluded_v6, .. } = compiled;
        self.observed_v4.fill(set, observed_v4.iter().map(|net| prefix_v4(set, *net)).collect())?;
        self.observed_v6.fill(set, observed_v6.iter().map(|net| prefix_v6(set, net)).collect())?;
        self.excluded_v4.fill(set, excluded_v4.iter().map(|net| prefix_v4(set, *net)).collect())?;
        self.excluded_v6.fill(set, excluded_v6.iter().map(|net| prefix_v6(set, net)).collect())
    }

    /// Empties every set but `current`.
    ///
    /// # Errors
    ///
    /// What `bpf(2)` returns.
    pub(super) fn keep_only(&mut self, current: u32) -> Result<(), KernelError> {
        self.observed_v4.keep_only(current)?;
        self.observed_v6.keep_only(current)?;
        self.excluded_v4.keep_only(current)?;
        self.excluded_v6.keep_only(current)
    }
}

/// Length and key of a prefix in a trie; the length counts the bits of the set too.
type Prefix<const WORDS: usize> = (u32, [u32; WORDS]);

fn prefix_v4(set: u32, net: Ipv4Net) -> Prefix<2> {
    (SET_BITS + u32::from(net.prefix_len()), trie_key_v4(set, net.network().octets()))
}

fn prefix_v6(set: u32, net: &Ipv6Net) -> Prefix<5> {
    (SET_BITS + u32::from(net.prefix_len()), trie_key_v6(set, net.network().octets()))
}

const fn set_of<const WORDS: usize>(prefix: &Prefix<WORDS>) -> u32 {
    prefix.1[0]
}

struct Trie<const WORDS: usize> {
    name: &'static str,
    map: LpmTrie<MapData, [u32; WORDS], u8>,
    /// What the map holds. The daemon that has locked the pin directory is the only one that writes it.
    held: BTreeSet<Prefix<WORDS>>,
}

impl<const WORDS: usize> Trie<WORDS>
where
    [u32; WORDS]: aya::Pod,
{
    fn open(
        name: &'static str,
        mut take: impl FnMut(&'static str) -> Result<aya::maps::Map, KernelError>,
    ) -> Result<Self, KernelError> {
        let map = LpmTrie::<MapData, [u32; WORDS], u8>::try_from(take(name)?)
            .map_err(|error| KernelError::Load(error.into()))?;
        let held = map.keys().map(|key| key.map(|key| (key.prefix_len(), key.data())));
        let held =
            held.collect::<Result<_, _>>().map_err(failed(format!("read the prefixes in map {name}")))?;
        Ok(Self { name, map, held })
    }

    fn holds(&self, set: u32, mut wanted: impl ExactSizeIterator<Item = Prefix<WORDS>>) -> bool {
        self.held.iter().filter(|prefix| set_of(prefix) == set).count() == wanted.len()
            && wanted.all(|prefix| self.held.contains(&prefix))
    }

    fn fill(&mut self, set: u32, wanted: BTreeSet<Prefix<WORDS>>) -> Result<(), KernelError> {
        self.remove_where(|prefix| set_of(prefix) == set && !wanted.contains(prefix))?;
        let doing = format!("put {} prefixes into map {}", wanted.len(), self.name);
        for prefix in wanted {
            if !self.held.contains(&prefix) {
                self.map.insert(&Key::new(prefix.0, prefix.1), 1, 0).map_err(failed(&doing))?;
                self.held.insert(prefix);
            }
        }
        Ok(())
    }

    fn keep_only(&mut self, set: u32) -> Result<(), KernelError> {
        self.remove_where(|prefix| set_of(prefix) != set)
    }

    fn remove_where(&mut self, is_unwanted: impl Fn(&Prefix<WORDS>) -> bool) -> Result<(), KernelError> {
        let unwanted: Vec<_> = self.held.iter().filter(|prefix| is_unwanted(prefix)).copied().collect();
        for prefix in unwanted {
            match self.map.remove(&Key::new(prefix.0, prefix.1)) {
                Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(failed(format!("remove prefixes from map {}", self.name)))?,
            }
            self.held.remove(&prefix);
        }
        Ok(())
    }
}

fn failed(doing: impl Into<String>) -> impl FnOnce(MapError) -> KernelError {
    |error| KernelError::Map { doing: doing.into(), source: io::Error::other(error) }
}
