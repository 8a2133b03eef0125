//! From an endpoint to a byte stream: the only seam for I/O.
//!
//! Owns the [`Dialer`] trait and the default stack (TCP, then TLS for `wss`). Must not know WebSocket.

mod tcp;
#[cfg(feature = "_tls")]
mod tls;

use std::{fmt, future::Future, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use crate::error::DialError;

pub(crate) use self::tcp::NetDialer;
#[cfg(feature = "_tls")]
pub(crate) use self::tls::Tls;
#[cfg(feature = "_tls")]
pub use self::tls::TlsRoots;

/// A byte stream in both directions; implemented for everything that fits.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// The byte stream that a [`Dialer`] returns.
pub type BoxedIo = Box<dyn Io>;

/// The future of [`Dialer::dial`].
pub type DialFuture<'a> = Pin<Box<dyn Future<Output = Result<BoxedIo, DialError>> + Send + 'a>>;

/// Turns an endpoint into a byte stream, TLS included: the WebSocket upgrade is the next thing written to it.
///
/// The default dials TCP and, for `wss`, TLS. Implement it for a Unix socket, a tunnel, or a test's in-memory pipe.
/// It is called once for every attempt, so names are resolved anew each time.
pub trait Dialer: Send + Sync + 'static {
    /// Connects.
    ///
    /// Dropping the future gives up, as happens when [`connect_timeout`](crate::ClientBuilder::connect_timeout) ends.
    ///
    /// # Errors
    ///
    /// [`DialError::Other`] for a failure that may pass and [`DialError::Permanent`] for one that will not.
    fn dial<'a>(&'a self, endpoint: &'a Url) -> DialFuture<'a>;
}

impl fmt::Debug for dyn Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}
