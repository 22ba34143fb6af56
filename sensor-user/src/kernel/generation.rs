//! One generation's memory: a [`Block`] for each possible CPU, or fewer that CPUs share.
//!
//! The head of each block is always mapped into this process. The rest, 8 MiB of each, is mapped only while a
//! generation is read and emptied ([`Whole`]), because what a process maps counts as its memory.

use super::drained::Counted;
use super::sys::{self, Mapping};
use crate::observation::Target;
use crate::observation::aggregate::AccessV4;
use crate::samples::Choice;
use sensor_common::layout::{Block, Counters, LAYOUT_VERSION, LOG_V4_RECORDS, LOG_V6_RECORDS, Rules, SAMPLE};
use sensor_common::{Flaw, LinkProtocol, Slot};
use sensor_counters::{Series, Unread};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{Ordering, fence};

/// Bytes of a block's head: all that is before the counters by port, to the end of its last page.
const HEAD: usize = offset_of!(Block, ports).next_multiple_of(align_of::<Block>());

/// A generation's map.
#[derive(Debug)]
pub(super) struct Generation {
    map: OwnedFd,
    id: u32,
    /// The head of each block.
    heads: Vec<Mapping>,
    /// What [`Generation::block_pointers`] points into.
    #[cfg(test)]
    looked_into: std::cell::OnceCell<Whole>,
}

/// All memory of a generation. Its holder has made sure that no program runs in that generation.
#[derive(Debug)]
pub(super) struct Whole {
    memory: Mapping,
    blocks: usize,
}

impl Generation {
    /// Creates an empty one, or opens the one pinned at `path`; it is pinned there afterwards.
    ///
    /// # Errors
    ///
    /// What `bpf(2)` and `mmap(2)` return.
    pub(super) fn open_or_create(path: &Path, name: &str, blocks: usize) -> io::Result<Self> {
        match sys::open_pinned(path) {
            Ok(map) => Self::from_map(map, blocks),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let map = sys::create_mappable_array(name, size_of::<Block>() as u32, blocks as u32)?;
                sys::pin(map.as_fd(), path)?;
                Self::from_map(map, blocks)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes over a map.
    pub(super) fn from_map(map: OwnedFd, blocks: usize) -> io::Result<Self> {
        let info = sys::map_info(map.as_fd())?;
        if info.value_size as usize != size_of::<Block>() || info.max_entries as usize != blocks {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the pinned generation has {} blocks of {} bytes, this program's have {blocks} of {}",
                    info.max_entries,
                    info.value_size,
                    size_of::<Block>()
                ),
            ));
        }
        let heads = (0..blocks)
            .map(|at| Mapping::new(map.as_fd(), at * size_of::<Block>(), HEAD))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            map,
            id: info.id,
            heads,
            #[cfg(test)]
            looked_into: std::cell::OnceCell::new(),
        })
    }

    /// Maps all of it, to be used when it is not current.
    ///
    /// # Errors
    ///
    /// What `mmap(2)` returns.
    pub(super) fn whole(&self) -> io::Result<Whole> {
        let blocks = self.heads.len();
        Ok(Whole { memory: Mapping::new(self.map.as_fd(), 0, blocks * size_of::<Block>())?, blocks })
    }

    /// The map's id.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    /// The map.
    pub(super) fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// A block, of which only the head is there.
    fn block(&self, at: usize) -> *mut Block {
        self.heads[at].as_ptr().cast()
    }

    /// The first block's header word at `field`.
    fn header(&self, field: impl Fn(*mut Block) -> *mut u64) -> u64 {
        // SAFETY: the pointer is into the mapping; the kernel may write at any time, hence volatile.
        unsafe { field(self.block(0)).read_volatile() }
    }

    /// Layout version; 0 for a map that was never prepared.
    pub(super) fn version(&self) -> u64 {
        // SAFETY: the closure only makes a pointer to a field of a valid block.
        self.header(|block| unsafe { &raw mut (*block).version })
    }

    /// Number; 0 for a map that is not ready to be current.
    pub(super) fn number(&self) -> u64 {
        // SAFETY: as in `version`.
        self.header(|block| unsafe { &raw mut (*block).generation })
    }

    /// Identity of the ledger that numbered it.
    pub(super) fn ledger(&self) -> u64 {
        // SAFETY: as in `version`.
        self.header(|block| unsafe { &raw mut (*block).ledger })
    }

    /// When it became current, `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) fn began(&self) -> u64 {
        // SAFETY: as in `version`.
        self.header(|block| unsafe { &raw mut (*block).began })
    }

    /// The set of prefixes that its rules name.
    pub(super) fn prefix_set(&self) -> u32 {
        // SAFETY: the pointer is into the mapping, and no program writes the rules.
        unsafe { (&raw const (*self.block(0)).rules.prefixes).read() }
    }

    /// Notes when it became current.
    pub(super) fn set_began(&mut self, nanos: u64) {
        // SAFETY: the program does not read this field.
        unsafe { (&raw mut (*self.block(0)).began).write_volatile(nanos) };
    }

    /// How full the fullest log is, from 0 to 1. May be asked of the current generation.
    pub(super) fn fill(&self) -> f64 {
        let mut fullest = 0_f64;
        for at in 0..self.heads.len() {
            let block = self.block(at);
            // SAFETY: the pointers are into the mapping; the kernel may write at any time.
            let (v4, v6) = unsafe {
                (
                    (&raw const (*block).log_v4_len).read_volatile(),
                    (&raw const (*block).log_v6_len).read_volatile(),
                )
            };
            fullest = fullest.max(v4 as f64 / LOG_V4_RECORDS as f64).max(v6 as f64 / LOG_V6_RECORDS as f64);
        }
        // The length of a log that CPUs share may go beyond its records.
        fullest.min(1.0)
    }

    /// Gives an empty one its rules and its number, so that it can become current. `sampled` is the map with its arrays
    /// and the ports that are sampled; `None` when none is.
    pub(super) fn prepare(
        &mut self,
        number: u64,
        ledger: u64,
        rules: &Rules,
        sampled: Option<(&mut Whole, &Choice)>,
    ) {
        for at in 0..self.heads.len() {
            let block = self.block(at);
            // SAFETY: no program writes the head of a generation that is not current; plain numbers.
            unsafe {
                (*block).version = LAYOUT_VERSION;
                (*block).ledger = ledger;
                (*block).began = 0;
                (&raw mut (*block).rules).write(*rules);
            }
        }
        // After the rules, by which they are cleared again.
        fence(Ordering::SeqCst);
        if let Some((whole, choice)) = sampled {
            whole.choose(choice);
        }
        fence(Ordering::SeqCst);
        // The first block's number is the map's, so it comes last.
        for at in (0..self.heads.len()).rev() {
            // SAFETY: as above.
            unsafe { (&raw mut (*self.block(at)).generation).write_volatile(number) };
        }
    }

    /// Sets bits of the rules' flags while it is current; packets see them from some moment on.
    pub(super) fn set_flags(&mut self, flags: u32) {
        for at in 0..self.heads.len() {
            // SAFETY: the pointer is into the mapping; the program reads the word at once and never
            // writes it.
            unsafe {
                let word = &raw mut (*self.block(at)).rules.flags;
                word.write_volatile(word.read_volatile() | flags);
            }
        }
    }

    /// Whether it has entries in the source table.
    pub(super) fn has_table_packets(&self) -> bool {
        // SAFETY: the pointer is into the mapping; the kernel may write at any time.
        (0..self.heads.len())
            .any(|at| unsafe { (&raw const (*self.block(at)).counters.table_packets).read_volatile() != 0 })
    }

    /// Its blocks, for tests that look into a current one.
    #[cfg(test)]
    pub(super) fn block_pointers(&self) -> Vec<*const Block> {
        let whole = self.looked_into.get_or_init(|| self.whole().expect("its memory"));
        (0..whole.blocks).map(|at| whole.block(at).cast_const()).collect()
    }

    /// The rules it counts by.
    pub(super) fn rules(&self) -> Rules {
        // SAFETY: no program writes the rules.
        unsafe { (*self.block(0)).rules }
    }
}

impl Whole {
    #[expect(clippy::cast_ptr_alignment, reason = "mappings begin at a page, as blocks do")]
    fn block(&self, at: usize) -> *mut Block {
        assert!(at < self.blocks, "no block {at} of {}", self.blocks);
        // SAFETY: the mapping holds as many blocks.
        unsafe { self.memory.as_ptr().cast::<Block>().add(at) }
    }

    /// Empties it.
    ///
    /// The number goes first, so a map whose number is not zero is whole, whenever this process ends.
    pub(super) fn clear(&mut self) {
        for at in 0..self.blocks {
            let block = self.block(at);
            // SAFETY: no program writes a generation that is not current, and `self` is the
            // one that has it, so the block is ours; its fields are plain numbers, for which zero is valid.
            unsafe {
                (&raw mut (*block).generation).write_volatile(0);
                fence(Ordering::SeqCst);
                if (*block).rules.flags & SAMPLE != 0 {
                    (*block).sampled = 0;
                    (&raw mut (*block).samples).write_bytes(0, 1);
                    fence(Ordering::SeqCst);
                    (*block).rules.flags &= !SAMPLE;
                }
                (*block).log_v4_len = 0;
                (*block).log_v6_len = 0;
                (&raw mut (*block).counters).write_bytes(0, 1);
                (&raw mut (*block).ports).write_bytes(0, 1);
                (&raw mut (*block).backscatter).write_bytes(0, 1);
            }
        }
    }

    /// Has packets to these ports sampled.
    fn choose(&mut self, choice: &Choice) {
        let chosen = |slot: Slot| choice.has(slot, || false).then_some(slot.index() as usize);
        let slots: Vec<usize> = if choice.all {
            (0..Slot::COUNT as u32).filter_map(Slot::from_index).filter_map(chosen).collect()
        } else {
            choice.slots.iter().copied().filter_map(chosen).collect()
        };
        for at in 0..self.blocks {
            let block = self.block(at);
            for slot in &slots {
                // SAFETY: as in `clear`.
                unsafe { (*block).samples[*slot] = 1 };
            }
        }
    }

    /// Adds it up.
    pub(super) fn read(&self) -> Counted {
        let mut counted = Counted::default();
        // SAFETY: no program runs in this generation any more, so the blocks do not change while
        // these references live.
        let blocks: Vec<&Block> = (0..self.blocks).map(|at| unsafe { &*self.block(at) }).collect();
        for block in &blocks {
            let Counters { packets, bytes, tools, overflow, service_overflow, table_packets, .. } =
                &block.counters;
            add(&mut counted.counts.packets, packets);
            add(&mut counted.counts.bytes, bytes);
            add(&mut counted.counts.tools, tools);
            counted.overflow += overflow;
            counted.service_overflow += service_overflow;
            counted.table_packets += table_packets;
            for (flaw, packets) in Flaw::ALL.into_iter().zip(block.counters.malformed) {
                counted.counts.details.add(Series::Malformed(flaw), packets);
            }
            counted.counts.details.add(Series::Assumed, block.counters.assumed);
            for kind in &block.counters.unread {
                let protocol = LinkProtocol::from_number(kind.protocol);
                counted.counts.details.add(Series::Unread(Unread::Kind(protocol)), kind.frames);
            }
            counted.counts.details.add(Series::Unread(Unread::Rest), block.counters.unread_other);
        }
        counted.ports = sum_by_slot(blocks.iter().map(|block| &block.ports));
        if blocks.iter().any(|block| block.rules.flags & SAMPLE != 0) {
            for index in 0..Slot::COUNT {
                let could: u64 = blocks.iter().map(|block| block.could_be_sampled(index)).sum();
                if could > 0 {
                    counted.sampled.extend(Slot::from_index(index as u32).map(|slot| (slot, could)));
                }
            }
        }
        counted.counts.backscatter = sum_by_slot(blocks.iter().map(|block| &block.backscatter));

        let lengths = |length: fn(&Block) -> u64, most: usize| {
            blocks.iter().map(|block| (length(block) as usize).min(most)).sum::<usize>()
        };
        counted.records_v4.reserve_exact(lengths(|block| block.log_v4_len, LOG_V4_RECORDS));
        counted.records_v6.reserve_exact(lengths(|block| block.log_v6_len, LOG_V6_RECORDS));
        for block in &blocks {
            let log = block.log_v4.iter().take(block.log_v4_len as usize);
            counted.records_v4.extend(log.filter_map(|record| {
                Some(AccessV4::new(u32::from_be_bytes(record.src), Target::from_raw(record.target)?))
            }));
            let log = block.log_v6.iter().take(block.log_v6_len as usize);
            counted.records_v6.extend(log.filter_map(|record| {
                Some((u128::from_be_bytes(record.src), Target::from_raw(record.target)?))
            }));
        }
        counted
    }
}
fn add<const N: usize>(sum: &mut [u64; N], values: &[u64; N]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Adds arrays over slots; keeps what is not zero.
fn sum_by_slot<'a>(arrays: impl Iterator<Item = &'a [u64; Slot::COUNT]>) -> Vec<(Slot, u64)> {
    // Most pages of an idle generation are zero, so whole lines are looked at first.
    const LINE: usize = 64;
    let arrays: Vec<_> = arrays.collect();
    let mut sums = Vec::new();
    for start in (0..Slot::COUNT).step_by(LINE) {
        let end = (start + LINE).min(Slot::COUNT);
        let touched =
            arrays.iter().any(|array| array[start..end].iter().fold(0, |seen, value| seen | value) != 0);
        if !touched {
            continue;
        }
        for index in start..end {
            let sum: u64 = arrays.iter().map(|array| array[index]).sum();
            if sum != 0 {
                sums.push((Slot::from_index(index as u32).expect("below the number of slots"), sum));
            }
        }
    }
    sums
}
