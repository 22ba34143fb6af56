//! Captures of both directions (`--local`). What arrives is judged by what was sent before, so several
//! captures, of rotated files or of one direction each, are taken together by packet time.

use super::capture::{Captured, Fault, Packets, Stopped};
use super::flows::Conversations;
use super::world::{Moment, Rules};
use super::{Replay, Sink, open};
use indicatif::ProgressBar;
use sensor_common::parse::MAX_OFFSET;
use sensor_common::{Address, Class, Frame, Octets, Packet, Transport, Unparsed, Verdict, judge};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::convert::Infallible;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Of an ICMP error: its header, and what it quotes with all the headers that may be looked behind.
const MESSAGE: usize = 8 + MAX_OFFSET;

/// What is kept of an ICMP message, for what it quotes.
#[derive(Debug, Default)]
struct Message {
    /// Where it begins in the frame, octets.
    offset: usize,
    octets: Box<[u8]>,
}

impl Frame for Message {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.octets[..].load(offset.checked_sub(self.offset)?)
    }
}

/// A packet, without its frame.
#[derive(Debug)]
pub(super) struct Seen {
    /// Nanoseconds since the epoch.
    pub(super) at: i64,
    pub(super) octets: u32,
    pub(super) is_outbound: bool,
    parsed: Result<Packet, Unparsed>,
    /// Who sent it, when that can be told.
    src: Option<Address>,
    message: Message,
}

impl Seen {
    pub(super) fn new(captured: &Captured<'_>, rules: &Rules) -> Self {
        let Captured { at, link, frame, octets } = *captured;
        let parsed = link.parse(frame);
        let src = match &parsed {
            Ok(packet) => Some(packet.src),
            // What is broken or a fragment has its sender all the same.
            Err(_) => link.source(frame),
        };
        let is_outbound = src.is_some_and(|src| rules.is_local(&src));
        let message = match &parsed {
            Ok(packet) if !is_outbound && matches!(packet.transport, Transport::Icmp | Transport::Icmpv6) => {
                let (frame, _) = link.open(frame).expect("it was parsed");
                let offset = usize::from(packet.offset);
                let octets = &frame[offset..frame.len().min(offset + MESSAGE)];
                Message { offset, octets: octets.into() }
            }
            _ => Message::default(),
        };
        Self { at, octets, is_outbound, parsed, src, message }
    }

    /// Learns from what the sensor's side sends; judges what it receives.
    pub(super) fn judge(&self, rules: &Rules, flows: &Conversations) -> Option<Verdict> {
        flows.set_time(self.at);
        if self.is_outbound {
            if let Ok(packet) = &self.parsed {
                flows.depart(packet);
            }
            return None;
        }
        let verdict = judge(&self.parsed, &Moment { rules, conversations: Some((flows, &self.message)) });
        match (&self.parsed, self.src) {
            (Ok(packet), _) => flows.arrived(packet, verdict.class),
            (Err(_), Some(src))
                if verdict.class == Class::Malformed && matches!(src.octets(), Octets::V6(_)) =>
            {
                flows.arrived_unread(&src);
            }
            (Err(_), _) => {}
        }
        Some(verdict)
    }
}

/// A capture that is being read, and its next packet.
struct Source {
    packets: Packets<'static>,
    next: Seen,
}

/// The next packet of a capture.
fn next(packets: &mut Packets<'_>, rules: &Rules) -> Result<Option<Seen>, Fault> {
    let mut seen = None;
    let result = packets.next(&mut |captured| {
        seen = Some(Seen::new(&captured, rules));
        Ok::<(), Infallible>(())
    });
    match result {
        Ok(_) => Ok(seen),
        Err(Stopped::Fault(fault)) => Err(fault),
        Err(Stopped::Taker(never)) => match never {},
    }
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
    Packets::open(file).ok()?.next(&mut take).ok()?;
    at
}

/// Captures of both directions, in the order of time. Only those are open of which the time has come.
struct Captures<'a> {
    files: &'a [PathBuf],
    progress: &'a ProgressBar,
    /// Begin and index of the files that are still to be opened, the earliest first. Those whose begin
    /// is not known come first.
    waiting: BinaryHeap<Reverse<(Option<i64>, usize)>>,
    /// Time of the next packet and index of the files that are open, the earliest first.
    order: BinaryHeap<Reverse<(i64, usize)>>,
    sources: BTreeMap<usize, Source>,
    faults: BTreeMap<usize, Fault>,
}

impl<'a> Captures<'a> {
    fn new(files: &'a [PathBuf], progress: &'a ProgressBar) -> Self {
        let waiting = match files {
            [_] => BinaryHeap::from([Reverse((None, 0))]),
            files => files.iter().enumerate().map(|(index, path)| Reverse((begin(path), index))).collect(),
        };
        let (order, sources, faults) = (BinaryHeap::new(), BTreeMap::new(), BTreeMap::new());
        Self { files, progress, waiting, order, sources, faults }
    }

    /// Opens the files whose time has come; whether none was open before.
    fn open_due(&mut self, rules: &Rules) -> bool {
        let none_was_open = self.order.is_empty();
        while let Some(&Reverse((begin, index))) = self.waiting.peek() {
            let is_due =
                self.order.peek().is_none_or(|Reverse((at, _))| begin.is_none_or(|begin| begin <= *at));
            if !is_due {
                break;
            }
            self.waiting.pop();
            self.progress.set_message(self.files[index].display().to_string());
            let packets = open(&self.files[index])
                .map_err(Fault::Open)
                .and_then(|input| Packets::open(self.progress.wrap_read(input)));
            match packets {
                Ok(packets) => self.go_on(index, packets, rules),
                Err(fault) => drop(self.faults.insert(index, fault)),
            }
        }
        none_was_open
    }

    /// Puts a capture where its next packet belongs, or ends it.
    fn go_on(&mut self, index: usize, mut packets: Packets<'static>, rules: &Rules) {
        match next(&mut packets, rules) {
            Ok(Some(next)) => {
                self.order.push(Reverse((next.at, index)));
                self.sources.insert(index, Source { packets, next });
            }
            Ok(None) => {}
            Err(fault) => drop(self.faults.insert(index, fault)),
        }
    }

    /// The next packet, and whether the captures pause before it.
    fn next(&mut self, rules: &Rules) -> Option<(Seen, bool)> {
        let is_anew = !self.waiting.is_empty() && self.open_due(rules);
        let Reverse((_, index)) = self.order.pop()?;
        let Source { packets, next } = self.sources.remove(&index)?;
        self.go_on(index, packets, rules);
        Some((next, is_anew))
    }
}

/// Counts `files`; returns what is wrong with those that could not be read to their end, by index.
pub(super) fn captures<E>(
    replay: &mut Replay,
    files: &[PathBuf],
    progress: &ProgressBar,
    sink: &mut Sink<'_, E>,
) -> Result<BTreeMap<usize, Fault>, E> {
    let mut captures = Captures::new(files, progress);
    while let Some((seen, is_anew)) = captures.next(&replay.rules) {
        if is_anew {
            replay.hours.begin_capture();
        }
        replay.take(&seen, sink)?;
    }
    Ok(captures.faults)
}
