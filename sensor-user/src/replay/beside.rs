//! Folding beside reading: while one thread reads and judges packets, another takes what they came to
//! into the ledgers.

use super::Sink;
use crate::country::Locate;
use crate::ledger::{Ledger, LedgerError};
use crate::observation::Observation;
use std::sync::mpsc::{Receiver, sync_channel};

/// Observations that wait to be folded. They bound memory, so reading waits when there are more.
const AHEAD: usize = 2;

/// Nobody takes observations any more, because a ledger could not be written.
#[derive(Debug)]
pub(super) struct Ended;

/// Does `work`, whose observations go into `ledgers` in their order, and returns when all are in.
///
/// # Errors
///
/// A ledger cannot be written; `work` is told so by its sink.
pub(super) fn fold<T>(
    ledgers: &mut [&mut Ledger],
    locate: &(dyn Locate + Sync),
    work: impl FnOnce(&mut Sink<'_, Ended>) -> Result<T, Ended>,
) -> Result<T, LedgerError> {
    std::thread::scope(|scope| {
        let (observations, arriving) = sync_channel::<Observation>(AHEAD);
        let folding = scope.spawn(move || fold_all(ledgers, locate, &arriving));
        let done = work(&mut |observation| observations.send(observation.clone()).map_err(|_| Ended));
        drop(observations);
        folding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(done.unwrap_or_else(|Ended| unreachable!("folding ends early with an error only")))
    })
}

fn fold_all(
    ledgers: &mut [&mut Ledger],
    locate: &dyn Locate,
    observations: &Receiver<Observation>,
) -> Result<(), LedgerError> {
    for observation in observations {
        for ledger in &mut *ledgers {
            ledger.fold(&observation, locate, &[])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::country::Country;
    use crate::ledger::Settings;
    use sensor_common::Class;

    struct Nowhere;

    impl Locate for Nowhere {
        fn v4(&self, _: u32) -> Country {
            Country::UNKNOWN
        }
        fn v6(&self, _: u128) -> Country {
            Country::UNKNOWN
        }
    }

    fn settings() -> Settings {
        Settings {
            timezone: jiff::tz::TimeZone::UTC,
            keep_days: 400,
            max_ports: 500,
            feature_ports: 30,
            features: Vec::new(),
            groups: Vec::new(),
            sensor_name: "test".to_owned(),
        }
    }

    fn arp(packets: u64) -> Observation {
        let mut observation =
            Observation { at: "2010-07-09T12:00:00Z".parse().unwrap(), ..Observation::default() };
        observation.packets[Class::NonIp as usize] = packets;
        observation
    }

    #[test]
    fn all_observations_are_in_every_ledger_when_it_returns() {
        let (mut one, mut other) =
            (Ledger::in_memory(settings()).unwrap(), Ledger::in_memory(settings()).unwrap());
        let sent = fold(&mut [&mut one, &mut other], &Nowhere, |sink| {
            for packets in 1..=20 {
                sink(&arp(packets))?;
            }
            Ok("sent")
        });
        assert_eq!(sent.unwrap(), "sent");
        for ledger in [one, other] {
            assert_eq!(ledger.totals().packets[Class::NonIp as usize], (1..=20).sum::<u64>());
        }
    }

    #[test]
    fn a_ledger_that_cannot_be_written_ends_the_work_and_is_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path(), settings()).unwrap();
        // Its place is gone, so that no fold can be committed.
        std::fs::remove_dir_all(directory.path()).unwrap();
        let mut told = 0;
        let result = fold(&mut [&mut ledger], &Nowhere, |sink| {
            loop {
                told += 1;
                sink(&arp(1))?;
            }
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok(())
        });
        assert!(matches!(result, Err(LedgerError::StateDir { .. })), "{result:?}");
        assert!((2..=AHEAD + 3).contains(&told), "told after {told}");
    }
}
