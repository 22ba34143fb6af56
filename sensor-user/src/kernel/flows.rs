//! The flows in the kernel's maps: what is learned from the socket tables, what is over, what is
//! counted.

use super::object::Object;
use super::pins::Pins;
use super::sys::{self, Mapping};
use super::{KernelError, sockets};
use crate::clock::{self, monotonic_nanos};
use aya::maps::{MapData, PerCpuArray};
use sensor_common::flow::{
    ASKED, Asked, FlowCounter, FlowKey, FlowState, Phase, REPLY_TIMEOUT, SERVED, TCP_CLOSING_TIMEOUT,
};
use sensor_common::{Slot, Transport};
use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Time between two looks for flows that are over.
const COLLECT_EVERY: Duration = Duration::from_secs(5);
/// Time between two looks into the socket tables, well below the shortest timeout of TCP, so that a
/// connection that exists does not time out however idle it is: not when it is closed on one side alone,
/// nor when somebody has made it look as if it were reset.
const LEARN_EVERY: Duration = Duration::from_mins(1);
/// A flow that does not live this long needs to be kept up, nanoseconds: twice the time between looks.
const KEEP_UP: u64 = TCP_CLOSING_TIMEOUT / 2;
const _: () = assert!(KEEP_UP == 2 * LEARN_EVERY.as_secs() * 1_000_000_000);

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

/// Whether a flow of a connection that exists needs nothing: it lives until the next look but one. What
/// it is may be changing this moment.
const fn lives_on(state: &FlowState, now: u64) -> bool {
    state.is_alive(now + KEEP_UP)
}

/// The maps of flows.
pub(super) struct FlowTable {
    flows: OwnedFd,
    asked: Mapping,
    counters: PerCpuArray<MapData, u64>,
    entries: u64,
    collected: Option<Instant>,
    learned: Option<Instant>,
    /// UDP ports that are taken for servers' until then.
    served: Option<(Instant, BTreeSet<u16>)>,
}

impl FlowTable {
    /// Opens the maps and gives them a seed when they have none.
    pub(super) fn open(pins: &Pins, object: &mut Object) -> Result<Self, KernelError> {
        let asked = pins.open_map("ASKED")?;
        let asked = Mapping::new(asked.as_fd(), size_of::<Asked>())
            .map_err(KernelError::map("map the ports that were asked from"))?;
        let mut table = Self {
            flows: pins.open_map("FLOWS")?,
            asked,
            counters: object.flow_counters()?,
            entries: 0,
            collected: None,
            learned: None,
            served: None,
        };
        let seed = table.shared();
        // SAFETY: the pointer is into the mapping; no program is attached before the seed is set.
        let is_new = unsafe {
            let seed = &raw mut (*seed).seed;
            let is_new = seed.read_volatile() == 0;
            if is_new {
                // The standard library seeds its hash maps from the system's random numbers.
                seed.write_volatile(RandomState::new().build_hasher().finish() | 1);
            }
            is_new
        };
        table.note_servers(is_new);
        Ok(table)
    }

    fn shared(&self) -> *mut Asked {
        self.asked.as_ptr().cast()
    }

    /// What is known of a TCP or UDP port, bits.
    fn port(&self, port: Slot) -> &AtomicU8 {
        // SAFETY: `port` is a TCP or UDP port, so the octet lies in the mapping, which lives as long as
        // this does; programs write whole octets too.
        unsafe {
            AtomicU8::from_ptr((&raw mut (*self.shared()).ports).cast::<u8>().add(port.index() as usize))
        }
    }

    /// Before anything is attached: on maps that are new (`is_new`), the ports that are taken for
    /// servers' for a while, since nobody has seen what they are about to answer; on older ones, none.
    fn note_servers(&mut self, is_new: bool) {
        if !is_new {
            let until = clock::now();
            self.served = Some((until, (0..=u16::MAX).collect()));
            return;
        }
        match sockets::served() {
            Ok(ports) => {
                for port in &ports {
                    self.port(Slot::new(Transport::Udp, *port)).fetch_or(SERVED, Ordering::Relaxed);
                }
                debug!(?ports, "servers that were there before");
                self.served = Some((clock::now() + Duration::from_nanos(REPLY_TIMEOUT), ports));
            }
            Err(error) => {
                warn!(%error, "cannot read the socket tables; what servers here answer at first counts as asked by this host");
            }
        }
    }

    /// Takes no port for a server's any more.
    pub(super) fn forget_servers(&mut self) {
        if let Some((_, ports)) = self.served.take() {
            for port in ports {
                self.port(Slot::new(Transport::Udp, port)).fetch_and(!SERVED, Ordering::Relaxed);
            }
        }
    }

    /// What is due by now: flows that are over are removed, connections that exist are kept up. Both
    /// are tried again later when they fail.
    pub(super) fn maintain(&mut self, now: Instant) {
        if self.served.as_ref().is_some_and(|(until, _)| now >= *until) {
            self.forget_servers();
        }
        let is_due = |last: Option<Instant>, every| last.is_none_or(|last| now.duration_since(last) >= every);
        if is_due(self.learned, LEARN_EVERY) {
            // UDP flows end when nothing is sent, whether or not their socket stays.
            let is_first = self.learned.is_none();
            self.learned = Some(now);
            self.learn(sockets::TCP);
            if is_first {
                self.learn(sockets::UDP);
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
    fn learn(&self, protocol: u8) {
        let keys = match sockets::connected(protocol) {
            Ok(keys) => keys,
            Err(error) => {
                warn!(%error, protocol, "cannot read the socket tables; connections older than the sensor count as strays until they send");
                return;
            }
        };
        let now = monotonic_nanos();
        let mut learned = 0;
        for (key, phase) in &keys {
            match self.keep(key, *phase, now) {
                Ok(changed) => learned += u64::from(changed),
                Err(error) => warn!(%error, "a connection could not be kept"),
            }
        }
        debug!(protocol, sockets = keys.len(), learned, "read the socket tables");
    }

    /// Makes or prolongs a flow; `false` when it needed neither.
    fn keep(&self, key: &FlowKey, phase: Phase, now: u64) -> io::Result<bool> {
        let known = sys::lookup::<_, FlowState>(self.flows.as_fd(), key)?;
        if known.is_some_and(|state| lives_on(&state, now)) {
            return Ok(false);
        }
        sys::insert(self.flows.as_fd(), key, &FlowState::new(phase, now))?;
        let transport = if key.protocol == sockets::TCP { Transport::Tcp } else { Transport::Udp };
        self.port(Slot::new(transport, key.local_port)).fetch_or(ASKED, Ordering::Relaxed);
        // SAFETY: the pointer is into the mapping; programs write the same value.
        unsafe { (&raw mut (*self.shared()).any).write_volatile(1) };
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_connection_that_exists_is_kept_up_before_its_flow_is_over() {
        let now = 10_000 * SECOND;
        // Seconds since this host sent something, of those that need nothing and of those that do.
        let cases = [
            (Phase::Opening, 119, 121),
            (Phase::Closing, 119, 121),
            (Phase::Established, 2 * 3600, 2 * 3600 + 125),
        ];
        for (phase, needs_nothing, needs_it) in cases {
            let sent = |seconds: u64| FlowState::new(phase, now - seconds * SECOND);
            assert!(lives_on(&sent(needs_nothing), now), "{phase:?}");
            assert!(!lives_on(&sent(needs_it), now) && sent(needs_it).is_alive(now), "{phase:?}");
        }
    }
}
