//! Rules 10 to 31, without the keepalive: operations, losses and ends.

use super::*;
use crate::error::CredentialsError;

impl Rig {
    /// There is no socket.
    fn lose_attempt(&mut self, cause: Disconnect) -> Vec<Did> {
        self.take();
        self.dial();
        self.lose(cause)
    }
}

#[test]
fn rule_10_an_operation_ends_once_and_what_follows_is_ignored() {
    for end in ["complete", "error"] {
        let mut rig = Rig::open(config(), 1);
        let late = [
            json!({"type": "next", "id": "1.0", "payload": {"data": 1}}),
            json!({"type": "complete", "id": "1.0"}),
        ];
        assert_eq!(
            finished(&rig.receive(json!({"type": end, "id": "1.0", "payload": []}))).len(),
            1
        );
        for message in late {
            assert_eq!(rig.receive(message), []);
        }
        assert_eq!(rig.session.counts().ignored, 2);
    }
}

#[test]
fn rule_12_a_dropped_operation_is_completed_if_it_was_sent_and_never_mentioned_if_not() {
    for (subprotocol, stop) in [(MODERN, "complete"), (LEGACY, "stop")] {
        let mut rig = Rig::open(fixed(subprotocol), 1);
        rig.cancel(1);
        assert_eq!(rig.take(), [Did::Wrote(json!({"type": stop, "id": "1.0"}))]);
        assert_eq!(rig.receive(json!({"type": "next", "id": "1.0", "payload": {}})), []);

        let unsent = rig.subscribe();
        rig.cancel(unsent);
        assert_eq!(rig.take(), []);

        rig.lose(Disconnect::Reset(None));
        let offline = rig.subscribe();
        rig.cancel(offline);
        assert!(issued(&rig.take()).is_empty());
    }
}

#[test]
fn rule_13_nothing_is_said_after_the_servers_end() {
    let mut rig = Rig::open(config(), 1);
    rig.receive(json!({"type": "complete", "id": "1.0"}));
    rig.cancel(1);
    assert_eq!(rig.take(), []);

    let mut rig = Rig::open(config(), 1);
    rig.cancel(1);
    rig.session.handle_frame(rig.now, ConnectionId::A, r#"{"type":"complete","id":"1.0"}"#);
    assert_eq!(rig.take(), [], "the server was quicker than the socket");
}

#[test]
fn rule_14_unknown_ids_are_counted_and_ignored() {
    let mut rig = Rig::open(config(), 1);
    for id in [
        json!("9.9"),
        json!("x"),
        json!(7),
        json!(null),
        json!({"a": 1}),
        json!("1.1"),
        json!("2.0"),
        json!(""),
    ] {
        assert_eq!(
            rig.receive(json!({"type": "next", "id": id, "payload": {"data": 1}})),
            [],
            "{id}"
        );
        assert_eq!(rig.receive(json!({"type": "complete", "id": id})), [], "{id}");
    }
    assert_eq!(rig.session.counts().ignored, 16);
    assert_eq!(
        rig.receive(json!({"type": "next", "id": "1.0", "payload": 1})),
        [Did::Deliver(1, json!(1))]
    );
}

#[test]
fn rule_14_a_numeric_id_is_tolerated() {
    let mut rig = Rig::open(config(), 1);
    let did = rig.receive_text(r#"{"type":"next","id":1.0,"payload":5}"#);
    assert_eq!(did, [Did::Deliver(1, json!(5))]);
}

#[test]
fn rule_18_a_complete_precedes_a_later_subscribe() {
    let mut rig = Rig::open(config(), 1);
    rig.cancel(1);
    rig.subscribe();
    assert_eq!(wrote(&rig.take()), ["complete", "subscribe"]);
}

#[test]
fn rule_23_a_fatal_end_leaves_the_session_usable_and_the_next_dial_spaced() {
    let mut rig = Rig::open(impatient(), 3);
    for id in ["1.0", "2.1", "3.2"] {
        rig.receive(json!({"type": "next", "id": id, "payload": {}}));
    }
    let did = rig.lose(closed(4400));
    assert_eq!(finished(&did).iter().map(|end| end.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(finished(&did)[0].1.contains("4400: words"), "{did:?}");
    assert_eq!(did.last(), Some(&Did::Idle));
    rig.subscribe();
    assert!(
        waiting(&rig.take()).is_some_and(|delay| delay >= Duration::from_millis(500)),
        "no dial storm"
    );
    rig.sleep();
    assert_eq!(issued(&rig.connect()).len(), 1);
}

#[test]
fn rule_24_a_server_that_acks_and_drops_at_once_sees_growing_delays() {
    let mut totals = [Duration::ZERO; 8];
    for seed in 0..200 {
        let mut rig = Rig::open(Config { seed, ..config() }, 1);
        for total in &mut totals {
            rig.lose(closed(1000));
            *total += rig.sleep();
            rig.connect();
        }
    }
    assert!(
        totals.is_sorted() && totals[7] > 8 * totals[0],
        "jitter aside, each is longer: {totals:?}"
    );
}

#[test]
fn rule_24_within_an_outage_no_delay_is_shorter_than_the_one_before() {
    let (base, cap) = (config().backoff_base, config().backoff_cap);
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut rig = Rig::open(Config { seed, ..impatient() }, 1);
        rig.pass(secs(11));
        let mut did = rig.lose(closed(1012));
        let mut previous = base;
        for _ in 0..30 {
            if rig.session.live_operations() == 0 {
                rig.subscribe();
                did.extend(rig.take());
            }
            // Credentials are asked for at once the first time.
            if let Some(delay) = waiting(&did) {
                let most = (previous * 3).min(cap);
                assert!(delay >= previous && delay <= most, "{delay:?} after {previous:?}");
                previous = delay;
                rig.pass(delay);
            }
            did = match rng.u8(..9) {
                0 => rig.lose_attempt(Disconnect::Connect(ConnectError::Timeout(secs(10)))),
                1 => rig.lose_attempt(Disconnect::Connect(refused(503))),
                // Fatal; the next operation is not sooner.
                2 => rig.lose_attempt(Disconnect::Connect(refused(404))),
                3 => rig.lose_attempt(Disconnect::Connect(refused(401))),
                4 => {
                    rig.upgrade();
                    rig.lose(closed(1000))
                }
                5 => {
                    rig.upgrade();
                    rig.pass(secs(10))
                }
                6 => {
                    rig.connect();
                    rig.lose(Disconnect::Reset(None))
                }
                7 => {
                    rig.connect();
                    rig.lose(closed(4400))
                }
                _ => {
                    rig.connect();
                    // It is not healthy yet.
                    rig.pass(secs(9));
                    rig.lose(closed(1001))
                }
            };
        }
        assert!(previous > base * 3, "{previous:?}");
    }
}

#[test]
fn rule_24_after_a_healthy_while_delays_are_short_again() {
    for seed in 0..200 {
        let mut rig = Rig::open(Config { seed, ..config() }, 1);
        for _ in 0..8 {
            rig.lose(closed(1000));
            rig.sleep();
            rig.connect();
        }
        rig.pass(secs(5));
        rig.receive(json!({"type": "pong"}));
        rig.pass(secs(5));
        rig.lose(closed(1000));
        assert!(rig.sleep() <= Duration::from_millis(1500));
    }
}

#[test]
fn rule_24_attempts_are_unlimited_by_default_and_bounded_on_demand() {
    let mut rig = Rig::new(Config { give_up_after: Some(3), ..config() });
    rig.subscribe();
    rig.take();
    for attempt in 1..=3 {
        rig.dial();
        let did = rig.lose(Disconnect::Reset(None));
        if attempt < 3 {
            rig.sleep();
        } else {
            assert_eq!(finished(&did), [(1, "gave up after 3".into())]);
        }
    }
    rig.subscribe();
    rig.take();
    rig.sleep();
    rig.dial();
    assert!(
        finished(&rig.lose(Disconnect::Reset(None))).is_empty(),
        "a later operation has all its attempts"
    );
}

#[test]
fn rule_25_a_retry_sleep_ends_on_shutdown_on_demand_and_when_the_last_operation_goes() {
    let sleeping = || {
        let mut rig = Rig::open(config(), 1);
        rig.lose(Disconnect::Reset(None));
        rig
    };
    let mut rig = sleeping();
    rig.session.reconnect_now(rig.now);
    assert_eq!(rig.take(), [Did::Connecting(2), Did::Authorize("reconnect")]);

    let mut rig = sleeping();
    rig.cancel(1);
    assert_eq!(rig.take(), [Did::Idle]);
    assert_eq!(rig.session.poll_timeout(), None);

    let mut rig = sleeping();
    rig.session.shutdown(rig.now, rig.now + secs(1));
    assert_eq!(rig.take().last(), Some(&Did::Ended));

    let mut rig = sleeping();
    let due = rig.session.poll_timeout();
    rig.subscribe();
    assert_eq!(
        (rig.take(), rig.session.poll_timeout()),
        (vec![], due),
        "a new subscribe does not shorten it"
    );
}

#[test]
fn rule_26_a_reissue_is_one_batch_in_the_original_order_with_what_changed_meanwhile() {
    let mut rig = Rig::open(config(), 5);
    rig.lose(Disconnect::Reset(None));
    rig.cancel(2);
    let late = rig.subscribe();
    rig.sleep();
    let did = rig.connect();
    let queries: Vec<_> = issued(&did).into_iter().map(|(_, query)| query).collect();
    assert_eq!(queries, ["1", "3", "4", "5", &late.to_string()]);
    let reissues: Vec<_> = did.iter().filter(|did| matches!(did, Did::Reissue(..))).collect();
    assert_eq!(
        reissues,
        [&Did::Reissue(1, 1), &Did::Reissue(3, 1), &Did::Reissue(4, 1), &Did::Reissue(5, 1)]
    );
}

#[test]
fn rule_28_a_gap_says_how_long_and_why_and_an_operation_that_was_never_sent_has_none() {
    let mut rig = Rig::open(config(), 1);
    rig.lose(closed(1012));
    let slept = rig.sleep();
    rig.dial();
    rig.lose(closed(1006));
    let slept = slept + rig.sleep();
    rig.connect();
    let [gap] = &rig.gaps[..] else { panic!("{:?}", rig.gaps) };
    assert_eq!((gap.reconnects, gap.dropped, gap.down_for), (1, 0, slept));
    assert!(
        matches!(gap.cause, Some(Disconnect::Closed { code: CloseCode(1012), .. })),
        "the loss, not the attempts that failed since"
    );
}

#[test]
fn rule_29_shutdown_completes_says_goodbye_and_closes_with_1000() {
    for (subprotocol, expected) in [
        (MODERN, vec!["complete", "complete", "complete", "close 1000"]),
        (LEGACY, vec!["stop", "stop", "stop", "connection_terminate", "close 1000"]),
    ] {
        let mut rig = Rig::open(fixed(subprotocol), 2);
        let dropped = rig.subscribe();
        assert_eq!(issued(&rig.take()).len(), 1);
        rig.cancel(dropped); // its `complete` is not written yet
        rig.subscribe(); // never taken from the queue: never mentioned
        rig.session.shutdown(rig.now, rig.now + secs(5));
        let did = rig.take();
        assert_eq!(wrote(&did), expected);
        assert_eq!(finished(&did).len(), 3);
        assert_eq!(rig.lose(closed(1000)), [Did::Ended]);
        rig.subscribe();
        assert_eq!(finished(&rig.take()), [(5, "shut down".into())]);
    }
}

#[test]
fn rule_29_shutdown_ends_at_its_deadline_whatever_the_peer_does() {
    let mut rig = Rig::open(config(), 1);
    rig.session.shutdown(rig.now, rig.now + secs(5));
    rig.take();
    assert_eq!(rig.pass(secs(5)), [Did::Hangup(None), Did::Ended]);

    let mut rig = Rig::new(config());
    rig.subscribe();
    rig.upgrade();
    rig.session.shutdown(rig.now, rig.now + secs(5));
    assert_eq!(wrote(&rig.take()), ["close 1000"], "before the ack, too");
    assert_eq!(rig.pass(secs(5)), [Did::Hangup(None), Did::Ended]);

    let mut rig = Rig::new(config());
    rig.subscribe();
    rig.take();
    rig.session.shutdown(rig.now, rig.now + secs(5));
    assert_eq!(rig.take()[1..], [Did::Hangup(None), Did::Ended]);
}

#[test]
fn rule_31_garbage_is_counted_or_closes_with_4004_on_demand() {
    for garbage in [
        "",
        "x",
        "[]",
        "{}",
        r#"{"type":"odd"}"#,
        "{\"type\":\"next\",\"id\":\"1.0\",\"payload\":{}",
    ] {
        let mut rig = Rig::open(Config { strictness: Strictness::Strict, ..config() }, 1);
        let did = rig.receive_text(garbage);
        assert_eq!(did[0], Did::Hangup(Some(4004)), "{garbage}");
        assert_eq!(finished(&did).len(), 1);
    }
    for garbage in ["", "x", "[]", "{}", r#"{"type":"odd"}"#] {
        let mut rig = Rig::open(config(), 1);
        assert_eq!(rig.receive_text(garbage), []);
        assert_eq!(rig.session.counts().ignored, 1, "{garbage}");
    }
}

#[test]
fn rule_31_a_byte_order_mark_is_skipped() {
    for strictness in [Strictness::Lenient, Strictness::Strict] {
        let mut rig = Rig::open(Config { strictness, ..config() }, 1);
        let did =
            rig.receive_text("\u{feff}{\"type\":\"next\",\"id\":\"1.0\",\"payload\":{\"data\":1}}");
        assert!(
            matches!(&did[..], [Did::Deliver(_, item)] if *item == json!({"data": 1})),
            "{did:?}"
        );
        assert_eq!(rig.session.counts().ignored, 0);
    }
}

#[test]
fn rule_31_a_message_that_is_too_big_closes_with_1009_and_is_fatal() {
    let mut rig = Rig::open(config(), 1);
    let did = rig.lose(Disconnect::MessageTooBig { limit: 9 });
    assert_eq!(did[0], Did::Hangup(Some(1009)));
    assert!(finished(&did)[0].1.contains("9 bytes"));
}

#[test]
fn a_provider_that_fails_is_asked_again_after_a_backoff_and_one_that_gives_up_ends_everything() {
    let mut rig = Rig::new(config());
    rig.subscribe();
    rig.take();
    rig.session.handle_credentials(
        rig.now,
        ConnectionId::A,
        Err(CredentialsError::transient("later")),
    );
    assert!(waiting(&rig.take()).is_some());
    rig.sleep();
    rig.session.handle_credentials(rig.now, ConnectionId::A, Err(CredentialsError::fatal("never")));
    assert_eq!(finished(&rig.take()).len(), 1);
}

#[test]
fn what_is_dropped_before_it_is_written_does_not_pile_up() {
    let mut rig = Rig::open(config(), 1);
    for _ in 0..10_000 {
        let id = rig.subscribe();
        rig.subscribe();
        rig.cancel(id);
        rig.cancel(id + 1);
    }
    assert!(
        rig.session.current().unwrap().send_queue.len() <= 2,
        "{}",
        rig.session.current().unwrap().send_queue.len()
    );
    assert_eq!(rig.take(), []);
}

#[test]
fn spurious_calls_do_nothing() {
    let mut rig = Rig::new(config());
    rig.session.handle_open(rig.now, ConnectionId::A);
    rig.session.handle_credentials(rig.now, ConnectionId::A, Ok(granted()));
    rig.session.handle_timeout(rig.now);
    rig.cancel(9);
    rig.session.reconnect_now(rig.now);
    rig.session.handle_frame(rig.now, ConnectionId::A, r#"{"type":"connection_ack"}"#);
    rig.session.handle_lost(rig.now, ConnectionId::A, Disconnect::Reset(None));
    assert_eq!(rig.take(), []);
}

#[test]
fn i3_an_id_of_an_earlier_socket_means_nothing_before_the_reissue_is_written() {
    let mut rig = Rig::open(config(), 1);
    rig.lose(Disconnect::Reset(None));
    rig.sleep();
    rig.upgrade();
    rig.session.handle_frame(rig.now, ConnectionId::A, r#"{"type":"connection_ack"}"#);
    rig.session.handle_frame(rig.now, ConnectionId::A, r#"{"type":"complete","id":"1.0"}"#);
    assert!(finished(&rig.take()).is_empty());
}

#[test]
fn i7_nobody_dials_when_the_last_operation_went_while_the_provider_was_asked() {
    let mut rig = Rig::new(config());
    let id = rig.subscribe();
    rig.take();
    rig.cancel(id);
    assert_eq!(rig.dial(), [Did::Idle]);
}

#[test]
fn answers_that_nobody_wanted_any_more_are_no_failed_attempts() {
    let mut rig = Rig::new(Config { give_up_after: Some(2), ..config() });
    for _ in 0..5 {
        let id = rig.subscribe();
        assert_eq!(rig.take(), [Did::Connecting(1), Did::Authorize("initial")]);
        rig.cancel(id);
        rig.dial();
    }
    rig.subscribe();
    rig.take();
    rig.dial();
    assert!(finished(&rig.lose(Disconnect::Reset(None))).is_empty());
}

#[test]
fn rule_23_after_a_fatal_end_the_subprotocol_is_found_anew() {
    let mut rig = Rig::open(impatient(), 1);
    assert_eq!(finished(&rig.lose(closed(4400))).len(), 1);
    rig.subscribe();
    rig.take();
    rig.sleep();
    rig.dial();
    rig.session.handle_open(rig.now, ConnectionId::A);
    assert!(finished(&rig.lose(closed(4406))).is_empty(), "a new server may speak the other one");
}

#[test]
fn rule_29_a_shutdown_waits_for_its_own_deadline_only_and_a_second_one_for_the_earlier() {
    let mut opening = Rig::new(config());
    opening.subscribe();
    opening.upgrade();
    for mut rig in [opening, Rig::open(config(), 1)] {
        rig.session.shutdown(rig.now, rig.now + secs(600));
        rig.take();
        assert_eq!(rig.pass(secs(59)), [], "neither the ack's deadline nor a ping");
        rig.session.shutdown(rig.now, rig.now + secs(1_000));
        rig.session.shutdown(rig.now, rig.now + secs(2));
        assert_eq!(rig.pass(secs(2)), [Did::Hangup(None), Did::Ended]);
    }
}

#[test]
fn a_rejection_is_not_forgotten_when_the_provider_fails_once() {
    let mut rig = Rig::open(config(), 1);
    assert!(rig.lose(closed(4403)).contains(&Did::Authorize("rejected")));
    rig.session.handle_credentials(
        rig.now,
        ConnectionId::A,
        Err(CredentialsError::transient("the token endpoint is down")),
    );
    let did = rig.pass(secs(2));
    assert!(did.contains(&Did::Authorize("rejected")), "{did:?}");
}

#[test]
fn ends_that_the_server_says_first_are_cheap_however_much_is_queued() {
    let mut rig = Rig::open(config(), 3);
    for id in 1..=3 {
        rig.cancel(id);
    }
    for id in ["1.0", "3.2", "3.2", "9.9", "2.77"] {
        rig.session.handle_frame(
            rig.now,
            ConnectionId::A,
            &json!({"type": "complete", "id": id}).to_string(),
        );
    }
    assert_eq!(rig.take(), [Did::Wrote(json!({"type": "complete", "id": "2.1"}))]);
}
