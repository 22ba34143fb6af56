//! What wakes the drain: a command, a time that has passed, or a wall clock that was set.

use super::DrainCommand;
use crate::system::clock::{Jump, Reading};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

/// The wall clock is looked at so often at least: nothing announces when its pace is adjusted, or when it
/// is feigned.
const LOOK: Duration = Duration::from_secs(1);
/// Seconds since the epoch of an instant that does not come.
const NEVER: i64 = 1 << 33;

/// The drain has ended; the command is given back.
#[derive(Debug, thiserror::Error)]
#[error("the drain has ended")]
pub struct InboxClosed(pub DrainCommand);

/// Where commands to the drain go in.
#[derive(Clone, Debug)]
pub struct Outbox {
    commands: Sender<DrainCommand>,
    bell: Arc<EventFd>,
}

/// Where the drain takes them out.
#[derive(Debug)]
pub struct Inbox {
    commands: Receiver<DrainCommand>,
    bell: Arc<EventFd>,
    /// Never expires; readable when the system's wall clock is set or the machine wakes up.
    clock: TimerFd,
    last: Reading,
}

/// Why the drain wakes.
#[derive(Debug)]
pub(super) enum Event {
    /// The time has come.
    Due,
    /// A command has arrived.
    Command(DrainCommand),
    /// The wall clock was set, or the machine suspended.
    Jump(Jump),
    /// All senders dropped.
    Closed,
}

/// The two ends of the drain's inbox.
///
/// # Errors
///
/// What eventfd(2) and timerfd(2) return.
pub fn inbox() -> nix::Result<(Outbox, Inbox)> {
    let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    let clock = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    watch(&clock)?;
    let (sender, receiver) = channel();
    let outbox = Outbox { commands: sender, bell: Arc::clone(&bell) };
    Ok((outbox, Inbox { commands: receiver, bell, clock, last: Reading::take() }))
}

fn watch(clock: &TimerFd) -> nix::Result<()> {
    clock.set(
        Expiration::OneShot(TimeSpec::new(NEVER, 0)),
        TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
    )
}

impl Outbox {
    /// Hands `command` to the drain.
    ///
    /// # Errors
    ///
    /// [`InboxClosed`] when there is no drain any more.
    pub fn send(&self, command: DrainCommand) -> Result<(), InboxClosed> {
        self.commands.send(command).map_err(|error| InboxClosed(error.0))?;
        // Fails only when the bell rings already 2^64 - 2 times.
        let _ = self.bell.write(1);
        Ok(())
    }
}

impl Inbox {
    /// Waits until there is something to do. `rest` says at a moment how long it is until the next
    /// drain is due; it is asked again after each look at the clocks.
    pub(super) fn wait(&mut self, rest: impl Fn(&Reading) -> Duration) -> nix::Result<Event> {
        loop {
            match self.commands.try_recv() {
                Ok(command) => return Ok(Event::Command(command)),
                Err(TryRecvError::Disconnected) => return Ok(Event::Closed),
                Err(TryRecvError::Empty) => {}
            }
            let reading = Reading::take();
            let last = std::mem::replace(&mut self.last, reading);
            if let Some(jump) = last.jump(&reading) {
                return Ok(Event::Jump(jump));
            }
            let rest = rest(&reading);
            if rest.is_zero() {
                return Ok(Event::Due);
            }
            self.sleep(rest.min(LOOK))?;
        }
    }

    /// Sleeps for `time`, less when the bell rings or the clock is set.
    fn sleep(&self, time: Duration) -> nix::Result<()> {
        let clock = self.clock.as_fd();
        let mut wakers =
            [PollFd::new(self.bell.as_fd(), PollFlags::POLLIN), PollFd::new(clock, PollFlags::POLLIN)];
        match ppoll(&mut wakers, Some(TimeSpec::from_duration(time)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        // Each event is reported once; without one, the reads say EAGAIN.
        let _ = self.bell.read();
        if wakers[1].any() == Some(true) {
            // ECANCELED: the clock was set. That is what it is for.
            let _ = self.clock.wait();
            watch(&self.clock)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_hours(1);

    #[test]
    fn a_command_wakes_the_waiting_drain_and_none_is_lost() {
        let (outbox, mut inbox) = inbox().unwrap();
        let sender = std::thread::spawn(move || {
            for _ in 0..1_000 {
                outbox.send(DrainCommand::Wake).unwrap();
            }
        });
        for _ in 0..1_000 {
            assert!(matches!(inbox.wait(|_| LONG).unwrap(), Event::Command(DrainCommand::Wake)));
        }
        sender.join().unwrap();
        assert!(matches!(inbox.wait(|_| LONG).unwrap(), Event::Closed), "everybody has gone");
    }

    #[test]
    fn it_is_due_when_the_time_has_come_and_not_before() {
        let (_outbox, mut inbox) = inbox().unwrap();
        let begun = Instant::now();
        let until = begun + Duration::from_millis(30);
        let event = inbox.wait(|reading| until.saturating_duration_since(reading.steady)).unwrap();
        assert!(matches!(event, Event::Due));
        assert!(begun.elapsed() >= Duration::from_millis(29), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_wall_clock_that_was_set_is_told_once() {
        let (_outbox, mut inbox) = inbox().unwrap();
        // As if it had been an hour ahead when it was looked at last.
        inbox.last.wall += jiff::SignedDuration::from_hours(1);
        match inbox.wait(|_| Duration::ZERO).unwrap() {
            Event::Jump(jump) => assert_eq!(jump.set.as_secs_f64().round() as i64, -3600),
            other => panic!("{other:?}"),
        }
        assert!(matches!(inbox.wait(|_| Duration::ZERO).unwrap(), Event::Due));
    }

    #[test]
    fn who_sends_to_a_drain_that_ended_is_told() {
        let (outbox, receiver) = inbox().unwrap();
        drop(receiver);
        assert!(outbox.send(DrainCommand::Wake).is_err());
    }
}
