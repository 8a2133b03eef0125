//! `reissue_rate`: a reconnect is no burst, and delays nothing else.

use std::num::NonZeroU32;

use super::*;

fn paced(rate: u32) -> Config {
    Config { reissue_rate: NonZeroU32::new(rate), ..config() }
}

/// Loses the connection and makes another. What was sent with the acknowledgement.
fn reconnect(rig: &mut Rig) -> Vec<(String, String)> {
    rig.lose(Disconnect::Silent(secs(1)));
    rig.sleep();
    issued(&rig.connect())
}

#[test]
fn operations_are_sent_again_in_order_and_no_faster_than_asked_for() {
    for (rate, each) in [(1, 1), (7, 1), (20, 2), (1_000, 100)] {
        let mut rig = Rig::open(paced(rate), 250);
        let begun = rig.now;
        let mut sent = reconnect(&mut rig);
        assert_eq!(sent.len(), each, "{rate}");
        let reconnected = rig.now;
        assert!(reconnected > begun);
        while sent.len() < 250 {
            let did = rig.pass(Duration::from_millis(10));
            let more = issued(&did);
            assert!(more.len() <= each, "{rate}: no burst");
            sent.extend(more);
            if did.iter().any(|did| matches!(did, Did::Wrote(message) if message["type"] == "ping"))
            {
                rig.receive(json!({"type": "pong"}));
            }
            let allowed = (rig.now - reconnected).as_millis() * u128::from(rate) / 1_000;
            let (allowed, count) = (usize::try_from(allowed).unwrap(), sent.len());
            assert!(
                (allowed.saturating_sub(1)..=allowed + each).contains(&count),
                "{rate}: {count} of {allowed}"
            );
        }
        let ids: Vec<u64> = sent.iter().map(|(_, id)| id.parse().unwrap()).collect();
        assert_eq!(ids, (1..=250).collect::<Vec<_>>(), "rule 26");
        assert_eq!(issued(&rig.pass(secs(5))), [], "each once");
    }
}

#[test]
fn what_begins_or_ends_meanwhile_does_not_wait_for_its_turn() {
    let mut rig = Rig::open(paced(10), 5);
    let sent = reconnect(&mut rig);
    let (first, _) = &sent[0];
    let new = rig.subscribe();
    assert_eq!(issued(&rig.take())[0].1, new.to_string());
    rig.cancel(1);
    assert!(wrote(&rig.take()).contains(&"complete".to_owned()), "{first}");
    rig.cancel(2);
    rig.cancel(5);
    let rest = issued(&rig.pass(secs(2)));
    assert_eq!(rest.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["3", "4"], "rule 12");
}

#[test]
fn what_is_new_is_sent_at_once_and_so_is_everything_on_the_first_connection() {
    let mut rig = Rig::new(paced(1));
    for _ in 0..10 {
        rig.subscribe();
    }
    assert_eq!(issued(&rig.connect()).len(), 10);
}

#[test]
fn a_connection_that_is_lost_meanwhile_begins_again_with_the_first() {
    let mut rig = Rig::open(paced(10), 4);
    reconnect(&mut rig);
    rig.pass(Duration::from_millis(150));
    let mut sent = reconnect(&mut rig);
    sent.extend(issued(&rig.pass(secs(1))));
    assert_eq!(sent.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
}

#[test]
fn a_handover_keeps_the_pace_of_what_still_waits_for_its_turn() {
    let mut rig = Rig::open(paced(10), 30);
    assert_eq!(reconnect(&mut rig).len(), 1);
    rig.session.rotate(rig.now);
    rig.session.handle_credentials(rig.now, ConnectionId::B, Ok(granted()));
    rig.session.handle_open(rig.now, ConnectionId::B);
    rig.session.handle_frame(rig.now, ConnectionId::B, r#"{"type":"connection_ack"}"#);
    let begun = rig.now;
    let mut sent = Vec::new();
    while rig.now < begun + secs(4) {
        rig.pass(Duration::from_millis(10));
        let written = std::iter::from_fn(|| rig.session.poll_transmit(ConnectionId::B));
        sent.extend(written.filter_map(|transmit| match transmit {
            Transmit::Text(text) => read(&text)["payload"]["query"].as_str().map(str::to_owned),
            Transmit::Ping(_) | Transmit::Close(..) => None,
        }));
        let allowed = (rig.now - begun).as_millis() / 100 + 1;
        assert!(sent.len() as u128 <= allowed, "{} of {allowed}", sent.len());
    }
    assert_eq!(sent, (1..=30).map(|id| id.to_string()).collect::<Vec<_>>(), "rule 26, each once");
}

#[test]
fn an_operation_whose_proof_is_waited_for_waits_for_its_turn_and_no_ping_goes_before_it() {
    let mut rig = Rig::open(paced(1), 3);
    reconnect(&mut rig);
    rig.session.probe(3);
    assert!(!wrote(&rig.take()).contains(&"ping".to_owned()));
    let did = rig.pass(secs(2));
    let position = |wanted: &str| wrote(&did).iter().rposition(|wrote| wrote == wanted);
    assert!(position("ping") > position("subscribe"), "{:?}", wrote(&did));
    let proof = json!({"type": "pong", "payload": {"n": 1}});
    assert!(rig.receive(proof).contains(&Did::Established(3)));
}

#[test]
fn a_shutdown_sends_nothing_more_again() {
    let mut rig = Rig::open(paced(1), 3);
    reconnect(&mut rig);
    rig.session.shutdown(rig.now, rig.now + secs(3));
    let did = rig.pass(secs(3));
    assert_eq!(issued(&did), []);
    assert_eq!(finished(&did).len(), 3);
}

#[test]
fn what_ten_thousand_operations_were_queued_in_is_given_back() {
    for reissue_rate in [None, NonZeroU32::new(100_000)] {
        let mut rig = Rig::open(Config { reissue_rate, ..config() }, 10_000);
        rig.take();
        rig.lose(closed(1012));
        rig.sleep();
        rig.connect();
        while rig.session.poll_timeout().is_some_and(|at| at - rig.now <= secs(1)) {
            rig.pass(secs(1));
            rig.take();
        }
        let connection = rig.session.current().unwrap();
        let outputs = rig.session.outputs.capacity();
        assert!(connection.send_queue.capacity() + outputs < 500, "{reissue_rate:?}");
    }
}
