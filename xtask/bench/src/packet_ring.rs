//! How packets are counted without XDP: an `AF_PACKET` socket with a `TPACKET_V3` ring, and a hash map
//! by source and port, on a thread of its own.

use anyhow::{Context as _, Result};
use lab::netns::Netns;
use sensor_common::parse::AddressBytes;
use sensor_common::{Link, Slot};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Of `linux/if_packet.h`.
const TPACKET_V3: libc::c_int = 2;
const PACKET_RX_RING: libc::c_int = 5;
const PACKET_VERSION: libc::c_int = 10;
/// Bytes of a block, and how many there are.
const BLOCK: usize = 1 << 20;
const BLOCKS: usize = 64;
const TP_STATUS_USER: u32 = 1;

/// `struct tpacket_req3`.
#[repr(C)]
struct Request {
    block_size: u32,
    block_nr: u32,
    frame_size: u32,
    frame_nr: u32,
    retire_block_milliseconds: u32,
    private: u32,
    features: u32,
}

/// A fast hasher (Fowler, Noll, Vo over words), as the author of such a counter would take.
#[derive(Default)]
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Counts = HashMap<u64, u64, BuildHasherDefault<Fnv>>;

/// A running counter; ended when dropped.
pub(super) struct PacketRing {
    /// Its thread.
    pub(super) thread: u32,
    counted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl PacketRing {
    /// On `interface` of `netns`, on CPU `cpu`.
    pub(super) fn start(netns: &Netns, interface: &str, cpu: usize) -> Result<Self> {
        let index = netns.index(interface)?;
        let socket = netns.run(|| socket(index))?.context("open a packet socket with a ring")?;
        let (counted, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = {
            let (counted, stop) = (Arc::clone(&counted), Arc::clone(&stop));
            std::thread::spawn(move || {
                // On a machine with one CPU both sides share it.
                let _ = super::programs::stay_on(cpu);
                let _ = sender.send(nix::unistd::gettid().as_raw() as u32);
                read(&socket, &counted, &stop);
            })
        };
        let thread = receiver.recv().context("start the reader")?;
        Ok(Self { thread, counted, stop, reader: Some(reader) })
    }

    /// Packets that are in the hash map.
    pub(super) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Acquire)
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A socket with its mapped ring.
struct RingSocket {
    socket: OwnedFd,
    start: *mut u8,
}

// SAFETY: the mapping belongs to the process, and one thread uses it at a time.
unsafe impl Send for RingSocket {}

impl Drop for RingSocket {
    fn drop(&mut self) {
        // SAFETY: exactly what `socket` has mapped.
        unsafe { libc::munmap(self.start.cast(), BLOCK * BLOCKS) };
    }
}

fn socket(index: u32) -> io::Result<RingSocket> {
    let check = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // Without a protocol nothing comes before it is bound.
    // SAFETY: no pointers.
    let socket = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just opened it, and no one else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let set = |name: libc::c_int, value: *const libc::c_void, length: usize| {
        // SAFETY: callers pass a value of this length, which lives across the call.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, value, length as libc::socklen_t)
        };
        check(result)
    };
    let version = TPACKET_V3;
    set(PACKET_VERSION, (&raw const version).cast(), size_of::<libc::c_int>())?;
    let request = Request {
        block_size: BLOCK as u32,
        block_nr: BLOCKS as u32,
        frame_size: 2048,
        frame_nr: (BLOCK / 2048 * BLOCKS) as u32,
        retire_block_milliseconds: 10,
        private: 0,
        features: 0,
    };
    set(PACKET_RX_RING, (&raw const request).cast(), size_of::<Request>())?;
    // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no other memory.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            BLOCK * BLOCKS,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            socket.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let ring = RingSocket { socket, start: start.cast() };
    // SAFETY: all-zero bytes are a valid address structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    // SAFETY: the address is of the length that is given, and lives across the call.
    check(unsafe {
        libc::bind(
            ring.socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    })?;
    Ok(ring)
}

fn read(ring: &RingSocket, counted: &AtomicU64, stop: &AtomicBool) {
    let mut counts = Counts::default();
    let mut at = 0;
    while !stop.load(Ordering::Acquire) {
        // SAFETY: `at` is below the number of blocks.
        let block = unsafe { ring.start.add(at * BLOCK) };
        // `struct tpacket_block_desc`: version, offset of the private area, status, number of packets,
        // offset of the first.
        #[expect(clippy::cast_ptr_alignment, reason = "blocks begin at pages")]
        let words = block.cast::<u32>();
        // SAFETY: within the block; the kernel writes the status, hence volatile.
        if unsafe { words.add(2).read_volatile() } & TP_STATUS_USER == 0 {
            let mut waiting = libc::pollfd { fd: ring.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one descriptor, which lives across the call.
            unsafe { libc::poll(&raw mut waiting, 1, 50) };
            continue;
        }
        std::sync::atomic::fence(Ordering::Acquire);
        // SAFETY: the block is this side's until its status is given back.
        let (packets, first) = unsafe { (words.add(3).read(), words.add(4).read() as usize) };
        // SAFETY: as above; the frames lie within the block.
        let bytes = unsafe { std::slice::from_raw_parts(block, BLOCK) };
        counted.fetch_add(count(bytes, first, packets, &mut counts), Ordering::Release);
        std::sync::atomic::fence(Ordering::Release);
        // SAFETY: gives the block back to the kernel.
        unsafe { words.add(2).write_volatile(0) };
        at = (at + 1) % BLOCKS;
    }
}

/// Counts the frames of one block (`struct tpacket3_hdr` each); tells how many.
fn count(block: &[u8], first: usize, packets: u32, counts: &mut Counts) -> u64 {
    let mut at = first;
    let mut counted = 0;
    for _ in 0..packets {
        let Some(header) = block.get(at..at + 28) else { break };
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (next, captured) = (word(0) as usize, word(12) as usize);
        let frame = at + usize::from(u16::from_ne_bytes([header[24], header[25]]));
        if let Some(frame) = block.get(frame..frame + captured)
            && let Ok(packet) = sensor_common::parse(frame, Link::Ethernet)
            && let AddressBytes::V4(src) = packet.src.bytes()
        {
            let slot = Slot::new(packet.transport, packet.port).index();
            *counts.entry(u64::from(u32::from_be_bytes(src)) << 32 | u64::from(slot)).or_default() += 1;
            counted += 1;
        }
        if next == 0 {
            break;
        }
        at += next;
    }
    counted
}
