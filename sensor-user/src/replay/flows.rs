//! The conversations of the sensor's side in a capture of both directions: the tables that the program
//! in the kernel keeps in maps, driven by the same rules ([`sensor_common::flow`]) and by packet time.
//!
//! What the kernel knows from its sockets, a capture must show:
//!
//! - *Connections under way when it begins.* The daemon reads the kernel's socket tables. Here a segment
//!   that the sensor's side sends, without SYN and RST, proves a connection, since a host without one
//!   answers by a RST. Until then what arrives is judged as if there were none: a segment is `other`,
//!   a RST `backscatter`. UDP and ICMP that were asked before the capture began are answers to nothing.
//! - *What the kernel sends by itself.* A host that has answered a SYN, and gets a segment with a wrong
//!   number before the handshake's end, repeats its number in an ACK (RFC 9293, section 3.10.7.4). That
//!   ACK proves nothing.

use crate::conversations;
use sensor_common::flow::{
    self, ASKED_PORTS, FlowCounter, FlowKey, FlowState, Flows, HALF_OPEN_SECONDS, HEARD_ENTRIES, HalfOpen,
    SERVICE, STARTED, Table,
};
use sensor_common::parse::{TCP_FIN, TCP_RST, TCP_SYN};
use sensor_common::{Address, Class, Packet, Slot, Transport};
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

const SECOND: u64 = 1_000_000_000;

/// Flows that are kept at most. A capture may be of a whole network, so they are more than in the
/// kernel; so many take 60 MB.
pub const MAX_FLOWS: usize = 900_000;
/// Accepted connections that are kept at most.
pub(super) const MAX_ACCEPTED: usize = 200_000;
/// UDP conversations that are over and remembered at most.
pub(super) const MAX_REMEMBERED: usize = 100_000;
/// Offered connections that are kept at most; so many take 13 MB.
pub const MAX_OFFERS: usize = 200_000;

/// PSH, in [`Packet::control`] of a TCP segment.
const TCP_PSH: u8 = 0x08;

/// Time between two looks for flows that are over, nanoseconds.
const COLLECT_EVERY: u64 = 30 * SECOND;
/// The same while there is no room.
const COLLECT_FULL_EVERY: u64 = SECOND;

/// What is counted about the conversations of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlowCounts {
    /// Flows made: conversations of the sensor's side, again after each pause that ends it.
    pub created: u64,
    /// Flows that could not be kept, because there were [`MAX_FLOWS`] already: answers to them are
    /// counted as unsolicited.
    pub failed: u64,
    /// Datagrams that started nothing, because they reply to a remote host that spoke first.
    pub replies: u64,
    /// Those among them that were taken for a reply because it may have been forgotten who spoke first.
    pub unsure: u64,
    /// Notes of who spoke first that were displaced within their time.
    pub displaced: u64,
    /// Connections offered to remote hosts that were forgotten before their time, because there were
    /// [`MAX_OFFERS`]: were they taken up, their first segment is `other`.
    pub forgotten_offers: u64,
}

/// Time that only goes forwards, like the kernel's monotonic clock: where packet time steps back,
/// because packets were written out of order or a clock was set, it does not move.
#[derive(Clone, Copy, Debug, Default)]
struct FlowClock {
    /// Time of the packet before, nanoseconds since the epoch.
    last: Option<i64>,
    /// Nanoseconds since the first packet.
    now: u64,
}

impl FlowClock {
    fn advance(&mut self, at: i64) -> u64 {
        let last = self.last.replace(at).unwrap_or(at);
        if at > last {
            self.now = self.now.saturating_add(at.abs_diff(last));
        }
        self.now
    }
}

/// What remote hosts can fill. There are two halves, and when the young one is full the old one goes: so
/// the last half of all at least are known.
struct Halves<V> {
    young: HashMap<FlowKey, V>,
    old: HashMap<FlowKey, V>,
}

impl<V> Default for Halves<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V: Copy> Halves<V> {
    fn get(&self, key: &FlowKey) -> Option<V> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    /// Keeps at most `max`; returns what had to go.
    fn insert(&mut self, key: &FlowKey, value: V, max: usize) -> HashMap<FlowKey, V> {
        let mut gone = HashMap::new();
        if self.young.len() >= max / 2 && !self.young.contains_key(key) {
            let young = std::mem::take(&mut self.young);
            gone = std::mem::replace(&mut self.old, young);
        }
        self.old.remove(key);
        self.young.insert(*key, value);
        gone
    }

    fn remove(&mut self, key: &FlowKey) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }
}

/// The conversations of the sensor's side.
pub struct Conversations {
    max_flows: usize,
    max_offers: usize,
    clock: Cell<FlowClock>,
    flows: RefCell<HashMap<FlowKey, FlowState>>,
    accepted: RefCell<Halves<FlowState>>,
    peers: RefCell<HashMap<FlowKey, FlowState>>,
    collected: Cell<u64>,
    offers: RefCell<Halves<HalfOpen>>,
    any: Cell<u64>,
    /// As in [`flow::Asked::ports`].
    ports: Box<[Cell<u8>]>,
    /// As in [`flow::Asked::known`]. A capture does not tell which sockets there were when it began.
    known: Box<[Cell<u8>]>,
    notes: Box<[Cell<u64>]>,
    counts: Cell<FlowCounts>,
}

impl Default for Conversations {
    fn default() -> Self {
        Self::with_bounds(MAX_FLOWS, MAX_OFFERS)
    }
}

fn cells<V: Copy + Default>(count: usize) -> Box<[Cell<V>]> {
    vec![Cell::new(V::default()); count].into_boxed_slice()
}

impl Conversations {
    /// Of a host at which these services are declared.
    pub fn of_services(services: &[Slot]) -> Self {
        let conversations = Self::default();
        for known in services.iter().filter_map(|slot| conversations.known.get(slot.index() as usize)) {
            known.set(SERVICE);
        }
        conversations
    }

    /// Keeps so many flows and offered connections at most.
    pub fn with_bounds(max_flows: usize, max_offers: usize) -> Self {
        Self {
            max_flows,
            max_offers,
            clock: Cell::default(),
            flows: RefCell::default(),
            accepted: RefCell::default(),
            peers: RefCell::default(),
            collected: Cell::new(0),
            offers: RefCell::default(),
            any: Cell::new(0),
            ports: cells(ASKED_PORTS),
            known: cells(ASKED_PORTS),
            notes: cells(HEARD_ENTRIES),
            counts: Cell::default(),
        }
    }

    /// It is now `at`, nanoseconds since the epoch.
    pub fn set_time(&self, at: i64) {
        let mut clock = self.clock.get();
        let now = clock.advance(at);
        self.clock.set(clock);
        if now - self.collected.get() >= COLLECT_EVERY {
            self.collect();
        }
    }

    /// The sensor's side sends `packet` at the time that was set; `to_group` when the link's destination
    /// is a group.
    pub fn depart(&self, packet: &Packet, to_group: bool) {
        flow::depart(packet, to_group, || self.is_connected(packet), self);
    }

    /// The sensor's side has received `packet`, and it is of this class.
    pub fn arrived(&self, packet: &Packet, class: Class) {
        flow::arrived(packet, class, self);
    }

    /// The sensor's side has received an IPv6 packet from `src` that could not be read.
    pub fn arrived_unread(&self, src: &Address) {
        flow::arrived_unread(src, self);
    }

    /// Whether a segment that the sensor's side sends shows that it has a connection. Of datagrams that
    /// cannot be known.
    fn is_connected(&self, packet: &Packet) -> bool {
        if packet.transport != Transport::Tcp || packet.control & (TCP_SYN | TCP_RST) != 0 {
            return false;
        }
        let offered = FlowKey::of_outgoing(packet).and_then(|key| self.half_open(&key));
        // The end of the handshake may be missing in the capture; what follows it is not.
        offered.is_none_or(|offered| {
            packet.sequence != offered.sequence.wrapping_add(1) || packet.control & (TCP_PSH | TCP_FIN) != 0
        })
    }

    /// What was counted.
    pub fn counts(&self) -> FlowCounts {
        self.counts.get()
    }

    /// Flows that are kept now, some of which may be over.
    pub fn len(&self) -> usize {
        let accepted = self.accepted.borrow();
        self.flows.borrow().len() + accepted.young.len() + accepted.old.len()
    }

    /// The flows that are not over.
    #[cfg(test)]
    pub(crate) fn alive(&self) -> impl Iterator<Item = (FlowKey, FlowState)> {
        self.collect();
        let accepted = self.accepted.borrow();
        let mut flows = self.flows.borrow().clone();
        flows.extend(accepted.young.iter().chain(&accepted.old).map(|(key, state)| (*key, *state)));
        flows.into_iter()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add(&self, add: impl FnOnce(&mut FlowCounts)) {
        let mut counts = self.counts.get();
        add(&mut counts);
        self.counts.set(counts);
    }

    /// Removes the flows that are over, and remembers the UDP conversations among them.
    fn collect(&self) {
        let now = self.now();
        let mut peers = self.peers.borrow_mut();
        self.flows.borrow_mut().retain(|key, state| {
            let is_alive = state.is_alive(now);
            if !is_alive && state.is_remembered(now) {
                peers.insert(*key, *state);
            }
            is_alive
        });
        if peers.len() > MAX_REMEMBERED {
            peers.retain(|_, state| state.is_remembered(now));
            let all = peers.iter().map(|(key, state)| (*key, *state)).collect();
            for key in conversations::to_forget(all, MAX_REMEMBERED / 4 * 3) {
                peers.remove(&key);
            }
        }
        self.accepted.borrow_mut().retain(|state| state.is_alive(now));
        self.collected.set(now);
    }

    /// Whether there is room for one more flow, if need be after those that are over are removed.
    fn has_room(&self) -> bool {
        let is_full = || self.flows.borrow().len() >= self.max_flows;
        if is_full() && self.now() - self.collected.get() >= COLLECT_FULL_EVERY {
            self.collect();
        }
        !is_full()
    }
}

impl Flows for Conversations {
    fn now(&self) -> u64 {
        self.clock.get().now
    }

    fn any(&self) -> u64 {
        self.any.get()
    }

    fn start(&self, bits: u64) {
        self.any.set(self.any.get() | bits);
    }

    fn port(&self, port: Slot) -> u8 {
        self.ports.get(port.index() as usize).map_or(0, Cell::get)
    }

    fn mark(&self, port: Slot, bits: u8) {
        if let Some(sent) = self.ports.get(port.index() as usize) {
            sent.set(sent.get() | bits);
        }
    }

    fn known(&self, port: Slot) -> u8 {
        self.known.get(port.index() as usize).map_or(0, Cell::get)
    }

    fn get(&self, table: Table, key: &FlowKey) -> Option<FlowState> {
        match table {
            Table::Started => self.flows.borrow().get(key).copied(),
            Table::Accepted => self.accepted.borrow().get(key),
        }
    }

    fn update(&self, table: Table, key: &FlowKey, next: impl FnOnce(FlowState) -> Option<FlowState>) -> bool {
        match table {
            Table::Started => {
                let mut flows = self.flows.borrow_mut();
                let Some(state) = flows.get_mut(key) else { return false };
                next(*state).map(|next| *state = next).is_some()
            }
            Table::Accepted => {
                let mut accepted = self.accepted.borrow_mut();
                let Some(next) = accepted.get(key).and_then(next) else { return false };
                accepted.insert(key, next, MAX_ACCEPTED);
                true
            }
        }
    }

    fn create(&self, table: Table, key: &FlowKey, state: FlowState) {
        match table {
            Table::Started => {
                let is_new = !self.flows.borrow().contains_key(key);
                if is_new && !self.has_room() {
                    self.add(|counts| counts.failed += 1);
                    return;
                }
                self.flows.borrow_mut().insert(*key, state);
            }
            Table::Accepted => {
                self.accepted.borrow_mut().insert(key, state, MAX_ACCEPTED);
            }
        }
        self.count(FlowCounter::Created);
        self.start(STARTED);
    }

    fn remembers(&self, key: &FlowKey) -> bool {
        self.peers.borrow().get(key).is_some_and(|state| state.is_remembered(self.now()))
    }

    fn half_open(&self, key: &FlowKey) -> Option<HalfOpen> {
        self.offers.borrow().get(key)
    }

    fn offer(&self, key: &FlowKey, half_open: HalfOpen) {
        let gone = self.offers.borrow_mut().insert(key, half_open, self.max_offers);
        let now = (self.now() / SECOND) as u32;
        let forgotten = gone.values().filter(|offer| now.saturating_sub(offer.sent) <= HALF_OPEN_SECONDS);
        let forgotten = forgotten.count() as u64;
        self.add(|counts| counts.forgotten_offers += forgotten);
    }

    fn accepted(&self, key: &FlowKey) {
        self.offers.borrow_mut().remove(key);
    }

    fn seed(&self) -> u64 {
        // The same capture always counts the same. A sender of packets that displace each other's
        // notes for this seed needs four of them for each.
        0
    }

    fn note(&self, at: u32) -> u64 {
        self.notes.get(at as usize).map_or(0, Cell::get)
    }

    fn set_note(&self, at: u32, note: u64) {
        if let Some(place) = self.notes.get(at as usize) {
            place.set(note);
        }
    }

    fn count(&self, counter: FlowCounter) {
        self.add(|counts| {
            *match counter {
                FlowCounter::Created => &mut counts.created,
                FlowCounter::Failed => &mut counts.failed,
                FlowCounter::Replies => &mut counts.replies,
                FlowCounter::Unsure => &mut counts.unsure,
                FlowCounter::Displaced => &mut counts.displaced,
            } += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::parse::TCP_ACK;

    const US: [u8; 4] = [192, 0, 2, 1];
    const THEM: [u8; 4] = [198, 51, 100, 7];
    const SECONDS: i64 = SECOND as i64;

    /// Of this host's port 22 to the other end's 50000, sequence number 1001.
    fn segment(control: u8) -> Packet {
        Packet {
            src: Address::v4(US),
            dst: Address::v4(THEM),
            transport: Transport::Tcp,
            port: 50_000,
            source_port: 22,
            control,
            sequence: 1001,
            acknowledgement: 0,
            window: 0,
            identification: 0,
            fragmentation: 0,
            hop_limit: 64,
            dns_response: false,
            is_cut: false,
            offset: 20,
        }
    }

    fn question(number: u32) -> Packet {
        let dst = Address::v4(number.to_be_bytes());
        Packet { dst, transport: Transport::Udp, port: 53, source_port: 40_000, control: 0, ..segment(0) }
    }

    #[test]
    fn time_stands_still_where_packets_step_back() {
        let mut clock = FlowClock::default();
        // Seconds: forwards 10, back 3, forwards 1 and 100.
        let now: Vec<u64> =
            [1000, 1010, 1007, 1008, 1108].map(|seconds| clock.advance(seconds * SECONDS) / SECOND).into();
        assert_eq!(now, [0, 10, 10, 11, 111]);
        assert_eq!(FlowClock::default().advance(i64::MIN), 0);
        let mut clock = FlowClock::default();
        clock.advance(i64::MIN);
        assert_eq!(clock.advance(i64::MAX), u64::MAX, "584 years later");
        clock.advance(0);
        assert_eq!(clock.advance(1), u64::MAX);
    }

    #[test]
    fn a_segment_without_syn_and_rst_shows_a_connection_older_than_the_capture() {
        for (control, flows) in [(TCP_ACK, 1), (TCP_ACK | TCP_PSH, 1), (TCP_ACK | TCP_FIN, 1), (TCP_RST, 0)] {
            let conversations = Conversations::default();
            conversations.set_time(0);
            conversations.depart(&segment(control), false);
            assert_eq!(conversations.len(), flows, "flags {control:#x}");
        }
    }

    #[test]
    fn the_challenge_ack_to_a_remote_host_shows_nothing() {
        let conversations = Conversations::default();
        conversations.set_time(0);
        // The SYN+ACK has sequence number 1000.
        conversations.depart(&Packet { sequence: 1000, ..segment(TCP_SYN | TCP_ACK) }, false);
        conversations.depart(&segment(TCP_ACK), false);
        assert!(conversations.is_empty());
        // Data shows that the handshake was completed, though the capture has not its end.
        for data in [segment(TCP_ACK | TCP_PSH), Packet { sequence: 2449, ..segment(TCP_ACK) }] {
            let conversations = Conversations::default();
            conversations.set_time(0);
            conversations.depart(&Packet { sequence: 1000, ..segment(TCP_SYN | TCP_ACK) }, false);
            conversations.depart(&data, false);
            assert_eq!(conversations.len(), 1);
        }
    }

    #[test]
    fn a_full_table_keeps_what_it_has_counts_what_it_cannot_take_and_has_room_when_flows_are_over() {
        let conversations = Conversations::with_bounds(3, 0);
        conversations.set_time(0);
        for number in 0..5 {
            conversations.depart(&question(number), false);
        }
        assert_eq!(conversations.counts(), FlowCounts { created: 3, failed: 2, ..FlowCounts::default() });
        conversations.depart(&question(2), false);
        assert_eq!(conversations.counts().failed, 2, "the third is known");
        conversations.set_time(120 * SECONDS);
        conversations.depart(&question(5), false);
        assert_eq!(conversations.counts().failed, 3);
        // Prolonged at 120 s, the third lives on.
        conversations.depart(&question(2), false);
        conversations.set_time(121 * SECONDS);
        conversations.depart(&question(6), false);
        conversations.depart(&question(7), false);
        assert_eq!((conversations.counts().created, conversations.counts().failed), (5, 3));
        conversations.set_time(1000 * SECONDS);
        assert!(conversations.is_empty());
    }

    #[test]
    fn a_flow_that_is_over_begins_again_also_in_a_full_table() {
        let conversations = Conversations::with_bounds(1, 0);
        conversations.set_time(0);
        conversations.depart(&question(1), false);
        conversations.set_time(121 * SECONDS);
        conversations.depart(&question(1), false);
        assert_eq!(conversations.counts(), FlowCounts { created: 2, ..FlowCounts::default() });
    }

    #[test]
    fn of_offered_connections_the_last_half_is_known_and_the_forgotten_are_counted() {
        let conversations = Conversations::with_bounds(0, 8);
        let offer = |port: u16| {
            conversations.depart(&Packet { port, ..segment(TCP_SYN | TCP_ACK) }, false);
        };
        let is_known = |port: u16| {
            let key = FlowKey::of_outgoing(&Packet { port, ..segment(0) }).unwrap();
            conversations.half_open(&key).is_some()
        };
        conversations.set_time(0);
        (0..8).for_each(offer);
        assert!((0..8).all(is_known));
        assert_eq!(conversations.counts().forgotten_offers, 0);
        (8..10).for_each(offer);
        assert!((4..10).all(is_known) && !(0..4).any(is_known));
        assert_eq!(conversations.counts().forgotten_offers, 4);
        // An offer past its time is no loss.
        conversations.set_time(241 * SECONDS);
        (10..16).for_each(offer);
        assert_eq!(conversations.counts().forgotten_offers, 4);
    }
}
