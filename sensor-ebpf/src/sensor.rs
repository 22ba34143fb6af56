//! What the classifier needs to know, from the generation's rules and the tries.

use core::cell::Cell;

use aya_ebpf::btf_maps::lpm_trie::Key;
use sensor_common::classify::Intent;
use sensor_common::flow::{self, Flows as _};
use sensor_common::layout::{
    EXCLUDE_V4, EXCLUDE_V6, HAS_SERVICES, OBSERVE_ALL, OBSERVE_TRIE, Rules, SERVICE_WORDS, SET_BITS,
    TRACK_FLOWS, TrieKeyV4, TrieKeyV6, trie_key_v4, trie_key_v6,
};
use sensor_common::{Address, AddressBytes, Conversation, Packet, Slot, Verdict, World};

use crate::bounds::below;
use crate::flows::KernelFlows;
use crate::maps::{EXCLUDED_V4, EXCLUDED_V6, OBSERVED_V4, OBSERVED_V6};
use crate::recent::at_once;

/// The rules of one generation, as the classifier asks for them.
pub struct Sensor<'a> {
    rules: &'a Rules,
    flows: KernelFlows,
    undecided: Cell<bool>,
}

impl<'a> Sensor<'a> {
    #[inline(always)]
    pub fn new(rules: &'a Rules, flows: KernelFlows) -> Self {
        Self { rules, flows, undecided: Cell::new(false) }
    }

    /// Whether the verdict depends on a lookup among the flows, which has not been made.
    #[inline(always)]
    pub fn is_undecided(&self) -> bool {
        self.undecided.get()
    }

    #[inline(always)]
    fn has(&self, flag: u32) -> bool {
        self.rules.flags & flag != 0
    }

    /// The key to look `address` up in a trie: its full length, in the set of this generation.
    #[inline(always)]
    fn key_v4(&self, address: [u8; 4]) -> Key<TrieKeyV4> {
        Key::new(SET_BITS + 32, trie_key_v4(self.rules.prefixes, address))
    }

    /// The same for IPv6.
    #[inline(always)]
    fn key_v6(&self, address: [u8; 16]) -> Key<TrieKeyV6> {
        Key::new(SET_BITS + 128, trie_key_v6(self.rules.prefixes, address))
    }
}

impl World for Sensor<'_> {
    #[inline(always)]
    fn observes(&self, dst: &Address) -> bool {
        if self.has(OBSERVE_ALL) {
            return true;
        }
        match dst.bytes() {
            AddressBytes::V4(dst) => {
                let address = u32::from_ne_bytes(dst);
                for prefix in &self.rules.observed_v4 {
                    if prefix.contains(address) {
                        return true;
                    }
                }
                self.has(OBSERVE_TRIE) && OBSERVED_V4.get(&self.key_v4(dst)).is_some()
            }
            AddressBytes::V6(dst) => {
                let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = dst;
                let address = [
                    u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
                    u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
                ];
                for prefix in &self.rules.observed_v6 {
                    if prefix.contains(address) {
                        return true;
                    }
                }
                self.has(OBSERVE_TRIE) && OBSERVED_V6.get(&self.key_v6(dst)).is_some()
            }
        }
    }

    #[inline(always)]
    fn excludes(&self, src: &Address) -> bool {
        match src.bytes() {
            AddressBytes::V4(src) => self.has(EXCLUDE_V4) && EXCLUDED_V4.get(&self.key_v4(src)).is_some(),
            AddressBytes::V6(src) => self.has(EXCLUDE_V6) && EXCLUDED_V6.get(&self.key_v6(src)).is_some(),
        }
    }

    #[inline(always)]
    fn serves(&self, slot: Slot) -> bool {
        if !self.has(HAS_SERVICES) {
            return false;
        }
        let index = slot.index() as usize;
        let Some(word) = below::<SERVICE_WORDS>(index / 64) else { return false };
        // SAFETY: `word` is below the array's length.
        let bits = unsafe { *self.rules.services.as_ptr().add(word) };
        bits >> (index % 64) & 1 != 0
    }

    #[inline(always)]
    fn conversation(&self, packet: &Packet, intent: Intent) -> Conversation {
        if self.has(TRACK_FLOWS) && flow::may_be_ours(packet, intent, &self.flows) {
            if let Some(conversation) = at_once(packet, self.flows.shared(), self.flows.now()) {
                return conversation;
            }
            self.undecided.set(true);
        }
        Conversation::None
    }
}

/// Notes what must be known of a packet when a reply to it departs.
#[inline(always)]
pub fn arrived(rules: &Rules, packet: &Packet, verdict: &Verdict, flows: &KernelFlows) {
    if rules.flags & TRACK_FLOWS != 0 {
        flow::arrived(packet, verdict.class, flows);
    }
}
