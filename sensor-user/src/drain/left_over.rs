//! What earlier daemons left pinned, and what the ledger lacks of it.

use super::state::{DrainState, Pending};
use super::{Drain, DrainError, observe, schedule};
use crate::country::Locate;
use crate::kernel::{Drained, Kernel, NotSwitched, Policy, Spare};
use crate::ledger::{Folded, Ledger};
use crate::system::clock::{self, Reading};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::Duration;
use tracing::{error, info, warn};

/// Takes everything that is pinned into the ledger; returns how many packets that were.
///
/// # Errors
///
/// As [`Drain::run`].
pub fn finish(
    kernel: &mut Kernel,
    spare: Spare,
    ledger: &mut Ledger,
    timezone: &TimeZone,
    locate: &dyn Locate,
) -> Result<u64, DrainError> {
    let mut packets = 0;
    let mut take = |drained: Drained, ledger: &mut Ledger| {
        let at = at_of(&drained, timezone);
        let observation = observe::observation(drained, at);
        match ledger.fold(&observation, locate, &[]) {
            Ok(Folded::AlreadyTaken) => Ok(()),
            Ok(Folded::Taken { .. }) => {
                packets += observation.counts.packets.iter().sum::<u64>();
                Ok(())
            }
            Err(error) => Err(DrainError::Uncommitted { fate: None, source: error.into() }),
        }
    };
    let spare = match spare {
        Spare::Full(full) => {
            take(kernel.read(&full)?, ledger)?;
            kernel.recycle(full)
        }
        Spare::Empty(spare) => spare,
    };
    kernel.tidy(&spare)?;
    for drained in kernel.earlier()? {
        take(drained, ledger)?;
    }
    kernel.forget_earlier()?;
    let full = kernel.switch(spare, &Policy::default()).map_err(|NotSwitched { error, .. }| error)?;
    take(kernel.read(&full)?, ledger)?;
    Ok(packets)
}

/// The instant that a generation of an earlier daemon counts for, as far as the clocks can tell now.
fn at_of(drained: &Drained, timezone: &TimeZone) -> Timestamp {
    let now = Reading::take();
    let wall = |nanos| now.at_nanos(nanos).wall;
    schedule::attribute(wall(drained.began), wall(drained.began.saturating_add(drained.nanos)), timezone)
}

impl Drain {
    /// Tells when the ledger lacks what an earlier daemon had committed: it was put in place from a
    /// copy, or commits at the end of its write-ahead log were lost with the file system.
    pub(super) fn compare_with_pins(&mut self) {
        let last = self.ledger.last_generation();
        if let Some(committed) = self.kernel.committed().filter(|committed| *committed > last) {
            error!(
                ledger_ends_at = last,
                committed,
                "the ledger lacks drains that had been committed: is it a copy, or is its write-ahead log damaged? \
                 Counting continues; what was in them is missing from its days and counters"
            );
            self.ledger.note_loss(format!(
                "the ledger ended at drain {last} when this daemon started, and drains up to {committed} had been \
                 committed: what was in them is missing from its days and counters"
            ));
        }
    }

    /// A generation that a daemon was killed over.
    pub(super) fn take_left_over(&mut self, state: &mut DrainState) -> Result<(), DrainError> {
        match state.spare.take() {
            Some(Spare::Full(full)) => {
                let drained = self.kernel.read(&full)?;
                info!(
                    generation = drained.number,
                    "generation from before the restart found; it is counted unless the ledger already has it"
                );
                let at = at_of(&drained, &self.timezone);
                state.pending = Some(Pending::new(drained, Some(full), at, clock::now()));
                if let Err(error) = self.commit(state) {
                    self.report(state, &error);
                }
            }
            Some(Spare::Empty(spare)) => {
                // Entries of generations that are in the ledger already may be left.
                self.kernel.tidy(&spare)?;
                state.spare = Some(Spare::Empty(spare));
            }
            None => {}
        }
        Ok(())
    }

    /// Says that there are counts of a time without a daemon, and on which day they count.
    pub(super) fn tell_taken_over(&self, began: &Reading) {
        if began.age() < Duration::from_secs(1) {
            return;
        }
        let local = |at: Timestamp| at.to_zoned(self.timezone.clone());
        let now = Timestamp::now();
        let at = local(schedule::attribute(began.wall, now, &self.timezone));
        let since = local(began.wall);
        info!(since = %since, day = %at.date(), hour = at.hour(), "the pinned program counted while no daemon ran; its counts are taken over");
        if since.date() != local(now).date() {
            warn!(
                since = %since,
                day = %at.date(),
                "packets counted since then span several days and cannot be split; counting all of them on this day"
            );
        }
    }

    /// What a release with an earlier layout has left; its pins go once all of it is in the ledger.
    pub(super) fn take_earlier(&mut self, state: &mut DrainState) -> Result<(), DrainError> {
        if !self.kernel.has_earlier() {
            return Ok(());
        }
        for drained in self.kernel.earlier()? {
            let at = at_of(&drained, &self.timezone);
            state.pending = Some(Pending::new(drained, None, at, clock::now()));
            self.commit(state)?;
        }
        Ok(self.kernel.forget_earlier()?)
    }
}
