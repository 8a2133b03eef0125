//! Errors of the upgrade: why an answer is not a WebSocket upgrade.

use thiserror::Error;

/// Why the answer to an upgrade request is not a WebSocket upgrade (RFC 6455 section 4.1).
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The answer is not HTTP: another program listens on the endpoint's port.
    #[error("the answer is not HTTP/1.1")]
    NotHttp,
    /// The answer is TLS, so the endpoint has to be `wss://`.
    #[error("the answer is TLS: the endpoint is wss://")]
    Tls,
    /// The answer begins like HTTP, but is not valid.
    #[error("the answer is not valid HTTP: {0}")]
    Malformed(String),
    /// The headers of the answer and of all interim answers are larger than the limit.
    #[error("the answer's headers have more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer has more headers than the limit.
    #[error("the answer has more than {limit} headers")]
    TooManyHeaders {
        /// The number of headers that is allowed.
        limit: usize,
    },
    /// There are more interim answers, such as `103 Early Hints`, than the limit.
    #[error("more than {limit} interim answers")]
    TooManyInterims {
        /// The number of interim answers that is allowed.
        limit: usize,
    },
    /// The answer is HTTP/1.0, which has no upgrades. It often comes from a proxy in front of the
    /// server that does not support WebSocket.
    #[error("the answer is HTTP/1.0, which has no upgrades")]
    Http10,
    /// The answer has no header `Upgrade: websocket`.
    #[error("the answer has no `Upgrade: websocket`")]
    NoUpgrade,
    /// The answer has no header `Connection: Upgrade`.
    #[error("the answer has no `Connection: Upgrade`")]
    NoConnection,
    /// The answer belongs to another request, as that of a cache may.
    #[error("the answer's `Sec-WebSocket-Accept` is not that of the request")]
    WrongAccept,
    /// The answer uses an extension, although none was offered.
    #[error("the server uses an extension, and none was offered")]
    Extension,
}
