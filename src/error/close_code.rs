//! Close codes of WebSocket and of the GraphQL subprotocols.

use std::fmt;

/// A WebSocket close code (RFC 6455 section 7.4).
///
/// The constants include the codes that the GraphQL subprotocols define. Codes below 3000 are
/// defined by RFC 6455 and in the IANA registry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The peer has closed the connection normally. Several servers also use this code when they
    /// restart or reject credentials.
    pub const NORMAL: Self = Self(1000);
    /// The peer shuts down.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer detected a WebSocket protocol error. Some servers also use this code to refuse a
    /// subprotocol or credentials.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// Stands for a close frame without a code (RFC 6455 section 7.1.5). It is never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// The content of a message does not match its type, such as text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// A message was too large for the receiver.
    pub const TOO_BIG: Self = Self(1009);
    /// The server failed because of an internal error.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The server is overloaded.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// `graphql-transport-ws`: the client received a message that it cannot read. Sent by clients.
    pub const BAD_RESPONSE: Self = Self(4004);
    /// `graphql-transport-ws`: the server received an invalid message.
    pub const BAD_REQUEST: Self = Self(4400);
    /// `graphql-transport-ws`: the client started an operation before the acknowledgement.
    pub const UNAUTHORIZED: Self = Self(4401);
    /// `graphql-transport-ws`: the server rejected `connection_init`.
    pub const FORBIDDEN: Self = Self(4403);
    /// `graphql-transport-ws`: the server supports none of the offered subprotocols.
    pub const SUBPROTOCOL_NOT_ACCEPTABLE: Self = Self(4406);
    /// `graphql-transport-ws`: the server received no `connection_init` in time.
    pub const INIT_TIMEOUT: Self = Self(4408);
    /// `graphql-transport-ws`: an operation with the same id is running.
    pub const SUBSCRIBER_ALREADY_EXISTS: Self = Self(4409);
    /// `graphql-transport-ws`: the client sent a second `connection_init`. On some gateways, the
    /// client has too many connections.
    pub const TOO_MANY_REQUESTS: Self = Self(4429);
    /// `graphql-transport-ws`: the server did not acknowledge in time. Sent by clients.
    pub const ACK_TIMEOUT: Self = Self(4504);

    /// Whether a close frame may have this code (RFC 6455 section 7.4). The codes 1012 to 1014 were
    /// registered later.
    #[cfg(feature = "client")]
    pub(crate) fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
