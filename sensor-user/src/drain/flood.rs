//! What the log tells of more sources than there is room for. The program only counts them.

use crate::kernel::Drained;
use crate::system::condition::{Condition, Notice};
use std::time::Instant;
use tracing::{info, warn};

/// Floods that last for several drains.
#[derive(Debug, Default)]
pub(super) struct Flood {
    /// A log was full, and the source table took the rest.
    table: Condition,
    /// The source table was full, too.
    overflow: Condition,
}

impl Flood {
    /// Logs what there is to say of a generation that was drained at `now`.
    pub(super) fn tell(&mut self, drained: &Drained, now: Instant) {
        let in_table = drained.table.iter().map(|(_, _, packets)| packets).sum();
        match self.table.observe(in_table, now) {
            Some(Notice::Begun) => {
                info!(
                    packets = in_table,
                    "source log is full; its other sources are counted in the source table"
                );
            }
            Some(Notice::Lasts(packets)) => info!(packets, "source log is still full at each drain"),
            Some(Notice::Ended(packets)) => {
                info!(packets, "source log has room again; packets in the source table");
            }
            None => {}
        }
        let lost = drained.counted.overflow + drained.counted.service_overflow;
        match self.overflow.observe(lost, now) {
            Some(Notice::Begun) => warn!(
                packets = lost,
                "source table is full; these accesses count by port, without source and country; a larger \
                 --source-table or a shorter --drain-interval holds more"
            ),
            Some(Notice::Lasts(packets)) => {
                warn!(packets, "source table is still full; accesses without source since it began");
            }
            Some(Notice::Ended(packets)) => {
                info!(packets, "source table has room again; accesses that were counted without source");
            }
            None => {}
        }
    }
}
