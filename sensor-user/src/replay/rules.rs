//! The configured rules of observation, for packets of captures.

use super::flows::Conversations;
use crate::prefixes::PrefixSet;
use crate::samples::{Chosen, SampleSettings};
use ipnet::IpNet;
use sensor_common::classify::Intent;
use sensor_common::flow::{self, FlowKey};
use sensor_common::{Address, Conversation, Frame, Link, Packet, Slot, World};

/// What the configuration says about packets.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Destinations that count; empty: all.
    observed: PrefixSet,
    excluded: PrefixSet,
    /// The sensor's side in captures of both directions.
    local: PrefixSet,
    /// One bit for each slot.
    services: Box<[u64]>,
    samples: SampleSettings,
}

impl Rules {
    /// `local` empty: the capture holds only what the sensor received. `observe` empty: every address
    /// of the sensor's side counts, or every destination at all when that is empty, too.
    pub fn new(observe: &[IpNet], excluded: &[IpNet], services: &[Slot], local: &[IpNet]) -> Self {
        let mut bits = vec![0; Slot::COUNT.div_ceil(64)].into_boxed_slice();
        for slot in services {
            bits[slot.index() as usize / 64] |= 1 << (slot.index() % 64);
        }
        Self {
            observed: PrefixSet::new(if observe.is_empty() { local } else { observe }),
            excluded: PrefixSet::new(excluded),
            local: PrefixSet::new(local),
            services: bits,
            samples: SampleSettings::default(),
        }
    }

    /// The same, with what is sampled.
    #[must_use]
    pub fn with_samples(self, samples: SampleSettings) -> Self {
        Self { samples, ..self }
    }

    /// The first bytes of `packet`, which was parsed from `frame`, if it is chosen when it is an access.
    #[inline]
    pub(super) fn sample(&self, frame: &[u8], link: Link, packet: &Packet) -> Option<Chosen> {
        let SampleSettings { choice, bytes, .. } = &self.samples;
        if choice.is_off() || !choice.may_have(Slot::new(packet.transport, packet.port)) {
            return None;
        }
        Chosen::new(frame, link, packet, *bytes)
    }

    /// Whether the sensor's side can be distinguished from the other.
    pub(super) fn has_local(&self) -> bool {
        !self.local.is_empty()
    }

    /// Whether `src` is on the sensor's side, so that its packets are outbound.
    #[inline]
    pub(super) fn is_local(&self, src: &Address) -> bool {
        self.local.contains(src)
    }
}

/// What the classification of one packet asks for. When a capture holds only what the sensor received, nothing is known of
/// conversations, and each packet is judged on its own.
pub(crate) struct PacketWorld<'a, F: ?Sized> {
    pub(crate) rules: &'a Rules,
    /// The conversations of the sensor's side, and the packet's frame.
    pub(crate) conversations: Option<(&'a Conversations, &'a F)>,
}

impl<F: Frame + ?Sized> World for PacketWorld<'_, F> {
    #[inline]
    fn observes(&self, dst: &Address) -> bool {
        self.rules.observed.is_empty() || self.rules.observed.contains(dst)
    }

    #[inline]
    fn excludes(&self, src: &Address) -> bool {
        self.rules.excluded.contains(src)
    }

    #[inline]
    fn serves(&self, slot: Slot) -> bool {
        self.rules.services[slot.index() as usize / 64] >> (slot.index() % 64) & 1 != 0
    }

    #[inline]
    fn conversation(&self, packet: &Packet, intent: Intent) -> Conversation {
        match self.conversations {
            Some((flows, frame)) if flow::may_be_ours(packet, intent, flows) => {
                flow::conversation(frame, packet, &mut FlowKey::default(), flows)
            }
            _ => Conversation::None,
        }
    }
}
