//! The rules that a client must keep, checked on every message that it sends.
//!
//! Owns the state that the rules need. It is given every message in both directions, and returns
//! the [`Rule`] that a message breaks. Must not know sockets, so that every rule can be tested with
//! a list of messages. It is written from the protocol texts and shares no code with the client, so
//! that a mistake in one of them does not hide the same mistake in the other.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Map, Value};
use thiserror::Error;

/// The two subprotocols of GraphQL over WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subprotocol {
    /// `graphql-transport-ws`, the modern one.
    GraphqlTransportWs,
    /// `graphql-ws`, the legacy one of subscriptions-transport-ws.
    GraphqlWs,
}

impl Subprotocol {
    /// Returns the name in `Sec-WebSocket-Protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Self::GraphqlTransportWs => "graphql-transport-ws",
            Self::GraphqlWs => "graphql-ws",
        }
    }

    /// Returns the subprotocol of that name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::GraphqlTransportWs, Self::GraphqlWs].into_iter().find(|known| known.name() == name)
    }

    /// The type of the message that starts an operation.
    pub(super) fn start(self) -> &'static str {
        match self {
            Self::GraphqlTransportWs => "subscribe",
            Self::GraphqlWs => "start",
        }
    }

    /// The type of the message with which the client stops an operation.
    pub(super) fn stop(self) -> &'static str {
        match self {
            Self::GraphqlTransportWs => "complete",
            Self::GraphqlWs => "stop",
        }
    }

    /// The type of the message that carries a result.
    pub(super) fn result(self) -> &'static str {
        match self {
            Self::GraphqlTransportWs => "next",
            Self::GraphqlWs => "data",
        }
    }
}

/// A rule that a client can break. The text says what a client must do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum Rule {
    #[error("exactly one subprotocol is offered, `graphql-transport-ws` or `graphql-ws`")]
    OneSubprotocol,
    #[error("messages are text frames, not binary ones")]
    Binary,
    #[error("a message is a JSON object with a string as its `type`")]
    NotAMessage,
    #[error("no client's message has this `type`")]
    UnknownType,
    #[error("this `type` is not in the subprotocol's vocabulary")]
    WrongVocabulary,
    #[error("`connection_init` is the first message")]
    InitFirst,
    #[error("`connection_init` is sent once")]
    SecondInit,
    #[error("the payload of `connection_init` is an object")]
    InitPayload,
    #[error("no operation starts before `connection_ack`")]
    BeforeAck,
    #[error("an operation's id is a string that is not empty")]
    Id,
    #[error("an id is never used twice, not even on a later connection")]
    ReusedId,
    #[error(
        "an operation's payload has a string `query`, an object `variables` and \
         a string `operationName`"
    )]
    OperationPayload,
    #[error("only an operation that was started on this connection is stopped")]
    UnknownId,
    #[error("an operation is stopped once")]
    StoppedTwice,
    #[error("an operation that the server ended is not completed")]
    AlreadyEnded,
    #[error("the payload of `ping` and `pong` is an object, if there is one")]
    PingPayload,
    #[error("nothing but a close frame follows `connection_terminate`")]
    AfterTerminate,
    #[error("nothing follows a close frame (RFC 6455 section 5.5.1)")]
    AfterClose,
    #[error("this close code is never sent (RFC 6455 section 7.4)")]
    CloseCode,
    #[error("a close reason has at most 123 bytes (RFC 6455 section 5.5)")]
    CloseReasonTooLong,
    #[error(
        "a close frame's body is empty, or a code of 2 bytes and UTF-8 text \
         (RFC 6455 section 5.5.1)"
    )]
    CloseBody,
}

/// The ids that the connections of one server have seen.
#[derive(Clone, Default)]
pub(super) struct UsedIds(Arc<Mutex<HashSet<String>>>);

impl UsedIds {
    /// Adds an id. Returns whether it is new.
    fn insert(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned())
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Checks what the client sends on one connection.
pub(super) struct Checker {
    subprotocol: Subprotocol,
    used_ids: UsedIds,
    phase: Phase,
    operations: HashMap<String, Operation>,
    /// How many of the server's pings have no answer yet. On the legacy subprotocol a `pong` is
    /// allowed only as an answer.
    unanswered_pings: usize,
}

/// What the client may send next.
enum Phase {
    /// `connection_init`.
    Fresh,
    /// Anything that starts no operation.
    Initialized,
    /// Anything.
    Acked,
    /// A close frame.
    Terminated,
}

/// The state of one operation.
#[derive(Default)]
struct Operation {
    stopped: bool,
    end: ServerEnd,
}

/// Whether the server has ended an operation, and whether the client knows.
#[derive(Clone, Copy, PartialEq, Default)]
enum ServerEnd {
    #[default]
    No,
    /// The server has sent the end. A `complete` of the client may cross it on the wire.
    Sent,
    /// The client has answered a later ping, so it has read the end.
    Read,
}

impl Checker {
    pub(super) fn new(subprotocol: Subprotocol, used_ids: UsedIds) -> Self {
        Self {
            subprotocol,
            used_ids,
            phase: Phase::Fresh,
            operations: HashMap::new(),
            unanswered_pings: 0,
        }
    }

    /// Checks a text frame from the client, and returns it as JSON.
    pub(super) fn received(&mut self, text: &str) -> Result<Value, Rule> {
        let message: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| Rule::NotAMessage)?;
        let kind = self
            .message_type(message.get("type").and_then(Value::as_str).ok_or(Rule::NotAMessage)?)?;
        match (&self.phase, kind) {
            (Phase::Terminated, _) => return Err(Rule::AfterTerminate),
            (Phase::Fresh, MessageType::Init) => {
                object(message.get("payload")).ok_or(Rule::InitPayload)?;
                self.phase = Phase::Initialized;
            }
            (Phase::Fresh, _) => return Err(Rule::InitFirst),
            (_, MessageType::Init) => return Err(Rule::SecondInit),
            (Phase::Initialized, MessageType::Start) => return Err(Rule::BeforeAck),
            (Phase::Acked, MessageType::Start) => self.start(&message)?,
            (_, MessageType::Stop) => self.stop(id(&message)?)?,
            (_, MessageType::Ping | MessageType::Pong) => {
                if !absent(message.get("payload")) && object(message.get("payload")).is_none() {
                    return Err(Rule::PingPayload);
                }
                if let MessageType::Pong = kind {
                    self.unanswered_pings = self.unanswered_pings.saturating_sub(1);
                }
            }
            (_, MessageType::Terminate) => self.phase = Phase::Terminated,
        }
        Ok(Value::Object(message))
    }

    /// Notes a message to the client. The server may send anything; some messages change what the
    /// client may send.
    pub(super) fn sent(&mut self, message: &Value) {
        match message["type"].as_str() {
            Some("connection_ack") if matches!(self.phase, Phase::Initialized) => {
                self.phase = Phase::Acked;
            }
            Some("ping") => self.unanswered_pings += 1,
            Some("complete" | "error") => {
                let operation = message["id"].as_str().and_then(|id| self.operations.get_mut(id));
                if let Some(operation) =
                    operation.filter(|operation| operation.end == ServerEnd::No)
                {
                    operation.end = ServerEnd::Sent;
                }
            }
            _ => {}
        }
    }

    /// Notes that the client has read everything that was sent so far.
    pub(super) fn synced(&mut self) {
        for operation in
            self.operations.values_mut().filter(|operation| operation.end == ServerEnd::Sent)
        {
            operation.end = ServerEnd::Read;
        }
    }

    fn start(&mut self, message: &Map<String, Value>) -> Result<(), Rule> {
        let id = id(message)?;
        let payload = object(message.get("payload")).ok_or(Rule::OperationPayload)?;
        let well_formed = payload.get("query").is_some_and(Value::is_string)
            && ["variables", "extensions"]
                .iter()
                .all(|key| absent(payload.get(*key)) || object(payload.get(*key)).is_some())
            && (absent(payload.get("operationName")) || payload["operationName"].is_string());
        if !well_formed {
            return Err(Rule::OperationPayload);
        }
        if !self.used_ids.insert(id) {
            return Err(Rule::ReusedId);
        }
        self.operations.insert(id.to_owned(), Operation::default());
        Ok(())
    }

    fn stop(&mut self, id: &str) -> Result<(), Rule> {
        let operation = self.operations.get_mut(id).ok_or(Rule::UnknownId)?;
        if operation.stopped {
            return Err(Rule::StoppedTwice);
        }
        operation.stopped = true;
        match (self.subprotocol, operation.end) {
            (Subprotocol::GraphqlTransportWs, ServerEnd::Read) => Err(Rule::AlreadyEnded),
            // PostGraphile 4 commits a mutation only when it receives `stop`, so a legacy client
            // has to send it after the result.
            (Subprotocol::GraphqlWs, ServerEnd::Read) | (_, ServerEnd::No | ServerEnd::Sent) => {
                Ok(())
            }
        }
    }

    fn message_type(&self, name: &str) -> Result<MessageType, Rule> {
        let (modern, kind) = match name {
            "connection_init" => return Ok(MessageType::Init),
            "subscribe" => (true, MessageType::Start),
            "start" => (false, MessageType::Start),
            "complete" => (true, MessageType::Stop),
            "stop" => (false, MessageType::Stop),
            "ping" => (true, MessageType::Ping),
            // A legacy server should not send a ping, but a client may answer it if it does.
            "pong" if self.unanswered_pings > 0 => return Ok(MessageType::Pong),
            "pong" => (true, MessageType::Pong),
            "connection_terminate" => (false, MessageType::Terminate),
            _ => return Err(Rule::UnknownType),
        };
        if modern == (self.subprotocol == Subprotocol::GraphqlTransportWs) {
            Ok(kind)
        } else {
            Err(Rule::WrongVocabulary)
        }
    }
}

/// The type of a client's message, in either vocabulary.
#[derive(Clone, Copy)]
enum MessageType {
    Init,
    Start,
    Stop,
    Ping,
    Pong,
    Terminate,
}

/// Returns the code, or 1005 if there is none, and the reason in the body of a close frame.
pub(super) fn close_frame(body: &[u8]) -> Result<(u16, String), Rule> {
    match body {
        [] => Ok((NO_STATUS, String::new())),
        [_] => Err(Rule::CloseBody),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Rule::CloseCode);
            }
            if reason.len() > MAX_REASON_BYTES {
                return Err(Rule::CloseReasonTooLong);
            }
            Ok((code, str::from_utf8(reason).map_err(|_| Rule::CloseBody)?.to_owned()))
        }
    }
}

/// Returns the subprotocol that was offered.
pub(super) fn offered(names: &[&str]) -> Result<Subprotocol, Rule> {
    match names {
        [only] => Subprotocol::from_name(only).ok_or(Rule::OneSubprotocol),
        _ => Err(Rule::OneSubprotocol),
    }
}

fn id(message: &Map<String, Value>) -> Result<&str, Rule> {
    message.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).ok_or(Rule::Id)
}

fn object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn absent(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

impl fmt::Display for Subprotocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Stands for a close frame without a code (RFC 6455 section 7.1.5).
const NO_STATUS: u16 = 1005;

/// A control frame holds 125 bytes (RFC 6455 section 5.5), two of which are the code.
const MAX_REASON_BYTES: usize = 123;

#[cfg(test)]
#[path = "tests/check.rs"]
mod tests;
