//! Flows in the standard library's maps, with a clock that is set by hand.

use sensor_common::flow::{FlowKey, FlowState, Flows, HEARD_NOTES, HalfOpen};
use sensor_common::{Octets, Packet, Slot, World, classify, flow};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use sensor_common::{Address, Class, Conversation, classify::Intent};

/// A second, nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// One host's flows; every destination counts, and nothing is a service.
pub(crate) struct Host {
    now: Cell<u64>,
    flows: RefCell<HashMap<FlowKey, FlowState>>,
    offers: RefCell<HashMap<FlowKey, HalfOpen>>,
    asked: RefCell<HashSet<Slot>>,
    notes: Vec<Cell<u64>>,
    pub(crate) replies: Cell<u64>,
    /// The UDP port that is taken for a server's.
    pub(crate) served: Cell<Option<Slot>>,
    /// Looks into the tables for packets that arrive.
    pub(crate) lookups: Cell<u64>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            // An hour after it was started.
            now: Cell::new(3_600 * SECOND),
            flows: RefCell::default(),
            offers: RefCell::default(),
            asked: RefCell::default(),
            notes: vec![Cell::new(0); HEARD_NOTES],
            replies: Cell::new(0),
            served: Cell::new(None),
            lookups: Cell::new(0),
        }
    }

    pub(crate) fn wait(&self, nanoseconds: u64) {
        self.now.set(self.now.get() + nanoseconds);
    }

    pub(crate) fn flows(&self) -> usize {
        self.flows.borrow().len()
    }

    /// Sends what the kernel sends by itself.
    pub(crate) fn sends(&self, packet: &Packet) {
        flow::depart(packet, || false, self);
    }

    /// Sends through a socket that has a connection.
    pub(crate) fn sends_connected(&self, packet: &Packet) {
        flow::depart(packet, || true, self);
    }

    pub(crate) fn receives(&self, packet: &Packet) -> Class {
        let class = classify::judge(&Ok(*packet), self).class;
        flow::arrived(packet, class, self);
        class
    }

    /// Receives what has IPv6's header and cannot be read behind it.
    pub(crate) fn receives_unread(&self, src: [u8; 16]) {
        flow::arrived_unread(&Address::v6(src), self);
    }
}

impl World for Host {
    fn observes(&self, _: &Address) -> bool {
        true
    }
    fn excludes(&self, src: &Address) -> bool {
        // Its own monitoring.
        matches!(src.octets(), Octets::V4([10, ..]))
    }
    fn serves(&self, _: Slot) -> bool {
        false
    }
    fn conversation(&self, packet: &Packet, intent: Intent) -> Conversation {
        if flow::may_be_ours(packet, intent, self) {
            // None of these tests quotes.
            flow::conversation(&[][..], packet, &mut FlowKey::default(), self)
        } else {
            Conversation::None
        }
    }
}

impl Flows for Host {
    fn now(&self) -> u64 {
        self.now.get()
    }
    fn any(&self) -> bool {
        self.flows() > 0
    }
    fn asked(&self, port: Slot) -> bool {
        self.asked.borrow().contains(&port)
    }
    fn ask(&self, port: Slot) {
        self.asked.borrow_mut().insert(port);
    }
    fn served(&self, port: Slot) -> bool {
        self.served.get() == Some(port)
    }
    fn get(&self, key: &FlowKey) -> Option<FlowState> {
        self.lookups.set(self.lookups.get() + 1);
        self.flows.borrow().get(key).copied()
    }
    fn update(&self, key: &FlowKey, next: impl FnOnce(FlowState) -> Option<FlowState>) -> bool {
        let mut flows = self.flows.borrow_mut();
        let Some(state) = flows.get_mut(key) else { return false };
        next(*state).map(|next| *state = next).is_some()
    }
    fn create(&self, key: &FlowKey, state: FlowState) {
        self.flows.borrow_mut().insert(*key, state);
    }
    fn half_open(&self, key: &FlowKey) -> Option<HalfOpen> {
        self.lookups.set(self.lookups.get() + 1);
        self.offers.borrow().get(key).copied()
    }
    fn offer(&self, key: &FlowKey, half_open: HalfOpen) {
        self.offers.borrow_mut().insert(*key, half_open);
    }
    fn accepted(&self, key: &FlowKey) {
        self.offers.borrow_mut().remove(key);
    }
    fn seed(&self) -> u64 {
        0x5eed
    }
    fn note(&self, at: u32) -> u64 {
        self.notes[at as usize].get()
    }
    fn set_note(&self, at: u32, note: u64) {
        self.notes[at as usize].set(note);
    }
    fn replied(&self) {
        self.replies.set(self.replies.get() + 1);
    }
}
