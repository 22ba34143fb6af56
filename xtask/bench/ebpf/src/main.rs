//! What `cargo xtask bench` loads into the kernel in addition to Teiten's own object: programs that make
//! packets, and programs that Teiten's is compared with. Nothing of it is part of the product.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[allow(dead_code, reason = "the egress program's frame is not used here")]
#[path = "../../../../sensor-ebpf/src/frame.rs"]
mod frame;
#[allow(dead_code, reason = "as above")]
#[path = "../../../../sensor-ebpf/src/headers.rs"]
mod headers;
mod feed;

use aya_ebpf::bindings::{BPF_ANY, xdp_action};
use aya_ebpf::btf_maps::{HashMap, PerCpuArray};
use aya_ebpf::macros::{btf_map, map, xdp};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::XdpContext;
use feed::{FIRST_PORT, Feed, SCATTER, address};
use frame::XdpFrame;
use sensor_common::layout::RecordV6;
use sensor_common::parse::AddressBytes;
use sensor_common::{Address, Link, Packet, Slot, Unparsed};

/// No header of these packets begins later.
const FURTHEST: usize = 127;

/// What each CPU makes of its packets.
#[btf_map]
static FEED: PerCpuArray<Feed, 1> = PerCpuArray::new();

/// The programs that take packets from `feed`.
#[map]
static CONTENDERS: ProgramArray = ProgramArray::with_max_entries(8, 0);

/// Packets by IPv4 source and port, with room from the start.
#[btf_map]
static HASH_V4: HashMap<[u32; 2], u64, 1> = HashMap::new();

/// Packets by IPv6 source and port, with room from the start.
#[btf_map]
static HASH_V6: HashMap<RecordV6, u64, 1> = HashMap::new();

/// Gives the packet its source and port; returns the state of the feed.
#[inline(always)]
fn vary(ctx: &XdpContext) -> Option<Feed> {
    let feed = FEED.get_ptr_mut(0)?;
    // SAFETY: the value is this CPU's, and XDP programs on one CPU do not interrupt each other.
    let feed = unsafe { &mut *feed };
    let number = if feed.scattered != 0 {
        (u64::from(feed.count.wrapping_mul(SCATTER)) * u64::from(feed.pool) >> 32) as u32
    } else {
        feed.count
    };
    feed.count += 1;
    if feed.scattered == 0 && feed.count >= feed.pool {
        feed.count = 0;
    }
    if feed.checksum_at != 0 {
        let before = u32::from_be_bytes(read(ctx, feed.source_at)?);
        let checksum = u16::from_be_bytes(read(ctx, feed.checksum_at)?);
        let checksum = changed(checksum, before, u32::from_be_bytes(address(number)));
        write(ctx, feed.checksum_at, checksum.to_be_bytes())?;
    }
    write(ctx, feed.source_at, address(number))?;
    let port = FIRST_PORT + (number & (feed.ports - 1));
    write(ctx, feed.port_at, (port as u16).to_be_bytes())?;
    Some(*feed)
}

/// A header's checksum when a word of it changes (RFC 1624, section 3).
#[inline(always)]
fn changed(checksum: u16, before: u32, after: u32) -> u16 {
    let mut sum = u64::from(!checksum) + u64::from(!before) + u64::from(after);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[inline(always)]
fn read<const N: usize>(ctx: &XdpContext, at: u32) -> Option<[u8; N]> {
    let start = ctx.data() + (at as usize & FURTHEST);
    if start + N > ctx.data_end() {
        return None;
    }
    // SAFETY: the bytes lie between `data` and `data_end`; an array of u8 has no alignment.
    Some(unsafe { *(start as *const [u8; N]) })
}

#[inline(always)]
fn write<const N: usize>(ctx: &XdpContext, at: u32, bytes: [u8; N]) -> Option<()> {
    let at = at as usize & FURTHEST;
    if at == 0 {
        return Some(());
    }
    let start = ctx.data() + at;
    if start + N > ctx.data_end() {
        return None;
    }
    // SAFETY: the bytes lie between `data` and `data_end`; an array of u8 has no alignment.
    unsafe { *(start as *mut [u8; N]) = bytes };
    Some(())
}

/// Passes a packet of the feed to one of the programs, so that all get the same packets at the same cost.
#[xdp]
pub fn feed(ctx: XdpContext) -> u32 {
    if let Some(feed) = vary(&ctx) {
        // SAFETY: nothing here is to be dropped.
        unsafe { CONTENDERS.tail_call(&ctx, feed.contender) };
    }
    xdp_action::XDP_ABORTED
}

/// Sends a packet of the feed, or makes it and drops it.
#[xdp]
pub fn send(ctx: XdpContext) -> u32 {
    vary(&ctx).map_or(xdp_action::XDP_ABORTED, |feed| feed.verdict)
}

/// Does nothing.
#[xdp]
pub fn empty_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Does nothing, and ends the packet.
#[xdp]
pub fn empty_drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

#[inline(always)]
fn parsed(ctx: &XdpContext) -> Result<Packet, Unparsed> {
    sensor_common::parse(&XdpFrame::<false>::new(ctx), Link::Ethernet)
}

/// Teiten's parser, and nothing else.
#[xdp]
pub fn parse(ctx: XdpContext) -> u32 {
    let Ok(packet) = parsed(&ctx) else { return xdp_action::XDP_ABORTED };
    let address = |address: Address| match address.bytes() {
        AddressBytes::V4(bytes) => u32::from_ne_bytes(bytes),
        AddressBytes::V6([a, b, c, d, .., e, f, g, h]) => {
            u32::from_ne_bytes([a, b, c, d]) ^ u32::from_ne_bytes([e, f, g, h])
        }
    };
    // All fields are used, so that the compiler removes none.
    let mixed = address(packet.src)
        ^ address(packet.dst)
        ^ packet.sequence
        ^ packet.acknowledgement
        ^ (u32::from(packet.port) << 16 | u32::from(packet.source_port))
        ^ (u32::from(packet.identification) << 16 | u32::from(packet.control) << 8)
        ^ u32::from(packet.dns_response)
        ^ (packet.transport as u32) << 24
        ^ u32::from(packet.offset);
    if mixed == 0x5445_4954 { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// Teiten's parser, and a counter for each source and port in a hash map.
#[xdp]
pub fn hash(ctx: XdpContext) -> u32 {
    let Ok(packet) = parsed(&ctx) else { return xdp_action::XDP_ABORTED };
    let target = Slot::new(packet.transport, packet.port).index();
    let kept = match packet.src.bytes() {
        AddressBytes::V4(src) => count(&HASH_V4, &[u32::from_ne_bytes(src), target]),
        AddressBytes::V6(src) => count(&HASH_V6, &RecordV6 { src, target }),
    };
    if kept { xdp_action::XDP_PASS } else { xdp_action::XDP_ABORTED }
}

#[inline(always)]
fn count<K>(map: &HashMap<K, u64, 1>, key: &K) -> bool {
    match map.get_ptr_mut(key) {
        Some(packets) => {
            // SAFETY: the pointer is into a map value; the benchmark runs this on one CPU.
            unsafe { *packets += 1 };
            true
        }
        None => map.insert(key, 1, u64::from(BPF_ANY)).is_ok(),
    }
}

/// Ends what the network stack gets, at its first opportunity.
#[aya_ebpf::macros::classifier]
pub fn shut(_ctx: aya_ebpf::programs::TcContext) -> i32 {
    aya_ebpf::bindings::TC_ACT_SHOT
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No program here has a panicking path; the verifier would reject one.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
