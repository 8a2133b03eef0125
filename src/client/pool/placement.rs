//! Which connection the next operation goes to. Pure: from the loads alone.

use std::num::{NonZeroU32, NonZeroUsize};

use crate::session::DialBudget;

/// How operations are spread over connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Placement {
    /// How many there may be; `None` is one, or with a `limit` as many as it takes.
    pub(crate) connections: Option<NonZeroUsize>,
    /// How many operations each may carry.
    pub(crate) limit: Option<NonZeroUsize>,
}

/// Where an operation goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// To the connection with this index.
    ConnectionHandle(usize),
    /// To one that is yet to be made.
    New,
    /// Nowhere: each has all that it may carry.
    Full,
}

impl Placement {
    /// Whether there is never more than one connection, which takes everything.
    pub(super) fn is_single(self) -> bool {
        self.limit.is_none() && self.connections() == NonZeroUsize::MIN
    }

    /// How many connections there are before any is full.
    pub(super) fn connections(self) -> NonZeroUsize {
        self.connections.unwrap_or(NonZeroUsize::MIN)
    }

    /// Whether a connection that carries so many operations may carry one more.
    pub(super) fn has_room(self, load: usize) -> bool {
        self.limit.is_none_or(|limit| load < limit.get())
    }

    /// Of a number of connections the one that carries the least, those that were never used
    /// included. Of as many as it takes the first with room, so that the last ones empty and close.
    /// An unused one before a new one in any case.
    pub(super) fn choose(self, loads: impl Iterator<Item = usize>) -> Choice {
        let mut made = 0;
        let mut with_room =
            loads.enumerate().inspect(|_| made += 1).filter(|&(_, load)| self.has_room(load));
        let Some(most) = self.connections else {
            return with_room
                .next()
                .map_or(Choice::New, |(index, _)| Choice::ConnectionHandle(index));
        };
        let least = with_room.min_by_key(|&(_, load)| load);
        match least {
            Some((index, 0)) => Choice::ConnectionHandle(index),
            Some(_) | None if made < most.get() => Choice::New,
            Some((index, _)) => Choice::ConnectionHandle(index),
            None => Choice::Full,
        }
    }

    /// The part of the client's budget that belongs to the connection with this index, so that all
    /// together keep to it. `build` has seen to it that there is one dial for each.
    pub(super) fn share(self, budget: DialBudget, index: usize) -> DialBudget {
        let (all, connections) = (budget.dials.get() as usize, self.connections().get());
        let share = all / connections + usize::from(index < all % connections);
        let dials = u32::try_from(share).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        DialBudget { dials, ..budget }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn placement(connections: Option<usize>, limit: Option<usize>) -> Placement {
        let parse = |n: Option<usize>| n.and_then(NonZeroUsize::new);
        Placement { connections: parse(connections), limit: parse(limit) }
    }

    /// Places one more; whether there was room.
    fn place(placement: Placement, loads: &mut Vec<usize>) -> bool {
        match placement.choose(loads.iter().copied()) {
            Choice::ConnectionHandle(index) => loads[index] += 1,
            Choice::New => loads.push(1),
            Choice::Full => return false,
        }
        true
    }

    #[test]
    fn one_connection_is_the_default() {
        assert!(placement(None, None).is_single() && placement(Some(1), None).is_single());
        for several in
            [placement(Some(2), None), placement(None, Some(100)), placement(Some(1), Some(100))]
        {
            assert!(!several.is_single());
        }
    }

    #[test]
    fn a_limit_alone_fills_one_connection_after_the_other_and_what_was_freed_before_a_new_one() {
        let (limited, mut loads) = (placement(None, Some(3)), vec![0]);
        for _ in 0..7 {
            assert!(place(limited, &mut loads));
        }
        assert_eq!(loads, [3, 3, 1]);
        loads = vec![3, 0, 1];
        assert!(place(limited, &mut loads));
        assert_eq!(loads, [3, 1, 1]);
    }

    #[test]
    fn a_connection_that_emptied_is_used_before_a_new_one_is_made() {
        assert_eq!(
            placement(Some(4), None).choose([1, 0].into_iter()),
            Choice::ConnectionHandle(1)
        );
        assert_eq!(placement(Some(4), None).choose([1, 1].into_iter()), Choice::New);
        assert_eq!(
            placement(Some(2), None).choose([2, 1].into_iter()),
            Choice::ConnectionHandle(1)
        );
        assert_eq!(placement(Some(2), Some(2)).choose([2, 2].into_iter()), Choice::Full);
        assert_eq!(placement(Some(3), Some(2)).choose([2, 2].into_iter()), Choice::New);
    }

    proptest! {
        #[test]
        fn however_many_begin_no_two_connections_differ_by_more_than_one(
            connections in 2..40_usize,
            count in 0..2_000_usize,
        ) {
            let (spread, mut loads) = (placement(Some(connections), None), vec![0]);
            for begun in 1..=count {
                prop_assert!(place(spread, &mut loads));
                let (least, most) = (begun / connections, begun.div_ceil(connections));
                prop_assert!(loads.iter().all(|load| (least..=most).contains(load)), "{loads:?}");
                prop_assert_eq!(loads.len(), begun.min(connections));
            }
        }

        #[test]
        fn no_limit_is_ever_exceeded_and_no_room_is_ever_denied(
            connections in proptest::option::of(1..6_usize),
            limit in 1..5_usize,
            steps in vec(proptest::option::of(0..40_usize), 0..200),
        ) {
            let (limited, mut loads) = (placement(connections, Some(limit)), vec![0_usize]);
            let mut most_live = 0;
            for step in steps {
                if let Some(ends) = step {
                    let index = ends % loads.len();
                    loads[index] = loads[index].saturating_sub(1);
                    continue;
                }
                let live: usize = loads.iter().sum();
                let room = connections.is_none_or(|connections| live < connections * limit);
                prop_assert_eq!(place(limited, &mut loads), room);
                most_live = most_live.max(live + usize::from(room));
                prop_assert!(loads.iter().all(|&load| load <= limit), "{loads:?}");
                let made = connections.unwrap_or(most_live.div_ceil(limit));
                let used = loads.len();
                prop_assert!(used <= made.max(1), "{used} connections, {most_live} operations");
            }
        }

        #[test]
        fn the_shares_of_a_budget_are_the_budget(connections in 1..50_usize, more in 0..1_000_u32) {
            let dials = NonZeroU32::new(u32::try_from(connections).unwrap() + more).unwrap();
            let budget = DialBudget { dials, per: Duration::from_secs(60) };
            let spread = placement(Some(connections), None);
            let share = |index| spread.share(budget, index).dials.get();
            let shares: Vec<_> = (0..connections).map(share).collect();
            prop_assert_eq!(shares.iter().sum::<u32>(), dials.get());
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
