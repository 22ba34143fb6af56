//! Counts of the current stretch: flat arrays, so that a packet costs a few additions.

use crate::observation::aggregate::{AccessV4, AccessV6, aggregate_v4, aggregate_v6};
use crate::observation::{Observation, PacketCounts, Target};
use crate::samples::{Chosen, Collector};
use jiff::Timestamp;
use sensor_common::{AddressBytes, Class, Slot, Verdict};
use sensor_counters::Series;
use std::time::Duration;

/// IPv4 accesses that are held, 8 bytes each, before a stretch is handed on in part.
const MAX_V4: usize = 2 * 1024 * 1024;
/// IPv6 accesses, 32 bytes each.
const MAX_V6: usize = 256 * 1024;

/// A counter for each slot, and which of them are not zero.
struct BySlot {
    counts: Box<[u64]>,
    touched: Vec<Slot>,
}

impl Default for BySlot {
    fn default() -> Self {
        Self { counts: vec![0; Slot::COUNT].into_boxed_slice(), touched: Vec::new() }
    }
}

impl BySlot {
    #[inline]
    fn add(&mut self, slot: Slot) {
        let count = &mut self.counts[slot.index() as usize];
        if *count == 0 {
            self.touched.push(slot);
        }
        *count += 1;
    }

    /// The counts, ascending by slot, without zeros; all are zero then.
    fn take(&mut self) -> Vec<(Slot, u64)> {
        self.touched.sort_unstable();
        let counts = &mut self.counts;
        self.touched
            .drain(..)
            .map(|slot| (slot, std::mem::take(&mut counts[slot.index() as usize])))
            .collect()
    }
}

/// Counts verdicts until it is asked for the [`Observation`] they make. Its memory is bounded when
/// that happens each time it [`is_full`](Accumulator::is_full).
#[derive(Default)]
pub struct Accumulator {
    /// Without backscatter, which is in `backscatter` until it is asked for.
    counts: PacketCounts,
    accesses: BySlot,
    services: BySlot,
    backscatter: BySlot,
    v4: Vec<AccessV4>,
    v6: Vec<AccessV6>,
    samples: Collector,
}

impl Accumulator {
    /// Nothing counted yet. Of the packets to each chosen port so many contents are kept.
    pub fn new(contents: u32) -> Self {
        Self { samples: Collector::new(contents), ..Self::default() }
    }

    /// Counts one packet of `bytes` bytes on the wire. `unparsed` is why it was not judged by transport and
    /// port.
    #[inline]
    pub fn count(&mut self, verdict: &Verdict, unparsed: Option<&Series>, bytes: u32) {
        if let Some(series) = unparsed {
            self.counts.details.add(series.clone(), 1);
        }
        let class = verdict.class as usize;
        self.counts.packets[class] += 1;
        self.counts.bytes[class] += u64::from(bytes);
        if let Some(access) = verdict.access() {
            let service = verdict.class == Class::Service;
            if service {
                self.services.add(access.slot);
            } else {
                self.accesses.add(access.slot);
            }
            if let Some(tool) = access.tool {
                self.counts.tools[tool as usize] += 1;
            }
            if access.is_assumed && !service {
                self.counts.details.add(Series::Assumed, 1);
            }
            let target = Target::with_tool(access.slot, access.tool, service);
            match access.src.bytes() {
                AddressBytes::V4(src) => self.v4.push(AccessV4::new(u32::from_be_bytes(src), target)),
                AddressBytes::V6(src) => self.v6.push((u128::from_be_bytes(src), target)),
            }
        }
        if let Some(slot) = verdict.backscatter() {
            self.backscatter.add(slot);
        }
    }

    /// Adds the first bytes of a packet that was counted as `verdict` at `at`, nanoseconds since the epoch.
    #[cold]
    pub fn sample(&mut self, verdict: &Verdict, at: i64, packet: Chosen) {
        if let Some(access) = verdict.access() {
            self.samples.add(access.slot, at, access.tool, packet);
        }
    }

    /// Whether it holds as many accesses as it should.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.v4.len() >= MAX_V4 || self.v6.len() >= MAX_V6
    }

    /// Whether nothing was counted since the last [`Accumulator::take`].
    pub fn is_empty(&self) -> bool {
        self.counts.packets == [0; Class::COUNT]
    }

    /// What was counted since the last time, of no kernel's generation.
    pub fn take(&mut self, at: Timestamp, observed: Duration) -> Observation {
        Observation {
            ledger: 0,
            generation: 0,
            at,
            observed,
            counts: PacketCounts { backscatter: self.backscatter.take(), ..std::mem::take(&mut self.counts) },
            accesses: self.accesses.take(),
            services: self.services.take(),
            overflow: 0,
            service_overflow: 0,
            sources_v4: aggregate_v4(&mut self.v4),
            sources_v6: aggregate_v6(&mut self.v6),
            samples: self.samples.take(),
        }
    }
}
