//! The first bytes of packets that the program has sampled, out of its ring.

use super::drained::Drained;
use super::pins::Pins;
use super::{KernelError, object};
use crate::samples::{Chosen, Collector, SampleSettings, Samples};
use crate::system::clock::monotonic_nanos;
use aya::maps::{MapData, RingBuf};
use jiff::Timestamp;
use sensor_common::layout::{SAMPLE_BYTES, Sample};
use sensor_common::{Link, Packet, Slot, Tool, parse};
use std::mem::offset_of;

/// The ring, and what was read of generations that are not drained yet. The ring bounds how much that is.
pub(super) struct SampleRing {
    ring: RingBuf<MapData>,
    ahead: Vec<SampledFrame>,
}

/// One sampled frame.
struct SampledFrame {
    generation: u64,
    at: u64,
    link: Link,
    bytes: Vec<u8>,
}

impl SampledFrame {
    /// From the bytes of a [`Sample`].
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes);
        let long = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes);
        let captured = (word(offset_of!(Sample, captured))? as usize).min(SAMPLE_BYTES);
        let begin = offset_of!(Sample, bytes);
        Some(Self {
            generation: long(offset_of!(Sample, generation))?,
            at: long(offset_of!(Sample, at))?,
            link: if word(offset_of!(Sample, link))? == 0 { Link::Ethernet } else { Link::Ip },
            bytes: bytes.get(begin..begin + captured)?.to_vec(),
        })
    }

    /// What is known of it as an access.
    fn chosen(&self, limit: u16) -> Option<(Packet, Chosen)> {
        let packet = parse(&self.bytes[..], self.link).ok()?;
        let chosen = Chosen::new(&self.bytes, self.link, &packet, limit)?;
        Some((packet, chosen))
    }
}

impl SampleRing {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        Ok(Self { ring: object::ring(pins, "SAMPLES")?, ahead: Vec::new() })
    }

    /// What the packets of a drained generation held. No program runs in it, so all of its samples are in the
    /// ring or were read before; those of earlier generations, which were drained without them, are left out.
    pub(super) fn take(&mut self, drained: &Drained, settings: &SampleSettings) -> Samples {
        let mut frames = std::mem::take(&mut self.ahead);
        while let Some(item) = self.ring.next() {
            frames.extend(SampledFrame::read(&item));
        }
        let (now, wall) = (monotonic_nanos(), Timestamp::now());
        let mut collector = Collector::new(settings.contents);
        let mut taken = std::collections::BTreeMap::<Slot, u64>::new();
        for frame in frames {
            if frame.generation > drained.number {
                self.ahead.push(frame);
                continue;
            }
            if frame.generation < drained.number {
                continue;
            }
            let Some((packet, chosen)) = frame.chosen(settings.bytes) else { continue };
            let slot = Slot::new(packet.transport, packet.port);
            let ago = i64::try_from(now.saturating_sub(frame.at)).unwrap_or(i64::MAX);
            let at = i64::try_from(wall.as_nanosecond()).unwrap_or(i64::MAX).saturating_sub(ago);
            *taken.entry(slot).or_default() += 1;
            collector.add(slot, at, Tool::of(&frame.bytes[..], &packet), chosen);
        }
        for (slot, packets) in &drained.counted.sampled {
            let taken = taken.get(slot).copied().unwrap_or(0);
            collector.count(*slot, packets.saturating_sub(taken));
        }
        collector.take()
    }
}
