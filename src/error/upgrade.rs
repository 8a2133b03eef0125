//! What is wrong with an answer to the upgrade.

use thiserror::Error;

/// Why an answer to the WebSocket upgrade is none (RFC 6455 section 4.1).
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum UpgradeFlaw {
    /// It is not HTTP/1.1: the endpoint's port belongs to something else.
    #[error("the answer is not HTTP/1.1")]
    NotHttp,
    /// It is TLS, so the endpoint is `wss://`.
    #[error("the answer is TLS: the endpoint is wss://")]
    Tls,
    /// It begins like HTTP and cannot be read.
    #[error("the answer is not valid HTTP: {0}")]
    Malformed(String),
    /// Its headers, with those of all interim answers, are larger than is read.
    #[error("the answer's headers have more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// It has more headers than are read.
    #[error("the answer has more than {limit} headers")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// There are more interim answers, such as `103 Early Hints`, than are read.
    #[error("more than {limit} interim answers")]
    TooManyInterims {
        /// The limit.
        limit: usize,
    },
    /// It is HTTP/1.0: often that of a proxy in front of the server that knows no WebSocket.
    #[error("the answer is HTTP/1.0, which has no upgrades")]
    Http10,
    /// It does not upgrade to WebSocket.
    #[error("the answer has no `Upgrade: websocket`")]
    NoUpgrade,
    /// It does not upgrade the connection.
    #[error("the answer has no `Connection: Upgrade`")]
    NoConnection,
    /// It answers another request, as a cache might.
    #[error("the answer's `Sec-WebSocket-Accept` is not that of the request")]
    WrongAccept,
    /// It uses an extension. Which is not said: it is the server's text.
    #[error("the server uses an extension, and none was offered")]
    Extension,
}
