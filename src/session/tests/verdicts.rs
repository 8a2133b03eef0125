//! The verdict table, row by row, by what the session does. The modern subprotocol is fixed: what a
//! refused one means is rule 1's.

mod rows;

use std::{io, sync::Arc};

use self::rows::{Row, Then, named_rows, rows};
use super::*;
use crate::session::reconnect::verdicts::Stage;

/// One attempt, which ends in this way at this stage.
fn lose(rig: &mut Rig, stage: Stage, cause: &Disconnect) -> Vec<Did> {
    match (stage, cause) {
        (Stage::Opening, Disconnect::Credentials(error)) => {
            rig.take();
            rig.session.handle_credentials(rig.now, ConnectionId::A, Err(error.clone()));
            return rig.take();
        }
        (Stage::Open, _) => drop(rig.connect()),
        // There is no socket.
        (Stage::Opening, Disconnect::Connect(_)) => {
            rig.take();
            rig.dial();
        }
        (Stage::Opening, _) => drop(rig.upgrade()),
    }
    rig.lose(cause.clone())
}

/// After how long the next attempt begins, and why the provider is asked.
fn next_attempt(rig: &mut Rig, did: &[Did]) -> Option<(Duration, &'static str)> {
    let reason = |did: &[Did]| {
        did.iter().find_map(|did| match did {
            Did::Authorize(reason) => Some(*reason),
            _ => None,
        })
    };
    if let Some(reason) = reason(did) {
        return Some((Duration::ZERO, reason));
    }
    let delay = waiting(did)?;
    let did = rig.pass(delay);
    Some((delay, reason(&did)?))
}

/// Loses one attempt after the other until the only stream ends. The first is under way. Returns
/// what is not as the row says.
fn check(rig: &mut Rig, cause: &Disconnect, stage: Stage, then: Then) -> Result<(), String> {
    let mut begun_at = None;
    for time in 1.. {
        let did = lose(rig, stage, cause);
        let passed = rig.now - *begun_at.get_or_insert(rig.now);
        let is_last = match then {
            Then::Retry | Then::RetryNoSooner(_) if time == 20 => return Ok(()),
            Then::Retry | Then::RetryNoSooner(_) => false,
            Then::AskOnce | Then::RetryOnce => time == 2,
            Then::AskTwice => time == 3,
            Then::AskForGrace | Then::RetryForGrace => passed >= GRACE,
            Then::Fatal => true,
        };
        match (&finished(&did)[..], is_last) {
            ([(1, end)], true) if says(end, cause, time) => break,
            ([], false) => {}
            _ => return Err(format!("time {time}, after {passed:?}: {did:?}")),
        }
        let Some((delay, reason)) = next_attempt(rig, &did) else {
            return Err(format!("no attempt after time {time}: {did:?}"));
        };
        let (is_at_once, asks) = (delay.is_zero(), reason == "rejected");
        let is_right = match then {
            Then::Retry | Then::RetryOnce => !is_at_once && !asks,
            Then::RetryNoSooner(least) => delay >= secs(least) && !asks,
            Then::AskOnce => is_at_once && asks,
            Then::AskTwice => !is_at_once && asks,
            Then::AskForGrace => is_at_once == (time == 1) && asks,
            Then::RetryForGrace => !is_at_once,
            Then::Fatal => false,
        };
        if !is_right {
            return Err(format!("time {time}: {reason} after {delay:?}"));
        }
    }
    // Rule 23: the client stays usable.
    rig.subscribe();
    let did = rig.take();
    next_attempt(rig, &did).map(drop).ok_or_else(|| format!("it is of no more use: {did:?}"))
}

/// Whether an end names its cause.
fn says(end: &str, cause: &Disconnect, times: u32) -> bool {
    let cause = cause.to_string();
    let probably = format!("the server probably rejected the credentials, {times} times in a row");
    end == format!("lost: {cause}") || end == format!("lost: {probably}: {cause}")
}

/// With one stream, whose endpoint has never acknowledged.
fn unproven(config: Config) -> Rig {
    let mut rig = Rig::new(config);
    rig.subscribe();
    rig
}

/// With one stream, on a connection that was healthy for long, until it was lost.
fn proven(config: Config) -> Rig {
    let mut rig = Rig::open(Config { ping_interval: None, ..config }, 1);
    rig.receive(json!({"type": "next", "id": "1.0", "payload": {"data": 1}}));
    rig.pass(secs(1_000));
    rig.lose(Disconnect::Reset(Some(Arc::new(io::Error::other("before")))));
    rig.sleep();
    rig
}

/// Checks these rows at these stages, and shows all that are not as they say.
fn check_rows(
    rows: &[Row],
    stages: &[Stage],
    column: impl Fn(&Row) -> Then,
    rig: impl Fn() -> Rig,
) {
    let mut wrong = Vec::new();
    for row in rows {
        for stage in row.stages.iter().filter(|stage| stages.contains(stage)) {
            for cause in &row.causes {
                let then = column(row);
                if let Err(but) = check(&mut rig(), cause, *stage, then) {
                    wrong.push(format!("{cause} at {stage:?}: {then:?}, but {but}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

const BOTH: &[Stage] = &[Stage::Opening, Stage::Open];

#[test]
fn an_endpoint_that_never_acknowledged_has_few_chances() {
    check_rows(&rows(), &[Stage::Opening], |row| row.unproven, || unproven(fixed(MODERN)));
}

#[test]
fn an_endpoint_that_acknowledged_once_is_tried_for_its_grace_whatever_it_says() {
    check_rows(&rows(), BOTH, |row| row.proven, || proven(fixed(MODERN)));
}

#[test]
fn without_a_grace_an_endpoint_that_acknowledged_once_is_as_one_that_never_did() {
    let config = || Config { refusal_grace: Duration::ZERO, ..fixed(MODERN) };
    check_rows(&rows(), BOTH, |row| row.unproven, || proven(config()));
}

#[test]
fn the_applications_verdict_goes_before_every_row_of_the_table() {
    use crate::session::{Verdict, VerdictHook};
    for (verdict, unproven_then, proven_then) in [
        (Verdict::Retry, Then::Retry, Then::Retry),
        (Verdict::RetryAfter(secs(77)), Then::RetryNoSooner(77), Then::RetryNoSooner(77)),
        (Verdict::NewCredentials, Then::AskOnce, Then::AskForGrace),
        (Verdict::Fatal, Then::Fatal, Then::Fatal),
    ] {
        // The loss before is nothing to ask about.
        let config = |grace| {
            let hook = VerdictHook::new(move |cause, _| match cause {
                Disconnect::Reset(Some(source)) if source.to_string() == "before" => {
                    Verdict::Default
                }
                _ => verdict,
            });
            Config { on_disconnect: Some(hook), refusal_grace: grace, ..fixed(MODERN) }
        };
        let (rows, opening) = (named_rows(), &[Stage::Opening]);
        check_rows(&rows, opening, |_| unproven_then, || unproven(config(GRACE)));
        check_rows(&rows, BOTH, |_| proven_then, || proven(config(GRACE)));
        check_rows(&rows, BOTH, |_| unproven_then, || proven(config(Duration::ZERO)));
    }
}

#[test]
fn an_application_that_has_no_opinion_leaves_every_row_as_it_is() {
    use crate::session::{Verdict, VerdictHook};
    let config = || {
        let hook = VerdictHook::new(|_, _| Verdict::Default);
        Config { on_disconnect: Some(hook), ..fixed(MODERN) }
    };
    check_rows(&named_rows(), &[Stage::Opening], |row| row.unproven, || unproven(config()));
    check_rows(&named_rows(), BOTH, |row| row.proven, || proven(config()));
}

#[test]
fn a_server_that_acknowledges_and_refuses_is_not_healthy() {
    let mut rig = proven(fixed(MODERN));
    let mut refused_at = None;
    // Less than `healthy_after` each time, so that the grace goes on.
    for _ in 0..1_000 {
        rig.connect();
        let mut did = rig.pass(secs(9));
        did.extend(rig.lose(closed(4400)));
        let passed = rig.now - *refused_at.get_or_insert(rig.now);
        assert_eq!(!finished(&did).is_empty(), passed >= GRACE, "after {passed:?}");
        if passed >= GRACE {
            return;
        }
        rig.sleep();
    }
    panic!("it loops for ever");
}

#[test]
fn a_connection_that_was_healthy_begins_the_grace_anew() {
    let mut rig = proven(fixed(MODERN));
    for _ in 0..5 {
        let lost_at = rig.now;
        while rig.now - lost_at < secs(250) {
            let did = lose(&mut rig, Stage::Opening, &Disconnect::Connect(refused(404)));
            assert!(finished(&did).is_empty(), "{did:?}");
            rig.sleep();
        }
        rig.connect();
        rig.pass(secs(11));
        rig.lose(closed(1012));
        rig.sleep();
    }
}

#[test]
fn after_a_probable_rejection_the_next_subscribe_fails_at_the_first_until_an_acknowledgement() {
    let mut rig = unproven(Config { refusal_grace: Duration::ZERO, ..fixed(MODERN) });
    let mut did = rig.take();
    for (subscribes, codes) in [(1, [1011, 1000, 1002]), (5, [1000, 1000, 1000])] {
        for time in 1..=3 {
            next_attempt(&mut rig, &did).unwrap();
            did = lose(&mut rig, Stage::Opening, &closed(codes[time - 1]));
            assert_eq!(finished(&did).len(), usize::from(time == 3), "{did:?}");
        }
        for id in subscribes + 1..subscribes + 4 {
            assert_eq!(rig.subscribe(), id);
            let did = rig.take();
            next_attempt(&mut rig, &did).unwrap();
            let did = lose(&mut rig, Stage::Opening, &closed(1011));
            assert!(matches!(finished(&did)[..], [(ended, _)] if ended == id), "{did:?}");
        }
        rig.subscribe();
        did = rig.take();
        next_attempt(&mut rig, &did).unwrap();
        rig.connect();
        did = rig.lose(Disconnect::Reset(None));
    }
}

#[test]
fn an_endpoint_that_comes_back_with_the_other_subprotocol_is_followed() {
    for (before, after) in [(MODERN, LEGACY), (LEGACY, MODERN)] {
        let mut rig = Rig::new(config());
        rig.subscribe();
        let mut speaks = before;
        let mut opened = 0;
        let mut did = rig.take();
        let lost_at = rig.now;
        while opened < 2 && rig.now - lost_at < secs(200) {
            next_attempt(&mut rig, &did).unwrap_or_else(|| panic!("{did:?}"));
            let dialed = rig.dial();
            if dialed == [Did::Dial(speaks)] {
                rig.session.handle_open(rig.now, ConnectionId::A);
                did = rig.receive(json!({"type": "connection_ack"}));
                assert_eq!(issued(&did).len(), 1, "{did:?}");
                (opened, speaks) = (opened + 1, after);
                rig.pass(secs(11));
                did = rig.lose(closed(1012));
            } else {
                let refused = ConnectError::Subprotocol { offered: "" };
                did = rig.lose(Disconnect::Connect(refused));
                assert!(finished(&did).is_empty(), "{did:?}");
            }
        }
        assert_eq!(opened, 2, "{before:?} then {after:?}");
    }
}

/// The default.
const GRACE: Duration = Duration::from_secs(300);

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
fn credentials_for_a_rejection_are_used_on_the_subprotocol_on_which_it_was_said() {
    let mut rig = Rig::new(config());
    rig.subscribe();
    rig.upgrade();
    rig.lose(closed(1002));
    rig.upgrade();
    let did =
        rig.receive(json!({"type": "connection_error", "payload": {"message": "token expired"}}));
    assert_eq!(did[1..], [Did::Connecting(3), Did::Authorize("rejected")]);
    assert_eq!(rig.dial(), [Did::Dial(LEGACY)]);
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
        for _ in 0..2 {
            rig.upgrade();
            rig.lose(closed(1011));
            rig.sleep();
        }
        rig.connect();
        assert!(finished(&rig.lose(Disconnect::Reset(None))).is_empty());
        rig.sleep();
    }
}
