//! Queries and mutations (rules 15 and 27).

use super::*;
use crate::{
    error::CredentialsError,
    session::{Verdict, VerdictHook},
};

fn next(id: &str) -> Value {
    json!({"type": "next", "id": id, "payload": {"data": 1}})
}

/// An open connection, whose silence does not matter, with one query or mutation written.
fn calling(subprotocol: Subprotocol, kind: OperationType) -> (Rig, u64) {
    let mut rig = Rig::new(Config { ping_interval: None, ..fixed(subprotocol) });
    let id = rig.begin(kind);
    let did = rig.connect();
    assert_eq!(issued(&did), [("1.0".into(), id.to_string())]);
    (rig, id)
}

#[test]
fn rule_15_the_first_result_is_the_result_and_the_modern_subprotocol_needs_no_more() {
    for kind in [OperationType::Query, OperationType::Mutation] {
        let (mut rig, id) = calling(MODERN, kind);
        assert_eq!(rig.receive(next("1.0")), [Did::Finish(id, r#"answered {"data":1}"#.into())]);
        assert_eq!(rig.receive(json!({"type": "complete", "id": "1.0"})), []);
        assert_eq!(rig.session.counts().ignored, 0, "it crossed nothing that was wrong");
        assert_eq!(rig.receive(next("1.0")), []);
        assert_eq!(rig.session.counts().ignored, 1);
        assert_eq!(rig.session.live_operations(), 0);
    }
}

#[test]
fn a_result_is_read_whatever_surrounds_its_payload() {
    for frame in [
        r#"{"type":"next","id":"1.0","payload":{"data":1},"later":"field"}"#,
        r#"{"payload":{"data":1},"type":"next","id":"1.0"}"#,
    ] {
        let (mut rig, id) = calling(MODERN, OperationType::Query);
        assert_eq!(rig.receive_text(frame), [Did::Finish(id, r#"answered {"data":1}"#.into())]);
    }
}

#[test]
fn rule_15_on_legacy_a_result_is_followed_by_a_stop_even_after_a_complete() {
    let (mut rig, id) = calling(LEGACY, OperationType::Mutation);
    rig.session.handle_frame(
        rig.now,
        ConnectionId::A,
        &json!({"type": "data", "id": "1.0", "payload": {"data": 1}}).to_string(),
    );
    rig.session.handle_frame(rig.now, ConnectionId::A, r#"{"type":"complete","id":"1.0"}"#);
    let did = rig.take();
    assert_eq!(finished(&did), [(id, r#"answered {"data":1}"#.into())]);
    assert_eq!(wrote(&did), ["stop"]);
}

#[test]
fn a_call_ends_with_an_error_of_the_server_or_without_a_result() {
    let (mut rig, id) = calling(MODERN, OperationType::Query);
    assert_eq!(
        finished(&rig.receive(json!({"type": "error", "id": "1.0", "payload": []}))),
        [(id, "rejected".into())]
    );
    let (mut rig, id) = calling(MODERN, OperationType::Query);
    assert_eq!(
        finished(&rig.receive(json!({"type": "complete", "id": "1.0"}))),
        [(id, "completed".into())]
    );
}

#[test]
fn rule_27_a_query_is_sent_again_without_a_gap() {
    let (mut rig, id) = calling(MODERN, OperationType::Query);
    assert_eq!(finished(&rig.lose(Disconnect::Reset(None))), []);
    rig.sleep();
    let did = rig.connect();
    assert_eq!(issued(&did), [("2.0".into(), id.to_string())]);
    assert!(!did.iter().any(|did| matches!(did, Did::Reissue(..))));
    assert_eq!(finished(&rig.receive(next("2.0"))).len(), 1);
}

#[test]
fn rule_27_a_written_mutation_is_never_sent_again_however_the_connection_ends() {
    for cause in [Disconnect::Reset(None), closed(1001), closed(4409), closed(4401), closed(4400)] {
        let (mut rig, id) = calling(MODERN, OperationType::Mutation);
        let other = rig.subscribe();
        rig.take();
        let ends = finished(&rig.lose(cause.clone()));
        assert_eq!(ends, [(id, format!("ambiguous: {cause}"))]);
        rig.session.reconnect_now(rig.now);
        let queries = |did: &[Did]| issued(did).into_iter().map(|it| it.1).collect::<Vec<_>>();
        assert_eq!(queries(&rig.connect()), [other.to_string()], "{cause}");
        rig.session.reconnect_now(rig.now);
        assert_eq!(queries(&rig.connect()), [other.to_string()], "{cause}");
    }
}

#[test]
fn rule_27_what_ends_everything_leaves_a_written_mutation_ambiguous() {
    let hook = VerdictHook::new(|_, _| Verdict::Fatal);
    let mut rig = Rig::new(Config { on_disconnect: Some(hook), ..fixed(MODERN) });
    let written = [rig.begin(OperationType::Mutation), rig.begin(OperationType::Query)];
    rig.connect();
    let unwritten = rig.begin(OperationType::Mutation);
    rig.session.handle_lost(rig.now, ConnectionId::A, closed(1011));
    let cause = closed(1011);
    assert_eq!(
        finished(&rig.take()),
        [
            (written[0], format!("ambiguous: {cause}")),
            (written[1], format!("lost: {cause}")),
            (unwritten, format!("lost: {cause}")),
        ]
    );
}

#[test]
fn rule_27_a_mutation_that_was_not_written_waits_for_the_connection() {
    let mut rig = Rig::new(config());
    let id = rig.begin(OperationType::Mutation);
    rig.take();
    rig.dial();
    rig.lose(Disconnect::Reset(None));
    rig.sleep();
    assert_eq!(issued(&rig.connect()), [("1.0".into(), id.to_string())]);
    // Open, but the socket takes nothing.
    let second = rig.begin(OperationType::Mutation);
    rig.session.handle_lost(rig.now, ConnectionId::A, Disconnect::Reset(None));
    assert_eq!(finished(&rig.take()), [(id, "ambiguous: the connection broke off".into())]);
    rig.sleep();
    assert_eq!(issued(&rig.connect()), [("2.1".into(), second.to_string())]);
}

#[test]
fn a_call_whose_time_is_up_is_completed_on_the_server_and_says_whether_it_was_sent() {
    for (kind, end) in
        [(OperationType::Query, "timed out"), (OperationType::Mutation, "ambiguous: no cause")]
    {
        let (mut rig, id) = calling(MODERN, kind);
        let begun = rig.now;
        rig.now = begun + CALL_TIMEOUT / 2;
        rig.session.handle_timeout(rig.now);
        assert_eq!(finished(&rig.take()), []);
        rig.now = begun + CALL_TIMEOUT;
        rig.session.handle_timeout(rig.now);
        let did = rig.take();
        assert_eq!(finished(&did), [(id, end.into())]);
        assert!(wrote(&did).contains(&"complete".into()), "{did:?}");
    }
    let mut rig = Rig::new(config());
    let id = rig.begin(OperationType::Mutation);
    rig.take();
    rig.session.handle_credentials(
        rig.now,
        ConnectionId::A,
        Err(CredentialsError::transient("later")),
    );
    assert_eq!(finished(&rig.pass(CALL_TIMEOUT)), [(id, "timed out".into())]);
}

#[test]
fn a_shutdown_ends_a_written_mutation_as_ambiguous_and_others_as_shut_down() {
    let (mut rig, id) = calling(MODERN, OperationType::Mutation);
    let query = rig.begin(OperationType::Query);
    rig.take();
    rig.session.shutdown(rig.now, rig.now + secs(1));
    assert_eq!(
        finished(&rig.take()),
        [(id, "ambiguous: no cause".into()), (query, "shut down".into())]
    );
    let (mut rig, id) = calling(MODERN, OperationType::Mutation);
    rig.session.abandon();
    assert_eq!(finished(&rig.take()), [(id, "ambiguous: no cause".into())]);
}

#[test]
fn an_operation_that_goes_on_after_its_first_result_is_stopped() {
    let (mut rig, _) = calling(MODERN, OperationType::Query);
    rig.receive(next("1.0"));
    let did = rig.receive(next("1.0"));
    assert_eq!(wrote(&did), ["complete"], "else it runs there for as long as the connection lives");
    assert_eq!(wrote(&rig.receive(next("1.0"))), [""; 0], "once");
}

/// A part of a result.
#[expect(clippy::needless_pass_by_value, reason = "called with `json!`")]
fn part(id: &str, payload: Value) -> Value {
    json!({"type": "next", "id": id, "payload": payload})
}

#[test]
fn rule_15_a_result_in_parts_ends_with_its_last_part() {
    for kind in [OperationType::Query, OperationType::Mutation] {
        let (mut rig, id) = calling(MODERN, kind);
        assert_eq!(rig.receive(part("1.0", json!({"data": 1, "hasNext": true}))), []);
        assert_eq!(rig.receive(part("1.0", json!({"incremental": [], "hasNext": true}))), []);
        let did = rig.receive(part("1.0", json!({"hasNext": false})));
        assert_eq!(did, [Did::Finish(id, "answered in 3 parts".into())]);
        assert_eq!(rig.receive(json!({"type": "complete", "id": "1.0"})), []);
        assert_eq!(rig.session.counts().ignored, 0);
    }
}

#[test]
fn an_operation_that_goes_on_after_its_last_part_is_stopped() {
    let (mut rig, _) = calling(MODERN, OperationType::Query);
    rig.receive(part("1.0", json!({"data": 1, "hasNext": true})));
    rig.receive(part("1.0", json!({"hasNext": false})));
    assert_eq!(wrote(&rig.receive(part("1.0", json!({"hasNext": true})))), ["complete"]);
    assert_eq!(wrote(&rig.receive(next("1.0"))), [""; 0], "once");
}

#[test]
fn a_result_that_only_mentions_parts_is_the_result() {
    for payload in [
        json!({"data": {"page": {"hasNext": true}}}),
        json!({"data": "\"hasNext\":true"}),
        json!({"data": 1, "hasNext": false}),
        json!({"data": 1, "hasNext": null}),
    ] {
        let (mut rig, id) = calling(MODERN, OperationType::Query);
        let did = rig.receive(part("1.0", payload.clone()));
        assert_eq!(did, [Did::Finish(id, format!("answered {payload}"))]);
    }
}

#[test]
fn a_complete_before_the_last_part_leaves_the_result_incomplete() {
    for kind in [OperationType::Query, OperationType::Mutation] {
        let (mut rig, id) = calling(MODERN, kind);
        rig.receive(part("1.0", json!({"data": 1, "hasNext": true})));
        let did = rig.receive(json!({"type": "complete", "id": "1.0"}));
        assert_eq!(did, [Did::Finish(id, "incomplete: 1 parts".into())]);
    }
}

#[test]
fn an_error_between_two_parts_is_the_end() {
    let (mut rig, id) = calling(MODERN, OperationType::Query);
    rig.receive(part("1.0", json!({"data": 1, "hasNext": true})));
    let did = rig.receive(json!({"type": "error", "id": "1.0", "payload": []}));
    assert_eq!(did, [Did::Finish(id, "rejected".into())]);
}

#[test]
fn rule_27_after_a_loss_between_two_parts_a_query_begins_anew_and_a_mutation_is_ambiguous() {
    let (mut rig, id) = calling(MODERN, OperationType::Query);
    rig.receive(part("1.0", json!({"data": 1, "hasNext": true})));
    assert_eq!(finished(&rig.lose(Disconnect::Reset(None))), []);
    rig.sleep();
    assert_eq!(issued(&rig.connect()), [("2.0".into(), id.to_string())]);
    rig.receive(part("2.0", json!({"data": 2, "hasNext": true})));
    let did = rig.receive(part("2.0", json!({"hasNext": false})));
    assert_eq!(finished(&did), [(id, "answered in 2 parts".into())], "the first part is gone");

    let (mut rig, id) = calling(MODERN, OperationType::Mutation);
    rig.receive(part("1.0", json!({"data": 1, "hasNext": true})));
    let ends = finished(&rig.lose(Disconnect::Reset(None)));
    assert_eq!(ends, [(id, "ambiguous: the connection broke off".into())]);
}

#[test]
fn rule_15_on_legacy_the_stop_follows_the_last_part() {
    let (mut rig, id) = calling(LEGACY, OperationType::Mutation);
    assert_eq!(rig.receive(part("1.0", json!({"data": 1, "hasNext": true}))), []);
    let did = rig.receive(part("1.0", json!({"hasNext": false})));
    assert_eq!(finished(&did), [(id, "answered in 2 parts".into())]);
    assert_eq!(wrote(&did), ["stop"]);
}

#[test]
fn the_parts_of_a_call_are_bounded_together_and_the_server_is_told_to_stop() {
    let config = Config { ping_interval: None, max_message_size: 10_000, ..fixed(MODERN) };
    for payload in [json!({"hasNext": true}), json!({"hasNext": true, "data": "x".repeat(3_000)})] {
        let mut rig = Rig::new(config.clone());
        let id = rig.begin(OperationType::Query);
        rig.connect();
        let did = (0..200)
            .map(|_| rig.receive(part("1.0", payload.clone())))
            .find(|did| !did.is_empty())
            .expect("an end");
        assert_eq!(finished(&did), [(id, "above 10000 bytes".into())]);
        assert_eq!(wrote(&did), ["complete"]);
        assert_eq!(wrote(&rig.receive(part("1.0", payload))), [""; 0]);
    }
}

#[test]
fn the_deadline_of_a_call_holds_between_its_parts() {
    let (mut rig, id) = calling(MODERN, OperationType::Query);
    rig.receive(part("1.0", json!({"data": 1, "hasNext": true})));
    rig.now += CALL_TIMEOUT;
    rig.session.handle_timeout(rig.now);
    assert_eq!(finished(&rig.take()), [(id, "timed out".into())]);
}

#[test]
fn rule_15_on_legacy_a_stop_follows_an_end_without_a_result() {
    let (mut rig, _) = calling(LEGACY, OperationType::Mutation);
    let did = rig.receive(json!({"type": "complete", "id": "1.0"}));
    assert_eq!(wrote(&did), ["stop"]);
}

#[test]
fn rule_15_on_legacy_a_stop_that_crosses_the_end_is_written_all_the_same() {
    let (mut rig, _) = calling(LEGACY, OperationType::Mutation);
    rig.cancel(1);
    rig.session.handle_frame(
        rig.now,
        ConnectionId::A,
        &json!({"type": "data", "id": "1.0", "payload": {"data": 1}}).to_string(),
    );
    rig.session.handle_frame(rig.now, ConnectionId::A, r#"{"type":"complete","id":"1.0"}"#);
    assert_eq!(wrote(&rig.take()), ["stop"]);
}
