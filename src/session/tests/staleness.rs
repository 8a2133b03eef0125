//! Operations for which nothing comes: noticed, said once, and sent again if that is wanted.

use super::*;

fn watch_options(first_item_within: Option<u64>, idle_longer_than: Option<u64>) -> WatchOptions {
    WatchOptions {
        restart: false,
        first_item_within: first_item_within.map(secs),
        idle_longer_than: idle_longer_than.map(secs),
        reissue_stale: false,
    }
}

/// An open connection, whose silence does not matter and which has been healthy for a while, with
/// one operation just sent.
fn watching(subprotocol: Subprotocol, watch_options: WatchOptions) -> Rig {
    let mut rig = Rig::new(Config {
        ping_interval: None,
        idle_timeout: None,
        healthy_after: Duration::ZERO,
        ..fixed(subprotocol)
    });
    rig.watch_options = watch_options;
    rig.subscribe();
    rig.connect();
    rig.session.handle_timeout(rig.now);
    rig
}

fn item(rig: &mut Rig, id: &str) {
    let did = rig.receive(json!({"type": "next", "id": id, "payload": {"data": 1}}));
    assert!(matches!(did[..], [Did::Deliver(1, _)]), "{did:?}");
}

/// When it was said that the operation is stale, in seconds from now, and how long nothing had
/// come.
fn stale(rig: &mut Rig, within: u64) -> Vec<(u64, u64)> {
    let begun = rig.now;
    let mut stale = Vec::new();
    while rig.now < begun + secs(within) {
        for did in rig.pass(secs(1)) {
            if let Did::Stale(1, idle_for) = did {
                stale.push(((rig.now - begun).as_secs(), idle_for.as_secs()));
            }
        }
    }
    stale
}

#[test]
fn an_operation_that_brings_nothing_is_stale_once() {
    for subprotocol in [MODERN, LEGACY] {
        for (first, idle, at) in
            [(Some(5), None, 5), (None, Some(7), 7), (Some(5), Some(7), 5), (Some(9), Some(7), 9)]
        {
            let mut rig = watching(subprotocol, watch_options(first, idle));
            assert_eq!(stale(&mut rig, 3_600), [(at, at)], "{first:?} {idle:?}");
            assert_eq!(rig.session.poll_timeout(), None, "no timer for what was said");
        }
    }
}

#[test]
fn an_operation_that_goes_quiet_is_stale_once_for_each_silence() {
    for subprotocol in [MODERN, LEGACY] {
        for first in [None, Some(2), Some(7), Some(60), Some(3_000)] {
            let mut rig = watching(subprotocol, watch_options(first, Some(7)));
            rig.pass(secs(1));
            item(&mut rig, "1.0");
            for _ in 0..3 {
                for _ in 0..10 {
                    assert_eq!(stale(&mut rig, 6), []);
                    item(&mut rig, "1.0");
                }
                assert_eq!(stale(&mut rig, 3_600), [(7, 7)], "{first:?}");
                item(&mut rig, "1.0");
            }
        }
    }
}

#[test]
fn only_the_first_item_is_waited_for_if_nothing_else_is_asked_for() {
    let mut rig = watching(MODERN, watch_options(Some(5), None));
    item(&mut rig, "1.0");
    assert_eq!(stale(&mut rig, 3_600), []);
    assert_eq!(rig.session.poll_timeout(), None);
    let mut rig = watching(MODERN, watch_options(Some(5), None));
    assert_eq!(stale(&mut rig, 6), [(5, 5)]);
    item(&mut rig, "1.0");
    assert_eq!(stale(&mut rig, 3_600), []);
}

#[test]
fn items_move_no_timer_and_a_timer_that_comes_too_early_is_set_once_more() {
    let mut rig = watching(MODERN, watch_options(Some(100), Some(10)));
    rig.pass(secs(2));
    item(&mut rig, "1.0");
    let armed = rig.session.poll_timeout();
    assert_eq!(armed, Some(rig.now + secs(10)));
    rig.now += secs(1);
    for _ in 0..100 {
        item(&mut rig, "1.0");
        assert_eq!(rig.session.poll_timeout(), armed);
    }
    let mut wakes = 0;
    for _ in 0..3_600 {
        rig.now += secs(1);
        while rig.session.poll_timeout().is_some_and(|at| at <= rig.now) {
            rig.session.handle_timeout(rig.now);
            wakes += 1;
        }
        item(&mut rig, "1.0");
    }
    assert!((300..=420).contains(&wakes), "{wakes} wakes in an hour, for 3,600 items");
}

#[test]
fn no_operation_is_stale_and_no_timer_runs_if_nobody_asked() {
    for restart in [false, true] {
        let mut rig = watching(MODERN, WatchOptions { restart, ..WatchOptions::default() });
        rig.pass(secs(2));
        assert_eq!(rig.session.poll_timeout(), None);
        item(&mut rig, "1.0");
        assert_eq!(rig.session.poll_timeout(), None);
        assert_eq!(stale(&mut rig, 3_600), []);
    }
}

#[test]
fn the_time_without_a_connection_is_no_silence() {
    for watch_options in [watch_options(Some(5), None), watch_options(None, Some(5))] {
        let mut rig = watching(MODERN, watch_options);
        item(&mut rig, "1.0");
        rig.pass(secs(4));
        rig.lose(Disconnect::Reset(None));
        assert_eq!(stale(&mut rig, 600), []);
        rig.session.reconnect_now(rig.now);
        rig.upgrade();
        assert_eq!(stale(&mut rig, 9), [], "nor before the ack");
        let did = rig.receive(json!({"type": "connection_ack"}));
        assert_eq!(issued(&did).len(), 1);
        assert_eq!(stale(&mut rig, 600), [(5, 5)]);
        rig.lose(Disconnect::Reset(None));
        rig.pass(secs(60));
        rig.session.reconnect_now(rig.now);
        rig.connect();
        assert_eq!(stale(&mut rig, 600), [(5, 5)], "another connection, another silence");
    }
}

#[test]
fn the_time_in_which_the_socket_is_not_read_is_no_silence() {
    let mut rig = watching(MODERN, watch_options(None, Some(10)));
    item(&mut rig, "1.0");
    rig.pass(secs(9));
    rig.session.stall();
    assert_eq!(stale(&mut rig, 601), []);
    rig.session.unstall(rig.now);
    let quiet = stale(&mut rig, 600);
    assert_eq!(quiet, [(10, 620)], "it is said how long nothing came, whyever");
    item(&mut rig, "1.0");
    rig.pass(secs(5));
    rig.session.stall();
    rig.pass(secs(4));
    rig.session.unstall(rig.now);
    assert_eq!(stale(&mut rig, 600), [(10, 19)], "however short it was");
    item(&mut rig, "1.0");
    assert_eq!(stale(&mut rig, 600), [(10, 10)]);
}

#[test]
fn a_pause_costs_no_more_than_a_timer_now_and_then() {
    let mut rig = watching(MODERN, watch_options(None, Some(10)));
    rig.pass(secs(2));
    rig.session.stall();
    let (begun, mut wakes) = (rig.now, 0);
    while let Some(at) = rig.session.poll_timeout().filter(|&at| at < begun + secs(3_600)) {
        assert!(at > rig.now || wakes == 0, "it spins");
        rig.now = at;
        rig.session.handle_timeout(at);
        wakes += 1;
    }
    assert!((359..=360).contains(&wakes), "{wakes}");
}

#[test]
fn an_operation_that_the_socket_has_not_taken_is_not_stale() {
    for taken_after in [5, 19, 20, 59] {
        let mut rig = watching(MODERN, WatchOptions::default());
        rig.watch_options = WatchOptions { reissue_stale: true, ..watch_options(Some(10), None) };
        let id = rig.subscribe();
        let (begun, mut said) = (rig.now, None);
        for second in 1..=100 {
            rig.now = begun + secs(second);
            rig.session.handle_timeout(rig.now);
            while let Some(output) = rig.session.poll_output() {
                if let Output::Stale { writer, .. } = output {
                    assert_eq!(writer, id);
                    said.get_or_insert(second);
                }
            }
            if second >= taken_after {
                while rig.session.poll_transmit(ConnectionId::A).is_some() {}
            }
        }
        let said = said.unwrap();
        let soonest = if taken_after < 10 { 10 } else { taken_after + 10 };
        assert!(
            (soonest..=taken_after + 20).contains(&said),
            "taken after {taken_after}, stale after {said}"
        );
    }
}

#[test]
fn a_stale_operation_is_completed_and_sent_again_alone_if_that_is_wanted() {
    for (subprotocol, stop, start) in [(MODERN, "complete", "subscribe"), (LEGACY, "stop", "start")]
    {
        let mut rig = watching(
            subprotocol,
            WatchOptions { reissue_stale: true, ..watch_options(Some(5), Some(7)) },
        );
        rig.watch_options = WatchOptions::default();
        let sibling = rig.subscribe();
        rig.take();
        item(&mut rig, "1.0");
        let did = rig.pass(secs(7));
        let (Some(Did::Stale(1, _)), Some(Did::Reissue(1, 0))) = (did.first(), did.get(1)) else {
            panic!("{did:?}")
        };
        assert_eq!(wrote(&did), [stop, start]);
        assert_eq!(did[2], Did::Wrote(json!({"type": stop, "id": "1.0"})));
        assert_eq!(issued(&did), [("3.0".into(), "1".into())]);
        assert_eq!((rig.gaps[0].restarts, rig.gaps[0].reconnects), (1, 0));
        for late in ["next", "complete", "error"] {
            assert_eq!(
                rig.receive(json!({"type": late, "id": "1.0", "payload": {}})),
                [],
                "what comes late is no sign"
            );
        }
        assert_eq!(
            rig.receive(json!({"type": "next", "id": "2.1", "payload": 1})),
            [Did::Deliver(sibling, json!(1))]
        );
        let did = rig.pass(secs(5));
        assert_eq!(issued(&did), [("4.0".into(), "1".into())], "and again, from the first item on");
        item(&mut rig, "4.0");
        assert_eq!(stale(&mut rig, 7), [(7, 7)]);
        assert_eq!(
            rig.receive(json!({"type": "next", "id": "2.1", "payload": 1})),
            [Did::Deliver(sibling, json!(1))]
        );
    }
}

#[test]
fn a_stale_operation_that_goes_leaves_no_timer_behind() {
    for reissue_stale in [false, true] {
        let mut rig =
            watching(MODERN, WatchOptions { reissue_stale, ..watch_options(None, Some(5)) });
        rig.pass(secs(5));
        rig.cancel(1);
        assert_eq!(wrote(&rig.take()), ["complete"]);
        assert_eq!(rig.session.poll_timeout(), None);
    }
}

#[test]
fn an_operation_that_waits_to_be_sent_again_is_not_stale() {
    let mut rig =
        watching(MODERN, WatchOptions { restart: true, ..watch_options(Some(5), Some(5)) });
    rig.session.rewind(1);
    assert_eq!(stale(&mut rig, 600), []);
    rig.session.catch_up(rig.now, 1);
    rig.take();
    assert_eq!(stale(&mut rig, 600), [(5, 5)]);
    let did = rig.receive(json!({"type": "complete", "id": "2.0"}));
    assert_eq!(did, [Did::Judge(1, "completed".into())]);
    assert_eq!(stale(&mut rig, 600), []);
    rig.session.restart(rig.now, 1);
    let restarted = rig.session.poll_timeout().unwrap() - rig.now;
    rig.pass(restarted);
    assert_eq!(stale(&mut rig, 600), [(5, 5)]);
}
