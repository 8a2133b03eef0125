//! Close codes: those of RFC 6455 and those that the GraphQL subprotocols add.

use std::fmt;

/// A WebSocket close code (RFC 6455 section 7.4), with the codes that the GraphQL subprotocols add.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The peer is done, or so it says: several servers also reject and restart with it.
    pub const NORMAL: Self = Self(1000);
    /// The peer shuts down or moves on.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer saw a WebSocket protocol error; also how some servers refuse a subprotocol or a
    /// credential.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A close frame without a code (RFC 6455 section 7.1.5). Never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// A message was not what it claims to be, such as text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// A message was too big for the receiver.
    pub const TOO_BIG: Self = Self(1009);
    /// The server failed.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The server is overloaded.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// `graphql-transport-ws`: the client received a message that it cannot read.
    pub const BAD_RESPONSE: Self = Self(4004);
    /// `graphql-transport-ws`: an invalid message.
    pub const BAD_REQUEST: Self = Self(4400);
    /// `graphql-transport-ws`: an operation before the acknowledgement.
    pub const UNAUTHORIZED: Self = Self(4401);
    /// `graphql-transport-ws`: the server refused `connection_init`.
    pub const FORBIDDEN: Self = Self(4403);
    /// `graphql-transport-ws`: the server speaks no offered subprotocol.
    pub const SUBPROTOCOL_NOT_ACCEPTABLE: Self = Self(4406);
    /// `graphql-transport-ws`: the server saw no `connection_init` in time.
    pub const INIT_TIMEOUT: Self = Self(4408);
    /// `graphql-transport-ws`: the operation id is in use.
    pub const SUBSCRIBER_ALREADY_EXISTS: Self = Self(4409);
    /// `graphql-transport-ws`: a second `connection_init`; on some gateways, too many connections.
    pub const TOO_MANY_REQUESTS: Self = Self(4429);
    /// `graphql-ws`' own code for a server that did not acknowledge in time.
    pub const ACK_TIMEOUT: Self = Self(4504);

    /// Whether a close frame may have this code: RFC 6455 section 7.4, with 1012 to 1014, which
    /// were registered later.
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
