//! Flows in the kernel's maps.

use aya_ebpf::programs::TcContext;
use sensor_common::flow::{
    ASKED_PORTS, Asked, FlowCounter, FlowKey, FlowState, Flows, HEARD_WAYS, HalfOpen, STARTED, Table, hear,
};
use sensor_common::{Address, Frame, Link, Slot, Transport};

use crate::asked::{self, shared};
use crate::bounds::below;
use crate::clock::coarse_now;
use crate::frame::SkbFrame;
use crate::maps::{ACCEPTED, FLOW_COUNTERS, FLOWS, HALF_OPEN, HEARD, PEERS};
use crate::recent::teiten_note_recent;

/// The maps of flows, at one moment.
#[derive(Clone, Copy)]
pub struct KernelFlows {
    now: u64,
    /// Looked up where it is needed when it is not here.
    shared: Option<*mut Asked>,
}

impl KernelFlows {
    /// Now.
    #[inline(always)]
    pub fn now() -> Self {
        Self { now: coarse_now(), shared: shared() }
    }

    /// For questions to which the time does not matter.
    #[inline(always)]
    pub const fn timeless() -> Self {
        Self { now: 0, shared: None }
    }

    #[inline(always)]
    pub fn shared(&self) -> Option<*mut Asked> {
        match self.shared {
            Some(shared) => Some(shared),
            None => shared(),
        }
    }
}

/// `TCP_ESTABLISHED`, `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`, `TCP_CLOSE_WAIT`, `TCP_LAST_ACK` and
/// `TCP_CLOSING` of `linux/net/tcp_states.h`, as bits.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Whether the sending socket has a connection. What the kernel sends on its own (a RST, a challenge
/// ACK) comes from sockets without one.
///
/// A forwarded packet has no socket here, and entered by an interface. A segment of one that
/// neither opens nor resets comes from a host with a connection; a datagram says nothing.
#[inline(always)]
pub fn is_connected(ctx: &TcContext, transport: Transport) -> bool {
    // SAFETY: the context is the one this program was called with.
    let socket = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        // SAFETY: as above.
        let came_in_by = unsafe { (*ctx.skb.skb).ingress_ifindex };
        return matches!(transport, Transport::Tcp) && came_in_by != 0;
    }
    // SAFETY: the socket was just found to be there, and lives while the packet does.
    let state = unsafe { (*socket).state };
    state < u32::BITS && CONNECTED >> state & 1 != 0
}

/// Whether the link's destination is a group: the bit of IEEE 802 addresses that says so, which is set
/// also when the IP address is a network's own broadcast address.
#[inline(always)]
pub fn is_to_group(frame: &SkbFrame<'_>, link: Link) -> bool {
    matches!(link, Link::Ethernet) && frame.load::<2>(0).is_some_and(|bytes| bytes[0] & 1 != 0)
}

/// Replaces a map's value by what `next` returns.
#[inline(always)]
fn update(state: Option<*mut FlowState>, next: impl FnOnce(FlowState) -> Option<FlowState>) -> bool {
    let Some(state) = state else { return false };
    // SAFETY: the pointer is into a map value; each of its words is written at once, and of two CPUs
    // that write, either is right.
    match next(unsafe { *state }) {
        Some(next) => {
            // SAFETY: as above.
            unsafe {
                (&raw mut (*state).phase).write(next.phase);
                (&raw mut (*state).began).write(next.began);
                (&raw mut (*state).sent).write(next.sent);
            }
            true
        }
        None => false,
    }
}

/// [`hear`] of an address by its words and of ports, the remote one in the upper half. The return value has no
/// meaning.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_hear(a: u64, b: u64, ports: u32, is_v6: u32) -> u32 {
    hear(&Address::from_words([a, b], is_v6 != 0), (ports >> 16) as u16, ports as u16, &KernelFlows::now());
    0
}

/// The note at this index.
#[inline(always)]
fn note(at: u32) -> Option<*mut u64> {
    const WAYS: u32 = HEARD_WAYS as u32;
    let notes = HEARD.get_ptr_mut(at / WAYS)?;
    // SAFETY: so many follow each other.
    Some(unsafe { notes.cast::<u64>().add((at % WAYS) as usize) })
}

impl Flows for KernelFlows {
    #[inline(always)]
    fn now(&self) -> u64 {
        self.now
    }

    #[inline(always)]
    fn any(&self) -> u64 {
        // SAFETY: an aligned word in a map's value.
        self.shared().map_or(0, |shared| unsafe { (&raw const (*shared).any).read_volatile() })
    }

    #[inline(always)]
    fn start(&self, bits: u64) {
        if let Some(shared) = self.shared() {
            // SAFETY: an aligned word in a map's value. A bit that another CPU's write loses is set by
            // the next packet.
            unsafe {
                let any = &raw mut (*shared).any;
                if *any & bits != bits {
                    *any |= bits;
                }
            }
        }
    }

    #[inline(always)]
    fn port(&self, port: Slot) -> u8 {
        asked::port(self.shared(), port)
    }

    #[inline(always)]
    fn mark(&self, port: Slot, bits: u8) {
        if let Some(index) = below::<ASKED_PORTS>(port.index() as usize)
            && let Some(shared) = self.shared()
        {
            // SAFETY: `index` is below the array's length. A bit that another CPU's write loses is set
            // by the next packet.
            unsafe {
                let sent = (&raw mut (*shared).ports).cast::<u8>().add(index);
                // A cache line that is only read stays in every CPU's cache.
                if *sent & bits != bits {
                    *sent |= bits;
                }
            }
        }
    }

    #[inline(always)]
    fn known(&self, port: Slot) -> u8 {
        let Some(index) = below::<ASKED_PORTS>(port.index() as usize) else { return 0 };
        // SAFETY: `index` is below the array's length.
        self.shared().map_or(0, |shared| unsafe { *(&raw const (*shared).known).cast::<u8>().add(index) })
    }

    #[inline(always)]
    fn get(&self, table: Table, key: &FlowKey) -> Option<FlowState> {
        let state = match table {
            Table::Started => FLOWS.get_ptr(key)?,
            Table::Accepted => ACCEPTED.get_ptr(key)?,
        };
        // SAFETY: the pointer is into a map value; each of its words is written at once.
        Some(unsafe { *state })
    }

    /// Of a key that is stored ([`Scratch`](crate::scratch::Scratch)), as those of packets that arrive are.
    #[inline(always)]
    fn found(&self, _key: &FlowKey, now: u64, end: u64) {
        teiten_note_recent(end.wrapping_sub(now));
    }

    #[inline(always)]
    fn sent(&self, key: &FlowKey, now: u64) {
        asked::note_sent(self.shared(), key, now);
    }

    #[inline(always)]
    fn update(&self, table: Table, key: &FlowKey, next: impl FnOnce(FlowState) -> Option<FlowState>) -> bool {
        match table {
            Table::Started => update(FLOWS.get_ptr_mut(key), next),
            Table::Accepted => update(ACCEPTED.get_ptr_mut(key), next),
        }
    }

    #[inline(always)]
    fn create(&self, table: Table, key: &FlowKey, state: FlowState) {
        let created = match table {
            Table::Started => FLOWS.insert(key, state, 0),
            Table::Accepted => ACCEPTED.insert(key, state, 0),
        };
        if created.is_err() {
            self.count(FlowCounter::Failed);
            return;
        }
        self.count(FlowCounter::Created);
        self.start(STARTED);
    }

    #[inline(always)]
    fn remembers(&self, key: &FlowKey) -> bool {
        // SAFETY: the pointer is into a map value, which the daemon alone writes.
        PEERS.get_ptr(key).is_some_and(|state| unsafe { *state }.is_remembered(self.now()))
    }

    #[inline(always)]
    fn half_open(&self, key: &FlowKey) -> Option<HalfOpen> {
        let half_open = HALF_OPEN.get_ptr(key)?;
        // SAFETY: the pointer is into a map value.
        Some(unsafe { *half_open })
    }

    #[inline(always)]
    fn offer(&self, key: &FlowKey, half_open: HalfOpen) {
        // Fails only while another CPU holds the bucket. The end of the handshake is then not recognized;
        // this host's first segment still shows the connection.
        let _ = HALF_OPEN.insert(key, half_open, 0);
    }

    #[inline(always)]
    fn accepted(&self, key: &FlowKey) {
        // Fails when the entry was evicted already.
        let _ = HALF_OPEN.remove(key);
    }

    #[inline(always)]
    fn seed(&self) -> u64 {
        asked::seed(self.shared())
    }

    #[inline(always)]
    fn note(&self, at: u32) -> u64 {
        // SAFETY: an aligned word in a map's value, which other CPUs write at once.
        note(at).map_or(0, |note| unsafe { note.read_volatile() })
    }

    #[inline(always)]
    fn notes(&self, set: u32) -> [u64; HEARD_WAYS] {
        match HEARD.get_ptr(set / HEARD_WAYS as u32) {
            // SAFETY: as above.
            Some(notes) => unsafe { notes.read_volatile() },
            None => [0; HEARD_WAYS],
        }
    }

    #[inline(always)]
    fn set_note(&self, at: u32, word: u64) {
        if let Some(note) = note(at) {
            // SAFETY: as above; of two CPUs that write, one note is lost, as if displaced.
            unsafe { note.write_volatile(word) };
        }
    }

    #[inline(always)]
    fn hear(&self, remote: &Address, remote_port: u16, local_port: u16) {
        if self.shared.is_some() {
            hear(remote, remote_port, local_port, self);
            return;
        }
        let [a, b] = remote.words();
        let ports = u32::from(remote_port) << 16 | u32::from(local_port);
        teiten_hear(a, b, ports, u32::from(remote.is_v6()));
    }

    #[inline(always)]
    fn count(&self, counter: FlowCounter) {
        if let Some(value) = FLOW_COUNTERS.get_ptr_mut(counter as u32) {
            // SAFETY: the value is this CPU's, and programs of one kind do not interrupt each other.
            unsafe { *value += 1 };
        }
    }
}
