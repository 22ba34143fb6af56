//! A packet of each kind, with what it must count as.

use super::tools::sign;
use super::{Flaw, Mix, Sample, icmp_number};
use crate::traffic::expectation::{Class, Meaning, Port, Tool, Transport};
use crate::traffic::packet::{
    Extension, Fragment, Ip, Tag, Tcp, ethernet, ethertype, flag, icmp, protocol, sctp, udp,
};
use crate::traffic::site::Link;
use rand::Rng;
use rand::seq::IndexedRandom;

impl Mix {
    pub(super) fn non_ip(&mut self) -> Sample {
        let Link::Ethernet { sensor, from } = self.site.link else { unreachable!("fits Ethernet only") };
        let mut content = vec![0; self.rng.random_range(28..=60)];
        self.rng.fill(content.as_mut_slice());
        let tags = self.site.tags(&mut self.rng);
        let frame = match self.rng.random_range(0..6) {
            0 => {
                // Request, Ethernet and IPv4 (RFC 826).
                content[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
                ethernet([0xff; 6], from, &tags, ethertype::ARP, &content)
            }
            1 => ethernet([1, 0x80, 0xc2, 0, 0, 0x0e], from, &tags, ethertype::LLDP, &content),
            // Spanning tree: IEEE 802.3 with a length instead of a type.
            2 => ethernet([1, 0x80, 0xc2, 0, 0, 0], from, &tags, content.len() as u16, &content),
            3 => {
                // The bottom of the stack, then a pseudowire's control word (RFC 4385).
                content[2] |= 1;
                content[4] &= 0x0f;
                ethernet(sensor, from, &tags, ethertype::MPLS, &content)
            }
            4 => {
                // An echo request of LCP (RFC 1661, section 5.8).
                content[..12].copy_from_slice(&[0x11, 0, 0, 7, 0, 10, 0xc0, 0x21, 9, 1, 0, 8]);
                ethernet(sensor, from, &tags, ethertype::PPPOE_SESSION, &content)
            }
            _ => {
                let tag = Tag { kind: ethertype::VLAN, id: self.rng.random_range(1..4095) };
                let ip = self.ip();
                let syn = self.tcp_segment(&ip, 40_000, 23, flag::SYN);
                let kind = if ip.dst.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
                ethernet(sensor, from, &[tag; 9], kind, &ip.packet(protocol::TCP, &syn))
            }
        };
        Sample { frame, meaning: Meaning::Plain(Class::NonIp) }
    }

    pub(super) fn syn(&mut self, tool: Tool) -> Sample {
        let v6 = tool == Tool::Other && self.v6();
        let mut ip = self.ip_of(v6);
        let port = self.port(Transport::Tcp);
        let mut tcp = Tcp {
            src: self.client_port(),
            dst: port,
            sequence: self.rng.random(),
            flags: *[flag::SYN, flag::SYN, flag::SYN, flag::SYN | flag::ECE | flag::CWR]
                .choose(&mut self.rng)
                .expect("four"),
            options: self.tcp_options(),
            ..Tcp::default()
        };
        sign(tool, &mut ip, &mut tcp, &mut self.rng);
        let packet = ip.packet(protocol::TCP, &tcp.segment(&ip, &[]));
        self.wrap(
            &packet,
            Meaning::Access { src: ip.src, port: Port(Transport::Tcp, port), tool: Some(tool) },
        )
    }

    pub(super) fn tcp_probe(&mut self) -> Sample {
        let ip = self.ip();
        let (src, port) = (self.client_port(), self.port(Transport::Tcp));
        // NULL, FIN, Xmas, PSH, URG.
        let flags = *[0, flag::FIN, flag::FIN | flag::PSH | flag::URG, flag::PSH, flag::URG]
            .choose(&mut self.rng)
            .expect("five");
        let packet = ip.packet(protocol::TCP, &self.tcp_segment(&ip, src, port, flags));
        self.wrap(&packet, Meaning::Access { src: ip.src, port: Port(Transport::Tcp, port), tool: None })
    }

    pub(super) fn udp_access(&mut self, ip: &Ip, src: u16, port: u16, payload: &[u8]) -> Sample {
        let packet = ip.packet(protocol::UDP, &udp(ip, src, port, payload));
        self.wrap(&packet, Meaning::Access { src: ip.src, port: Port(Transport::Udp, port), tool: None })
    }

    pub(super) fn udp(&mut self) -> Sample {
        let ip = self.ip();
        let (src, port, payload) = (self.client_port(), self.port(Transport::Udp), self.payload());
        self.udp_access(&ip, src, port, &payload)
    }

    /// A query, or too short for a DNS header's flags: then only padding can look like a response.
    pub(super) fn udp_from_dns_port(&mut self) -> Sample {
        let ip = self.ip();
        let port = self.port(Transport::Udp);
        let mut payload = self.payload();
        match payload.get_mut(2) {
            Some(flags) if self.rng.random_bool(0.5) => *flags &= 0x7f,
            _ => payload.truncate(self.rng.random_range(0..=2)),
        }
        self.udp_access(&ip, 53, port, &payload)
    }

    pub(super) fn udp_near_dhcp(&mut self) -> Sample {
        let ip = self.ip();
        let ports = if ip.dst.is_ipv4() { [67, 68] } else { [546, 547] };
        let dhcp = *ports.choose(&mut self.rng).expect("two");
        let payload = self.payload();
        if self.rng.random_bool(0.5) {
            let src = self.client_port();
            self.udp_access(&ip, src, dhcp, &payload)
        } else {
            let port = loop {
                let port = self.port(Transport::Udp);
                if !ports.contains(&port) {
                    break port;
                }
            };
            self.udp_access(&ip, dhcp, port, &payload)
        }
    }

    fn icmp_message(&mut self, ip: &Ip, kind: u8) -> Vec<u8> {
        let payload = self.payload();
        icmp(ip, kind, self.rng.random_range(0..4), self.rng.random(), &payload)
    }

    pub(super) fn icmp_request(&mut self) -> Sample {
        let ip = self.ip();
        // Echo, timestamp, information, address mask; echo, node information (RFC 4620).
        let (transport, kinds): (_, &[u8]) = if ip.dst.is_ipv4() {
            (Transport::Icmp, &[8, 8, 13, 15, 17])
        } else {
            (Transport::Icmpv6, &[128, 128, 139])
        };
        let kind = *kinds.choose(&mut self.rng).expect("some");
        let packet = ip.packet(icmp_number(&ip), &self.icmp_message(&ip, kind));
        self.wrap(&packet, Meaning::Access { src: ip.src, port: Port(transport, kind.into()), tool: None })
    }

    pub(super) fn icmp_backscatter(&mut self) -> Sample {
        let ip = self.ip();
        let (transport, kinds): (_, &[u8]) = if ip.dst.is_ipv4() {
            (Transport::Icmp, &[0, 3, 4, 5, 11, 12, 14, 16, 18])
        } else {
            (Transport::Icmpv6, &[1, 2, 3, 4, 129, 140])
        };
        let kind = *kinds.choose(&mut self.rng).expect("some");
        let packet = ip.packet(icmp_number(&ip), &self.icmp_message(&ip, kind));
        self.wrap(&packet, Meaning::Backscatter(Port(transport, kind.into())))
    }

    pub(super) fn icmp_housekeeping(&mut self) -> Sample {
        let ip = self.ip();
        // Router advertisement and solicitation, and numbers that name nothing; MLD, router and
        // neighbour discovery, redirect, inverse discovery.
        let kinds: &[u8] = if ip.dst.is_ipv4() {
            &[9, 10, 1, 2, 7, 30, 40, 255]
        } else {
            &[130, 131, 132, 133, 134, 135, 136, 137, 141, 142, 143, 0, 127, 200, 255]
        };
        let kind = *kinds.choose(&mut self.rng).expect("some");
        let packet = ip.packet(icmp_number(&ip), &self.icmp_message(&ip, kind));
        self.wrap(&packet, Meaning::Plain(Class::Other))
    }

    pub(super) fn sctp(&mut self, chunk: Option<u8>) -> Sample {
        let ip = self.ip();
        let (src, port) = (self.client_port(), self.port(Transport::Sctp));
        let packet = ip.packet(protocol::SCTP, &sctp(src, port, self.rng.random(), chunk));
        let meaning = match chunk {
            None | Some(1) => Meaning::Access { src: ip.src, port: Port(Transport::Sctp, port), tool: None },
            Some(2 | 6) => Meaning::Backscatter(Port(Transport::Sctp, src)),
            Some(_) => Meaning::Plain(Class::Other),
        };
        // Padding must not be read as a chunk.
        self.wrap(&packet, meaning)
    }

    pub(super) fn other_protocol(&mut self) -> Sample {
        let ip = self.ip();
        // IP in IP, IPv6 in IP, GRE, ESP, EIGRP, OSPF, PIM, VRRP, L2TP; AH is an extension on IPv6.
        let numbers: &[u8] = if ip.dst.is_ipv4() {
            &[4, 41, 47, 50, 51, 88, 89, 103, 112, 115]
        } else {
            &[4, 41, 47, 50, 88, 89, 103, 112, 115]
        };
        let number = *numbers.choose(&mut self.rng).expect("some");
        let packet = ip.packet(number, &self.payload());
        let port = Port(Transport::Other, number.into());
        self.wrap(&packet, Meaning::Access { src: ip.src, port, tool: None })
    }

    pub(super) fn tcp_backscatter(&mut self) -> Sample {
        let ip = self.ip();
        let (src, dst) = (self.rng.random(), self.port(Transport::Tcp));
        let flags = *[flag::SYN | flag::ACK, flag::RST, flag::RST | flag::ACK, flag::RST | flag::SYN]
            .choose(&mut self.rng)
            .expect("four");
        let packet = ip.packet(protocol::TCP, &self.tcp_segment(&ip, src, dst, flags));
        self.wrap(&packet, Meaning::Backscatter(Port(Transport::Tcp, src)))
    }

    pub(super) fn dns_backscatter(&mut self) -> Sample {
        let ip = self.ip();
        let port = self.port(Transport::Udp);
        let mut message = vec![0; self.rng.random_range(3..=400)];
        self.rng.fill(message.as_mut_slice());
        message[2] |= 0x80;
        let packet = ip.packet(protocol::UDP, &udp(&ip, 53, port, &message));
        self.wrap(&packet, Meaning::Backscatter(Port(Transport::Udp, 53)))
    }

    pub(super) fn stray_ack(&mut self) -> Sample {
        let ip = self.ip();
        let (src, dst) = (self.rng.random(), self.port(Transport::Tcp));
        let flags = flag::ACK
            | *[0, flag::PSH, flag::FIN, flag::PSH | flag::FIN, flag::URG]
                .choose(&mut self.rng)
                .expect("five");
        let packet = ip.packet(protocol::TCP, &self.tcp_segment(&ip, src, dst, flags));
        self.wrap(&packet, Meaning::Plain(Class::Other))
    }

    pub(super) fn dhcp(&mut self) -> Sample {
        let ip = self.ip();
        let ports = if ip.dst.is_ipv4() { [67, 68] } else { [546, 547] };
        let src = *ports.choose(&mut self.rng).expect("two");
        let dst = *ports.choose(&mut self.rng).expect("two");
        let packet = ip.packet(protocol::UDP, &udp(&ip, src, dst, &self.payload()));
        self.wrap(&packet, Meaning::Plain(Class::Other))
    }

    pub(super) fn igmp(&mut self) -> Sample {
        let ip = self.ip_of(false);
        // A membership query (RFC 9776), to this host alone.
        let packet = ip.packet(protocol::IGMP, &[0x11, 0x64, 0xee, 0x9b, 0, 0, 0, 0]);
        self.wrap(&packet, Meaning::Plain(Class::Other))
    }

    pub(super) fn service(&mut self, starts: bool) -> Sample {
        let ip = self.ip();
        let service = *self.site.services.choose(&mut self.rng).expect("asked for a service");
        let Port(transport, port) = service;
        let packet = match (transport, starts) {
            (Transport::Udp, true) => {
                let src = self.client_port();
                ip.packet(protocol::UDP, &udp(&ip, src, port, &self.payload()))
            }
            (Transport::Udp, false) => {
                let response = [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
                ip.packet(protocol::UDP, &udp(&ip, 53, port, &response))
            }
            (_, true) => {
                let flags = *[flag::SYN, flag::FIN, 0].choose(&mut self.rng).expect("three");
                let src = self.client_port();
                ip.packet(protocol::TCP, &self.tcp_segment(&ip, src, port, flags))
            }
            (_, false) => {
                let flags = *[flag::ACK, flag::RST, flag::SYN | flag::ACK, flag::FIN | flag::ACK]
                    .choose(&mut self.rng)
                    .expect("four");
                let src = self.client_port();
                ip.packet(protocol::TCP, &self.tcp_segment(&ip, src, port, flags))
            }
        };
        let meaning = if starts {
            Meaning::ServiceAccess { src: ip.src, port: service }
        } else {
            Meaning::Plain(Class::Service)
        };
        self.wrap(&packet, meaning)
    }

    pub(super) fn later_fragment(&mut self) -> Sample {
        // Any process that it is for.
        let mut ip = if self.rng.random_bool(0.8) { self.ip() } else { self.ip_elsewhere() };
        ip.extensions.truncate(5);
        ip.fragment =
            Some(Fragment { offset: self.rng.random_range(1..8192), more: self.rng.random_bool(0.5) });
        let number =
            *[protocol::TCP, protocol::UDP, icmp_number(&ip), 47].choose(&mut self.rng).expect("four");
        let packet = ip.packet(number, &self.payload());
        self.wrap(&packet, Meaning::Plain(Class::Fragment))
    }

    /// It has the transport header, so it counts like the datagram, whose UDP length goes beyond it.
    pub(super) fn first_fragment(&mut self) -> Sample {
        let mut ip = self.ip();
        ip.extensions.truncate(5);
        ip.fragment = Some(Fragment { offset: 0, more: true });
        let (src, port) = (self.client_port(), self.port(Transport::Udp));
        let mut datagram = udp(&ip, src, port, &[0x55; 1000]);
        datagram.truncate(8 * self.rng.random_range(1..=20));
        let packet = ip.packet(protocol::UDP, &datagram);
        self.wrap(&packet, Meaning::Access { src: ip.src, port: Port(Transport::Udp, port), tool: None })
    }

    pub(super) fn malformed(&mut self, flaw: Flaw) -> Sample {
        let meaning = Meaning::Plain(Class::Malformed);
        // Any process that it is for: a header that cannot be read does not say.
        let v6 = match flaw {
            Flaw::HeaderLength | Flaw::TotalLength | Flaw::OptionsCut => false,
            Flaw::ExtensionCut | Flaw::TooManyExtensions | Flaw::ExtensionTooLong => true,
            _ => self.v6(),
        };
        let observed = !if v6 { self.site.v6.is_empty() } else { self.site.v4.is_empty() };
        let dst = if observed && self.rng.random_bool(0.7) { self.sensor(v6) } else { self.elsewhere(!v6) };
        let mut ip = Ip::new(self.remote(v6), dst);
        let header = if v6 { 40 } else { 20 };
        let tcp = |ip: &Ip| Tcp { src: 40_000, dst: 23, flags: flag::SYN, ..Tcp::default() }.segment(ip, &[]);
        let packet = match flaw {
            Flaw::IpHeaderCut => {
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                packet.truncate(self.rng.random_range(1..header));
                packet
            }
            Flaw::HeaderLength => {
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                packet[0] = 0x40 | self.rng.random_range(0..5);
                packet
            }
            Flaw::Version => {
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                let version =
                    *[0, 1, 2, 3, 5, 7, 8, 15, if v6 { 4 } else { 6 }].choose(&mut self.rng).expect("nine");
                packet[0] = (version << 4) | (packet[0] & 0x0f);
                let Link::Ethernet { sensor, from } = self.site.link else {
                    unreachable!("fits Ethernet only")
                };
                let kind = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
                let tags = self.site.tags(&mut self.rng);
                return Sample { frame: ethernet(sensor, from, &tags, kind, &packet), meaning };
            }
            Flaw::TotalLength => {
                ip.options = vec![1; 8];
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                // 0 means the frame's length in captures of a sending host with segmentation offload.
                packet[2..4].copy_from_slice(&self.rng.random_range(1..28_u16).to_be_bytes());
                packet
            }
            Flaw::OptionsCut => {
                ip.options = vec![1; 40];
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                packet.truncate(self.rng.random_range(20..60));
                packet
            }
            Flaw::TransportCut | Flaw::TransportCutByLength => {
                let (number, transport) = match self.rng.random_range(0..4) {
                    0 => (protocol::TCP, tcp(&ip)),
                    1 => (protocol::UDP, udp(&ip, 40_000, 161, &[])),
                    2 => (icmp_number(&ip), icmp(&ip, if v6 { 128 } else { 8 }, 0, [0; 4], &[])),
                    _ => (protocol::SCTP, sctp(40_000, 80, 0, None)),
                };
                let kept = self.rng.random_range(0..transport.len());
                if flaw == Flaw::TransportCut {
                    let mut packet = ip.packet(number, &transport);
                    packet.truncate(header + kept);
                    packet
                } else {
                    let mut packet = ip.packet(number, &transport[..kept]);
                    packet.extend_from_slice(&transport[kept..]);
                    packet
                }
            }
            Flaw::TcpOffset | Flaw::TcpOptionsCut => {
                let mut segment = tcp(&ip);
                let words: u8 = if flaw == Flaw::TcpOffset {
                    self.rng.random_range(0..5)
                } else {
                    self.rng.random_range(6..16)
                };
                segment[12] = words << 4;
                ip.packet(protocol::TCP, &segment)
            }
            Flaw::UdpLengthShort | Flaw::UdpLengthLong => {
                let mut datagram = udp(&ip, 40_000, 161, &[0x30; 20]);
                let length: u16 = if flaw == Flaw::UdpLengthShort {
                    self.rng.random_range(0..8)
                } else {
                    self.rng.random_range(29..=65_535)
                };
                datagram[4..6].copy_from_slice(&length.to_be_bytes());
                ip.packet(protocol::UDP, &datagram)
            }
            Flaw::ExtensionCut => {
                ip.extensions = vec![Extension::Raw { number: protocol::DESTINATION_OPTIONS, words: 0 }];
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                packet.truncate(40 + self.rng.random_range(0..8));
                packet
            }
            Flaw::TooManyExtensions => {
                let count = self.rng.random_range(65..=90);
                ip.extensions =
                    vec![Extension::Raw { number: protocol::DESTINATION_OPTIONS, words: 0 }; count];
                ip.packet(protocol::TCP, &tcp(&ip))
            }
            Flaw::ExtensionTooLong => {
                ip.extensions = vec![Extension::Raw { number: protocol::DESTINATION_OPTIONS, words: 0 }];
                let mut packet = ip.packet(protocol::TCP, &tcp(&ip));
                // 8 bytes of header and 20 of TCP are there.
                packet[41] = self.rng.random_range(4..=255);
                packet
            }
            Flaw::VlanCut => {
                let Link::Ethernet { sensor, from } = self.site.link else {
                    unreachable!("fits Ethernet only")
                };
                let cut = vec![0; self.rng.random_range(0..4)];
                let tag = Tag { kind: ethertype::QINQ, id: 7 };
                let tags = if self.rng.random_bool(0.5) { vec![tag] } else { Vec::new() };
                return Sample { frame: ethernet(sensor, from, &tags, ethertype::VLAN, &cut), meaning };
            }
        };
        let mut frame = self.site.frame(&mut self.rng, &packet);
        if flaw == Flaw::HeaderLength && frame.len() < 60 && matches!(self.site.link, Link::Ethernet { .. }) {
            frame.resize(60, 0);
        }
        Sample { frame, meaning }
    }
}
