//! The flows in the kernel's maps: what is learned from the socket tables, what is over, what is
//! counted.

use super::object::Object;
use super::pins::Pins;
use super::sys::{self, Mapping};
use super::{KernelError, sockets};
use crate::clock::monotonic_nanos;
use aya::maps::{MapData, PerCpuArray};
use sensor_common::flow::{Asked, FlowCounter, FlowKey, FlowState, Phase, TCP_ESTABLISHED_TIMEOUT};
use sensor_common::{Slot, Transport};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Time between two looks for flows that are over.
const COLLECT_EVERY: Duration = Duration::from_secs(5);
/// Time between two looks into the socket tables, well below [`TCP_ESTABLISHED_TIMEOUT`], so that a
/// connection that exists does not time out however idle it is.
const LEARN_EVERY: Duration = Duration::from_mins(10);

/// What is known of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStatus {
    /// Flows that are kept, as of the last look, which is at each drain but not twice in 5 seconds.
    pub entries: u64,
    /// Flows made, since the maps were made.
    pub created: u64,
    /// Flows that could not be made, because too many were kept.
    pub failed: u64,
    /// Datagrams that started nothing, because they reply to a stranger.
    pub replies: u64,
}

/// The maps of flows.
pub(super) struct FlowTable {
    flows: OwnedFd,
    asked: Mapping,
    counters: PerCpuArray<MapData, u64>,
    entries: u64,
    collected: Option<Instant>,
    learned: Option<Instant>,
}

impl FlowTable {
    /// Opens the maps and gives them a seed when they have none.
    pub(super) fn open(pins: &Pins, object: &mut Object) -> Result<Self, KernelError> {
        let asked = pins.open_map("ASKED")?;
        let asked = Mapping::new(asked.as_fd(), size_of::<Asked>())
            .map_err(KernelError::map("map the ports that were asked from"))?;
        let table = Self {
            flows: pins.open_map("FLOWS")?,
            asked,
            counters: object.flow_counters()?,
            entries: 0,
            collected: None,
            learned: None,
        };
        let seed = table.shared();
        // SAFETY: the pointer is into the mapping; no program is attached before the seed is set.
        unsafe {
            let seed = &raw mut (*seed).seed;
            if seed.read_volatile() == 0 {
                // The standard library seeds its hash maps from the system's random numbers.
                seed.write_volatile(RandomState::new().build_hasher().finish() | 1);
            }
        }
        Ok(table)
    }

    fn shared(&self) -> *mut Asked {
        self.asked.as_ptr().cast()
    }

    /// What is due by now: flows that are over are removed, connections that exist are kept up. Both
    /// are tried again later when they fail.
    pub(super) fn maintain(&mut self, now: Instant) {
        let is_due = |last: Option<Instant>, every| last.is_none_or(|last| now.duration_since(last) >= every);
        if is_due(self.learned, LEARN_EVERY) {
            // UDP flows end when nothing is sent, whether or not their socket stays.
            let is_first = self.learned.is_none();
            self.learned = Some(now);
            self.learn(sockets::TCP, Phase::Established);
            if is_first {
                self.learn(sockets::UDP, Phase::Udp);
            }
        }
        if is_due(self.collected, COLLECT_EVERY) {
            self.collected = Some(now);
            match self.collect(monotonic_nanos()) {
                Ok(entries) => self.entries = entries,
                Err(error) => warn!(%error, "cannot look through the flows"),
            }
        }
    }

    /// Takes in the connected sockets of one protocol.
    fn learn(&self, protocol: u8, phase: Phase) {
        let keys = match sockets::connected(protocol) {
            Ok(keys) => keys,
            Err(error) => {
                warn!(%error, protocol, "cannot read the socket tables; connections older than the sensor count as strays until they send");
                return;
            }
        };
        let now = monotonic_nanos();
        let mut learned = 0;
        for key in &keys {
            match self.keep(key, phase, now) {
                Ok(changed) => learned += u64::from(changed),
                Err(error) => warn!(%error, "a connection could not be kept"),
            }
        }
        debug!(protocol, sockets = keys.len(), learned, "read the socket tables");
    }

    /// Makes or prolongs a flow; `false` when it needed neither.
    fn keep(&self, key: &FlowKey, phase: Phase, now: u64) -> io::Result<bool> {
        // One that was heard from lately needs nothing, and may be changing this moment.
        let fresh = |state: &FlowState| {
            state.is_alive(now) && now.saturating_sub(state.sent) < TCP_ESTABLISHED_TIMEOUT / 4
        };
        let known = sys::lookup::<_, FlowState>(self.flows.as_fd(), key)?;
        if known.as_ref().is_some_and(fresh) {
            return Ok(false);
        }
        sys::insert(self.flows.as_fd(), key, &FlowState::new(phase, now))?;
        let transport = if key.protocol == sockets::TCP { Transport::Tcp } else { Transport::Udp };
        let port = Slot::new(transport, key.local_port).index() as usize;
        // SAFETY: both pointers are into the mapping, `port` being a TCP or UDP port's index; programs
        // write the same values.
        unsafe {
            (&raw mut (*self.shared()).ports).cast::<u8>().add(port).write_volatile(1);
            (&raw mut (*self.shared()).any).write_volatile(1);
        }
        Ok(true)
    }

    /// Removes the flows that are over at `now`, `CLOCK_MONOTONIC` nanoseconds; returns how many are
    /// left.
    pub(super) fn collect(&self, now: u64) -> io::Result<u64> {
        let mut over: Vec<FlowKey> = Vec::new();
        let mut left = 0;
        sys::for_each_entry(self.flows.as_fd(), |key: &FlowKey, state: &FlowState| {
            if state.is_alive(now) {
                left += 1;
            } else {
                over.push(*key);
            }
        })?;
        for key in &over {
            // It may have begun anew since.
            match sys::lookup::<_, FlowState>(self.flows.as_fd(), key)? {
                Some(state) if state.is_alive(now) => left += 1,
                Some(_) => sys::delete_all(self.flows.as_fd(), std::slice::from_ref(key))?,
                None => {}
            }
        }
        Ok(left)
    }

    /// What is counted.
    pub(super) fn status(&self) -> FlowStatus {
        let sum = |counter: FlowCounter| {
            let values = self.counters.get(&(counter as u32), 0);
            values.map_or(0, |values| values.iter().sum())
        };
        FlowStatus {
            entries: self.entries,
            created: sum(FlowCounter::Created),
            failed: sum(FlowCounter::Failed),
            replies: sum(FlowCounter::Replies),
        }
    }

    /// The map of flows, for tests that look into it.
    #[cfg(test)]
    pub(super) fn map(&self) -> std::os::fd::BorrowedFd<'_> {
        self.flows.as_fd()
    }
}
