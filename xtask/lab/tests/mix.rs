//! The mix against the sensor's own parser and classifier, on the host: two independent readings of
//! docs/classification.md must agree on every packet.

use ipnet::IpNet;
use lab::traffic::{Class, Kind, Link, Meaning, Mix, Port, Site, Tagging, Tool, Transport};
use sensor_common::classify::{Conversation, Intent, World, judge};
use sensor_common::parse::{Address, AddressBytes, Link as ParseLink, Packet, parse};
use sensor_common::{Slot, Tool as CommonTool, Transport as CommonTransport};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The classifier's world, from the site.
struct Sensor<'a>(&'a Site);

fn ip(address: &Address) -> IpAddr {
    match address.bytes() {
        AddressBytes::V4(bytes) => bytes.into(),
        AddressBytes::V6(bytes) => bytes.into(),
    }
}

impl World for Sensor<'_> {
    fn observes(&self, dst: &Address) -> bool {
        self.0.observes(ip(dst))
    }
    fn excludes(&self, src: &Address) -> bool {
        self.0.excludes(ip(src))
    }
    fn serves(&self, slot: Slot) -> bool {
        self.0.services.contains(&port(slot))
    }
    fn conversation(&self, _: &Packet, _: Intent) -> Conversation {
        Conversation::None
    }
}

fn port(slot: Slot) -> Port {
    let transport = match slot.transport() {
        CommonTransport::Tcp => Transport::Tcp,
        CommonTransport::Udp => Transport::Udp,
        CommonTransport::Sctp => Transport::Sctp,
        CommonTransport::Icmp => Transport::Icmp,
        CommonTransport::Icmpv6 => Transport::Icmpv6,
        CommonTransport::Other => Transport::Other,
    };
    Port(transport, slot.port())
}

fn tool(tool: CommonTool) -> Tool {
    match tool {
        CommonTool::Other => Tool::Other,
        CommonTool::Zmap => Tool::Zmap,
        CommonTool::Masscan => Tool::Masscan,
        CommonTool::Mirai => Tool::Mirai,
        CommonTool::Zmap4 => Tool::Zmap4,
        CommonTool::Nmap => Tool::Nmap,
        CommonTool::Stateless => Tool::Stateless,
    }
}

/// What the sensor's code makes of `frame`, in the words of the expectation.
fn judged(site: &Site, frame: &[u8]) -> Meaning {
    let link = match site.link {
        Link::Ethernet { .. } => ParseLink::Ethernet,
        Link::Ip => ParseLink::Ip,
    };
    let verdict = judge(frame, &parse(frame, link), &Sensor(site));
    let class = Class::ALL.into_iter().find(|class| class.label() == verdict.class.name());
    let class = class.expect("both name the same classes");
    match (verdict.access(), verdict.backscatter()) {
        (Some(access), None) if class == Class::Service => {
            Meaning::ServiceAccess { src: ip(&access.src), port: port(access.slot) }
        }
        (Some(access), None) => {
            assert_eq!(class, Class::Access);
            Meaning::Access { src: ip(&access.src), port: port(access.slot), tool: access.tool.map(tool) }
        }
        (None, Some(slot)) => {
            assert_eq!(class, Class::Backscatter);
            Meaning::Backscatter(port(slot))
        }
        (None, None) => Meaning::Plain(class),
        (Some(_), Some(_)) => panic!("both an access and backscatter"),
    }
}

fn site(link: Link, tagging: Tagging, max_frame: usize) -> Site {
    Site {
        link,
        tagging,
        max_frame,
        v4: vec!["198.51.100.0/24".parse().unwrap(), "192.0.2.7/32".parse().unwrap()],
        v6: vec!["2001:db8:1::/48".parse().unwrap()],
        services: vec![Port(Transport::Tcp, 22), Port(Transport::Udp, 5060)],
        excluded: ["203.0.113.0/25", "2001:db8:ffff::/48"].map(|net| net.parse::<IpNet>().unwrap()).to_vec(),
    }
}

const ETHERNET: Link = Link::Ethernet { sensor: [2, 0, 0, 0, 0, 1], from: [2, 0, 0, 0, 0, 2] };

fn check(site: &Site, packets: usize) {
    for kind in Kind::all() {
        let mut mix = Mix::new(site.clone(), 0xfeed);
        if matches!((site.link, kind), (Link::Ip, Kind::NonIp | Kind::Malformed(_))) {
            continue;
        }
        for _ in 0..200 {
            let sample = mix.sample_of(kind);
            assert_eq!(judged(site, &sample.frame), sample.meaning, "{kind:?}: {:02x?}", sample.frame);
        }
    }
    let mut mix = Mix::new(site.clone(), 42);
    let mut classes: BTreeMap<Class, usize> = BTreeMap::new();
    for index in 0..packets {
        let sample = mix.sample();
        assert_eq!(judged(site, &sample.frame), sample.meaning, "packet {index}: {:02x?}", sample.frame);
        assert!(sample.frame.len() <= site.max_frame, "packet {index}: {} bytes", sample.frame.len());
        *classes.entry(sample.meaning.class()).or_default() += 1;
    }
    // One-sided traffic has no answers to what the sensor asked.
    let absent: &[Class] =
        if site.link == Link::Ip { &[Class::Solicited, Class::NonIp] } else { &[Class::Solicited] };
    for class in Class::ALL {
        assert_eq!(classes.contains_key(&class), !absent.contains(&class), "{}", class.label());
    }
}

#[test]
fn ethernet_tagged_and_untagged() {
    check(&site(ETHERNET, Tagging::Sometimes, 1514), 200_000);
}

#[test]
fn every_frame_tagged() {
    check(&site(ETHERNET, Tagging::Always(7), 1518), 50_000);
}

#[test]
fn jumbo_frames() {
    check(&site(ETHERNET, Tagging::Never, 9014), 50_000);
}

#[test]
fn links_without_ethernet_headers() {
    check(&site(Link::Ip, Tagging::Never, 1500), 50_000);
}

#[test]
fn one_address_family_only() {
    check(&Site { v6: Vec::new(), ..site(ETHERNET, Tagging::Never, 1514) }, 20_000);
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let site = site(ETHERNET, Tagging::Sometimes, 1514);
    let frames = |seed| {
        let mut mix = Mix::new(site.clone(), seed);
        (0..1000).map(|_| mix.sample().frame).collect::<Vec<_>>()
    };
    assert_eq!(frames(7), frames(7));
    assert_ne!(frames(7), frames(8));
}
