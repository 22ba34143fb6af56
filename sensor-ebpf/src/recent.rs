//! What is known of a packet without a lookup among the flows: that its conversation was found a moment ago, or
//! that it belongs to none.
//!
//! The lookup is a function of its own, since the stack has no room for it in the program's.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns};
use sensor_common::recent::{Entry, RECENT_WAYS, Recent, RecentV4, RecentV6};
use sensor_common::{Conversation, Packet};

use crate::asked::is_unasked;
use crate::maps::{RECENT_V4, RECENT_V6};
use crate::scratch::scratch;

/// Nothing is known of a packet that has arrived: a lookup among the flows decides.
const UNKNOWN: u32 = 0;
/// It belongs to a conversation that was found a moment ago.
const RECENT: u32 = 1;
/// It belongs to none ([`is_unasked`]).
const UNASKED: u32 = 2;

/// What `packet`, which has arrived, is to this host's conversations; `None` when that takes a lookup among the
/// flows.
#[inline(always)]
pub fn at_once(packet: &Packet) -> Option<Conversation> {
    let known = match Entry::of(packet) {
        Some(Entry::V4(RecentV4 { addresses, recent })) => teiten_at_once_v4(addresses, recent.bits()),
        Some(Entry::V6(RecentV6 { addresses: [a, b, c, d], recent })) => {
            teiten_at_once_v6(a, b, c, d, recent.bits())
        }
        None => UNKNOWN,
    };
    match known {
        RECENT => Some(Conversation::Ours),
        UNASKED => Some(Conversation::None),
        _ => None,
    }
}

#[inline(always)]
fn now() -> u64 {
    // The clock of `KernelFlows::now`.
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The entries of the set that begins at `set`, which is below `N`, in this CPU's table.
#[inline(always)]
fn entries<T, const N: usize, const F: usize>(
    tables: &Array<[T; N], 1, F>,
    set: usize,
) -> Option<(*mut T, *mut T)> {
    // SAFETY: the helper has no preconditions.
    let table = tables.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })?;
    // SAFETY: a set that begins below the table's length lies in it.
    let first = unsafe { table.cast::<T>().add(set & (N - RECENT_WAYS)) };
    // SAFETY: as above.
    Some((first, unsafe { first.add(1) }))
}

/// What is known of the packet with the entry `$wanted`, whose set in this CPU's table is `$entries`. Programs on
/// one CPU do not interrupt each other.
macro_rules! known_of {
    ($family:ident, $entries:expr, $wanted:expr) => {{
        let now = now();
        if is_unasked(&Entry::$family($wanted), $wanted.recent, now) {
            return UNASKED;
        }
        let Some((first, second)) = $entries else { return UNKNOWN };
        // SAFETY: both lie in this CPU's table.
        let (first, second) = unsafe { (&*first, &*second) };
        let is_recent =
            first.is(&$wanted) && first.recent.holds(now) || second.is(&$wanted) && second.recent.holds(now);
        if is_recent { RECENT } else { UNKNOWN }
    }};
}

/// Puts `entry` before the others of its set.
macro_rules! put {
    ($entries:expr, $entry:expr) => {{
        if let Some((first, second)) = $entries {
            // SAFETY: both lie in this CPU's table, and programs on one CPU do not interrupt each other.
            unsafe {
                if !(*first).is(&$entry) {
                    *second = *first;
                }
                *first = $entry;
            }
        }
    }};
}

/// [`at_once`] of IPv4, by the words of [`RecentV4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_at_once_v4(addresses: u64, recent: u64) -> u32 {
    let wanted = RecentV4 { addresses, recent: Recent::from_bits(recent) };
    known_of!(V4, entries(&RECENT_V4, wanted.set()), wanted)
}

/// [`at_once`] of IPv6, by the words of [`RecentV6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_at_once_v6(a: u64, b: u64, c: u64, d: u64, recent: u64) -> u32 {
    let wanted = RecentV6 { addresses: [a, b, c, d], recent: Recent::from_bits(recent) };
    known_of!(V6, entries(&RECENT_V6, wanted.set()), wanted)
}

/// Notes that the flow with the stored key ([`Scratch`](crate::scratch::Scratch)) was found at `now`, and
/// lives until `end`, both in nanoseconds. The return value has no meaning.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_note_recent(now: u64, end: u64) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the key was stored in this run of the program.
    let key = unsafe { &(*scratch).key };
    match Entry::of_flow(key, now, end) {
        Some(Entry::V4(entry)) => put!(entries(&RECENT_V4, entry.set()), entry),
        Some(Entry::V6(entry)) => put!(entries(&RECENT_V6, entry.set()), entry),
        None => {}
    }
    0
}
