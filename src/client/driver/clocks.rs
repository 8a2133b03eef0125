//! Detects that the machine was asleep, by comparing two clocks.
//!
//! Owns the reading of the wall clock. Must not know what the driver does after a sleep.

use std::time::{Duration, Instant, SystemTime};

/// The wall clock and the monotonic clock. On most systems the monotonic clock stops while the
/// machine sleeps, so a ping timeout does not notice that the connection died. The wall clock
/// continues.
pub(super) struct Clocks {
    wall: fn() -> SystemTime,
    /// Both clocks at the last check.
    seen: (Instant, SystemTime),
}

impl Clocks {
    pub(super) fn new(now: Instant) -> Self {
        Self::with(now, wall)
    }

    pub(super) fn with(now: Instant, wall: fn() -> SystemTime) -> Self {
        Self { wall, seen: (now, wall()) }
    }

    /// Returns whether the wall clock has advanced much further than the monotonic clock since the
    /// last call. Setting the wall clock forward looks the same.
    pub(super) fn have_diverged(&mut self, now: Instant) -> bool {
        let (then, seen) = std::mem::replace(&mut self.seen, (now, (self.wall)()));
        // A wall clock that was set back counts as no time.
        let passed = self.seen.1.duration_since(seen).unwrap_or_default();
        passed.saturating_sub(now.saturating_duration_since(then)) >= ASLEEP
    }
}

#[expect(clippy::disallowed_methods, reason = "it only detects sleep and sets no delay")]
fn wall() -> SystemTime {
    SystemTime::now()
}

/// The shortest sleep that is detected. Few connections die in less, and a slow test with a paused
/// clock can look like a shorter sleep.
pub(super) const ASLEEP: Duration = Duration::from_secs(30);

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static WALL: Cell<SystemTime> = const { Cell::new(SystemTime::UNIX_EPOCH) };
    }

    /// A simulated wall clock for each thread.
    pub(in crate::client::driver) fn wall() -> SystemTime {
        WALL.get()
    }

    pub(in crate::client::driver) fn set_forward(by: Duration) {
        WALL.set(WALL.get() + by);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn a_sleep_is_detected_only_if_the_wall_clock_is_far_ahead() {
        let mut now = Instant::now();
        let mut clocks = Clocks::with(now, wall);
        let (long, second) = (Duration::from_secs(3_600), Duration::from_secs(1));
        for (wall, monotonic, slept) in [
            (long, long, false),
            (ASLEEP, second, false),
            // The previous call has already counted that time.
            (ASLEEP, second, false),
            (ASLEEP + second, second, true),
            (long, second, true),
            (second, second, false),
            // On Windows both clocks count sleep, and a paused clock runs ahead.
            (second, long, false),
        ] {
            set_forward(wall);
            now += monotonic;
            assert_eq!(clocks.have_diverged(now), slept, "{wall:?} {monotonic:?}");
        }
        WALL.set(SystemTime::UNIX_EPOCH);
        assert!(!clocks.have_diverged(now), "the wall clock was set back");
    }
}
