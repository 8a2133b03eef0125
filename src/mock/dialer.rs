//! The dialer of an in-memory server.
//!
//! Owns the creation of pipes and the ways in which a dial can fail. Must not know WebSocket.

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

/// Dials a [`Server::in_memory`](super::Server::in_memory). Clones dial the same server.
///
/// The URL is ignored. A dial succeeds at once, even if no [`accept`](super::Server::accept) is
/// waiting, just as a kernel accepts connections for a server that is busy.
#[derive(Clone)]
pub struct PipeDialer {
    network: Arc<Network>,
}

/// The network between the client and an in-memory server.
pub(super) struct Network {
    /// Hands the server's half of each pipe to the server.
    pipes: mpsc::UnboundedSender<DuplexStream>,
    faults: Mutex<DialFaults>,
    /// The number of dials so far.
    dials: watch::Sender<u64>,
}

/// Which of the next dials fail, and how.
#[derive(Default)]
pub(super) struct DialFaults {
    /// All dials are refused.
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
        Self { pipes, faults: Mutex::default(), dials: watch::Sender::new(0) }
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, DialFaults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dials(&self) -> watch::Receiver<u64> {
        self.dials.subscribe()
    }

    async fn dial(&self) -> Result<BoxedIo, DialError> {
        self.dials.send_modify(|dials| *dials += 1);
        match self.faults().next() {
            DialOutcome::Hang => {}
            DialOutcome::Refuse => return Err(refused()),
            DialOutcome::Connect => {
                let (client, server) = tokio::io::duplex(PIPE_BYTES);
                // The receiver is gone if the server was dropped: a closed port refuses.
                self.pipes.send(server).map_err(|_| refused())?;
                return Ok(Box::new(client));
            }
        }
        future::pending().await
    }
}

/// What happens to one dial.
enum DialOutcome {
    Connect,
    Refuse,
    Hang,
}

impl DialFaults {
    fn next(&mut self) -> DialOutcome {
        if self.hangs_left > 0 {
            self.hangs_left -= 1;
            DialOutcome::Hang
        } else if self.offline {
            DialOutcome::Refuse
        } else if self.refusals_left > 0 {
            self.refusals_left -= 1;
            DialOutcome::Refuse
        } else {
            DialOutcome::Connect
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

/// How many bytes a pipe holds in each direction before a writer has to wait; roughly as much as
/// the buffers of a socket.
const PIPE_BYTES: usize = 64 * 1024;
