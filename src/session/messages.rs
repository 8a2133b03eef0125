//! What a message from the server means in each phase.

use std::time::Instant;

use bytes::Bytes;

use super::{End, Output, Phase, Session, Strictness};
use crate::{
    error::{CloseCode, Disconnect, Violation},
    protocol::{Envelope, Kind, Payload},
};

impl<S: Clone> Session<S> {
    /// A text or binary message arrived.
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: &Bytes) {
        self.liveness.heard(now);
        let parsed = match self.config.strictness {
            Strictness::Lenient => Envelope::parse(frame),
            // The quick reader leaves the end of a frame unread.
            Strictness::Strict => Envelope::parse_fully(frame),
        };
        match parsed {
            Ok(envelope) => self.handle_message(now, envelope),
            Err(_) => self.handle_unreadable(now),
        }
    }

    fn handle_message(&mut self, now: Instant, Envelope { kind, id, payload }: Envelope<'_>) {
        match (self.phase, kind) {
            // Without a socket there is no message; after a shutdown only the peer's close is awaited.
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
                self.outbox.owe_pong(payload.as_ref().and_then(Payload::json));
            }
            (Phase::Opening(_) | Phase::Open(_), Kind::Pong) => self.handle_pong(now),
            (Phase::Opening(_) | Phase::Open(_), Kind::KeepAlive) => self.liveness.keep_alive(now, &mut self.timers),
            (Phase::Opening(subprotocol), Kind::Ack) => self.enter_open(now, subprotocol, payload.as_ref()),
            (Phase::Opening(_), Kind::ConnectionError) => {
                let message = payload.as_ref().map(refusal_message).unwrap_or_default();
                self.break_off(now, Disconnect::Refused { message }, None);
            }
            (Phase::Opening(_) | Phase::Open(_), Kind::Unknown) => self.handle_unreadable(now),
            // Some servers answer what they do not like with an error that names no operation.
            (Phase::Opening(_) | Phase::Open(_), Kind::Error) if id.is_none() => self.counts.ignored += 1,
            (Phase::Opening(_), Kind::Next | Kind::Error | Kind::Complete) => {
                let cause = Disconnect::Violation(Violation::BeforeAck(kind.name()));
                self.break_off(now, cause, Some((CloseCode::BAD_RESPONSE, "Unexpected message before ack")));
            }
            (Phase::Open(_), Kind::Next) => self.deliver(id.as_deref(), payload),
            (Phase::Open(_), Kind::Error) => self.finish(id.as_deref(), End::Rejected(payload)),
            (Phase::Open(_), Kind::Complete) => self.finish(id.as_deref(), End::Completed),
            // A second ack is odd but harmless (rule 7), and after the ack a connection_error is no end (rule 21).
            (Phase::Open(_), Kind::Ack | Kind::ConnectionError) => self.counts.ignored += 1,
        }
    }

    fn handle_unreadable(&mut self, now: Instant) {
        self.counts.ignored += 1;
        if self.config.strictness == Strictness::Strict {
            let cause = Disconnect::Violation(Violation::Unreadable);
            self.break_off(now, cause, Some((CloseCode::BAD_RESPONSE, "Unreadable message")));
        }
    }

    fn deliver(&mut self, id: Option<&str>, payload: Option<Payload>) {
        let operation = id.and_then(|id| id.parse().ok()).and_then(|id| self.operations.by_wire_id(id));
        match (operation, payload) {
            (Some(operation), Some(payload)) => {
                let sink = operation.sink.clone();
                self.counts.items += 1;
                self.outputs.push_back(Output::Deliver { sink, payload });
            }
            // Unknown ids are late, not wrong (rule 14); a `next` without a payload says nothing.
            (None, _) | (Some(_), None) => self.counts.ignored += 1,
        }
    }

    fn finish(&mut self, id: Option<&str>, end: End) {
        let Some(wire_id) = id.and_then(|id| id.parse().ok()) else {
            self.counts.ignored += 1;
            return;
        };
        let id = self.operations.by_wire_id(wire_id).map(|operation| operation.id);
        if let Some(operation) = id.and_then(|id| self.operations.remove(id)) {
            self.outputs.push_back(Output::Finish { sink: operation.sink, end });
        } else {
            self.counts.ignored += 1;
            // Both sides end it at once: what is not written yet is not to be said any more (rule 13).
            self.outbox.ended(wire_id);
        }
    }
}

/// The server's words in a `connection_error`.
fn refusal_message(payload: &Payload) -> String {
    let mut message = match payload.decode::<serde_json::Value>() {
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
