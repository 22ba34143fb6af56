//! Flows in the standard library's maps, with a clock that is set by hand.

use sensor_common::flow::{FlowCounter, FlowKey, FlowState, Flows, HEARD_ENTRIES, HalfOpen, STARTED, Table};
use sensor_common::{AddressBytes, Packet, Slot, World, classify, flow};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use sensor_common::{Address, Class, Conversation, classify::Intent};

/// A second, nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// One host's flows; every destination counts, and nothing is a service.
pub(crate) struct Host {
    now: Cell<u64>,
    started: RefCell<HashMap<FlowKey, FlowState>>,
    accepted: RefCell<HashMap<FlowKey, FlowState>>,
    /// Conversations that are over and no longer among the flows.
    peers: RefCell<HashMap<FlowKey, FlowState>>,
    offers: RefCell<HashMap<FlowKey, HalfOpen>>,
    any: Cell<u64>,
    ports: RefCell<HashMap<Slot, u8>>,
    notes: Vec<Cell<u64>>,
    pub(crate) replies: Cell<u64>,
    pub(crate) displaced: Cell<u64>,
    pub(crate) unsure: Cell<u64>,
    /// What the daemon knows of one port.
    pub(crate) known: Cell<Option<(Slot, u8)>>,
    /// Looks into the tables for packets that arrive.
    pub(crate) lookups: Cell<u64>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            // An hour after it was started.
            now: Cell::new(3_600 * SECOND),
            started: RefCell::default(),
            accepted: RefCell::default(),
            peers: RefCell::default(),
            offers: RefCell::default(),
            any: Cell::new(0),
            ports: RefCell::default(),
            notes: vec![Cell::new(0); HEARD_ENTRIES],
            replies: Cell::new(0),
            displaced: Cell::new(0),
            unsure: Cell::new(0),
            known: Cell::new(None),
            lookups: Cell::new(0),
        }
    }

    pub(crate) fn wait(&self, nanoseconds: u64) {
        self.now.set(self.now.get() + nanoseconds);
    }

    /// Flows that this host started, and connections that it accepted.
    pub(crate) fn flows(&self) -> usize {
        self.started() + self.accepted.borrow().len()
    }

    pub(crate) fn started(&self) -> usize {
        self.started.borrow().len()
    }

    pub(crate) fn offers(&self) -> usize {
        self.offers.borrow().len()
    }

    /// Removes the flows that are over and remembers them, as the daemon does.
    pub(crate) fn collect(&self) {
        let now = self.now.get();
        self.started.borrow_mut().retain(|key, state| {
            if !state.is_alive(now) {
                self.peers.borrow_mut().insert(*key, *state);
            }
            state.is_alive(now)
        });
    }

    fn table(&self, table: Table) -> &RefCell<HashMap<FlowKey, FlowState>> {
        match table {
            Table::Started => &self.started,
            Table::Accepted => &self.accepted,
        }
    }

    /// Sends what the kernel sends by itself.
    pub(crate) fn sends(&self, packet: &Packet) {
        flow::depart(packet, false, || false, self);
    }

    /// Sends in a frame to a group.
    pub(crate) fn broadcasts(&self, packet: &Packet) {
        flow::depart(packet, true, || false, self);
    }

    /// Sends through a socket that has a connection.
    pub(crate) fn sends_connected(&self, packet: &Packet) {
        flow::depart(packet, false, || true, self);
    }

    pub(crate) fn receives(&self, packet: &Packet) -> Class {
        let class = classify::judge(&[][..], &Ok(*packet), self).class;
        flow::arrived(packet, class, self);
        class
    }

    /// Receives what has an IPv6 header and cannot be read beyond it.
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
        matches!(src.bytes(), AddressBytes::V4([10, ..]))
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
    fn any(&self) -> u64 {
        self.any.get()
    }
    fn start(&self, bits: u64) {
        self.any.set(self.any.get() | bits);
    }
    fn port(&self, port: Slot) -> u8 {
        self.ports.borrow().get(&port).copied().unwrap_or(0)
    }
    fn mark(&self, port: Slot, bits: u8) {
        *self.ports.borrow_mut().entry(port).or_default() |= bits;
    }
    fn known(&self, port: Slot) -> u8 {
        self.known.get().filter(|(known, _)| *known == port).map_or(0, |(_, bits)| bits)
    }
    fn get(&self, table: Table, key: &FlowKey) -> Option<FlowState> {
        self.lookups.set(self.lookups.get() + 1);
        self.table(table).borrow().get(key).copied()
    }
    fn update(&self, table: Table, key: &FlowKey, next: impl FnOnce(FlowState) -> Option<FlowState>) -> bool {
        let mut flows = self.table(table).borrow_mut();
        let Some(state) = flows.get_mut(key) else { return false };
        next(*state).map(|next| *state = next).is_some()
    }
    fn create(&self, table: Table, key: &FlowKey, state: FlowState) {
        self.table(table).borrow_mut().insert(*key, state);
        self.start(STARTED);
    }
    fn remembers(&self, key: &FlowKey) -> bool {
        self.peers.borrow().get(key).is_some_and(|state| state.is_remembered(self.now.get()))
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
    fn count(&self, counter: FlowCounter) {
        let counter = match counter {
            FlowCounter::Replies => &self.replies,
            FlowCounter::Displaced => &self.displaced,
            FlowCounter::Unsure => &self.unsure,
            FlowCounter::Created | FlowCounter::Failed => return,
        };
        counter.set(counter.get() + 1);
    }
}
