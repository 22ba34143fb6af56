//! Conversations: the keys of flows, from packets written byte by byte, and the rules by which flows
//! are made, prolonged and ended.

mod documented;
mod keys;
mod rules;
mod table;

use sensor_common::{Link, Packet, parse};

/// The packet in these bytes, which begin with the IP header.
fn packet(bytes: &[u8]) -> Packet {
    parse(bytes, Link::Ip).expect("a packet")
}
