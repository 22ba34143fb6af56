//! Flows in the kernel's maps.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use sensor_common::Slot;
use sensor_common::flow::{
    self, ASKED_PORTS, Asked, FlowCounter, FlowKey, FlowState, Flows, HalfOpen, SERVED,
};

use crate::bounds::below;
use crate::maps::{ASKED, FLOW_COUNTERS, FLOWS, HALF_OPEN, HEARD};

/// The maps of flows.
pub struct KernelFlows;

/// `TCP_ESTABLISHED`, `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`, `TCP_CLOSE_WAIT`, `TCP_LAST_ACK` and
/// `TCP_CLOSING` of `linux/net/tcp_states.h`, as bits.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Whether the socket that sends has a connection. What the kernel sends by itself (a RST, the ACK
/// that challenges a stranger's segment) comes from sockets that have none.
#[inline(always)]
pub fn is_connected(ctx: &TcContext) -> bool {
    // SAFETY: the context is the one this program was called with.
    let socket = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the socket was just found to be there, and lives while the packet does.
    let state = unsafe { (*socket).state };
    state < u32::BITS && CONNECTED >> state & 1 != 0
}

#[inline(always)]
fn count(counter: FlowCounter) {
    if let Some(value) = FLOW_COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the value is this CPU's, and programs of one kind do not interrupt each other.
        unsafe { *value += 1 };
    }
}

#[inline(always)]
fn shared() -> Option<*mut Asked> {
    ASKED.get_ptr_mut(0)
}

impl Flows for KernelFlows {
    #[inline(always)]
    fn now(&self) -> u64 {
        // As of the last tick (Linux 5.11): near enough for timeouts of minutes, and does not read a device.
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn any(&self) -> bool {
        // SAFETY: an aligned word in a map's value.
        shared().is_some_and(|shared| unsafe { (&raw const (*shared).any).read_volatile() } != 0)
    }

    #[inline(always)]
    fn asked(&self, port: Slot) -> bool {
        let Some(index) = below::<ASKED_PORTS>(port.index() as usize) else { return false };
        // SAFETY: `index` is below the array's length.
        shared().is_some_and(|shared| unsafe {
            *(&raw const (*shared).ports).cast::<u8>().add(index) & flow::ASKED != 0
        })
    }

    #[inline(always)]
    fn ask(&self, port: Slot) {
        if let Some(index) = below::<ASKED_PORTS>(port.index() as usize)
            && let Some(shared) = shared()
        {
            // SAFETY: `index` is below the array's length. All CPUs write the same.
            unsafe {
                let asked = (&raw mut (*shared).ports).cast::<u8>().add(index);
                // A line that is only read stays in all caches.
                if *asked & flow::ASKED == 0 {
                    *asked |= flow::ASKED;
                }
            }
        }
    }

    #[inline(always)]
    fn served(&self, port: Slot) -> bool {
        let Some(index) = below::<ASKED_PORTS>(port.index() as usize) else { return false };
        // SAFETY: `index` is below the array's length.
        shared().is_some_and(|shared| unsafe {
            *(&raw const (*shared).ports).cast::<u8>().add(index) & SERVED != 0
        })
    }

    #[inline(always)]
    fn get(&self, key: &FlowKey) -> Option<FlowState> {
        let state = FLOWS.get_ptr(key)?;
        // SAFETY: the pointer is into a map value; each of its words is written at once.
        Some(unsafe { *state })
    }

    #[inline(always)]
    fn update(&self, key: &FlowKey, next: impl FnOnce(FlowState) -> Option<FlowState>) -> bool {
        let Some(state) = FLOWS.get_ptr_mut(key) else { return false };
        // SAFETY: the pointer is into a map value; each of its words is written at once, and of two
        // CPUs that write, either is right.
        match next(unsafe { *state }) {
            Some(next) => {
                // SAFETY: as above.
                unsafe {
                    (&raw mut (*state).phase).write(next.phase);
                    (&raw mut (*state).sent).write(next.sent);
                }
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn create(&self, key: &FlowKey, state: FlowState) {
        if FLOWS.insert(key, state, 0).is_err() {
            count(FlowCounter::Failed);
            return;
        }
        count(FlowCounter::Created);
        if let Some(shared) = shared() {
            // SAFETY: an aligned word in a map's value; all CPUs write the same.
            unsafe {
                if (*shared).any == 0 {
                    (*shared).any = 1;
                }
            }
        }
    }

    #[inline(always)]
    fn half_open(&self, key: &FlowKey) -> Option<HalfOpen> {
        let half_open = HALF_OPEN.get_ptr(key)?;
        // SAFETY: the pointer is into a map value.
        Some(unsafe { *half_open })
    }

    #[inline(always)]
    fn offer(&self, key: &FlowKey, half_open: HalfOpen) {
        // Fails only while another CPU holds the bucket. The handshake's end is then not known for
        // one; this host's first segment shows the connection all the same.
        let _ = HALF_OPEN.insert(key, half_open, 0);
    }

    #[inline(always)]
    fn accepted(&self, key: &FlowKey) {
        // It may have made room already.
        let _ = HALF_OPEN.remove(key);
    }

    #[inline(always)]
    fn seed(&self) -> u64 {
        // SAFETY: the daemon writes the seed once, before a program is attached.
        shared().map_or(0, |shared| unsafe { (*shared).seed })
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
    fn replied(&self) {
        count(FlowCounter::Replies);
    }
}
