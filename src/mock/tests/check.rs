use serde_json::json;

use super::*;

#[test]
fn a_correct_conversation_breaks_no_rule() {
    let mut modern = acked(Subprotocol::GraphqlTransportWs);
    for message in [
        json!({"type": "ping"}),
        json!({"type": "pong", "payload": {"n": 1}}),
        json!({
            "type": "subscribe",
            "id": "1",
            "payload": {"query": "{ a }", "variables": {}, "operationName": null},
        }),
        json!({"type": "complete", "id": "1"}),
    ] {
        assert_eq!(modern.received(&message.to_string()), Ok(message));
    }
    let mut legacy = acked(Subprotocol::GraphqlWs);
    for message in [
        json!({"type": "start", "id": "1", "payload": {"query": "{ a }"}}),
        json!({"type": "stop", "id": "1"}),
        json!({"type": "connection_terminate"}),
    ] {
        assert_eq!(legacy.received(&message.to_string()), Ok(message));
    }
}

#[test]
fn exactly_one_known_subprotocol_is_offered() {
    assert_eq!(offered(&["graphql-transport-ws"]), Ok(Subprotocol::GraphqlTransportWs));
    assert_eq!(offered(&["graphql-ws"]), Ok(Subprotocol::GraphqlWs));
    assert_eq!(offered(&["graphql-transport-ws", "graphql-ws"]), Err(Rule::OneSubprotocol));
    assert_eq!(offered(&[]), Err(Rule::OneSubprotocol));
    assert_eq!(offered(&["mqtt"]), Err(Rule::OneSubprotocol));
}

#[test]
fn a_message_is_an_object_with_a_type() {
    let mut checker = acked(Subprotocol::GraphqlTransportWs);
    for text in ["", "ping", "[]", "{}", r#"{"type": 1}"#] {
        assert_eq!(checker.received(text), Err(Rule::NotAMessage), "{text}");
    }
}

#[test]
fn a_type_that_no_client_sends_breaks_a_rule() {
    for subprotocol in BOTH {
        let mut checker = acked(subprotocol);
        for kind in [
            "connection_ack",
            "next",
            "data",
            "error",
            "ka",
            "connection_error",
            "Ping",
            "subscribe ",
        ] {
            assert_eq!(
                broken_rule(&mut checker, json!({"type": kind, "id": "1"})),
                Rule::UnknownType,
                "{kind}"
            );
        }
    }
}

#[test]
fn each_subprotocol_has_its_own_vocabulary() {
    let mut modern = acked(Subprotocol::GraphqlTransportWs);
    for kind in ["start", "stop", "connection_terminate"] {
        assert_eq!(
            broken_rule(&mut modern, json!({"type": kind, "id": "1"})),
            Rule::WrongVocabulary,
            "{kind}"
        );
    }
    let mut legacy = acked(Subprotocol::GraphqlWs);
    for kind in ["subscribe", "complete", "ping", "pong"] {
        assert_eq!(
            broken_rule(&mut legacy, json!({"type": kind, "id": "1"})),
            Rule::WrongVocabulary,
            "{kind}"
        );
    }
}

#[test]
fn a_legacy_pong_is_right_only_as_the_answer_to_a_ping() {
    let mut checker = acked(Subprotocol::GraphqlWs);
    checker.sent(&json!({"type": "ping"}));
    assert!(checker.received(r#"{"type":"pong"}"#).is_ok());
    assert_eq!(broken_rule(&mut checker, json!({"type": "pong"})), Rule::WrongVocabulary);
}

#[test]
fn init_is_the_first_message() {
    for message in [json!({"type": "ping"}), subscribe("1"), json!({"type": "complete", "id": "1"})]
    {
        let mut checker = fresh(Subprotocol::GraphqlTransportWs);
        assert_eq!(broken_rule(&mut checker, message), Rule::InitFirst);
    }
    let mut checker = fresh(Subprotocol::GraphqlWs);
    assert_eq!(broken_rule(&mut checker, json!({"type": "connection_terminate"})), Rule::InitFirst);
}

#[test]
fn init_is_sent_once() {
    for subprotocol in BOTH {
        let mut unacked = fresh(subprotocol);
        assert!(unacked.received(INIT).is_ok());
        assert_eq!(unacked.received(INIT), Err(Rule::SecondInit));
        assert_eq!(acked(subprotocol).received(INIT), Err(Rule::SecondInit));
    }
}

#[test]
fn the_init_payload_is_an_object() {
    let mut checker = fresh(Subprotocol::GraphqlTransportWs);
    assert_eq!(broken_rule(&mut checker, json!({"type": "connection_init"})), Rule::InitPayload);
    for payload in [json!(null), json!("token"), json!([]), json!(1)] {
        let message = json!({"type": "connection_init", "payload": payload});
        assert_eq!(broken_rule(&mut checker, message), Rule::InitPayload);
    }
}

#[test]
fn no_operation_starts_before_the_ack() {
    for (subprotocol, kind) in
        [(Subprotocol::GraphqlTransportWs, "subscribe"), (Subprotocol::GraphqlWs, "start")]
    {
        let mut checker = fresh(subprotocol);
        assert!(checker.received(INIT).is_ok());
        checker.sent(&json!({"type": "connection_error"}));
        let message = json!({"type": kind, "id": "1", "payload": {"query": "{ a }"}});
        assert_eq!(broken_rule(&mut checker, message.clone()), Rule::BeforeAck);
        checker.sent(&json!({"type": "connection_ack"}));
        assert!(checker.received(&message.to_string()).is_ok());
    }
}

#[test]
fn an_id_is_a_string_that_is_not_empty() {
    let mut checker = acked(Subprotocol::GraphqlTransportWs);
    for id in [json!(1), json!(""), json!(null)] {
        for kind in ["subscribe", "complete"] {
            let message = json!({"type": kind, "id": id, "payload": {"query": "{ a }"}});
            assert_eq!(broken_rule(&mut checker, message), Rule::Id);
        }
    }
    assert_eq!(broken_rule(&mut checker, json!({"type": "complete"})), Rule::Id);
}

#[test]
fn an_id_is_not_used_twice_on_a_connection() {
    let mut checker = acked(Subprotocol::GraphqlTransportWs);
    assert!(checker.received(&subscribe("1").to_string()).is_ok());
    assert!(checker.received(r#"{"type":"complete","id":"1"}"#).is_ok());
    assert_eq!(broken_rule(&mut checker, subscribe("1")), Rule::ReusedId);
}

#[test]
fn an_id_of_an_earlier_connection_is_not_used_again() {
    let used_ids = UsedIds::default();
    let mut earlier = acked_with(Subprotocol::GraphqlTransportWs, used_ids.clone());
    assert!(earlier.received(&subscribe("1").to_string()).is_ok());
    let mut later = acked_with(Subprotocol::GraphqlTransportWs, used_ids.clone());
    assert_eq!(broken_rule(&mut later, subscribe("1")), Rule::ReusedId);
    used_ids.clear();
    assert!(later.received(&subscribe("1").to_string()).is_ok());
}

#[test]
fn an_operation_has_a_well_formed_payload() {
    let mut checker = acked(Subprotocol::GraphqlTransportWs);
    for payload in [
        json!(null),
        json!("{ a }"),
        json!({}),
        json!({"query": null}),
        json!({"query": "{ a }", "variables": []}),
        json!({"query": "{ a }", "extensions": "x"}),
        json!({"query": "{ a }", "operationName": 1}),
    ] {
        let message = json!({"type": "subscribe", "id": "1", "payload": payload});
        assert_eq!(broken_rule(&mut checker, message), Rule::OperationPayload);
    }
}

#[test]
fn only_an_operation_of_this_connection_is_stopped() {
    let used_ids = UsedIds::default();
    let mut earlier = acked_with(Subprotocol::GraphqlTransportWs, used_ids.clone());
    assert!(earlier.received(&subscribe("1").to_string()).is_ok());
    let mut later = acked_with(Subprotocol::GraphqlTransportWs, used_ids);
    assert_eq!(broken_rule(&mut later, json!({"type": "complete", "id": "1"})), Rule::UnknownId);
    let mut legacy = acked(Subprotocol::GraphqlWs);
    assert_eq!(broken_rule(&mut legacy, json!({"type": "stop", "id": "1"})), Rule::UnknownId);
}

#[test]
fn an_operation_is_stopped_once() {
    let mut checker = acked(Subprotocol::GraphqlTransportWs);
    assert!(checker.received(&subscribe("1").to_string()).is_ok());
    assert!(checker.received(r#"{"type":"complete","id":"1"}"#).is_ok());
    assert_eq!(
        broken_rule(&mut checker, json!({"type": "complete", "id": "1"})),
        Rule::StoppedTwice
    );
}

#[test]
fn an_operation_whose_end_was_read_is_not_completed() {
    for kind in ["complete", "error"] {
        let mut checker = acked(Subprotocol::GraphqlTransportWs);
        assert!(checker.received(&subscribe("1").to_string()).is_ok());
        checker.sent(&json!({"type": kind, "id": "1"}));
        checker.synced();
        assert_eq!(
            broken_rule(&mut checker, json!({"type": "complete", "id": "1"})),
            Rule::AlreadyEnded
        );
    }
}

#[test]
fn both_sides_may_complete_at_once() {
    let mut checker = acked(Subprotocol::GraphqlTransportWs);
    assert!(checker.received(&subscribe("1").to_string()).is_ok());
    checker.synced();
    checker.sent(&json!({"type": "complete", "id": "1"}));
    assert!(checker.received(r#"{"type":"complete","id":"1"}"#).is_ok());
}

#[test]
fn a_legacy_stop_may_follow_the_end() {
    let mut checker = acked(Subprotocol::GraphqlWs);
    assert!(checker.received(r#"{"type":"start","id":"1","payload":{"query":"{ a }"}}"#).is_ok());
    checker.sent(&json!({"type": "complete", "id": "1"}));
    checker.synced();
    assert!(checker.received(r#"{"type":"stop","id":"1"}"#).is_ok());
    assert_eq!(broken_rule(&mut checker, json!({"type": "stop", "id": "1"})), Rule::StoppedTwice);
}

#[test]
fn a_ping_payload_is_an_object_or_nothing() {
    let mut checker = acked(Subprotocol::GraphqlTransportWs);
    for kind in ["ping", "pong"] {
        assert!(checker.received(&json!({"type": kind, "payload": null}).to_string()).is_ok());
        assert_eq!(
            broken_rule(&mut checker, json!({"type": kind, "payload": "x"})),
            Rule::PingPayload
        );
    }
}

#[test]
fn nothing_follows_connection_terminate() {
    let mut checker = acked(Subprotocol::GraphqlWs);
    assert!(checker.received(r#"{"type":"connection_terminate"}"#).is_ok());
    let start = json!({"type": "start", "id": "1", "payload": {"query": "{ a }"}});
    assert_eq!(broken_rule(&mut checker, start), Rule::AfterTerminate);
}

#[test]
fn a_close_frame_has_a_code_that_may_be_sent() {
    for code in [1000_u16, 1001, 1011, 3000, 4504, 4999] {
        assert_eq!(close_frame(&code.to_be_bytes()), Ok((code, String::new())));
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        assert_eq!(close_frame(&code.to_be_bytes()), Err(Rule::CloseCode), "{code}");
    }
}

#[test]
fn an_empty_close_frame_is_1005() {
    assert_eq!(close_frame(b""), Ok((1005, String::new())));
}

#[test]
fn a_close_reason_has_at_most_123_bytes() {
    let body = |reason: &str| [&1000_u16.to_be_bytes(), reason.as_bytes()].concat();
    assert_eq!(close_frame(&body(&"x".repeat(123))), Ok((1000, "x".repeat(123))));
    assert_eq!(close_frame(&body(&"x".repeat(124))), Err(Rule::CloseReasonTooLong));
}

#[test]
fn a_close_body_is_a_code_and_text() {
    assert_eq!(close_frame(&[3]), Err(Rule::CloseBody));
    assert_eq!(close_frame(&[3, 232, 0xff]), Err(Rule::CloseBody));
}

fn fresh(subprotocol: Subprotocol) -> Checker {
    Checker::new(subprotocol, UsedIds::default())
}

fn acked(subprotocol: Subprotocol) -> Checker {
    acked_with(subprotocol, UsedIds::default())
}

fn acked_with(subprotocol: Subprotocol, used_ids: UsedIds) -> Checker {
    let mut checker = Checker::new(subprotocol, used_ids);
    assert!(checker.received(INIT).is_ok());
    checker.sent(&json!({"type": "connection_ack"}));
    checker
}

#[expect(clippy::needless_pass_by_value, reason = "callers build the message in place")]
fn broken_rule(checker: &mut Checker, message: Value) -> Rule {
    checker.received(&message.to_string()).unwrap_err()
}

fn subscribe(id: &str) -> Value {
    json!({"type": "subscribe", "id": id, "payload": {"query": "{ a }"}})
}

const BOTH: [Subprotocol; 2] = [Subprotocol::GraphqlTransportWs, Subprotocol::GraphqlWs];

const INIT: &str = r#"{"type":"connection_init","payload":{}}"#;
