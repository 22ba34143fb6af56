//! Where packets are read from, and why one cannot be parsed.

/// No header begins further into the frame than this, bytes: more than a whole Ethernet frame, and than
/// the longest extension header (RFC 8200: 2,048). The verifier needs a bound.
pub const MAX_OFFSET: usize = 4096;

/// Where packets are read from.
pub trait Frame {
    /// The `N` bytes at `offset` (bytes from the start of the frame), or `None` when the frame
    /// ends before their end.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Frame for [u8] {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk::<N>().copied()
    }
}

/// Why a frame has no transport and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// Neither IPv4 nor IPv6: ARP, LLDP, a PPP control protocol, an IEEE 802.3 length. [`link_protocol`](crate::parse::link_protocol)
    /// says what it is instead.
    NotIp,
    /// A header ends after the frame, or after what the headers before it say that they hold.
    Truncated,
    /// The version does not match the `EtherType`, or a header's length field is below its minimum.
    BadHeader,
    /// More extension headers, or longer ones, than are skipped.
    TooManyExtensions,
    /// A fragment that does not begin with the transport header.
    Fragment,
}
