//! From an endpoint to a byte stream: the only seam for I/O.
//!
//! Owns the [`Dialer`] trait and the default stack (TCP, then TLS for `wss`). Must not know
//! WebSocket.

#[cfg(feature = "_tls")]
mod certificates;
#[cfg(feature = "_tls")]
mod pin;
#[cfg(feature = "proxy")]
mod proxy;
mod race;
#[cfg(feature = "_tls")]
mod refusal;
mod tcp;
#[cfg(feature = "_tls")]
mod tls;

#[cfg(not(feature = "_tls"))]
use std::sync::Arc;
use std::{fmt, future::Future, io};

use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use crate::error::DialError;

#[cfg(feature = "proxy")]
pub use self::proxy::Proxy;
#[cfg(feature = "proxy")]
pub(crate) use self::proxy::{Route, Way};
pub(crate) use self::tcp::{NetDialer, Tcp};
#[cfg(feature = "_tls")]
pub(crate) use self::tls::TlsStep;
#[cfg(feature = "_tls")]
pub use self::{
    certificates::{Certificates, PrivateKey},
    pin::Pin,
    tls::Tls,
};

/// A byte stream in both directions; implemented for everything that fits.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// The byte stream that a [`Dialer`] returns.
pub type BoxedIo = Box<dyn Io>;

/// The future of [`Dialer::dial`].
pub type DialFuture<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<BoxedIo, DialError>> + Send + 'a>>;

/// Turns an endpoint into a byte stream, TLS included: the WebSocket upgrade is the next thing
/// written to it.
///
/// The default dials TCP and, for `wss`, TLS. Implement it for a Unix socket, a tunnel, or a test's
/// in-memory pipe. It is called once for every attempt, so names are resolved anew each time.
///
/// ```
/// # #[cfg(unix)] {
/// use std::{path::PathBuf, sync::Arc};
///
/// use resub::{BoxedIo, Client, DialError, DialFuture, Dialer, Url};
/// use tokio::net::UnixStream;
///
/// /// A server on this machine. What the endpoint's host is called matters to the server alone.
/// struct UnixDialer(PathBuf);
///
/// impl Dialer for UnixDialer {
///     fn dial<'a>(&'a self, _endpoint: &'a Url) -> DialFuture<'a> {
///         Box::pin(async {
///             match UnixStream::connect(&self.0).await {
///                 Ok(stream) => Ok(Box::new(stream) as BoxedIo),
///                 // It may not have been started yet.
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
/// # let trades = client.subscribe_to(resub::Request::<serde_json::Value>::new("subscription { trades }"))?;
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
    /// Connects.
    ///
    /// Dropping the future gives up, as happens when
    /// [`connect_timeout`](crate::ClientBuilder::connect_timeout) ends.
    ///
    /// # Errors
    ///
    /// [`DialError::Other`] for a failure that may pass and [`DialError::Permanent`] for one that
    /// will not.
    fn dial<'a>(&'a self, endpoint: &'a Url) -> DialFuture<'a>;
}

impl fmt::Debug for dyn Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

/// Why a stream broke before it was of any use. With TLS 1.3 a client has finished its handshake
/// when the server looks at its certificate, so a refusal is what the first read finds.
pub(crate) fn broke_off(error: io::Error) -> DialError {
    #[cfg(feature = "_tls")]
    return refusal::classify(error, DialError::Connect);
    #[cfg(not(feature = "_tls"))]
    DialError::Connect(Arc::new(error))
}
