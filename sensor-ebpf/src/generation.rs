//! Counting in the current generation.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_FORCE_WAKEUP};
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use sensor_common::classify::Access;
use sensor_common::layout::{
    Block, LOG_V4_RECORDS, LOG_V6_RECORDS, RecordV4, RecordV6, Rules, SAMPLE, SAMPLE_AGAIN, SAMPLE_COUNT,
    SAMPLE_EVERY, SAMPLE_FIRST, SAMPLE_TOTAL, SAMPLE_TOTAL_FIRST, SourceKey, target,
};
use sensor_common::{Address, AddressBytes, Class, Flaw, LinkProtocol, Packet, Slot, Tool, Verdict};

use crate::bounds::below;
use crate::candidate::Candidate;
use crate::maps::{GENERATION, SOURCES, WAKE};

/// Fill of a log at which the daemon is woken.
const WAKE_V4: u64 = LOG_V4_RECORDS as u64 / 4;
const WAKE_V6: u64 = LOG_V6_RECORDS as u64 / 4;

/// This CPU's block of the current generation. It is this CPU's alone until the program returns.
pub struct Current {
    block: *mut Block,
}

/// The current generation, on this CPU.
#[inline(always)]
pub fn current() -> Option<Current> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let block = GENERATION.get_value_ptr_mut(0, &cpu)?;
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
        if let Some(class) = below::<{ Class::COUNT }>(class as usize) {
            // SAFETY: `class` is below the length of both arrays, and this CPU alone writes them.
            unsafe {
                let counters = &mut (*self.block).counters;
                *counters.packets.as_mut_ptr().add(class) += 1;
                *counters.bytes.as_mut_ptr().add(class) += length;
            }
        }
    }

    /// Counts one malformed packet by what is wrong with it.
    #[inline(always)]
    pub fn count_flaw(&mut self, flaw: Flaw) {
        if let Some(flaw) = below::<{ Flaw::COUNT }>(flaw as usize) {
            // SAFETY: `flaw` is below the array's length.
            unsafe { *(*self.block).counters.malformed.as_mut_ptr().add(flaw) += 1 };
        }
    }

    /// Counts one frame that is not of IP by what it holds.
    #[inline(always)]
    pub fn count_unread(&mut self, protocol: LinkProtocol) {
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

    /// Counts one packet of `length` bytes.
    #[inline(always)]
    pub fn count(&mut self, packet: &Packet, verdict: &Verdict, length: u64) {
        self.count_class(verdict.class, length);
        if let Some(access) = verdict.access() {
            self.access(&packet.src, &access, matches!(verdict.class, Class::Service));
        }
        if let Some(slot) = verdict.backscatter()
            && let Some(index) = below::<{ Slot::COUNT }>(slot.index() as usize)
        {
            // SAFETY: `index` is below the array's length.
            unsafe { *(*self.block).backscatter.as_mut_ptr().add(index) += 1 };
        }
    }

    /// Counts a packet to a sampled port, and returns it when it is among the first, or is the one access in
    /// [`SAMPLE_EVERY`](sensor_common::layout::SAMPLE_EVERY) whose beginning is looked up.
    #[inline(always)]
    pub fn samples(&mut self, packet: &Packet, verdict: &Verdict) -> Option<Candidate> {
        if self.rules().flags & SAMPLE == 0 || !matches!(verdict.class, Class::Access) || !packet.can_hold() {
            return None;
        }
        let slot = Slot::new(packet.transport, packet.port);
        let index = below::<{ Slot::COUNT }>(slot.index() as usize)?;
        // SAFETY: `index` is below the array's length, and this CPU alone writes its block.
        let (word, sampled, accesses) = unsafe {
            let block = &mut *self.block;
            let word = block.samples.as_mut_ptr().add(index);
            let before = *word;
            if before & SAMPLE_COUNT != 0 && before & SAMPLE_COUNT != SAMPLE_COUNT {
                *word = before + 1;
            }
            (before, block.sampled, block.counters.packets[Class::Access as usize])
        };
        let seen = word & SAMPLE_COUNT;
        if seen == 0 {
            None
        } else if seen <= SAMPLE_FIRST && sampled < SAMPLE_TOTAL_FIRST {
            Some(Candidate::new(index, packet, true))
        } else if accesses & (SAMPLE_EVERY - 1) == 0 && word >> SAMPLE_COUNT.count_ones() < SAMPLE_AGAIN {
            Some(Candidate::new(index, packet, false))
        } else {
            None
        }
    }

    /// The generation's number, if it may take one more sample, which is counted.
    #[inline(always)]
    pub fn take_sample(&mut self, candidate: Candidate) -> Option<u64> {
        let index = below::<{ Slot::COUNT }>(candidate.slot())?;
        // SAFETY: `index` is below the array's length, and this CPU alone writes its block.
        unsafe {
            let sampled = (*self.block).sampled;
            if sampled >= SAMPLE_TOTAL {
                return None;
            }
            (*self.block).sampled = sampled + 1;
            if !candidate.is_first() {
                *(*self.block).samples.as_mut_ptr().add(index) += SAMPLE_COUNT + 1;
            }
            Some((*self.block).generation)
        }
    }

    /// The generation's number.
    #[inline(always)]
    pub fn number(&self) -> u64 {
        // SAFETY: the block outlives the program's run, and its number is not written meanwhile.
        unsafe { (*self.block).generation }
    }

    #[inline(always)]
    fn access(&mut self, src: &Address, access: &Access, service: bool) {
        if let Some(index) = below::<{ Slot::COUNT }>(access.slot.index() as usize) {
            // SAFETY: `index` is below the array's length.
            unsafe { *(*self.block).ports.as_mut_ptr().add(index) += 1 };
        }
        if let Some(tool) = access.tool
            && let Some(tool) = below::<{ Tool::COUNT }>(tool as usize)
        {
            // SAFETY: `tool` is below the array's length.
            unsafe { *(*self.block).counters.tools.as_mut_ptr().add(tool) += 1 };
        }
        if access.is_assumed && !service {
            // SAFETY: this CPU alone writes its block.
            unsafe { (*self.block).counters.assumed += 1 };
        }
        let target = target(access.slot, access.tool, service);
        let kept = match src.bytes() {
            AddressBytes::V4(src) => self.log_v4(RecordV4 { src, target }),
            AddressBytes::V6(src) => self.log_v6(RecordV6 { src, target }),
        };
        if !kept {
            self.tabulate(src, target, service);
        }
    }

    /// Appends to the log; `false` when it is full.
    #[inline(always)]
    fn log_v4(&mut self, record: RecordV4) -> bool {
        // SAFETY: this CPU alone writes its block.
        let at = unsafe { (*self.block).log_v4_len };
        if at >= LOG_V4_RECORDS as u64 {
            return false;
        }
        // SAFETY: `at` is below the array's length.
        unsafe {
            *(*self.block).log_v4.as_mut_ptr().add(at as usize) = record;
            (*self.block).log_v4_len = at + 1;
        }
        if at == WAKE_V4 {
            wake();
        }
        true
    }

    /// Appends to the log; `false` when it is full.
    #[inline(always)]
    fn log_v6(&mut self, record: RecordV6) -> bool {
        // SAFETY: this CPU alone writes its block.
        let at = unsafe { (*self.block).log_v6_len };
        if at >= LOG_V6_RECORDS as u64 {
            return false;
        }
        // SAFETY: `at` is below the array's length.
        unsafe {
            *(*self.block).log_v6.as_mut_ptr().add(at as usize) = record;
            (*self.block).log_v6_len = at + 1;
        }
        if at == WAKE_V6 {
            wake();
        }
        true
    }

    /// Counts in the source table, or, when that cannot take it, as overflow.
    #[inline(always)]
    fn tabulate(&mut self, src: &Address, target: u32, service: bool) {
        // SAFETY: the block is valid.
        let generation = unsafe { (*self.block).generation } as u32;
        let key = SourceKey { src: src.mapped(), target, generation };
        // SAFETY: this CPU alone writes its block.
        let counters = unsafe { &mut (*self.block).counters };
        if add(&key) {
            if counters.table_packets == 0 {
                wake();
            }
            counters.table_packets += 1;
        } else if service {
            counters.service_overflow += 1;
        } else {
            counters.overflow += 1;
        }
    }
}

/// Adds one packet to `key` in the source table; `false` when it has no room. An insert that fails
/// because another CPU just inserted the same key, or held the bucket, is looked up again.
#[inline(always)]
fn add(key: &SourceKey) -> bool {
    if let Some(count) = SOURCES.get_ptr_mut(key) {
        increment(count);
        return true;
    }
    if SOURCES.insert(key, 1, u64::from(BPF_NOEXIST)).is_ok() {
        return true;
    }
    match SOURCES.get_ptr_mut(key) {
        Some(count) => {
            increment(count);
            true
        }
        None => false,
    }
}

#[inline(always)]
fn increment(count: *mut u64) {
    // SAFETY: the pointer is into a map value, which lives until the program returns.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, 1) };
}

#[inline(always)]
fn wake() {
    // A full ring means that the daemon has been woken already.
    let _ = WAKE.output(0, u64::from(BPF_RB_FORCE_WAKEUP));
}
