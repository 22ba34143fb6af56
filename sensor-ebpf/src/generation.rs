//! Counting in the current generation.
//!
//! What writes to a block exists twice, by the parameter `SHARED`: plainly for blocks of one CPU, by atomic
//! operations for those that CPUs share. The verifier removes the one that is not used.

use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_FORCE_WAKEUP};
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use sensor_common::classify::Access;
use sensor_common::layout::{
    Block, LOG_V4_RECORDS, LOG_V6_RECORDS, RecordV4, RecordV6, Rules, SAMPLE, SAMPLE_AGAIN, SAMPLE_COUNT,
    SAMPLE_EVERY, SAMPLE_FIRST, SAMPLE_TOTAL, SAMPLE_TOTAL_FIRST, SourceKey, UNREAD_KINDS, Unread, target,
};
use sensor_common::{
    Address, AddressBytes, Class, Flaw, LinkProtocol, Packet, Slot, Tool, Transport, Verdict,
};

use crate::blocks::{self, compare_exchange, compare_exchange_u32, fetch_add, fetch_add_u32};
use crate::bounds::below;
use crate::candidate::Candidate;
use crate::maps::{GENERATION, SOURCES, WAKE};

/// Fill of a log at which the daemon is woken.
const WAKE_V4: u64 = LOG_V4_RECORDS as u64 / 4;
const WAKE_V6: u64 = LOG_V6_RECORDS as u64 / 4;

/// A packet is not counted to a sampled port once its count is so close to its end: of more CPUs that count at once,
/// each could add one.
const MOST_CPUS: u32 = 1 << 16;

/// This CPU's block of the current generation, which other CPUs write at once when it is shared.
pub struct Current {
    block: *mut Block,
}

/// The current generation, on this CPU.
#[inline(always)]
pub fn current() -> Option<Current> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let block = GENERATION.get_value_ptr_mut(0, &(cpu & blocks::mask()))?;
    Some(Current { block })
}

impl Current {
    #[inline(always)]
    pub fn rules<'a>(&self) -> &'a Rules {
        // SAFETY: the block outlives the program's run, and its rules are not written meanwhile.
        unsafe { &(*self.block).rules }
    }

    /// Counts one packet of `length` bytes by its class alone.
    #[inline(always)]
    pub fn count_class(&mut self, class: Class, length: u64) {
        if blocks::are_shared() {
            self.add_class::<true>(class, length);
        } else {
            self.add_class::<false>(class, length);
        }
    }

    #[inline(always)]
    fn add_class<const SHARED: bool>(&mut self, class: Class, length: u64) {
        if let Some(class) = below::<{ Class::COUNT }>(class as usize) {
            // SAFETY: `class` is below the length of both arrays.
            unsafe {
                let counters = &raw mut (*self.block).counters;
                add::<SHARED>((&raw mut (*counters).packets).cast::<u64>().add(class), 1);
                add::<SHARED>((&raw mut (*counters).bytes).cast::<u64>().add(class), length);
            }
        }
    }

    /// Counts one malformed packet by what is wrong with it.
    #[inline(always)]
    pub fn count_flaw(&mut self, flaw: Flaw) {
        if let Some(flaw) = below::<{ Flaw::COUNT }>(flaw as usize) {
            // SAFETY: `flaw` is below the array's length.
            let counter = unsafe { (&raw mut (*self.block).counters.malformed).cast::<u64>().add(flaw) };
            if blocks::are_shared() {
                add::<true>(counter, 1);
            } else {
                add::<false>(counter, 1);
            }
        }
    }

    /// Counts one frame that is not of IP by what it holds.
    #[inline(always)]
    pub fn count_unread(&mut self, protocol: LinkProtocol) {
        if blocks::are_shared() {
            self.add_unread_shared(protocol);
            return;
        }
        // SAFETY: this CPU alone writes its block.
        let counters = unsafe { &mut (*self.block).counters };
        for kind in &mut counters.unread {
            if kind.protocol == protocol.number() || kind.protocol == 0 {
                kind.protocol = protocol.number();
                kind.frames += 1;
                return;
            }
        }
        counters.unread_other += 1;
    }

    /// [`Current::count_unread`] in a block that other CPUs write at once: the first that finds a place free has it.
    #[inline(always)]
    fn add_unread_shared(&mut self, protocol: LinkProtocol) {
        // SAFETY: the block is valid.
        let counters = unsafe { &raw mut (*self.block).counters };
        for at in 0..UNREAD_KINDS {
            // SAFETY: `at` is below the array's length. The protocol and its padding, which is zero, are an aligned
            // word whose low half is the protocol: the program is for little-endian machines.
            unsafe {
                let kind = (&raw mut (*counters).unread).cast::<Unread>().add(at);
                let place = (&raw mut (*kind).protocol).cast::<u64>();
                let number = u64::from(protocol.number());
                let mut found = place.read_volatile();
                if found == 0 {
                    found = compare_exchange(place, 0, number);
                }
                if found == 0 || found == number {
                    add::<true>(&raw mut (*kind).frames, 1);
                    return;
                }
            }
        }
        // SAFETY: the block is valid.
        add::<true>(unsafe { &raw mut (*counters).unread_other }, 1);
    }

    /// Counts one packet of `length` bytes.
    #[inline(always)]
    pub fn count(&mut self, packet: &Packet, verdict: &Verdict, length: u64) {
        if blocks::are_shared() {
            self.add_packet::<true>(packet, verdict, length);
        } else {
            self.add_packet::<false>(packet, verdict, length);
        }
    }

    #[inline(always)]
    fn add_packet<const SHARED: bool>(&mut self, packet: &Packet, verdict: &Verdict, length: u64) {
        self.add_class::<SHARED>(verdict.class, length);
        if let Some(access) = verdict.access() {
            self.access::<SHARED>(&packet.src, &access, matches!(verdict.class, Class::Service));
        }
        if let Some(slot) = verdict.backscatter()
            && let Some(index) = below::<{ Slot::COUNT }>(slot.index() as usize)
        {
            // SAFETY: `index` is below the array's length.
            add::<SHARED>(unsafe { (&raw mut (*self.block).backscatter).cast::<u64>().add(index) }, 1);
        }
    }

    /// Counts a packet to a sampled port, and returns it when it is among the first, or is the one access in
    /// [`SAMPLE_EVERY`](sensor_common::layout::SAMPLE_EVERY) whose beginning is looked up; where CPUs share a block,
    /// two of them may see the same access as the last, or miss one.
    #[inline(always)]
    pub fn samples(&mut self, packet: &Packet, verdict: &Verdict) -> Option<Candidate> {
        if self.rules().flags & SAMPLE == 0 || !matches!(verdict.class, Class::Access) || !packet.can_hold() {
            return None;
        }
        let slot = Slot::new(packet.transport, packet.port);
        let index = below::<{ Slot::COUNT }>(slot.index() as usize)?;
        // SAFETY: `index` is below the array's length.
        let word = unsafe { (&raw mut (*self.block).samples).cast::<u32>().add(index) };
        // SAFETY: an aligned word in the block.
        let mut before = unsafe { word.read_volatile() };
        if before & SAMPLE_COUNT == 0 {
            return None;
        }
        // Of other transports all accesses are such packets, which are counted by port.
        if before & SAMPLE_COUNT <= SAMPLE_FIRST || matches!(packet.transport, Transport::Tcp) {
            before =
                if blocks::are_shared() { count_sampled::<true>(word) } else { count_sampled::<false>(word) };
        }
        // SAFETY: aligned words in the block.
        let (sampled, accesses) = unsafe {
            (
                &raw const (*self.block).sampled,
                &raw const (*self.block).counters.packets[Class::Access as usize],
            )
        };
        // SAFETY: as above, in all three. When the budget is spent, a flood costs the load above and one of what is
        // in the cache.
        if before & SAMPLE_COUNT <= SAMPLE_FIRST && unsafe { *sampled } < SAMPLE_TOTAL_FIRST {
            Some(Candidate::new(index, packet, true))
        } else if unsafe { *accesses } & (SAMPLE_EVERY - 1) == 0
            && again(before) < SAMPLE_AGAIN
            && unsafe { *sampled } < SAMPLE_TOTAL
        {
            Some(Candidate::new(index, packet, false))
        } else {
            None
        }
    }

    /// The generation's number, if it may take one more sample, which is counted.
    #[inline(always)]
    pub fn take_sample(&mut self, candidate: Candidate) -> Option<u64> {
        let index = below::<{ Slot::COUNT }>(candidate.slot())?;
        // SAFETY: `index` is below the array's length.
        let (word, total) = unsafe {
            ((&raw mut (*self.block).samples).cast::<u32>().add(index), &raw mut (*self.block).sampled)
        };
        let again = (!candidate.is_first()).then_some(word);
        let is_taken = if blocks::are_shared() { take_shared(total, again) } else { take(total, again) };
        is_taken.then(|| self.number())
    }

    /// The generation's number.
    #[inline(always)]
    pub fn number(&self) -> u64 {
        // SAFETY: the block outlives the program's run, and its number is not written meanwhile.
        unsafe { (*self.block).generation }
    }

    #[inline(always)]
    fn access<const SHARED: bool>(&mut self, src: &Address, access: &Access, service: bool) {
        if let Some(index) = below::<{ Slot::COUNT }>(access.slot.index() as usize) {
            // SAFETY: `index` is below the array's length.
            add::<SHARED>(unsafe { (&raw mut (*self.block).ports).cast::<u64>().add(index) }, 1);
        }
        if let Some(tool) = access.tool
            && let Some(tool) = below::<{ Tool::COUNT }>(tool as usize)
        {
            // SAFETY: `tool` is below the array's length.
            add::<SHARED>(unsafe { (&raw mut (*self.block).counters.tools).cast::<u64>().add(tool) }, 1);
        }
        if access.is_assumed && !service {
            // SAFETY: the block is valid.
            add::<SHARED>(unsafe { &raw mut (*self.block).counters.assumed }, 1);
        }
        let target = target(access.slot, access.tool, service);
        let kept = match src.bytes() {
            AddressBytes::V4(src) => self.log_v4::<SHARED>(RecordV4 { src, target }),
            AddressBytes::V6(src) => self.log_v6::<SHARED>(RecordV6 { src, target }),
        };
        if !kept {
            self.tabulate::<SHARED>(src, target, service);
        }
    }

    /// Appends to the log; `false` when it is full.
    #[inline(always)]
    fn log_v4<const SHARED: bool>(&mut self, record: RecordV4) -> bool {
        // SAFETY: the block is valid.
        let length = unsafe { &raw mut (*self.block).log_v4_len };
        let at = place::<SHARED>(length, LOG_V4_RECORDS as u64);
        if at >= LOG_V4_RECORDS as u64 {
            return false;
        }
        // SAFETY: `at` is below the array's length, and the place is this packet's.
        unsafe { (&raw mut (*self.block).log_v4).cast::<RecordV4>().add(at as usize).write(record) };
        keep::<SHARED>(length, at);
        if at == WAKE_V4 {
            wake();
        }
        true
    }

    /// Appends to the log; `false` when it is full.
    #[inline(always)]
    fn log_v6<const SHARED: bool>(&mut self, record: RecordV6) -> bool {
        // SAFETY: the block is valid.
        let length = unsafe { &raw mut (*self.block).log_v6_len };
        let at = place::<SHARED>(length, LOG_V6_RECORDS as u64);
        if at >= LOG_V6_RECORDS as u64 {
            return false;
        }
        // SAFETY: `at` is below the array's length, and the place is this packet's.
        unsafe { (&raw mut (*self.block).log_v6).cast::<RecordV6>().add(at as usize).write(record) };
        keep::<SHARED>(length, at);
        if at == WAKE_V6 {
            wake();
        }
        true
    }

    /// Counts in the source table, or, when that cannot take it, as overflow.
    #[inline(always)]
    fn tabulate<const SHARED: bool>(&mut self, src: &Address, target: u32, service: bool) {
        let key = SourceKey { src: src.mapped(), target, generation: self.number() as u32 };
        // SAFETY: the block is valid.
        let counters = unsafe { &raw mut (*self.block).counters };
        if tabulated(&key) {
            // SAFETY: the block is valid.
            let packets = unsafe { &raw mut (*counters).table_packets };
            // SAFETY: an aligned word, which this CPU alone writes unless blocks are shared.
            let before = if SHARED { fetch_add(packets, 1) } else { unsafe { *packets } };
            if before == 0 {
                wake();
            }
            if !SHARED {
                add::<false>(packets, 1);
            }
        } else if service {
            // SAFETY: the block is valid.
            add::<SHARED>(unsafe { &raw mut (*counters).service_overflow }, 1);
        } else {
            // SAFETY: the block is valid.
            add::<SHARED>(unsafe { &raw mut (*counters).overflow }, 1);
        }
    }
}

/// Adds to a counter of a block.
#[inline(always)]
fn add<const SHARED: bool>(counter: *mut u64, more: u64) {
    if SHARED {
        blocks::add(counter, more);
    } else {
        // SAFETY: the pointer is into a block that this CPU alone writes.
        unsafe { *counter += more };
    }
}

/// The place of the next record of a log with this length, which has `places`; not below that when it is full. A
/// place of a shared log is taken by that, and its length may go beyond its places, by the CPUs that share it at most.
#[inline(always)]
fn place<const SHARED: bool>(length: *mut u64, places: u64) -> u64 {
    // SAFETY: the pointer is into a block.
    let next = unsafe { length.read_volatile() };
    if SHARED && next < places { fetch_add(length, 1) } else { next }
}

/// The record at this place of a log with this length is written.
#[inline(always)]
fn keep<const SHARED: bool>(length: *mut u64, at: u64) {
    if !SHARED {
        // SAFETY: the pointer is into a block that this CPU alone writes.
        unsafe { *length = at + 1 };
    }
}

/// Counts a packet in the word of its port, and returns the word before that.
#[inline(always)]
fn count_sampled<const SHARED: bool>(word: *mut u32) -> u32 {
    // SAFETY: the pointer is into a block.
    let before = unsafe { word.read_volatile() };
    let seen = before & SAMPLE_COUNT;
    if SHARED {
        let may_count = seen != 0 && seen < SAMPLE_COUNT - MOST_CPUS;
        return if may_count { fetch_add_u32(word, 1) } else { before };
    }
    if seen != 0 && seen != SAMPLE_COUNT {
        // SAFETY: as above, and this CPU alone writes it.
        unsafe { *word = before + 1 };
    }
    before
}

/// Packets of a port that were taken because they begin alike, from the port's word.
#[inline(always)]
fn again(word: u32) -> u32 {
    word >> SAMPLE_COUNT.count_ones()
}

/// One more of those that are taken because they begin alike, in the word of a port.
const ONE_AGAIN: u32 = SAMPLE_COUNT + 1;

/// Takes one of the samples of a block that this CPU alone writes, in `total`, the samples of all ports, and in the
/// word `again` of its port if it begins as another did; `false` when there are none left.
#[inline(always)]
fn take(total: *mut u64, again: Option<*mut u32>) -> bool {
    // SAFETY: the pointers are into the block.
    unsafe {
        let sampled = *total;
        if sampled >= SAMPLE_TOTAL {
            return false;
        }
        *total = sampled + 1;
        if let Some(word) = again {
            *word += ONE_AGAIN;
        }
    }
    true
}

/// [`take`] of a block that other CPUs write at once. It takes no more than there are; a packet that another CPU
/// counts to the same port at the same moment makes it take none.
#[inline(always)]
fn take_shared(total: *mut u64, again: Option<*mut u32>) -> bool {
    // SAFETY: the pointers are into the block.
    if unsafe { total.read_volatile() } >= SAMPLE_TOTAL {
        return false;
    }
    if let Some(word) = again {
        // SAFETY: as above.
        let before = unsafe { word.read_volatile() };
        let is_left = self::again(before) < SAMPLE_AGAIN;
        if !is_left || compare_exchange_u32(word, before, before + ONE_AGAIN) != before {
            return false;
        }
    }
    fetch_add(total, 1) < SAMPLE_TOTAL
}

/// Adds one packet to `key` in the source table; `false` when it has no room. An insert that fails
/// because another CPU just inserted the same key, or held the bucket, is looked up again.
#[inline(always)]
fn tabulated(key: &SourceKey) -> bool {
    if let Some(count) = SOURCES.get_ptr_mut(key) {
        blocks::add(count, 1);
        return true;
    }
    if SOURCES.insert(key, 1, u64::from(BPF_NOEXIST)).is_ok() {
        return true;
    }
    match SOURCES.get_ptr_mut(key) {
        Some(count) => {
            blocks::add(count, 1);
            true
        }
        None => false,
    }
}

#[inline(always)]
fn wake() {
    // A full ring means that the daemon has been woken already.
    let _ = WAKE.output(0, u64::from(BPF_RB_FORCE_WAKEUP));
}
