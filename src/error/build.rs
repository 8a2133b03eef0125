//! What is wrong with a client's options.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::SharedError;

/// Why a client could not be built. Nothing was dialed yet; correct the configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub enum BuildError {
    /// The endpoint is not a URL.
    #[error("invalid endpoint URL")]
    Url(#[source] url::ParseError),
    /// The endpoint's scheme is not one of `ws`, `wss`, `http` and `https`.
    #[error("unsupported URL scheme `{0}`: use ws:// or wss://")]
    Scheme(String),
    /// The endpoint is not `wss`, and [`require_tls`](crate::ClientBuilder::require_tls) was asked
    /// for.
    #[error("the endpoint is not wss://, and TLS is required")]
    TlsRequired,
    /// The endpoint carries a user name or password, which would end up in logs: use
    /// [`header`](crate::ClientBuilder::header) or
    /// [`credentials`](crate::ClientBuilder::credentials).
    #[error("the endpoint URL carries a user name or password: pass them as a header instead")]
    UserInfo,
    /// The endpoint has a fragment, which a WebSocket URL must not have (RFC 6455 section 3).
    #[error("the endpoint URL has a fragment")]
    Fragment,
    /// A header's name is not valid.
    #[error("invalid header name")]
    HeaderName,
    /// The value of this header is not valid, or it is one that the WebSocket upgrade itself sets.
    #[error("invalid header `{0}`")]
    Header(String),
    /// The init payload is not a JSON object, or does not serialize.
    #[error("the init payload is not a JSON object")]
    InitPayload(#[source] Option<serde_json::Error>),
    /// `wss://` was asked for, and TLS could not be set up: no provider or no roots compiled in, or
    /// none found.
    #[error("TLS is not available")]
    Tls(#[source] SharedError),
    /// A file with certificates or a key could not be read.
    #[error("cannot read `{}`", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What was given for certificates is none; the text says what is wrong, without a piece of it.
    #[error("not a certificate: {0}")]
    Certificates(&'static str),
    /// What was given for a private key is none; the text says what is wrong, without a piece of
    /// it.
    #[error("not a private key: {0}")]
    PrivateKey(&'static str),
    /// The client's certificate and its key do not belong together, or the key is of a kind that
    /// the provider does not know.
    #[error("the client's certificate and key cannot be used")]
    Identity(#[source] SharedError),
    /// A pin is not of the form `sha256//BASE64`.
    #[error("not a pin: expected `sha256//` and the base64 of 32 bytes")]
    Pin,
    /// A proxy is not one that can be used, be it an option's or the environment's; the text says
    /// why.
    #[error("cannot use the proxy: {0}")]
    Proxy(&'static str),
    /// An option has a value that cannot work; the text names both.
    #[error("{0}")]
    Option(&'static str),
    /// `build` was called outside a tokio runtime, which the client's tasks need.
    #[error("no tokio runtime is running here")]
    NoRuntime,
    /// The tokio runtime was built without timers. Build it with `enable_time` or `enable_all`.
    #[error("the tokio runtime has no timers: build it with `enable_time` or `enable_all`")]
    NoTimers,
    /// The tokio runtime was built without I/O, and the client has no
    /// [`dialer`](crate::ClientBuilder::dialer) of yours. Build it with `enable_io` or
    /// `enable_all`.
    #[error("the tokio runtime has no I/O: build it with `enable_io` or `enable_all`")]
    NoIo,
}
