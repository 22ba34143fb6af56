//! Captures of both directions (`--local`). What arrives is judged by what was sent before, so several
//! captures, of rotated files or of one direction each, are taken together by packet time.

use super::capture::{CaptureFault, Captured, Findings, Packets};
use super::flows::Conversations;
use super::link::LinkType;
use super::rules::{PacketWorld, Rules};
use super::{Replay, Sink, open};
use crate::samples::Chosen;
use indicatif::ProgressBar;
use sensor_common::frame::MAX_OFFSET;
use sensor_common::parse::{TCP_ACK, TCP_SYN};
use sensor_common::{
    Address, AddressBytes, Class, Frame, Marks, Packet, Syn, Tool, Transport, Unparsed, Verdict, judge,
};
use sensor_counters::Series;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::convert::Infallible;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Of an ICMP error: its header, and what it quotes with all the headers that may be skipped.
const MESSAGE: usize = 8 + MAX_OFFSET;

/// Of a TCP SYN: the longest header.
const SEGMENT: usize = 60;

/// What is kept of a packet's content: of an ICMP message for what it quotes, of a TCP SYN for its tool.
#[derive(Debug, Default)]
struct Message {
    /// Where it begins in the frame, bytes.
    offset: usize,
    bytes: Box<[u8]>,
}

impl Message {
    /// At most `length` bytes of what `packet` holds, which was parsed from `frame`.
    fn new(link: LinkType, frame: &[u8], packet: &Packet, length: usize) -> Self {
        let (frame, _) = link.open(frame).expect("it was parsed");
        let offset = usize::from(packet.offset);
        let bytes = &frame[offset..frame.len().min(offset + length)];
        Self { offset, bytes: bytes.into() }
    }
}

impl Marks for Message {
    fn tool(&self, syn: Syn) -> Tool {
        Tool::of_options(self, syn)
    }
}

impl Frame for Message {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes[..].load(offset.checked_sub(self.offset)?)
    }
}

/// A packet, without its frame.
#[derive(Debug)]
pub(super) struct Seen {
    /// Nanoseconds since the epoch.
    pub(super) at: i64,
    pub(super) bytes: u32,
    pub(super) is_outbound: bool,
    /// Whether the link's destination is a group.
    to_group: bool,
    parsed: Result<Packet, Unparsed>,
    pub(super) unparsed: Option<Series>,
    /// Who sent it, when that is known.
    src: Option<Address>,
    message: Message,
    /// The first bytes, if it is chosen when it is an access.
    pub(super) sample: Option<Chosen>,
}

impl Seen {
    pub(super) fn new(captured: &Captured<'_>, rules: &Rules) -> Self {
        let Captured { at, link, frame, bytes } = *captured;
        let parsed = link.parse_captured(frame, bytes);
        let src = match &parsed {
            Ok(packet) => Some(packet.src),
            // What is broken or a fragment has its sender all the same.
            Err(_) => link.source(frame),
        };
        let is_outbound = src.is_some_and(|src| rules.is_local(&src));
        let message = match &parsed {
            Ok(packet) if !is_outbound => match packet.transport {
                Transport::Icmp | Transport::Icmpv6 => Message::new(link, frame, packet, MESSAGE),
                Transport::Tcp if packet.control & (TCP_SYN | TCP_ACK) == TCP_SYN => {
                    Message::new(link, frame, packet, SEGMENT)
                }
                _ => Message::default(),
            },
            _ => Message::default(),
        };
        let unparsed = parsed.as_ref().err().and_then(|why| link.detail(frame, *why));
        let sample = match (&parsed, link.open(frame)) {
            (Ok(packet), Ok((frame, link))) if !is_outbound => rules.sample(frame, link, packet),
            _ => None,
        };
        let to_group = link.is_to_group(frame);
        Self { at, bytes, is_outbound, to_group, parsed, unparsed, src, message, sample }
    }

    /// Learns from what the sensor's side sends; judges what it receives.
    pub(super) fn judge(&self, rules: &Rules, flows: &Conversations) -> Option<Verdict> {
        flows.set_time(self.at);
        if self.is_outbound {
            if let Ok(packet) = &self.parsed {
                flows.depart(packet, self.to_group);
            }
            return None;
        }
        let verdict = {
            let world = PacketWorld { rules, conversations: Some((flows, &self.message)) };
            judge(&self.message, &self.parsed, &world)
        };
        match (&self.parsed, self.src) {
            (Ok(packet), _) => flows.arrived(packet, verdict.class),
            (Err(_), Some(src))
                if verdict.class == Class::Malformed && matches!(src.bytes(), AddressBytes::V6(_)) =>
            {
                flows.arrived_unread(&src);
            }
            (Err(_), _) => {}
        }
        Some(verdict)
    }
}

/// A capture that is being read, and its next packet. The greatest is the one whose packet is the
/// earliest.
struct OpenCapture {
    index: usize,
    packets: Packets<'static>,
    next: Seen,
}

impl OpenCapture {
    fn order(&self) -> Reverse<(i64, usize)> {
        Reverse((self.next.at, self.index))
    }
}

impl Ord for OpenCapture {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for OpenCapture {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OpenCapture {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for OpenCapture {}

/// The next packet of a capture.
fn next(packets: &mut Packets<'_>, rules: &Rules) -> Option<Seen> {
    let mut seen = None;
    let Ok(_) = packets.next(&mut |captured| {
        seen = Some(Seen::new(&captured, rules));
        Ok::<(), Infallible>(())
    });
    seen
}

/// Time of the first packet of a file, nanoseconds since the epoch; `None` when it has none or can be
/// read only once.
fn begin(path: &Path) -> Option<i64> {
    let file = File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut at = None;
    let mut take = |packet: Captured<'_>| {
        at = Some(packet.at);
        Ok::<(), Infallible>(())
    };
    let Ok(_) = Packets::open(file).ok()?.next(&mut take);
    at
}

/// Captures of both directions, in the order of time. Only those are open of which the time has come.
struct Captures<'a> {
    files: &'a [PathBuf],
    progress: &'a ProgressBar,
    /// Begin and index of the files that are still to be opened, the earliest first. Those whose begin
    /// is not known come first.
    waiting: BinaryHeap<Reverse<(Option<i64>, usize)>>,
    open: BinaryHeap<OpenCapture>,
    findings: BTreeMap<usize, Findings>,
}

impl<'a> Captures<'a> {
    fn new(files: &'a [PathBuf], progress: &'a ProgressBar) -> Self {
        let waiting = match files {
            [_] => BinaryHeap::from([Reverse((None, 0))]),
            files => files.iter().enumerate().map(|(index, path)| Reverse((begin(path), index))).collect(),
        };
        Self { files, progress, waiting, open: BinaryHeap::new(), findings: BTreeMap::new() }
    }

    /// Opens the files whose time has come; whether none was open before.
    fn open_due(&mut self, rules: &Rules) -> bool {
        let none_was_open = self.open.is_empty();
        while let Some(&Reverse((begin, index))) = self.waiting.peek() {
            let is_due =
                self.open.peek().is_none_or(|source| begin.is_none_or(|begin| begin <= source.next.at));
            if !is_due {
                break;
            }
            self.waiting.pop();
            self.progress.set_message(self.files[index].display().to_string());
            let opened = open(&self.files[index])
                .map_err(CaptureFault::Open)
                .and_then(|input| Packets::open(self.progress.wrap_read(input)));
            match opened {
                Ok(mut packets) => match next(&mut packets, rules) {
                    Some(next) => self.open.push(OpenCapture { index, packets, next }),
                    None => drop(self.findings.insert(index, packets.finish())),
                },
                Err(fault) => drop(self.findings.insert(index, fault.into())),
            }
        }
        none_was_open
    }

    /// The next packet, and whether the captures pause before it.
    fn next(&mut self, rules: &Rules) -> Option<(Seen, bool)> {
        let is_next_capture = !self.waiting.is_empty() && self.open_due(rules);
        let mut source = self.open.peek_mut()?;
        let seen = if let Some(next) = next(&mut source.packets, rules) {
            std::mem::replace(&mut source.next, next)
        } else {
            let OpenCapture { index, packets, next } = PeekMut::pop(source);
            self.findings.insert(index, packets.finish());
            next
        };
        Some((seen, is_next_capture))
    }
}

/// Counts `files`; returns what is wrong with them, by index.
pub(super) fn captures<E>(
    replay: &mut Replay,
    files: &[PathBuf],
    progress: &ProgressBar,
    sink: &mut Sink<'_, E>,
) -> Result<BTreeMap<usize, Vec<CaptureFault>>, E> {
    let mut captures = Captures::new(files, progress);
    while let Some((mut seen, is_next_capture)) = captures.next(&replay.rules) {
        if is_next_capture {
            replay.hours.begin_capture();
        }
        replay.take(&mut seen, sink)?;
    }
    Ok(captures.findings.into_iter().map(|(index, findings)| (index, replay.note(findings))).collect())
}
