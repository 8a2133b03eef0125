//! Chooses the connection for a new operation. Pure: the choice depends only on the loads.

use std::num::{NonZeroU32, NonZeroUsize};

use crate::session::DialBudget;

/// How operations are spread over connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Placement {
    /// The maximum number of connections. `None` means one, or with a `limit` any number.
    pub(crate) connections: Option<NonZeroUsize>,
    /// The maximum number of operations on each connection.
    pub(crate) limit: Option<NonZeroUsize>,
}

/// Where an operation goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// On the connection with this index.
    Existing(usize),
    /// On a new connection.
    New,
    /// Nowhere, because every connection is full.
    Full,
}

impl Placement {
    /// Whether there is exactly one connection, without a limit.
    pub(super) fn is_single(self) -> bool {
        self.limit.is_none() && self.connections() == NonZeroUsize::MIN
    }

    /// The number of connections that operations are spread over before any is full.
    pub(super) fn connections(self) -> NonZeroUsize {
        self.connections.unwrap_or(NonZeroUsize::MIN)
    }

    /// Whether a connection with `load` operations may take one more.
    pub(super) fn has_room(self, load: usize) -> bool {
        self.limit.is_none_or(|limit| load < limit.get())
    }

    /// Chooses a connection from the load of each.
    ///
    /// With a fixed number of connections, this is the one with the lowest load, and connections
    /// that were not made yet count as empty. With any number, it is the first with room, so that
    /// the last connections become idle and close. An existing empty connection always goes before
    /// a new one.
    pub(super) fn choose(self, loads: impl Iterator<Item = usize>) -> Choice {
        let mut made = 0;
        let mut with_room =
            loads.enumerate().inspect(|_| made += 1).filter(|&(_, load)| self.has_room(load));
        let Some(most) = self.connections else {
            return with_room.next().map_or(Choice::New, |(index, _)| Choice::Existing(index));
        };
        let least = with_room.min_by_key(|&(_, load)| load);
        match least {
            Some((index, 0)) => Choice::Existing(index),
            Some(_) | None if made < most.get() => Choice::New,
            Some((index, _)) => Choice::Existing(index),
            None => Choice::Full,
        }
    }

    /// Returns the part of the client's dial budget for the connection with this index. The parts
    /// add up to the budget. `build` has checked that it has at least one dial for each connection.
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

    /// Places one more operation. Returns whether there was room.
    fn place(placement: Placement, loads: &mut Vec<usize>) -> bool {
        match placement.choose(loads.iter().copied()) {
            Choice::Existing(index) => loads[index] += 1,
            Choice::New => loads.push(1),
            Choice::Full => return false,
        }
        true
    }

    #[test]
    fn one_connection_is_the_default() {
        assert!(placement(None, None).is_single() && placement(Some(1), None).is_single());
        for multiple in
            [placement(Some(2), None), placement(None, Some(100)), placement(Some(1), Some(100))]
        {
            assert!(!multiple.is_single());
        }
    }

    #[test]
    fn with_a_limit_alone_operations_fill_free_places_before_a_new_connection_is_made() {
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
    fn an_empty_connection_is_used_before_a_new_one_is_made() {
        assert_eq!(placement(Some(4), None).choose([1, 0].into_iter()), Choice::Existing(1));
        assert_eq!(placement(Some(4), None).choose([1, 1].into_iter()), Choice::New);
        assert_eq!(placement(Some(2), None).choose([2, 1].into_iter()), Choice::Existing(1));
        assert_eq!(placement(Some(2), Some(2)).choose([2, 2].into_iter()), Choice::Full);
        assert_eq!(placement(Some(3), Some(2)).choose([2, 2].into_iter()), Choice::New);
    }

    proptest! {
        #[test]
        fn the_loads_of_two_connections_never_differ_by_more_than_one(
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
        fn no_limit_is_exceeded_and_no_operation_is_refused_while_there_is_room(
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
        fn the_shares_of_a_dial_budget_are_even_and_add_up_to_it(
            connections in 1..50_usize,
            more in 0..1_000_u32,
        ) {
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
