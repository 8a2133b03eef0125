//! Which operations are found: all that close connections, and no others.

use super::*;

#[test]
fn a_bad_query_ends_alone_as_well() {
    for cause in strong() {
        let mut world = World::with_cleared(config(), 10);
        let bad = world.begin_bad(OperationType::Query, millis(20), &cause);
        assert_eq!(find(&mut world, 1).0, [bad], "{cause}");
        assert_eq!((world.losses.len(), &*world.ends[0].1), (1, &*format!("lost: {cause}")));
    }
}

#[test]
fn a_bad_mutation_ends_at_once_is_never_tried_and_nobody_else_ends() {
    for (cause, siblings) in strong().iter().flat_map(|cause| [(cause, 1), (cause, 10)]) {
        for answers in [Answers::AtOnce, Answers::Never] {
            let mut world = World::new(config(), answers);
            world.subscribe_all(siblings);
            world.pass(secs(1));
            let bad = world.begin_bad(OperationType::Mutation, millis(20), cause);
            assert_eq!(find(&mut world, 1).0, [bad], "{cause}");
            assert_eq!(world.ends[0].1, format!("ambiguous: {cause}"));
            assert_eq!((world.server.calls[&bad], world.lost_trials), (1, 0));
        }
    }
}

#[test]
fn a_mutation_is_never_tried_whatever_happens_to_its_siblings() {
    for cause in strong().iter().chain(&weak()) {
        let mut world = World::with_cleared(config(), 3);
        let bad = world.subscribe_bad(cause);
        let at_the_loss = world.begin(OperationType::Mutation);
        assert!(world.reach(|world| !world.quarantined().is_empty()));
        let later = world.begin(OperationType::Mutation);
        assert!(world.reach(World::all_are_carried));
        assert!(!world.quarantined().contains(&later));
        world.pass(secs(400));
        let mut ended = world.ended();
        ended.retain(|id| *id != bad);
        assert_eq!(ended, [at_the_loss, later]);
        assert!(world.server.calls.values().all(|times| *times == 1), "{cause}");
    }
}

#[test]
fn a_query_in_quarantine_gets_its_answer_once() {
    for answers_in_trial in [true, false] {
        let mut world = World::with_cleared(config(), 5);
        world.subscribe_bad(&closed(4500));
        let query = world.begin(OperationType::Query);
        assert!(world.reach(|world| world.quarantined().contains(&query)));
        if answers_in_trial {
            world.server.answers = Answers::AtOnce;
        } else {
            assert!(world.reach(|world| world.quarantined().is_empty()));
            world.server.answers = Answers::AtOnce;
            world.lose(closed(1012));
        }
        world.pass(secs(10));
        let answers = world.ends.iter().filter(|(id, _)| *id == query).collect::<Vec<_>>();
        assert_eq!(answers, [&(query, r#"answered {"data":1}"#.to_owned())]);
        assert!(world.all_are_carried());
    }
}

#[test]
fn a_query_in_quarantine_whose_first_part_arrives_is_sent_again_and_answered_once() {
    let mut world = World::with_cleared(config(), 5);
    world.server.defers = true;
    world.subscribe_bad(&closed(4500));
    let query = world.begin(OperationType::Query);
    assert!(world.reach(|world| world.quarantined().contains(&query)));
    world.server.answers = Answers::AtOnce;
    world.pass(secs(10));
    let answers = world.ends.iter().filter(|(id, _)| *id == query).collect::<Vec<_>>();
    assert_eq!(answers, [&(query, "answered in 2 parts".to_owned())]);
    assert!(world.all_are_carried());
}

#[test]
fn several_bad_operations_end_and_only_they() {
    for (cause, answers) in
        strong().iter().flat_map(|cause| [(cause, Answers::AtOnce), (cause, Answers::Never)])
    {
        for (count, before) in [2, 3, 5].iter().flat_map(|count| [0, 5, 18].map(|at| (*count, at)))
        {
            let mut world = World::new(config(), answers.clone());
            world.subscribe_all(before);
            let bad: Vec<_> = (0..count).map(|_| world.subscribe_bad(cause)).collect();
            world.subscribe_all(20 - before);
            let (ended, _) = find(&mut world, bad.len());
            assert_eq!(ended, bad, "{cause}");
            assert_eq!(world.losses.len(), 1, "{cause}: {count} after {before}");
            assert!(world.lost_trials <= 10 * u32::try_from(count).unwrap(), "{cause}");
        }
    }
}

#[test]
fn bad_operations_far_apart_do_not_speak_for_all() {
    let mut world = World::new(config(), Answers::Never);
    let bad = [1, 2, 3, 5, 17];
    for id in 1..=20 {
        if bad.contains(&id) {
            world.subscribe_bad(&closed(4400));
        } else {
            world.rig.subscribe();
        }
    }
    assert_eq!(find(&mut world, bad.len()).0, bad);
}

#[test]
fn bad_operations_that_come_one_after_the_other_cost_their_siblings_one_gap_each() {
    let mut world = World::with_cleared(config(), 10);
    for count in 1..=5 {
        let bad = world.subscribe_bad(&closed(4500));
        assert!(world.reach(|world| world.ended().contains(&bad)));
        assert!(world.reach(World::all_are_carried));
        assert!((1..=10).all(|id| world.gaps_of(id) == count));
    }
}

#[test]
fn a_bad_operation_that_comes_while_another_one_is_searched_for_is_found_as_well() {
    for pause in [100, 700, 1_200, 2_000, 2_300] {
        for cause in strong() {
            let mut world = World::with_cleared(config(), 10);
            let first = world.subscribe_bad(&cause);
            world.pass(millis(pause));
            let second = world.subscribe_bad(&cause);
            assert_eq!(find(&mut world, 2).0, [first, second], "{cause} after {pause} ms");
            assert!((1..=10).all(|id| world.gaps_of(id) <= 2), "{cause} after {pause} ms");
        }
    }
}

#[test]
fn a_server_that_closes_late_is_found_out_too() {
    for cause in [closed(4500), Disconnect::Reset(None)] {
        for (late, most) in [(300, 3), (900, 3), (1_500, 5), (3_000, 6), (3_500, 6)] {
            let mut world = World::new(config(), Answers::Never);
            world.subscribe_all(7);
            let bad = world.begin_bad(OperationType::Subscription, millis(late), &cause);
            world.subscribe_all(3);
            assert_eq!(find(&mut world, 1).0, [bad], "{cause} after {late} ms");
            let losses = world.losses.len();
            assert!(losses <= most, "{cause} after {late} ms: {losses} losses");
        }
    }
}

#[test]
fn a_server_that_answers_no_pings_is_found_out_too() {
    for (cause, subprotocol) in strong().iter().flat_map(|cause| [(cause, MODERN), (cause, LEGACY)])
    {
        let mut world = World::new(fixed(subprotocol), Answers::Never);
        world.server.pongs = Pongs::Never;
        world.subscribe_all(7);
        let bad = world.subscribe_bad(cause);
        world.subscribe_all(3);
        let (ended, took) = find(&mut world, 1);
        assert_eq!(ended, [bad], "{cause}");
        assert!(took <= secs(20), "{cause}: {took:?}");
    }
}

#[test]
fn a_server_that_allows_one_connection_for_each_client_is_found_out_too() {
    for (cause, cleared) in strong().iter().flat_map(|cause| [(cause, 10), (cause, 0)]) {
        for position in [1, 4, 10] {
            let mut world = World::with_cleared(config(), cleared);
            world.server.most_sockets = 1;
            world.subscribe_all(position - 1);
            let bad = world.subscribe_bad(cause);
            world.subscribe_all(10 - position);
            assert_eq!(find(&mut world, 1).0, [bad], "{cause}, at {position}");
            assert!(world.losses.len() <= 8, "{cause}, at {position}: {}", world.losses.len());
            world.pass(secs(60));
            assert!(world.all_are_carried());
        }
    }
}

#[test]
fn the_second_connection_may_be_refused_for_a_while() {
    let mut world = World::with_cleared(config(), 10);
    world.server.most_sockets = 1;
    let bad = world.subscribe_bad(&closed(4500));
    assert!(world.reach(|world| world.lost_trials == 2));
    world.server.most_sockets = 2;
    assert_eq!(find(&mut world, 1).0, [bad]);
    assert!((1..=10).all(|id| world.gaps_of(id) == 1));
}

#[test]
fn what_was_cleared_is_sent_again_at_once_whatever_the_loss() {
    for cause in strong().iter().chain(&weak()) {
        let by_item = World::with_cleared(config(), 20);
        let mut by_ping = World::new(config(), Answers::Never);
        by_ping.subscribe_all(20);
        by_ping.pass(secs(25));
        for mut world in [by_item, by_ping] {
            for _ in 0..5 {
                world.lose(cause.clone());
                assert_eq!(world.quarantined(), [0; 0], "{cause}");
                assert!(world.reach(World::all_are_carried));
            }
            assert_eq!((world.lost_trials, world.dials.len()), (0, 6), "{cause}");
        }
    }
}

#[test]
fn a_loss_that_names_another_reason_quarantines_nobody() {
    for cause in [closed(1001), closed(1012), closed(4408), Disconnect::Silent(secs(10))] {
        let mut world = World::new(config(), Answers::Never);
        world.subscribe_all(20);
        world.pass(millis(100));
        for _ in 0..5 {
            world.lose(cause.clone());
            assert_eq!(world.quarantined(), [0; 0], "{cause}");
            assert!(world.reach(World::all_are_carried));
        }
    }
}

#[test]
fn an_operation_is_cleared_by_its_first_message_or_by_a_ping_that_was_outlived() {
    for (pongs, both) in [(Pongs::WithTheNumber, secs(15)), (Pongs::WithoutTheNumber, secs(25))] {
        let mut world = World::with_cleared(config(), 5);
        world.server.pongs = pongs;
        world.pass(secs(30));
        let bad_for_long = |world: &mut World, after: Duration| {
            let late = world.rig.subscribe();
            world.pass(after);
            world.lose(closed(4500));
            let is_quarantined = world.quarantined() == [late];
            assert!(world.reach(World::all_are_carried));
            world.rig.cancel(late);
            is_quarantined
        };
        assert!(bad_for_long(&mut world, secs(8)), "{pongs:?}");
        assert!(!bad_for_long(&mut world, both), "{pongs:?}");
    }
}

#[test]
fn what_was_proven_long_ago_stays_proven_though_others_are_proven_all_the_time() {
    let mut world = World::with_cleared(config(), 1);
    let old = world.rig.subscribe();
    for _ in 0..60 {
        let new = world.rig.subscribe();
        world.rig.session.probe(new);
        world.pass(millis(500));
        world.rig.cancel(new);
    }
    let new = world.rig.subscribe();
    world.pass(millis(50));
    world.lose(closed(4500));
    assert_eq!(world.quarantined(), [new], "{old} was read long ago");
}

#[test]
fn a_connection_that_is_not_read_proves_nothing() {
    let mut world = World::new(Config { ping_interval: None, ..config() }, Answers::Never);
    world.subscribe_all(5);
    world.pass(millis(100));
    world.rig.session.probe(5);
    world.pass(millis(10));
    world.stall();
    world.pass(secs(60));
    world.close(world.rig.session.current, closed(4500));
    world.pass(secs(1));
    world.unstall();
    world.pass(Duration::ZERO);
    assert_eq!(world.quarantined().len(), 5, "the close was there all the time");
}
