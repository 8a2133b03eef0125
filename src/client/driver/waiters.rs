//! Those who wait for the same answer, however many they are.
//!
//! Pure. Owns when those are forgotten who do not wait any more.

/// Waiters, of which those that have gone are at most as many as those that were there when it was
/// last looked, and a few.
///
/// Each look at a waiter is paid for by one that was added, so that many who come one by one cost
/// no more than each of them does.
pub(super) struct Waiters<T> {
    waiting: Vec<T>,
    /// Who has gone is looked for when there are so many.
    sweep_at: usize,
}

impl<T> Waiters<T> {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::new(), sweep_at: FEW }
    }

    /// Who asks again and again, and does not wait, does not pile up.
    pub(super) fn push(&mut self, waiter: T, has_gone: impl Fn(&T) -> bool) {
        if self.waiting.len() >= self.sweep_at {
            self.waiting.retain(|waiter| !has_gone(waiter));
            self.sweep_at = FEW.max(2 * self.waiting.len());
        }
        self.waiting.push(waiter);
    }

    /// All of them, who are to be answered.
    pub(super) fn take(&mut self) -> Vec<T> {
        std::mem::replace(self, Self::new()).waiting
    }
}

/// So many cost nothing worth looking for.
const FEW: usize = 16;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn twenty_thousand_who_wait_are_looked_at_a_few_times_each() {
        let (mut waiters, looks) = (Waiters::new(), Cell::new(0));
        for n in 0..20_000 {
            waiters.push(n, |_| {
                looks.set(looks.get() + 1);
                false
            });
        }
        assert!(looks.get() <= 2 * 20_000, "{}", looks.get());
        assert_eq!(waiters.take(), (0..20_000).collect::<Vec<_>>());
        assert!(waiters.take().is_empty());
    }

    #[test]
    fn those_who_went_do_not_pile_up() {
        let mut waiters = Waiters::new();
        for n in 0..20_000 {
            waiters.push(n, |n| n % 100 != 0);
            assert!(waiters.waiting.len() <= FEW + 2 * (n / 100 + 1), "{n}");
        }
        assert!(waiters.take().iter().filter(|n| *n % 100 == 0).count() == 200);
    }

    proptest! {
        #[test]
        fn nobody_who_waits_is_forgotten_and_looks_are_as_many_as_waiters(
            waits in vec(any::<bool>(), 0..2_000),
        ) {
            let (mut waiters, looks) = (Waiters::new(), Cell::new(0));
            for (n, waits) in waits.iter().enumerate() {
                waiters.push((n, *waits), |(_, waits)| {
                    looks.set(looks.get() + 1);
                    !waits
                });
            }
            prop_assert!(looks.get() <= 2 * waits.len());
            let left: Vec<_> =
                waiters.take().into_iter().filter(|(_, waits)| *waits).map(|(n, _)| n).collect();
            let expected: Vec<_> = (0..waits.len()).filter(|n| waits[*n]).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
