//! Addresses that cannot come from the Internet, and IPv6 addresses that hold an IPv4 address.
//!
//! The lists are IANA's special-purpose address registries (RFC 6890, as updated by RFC 8190): the
//! blocks that are not globally reachable and so are no source of a packet from outside. Multicast is
//! never a source (RFC 1112, RFC 4291). Blocks that are merely not allocated yet are not in them:
//! such sources are spoofed too, but tomorrow they may not be.

use ipnet::{Ipv4Net, Ipv6Net};

/// IPv4 blocks.
const V4: [&str; 14] = [
    "0.0.0.0/8",       // this network: RFC 791, RFC 1122
    "10.0.0.0/8",      // private use: RFC 1918
    "100.64.0.0/10",   // carriers' shared space: RFC 6598
    "127.0.0.0/8",     // loopback: RFC 1122
    "169.254.0.0/16",  // link local: RFC 3927
    "172.16.0.0/12",   // private use: RFC 1918
    "192.0.0.0/24",    // protocol assignments: RFC 6890
    "192.0.2.0/24",    // documentation: RFC 5737
    "192.168.0.0/16",  // private use: RFC 1918
    "198.18.0.0/15",   // benchmarking: RFC 2544
    "198.51.100.0/24", // documentation: RFC 5737
    "203.0.113.0/24",  // documentation: RFC 5737
    "224.0.0.0/4",     // multicast: RFC 1112
    "240.0.0.0/4",     // reserved, limited broadcast: RFC 1112, RFC 8190
];

/// IPv6 blocks.
const V6: [&str; 14] = [
    "::/96",          // unspecified, loopback, IPv4-compatible: RFC 4291
    "::ffff:0:0/96",  // IPv4-mapped: RFC 4291
    "64:ff9b:1::/48", // local translation: RFC 8215
    "100::/64",       // discard only: RFC 6666
    "100:0:0:1::/64", // dummy prefix: RFC 9780
    "2001:2::/48",    // benchmarking: RFC 5180
    "2001:10::/28",   // ORCHID, returned: RFC 4843
    "2001:db8::/32",  // documentation: RFC 3849
    "3fff::/20",      // documentation: RFC 9637
    "5f00::/16",      // segment identifiers: RFC 9602
    "fc00::/7",       // unique local: RFC 4193
    "fe80::/10",      // link local: RFC 4291
    "fec0::/10",      // site local, returned: RFC 3879
    "ff00::/8",       // multicast: RFC 4291
];

pub(crate) fn v4() -> [Ipv4Net; V4.len()] {
    V4.map(|block| block.parse().expect("a prefix"))
}

pub(crate) fn v6() -> [Ipv6Net; V6.len()] {
    V6.map(|block| block.parse().expect("a prefix"))
}

/// The IPv4 address that tells where an IPv6 address is: 6to4 (RFC 3056, the bytes after 2002),
/// Teredo (RFC 4380, the client's, inverted, in the last bytes), NAT64 (RFC 6052, the last bytes
/// after the well-known prefix).
#[inline]
pub(crate) fn embedded_v4(address: u128) -> Option<u32> {
    if address >> 112 == 0x2002 {
        Some((address >> 80) as u32)
    } else if address >> 96 == 0x2001_0000 {
        Some(!(address as u32))
    } else if address >> 32 == 0x0064_ff9b << 64 {
        Some(address as u32)
    } else {
        None
    }
}
