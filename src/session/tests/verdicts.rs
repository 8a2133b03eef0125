//! The verdict table, row by row, by what the session does. The modern subprotocol is fixed: what a
//! refused one means is rule 1's.

mod rows;

use self::rows::{Row, Then, rows};
use super::*;
use crate::session::reconnect::verdicts::Stage;

/// One attempt, which ends in this way at this stage.
fn lose(rig: &mut Rig, stage: Stage, cause: &Disconnect) -> Vec<Did> {
    match (stage, cause) {
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

/// Loses one attempt after the other until the only stream ends. The first is under way; no
/// connection was healthy since `lost_at`. Returns what is not as the row says.
fn check(
    (rig, lost_at): &mut (Rig, Instant),
    cause: &Disconnect,
    stage: Stage,
    then: Then,
) -> Result<(), String> {
    let lost_at = *lost_at;
    for time in 1.. {
        let did = lose(rig, stage, cause);
        let passed = rig.now - lost_at;
        let ends = finished(&did);
        // Right at the end of the grace either is right.
        let is_late = passed >= GRACE + secs(2) || passed + secs(2) >= GRACE && !ends.is_empty();
        let is_last = match then {
            Then::Retry | Then::RetryNoSooner(_) if time == 20 => return Ok(()),
            Then::Retry | Then::RetryNoSooner(_) => false,
            Then::AskOnce | Then::RetryOnce => time == 2,
            Then::AskTwice => time == 3,
            Then::AskForGrace | Then::RetryForGrace => is_late,
            Then::EndAlone => !ends.is_empty() || is_late,
            Then::Fatal => true,
        };
        match (&ends[..], is_last) {
            ([(1, end)], true) if end.starts_with("lost") => break,
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
            Then::RetryForGrace | Then::EndAlone => !is_at_once,
            Then::Fatal => false,
        };
        if !is_right {
            return Err(format!("time {time}: {reason} after {delay:?}"));
        }
    }
    if rig.now - lost_at > GRACE + secs(60) {
        return Err(format!("only after {:?}", rig.now - lost_at));
    }
    // Rule 23: the client stays usable.
    rig.subscribe();
    let did = rig.take();
    next_attempt(rig, &did).map(drop).ok_or_else(|| format!("it is of no more use: {did:?}"))
}

/// With one stream, on a connection that was healthy for long, until it was lost at that time.
fn proven(config: Config) -> (Rig, Instant) {
    let mut rig = Rig::open(Config { ping_interval: None, ..config }, 1);
    rig.receive(json!({"type": "next", "id": "1.0", "payload": {"data": 1}}));
    rig.pass(secs(1_000));
    rig.lose(Disconnect::Reset(None));
    let lost_at = rig.now;
    rig.sleep();
    (rig, lost_at)
}

/// Checks every row at these stages, and shows all that are not as the table says.
fn check_rows(stages: &[Stage], column: impl Fn(&Row) -> Then, rig: impl Fn() -> (Rig, Instant)) {
    let mut wrong = Vec::new();
    for row in rows() {
        for stage in row.stages.iter().filter(|stage| stages.contains(stage)) {
            for cause in &row.causes {
                let then = column(&row);
                if let Err(but) = check(&mut rig(), cause, *stage, then) {
                    wrong.push(format!("{cause} at {stage:?}: {then:?}, but {but}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_endpoint_that_never_acknowledged_has_few_chances() {
    let unproven = || {
        let mut rig = Rig::new(fixed(MODERN));
        rig.subscribe();
        let begun_at = rig.now;
        (rig, begun_at)
    };
    check_rows(&[Stage::Opening], |row| row.unproven, unproven);
}

#[test]
fn an_endpoint_that_acknowledged_once_is_tried_for_its_grace_whatever_it_says() {
    check_rows(&[Stage::Opening, Stage::Open], |row| row.proven, || proven(fixed(MODERN)));
}

#[test]
fn without_a_grace_an_endpoint_that_acknowledged_once_is_as_one_that_never_did() {
    let config = || Config { refusal_grace: Duration::ZERO, ..fixed(MODERN) };
    check_rows(&[Stage::Opening, Stage::Open], |row| row.unproven, || proven(config()));
}

#[test]
fn a_server_that_acknowledges_and_refuses_is_not_healthy() {
    let (mut rig, lost_at) = proven(fixed(MODERN));
    // Less than `healthy_after` each time, so that the grace goes on.
    for _ in 0..1_000 {
        rig.connect();
        let mut did = rig.pass(secs(9));
        did.extend(rig.lose(closed(4400)));
        if !finished(&did).is_empty() {
            let passed = rig.now - lost_at;
            assert!(passed + secs(2) >= GRACE && passed <= GRACE + secs(60), "{passed:?}");
            return;
        }
        rig.sleep();
    }
    panic!("it loops for ever");
}

#[test]
fn a_connection_that_was_healthy_begins_the_grace_anew() {
    let (mut rig, mut lost_at) = proven(fixed(MODERN));
    for _ in 0..5 {
        while rig.now - lost_at < secs(200) {
            let did = lose(&mut rig, Stage::Opening, &Disconnect::Connect(refused(404)));
            assert!(finished(&did).is_empty(), "{did:?}");
            rig.sleep();
        }
        rig.connect();
        rig.pass(secs(11));
        rig.lose(closed(1012));
        lost_at = rig.now;
        rig.sleep();
    }
}

#[test]
fn after_what_is_probably_a_rejection_the_next_subscribe_fails_at_the_first() {
    let mut rig = Rig::new(fixed(MODERN));
    rig.subscribe();
    for _ in 0..2 {
        let did = lose(&mut rig, Stage::Opening, &closed(1011));
        next_attempt(&mut rig, &did).unwrap();
    }
    assert_eq!(finished(&lose(&mut rig, Stage::Opening, &closed(1011))).len(), 1);
    for id in 2..4 {
        rig.subscribe();
        let did = rig.take();
        next_attempt(&mut rig, &did).unwrap();
        let did = lose(&mut rig, Stage::Opening, &closed(1011));
        assert!(matches!(finished(&did)[..], [(ended, _)] if ended == id), "{did:?}");
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
