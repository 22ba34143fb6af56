//! The captures in `sensor-user/tests/captures` whose names begin with `mix-`, and what they must count
//! as, are what [`Mix`] makes. `TEITEN_WRITE_CAPTURES=1` writes them instead of comparing.

use lab::command;
use lab::traffic::{Class, Expectation, Link, Mix, Port, Site, Tagging, Transport};
use std::fmt::Write as _;
use std::path::Path;

/// Where they are, from the project's root.
const DIRECTORY: &str = "sensor-user/tests/captures";
/// 2010-07-09 00:00 UTC; a frame comes every second.
const BEGIN: u32 = 1_278_633_600;
const LONGEST: usize = 600;

/// The sensor that the README of the captures describes.
fn site(link: Link) -> Site {
    let tagging = if link == Link::Ip { Tagging::Never } else { Tagging::Sometimes };
    Site {
        link,
        tagging,
        max_frame: LONGEST,
        v4: vec!["198.51.100.0/24".parse().unwrap(), "192.0.2.7/32".parse().unwrap()],
        v6: vec!["2001:db8:1::/48".parse().unwrap()],
        services: vec![Port(Transport::Tcp, 22), Port(Transport::Udp, 5060)],
        excluded: ["203.0.113.0/25", "2001:db8:ffff::/48"].map(|net| net.parse().unwrap()).to_vec(),
    }
}

/// A pcap file of `count` frames, and what it must count as, as lines of `kind,key,values`.
fn make(link: Link, link_type: u32, seed: u64, count: u32) -> (Vec<u8>, String) {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 65_535, link_type] {
        file.extend(u32::to_le_bytes(word));
    }
    let (mut mix, mut expected) = (Mix::new(site(link), seed), Expectation::default());
    for second in 0..count {
        let sample = mix.sample();
        let length = sample.frame.len() as u32;
        for word in [BEGIN + second, 0, length, length] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend(&sample.frame);
        expected.add(&sample.meaning, sample.frame.len());
    }
    (file, answers(&expected))
}

fn answers(expected: &Expectation) -> String {
    let mut lines = String::new();
    for class in Class::ALL {
        let (packets, bytes) = (expected.packets(class), expected.bytes(class));
        writeln!(lines, "class,{},{packets},{bytes}", class.label()).unwrap();
    }
    let sources = expected.sources_by_port();
    for (port, accesses) in &expected.accesses {
        writeln!(lines, "port,{port},{accesses},{}", sources[port]).unwrap();
    }
    for (port, packets) in &expected.backscatter {
        writeln!(lines, "backscatter,{port},{packets},").unwrap();
    }
    for (port, accesses) in &expected.services {
        writeln!(lines, "service,{port},{accesses},").unwrap();
    }
    for (tool, accesses) in &expected.tools {
        writeln!(lines, "tool,{},{accesses},", tool.label()).unwrap();
    }
    writeln!(lines, "hosts,,{},", expected.hosts.len()).unwrap();
    lines
}

#[test]
fn the_committed_captures_are_what_the_mix_makes() {
    let ethernet = Link::Ethernet { sensor: [2, 0, 0, 0, 0, 1], from: [2, 0, 0, 0, 0, 2] };
    for (name, link, link_type, seed, count) in
        [("mix-ethernet", ethernet, 1, 3, 1500), ("mix-ip", Link::Ip, 101, 2, 500)]
    {
        let (capture, answers) = make(link, link_type, seed, count);
        for (extension, content) in [("pcap", capture), ("csv", answers.into_bytes())] {
            let path = command::root().join(DIRECTORY).join(format!("{name}.{extension}"));
            if std::env::var_os("TEITEN_WRITE_CAPTURES").is_some() {
                std::fs::write(&path, &content).unwrap();
            }
            assert!(is(&path, &content), "{} is not what the mix makes now", path.display());
        }
    }
}

fn is(path: &Path, content: &[u8]) -> bool {
    std::fs::read(path).is_ok_and(|committed| committed == content)
}
