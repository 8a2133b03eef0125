//! What is held of a stream while it moves, and what becomes of that when the handover ends early.

use super::{odds::acknowledge, *};

/// A stream that is on both connections. Held are 1 to 3 and its end; the old one has said nothing.
fn with_a_held_end(restarts: bool) -> World {
    let mut world = World::new(config());
    world.restarts = restarts;
    world.rig.watch_options.restart = restarts;
    world.subscribe();
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.write(B, 9);
    while world.up(B).unwrap() {}
    for _ in 0..3 {
        world.publish_all();
    }
    world.end(B, 0);
    while world.down(B).unwrap() {}
    assert!(world.rig.session.is_moving() && world.ends.is_empty());
    world
}

/// What ends a handover while items are held.
const ENDS_OF_A_HANDOVER: [fn(&mut World); 5] = [
    |world| world.lose(A, closed(1001)).unwrap(),
    |world| world.rig.session.reconnect_now(world.rig.now),
    |world| {
        world.rig.session.pause(world.rig.now);
        world.perform().unwrap();
        world.rig.session.resume(world.rig.now);
    },
    |world| {
        world.wires[A as usize].unsent.clear();
        world.end(A, 0);
        while world.down(A).unwrap() {}
    },
    |world| {
        world.wires[A as usize].unsent.clear();
        world.wires[A as usize].carried.clear();
        world.live(secs(11)).unwrap();
    },
];

#[test]
fn rule_13_an_end_that_is_held_follows_its_items_and_is_not_answered_however_the_handover_ends() {
    for (nth, ends) in ENDS_OF_A_HANDOVER.into_iter().enumerate() {
        let mut world = with_a_held_end(false);
        ends(&mut world);
        world.perform().unwrap();
        assert_eq!(world.ends.get(&1).map(String::as_str), Some("completed"), "{nth}");
        let [gap] = &world.gaps[..] else { panic!("{nth}: {:?}", world.gaps) };
        assert!(gap.overlaps == 1 && !gap.is_lossless(), "{nth}: {gap:?}");
        assert_eq!(world.rig.session.counts().items, 3, "{nth}");
        world.live(secs(60)).unwrap();
        assert!(world.asked.len() <= 3 && world.wires.iter().all(|wire| !wire.open), "{nth}");
    }
}

#[test]
fn a_held_end_that_is_transient_restarts_the_operation_once() {
    for (nth, ends) in ENDS_OF_A_HANDOVER.into_iter().enumerate() {
        let mut world = with_a_held_end(true);
        ends(&mut world);
        world.live(secs(60)).unwrap();
        world.publish_all();
        world.live(secs(15)).unwrap();
        world.check_settled().unwrap();
        assert_eq!(world.readers[&1].last, Some(4), "{nth}");
        assert!(world.ends.is_empty(), "{nth}: {:?}", world.ends);
    }
}

#[test]
fn a_held_end_waits_for_the_reader_who_has_no_room_for_the_items_before_it() {
    for (nth, ends) in ENDS_OF_A_HANDOVER.into_iter().enumerate() {
        let mut world = with_a_held_end(false);
        world.readers.get_mut(&1).unwrap().room = Some(1);
        ends(&mut world);
        world.perform().unwrap();
        assert_eq!((world.readers[&1].last, world.ends.len()), (Some(1), 0), "{nth}");
        assert_eq!(world.rig.session.counts().items, 2, "{nth}: one of them did not fit");
        world.live(secs(5)).unwrap();
        world.read(1);
        world.live(secs(15)).unwrap();
        world.check_settled().unwrap();
        world.publish_all();
        world.live(secs(1)).unwrap();
        assert_eq!(world.readers[&1].last, Some(4), "{nth}: it was sent again");
    }
}

#[test]
fn what_is_held_of_a_stream_that_has_no_position_yet_is_not_thrown_away() {
    for (nth, ends) in ENDS_OF_A_HANDOVER.into_iter().enumerate() {
        let mut world = World::new(config());
        world.rig.is_resumable = true;
        world.subscribe();
        world.settle().unwrap();
        world.rig.session.rotate(world.rig.now);
        acknowledge(&mut world, B);
        world.write(B, 9);
        while world.up(B).unwrap() {}
        world.publish_all();
        world.publish_all();
        while world.down(B).unwrap() {}
        ends(&mut world);
        world.perform().unwrap();
        assert_eq!(world.readers[&1].last, Some(2), "{nth}");
        world.publish_all();
        world.live(secs(60)).unwrap();
        world.check_settled().unwrap();
        assert_eq!(world.readers[&1].last, Some(3), "{nth}");
    }
}

#[test]
fn what_is_held_of_a_stream_that_is_dropped_is_neither_delivered_nor_counted() {
    for held_end in [false, true] {
        let mut world = with_a_held_end(held_end);
        world.cancel(1);
        world.perform().unwrap();
        let session = &world.rig.session;
        assert_eq!((session.counts().items, session.operations.held_bytes()), (0, 0));
        world.live(secs(60)).unwrap();
        assert!(world.ends.is_empty() && world.wires.iter().all(|wire| !wire.open));
    }
}

#[test]
fn items_that_are_to_be_delivered_do_not_count_once_the_reader_is_rewound() {
    let mut world = with_a_held_end(false);
    world.rig.session.handle_lost(world.rig.now, A, closed(1001));
    assert_eq!(world.rig.session.counts().items, 3);
    // The driver has not come to them yet, and the reader has no room.
    world.rig.session.rewind(1);
    assert_eq!(world.rig.session.counts().items, 0);
    world.perform().unwrap();
    assert_eq!((world.readers[&1].last, world.ends.len()), (None, 0));
    world.rig.session.catch_up(world.rig.now, 1);
    world.live(secs(15)).unwrap();
    world.check_settled().unwrap();
    assert_eq!(world.rig.session.operations.held_bytes(), 0);
}

#[test]
fn items_that_are_held_do_not_count_when_the_reader_is_rewound_while_they_are() {
    let mut world = with_a_held_end(false);
    world.down(A).unwrap();
    assert_eq!(world.readers[&1].last, Some(1));
    world.rig.session.rewind(1);
    world.perform().unwrap();
    let session = &world.rig.session;
    assert_eq!((session.counts().items, session.operations.held_bytes()), (1, 0));
    assert!(world.ends.is_empty() && !world.rig.session.is_moving());
    world.read(1);
    world.live(secs(15)).unwrap();
    world.check_settled().unwrap();
}
