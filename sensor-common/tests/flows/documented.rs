//! The packets in `docs/classification.md` get the classes that the page gives them.

use super::table::Host;
use sensor_common::classify::{Intent, intent, judge};
use sensor_common::flow::{self, FlowKey};
use sensor_common::parse::link_protocol;
use sensor_common::{
    Address, AddressBytes, Class, Conversation, Link, Packet, Slot, Tool, Transport, Verdict, World, parse,
};

const PAGE: &str = include_str!("../../../docs/classification.md");

/// The sensor of the page, and the frame that it looks at.
struct Sensor<'a> {
    host: &'a Host,
    frame: &'a [u8],
}

impl World for Sensor<'_> {
    fn observes(&self, dst: &Address) -> bool {
        match dst.bytes() {
            AddressBytes::V4(dst) => dst == [192, 0, 2, 1],
            AddressBytes::V6(dst) => u128::from_be_bytes(dst) == 0x2001_0db8 << 96 | 1,
        }
    }
    fn excludes(&self, src: &Address) -> bool {
        matches!(src.bytes(), AddressBytes::V4([203, 0, 113, _]))
    }
    fn serves(&self, slot: Slot) -> bool {
        slot == Slot::new(Transport::Tcp, 22)
    }
    fn conversation(&self, packet: &Packet, intent: Intent) -> Conversation {
        if flow::may_be_ours(packet, intent, self.host) {
            flow::conversation(self.frame, packet, &mut FlowKey::default(), self.host)
        } else {
            Conversation::None
        }
    }
}

/// What the page says of a packet.
fn told(frame: &[u8], link: Link, verdict: &Verdict) -> String {
    let class = verdict.class.name();
    let parsed = parse(frame, link);
    if let Some(access) = verdict.access() {
        let tool = access.tool.map_or_else(String::new, |tool| format!(", tool {}", tool.name()));
        let assumed = if access.is_assumed { ", assumed" } else { "" };
        return format!("{class} {}{tool}{assumed}", access.slot);
    }
    if let Some(slot) = verdict.backscatter() {
        return format!("{class} {slot}");
    }
    match parsed {
        Err(why) if verdict.class == Class::Malformed => format!("{class} {}", why.flaw().unwrap().name()),
        Err(_) if verdict.class == Class::NonIp => format!("{class} {}", link_protocol(frame, link)),
        _ => class.to_owned(),
    }
}

/// One packet of an example, and how its line begins.
fn frames(lines: &[&str]) -> Vec<(char, Link, Vec<u8>)> {
    let mut frames: Vec<(char, Link, Vec<u8>)> = Vec::new();
    for line in lines {
        let hex = if line.starts_with("  ") {
            line
        } else {
            let (way, rest) = line.split_at(1);
            let rest = rest.trim_start();
            let (link, hex) = match rest.strip_prefix("ethernet ") {
                Some(hex) => (Link::Ethernet, hex),
                None => (Link::Ip, rest),
            };
            frames.push((way.chars().next().unwrap(), link, Vec::new()));
            hex
        };
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let bytes = digits.chunks(2).map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).expect("two hexadecimal digits")
        });
        frames.last_mut().expect("a line with < or > comes first").2.extend(bytes);
    }
    frames
}

#[test]
fn packets_have_the_classes_that_the_page_gives_them() {
    let mut seen = Vec::new();
    for example in PAGE.split("```packets\n").skip(1) {
        let (example, _) = example.split_once("```").expect("an example ends");
        let host = Host::new();
        let mut pending = Vec::new();
        for line in example.lines() {
            let Some(expected) = line.strip_prefix("= ") else {
                pending.push(line);
                continue;
            };
            let frames = frames(&std::mem::take(&mut pending));
            assert_eq!(frames.last().map(|(way, ..)| *way), Some('<'), "{example}");
            let mut found = String::new();
            for (way, link, frame) in &frames {
                let parsed = parse(frame.as_slice(), *link);
                if *way == '>' {
                    host.sends(&parsed.expect("this host sends whole packets"));
                    continue;
                }
                let verdict = judge(frame.as_slice(), &parsed, &Sensor { host: &host, frame });
                let src = verdict.access().map_or(Address::v4([0; 4]), |access| access.src);
                assert_eq!(Verdict::from_bits(verdict.bits(), src), verdict, "as a word");
                if let Ok(packet) = &parsed {
                    // The program in the kernel asks for none of what it looks up.
                    let is_looked_up = flow::may_be_ours(packet, intent(packet), &host);
                    assert!(!is_looked_up || Tool::of(frame.as_slice(), packet).is_none(), "{packet:?}");
                    flow::arrived(packet, verdict.class, &host);
                }
                found = told(frame, *link, &verdict);
                seen.push(verdict.class);
            }
            // The page names a tool where that is what it shows.
            let shown = if expected.contains(", tool") {
                found.as_str()
            } else {
                found.split(", tool").next().unwrap()
            };
            assert_eq!(shown, expected, "{example}");
        }
        assert!(pending.is_empty(), "an example ends with a result: {example}");
    }
    for class in Class::ALL {
        assert!(seen.contains(&class), "no packet of class {}", class.name());
    }
}
