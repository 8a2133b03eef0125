//! Rules 1 to 9: from the dial to the acknowledgement, and the ids.

use super::*;
use crate::error::ConnectError;

fn refused_subprotocol() -> Disconnect {
    Disconnect::Connect(ConnectError::Subprotocol { offered: "" })
}

fn http(status: u16) -> Disconnect {
    Disconnect::Connect(refused(status))
}

#[test]
fn rule_1_the_modern_subprotocol_is_offered_alone_and_the_legacy_one_when_it_is_refused() {
    for (after_upgrade, refusal) in [
        (true, closed(4406)),
        (true, closed(1002)),
        (false, http(400)),
        (false, refused_subprotocol()),
    ] {
        let mut rig = Rig::new(config());
        rig.subscribe();
        rig.take();
        assert_eq!(rig.dial(), [Did::Dial(MODERN)]);
        if after_upgrade {
            rig.session.handle_open(rig.now, ConnectionId::A);
            rig.take();
        }
        assert_eq!(rig.lose(refusal)[1..], [Did::Connecting(2), Did::Authorize("reconnect")]);
        assert_eq!(rig.dial(), [Did::Dial(LEGACY)]);
        rig.session.handle_open(rig.now, ConnectionId::A);
        let did = rig.receive(json!({"type": "connection_ack"}));
        assert_eq!(wrote(&did), ["connection_init", "start"]);

        rig.pass(secs(11));
        rig.lose(Disconnect::Reset(None));
        rig.sleep();
        assert_eq!(rig.dial(), [Did::Dial(LEGACY)], "what worked is remembered");
    }
}

#[test]
fn rule_1_when_neither_subprotocol_works_the_error_names_both() {
    let mut rig = Rig::new(config());
    let id = rig.subscribe();
    rig.upgrade();
    rig.lose(closed(4406));
    rig.dial();
    let ends = finished(&rig.lose(http(400)));
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].0, id);
    for part in ["graphql-transport-ws", "4406", "graphql-ws", "HTTP 400"] {
        assert!(ends[0].1.contains(part), "{ends:?}");
    }
}

#[test]
fn rule_1_a_fixed_subprotocol_has_no_fallback() {
    let mut rig = Rig::new(fixed(LEGACY));
    rig.subscribe();
    rig.take();
    assert_eq!(rig.dial(), [Did::Dial(LEGACY)]);
    rig.session.handle_open(rig.now, ConnectionId::A);
    rig.take();
    assert!(finished(&rig.lose(closed(4406)))[0].1.starts_with("lost"));
}

#[test]
fn rule_3_credentials_come_before_the_dial_and_init_is_the_first_frame() {
    let mut rig = Rig::new(config());
    rig.subscribe();
    assert_eq!(rig.take(), [Did::Connecting(1), Did::Authorize("initial")]);
    rig.session.handle_credentials(
        rig.now,
        ConnectionId::A,
        Ok(Granted { init_payload: r#"{"token":"t"}"#.into(), lifetime: None }),
    );
    assert_eq!(rig.take(), [Did::Dial(MODERN)]);
    rig.session.handle_open(rig.now, ConnectionId::A);
    // Even a server that pings at once hears the init first.
    rig.session.handle_frame(rig.now, ConnectionId::A, r#"{"type":"ping"}"#);
    assert_eq!(
        rig.take(),
        [
            Did::Wrote(json!({"type": "connection_init", "payload": {"token": "t"}})),
            Did::Wrote(json!({"type": "pong"})),
        ]
    );
}

#[test]
fn rule_5_nothing_is_subscribed_before_the_ack() {
    for subprotocol in [MODERN, LEGACY] {
        let mut rig = Rig::new(fixed(subprotocol));
        rig.subscribe();
        let did = rig.upgrade();
        assert_eq!(wrote(&did), ["connection_init"]);
        rig.subscribe();
        assert_eq!(rig.take(), []);
        let did = rig.receive(json!({"type": "connection_ack", "payload": {"a": 1}}));
        assert_eq!(issued(&did).len(), 2);
    }
}

#[test]
fn rule_6_before_the_ack_keepalives_are_taken_and_an_operations_message_is_a_violation() {
    for message in ["ping", "pong", "ka", "odd"] {
        let mut rig = Rig::new(config());
        rig.subscribe();
        rig.upgrade();
        let did = rig.receive(json!({"type": message}));
        assert_eq!(wrote(&did), if message == "ping" { vec!["pong"] } else { vec![] });
        assert_eq!(rig.session.phase(), Some(super::super::Phase::Opening(MODERN)));
    }
    for message in ["next", "error", "complete"] {
        let mut rig = Rig::new(config());
        let id = rig.subscribe();
        rig.upgrade();
        let did = rig.receive(json!({"type": message, "id": "1.0", "payload": {}}));
        assert_eq!(did[0], Did::Hangup(Some(4004)));
        assert_eq!(finished(&did)[0].0, id);
    }
}

#[test]
fn rule_7_a_second_ack_issues_nothing_again() {
    let mut rig = Rig::open(config(), 2);
    assert_eq!(rig.receive(json!({"type": "connection_ack"})), []);
}

#[test]
fn rule_8_every_phase_that_waits_has_a_deadline() {
    let mut rig = Rig::new(config());
    rig.subscribe();
    rig.take();
    assert_eq!(rig.pass(secs(30))[0], Did::Hangup(None), "the provider");
    rig.sleep();
    rig.dial();
    assert_eq!(rig.pass(secs(10))[0], Did::Hangup(None), "the dial");
    rig.sleep();
    rig.upgrade();
    assert_eq!(rig.pass(secs(10))[0], Did::Hangup(Some(4504)), "the ack");
}

#[test]
fn rule_9_an_id_is_never_used_twice_and_a_reissue_has_a_new_one() {
    let mut rig = Rig::open(config(), 3);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        rig.cancel(rig.next_id - 1);
        rig.subscribe();
        for (id, _) in issued(&rig.take()) {
            assert!(seen.insert(id));
        }
        rig.lose(closed(1012));
        rig.sleep();
        for (id, _) in issued(&rig.connect()) {
            assert!(seen.insert(id));
        }
    }
    assert!(seen.len() >= 15);
}
