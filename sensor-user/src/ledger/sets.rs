//! Who has been seen today: one set of sources for each target, and one of all hosts.
//!
//! IPv4 sources are in the sets as they are; IPv6 addresses get a number, dense within the day, and
//! the sets hold that. A member is the number of its set and its own, one behind the other, so that all sets
//! of an address family are one ascending sequence ([`Runs`]).
//!
//! Memory is bounded by [`SetLimits`]: what is beyond goes to files without names, which hold nothing that the
//! ledger does not have. A source that fits in neither is not remembered and
//! therefore must not be counted, or it would count again with its next packet; it goes into
//! `set_overflow`, so cumulative sources and hosts are then a lower bound that says by how much it
//! may be low.
//!
//! What a fold adds is stored as one *delta*: the new members only, as differences of sorted numbers
//! in LEB128 varints, in a zstd frame with a checksum. All deltas of a day in order make its sets.

use super::breadth::Reached;
use super::runs::{Ascending, Known, Runs, join};
use super::varint::{get, put};
use sensor_common::layout::SERVICE_BIT;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// What the sets of a day may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetLimits {
    /// Bytes in memory from which on members move to disk.
    pub(super) spill: u64,
    /// Bytes in memory that are worth a file.
    pub(super) least: u64,
    /// Bytes in memory beyond which no source is remembered.
    pub(super) memory: u64,
    /// Bytes on disk from which on no more members move there.
    pub(super) disk: u64,
}

impl SetLimits {
    /// Of a day in the daemon, in `replay`, and in a verification, which reads a day for itself.
    pub(super) const DAY: Self = Self { spill: 384 << 20, least: 32 << 20, memory: 512 << 20, disk: 2 << 30 };
}

/// Bytes that are reserved for a new member: the step to it, with its part of a chunk's cost.
const MEMBER: u64 = 8;
/// Bytes that are reserved for a new host, with what is known of it.
const HOST: u64 = 12;
/// Estimated bytes of one IPv6 address in the table of numbers.
const ADDRESS: u64 = 96;
/// Calls of [`DaySets::relieve`] after one that failed which do not write: a full disk takes hundreds of megabytes
/// before it says so.
const PAUSE: u32 = 60;
/// Members of a part of a snapshot.
const PART: usize = 1 << 20;

/// Key of a set: [`sensor_common::Slot::index`], with [`SERVICE_BIT`] for services, or [`HOSTS`].
pub(super) type SetKey = u32;
/// Key of the set of all hosts that sent an access.
pub(super) const HOSTS: SetKey = u32::MAX;
const _: () =
    assert!(HOSTS & SERVICE_BIT != 0 && (HOSTS & !SERVICE_BIT) as usize > sensor_common::Slot::COUNT);

/// What sources have reached after a fold more than before: by number, ascending.
pub(super) type Reach = Vec<(u32, Reached)>;

/// The sets of one address family.
#[derive(Debug, Default)]
pub(super) struct Sets {
    members: Runs<()>,
    /// The hosts, with what they reached and sent. Before the deltas of a day are all loaded, also sources that are
    /// in sets and not known as hosts yet.
    hosts: Runs<Reached>,
}

fn place(key: SetKey, member: u32) -> u64 {
    u64::from(key) << 32 | u64::from(member)
}

/// Members but hosts.
fn places(fresh: &Fresh) -> impl Iterator<Item = (u64, ())> {
    let sets = fresh.runs().filter(|(key, _)| *key != HOSTS);
    sets.flat_map(|(key, members)| members.iter().map(move |member| (place(key, *member), ())))
}

impl Sets {
    /// For questions about members in ascending order of sets and members.
    pub(super) fn members(&self) -> KnownMembers<'_> {
        KnownMembers(self.members.ascending())
    }

    /// For questions about hosts in ascending order.
    pub(super) fn hosts(&self) -> KnownHosts<'_> {
        KnownHosts(self.hosts.ascending())
    }

    fn add(&mut self, fresh: &Fresh, reached: &[(u32, Reached)]) {
        self.members.add(places(fresh));
        self.hosts.add(reached.iter().map(|(id, reached)| (u64::from(*id), *reached)));
    }

    /// Adds what a delta of the ledger has, and counts the ports that each source has reached. What sources sent is
    /// not in it.
    fn load(&mut self, fresh: &Fresh) {
        self.members.add(places(fresh));
        let ports = fresh.runs().filter(|(key, _)| key & SERVICE_BIT == 0);
        let mut sources: Vec<u32> = ports.flat_map(|(_, members)| members).copied().collect();
        sources.sort_unstable();
        let ports = sources.chunk_by(|a, b| a == b).map(|of| (of[0].into(), Reached::ports(of.len())));
        let hosts = fresh.runs().filter(|(key, _)| *key == HOSTS).flat_map(|(_, members)| members);
        self.hosts.add(join(ports, hosts.map(|id| (u64::from(*id), Reached::HOST))));
    }

    /// Adds the members of each set.
    fn count(&self, sums: &mut BTreeMap<SetKey, u64>) -> io::Result<()> {
        for member in self.members.iter() {
            *sums.entry((member?.0 >> 32) as u32).or_default() += 1;
        }
        for host in self.hosts.iter() {
            if host?.1.is_host() {
                *sums.entry(HOSTS).or_default() += 1;
            }
        }
        Ok(())
    }

    /// All members, hosts last.
    fn iter(&self) -> impl Iterator<Item = io::Result<(SetKey, u32)>> {
        let members =
            self.members.iter().map(|it| it.map(|(place, ())| ((place >> 32) as u32, place as u32)));
        let hosts = self.hosts.iter().filter_map(|it| match it {
            Ok((id, reached)) => reached.is_host().then_some(Ok((HOSTS, id as u32))),
            Err(error) => Some(Err(error)),
        });
        members.chain(hosts)
    }
}

/// Answers questions about members in ascending order of sets and members.
#[derive(Debug)]
pub(super) struct KnownMembers<'a>(Ascending<'a, ()>);

impl KnownMembers<'_> {
    /// Whether the set has the member.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or is damaged.
    pub(super) fn has(&mut self, key: SetKey, member: u32) -> io::Result<bool> {
        Ok(self.0.get(place(key, member))?.is_some())
    }
}

/// Answers questions about hosts in ascending order.
#[derive(Debug)]
pub(super) struct KnownHosts<'a>(Ascending<'a, Reached>);

impl KnownHosts<'_> {
    /// What a host has reached; `None` when the source is none that is remembered.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or is damaged.
    pub(super) fn get(&mut self, host: u32) -> io::Result<Option<Reached>> {
        Ok(self.0.get(host.into())?.filter(Reached::is_host))
    }
}

/// All sets of a day.
#[derive(Debug, Default)]
pub(super) struct DaySets {
    /// Members are addresses, most significant byte first.
    pub(super) v4: Sets,
    /// Members are numbers of addresses.
    pub(super) v6: Sets,
    numbers: HashMap<u128, u32>,
    /// How often [`DaySets::relieve`] is not to try again, since it failed.
    pause: u32,
}

/// New members of the sets of one address family.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fresh {
    /// Keys, ascending, with how many members each gets.
    pub(super) keys: Vec<(SetKey, u32)>,
    /// The members, ascending for each key, one key after the other.
    pub(super) members: Vec<u32>,
}

impl Fresh {
    /// Appends one set's new members; keys come in ascending order.
    pub(super) fn push(&mut self, key: SetKey, members: impl IntoIterator<Item = u32>) {
        let before = self.members.len();
        self.members.extend(members);
        let count = self.members.len() - before;
        if count > 0 {
            self.keys.push((key, count as u32));
        }
    }

    /// Each key with its new members.
    pub(super) fn runs(&self) -> impl Iterator<Item = (SetKey, &[u32])> {
        let mut rest = self.members.as_slice();
        self.keys.iter().map(move |&(key, count)| {
            let (run, behind) = rest.split_at(count as usize);
            rest = behind;
            (key, run)
        })
    }
}

/// What one fold adds to the sets of a day.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    /// New IPv6 addresses, in the order of their numbers.
    pub(super) addresses: Vec<u128>,
    /// New IPv4 members.
    pub(super) v4: Fresh,
    /// New IPv6 members.
    pub(super) v6: Fresh,
}

impl Delta {
    /// Whether there is nothing to add.
    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.v4.keys.is_empty() && self.v6.keys.is_empty()
    }
}

impl DaySets {
    /// The number of an IPv6 address that was seen today.
    pub(super) fn number(&self, address: u128) -> Option<u32> {
        self.numbers.get(&address).copied()
    }

    /// How many IPv6 addresses have a number; they are 0, 1, 2 …
    pub(super) fn addresses(&self) -> u32 {
        self.numbers.len() as u32
    }

    /// How many members each set has that is not empty, over both address families.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or is damaged.
    pub(super) fn count(&self) -> io::Result<BTreeMap<SetKey, u64>> {
        let mut sums = BTreeMap::new();
        self.v4.count(&mut sums)?;
        self.v6.count(&mut sums)?;
        Ok(sums)
    }

    /// Bytes in memory; of IPv6 addresses an estimate.
    pub(super) fn memory(&self) -> u64 {
        let sets: u64 =
            [&self.v4, &self.v6].map(|sets| sets.members.memory() + sets.hosts.memory()).iter().sum();
        sets + self.numbers.len() as u64 * ADDRESS
    }

    /// Bytes on disk.
    pub(super) fn disk(&self) -> u64 {
        [&self.v4, &self.v6].map(|sets| sets.members.disk() + sets.hosts.disk()).iter().sum()
    }

    /// Takes in a delta, and what the sources have reached.
    pub(super) fn apply(&mut self, delta: &Delta, [v4, v6]: &[Reach; 2]) {
        self.number_all(&delta.addresses);
        self.v4.add(&delta.v4, v4);
        self.v6.add(&delta.v6, v6);
    }

    /// Takes in a delta as the ledger has it, without what the sources sent.
    pub(super) fn load(&mut self, delta: &Delta) {
        self.number_all(&delta.addresses);
        self.v4.load(&delta.v4);
        self.v6.load(&delta.v6);
    }

    fn number_all(&mut self, addresses: &[u128]) {
        let first = self.addresses();
        self.numbers.reserve(addresses.len());
        for (address, number) in addresses.iter().zip(first..) {
            self.numbers.insert(*address, number);
        }
    }

    /// Moves members to a file on the file system of `directory` while they take more than `limits` say; returns
    /// whether any moved.
    ///
    /// # Errors
    ///
    /// They cannot be written; all are where they were then.
    pub(super) fn relieve(&mut self, limits: &SetLimits, directory: &Path) -> io::Result<bool> {
        if self.memory() <= limits.spill {
            self.pause = 0;
            return Ok(false);
        }
        if self.pause > 0 {
            self.pause -= 1;
            return Ok(false);
        }
        let moved = self.spill(limits, directory);
        self.pause = if moved.is_err() { PAUSE } else { 0 };
        moved
    }

    fn spill(&mut self, limits: &SetLimits, directory: &Path) -> io::Result<bool> {
        let mut moved = false;
        // Members first: each fold asks for every host that sent.
        for what in 0..4 {
            if self.memory() <= limits.spill || self.disk() > limits.disk {
                break;
            }
            let least = limits.least;
            moved |= match what {
                0 => spill(&mut self.v4.members, least, directory)?,
                1 => spill(&mut self.v6.members, least, directory)?,
                2 => spill(&mut self.v4.hosts, least, directory)?,
                _ => spill(&mut self.v6.hosts, least, directory)?,
            };
        }
        Ok(moved)
    }

    #[cfg(test)]
    pub(super) fn files(&self) -> impl Iterator<Item = &std::fs::File> {
        [&self.v4, &self.v6].into_iter().flat_map(|sets| sets.members.files().chain(sets.hosts.files()))
    }

    /// The whole day as deltas, one after the other.
    pub(super) fn snapshot(&self) -> impl Iterator<Item = io::Result<Delta>> {
        let mut addresses = vec![0; self.numbers.len()];
        for (address, number) in &self.numbers {
            addresses[*number as usize] = *address;
        }
        let first = Delta { addresses, ..Delta::default() };
        let v4 = chunks(self.v4.iter()).map(|it| it.map(|v4| Delta { v4, ..Delta::default() }));
        let v6 = chunks(self.v6.iter()).map(|it| it.map(|v6| Delta { v6, ..Delta::default() }));
        std::iter::once(Ok(first))
            .chain(v4)
            .chain(v6)
            .filter(|it| it.as_ref().map_or(true, |it| !it.is_empty()))
    }
}

fn spill<V: Known>(runs: &mut Runs<V>, least: u64, directory: &Path) -> io::Result<bool> {
    let is_worth = runs.in_memory() >= least;
    if is_worth {
        runs.spill(directory)?;
    }
    Ok(is_worth)
}

/// Ascending members, [`PART`] at a time.
fn chunks(
    mut members: impl Iterator<Item = io::Result<(SetKey, u32)>>,
) -> impl Iterator<Item = io::Result<Fresh>> {
    std::iter::from_fn(move || {
        let mut fresh = Fresh::default();
        while fresh.members.len() < PART {
            match members.next() {
                Some(Ok((key, member))) => {
                    match fresh.keys.last_mut() {
                        Some((last, count)) if *last == key => *count += 1,
                        _ => fresh.keys.push((key, 1)),
                    }
                    fresh.members.push(member);
                }
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        (!fresh.keys.is_empty()).then_some(Ok(fresh))
    })
}

/// What is left of [`SetLimits::memory`] while a fold decides which sources it can remember.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance(u64);

impl Allowance {
    /// What `sets` leave of `limits`.
    pub(super) fn new(limits: &SetLimits, sets: &DaySets) -> Self {
        Self(limits.memory.saturating_sub(sets.memory()))
    }

    fn take(&mut self, bytes: u64) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    /// Reserves room for one new member of one set.
    pub(super) fn member(&mut self) -> bool {
        self.take(MEMBER)
    }

    /// Reserves room for one new host.
    pub(super) fn host(&mut self) -> bool {
        self.take(HOST)
    }

    /// Reserves room for one new IPv6 address.
    pub(super) fn address(&mut self) -> bool {
        self.take(ADDRESS)
    }
}

/// Writes a delta as bytes, in parts of at most `part` bytes before compression; the parts are
/// read back one after the other.
pub(super) fn encode(delta: &Delta, part: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut parts = Parts { part, current: Vec::new(), done: Vec::new() };
    // Each part: addresses (count, 16 bytes each), then for both families: runs of (key + 1, count,
    // first member, differences), ended by 0.
    let mut addresses = delta.addresses.chunks((part / 16).max(1)).peekable();
    loop {
        let chunk = addresses.next().unwrap_or_default();
        put(&mut parts.current, chunk.len() as u64);
        for address in chunk {
            parts.current.extend_from_slice(&address.to_be_bytes());
        }
        if addresses.peek().is_none() {
            break;
        }
        parts.current.extend_from_slice(&[0, 0]);
        parts.cut()?;
    }
    put_runs(&mut parts, &delta.v4, &[0], &[0])?;
    put_runs(&mut parts, &delta.v6, &[], &[0, 0])?;
    parts.cut()?;
    Ok(parts.done)
}

struct Parts {
    part: usize,
    current: Vec<u8>,
    done: Vec<Vec<u8>>,
}

impl Parts {
    fn cut(&mut self) -> io::Result<()> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1)?;
        encoder.include_checksum(true)?;
        encoder.write_all(&self.current)?;
        self.current.clear();
        self.done.push(encoder.finish()?);
        Ok(())
    }
}

/// Writes the runs of one family. A part that is full is ended with the family's end mark and
/// `behind` (the families still to come, empty) and the next begins with `before` (no addresses, and
/// the families already done, empty).
fn put_runs(parts: &mut Parts, fresh: &Fresh, behind: &[u8], before: &[u8]) -> io::Result<()> {
    for (key, members) in fresh.runs() {
        for members in members.chunks((parts.part / 5).max(1)) {
            if parts.current.len() >= parts.part {
                parts.current.push(0);
                parts.current.extend_from_slice(behind);
                parts.cut()?;
                parts.current.extend_from_slice(before);
            }
            put(&mut parts.current, u64::from(key) + 1);
            put(&mut parts.current, members.len() as u64);
            let mut previous = 0;
            for member in members {
                put(&mut parts.current, u64::from(member - previous));
                previous = *member;
            }
        }
    }
    parts.current.push(0);
    Ok(())
}

/// Reads one part back.
///
/// # Errors
///
/// The bytes are not what [`encode`] writes; the message says what was found.
pub(super) fn decode(bytes: &[u8]) -> Result<Delta, String> {
    let mut plain = Vec::new();
    zstd::Decoder::new(bytes)
        .and_then(|mut decoder| decoder.read_to_end(&mut plain))
        .map_err(|error| format!("source sets: {error}"))?;
    let mut at = plain.as_slice();
    let read = |at: &mut &[u8]| get(at).ok_or_else(|| "source sets: cut short".to_owned());
    let mut delta = Delta::default();
    for _ in 0..read(&mut at)? {
        let (address, rest) = at.split_first_chunk().ok_or("source sets: cut short")?;
        delta.addresses.push(u128::from_be_bytes(*address));
        at = rest;
    }
    for fresh in [&mut delta.v4, &mut delta.v6] {
        let mut last = None;
        loop {
            let key = read(&mut at)?;
            if key == 0 {
                break;
            }
            let key = u32::try_from(key - 1).map_err(|_| "source sets: no such target")?;
            let count = read(&mut at)?;
            let mut member = 0_u32;
            let before = fresh.members.len();
            for nth in 0..count {
                let step = u32::try_from(read(&mut at)?).ok().filter(|step| nth == 0 || *step > 0);
                member = step
                    .and_then(|step| member.checked_add(step))
                    .ok_or("source sets: members out of order")?;
                fresh.members.push(member);
                if last.replace(place(key, member)).is_some_and(|last| last >= place(key, member)) {
                    return Err("source sets: targets out of order".to_owned());
                }
            }
            fresh.keys.push((key, (fresh.members.len() - before) as u32));
        }
    }
    if at.is_empty() { Ok(delta) } else { Err("source sets: more than expected".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::super::breadth::BreadthChange;
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    type Model = BTreeMap<SetKey, BTreeSet<u32>>;

    fn fresh(model: &Model) -> Fresh {
        let mut fresh = Fresh::default();
        for (key, members) in model {
            fresh.push(*key, members.iter().copied());
        }
        fresh
    }

    fn model() -> impl Strategy<Value = Model> {
        let key = prop_oneof![0..5_u32, Just(SERVICE_BIT | 3), Just(HOSTS)];
        let member = prop_oneof![any::<u32>(), 0..300_u32];
        prop::collection::btree_map(key, prop::collection::btree_set(member, 1..60), 0..6)
    }

    proptest! {
        #[test]
        fn a_delta_is_read_back_as_written_in_any_number_of_parts(
            v4 in model(), v6 in model(), addresses in prop::collection::vec(any::<u128>(), 0..40),
            part in 1..600_usize,
        ) {
            let delta = Delta { addresses: addresses.clone(), v4: fresh(&v4), v6: fresh(&v6) };
            let (mut seen, mut seen_v4, mut seen_v6) = (Vec::new(), Model::new(), Model::new());
            for bytes in encode(&delta, part).unwrap() {
                let read = decode(&bytes).unwrap();
                seen.extend(&read.addresses);
                for (key, members) in read.v4.runs() {
                    seen_v4.entry(key).or_default().extend(members);
                }
                for (key, members) in read.v6.runs() {
                    seen_v6.entry(key).or_default().extend(members);
                }
            }
            prop_assert_eq!((seen, seen_v4, seen_v6), (addresses, v4, v6));
        }

        #[test]
        fn damaged_bytes_are_refused_and_never_panic(
            v4 in model(), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let delta = Delta { v4: fresh(&v4), ..Delta::default() };
            let mut bytes = encode(&delta, 1 << 20).unwrap().remove(0);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            // The frame header has bits without meaning, so an undamaged result is fine too.
            if let Ok(read) = decode(&bytes) {
                prop_assert_eq!(read, delta);
            }
        }

        /// Folds of pairs that may be known already, restarts, and everything moved to disk in between.
        #[test]
        fn sets_hold_the_union_whatever_was_loaded_again_or_moved(
            steps in prop::collection::vec((model(), 0..4_u8), 1..8),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let everything = SetLimits { spill: 0, least: 0, ..SetLimits::DAY };
            let mut sets = DaySets::default();
            let mut ledger = Vec::new();
            let mut union = Model::new();
            for (mut step, then) in steps {
                // A source of a target that is no service is a host.
                let of_ports = step.iter().filter(|(key, _)| *key & SERVICE_BIT == 0);
                let hosts: BTreeSet<u32> = of_ports.flat_map(|(_, members)| members).copied().collect();
                step.remove(&HOSTS);
                let mut new = Model::new();
                let mut ports: BTreeMap<u32, u8> = BTreeMap::new();
                let mut known = sets.v4.members();
                for (key, members) in &step {
                    for member in members {
                        let is_known = union.get(key).is_some_and(|known| known.contains(member));
                        prop_assert_eq!(known.has(*key, *member).unwrap(), is_known);
                        if !is_known {
                            new.entry(*key).or_default().insert(*member);
                            *ports.entry(*member).or_default() += u8::from(key & SERVICE_BIT == 0);
                        }
                    }
                }
                let mut known = sets.v4.hosts();
                let mut reached = Vec::new();
                let mut change = BreadthChange::default();
                for host in hosts {
                    let before = known.get(host).unwrap();
                    let is_known = union.get(&HOSTS).is_some_and(|known| known.contains(&host));
                    prop_assert_eq!(before.is_some(), is_known);
                    if !is_known {
                        new.entry(HOSTS).or_default().insert(host);
                    }
                    let new_ports = ports.get(&host).copied().unwrap_or(0);
                    reached.push((host, change.moved(before, !is_known, new_ports, 3).unwrap()));
                }
                let delta = Delta { v4: fresh(&new), ..Delta::default() };
                sets.apply(&delta, &[reached, Vec::new()]);
                ledger.extend(encode(&delta, 50).unwrap());
                for (key, members) in new {
                    union.entry(key).or_default().extend(members);
                }
                match then {
                    0 => {
                        sets = DaySets::default();
                        for bytes in &ledger {
                            sets.load(&decode(bytes).unwrap());
                        }
                    }
                    1 => {
                        let deltas: Vec<Delta> = sets.snapshot().collect::<io::Result<_>>().unwrap();
                        ledger = deltas.iter().flat_map(|delta| encode(delta, 80).unwrap()).collect();
                    }
                    2 => {
                        let memory = sets.memory();
                        prop_assert_eq!(sets.relieve(&everything, directory.path()).unwrap(), memory > 0);
                    }
                    _ => {}
                }
                let lens: BTreeMap<SetKey, u64> =
                    union.iter().map(|(key, members)| (*key, members.len() as u64)).collect();
                prop_assert_eq!(sets.count().unwrap(), lens);
                // As many ports as sets that have it, whatever was loaded again.
                let mut known = sets.v4.hosts();
                for host in union.get(&HOSTS).into_iter().flatten() {
                    let ports = union.iter().filter(|(key, members)| **key & SERVICE_BIT == 0 && members.contains(host));
                    let mut counted = known.get(*host).unwrap().unwrap();
                    counted.forget_accesses();
                    prop_assert_eq!(counted, Reached::ports(ports.count()).and(Reached::HOST));
                }
            }
        }
    }

    #[test]
    fn what_cannot_move_to_disk_stays_and_is_tried_again_later() {
        let directory = tempfile::tempdir().unwrap();
        let mut sets = DaySets::default();
        let mut delta = Delta::default();
        delta.v4.push(7, [1, 2, 3]);
        sets.apply(&delta, &[Vec::new(), Vec::new()]);
        let everything = SetLimits { spill: 0, least: 0, ..SetLimits::DAY };
        let missing = directory.path().join("missing");
        sets.relieve(&everything, &missing).unwrap_err();
        for _ in 0..PAUSE {
            assert!(!sets.relieve(&everything, directory.path()).unwrap());
        }
        assert_eq!((sets.count().unwrap()[&7], sets.disk()), (3, 0));
        assert!(sets.relieve(&everything, directory.path()).unwrap());
        assert_eq!((sets.count().unwrap()[&7], sets.disk() > 0), (3, true));
        // Beyond the bound of the disk nothing moves.
        delta.v4 = Fresh::default();
        delta.v4.push(7, [4]);
        sets.apply(&delta, &[Vec::new(), Vec::new()]);
        assert!(!sets.relieve(&SetLimits { disk: 0, ..everything }, directory.path()).unwrap());
        assert_eq!(sets.count().unwrap()[&7], 4);
    }

    #[test]
    fn members_of_targets_out_of_order_are_refused() {
        for keys in [[(8, 1), (7, 1)], [(7, 1), (7, 1)]] {
            let fresh = Fresh { keys: keys.to_vec(), members: vec![5, 5] };
            let bytes = encode(&Delta { v4: fresh, ..Delta::default() }, 1 << 20).unwrap().remove(0);
            assert_eq!(decode(&bytes).unwrap_err(), "source sets: targets out of order");
        }
    }

    #[test]
    fn an_allowance_ends_with_the_memory() {
        let sets = DaySets::default();
        let mut allowance = Allowance::new(&SetLimits { memory: 2 * MEMBER + HOST, ..SetLimits::DAY }, &sets);
        assert!(allowance.member() && allowance.host() && allowance.member());
        assert!(!allowance.member() && !allowance.host() && !allowance.address());
    }

    /// A pseudo-random number for each number.
    fn scattered(number: u64) -> u64 {
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// `cargo test -p sensor-user --lib a_million_pairs -- --nocapture` prints what they take.
    #[test]
    fn a_million_pairs_take_at_most_eight_mebibytes_however_they_are_spread() {
        type Pair<'a> = &'a dyn Fn(u64) -> (SetKey, u32);
        const PAIRS: u64 = 1_000_000;
        let source = |number: u64| scattered(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) as u32;
        let spreads: [(&str, Pair<'_>); 5] = [
            ("sources all over the address space, one port", &|nth| (445, source(nth))),
            ("the same, 32 ports", &|nth| ((nth % 32) as u32 * 1000, source(nth))),
            ("the same, any port", &|nth| (source(nth + PAIRS) & 0xffff, source(nth))),
            ("sixteen scanners of all ports", &|nth| ((nth / 16) as u32, source(nth % 16))),
            ("neighbours, four ports", &|nth| ((nth % 4) as u32, 0x0a00_0000 + (nth / 4) as u32)),
        ];
        for (what, pair) in spreads {
            let mut sets = DaySets::default();
            let mut pairs = 0;
            for fold in 0..4 {
                let all: BTreeSet<(SetKey, u32)> =
                    (fold * PAIRS / 4..(fold + 1) * PAIRS / 4).map(pair).collect();
                let hosts: BTreeSet<u32> = all.iter().map(|(_, source)| *source).collect();
                let mut delta = Delta::default();
                let mut known = sets.v4.members();
                let all: Vec<_> =
                    all.into_iter().filter(|(key, id)| !known.has(*key, *id).unwrap()).collect();
                for of_set in all.chunk_by(|a, b| a.0 == b.0) {
                    delta.v4.push(of_set[0].0, of_set.iter().map(|(_, source)| *source));
                }
                pairs += all.len() as u64;
                let mut known = sets.v4.hosts();
                let mut change = BreadthChange::default();
                let reached = hosts
                    .iter()
                    .map(|host| {
                        let before = known.get(*host).unwrap();
                        (*host, change.moved(before, before.is_none(), 1, 3).unwrap())
                    })
                    .collect();
                sets.apply(&delta, &[reached, Vec::new()]);
            }
            let mebibytes = sets.memory() as f64 / f64::from(1 << 20) / (pairs as f64 / 1e6);
            println!("{what}: {mebibytes:.2} MiB for each million of {pairs} pairs");
            assert!(mebibytes <= 8.0, "{what}: {mebibytes}");
            assert!(pairs > PAIRS - 1000);
        }
    }
}
