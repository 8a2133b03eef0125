//! What still arrives for a subscription that was rewound, because the server had not read that.

use std::collections::VecDeque;

use super::*;
use crate::session::Item;

/// A resumable operation on an open connection, whose reader has no room and gets numbers.
struct Slow {
    rig: Rig,
    room: usize,
    read: Vec<u64>,
}

impl Slow {
    fn new() -> Self {
        let mut rig = Rig::new(Config { ping_interval: None, ..fixed(MODERN) });
        rig.is_resumable = true;
        rig.subscribe();
        rig.connect();
        Self { rig, room: 0, read: Vec::new() }
    }

    /// The server sends an item, which the writer takes if there is room, as the driver does.
    fn receive(&mut self, id: &str, n: u64) {
        self.receive_text(&format!(r#"{{"type":"next","id":"{id}","payload":{{"data":{n}}}}}"#));
    }

    fn receive_text(&mut self, frame: &str) {
        let item = self.rig.session.handle_frame(self.rig.now, ConnectionId::A, frame);
        let Some(Item { writer, payload }) = item else { return };
        let id = *writer;
        if self.push(&frame[payload.clone()]) {
            return;
        }
        self.rig.session.rewind(id);
        self.rig.session.refused(id, frame, payload);
    }

    fn push(&mut self, payload: &str) -> bool {
        let has_room = self.room > 0;
        if has_room {
            self.room -= 1;
            self.read.push(read(payload)["data"].as_u64().expect("a number"));
        }
        has_room
    }

    /// The reader has read everything and has room again. Returns what was written to the server.
    fn catch_up(&mut self, room: usize) -> Vec<String> {
        self.room = room;
        self.rig.session.catch_up(self.rig.now, 1);
        self.perform()
    }

    fn perform(&mut self) -> Vec<String> {
        let mut others = VecDeque::new();
        while let Some(output) = self.rig.session.poll_output() {
            let Output::Deliver { id, mut backlog, .. } = output else {
                others.push_back(output);
                continue;
            };
            while let Some(item) = backlog.pop() {
                if !self.push(&item.frame[item.payload.clone()]) {
                    self.rig.session.rewind(id);
                    backlog.end = None;
                    backlog.put_back(item);
                    break;
                }
            }
            self.rig.session.delivered(self.rig.now, id, backlog);
        }
        self.rig.session.outputs = others;
        wrote(&self.rig.take())
    }

    fn counts(&self) -> (u64, u64, u64) {
        let counts = self.rig.session.counts();
        (counts.items, counts.discarded, counts.ignored)
    }

    fn held(&self) -> usize {
        self.rig.session.operations.held_bytes()
    }
}

#[test]
fn what_arrives_after_a_rewind_is_delivered_before_the_operation_is_sent_again() {
    let mut slow = Slow::new();
    slow.room = 2;
    for n in 1..=10 {
        slow.receive("1.0", n);
    }
    assert_eq!(slow.perform(), ["complete"], "once");
    assert_eq!(slow.read, [1, 2]);
    assert_eq!(slow.catch_up(3), [""; 0]);
    assert_eq!(slow.read, [1, 2, 3, 4, 5]);
    // More arrives while the reader reads.
    slow.receive("1.0", 11);
    assert_eq!(slow.catch_up(3), [""; 0]);
    assert_eq!(slow.catch_up(4), ["subscribe"], "everything was delivered");
    assert_eq!(slow.read, (1..=11).collect::<Vec<_>>());
    assert_eq!((slow.counts(), slow.held()), ((11, 0, 0), 0));
    // What is later than that comes again.
    slow.receive("1.0", 12);
    slow.receive("2.0", 12);
    assert_eq!(slow.read.last(), Some(&12));
    assert_eq!(slow.counts(), (12, 1, 0));
}

#[test]
fn nothing_is_held_behind_an_item_that_is_not() {
    let mut slow = Slow::new();
    let huge = "x".repeat(9 << 20);
    slow.receive("1.0", 1);
    slow.receive_text(&format!(
        r#"{{"type":"next","id":"1.0","payload":{{"data":2,"extensions":"{huge}"}}}}"#
    ));
    slow.receive("1.0", 3);
    slow.perform();
    assert_eq!(slow.catch_up(10), ["subscribe"]);
    assert_eq!((slow.read.clone(), slow.held()), (vec![1], 0));
    assert_eq!(slow.counts(), (1, 2, 0));
    for n in 2..=3 {
        slow.receive("2.0", n);
    }
    assert_eq!(slow.read, [1, 2, 3]);
}

#[test]
fn what_is_held_is_bounded_in_bytes() {
    let mut slow = Slow::new();
    let text = "x".repeat(100_000);
    for n in 1..=200 {
        slow.receive_text(&format!(
            r#"{{"type":"next","id":"1.0","payload":{{"data":{n},"extensions":"{text}"}}}}"#
        ));
    }
    assert!(slow.held() > 7 << 20 && slow.held() <= 8 << 20, "{}", slow.held());
    let (_, discarded, _) = slow.counts();
    assert!((110..130).contains(&discarded), "{discarded}");
    slow.perform();
    assert_eq!(slow.catch_up(1_000), ["subscribe"]);
    assert_eq!(slow.read, (1..=200 - discarded).collect::<Vec<_>>(), "without a hole");
    assert_eq!(slow.held(), 0);
}

#[test]
fn what_is_held_survives_a_lost_connection_and_goes_with_its_operation() {
    for is_dropped in [false, true] {
        let mut slow = Slow::new();
        for n in 1..=5 {
            slow.receive("1.0", n);
        }
        slow.perform();
        slow.rig.lose(Disconnect::Reset(None));
        assert!(slow.held() > 0);
        if is_dropped {
            slow.rig.cancel(1);
            slow.rig.take();
            assert_eq!(slow.held(), 0);
            continue;
        }
        slow.rig.sleep();
        slow.rig.connect();
        // The serial is the same, but the connection is another one.
        assert_eq!(slow.catch_up(2), [""; 0]);
        assert_eq!(slow.catch_up(5), ["subscribe"]);
        assert_eq!(slow.read, [1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_reader_that_goes_while_items_are_delivered_leaves_nothing_behind() {
    let mut slow = Slow::new();
    for n in 1..=5 {
        slow.receive("1.0", n);
    }
    slow.perform();
    slow.room = 5;
    slow.rig.session.catch_up(slow.rig.now, 1);
    slow.rig.session.cancel(slow.rig.now, 1);
    slow.perform();
    assert_eq!((slow.held(), slow.rig.session.live_operations()), (0, 0));
    assert_eq!(slow.catch_up(5), [""; 0]);
}
