//! What the drain remembers between steps.

use super::flood::Flood;
use super::observe;
use super::stages::Stages;
use crate::kernel::{Drained, Full, Kernel, Spare};
use crate::observation::Observation;
use crate::sight::traffic::Traffic;
use crate::system::clock::Reading;
use crate::system::condition::Fault;
use jiff::Timestamp;
use jiff::civil::Date;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A generation that is drained and not committed.
pub(super) struct Pending {
    pub(super) observation: Observation,
    /// To be given back once it is committed; `None` when an earlier layout's pins hold it.
    pub(super) full: Option<Full>,
    /// Whether it has entries in the source table.
    pub(super) table_used: bool,
    /// When it was switched away from.
    pub(super) switched: Instant,
    /// For how long it was current.
    pub(super) lasted: Duration,
    pub(super) stages: Stages,
}

impl Pending {
    pub(super) fn new(drained: Drained, full: Option<Full>, at: Timestamp, switched: Instant) -> Self {
        let table_used = drained.table_used();
        let mut stages = Stages::switched(switched);
        let observation = observe::observation(drained, at);
        stages.aggregated();
        let lasted = observation.observed;
        Self { observation, full, table_used, switched, lasted, stages }
    }
}

/// What the drain remembers between steps.
pub(super) struct DrainState {
    /// A generation that is to be committed.
    pub(super) pending: Option<Pending>,
    /// The generation that is not current; `None` while it is pending.
    pub(super) spare: Option<Spare>,
    /// The clocks when the current generation became it.
    pub(super) switched: Reading,
    /// When a commit was tried last.
    pub(super) tried: Instant,
    /// Whether all interfaces have been attached since the last switch.
    pub(super) attached: bool,
    /// Why interfaces could not be attached again, by name.
    pub(super) refused: HashMap<String, String>,
    /// What has arrived lately, and the day on which it was learned what is normal.
    pub(super) traffic: Traffic,
    pub(super) learned: Option<Date>,
    /// The drain fails; what it had drained is pending.
    pub(super) fault: Fault,
    /// The country database in use is not the one of its files.
    pub(super) geoip_fault: Fault,
    /// The source lists in use are not those of their files.
    pub(super) lists_fault: Fault,
    /// The ASN database in use is not that of its file.
    pub(super) asn_fault: Fault,
    /// Drained generations cannot be emptied.
    pub(super) recycle_fault: Fault,
    /// Pins are missing that cannot be made again.
    pub(super) pin_fault: Fault,
    /// Whether there may be memory to give back.
    pub(super) swollen: bool,
    pub(super) flood: Flood,
}

impl DrainState {
    pub(super) fn new(kernel: &Kernel, spare: Spare) -> Self {
        let now = Reading::take();
        Self {
            pending: None,
            spare: Some(spare),
            switched: now.at_nanos(kernel.began()),
            tried: now.steady,
            attached: true,
            refused: HashMap::new(),
            traffic: Traffic::default(),
            learned: None,
            fault: Fault::default(),
            geoip_fault: Fault::default(),
            lists_fault: Fault::default(),
            asn_fault: Fault::default(),
            recycle_fault: Fault::default(),
            pin_fault: Fault::default(),
            // The country database and the ledger were just read.
            swollen: true,
            flood: Flood::default(),
        }
    }
}
