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
    for (has_socket, refusal) in refusals() {
        let mut rig = Rig::new(config());
        rig.subscribe();
        rig.take();
        assert_eq!(rig.dial(), [Did::Dial(MODERN)]);
        let did = refuse(&mut rig, has_socket, refusal);
        assert_eq!(did[1..], [Did::Connecting(2), Did::Authorize("reconnect")]);
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

/// The ways in which a server refuses a subprotocol, and whether there is a socket by then.
fn refusals() -> [(bool, Disconnect); 4] {
    [(true, closed(4406)), (true, closed(1002)), (false, http(400)), (false, refused_subprotocol())]
}

/// The dial fails in this way.
fn refuse(rig: &mut Rig, has_socket: bool, refusal: Disconnect) -> Vec<Did> {
    if has_socket {
        rig.session.handle_open(rig.now, ConnectionId::A);
        rig.take();
    }
    rig.lose(refusal)
}

/// Why the provider is asked next, if that is at once.
fn asked(did: &[Did]) -> Option<&'static str> {
    did.iter().find_map(|did| if let Did::Authorize(reason) = did { Some(*reason) } else { None })
}

#[test]
fn rule_1_a_legacy_server_that_rejects_the_first_credentials_is_open_after_three_dials() {
    for (has_socket, refusal) in refusals() {
        let mut rig = Rig::new(config());
        rig.subscribe();
        assert_eq!(asked(&rig.take()), Some("initial"));
        assert_eq!(rig.dial(), [Did::Dial(MODERN)]);
        let did = refuse(&mut rig, has_socket, refusal.clone());
        assert_eq!(asked(&did), Some("reconnect"), "{refusal}");
        assert_eq!(rig.dial(), [Did::Dial(LEGACY)]);
        rig.session.handle_open(rig.now, ConnectionId::A);
        rig.take();
        let did = rig.receive(json!({"type": "connection_error", "payload": {"message": "no"}}));
        assert_eq!(asked(&did), Some("rejected"), "{refusal}");
        assert_eq!(rig.dial(), [Did::Dial(LEGACY)], "{refusal}");
        rig.session.handle_open(rig.now, ConnectionId::A);
        rig.take();
        let did = rig.receive(json!({"type": "connection_ack"}));
        assert_eq!(issued(&did).len(), 1, "{refusal}");
        assert_eq!(rig.session.counts().dials, 3);
    }
}

#[test]
fn rule_1_an_endpoint_that_comes_back_with_the_other_subprotocol_is_open_within_four_dials() {
    for (before, after) in [(MODERN, LEGACY), (LEGACY, MODERN)] {
        for (has_socket, refusal) in refusals() {
            let mut rig = Rig::new(config());
            let id = rig.subscribe();
            rig.take();
            let mut speaks = before;
            for round in 1..=3 {
                let dials = rig.session.counts().dials;
                while rig.dial() != [Did::Dial(speaks)] {
                    let did = refuse(&mut rig, has_socket, refusal.clone());
                    assert_eq!(finished(&did), [], "{refusal}, round {round}");
                    if asked(&did).is_none() {
                        rig.sleep();
                    }
                }
                let dials = rig.session.counts().dials - dials;
                assert!(dials <= 4, "{refusal}, round {round}: {dials} dials");
                rig.session.handle_open(rig.now, ConnectionId::A);
                rig.take();
                let did = rig.receive(json!({"type": "connection_ack"}));
                assert_eq!(issued(&did)[0].1, id.to_string());
                // Either is so for a while, and changes while the server is away.
                rig.pass(secs(11));
                rig.lose(closed(1012));
                rig.sleep();
                speaks = if speaks == before { after } else { before };
            }
        }
    }
}

#[test]
fn an_answer_to_a_rejection_that_is_spent_on_negotiation_is_asked_for_again() {
    for (has_socket, refusal) in refusals() {
        // What 1002 means on a subprotocol that has worked is not certain.
        let is_ambiguous = refusal.to_string() == closed(1002).to_string();
        let mut rig = Rig::open(config(), 1);
        assert_eq!(asked(&rig.lose(closed(4403))), Some("rejected"));
        assert_eq!(rig.dial(), [Did::Dial(MODERN)]);
        let mut did = refuse(&mut rig, has_socket, refusal.clone());
        if is_ambiguous {
            did = rig.pass(waiting(&did).unwrap());
        }
        assert_eq!(asked(&did), Some("rejected"), "{refusal}");
        assert_eq!(rig.dial(), [Did::Dial(LEGACY)]);
        rig.session.handle_open(rig.now, ConnectionId::A);
        rig.take();
        let did = rig.receive(json!({"type": "connection_ack"}));
        assert_eq!(issued(&did).len(), 1);
        rig.lose(closed(1012));
        assert_eq!(asked(&rig.pass(secs(30))), Some("reconnect"), "it was of use");
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
