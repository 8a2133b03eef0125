//! Handovers: what is moved, when, and what follows when one of the two connections fails.

use std::cmp::Ordering;

use proptest::{prelude::*, test_runner::TestCaseError};

use self::world::World;
use super::*;

mod held;
mod limits;
mod odds;
mod reader;
mod server;
mod simulation;
mod world;

const A: ConnectionId = ConnectionId::A;
const B: ConnectionId = ConnectionId::B;

type Tried = Result<(), TestCaseError>;

fn in_millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_rotation_of_busy_streams_is_no_outage_and_closes_the_old_connection_with_1000() {
    let mut world = World::open(config(), 3);
    world.publish_all();
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    assert_eq!((world.rotated, world.asked.len()), (1, 2));
    assert_eq!(world.carried(A), [1, 2, 3], "both carry the operations");
    assert_eq!(world.carried(B), [1, 2, 3], "both carry the operations");
    world.publish_all();
    world.live(secs(5)).unwrap();
    assert_eq!(world.carried(A), [1, 2, 3], "one item proves nothing");
    world.publish_all();
    world.settle().unwrap();
    world.check_settled().unwrap();
    assert!(world.wires[B as usize].open, "the new one is left");
    assert_eq!(world.closes, [1000]);
    world.publish_all();
    world.settle().unwrap();
    for reader in world.readers.values() {
        assert_eq!(
            (reader.last, reader.gaps, reader.overlaps, reader.repeated),
            (Some(4), 0, 1, 1),
            "1, 2, 3, the overlap, 2, 3, 4"
        );
    }
    assert_eq!(world.rig.session.counts().handovers, 1);
}

#[test]
fn without_a_proof_both_connections_carry_a_stream_for_ten_seconds_and_a_gap_says_so() {
    // What is said, and on which connection: never the same two items in a row on both.
    let cases: [&[(ConnectionId, u64)]; 7] = [
        &[],
        &[(A, 2)],
        &[(B, 2)],
        &[(A, 2), (A, 3), (A, 4)],
        &[(B, 2), (B, 3), (B, 4)],
        &[(A, 2), (B, 2)],
        &[(A, 2), (A, 3), (B, 3), (B, 4)],
    ];
    for said in cases {
        let mut world = World::open(config(), 1);
        world.publish_all();
        world.settle().unwrap();
        world.rig.session.rotate(world.rig.now);
        world.settle().unwrap();
        let begun = world.rig.now;
        for (on, n) in said {
            world.pass(secs(1)).unwrap();
            world.say_item(*on, *n);
            world.down(*on).unwrap();
        }
        world.live(begun + in_millis(9_900) - world.rig.now).unwrap();
        assert_eq!(world.carried(A), [1], "{said:?}");
        assert_eq!((world.readers[&1].gaps, world.readers[&1].overlaps), (0, 0), "{said:?}");
        world.live(in_millis(1_200)).unwrap();
        world.check_settled().unwrap();
        assert_eq!((world.readers[&1].gaps, world.readers[&1].overlaps), (1, 1), "{said:?}");
        let [gap] = &world.gaps[..] else { panic!("{said:?}: {:?}", world.gaps) };
        assert!(!gap.is_lossless() && gap.cause.is_none(), "{said:?}: {gap:?}");
    }
}

#[test]
fn an_old_connection_that_is_late_by_less_than_ten_seconds_loses_nothing() {
    for late in [in_millis(2_500), in_millis(9_800)] {
        let mut world = World::open(config(), 1);
        world.rig.session.rotate(world.rig.now);
        // The server sends these late, and forgets what it has not sent when it is told to stop.
        for _ in 0..3 {
            world.publish_all();
        }
        let unsent = std::mem::take(&mut world.wires[A as usize].unsent);
        world.settle().unwrap();
        world.live(late).unwrap();
        assert_eq!(world.readers[&1].last, None, "{late:?}");
        world.wires[A as usize].unsent = unsent;
        world.live(secs(12)).unwrap();
        world.check_settled().unwrap();
        assert_eq!(world.readers[&1].last, Some(3), "{late:?}");
        assert_eq!(world.readers[&1].gaps, 1, "{late:?}: nobody knows that it was everything");
    }
}

#[test]
fn what_comes_on_both_connections_is_announced_and_comes_in_the_order_of_each() {
    let mut world = World::open(config(), 1);
    // The old connection has begun the operation.
    world.publish_all();
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.perform().unwrap();
    while !world.wires[B as usize].acked {
        world.advance(B).unwrap();
        world.write(B, 1);
        world.up(B).unwrap();
        world.down(B).unwrap();
    }
    world.write(B, 9);
    while world.up(B).unwrap() {}
    // Two events: the old connection is behind.
    world.publish_all();
    world.publish_all();
    world.down(B).unwrap();
    world.down(B).unwrap();
    let reader = world.readers.values().next().unwrap();
    assert_eq!((reader.last, reader.overlaps), (Some(1), 0), "what the new one says is held");
    world.down(A).unwrap();
    world.down(A).unwrap();
    let reader = world.readers.values().next().unwrap();
    assert_eq!(
        (reader.last, reader.gaps, reader.overlaps, reader.repeated),
        (Some(3), 0, 1, 1),
        "1, 2, 3, and 2, 3"
    );
    world.live(secs(10)).unwrap();
    world.check_settled().unwrap();
}

#[test]
fn a_successor_that_fails_at_any_point_before_the_acknowledgement_leaves_the_streams_alone() {
    let causes = [closed(1000), closed(4400), closed(4403), closed(4500), Disconnect::Reset(None)];
    for (point, cause) in (0..4).flat_map(|point| causes.iter().map(move |cause| (point, cause))) {
        let mut world = World::open(config(), 2);
        world.rig.session.rotate(world.rig.now);
        world.perform().unwrap();
        for _ in 0..3 {
            if point == 0 {
                world.fail_credentials(B).unwrap();
            } else {
                for _ in 0..point {
                    world.advance(B).unwrap();
                }
                if point == 3 {
                    world.write(B, 1);
                    world.up(B).unwrap();
                }
                world.lose(B, cause.clone()).unwrap();
            }
            world.publish_all();
            while world.down(A).unwrap() {}
            world.live_on(A, secs(31)).unwrap();
        }
        assert!(world.postponed >= 3, "{point} {cause:?}");
        assert!(world.ends.is_empty() && world.closes.is_empty(), "{point} {cause:?}");
        for reader in world.readers.values() {
            assert_eq!(
                (reader.last, reader.gaps, reader.overlaps),
                (Some(3), 0, 0),
                "{point} {cause:?}"
            );
        }
        world.live(secs(60)).unwrap();
        assert_eq!(world.rotated, 1, "{point} {cause:?}: it goes on until it is done");
        world.check_settled().unwrap();
    }
}

#[test]
fn a_successor_that_is_lost_while_operations_move_gives_them_back_without_a_gap() {
    let mut world = World::open(config(), 2);
    world.publish_all();
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.perform().unwrap();
    world.advance(B).unwrap();
    world.advance(B).unwrap();
    world.write(B, 1);
    world.up(B).unwrap();
    world.down(B).unwrap();
    world.write(B, 2);
    while world.up(B).unwrap() {}
    world.lose(B, closed(4400)).unwrap();
    assert_eq!(world.rig.session.current, A, "the old one is in use again");
    world.publish_all();
    while world.down(A).unwrap() {}
    for reader in world.readers.values() {
        assert_eq!((reader.last, reader.gaps, reader.overlaps), (Some(2), 0, 0));
    }
    world.live(secs(60)).unwrap();
    world.check_settled().unwrap();
    assert_eq!(world.rig.session.current, B, "and another attempt follows");
}

#[test]
fn a_connection_that_is_behind_is_not_told_to_stop_before_it_has_said_what_the_new_one_does_not() {
    let mut world = World::open(config(), 1);
    world.rig.session.rotate(world.rig.now);
    world.perform().unwrap();
    // The server has not got to send these, and forgets them when it is told to stop.
    for _ in 0..3 {
        world.publish_all();
    }
    while world.wires[B as usize].carried.is_empty() {
        world.advance(B).unwrap();
        world.write(B, 1);
        world.up(B).unwrap();
        world.down(B).unwrap();
    }
    world.publish_all();
    world.down(B).unwrap();
    for _ in 0..9 {
        world.write(A, 9);
        world.up(A).unwrap();
    }
    let reader = world.readers.values().next().unwrap();
    assert_eq!(reader.last, None);
    world.live(secs(9)).unwrap();
    let reader = world.readers.values().next().unwrap();
    assert_eq!((reader.last, reader.gaps), (Some(4), 0), "all of it was waited for");
    world.live(secs(3)).unwrap();
    world.check_settled().unwrap();
    let reader = world.readers.values().next().unwrap();
    assert_eq!((reader.last, reader.gaps, reader.repeated), (Some(4), 1, 1), "4, a gap, 4");
}

/// One thing more happens in a handover from A to B, in which events are published all the time.
fn act(world: &mut World, nth: usize) {
    match nth % 8 {
        0 => world.publish_all(),
        1 => world.advance(B).unwrap(),
        2 => world.write(B, 1),
        3 => drop(world.up(B).unwrap()),
        4 => drop(world.down(B).unwrap()),
        5 => world.write(A, 1),
        6 => drop(world.up(A).unwrap()),
        _ => drop(world.down(A).unwrap()),
    }
}

#[test]
fn whichever_connection_fails_during_a_handover_no_stream_ends_and_no_loss_is_silent() {
    let causes = [closed(1000), closed(4400), closed(4403), closed(4409), Disconnect::Reset(None)];
    for (victims, cause) in
        [&[B][..], &[A], &[A, B], &[B, A]].iter().flat_map(|v| causes.iter().map(move |c| (v, c)))
    {
        let (mut points, mut undone) = (0, 0);
        for point in 0.. {
            let mut world = World::open(config(), 2);
            let mutation = world.call(OperationType::Mutation);
            world.rig.session.rotate(world.rig.now);
            world.perform().unwrap();
            for nth in 0..point {
                act(&mut world, nth);
            }
            if world.rig.session.current == B && world.rig.session.other().is_none() {
                break;
            }
            points += 1;
            let was_moving = world.rig.session.is_moving();
            let has_way_back = world.rig.session.current == A || was_moving;
            for victim in *victims {
                world.lose(*victim, cause.clone()).unwrap();
            }
            undone += u32::from(was_moving && world.rig.session.current == A);
            world.publish_all();
            world.live(secs(120)).unwrap();
            world.publish_all();
            world.live(secs(1)).unwrap();
            // Otherwise it is a loss like any other, and what is fatal is.
            if *victims == [B] && has_way_back {
                assert!(
                    !world.ends.contains_key(&1) && !world.ends.contains_key(&2),
                    "{point} {cause:?} {:?}",
                    world.ends
                );
                assert!(world.asked.len() <= 5, "{point} {cause:?}: {} dials", world.asked.len());
            }
            assert!(
                world.executed.get(&mutation).is_none_or(|times| *times == 1),
                "{point} {cause:?}"
            );
            world.calls.clear();
            world.check_settled().unwrap();
            for reader in world.readers.values() {
                assert_eq!(reader.last, Some(reader.published), "{point} {cause:?}");
            }
        }
        assert!(points > 40, "{points}");
        assert!(*victims != [B] || undone > 10, "{undone}");
    }
}

#[test]
fn the_loss_of_the_old_connection_in_a_handover_is_a_gap_and_no_other_dial() {
    let mut world = World::open(config(), 2);
    world.publish_all();
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    world.lose(A, Disconnect::Reset(None)).unwrap();
    world.publish_all();
    world.live(secs(60)).unwrap();
    world.check_settled().unwrap();
    assert_eq!(world.asked.len(), 2);
    for reader in world.readers.values() {
        assert_eq!((reader.last, reader.gaps), (Some(2), 1));
    }
}

#[test]
fn a_successor_that_is_under_way_takes_the_place_of_a_connection_that_is_lost() {
    let mut world = World::open(config(), 2);
    world.rig.session.rotate(world.rig.now);
    world.perform().unwrap();
    world.advance(B).unwrap();
    world.lose(A, closed(1001)).unwrap();
    world.settle().unwrap();
    assert_eq!((world.asked.len(), world.rotated), (2, 1), "no other dial, and no delay");
    world.check_settled().unwrap();
    assert!(world.readers.values().all(|reader| reader.gaps == 1));
}

#[test]
fn calls_stay_where_they_were_sent_until_they_are_answered() {
    for kind in [OperationType::Query, OperationType::Mutation] {
        let mut world = World::open(config(), 1);
        world.slow_calls = true;
        let call = world.call(kind);
        world.settle().unwrap();
        world.rig.session.rotate(world.rig.now);
        world.live(secs(10)).unwrap();
        assert!(world.wires[A as usize].open && world.rotated == 1, "{kind:?}");
        world.answer(A);
        world.live(secs(1)).unwrap();
        assert_eq!(world.ends[&call], r#"answered {"data":1}"#);
        assert_eq!((world.executed[&call], world.closes.clone()), (1, vec![1000]));
        world.calls.clear();
        world.check_settled().unwrap();
    }
}

#[test]
fn after_the_grace_period_a_mutation_is_ambiguous_and_a_query_is_sent_on_the_new_connection() {
    let mut world = World::open(config(), 1);
    world.slow_calls = true;
    let (query, mutation) = (world.call(OperationType::Query), world.call(OperationType::Mutation));
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.live(secs(29)).unwrap();
    assert!(world.ends.is_empty());
    world.live(secs(2)).unwrap();
    assert!(world.ends[&mutation].starts_with("ambiguous"), "{:?}", world.ends);
    assert!(!world.wires[A as usize].open);
    world.answer(B);
    world.live(secs(1)).unwrap();
    assert!(world.ends[&query].starts_with("answered"), "{:?}", world.ends);
    assert_eq!((world.executed[&query], world.executed[&mutation]), (2, 1));
}

#[test]
fn credentials_that_end_are_renewed_ahead_of_that_with_the_reason() {
    let mut world = World::new(config());
    world.lifetime = Some(secs(30));
    world.subscribe();
    world.live_busily(secs(300)).unwrap();
    assert_eq!(world.asked[0].1, "initial");
    let renewals: Vec<_> =
        world.asked.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair[1].1)).collect();
    assert!((15..=21).contains(&renewals.len()), "{renewals:?}");
    for (after, reason) in &renewals {
        assert!((secs(14)..=secs(18)).contains(after) && *reason == "expiring", "{renewals:?}");
    }
    let distinct: std::collections::BTreeSet<_> = renewals.iter().collect();
    assert!(distinct.len() > 5, "jittered");
    assert_eq!(world.readers.values().next().unwrap().gaps, 0);
}

#[test]
fn a_renewal_that_fails_is_tried_again_with_the_same_reason_and_growing_delays() {
    let mut world = World::new(Config { healthy_after: secs(60), ..config() });
    world.lifetime = Some(secs(3_600));
    world.subscribe();
    world.settle().unwrap();
    world.lifetime = None;
    world.live_on(A, secs(3_600 * 7 / 10 - 1)).unwrap();
    while world.asked.len() < 20 {
        world.live_on(A, secs(1)).unwrap();
        world.fail_credentials(B).unwrap();
    }
    let delays: Vec<_> = world.asked[1..].windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(world.asked[1..].iter().all(|asked| asked.1 == "expiring"), "{:?}", world.asked);
    assert!(delays.iter().all(|delay| *delay >= in_millis(500)), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay > secs(5)), "{delays:?}");
    assert!(world.ends.is_empty());
}

#[test]
fn credentials_that_are_over_at_once_do_not_make_it_spin() {
    for lifetime in [Duration::ZERO, in_millis(1)] {
        let mut world = World::new(config());
        world.lifetime = Some(lifetime);
        world.subscribe();
        world.live(secs(20)).unwrap();
        assert!(world.asked.len() <= 21, "{} dials", world.asked.len());
    }
}

#[test]
fn a_connection_is_replaced_before_it_is_older_than_asked_for_and_each_at_another_time() {
    let mut world = World::open(Config { max_connection_age: Some(secs(100)), ..config() }, 1);
    world.live(secs(1_000)).unwrap();
    let ages: Vec<_> = world.asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(
        (9..=11).contains(&ages.len())
            && ages.iter().all(|age| (secs(90)..=secs(100)).contains(age)),
        "{ages:?}"
    );
    assert!(world.asked[1..].iter().all(|asked| asked.1 == "reconnect"));
}

#[test]
fn a_servers_goodbye_is_followed_by_a_handover() {
    let mut world = World::open(config(), 1);
    world.rig.session.handle_frame(world.rig.now, A, r#"{"type":"connection_terminate"}"#);
    world.live_busily(secs(10)).unwrap();
    world.check_settled().unwrap();
    assert_eq!((world.asked.len(), world.rig.session.current), (2, B));
    assert_eq!(world.readers.values().next().unwrap().gaps, 0);
}

#[test]
fn a_server_that_says_goodbye_to_every_connection_is_no_dial_storm() {
    let mut world = World::open(config(), 1);
    for _ in 0..600 {
        let current = world.rig.session.current;
        for _ in 0..3 {
            world.rig.session.handle_frame(
                world.rig.now,
                current,
                r#"{"type":"connection_terminate"}"#,
            );
        }
        world.live(in_millis(100)).unwrap();
    }
    assert!((3..20).contains(&world.asked.len()), "{} dials in a minute", world.asked.len());
}

#[test]
fn a_mutation_on_the_old_connection_is_ambiguous_when_the_new_one_ends_for_good_or_the_client_does()
{
    let fates: [fn(&mut World); 2] = [
        |world| world.lose(B, closed(4406)).unwrap(),
        |world| world.rig.session.shutdown(world.rig.now, world.rig.now + secs(1)),
    ];
    for fate in fates {
        let mut world = World::open(Config { refusal_grace: Duration::ZERO, ..config() }, 1);
        world.slow_calls = true;
        let mutation = world.call(OperationType::Mutation);
        world.settle().unwrap();
        world.rig.session.rotate(world.rig.now);
        world.live(secs(15)).unwrap();
        fate(&mut world);
        world.perform().unwrap();
        assert!(world.ends[&mutation].starts_with("ambiguous"), "{:?}", world.ends);
        assert_eq!(world.ends.len(), 2, "so is the subscription over");
        assert!(world.rig.session.other().is_none());
    }
}

#[test]
fn an_operation_that_the_server_ends_on_the_old_connection_is_over_on_both() {
    let mut world = World::open(config(), 2);
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    world.end(A, 0);
    world.settle().unwrap();
    assert_eq!(world.ends[&1], "completed");
    assert_eq!(world.carried(B), [2]);
    world.live(secs(12)).unwrap();
    world.check_settled().unwrap();
}

#[test]
fn an_operation_that_is_dropped_or_rewound_while_it_moves_is_completed_on_both_connections() {
    let mut world = World::open(config(), 3);
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    world.cancel(1);
    world.rig.session.rewind(2);
    world.settle().unwrap();
    for wire in &world.wires {
        assert_eq!(wire.carried.values().copied().collect::<Vec<_>>(), [3]);
    }
    world.rig.session.catch_up(world.rig.now, 2);
    world.live(secs(12)).unwrap();
    world.check_settled().unwrap();
    let restarts = world.gaps.iter().filter(|gap| gap.restarts == 1).count();
    assert_eq!((world.readers[&2].gaps, restarts), (1, 1));
}

#[test]
fn a_rotation_waits_for_the_one_before() {
    let mut world = World::open(config(), 1);
    world.slow_calls = true;
    world.call(OperationType::Query);
    world.settle().unwrap();
    world.rig.session.rotate(world.rig.now);
    world.live(secs(5)).unwrap();
    world.rig.session.rotate(world.rig.now);
    world.live(secs(5)).unwrap();
    assert_eq!((world.rotated, world.asked.len()), (1, 2), "a call is on the first connection");
    world.answer(A);
    world.live(secs(5)).unwrap();
    assert_eq!((world.rotated, world.asked.len()), (2, 3));
}

#[test]
fn without_a_connection_there_is_nothing_to_replace() {
    let mut world = World::new(config());
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    assert_eq!((world.rotated, world.asked.len()), (1, 0));
    world.subscribe();
    world.rig.session.rotate(world.rig.now);
    world.perform().unwrap();
    assert_eq!(world.rotated, 1, "the connection that is being made is waited for");
    world.settle().unwrap();
    assert_eq!((world.rotated, world.asked.len()), (2, 1));
}

#[test]
fn whoever_asks_for_a_proof_while_both_connections_carry_the_operation_gets_one() {
    let mut world = World::open(Config { ping_interval: None, ..config() }, 1);
    world.rig.session.rotate(world.rig.now);
    world.settle().unwrap();
    assert_eq!((world.carried(A), world.carried(B)), (vec![1], vec![1]));
    world.rig.session.probe(1);
    world.settle().unwrap();
    assert!(world.rig.session.is_moving());
    assert_eq!(world.established, [1]);
}
