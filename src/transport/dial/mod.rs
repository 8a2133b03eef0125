//! Turns an endpoint into a byte stream. This is the only place where I/O can be replaced.
//!
//! Owns the [`Dialer`] trait and the default dialer (TCP, then TLS for `wss`). Must not know
//! WebSocket.

#[cfg(feature = "_tls")]
mod certificates;
#[cfg(feature = "_tls")]
mod pin;
#[cfg(feature = "proxy")]
mod proxy;
mod race;
mod tcp;
#[cfg(feature = "_tls")]
mod tls;
#[cfg(feature = "_tls")]
mod tls_error;

#[cfg(not(feature = "_tls"))]
use std::sync::Arc;
use std::{fmt, future::Future, io};

use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use crate::error::DialError;

#[cfg(feature = "proxy")]
pub use self::proxy::Proxy;
#[cfg(feature = "proxy")]
pub(crate) use self::proxy::{ProxyConnector, Route};
pub(crate) use self::tcp::{NetDialer, Tcp};
#[cfg(feature = "_tls")]
pub(crate) use self::tls::TlsStep;
#[cfg(feature = "_tls")]
pub use self::{
    certificates::{Certificates, PrivateKey},
    pin::Pin,
    tls::Tls,
};

/// A byte stream in both directions. Implemented for every type that fits.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// The byte stream that a [`Dialer`] returns.
pub type BoxedIo = Box<dyn Io>;

/// The future of [`Dialer::dial`].
pub type DialFuture<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<BoxedIo, DialError>> + Send + 'a>>;

/// Turns an endpoint into a byte stream on which the client sends its WebSocket upgrade.
///
/// The default dialer connects by TCP and, for `wss`, adds TLS. Implement this trait for a Unix
/// socket, a tunnel, or an in-memory pipe in a test. If the connection needs TLS, the dialer has to
/// add it. It is called once for every attempt to connect.
///
/// ```
/// # #[cfg(unix)] {
/// use std::{path::PathBuf, sync::Arc};
///
/// use resub::{BoxedIo, Client, DialError, DialFuture, Dialer, Url};
/// use tokio::net::UnixStream;
///
/// /// A server on this machine. The endpoint's host is only sent in the `Host` header.
/// struct UnixDialer(PathBuf);
///
/// impl Dialer for UnixDialer {
///     fn dial<'a>(&'a self, _endpoint: &'a Url) -> DialFuture<'a> {
///         Box::pin(async {
///             match UnixStream::connect(&self.0).await {
///                 Ok(stream) => Ok(Box::new(stream) as BoxedIo),
///                 // This error is retried: the server may not have been started yet.
///                 Err(error) => Err(DialError::Connect(Arc::new(error))),
///             }
///         })
///     }
/// }
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// # let directory = std::env::temp_dir().join(format!("resub-dialer-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let path = directory.join("market.sock");
/// # let listener = tokio::net::UnixListener::bind(&path)?;
/// let client = Client::builder("ws://market/graphql").dialer(UnixDialer(path)).build()?;
/// # let request = resub::Request::<serde_json::Value>::new("subscription { trades }");
/// # let trades = client.subscribe_to(request)?;
/// # let (mut stream, _) = listener.accept().await?;
/// # let mut upgrade = [0; 16];
/// # tokio::io::AsyncReadExt::read_exact(&mut stream, &mut upgrade).await?;
/// # assert_eq!(&upgrade, b"GET /graphql HTT");
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub trait Dialer: Send + Sync + 'static {
    /// Connects to the endpoint.
    ///
    /// Dropping the future cancels the attempt. The client does that after
    /// [`connect_timeout`](crate::ClientBuilder::connect_timeout).
    ///
    /// # Errors
    ///
    /// Return [`DialError::Other`] if another attempt may succeed, and [`DialError::Permanent`] if
    /// it cannot.
    fn dial<'a>(&'a self, endpoint: &'a Url) -> DialFuture<'a>;
}

impl fmt::Debug for dyn Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

/// Classifies an error of a stream that broke off before it was upgraded. With TLS 1.3 the server
/// checks the client's certificate after the client has finished its handshake, so the first read
/// may return the server's refusal.
pub(crate) fn broke_off(error: io::Error) -> DialError {
    #[cfg(feature = "_tls")]
    return tls_error::classify(error, DialError::Connect);
    #[cfg(not(feature = "_tls"))]
    DialError::Connect(Arc::new(error))
}
