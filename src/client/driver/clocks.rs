//! What two clocks say about each other: whether the machine was asleep.
//!
//! Owns the reading of the wall clock. Must not know what follows from it.

use std::time::{Duration, Instant, SystemTime};

/// On most systems the clock of timers stands still while a machine sleeps, so that a connection
/// which died meanwhile looks as young as before; the wall clock goes on.
pub(super) struct Clocks {
    wall: fn() -> SystemTime,
    /// Both, when last looked at.
    seen: (Instant, SystemTime),
}

impl Clocks {
    pub(super) fn new(now: Instant) -> Self {
        Self::with(now, wall)
    }

    pub(super) fn with(now: Instant, wall: fn() -> SystemTime) -> Self {
        Self { wall, seen: (now, wall()) }
    }

    /// Whether the wall clock has gone ahead since last asked. One that is set forward looks the
    /// same.
    pub(super) fn have_parted(&mut self, now: Instant) -> bool {
        let (then, seen) = std::mem::replace(&mut self.seen, (now, (self.wall)()));
        // One that is set back says nothing.
        let passed = self.seen.1.duration_since(seen).unwrap_or_default();
        passed.saturating_sub(now.saturating_duration_since(then)) >= ASLEEP
    }
}

#[expect(clippy::disallowed_methods, reason = "it is compared, and decides about no delay")]
fn wall() -> SystemTime {
    SystemTime::now()
}

/// What is shorter kills few connections, and a paused clock in a slow test may look like it.
pub(super) const ASLEEP: Duration = Duration::from_secs(30);

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static WALL: Cell<SystemTime> = const { Cell::new(SystemTime::UNIX_EPOCH) };
    }

    /// A wall clock of this thread's own.
    pub(in crate::client::driver) fn wall() -> SystemTime {
        WALL.get()
    }

    pub(in crate::client::driver) fn set_forward(by: Duration) {
        WALL.set(WALL.get() + by);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn only_a_wall_clock_that_goes_far_ahead_tells_of_a_sleep() {
        let mut now = Instant::now();
        let mut clocks = Clocks::with(now, wall);
        let (long, second) = (Duration::from_secs(3_600), Duration::from_secs(1));
        for (wall, monotonic, slept) in [
            (long, long, false),
            (ASLEEP, second, false),
            // What was seen once is not seen again.
            (ASLEEP, second, false),
            (ASLEEP + second, second, true),
            (long, second, true),
            (second, second, false),
            // Windows counts sleep in both, and a paused clock runs ahead.
            (second, long, false),
        ] {
            set_forward(wall);
            now += monotonic;
            assert_eq!(clocks.have_parted(now), slept, "{wall:?} {monotonic:?}");
        }
        WALL.set(SystemTime::UNIX_EPOCH);
        assert!(!clocks.have_parted(now), "it was set back");
    }
}
