//! All public errors, with one enum for each step that can fail.
//!
//! Owns the text of errors. No `Display` repeats its `source()`, and none shows the path or query
//! of a URL, or a credential (I13).

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use thiserror::Error;

pub(crate) mod bounded;
#[cfg(feature = "client")]
mod build;
mod close_code;
mod decode;
mod dial;
mod display;
mod graphql;
mod headers;
mod incremental;
mod subscribe;
mod surrogates;
mod syntax;
mod upgrade;

#[cfg(feature = "client")]
pub use self::build::BuildError;
pub(crate) use self::decode::INCREMENTAL;
pub(crate) use self::display::Chain;
use self::display::{DisplayBody, DisplayCode, DisplayErrors};
#[cfg(feature = "client")]
pub(crate) use self::display::{OneLine, is_unprintable};
pub(crate) use self::graphql::map;
pub(crate) use self::surrogates::replace_lone_surrogates;
pub use self::{
    close_code::CloseCode,
    decode::DecodeError,
    dial::DialError,
    graphql::{GraphQlError, Location, PathSegment},
    headers::ResponseHeaders,
    incremental::IncrementalError,
    subscribe::SubscribeError,
    syntax::SyntaxError,
    upgrade::UpgradeError,
};

/// Any error that can be shared between the streams of one client.
pub type SharedError = Arc<dyn Error + Send + Sync>;

#[cfg(feature = "client")]
pub(crate) fn shared(error: impl Error + Send + Sync + 'static) -> SharedError {
    Arc::new(error)
}

/// Why a WebSocket connection could not be made.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server could not be dialed. The error says whether it is retried.
    #[error(transparent)]
    Dial(DialError),
    /// Name resolution, proxy, TCP, TLS and the upgrade together took longer than
    /// [`connect_timeout`](crate::ClientBuilder::connect_timeout). Retried.
    #[error("not connected within {0:?}")]
    Timeout(Duration),
    /// The server answered the upgrade with an HTTP status.
    ///
    /// 408, 425, 429 and 5xx are retried. After 401 and 403 the credentials provider is asked
    /// again. After 400 the client offers the other subprotocol, unless the subprotocol is fixed or
    /// known to work. All others are fatal.
    #[error("the server answered the upgrade with HTTP {status}{}", DisplayBody(.body))]
    Http {
        /// The status code.
        status: u16,
        /// How long the server's `Retry-After` asks to wait, limited to an hour.
        retry_after: Option<Duration>,
        /// The headers of the answer.
        headers: ResponseHeaders,
        /// The first 1024 bytes of the body that arrived within half a second. Where it shows the
        /// headers of the request or the path or query of the endpoint, it is masked.
        body: String,
    },
    /// The server answered the upgrade with a redirection. It is not followed, as the target would
    /// get the credentials. Fatal. If the target is the right one, use it as the endpoint.
    #[error("the server redirects the upgrade to {to} with HTTP {status}, which is not followed")]
    Redirected {
        /// The status code.
        status: u16,
        /// The target, without user, query and fragment. Where it shows the endpoint's path, it is
        /// masked.
        to: String,
    },
    /// The server chose no subprotocol, or one that was not offered.
    #[error("the server did not choose the offered subprotocol `{offered}`")]
    Subprotocol {
        /// The subprotocol that was offered.
        offered: &'static str,
    },
    /// The answer was not a WebSocket upgrade. Fatal.
    #[error("the server did not upgrade to WebSocket: {0}")]
    Upgrade(UpgradeError),
}

/// Why a connection was lost, or could not be made.
///
/// It is in the [`Gap`](crate::Gap) of a reconnect, in
/// [`Status::Waiting`](crate::Status::Waiting), and in the errors that end streams.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Disconnect {
    /// The server closed the connection with a close frame.
    #[error("the server closed the connection with {code}{}", DisplayBody(.reason))]
    Closed {
        /// The code; [`CloseCode::NO_STATUS`] if the frame had none.
        code: CloseCode,
        /// The server's text; may be empty.
        reason: String,
    },
    /// The server answered `connection_init` with `connection_error`.
    #[error("the server refused the connection{}", DisplayBody(.message))]
    Refused {
        /// The server's text; may be empty.
        message: String,
    },
    /// The server closed several connections in a row before it acknowledged them, which is how
    /// some servers reject credentials.
    #[error("the server probably rejected the credentials, {times} times in a row")]
    ProbablyRejected {
        /// How often in a row.
        times: u32,
        /// How the last connection ended.
        #[source]
        cause: Arc<Disconnect>,
    },
    /// The application asked for it with [`pause`](crate::Client::pause) or
    /// [`reconnect_now`](crate::Client::reconnect_now).
    #[error("the application asked for it")]
    Requested,
    /// The stream ended or broke without a closing handshake.
    #[error("the connection broke off")]
    Reset(#[source] Option<Arc<io::Error>>),
    /// The server sent bytes that are not WebSocket frames, or text that is not UTF-8. The client
    /// closed the connection with 1002 or 1007.
    #[error("the server sent an invalid WebSocket frame: {0}")]
    WebSocket(String),
    /// The server closed the connection with an invalid close frame (RFC 6455 sections 5.5 and
    /// 7.4): its code is reserved, like 1006, or its body is too long, a single byte, or not UTF-8.
    ///
    /// Tunnels and proxies are known to send such frames. The content is not reliable, so this is
    /// handled like a connection that broke off ([`Reset`](Self::Reset)).
    #[error("the server sent an invalid close frame{}", DisplayCode(*.code))]
    InvalidCloseFrame {
        /// The code in the frame, if there is one.
        code: Option<u16>,
    },
    /// Nothing arrived for this long after a ping.
    #[error("the server went silent: nothing arrived within {0:?} after a ping")]
    Silent(Duration),
    /// No `connection_ack` arrived within [`ack_timeout`](crate::ClientBuilder::ack_timeout).
    #[error("the server did not acknowledge within {0:?}")]
    AckTimeout(Duration),
    /// The server broke the protocol, and the client closed the connection.
    #[error("the server broke the protocol: {0}")]
    Violation(Violation),
    /// A message was larger than [`max_message_size`](crate::ClientBuilder::max_message_size), and
    /// the client closed the connection.
    #[error("the server sent a message above the limit of {limit} bytes")]
    MessageTooBig {
        /// The limit in bytes.
        limit: usize,
    },
    /// The connection could not be made.
    #[error(transparent)]
    Connect(ConnectError),
    /// The server accepts neither subprotocol.
    #[error(
        "the server accepts neither subprotocol: graphql-transport-ws: {}; graphql-ws: {}",
        Chain(.modern), Chain(.legacy)
    )]
    NoSubprotocol {
        /// What followed when `graphql-transport-ws` was offered.
        modern: Arc<Disconnect>,
        /// What followed when `graphql-ws` was offered.
        legacy: Arc<Disconnect>,
    },
    /// The credentials provider failed.
    #[error("no credentials")]
    Credentials(#[source] CredentialsError),
}

/// How a server broke the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A message about an operation came before `connection_ack`.
    #[error("a `{0}` message before the acknowledgement")]
    BeforeAck(&'static str),
    /// A message cannot be read, under [`Strictness::Strict`](crate::Strictness::Strict).
    #[error("an unreadable message")]
    Unreadable,
}

/// What a credentials provider returns if it has no credentials.
#[derive(Clone, Debug)]
pub struct CredentialsError {
    source: SharedError,
    fatal: bool,
}

impl CredentialsError {
    /// Creates an error that may not come again, such as that of a token endpoint that does not
    /// answer. The attempt to connect has failed, and the provider is asked again after a backoff.
    pub fn transient(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Arc::from(source.into()), fatal: false }
    }

    /// Creates an error that would come again. All live operations end with it.
    pub fn fatal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Arc::from(source.into()), fatal: true }
    }

    /// Returns whether asking again would fail, too.
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }
}

/// Why a subscription could not yield an item, or why the stream ended.
///
/// [`is_terminal`](Self::is_terminal) tells the two apart.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// One item did not decode into the expected type. The stream goes on.
    #[error("an item did not decode")]
    Decode(#[source] DecodeError),
    /// An item has errors and no data. The stream goes on. Only the stream that
    /// [`data`](crate::Subscription::data) returns yields this error.
    #[error("the item has no data{}", DisplayErrors(.0))]
    NoData(Vec<GraphQlError>),
    /// The server ended the operation with errors (an `error` message). Terminal.
    #[error("the server rejected the operation{}", DisplayErrors(.0))]
    Rejected(Vec<GraphQlError>),
    /// The connection was lost for good. Terminal; the client stays usable.
    ///
    /// Either a new connection would end in the same way, or the connection was lost several times
    /// in a row right after this operation was sent, as with servers that close the connection
    /// because of a syntax error. In the latter case only this operation ended.
    #[error("the connection was lost for good")]
    Lost(#[source] Disconnect),
    /// As many attempts to connect failed in a row as
    /// [`give_up_after`](crate::ClientBuilder::give_up_after) allows. Terminal; the client stays
    /// usable.
    #[error("gave up after {attempts} failed attempts to connect")]
    GaveUp {
        /// Failed attempts in a row.
        attempts: u32,
        /// Why the last one failed.
        #[source]
        cause: Disconnect,
    },
    /// A hook of the application failed, and the subscription cannot go on without it. Terminal.
    ///
    /// A hook panicked, or the variables that
    /// [`resume_with`](crate::SubscriptionBuilder::resume_with) changed do not serialize or are too
    /// large.
    #[error("a hook of the subscription failed")]
    Hook(#[source] SharedError),
    /// The queue was full, under [`Overflow::Fail`](crate::Overflow::Fail). Terminal.
    #[error("the subscription overflowed: the reader was too slow")]
    Overflow,
    /// The client was shut down. Terminal.
    #[error("the client was shut down")]
    ShutDown,
    /// The tokio runtime that the client was built on has ended. Terminal.
    #[error("the runtime that the client was built on is gone")]
    RuntimeGone,
}

impl SubscriptionError {
    /// Returns whether the stream has ended: nothing follows a terminal error.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Decode(_) | Self::NoData(_) => false,
            Self::Rejected(_)
            | Self::Lost(_)
            | Self::GaveUp { .. }
            | Self::Hook(_)
            | Self::Overflow
            | Self::ShutDown
            | Self::RuntimeGone => true,
        }
    }

    /// Returns why the connection was lost, if that ended the stream.
    pub fn disconnect(&self) -> Option<&Disconnect> {
        match self {
            Self::Lost(cause) | Self::GaveUp { cause, .. } => Some(cause),
            Self::Decode(_)
            | Self::NoData(_)
            | Self::Rejected(_)
            | Self::Hook(_)
            | Self::Overflow
            | Self::ShutDown
            | Self::RuntimeGone => None,
        }
    }
}

/// Why [`Client::connect`](crate::Client::connect) failed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum NotConnected {
    /// The connection could not be made, and another attempt would fail as well.
    #[error("the connection could not be made")]
    Lost(#[source] Disconnect),
    /// As many attempts failed in a row as [`give_up_after`](crate::ClientBuilder::give_up_after)
    /// allows.
    #[error("gave up after {attempts} failed attempts to connect")]
    GaveUp {
        /// Failed attempts in a row.
        attempts: u32,
        /// Why the last one failed.
        #[source]
        cause: Disconnect,
    },
    /// The client was shut down.
    #[error("the client was shut down")]
    ShutDown,
    /// The tokio runtime that the client was built on has ended.
    #[error("the runtime that the client was built on is gone")]
    RuntimeGone,
}

/// Why a query or mutation has no result.
///
/// A mutation was executed at most once.
/// [`may_have_been_executed`](Self::may_have_been_executed) says whether it may have been.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The operation was not accepted, so it was not sent.
    #[error("the operation was not sent")]
    NotSent(#[source] SubscribeError),
    /// The server ended the operation with errors (an `error` message). In most cases it did not
    /// begin to execute it.
    #[error("the server rejected the operation{}", DisplayErrors(.0))]
    Rejected(Vec<GraphQlError>),
    /// The result did not decode into the expected type.
    #[error("the result did not decode")]
    Decode(#[source] DecodeError),
    /// The result came in parts (`@defer`, `@stream`) that do not make a whole result.
    #[error("the parts of the result do not make a whole one")]
    Incremental(#[source] IncrementalError),
    /// The server ended the operation without a result.
    #[error("the server sent no result")]
    NoResult,
    /// The mutation was sent, and its result will not come. The server may have executed it or not:
    /// find out before you send it again.
    ///
    /// The cause is set if the connection was lost. Otherwise the call timed out, the client was
    /// shut down, or its runtime has ended.
    #[error("the mutation may or may not have been executed")]
    Ambiguous(#[source] Option<Disconnect>),
    /// There was no result within this time. A mutation was not sent.
    #[error("no result within {0:?}")]
    Timeout(Duration),
    /// The connection was lost for good: a new connection would end in the same way, or the
    /// connection was lost several times in a row right after this query was sent. A mutation was
    /// not sent.
    #[error("the connection was lost for good")]
    Lost(#[source] Disconnect),
    /// As many attempts to connect failed in a row as
    /// [`give_up_after`](crate::ClientBuilder::give_up_after) allows. A mutation was not sent.
    #[error("gave up after {attempts} failed attempts to connect")]
    GaveUp {
        /// Failed attempts in a row.
        attempts: u32,
        /// Why the last one failed.
        #[source]
        cause: Disconnect,
    },
    /// The client was shut down. A mutation was not sent.
    #[error("the client was shut down")]
    ShutDown,
    /// The tokio runtime that the client was built on has ended. A mutation was not sent.
    #[error("the runtime that the client was built on is gone")]
    RuntimeGone,
}

impl CallError {
    /// Returns whether the server may have executed the operation. If it has not, a mutation can be
    /// sent again without harm.
    pub fn may_have_been_executed(&self) -> bool {
        match self {
            Self::Rejected(_)
            | Self::Decode(_)
            | Self::Incremental(_)
            | Self::NoResult
            | Self::Ambiguous(_) => true,
            Self::NotSent(_)
            | Self::Timeout(_)
            | Self::Lost(_)
            | Self::GaveUp { .. }
            | Self::ShutDown
            | Self::RuntimeGone => false,
        }
    }
}

/// Why a snapshot stream could not yield a snapshot or an item, or why it ended.
///
/// [`is_terminal`](Self::is_terminal) tells the two apart.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The query failed. It is sent again after a delay, and the subscription goes on.
    #[error("the snapshot could not be queried")]
    Query(#[source] CallError),
    /// The result of the query has errors and no data. The query is sent again after a delay, and
    /// the subscription goes on.
    #[error("the snapshot has no data{}", DisplayErrors(.0))]
    NoData(Vec<GraphQlError>),
    /// The subscription yielded this error.
    #[error(transparent)]
    Subscription(SubscriptionError),
}

impl SnapshotError {
    /// Returns whether the stream has ended: nothing follows a terminal error.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Query(_) | Self::NoData(_) => false,
            Self::Subscription(error) => error.is_terminal(),
        }
    }
}

/// An invalid header or payload is a bug of the provider, so the error is fatal.
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
