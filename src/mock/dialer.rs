//! The client's end of an in-memory server.
//!
//! Owns the pipes' other half, and the ways in which a dial can fail. Must not know WebSocket.

use std::{
    fmt, future, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};
use url::Url;

use crate::{
    error::DialError,
    transport::dial::{BoxedIo, DialFuture, Dialer},
};

/// Dials a [`Server::in_memory`](super::Server::in_memory) and ignores the URL; clones dial the
/// same server.
///
/// A dial succeeds at once, also while no [`accept`](super::Server::accept) is waiting, just as a
/// kernel accepts connections on behalf of a busy server.
#[derive(Clone)]
pub struct PipeDialer {
    network: Arc<Network>,
}

/// What lies between the client and an in-memory server.
pub(super) struct Network {
    pipes: mpsc::UnboundedSender<DuplexStream>,
    weather: Mutex<Weather>,
    /// How often it was dialed.
    dials: watch::Sender<u64>,
}

/// What happens to dials.
#[derive(Default)]
pub(super) struct Weather {
    pub(super) offline: bool,
    pub(super) refusals_left: u64,
    pub(super) hangs_left: u64,
}

impl PipeDialer {
    pub(super) fn new(network: Arc<Network>) -> Self {
        Self { network }
    }
}

impl Network {
    pub(super) fn new(pipes: mpsc::UnboundedSender<DuplexStream>) -> Self {
        Self { pipes, weather: Mutex::default(), dials: watch::Sender::new(0) }
    }

    pub(super) fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dials(&self) -> watch::Receiver<u64> {
        self.dials.subscribe()
    }

    async fn dial(&self) -> Result<BoxedIo, DialError> {
        self.dials.send_modify(|dials| *dials += 1);
        match self.weather().next() {
            Forecast::Hang => {}
            Forecast::Refuse => return Err(refused()),
            Forecast::Connect => {
                let (client, server) = tokio::io::duplex(PIPE_BYTES);
                // The server was dropped, as a process that ended: nobody listens.
                self.pipes.send(server).map_err(|_| refused())?;
                return Ok(Box::new(client));
            }
        }
        future::pending().await
    }
}

/// What happens to one dial.
enum Forecast {
    Connect,
    Refuse,
    Hang,
}

impl Weather {
    fn next(&mut self) -> Forecast {
        if self.hangs_left > 0 {
            self.hangs_left -= 1;
            Forecast::Hang
        } else if self.offline {
            Forecast::Refuse
        } else if self.refusals_left > 0 {
            self.refusals_left -= 1;
            Forecast::Refuse
        } else {
            Forecast::Connect
        }
    }
}

fn refused() -> DialError {
    DialError::Connect(Arc::new(io::ErrorKind::ConnectionRefused.into()))
}

impl Dialer for PipeDialer {
    fn dial<'a>(&'a self, _endpoint: &'a Url) -> DialFuture<'a> {
        Box::pin(self.network.dial())
    }
}

impl fmt::Debug for PipeDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeDialer")
            .field("dials", &*self.network.dials.borrow())
            .finish_non_exhaustive()
    }
}

/// What a pipe holds in each direction before a writer has to wait: as much as a socket's buffers,
/// roughly.
const PIPE_BYTES: usize = 64 * 1024;
