//! What is known to have been read, and who asks for that.

mod heartbeats;

use super::*;
use crate::session::connection::pings::MAX_UNANSWERED;

/// An open connection that pings only when something is to be proven, with so many operations
/// written.
fn quiet(subprotocol: Subprotocol, operations: u64) -> Rig {
    Rig::open(Config { ping_interval: None, ..fixed(subprotocol) }, operations)
}

fn item(id: &str) -> Value {
    json!({"type": "next", "id": id, "payload": {"data": 1}})
}

/// A pong that says nothing.
fn pong() -> Value {
    json!({"type": "pong"})
}

/// A pong that repeats the payload of a ping.
fn echo(number: u64) -> Value {
    json!({"type": "pong", "payload": {"n": number}})
}

fn established(did: &[Did]) -> Vec<u64> {
    did.iter()
        .filter_map(|did| if let Did::Established(id) = did { Some(*id) } else { None })
        .collect()
}

impl Rig {
    fn probe(&mut self, id: u64) -> Vec<Did> {
        self.session.probe(id);
        self.take()
    }

    /// The pong that repeats this ping, of the kind of the subprotocol.
    fn answer(&mut self, subprotocol: Subprotocol, number: u64) -> Vec<Did> {
        match subprotocol {
            MODERN => self.receive(echo(number)),
            LEGACY => {
                self.session.handle_pong(self.now, ConnectionId::A, Some(number));
                self.take()
            }
        }
    }
}

#[test]
fn a_ping_behind_the_subscribe_that_is_answered_proves_it_on_both_subprotocols() {
    for (subprotocol, written) in [
        (MODERN, ["subscribe", "subscribe", "ping"]),
        (LEGACY, ["start", "start", "websocket ping"]),
    ] {
        let mut rig = quiet(subprotocol, 0);
        let (first, _) = (rig.subscribe(), rig.subscribe());
        rig.connect();
        rig.subscribe();
        let last = rig.subscribe();
        rig.session.probe(last);
        assert_eq!(wrote(&rig.take()), written);
        assert_eq!(rig.answer(subprotocol, 1), [Did::Established(last)]);
        assert_eq!(rig.probe(first), [Did::Established(first)], "what was proven is known");
        assert_eq!(rig.answer(subprotocol, 1), []);
    }
}

#[test]
fn the_first_item_is_a_proof_of_its_own_operation_alone() {
    for subprotocol in [MODERN, LEGACY] {
        let mut rig = quiet(subprotocol, 2);
        for id in [1, 2] {
            rig.probe(id);
        }
        assert_eq!(
            rig.receive(item("2.1")),
            [Did::Deliver(2, json!({"data": 1})), Did::Established(2)]
        );
        assert_eq!(rig.receive(item("2.1")), [Did::Deliver(2, json!({"data": 1}))], "said once");
        assert_eq!(rig.answer(subprotocol, 1), [Did::Established(1)]);
    }
}

#[test]
fn a_pong_without_a_number_proves_what_the_pong_before_it_answered() {
    let mut rig = quiet(MODERN, 2);
    assert_eq!(wrote(&rig.probe(1)), ["ping"]);
    assert_eq!(wrote(&rig.receive(pong())), ["ping"], "it may have been nobody's answer");
    let late = rig.subscribe();
    assert_eq!(wrote(&rig.probe(late)), ["subscribe"]);
    let did = rig.receive(pong());
    assert_eq!((established(&did), wrote(&did)), (vec![1], vec!["ping".into()]));
    assert_eq!(wrote(&rig.receive(pong())), ["ping"]);
    assert_eq!(rig.receive(pong()), [Did::Established(late)]);
}

#[test]
fn the_answer_to_a_ping_that_was_written_first_proves_nothing_behind_it() {
    let opened = || {
        let mut rig = Rig::open(config(), 1);
        rig.pass(secs(10));
        let late = rig.subscribe();
        assert_eq!(wrote(&rig.probe(late)), ["subscribe", "ping"]);
        (rig, late)
    };
    let (mut rig, late) = opened();
    assert_eq!(rig.receive(echo(1)), [], "of the ping after 10 s");
    assert_eq!(rig.receive(echo(2)), [Did::Established(late)]);

    let (mut rig, late) = opened();
    assert_eq!(rig.receive(pong()), []);
    assert_eq!(wrote(&rig.receive(pong())), ["ping"], "proves the ping after 10 s");
    assert_eq!(rig.receive(pong()), [Did::Established(late)]);
}

#[test]
fn an_ordinary_ping_proves_what_it_was_written_behind_and_not_what_it_has_overtaken() {
    let mut rig = Rig::open(config(), 1);
    let late = rig.subscribe();
    for id in [1, late] {
        rig.session.probe(id);
    }
    // Nothing is written before the ping of the interval is due, which goes first.
    rig.now += secs(10);
    rig.session.handle_timeout(rig.now);
    assert_eq!(wrote(&rig.take()), ["ping", "subscribe", "ping"]);
    assert_eq!(rig.receive(echo(1)), [Did::Established(1)]);
    assert_eq!(rig.receive(echo(2)), [Did::Established(late)]);
}

#[test]
fn the_answer_to_a_later_ping_proves_everything_before_it() {
    let mut rig = Rig::open(config(), 1);
    rig.pass(secs(10));
    let late = rig.subscribe();
    for id in [1, late] {
        rig.probe(id);
    }
    assert_eq!(established(&rig.receive(echo(2))), [1, late], "the first was not answered");
    assert_eq!(rig.receive(echo(1)), [], "or its answer was overtaken");
}

#[test]
fn a_pong_that_nobody_asked_for_proves_nothing() {
    let payloads = [
        json!(null),
        json!({}),
        json!({"heartbeat": 1}),
        json!({"n": "1"}),
        json!({"n": -1}),
        json!({"n": 0}),
        json!({"n": 7}),
        json!("1"),
        json!(1),
    ];
    for subprotocol in [MODERN, LEGACY] {
        let unasked: Vec<Value> = match subprotocol {
            MODERN => payloads
                .iter()
                .map(|payload| json!({"type": "pong", "payload": payload}))
                .chain([pong()])
                .collect(),
            // Only WebSocket pongs are answers.
            LEGACY => vec![pong(), echo(1)],
        };
        for unasked in unasked {
            let mut rig = quiet(subprotocol, 1);
            rig.receive(unasked.clone());
            assert_eq!(wrote(&rig.probe(1)).len(), 1, "that came before the ping was written");
            let did = rig.receive(unasked.clone());
            assert_eq!(established(&did), [0_u64; 0], "{unasked}: the server may not have read it");
            let pings = 1 + wrote(&did).len() as u64;
            // Nor does one of the kind that is no answer here.
            if subprotocol == MODERN {
                rig.session.handle_pong(rig.now, ConnectionId::A, Some(1));
                rig.session.handle_pong(rig.now, ConnectionId::A, None);
                assert_eq!(rig.take(), []);
            }
            assert_eq!(rig.answer(subprotocol, pings), [Did::Established(1)], "{unasked}");
        }
    }
}

#[test]
fn a_server_that_repeats_numbers_proves_nothing_by_a_pong_without_one() {
    for subprotocol in [MODERN, LEGACY] {
        let mut rig = quiet(subprotocol, 1);
        rig.probe(1);
        assert_eq!(rig.answer(subprotocol, 1), [Did::Established(1)]);
        for number in 2..10 {
            let late = rig.subscribe();
            assert_eq!(wrote(&rig.probe(late)).len(), 2);
            for _ in 0..3 {
                rig.receive(pong());
                rig.session.handle_pong(rig.now, ConnectionId::A, None);
                assert_eq!(rig.take(), [], "a heartbeat");
            }
            assert_eq!(rig.answer(subprotocol, number), [Did::Established(late)]);
        }
    }
}

#[test]
fn ten_thousand_that_wait_are_proven_by_one_ping() {
    let mut rig = quiet(MODERN, 10_000);
    for id in 1..=10_000 {
        rig.session.probe(id);
    }
    assert_eq!(wrote(&rig.take()), ["ping"]);
    assert_eq!(established(&rig.receive(echo(1))), (1..=10_000).collect::<Vec<_>>());

    // Each asks as soon as it has subscribed: the first one's ping, and one for all the others.
    let mut ids = Vec::new();
    for _ in 0..10_000 {
        let id = rig.subscribe();
        rig.session.probe(id);
        ids.push(id);
    }
    assert_eq!(wrote(&rig.take()).iter().filter(|message| *message == "ping").count(), 1);
    let first = rig.receive(echo(2));
    assert_eq!((established(&first), wrote(&first)), (vec![ids[0]], vec!["ping".into()]));
    assert_eq!(established(&rig.receive(echo(3))), ids[1..]);
}

#[test]
fn asking_costs_the_same_however_many_wait_already() {
    // If each looked at all others, this would take minutes.
    for is_connected in [true, false] {
        let mut rig = quiet(MODERN, 0);
        for _ in 0..50_000 {
            rig.subscribe();
        }
        if is_connected {
            rig.connect();
        }
        for id in 1..=50_000 {
            rig.session.probe(id);
        }
        assert_eq!(wrote(&rig.take()).len(), usize::from(is_connected));
    }
}

#[test]
fn an_operation_that_is_too_late_for_a_probe_gets_the_next_one() {
    let mut rig = quiet(MODERN, 1);
    assert_eq!(wrote(&rig.probe(1)), ["ping"]);
    let late = rig.subscribe();
    assert_eq!(wrote(&rig.probe(late)), ["subscribe"]);
    let did = rig.receive(echo(1));
    assert_eq!((established(&did), wrote(&did)), (vec![1], vec!["ping".into()]));
    assert_eq!(rig.receive(echo(2)), [Did::Established(late)]);
}

#[test]
fn a_loss_undoes_a_proof_and_what_waits_is_proven_behind_the_batch_of_the_next_connection() {
    for subprotocol in [MODERN, LEGACY] {
        let mut rig = quiet(subprotocol, 3);
        rig.probe(1);
        assert_eq!(rig.answer(subprotocol, 1), [Did::Established(1)]);
        rig.subscribe();
        rig.probe(4);
        rig.lose(Disconnect::Reset(None));
        assert_eq!(rig.probe(1), [], "of the connection before");
        rig.sleep();
        assert_eq!(rig.answer(subprotocol, 2), []);
        let did = rig.connect();
        assert_eq!(established(&did), [0_u64; 0]);
        let messages = wrote(&did);
        assert_eq!(
            messages.iter().rposition(|message| message.ends_with("ping")),
            Some(messages.len() - 1)
        );
        assert_eq!(messages.iter().filter(|message| message.ends_with("ping")).count(), 1);
        assert_eq!(established(&rig.answer(subprotocol, 1)), [1, 4]);
    }
}

#[test]
fn an_operation_that_is_asked_about_before_there_is_a_connection_is_proven_on_the_first() {
    let mut rig = Rig::new(config());
    let id = rig.subscribe();
    rig.session.probe(id);
    assert_eq!(wrote(&rig.connect()), ["connection_init", "subscribe", "ping"]);
    assert_eq!(rig.receive(echo(1)), [Did::Established(id)]);
}

#[test]
fn an_operation_that_waits_for_its_reader_is_proven_once_it_was_sent_again() {
    let mut rig = quiet(MODERN, 1);
    rig.probe(1);
    rig.session.rewind(1);
    assert_eq!(wrote(&rig.take()), ["complete"]);
    assert_eq!(rig.receive(echo(1)), [], "it is not there any more, and no other ping would help");
    rig.session.catch_up(rig.now, 1);
    assert_eq!(wrote(&rig.take()), ["subscribe", "ping"]);
    assert_eq!(rig.receive(echo(2)), [Did::Established(1)]);
}

#[test]
fn an_operation_in_its_own_backoff_is_proven_once_it_was_sent_again() {
    let mut rig = Rig::new(Config { ping_interval: None, ..fixed(MODERN) });
    rig.watch_options.restart = true;
    let id = rig.subscribe();
    rig.connect();
    rig.receive(json!({"type": "complete", "id": "1.0"}));
    rig.session.restart(rig.now, id);
    assert_eq!(rig.probe(id), []);
    assert_eq!(wrote(&rig.pass(secs(30))), ["subscribe", "ping"]);
    assert_eq!(rig.receive(echo(1)), [Did::Established(id)]);
}

#[test]
fn nobody_is_told_of_an_operation_that_is_over() {
    let mut rig = quiet(MODERN, 3);
    for id in 1..=3 {
        rig.session.probe(id);
    }
    rig.cancel(1);
    rig.take();
    assert_eq!(
        finished(&rig.receive(json!({"type": "error", "id": "2.1"}))),
        [(2, "rejected".into())]
    );
    rig.session.probe(2);
    assert_eq!(rig.receive(echo(1)), [Did::Established(3)]);
    rig.subscribe();
    rig.probe(4);
    rig.session.shutdown(rig.now, rig.now + secs(1));
    assert_eq!(established(&rig.take()), [0_u64; 0]);
    assert_eq!(established(&rig.receive(echo(2))), [0_u64; 0]);
}

#[test]
fn a_peer_that_leaves_pings_unanswered_makes_proofs_late_and_never_false() {
    let mut rig = Rig::open(config(), 1);
    // Alive, but it answers nothing for a while.
    let pings = MAX_UNANSWERED + 3;
    for _ in 0..pings {
        rig.pass(secs(10));
        rig.receive(item("1.0"));
    }
    for answered in 1..=pings {
        let late = rig.subscribe();
        rig.probe(late);
        rig.cancel(late);
        rig.take();
        let known = rig.subscribe();
        rig.probe(known);
        assert_eq!(
            established(&rig.receive(pong())),
            [0_u64; 0],
            "pong {answered} is of a ping before it"
        );
        if answered == 1 {
            // There is room for the mark of one more, whose pong comes after those of the ones that
            // were only counted.
            rig.pass(secs(10));
            rig.receive(item("1.0"));
        }
    }
    // Written meanwhile: the first probe, which was counted alone, and the one that follows once
    // nothing is open.
    let mut more = 0;
    while established(&rig.receive(pong())).is_empty() {
        more += 1;
        assert!(more < 5, "it is never proven");
    }
}

#[test]
fn probes_change_neither_round_trip_times_nor_what_counts_as_silence() {
    let mut rig = Rig::open(config(), 1);
    rig.pass(secs(9));
    assert_eq!(wrote(&rig.probe(1)), ["ping"]);
    rig.pass(secs(1));
    rig.pass(Duration::from_millis(50));
    assert_eq!(established(&rig.receive(echo(1))), [1]);
    assert_eq!(rig.session.counts().round_trip_time, None, "of the probe");
    rig.pass(Duration::from_millis(200));
    rig.receive(echo(2));
    assert_eq!(rig.session.counts().round_trip_time, Some(Duration::from_millis(250)));

    let mut rig = quiet(MODERN, 1);
    rig.probe(1);
    assert_eq!(
        rig.pass(secs(3_600)),
        [],
        "an answer that does not come is no silence, where nobody wants pings"
    );
}
