//! Rule 22: a document that makes the server close the connection is found, and ends alone.

use fastrand::Rng;

use super::{
    world::{Answers, World},
    *,
};

fn lost(code: u16) -> String {
    format!("lost: the server closed the connection with {code}: words")
}

pub(super) fn strong() -> [Disconnect; 2] {
    [closed(4500), closed(4400)]
}

pub(super) fn weak() -> [Disconnect; 3] {
    [Disconnect::Reset(None), closed(1011), Disconnect::WebSocket("control frame too big".into())]
}

/// Runs until the first operation ends: which, and how many losses later.
pub(super) fn find(world: &mut World) -> (Vec<u64>, u32) {
    let before = world.losses;
    assert!(world.reach(|world| !world.ends.is_empty()), "nobody was found");
    let losses = world.losses - before;
    assert!(world.reach(World::all_are_carried), "the siblings live on");
    (world.ends.iter().map(|end| end.0).collect(), losses)
}

#[test]
fn a_bad_document_among_a_hundred_that_answer_ends_alone_within_5_losses() {
    for (causes, bound) in [(&strong()[..], 4), (&weak()[..], 5)] {
        for (cause, position) in
            causes.iter().flat_map(|cause| [1, 2, 50, 101].map(|position| (cause, position)))
        {
            let mut world = World::new(config(), Answers::AtOnce);
            world.subscribe_all(position - 1);
            let bad = world.subscribe_bad(OperationType::Subscription, cause);
            world.subscribe_all(101 - position);
            assert_eq!(find(&mut world), (vec![bad], bound), "{cause}, at {position}");
            assert_eq!(world.ends, [(bad, format!("lost: {cause}"))]);
            assert_eq!(world.rig.session.live_operations(), 100);
        }
    }
}

#[test]
fn a_bad_document_among_a_hundred_that_are_quiet_ends_alone_within_11_losses() {
    for (causes, bound) in [(&strong()[..], 10), (&weak()[..], 11)] {
        for position in [1, 2, 3, 7, 8, 37, 50, 63, 64, 99, 101] {
            let cause = &causes[usize::try_from(position).unwrap() % causes.len()];
            let mut world = World::new(config(), Answers::Never);
            world.subscribe_all(position - 1);
            let bad = world.subscribe_bad(OperationType::Subscription, cause);
            world.subscribe_all(101 - position);
            let (ended, losses) = find(&mut world);
            assert_eq!(ended, [bad], "{cause}, at {position}");
            assert!(losses <= bound, "{cause}, at {position}: {losses} losses");
            assert_eq!(world.rig.session.live_operations(), 100);
        }
    }
}

#[test]
fn a_bad_document_that_joins_a_hundred_good_ones_ends_at_the_fourth_loss() {
    for (causes, losses) in [(&strong()[..], 4), (&weak()[..], 5)] {
        for (cause, subprotocol) in
            causes.iter().flat_map(|cause| [(cause, MODERN), (cause, LEGACY)])
        {
            let mut world = World::with_cleared(fixed(subprotocol), 100);
            let bad = world.subscribe_bad(OperationType::Subscription, cause);
            assert_eq!(find(&mut world), (vec![bad], losses), "{cause}");
        }
    }
}

#[test]
fn a_bad_query_ends_alone_as_well() {
    for cause in strong() {
        let mut world = World::with_cleared(config(), 10);
        let bad = world.subscribe_bad(OperationType::Query, &cause);
        assert_eq!(find(&mut world), (vec![bad], 4), "{cause}");
        assert_eq!(world.ends[0].1, format!("lost: {cause}"));
    }
}

#[test]
fn a_bad_mutation_ends_at_once_and_nobody_else_does() {
    for (cause, siblings) in strong().iter().flat_map(|cause| [(cause, 1), (cause, 10)]) {
        for answers in [Answers::AtOnce, Answers::Never] {
            let mut world = World::new(config(), answers);
            world.subscribe_all(siblings);
            let bad = world.subscribe_bad(OperationType::Mutation, cause);
            assert_eq!(find(&mut world), (vec![bad], 1), "{cause}");
            assert_eq!(world.ends[0].1, format!("ambiguous: {cause}"));
        }
    }
}

#[test]
fn the_only_operation_ends_at_the_fifth_loss_or_at_once_where_the_code_is_fatal() {
    for (cause, losses) in strong().iter().zip([5, 1]) {
        let mut world = World::new(config(), Answers::Never);
        let bad = world.subscribe_bad(OperationType::Subscription, cause);
        assert_eq!(find(&mut world), (vec![bad], losses), "{cause}");
    }
    for cause in weak() {
        let mut world = World::new(config(), Answers::Never);
        world.subscribe_bad(OperationType::Subscription, &cause);
        world.pass(secs(600));
        assert_eq!(world.ends, [], "{cause}: a network may do that, and a server that is down");
    }
}

#[test]
fn several_bad_documents_end_and_only_they() {
    for (cause, answers) in
        strong().iter().flat_map(|cause| [(cause, Answers::AtOnce), (cause, Answers::Never)])
    {
        for bad in [2, 3] {
            for before in [0, 5, 18] {
                let mut world = World::new(config(), answers);
                world.subscribe_all(before);
                let bad: Vec<_> = (0..bad)
                    .map(|_| world.subscribe_bad(OperationType::Subscription, cause))
                    .collect();
                world.subscribe_all(20 - before);
                world.reach(|world| world.ends.len() >= bad.len());
                assert!(
                    world.losses <= 10 * u32::try_from(bad.len()).unwrap(),
                    "{cause}: {} losses",
                    world.losses
                );
                assert!(world.reach(World::all_are_carried));
                let mut ended: Vec<_> = world.ends.iter().map(|end| end.0).collect();
                ended.sort_unstable();
                assert_eq!(ended, bad, "{cause}");
            }
        }
    }
}

#[test]
fn a_server_that_closes_late_is_found_out_too() {
    for (millis, most) in [(300, 7), (900, 7), (1_500, 10), (3_000, 12)] {
        let mut world = World::new(config(), Answers::Never);
        world.subscribe_all(7);
        let bad = world.subscribe_bad(OperationType::Subscription, &closed(4500));
        world.subscribe_all(3);
        world.bad.insert(bad, (Duration::from_millis(millis), closed(4500)));
        let (ended, losses) = find(&mut world);
        assert_eq!(ended, [bad], "after {millis} ms");
        assert!(losses <= most, "after {millis} ms: {losses} losses");
    }
}

#[test]
fn a_backend_that_is_down_for_a_minute_ends_nobody() {
    for (cause, seed) in [closed(4500), closed(1011), Disconnect::Reset(None)].iter().zip(1..) {
        for (cleared, new) in [(10, 0), (10, 1), (10, 5), (0, 2), (0, 20)] {
            let mut world = World::with_cleared(Config { seed, ..config() }, cleared);
            world.down = cause.clone();
            world.down_until = world.rig.now + secs(60);
            world.subscribe_all(new);
            let did = world.rig.lose(Disconnect::Reset(None));
            world.perform(did);
            world.pass(secs(60));
            assert!(world.losses > 2 && world.reach(World::all_are_carried));
            assert_eq!(world.ends, [], "{cause}, {cleared} live before, {new} new");
            assert_eq!(world.rig.session.live_operations() as u64, cleared + new);
        }
    }
}

#[test]
fn a_server_that_refuses_every_operation_for_good_ends_them_all() {
    for (cleared, new, most) in [(10, 0, 1), (0, 2, 4), (0, 20, 6)] {
        let mut world = World::with_cleared(config(), cleared);
        world.down = closed(4400);
        world.down_until = world.rig.now + secs(10_000);
        world.subscribe_all(new);
        let did = world.rig.lose(closed(1012));
        world.perform(did);
        world.reach(|world| !world.ends.is_empty());
        assert!(world.losses <= most, "{}", world.losses);
        assert_eq!(world.ends.len() as u64, cleared + new);
        assert!(world.ends.iter().all(|end| end.1 == lost(4400)));
    }
}

#[test]
fn a_fatal_close_that_no_operation_is_to_blame_for_is_not_retried_forever() {
    let mut world = World::new(config(), Answers::Never);
    world.subscribe_all(10);
    for id in 1..=10 {
        // Longer than anybody waits for.
        world.bad.insert(id, (secs(8), closed(4400)));
    }
    world.reach(|world| !world.ends.is_empty());
    assert!((5..60).contains(&world.losses), "{}", world.losses);
    assert_eq!(world.ends.len(), 10);
}

#[test]
fn a_network_that_flaps_convicts_nobody() {
    for (mean, cause) in
        [500, 2_000, 5_000, 10_000].iter().flat_map(|mean| weak().map(|cause| (mean, cause)))
    {
        for (seed, cleared, quiet) in [(1, 0, 20), (2, 10, 1), (3, 10, 5), (4, 1, 2), (5, 0, 3)] {
            let mut world = World::with_cleared(Config { seed, ..config() }, cleared);
            world.flaps = Some((Rng::with_seed(seed), Duration::from_millis(*mean), cause.clone()));
            world.subscribe_all(quiet);
            let did = world.rig.lose(cause.clone());
            world.perform(did);
            world.pass(secs(900));
            assert!(world.losses > 15, "{}", world.losses);
            assert_eq!(
                world.ends,
                [],
                "{cause} after {mean} ms, {cleared} cleared and {quiet} quiet"
            );
            world.flaps = None;
            assert!(world.reach(World::all_are_carried), "nobody is held back for good");
        }
    }
}

#[test]
fn a_connection_that_dies_of_age_convicts_nobody() {
    for millis in (100..12_000).step_by(700) {
        for cause in [closed(4500), closed(1000)] {
            let mut world = World::with_cleared(config(), 5);
            // It is the connection, so any operation is as good.
            for id in 1..=5 {
                world.bad.insert(id, (Duration::from_millis(millis), cause.clone()));
            }
            world.subscribe_all(3);
            let did = world.rig.lose(cause.clone());
            world.perform(did);
            world.pass(secs(900));
            assert_eq!(world.ends, [], "{cause} after {millis} ms");
        }
    }
}

#[test]
fn bad_documents_far_apart_do_not_speak_for_all() {
    let mut world = World::new(config(), Answers::Never);
    let bad = [1, 2, 3, 5];
    for id in 1..=20 {
        if bad.contains(&id) {
            world.subscribe_bad(OperationType::Subscription, &closed(4400));
        } else {
            world.rig.subscribe();
        }
    }
    world.reach(|world| world.ends.len() >= bad.len());
    let mut ended: Vec<_> = world.ends.iter().map(|end| end.0).collect();
    ended.sort_unstable();
    assert_eq!(ended, bad);
}
