//! The frames that measurements are made with, and where their source and port are.

use lab::sensor::{INTERNET_MAC, SENSOR_MAC};
use lab::traffic::{Ip, Tag, Tcp, ethernet, ethertype, flag, protocol, udp};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The sensor's addresses in [`lab::sensor`]'s lab.
pub(super) const LOCAL_V4: [u8; 4] = [198, 18, 0, 1];
/// Its IPv6 address.
pub(super) const LOCAL_V6: [u8; 16] = Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1).octets();
/// Another host's address in the same network.
const ELSEWHERE: [u8; 4] = [198, 18, 0, 77];
const REMOTE_V4: [u8; 4] = [192, 0, 2, 1];
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// From where scanners send.
const SCANNER_PORT: u16 = 40_001;

/// A frame and its places.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// The frame.
    pub(super) frame: Vec<u8>,
    /// Where four bytes of the source address are that may be anything; 0: nowhere.
    pub(super) source_at: u32,
    /// Where the destination port is; 0: it stays.
    pub(super) port_at: u32,
}

impl Made {
    /// With the port that it has.
    pub(super) fn with_port_kept(mut self) -> Self {
        self.port_at = 0;
        self
    }

    pub(super) fn is_v6(&self) -> bool {
        self.frame[12..14] == ethertype::IPV6.to_be_bytes()
    }
}

fn v4(src: [u8; 4], dst: [u8; 4]) -> Ip {
    Ip::new(Ipv4Addr::from(src).into(), Ipv4Addr::from(dst).into())
}

fn tcp_v4(dst: [u8; 4], flags: u8, tags: &[Tag]) -> Made {
    let ip = v4(REMOTE_V4, dst);
    let header = Tcp { src: SCANNER_PORT, dst: 445, sequence: 7, flags, ..Tcp::default() };
    let packet = ip.packet(protocol::TCP, &header.segment(&ip, &[]));
    let shift = 4 * tags.len() as u32;
    Made {
        frame: ethernet(SENSOR_MAC, INTERNET_MAC, tags, ethertype::IPV4, &packet),
        source_at: 26 + shift,
        port_at: 36 + shift,
    }
}

/// A SYN.
pub(super) fn syn_v4() -> Made {
    tcp_v4(LOCAL_V4, flag::SYN, &[])
}

/// A SYN after a VLAN tag.
pub(super) fn syn_vlan() -> Made {
    tcp_v4(LOCAL_V4, flag::SYN, &[Tag { kind: ethertype::VLAN, id: 100 }])
}

/// A SYN to another address.
pub(super) fn syn_elsewhere() -> Made {
    tcp_v4(ELSEWHERE, flag::SYN, &[])
}

/// An answer to what was never asked.
pub(super) fn syn_ack_v4() -> Made {
    tcp_v4(LOCAL_V4, flag::SYN | flag::ACK, &[])
}

/// A SYN over IPv6; sources are of different networks.
pub(super) fn syn_v6() -> Made {
    let ip = Ip::new(REMOTE_V6.into(), Ipv6Addr::from(LOCAL_V6).into());
    let header = Tcp { src: SCANNER_PORT, dst: 445, sequence: 7, flags: flag::SYN, ..Tcp::default() };
    let packet = ip.packet(protocol::TCP, &header.segment(&ip, &[]));
    Made {
        frame: ethernet(SENSOR_MAC, INTERNET_MAC, &[], ethertype::IPV6, &packet),
        source_at: 24,
        port_at: 56,
    }
}

/// A datagram of eight bytes.
pub(super) fn udp_v4(src: [u8; 4], src_port: u16, dst: [u8; 4], dst_port: u16) -> Made {
    let ip = v4(src, dst);
    let packet = ip.packet(protocol::UDP, &udp(&ip, src_port, dst_port, &[0; 8]));
    Made {
        frame: ethernet(SENSOR_MAC, INTERNET_MAC, &[], ethertype::IPV4, &packet),
        source_at: 26,
        port_at: 36,
    }
}

/// A segment between these ports.
pub(super) fn segment_v4(src: [u8; 4], src_port: u16, dst: [u8; 4], dst_port: u16, flags: u8) -> Made {
    let ip = v4(src, dst);
    let header = Tcp { src: src_port, dst: dst_port, sequence: 7, flags, ..Tcp::default() };
    let packet = ip.packet(protocol::TCP, &header.segment(&ip, &[]));
    Made {
        frame: ethernet(SENSOR_MAC, INTERNET_MAC, &[], ethertype::IPV4, &packet),
        source_at: 26,
        port_at: 36,
    }
}

/// Not IP; its sender's address varies.
pub(super) fn arp() -> Made {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(INTERNET_MAC);
    packet.extend(REMOTE_V4);
    packet.extend([0; 6]);
    packet.extend(LOCAL_V4);
    packet.extend([0; 18]);
    Made {
        frame: ethernet(SENSOR_MAC, INTERNET_MAC, &[], ethertype::ARP, &packet),
        source_at: 28,
        port_at: 0,
    }
}
