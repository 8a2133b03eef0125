//! The callers that wait for the same answer.
//!
//! Pure. Owns the decision when to remove callers that stopped waiting.

/// Callers that wait for an answer. Callers that stopped waiting are removed now and then.
///
/// The number of checks is at most proportional to the number of callers that were added, so adding
/// a caller has a constant amortized cost.
pub(super) struct Waiters<T> {
    waiting: Vec<T>,
    /// The number of waiters at which the next sweep happens.
    sweep_at: usize,
}

impl<T> Waiters<T> {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::new(), sweep_at: FEW }
    }

    /// Adds a waiter. Sweeps if there are many, because callers that stop waiting would accumulate.
    pub(super) fn push(&mut self, waiter: T, has_gone: impl Fn(&T) -> bool) {
        if self.waiting.len() >= self.sweep_at {
            self.waiting.retain(|waiter| !has_gone(waiter));
            self.sweep_at = FEW.max(2 * self.waiting.len());
        }
        self.waiting.push(waiter);
    }

    /// Removes and returns all waiters.
    pub(super) fn take(&mut self) -> Vec<T> {
        std::mem::replace(self, Self::new()).waiting
    }
}

/// The number of waiters up to which a sweep is not worth its cost.
const FEW: usize = 16;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn each_of_many_waiters_is_checked_only_a_few_times() {
        let (mut waiters, checks) = (Waiters::new(), Cell::new(0));
        for n in 0..20_000 {
            waiters.push(n, |_| {
                checks.set(checks.get() + 1);
                false
            });
        }
        assert!(checks.get() <= 2 * 20_000, "{}", checks.get());
        assert_eq!(waiters.take(), (0..20_000).collect::<Vec<_>>());
        assert!(waiters.take().is_empty());
    }

    #[test]
    fn waiters_that_stopped_waiting_do_not_accumulate() {
        let mut waiters = Waiters::new();
        for n in 0..20_000 {
            waiters.push(n, |n| n % 100 != 0);
            assert!(waiters.waiting.len() <= FEW + 2 * (n / 100 + 1), "{n}");
        }
        assert!(waiters.take().iter().filter(|n| *n % 100 == 0).count() == 200);
    }

    proptest! {
        #[test]
        fn no_waiter_is_lost_and_the_checks_are_at_most_twice_the_waiters(
            waits in vec(any::<bool>(), 0..2_000),
        ) {
            let (mut waiters, checks) = (Waiters::new(), Cell::new(0));
            for (n, waits) in waits.iter().enumerate() {
                waiters.push((n, *waits), |(_, waits)| {
                    checks.set(checks.get() + 1);
                    !waits
                });
            }
            prop_assert!(checks.get() <= 2 * waits.len());
            let left: Vec<_> =
                waiters.take().into_iter().filter(|(_, waits)| *waits).map(|(n, _)| n).collect();
            let expected: Vec<_> = (0..waits.len()).filter(|n| waits[*n]).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
