//! The messages that the client sends, strictly in the chosen subprotocol (rule 2).

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use crate::error::CloseCode;

/// A subprotocol of GraphQL over WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Subprotocol {
    /// `graphql-transport-ws`, the modern one. It was introduced in 2020 by the npm package
    /// `graphql-ws`.
    GraphqlTransportWs,
    /// `graphql-ws`, the legacy one of the npm package `subscriptions-transport-ws`.
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
}

impl fmt::Display for Subprotocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The id of an operation on one connection, written as `serial.slot`.
///
/// A client never uses a serial twice (rule 9). The slot is the operation's index in the registry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct WireId {
    pub(crate) serial: u64,
    pub(crate) slot: u32,
}

impl fmt::Display for WireId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.serial, self.slot)
    }
}

impl WireId {
    /// Reads an id, and returns it with the text that follows it.
    pub(super) fn read(text: &[u8]) -> Option<(Self, &[u8])> {
        let (serial, rest) = decimal(text)?;
        let (slot, rest) = decimal(rest.strip_prefix(b".")?)?;
        Some((Self { serial, slot: u32::try_from(slot).ok()? }, rest))
    }
}

impl FromStr for WireId {
    type Err = ForeignId;

    fn from_str(id: &str) -> Result<Self, ForeignId> {
        match Self::read(id.as_bytes()) {
            Some((id, [])) => Ok(id),
            Some(_) | None => Err(ForeignId),
        }
    }
}

/// The id was not made by this client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ForeignId;

/// Reads digits, and returns their value with the text that follows them. Returns `None` if there
/// are no digits or the value is too large.
fn decimal(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut value, mut rest) = (0_u64, text);
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        rest = after;
    }
    (rest.len() < text.len()).then_some((value, rest))
}

/// What to write next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Transmit {
    Text(String),
    /// A WebSocket ping frame with this number, big-endian, as its body.
    Ping(u64),
    Close(CloseCode, &'static str),
}

/// A message from the client. Its payload is JSON text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outgoing<'a> {
    Init {
        /// Always an object (rule 4).
        payload: &'a str,
    },
    Subscribe {
        id: WireId,
        payload: &'a str,
    },
    Complete {
        id: WireId,
    },
    /// The number comes back in the payload of the `pong` from some servers.
    Ping {
        number: u64,
    },
    Pong {
        payload: Option<&'a str>,
    },
    /// Precedes the close frame on the legacy subprotocol.
    Terminate,
}

impl Outgoing<'_> {
    /// Returns the text of the frame.
    pub(crate) fn encode(&self, subprotocol: Subprotocol) -> String {
        let legacy = match subprotocol {
            Subprotocol::GraphqlTransportWs => false,
            Subprotocol::GraphqlWs => true,
        };
        match self {
            Self::Init { payload } => {
                format!(r#"{{"type":"connection_init","payload":{payload}}}"#)
            }
            Self::Subscribe { id, payload } => {
                let kind = if legacy { "start" } else { "subscribe" };
                // Allocates once: thousands of operations may be encoded in a row.
                let mut text = String::with_capacity(payload.len() + 80);
                let _ = write!(text, r#"{{"type":"{kind}","id":"{id}","payload":{payload}}}"#);
                text
            }
            Self::Complete { id } => {
                let kind = if legacy { "stop" } else { "complete" };
                format!(r#"{{"type":"{kind}","id":"{id}"}}"#)
            }
            Self::Ping { number } => format!(r#"{{"type":"ping","payload":{{"n":{number}}}}}"#),
            Self::Pong { payload: None } => r#"{"type":"pong"}"#.into(),
            Self::Pong { payload: Some(payload) } => {
                format!(r#"{{"type":"pong","payload":{payload}}}"#)
            }
            Self::Terminate => r#"{"type":"connection_terminate"}"#.into(),
        }
    }
}

/// Cuts a close reason to what a close frame holds: 123 bytes of UTF-8 (RFC 6455 section 5.5), at a
/// character boundary.
pub(crate) fn close_reason(reason: &str) -> &str {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MODERN: Subprotocol = Subprotocol::GraphqlTransportWs;
    const LEGACY: Subprotocol = Subprotocol::GraphqlWs;

    #[test]
    fn messages_follow_the_chosen_subprotocol() {
        let id = WireId { serial: 3, slot: 1 };
        let payload = r#"{"query":"{a}"}"#;
        let rows = [
            (
                Outgoing::Init { payload: "{}" },
                json!({"type": "connection_init", "payload": {}}),
                None,
            ),
            (
                Outgoing::Subscribe { id, payload },
                json!({"type": "subscribe", "id": "3.1", "payload": {"query": "{a}"}}),
                Some(json!({"type": "start", "id": "3.1", "payload": {"query": "{a}"}})),
            ),
            (
                Outgoing::Complete { id },
                json!({"type": "complete", "id": "3.1"}),
                Some(json!({"type": "stop", "id": "3.1"})),
            ),
            (Outgoing::Ping { number: 7 }, json!({"type": "ping", "payload": {"n": 7}}), None),
            (Outgoing::Pong { payload: None }, json!({"type": "pong"}), None),
            (
                Outgoing::Pong { payload: Some("[1]") },
                json!({"type": "pong", "payload": [1]}),
                None,
            ),
            (Outgoing::Terminate, json!({"type": "connection_terminate"}), None),
        ];
        for (message, modern, legacy) in rows {
            let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
            assert_eq!(parse(message.encode(MODERN)), modern);
            assert_eq!(parse(message.encode(LEGACY)), legacy.unwrap_or(modern));
        }
    }

    #[test]
    fn an_id_is_read_back_and_a_foreign_id_is_an_error() {
        let id = WireId { serial: u64::MAX, slot: u32::MAX };
        assert_eq!(id.to_string().parse(), Ok(id));
        let foreign = [
            "",
            "1",
            ".",
            "1.",
            ".1",
            "+1.1",
            "1.+1",
            "1.2.3",
            "a.b",
            "1.4294967296",
            "-1.1",
            " 1.1",
        ];
        let too_large =
            ["18446744073709551616.1", "18446744073709551617.1", "99999999999999999999.1"];
        for foreign in foreign.into_iter().chain(too_large) {
            assert_eq!(foreign.parse::<WireId>(), Err(ForeignId), "{foreign:?}");
        }
    }
}
