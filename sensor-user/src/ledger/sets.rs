//! Who has been seen today: one set of sources for each target, and one of all hosts.
//!
//! IPv4 sources are in the sets as they are; IPv6 addresses get a number, dense within the day, and
//! the sets hold that.
//!
//! Memory is bounded by [`BUDGET`]. The estimate is an upper one: [`MEMBER`] bytes for each pair of
//! source and target, [`CONTAINER`] for each bitmap container (65,536 neighbouring addresses at one
//! target), [`REACHED`] for each host and [`ADDRESS`] for each IPv6 address. A source that no longer fits is not remembered and
//! therefore must not be counted, or it would count again with its next packet; it goes into
//! `set_overflow`, so cumulative sources and hosts are then a lower bound that says by how much it
//! may be low.
//!
//! What a fold adds is stored as one *delta*: the new members only, as differences of sorted numbers
//! in LEB128 varints, in a zstd frame with a checksum. All deltas of a day in order make its sets.

use super::breadth::{REACHED, Reach};
use super::members::{CONTAINER, MEMBER, Members};
use sensor_common::layout::SERVICE_BIT;
use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};

/// Bytes that the sets of a day may take, estimated: 1 GiB. That holds at least 5 million sources of one
/// port each, when each is alone in its containers, and hundreds of millions of pairs when sources are dense.
pub(super) const BUDGET: u64 = 1 << 30;
/// Estimated bytes of one IPv6 address in the table of numbers.
const ADDRESS: u64 = 96;

/// Key of a set: [`sensor_common::Slot::index`], with [`SERVICE_BIT`] for services, or [`HOSTS`].
pub(super) type SetKey = u32;
/// Key of the set of all hosts that sent an access.
pub(super) const HOSTS: SetKey = u32::MAX;
const _: () =
    assert!(HOSTS & SERVICE_BIT != 0 && (HOSTS & !SERVICE_BIT) as usize > sensor_common::Slot::COUNT);

/// The sets of one address family.
#[derive(Debug, Default)]
pub(super) struct Sets {
    by_key: HashMap<SetKey, Members>,
    /// How many ports each source has reached, and what it sent.
    pub(super) reach: Reach,
}

impl Sets {
    /// The members of one set; `None` when it is empty.
    pub(super) fn get(&self, key: SetKey) -> Option<&Members> {
        self.by_key.get(&key)
    }

    /// How many members one set has.
    pub(super) fn len(&self, key: SetKey) -> u64 {
        self.get(key).map_or(0, Members::len)
    }

    /// All keys, ascending.
    pub(super) fn keys(&self) -> Vec<SetKey> {
        let mut keys: Vec<SetKey> = self.by_key.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// Adds ascending members; returns by how much the estimate changed, up or down.
    fn add(&mut self, key: SetKey, members: &[u32]) -> i64 {
        let set = self.by_key.entry(key).or_default();
        let before = set.cost();
        set.add(members);
        let reached = if key == HOSTS { members.len() as u64 * REACHED } else { 0 };
        set.cost() as i64 - before as i64 + reached as i64
    }

    /// Counts the ports of each source again, as the sets hold them.
    fn count_ports(&mut self) {
        let hosts = self.by_key.get(&HOSTS).into_iter().flat_map(Members::iter);
        let sets = self.by_key.iter().map(|(key, members)| (*key, members.iter()));
        self.reach = Reach::counted(hosts, sets);
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
    cost: u64,
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

    /// How many members the set has, over both address families.
    pub(super) fn len(&self, key: SetKey) -> u64 {
        self.v4.len(key) + self.v6.len(key)
    }

    /// All keys, ascending.
    pub(super) fn keys(&self) -> Vec<SetKey> {
        let mut keys = self.v4.keys();
        keys.extend(self.v6.keys());
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Estimated bytes.
    #[cfg(test)]
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// Takes in a delta.
    pub(super) fn apply(&mut self, delta: &Delta) {
        let first = self.addresses();
        self.numbers.reserve(delta.addresses.len());
        for (address, number) in delta.addresses.iter().zip(first..) {
            self.numbers.insert(*address, number);
        }
        self.cost += delta.addresses.len() as u64 * ADDRESS;
        for (key, members) in delta.v4.runs() {
            self.cost = self.cost.saturating_add_signed(self.v4.add(key, members));
        }
        for (key, members) in delta.v6.runs() {
            self.cost = self.cost.saturating_add_signed(self.v6.add(key, members));
        }
    }

    /// Counts the ports of each source again, as the sets hold them. What sources sent is not in the sets.
    pub(super) fn count_ports(&mut self) {
        self.v4.count_ports();
        self.v6.count_ports();
    }

    /// The whole day as one delta.
    pub(super) fn snapshot(&self) -> Delta {
        let mut addresses = vec![0; self.numbers.len()];
        for (address, number) in &self.numbers {
            addresses[*number as usize] = *address;
        }
        let mut delta = Delta { addresses, ..Delta::default() };
        for key in self.v4.keys() {
            delta.v4.push(key, self.v4.get(key).into_iter().flat_map(Members::iter));
        }
        for key in self.v6.keys() {
            delta.v6.push(key, self.v6.get(key).into_iter().flat_map(Members::iter));
        }
        delta
    }
}

/// What is left of [`BUDGET`] while a fold decides which sources it can remember.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    left: u64,
    last: Option<(SetKey, u32)>,
}

impl Allowance {
    /// What `sets` leave of `budget`.
    pub(super) fn new(budget: u64, sets: &DaySets) -> Self {
        Self { left: budget.saturating_sub(sets.cost), last: None }
    }

    fn take(&mut self, bytes: u64) -> bool {
        let enough = self.left >= bytes;
        if enough {
            self.left -= bytes;
        }
        enough
    }

    /// Reserves room for one new member of one set; members are asked for in ascending order.
    pub(super) fn member(&mut self, key: SetKey, member: u32) -> bool {
        let container = Some((key, member >> 16));
        let reached = if key == HOSTS { REACHED } else { 0 };
        let fits = self.take(MEMBER + reached + if self.last == container { 0 } else { CONTAINER });
        if fits {
            self.last = container;
        }
        fits
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
            }
            fresh.keys.push((key, (fresh.members.len() - before) as u32));
        }
    }
    if at.is_empty() { Ok(delta) } else { Err("source sets: more than expected".to_owned()) }
}

/// LEB128.
fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn get(at: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = at.split_first()?;
        *at = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
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

        #[test]
        fn sets_hold_the_union_and_a_snapshot_makes_them_again(
            steps in prop::collection::vec(model(), 1..6),
        ) {
            let mut sets = DaySets::default();
            let mut union = Model::new();
            for step in steps {
                let mut news = Model::new();
                for (key, members) in step {
                    let known = union.entry(key).or_default();
                    let new: BTreeSet<u32> = members.difference(known).copied().collect();
                    known.extend(&new);
                    news.insert(key, new);
                }
                sets.apply(&Delta { v4: fresh(&news), ..Delta::default() });
            }
            let mut again = DaySets::default();
            again.apply(&sets.snapshot());
            for (key, members) in &union {
                prop_assert_eq!(sets.len(*key), members.len() as u64);
                prop_assert!(sets.v4.get(*key).unwrap().iter().eq(members.iter().copied()));
                prop_assert!(again.v4.get(*key).unwrap().iter().eq(members.iter().copied()));
            }
            prop_assert_eq!(sets.cost(), again.cost());
        }
    }

    #[test]
    fn the_estimate_counts_members_containers_and_addresses() {
        let mut sets = DaySets::default();
        let mut delta = Delta { addresses: vec![1, 2], ..Delta::default() };
        // Two neighbours share a container, the third has its own.
        delta.v4.push(7, [0x0a00_0001, 0x0a00_0002, 0x0b00_0001]);
        delta.v6.push(7, [0, 1]);
        sets.apply(&delta);
        assert_eq!(sets.cost(), 2 * ADDRESS + (3 + 2) * MEMBER + (2 + 1) * CONTAINER);
    }

    #[test]
    fn an_allowance_ends_with_the_budget() {
        let sets = DaySets::default();
        let mut allowance = Allowance::new(CONTAINER + 2 * MEMBER, &sets);
        assert!(allowance.member(1, 10));
        assert!(allowance.member(1, 11));
        assert!(!allowance.member(1, 12));
        assert!(!allowance.address());
    }
}
