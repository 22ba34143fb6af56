//! What is known of a packet without a lookup among the flows: that its conversation was found a moment ago, or
//! that it belongs to none.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use sensor_common::Packet;
use sensor_common::branchless;
use sensor_common::classify::Conversation;
use sensor_common::flow::Asked;
use sensor_common::recent::{Entry, RECENT_WAYS, Recent, RecentV4, RecentV6};

use crate::asked::{is_unasked, shared};
use crate::clock::{coarse_now, ticks};
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
pub fn at_once(packet: &Packet, shared: Option<*mut Asked>, now: u64) -> Option<Conversation> {
    let known = match Entry::of(packet) {
        // Most packets: here, since calls and returns take longer than all of it.
        Some(Entry::V4(wanted)) => known_v4(wanted, shared, now),
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
    ($family:ident, $entries:expr, $wanted:expr, $shared:expr, $now:expr) => {{
        if is_unasked($shared, &Entry::$family($wanted), $wanted.recent, $now) {
            return UNASKED;
        }
        let Some((first, second)) = $entries else { return UNKNOWN };
        // SAFETY: both lie in this CPU's table.
        let (first, second) = unsafe { (&*first, &*second) };
        let ticks = ticks();
        let is_recent = branchless::is_any_zero(
            first.differs(&$wanted) | first.recent.is_over(ticks),
            second.differs(&$wanted) | second.recent.is_over(ticks),
        );
        if is_recent { RECENT } else { UNKNOWN }
    }};
}

/// Puts `entry` before the others of its set.
macro_rules! put {
    ($entries:expr, $entry:expr) => {{
        if let Some((first, second)) = $entries {
            // SAFETY: both lie in this CPU's table, and programs on one CPU do not interrupt each other.
            unsafe {
                if (*first).differs(&$entry) != 0 {
                    *second = *first;
                }
                *first = $entry;
            }
        }
    }};
}

/// [`at_once`] of IPv4.
#[inline(always)]
fn known_v4(wanted: RecentV4, shared: Option<*mut Asked>, now: u64) -> u32 {
    known_of!(V4, entries(&RECENT_V4, wanted.set()), wanted, shared, now)
}

/// [`at_once`] of IPv6, by the words of [`RecentV6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_at_once_v6(a: u64, b: u64, c: u64, d: u64, recent: u64) -> u32 {
    let wanted = RecentV6 { addresses: [a, b, c, d], recent: Recent::from_bits(recent) };
    known_of!(V6, entries(&RECENT_V6, wanted.set()), wanted, shared(), coarse_now())
}

/// Notes that the flow with the stored key ([`Scratch`](crate::scratch::Scratch)) was found, and lives for `life`,
/// nanoseconds. The return value has no meaning.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_note_recent(life: u64) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the key was stored in this run of the program.
    let key = unsafe { &(*scratch).key };
    match Entry::of_flow(key, ticks(), life) {
        Some(Entry::V4(entry)) => put!(entries(&RECENT_V4, entry.set()), entry),
        Some(Entry::V6(entry)) => put!(entries(&RECENT_V6, entry.set()), entry),
        None => {}
    }
    0
}
