//! How long to wait between attempts (rule 24): decorrelated jitter that never gets shorter.

use std::time::Duration;

use fastrand::Rng;

/// Each delay is random between the one before, or `base` for the first, and three times that, up
/// to `cap`. So the delays of an outage never shrink, and clients that were dropped at once spread
/// out.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    previous: Duration,
}

impl Backoff {
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap: cap.max(base), previous: base }
    }

    /// The next delay, at least `floor`.
    pub(crate) fn next(&mut self, rng: &mut Rng, floor: Duration) -> Duration {
        let most = self.previous.saturating_mul(3).min(self.cap);
        let span = most.saturating_sub(self.previous);
        self.previous += span.mul_f64(rng.f64());
        if floor <= self.previous {
            return self.previous;
        }
        // Jittered as well, as the server has told every client the same. The delays after it are
        // no shorter, but at most the cap: a `Retry-After` may be an hour.
        let delay = floor + self.base.mul_f64(rng.f64());
        self.previous = delay.min(self.cap);
        delay
    }

    /// Starts over. Called once a connection was healthy for a while, never when it opens.
    pub(crate) fn reset(&mut self) {
        self.previous = self.base;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Duration = Duration::from_millis(500);
    const CAP: Duration = Duration::from_secs(30);

    proptest! {
        #[test]
        fn rule_24_delays_never_shrink_and_at_most_triple_up_to_the_cap(seed: u64) {
            let (mut backoff, mut rng) = (Backoff::new(BASE, CAP), fastrand::Rng::with_seed(seed));
            let mut previous = BASE;
            for _ in 0..50 {
                let delay = backoff.next(&mut rng, Duration::ZERO);
                prop_assert!(delay >= previous && delay <= (previous * 3).min(CAP));
                previous = delay;
            }
            // Nor after a floor, up to the cap.
            let floor = CAP / 3;
            backoff.reset();
            prop_assert!(backoff.next(&mut rng, floor) >= floor);
            prop_assert!(backoff.next(&mut rng, Duration::ZERO) >= floor);
            prop_assert!(backoff.next(&mut rng, 100 * CAP) >= 100 * CAP);
            prop_assert!(backoff.next(&mut rng, Duration::ZERO) == CAP);
            backoff.reset();
            prop_assert!(backoff.next(&mut rng, Duration::ZERO) <= 3 * BASE);
        }

        #[test]
        fn a_floor_is_kept_and_jittered(seed: u64, floor in 0..100_u64) {
            let (mut backoff, mut rng) = (Backoff::new(BASE, CAP), fastrand::Rng::with_seed(seed));
            let floor = Duration::from_secs(floor);
            let delay = backoff.next(&mut rng, floor);
            prop_assert!(delay >= floor && delay <= floor.max(3 * BASE) + BASE);
        }
    }

    #[test]
    fn ten_thousand_clients_dropped_at_once_do_not_come_back_at_once() {
        let mut windows = std::collections::BTreeMap::<u128, u32>::new();
        for seed in 0..10_000 {
            let (mut backoff, mut rng) = (Backoff::new(BASE, CAP), fastrand::Rng::with_seed(seed));
            let mut at = Duration::ZERO;
            while at < Duration::from_secs(60) {
                at += backoff.next(&mut rng, Duration::ZERO);
                *windows.entry(at.as_millis() / 100).or_default() += 1;
            }
        }
        let worst = windows.values().max().unwrap();
        assert!(*worst < 1_500, "{worst} dials within 100 ms");
    }
}
