//! What the application wants of the connection itself.

use std::num::NonZeroU32;

use super::*;
use crate::session::{DialBudget, Verdict, VerdictHook};

fn dials(did: &[Did]) -> usize {
    did.iter().filter(|did| matches!(did, Did::Authorize(_))).count()
}

fn budget(dials: u32, per: Duration) -> DialBudget {
    DialBudget { dials: NonZeroU32::new(dials).unwrap(), per }
}

/// Time passes, and the server shows that it is alive.
fn live(rig: &mut Rig, seconds: u64) -> Vec<Did> {
    let mut did = Vec::new();
    for _ in 0..seconds {
        did.extend(rig.pass(secs(1)));
        if rig.session.is_open() {
            rig.receive(json!({"type": "pong"}));
        }
    }
    did
}

#[test]
fn a_ping_that_is_due_meanwhile_does_not_prolong_the_doubt() {
    let mut rig = Rig::open(config(), 1);
    rig.pass(secs(9));
    rig.session.network_changed(rig.now);
    let did = rig.pass(secs(2));
    assert!(did.contains(&Did::Hangup(None)), "{did:?}");
}

#[test]
fn connect_is_answered_at_the_acknowledgement_and_an_unused_connection_is_closed() {
    let mut rig = Rig::new(config());
    rig.session.connect(rig.now);
    let did = rig.connect();
    assert!(did.contains(&Did::Connected(Ok(()))), "{did:?}");
    assert_eq!(did.iter().filter(|did| matches!(did, Did::Connected(_))).count(), 1);
    // Once more, at once.
    rig.session.connect(rig.now);
    assert_eq!(rig.take(), [Did::Connected(Ok(()))]);
    assert!(!live(&mut rig, 29).contains(&Did::Idle));
    let did = live(&mut rig, 2);
    assert!(did.contains(&Did::Hangup(Some(1000))) && did.contains(&Did::Idle), "{did:?}");
    assert_eq!(dials(&rig.pass(secs(1_000))), 0, "I7");
}

#[test]
fn connect_is_answered_with_the_fatal_cause_after_which_nobody_dials() {
    let mut rig = Rig::new(config());
    rig.session.connect(rig.now);
    rig.upgrade();
    rig.lose(closed(1006));
    rig.sleep();
    rig.upgrade();
    let did = rig.lose(closed(4400));
    assert!(
        did.iter().any(|did| matches!(did, Did::Connected(Err(end)) if end.contains("4400"))),
        "{did:?}"
    );
    assert_eq!(dials(&rig.pass(secs(1_000))), 0);
    rig.session.shutdown(rig.now, rig.now + secs(1));
    rig.session.connect(rig.now);
    assert!(rig.take().contains(&Did::Connected(Err("shut down".into()))));
}

#[test]
fn who_waits_for_a_connection_learns_of_a_shutdown_and_of_giving_up() {
    let mut rig = Rig::new(Config { give_up_after: Some(2), ..config() });
    rig.session.connect(rig.now);
    rig.upgrade();
    rig.lose(closed(1006));
    rig.sleep();
    rig.upgrade();
    assert!(rig.lose(closed(1006)).contains(&Did::Connected(Err("gave up after 2".into()))));
    rig.session.connect(rig.now);
    rig.pass(secs(60));
    rig.session.shutdown(rig.now, rig.now + secs(1));
    assert!(rig.take().contains(&Did::Connected(Err("shut down".into()))));
}

#[test]
fn a_connection_without_operations_is_kept_for_the_idle_timeout_and_no_longer() {
    let mut rig = Rig::open(config(), 1);
    rig.cancel(1);
    live(&mut rig, 20);
    let again = rig.subscribe();
    assert!(!live(&mut rig, 100).contains(&Did::Idle), "one is live");
    let id = issued_id(&rig, again);
    rig.receive(json!({"id": id, "type": "complete"}));
    assert!(!live(&mut rig, 29).contains(&Did::Idle));
    assert!(live(&mut rig, 2).contains(&Did::Hangup(Some(1000))));
    // The next one dials, and the pause was no outage.
    rig.subscribe();
    assert!(rig.session.last_cause.is_none());
    rig.connect();
    assert!(rig.gaps.is_empty());

    let mut rig = Rig::open(Config { idle_timeout: None, ..config() }, 1);
    rig.cancel(1);
    live(&mut rig, 1_000);
    assert!(rig.session.is_open());
}

/// The id under which an operation is live: the serial counts what was written.
fn issued_id(rig: &Rig, id: u64) -> String {
    let (_, wire_id) = rig.session.operations.wire_ids(id).next().unwrap();
    wire_id.to_string()
}

/// Told to stay connected, with nothing subscribed.
fn kept(config: Config) -> Rig {
    let mut rig = Rig::new(Config { idle_timeout: None, ..config });
    rig.session.connect(rig.now);
    rig.connect();
    rig
}

#[test]
fn rule_25_a_client_that_was_told_to_stay_connected_dials_again_though_nothing_is_subscribed() {
    let mut rig = kept(config());
    // Also while the server restarts.
    for attempts in [0, 1, 5] {
        live(&mut rig, 1_000);
        assert!(rig.session.is_open(), "it is not idle");
        rig.lose(closed(1001));
        for _ in 0..attempts {
            rig.sleep();
            rig.dial();
            rig.lose(Disconnect::Connect(refused(503)));
        }
        rig.sleep();
        rig.connect();
    }
    // An operation that goes during the retry sleep does not end that.
    let id = rig.subscribe();
    rig.lose(Disconnect::Reset(None));
    rig.cancel(id);
    assert_eq!(rig.take(), []);
    rig.sleep();
    rig.connect();
    assert!(rig.session.is_open());
}

#[test]
fn rule_25_a_client_that_was_not_told_to_stay_connected_does_not_dial_again() {
    // Nothing was subscribed for less than the idle timeout.
    let mut rig = Rig::new(config());
    rig.session.connect(rig.now);
    rig.connect();
    assert_eq!(rig.lose(closed(1001)), [Did::Hangup(None), Did::Idle]);
    // Nobody asked for a connection as such.
    let mut rig = Rig::open(Config { idle_timeout: None, ..config() }, 1);
    rig.cancel(1);
    rig.take();
    assert_eq!(rig.lose(closed(1001)), [Did::Hangup(None), Did::Idle]);
    assert_eq!(rig.pass(secs(1_000)), []);
}

#[test]
fn rule_25_a_fatal_end_and_a_shutdown_end_staying_connected_and_another_connect_begins_it_anew() {
    let mut rig = kept(impatient());
    let did = rig.lose(closed(4400));
    assert_eq!(did, [Did::Hangup(None), Did::Idle]);
    assert_eq!(rig.pass(secs(1_000)), []);
    let id = rig.subscribe();
    rig.connect();
    rig.cancel(id);
    rig.take();
    assert_eq!(rig.lose(closed(1001)), [Did::Hangup(None), Did::Idle], "for the operation only");
    rig.pass(secs(60));
    rig.session.connect(rig.now);
    rig.connect();
    assert!(waiting(&rig.lose(closed(1001))).is_some());
    rig.session.shutdown(rig.now, rig.now + secs(1));
    assert_eq!(rig.take().last(), Some(&Did::Ended));
    assert_eq!(rig.pass(secs(1_000)), []);
}

#[test]
fn rule_25_a_pause_suspends_staying_connected() {
    for lost in [false, true] {
        let mut rig = kept(config());
        if lost {
            rig.lose(closed(1001));
        }
        rig.session.pause(rig.now);
        rig.take();
        assert_eq!(rig.pass(secs(1_000)), [], "lost {lost}");
        rig.session.resume(rig.now);
        assert!(rig.connect().contains(&Did::Open));
        assert!(waiting(&rig.lose(closed(1001))).is_some());
    }
}

#[test]
fn only_a_connection_that_follows_a_lost_one_is_a_reconnect() {
    let mut rig = Rig::open(config(), 1);
    let reconnects = |rig: &Rig| rig.session.counts().reconnects;
    // What this side does is no loss.
    rig.session.reconnect_now(rig.now);
    rig.connect();
    rig.session.pause(rig.now);
    rig.session.resume(rig.now);
    rig.connect();
    rig.cancel(1);
    assert_eq!(live(&mut rig, 31).last(), Some(&Did::Idle));
    rig.subscribe();
    rig.connect();
    assert_eq!((rig.session.counts().connections, reconnects(&rig)), (4, 0));
    // However many attempts that takes.
    for attempts in [0, 1, 4] {
        let before = reconnects(&rig);
        rig.lose(closed(1012));
        for _ in 0..attempts {
            rig.sleep();
            rig.upgrade();
            rig.lose(closed(1012));
        }
        assert_eq!(reconnects(&rig), before, "there is none yet");
        rig.sleep();
        rig.connect();
        assert_eq!(reconnects(&rig), before + 1, "after {attempts}");
        live(&mut rig, 11);
    }
    // An attempt that fails loses no connection.
    let mut rig = Rig::new(config());
    rig.subscribe();
    rig.upgrade();
    rig.lose(closed(1012));
    rig.sleep();
    rig.connect();
    assert_eq!((rig.session.counts().dials, reconnects(&rig)), (2, 0));
    // After a fatal end there is nothing to follow.
    let mut rig = Rig::open(impatient(), 1);
    rig.lose(closed(4400));
    rig.subscribe();
    rig.take();
    rig.sleep();
    rig.connect();
    assert_eq!((rig.session.counts().connections, reconnects(&rig)), (2, 0));
}

#[test]
fn a_handover_is_no_reconnect_whether_it_succeeds_or_fails() {
    let mut rig = Rig::open(config(), 1);
    let (new, old) = (ConnectionId::B, ConnectionId::A);
    rig.session.rotate(rig.now);
    for fails in [true, true, true, false] {
        let mut did = rig.take();
        // After one that failed the next one follows by itself.
        while dials(&did) == 0 {
            did = live(&mut rig, 1);
        }
        rig.session.handle_credentials(rig.now, new, Ok(granted()));
        rig.session.handle_open(rig.now, new);
        rig.session.handle_frame(rig.now, new, r#"{"type":"connection_ack"}"#);
        while rig.session.poll_transmit(new).is_some() {}
        if fails {
            rig.session.handle_lost(rig.now, new, Disconnect::Reset(None));
        } else {
            rig.session.handle_lost(rig.now, old, Disconnect::Reset(None));
        }
        rig.take();
    }
    let counts = rig.session.counts();
    assert_eq!((counts.reconnects, counts.handovers), (0, 1));
}

#[test]
fn a_pause_closes_the_connection_keeps_the_operations_and_dials_no_more() {
    for subprotocol in [MODERN, LEGACY] {
        let mut rig = Rig::open(fixed(subprotocol), 2);
        let mutation = rig.begin(OperationType::Mutation);
        rig.take();
        rig.session.pause(rig.now);
        let did = rig.take();
        assert!(did.contains(&Did::Hangup(Some(1000))) && did.contains(&Did::Paused), "{did:?}");
        assert_eq!(
            finished(&did),
            [(mutation, "ambiguous: the application asked for it".to_owned())]
        );
        rig.session.pause(rig.now);
        rig.subscribe();
        rig.session.reconnect_now(rig.now);
        rig.session.network_changed(rig.now);
        rig.session.connect(rig.now);
        assert_eq!(dials(&rig.pass(secs(100))), 0);
        rig.session.resume(rig.now);
        let did = rig.connect();
        assert_eq!(issued(&did).len(), 3, "{did:?}");
        assert!(did.contains(&Did::Connected(Ok(()))));
        assert_eq!(rig.gaps.len(), 2);
        assert!(rig.gaps.iter().all(|gap| gap.down_for == secs(100)));
        assert!(matches!(rig.gaps[0].cause, Some(Disconnect::Requested)));
        rig.session.resume(rig.now);
        assert_eq!(rig.take(), []);
    }
}

#[test]
fn a_pause_ends_any_attempt_and_nothing_that_it_was_about_to_learn_counts() {
    for steps in 0..4 {
        let mut rig = Rig::new(config());
        rig.subscribe();
        match steps {
            0 => {}
            1 => drop(rig.dial()),
            2 => drop(rig.upgrade()),
            _ => {
                rig.upgrade();
                rig.lose(closed(1006));
            }
        }
        rig.take();
        rig.session.pause(rig.now);
        rig.take();
        rig.session.handle_credentials(rig.now, ConnectionId::A, Ok(granted()));
        rig.session.handle_open(rig.now, ConnectionId::A);
        rig.receive(json!({"type": "connection_ack"}));
        rig.lose(closed(4400));
        assert_eq!(rig.pass(secs(100)), [], "after {steps} steps");
        rig.session.resume(rig.now);
        assert_eq!(issued(&rig.connect()).len(), 1, "after {steps} steps");
    }
}

#[test]
fn reconnect_now_makes_another_connection_at_once_and_repeats_no_mutation() {
    let mut rig = Rig::open(config(), 2);
    let mutation = rig.begin(OperationType::Mutation);
    rig.take();
    rig.session.reconnect_now(rig.now);
    let did = rig.take();
    assert_eq!(finished(&did).len(), 1);
    assert!(did.contains(&Did::Hangup(Some(1000))) && dials(&did) == 1, "{did:?}");
    let issued = issued(&rig.connect());
    assert_eq!(issued.len(), 2);
    assert!(issued.iter().all(|(_, query)| *query != mutation.to_string()));
    assert!(matches!(rig.gaps[0], Gap { reconnects: 1, cause: Some(Disconnect::Requested), .. }));

    // With nothing to connect for, there is no other.
    rig.cancel(1);
    rig.cancel(2);
    rig.session.reconnect_now(rig.now);
    assert_eq!(dials(&rig.take()), 0);
}

#[test]
fn a_dial_budget_holds_whatever_makes_the_client_dial() {
    let mut rig = Rig::new(Config { max_dials: Some(budget(3, secs(60))), ..config() });
    rig.subscribe();
    let mut times = Vec::new();
    let mut note = |rig: &Rig, did: &[Did]| times.extend(std::iter::repeat_n(rig.now, dials(did)));
    let did = rig.take();
    note(&rig, &did);
    for _ in 0..600 {
        rig.session.handle_credentials(rig.now, ConnectionId::A, Ok(granted()));
        rig.session.handle_open(rig.now, ConnectionId::A);
        let did = rig.lose(closed(4403));
        note(&rig, &did);
        if rig.session.live_operations() == 0 {
            rig.subscribe();
        }
        rig.session.reconnect_now(rig.now);
        let did = rig.take();
        note(&rig, &did);
        let did = rig.pass(secs(1));
        note(&rig, &did);
    }
    assert!(times.windows(4).all(|four| four[3] - four[0] >= secs(60)), "{times:?}");
    assert!(times.len() >= 3 * 9, "{} dials in ten minutes: as many as it may", times.len());
}

#[test]
fn the_applications_verdict_overrides_the_table_and_one_that_panics_has_no_say() {
    let rig = |verdict: Verdict| {
        let hook = VerdictHook::new(move |_, _| verdict);
        Rig::open(Config { on_disconnect: Some(hook), ..impatient() }, 1)
    };
    assert!(finished(&rig(Verdict::Retry).lose(closed(4400))).is_empty());
    assert_eq!(finished(&rig(Verdict::Fatal).lose(closed(1006))).len(), 1);
    assert_eq!(finished(&rig(Verdict::Default).lose(closed(4400))).len(), 1);
    assert!(waiting(&rig(Verdict::RetryAfter(secs(77))).lose(closed(4400))).unwrap() >= secs(77));
    assert!(rig(Verdict::NewCredentials).lose(closed(1006)).contains(&Did::Authorize("rejected")));

    let hook = VerdictHook::new(|cause, attempts| match cause {
        Disconnect::Closed { code, .. } if code.0 == 4400 && attempts < 3 => Verdict::Retry,
        _ => panic!("a bug"),
    });
    let mut rig = Rig::open(Config { on_disconnect: Some(hook), ..impatient() }, 1);
    for _ in 0..2 {
        assert!(finished(&rig.lose(closed(4400))).is_empty());
        rig.sleep();
        rig.connect();
    }
    assert_eq!(finished(&rig.lose(closed(4400))).len(), 1, "the table's verdict");
}

#[test]
fn a_changed_network_is_probed_at_once_and_a_dead_connection_is_found_within_two_seconds() {
    for subprotocol in [MODERN, LEGACY] {
        let mut rig = Rig::open(fixed(subprotocol), 1);
        rig.session.network_changed(rig.now);
        let expected = if subprotocol == MODERN { "ping" } else { "websocket ping" };
        assert_eq!(wrote(&rig.take()), [expected]);
        assert_eq!(dials(&rig.pass(Duration::from_millis(1_999))), 0);
        let did = rig.pass(Duration::from_millis(1));
        assert!(did.contains(&Did::Hangup(None)) && waiting(&did).is_some(), "{did:?}");
        // While it waits, that ends the wait.
        rig.session.network_changed(rig.now);
        assert_eq!(dials(&rig.take()), 1);
        rig.connect();

        // Whatever arrives is an answer.
        rig.session.network_changed(rig.now);
        rig.session.network_changed(rig.now);
        assert_eq!(wrote(&rig.take()), [expected], "one ping will do");
        rig.receive(json!({"type": "ka"}));
        assert!(rig.pass(secs(5)).iter().all(|did| !matches!(did, Did::Hangup(_))));
        assert!(rig.session.is_open());
    }
}

#[test]
fn a_delay_that_no_clock_can_tell_is_a_long_one() {
    let hook = VerdictHook::new(|_, _| Verdict::RetryAfter(Duration::MAX));
    let mut rig = Rig::open(Config { on_disconnect: Some(hook), ..config() }, 1);
    assert!(waiting(&rig.lose(closed(1006))).unwrap() >= secs(365 * 24 * 60 * 60));
}

#[test]
fn who_waits_for_the_budget_alone_is_told_so() {
    let mut rig = Rig::new(Config { max_dials: Some(budget(1, secs(60))), ..config() });
    rig.session.connect(rig.now);
    rig.connect();
    assert_eq!(rig.pass(secs(30)).last(), Some(&Did::Idle));
    rig.subscribe();
    assert_eq!(rig.take(), [Did::Waiting(secs(30))]);
    assert_eq!(dials(&rig.pass(secs(30))), 1);
}

#[test]
fn a_connection_that_this_side_closes_is_no_failed_attempt() {
    let config = Config { give_up_after: Some(3), idle_timeout: Some(secs(1)), ..config() };
    let mut rig = Rig::new(config);
    for end in [Session::pause, Session::reconnect_now, |_: &mut Session<u64>, _| {}].repeat(5) {
        let id = rig.subscribe();
        for attempt in [|_: &mut Rig| Vec::new(), Rig::dial, Rig::upgrade, Rig::connect] {
            rig.take();
            attempt(&mut rig);
            end(&mut rig.session, rig.now);
            rig.session.resume(rig.now);
        }
        rig.connect();
        rig.cancel(id);
        assert_eq!(live(&mut rig, 2).last(), Some(&Did::Idle));
    }
    rig.subscribe();
    rig.connect();
    assert_eq!(finished(&rig.lose(Disconnect::Reset(None))), [], "the first that was lost");
    assert!(rig.pass(secs(30)).contains(&Did::Connecting(2)));
}
