//! Operations that are sent again alone: restarted after an end that is none, or from where their
//! reader has caught up.

use super::*;
use crate::error::Violation;
use crate::session::operations::Why;

const RESTART: WatchOptions = WatchOptions {
    restart: true,
    first_item_within: None,
    idle_longer_than: None,
    reissue_stale: false,
};

/// An open connection, whose silence does not matter, with one operation that is looked after.
fn caring(config: Config, watch_options: WatchOptions) -> Rig {
    let mut rig = Rig::new(Config { ping_interval: None, ..config });
    rig.watch_options = watch_options;
    rig.subscribe();
    rig.connect();
    rig
}

fn item(id: &str) -> Value {
    json!({"type": "next", "id": id, "payload": {"data": 1}})
}

fn complete(id: &str) -> Value {
    json!({"type": "complete", "id": id})
}

/// The server ends the operation that has this id there, and is not believed.
fn restart(rig: &mut Rig, id: &str) -> Duration {
    assert_eq!(rig.receive(complete(id)), [Did::Judge(1, "completed".into())]);
    rig.session.restart(rig.now, 1);
    assert_eq!(rig.take(), []);
    delay(rig)
}

/// Of the operation's own backoff.
fn delay(rig: &Rig) -> Duration {
    rig.session.operations.next_deadline().expect("a backoff").0 - rig.now
}

const EVERY_WAIT: [Why; 3] = [Why::Reader, Why::Application, Why::Backoff];

/// The first operation, known as `1.0`, waits; the second one, `2.1`, does not. Nothing was written
/// since.
fn waiting_for(config: Config, waits: Why) -> Rig {
    let mut rig = caring(config, RESTART);
    rig.watch_options = WatchOptions::default();
    rig.subscribe();
    rig.take();
    match waits {
        Why::Reader => rig.session.rewind(1),
        Why::Application | Why::Backoff => {
            assert!(
                rig.session
                    .handle_frame(rig.now, ConnectionId::A, &complete("1.0").to_string())
                    .is_none()
            );
        }
        Why::Connection | Why::Pacing | Why::Quarantine => {}
    }
    if waits == Why::Backoff {
        rig.session.restart(rig.now, 1);
    }
    rig
}

/// What was waited for has come.
fn release(rig: &mut Rig, waits: Why) {
    match waits {
        Why::Reader => rig.session.catch_up(rig.now, 1),
        Why::Application => rig.session.restart(rig.now, 1),
        Why::Backoff | Why::Connection | Why::Pacing | Why::Quarantine => {}
    }
}

fn reissues(did: &[Did]) -> Vec<(u64, u32)> {
    let reissue = |did: &Did| {
        if let Did::Reissue(id, reconnects) = did { Some((*id, *reconnects)) } else { None }
    };
    did.iter().filter_map(reissue).collect()
}

#[test]
fn an_operation_that_is_restarted_is_sent_again_under_a_new_id_after_a_delay_of_its_own() {
    for (subprotocol, start) in [(MODERN, "subscribe"), (LEGACY, "start")] {
        for (kind, end) in [("complete", "completed"), ("error", "rejected")] {
            let mut rig = caring(fixed(subprotocol), RESTART);
            let did =
                rig.receive(json!({"type": kind, "id": "1.0", "payload": [{"message": "m"}]}));
            assert_eq!(did, [Did::Judge(1, end.into())]);
            rig.session.restart(rig.now, 1);
            assert_eq!(rig.take(), [], "rule 13: what the server ended is not completed");
            let delay = delay(&rig);
            assert!(
                delay >= config().backoff_base && delay <= 3 * config().backoff_base,
                "{delay:?}"
            );
            assert_eq!(rig.pass(delay.saturating_sub(Duration::from_nanos(1))), []);
            let did = rig.pass(Duration::from_nanos(1));
            assert_eq!(reissues(&did), [(1, 0)]);
            assert_eq!(
                (issued(&did), wrote(&did)),
                (vec![("2.0".into(), "1".into())], vec![start.into()])
            );
            let gap = &rig.gaps[0];
            assert_eq!((gap.restarts, gap.reconnects, gap.down_for), (1, 0, Duration::ZERO));
            assert!(gap.cause.is_none(), "the connection was not lost");
            assert_eq!(rig.receive(item("2.0")), [Did::Deliver(1, json!({"data": 1}))]);
        }
    }
}

#[test]
fn the_delays_between_restarts_grow_and_start_over_once_the_operation_ran_for_a_while() {
    let (base, cap) = (config().backoff_base, config().backoff_cap);
    let mut rig = caring(fixed(MODERN), RESTART);
    let (mut serial, mut previous, mut longest) = (1, base, base);
    for _ in 0..30 {
        let delay = restart(&mut rig, &format!("{serial}.0"));
        assert!(delay >= base && delay <= (3 * previous).min(cap), "{delay:?} after {previous:?}");
        (previous, longest) = (delay, longest.max(delay));
        rig.pass(delay);
        serial += 1;
    }
    assert!(longest > cap / 2, "the backoff of the operation is no time that it ran: {longest:?}");
    rig.pass(config().healthy_after);
    assert!(restart(&mut rig, &format!("{serial}.0")) <= 3 * base);
}

#[test]
fn operations_that_one_server_ends_at_once_do_not_come_back_at_once() {
    let mut rig = Rig::new(Config { ping_interval: None, ..fixed(MODERN) });
    rig.watch_options = RESTART;
    for _ in 0..100 {
        rig.subscribe();
    }
    rig.connect();
    for slot in 0..100 {
        rig.receive(complete(&format!("{}.{slot}", slot + 1)));
        rig.session.restart(rig.now, slot + 1);
    }
    let mut busiest = 0;
    for _ in 0..15 {
        busiest = busiest.max(issued(&rig.pass(Duration::from_millis(100))).len());
    }
    assert!(busiest < 25, "{busiest} of 100 within 100 ms");
    assert_eq!(rig.gaps.len(), 100);
}

/// A backoff that has grown, and the id that the operation has now.
fn flapping() -> (Rig, u64) {
    let mut rig = caring(Config { backoff_cap: secs(300), ..fixed(MODERN) }, RESTART);
    for serial in 1..=20 {
        let delay = restart(&mut rig, &format!("{serial}.0"));
        rig.pass(delay);
    }
    (rig, 21)
}

#[test]
fn an_outage_is_no_time_that_an_operation_ran_but_an_item_proves_that_it_did() {
    for (item_after, starts_over) in [(None, false), (Some(secs(9)), false), (Some(secs(10)), true)]
    {
        let (mut rig, serial) = flapping();
        if let Some(after) = item_after {
            rig.pass(after);
            assert_eq!(rig.receive(item(&format!("{serial}.0"))).len(), 1);
        }
        rig.lose(Disconnect::Reset(None));
        rig.pass(secs(60));
        rig.session.reconnect_now(rig.now);
        rig.connect();
        let delay = restart(&mut rig, &format!("{}.0", serial + 1));
        let short = 3 * config().backoff_base;
        assert_eq!(delay <= short, starts_over, "{delay:?}, item after {item_after:?}");
    }
}

#[test]
fn an_operation_that_is_not_restarted_is_over_and_nothing_is_said() {
    let mut rig = waiting_for(fixed(MODERN), Why::Application);
    assert_eq!(rig.take(), [Did::Judge(1, "completed".into())]);
    rig.cancel(1);
    assert_eq!((rig.take(), rig.session.live_operations()), (vec![], 1));
    rig.session.restart(rig.now, 1);
    assert_eq!(rig.receive(item("1.0")), []);
    assert_eq!(issued(&rig.pass(secs(60))), []);
    assert_eq!(rig.receive(item("2.1")), [Did::Deliver(2, json!({"data": 1}))]);
}

#[test]
fn only_an_operation_that_was_ended_is_restarted() {
    let mut rig = caring(fixed(MODERN), RESTART);
    for _ in 0..2 {
        rig.session.restart(rig.now, 1);
        rig.session.restart(rig.now, 7);
        assert_eq!(issued(&rig.pass(secs(60))), []);
        rig.session.rewind(1);
        rig.take();
    }
}

#[test]
fn an_operation_that_waits_when_the_connection_is_lost_is_sent_with_the_next_one_exactly_once() {
    for waits in [Why::Backoff, Why::Application, Why::Reader] {
        for after in [Duration::ZERO, secs(60)] {
            let mut rig = waiting_for(fixed(MODERN), waits);
            rig.take();
            rig.lose(Disconnect::Reset(None));
            release(&mut rig, waits);
            rig.pass(after);
            rig.session.reconnect_now(rig.now);
            let did = rig.connect();
            assert_eq!(reissues(&did), [(1, 1), (2, 1)], "{waits:?}");
            assert_eq!(
                issued(&did),
                [("3.0".into(), "1".into()), ("4.1".into(), "2".into())],
                "in its place"
            );
            let gap = &rig.gaps[0];
            assert_eq!((gap.reconnects, gap.restarts), (1, 0));
            assert!(gap.cause.is_some());
            assert_eq!(rig.session.operations.next_deadline(), None, "{waits:?}");
            assert_eq!(issued(&rig.pass(secs(600))), [], "{waits:?}");
            assert_eq!(rig.gaps.len(), 2);
        }
    }
}

#[test]
fn an_operation_whose_backoff_a_new_connection_ended_waits_for_nothing() {
    let mut rig =
        caring(fixed(MODERN), WatchOptions { idle_longer_than: Some(secs(5)), ..RESTART });
    restart(&mut rig, "1.0");
    rig.lose(Disconnect::Reset(None));
    rig.session.reconnect_now(rig.now);
    assert_eq!(issued(&rig.connect()), [("2.0".into(), "1".into())]);
    assert_eq!(rig.pass(secs(600)), [Did::Stale(1, secs(5))], "looked at, not sent again");
}

#[test]
fn what_waits_for_its_reader_or_a_verdict_is_not_sent_with_a_new_connection_but_when_that_has_come()
{
    for waits in [Why::Reader, Why::Application] {
        let mut rig = waiting_for(fixed(MODERN), waits);
        rig.take();
        rig.lose(Disconnect::Reset(None));
        rig.sleep();
        rig.upgrade();
        let did = rig.receive(json!({"type": "connection_ack"}));
        assert_eq!(
            (reissues(&did), issued(&did)),
            (vec![(2, 1)], vec![("3.1".into(), "2".into())])
        );
        release(&mut rig, waits);
        let did = [rig.take(), rig.pass(secs(60))].concat();
        assert_eq!(
            (reissues(&did), issued(&did)),
            (vec![(1, 0)], vec![("4.0".into(), "1".into())]),
            "{waits:?}"
        );
        assert_eq!(rig.gaps[1].restarts, 1);
    }
}

#[test]
fn a_reader_that_has_caught_up_before_the_ack_is_served_with_it() {
    let mut rig = waiting_for(fixed(MODERN), Why::Reader);
    rig.lose(Disconnect::Reset(None));
    rig.sleep();
    rig.upgrade();
    rig.session.catch_up(rig.now, 1);
    assert_eq!(rig.take(), []);
    let did = rig.receive(json!({"type": "connection_ack"}));
    assert_eq!((reissues(&did).len(), issued(&did).len()), (2, 2));
    rig.session.catch_up(rig.now, 1);
    assert_eq!(rig.take(), []);
}

#[test]
fn an_operation_that_waits_is_cancelled_without_a_word_but_what_was_owed() {
    for waits in EVERY_WAIT {
        let mut rig = waiting_for(fixed(MODERN), waits);
        rig.cancel(1);
        let did = rig.take();
        let owed = if waits == Why::Reader { vec!["complete"] } else { vec![] };
        assert_eq!(
            (wrote(&did), finished(&did)),
            (owed.into_iter().map(String::from).collect(), vec![]),
            "{waits:?}"
        );
        release(&mut rig, waits);
        rig.cancel(1);
        let did = [rig.take(), rig.pass(secs(60))].concat();
        assert_eq!((did, rig.session.live_operations()), (vec![], 1), "{waits:?}");
        assert_eq!(rig.session.poll_timeout(), None);
    }
}

#[test]
fn the_last_operation_that_goes_while_it_waits_offline_lets_the_session_rest() {
    for waits in EVERY_WAIT {
        let mut rig = waiting_for(fixed(MODERN), waits);
        rig.cancel(2);
        rig.take();
        let did = rig.lose(Disconnect::Reset(None));
        assert!(waiting(&did).is_some(), "one that waits is a reason to connect: {did:?}");
        rig.cancel(1);
        assert_eq!(rig.take(), [Did::Idle]);
        assert_eq!(rig.session.poll_timeout(), None);
    }
}

#[test]
fn an_operation_that_waits_ends_with_a_shutdown_which_completes_what_is_known_to_the_server() {
    for (subprotocol, complete, goodbye) in [
        (MODERN, "complete", vec!["close 1000"]),
        (LEGACY, "stop", vec!["connection_terminate", "close 1000"]),
    ] {
        for waits in EVERY_WAIT {
            let mut rig = waiting_for(fixed(subprotocol), waits);
            rig.session.shutdown(rig.now, rig.now + secs(1));
            let did = rig.take();
            assert_eq!(finished(&did), [(1, "shut down".into()), (2, "shut down".into())]);
            let owed = 1 + usize::from(waits == Why::Reader);
            assert_eq!(wrote(&did), [vec![complete; owed], goodbye.clone()].concat(), "{waits:?}");
            release(&mut rig, waits);
            assert_eq!(finished(&rig.pass(secs(60))), []);
        }
    }
}

#[test]
fn an_operation_that_waits_ends_with_what_ends_all() {
    for waits in EVERY_WAIT {
        let mut rig = waiting_for(fixed(MODERN), waits);
        rig.take();
        let ends = finished(&rig.lose(Disconnect::Violation(Violation::Unreadable)));
        assert_eq!(ends.iter().map(|end| end.0).collect::<Vec<_>>(), [1, 2], "{waits:?}");
        release(&mut rig, waits);
        assert_eq!((rig.pass(secs(60)), rig.session.live_operations()), (vec![], 0));

        let mut rig = waiting_for(fixed(MODERN), waits);
        rig.session.abandon();
        assert_eq!(finished(&rig.take()).len(), 2);
    }
}

#[test]
fn i3_what_still_comes_for_an_operation_that_waits_or_was_sent_again_is_ignored() {
    for waits in EVERY_WAIT {
        let mut rig = waiting_for(fixed(MODERN), waits);
        rig.take();
        let late =
            [item("1.0"), complete("1.0"), json!({"type": "error", "id": "1.0", "payload": []})];
        for (ignored, message) in (1..).zip(&late) {
            assert_eq!(rig.receive(message.clone()), [], "{waits:?}");
            // An item for one that was rewound has a count of its own.
            let discarded = u64::from(waits == Why::Reader);
            let counts = rig.session.counts();
            assert_eq!((counts.ignored, counts.discarded), (ignored - discarded, discarded));
        }
        release(&mut rig, waits);
        rig.take();
        rig.pass(secs(60));
        for message in late {
            assert_eq!(rig.receive(message), [], "{waits:?}");
        }
        assert_eq!(rig.receive(item("3.0")), [Did::Deliver(1, json!({"data": 1}))]);
    }
}

#[test]
fn a_rewound_operation_is_completed_and_sent_again_once_its_reader_has_caught_up() {
    for (subprotocol, stop, start) in [(MODERN, "complete", "subscribe"), (LEGACY, "stop", "start")]
    {
        let mut rig = caring(fixed(subprotocol), WatchOptions::default());
        rig.session.rewind(1);
        assert_eq!(rig.take(), [Did::Wrote(json!({"type": stop, "id": "1.0"}))]);
        rig.session.rewind(1);
        assert_eq!(rig.take(), [], "once");
        assert_eq!(rig.receive(item("1.0")), []);
        assert_eq!(rig.pass(secs(600)), []);

        rig.session.resume_from(1, Some(r#"{"query":"1","variables":{"after":7}}"#.into()));
        rig.session.catch_up(rig.now, 1);
        rig.session.catch_up(rig.now, 1);
        let did = rig.take();
        assert_eq!((reissues(&did), wrote(&did)), (vec![(1, 0)], vec![start.into()]));
        let Some(Did::Wrote(message)) = did.last() else { panic!("{did:?}") };
        assert_eq!(
            (&message["id"], &message["payload"]["variables"]["after"]),
            (&json!("2.0"), &json!(7))
        );
        assert_eq!((rig.gaps[0].restarts, rig.gaps[0].reconnects), (1, 0));
        assert_eq!(rig.receive(item("2.0")), [Did::Deliver(1, json!({"data": 1}))]);
    }
}

#[test]
fn rule_13_a_rewind_that_crosses_the_servers_end_is_not_said_any_more() {
    let mut rig = waiting_for(fixed(MODERN), Why::Reader);
    assert_eq!(rig.receive(complete("1.0")), []);
    rig.session.catch_up(rig.now, 1);
    assert_eq!(wrote(&rig.take()), ["subscribe"]);
}

#[test]
fn an_operation_that_the_server_does_not_have_is_not_rewound() {
    let mut rig = Rig::new(Config { ping_interval: None, ..fixed(MODERN) });
    rig.subscribe();
    rig.session.rewind(1);
    assert_eq!(issued(&rig.connect()), [("1.0".into(), "1".into())], "nor before a connection");
    let second = rig.subscribe();
    rig.session.rewind(second);
    rig.session.rewind(7);
    assert_eq!(issued(&rig.take()), [("2.1".into(), "2".into())], "nor before it is written");
    // What was held may be delivered when the connection is gone: it is sent again anyway.
    rig.lose(Disconnect::Reset(None));
    rig.session.rewind(1);
    rig.sleep();
    rig.upgrade();
    rig.session.handle_frame(rig.now, ConnectionId::A, r#"{"type":"connection_ack"}"#);
    rig.session.rewind(2);
    assert_eq!(issued(&rig.take()), [("3.0".into(), "1".into()), ("4.1".into(), "2".into())]);
    rig.session.catch_up(rig.now, 1);
    assert_eq!(rig.take(), [], "once");
}

#[test]
fn a_call_and_what_the_server_has_ended_are_not_rewound_and_what_was_not_does_not_catch_up() {
    let mut rig = caring(fixed(MODERN), WatchOptions::default());
    for kind in [OperationType::Mutation, OperationType::Query] {
        let call = rig.begin(kind);
        rig.session.rewind(call);
        assert_eq!(issued(&rig.take()).len(), 1);
        rig.session.rewind(call);
        assert_eq!(rig.take(), [], "it must not be sent twice");
    }
    rig.session.rewind(7);
    rig.session.catch_up(rig.now, 1);
    rig.session.catch_up(rig.now, 7);
    assert_eq!(rig.take(), []);
    for waits in [Why::Application, Why::Backoff] {
        let mut rig = waiting_for(fixed(MODERN), waits);
        rig.take();
        rig.session.rewind(1);
        rig.session.catch_up(rig.now, 1);
        assert_eq!(rig.take(), [], "{waits:?}");
        release(&mut rig, waits);
        assert_eq!(issued(&rig.pass(secs(60))), [("3.0".into(), "1".into())], "{waits:?}");
    }
}

#[test]
fn rule_26_what_is_looked_after_keeps_its_place_among_what_is_not() {
    let mut rig = Rig::new(config());
    for n in 0..6 {
        rig.watch_options = if n % 2 == 0 { RESTART } else { WatchOptions::default() };
        rig.subscribe();
    }
    let order = |did: &[Did]| issued(did).into_iter().map(|issued| issued.1).collect::<String>();
    assert_eq!(order(&rig.connect()), "123456");
    rig.lose(Disconnect::Reset(None));
    rig.sleep();
    assert_eq!(order(&rig.connect()), "123456");
}
