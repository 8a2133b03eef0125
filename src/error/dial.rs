//! Errors of dialing: why there is no byte stream to the server.

use std::{io, sync::Arc};

use thiserror::Error;

use super::SharedError;

/// Why the client could not dial the server. A [`Dialer`](crate::Dialer) of your own returns it,
/// too.
///
/// Each variant says what the client does by default. *Retried* means that it dials again with
/// backoff. *Fatal* means that all operations end with this error, because another attempt would
/// end in the same way.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum DialError {
    /// The host name did not resolve. Retried.
    #[error("could not resolve `{host}`")]
    Resolve {
        /// The name.
        host: String,
        /// The error of the resolver.
        source: Arc<io::Error>,
    },
    /// No address accepted the connection. Retried.
    #[error("could not connect")]
    Connect(#[source] Arc<io::Error>),
    /// The TLS handshake broke off. Retried.
    #[error("TLS handshake failed")]
    Tls(#[source] Arc<io::Error>),
    /// The server's certificate was issued by an authority that is not trusted; see `Tls`. Fatal.
    #[error("the server's certificate was not accepted")]
    UnknownIssuer(#[source] Arc<io::Error>),
    /// The server's certificate has expired, or this machine's clock is wrong. Fatal.
    #[error("the server's certificate was not accepted")]
    Expired(#[source] Arc<io::Error>),
    /// The server's certificate is not valid yet, or this machine's clock is wrong. Fatal.
    #[error("the server's certificate was not accepted")]
    NotYetValid(#[source] Arc<io::Error>),
    /// The server's certificate is not valid for the name in the endpoint. Fatal.
    #[error("the server's certificate was not accepted")]
    WrongName(#[source] Arc<io::Error>),
    /// The server's certificate is valid, but its key is not one that `Tls::pin` allows. Either the
    /// connection is intercepted, or the server has a new key. Fatal.
    #[error("the server's key is not one that is pinned: it is {found}")]
    PinMismatch {
        /// The pin of the server's key.
        found: String,
    },
    /// The server's certificate was not accepted for another reason, such as a revocation. Fatal.
    #[error("the server's certificate was not accepted")]
    Certificate(#[source] Arc<io::Error>),
    /// The server requires a client certificate, and this client has none; see `Tls::identity`.
    /// Fatal.
    #[error("the server requires a client certificate")]
    ClientCertificateRequired(#[source] Arc<io::Error>),
    /// The server did not accept the client's certificate. Fatal.
    #[error("the server did not accept the client's certificate")]
    ClientCertificateRefused(#[source] Arc<io::Error>),
    /// The proxy could not be reached, or closed the connection. Retried.
    #[error("could not reach the proxy {proxy}")]
    ProxyUnreachable {
        /// The URL of the proxy, without a login.
        proxy: String,
        /// The cause: [`Resolve`](Self::Resolve) or [`Connect`](Self::Connect).
        source: Arc<DialError>,
    },
    /// The proxy could not connect to the server, or refused to. Retried, because a refusal by HTTP
    /// may be temporary unless it is about the login. Limit the attempts with `give_up_after`.
    #[error("the proxy did not connect to the server: {reason}")]
    ProxyFailed {
        /// The SOCKS reply, the HTTP status, or what is wrong with the proxy's answer.
        reason: String,
    },
    /// A SOCKS5 proxy does not allow this connection, or SOCKS5 cannot express the request. Fatal.
    #[error("the proxy refused to connect to the server: {reason}")]
    ProxyRefused {
        /// The SOCKS reply, or why the request cannot be expressed.
        reason: String,
    },
    /// The proxy requires a login, or does not accept the one that it was given. Fatal.
    #[error("the proxy requires a login, or does not accept the one that it was given")]
    ProxyAuthRequired,
    /// A dialer of your own failed, and another attempt may succeed. Retried.
    #[error("could not dial")]
    Other(#[source] SharedError),
    /// A dialer of your own failed, and another attempt would fail as well. Fatal.
    #[error("could not dial")]
    Permanent(#[source] SharedError),
}
