//! How packets are made different from each other; shared with `cargo xtask bench`, which writes it.

/// What one CPU makes of the packets that it runs through `feed` or `send`.
///
/// The n-th packet has the source number `n` or, scattered, a number that jumps through the pool; the
/// source address is made of it so that neighbours in the pool are far from each other, and the low
/// bits are the port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Feed {
    /// Packets so far.
    pub count: u32,
    /// How many different sources.
    pub pool: u32,
    /// Offset of four bytes of the source address from the frame's start; 0: not changed.
    pub source_at: u32,
    /// Offset of the IPv4 header's checksum, which is updated; 0: not updated.
    pub checksum_at: u32,
    /// Offset of the destination port; 0: not changed.
    pub port_at: u32,
    /// Ports, a power of two.
    pub ports: u32,
    /// Not 0: jump through the pool instead of going through it in order.
    pub scattered: u32,
    /// Which of the programs `feed` hands its packet to.
    pub contender: u32,
    /// What `send` does with its packet, an XDP action.
    pub verdict: u32,
}

/// The first of the ports.
pub const FIRST_PORT: u32 = 1024;
/// Makes neighbours in the pool distant (Knuth, The Art of Computer Programming, volume 3, 6.4).
pub const SCATTER: u32 = 2_654_435_761;

/// The source address of this number, network byte order; another for each below 2^31, and never that
/// of a group or of this host's loopback.
#[inline(always)]
pub const fn address(number: u32) -> [u8; 4] {
    let address = 0x0100_0000 + (number.wrapping_mul(SCATTER) & 0x7fff_ffff);
    // The last of them begins with 128, so that with 129 there is room.
    if address >> 24 == 127 { (address + 0x0200_0000).to_be_bytes() } else { address.to_be_bytes() }
}
