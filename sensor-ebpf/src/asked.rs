//! What is known of this host's ports, and of where it has sent datagrams lately.

use sensor_common::flow::{ASKED_GROUP, ASKED_PORTS, Asked, FlowKey, SENT_TO, may_live, sent_at};
use sensor_common::recent::{Entry, Recent};
use sensor_common::{Slot, Transport};

use crate::bounds::below;
use crate::maps::ASKED;

/// The map's only value, which the functions below take.
#[inline(always)]
pub fn shared() -> Option<*mut Asked> {
    ASKED.get_ptr_mut(0)
}

/// Seed of hashes.
#[inline(always)]
pub fn seed(shared: Option<*mut Asked>) -> u64 {
    // SAFETY: the daemon writes the seed once, before a program is attached.
    shared.map_or(0, |shared| unsafe { (*shared).seed })
}

/// What this host has sent from a TCP or UDP port, as in [`Asked::ports`].
#[inline(always)]
pub fn port(shared: Option<*mut Asked>, port: Slot) -> u8 {
    let Some(index) = below::<ASKED_PORTS>(port.index() as usize) else { return 0 };
    // SAFETY: `index` is below the array's length.
    shared.map_or(0, |shared| unsafe { *(&raw const (*shared).ports).cast::<u8>().add(index) })
}

/// Notes that this host sends a datagram of the flow `key` at `now`, nanoseconds.
#[inline(always)]
pub fn note_sent(shared: Option<*mut Asked>, key: &FlowKey, now: u64) {
    if let Some(entry) = Entry::of_flow(key, 0, 0)
        && let Some(sent) = sent_to(shared, &entry)
    {
        // SAFETY: the pointer is into a map's value; CPUs that write at once write about the same. A cache line
        // that is only read stays in every CPU's cache.
        unsafe {
            if sent.read_volatile() != sent_at(now) {
                sent.write_volatile(sent_at(now));
            }
        }
    }
}

/// Whether a packet with this entry, which has arrived, belongs to no flow: a datagram to a port that
/// has asked no group, from where this host has sent nothing lately.
#[inline(always)]
pub fn is_unasked(shared: Option<*mut Asked>, entry: &Entry, recent: Recent, now: u64) -> bool {
    let Some(local_port) = recent.udp_port() else { return false };
    if port(shared, Slot::new(Transport::Udp, local_port)) & ASKED_GROUP != 0 {
        return false;
    }
    // SAFETY: an aligned half word in a map's value.
    sent_to(shared, entry).is_some_and(|sent| !may_live(unsafe { sent.read_volatile() }, now))
}

/// The place of a conversation in [`Asked::sent_to`].
#[inline(always)]
fn sent_to(shared: Option<*mut Asked>, entry: &Entry) -> Option<*mut u16> {
    let index = below::<SENT_TO>(entry.place(seed(shared)))?;
    // SAFETY: `index` is below the array's length.
    shared.map(|shared| unsafe { (&raw mut (*shared).sent_to).cast::<u16>().add(index) })
}
