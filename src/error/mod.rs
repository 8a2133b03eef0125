//! Every public error, one enum for each moment at which something can fail.
//!
//! Owns what a user reads when it does. No `Display` repeats its `source()`, none shows a URL's
//! query or a credential.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use thiserror::Error;

pub(crate) mod bounded;
#[cfg(feature = "client")]
mod build;
mod close_code;
mod dial;
mod display;
mod graphql;
mod headers;
mod subscribe;
mod syntax;
mod upgrade;

#[cfg(feature = "client")]
pub use self::build::BuildError;
pub(crate) use self::display::Chain;
use self::display::{DisplayBody, DisplayErrors};
pub(crate) use self::graphql::map;
pub use self::{
    close_code::CloseCode,
    dial::DialError,
    graphql::{GraphQlError, Location, PathSegment},
    headers::ResponseHeaders,
    subscribe::SubscribeError,
    syntax::SyntaxError,
    upgrade::UpgradeFlaw,
};

/// Any error that can be shared between the streams of one client.
pub type SharedError = Arc<dyn Error + Send + Sync>;

/// Why a WebSocket connection could not be made.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No byte stream. Whether it is retried depends on the error.
    #[error(transparent)]
    Dial(DialError),
    /// Name resolution, TCP, TLS and the upgrade together took longer than
    /// [`connect_timeout`](crate::ClientBuilder::connect_timeout). Retried.
    #[error("not connected within {0:?}")]
    Timeout(Duration),
    /// The server answered the upgrade with an HTTP status. 408, 425, 429 and 5xx are retried, 401
    /// and 403 ask for new credentials, 400 leads to the other subprotocol unless it is fixed or
    /// known, and everything else is fatal.
    #[error("the server answered the upgrade with HTTP {status}{}", DisplayBody(.body))]
    Http {
        /// The status code.
        status: u16,
        /// What the server's `Retry-After` asks for; at most an hour.
        retry_after: Option<Duration>,
        /// What else the server said of it.
        headers: ResponseHeaders,
        /// The first 1024 bytes of the body, as far as they came within half a second. What it
        /// shows of the request's headers or of the endpoint's query is masked.
        body: String,
    },
    /// The server answered the upgrade with a redirection, which is not followed: who may redirect
    /// would get the credentials. Fatal; if the target is the right one, make it the endpoint.
    #[error("the server redirects the upgrade to {to} with HTTP {status}, which is not followed")]
    Redirected {
        /// The status code.
        status: u16,
        /// The target, without user, query and fragment.
        to: String,
    },
    /// The server chose no subprotocol, or one that was not offered.
    #[error("the server did not choose the offered subprotocol `{offered}`")]
    Subprotocol {
        /// What was offered.
        offered: &'static str,
    },
    /// The answer was not a WebSocket upgrade. Fatal.
    #[error("the server did not upgrade to WebSocket: {0}")]
    Upgrade(UpgradeFlaw),
}

/// Why a connection was lost, or not made. It is in the [`Gap`](crate::Gap) of a reconnect, in
/// [`Status::Waiting`](crate::Status::Waiting) and in the errors that end streams.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Disconnect {
    /// The server closed the connection with a close frame. The reason is the server's own text.
    #[error("the server closed the connection with {code}{}", DisplayBody(.reason))]
    Closed {
        /// The code; [`CloseCode::NO_STATUS`] when the frame had none.
        code: CloseCode,
        /// The reason; may be empty.
        reason: String,
    },
    /// The server answered `connection_init` with `connection_error`.
    #[error("the server refused the connection{}", DisplayBody(.message))]
    Refused {
        /// The server's own words.
        message: String,
    },
    /// The application asked for it, by [`pause`](crate::Client::pause) or
    /// [`reconnect_now`](crate::Client::reconnect_now).
    #[error("the application asked for it")]
    Requested,
    /// The stream ended or broke without a closing handshake.
    #[error("the connection broke off")]
    Reset(#[source] Option<Arc<io::Error>>),
    /// Bytes arrived that are not WebSocket frames, such as a close frame longer than RFC 6455
    /// allows.
    #[error("the server sent an invalid WebSocket frame: {0}")]
    WebSocket(String),
    /// Nothing arrived for this long after a ping.
    #[error("the server went silent: nothing arrived within {0:?} after a ping")]
    Silent(Duration),
    /// No `connection_ack` within [`ack_timeout`](crate::ClientBuilder::ack_timeout).
    #[error("the server did not acknowledge within {0:?}")]
    AckTimeout(Duration),
    /// The server broke the subprotocol; the client closed the connection.
    #[error("the server broke the protocol: {0}")]
    Violation(Violation),
    /// A message was larger than [`max_message_size`](crate::ClientBuilder::max_message_size); the
    /// client closed the connection, as the server would send it again.
    #[error("the server sent a message above the limit of {limit} bytes")]
    MessageTooBig {
        /// The limit in bytes.
        limit: usize,
    },
    /// The connection could not be made.
    #[error(transparent)]
    Connect(ConnectError),
    /// The server accepts neither subprotocol.
    #[error("the server accepts neither subprotocol: graphql-transport-ws: {}; graphql-ws: {}", Chain(.modern), Chain(.legacy))]
    NoSubprotocol {
        /// What came back when `graphql-transport-ws` was offered.
        modern: Arc<Disconnect>,
        /// What came back when `graphql-ws` was offered.
        legacy: Arc<Disconnect>,
    },
    /// The credentials provider failed.
    #[error("no credentials")]
    Credentials(#[source] CredentialsError),
}

/// What a server did that no server may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Violation {
    /// An operation's message before `connection_ack`.
    #[error("a `{0}` message before the acknowledgement")]
    BeforeAck(&'static str),
    /// A message that cannot be read, under [`Strictness::Strict`](crate::Strictness::Strict).
    #[error("an unreadable message")]
    Unreadable,
}

/// What a credentials provider returns when it has none.
#[derive(Clone, Debug)]
pub struct CredentialsError {
    source: SharedError,
    fatal: bool,
}

impl CredentialsError {
    /// A failure that may pass, such as a token endpoint that does not answer: the attempt counts
    /// as failed, and the provider is asked again after a backoff.
    pub fn transient(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Arc::from(source.into()), fatal: false }
    }

    /// A failure that will not pass: every live operation ends with it.
    pub fn fatal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Arc::from(source.into()), fatal: true }
    }

    /// Whether asking again is pointless.
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }
}

/// Why a subscription's item could not be had, or why the stream ended. See
/// [`is_terminal`](Self::is_terminal).
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// One item did not decode into the expected type; the stream goes on.
    #[error("an item did not decode")]
    Decode(#[source] DecodeError),
    /// The item carried errors and no data; the stream goes on. Only
    /// [`data`](crate::Subscription::data) reports it so.
    #[error("the item has no data{}", DisplayErrors(.0))]
    NoData(Vec<GraphQlError>),
    /// The server ended the operation with errors (an `error` message). Terminal.
    #[error("the server rejected the operation{}", DisplayErrors(.0))]
    Rejected(Vec<GraphQlError>),
    /// The connection was lost for a reason that a new one would not cure, or several times in a
    /// row right after this operation was sent, and this one alone ended: several servers close the
    /// connection over a syntax error. Terminal; the client stays usable.
    #[error("the connection was lost for good")]
    Lost(#[source] Disconnect),
    /// As many attempts in a row failed as [`give_up_after`](crate::ClientBuilder::give_up_after)
    /// allows. Terminal; the client stays usable.
    #[error("gave up after {attempts} failed attempts to connect")]
    GaveUp {
        /// Failed attempts in a row.
        attempts: u32,
        /// Why the last one failed.
        #[source]
        cause: Disconnect,
    },
    /// The application's own code, without which the subscription cannot go on, failed in the
    /// client's task: a hook panicked, or what
    /// [`resume_with`](crate::SubscriptionBuilder::resume_with) made does not serialize or is too
    /// large. Terminal.
    #[error("a hook of the subscription failed")]
    Hook(#[source] SharedError),
    /// The subscription held more than it may, under [`Overflow::Fail`](crate::Overflow::Fail).
    /// Terminal.
    #[error("the subscription overflowed: the reader was too slow")]
    Overflow,
    /// The client was shut down, or its runtime is gone. Terminal.
    #[error("the client was shut down")]
    ShutDown,
}

impl SubscriptionError {
    /// Whether the stream has ended: nothing follows this error.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Decode(_) | Self::NoData(_) => false,
            Self::Rejected(_)
            | Self::Lost(_)
            | Self::GaveUp { .. }
            | Self::Hook(_)
            | Self::Overflow
            | Self::ShutDown => true,
        }
    }

    /// The lost connection behind a terminal error, if that is the cause.
    pub fn disconnect(&self) -> Option<&Disconnect> {
        match self {
            Self::Lost(cause) | Self::GaveUp { cause, .. } => Some(cause),
            Self::Decode(_)
            | Self::NoData(_)
            | Self::Rejected(_)
            | Self::Hook(_)
            | Self::Overflow
            | Self::ShutDown => None,
        }
    }
}

/// Why there is no connection; from [`Client::connect`](crate::Client::connect).
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum NotConnected {
    /// It could not be made, and trying again would not help.
    #[error("the connection could not be made")]
    Lost(#[source] Disconnect),
    /// As many attempts in a row failed as [`give_up_after`](crate::ClientBuilder::give_up_after)
    /// allows.
    #[error("gave up after {attempts} failed attempts to connect")]
    GaveUp {
        /// Failed attempts in a row.
        attempts: u32,
        /// Why the last one failed.
        #[source]
        cause: Disconnect,
    },
    /// The client was shut down, or its runtime is gone.
    #[error("the client was shut down")]
    ShutDown,
}

/// Why a query or mutation has no result.
///
/// A mutation was executed at most once; [`may_have_been_executed`](Self::may_have_been_executed)
/// says when it was for sure not.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// It could not even be begun.
    #[error("the operation was not sent")]
    NotSent(#[source] SubscribeError),
    /// The server ended it with errors (an `error` message), mostly before it began to execute it.
    #[error("the server rejected the operation{}", DisplayErrors(.0))]
    Rejected(Vec<GraphQlError>),
    /// The result did not decode into the expected type.
    #[error("the result did not decode")]
    Decode(#[source] DecodeError),
    /// The server ended the operation without a result.
    #[error("the server sent no result")]
    NoResult,
    /// The mutation was sent, and its result will not come: the connection was lost, with the
    /// cause, or else the time was up or the client shut down. It may or may not have been
    /// executed; ask the server before you send it again.
    #[error("the mutation may or may not have been executed")]
    Ambiguous(#[source] Option<Disconnect>),
    /// No result within this time. A mutation was not sent.
    #[error("no result within {0:?}")]
    Timeout(Duration),
    /// The connection was lost for a reason that a new one would not cure, or several times in a
    /// row right after this query was sent. A mutation was not sent.
    #[error("the connection was lost for good")]
    Lost(#[source] Disconnect),
    /// As many attempts in a row failed as [`give_up_after`](crate::ClientBuilder::give_up_after)
    /// allows. A mutation was not sent.
    #[error("gave up after {attempts} failed attempts to connect")]
    GaveUp {
        /// Failed attempts in a row.
        attempts: u32,
        /// Why the last one failed.
        #[source]
        cause: Disconnect,
    },
    /// The client was shut down, or its runtime is gone. A mutation was not sent.
    #[error("the client was shut down")]
    ShutDown,
}

impl CallError {
    /// Whether the server may have executed the operation. If not, a mutation can be run again
    /// without harm.
    pub fn may_have_been_executed(&self) -> bool {
        match self {
            Self::Rejected(_) | Self::Decode(_) | Self::NoResult | Self::Ambiguous(_) => true,
            Self::NotSent(_)
            | Self::Timeout(_)
            | Self::Lost(_)
            | Self::GaveUp { .. }
            | Self::ShutDown => false,
        }
    }
}

/// Why a snapshot or an item could not be had, or why the stream ended. See
/// [`is_terminal`](Self::is_terminal).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The query has failed. It is tried again after a while, and the subscription goes on.
    #[error("the snapshot could not be queried")]
    Query(#[source] CallError),
    /// The query's result has errors and no data. It is tried again after a while, and the
    /// subscription goes on.
    #[error("the snapshot has no data{}", DisplayErrors(.0))]
    NoData(Vec<GraphQlError>),
    /// What the subscription said.
    #[error(transparent)]
    Subscription(SubscriptionError),
}

impl SnapshotError {
    /// Whether the stream has ended: nothing follows this error.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Query(_) | Self::NoData(_) => false,
            Self::Subscription(error) => error.is_terminal(),
        }
    }
}

/// An item that is not what its operation's type says.
#[derive(Clone, Debug)]
pub struct DecodeError {
    source: Arc<serde_json::Error>,
    errors: Vec<GraphQlError>,
}

impl DecodeError {
    pub(crate) fn new(source: serde_json::Error, errors: Vec<GraphQlError>) -> Self {
        Self { source: Arc::new(source), errors }
    }

    /// The GraphQL errors that the item carried; often the reason why its data has a hole.
    pub fn errors(&self) -> &[GraphQlError] {
        &self.errors
    }
}

/// Wrong headers or payloads are a bug of the provider, and fatal.
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
impl From<BuildError> for CredentialsError {
    fn from(error: BuildError) -> Self {
        Self::fatal(error)
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the credentials provider failed")
    }
}

impl Error for CredentialsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the item is not of the expected type{}", DisplayErrors(&self.errors))
    }
}

impl Error for DecodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
