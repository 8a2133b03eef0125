//! Between socket and typed value nothing is allocated for an event but what its own type needs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

/// Of so many events for each of 100 subscriptions, after a warm-up.
fn allocations(contender: &str, bytes: &str, events: u64) -> u64 {
    let of = |events: u64| -> u64 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_resub-compare"));
        command.args(["steps", contender, bytes, "100", &events.to_string(), "--allocations"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    of(WARM_UP + events) - of(WARM_UP)
}

#[test]
fn a_warm_client_allocates_nothing_for_an_event_but_what_its_type_needs() {
    for bytes in ["150", "2048"] {
        let by_hand = allocations("prefix", bytes, EVENTS);
        assert!(by_hand >= EVENTS * 100, "the type has text");
        let more = allocations("resub, tasks", bytes, EVENTS) - by_hand;
        // Now and then a queue grows that was never so full before.
        assert!(
            more * 200 < EVENTS * 100,
            "{more} allocations for {EVENTS} events of {bytes} B for each of 100"
        );
    }
}

#[test]
fn an_event_of_a_shared_operation_is_allocated_once_for_all_of_its_readers() {
    for bytes in ["150", "2048"] {
        let by_hand = allocations("prefix", bytes, EVENTS);
        let more = allocations("resub, shared", bytes, EVENTS) - by_hand;
        assert!(
            (EVENTS..EVENTS * 3 / 2).contains(&more),
            "{more} allocations for {EVENTS} events of {bytes} B, for all of 100 readers"
        );
    }
}

const WARM_UP: u64 = 400;
const EVENTS: u64 = 200;
