//! Pins of a layout before this one, read by the rules of their own version; and those of this one that were set
//! aside, because their generations have another number of blocks.
//!
//! A version's memory is described here by numbers that do not change once a release has been made, so
//! whatever the structures in `sensor_common::layout` become, a generation is only read by the rules it was
//! written by. A change of `LAYOUT_VERSION` keeps the description of the version before and adds one of the new version.

use super::drained::Counted;
use super::generation::Generation;
use super::pin_files::{Home, remove_tree};
use super::sys::{self, Mapping};
use super::table::SourceTable;
use super::{Drained, KernelError};
use crate::counters::detail::Details;
use crate::observation::Target;
use crate::observation::aggregate::AccessV4;
use sensor_common::layout::LAYOUT_VERSION;
use sensor_common::{Class, Flaw, LinkProtocol, Slot, Tool};
use sensor_counters::{Series, Unread};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where everything lies in the blocks of a version. Places are bytes from the start of the block, counts
/// are of entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) version: u64,
    /// Bytes of a block.
    pub(super) block: usize,
    generation: usize,
    ledger: usize,
    began: usize,
    log_v4_len: usize,
    log_v6_len: usize,
    packets: usize,
    bytes: usize,
    tools: usize,
    overflow: usize,
    service_overflow: usize,
    table_packets: usize,
    malformed: usize,
    assumed: usize,
    /// Entries of protocol (4 bytes), padding (4), and frames (8).
    unread: usize,
    unread_kinds: usize,
    unread_other: usize,
    /// One bit for each slot.
    services: usize,
    service_words: usize,
    ports: usize,
    backscatter: usize,
    slots: usize,
    /// Records of source (4 bytes) and target (4): the slot above 5 bits of tool, 31 for a service.
    log_v4: usize,
    log_v4_records: usize,
    /// Records of source (16 bytes) and target (4).
    log_v6: usize,
    log_v6_records: usize,
    /// In the order of the counters.
    classes: &'static [Class],
    /// In the order of the counters.
    tool_names: &'static [Tool],
    /// In the order of the counters.
    flaws: &'static [Flaw],
}

/// Every version that there is, this one included: it will be an earlier one.
pub(super) const SHAPES: &[Shape] = &[V1];

pub(super) const V1: Shape = Shape {
    version: 1,
    block: 9_478_144,
    generation: 8,
    ledger: 16,
    began: 24,
    log_v4_len: 32,
    log_v6_len: 40,
    packets: 48,
    bytes: 128,
    tools: 208,
    overflow: 264,
    service_overflow: 272,
    table_packets: 280,
    malformed: 288,
    assumed: 320,
    unread: 328,
    unread_kinds: 16,
    unread_other: 584,
    services: 760,
    service_words: 3_072,
    ports: 25_336,
    backscatter: 1_604_344,
    slots: 197_376,
    log_v4: 3_183_352,
    log_v4_records: 524_288,
    log_v6: 7_377_656,
    log_v6_records: 65_536,
    classes: &[
        Class::NonIp,
        Class::Malformed,
        Class::Fragment,
        Class::OtherDestination,
        Class::Excluded,
        Class::Service,
        Class::Solicited,
        Class::Backscatter,
        Class::Access,
        Class::Other,
    ],
    tool_names: &[
        Tool::Other,
        Tool::Zmap,
        Tool::Masscan,
        Tool::Mirai,
        Tool::Zmap4,
        Tool::Nmap,
        Tool::Stateless,
    ],
    flaws: &[Flaw::Truncated, Flaw::BadHeader, Flaw::Extensions, Flaw::Unknown],
};

/// What is pinned of one earlier version, or set aside.
#[derive(Debug)]
pub(super) struct Earlier {
    root: PathBuf,
    shape: Shape,
}

impl Earlier {
    /// The pins in `home`, when that is of a version among `shapes`.
    pub(super) fn find(home: Home, shapes: &[Shape]) -> Option<Self> {
        let shape = shapes.iter().find(|it| it.version == home.version)?;
        Some(Self { root: home.path, shape: *shape })
    }

    /// The pins of this version in `root`.
    pub(super) fn of_this_version(root: &Path) -> Self {
        let shape = SHAPES.iter().find(|it| it.version == LAYOUT_VERSION);
        Self { root: root.to_owned(), shape: *shape.expect("this version's layout is described") }
    }

    /// Where its pins are.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The highest number of its generations.
    ///
    /// # Errors
    ///
    /// What `bpf(2)` and `mmap(2)` return.
    pub(super) fn last_number(&self) -> Result<u64, KernelError> {
        Ok(self.generations()?.iter().map(Memory::number).max().unwrap_or(0))
    }

    /// What its generations hold that were or are counted into, in the order of their numbers; some may
    /// be in the ledger already. The last one counts until `ended`, nanoseconds of `monotonic_nanos`.
    ///
    /// Nothing may be attached that counts into them: what still runs is waited for.
    ///
    /// # Errors
    ///
    /// What `bpf(2)` and `mmap(2)` return.
    pub(super) fn read(&self, ended: u64) -> Result<Vec<Drained>, KernelError> {
        let mut generations = self.generations()?;
        let outer = self.open("maps/GENERATION")?;
        let current = match &outer {
            Some(outer) => {
                sys::inner_id(outer.as_fd()).map_err(KernelError::map("read the earlier generation"))?
            }
            None => None,
        };
        if let Some(current) = generations.iter().find(|it| Some(it.id) == current) {
            // One with a higher number was prepared and never became current.
            let number = current.number();
            if let Some(outer) = &outer {
                // The kernel waits until no program runs any more that might have found another.
                sys::set_inner(outer.as_fd(), current.map.as_fd())
                    .map_err(KernelError::map("wait for the earlier program"))?;
            }
            generations.retain(|it| it.number() <= number);
        }
        let ends: Vec<u64> = generations.iter().skip(1).map(Memory::began).chain([ended]).collect();
        generations.iter().zip(ends).map(|(memory, ended)| self.drained(memory, ended)).collect()
    }

    fn drained(&self, memory: &Memory, ended: u64) -> Result<Drained, KernelError> {
        let (number, began) = (memory.number(), memory.began());
        let counted = if self.shape.version == LAYOUT_VERSION {
            let doing = format!("read {}", self.root.display());
            memory.read_as_this_version().map_err(KernelError::map(doing))?
        } else {
            memory.read()
        };
        let mut entries = Vec::new();
        if counted.table_packets > 0 {
            for name in ["maps/SOURCES_old", "maps/SOURCES"] {
                if let Some(table) = self.open(name)? {
                    let read = SourceTable::new(table).read(number, &mut entries);
                    read.map_err(KernelError::map("read the earlier source table"))?;
                }
            }
        }
        Ok(Drained::new(
            (number, memory.ledger()),
            (began, ended.saturating_sub(began)),
            counted,
            memory.services(),
            entries,
        ))
    }

    /// Those with a number, ascending.
    fn generations(&self) -> Result<Vec<Memory>, KernelError> {
        let mut generations = Vec::new();
        for name in ["generation-a", "generation-b"] {
            if let Some(map) = self.open(name)? {
                let doing = || format!("read {}", self.root.join(name).display());
                generations.push(Memory::new(map, &self.shape).map_err(KernelError::map(doing()))?);
            }
        }
        generations.retain(|it| it.number() != 0);
        generations.sort_unstable_by_key(Memory::number);
        Ok(generations)
    }

    /// Opens what is pinned there; `None` when nothing is.
    fn open(&self, name: &str) -> Result<Option<OwnedFd>, KernelError> {
        let path = self.root.join(name);
        match sys::open_pinned(&path) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(KernelError::map(format!("open {}", path.display()))(error)),
        }
    }

    /// Removes its pins.
    pub(super) fn remove(self) -> Result<(), KernelError> {
        remove_tree(&self.root)
    }
}

/// A generation of an earlier version.
struct Memory {
    map: OwnedFd,
    id: u32,
    cpus: usize,
    mapping: Mapping,
    shape: Shape,
}

impl Memory {
    fn new(map: OwnedFd, shape: &Shape) -> io::Result<Self> {
        let info = sys::map_info(map.as_fd())?;
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        if info.value_size as usize != shape.block {
            let (found, version, block) = (info.value_size, shape.version, shape.block);
            return Err(wrong(format!("its blocks have {found} bytes, those of layout v{version} {block}")));
        }
        let cpus = info.max_entries as usize;
        let mapping = Mapping::new(map.as_fd(), 0, cpus * shape.block)?;
        let memory = Self { map, id: info.id, cpus, mapping, shape: *shape };
        // The version is the first word of every layout.
        match memory.word(0, 0) {
            version if version == shape.version || memory.number() == 0 => Ok(memory),
            version => Err(wrong(format!("it says that its layout is v{version}, not v{}", shape.version))),
        }
    }

    fn words(&self, cpu: usize, at: usize, count: usize) -> &[u64] {
        assert!(cpu < self.cpus && at.is_multiple_of(8) && at + count * 8 <= self.shape.block);
        // SAFETY: within the mapping, which is page-aligned as is each block, so words are aligned; no
        // program writes there any more, but for a number or a time that is read by itself.
        unsafe {
            std::slice::from_raw_parts(self.mapping.as_ptr().add(cpu * self.shape.block + at).cast(), count)
        }
    }

    fn bytes(&self, cpu: usize, at: usize, count: usize) -> &[u8] {
        assert!(cpu < self.cpus && at + count <= self.shape.block);
        // SAFETY: as above; bytes need no alignment.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr().add(cpu * self.shape.block + at), count) }
    }

    fn word(&self, cpu: usize, at: usize) -> u64 {
        self.words(cpu, at, 1)[0]
    }

    fn number(&self) -> u64 {
        self.word(0, self.shape.generation)
    }

    fn ledger(&self) -> u64 {
        self.word(0, self.shape.ledger)
    }

    fn began(&self) -> u64 {
        self.word(0, self.shape.began)
    }

    /// What were services while it counted.
    fn services(&self) -> std::collections::BTreeSet<Slot> {
        let words = self.words(0, self.shape.services, self.shape.service_words);
        let bits = (0..words.len() * 64).filter(|index| words[index / 64] >> (index % 64) & 1 != 0);
        bits.filter_map(|index| Slot::from_index(index as u32)).collect()
    }

    /// Adds up what all CPUs counted in a generation of this version, which has more than [`Shape`] tells.
    fn read_as_this_version(&self) -> io::Result<Counted> {
        Ok(Generation::from_map(self.map.try_clone()?, self.cpus)?.whole()?.read())
    }

    /// Adds up what all CPUs counted.
    fn read(&self) -> Counted {
        let Shape { classes, tool_names, slots, .. } = self.shape;
        let mut counted = Counted::default();
        let (mut ports, mut backscatter) = (vec![0_u64; slots], vec![0_u64; slots]);
        for cpu in 0..self.cpus {
            for (class, packets) in classes.iter().zip(self.words(cpu, self.shape.packets, classes.len())) {
                counted.counts.packets[*class as usize] += packets;
            }
            for (class, bytes) in classes.iter().zip(self.words(cpu, self.shape.bytes, classes.len())) {
                counted.counts.bytes[*class as usize] += bytes;
            }
            for (tool, packets) in tool_names.iter().zip(self.words(cpu, self.shape.tools, tool_names.len()))
            {
                counted.counts.tools[*tool as usize] += packets;
            }
            counted.overflow += self.word(cpu, self.shape.overflow);
            counted.service_overflow += self.word(cpu, self.shape.service_overflow);
            counted.table_packets += self.word(cpu, self.shape.table_packets);
            self.read_details(cpu, &mut counted.counts.details);
            for (sum, packets) in ports.iter_mut().zip(self.words(cpu, self.shape.ports, slots)) {
                *sum += packets;
            }
            for (sum, packets) in backscatter.iter_mut().zip(self.words(cpu, self.shape.backscatter, slots)) {
                *sum += packets;
            }
            let length = |at, most: usize| (self.word(cpu, at) as usize).min(most);
            let records = length(self.shape.log_v4_len, self.shape.log_v4_records);
            let (records, _) = self.bytes(cpu, self.shape.log_v4, records * 8).as_chunks::<8>();
            counted.records_v4.extend(records.iter().filter_map(|[a, b, c, d, target @ ..]| {
                let target = Target::from_raw(u32::from_ne_bytes(*target))?;
                Some(AccessV4::new(u32::from_be_bytes([*a, *b, *c, *d]), target))
            }));
            let records = length(self.shape.log_v6_len, self.shape.log_v6_records);
            let (records, _) = self.bytes(cpu, self.shape.log_v6, records * 20).as_chunks::<20>();
            counted.records_v6.extend(records.iter().filter_map(|record| {
                let (src, target) = record.split_first_chunk::<16>()?;
                let target = Target::from_raw(u32::from_ne_bytes(target.try_into().ok()?))?;
                Some((u128::from_be_bytes(*src), target))
            }));
        }
        let by_slot = |sums: Vec<u64>| {
            let sums = sums.into_iter().enumerate().filter(|(_, sum)| *sum != 0);
            sums.filter_map(|(index, sum)| Some((Slot::from_index(index as u32)?, sum))).collect()
        };
        counted.ports = by_slot(ports);
        counted.counts.backscatter = by_slot(backscatter);
        counted
    }

    fn read_details(&self, cpu: usize, details: &mut Details) {
        let shape = &self.shape;
        for (flaw, packets) in shape.flaws.iter().zip(self.words(cpu, shape.malformed, shape.flaws.len())) {
            details.add(Series::Malformed(*flaw), *packets);
        }
        details.add(Series::Assumed, self.word(cpu, shape.assumed));
        let (kinds, _) = self.words(cpu, shape.unread, 2 * shape.unread_kinds).as_chunks::<2>();
        for [protocol, frames] in kinds {
            // Little-endian: the protocol is the first half.
            let protocol = LinkProtocol::from_number(*protocol as u32);
            details.add(Series::Unread(Unread::Kind(protocol)), *frames);
        }
        details.add(Series::Unread(Unread::Rest), self.word(cpu, shape.unread_other));
    }
}
