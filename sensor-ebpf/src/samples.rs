//! The first bytes of packets to chosen ports, for the daemon.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use sensor_common::layout::{SAMPLE_ALIKE, SAMPLE_BEGINNINGS, SAMPLE_BYTES, SAMPLE_TABLES, Sample};

use crate::asked;
use crate::bounds::below;
use crate::candidate::Candidate;
use crate::generation;
use crate::maps::{BEGINNINGS, SAMPLE, SAMPLES};

/// Bytes of a content that make its beginning, unless it has fewer.
const BEGINNING: usize = 8;

/// Hands the beginning of this frame to the daemon, as far as the bounds of the generation and the ring allow.
/// `candidate` is [`Candidate::bits`], `link` that of [`Sample`]. The return value has no meaning. Global, so
/// that the verifier checks it once, apart from its callers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_sample(ctx: *mut xdp_md, link: u32, candidate: u32) -> u32 {
    if let Some(mut generation) = generation::current()
        && let Some(candidate) = Candidate::from_bits(candidate)
        && let Some(sample) = SAMPLE.get_ptr_mut(0)
        && (candidate.is_first() || is_repeated(ctx, candidate, generation.number(), sample))
        && let Some(number) = generation.take_sample(candidate)
    {
        // SAFETY: the context is the one this program was called with.
        let length = unsafe { bpf_xdp_get_buff_len(ctx) } as usize;
        let captured = if length < SAMPLE_BYTES { length } else { SAMPLE_BYTES };
        // One comparison for both bounds: the compiler would make one of two, of which the verifier learns neither.
        let Some(before_last) = below::<SAMPLE_BYTES>(captured.wrapping_sub(1)) else { return 0 };
        let captured = before_last + 1;
        // SAFETY: the pointers are into this CPU's map value, and the helper writes `captured` bytes at most.
        unsafe {
            let to = (&raw mut (*sample).bytes).cast();
            if bpf_xdp_load_bytes(ctx, 0, to, captured as u32) != 0 {
                return 0;
            }
            (&raw mut (*sample).generation).write(number);
            (&raw mut (*sample).at).write(bpf_ktime_get_ns());
            (&raw mut (*sample).length).write(length as u32);
            (&raw mut (*sample).captured).write(captured as u32);
            (&raw mut (*sample).link).write(link);
            (&raw mut (*sample).padding).write(0);
            // The daemon reads it when it drains. What does not fit it counts as not kept.
            let _ = SAMPLES.output(&*sample, u64::from(aya_ebpf::bindings::BPF_RB_NO_WAKEUP));
        }
    }
    0
}

/// Whether the content begins as another did that came to this port a moment ago, and fewer than
/// [`SAMPLE_ALIKE`] of those were taken in this generation; if so, counts it as taken. Overwrites `room`.
///
/// The tables have one entry for each hash, and the newest wins: in its upper half the hash, below it the generation
/// and how many were taken in it.
#[inline(always)]
fn is_repeated(ctx: *mut xdp_md, candidate: Candidate, generation: u64, room: *mut Sample) -> bool {
    // SAFETY: the context is the one this program was called with, and there is room for as many bytes.
    let beginning = unsafe {
        let room = (&raw mut (*room).bytes).cast::<u64>();
        let content = candidate.content();
        // What is missing of a shorter content is zero.
        room.write_unaligned(0);
        if bpf_xdp_load_bytes(ctx, content, room.cast(), BEGINNING as u32) != 0 {
            let left = (bpf_xdp_get_buff_len(ctx) as usize).wrapping_sub(content as usize);
            match below::<{ BEGINNING - 1 }>(left.wrapping_sub(1)) {
                Some(before_last) => {
                    if bpf_xdp_load_bytes(ctx, content, room.cast(), before_last as u32 + 1) != 0 {
                        return false;
                    }
                }
                None if left == 0 => {}
                None => return false,
            }
        }
        room.read_unaligned()
    };
    // SplitMix64; the seed keeps senders from choosing contents that take each other's places.
    let mut hash = asked::seed(asked::shared()) ^ beginning ^ (candidate.slot() as u64) << 40;
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let nth = (hash / SAMPLE_BEGINNINGS as u64) as u32 & (SAMPLE_TABLES as u32 - 1);
    // Each CPU of many has fewer tables, a power of two.
    let masks = [SAMPLE_TABLES as u32 - 1, 7, 3, 1, 0];
    let Some(table) = masks.into_iter().find_map(|mask| BEGINNINGS.get_ptr_mut(nth & mask)) else {
        return false;
    };
    let Some(place) = below::<SAMPLE_BEGINNINGS>((hash & (SAMPLE_BEGINNINGS as u64 - 1)) as usize) else {
        return false;
    };
    // SAFETY: `place` is below the table's length, and this CPU alone writes it.
    unsafe {
        let entry = table.cast::<u64>().add(place);
        let (upper, lower) = (hash & !0xffff_ffff, *entry & 0xffff_ffff);
        let now = (generation & 0xff_ffff) << 8;
        if *entry & !0xffff_ffff != upper {
            *entry = upper | now;
            return false;
        }
        let taken = if lower & !0xff == now { lower & 0xff } else { 0 };
        if taken >= SAMPLE_ALIKE {
            return false;
        }
        *entry = upper | now | (taken + 1);
    }
    true
}
