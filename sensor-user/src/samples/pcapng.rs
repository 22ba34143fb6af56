//! Contents as a capture that can be shared: with the headers and times of the packets that had them first.
//!
//! The sensor's address is replaced by one for documentation (RFC 5737, RFC 3849), also as the source, and in
//! headers that repeat it; what [`Masker`] hides by
//! asterisks, and checksums are corrected by what was changed (RFC 1624), so that one that was right is right
//! also when only the first bytes of a packet are there, and one that was wrong stays wrong.

use super::chosen::Chosen;
use super::day::Row;
use super::mask::Masker;
use sensor_common::Transport;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// `LINKTYPE_RAW`: packets begin with the IP header.
const RAW: u16 = 101;

/// Writes the first packet of each row, in the order of their times, as pcapng (draft-ietf-opsawg-pcapng).
/// Without a `masker` they are as they came.
///
/// # Errors
///
/// `out` cannot be written.
pub fn write(rows: &[&Row], masker: Option<&Masker>, out: &mut dyn Write) -> io::Result<()> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| (row.first, row.slot, row.key));
    // Version 1.0, of unknown length.
    let mut section = Vec::new();
    section.extend(0x1a2b_3c4d_u32.to_le_bytes());
    section.extend([1, 0, 0, 0]);
    section.extend(u64::MAX.to_le_bytes());
    option(&mut section, 4, concat!("teiten ", env!("CARGO_PKG_VERSION")).as_bytes());
    option(&mut section, 0, &[]);
    block(out, 0x0a0d_0d0a, &section)?;
    let mut interface = Vec::new();
    interface.extend(RAW.to_le_bytes());
    interface.extend([0; 2]);
    interface.extend(0_u32.to_le_bytes());
    // Nanoseconds.
    option(&mut interface, 9, &[9]);
    option(&mut interface, 0, &[]);
    block(out, 1, &interface)?;
    let mut stand_ins = StandIns::default();
    for row in rows {
        let bytes = match masker {
            Some(masker) => shared(&row.packet, masker, &mut stand_ins),
            None => row.packet.bytes.clone(),
        };
        let mut packet = Vec::new();
        packet.extend(0_u32.to_le_bytes());
        let at = row.first.max(0) as u64;
        packet.extend(((at >> 32) as u32).to_le_bytes());
        packet.extend((at as u32).to_le_bytes());
        packet.extend((bytes.len() as u32).to_le_bytes());
        packet.extend(((row.packet.begin + row.packet.length).max(bytes.len()) as u32).to_le_bytes());
        packet.extend(&bytes);
        packet.resize(packet.len().next_multiple_of(4), 0);
        option(&mut packet, 1, format!("{}: {} packets with this content", row.slot, row.packets).as_bytes());
        option(&mut packet, 0, &[]);
        block(out, 6, &packet)?;
    }
    Ok(())
}

fn block(out: &mut dyn Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(body)?;
    out.write_all(&length)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Addresses for documentation, in the order in which the sensor's of each family are met.
#[derive(Debug, Default)]
struct StandIns {
    v4: BTreeMap<Ipv4Addr, Ipv4Addr>,
    v6: BTreeMap<Ipv6Addr, Ipv6Addr>,
}

impl StandIns {
    fn of(&mut self, address: IpAddr) -> IpAddr {
        match address {
            // 192.0.2.1 and on; 254 of them, then again.
            IpAddr::V4(address) => {
                let number = 1 + self.v4.len() % 254;
                IpAddr::V4(*self.v4.entry(address).or_insert(Ipv4Addr::new(192, 0, 2, number as u8)))
            }
            // 2001:db8::1 and on.
            IpAddr::V6(address) => {
                let number = 1 + self.v6.len() as u128;
                let first = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0));
                IpAddr::V6(*self.v6.entry(address).or_insert(Ipv6Addr::from(first + number)))
            }
        }
    }
}

/// Bytes of a packet that are replaced, and the sum over 16-bit words of what that changes.
struct Changed<'a> {
    bytes: &'a mut [u8],
    /// Of what is counted from here.
    from: usize,
    sum: u64,
}

impl Changed<'_> {
    fn set(&mut self, at: usize, byte: u8) {
        let before = std::mem::replace(&mut self.bytes[at], byte);
        let shift = if (at - self.from).is_multiple_of(2) { 8 } else { 0 };
        // ~m + m' (RFC 1624, equation 3), of a word whose other byte stays.
        self.sum += u64::from(!(u16::from(before) << shift)) + (u64::from(byte) << shift);
    }
}

/// The checksum at `at` corrected by a sum of changes.
fn correct(bytes: &mut [u8], at: usize, sum: u64) -> Option<u16> {
    let checksum = u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]);
    let mut sum = u64::from(!checksum) + sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let corrected = !(sum as u16);
    bytes[at..at + 2].copy_from_slice(&corrected.to_be_bytes());
    Some(corrected)
}

/// A packet as it can be shared.
fn shared(packet: &Chosen, masker: &Masker, stand_ins: &mut StandIns) -> Vec<u8> {
    let mut bytes = packet.bytes.clone();
    let hidden = masker.bytes(packet.content());
    let Some((src, dst)) = packet.addresses() else { return Vec::new() };
    let Ok(parsed) = sensor_common::parse(&packet.bytes[..], sensor_common::Link::Ip) else {
        return Vec::new();
    };
    let transport = usize::from(parsed.offset);
    let (of_src, of_dst, headers) = match dst {
        IpAddr::V4(_) => (12..16, 16..20, 20),
        IpAddr::V6(_) => (8..24, 24..40, 40),
    };
    let mut stand_in = |address| match stand_ins.of(address) {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let of_dst = (of_dst, stand_in(dst));
    // A source that is forged to be the sensor's address tells it just as well.
    let of_src = masker.is_own(src).then(|| (of_src, stand_in(src)));
    let stand_in = of_dst.1.clone();
    let mut network = Changed { bytes: &mut bytes, from: 0, sum: 0 };
    for (range, stand_in) in std::iter::once(of_dst).chain(of_src) {
        for (at, byte) in range.zip(stand_in) {
            network.set(at, byte);
        }
    }
    // The addresses are part of the transport's pseudo header; options are not.
    let pseudo = network.sum;
    for range in masker.addresses(&packet.bytes[headers..transport]) {
        for (at, byte) in range.zip(stand_in.iter().cycle()) {
            network.set(headers + at, *byte);
        }
    }
    let of_network = network.sum;
    let mut content = Changed { bytes: &mut bytes, from: transport, sum: 0 };
    // The sender chooses TCP's numbers and options and ICMP's identifiers: Mirai's SYNs carry the destination as their
    // sequence number (Antonakakis et al., 2017, section 3.1).
    let fields: [Range<usize>; 2] = match parsed.transport {
        Transport::Tcp => [4..12, 20..usize::MAX],
        Transport::Icmp | Transport::Icmpv6 => [4..8, 0..0],
        _ => [0..0, 0..0],
    };
    for field in fields {
        let begin = transport + field.start;
        let end = packet.begin.min(transport.saturating_add(field.end));
        let part = packet.bytes.get(begin..end).unwrap_or_default();
        // Of an address that only a prefix has, where a number of the header is: elsewhere most are something else.
        let words = part.as_chunks().0.iter().enumerate().take(if field.start == 4 { 2 } else { 0 });
        let words = words.filter(|(_, word)| masker.is_own_word(**word)).map(|(nth, _)| 4 * nth..4 * nth + 4);
        for range in masker.addresses(part).into_iter().chain(words) {
            for (at, byte) in range.zip(stand_in.iter().cycle()) {
                content.set(begin + at, *byte);
            }
        }
    }
    for at in hidden.iter().enumerate().filter(|(_, hidden)| **hidden).map(|(at, _)| at) {
        content.set(packet.begin + at, b'*');
    }
    let of_content = content.sum;
    if dst.is_ipv4() {
        correct(&mut bytes, 10, of_network);
    }
    match parsed.transport {
        Transport::Tcp => {
            correct(&mut bytes, transport + 16, pseudo + of_content);
        }
        Transport::Udp => {
            let at = transport + 6;
            // 0 says that there is none (RFC 768).
            if bytes.get(at..at + 2).is_some_and(|sum| sum != [0, 0])
                && correct(&mut bytes, at, pseudo + of_content) == Some(0)
            {
                bytes[at..at + 2].fill(0xff);
            }
        }
        Transport::Icmp => {
            correct(&mut bytes, transport + 2, of_content);
        }
        Transport::Icmpv6 => {
            correct(&mut bytes, transport + 2, pseudo + of_content);
        }
        Transport::Sctp | Transport::Other => {}
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
    use sensor_common::{Link, parse};
    use std::collections::BTreeSet;

    fn chosen(frame: &[u8], limit: u16) -> Chosen {
        Chosen::new(frame, Link::Ip, &parse(frame, Link::Ip).unwrap(), limit).unwrap()
    }

    fn masker() -> Masker {
        Masker::new(&BTreeSet::from(["203.0.113.77".parse().unwrap(), "2001:db8:0:7::2f".parse().unwrap()]))
    }

    #[test]
    fn the_address_is_replaced_everywhere_and_checksums_are_right() {
        let text = b"visit www.evil.com from 203.0.113.77 \xcb\x00\x71\x4d!";
        let mut frame = Vec::new();
        PacketBuilder::ipv4([198, 51, 100, 7], [203, 0, 113, 77], 60)
            .udp(4, 1026)
            .write(&mut frame, text)
            .unwrap();
        let bytes = shared(&chosen(&frame, 768), &masker(), &mut StandIns::default());
        let sliced = SlicedPacket::from_ip(&bytes).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net else { panic!() };
        assert_eq!(ip.header().destination_addr().to_string(), "192.0.2.1");
        assert_eq!(ip.header().source_addr().to_string(), "198.51.100.7");
        assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
        let Some(TransportSlice::Udp(udp)) = &sliced.transport else { panic!() };
        let expected = [&b"visit ************ from ************ ****!"[..]].concat();
        assert_eq!(udp.payload(), expected);
        let checksum = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).unwrap();
        assert_eq!(udp.checksum(), checksum);
    }

    #[test]
    fn a_source_that_is_the_sensors_address_is_replaced_and_checksums_are_right() {
        let own = ["203.0.113.77", "203.0.113.78", "2001:db8:0:7::2f", "2002:cb00:714d::1"];
        let masker = Masker::new(&own.iter().map(|own| own.parse().unwrap()).collect::<BTreeSet<IpAddr>>());
        for (src, dst, expected) in [
            (own[0], own[0], ["192.0.2.1"; 2]),
            (own[1], own[0], ["192.0.2.2", "192.0.2.1"]),
            (own[2], own[2], ["2001:db8::1"; 2]),
            (own[3], own[2], ["2001:db8::2", "2001:db8::1"]),
            ("198.51.100.7", own[0], ["198.51.100.7", "192.0.2.1"]),
        ] {
            // The sequence number is an address as well.
            let mut frame = Vec::new();
            let builder = match (src.parse().unwrap(), dst.parse().unwrap()) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => PacketBuilder::ipv4(src.octets(), dst.octets(), 60),
                (IpAddr::V6(src), IpAddr::V6(dst)) => PacketBuilder::ipv6(src.octets(), dst.octets(), 60),
                _ => panic!("of one version"),
            };
            builder.tcp(4, 23, 0xcb00_714d, 8192).syn().write(&mut frame, b"abc").unwrap();
            let bytes = shared(&chosen(&frame, 768), &masker, &mut StandIns::default());
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!() };
            assert_ne!(tcp.sequence_number(), 0xcb00_714d);
            let (addresses, checksum): ([IpAddr; 2], _) = match sliced.net.as_ref().unwrap() {
                etherparse::NetSlice::Ipv4(ip) => {
                    let header = ip.header().to_header();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    (
                        [header.source.into(), header.destination.into()],
                        tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()),
                    )
                }
                etherparse::NetSlice::Ipv6(ip) => {
                    let header = ip.header().to_header();
                    (
                        [header.source.into(), header.destination.into()],
                        tcp.to_header().calc_checksum_ipv6(&header, tcp.payload()),
                    )
                }
                etherparse::NetSlice::Arp(_) => panic!("of IP"),
            };
            assert_eq!(addresses.map(|address| address.to_string()), expected);
            assert_eq!(tcp.checksum(), checksum.unwrap(), "{src} to {dst}");
        }
    }

    #[test]
    fn each_family_has_its_own_numbers() {
        let mut stand_ins = StandIns::default();
        for (address, expected) in [
            ("203.0.113.77", "192.0.2.1"),
            ("2001:db8:0:7::2f", "2001:db8::1"),
            ("203.0.113.78", "192.0.2.2"),
            ("2001:db8:0:7::30", "2001:db8::2"),
            ("203.0.113.77", "192.0.2.1"),
        ] {
            assert_eq!(stand_ins.of(address.parse().unwrap()).to_string(), expected, "{address}");
        }
    }

    #[test]
    fn a_packet_of_which_only_the_first_bytes_are_kept_has_the_checksum_of_the_whole() {
        // The same change made in the whole packet and in its beginning gives the same checksum.
        let mut text = b"x203.0.113.77 ".to_vec();
        text.extend([7; 701]);
        let mut frame = Vec::new();
        let src = "2001:db8:ff::1".parse::<Ipv6Addr>().unwrap().octets();
        let dst = "2001:db8:0:7::2f".parse::<Ipv6Addr>().unwrap().octets();
        PacketBuilder::ipv6(src, dst, 60).udp(4, 1026).write(&mut frame, &text).unwrap();
        let whole = shared(&chosen(&frame, 1024), &masker(), &mut StandIns::default());
        let cut = shared(&chosen(&frame, 64), &masker(), &mut StandIns::default());
        assert_eq!(cut.len(), 40 + 8 + 64);
        assert_eq!(cut, whole[..cut.len()]);
        let sliced = SlicedPacket::from_ip(&whole).unwrap();
        let Some(etherparse::NetSlice::Ipv6(ip)) = &sliced.net else { panic!() };
        let Some(TransportSlice::Udp(udp)) = &sliced.transport else { panic!() };
        assert_eq!(ip.header().destination_addr().to_string(), "2001:db8::1");
        let checksum = udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).unwrap();
        assert_eq!(udp.checksum(), checksum);
    }
}
