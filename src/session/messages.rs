//! What a message from the server means in each phase.

use std::{ops::Range, time::Instant};

use super::{
    ConnectionId, End, Item, Output, Phase, Role, Session, Strictness, outbox::Queued,
    registry::Wait,
};
use crate::{
    error::{CloseCode, Disconnect, Violation},
    operation::OperationType,
    protocol::{Envelope, Id, Kind, Payload, Subprotocol},
};

impl<S: Clone> Session<S> {
    /// A text message arrived, or a binary one that is text. An item is returned at once, and
    /// nothing else follows from it but that its operation is established.
    pub(crate) fn handle_frame(
        &mut self,
        now: Instant,
        leg: ConnectionId,
        frame: &str,
    ) -> Option<Item<'_, S>> {
        let (slot, payload) = self.on(now, leg, |session| session.take_frame(now, frame))??;
        self.operations.at(slot).map(|operation| Item { writer: &operation.writer, payload })
    }

    /// Returns where the item is that came, and whose: an index into the operations.
    fn take_frame(&mut self, now: Instant, frame: &str) -> Option<(u32, Range<usize>)> {
        self.leg.liveness.heard(now);
        self.read_frame(now, frame)
    }

    /// As `take_frame`, of a message that came some time ago.
    pub(super) fn read_frame(&mut self, now: Instant, frame: &str) -> Option<(u32, Range<usize>)> {
        let parsed = match self.config.strictness {
            Strictness::Lenient => Envelope::parse(frame),
            // The quick reader leaves the end of a frame unread.
            Strictness::Strict => Envelope::parse_fully(frame),
        };
        let Ok(Envelope { kind, id, payload }) = parsed else {
            self.unreadable(now);
            return None;
        };
        if self.is_moving() && self.hold_frame(now, id, kind, frame, payload.as_ref()) {
            return None;
        }
        if let (Phase::Open(_), Kind::Next) = (self.leg.phase, kind) {
            return self.result(now, frame, id, payload);
        }
        self.handle_message(now, kind, id, payload.map(|json| &frame[json]));
        None
    }

    fn handle_message(&mut self, now: Instant, kind: Kind, id: Id, payload: Option<&str>) {
        match (self.leg.phase, kind) {
            // Without a socket there is no message; after a shutdown only the peer's close is
            // awaited.
            (
                Phase::Idle
                | Phase::Waiting
                | Phase::Authorizing
                | Phase::Dialing(_)
                | Phase::Closing(_)
                | Phase::Ended,
                _,
            ) => {}
            (Phase::Opening(_) | Phase::Open(_), Kind::Ping) => {
                self.leg.outbox.owe_pong(payload);
            }
            (Phase::Opening(_) | Phase::Open(_), Kind::Pong) => {
                self.ponged(now, Subprotocol::GraphqlTransportWs)
            }
            (Phase::Opening(_) | Phase::Open(_), Kind::KeepAlive) => {
                self.leg.liveness.keep_alive(now, &mut self.leg.timers);
            }
            (Phase::Opening(subprotocol), Kind::Ack) => self.enter_open(now, subprotocol, payload),
            (Phase::Opening(_), Kind::ConnectionError) => {
                let message = payload.map(refusal_message).unwrap_or_default();
                self.break_off(now, Disconnect::Refused { message }, None);
            }
            (Phase::Opening(_) | Phase::Open(_), Kind::Unknown) => self.unreadable(now),
            // Some servers answer what they do not like with an error that names no operation.
            (Phase::Opening(_) | Phase::Open(_), Kind::Error) if id == Id::Absent => {
                self.counts.ignored += 1
            }
            (Phase::Opening(_), Kind::Next | Kind::Error | Kind::Complete) => {
                let cause = Disconnect::Violation(Violation::BeforeAck(kind.name()));
                self.break_off(
                    now,
                    cause,
                    Some((CloseCode::BAD_RESPONSE, "Unexpected message before ack")),
                );
            }
            (Phase::Open(_), Kind::Error) => {
                self.finish(now, id, End::Rejected(payload.map(Box::from)))
            }
            (Phase::Open(_), Kind::Complete) => self.finish(now, id, End::Completed),
            (Phase::Open(_), Kind::Terminate) => self.is_told_goodbye(now),
            // A second ack is odd but harmless (rule 7), and after the ack a connection_error is no
            // end (rule 21).
            (Phase::Open(_), Kind::Next | Kind::Ack | Kind::ConnectionError)
            | (Phase::Opening(_), Kind::Terminate) => {
                self.counts.ignored += 1;
            }
        }
    }

    /// A message arrived that says nothing in our vocabulary.
    pub(crate) fn handle_unreadable(&mut self, now: Instant, leg: ConnectionId) {
        self.on(now, leg, |session| session.unreadable(now));
    }

    fn unreadable(&mut self, now: Instant) {
        self.leg.liveness.heard(now);
        self.counts.ignored += 1;
        if self.config.strictness == Strictness::Strict {
            let cause = Disconnect::Violation(Violation::Unreadable);
            self.break_off(now, cause, Some((CloseCode::BAD_RESPONSE, "Unreadable message")));
        }
    }

    fn result(
        &mut self,
        now: Instant,
        frame: &str,
        id: Id,
        payload: Option<Range<usize>>,
    ) -> Option<(u32, Range<usize>)> {
        if let (Id::Ours(wire_id), Some(payload)) = (id, payload)
            && let Some(operation) = self.operations.by_wire_id_mut(wire_id, self.leg.span)
        {
            if operation.kind == OperationType::Subscription {
                self.counts.items += 1;
                let id = operation.id;
                if !operation.is_cleared {
                    operation.is_cleared = true;
                    self.suspicion.cleared(now, id, &mut self.leg.timers);
                }
                if let Some(watch) = &mut operation.watch
                    && let Some(at) = watch.received(now)
                {
                    self.operations.set_deadline(id, at);
                }
                // Established is what the current connection carries.
                if self.leg.role == Role::Retiring {
                    self.came_on_old(now, id, &frame[payload.clone()]);
                } else if self.forget_awaited(id)
                    && let Some(operation) = self.operations.get(id)
                {
                    self.outputs
                        .push_back(Output::Established { writer: operation.writer.clone() });
                }
                return Some((wire_id.slot, payload));
            }
            // The first result is the result: some servers forget the `complete` (rule 15).
            self.finish(now, id, End::Answered(Payload::new(frame.to_owned(), payload)));
            self.leg.expect_complete(wire_id);
            return None;
        }
        // It goes on after its first result, as a subscription does that was taken for a query.
        // Legacy was stopped then.
        if let Id::Ours(wire_id) = id
            && self.leg.phase == Phase::Open(Subprotocol::GraphqlTransportWs)
            && self.leg.take_expected(wire_id)
        {
            self.leg.outbox.push(Queued::Complete(wire_id));
        }
        // Unknown ids are late, not wrong (rule 14); a `next` without a payload says nothing.
        self.counts.ignored += 1;
        None
    }

    fn finish(&mut self, now: Instant, id: Id, end: End) {
        let Id::Ours(wire_id) = id else {
            self.counts.ignored += 1;
            return;
        };
        let operation = self.operations.by_wire_id(wire_id, self.leg.span);
        let id = operation.map(|operation| operation.id);
        let restarts = operation
            .and_then(|operation| operation.watch.as_ref())
            .is_some_and(|watch| watch.watch_options.restart);
        if let Some(id) = id {
            self.suspicion.cleared(now, id, &mut self.leg.timers);
        }
        if id.is_some_and(|id| self.is_drained(id, &end)) {
            self.leg.outbox.ended(wire_id);
            return;
        }
        if let Some(id) = id {
            // It may be on its way to another leg.
            self.complete(id, Some(self.leg.id));
        }
        if let Some(id) = id.filter(|_| restarts) {
            self.park(id, Wait::Verdict);
            if let Some(operation) = self.operations.get_mut(id) {
                operation.is_cleared = true;
                self.outputs.push_back(Output::Judge { writer: operation.writer.clone(), end });
            }
        } else if let Some(operation) = id.and_then(|id| self.operations.remove(id)) {
            if self.leg.must_stop(operation.kind) {
                self.leg.outbox.push(Queued::Stop(wire_id));
            }
            self.forget_awaited(operation.id);
            self.outputs.push_back(Output::Finish { writer: operation.writer, end });
            self.look_for_idleness(now);
        } else {
            if !self.leg.take_expected(wire_id) {
                self.counts.ignored += 1;
            }
            // Both sides end it at once: what is not written yet is not to be said any more (rule
            // 13).
            self.leg.outbox.ended(wire_id);
        }
    }
}

/// The server's words in a `connection_error`.
fn refusal_message(payload: &str) -> String {
    let mut message = match serde_json::from_str(payload) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(value) => match value.get("message") {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(_) | None => value.to_string(),
        },
        Err(_) => String::new(),
    };
    if message.len() > MAX_REFUSAL_BYTES {
        message = message.chars().take(MAX_REFUSAL_BYTES / 4).collect();
    }
    message
}

/// How much of a server's refusal is kept.
const MAX_REFUSAL_BYTES: usize = 1024;
