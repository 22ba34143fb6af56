//! A packet between two functions of the program, for which their stack has no room.

use sensor_common::Packet;
use sensor_common::flow::FlowKey;

use crate::maps::{SCRATCH, ScratchRoom};

/// A stored packet.
pub struct Scratch {
    pub packet: Packet,
    /// Bytes.
    pub length: u64,
    /// Room for the key of its flow.
    pub key: FlowKey,
}

const _: () = assert!(size_of::<Scratch>() <= size_of::<ScratchRoom>() && align_of::<Scratch>() <= 8);

/// This CPU's scratch memory.
#[inline(always)]
pub fn scratch() -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(0).map(|room| room.cast())
}

/// Stores a packet of `length` bytes.
#[inline(always)]
pub fn put_aside(packet: &Packet, length: u64) {
    if let Some(scratch) = scratch() {
        // SAFETY: the pointer is into this CPU's map value, which has the room.
        unsafe {
            (&raw mut (*scratch).packet).write(*packet);
            (&raw mut (*scratch).length).write(length);
        }
    }
}
