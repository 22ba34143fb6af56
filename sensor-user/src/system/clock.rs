//! The two clocks: the wall clock, which may be set at any moment, and the machine's own, which only
//! goes forward.
//!
//! The machine's clock is asked of the kernel itself and not of the C library: it is the clock by which
//! the programs in the kernel stamp what they see, also in a process whose time is feigned
//! (libfaketime), and no wait and no hold is stretched by a wall clock that goes back.

use jiff::{SignedDuration, Timestamp};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A difference between the clocks from which on it is no matter of adjusting their pace.
const JUMP: SignedDuration = SignedDuration::from_millis(500);

fn kernel_clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which on 64-bit machines is that of the system call.
    unsafe { libc::syscall(libc::SYS_clock_gettime, id, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// `CLOCK_MONOTONIC`, nanoseconds: the time during which the machine ran, without suspend. What
/// `bpf_ktime_get_ns` gives.
pub fn monotonic_nanos() -> u64 {
    kernel_clock(libc::CLOCK_MONOTONIC).as_nanos() as u64
}

/// Now, by the machine's clock.
pub fn now() -> Instant {
    static START: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), monotonic_nanos()));
    let (start, nanos) = *START;
    start + Duration::from_nanos(monotonic_nanos().saturating_sub(nanos))
}

/// What both clocks showed at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The wall clock.
    pub wall: Timestamp,
    /// The machine's clock.
    pub steady: Instant,
    /// How long the machine has been suspended since it was started.
    asleep: Duration,
}

/// The wall clock went by more or less than the time that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// By how much it was set; negative: backwards.
    pub set: SignedDuration,
    /// How long the machine was suspended.
    pub asleep: Duration,
}

impl Reading {
    /// Reads both clocks.
    pub fn take() -> Self {
        let asleep = kernel_clock(libc::CLOCK_BOOTTIME).saturating_sub(kernel_clock(libc::CLOCK_MONOTONIC));
        Self { wall: Timestamp::now(), steady: now(), asleep }
    }

    /// What the clocks showed at `nanos` of [`monotonic_nanos`] before this reading, as far as this
    /// reading can tell: with the machine awake and the wall clock not set in between.
    #[must_use]
    pub fn at_nanos(&self, nanos: u64) -> Self {
        let ago = Duration::from_nanos(monotonic_nanos().saturating_sub(nanos)).saturating_sub(self.age());
        Self {
            wall: self.wall.checked_sub(ago).unwrap_or(Timestamp::MIN),
            steady: self.steady.checked_sub(ago).unwrap_or(self.steady),
            asleep: self.asleep,
        }
    }

    /// How long ago this was read.
    pub fn age(&self) -> Duration {
        now().saturating_duration_since(self.steady)
    }

    /// What the wall clock would show at `steady` had it gone on as it was.
    pub fn wall_at(&self, steady: Instant) -> Timestamp {
        let passed = steady.saturating_duration_since(self.steady);
        self.wall.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// Whether the wall clock was set, or the machine suspended, between this reading and a `later`
    /// one.
    pub fn jump(&self, later: &Self) -> Option<Jump> {
        let asleep = later.asleep.saturating_sub(self.asleep);
        let moved = later.wall.duration_since(self.wall_at(later.steady));
        let slept = SignedDuration::try_from(asleep).unwrap_or(SignedDuration::MAX);
        (moved.abs() >= JUMP).then(|| Jump { set: moved.saturating_sub(slept), asleep })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall: &str, passed: u64, asleep: u64) -> Reading {
        Reading {
            wall: wall.parse().unwrap(),
            steady: now() + Duration::from_secs(passed),
            asleep: Duration::from_secs(asleep),
        }
    }

    /// To the second, which is what the readings above differ by.
    fn told(first: &Reading, later: &Reading) -> Option<(i64, u64)> {
        first.jump(later).map(|jump| (jump.set.as_secs_f64().round() as i64, jump.asleep.as_secs()))
    }

    #[test]
    fn a_clock_that_is_set_jumps_and_one_that_runs_does_not() {
        let first = reading("2026-03-01T10:00:00Z", 0, 5);
        assert_eq!(told(&first, &reading("2026-03-01T10:00:10Z", 10, 5)), None);
        assert_eq!(told(&first, &reading("2026-03-01T13:00:10Z", 10, 5)), Some((3 * 3600, 0)));
        assert_eq!(told(&first, &reading("2026-03-01T08:00:10Z", 10, 5)), Some((-2 * 3600, 0)));
    }

    #[test]
    fn suspend_is_told_from_a_clock_that_is_set() {
        let first = reading("2026-03-01T10:00:00Z", 0, 5);
        assert_eq!(told(&first, &reading("2026-03-01T18:00:10Z", 10, 5 + 8 * 3600)), Some((0, 8 * 3600)));
        // Set by one hour while it slept for eight.
        let later = reading("2026-03-01T19:00:10Z", 10, 5 + 8 * 3600);
        assert_eq!(told(&first, &later), Some((3600, 8 * 3600)));
    }

    #[test]
    fn a_moment_of_the_past_has_its_wall_time() {
        let now = Reading::take();
        let past = now.at_nanos(monotonic_nanos() - 90_000_000_000);
        let ago = now.wall.duration_since(past.wall).as_secs_f64();
        assert!((89.9..90.1).contains(&ago), "{ago}");
        let again = past.wall_at(now.steady).duration_since(now.wall).abs();
        assert!(again < SignedDuration::from_millis(1), "{again:?}");
    }
}
