//! What is known of a packet without a lookup among the flows: that its conversation was found a moment ago, or
//! that it belongs to none.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use sensor_common::Packet;
use sensor_common::branchless;
use sensor_common::classify::Conversation;
use sensor_common::flow::Asked;
use sensor_common::recent::{Entry, RECENT_WAYS_V4, RECENT_WAYS_V6, Recent, RecentV4, RecentV6};

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

/// The set that begins at `set`, which is below `N`, in this CPU's table.
#[inline(always)]
fn entries<const WAYS: usize, T, const N: usize, const F: usize>(
    tables: &Array<[T; N], 1, F>,
    set: usize,
) -> Option<*mut [T; WAYS]> {
    // SAFETY: the helper has no preconditions.
    let table = tables.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })?;
    // SAFETY: a set that begins below the table's length lies in it.
    Some(unsafe { table.cast::<T>().add(set & (N - WAYS)).cast() })
}

/// What is known of the packet with the entry `$wanted`, whose set in this CPU's table is `$entries`. Programs on
/// one CPU do not interrupt each other.
macro_rules! known_of {
    ($family:ident, $entries:expr, $wanted:expr, $shared:expr, $now:expr) => {{
        if is_unasked($shared, &Entry::$family($wanted), $wanted.recent, $now) {
            return UNASKED;
        }
        let Some(entries) = $entries else { return UNKNOWN };
        let ticks = ticks();
        // The highest bit stays while no entry is the wanted one.
        let mut differ = u64::MAX;
        // SAFETY: the set lies in this CPU's table.
        for entry in unsafe { &*entries } {
            differ &= branchless::high_bit_unless_zero(entry.differs(&$wanted) | entry.recent.is_over(ticks));
        }
        if differ >> 63 == 0 { RECENT } else { UNKNOWN }
    }};
}

/// Puts `entry` before the others of its set.
macro_rules! put {
    ($entries:expr, $entry:expr) => {{
        if let Some(entries) = $entries {
            // SAFETY: the set lies in this CPU's table, and programs on one CPU do not interrupt each other.
            let entries = unsafe { &mut *entries };
            // The place of the one that leaves: an earlier entry of the same conversation, or the oldest.
            let mut last = entries.len() - 1;
            for (way, entry) in entries.iter().enumerate().rev().skip(1) {
                if entry.differs(&$entry) == 0 {
                    last = way;
                }
            }
            for way in (1..entries.len()).rev() {
                if way <= last {
                    entries[way] = entries[way - 1];
                }
            }
            entries[0] = $entry;
        }
    }};
}

/// [`at_once`] of IPv4.
#[inline(always)]
fn known_v4(wanted: RecentV4, shared: Option<*mut Asked>, now: u64) -> u32 {
    known_of!(V4, entries::<RECENT_WAYS_V4, _, _, _>(&RECENT_V4, wanted.set()), wanted, shared, now)
}

/// [`at_once`] of IPv6, by the words of [`RecentV6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_at_once_v6(a: u64, b: u64, c: u64, d: u64, recent: u64) -> u32 {
    let wanted = RecentV6 { addresses: [a, b, c, d], recent: Recent::from_bits(recent) };
    known_of!(
        V6,
        entries::<RECENT_WAYS_V6, _, _, _>(&RECENT_V6, wanted.set()),
        wanted,
        shared(),
        coarse_now()
    )
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
        Some(Entry::V4(entry)) => put!(entries::<RECENT_WAYS_V4, _, _, _>(&RECENT_V4, entry.set()), entry),
        Some(Entry::V6(entry)) => put!(entries::<RECENT_WAYS_V6, _, _, _>(&RECENT_V6, entry.set()), entry),
        None => {}
    }
    0
}
