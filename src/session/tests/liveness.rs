//! Rules 19 to 21: who is alive.

use super::*;

#[test]
fn rule_19_a_ping_is_answered_with_its_payload_ahead_of_the_data() {
    let mut rig = Rig::open(config(), 1);
    for _ in 0..3 {
        rig.subscribe();
    }
    rig.session.handle_frame(rig.now, ConnectionId::A, r#"{"type":"ping","payload":{"n":1}}"#);
    let did = rig.take();
    assert_eq!(did[0], Did::Wrote(json!({"type": "pong", "payload": {"n": 1}})));
    assert_eq!(wrote(&did)[1..], ["subscribe"; 3]);
}

#[test]
fn rule_19_a_flood_of_pings_owes_one_pong() {
    let mut rig = Rig::open(config(), 1);
    for n in 0..1_000 {
        let ping = json!({"type": "ping", "payload": {"n": n}}).to_string();
        rig.session.handle_frame(rig.now, ConnectionId::A, &ping);
    }
    assert_eq!(rig.take(), [Did::Wrote(json!({"type": "pong", "payload": {"n": 999}}))]);
}

#[test]
fn rule_20_modern_pings_every_ten_seconds_even_while_items_arrive() {
    let mut rig = Rig::open(config(), 1);
    let mut pings = 0;
    for _ in 0..60 {
        rig.receive(json!({"type": "next", "id": "1.0", "payload": {}}));
        pings += wrote(&rig.pass(secs(1))).iter().filter(|message| *message == "ping").count();
    }
    assert_eq!(pings, 6);
}

#[test]
fn rule_20_legacy_sends_no_ping_message_and_a_websocket_ping_only_after_twenty_seconds_of_silence()
{
    let mut rig = Rig::open(fixed(LEGACY), 1);
    for _ in 0..10 {
        assert_eq!(rig.pass(secs(19)), []);
        rig.receive(json!({"type": "ka"}));
    }
    assert_eq!(rig.pass(secs(20)), [Did::WrotePing(1)]);
    rig.session.handle_pong(rig.now, ConnectionId::A, Some(1));
    assert_eq!(rig.pass(secs(20)), [Did::WrotePing(2)]);
}

#[test]
fn rule_20_silence_after_a_ping_is_the_end_of_the_connection_without_a_close() {
    for (subprotocol, after) in [(MODERN, secs(20)), (LEGACY, secs(30))] {
        let mut rig = Rig::open(fixed(subprotocol), 1);
        let did = rig.pass(after.checked_sub(Duration::from_millis(1)).unwrap());
        assert_eq!(did.len(), 1, "{did:?}");
        let did = rig.pass(Duration::from_millis(1));
        assert!(did.contains(&Did::Hangup(None)) && waiting(&did).is_some(), "{did:?}");
    }
}

#[test]
fn rule_20_any_inbound_frame_is_a_proof_of_life() {
    for sign in [
        json!({"type": "pong"}),
        json!({"type": "next", "id": "1.0", "payload": {}}),
        json!({"type": "error", "payload": {"message": "no ping here"}}),
        json!({"type": "connection_error"}),
        json!(["garbage"]),
    ] {
        let mut rig = Rig::open(config(), 1);
        for _ in 0..10 {
            rig.pass(secs(7));
            rig.receive(sign.clone());
            assert!(rig.session.is_open(), "{sign}");
        }
    }
}

#[test]
fn rule_20_pongs_are_matched_by_order_and_an_unsolicited_one_is_legal() {
    let mut rig = Rig::open(config(), 1);
    rig.receive(json!({"type": "pong", "payload": {"whose": "ours"}}));
    assert_eq!(rig.session.counts().round_trip_time, None);
    rig.pass(secs(10));
    rig.pass(Duration::from_millis(250));
    rig.receive(json!({"type": "pong", "payload": {"other": 1}}));
    assert_eq!(rig.session.counts().round_trip_time, Some(Duration::from_millis(250)));
}

#[test]
fn rule_20_no_silence_counts_while_the_socket_is_not_read() {
    let mut rig = Rig::open(config(), 1);
    rig.session.stall();
    assert!(!rig.pass(secs(300)).contains(&Did::Hangup(None)));
    rig.session.unstall(rig.now);
    assert!(!rig.pass(secs(10)).contains(&Did::Hangup(None)), "a fresh ping has its time");
    assert!(rig.pass(secs(10)).contains(&Did::Hangup(None)));
}

#[test]
fn rule_21_a_missing_ka_counts_only_once_its_pace_is_known() {
    let quiet = Config { ping_interval: None, ..fixed(LEGACY) };
    let mut rig = Rig::open(quiet.clone(), 1);
    rig.receive(json!({"type": "ka"}));
    assert_eq!(rig.pass(secs(3600)), [], "one ka promises nothing");

    let mut rig = Rig::open(quiet, 1);
    for _ in 0..3 {
        rig.pass(secs(20));
        rig.receive(json!({"type": "ka"}));
    }
    assert_eq!(rig.pass(secs(59)), []);
    assert_eq!(rig.pass(secs(1))[0], Did::Hangup(None));
}

#[test]
fn rule_21_a_connection_error_after_the_ack_is_no_end() {
    let mut rig = Rig::open(fixed(LEGACY), 1);
    assert_eq!(rig.receive(json!({"type": "connection_error", "payload": {"message": "no"}})), []);
    assert!(rig.session.is_open());
}

#[test]
fn rule_20_a_ping_overtakes_what_is_queued_and_does_not_pile_up() {
    let mut rig = Rig::open(config(), 1);
    for _ in 0..3 {
        rig.subscribe();
    }
    for _ in 0..100 {
        rig.now += secs(9);
        rig.session.handle_activity(rig.now, ConnectionId::A);
        rig.now += secs(1);
        rig.session.handle_timeout(rig.now);
    }
    assert_eq!(wrote(&rig.take()), ["ping", "subscribe", "subscribe", "subscribe"]);
}

#[test]
fn rule_20_a_timeout_above_the_interval_is_kept_too() {
    let mut rig = Rig::open(Config { ping_timeout: secs(30), ..config() }, 1);
    rig.pass(secs(11));
    rig.receive(json!({"type": "pong"}));
    assert!(!rig.pass(secs(38)).contains(&Did::Hangup(None)));
    assert!(rig.pass(secs(1)).contains(&Did::Hangup(None)), "30 s after the ping of 20 s");
}

#[test]
fn rule_20_one_pong_that_never_came_does_not_shift_the_round_trips_that_follow() {
    let mut rig = Rig::open(config(), 1);
    rig.pass(secs(10));
    rig.receive(json!({"type": "next", "id": "1.0", "payload": 1}));
    for _ in 0..3 {
        rig.pass(secs(10));
        rig.pass(Duration::from_millis(50));
        rig.receive(json!({"type": "pong"}));
        let time = rig.session.counts().round_trip_time.unwrap();
        assert!(time < secs(1), "{time:?}");
    }
}

#[test]
fn rule_20_round_trips_are_of_this_socket() {
    let mut rig = Rig::open(config(), 1);
    rig.pass(secs(10));
    rig.lose(Disconnect::Reset(None));
    rig.sleep();
    rig.connect();
    rig.receive(json!({"type": "pong"}));
    assert_eq!(rig.session.counts().round_trip_time, None);
}

#[test]
fn rule_21_time_in_which_the_socket_was_not_read_is_not_the_servers_pace() {
    let mut rig = Rig::open(Config { ping_interval: None, ..fixed(LEGACY) }, 1);
    for _ in 0..3 {
        rig.receive(json!({"type": "ka"}));
        rig.pass(secs(5));
    }
    rig.session.stall();
    assert_eq!(rig.pass(secs(3_600)), []);
    rig.session.unstall(rig.now);
    for _ in 0..2 {
        rig.receive(json!({"type": "ka"}));
        rig.pass(secs(5));
    }
    assert!(rig.pass(secs(30)).contains(&Did::Hangup(None)));
}

#[test]
fn a_socket_that_takes_no_more_is_given_up_after_a_while() {
    let mut rig = Rig::open(config(), 1);
    for _ in 0..9 {
        rig.session.handle_broken(rig.now, ConnectionId::A, Disconnect::WebSocket("why".into()));
        rig.pass(secs(1));
        rig.receive(json!({"type": "next", "id": "1.0", "payload": 1}));
    }
    assert!(rig.session.is_open(), "what can be read may say why");
    rig.session.stall();
    assert!(
        !rig.pass(secs(60)).contains(&Did::Hangup(None)),
        "nor can it say anything while nobody reads"
    );
    rig.session.unstall(rig.now);
    let did = rig.pass(secs(10));
    assert!(did.contains(&Did::Hangup(None)));
    assert!(matches!(rig.session.last_cause, Some(Disconnect::WebSocket(_))));
}

#[test]
fn a_dead_peer_is_found_within_interval_and_timeout_whatever_it_left_unanswered() {
    for (interval, timeout) in [(1, 60), (1, 20), (10, 25), (10, 30), (10, 10), (10, 11)] {
        for phase in 0..100 {
            let config = Config {
                ping_interval: Some(secs(interval)),
                ping_timeout: secs(timeout),
                ..config()
            };
            let mut rig = Rig::open(config, 1);
            for _ in 0..20 {
                rig.pass(Duration::from_millis(interval * 700 + phase * 13));
                rig.receive(json!({"type": "next", "id": "1.0", "payload": 1}));
            }
            assert!(rig.session.is_open());
            let last = rig.now;
            let mut did = Vec::new();
            while !did.contains(&Did::Hangup(None)) {
                let at = rig.session.poll_timeout().expect("a deadline");
                did = rig.pass(at - rig.now);
            }
            assert!(
                rig.now - last <= secs(interval + timeout),
                "{interval} {timeout}: {:?}",
                rig.now - last
            );
        }
    }
}

#[test]
fn rule_21_a_ka_that_is_overdue_is_noticed_in_time() {
    let mut rig = Rig::open(Config { ping_interval: None, ..fixed(LEGACY) }, 1);
    for _ in 0..3 {
        rig.receive(json!({"type": "ka"}));
        rig.pass(secs(6));
    }
    rig.receive(json!({"type": "next", "id": "1.0", "payload": 1}));
    assert!(!rig.pass(secs(29)).contains(&Did::Hangup(None)));
    assert!(rig.pass(secs(1)).contains(&Did::Hangup(None)));
}
