//! Flows in the kernel's maps.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use sensor_common::flow::{ASKED_PORTS, FlowCounter, FlowKey, FlowState, Flows, HalfOpen, STARTED, Table};
use sensor_common::{Frame, Link, Slot, Transport};

use crate::asked::{self, shared};
use crate::bounds::below;
use crate::frame::SkbFrame;
use crate::maps::{ACCEPTED, FLOW_COUNTERS, FLOWS, HALF_OPEN, HEARD, PEERS};
use crate::recent::teiten_note_recent;

/// The maps of flows.
pub struct KernelFlows;

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

impl Flows for KernelFlows {
    #[inline(always)]
    fn now(&self) -> u64 {
        // As of the last tick (Linux 5.11): near enough for timeouts of minutes, and does not read a device.
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn any(&self) -> u64 {
        // SAFETY: an aligned word in a map's value.
        shared().map_or(0, |shared| unsafe { (&raw const (*shared).any).read_volatile() })
    }

    #[inline(always)]
    fn start(&self, bits: u64) {
        if let Some(shared) = shared() {
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
        asked::port(port)
    }

    #[inline(always)]
    fn mark(&self, port: Slot, bits: u8) {
        if let Some(index) = below::<ASKED_PORTS>(port.index() as usize)
            && let Some(shared) = shared()
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
        shared().map_or(0, |shared| unsafe { *(&raw const (*shared).known).cast::<u8>().add(index) })
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
        teiten_note_recent(now, end);
    }

    #[inline(always)]
    fn sent(&self, key: &FlowKey, now: u64) {
        asked::note_sent(key, now);
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
        asked::seed()
    }

    #[inline(always)]
    fn note(&self, at: u32) -> u64 {
        // SAFETY: an aligned word in a map's value, which other CPUs write at once.
        HEARD.get_ptr(at).map_or(0, |note| unsafe { note.read_volatile() })
    }

    #[inline(always)]
    fn set_note(&self, at: u32, note: u64) {
        if let Some(place) = HEARD.get_ptr_mut(at) {
            // SAFETY: as above; of two CPUs that write, one note is lost, as if displaced.
            unsafe { place.write_volatile(note) };
        }
    }

    #[inline(always)]
    fn count(&self, counter: FlowCounter) {
        if let Some(value) = FLOW_COUNTERS.get_ptr_mut(counter as u32) {
            // SAFETY: the value is this CPU's, and programs of one kind do not interrupt each other.
            unsafe { *value += 1 };
        }
    }
}
