//! Chosen packets, added up to contents that differ.

use super::chosen::Chosen;
use super::mask::Masker;
use super::once::Once;
use super::sketch::{Sketch, hash};
use super::{question, text};
use sensor_common::{Slot, Tool};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

/// Contents that a collector holds for all ports, at most: they take about 2 KiB each.
const MAX_CONTENTS: usize = 4096;
/// Sources of a content whose packets are counted one by one; those of others are counted together.
const MAX_SOURCES: usize = 1024;
/// Letters of a text that distinguish it, at most. What follows may be cut, in one packet sooner than in
/// another.
const LETTERS: usize = 192;

/// One content, as an observation saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// What it is known by: a hash over what remains without numbers, case and hosts.
    pub key: u64,
    /// The first packet that had it.
    pub packet: Chosen,
    /// Times of the first and the last, nanoseconds since the epoch.
    pub first: i64,
    /// See `first`.
    pub last: i64,
    /// How many.
    pub packets: u64,
    /// Whether it was seen before and had made room.
    pub is_again: bool,
    /// Packets by source, 1,024 sources at most.
    pub by_source: Vec<(IpAddr, u64)>,
    /// All sources.
    pub sources: Sketch,
    /// The contents as they were, byte by byte.
    pub variants: Sketch,
    /// Packets by tool, of TCP SYNs.
    pub tools: Vec<(Tool, u64)>,
}

/// The chosen packets of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSamples {
    /// The port.
    pub slot: Slot,
    /// All of them, whether their content is below or not.
    pub packets: u64,
    /// Their contents, in the order in which they came.
    pub contents: Vec<Content>,
}

/// The chosen packets of an observation, by ascending port.
pub type Samples = Vec<PortSamples>;

/// Adds up packets. Its memory is bounded.
#[derive(Debug, Default)]
pub struct Collector {
    /// Contents of a port, at most.
    most: usize,
    ports: HashMap<Slot, OfPort>,
    contents: usize,
    once: Once,
}

#[derive(Debug, Default)]
struct OfPort {
    packets: u64,
    contents: HashMap<u64, Growing>,
    /// The next place in the order of arrival.
    next: u64,
}

#[derive(Debug)]
struct Growing {
    place: u64,
    content: Content,
    /// Where a source is in `by_source`.
    sources: HashMap<IpAddr, usize>,
}

impl Collector {
    /// Holds `contents` of each port, and as many of those that were seen once.
    pub fn new(contents: u32) -> Self {
        let most = (contents as usize).saturating_mul(2).min(MAX_CONTENTS);
        Self { most, ..Self::default() }
    }

    /// Counts `packets` chosen packets of which nothing else is known.
    pub fn count(&mut self, slot: Slot, packets: u64) {
        if packets > 0 {
            self.ports.entry(slot).or_default().packets += packets;
        }
    }

    /// Adds a packet that arrived at `at`, nanoseconds since the epoch.
    pub fn add(&mut self, slot: Slot, at: i64, tool: Option<Tool>, packet: Chosen) {
        let port = self.ports.entry(slot).or_default();
        port.packets += 1;
        let key = key(&packet);
        let is_full = port.contents.len() >= self.most || self.contents >= MAX_CONTENTS;
        if !port.contents.contains_key(&key) && is_full {
            // What was seen once and came first makes room, so that a flood of contents that never come
            // again does not keep out those that do.
            let once = port.contents.iter().filter(|(_, growing)| growing.is_once());
            let Some(oldest) = once.min_by_key(|(_, growing)| growing.place).map(|(key, _)| *key) else {
                self.once.add(slot, key);
                return;
            };
            port.contents.remove(&oldest);
            self.once.add(slot, oldest);
            self.contents -= 1;
        }
        let growing = match port.contents.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.contents += 1;
                port.next += 1;
                entry.insert(Growing {
                    place: port.next,
                    content: Content {
                        key,
                        packet: packet.clone(),
                        first: at,
                        last: at,
                        packets: 0,
                        is_again: self.once.has(slot, key),
                        by_source: Vec::new(),
                        sources: Sketch::default(),
                        variants: Sketch::default(),
                        tools: Vec::new(),
                    },
                    sources: HashMap::new(),
                })
            }
        };
        growing.add(at, tool, packet);
    }

    /// Whether nothing was counted since the last [`Collector::take`].
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// What was counted; nothing is then.
    pub fn take(&mut self) -> Samples {
        self.contents = 0;
        let mut samples: Samples = self
            .ports
            .drain()
            .map(|(slot, OfPort { packets, contents, .. })| {
                let mut growing: Vec<Growing> = contents.into_values().collect();
                growing.sort_unstable_by_key(|growing| growing.place);
                let contents = growing.into_iter().map(|growing| growing.content).collect();
                PortSamples { slot, packets, contents }
            })
            .collect();
        samples.sort_unstable_by_key(|port| port.slot);
        samples
    }
}

impl Growing {
    /// Whether it has not come again.
    fn is_once(&self) -> bool {
        self.content.packets == 1 && !self.content.is_again
    }

    fn add(&mut self, at: i64, tool: Option<Tool>, packet: Chosen) {
        let content = &mut self.content;
        content.packets += 1;
        content.last = content.last.max(at);
        content.variants.add(packet.content());
        if let Some((src, _)) = packet.addresses() {
            match src {
                IpAddr::V4(src) => content.sources.add(&src.octets()),
                IpAddr::V6(src) => content.sources.add(&src.octets()),
            }
            match self.sources.entry(src) {
                Entry::Occupied(entry) => content.by_source[*entry.get()].1 += 1,
                Entry::Vacant(entry) if content.by_source.len() < MAX_SOURCES => {
                    entry.insert(content.by_source.len());
                    content.by_source.push((src, 1));
                }
                Entry::Vacant(_) => {}
            }
        }
        if let Some(tool) = tool {
            match content.tools.iter_mut().find(|(known, _)| *known == tool) {
                Some((_, packets)) => *packets += 1,
                None => content.tools.push((tool, 1)),
            }
        }
        // What came first is what is shown.
        if at < content.first {
            content.first = at;
            content.packet = packet;
        }
    }
}

/// What a content is known by. Of a known question it is what is asked, so that identifiers and random
/// numbers of the protocol do not distinguish contents; of a text its words.
fn key(packet: &Chosen) -> u64 {
    let content = packet.content();
    let mut loose = Vec::new();
    if let Some(question) = question::recognise(content) {
        loose.extend(question.what.as_bytes());
        loose.push(0);
        loosen(question.subject(), &mut loose);
    } else if let Some((_, text)) = text::decode(content, packet.is_cut()) {
        loosen(&text, &mut loose);
    }
    if loose.is_empty() {
        // Neither: the bytes, without digits and case.
        loose.push(1);
        let bytes = content.iter().filter(|byte| !byte.is_ascii_digit());
        loose.extend(bytes.map(u8::to_ascii_lowercase));
        if loose.len() == 1 {
            // Nothing but digits, or nothing: then how many.
            loose.extend(content.len().to_le_bytes());
        }
    }
    hash(&loose)
}

/// The words of a text, without numbers, hosts, case and what is between words.
fn loosen(text: &str, loose: &mut Vec<u8>) {
    let masked = Masker::default().text(text);
    let mut letters = 0;
    for word in masked.split(|c: char| !c.is_alphanumeric() && c != '*' && c != '.') {
        // What is hidden, and what has a digit in it, is a number or a name.
        if letters >= LETTERS || word.contains(|c: char| c.is_numeric() || c == '*') {
            continue;
        }
        let mut begins = true;
        for c in word.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase) {
            if letters >= LETTERS {
                break;
            }
            if begins {
                loose.push(b' ');
                begins = false;
            }
            letters += 1;
            let mut bytes = [0; 4];
            loose.extend(c.encode_utf8(&mut bytes).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::{Link, Transport, parse};

    fn packet(src: [u8; 4], payload: &[u8]) -> Chosen {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ipv4(src, [203, 0, 113, 77], 60)
            .udp(40_000, 1026)
            .write(&mut frame, payload)
            .unwrap();
        Chosen::new(&frame, Link::Ip, &parse(&frame[..], Link::Ip).unwrap(), 768).unwrap()
    }

    fn same(a: &str, b: &str) -> bool {
        let of = |text: &str| key(&packet([198, 51, 100, 1], text.as_bytes()));
        of(a) == of(b)
    }

    #[test]
    fn numbers_case_hosts_and_spaces_make_no_other_content() {
        assert!(same("Found 55 ERRORS. Visit www.a.com", "found 7 errors.\r\nVisit www.b-c.net"));
        assert!(same("id=83afe2 ping", "id=0b1c ping"));
        assert!(!same("Download Registry Repair", "Download Repair Registry Pro"));
        assert!(!same("", "1"));
        assert!(!same("12345", "123456"));
        assert!(same("12345", "54321"));
        // DNS queries for one name differ in their identifiers.
        let dns = |id: &str| format!("{id}\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01");
        assert!(same(&dns("ab"), &dns("xy")));
    }

    #[test]
    fn contents_are_counted_with_their_sources() {
        let slot = Slot::new(Transport::Udp, 1026);
        let mut collector = Collector::new(20);
        for at in 0..50_u8 {
            collector.add(slot, i64::from(at), None, packet([198, 51, 100, at / 2], &[b'a', b'0' + at % 10]));
        }
        collector.add(slot, 60, None, packet([198, 51, 100, 1], b"b"));
        collector.count(slot, 9);
        let samples = collector.take();
        let [port] = &samples[..] else { panic!("{samples:?}") };
        assert_eq!((port.slot, port.packets), (slot, 60));
        let [a, b] = &port.contents[..] else { panic!("{port:?}") };
        assert_eq!((a.packets, a.first, a.last), (50, 0, 49));
        assert_eq!((a.sources.count(), a.variants.count(), a.by_source.len()), (25, 10, 25));
        assert_eq!((b.packets, b.packet.content()), (1, &b"b"[..]));
        assert!(collector.is_empty() && collector.take().is_empty());
    }

    #[test]
    fn a_flood_of_contents_that_never_come_again_keeps_out_none_that_do() {
        let slot = Slot::new(Transport::Udp, 1026);
        let mut collector = Collector::new(20);
        let word = |number: u32| {
            (0..4).map(|nth| char::from(b'a' + (number >> (4 * nth) & 15) as u8)).collect::<String>()
        };
        for number in 0..10_000_u32 {
            collector.add(slot, 0, None, packet([198, 51, 100, 1], word(number).as_bytes()));
            if number % 30 == 0 {
                collector.add(slot, 0, None, packet([198, 51, 100, 1], b"again and again"));
            }
        }
        let [port] = &collector.take()[..] else { panic!() };
        assert_eq!((port.packets, port.contents.len()), (10_334, 40));
        assert_eq!(port.contents[0].packets, 334);
        assert_eq!(port.contents[0].packet.content(), b"again and again");
    }
}
