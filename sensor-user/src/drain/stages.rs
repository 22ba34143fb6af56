//! How long each stage of a drain took.

use crate::system::clock;
use std::time::{Duration, Instant};

/// From the switch to what is shown, of one generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stages {
    begin: Instant,
    /// Switching generations and reading the one that was current.
    switch: Duration,
    /// Adding up accesses by source and target.
    aggregate: Duration,
    /// Countries, the day's sets, and the ledger's transaction.
    fold: Duration,
}

fn since(begin: Instant) -> Duration {
    clock::now().saturating_duration_since(begin)
}

impl Stages {
    /// The drain of a generation that was switched away from at `begin` and has been read now.
    pub(super) fn switched(begin: Instant) -> Self {
        Self { begin, switch: since(begin), aggregate: Duration::ZERO, fold: Duration::ZERO }
    }

    /// Its records have been added up.
    pub(super) fn aggregated(&mut self) {
        self.aggregate = since(self.begin).saturating_sub(self.switch);
    }

    /// It is in the ledger; the transaction, or trying to, began at `begin`.
    pub(super) fn folded(&mut self, begin: Instant) {
        self.fold = since(begin);
    }

    /// Logs them, once it is shown; `folded` is when it was in the ledger.
    pub(super) fn log(&self, generation: u64, pairs: usize, from_table: bool, folded: Instant) {
        tracing::debug!(
            generation,
            pairs,
            from_table,
            switch_us = self.switch.as_micros() as u64,
            aggregate_us = self.aggregate.as_micros() as u64,
            fold_us = self.fold.as_micros() as u64,
            show_us = since(folded).as_micros() as u64,
            total_us = since(self.begin).as_micros() as u64,
            "drained"
        );
    }
}
