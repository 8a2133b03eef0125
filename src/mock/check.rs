//! The rules that a client must keep, checked on every message that it sends.
//!
//! Owns the state that the rules need and nothing else: it is fed with what was received and what
//! was sent, and says which [`Rule`] broke. Must not know sockets, so that every rule can be tested
//! with a list of messages. It is written from the protocol texts, and shares no code with the
//! client: what both got wrong would otherwise pass.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Map, Value};
use thiserror::Error;

/// The two subprotocols that GraphQL over WebSocket knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subprotocol {
    /// `graphql-transport-ws`, the modern one.
    GraphqlTransportWs,
    /// `graphql-ws`, the legacy one of subscriptions-transport-ws.
    GraphqlWs,
}

impl Subprotocol {
    /// The name in `Sec-WebSocket-Protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Self::GraphqlTransportWs => "graphql-transport-ws",
            Self::GraphqlWs => "graphql-ws",
        }
    }

    /// The subprotocol of that name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::GraphqlTransportWs, Self::GraphqlWs].into_iter().find(|known| known.name() == name)
    }

    /// What the client sends to start an operation.
    pub(super) fn start(self) -> &'static str {
        match self {
            Self::GraphqlTransportWs => "subscribe",
            Self::GraphqlWs => "start",
        }
    }

    /// What the client sends to stop an operation.
    pub(super) fn stop(self) -> &'static str {
        match self {
            Self::GraphqlTransportWs => "complete",
            Self::GraphqlWs => "stop",
        }
    }

    /// What the server sends with a result.
    pub(super) fn result(self) -> &'static str {
        match self {
            Self::GraphqlTransportWs => "next",
            Self::GraphqlWs => "data",
        }
    }
}

/// A rule that the client broke.
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

/// The ids that any connection of one server saw.
#[derive(Clone, Default)]
pub(super) struct UsedIds(Arc<Mutex<HashSet<String>>>);

impl UsedIds {
    /// Whether the id is new.
    fn insert(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned())
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// One connection, seen by its rules.
pub(super) struct Checker {
    subprotocol: Subprotocol,
    used_ids: UsedIds,
    phase: Phase,
    operations: HashMap<String, Operation>,
    /// Pings of ours without an answer: the only reason for a `pong` on the legacy subprotocol.
    unanswered_pings: usize,
}

/// How far the client may go.
enum Phase {
    Fresh,
    Initialized,
    Acked,
    Terminated,
}

/// What is known of one operation.
#[derive(Default)]
struct Operation {
    stopped: bool,
    end: ServerEnd,
}

/// Whether the server ended an operation, and whether the client knows.
#[derive(Clone, Copy, PartialEq, Default)]
enum ServerEnd {
    #[default]
    No,
    /// On the wire: the client may be completing at the same time, which is normal.
    Sent,
    /// A later round trip proved that the client read it.
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

    /// A text frame came from the client.
    pub(super) fn received(&mut self, text: &str) -> Result<Value, Rule> {
        let message: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| Rule::NotAMessage)?;
        let kind =
            self.kind(message.get("type").and_then(Value::as_str).ok_or(Rule::NotAMessage)?)?;
        match (&self.phase, kind) {
            (Phase::Terminated, _) => return Err(Rule::AfterTerminate),
            (Phase::Fresh, Kind::Init) => {
                object(message.get("payload")).ok_or(Rule::InitPayload)?;
                self.phase = Phase::Initialized;
            }
            (Phase::Fresh, _) => return Err(Rule::InitFirst),
            (_, Kind::Init) => return Err(Rule::SecondInit),
            (Phase::Initialized, Kind::Start) => return Err(Rule::BeforeAck),
            (Phase::Acked, Kind::Start) => self.start(&message)?,
            (_, Kind::Stop) => self.stop(id(&message)?)?,
            (_, Kind::Ping | Kind::Pong) => {
                if !absent(message.get("payload")) && object(message.get("payload")).is_none() {
                    return Err(Rule::PingPayload);
                }
                if let Kind::Pong = kind {
                    self.unanswered_pings = self.unanswered_pings.saturating_sub(1);
                }
            }
            (_, Kind::Terminate) => self.phase = Phase::Terminated,
        }
        Ok(Value::Object(message))
    }

    /// A text frame went to the client. Anything may be sent; only what changes the client's rules
    /// is noted.
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

    /// A round trip that began now came back: the client read all that was sent before.
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
            // PostGraphile 4 commits a mutation only at `stop`, so a legacy client sends it after
            // the result.
            (Subprotocol::GraphqlWs, ServerEnd::Read) | (_, ServerEnd::No | ServerEnd::Sent) => {
                Ok(())
            }
        }
    }

    fn kind(&self, name: &str) -> Result<Kind, Rule> {
        let (modern, kind) = match name {
            "connection_init" => return Ok(Kind::Init),
            "subscribe" => (true, Kind::Start),
            "start" => (false, Kind::Start),
            "complete" => (true, Kind::Stop),
            "stop" => (false, Kind::Stop),
            "ping" => (true, Kind::Ping),
            // Answering a ping is right, even though no legacy server should have sent one.
            "pong" if self.unanswered_pings > 0 => return Ok(Kind::Pong),
            "pong" => (true, Kind::Pong),
            "connection_terminate" => (false, Kind::Terminate),
            _ => return Err(Rule::UnknownType),
        };
        if modern == (self.subprotocol == Subprotocol::GraphqlTransportWs) {
            Ok(kind)
        } else {
            Err(Rule::WrongVocabulary)
        }
    }
}

/// What a client's message is for, in either vocabulary.
#[derive(Clone, Copy)]
enum Kind {
    Init,
    Start,
    Stop,
    Ping,
    Pong,
    Terminate,
}

/// The code (1005 when there is none) and the reason in the body of a close frame.
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

/// The subprotocol that was offered.
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

/// What stands for a close frame without a code (RFC 6455 section 7.1.5).
const NO_STATUS: u16 = 1005;

/// A control frame holds 125 bytes (RFC 6455 section 5.5), two of which are the code.
const MAX_REASON_BYTES: usize = 123;

#[cfg(test)]
#[path = "tests/check.rs"]
mod tests;
