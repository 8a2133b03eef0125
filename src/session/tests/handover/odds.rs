//! What happens beside a handover, and must not make it lie, hang or hurry.

use super::*;
use crate::session::connection::timers::Timer;

/// Opens the successor, without reading anything on the other connection.
pub(super) fn acknowledge(world: &mut World, on: ConnectionId) {
    for _ in 0..10 {
        if world.wires[on as usize].acked {
            return;
        }
        world.advance(on).unwrap();
        world.write(on, 1);
        world.up(on).unwrap();
        world.down(on).unwrap();
    }
    panic!("no acknowledgement");
}

#[test]
fn a_mutation_on_the_old_connection_is_ambiguous_when_the_new_one_ends_everything() {
    let mut world = World::open(Config { refusal_grace: Duration::ZERO, ..config() }, 1);
    world.slow_calls = true;
    let mutation = world.call(OperationType::Mutation);
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.live(secs(12)).unwrap();
    assert!(world.wires[A as usize].open && !world.rig.session.is_moving());
    world.lose(B, closed(4406)).unwrap();
    assert!(world.ends[&1].starts_with("lost"), "{:?}", world.ends);
    assert!(
        world.ends[&mutation].starts_with("ambiguous"),
        "it may have been executed: {:?}",
        world.ends
    );
}

#[test]
fn a_loss_long_after_a_renewal_is_a_reconnect_to_the_provider() {
    let mut world = World::new(config());
    world.lifetime = Some(secs(30));
    world.subscribe();
    world.settle().unwrap();
    world.lifetime = None;
    world.live(secs(300)).unwrap();
    assert_eq!(
        world.asked.iter().map(|asked| asked.1).collect::<Vec<_>>(),
        ["initial", "expiring"]
    );
    world.lose(B, closed(1001)).unwrap();
    world.live(secs(10)).unwrap();
    assert_eq!(world.asked[2].1, "reconnect");
}

#[test]
fn a_rotation_long_before_the_credentials_end_is_a_reconnect_to_the_provider() {
    let mut world = World::new(config());
    world.lifetime = Some(secs(3_600));
    world.subscribe();
    world.live(secs(10)).unwrap();
    world.rig.session.rotate(world.rig.now);
    world.live(secs(10)).unwrap();
    assert_eq!(world.asked[1].1, "reconnect");
}

#[test]
fn whoever_waits_for_another_connection_is_answered_when_there_is_nothing_left_to_be_connected_for()
{
    // The idle connection goes before its successor comes.
    let mut world = World::open(config(), 1);
    world.cancel(1);
    world.rig.session.rotate(world.rig.now);
    world.pass(secs(31)).unwrap();
    assert!(world.wires.iter().all(|wire| !wire.open));
    assert_eq!(world.rotated, 1);
    // It is lost.
    let mut world = World::open(config(), 1);
    world.cancel(1);
    world.rig.session.rotate(world.rig.now);
    world.perform().unwrap();
    world.lose(A, closed(1001)).unwrap();
    assert_eq!(world.rotated, 1);
    // Its last operation goes in the retry sleep.
    let mut world = World::open(config(), 1);
    world.lose(A, closed(1001)).unwrap();
    world.rig.session.rotate(world.rig.now);
    world.cancel(1);
    world.perform().unwrap();
    assert_eq!(world.rotated, 1);
    // Nobody wants a connection for now.
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    world.rig.session.pause(world.rig.now);
    world.perform().unwrap();
    assert_eq!(world.rotated, 1);
}

#[test]
fn who_waits_for_a_proof_of_what_is_moving_does_not_make_it_spin() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.rig.session.probe(1);
    // No ping for each pong, or it never settles.
    world.settle().unwrap();
    assert_eq!(world.established, [1], "either connection will do");
}

#[test]
fn a_server_that_answers_no_ping_does_not_stop_the_streams() {
    let mut world = World::open(Config { ping_interval: None, ..config() }, 2);
    world.mute = true;
    world.rig.session.rotate(world.rig.now);
    // By now the old connection was told to stop, so this comes on the new one alone.
    world.live(secs(5)).unwrap();
    world.publish_all();
    world.live(secs(15)).unwrap();
    for reader in world.readers.values() {
        assert_eq!((reader.last, reader.gaps), (Some(1), 1));
    }
    world.check_settled().unwrap();
}

#[test]
fn a_server_that_says_goodbye_to_every_connection_sees_growing_delays() {
    let mut world = World::open(config(), 1);
    world.farewell = true;
    world.rig.session.handle_frame(world.rig.now, A, r#"{"type":"connection_terminate"}"#);
    world.live_busily(secs(300)).unwrap();
    assert!((10..100).contains(&world.asked.len()), "{} dials in five minutes", world.asked.len());
    assert_eq!(world.readers[&1].gaps, 0);
}

#[test]
fn a_connection_that_goes_on_does_not_reset_the_backoff_of_its_successor() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    let begun = world.rig.now;
    while world.rig.now < begun + secs(300) {
        world.live_on(A, in_millis(500)).unwrap();
        world.fail_credentials(B).unwrap();
        // What is new is to prove itself.
        let id = world.subscribe();
        world.live_on(A, in_millis(500)).unwrap();
        world.cancel(id);
    }
    assert!(
        (10..40).contains(&world.asked.len()),
        "{} attempts in five minutes",
        world.asked.len()
    );
}

#[test]
fn a_successor_that_is_acknowledged_and_lost_again_and_again_sees_growing_delays() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    let begun = world.rig.now;
    while world.rig.now < begun + secs(600) {
        world.perform().unwrap();
        let successor = world.rig.session.other().map(|other| other.id);
        if successor.is_some_and(|on| world.wires[on as usize].asked) {
            acknowledge(&mut world, successor.unwrap());
            world.lose(successor.unwrap(), closed(1011)).unwrap();
        }
        world.live_on(A, secs(1)).unwrap();
    }
    let delays: Vec<_> = world.asked[1..].windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(world.asked.len() < 90, "{delays:?}");
    assert_eq!(world.readers[&1].gaps, 0);
}

#[test]
fn a_shutdown_in_the_middle_completes_what_is_moving_on_the_new_connection() {
    let mut world = World::open(config(), 2);
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    assert!(world.rig.session.is_moving());
    world.rig.session.shutdown(world.rig.now, world.rig.now + secs(1));
    world.perform().unwrap();
    let mut said = Vec::new();
    while let Some(transmit) = world.rig.session.poll_transmit(B) {
        said.push(match transmit {
            Transmit::Text(text) => read(&text)["type"].as_str().unwrap().to_owned(),
            Transmit::Close(code, _) => code.0.to_string(),
            Transmit::Ping(_) => "ping".into(),
        });
    }
    assert_eq!(said, ["complete", "complete", "1000"]);
}

#[test]
fn a_subscription_that_stays_is_not_taken_for_stale_because_a_handover_failed() {
    let mut world = World::new(config());
    world.rig.watch_options.first_item_within = Some(secs(5));
    world.subscribe();
    world.settle().unwrap();
    world.publish_all();
    world.live(secs(20)).unwrap();
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.lose(B, closed(1011)).unwrap();
    world.live_on(A, secs(20)).unwrap();
    assert_eq!((world.stale.len(), world.readers[&1].gaps), (0, 0));
}

#[test]
fn answers_that_wait_unread_are_not_given_up() {
    let mut world = World::open(config(), 1);
    world.slow_calls = true;
    let mutation = world.call(OperationType::Mutation);
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.live(secs(3)).unwrap();
    world.answer(A);
    world.rig.session.stall();
    world.pass(secs(60)).unwrap();
    world.rig.session.unstall(world.rig.now);
    world.live(secs(12)).unwrap();
    assert_eq!(world.ends[&mutation], r#"answered {"data":1}"#);
    world.calls.clear();
    world.check_settled().unwrap();
}

#[test]
fn the_attempt_at_a_successor_is_not_one_that_failed() {
    let mut world = World::open(Config { give_up_after: Some(1), ..config() }, 1);
    world.live(secs(20)).unwrap();
    world.rig.session.rotate(world.rig.now);
    world.perform().unwrap();
    world.lose(A, closed(1001)).unwrap();
    assert_eq!(world.ends.get(&1), None);
    world.live(secs(10)).unwrap();
    world.check_settled().unwrap();
}

#[test]
fn what_is_dropped_while_it_is_held_does_not_count_as_held() {
    let mut world = World::open(config(), 2);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.write(B, 9);
    while world.up(B).unwrap() {}
    world.publish(1);
    world.down(B).unwrap();
    world.cancel(1);
    world.perform().unwrap();
    assert_eq!(world.rig.session.operations.held_bytes(), 0);
}

#[test]
fn an_id_that_was_never_given_is_nobodys() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    let id = crate::protocol::WireId { serial: 0, slot: 0 }.to_string();
    let frame = json!({"type": "next", "id": id, "payload": {"data": 1}}).to_string();
    world.rig.session.handle_frame(world.rig.now, B, &frame);
    assert_eq!(world.rig.session.operations.held_bytes(), 0);
    assert!(world.rig.session.current().unwrap().timers.at(Timer::Healthy).is_some());
}

#[test]
fn what_the_server_ends_itself_on_the_connection_before_is_not_completed_there() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.write(B, 9);
    while world.up(B).unwrap() {}
    world.publish_all();
    world.end(A, 0);
    world.down(B).unwrap();
    // To be completed on A, which has not written it yet.
    while world.down(A).unwrap() {}
    world.settle().unwrap();
    assert!(world.wires[A as usize].completed.is_empty());
    world.live(secs(10)).unwrap();
    world.check_settled().unwrap();
}

#[test]
fn the_last_call_on_the_connection_before_ends_the_retry_sleep() {
    let mut world = World::open(config(), 1);
    world.slow_calls = true;
    let query = world.call(OperationType::Query);
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.live(secs(12)).unwrap();
    world.lose(B, closed(1001)).unwrap();
    world.cancel(1);
    world.answer(A);
    while world.down(A).unwrap() {}
    assert!(world.ends[&query].starts_with("answered"));
    world.live(secs(60)).unwrap();
    assert_eq!(world.asked.len(), 2, "nobody is asked for credentials");
    assert!(world.wires.iter().all(|wire| !wire.open));
}

#[test]
fn items_that_were_held_and_are_to_come_again_do_not_count() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.write(B, 9);
    while world.up(B).unwrap() {}
    for _ in 0..3 {
        world.publish_all();
    }
    for _ in 0..3 {
        world.down(B).unwrap();
    }
    world.rig.session.handle_lost(world.rig.now, A, Disconnect::Reset(None));
    while let Some(output) = world.rig.session.poll_output() {
        if let Output::Deliver { id, mut backlog, .. } = output {
            assert_eq!(backlog.pop().map(|_| backlog.len()), Some(2));
            world.rig.session.rewind(id);
            world.rig.session.delivered(world.rig.now, id, backlog);
        }
    }
    assert_eq!(world.rig.session.counts().items, 1);
}

#[test]
fn an_error_on_the_connection_before_is_a_gap_where_the_operation_goes_on() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    acknowledge(&mut world, B);
    world.write(B, 9);
    while world.up(B).unwrap() {}
    world.publish_all();
    world.down(B).unwrap();
    let wire_id = world.wires[A as usize].carried.keys().next().unwrap().clone();
    let error = json!({"type": "error", "id": wire_id, "payload": [{"message": "too slow"}]});
    world.rig.session.handle_frame(world.rig.now, A, &error.to_string());
    world.perform().unwrap();
    assert_eq!((world.readers[&1].last, world.readers[&1].gaps, world.ends.len()), (Some(1), 1, 0));
}

#[test]
fn a_burst_on_the_old_connection_is_waited_for_while_the_new_one_is_silent() {
    let mut world = World::open(config(), 1);
    for _ in 0..60 {
        world.publish_all();
    }
    world.rig.session.rotate(world.rig.now);
    world.perform().unwrap();
    // The server sends one of these at a time, and forgets them when it is told to stop.
    for _ in 0..400 {
        world.advance(B).unwrap();
        world.write(B, 9);
        while world.up(B).unwrap() {}
        world.begin(B);
        while world.down(B).unwrap() {}
        world.write(A, 9);
        while world.up(A).unwrap() {}
        let item = world.wires[A as usize].unsent.pop_front();
        world.wires[A as usize].down.extend(item.map(|(_, item)| super::world::Down::Text(item)));
        let unsent = std::mem::take(&mut world.wires[A as usize].unsent);
        while world.down(A).unwrap() {}
        world.wires[A as usize].unsent = unsent;
        world.rig.now += in_millis(100);
        world.rig.session.handle_timeout(world.rig.now);
        world.perform().unwrap();
    }
    let reader = &world.readers[&1];
    assert_eq!((reader.last, reader.gaps, reader.repeated), (Some(60), 1, 0));
    assert!(reader.may_miss(), "the gap comes after all of them");
    assert!(!world.wires[A as usize].open);
}

#[test]
fn a_value_that_comes_again_is_not_taken_for_the_item_that_both_have_said() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    let ids = [A, B].map(|on| world.wires[on as usize].carried.keys().next().unwrap().clone());
    let say = |world: &mut World, on: ConnectionId, n: u64| {
        let frame =
            json!({"type": "next", "id": ids[on as usize], "payload": {"data": n}}).to_string();
        world.rig.session.handle_frame(world.rig.now, on, &frame).is_some()
    };
    // The old connection is behind: 5, 6, 5, of which the new one has but the last.
    assert!(say(&mut world, A, 5));
    assert!(!say(&mut world, B, 5));
    assert!(say(&mut world, A, 6), "the old one still counts");
    assert!(say(&mut world, A, 5));
    assert!(!say(&mut world, B, 7));
    assert!(say(&mut world, A, 7), "and with it the new one takes over");
    assert!(!world.rig.session.is_moving());
}

#[test]
fn a_probe_that_was_never_answered_before_does_not_stop_the_streams() {
    let mut world = World::open(Config { ping_interval: None, ..config() }, 1);
    world.mute = true;
    world.rig.session.probe(1);
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.live(secs(30)).unwrap();
    world.publish_all();
    world.live(secs(1)).unwrap();
    assert_eq!(world.readers[&1].last, Some(1));
    world.check_settled().unwrap();
}

#[test]
fn a_stream_that_ends_while_it_moves_has_all_of_its_items_though_there_is_no_room_for_them_at_once()
{
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    world.publish_all();
    world.publish_all();
    world.end(B, 0);
    while world.down(B).unwrap() {}
    world.down(A).unwrap();
    // As the driver does it: the reader has no room for the first of what is held.
    let id = world.wires[A as usize].carried.keys().next().unwrap();
    let frame = json!({"type": "next", "id": id, "payload": {"data": 2}});
    assert!(world.rig.session.handle_frame(world.rig.now, A, &frame.to_string()).is_some());
    world.rig.session.rewind(1);
    world.perform().unwrap();
    assert!(world.ends.is_empty(), "it is not over: {:?}", world.ends);
    assert_eq!(world.rig.session.live_operations(), 1);
}
