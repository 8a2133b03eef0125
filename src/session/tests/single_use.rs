//! A session that serves one operation, on a connection of its own.

use std::sync::Arc;

use super::*;
use crate::session::DialBudget;

fn single_use(config: Config) -> Rig {
    let mut rig = Rig::new(Config { is_single_use: true, ping_interval: None, ..config });
    rig.subscribe();
    rig
}

#[test]
fn it_shuts_down_when_its_operation_ends_whoever_ends_it() {
    for is_dropped in [true, false] {
        let mut rig = single_use(fixed(MODERN));
        rig.connect();
        let did = if is_dropped {
            rig.cancel(1);
            rig.take()
        } else {
            rig.receive(json!({"type": "complete", "id": "1.0"}))
        };
        let expected: &[&str] =
            if is_dropped { &["complete", "close 1000"] } else { &["close 1000"] };
        assert_eq!(wrote(&did), expected);
        assert_eq!(rig.lose(Disconnect::Reset(None)), [Did::Ended]);
        assert_eq!(rig.session.poll_timeout(), None);
    }
}

#[test]
fn it_ends_in_time_if_the_server_does_not_answer_and_at_once_if_there_is_no_connection() {
    let mut rig = single_use(fixed(MODERN));
    rig.connect();
    rig.cancel(1);
    rig.take();
    assert!(rig.pass(secs(1)).contains(&Did::Ended));

    let mut rig = single_use(fixed(MODERN));
    rig.cancel(1);
    assert!(rig.take().contains(&Did::Ended), "it was dropped before it was connected");

    let mut rig = single_use(fixed(MODERN));
    rig.session.pause(rig.now);
    rig.cancel(1);
    assert!(rig.take().contains(&Did::Ended), "it was dropped while paused");
}

#[test]
fn what_is_fatal_ends_it_and_a_loss_does_not() {
    let mut rig = single_use(Config { give_up_after: Some(2), ..fixed(MODERN) });
    rig.connect();
    assert!(waiting(&rig.lose(Disconnect::Reset(None))).is_some());
    rig.sleep();
    let did = rig.lose(Disconnect::Reset(None));
    assert_eq!(finished(&did).len(), 1, "{did:?}");
    assert!(did.contains(&Did::Ended), "{did:?}");
}

#[test]
fn sessions_that_share_a_dial_budget_keep_to_it_together() {
    let config = Config {
        max_dials: Some(DialBudget { dials: 2.try_into().unwrap(), per: secs(60) }),
        dial_log: Some(Arc::default()),
        ..fixed(MODERN)
    };
    let origin = Rig::new(config.clone()).now;
    let asks = |did: &[Did]| did.iter().any(|did| matches!(did, Did::Authorize(_)));
    let begin = |after| {
        let mut rig = Rig::new(config.clone());
        rig.now = origin + after;
        rig.subscribe();
        let did = rig.take();
        (rig, asks(&did))
    };
    assert!(begin(Duration::ZERO).1 && begin(secs(30)).1);
    let [(mut third, third_asks), (mut fourth, fourth_asks)] = [begin(secs(31)), begin(secs(31))];
    assert!(!third_asks && !fourth_asks);
    // The first attempt is a minute old, which makes room for one.
    assert!(asks(&third.pass(secs(29))));
    assert!(!asks(&fourth.pass(secs(58))), "the other one has used it up");
    assert!(asks(&fourth.pass(secs(1))));
}
