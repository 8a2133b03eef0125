//! Trials on the current connection, where the server allows no second one.

use super::*;
use crate::session::{connection::timers::Timer, operations::Place};

/// Ten cleared operations, three silent ones and a bad one, on a server that allows one connection
/// only. Some of the last four are being tried on it.
fn on_trial(config: Config) -> (World, u64) {
    let mut world = World::with_cleared(config, 10);
    world.server.most_sockets = 1;
    world.subscribe_all(3);
    let bad = world.subscribe_bad(&closed(4500));
    assert!(world.reach(|world| !world.quarantined().is_empty()));
    assert!(world.reach(|world| {
        world.rig.session.quarantine.tried_on() == Some(world.rig.session.current)
    }));
    (world, bad)
}

#[test]
fn a_connection_that_the_application_gives_up_ends_the_trial_on_it() {
    for end in [Session::pause, Session::reconnect_now] {
        let (mut world, bad) = on_trial(config());
        world.server.bad.clear();
        end(&mut world.rig.session, world.rig.now);
        world.perform();
        assert_eq!(world.rig.session.quarantine.tried_on(), None);
        world.rig.session.resume(world.rig.now);
        assert!(world.reach(World::all_are_carried), "the others are not held back for good");
        assert!(!world.ended().contains(&bad));
        assert!(!world.rig.session.quarantine.is_active());
    }
}

#[test]
fn a_trial_that_waits_for_its_turn_under_reissue_rate_causes_no_ping_for_each_pong() {
    let config = Config { reissue_rate: std::num::NonZeroU32::new(1), ..config() };
    let (mut world, _) = on_trial(config);
    world.server.bad.clear();
    let pings = world.server.pings;
    world.pass(secs(5));
    let sent = world.server.pings - pings;
    assert!(sent < 15, "{sent} pings in five seconds");
    assert!(world.reach(World::all_are_carried));
}

#[test]
fn a_trial_that_waited_for_its_turn_under_reissue_rate_ends_soon_after_it_was_sent() {
    let config = Config { reissue_rate: std::num::NonZeroU32::new(5), ..config() };
    let (mut world, _) = on_trial(config);
    world.server.bad.clear();
    world.server.pongs = Pongs::WithTheNumber;
    let is_paced = |it: &Operation<u64>| matches!(it.place(), Place::Waiting(Why::Pacing));
    assert!(world.reach(|world| world.rig.session.operations.ids(is_paced).is_empty()));
    let sent = world.rig.now;
    assert!(world.reach(|world| world.rig.session.quarantine.tried_on().is_none()));
    assert!(world.rig.now - sent < secs(3), "without a ping it takes 6 s");
}

#[test]
fn nothing_is_waited_for_when_nobody_is_left_to_be_tried_with() {
    let (mut world, _) = on_trial(config());
    world.server.bad.clear();
    let tried = world.rig.session.current;
    let others = world.rig.session.operations.ids(|_| true);
    for id in &others[1..] {
        world.rig.session.cancel(world.rig.now, *id);
    }
    world.perform();
    assert_eq!(world.rig.session.quarantine.tried_on(), None);
    world.pass(secs(10));
    let connection = world.rig.session.connection(tried).unwrap();
    assert_eq!(connection.timers.at(Timer::Settled), None, "no timer wakes the client for it");
}
