//! The flows in the kernel's maps: what is learned from the socket tables, what is over, what is
//! counted.

use super::object::Object;
use super::pins::Pins;
use super::sys::{self, Mapping};
use super::{KernelError, sockets};
use crate::conversations;
use crate::observation::FlowStatus;
use crate::system::clock::{self, monotonic_nanos};
use crate::system::condition::{Condition, Notice};
use aya::maps::{MapData, PerCpuArray};
use sensor_common::flow::{
    ACCEPTS, ASKED, ASKED_PORTS, Asked, FlowCounter, FlowKey, FlowState, MAX_FLOWS, MAX_REMEMBERED, Phase,
    REPLY_TIMEOUT, SERVED, SERVICE, STARTED, TCP_CLOSING_TIMEOUT, Table, sent_at,
};
use sensor_common::recent::Entry;
use sensor_common::{Slot, Transport};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// Time between two looks for flows that are over.
const COLLECT_EVERY: Duration = Duration::from_secs(5);
/// Time between two looks into the socket tables, well below the shortest timeout of TCP, so that a
/// connection that exists does not time out however idle it is: not when it is closed on one side alone,
/// nor when someone has made it look as if it were reset.
const LEARN_EVERY: Duration = Duration::from_mins(1);
/// A flow that does not live this long needs to be kept up, nanoseconds: twice the time between looks.
const KEEP_UP: u64 = TCP_CLOSING_TIMEOUT / 2;
const _: () = assert!(KEEP_UP == 2 * LEARN_EVERY.as_secs() * 1_000_000_000);

/// Whether a flow of a connection that exists needs nothing: it lives until the next look but one. What
/// it is may be changing this moment.
const fn lives_on(state: &FlowState, now: u64) -> bool {
    state.is_alive(now + KEEP_UP)
}

/// The maps of flows.
pub(super) struct FlowTable {
    flows: OwnedFd,
    accepted: OwnedFd,
    peers: OwnedFd,
    asked: Mapping,
    counters: PerCpuArray<MapData, u64>,
    /// Flows that this host started, and connections that it accepted.
    entries: (u64, u64),
    /// Entries of `peers` at most; it is not known before they are looked through.
    remembered: usize,
    collected: Option<Instant>,
    learned: Option<Instant>,
    has_learned_udp: bool,
    /// UDP ports that are taken for servers' until then.
    served: Option<(Instant, BTreeSet<u16>)>,
    services: BTreeSet<Slot>,
    troubles: Troubles,
}

/// Failures that may last, each with the condition by which it is logged.
#[derive(Default)]
struct Troubles {
    /// The socket tables cannot be read.
    sockets: Condition,
    /// Connections of the socket tables cannot be kept.
    kept: Condition,
    /// Flows cannot be looked through.
    collected: Condition,
    /// This host starts more than can be kept, and how often it had by the last look.
    full: Condition,
    failed: u64,
}

impl FlowTable {
    /// Opens the maps and gives them a seed when they have none.
    pub(super) fn open(pins: &Pins, object: &mut Object) -> Result<Self, KernelError> {
        let asked = pins.open_map("ASKED")?;
        let asked = Mapping::new(asked.as_fd(), 0, size_of::<Asked>())
            .map_err(KernelError::map("map the ports that were asked from"))?;
        let mut table = Self {
            flows: pins.open_map("FLOWS")?,
            accepted: pins.open_map("ACCEPTED")?,
            peers: pins.open_map("PEERS")?,
            asked,
            counters: object.flow_counters()?,
            entries: (0, 0),
            remembered: MAX_REMEMBERED,
            collected: None,
            learned: None,
            has_learned_udp: false,
            served: None,
            services: BTreeSet::new(),
            troubles: Troubles::default(),
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
        table.troubles.failed = table.status().failed;
        Ok(table)
    }

    fn map_of(&self, table: Table) -> BorrowedFd<'_> {
        match table {
            Table::Started => self.flows.as_fd(),
            Table::Accepted => self.accepted.as_fd(),
        }
    }

    fn shared(&self) -> *mut Asked {
        self.asked.as_ptr().cast()
    }

    /// What this host has sent from a TCP or UDP port, bits.
    fn port(&self, port: Slot) -> &AtomicU8 {
        // SAFETY: `port` is a TCP or UDP port, so the byte lies in the mapping, which lives as long as
        // this does; programs write whole bytes too.
        unsafe {
            AtomicU8::from_ptr((&raw mut (*self.shared()).ports).cast::<u8>().add(port.index() as usize))
        }
    }

    /// What the programs know of a TCP or UDP port, bits.
    fn known(&self, port: Slot) -> &AtomicU8 {
        // SAFETY: as above; programs only read.
        unsafe {
            AtomicU8::from_ptr((&raw mut (*self.shared()).known).cast::<u8>().add(port.index() as usize))
        }
    }

    /// Notes that there is a flow of UDP, as a program does that sends a datagram of it.
    fn note_sent(&self, key: &FlowKey, now: u64) {
        // SAFETY: the pointer is into the mapping; the seed was set when it was opened.
        let seed = unsafe { (&raw const (*self.shared()).seed).read_volatile() };
        if let Some(entry) = Entry::of_flow(key, now, now).filter(|_| key.protocol == sockets::UDP) {
            // SAFETY: a place is below the array's length, and the mapping lives as long as this does; programs
            // write whole half words too.
            let sent = unsafe {
                AtomicU16::from_ptr((&raw mut (*self.shared()).sent_to).cast::<u16>().add(entry.place(seed)))
            };
            let at = sent_at(now);
            // A program may have noted a later time for another flow of this place.
            let is_newer = |known: u16| (1..=2).contains(&known.wrapping_sub(at));
            let next = |known| (!is_newer(known)).then_some(at);
            let _ = sent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        }
    }

    /// Passes the declared services to the programs. Connections of a port that no longer is a service are
    /// learned with the next look.
    pub(super) fn serve(&mut self, services: &BTreeSet<Slot>) {
        let has_port = |slot: &&Slot| (slot.index() as usize) < ASKED_PORTS;
        for slot in self.services.difference(services).filter(has_port) {
            self.known(*slot).fetch_and(!SERVICE, Ordering::Relaxed);
            self.learned = None;
        }
        // The bits may be those that another daemon has left.
        if self.services.is_empty() {
            for index in 0..ASKED_PORTS {
                // SAFETY: `index` is below the array's length, as above.
                let known =
                    unsafe { AtomicU8::from_ptr((&raw mut (*self.shared()).known).cast::<u8>().add(index)) };
                if known.load(Ordering::Relaxed) & SERVICE != 0 {
                    known.fetch_and(!SERVICE, Ordering::Relaxed);
                }
            }
        }
        for slot in services.iter().filter(has_port) {
            self.known(*slot).fetch_or(SERVICE, Ordering::Relaxed);
        }
        self.services.clone_from(services);
    }

    /// Before anything is attached: on maps that are new (`is_new`), the ports that are taken for
    /// servers' for a while, since no one has seen what they are about to answer; on older ones, none.
    fn note_servers(&mut self, is_new: bool) {
        if !is_new {
            let until = clock::now();
            self.served = Some((until, (0..=u16::MAX).collect()));
            return;
        }
        match sockets::served() {
            Ok(ports) => {
                for port in &ports {
                    self.known(Slot::new(Transport::Udp, *port)).fetch_or(SERVED, Ordering::Relaxed);
                }
                debug!(?ports, "servers that were there before");
                self.served = Some((clock::now() + Duration::from_nanos(REPLY_TIMEOUT), ports));
            }
            Err(error) => {
                warn!(%error, "cannot read the socket tables; what servers here answer at first counts as asked by this host");
            }
        }
    }

    /// Clears [`SERVED`] of all ports.
    pub(super) fn forget_servers(&mut self) {
        if let Some((_, ports)) = self.served.take() {
            for port in ports {
                self.known(Slot::new(Transport::Udp, port)).fetch_and(!SERVED, Ordering::Relaxed);
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
            self.learned = Some(now);
            self.learn_sockets(now);
        }
        if is_due(self.collected, COLLECT_EVERY) {
            self.collected = Some(now);
            let collected = self.collect(monotonic_nanos());
            tell_failed(
                self.troubles.collected.observe(u64::from(collected.is_err()), now),
                "cannot look through the flows; those that are over take room",
                collected.err().as_ref(),
            );
        }
        self.tell_full(now);
    }

    /// Logs conversations that could not be stored since the last look.
    fn tell_full(&mut self, now: Instant) {
        let failed = self.status().failed;
        let count = failed.saturating_sub(std::mem::replace(&mut self.troubles.failed, failed));
        match self.troubles.full.observe(count, now) {
            Some(Notice::Begun) => warn!(
                conversations = count,
                kept = MAX_FLOWS,
                "flow table is full: this host starts more conversations than are kept; answers to the others \
                 count as backscatter or accesses"
            ),
            Some(Notice::Lasts(count)) => {
                warn!(
                    conversations = count,
                    "flow table is still full; conversations not kept since it began"
                );
            }
            Some(Notice::Ended(count)) => {
                info!(conversations = count, "flow table has room again; conversations that were not kept");
            }
            None => {}
        }
    }

    /// Takes in the sockets that are connected. UDP flows end when nothing is sent, whether or not their
    /// socket stays, so those are taken in once.
    fn learn_sockets(&mut self, now: Instant) {
        let mut unread = None;
        let mut unkept = None;
        let mut failures = 0;
        let listening = sockets::listening().unwrap_or_else(|error| {
            unread = Some(error);
            (0..=u16::MAX).collect()
        });
        let mut protocols = vec![sockets::TCP];
        if !self.has_learned_udp {
            self.has_learned_udp = true;
            protocols.push(sockets::UDP);
        }
        for protocol in protocols {
            let keys = match sockets::connected(protocol) {
                Ok(keys) => keys,
                Err(error) => {
                    unread = Some(error);
                    continue;
                }
            };
            let nanos = monotonic_nanos();
            let mut learned = 0;
            for (key, phase) in &keys {
                let table = match protocol {
                    sockets::TCP if listening.contains(&key.local_port) => Table::Accepted,
                    _ => Table::Started,
                };
                match self.keep(table, key, *phase, nanos) {
                    Ok(changed) => learned += u64::from(changed),
                    Err(error) => {
                        failures += 1;
                        unkept = Some(error);
                    }
                }
            }
            debug!(protocol, sockets = keys.len(), learned, "read the socket tables");
        }
        tell_failed(
            self.troubles.sockets.observe(u64::from(unread.is_some()), now),
            "cannot read the socket tables; connections opened before teiten started count as `other` until this \
             host sends on them",
            unread.as_ref(),
        );
        tell_failed(
            self.troubles.kept.observe(failures, now),
            "connections of the socket tables cannot be kept; what arrives on them counts as `other`",
            unkept.as_ref(),
        );
    }

    /// Makes or prolongs a flow; `false` when it needed neither.
    fn keep(&self, table: Table, key: &FlowKey, phase: Phase, now: u64) -> io::Result<bool> {
        let transport = if key.protocol == sockets::TCP { Transport::Tcp } else { Transport::Udp };
        let port = Slot::new(transport, key.local_port);
        // What arrives there is counted as the service's.
        if matches!(table, Table::Accepted) && self.services.contains(&port) {
            return Ok(false);
        }
        let map = self.map_of(table);
        let known = sys::lookup::<_, FlowState>(map, key)?;
        if known.is_some_and(|state| lives_on(&state, now)) {
            return Ok(false);
        }
        sys::insert(map, key, &FlowState::new(phase, now))?;
        self.note_sent(key, now);
        let accepts = if matches!(table, Table::Accepted) { ACCEPTS } else { 0 };
        self.port(port).fetch_or(ASKED | accepts, Ordering::Relaxed);
        // SAFETY: the pointer is into the mapping; programs write such bits too.
        unsafe {
            let any = &raw mut (*self.shared()).any;
            any.write_volatile(any.read_volatile() | STARTED);
        }
        Ok(true)
    }

    /// Removes the flows that are over at `now`, `CLOCK_MONOTONIC` nanoseconds, and remembers the UDP
    /// conversations among them; returns how many are left that this host started.
    pub(super) fn collect(&mut self, now: u64) -> io::Result<u64> {
        let (accepted, _) = over(self.accepted.as_fd(), now)?;
        let (started, ended) = over(self.flows.as_fd(), now)?;
        self.remember(ended, now)?;
        self.entries = (started, accepted);
        Ok(started)
    }

    /// Remembers conversations that are over, and forgets others for them.
    fn remember(&mut self, mut ended: Vec<(FlowKey, FlowState)>, now: u64) -> io::Result<()> {
        ended.retain(|(_, state)| state.is_remembered(now));
        if self.remembered + ended.len() > MAX_REMEMBERED {
            let mut known = HashMap::new();
            sys::for_each_entry(self.peers.as_fd(), |key: &FlowKey, state: &FlowState| {
                known.insert(*key, *state);
            })?;
            let mut forgotten: Vec<FlowKey> =
                known.iter().filter(|(_, state)| !state.is_remembered(now)).map(|(key, _)| *key).collect();
            let mut all = known.clone();
            all.retain(|_, state| state.is_remembered(now));
            all.extend(ended.iter().copied());
            // With some room to spare this is not done each time.
            let excess = conversations::to_forget(all.into_iter().collect(), MAX_REMEMBERED / 4 * 3);
            let excess: std::collections::HashSet<FlowKey> = excess.into_iter().collect();
            ended.retain(|(key, _)| !excess.contains(key));
            forgotten.extend(excess.iter().filter(|key| known.contains_key(*key)));
            sys::delete_all(self.peers.as_fd(), &forgotten)?;
            self.remembered = known.len().saturating_sub(forgotten.len());
        }
        for (key, state) in &ended {
            sys::insert(self.peers.as_fd(), key, state)?;
        }
        self.remembered += ended.len();
        Ok(())
    }

    /// What is counted.
    pub(super) fn status(&self) -> FlowStatus {
        let sum = |counter: FlowCounter| {
            let values = self.counters.get(&(counter as u32), 0);
            values.map_or(0, |values| values.iter().sum())
        };
        let (started, accepted) = self.entries;
        FlowStatus {
            entries: started + accepted,
            accepted,
            created: sum(FlowCounter::Created),
            failed: sum(FlowCounter::Failed),
            replies: sum(FlowCounter::Replies),
            unsure: sum(FlowCounter::Unsure),
            displaced: sum(FlowCounter::Displaced),
        }
    }

    /// The maps of flows, for tests that look into them.
    #[cfg(test)]
    pub(super) fn maps(&self) -> [BorrowedFd<'_>; 2] {
        [self.flows.as_fd(), self.accepted.as_fd()]
    }
}

/// Removes the flows of one map that are over at `now`; returns how many are left, and those removed.
fn over(map: BorrowedFd<'_>, now: u64) -> io::Result<(u64, Vec<(FlowKey, FlowState)>)> {
    let mut over: Vec<(FlowKey, FlowState)> = Vec::new();
    let mut left = 0;
    sys::for_each_entry(map, |key: &FlowKey, state: &FlowState| {
        if state.is_alive(now) {
            left += 1;
        } else {
            over.push((*key, *state));
        }
    })?;
    let mut failed = None;
    over.retain(|(key, _)| {
        // It may have begun again since.
        match sys::lookup::<_, FlowState>(map, key) {
            Ok(Some(state)) if state.is_alive(now) => {
                left += 1;
                false
            }
            Ok(Some(_)) => {
                failed = sys::delete_all(map, std::slice::from_ref(key)).err().or(failed.take());
                true
            }
            Ok(None) => false,
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    });
    failed.map_or(Ok((left, over)), Err)
}

/// Logs a failure, at most as often as its condition allows.
fn tell_failed(tell: Option<Notice>, what: &str, error: Option<&io::Error>) {
    let error = error.map(tracing::field::display);
    match tell {
        Some(Notice::Begun) => warn!(error, "{what}"),
        Some(Notice::Lasts(count)) => warn!(error, failures = count, "still: {what}"),
        Some(Notice::Ended(count)) => info!(failures = count, "no longer: {what}"),
        None => {}
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
