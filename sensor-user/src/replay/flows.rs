//! The conversations of the sensor's side in a capture of both directions: the tables that the program
//! in the kernel keeps in maps, driven by the same rules ([`sensor_common::flow`]) and by packet time.
//!
//! What the kernel knows besides, a capture must show:
//!
//! - *Connections under way when it begins.* The daemon reads the kernel's socket tables. Here a segment
//!   that the sensor's side sends, without SYN and RST, proves a connection, since a host without one
//!   answers by a RST. Until then what arrives is judged as if there were none: a segment is `other`,
//!   a RST `backscatter`. UDP and ICMP that were asked before the capture began are answers to nothing.
//! - *What the kernel sends by itself.* A host that has answered a SYN, and gets a segment with a wrong
//!   number before the handshake's end, repeats its number in an ACK (RFC 9293, section 3.10.7.4). That
//!   ACK proves nothing.

use sensor_common::flow::{
    self, ASKED_PORTS, FlowKey, FlowState, Flows, HALF_OPEN_SECONDS, HEARD_NOTES, HalfOpen,
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
    /// Flows made: conversations of the sensor's side, each anew after a pause that ends it.
    pub created: u64,
    /// Flows that could not be kept, because there were [`MAX_FLOWS`] already: answers to them are
    /// counted as unsolicited.
    pub failed: u64,
    /// Datagrams that started nothing, because they reply to a stranger.
    pub replies: u64,
    /// Connections offered to strangers that were forgotten before their time, because there were
    /// [`MAX_OFFERS`]: were they taken up, their first segment is `other`.
    pub forgotten_offers: u64,
}

/// Time that only goes forwards, like the kernel's monotonic clock: where packet time steps back,
/// because packets were written out of order or a clock was set, it stands still.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    /// Time of the packet before, nanoseconds since the epoch.
    last: Option<i64>,
    /// Nanoseconds since the first packet.
    now: u64,
}

impl Clock {
    fn advance(&mut self, at: i64) -> u64 {
        let last = self.last.replace(at).unwrap_or(at);
        if at > last {
            self.now = self.now.saturating_add(at.abs_diff(last));
        }
        self.now
    }
}

/// Offered connections. There are two halves, and when the young one is full the old one goes: so the
/// last [`MAX_OFFERS`] / 2 at least are known.
#[derive(Default)]
struct Offers {
    young: HashMap<FlowKey, HalfOpen>,
    old: HashMap<FlowKey, HalfOpen>,
}

/// The conversations of the sensor's side.
pub struct Conversations {
    max_flows: usize,
    max_offers: usize,
    clock: Cell<Clock>,
    flows: RefCell<HashMap<FlowKey, FlowState>>,
    collected: Cell<u64>,
    offers: RefCell<Offers>,
    /// One bit for each port of TCP and of UDP.
    asked: Box<[Cell<u64>]>,
    notes: Box<[Cell<u64>]>,
    counts: Cell<FlowCounts>,
}

impl Default for Conversations {
    fn default() -> Self {
        Self::with_bounds(MAX_FLOWS, MAX_OFFERS)
    }
}

fn cells(count: usize) -> Box<[Cell<u64>]> {
    vec![Cell::new(0); count].into_boxed_slice()
}

impl Conversations {
    /// Keeps so many flows and offered connections at most.
    pub fn with_bounds(max_flows: usize, max_offers: usize) -> Self {
        Self {
            max_flows,
            max_offers,
            clock: Cell::default(),
            flows: RefCell::default(),
            collected: Cell::new(0),
            offers: RefCell::default(),
            asked: cells(ASKED_PORTS / 64),
            notes: cells(HEARD_NOTES),
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

    /// The sensor's side sends `packet` at the time that was set.
    pub fn depart(&self, packet: &Packet) {
        flow::depart(packet, || self.is_connected(packet), self);
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
    /// cannot be told.
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
        self.flows.borrow().len()
    }

    /// The flows that are not over.
    #[cfg(test)]
    pub(crate) fn alive(&self) -> impl Iterator<Item = (FlowKey, FlowState)> {
        self.collect();
        self.flows.borrow().clone().into_iter()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn count(&self, add: impl FnOnce(&mut FlowCounts)) {
        let mut counts = self.counts.get();
        add(&mut counts);
        self.counts.set(counts);
    }

    /// Removes the flows that are over.
    fn collect(&self) {
        let now = self.now();
        self.flows.borrow_mut().retain(|_, state| state.is_alive(now));
        self.collected.set(now);
    }

    /// Whether there is room for one more flow, if need be after those that are over are removed.
    fn has_room(&self) -> bool {
        if self.len() >= self.max_flows && self.now() - self.collected.get() >= COLLECT_FULL_EVERY {
            self.collect();
        }
        self.len() < self.max_flows
    }
}

impl Flows for Conversations {
    fn now(&self) -> u64 {
        self.clock.get().now
    }

    fn any(&self) -> bool {
        self.counts.get().created > 0
    }

    fn asked(&self, port: Slot) -> bool {
        let index = port.index() as usize;
        self.asked.get(index / 64).is_some_and(|word| word.get() >> (index % 64) & 1 != 0)
    }

    fn ask(&self, port: Slot) {
        let index = port.index() as usize;
        if let Some(word) = self.asked.get(index / 64) {
            word.set(word.get() | 1 << (index % 64));
        }
    }

    fn served(&self, _: Slot) -> bool {
        // A capture does not tell which sockets there were when it began.
        false
    }

    fn get(&self, key: &FlowKey) -> Option<FlowState> {
        self.flows.borrow().get(key).copied()
    }

    fn update(&self, key: &FlowKey, next: impl FnOnce(FlowState) -> Option<FlowState>) -> bool {
        let mut flows = self.flows.borrow_mut();
        let Some(state) = flows.get_mut(key) else { return false };
        match next(*state) {
            Some(next) => {
                *state = next;
                true
            }
            None => false,
        }
    }

    fn create(&self, key: &FlowKey, state: FlowState) {
        let is_new = !self.flows.borrow().contains_key(key);
        if is_new && !self.has_room() {
            self.count(|counts| counts.failed += 1);
            return;
        }
        self.flows.borrow_mut().insert(*key, state);
        self.count(|counts| counts.created += 1);
    }

    fn half_open(&self, key: &FlowKey) -> Option<HalfOpen> {
        let offers = self.offers.borrow();
        offers.young.get(key).or_else(|| offers.old.get(key)).copied()
    }

    fn offer(&self, key: &FlowKey, half_open: HalfOpen) {
        let mut offers = self.offers.borrow_mut();
        if offers.young.len() >= self.max_offers / 2 {
            let young = std::mem::take(&mut offers.young);
            let oldest = std::mem::replace(&mut offers.old, young);
            let now = (self.now() / SECOND) as u32;
            let forgotten =
                oldest.values().filter(|offer| now.saturating_sub(offer.sent) <= HALF_OPEN_SECONDS).count();
            self.count(|counts| counts.forgotten_offers += forgotten as u64);
        }
        offers.old.remove(key);
        offers.young.insert(*key, half_open);
    }

    fn accepted(&self, key: &FlowKey) {
        let mut offers = self.offers.borrow_mut();
        offers.young.remove(key);
        offers.old.remove(key);
    }

    fn seed(&self) -> u64 {
        // The same capture always counts the same. Whoever makes packets to displace each other's
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

    fn replied(&self) {
        self.count(|counts| counts.replies += 1);
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
            identification: 0,
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
        let mut clock = Clock::default();
        // Seconds: forwards 10, back 3, forwards 1 and 100.
        let now: Vec<u64> =
            [1000, 1010, 1007, 1008, 1108].map(|seconds| clock.advance(seconds * SECONDS) / SECOND).into();
        assert_eq!(now, [0, 10, 10, 11, 111]);
        assert_eq!(Clock::default().advance(i64::MIN), 0);
        let mut clock = Clock::default();
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
            conversations.depart(&segment(control));
            assert_eq!(conversations.len(), flows, "flags {control:#x}");
        }
    }

    #[test]
    fn the_ack_that_challenges_a_stranger_shows_nothing() {
        let conversations = Conversations::default();
        conversations.set_time(0);
        // The SYN+ACK has sequence number 1000.
        conversations.depart(&Packet { sequence: 1000, ..segment(TCP_SYN | TCP_ACK) });
        conversations.depart(&segment(TCP_ACK));
        assert!(conversations.is_empty());
        // Data shows that the handshake was completed, though the capture has not its end.
        for data in [segment(TCP_ACK | TCP_PSH), Packet { sequence: 2449, ..segment(TCP_ACK) }] {
            let conversations = Conversations::default();
            conversations.set_time(0);
            conversations.depart(&Packet { sequence: 1000, ..segment(TCP_SYN | TCP_ACK) });
            conversations.depart(&data);
            assert_eq!(conversations.len(), 1);
        }
    }

    #[test]
    fn a_full_table_keeps_what_it_has_counts_what_it_cannot_take_and_has_room_when_flows_are_over() {
        let conversations = Conversations::with_bounds(3, 0);
        conversations.set_time(0);
        for number in 0..5 {
            conversations.depart(&question(number));
        }
        assert_eq!(conversations.counts(), FlowCounts { created: 3, failed: 2, ..FlowCounts::default() });
        conversations.depart(&question(2));
        assert_eq!(conversations.counts().failed, 2, "the third is known");
        conversations.set_time(120 * SECONDS);
        conversations.depart(&question(5));
        assert_eq!(conversations.counts().failed, 3);
        // Prolonged at 120 s, the third lives on.
        conversations.depart(&question(2));
        conversations.set_time(121 * SECONDS);
        conversations.depart(&question(6));
        conversations.depart(&question(7));
        assert_eq!((conversations.counts().created, conversations.counts().failed), (5, 3));
        conversations.set_time(1000 * SECONDS);
        assert!(conversations.is_empty());
    }

    #[test]
    fn a_flow_that_is_over_begins_anew_also_in_a_full_table() {
        let conversations = Conversations::with_bounds(1, 0);
        conversations.set_time(0);
        conversations.depart(&question(1));
        conversations.set_time(121 * SECONDS);
        conversations.depart(&question(1));
        assert_eq!(conversations.counts(), FlowCounts { created: 2, ..FlowCounts::default() });
    }

    #[test]
    fn of_offered_connections_the_last_half_is_known_and_the_forgotten_are_counted() {
        let conversations = Conversations::with_bounds(0, 8);
        let offer = |port: u16| {
            conversations.depart(&Packet { port, ..segment(TCP_SYN | TCP_ACK) });
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
        // What nobody can take up any more is no loss.
        conversations.set_time(241 * SECONDS);
        (10..16).for_each(offer);
        assert_eq!(conversations.counts().forgotten_offers, 4);
    }
}
