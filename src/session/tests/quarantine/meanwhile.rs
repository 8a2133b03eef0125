//! What happens to others, and what others do, while operations are in quarantine.

use super::*;
use crate::session::config::DialBudget;

/// Ten cleared operations, and two bad ones that are in quarantine. A connection for trials is
/// open, and both are tried on it, or wait.
fn on_trial() -> (World, [u64; 2]) {
    let mut world = World::with_cleared(config(), 10);
    let bad = [(); 2].map(|()| world.subscribe_bad(&closed(4500)));
    assert!(world.reach(|world| world.rig.session.other().is_some_and(Connection::is_open)));
    assert_eq!((world.quarantined(), world.carried().len()), (bad.to_vec(), 10));
    (world, bad)
}

/// As `on_trial`, but the connection for trials was lost, and the next one is yet to come.
fn between_trials() -> (World, [u64; 2]) {
    let (mut world, bad) = on_trial();
    assert!(world.reach(|world| world.lost_trials == 1));
    assert!(world.rig.session.other().is_none());
    (world, bad)
}

/// Good operations that were silent so far, in quarantine without a reason: the bad one is gone.
fn without_reason(good: u64) -> World {
    let mut world = World::new(config(), Answers::Never);
    world.subscribe_all(good);
    let bad = world.subscribe_bad(&closed(4500));
    assert!(world.reach(|world| world.rig.session.other().is_some_and(Connection::is_open)));
    world.rig.cancel(bad);
    assert_eq!(world.quarantined().len() as u64, good);
    world
}

/// Nothing is left of a quarantine.
fn check_over(world: &World) {
    let session = &world.rig.session;
    assert!(!session.quarantine.is_active());
    assert_eq!((session.quarantine.remembered(), world.quarantined()), (0, vec![]));
    assert!(session.other().is_none(), "the second connection is closed");
    assert_eq!(session.quarantine.due(), None);
}

#[test]
fn a_new_operation_is_sent_at_once() {
    for (mut world, bad) in [on_trial(), between_trials()] {
        let good = world.rig.subscribe();
        let (query, mutation) =
            (world.begin(OperationType::Query), world.begin(OperationType::Mutation));
        assert_eq!(world.quarantined(), bad);
        world.pass(millis(3));
        assert!([good, query, mutation].iter().all(|id| world.is_carried(*id)));
        assert!(world.reach(|world| world.ends.len() == 2));
        assert_eq!(world.ended(), bad);
        assert!(world.reach(World::all_are_carried));
        assert_eq!(world.gaps_of(good), 0);
        assert_eq!((world.server.calls[&query], world.server.calls[&mutation]), (1, 1));
        check_over(&world);
    }
}

#[test]
fn the_siblings_go_on_and_what_is_published_is_delivered() {
    let (mut world, _) = on_trial();
    let before = world.received.clone();
    world.publish();
    world.pass(millis(3));
    assert!((1..=10).all(|id| world.received[&id] == before[&id] + 1));
}

#[test]
fn what_is_said_on_the_second_connection_is_not_delivered_but_releases() {
    let mut world = without_reason(5);
    world.server.answers = Answers::AtOnce;
    assert!(world.reach(World::all_are_carried));
    world.pass(secs(1));
    // Once each, on the current connection, behind one gap.
    assert!((1..=5).all(|id| (world.received[&id], world.gaps_of(id)) == (1, 1)));
    check_over(&world);
}

#[test]
fn an_operation_in_quarantine_stays_there_when_its_reader_asks_again() {
    for (mut world, bad) in [on_trial(), between_trials()] {
        for id in bad {
            world.rig.session.ask_again(world.rig.now, id);
        }
        world.perform();
        assert_eq!(world.quarantined(), bad);
        assert!(world.reach(|world| world.ends.len() == 2));
        assert_eq!((world.ended(), world.losses.len()), (bad.to_vec(), 1));
        assert!(world.reach(World::all_are_carried));
        check_over(&world);
    }
}

#[test]
fn operations_in_quarantine_can_be_dropped() {
    for (mut world, bad) in [on_trial(), between_trials()] {
        for id in bad {
            world.rig.cancel(id);
        }
        world.pass(secs(1));
        check_over(&world);
        assert!(world.all_are_carried());
        let (trials, dials) = (world.lost_trials, world.dials.len());
        world.pass(secs(600));
        assert_eq!((world.ends.len(), world.losses.len()), (0, 1));
        assert_eq!((world.lost_trials, world.dials.len()), (trials, dials));
    }
}

#[test]
fn a_query_in_quarantine_times_out() {
    let mut world = World::with_cleared(config(), 10);
    world.subscribe_bad(&closed(4500));
    let request = Request {
        kind: OperationType::Query,
        payload: r#"{"query":"99"}"#.into(),
        deadline: Some(world.rig.now + millis(1_000)),
        watch_options: None,
        is_resumable: false,
    };
    world.rig.session.subscribe(world.rig.now, 99, request, 99);
    world.pass(millis(500));
    assert!(world.quarantined().contains(&99));
    world.pass(millis(500));
    assert_eq!(world.ends, [(99, "timed out".into())]);
    assert!(world.reach(World::all_are_carried));
    check_over(&world);
}

#[test]
fn a_shutdown_ends_all_and_both_connections() {
    for (mut world, _) in [on_trial(), between_trials()] {
        world.rig.session.shutdown(world.rig.now, world.rig.now + secs(5));
        world.perform();
        assert_eq!(world.ends.len(), 12);
        check_over(&world);
        world.pass(secs(5));
        assert!(world.rig.session.has_ended);
        assert_eq!(world.rig.session.poll_timeout(), None);
        assert!(world.server.sockets.iter().all(Option::is_none));
    }
}

#[test]
fn rule_25_nobody_dials_when_the_last_operation_in_quarantine_goes() {
    let mut world = World::new(config(), Answers::Never);
    let bad = [(); 2].map(|()| world.subscribe_bad(&closed(4500)));
    assert!(world.reach(|world| world.quarantined() == bad));
    let dials = world.dials.len();
    for id in bad {
        world.rig.cancel(id);
    }
    world.pass(secs(100));
    assert_eq!(world.dials.len(), dials);
    check_over(&world);
    assert!(matches!(world.last_status, Some(Status::Idle)));
    assert_eq!(world.rig.session.poll_timeout(), None);
}

#[test]
fn it_goes_on_after_a_pause_or_on_another_connection() {
    for end in [Session::pause, Session::reconnect_now] {
        for (mut world, bad) in [on_trial(), between_trials()] {
            let losses = world.losses.len();
            end(&mut world.rig.session, world.rig.now);
            world.perform();
            assert!(world.rig.session.other().is_none());
            assert_eq!(world.quarantined(), bad, "they are to be tried again");
            world.pass(secs(30));
            if world.rig.session.is_paused {
                assert_eq!(world.ends, []);
                assert_eq!(world.rig.session.poll_timeout(), None, "nothing happens meanwhile");
            }
            world.rig.session.resume(world.rig.now);
            assert!(world.reach(World::all_are_carried));
            assert_eq!((world.ended(), world.losses.len()), (bad.to_vec(), losses));
            check_over(&world);
        }
    }
}

#[test]
fn connections_that_the_application_gives_up_are_no_losses_in_a_row() {
    let mut world = World::with_cleared(config(), 10);
    world.subscribe_all(3);
    for _ in 0..5 {
        world.pass(millis(100));
        world.lose(Disconnect::Reset(None));
        assert_eq!(world.quarantined(), [0; 0]);
        assert!(world.reach(World::all_are_carried));
        world.rig.session.reconnect_now(world.rig.now);
        assert!(world.reach(World::all_are_carried));
    }
}

#[test]
fn the_loss_of_the_current_connection_says_nothing_about_those_in_quarantine() {
    for cause in
        [closed(1012), closed(1001), closed(1013), Disconnect::Silent(secs(10)), closed(4500)]
    {
        for (mut world, bad) in [on_trial(), between_trials()] {
            for _ in 0..3 {
                world.lose(cause.clone());
                assert_eq!(world.quarantined(), bad, "{cause}");
                assert!(world.reach(|world| world.carried().len() == 10), "{cause}");
            }
            assert!(world.reach(World::all_are_carried));
            assert_eq!(world.ended(), bad, "{cause}");
            assert!((1..=10).all(|id| world.gaps_of(id) == 4), "{cause}");
            check_over(&world);
        }
    }
}

#[test]
fn a_rotation_waits_for_the_end_of_a_quick_search_and_goes_before_a_long_one() {
    for (mut world, bad) in [on_trial(), between_trials()] {
        world.rig.session.rotate(world.rig.now);
        assert!(world.reach(|world| world.rotated == 1));
        assert_eq!(world.ended(), bad);
        assert!(world.reach(World::all_are_carried));
        assert_eq!(world.rig.session.counts().handovers, 1);
        check_over(&world);
    }
    // Nothing else lives, so it takes for ever.
    let mut world = World::new(config(), Answers::Never);
    let bad = [(); 3].map(|()| world.subscribe_bad(&closed(4500)));
    world.pass(secs(10));
    assert_eq!(world.quarantined(), bad);
    world.rig.session.rotate(world.rig.now);
    world.pass(secs(2));
    assert_eq!(world.rotated, 1);
    let good = world.rig.subscribe();
    assert!(world.reach(World::all_are_carried));
    assert_eq!((world.ended(), world.carried()), (bad.to_vec(), vec![good]));
    check_over(&world);
}

#[test]
fn what_is_lost_during_a_handover_is_found_as_well() {
    for pause in [1, 9, 15, 1_000, 9_990, 11_000] {
        let mut world = World::with_cleared(config(), 10);
        world.rig.session.rotate(world.rig.now);
        world.pass(millis(pause));
        let bad = world.subscribe_bad(&closed(4500));
        assert_eq!(find(&mut world, 1).0, [bad], "after {pause} ms");
        world.pass(secs(30));
        assert!(world.all_are_carried());
        check_over(&world);
    }
}

#[test]
fn rule_28_the_gap_of_one_that_was_in_quarantine_tells_of_its_own_outage() {
    let mut world = World::with_cleared(config(), 10);
    let bad = world.subscribe_bad(&closed(4500));
    let silent = world.rig.subscribe();
    assert!(world.reach(|world| !world.losses.is_empty()));
    let since = world.rig.now;
    assert!(world.reach(|world| world.gaps_of(silent) == 1));
    let gap = &world.gaps[&silent][0];
    assert_eq!((gap.reconnects, gap.down_for), (1, world.rig.now - since));
    assert!(gap.down_for >= secs(1));
    assert!(matches!(gap.cause, Some(Disconnect::Closed { code: CloseCode(4500), .. })));
    assert!(world.reach(World::all_are_carried));
    assert_eq!((world.ended(), world.gaps_of(silent)), (vec![bad], 1));
}

#[test]
fn a_hundred_good_operations_are_released_in_seconds_and_at_once_if_they_answer() {
    let mut silent = without_reason(100);
    silent.pass(secs(7));
    assert!(silent.all_are_carried());

    let mut answering = World::new(config(), Answers::Never);
    answering.subscribe_all(100);
    let bad = answering.subscribe_bad(&closed(4500));
    answering.pass(millis(50));
    answering.rig.cancel(bad);
    answering.server.answers = Answers::AtOnce;
    assert!(answering.reach(World::all_are_carried));
    assert!(answering.rig.now - answering.losses[0] <= secs(2));

    let mut ending = without_reason(4);
    ending.pass(millis(10));
    let on = ending.rig.session.current.other();
    let tried = &mut ending.server.sockets[on as usize].as_mut().unwrap().carried;
    let (wire_id, id) = tried.pop_first().unwrap();
    ending.schedule(on, Duration::ZERO, Event::Down(json!({"type": "complete", "id": wire_id})));
    ending.pass(Duration::ZERO);
    assert_eq!(ending.ends, [(id, "completed".into())], "an end is an answer, too");
    assert!(ending.reach(World::all_are_carried));
}

#[test]
fn a_trial_waits_for_a_connection_that_is_not_read_or_not_written() {
    let mut world = without_reason(10);
    world.pass(millis(10));
    world.stall();
    world.pass(secs(60));
    assert_eq!(world.quarantined().len(), 10);
    world.unstall();
    world.pass(secs(5));
    assert!(world.all_are_carried());

    let mut world = World::new(config(), Answers::Never);
    world.subscribe_all(10);
    let bad = world.subscribe_bad(&closed(4500));
    assert!(world.reach(|world| world.rig.session.other().is_some()));
    world.rig.cancel(bad);
    world.pass(millis(10));
    world.is_blocked = true;
    world.pass(secs(8));
    assert_eq!(world.quarantined().len(), 10, "none is written yet");
    world.is_blocked = false;
    world.pass(secs(5));
    assert!(world.all_are_carried());
}

#[test]
fn nobody_is_blamed_for_a_subscribe_that_was_not_written() {
    let mut world = World::with_cleared(config(), 10);
    let good = world.rig.subscribe();
    world.pass(millis(50));
    world.lose(closed(4500));
    assert_eq!(world.quarantined(), [good]);
    for _ in 0..5 {
        let is_there = |world: &World| {
            let session = &world.rig.session;
            session.other().is_some_and(Connection::is_open) && session.is_open()
        };
        world.is_blocked = false;
        assert!(world.reach(|world| {
            world.rig.session.other().is_some_and(|it| matches!(it.phase, Phase::Opening(_)))
        }));
        world.pass(millis(1));
        // The socket takes nothing any more, and breaks.
        world.is_blocked = true;
        assert!(world.reach(is_there));
        let on = world.rig.session.current.other();
        world.rig.session.handle_lost(world.rig.now, on, closed(4500));
        world.perform();
        assert_eq!(world.quarantined(), [good]);
    }
    world.is_blocked = false;
    assert!(world.reach(World::all_are_carried));
    assert_eq!(world.ends, []);
}

#[test]
fn an_operation_that_is_sent_again_when_it_is_stale_does_not_prolong_the_search() {
    for patience in [millis(300), secs(1), secs(2)] {
        let mut world = World::new(config(), Answers::Never);
        world.rig.watch_options = WatchOptions {
            first_item_within: Some(patience),
            reissue_stale: true,
            ..WatchOptions::default()
        };
        world.subscribe_all(10);
        let bad = world.subscribe_bad(&closed(4500));
        assert!(world.reach(|world| !world.ends.is_empty()));
        assert_eq!(world.ended(), [bad], "{patience:?}");
        world.pass(secs(10));
        assert_eq!(world.quarantined(), [0; 0], "{patience:?}");
        check_over(&world);
        assert_eq!(world.stale.iter().filter(|id| **id == bad).count(), 0);
    }
}

#[test]
fn an_operation_that_is_rewound_leaves_quarantine() {
    for (mut world, bad) in [on_trial(), between_trials()] {
        world.rig.session.rewind(bad[0]);
        world.pass(secs(30));
        assert_eq!(world.ended(), [bad[1]]);
        assert_eq!(world.carried().len(), 10, "one waits for its reader");
        check_over(&world);
        world.server.bad.clear();
        world.rig.session.catch_up(world.rig.now, bad[0]);
        assert!(world.reach(World::all_are_carried));
    }
}

#[test]
fn one_in_quarantine_is_proven_once_it_is_on_the_current_connection() {
    let mut world = without_reason(3);
    world.rig.session.probe(2);
    assert!(world.reach(|world| world.established == [2]));
    assert!(world.is_carried(2) && !world.quarantined().contains(&2));
    assert!(world.reach(World::all_are_carried));
}

#[test]
fn a_new_operation_is_sent_though_all_that_was_there_before_is_gone() {
    let (mut world, bad) = between_trials();
    for id in (1..=10).chain(bad) {
        world.rig.cancel(id);
    }
    let good = world.rig.subscribe();
    world.pass(millis(10));
    assert_eq!(world.carried(), [good]);
    assert!(world.reach(World::all_are_carried));
    check_over(&world);
}

#[test]
fn what_is_known_is_forgotten_with_the_operations() {
    let mut world = World::new(config(), Answers::Never);
    let until = world.rig.now + secs(10_000);
    let rng = fastrand::Rng::with_seed(1);
    world.server.down = Some(Down { until, most: millis(20), cause: closed(4500), rng });
    // They keep the quarantine going.
    world.subscribe_all(2);
    for _ in 0..200 {
        let ids: Vec<_> = (0..100).map(|_| world.rig.subscribe()).collect();
        world.pass(secs(1));
        for id in ids {
            world.rig.cancel(id);
        }
        let quarantine = &world.rig.session.quarantine;
        assert!(quarantine.is_active());
        assert!(quarantine.remembered() <= 1_000, "{}", quarantine.remembered());
    }
    world.server.down = None;
    assert!(world.reach(World::all_are_carried));
    check_over(&world);
}

#[test]
fn dials_for_trials_keep_within_max_dials() {
    for dials in [1, 2, 5] {
        let budget = DialBudget { dials: dials.try_into().unwrap(), per: secs(60) };
        let config = Config { max_dials: Some(budget), ..config() };
        let mut world = World::with_cleared(config, 10);
        world.pass(secs(100));
        world.subscribe_all(5);
        let bad = world.subscribe_bad(&closed(4500));
        assert_eq!(find(&mut world, 1).0, [bad]);
        for window in world.dials.windows(dials as usize + 1) {
            assert!(window[dials as usize] - window[0] >= secs(60), "{dials} a minute");
        }
    }
}

#[test]
fn re_issues_keep_their_pace() {
    let config = Config { reissue_rate: std::num::NonZeroU32::new(20), ..config() };
    for (most_sockets, cleared) in [(2, 0), (2, 30), (1, 30)] {
        let mut world = World::with_cleared(config.clone(), cleared);
        world.server.most_sockets = most_sockets;
        world.subscribe_all(30);
        let bad = world.subscribe_bad(&closed(4500));
        assert_eq!(find(&mut world, 1).0, [bad]);
        check_over(&world);
    }
}
