//! Why there is no byte stream.

use std::{io, sync::Arc};

use thiserror::Error;

use super::SharedError;

/// Why a byte stream to the server could not be had. A [`Dialer`](crate::Dialer) of your own
/// returns it too.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum DialError {
    /// The host name did not resolve. Retried.
    #[error("could not resolve `{host}`")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: Arc<io::Error>,
    },
    /// No address accepted the connection. Retried.
    #[error("could not connect")]
    Connect(#[source] Arc<io::Error>),
    /// The TLS handshake broke off. Retried.
    #[error("TLS handshake failed")]
    Tls(#[source] Arc<io::Error>),
    /// The server's certificate comes from no authority that is trusted; see `Tls`. Fatal, as are
    /// all that concern certificates: trying again would end the same way.
    #[error("the server's certificate was not accepted")]
    UnknownIssuer(#[source] Arc<io::Error>),
    /// The server's certificate is no longer valid, or this machine's clock is wrong. Fatal.
    #[error("the server's certificate was not accepted")]
    Expired(#[source] Arc<io::Error>),
    /// The server's certificate is not valid yet, or this machine's clock is wrong. Fatal.
    #[error("the server's certificate was not accepted")]
    NotYetValid(#[source] Arc<io::Error>),
    /// The server's certificate is for other names than the endpoint's. Fatal.
    #[error("the server's certificate was not accepted")]
    WrongName(#[source] Arc<io::Error>),
    /// The server's certificate is in order, but its key is none of those that `Tls::pin` allows:
    /// an interception, or a rotation that this client was not told of. Fatal.
    #[error("the server's key is not one that is pinned: it is {found}")]
    PinMismatch {
        /// The pin of the key that the server has.
        found: String,
    },
    /// The server's certificate was not accepted for another reason, such as a revocation. Fatal.
    #[error("the server's certificate was not accepted")]
    Certificate(#[source] Arc<io::Error>),
    /// The server wants a certificate from its clients, and this one has none; see `Tls::identity`.
    /// Fatal.
    #[error("the server requires a client certificate")]
    ClientCertificateRequired(#[source] Arc<io::Error>),
    /// The server did not accept the client's certificate. Fatal.
    #[error("the server did not accept the client's certificate")]
    ClientCertificateRefused(#[source] Arc<io::Error>),
    /// The proxy could not be reached, or hung up. Retried.
    #[error("could not reach the proxy {proxy}")]
    ProxyUnreachable {
        /// Its URL, without a login.
        proxy: String,
        /// Why: [`Resolve`](Self::Resolve) or [`Connect`](Self::Connect).
        source: Arc<DialError>,
    },
    /// The proxy could not connect to the server, or does not want to and does not say so for good.
    /// Retried, as a refusal by HTTP may pass unless it is about the login; one that lasts ends by
    /// `give_up_after`, if at all.
    #[error("the proxy did not connect to the server: {reason}")]
    ProxyFailed {
        /// The reply of SOCKS, the status of HTTP, or what is wrong with its answer.
        reason: String,
    },
    /// A SOCKS5 proxy does not allow connections to the server, or cannot be asked for them. Fatal.
    #[error("the proxy refused to connect to the server: {reason}")]
    ProxyRefused {
        /// The reply of SOCKS, or why it cannot be asked.
        reason: String,
    },
    /// The proxy wants a login, or another one. Fatal.
    #[error("the proxy requires a login, or does not accept the one that it was given")]
    ProxyAuthRequired,
    /// A dialer's own failure that may pass. Retried.
    #[error("could not dial")]
    Other(#[source] SharedError),
    /// A dialer's own failure that will not pass. Fatal.
    #[error("could not dial")]
    Permanent(#[source] SharedError),
}
