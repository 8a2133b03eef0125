//! Errors in the options of a client.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::SharedError;

/// Why a client could not be built. Correct the configuration; nothing was dialed.
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
    /// The endpoint is not `wss://`, and
    /// [`require_tls`](crate::ClientBuilder::require_tls) was called.
    #[error("the endpoint is not wss://, and TLS is required")]
    TlsRequired,
    /// The endpoint has a user name or password, which could end up in logs. Use
    /// [`header`](crate::ClientBuilder::header) or
    /// [`credentials`](crate::ClientBuilder::credentials) instead.
    #[error("the endpoint URL carries a user name or password: pass them as a header instead")]
    UserInfo,
    /// The endpoint has a fragment, which a WebSocket URL must not have (RFC 6455 section 3).
    #[error("the endpoint URL has a fragment")]
    Fragment,
    /// A header's name is not valid.
    #[error("invalid header name")]
    HeaderName,
    /// The value of this header is not valid, or the WebSocket upgrade itself sets the header.
    #[error("invalid header `{0}`")]
    Header(String),
    /// The init payload is not a JSON object, or does not serialize.
    #[error("the init payload is not a JSON object")]
    InitPayload(#[source] Option<serde_json::Error>),
    /// The endpoint is `wss://`, and TLS could not be set up: no crypto provider or no roots are
    /// compiled in, or no roots were found.
    #[error("TLS is not available")]
    Tls(#[source] SharedError),
    /// A file with certificates or a key could not be read.
    #[error("cannot read `{}`", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The input has no valid certificates. The text says what is wrong, and shows nothing of the
    /// input.
    #[error("not a certificate: {0}")]
    Certificates(&'static str),
    /// The input is not a valid private key. The text says what is wrong, and shows nothing of the
    /// input.
    #[error("not a private key: {0}")]
    PrivateKey(&'static str),
    /// The client's certificate and its key do not belong together, or the crypto provider does not
    /// support keys of this type.
    #[error("the client's certificate and key cannot be used")]
    Identity(#[source] SharedError),
    /// A pin is not of the form `sha256//BASE64`.
    #[error("not a pin: expected `sha256//` and the base64 of 32 bytes")]
    Pin,
    /// A proxy, from an option or the environment, cannot be used. The text says why.
    #[error("cannot use the proxy: {0}")]
    Proxy(&'static str),
    /// An option has a value that cannot work. The text names the option and what is wrong.
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
