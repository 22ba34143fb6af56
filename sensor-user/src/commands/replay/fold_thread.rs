//! Two threads: one reads and judges packets, the other takes in the observations they become.

use crate::observation::Observation;
use crate::replay::Sink;
use std::sync::mpsc::{Receiver, sync_channel};

/// Observations that wait to be taken in. They bound memory, so reading waits when there are more.
const AHEAD: usize = 2;

/// Observations are no longer taken in, because of an error.
#[derive(Debug)]
pub(super) struct FoldEnded;

/// Does `work`, whose observations are taken in, in their order, by what `prepare` makes on a thread of
/// its own; returns when all are in.
///
/// # Errors
///
/// Those of `prepare` and of what it makes; `work` gets [`FoldEnded`] from its sink.
pub(super) fn take_in<T, E: Send, F: FnMut(Observation) -> Result<(), E>>(
    prepare: impl FnOnce() -> Result<F, E> + Send,
    work: impl FnOnce(&mut Sink<'_, FoldEnded>) -> Result<T, FoldEnded>,
) -> Result<T, E> {
    std::thread::scope(|scope| {
        let (observations, arriving) = sync_channel::<Observation>(AHEAD);
        let taking = scope.spawn(move || take_all(prepare()?, &arriving));
        let done = work(&mut |observation| observations.send(observation).map_err(|_| FoldEnded));
        drop(observations);
        taking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(done.unwrap_or_else(|FoldEnded| unreachable!("taking in ends early with an error only")))
    })
}

fn take_all<E>(
    mut take: impl FnMut(Observation) -> Result<(), E>,
    arriving: &Receiver<Observation>,
) -> Result<(), E> {
    arriving.iter().try_for_each(&mut take)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::Class;

    fn arp(packets: u64) -> Observation {
        let mut observation = Observation::default();
        observation.counts.packets[Class::NonIp as usize] = packets;
        observation
    }

    #[test]
    fn all_observations_are_in_in_their_order_when_it_returns() {
        let mut taken = Vec::new();
        let seen = &mut taken;
        let prepare = move || {
            Ok::<_, ()>(move |observation: Observation| {
                seen.push(observation.counts.packets[Class::NonIp as usize]);
                Ok(())
            })
        };
        let sent = take_in(prepare, |sink| {
            for packets in 1..=20 {
                sink(arp(packets))?;
            }
            Ok("sent")
        });
        assert_eq!(sent, Ok("sent"));
        assert_eq!(taken, (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_of_who_takes_in_ends_the_work_and_is_the_error() {
        let mut told = 0;
        let prepare = || Ok(|_| Err("disk full"));
        let result = take_in(prepare, |sink| {
            loop {
                told += 1;
                sink(arp(1))?;
            }
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok(())
        });
        assert_eq!(result, Err("disk full"));
        assert!((2..=AHEAD + 3).contains(&told), "reported after {told}");
    }

    #[test]
    fn an_error_of_the_preparation_does_too() {
        let prepare = || Err::<fn(Observation) -> Result<(), &'static str>, _>("no database");
        let result = take_in(prepare, |sink| {
            loop {
                sink(arp(1))?;
            }
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok(())
        });
        assert_eq!(result, Err("no database"));
    }
}
