//! The verdict table, row by row, by what the session does. The modern subprotocol is fixed: what a
//! refused one means is rule 1's.

use std::{io, sync::Arc};

use super::*;
use crate::error::{ConnectError, DialError, UpgradeError, Violation};

/// What is seen right after the loss.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Then {
    /// Backoff, then another attempt.
    Retry,
    /// The same, and no sooner than this many seconds.
    RetryNoSooner(u64),
    /// The provider is asked at once for something better; the second time in a row is fatal.
    AskAtOnce,
    /// The provider is asked for something better, after a backoff; the fifth time in a row is
    /// fatal.
    AskLater,
    /// Backoff, then another attempt; the fifth time in a row is the only operation's own doing
    /// (rule 22).
    RetryFourTimes,
    /// One more attempt; the second time in a row is fatal.
    RetryOnce,
    Fatal,
}

/// Loses the connection once in this way; `acked` says when.
fn lose(rig: &mut Rig, acked: bool, cause: &Disconnect) -> Vec<Did> {
    if acked {
        rig.connect();
    } else {
        rig.upgrade();
    }
    rig.lose(cause.clone())
}

fn check(cause: &Disconnect, acked: bool, then: Then) {
    let mut rig = Rig::new(fixed(MODERN));
    rig.subscribe();
    let allowed = match then {
        Then::Retry | Then::RetryNoSooner(_) => 20,
        Then::AskAtOnce | Then::RetryOnce => 1,
        Then::AskLater | Then::RetryFourTimes => 4,
        Then::Fatal => 0,
    };
    for time in 1..=allowed {
        let did = lose(&mut rig, acked, cause);
        assert!(finished(&did).is_empty(), "{cause}, acked {acked}, time {time}: {did:?}");
        if then == Then::AskAtOnce {
            assert_eq!(
                did[1..],
                [Did::Connecting(time + 1), Did::Authorize("rejected")],
                "{cause}"
            );
            continue;
        }
        let delay = waiting(&did).unwrap_or_else(|| panic!("{cause}: {did:?}"));
        assert_eq!(rig.session.poll_timeout(), Some(rig.now + delay));
        if let Then::RetryNoSooner(floor) = then {
            assert!(delay >= secs(floor), "{cause}: {delay:?}");
        }
        let did = rig.pass(delay);
        let reason = if then == Then::AskLater { "rejected" } else { "reconnect" };
        assert_eq!(did, [Did::Connecting(time + 1), Did::Authorize(reason)], "{cause}");
    }
    if allowed < 20 {
        let did = lose(&mut rig, acked, cause);
        assert!(
            matches!(&finished(&did)[..], [(1, end)] if end.starts_with("lost")),
            "{cause}: {did:?}"
        );
    }
}

#[test]
fn close_codes_after_the_ack() {
    let rows: [(&[u16], Then); 7] = [
        (&[1000, 1001, 1005, 1006, 1011, 1012, 1014, 3008, 4408, 4504], Then::Retry),
        (&[4500, 4000, 4410, 4999], Then::RetryFourTimes),
        (&[1013, 4429], Then::RetryNoSooner(5)),
        (&[1008, 3000, 4401, 4403], Then::AskAtOnce),
        (&[1002, 1003, 1007, 1009, 1010, 4400, 4004, 4005, 4406], Then::Fatal),
        (&[4409], Then::RetryOnce),
        (&[3001, 3999, 1004, 1015, 1016, 2999], Then::Retry),
    ];
    for (codes, then) in rows {
        for &code in codes {
            check(&closed(code), true, then);
        }
    }
}

#[test]
fn close_codes_before_the_ack() {
    let rows: [(&[u16], Then); 5] = [
        (&[1001, 1005, 1006, 1012, 1014, 4500, 3008, 4408, 4504], Then::Retry),
        (&[1013, 4429], Then::RetryNoSooner(5)),
        (&[1008, 3000, 4401, 4403], Then::AskAtOnce),
        (&[1000, 1002, 1011], Then::AskLater),
        (&[1003, 1007, 1009, 1010, 4400, 4004, 4005, 4406], Then::Fatal),
    ];
    for (codes, then) in rows {
        for &code in codes {
            check(&closed(code), false, then);
        }
    }
}

#[test]
fn http_answers_to_the_upgrade() {
    let http = |status, retry_after: Option<u64>| {
        let retry_after = retry_after.map(secs);
        Disconnect::Connect(ConnectError::Http {
            status,
            retry_after,
            headers: ResponseHeaders::default(),
            body: String::new(),
        })
    };
    for status in [408, 425, 429, 500, 502, 503, 504, 599] {
        check(&http(status, None), false, Then::Retry);
        check(&http(status, Some(120)), false, Then::RetryNoSooner(120));
    }
    for status in [401, 403] {
        check(&http(status, None), false, Then::AskAtOnce);
    }
    for status in [200, 204, 301, 302, 307, 308, 400, 404, 405, 410, 426] {
        check(&http(status, None), false, Then::Fatal);
    }
}

#[test]
fn everything_else() {
    let io = || Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
    let dial = |error| Disconnect::Connect(ConnectError::Dial(error));
    for acked in [false, true] {
        check(&Disconnect::Reset(None), acked, Then::Retry);
        check(&Disconnect::Reset(Some(io())), acked, Then::Retry);
        check(&Disconnect::WebSocket("control frame too big".into()), acked, Then::Retry);
        check(&Disconnect::Silent(secs(10)), acked, Then::Retry);
        check(&Disconnect::MessageTooBig { limit: 1 }, acked, Then::Fatal);
        check(&Disconnect::Violation(Violation::Unreadable), acked, Then::Fatal);
    }
    check(&Disconnect::AckTimeout(secs(10)), false, Then::Retry);
    check(&Disconnect::Refused { message: "no".into() }, false, Then::AskAtOnce);
    check(&dial(DialError::Resolve { host: "h".into(), source: io() }), false, Then::Retry);
    check(&dial(DialError::Connect(io())), false, Then::Retry);
    check(&dial(DialError::Tls(io())), false, Then::Retry);
    check(&dial(DialError::Other(io())), false, Then::Retry);
    check(&dial(DialError::Certificate(io())), false, Then::Fatal);
    check(&dial(DialError::Permanent(io())), false, Then::Fatal);
    check(&Disconnect::Connect(ConnectError::Timeout(secs(10))), false, Then::Retry);
    check(&Disconnect::Connect(ConnectError::Subprotocol { offered: "" }), false, Then::Fatal);
    check(&Disconnect::Connect(ConnectError::Upgrade(UpgradeError::NotHttp)), false, Then::Fatal);
}

#[test]
fn a_connection_that_was_healthy_ends_every_streak() {
    let mut rig = Rig::open(fixed(MODERN), 1);
    for _ in 0..5 {
        let did = rig.lose(closed(4403));
        assert!(finished(&did).is_empty(), "{did:?}");
        rig.connect();
        rig.pass(secs(5));
        rig.receive(json!({"type": "ka"}));
        rig.pass(secs(6));
    }
}

#[test]
fn a_rejected_credential_may_look_like_a_refused_subprotocol_and_recovers_on_the_modern_one() {
    let mut rig = Rig::new(config());
    rig.subscribe();
    rig.upgrade();
    rig.lose(closed(1002));
    rig.upgrade();
    let did =
        rig.receive(json!({"type": "connection_error", "payload": {"message": "token expired"}}));
    assert_eq!(did[1..], [Did::Connecting(3), Did::Authorize("rejected")]);
    assert_eq!(rig.dial(), [Did::Dial(MODERN)]);
}

#[test]
fn a_refusal_keeps_the_servers_words() {
    for (payload, words) in [
        (json!({"message": "token expired"}), "token expired"),
        (json!("token expired"), "token expired"),
        (json!({"code": 7}), r#"{"code":7}"#),
    ] {
        let mut rig = Rig::new(Config { subprotocol: Some(LEGACY), ..config() });
        for _ in 0..2 {
            rig.subscribe();
            rig.upgrade();
            let did = rig.receive(json!({"type": "connection_error", "payload": payload}));
            assert!(finished(&did).iter().all(|end| end.1.contains(words)), "{did:?}");
        }
    }
}

#[test]
fn close_reasons_fit_a_close_frame_at_a_character_boundary() {
    use crate::protocol::close_reason;
    assert_eq!(close_reason("short"), "short");
    assert_eq!(close_reason(&"x".repeat(200)).len(), 123);
    assert_eq!(close_reason(&"é".repeat(100)).len(), 122);
    assert_eq!(close_reason(&"🦀".repeat(40)).len(), 120);
}

#[test]
fn an_acknowledgement_ends_the_streak_of_suspicious_closes() {
    let mut rig = Rig::new(fixed(MODERN));
    rig.subscribe();
    for _ in 0..4 {
        for _ in 0..4 {
            rig.upgrade();
            rig.lose(closed(1011));
            rig.sleep();
        }
        rig.connect();
        assert!(finished(&rig.lose(Disconnect::Reset(None))).is_empty());
        rig.sleep();
    }
}
