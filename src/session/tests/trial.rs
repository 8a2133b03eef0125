//! Rule 22: what a trial does to everybody else.

use super::{
    poison::{find, strong, weak},
    world::{Answers, World},
    *,
};

/// Ten cleared operations and two bad ones, in a trial, at the moment when it is open; nobody is
/// tried yet.
fn on_trial() -> (World, [u64; 2]) {
    let mut world = World::with_cleared(config(), 10);
    let bad = [(); 2].map(|()| world.subscribe_bad(OperationType::Subscription, &closed(4500)));
    assert!(world.reach(|world| world.losses == 2 && world.carried.len() == 10));
    assert_eq!(world.held(), 2);
    (world, bad)
}

#[test]
fn a_new_operation_waits_for_its_turn_during_a_trial_and_is_sent_in_time() {
    let (mut world, bad) = on_trial();
    let good = world.rig.subscribe();
    let call = world.rig.begin(OperationType::Mutation);
    assert_eq!(issued(&world.rig.take()), []);
    assert_eq!(world.held(), 4);
    assert!(world.reach(|world| world.ends.len() == 2));
    assert!(world.ends.iter().all(|end| bad.contains(&end.0)), "{:?}", world.ends);
    assert!(world.reach(World::all_are_carried));
    let carried: Vec<_> = world.carried.values().copied().collect();
    assert!(carried.contains(&good) && carried.contains(&call));
    let next = world.rig.subscribe();
    world.pass(secs(1));
    assert!(world.carried.values().any(|id| *id == next), "the trial is over");
}

#[test]
fn operations_that_are_held_back_can_be_dropped_time_out_and_are_shut_down() {
    let (mut world, bad) = on_trial();
    for id in bad {
        world.rig.cancel(id);
    }
    assert_eq!(wrote(&world.rig.take()), [""; 0], "the server never heard of them");
    let losses = world.losses;
    world.pass(secs(600));
    assert_eq!((world.ends.len(), world.losses, world.carried.len()), (0, losses, 10));

    let (mut world, _) = on_trial();
    let request = Request {
        kind: OperationType::Query,
        payload: r#"{"query":"99"}"#.into(),
        deadline: Some(world.rig.now + Duration::from_millis(500)),
        watch_options: None,
        is_resumable: false,
    };
    world.rig.session.subscribe(world.rig.now, 99, request, 99);
    world.pass(Duration::from_millis(500));
    assert_eq!(world.ends, [(99, "timed out".into())]);

    let (mut world, _) = on_trial();
    world.rig.session.shutdown(world.rig.now, world.rig.now + secs(5));
    let did = world.rig.take();
    assert_eq!(finished(&did).len(), 12);
    assert_eq!(wrote(&did).len(), 11, "ten are completed, and a close");
}

#[test]
fn rule_25_nobody_dials_when_the_last_operation_that_is_held_back_goes() {
    let mut world = World::new(config(), Answers::Never);
    let bad = [(); 2].map(|()| world.subscribe_bad(OperationType::Subscription, &closed(4500)));
    assert!(world.reach(|world| world.losses == 2));
    assert_eq!(world.held(), 2);
    world.rig.session.reconnect_now(world.rig.now);
    assert!(world.rig.take().contains(&Did::Authorize("reconnect")), "held ones are live");
    let did = world.rig.lose(Disconnect::Reset(None));
    assert!(waiting(&did).is_some());
    for id in bad {
        world.rig.cancel(id);
    }
    assert_eq!(world.rig.take(), [Did::Idle]);
    assert_eq!(world.rig.session.poll_timeout(), None);
}

#[test]
fn rule_28_the_gap_of_an_operation_that_was_held_back_tells_of_its_own_outage() {
    let mut world = World::with_cleared(config(), 10);
    let bad = world.subscribe_bad(OperationType::Subscription, &closed(4500));
    let quiet = world.rig.subscribe();
    assert!(world.reach(|world| world.losses == 2));
    let since = world.rig.now;
    assert!(world.reach(|world| world.losses == 4), "the other one comes first");
    world.rig.gaps.clear();
    assert!(world.reach(|world| world.carried.values().any(|id| *id == quiet)));
    let gap = world.rig.gaps.pop().unwrap();
    assert_eq!((gap.reconnects, gap.down_for), (1, world.rig.now - since));
    assert!(
        gap.down_for >= secs(1)
            && matches!(gap.cause, Some(Disconnect::Closed { code: CloseCode(4500), .. }))
    );
    assert_eq!(world.ends[0].0, bad);
}

#[test]
fn a_loss_while_nobody_is_on_trial_ends_the_trial() {
    let (mut nobody_yet, _) = on_trial();
    let mut others_survived = World::new(config(), Answers::Never);
    others_survived.subscribe_all(3);
    others_survived.subscribe_bad(OperationType::Subscription, &closed(4500));
    assert!(others_survived.reach(|world| world.losses == 3 && world.carried.len() == 3));
    others_survived.pass(secs(2));
    assert_eq!(
        others_survived.held(),
        1,
        "it was alone the last time, so it comes later this time"
    );
    for world in [&mut nobody_yet, &mut others_survived] {
        world.rig.gaps.clear();
        world.rig.lose(Disconnect::Reset(None));
        assert_eq!(world.held(), 0);
        let slept = world.rig.sleep();
        assert_eq!(issued(&world.rig.connect()).len(), world.rig.session.live_operations());
        let longer = world.rig.gaps.iter().filter(|gap| gap.down_for > slept).count();
        assert!(
            (1..=2).contains(&longer),
            "those that were held back were without a connection before"
        );
    }
}

#[test]
fn what_was_cleared_is_sent_again_at_once_whatever_the_loss_and_so_is_everything_after_a_restart() {
    for cause in strong().iter().take(1).chain(&weak()) {
        let mut by_item = World::with_cleared(config(), 20);
        let mut by_age = World::new(config(), Answers::Never);
        by_age.subscribe_all(20);
        by_age.pass(secs(11));
        for world in [&mut by_item, &mut by_age] {
            for _ in 0..5 {
                world.rig.lose(cause.clone());
                world.rig.sleep();
                assert_eq!(issued(&world.rig.connect()).len(), 20, "{cause}");
            }
        }
    }
    for cause in [closed(1001), closed(1012), Disconnect::Silent(secs(10))] {
        let mut rig = Rig::open(config(), 20);
        for _ in 0..5 {
            rig.lose(cause.clone());
            rig.sleep();
            assert_eq!(issued(&rig.connect()).len(), 20, "{cause}");
        }
    }
}

#[test]
fn an_operation_that_came_later_is_cleared_by_a_while_of_its_own() {
    let mut world = World::with_cleared(config(), 5);
    world.pass(secs(30));
    let late = world.rig.subscribe();
    let is_cleared = |world: &World| world.rig.session.operations.get(late).unwrap().is_cleared;
    world.pass(Duration::from_millis(9_900));
    assert!(!is_cleared(&world));
    world.pass(secs(11));
    assert!(is_cleared(&world));
    world.pass(secs(60));
    let due = world.rig.session.poll_timeout().map(|at| at - world.rig.now);
    assert!(
        due > Some(secs(5)) && world.rig.pass(due.unwrap()).len() == 1,
        "nothing but a ping is waited for"
    );
}

#[test]
fn a_connection_that_is_not_read_proves_nothing() {
    let mut world = World::new(Config { ping_interval: None, ..config() }, Answers::Never);
    world.subscribe_all(5);
    world.pass(Duration::ZERO);
    world.rig.session.stall();
    world.pass(secs(60));
    assert!(world.rig.session.operations.iter().all(|operation| !operation.is_cleared));
    world.rig.session.unstall(world.rig.now);
    world.pass(secs(25));
    assert!(world.rig.session.operations.iter().all(|operation| operation.is_cleared));
}

#[test]
fn a_restart_during_a_trial_says_nothing_and_the_trial_goes_on() {
    for cause in [closed(1012), closed(1001), closed(1013), Disconnect::Silent(secs(10))] {
        let mut world = World::with_cleared(config(), 10);
        let bad = world.subscribe_bad(OperationType::Subscription, &closed(4500));
        world.reach(|world| world.losses == 3);
        for _ in 0..3 {
            assert!(world.reach(|world| world.carried.len() == 10));
            let did = world.rig.lose(cause.clone());
            world.perform(did);
            assert_eq!(world.held(), 1, "{cause}");
        }
        assert_eq!(find(&mut world), (vec![bad], 1), "{cause}");
    }
}

#[test]
fn losses_that_one_operation_is_to_blame_for_are_no_failed_attempts() {
    let mut world = World::with_cleared(Config { give_up_after: Some(6), ..config() }, 10);
    for _ in 0..4 {
        let bad = world.subscribe_bad(OperationType::Subscription, &closed(4500));
        assert_eq!(find(&mut world), (vec![bad], 4));
        world.ends.clear();
    }
}

#[test]
fn nobody_is_blamed_for_a_subscribe_that_was_not_written() {
    let mut world = World::with_cleared(config(), 10);
    let bad = world.subscribe_bad(OperationType::Subscription, &closed(4500));
    world.reach(|world| world.losses == 2 && world.carried.len() == 10);
    for _ in 0..5 {
        // The socket takes nothing, and breaks after the suspect's turn has come.
        world.rig.now += secs(9);
        world.rig.session.handle_timeout(world.rig.now);
        while world.rig.session.poll_output().is_some() {}
        assert_eq!(world.held(), 0);
        let did = world.rig.lose(closed(4500));
        world.perform(did);
        world.reach(|world| world.carried.len() >= 10);
    }
    assert_eq!(world.ends, [], "{bad}");
}

/// Good operations that were quiet so far, in a trial of their own: the bad one has gone. The
/// connection is open.
fn on_trial_without_reason(good: u64) -> World {
    let mut world = World::new(config(), Answers::Never);
    world.subscribe_all(good);
    let bad = world.subscribe_bad(OperationType::Subscription, &closed(4500));
    assert!(world.reach(|world| world.losses == 2 && world.rig.session.is_open()));
    world.rig.cancel(bad);
    assert_eq!(world.held() as u64, good);
    world
}

#[test]
fn a_trial_of_a_hundred_good_operations_is_over_in_seconds_and_at_once_if_they_answer() {
    let mut quiet = on_trial_without_reason(100);
    quiet.pass(secs(7));
    assert_eq!(quiet.carried.len(), 100);

    let mut answering = on_trial_without_reason(100);
    answering.answers = Answers::AtOnce;
    answering.pass(secs(1));
    assert_eq!(answering.carried.len(), 100);

    let mut ending = on_trial_without_reason(100);
    ending.pass(secs(1));
    let wire_id = ending.carried.pop_first().unwrap().0;
    let did = ending.rig.receive(json!({"type": "complete", "id": wire_id}));
    ending.perform(did);
    ending.pass(Duration::ZERO);
    assert_eq!(ending.carried.len(), 2, "an end is an answer, too");
}

#[test]
fn a_trial_waits_for_a_connection_that_is_not_read_or_not_written() {
    let mut world = on_trial_without_reason(10);
    world.rig.session.stall();
    world.pass(secs(9));
    assert_eq!(world.held(), 10);

    let mut world = on_trial_without_reason(10);
    for _ in 0..5 {
        world.rig.now += secs(1);
        world.rig.session.handle_timeout(world.rig.now);
        assert_eq!(world.held(), 9, "the first one is not written yet");
    }
}

#[test]
fn an_operation_that_is_sent_again_when_it_is_stale_does_not_prolong_a_trial() {
    for patience in [Duration::from_millis(300), secs(1), secs(2)] {
        let mut world = World::new(config(), Answers::Never);
        world.rig.watch_options = WatchOptions {
            first_item_within: Some(patience),
            reissue_stale: true,
            ..WatchOptions::default()
        };
        world.subscribe_all(10);
        let bad = world.subscribe_bad(OperationType::Subscription, &closed(4500));
        assert_eq!(find(&mut world).0, [bad], "{patience:?}");
        world.pass(secs(10));
        assert_eq!(world.held(), 0, "{patience:?}");
    }
}

#[test]
fn losses_between_which_the_connection_was_healthy_are_not_in_a_row_however_much_is_started() {
    let mut world = World::with_cleared(config(), 5);
    for _ in 0..5 {
        for _ in 0..60 {
            world.rig.subscribe();
            world.pass(secs(1));
        }
        let did = world.rig.lose(Disconnect::Reset(None));
        world.perform(did);
        assert_eq!(world.held(), 0);
        world.reach(World::all_are_carried);
    }
}

#[test]
fn who_is_held_back_is_forgotten_with_the_operation() {
    let (mut world, _) = on_trial();
    world.rig.lose(closed(1012));
    let query = || Request {
        kind: OperationType::Query,
        payload: "{}".into(),
        deadline: None,
        watch_options: None,
        is_resumable: false,
    };
    for id in 1_000..2_000 {
        world.rig.session.subscribe(world.rig.now, id, query(), id);
        world.rig.cancel(id);
    }
    assert!(
        world.rig.session.suspicion.remembered() < 100,
        "{}",
        world.rig.session.suspicion.remembered()
    );
}

#[test]
fn a_trial_goes_on_after_a_pause_or_another_connection_and_those_say_nothing_of_anybody() {
    for end in [Session::pause, Session::reconnect_now] {
        let mut world = World::with_cleared(config(), 10);
        let bad = world.subscribe_bad(OperationType::Subscription, &closed(4500));
        let good = world.rig.subscribe();
        assert!(world.reach(|world| world.losses == 2 && world.rig.session.is_open()));
        world.bad.clear();
        assert!(world.reach(|world| world.carried.len() == 11), "the first one is tried");
        end(&mut world.rig.session, world.rig.now);
        assert_eq!(world.held(), 2, "it is to be tried again");
        world.rig.session.resume(world.rig.now);
        world.bad.insert(bad, (Duration::from_millis(20), closed(4500)));
        assert_eq!(find(&mut world).0, [bad]);
        assert!(world.carried.values().any(|id| *id == good));
    }
    let mut world = World::with_cleared(config(), 10);
    world.subscribe_all(3);
    for _ in 0..5 {
        let did = world.rig.lose(Disconnect::Reset(None));
        world.perform(did);
        assert_eq!(world.held(), 0, "these losses are not in a row");
        assert!(world.reach(World::all_are_carried));
        world.rig.session.reconnect_now(world.rig.now);
        assert!(world.reach(World::all_are_carried));
    }
}

#[test]
fn one_that_is_held_back_is_proven_once_its_turn_has_come() {
    let mut world = on_trial_without_reason(3);
    world.rig.session.probe(2);
    let did = world.rig.pass(secs(5));
    assert!(!did.contains(&Did::Established(2)));
    let did = [did, world.rig.receive(json!({"type": "pong"}))].concat();
    assert!(did.contains(&Did::Established(2)), "{did:?}");
}

#[test]
fn the_applications_word_that_all_is_lost_needs_no_trial_and_ends_one() {
    let hook = |when: u32| {
        let asked = std::sync::atomic::AtomicU32::new(0);
        crate::session::VerdictHook::new(move |_, _| {
            let is_now = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == when;
            if is_now { crate::session::Verdict::Fatal } else { crate::session::Verdict::Default }
        })
    };
    for when in [0, 1, 2, 3] {
        let mut world =
            World::new(Config { on_disconnect: Some(hook(when)), ..config() }, Answers::Never);
        world.subscribe_all(3);
        world.subscribe_bad(OperationType::Subscription, &closed(4500));
        assert!(world.reach(|world| !world.ends.is_empty()));
        assert_eq!((world.ends.len(), world.losses), (4, when + 1));
        let next = world.rig.subscribe();
        assert_eq!(world.held(), 0, "nothing is left of the trial");
        assert!(world.reach(|world| world.carried.values().any(|id| *id == next)));
    }
}

#[test]
fn a_new_operation_is_sent_though_all_that_was_there_before_is_cleared_or_gone_in_mid_trial() {
    let mut world = World::with_cleared(Config { healthy_after: secs(2), ..config() }, 10);
    let bad = world.subscribe_bad(OperationType::Subscription, &closed(4500));
    // Alone once: the next try waits longer than it takes to be healthy.
    assert!(world.reach(|world| world.losses == 3 && world.carried.len() == 10));
    assert_eq!(world.held(), 1);
    world.rig.cancel(bad);
    let good = world.rig.subscribe();
    assert_eq!(world.held(), 1);
    world.pass(secs(10));
    assert!(world.carried.values().any(|id| *id == good));
}
