//! Delivers items to readers, and adds and removes the readers of shared operations.
//!
//! The rest of the driver treats each reader of a shared operation like the only reader of an
//! operation with the reader's id. The differences are here.

use std::{sync::Arc, time::Instant};

use super::Driver;
use crate::{
    client::telemetry,
    delivery::{
        mailbox::Pushed,
        sharing::Replay,
        writer::{PushResult, Writer},
    },
    operation::OperationType,
    protocol::Payload,
    response::{End, StreamEnd},
    session::Request,
};

impl Driver {
    /// Adds a reader to the live operation with this request. If there is none, starts one with the
    /// id `operation`.
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
            let result = reader.push(last.clone(), last.frame());
            self.handle_push_result(now, Arc::clone(&reader), result);
            if let Some(gap) = missed {
                reader.mailbox.push_gap(gap);
            }
        }
    }

    /// Removes a reader, and cancels its operation if that has no other reader.
    pub(super) fn cancel(&mut self, now: Instant, reader: u64) {
        if let Some(operation) = self.sharing.leave(reader) {
            self.session.cancel(now, operation);
        }
    }

    /// Delivers an item to every reader of a shared operation. Returns its cost, in the unit of the
    /// read budget.
    pub(super) fn fan_out(&mut self, now: Instant, operation: &Writer, item: Payload) -> usize {
        let Some(mut readers) = operation.readers() else { return 0 };
        let count = readers.count();
        // The session has counted one item, but each reader gets one.
        self.counters.dequeued(1);
        self.counters.shared_out(count as u64);
        let exceptions = readers.push_to_all(item, &mut self.wakers);
        drop(readers);
        for (reader, result) in exceptions {
            self.handle_push_result(now, reader, result);
        }
        count * COST_PER_READER
    }

    /// Handles the result of pushing an item to a writer. Returns whether the writer accepts more.
    pub(super) fn handle_push_result(
        &mut self,
        now: Instant,
        writer: Arc<Writer>,
        result: PushResult,
    ) -> bool {
        match result {
            Ok((pushed, waker)) => {
                self.wakers.extend(waker);
                self.handle_pushed(now, writer, pushed)
            }
            Err(error) => {
                self.counters.dequeued(1);
                self.end(now, &writer, End::Stream(StreamEnd::Hook(error)));
                false
            }
        }
    }

    fn handle_pushed(&mut self, now: Instant, writer: Arc<Writer>, pushed: Pushed) -> bool {
        let (gone, dropped, takes_more) = match pushed {
            Pushed::Kept { dropped } => (dropped, dropped, true),
            Pushed::Dropped => (1, 1, true),
            Pushed::Repeated => (1, 0, true),
            Pushed::Closed => (1, 0, false),
            Pushed::Full => {
                self.blocked.push(writer);
                self.session.stall();
                return true;
            }
            Pushed::Overflowed => {
                self.end(now, &writer, End::Stream(StreamEnd::Overflow));
                (1, 1, false)
            }
            Pushed::Rewind => {
                telemetry::rewound(writer.id);
                self.session.rewind(writer.id);
                // The item is held, or counted by the caller.
                (0, 0, false)
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

/// The cost of delivering an item to one more reader, in bytes of the read budget. This allows
/// 16,384 deliveries in one turn.
const COST_PER_READER: usize = 8;
