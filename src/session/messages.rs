//! What a message from the server means in each phase.

use std::{ops::Range, sync::Arc, time::Instant};

use super::{
    ConnectionId, Item, Output, Session, Strictness,
    connection::{Phase, Role, timers::Timer},
    operations::{Place, Side},
};
use crate::{
    error::{CloseCode, Disconnect, Violation, replace_lone_surrogates},
    protocol::{Envelope, Id, Kind, Payload, Subprotocol, WireId},
    response::{CallEnd, End, has_next, may_be_part},
};

impl<W: Clone> Session<W> {
    /// A text message arrived, or a binary one that is text. An item is returned at once: it is to
    /// be delivered before any output is performed.
    pub(crate) fn handle_frame(
        &mut self,
        now: Instant,
        id: ConnectionId,
        frame: &str,
    ) -> Option<Item<'_, W>> {
        let (slot, payload) = self.take_frame(now, id, frame)?;
        self.operations.at(slot).map(|operation| Item { writer: &operation.writer, payload })
    }

    /// Returns where the item is that arrived, and the slot of its operation.
    fn take_frame(
        &mut self,
        now: Instant,
        on: ConnectionId,
        frame: &str,
    ) -> Option<(u32, Range<usize>)> {
        let connection = self.connections[on as usize].as_mut()?;
        connection.liveness.heard(now);
        let phase = connection.phase;
        let parsed = match self.config.strictness {
            Strictness::Lenient => Envelope::parse(frame),
            // The quick reader leaves the end of a frame unread.
            Strictness::Strict => Envelope::parse_fully(frame),
        };
        let Ok(Envelope { kind, id, payload }) = parsed else {
            self.unreadable(now, on);
            return None;
        };
        if let (Phase::Open(_), Kind::Next) = (phase, kind) {
            return self.result(now, on, frame, id, payload);
        }
        self.handle_message(now, on, kind, id, payload.map(|json| &frame[json]));
        None
    }

    fn handle_message(
        &mut self,
        now: Instant,
        on: ConnectionId,
        kind: Kind,
        id: Id,
        payload: Option<&str>,
    ) {
        let Some(connection) = self.connections[on as usize].as_mut() else { return };
        match (connection.phase, kind) {
            // Without a socket there is no message; after a shutdown only the peer's close counts.
            (Phase::Waiting | Phase::Authorizing | Phase::Dialing(_) | Phase::Closing(_), _) => {}
            (Phase::Opening(_) | Phase::Open(_), Kind::Ping) => {
                connection.send_queue.owe_pong(payload);
            }
            (Phase::Opening(_) | Phase::Open(_), Kind::Pong) => {
                let number = payload.and_then(ping_number);
                self.ponged(now, on, Subprotocol::GraphqlTransportWs, number);
            }
            (Phase::Opening(_) | Phase::Open(_), Kind::KeepAlive) => {
                connection.liveness.keep_alive(now, &mut connection.timers);
            }
            (Phase::Opening(subprotocol), Kind::Ack) => {
                self.acknowledged(now, on, subprotocol, payload);
            }
            (Phase::Opening(_), Kind::ConnectionError) => {
                let message = payload.map(refusal_message).unwrap_or_default();
                self.break_off(now, on, Disconnect::Refused { message }, None);
                self.after_change(now);
            }
            (Phase::Opening(_) | Phase::Open(_), Kind::Unknown) => self.unreadable(now, on),
            // Some servers answer what they do not like with an error that names no operation.
            (Phase::Opening(_) | Phase::Open(_), Kind::Error) if id == Id::Absent => {
                self.unattributed(payload);
            }
            (Phase::Opening(_), Kind::Next | Kind::Error | Kind::Complete) => {
                let cause = Disconnect::Violation(Violation::BeforeAck(kind.name()));
                let close = (CloseCode::BAD_RESPONSE, "Unexpected message before ack");
                self.break_off(now, on, cause, Some(close));
                self.after_change(now);
            }
            (Phase::Open(_), Kind::Error) => {
                self.ended(now, on, id, End::Rejected(payload.map(Box::from)));
            }
            (Phase::Open(_), Kind::Complete) => self.ended(now, on, id, End::Completed),
            (Phase::Open(_), Kind::Terminate) => self.terminated(now, on),
            // A second ack is odd but harmless (rule 7), and after the ack a connection_error is no
            // end (rule 21).
            (Phase::Open(_), Kind::Next | Kind::Ack | Kind::ConnectionError)
            | (Phase::Opening(_), Kind::Terminate) => self.counts.ignored += 1,
        }
    }

    /// A message arrived that says nothing in our vocabulary.
    pub(crate) fn handle_unreadable(&mut self, now: Instant, on: ConnectionId) {
        self.handle_activity(now, on);
        self.unreadable(now, on);
    }

    fn unreadable(&mut self, now: Instant, on: ConnectionId) {
        self.unattributed(None);
        if self.config.strictness == Strictness::Strict {
            let cause = Disconnect::Violation(Violation::Unreadable);
            let close = (CloseCode::BAD_RESPONSE, "Unreadable message");
            self.break_off(now, on, cause, Some(close));
            self.after_change(now);
        }
    }

    /// Something arrived that is about no operation, and about nothing else that is understood
    /// (rule 31).
    fn unattributed(&mut self, payload: Option<&str>) {
        self.counts.ignored += 1;
        self.outputs.push_back(Output::Unattributed(payload.map(refusal_message)));
    }

    /// The server has accepted the connection.
    fn acknowledged(
        &mut self,
        now: Instant,
        on: ConnectionId,
        subprotocol: Subprotocol,
        payload: Option<&str>,
    ) {
        let healthy_at = now + self.config.healthy_after;
        let old = self.current;
        let Some(connection) = self.connection_mut(on) else { return };
        connection.phase = Phase::Open(subprotocol);
        connection.ack_payload =
            payload.and_then(|payload| serde_json::from_str(payload).ok()).map(Arc::new);
        connection.timers.clear();
        // The socket reports this on every poll until it is closed.
        connection.broken = None;
        connection.timers.arm(Timer::Healthy, healthy_at);
        connection.liveness.open(now, subprotocol, &mut connection.timers);
        let role = connection.role;
        self.negotiation.acked(subprotocol);
        self.retry.acked();
        self.counts.connections += 1;
        let replaced = match role {
            Role::Trial => return self.after_change(now),
            Role::Successor => {
                self.promote_successor(now, on);
                Some(old)
            }
            Role::Current | Role::Retiring => {
                self.counts.reconnects += u64::from(self.is_reconnecting);
                None
            }
        };
        self.is_reconnecting = false;
        self.plan_renewal(now);
        self.status_open();
        self.issue_all(now, replaced);
        self.answer_connect(Ok(()));
        self.answer_rotate(Ok(()));
        self.look_for_idleness(now);
        self.probe_awaited();
        self.after_change(now);
    }

    /// A `next` arrived.
    fn result(
        &mut self,
        now: Instant,
        on: ConnectionId,
        frame: &str,
        id: Id,
        payload: Option<Range<usize>>,
    ) -> Option<(u32, Range<usize>)> {
        let (Id::Ours(wire_id), Some(payload)) = (id, payload) else {
            // A `next` without a payload says nothing.
            self.counts.ignored += 1;
            return None;
        };
        let Some((side, operation)) = self.operations.by_wire_id(wire_id, on) else {
            if !self.hold_late(on, wire_id, frame, payload) {
                self.late_result(on, wire_id);
            }
            return None;
        };
        if !operation.is_subscription() {
            self.call_result(now, on, wire_id, Payload::new(frame.to_owned(), payload));
            return None;
        }
        let id = operation.id;
        // It does not close connections, as the server has begun it (rule 22b).
        operation.is_cleared = true;
        operation.has_begun |= side == Side::Only;
        if side == Side::New {
            self.hold(now, id, frame, payload);
            self.after_change(now);
            return None;
        }
        if on != self.current && side == Side::Only {
            self.trial_answered(now, id);
            return None;
        }
        if let Some(watch) = &mut operation.watch
            && let Some(at) = watch.received(now)
        {
            self.operations.set_deadline(id, at);
        }
        self.counts.items += 1;
        if side == Side::Old {
            self.item_on_old(now, id, &frame[payload.clone()]);
            self.after_change(now);
        } else if self.forget_awaited(id)
            && let Some(operation) = self.operations.get(id)
        {
            self.outputs.push_back(Output::Established { writer: operation.writer.clone() });
        }
        Some((wire_id.slot, payload))
    }

    /// A `next` arrived for a query or mutation. It is the result, as some servers forget the
    /// `complete` (rule 15), unless it says that parts of the result follow.
    fn call_result(&mut self, now: Instant, on: ConnectionId, wire_id: WireId, payload: Payload) {
        let limit = self.config.max_message_size;
        let Some((_, operation)) = self.operations.by_wire_id(wire_id, on) else { return };
        let id = operation.id;
        let follows = may_be_part(payload.frame()) && has_next(&payload) == Some(true);
        let end = match operation.parts.take() {
            None if !follows => CallEnd::Answered(payload),
            parts => {
                let mut parts = parts.unwrap_or_default();
                if !parts.add(payload, limit) {
                    let removed = self.remove_and_complete(now, id);
                    self.outputs.extend(removed.map(|(operation, _)| Output::Finish {
                        writer: operation.writer,
                        end: End::Call(CallEnd::PartsTooLarge(limit)),
                    }));
                    return;
                }
                if follows {
                    operation.parts = Some(parts);
                    // It does not close connections, as the server has begun it (rule 22b).
                    operation.is_cleared = true;
                    if self.connection(on).is_some_and(|it| it.role == Role::Trial) {
                        self.trial_answered(now, id);
                    }
                    return;
                }
                CallEnd::AnsweredInParts(parts.into_payloads())
            }
        };
        self.finish(now, on, wire_id, End::Call(end));
        if let Some(connection) = self.connection_mut(on) {
            connection.expect_complete(wire_id);
        }
    }

    /// A `next` arrived for an operation that is over.
    fn late_result(&mut self, on: ConnectionId, wire_id: WireId) {
        self.counts.ignored += 1;
        // It goes on after its first result, as a subscription does that was taken for a query. On
        // the legacy subprotocol it was stopped with the result.
        if let Some(connection) = self.connection_mut(on)
            && connection.phase == Phase::Open(Subprotocol::GraphqlTransportWs)
            && connection.take_expected(wire_id)
        {
            connection.send_queue.complete(wire_id, false);
        }
    }

    /// The server has ended an operation.
    fn ended(&mut self, now: Instant, on: ConnectionId, id: Id, mut end: End) {
        let Id::Ours(wire_id) = id else {
            self.counts.ignored += 1;
            return;
        };
        let found = self.operations.by_wire_id(wire_id, on).map(|(side, operation)| {
            operation.is_cleared = true;
            // Without the last part, the others are not a result.
            if let (End::Completed, Some(parts)) = (&end, operation.parts.take()) {
                end = End::Call(CallEnd::Incomplete(parts.into_payloads()));
            }
            (side, operation.id)
        });
        match found {
            Some((Side::New, id)) => self.hold_end(now, id, end),
            Some((Side::Old, id)) if self.old_side_ended(now, id) => {}
            Some((Side::Old | Side::Only, _)) => return self.finish(now, on, wire_id, end),
            None => {
                let Some(connection) = self.connection_mut(on) else { return };
                // Both sides end it at once: what is not written yet is not sent any more (rule
                // 13).
                connection.send_queue.ended(wire_id);
                if !connection.take_expected(wire_id) {
                    self.counts.ignored += 1;
                }
            }
        }
        self.after_change(now);
    }

    /// A pong arrived, of the kind that answers the pings of this subprotocol. On the other one
    /// nobody has asked for it, which is legal.
    pub(super) fn ponged(
        &mut self,
        now: Instant,
        on: ConnectionId,
        subprotocol: Subprotocol,
        number: Option<u64>,
    ) {
        let Some(connection) = self.connection_mut(on) else { return };
        if connection.phase != Phase::Open(subprotocol) {
            return;
        }
        let round_trip_time = connection.pings.answered(now, number);
        if round_trip_time.is_some() {
            self.counts.round_trip_time = round_trip_time;
        }
        self.trial_ponged(now, on);
        self.establish();
    }

    /// Tells `Output::Established` once the server has read the operation: now, if that is known.
    pub(crate) fn probe(&mut self, id: u64) {
        let Some(operation) = self.operations.get(id) else { return };
        if self.is_read(id) {
            self.outputs.push_back(Output::Established { writer: operation.writer.clone() });
            return;
        }
        self.awaited.insert(id);
        for on in ConnectionId::ALL {
            if self.is_provable_on(id, on) {
                self.probe_on(on);
            }
        }
    }

    /// Whether the server is known to have read the operation.
    fn is_read(&self, id: u64) -> bool {
        self.operations.wire_ids(id).any(|(on, wire_id)| {
            let connection = self.connection(on);
            connection.is_some_and(|connection| {
                connection.role != Role::Trial && connection.pings.has_read(wire_id.serial)
            })
        })
    }

    /// Tells whoever waits for operations that are proven, and asks the server about the others.
    fn establish(&mut self) {
        // Mostly nobody waits for anything.
        for id in std::mem::take(&mut self.awaited) {
            let Some(operation) = self.operations.get(id) else { continue };
            if self.is_read(id) {
                self.outputs.push_back(Output::Established { writer: operation.writer.clone() });
            } else {
                self.awaited.insert(id);
            }
        }
        self.probe_awaited();
    }

    /// Sends a ping behind the operations for which somebody waits, on the connections that are to
    /// carry them.
    pub(super) fn probe_awaited(&mut self) {
        if self.awaited.is_empty() {
            return;
        }
        for on in ConnectionId::ALL {
            if self.awaited.iter().any(|id| self.is_provable_on(*id, on)) {
                self.probe_on(on);
            }
        }
    }

    /// Whether the answer to a ping that is queued on a connection now proves this operation there.
    fn is_provable_on(&self, id: u64, on: ConnectionId) -> bool {
        match self.operations.place(id) {
            Some(Place::Queued(queue, _)) => *queue == on,
            Some(Place::On(..) | Place::Moving(_)) => {
                self.operations.wire_ids(id).any(|(connection, _)| connection == on)
            }
            // The ping would go before what waits for its turn under `reissue_rate`.
            Some(Place::Waiting(_)) | None => false,
        }
    }

    /// Sends a ping behind what is to be written on a connection.
    fn probe_on(&mut self, on: ConnectionId) {
        if let Some(connection) = self.connection_mut(on)
            && connection.role != Role::Trial
        {
            connection.probe();
        }
    }

    /// Nobody needs to wait for an operation any more. Returns whether anybody did.
    pub(super) fn forget_awaited(&mut self, id: u64) -> bool {
        !self.awaited.is_empty() && self.awaited.remove(&id)
    }
}

/// The number of our ping that a `pong` repeats.
fn ping_number(payload: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Echo {
        n: u64,
    }
    serde_json::from_str::<Echo>(payload).ok().map(|echo| echo.n)
}

/// The server's words in a `connection_error`, or in an error that names no operation.
fn refusal_message(payload: &str) -> String {
    let mut message = match serde_json::from_str(&replace_lone_surrogates(payload)) {
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
