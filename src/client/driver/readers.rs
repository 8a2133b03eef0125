//! What becomes of an item, and of who reads it.
//!
//! Whoever shares an operation is treated as the only reader of one, under its own number; what
//! differs is here.

use std::{sync::Arc, time::Instant};

use super::Driver;
use crate::{
    client::telemetry,
    delivery::{
        mailbox::Pushed,
        sharing::Replay,
        writer::{Given, Writer},
    },
    operation::OperationType,
    protocol::Payload,
    response::End,
    session::Request,
};

impl Driver {
    /// Another reader comes. The operation is begun if there is none with this request, and has
    /// this number then.
    pub(super) fn share(
        &mut self,
        now: Instant,
        request: Box<str>,
        operation: u64,
        replay: Replay,
        reader: Arc<Writer>,
    ) {
        let Some(operation) = self.sharing.join(&request, &reader) else {
            telemetry::joined(reader.id, operation);
            let writer = self.sharing.begin(operation, &request, reader);
            let request = Request {
                kind: OperationType::Subscription,
                payload: request,
                deadline: None,
                watch_options: None,
                is_resumable: false,
            };
            self.session.subscribe(now, writer.id, request, writer);
            return;
        };
        telemetry::joined(reader.id, operation.id);
        let last = match replay {
            Replay::Nothing => None,
            Replay::Last => operation.readers().and_then(|readers| readers.last()),
        };
        if let Some((last, missed)) = last {
            self.counters.shared_out(1);
            let given = reader.push(last.clone(), last.frame());
            self.settle(now, Arc::clone(&reader), given);
            if let Some(gap) = missed {
                reader.mailbox.push_gap(gap);
            }
        }
    }

    /// A reader goes, and the operation with it if nobody else reads that.
    pub(super) fn cancel(&mut self, now: Instant, reader: u64) {
        if let Some(operation) = self.sharing.leave(reader) {
            self.session.cancel(now, operation);
        }
    }

    /// Gives an item to everyone who shares its operation. Returns what that costs.
    pub(super) fn fan_out(&mut self, now: Instant, operation: &Writer, item: Payload) -> usize {
        let Some(mut readers) = operation.readers() else { return 0 };
        let count = readers.count();
        // One was received, and so many are given out.
        self.counters.dequeued(1);
        self.counters.shared_out(count as u64);
        let odd = readers.give(item, &mut self.wakers);
        drop(readers);
        for (reader, given) in odd {
            self.settle(now, reader, given);
        }
        count * COST
    }

    /// Does what follows from an item that was given to a writer. Returns whether the writer takes
    /// more.
    pub(super) fn settle(&mut self, now: Instant, writer: Arc<Writer>, given: Given) -> bool {
        match given {
            Ok((pushed, waker)) => {
                self.wakers.extend(waker);
                self.handle_pushed(now, writer, pushed)
            }
            Err(error) => {
                self.counters.dequeued(1);
                self.end(now, &writer, End::Hook(error));
                false
            }
        }
    }

    fn handle_pushed(&mut self, now: Instant, writer: Arc<Writer>, pushed: Pushed) -> bool {
        let (gone, dropped, takes_more) = match pushed {
            Pushed::Kept { dropped } => (dropped, dropped, true),
            Pushed::Dropped => (1, 1, true),
            Pushed::Closed => (1, 0, false),
            Pushed::Full => {
                self.blocked.push(writer);
                self.session.stall();
                return true;
            }
            Pushed::Overflowed => {
                self.end(now, &writer, End::Overflow);
                (1, 1, false)
            }
            Pushed::Rewind => {
                telemetry::rewound(writer.id);
                self.session.rewind(writer.id);
                (1, 0, false)
            }
        };
        self.counters.dequeued(gone as u64);
        if dropped > 0 {
            self.counters.dropped(dropped as u64);
            telemetry::overflowed(writer.id, dropped as u64);
        }
        takes_more
    }
}

/// What it costs a turn to give an item to one reader more, in bytes to read: 16,384 for each turn.
const COST: usize = 8;
