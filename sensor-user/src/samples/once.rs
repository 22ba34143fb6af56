//! What was seen once and had no place, so that it gets one when it comes again.

use sensor_common::Slot;
use std::collections::{HashSet, VecDeque};

/// Contents that are remembered, at most; the oldest is forgotten first.
const PLACES: usize = 8192;

/// Contents that were seen once, by port and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Once {
    known: HashSet<(Slot, u64)>,
    /// The same in the order of arrival.
    order: VecDeque<(Slot, u64)>,
}

impl Once {
    pub(super) fn add(&mut self, slot: Slot, key: u64) {
        if self.known.insert((slot, key)) {
            self.order.push_back((slot, key));
            if self.order.len() > PLACES
                && let Some(gone) = self.order.pop_front()
            {
                self.known.remove(&gone);
            }
        }
    }

    pub(super) fn has(&self, slot: Slot, key: u64) -> bool {
        self.known.contains(&(slot, key))
    }
}
