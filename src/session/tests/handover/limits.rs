//! What a handover may take, hold, and count.

use super::{odds::acknowledge, *};

#[test]
fn attempts_that_were_given_up_or_failed_beside_a_connection_that_works_are_not_counted_against_it()
{
    for fails in [false, true] {
        let mut world = World::open(Config { give_up_after: Some(3), ..config() }, 1);
        for point in 0..6 {
            world.rig.session.rotate(world.rig.now);
            world.perform().unwrap();
            let current = world.rig.session.current;
            let next = if current == A { B } else { A };
            if fails {
                world.fail_credentials(next).unwrap();
                world.live_on(current, secs(31)).unwrap();
            } else {
                for _ in 0..point % 3 {
                    world.advance(next).unwrap();
                }
                world.rig.session.reconnect_now(world.rig.now);
                world.settle().unwrap();
            }
        }
        let current = world.rig.session.current;
        world.lose(current, closed(1001)).unwrap();
        assert_eq!(world.ends.get(&1), None, "{fails}");
    }
}

#[test]
fn a_connection_without_operations_is_not_replaced_for_ever_as_its_credentials_expire() {
    let mut world = World::open(Config { idle_timeout: None, ..config() }, 1);
    world.cancel(1);
    world.lifetime = Some(in_millis(1));
    world.rig.session.rotate(world.rig.now);
    world.live(secs(20)).unwrap();
    assert!((10..=22).contains(&world.asked.len()), "{} dials", world.asked.len());
}

#[test]
fn a_peer_that_says_nothing_any_more_does_not_keep_the_connection_before() {
    let mut world = World::open(Config { ping_interval: None, ..config() }, 1);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.live_on(B, secs(20)).unwrap();
    assert!(!world.wires[A as usize].open);
    assert_eq!(world.rig.session.current, B);
    world.live(secs(1)).unwrap();
    world.check_settled().unwrap();
}

#[test]
fn what_is_held_has_a_limit_beyond_which_something_may_be_missing() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.write(B, 9);
    while world.up(B).unwrap() {}
    let wire_id = world.wires[B as usize].carried.keys().next().unwrap().clone();
    let padding = "x".repeat(4 * 1024 * 1024);
    for n in 1..=5 {
        assert_eq!(world.readers[&1].gaps, 0, "{n}");
        let frame =
            json!({"type": "next", "id": wire_id, "payload": {"data": n, "extensions": padding}})
                .to_string();
        world.rig.session.handle_frame(world.rig.now, B, &frame);
        world.perform().unwrap();
        world.readers.get_mut(&1).unwrap().published = n;
        if n == 4 {
            break;
        }
    }
    assert_eq!((world.readers[&1].last, world.readers[&1].gaps), (Some(4), 1));
    assert_eq!(world.rig.session.operations.held_bytes(), 0);
}

#[test]
fn what_has_moved_is_looked_after_there() {
    let mut world = World::new(config());
    world.rig.watch_options.first_item_within = Some(secs(5));
    world.subscribe();
    world.settle().unwrap();
    world.publish_all();
    world.live(secs(20)).unwrap();
    world.rig.session.rotate(world.rig.now);
    world.live(secs(20)).unwrap();
    assert_eq!(world.stale, [1], "nothing came on the new connection");
}

#[test]
fn a_successor_of_a_connection_that_is_not_read_is_not_taken_for_dead() {
    let mut world = World::open(config(), 1);
    world.publish_all();
    world.settle().unwrap();
    world.stalled = true;
    world.rig.session.stall();
    world.rig.session.rotate(world.rig.now);
    world.live(secs(100)).unwrap();
    world.stalled = false;
    world.rig.session.unstall(world.rig.now);
    world.live_busily(secs(2)).unwrap();
    assert_eq!((world.asked.len(), world.readers[&1].gaps), (2, 0));
    world.check_settled().unwrap();
}

#[test]
fn the_answer_to_a_ping_does_not_say_that_everything_has_come() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.write(B, 9);
    while world.up(B).unwrap() {}
    // Two pings are answered on the old connection, ahead of the item that it has still to send.
    world.publish_all();
    world.down(B).unwrap();
    let unsent = std::mem::take(&mut world.wires[A as usize].unsent);
    for _ in 0..2 {
        world.rig.session.network_changed(world.rig.now);
        world.write(A, 9);
        while world.up(A).unwrap() {}
        while world.down(A).unwrap() {}
    }
    assert!(world.rig.session.is_moving());
    world.wires[A as usize].unsent = unsent;
    world.live(secs(13)).unwrap();
    let reader = &world.readers[&1];
    assert_eq!((reader.last, reader.overlaps, reader.repeated), (Some(1), 1, 1));
}

#[test]
fn what_waits_for_its_turn_stays_on_the_connection_before_however_long_that_takes() {
    let mut world =
        World::open(Config { reissue_rate: std::num::NonZeroU32::new(1), ..config() }, 40);
    world.slow_calls = true;
    let mutation = world.call(OperationType::Mutation);
    world.publish_all();
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    for _ in 0..30 {
        world.live(secs(2)).unwrap();
        world.publish_all();
    }
    world.live(secs(5)).unwrap();
    for reader in world.readers.values() {
        assert_eq!((reader.last, reader.gaps), (Some(31), 0));
    }
    assert!(
        world.ends[&mutation].starts_with("ambiguous: no cause"),
        "its time was up: {:?}",
        world.ends
    );
    world.check_settled().unwrap();
}

#[test]
fn the_goodbye_to_the_connection_before_is_that_of_its_subprotocol() {
    for (subprotocol, goodbye) in
        [(MODERN, &["close"][..]), (LEGACY, &["stop", "connection_terminate", "close"])]
    {
        let mut world = World::open(fixed(subprotocol), 0);
        world.slow_calls = true;
        world.rig.session.connect(world.rig.now);
        let query = world.call(OperationType::Query);
        world.settle().unwrap();
        world.rig.session.rotate(world.rig.now);
        acknowledge(&mut world, B);
        world.answer(A);
        while world.down(A).unwrap() {}
        assert!(world.ends[&query].starts_with("answered"));
        let mut said = Vec::new();
        while let Some(transmit) = world.rig.session.poll_transmit(A) {
            said.push(match transmit {
                Transmit::Text(text) => read(&text)["type"].as_str().unwrap().to_owned(),
                Transmit::Close(..) => "close".into(),
                Transmit::Ping(_) => "ping".into(),
            });
        }
        assert_eq!(said, goodbye);
    }
}

#[test]
fn calls_whose_time_on_the_connection_before_is_up_are_completed_there() {
    let mut world = World::open(config(), 0);
    world.slow_calls = true;
    world.call(OperationType::Query);
    world.call(OperationType::Mutation);
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.rig.now += secs(31);
    world.rig.session.handle_timeout(world.rig.now);
    let mut said = Vec::new();
    while let Some(Transmit::Text(text)) = world.rig.session.poll_transmit(A) {
        said.push(read(&text)["type"].as_str().unwrap().to_owned());
    }
    said.retain(|said| said == "complete");
    assert_eq!(said.len(), 2);
}

#[test]
fn credentials_that_were_renewed_and_rejected_are_asked_for_as_rejected() {
    let mut world = World::new(config());
    world.lifetime = Some(secs(30));
    world.subscribe();
    world.settle().unwrap();
    world.live_on(A, secs(28)).unwrap();
    assert_eq!(world.asked.len(), 2);
    world.advance(B).unwrap();
    world.advance(B).unwrap();
    world.lose(B, closed(4403)).unwrap();
    world.live_on(A, secs(1)).unwrap();
    world.fail_credentials(B).unwrap();
    world.live_on(A, secs(31)).unwrap();
    let reasons: Vec<_> = world.asked.iter().map(|asked| asked.1).collect();
    assert_eq!(reasons[..4], ["initial", "expiring", "rejected", "rejected"]);
}

#[test]
fn what_is_parked_before_it_is_written_on_the_new_connection_is_written_there_once() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.rig.session.rewind(1);
    world.rig.session.catch_up(world.rig.now, 1);
    world.settle().unwrap();
    assert_eq!(world.wires[B as usize].ids.len(), 1);
    world.live(secs(10)).unwrap();
    world.check_settled().unwrap();
}

#[test]
fn a_connection_that_is_not_read_is_not_told_to_stop_however_long_that_takes() {
    let mut world = World::open(config(), 1);
    world.publish_all();
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    world.rig.session.stall();
    world.stalled = true;
    for _ in 0..60 {
        world.rig.now += secs(1);
        world.rig.session.handle_timeout(world.rig.now);
        world.perform().unwrap();
        world.write(A, 9);
        while world.up(A).unwrap() {}
    }
    assert!(
        world.wires[A as usize].completed.is_empty(),
        "what it has not sent would be forgotten"
    );
    world.stalled = false;
    world.rig.session.unstall(world.rig.now);
    world.live(secs(9)).unwrap();
    assert!(world.wires[A as usize].completed.is_empty(), "the time until now does not count");
    world.live_busily(secs(1)).unwrap();
    assert_eq!(world.readers[&1].gaps, 0);
    world.check_settled().unwrap();
}

#[test]
fn a_loss_that_asks_for_time_is_heard_by_the_attempt_that_takes_its_place() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    world.perform().unwrap();
    world.fail_credentials(B).unwrap();
    let asked = world.asked.len();
    world.lose(A, closed(1013)).unwrap();
    let lost = world.rig.now;
    world.live(secs(60)).unwrap();
    assert!(world.asked[asked].0 - lost >= secs(5), "{:?}", world.asked);
    world.check_settled().unwrap();
}

#[test]
fn an_operation_that_was_told_where_to_go_on_moves_at_the_first_item() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.rig.session.resume_from(1, Some("{\"query\":\"1\"}".into()));
    world.write(B, 9);
    while world.up(B).unwrap() {}
    world.publish_all();
    while world.down(B).unwrap() {}
    assert_eq!((world.readers[&1].last, world.readers[&1].overlaps), (Some(1), 1));
    assert!(!world.rig.session.is_moving());
}

#[test]
fn a_new_connection_that_stays_silent_while_the_old_one_does_not_is_not_waited_for_without_end() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    // The server has lost it there.
    world.wires[B as usize].carried.clear();
    for _ in 0..40 {
        world.publish_all();
        world.live(secs(1)).unwrap();
    }
    assert!(!world.wires[A as usize].open);
    assert_eq!(world.readers[&1].gaps, 1, "nobody knows what is missing");
}

#[test]
fn a_handover_that_is_undone_is_none() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    assert_eq!(world.rig.session.counts().handovers, 1);
    world.lose(B, closed(1001)).unwrap();
    assert_eq!((world.rig.session.current, world.rig.session.counts().handovers), (A, 0));
}

#[test]
fn a_rotation_begins_as_soon_as_the_one_before_has_ended() {
    let mut world = World::open(config(), 1);
    world.slow_calls = true;
    world.call(OperationType::Query);
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.live(in_millis(11_500)).unwrap();
    assert!(!world.rig.session.is_moving());
    world.rig.session.rotate(world.rig.now);
    world.live(in_millis(100)).unwrap();
    world.answer(A);
    world.settle().unwrap();
    assert_eq!(world.rotated, 2, "without a delay");
}
