//! How soon a bad operation is found, and what that costs its siblings.

use super::*;

/// A bad one joins siblings that live: how long it took, and how many gaps each sibling had.
fn join(seed: u64, live: u64, cause: &Disconnect) -> (Duration, Vec<usize>) {
    let subprotocol = if seed.is_multiple_of(2) { MODERN } else { LEGACY };
    let mut world = World::with_cleared(Config { seed, ..fixed(subprotocol) }, live);
    world.server.pongs = PONGS[usize::try_from(seed).unwrap() % PONGS.len()];
    let bad = world.subscribe_bad(cause);
    let (ended, took) = find(&mut world, 1);
    assert_eq!(ended, [bad], "{cause}, seed {seed}");
    assert_eq!(world.ends[0].1, format!("lost: {cause}"));
    world.pass(secs(5));
    (took, (1..=live).map(|id| world.gaps_of(id)).collect())
}

#[test]
fn one_bad_operation_among_live_siblings_ends_within_3_s_and_each_sibling_has_one_gap() {
    for (live, seed) in [4, 100].into_iter().flat_map(|live| (0..200).map(move |n| (live, n))) {
        for cause in strong() {
            let (took, gaps) = join(seed, live, &cause);
            assert!(took <= secs(3), "{cause}, seed {seed}, {live} live: {took:?}");
            assert!(gaps.iter().all(|gaps| *gaps == 1), "{cause}, seed {seed}: {gaps:?}");
        }
    }
}

#[test]
fn one_that_closes_the_connection_as_networks_do_takes_one_more_loss_and_one_more_backoff() {
    for (live, seed) in [4, 100].into_iter().flat_map(|live| (0..200).map(move |n| (live, n))) {
        for cause in weak() {
            let (took, gaps) = join(seed, live, &cause);
            // The second delay is three times the first one at most.
            assert!(took <= secs(3) + millis(4_500), "{cause}, seed {seed}: {took:?}");
            assert!(gaps.iter().all(|gaps| *gaps == 2), "{cause}, seed {seed}: {gaps:?}");
        }
    }
}

#[test]
fn one_bad_operation_among_60_silent_ones_ends_within_8_s_at_any_position() {
    let causes = strong();
    for (seed, position) in (0..8).flat_map(|seed| (1..=60).map(move |position| (seed, position))) {
        let subprotocol = if seed % 2 == 0 { MODERN } else { LEGACY };
        let mut world = World::new(Config { seed, ..fixed(subprotocol) }, Answers::Never);
        let number = usize::try_from(seed / 2).unwrap();
        world.server.pongs = [Pongs::WithTheNumber, Pongs::WithoutTheNumber][number % 2];
        world.subscribe_all(position - 1);
        let bad = world.subscribe_bad(&causes[number % causes.len()]);
        world.subscribe_all(60 - position);
        let (ended, took) = find(&mut world, 1);
        assert_eq!(ended, [bad], "at {position}, seed {seed}");
        assert!(took <= secs(8), "at {position}, seed {seed}: {took:?}");
        assert_eq!(world.losses.len(), 1, "at {position}, seed {seed}");
        for id in (1..=60).filter(|id| *id != bad) {
            assert_eq!(world.gaps_of(id), 1, "{id}, at {position}, seed {seed}");
        }
    }
}

#[test]
fn one_bad_operation_among_a_hundred_that_begin_with_it_ends_after_one_loss_if_they_answer() {
    for (causes, losses) in [(strong(), 1), (weak(), 2)] {
        for (cause, position) in
            causes.iter().flat_map(|cause| [1, 2, 50, 101].map(|position| (cause, position)))
        {
            let mut world = World::new(config(), Answers::AtOnce);
            world.subscribe_all(position - 1);
            let bad = world.subscribe_bad(cause);
            world.subscribe_all(101 - position);
            let (ended, took) = find(&mut world, 1);
            assert_eq!((ended, world.losses.len()), (vec![bad], losses), "{cause}, at {position}");
            assert!(took <= secs(3) + millis(4_500), "{cause}, at {position}: {took:?}");
            assert_eq!(world.ends, [(bad, format!("lost: {cause}"))]);
            assert_eq!(world.rig.session.live_operations(), 100);
        }
    }
}

#[test]
fn one_bad_operation_among_a_hundred_silent_ones_ends_after_one_loss() {
    for (causes, losses) in [(strong(), 1), (weak(), 2)] {
        for position in [1, 2, 3, 7, 8, 37, 50, 63, 64, 99, 101] {
            let cause = &causes[usize::try_from(position).unwrap() % causes.len()];
            let mut world = World::new(config(), Answers::Never);
            world.subscribe_all(position - 1);
            let bad = world.subscribe_bad(cause);
            world.subscribe_all(101 - position);
            let (ended, _) = find(&mut world, 1);
            assert_eq!((ended, world.losses.len()), (vec![bad], losses), "{cause}, at {position}");
            assert!(world.lost_trials <= 14, "at {position}: {}", world.lost_trials);
            assert_eq!(world.rig.session.live_operations(), 100);
        }
    }
}
