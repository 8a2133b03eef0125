//! The listening side: accepts connections and answers their upgrade requests.
//!
//! Owns the transport and everything that outlives a connection. Must not know messages.

use std::{
    fmt,
    net::Ipv4Addr,
    panic::Location,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};

use super::{
    check::UsedIds,
    dialer::{Network, PipeDialer},
    peer::Peer,
    upgrade::{Request, Upgrade, refusal},
    wire::{Wire, WireStream},
};

/// A scripted server. See the [module](super) for how to use it.
///
/// It does nothing by itself: a connection waits until one of the `accept` methods or
/// [`refuse`](Self::refuse) takes it. Connections are taken in the order in which the client made
/// them. Once the server is dropped, dials are refused; accepted connections stay open.
pub struct Server {
    transport: Transport,
    used_ids: UsedIds,
    deadline: Mutex<Duration>,
}

/// How clients reach the server.
enum Transport {
    Pipe { network: Arc<Network>, pipes: Pipes },
    Tcp { listener: TcpListener, url: String, accepted: AtomicU64 },
}

/// The mutex is held while a test waits for the next dial.
type Pipes = tokio::sync::Mutex<mpsc::UnboundedReceiver<DuplexStream>>;

/// A connection on which nothing is read or written. It stays open until this value is dropped.
///
/// To the client it is a half-open connection: the server hangs, or the network drops all packets.
#[must_use = "dropping it ends the connection"]
pub struct Silence {
    request: Option<Request>,
    _connection: Box<dyn Send>,
}

impl Silence {
    pub(super) fn new(request: Option<Request>, connection: impl Send + 'static) -> Self {
        Self { request, _connection: Box::new(connection) }
    }

    /// The upgrade request; `None` after [`Server::accept_silent`], which does not read it.
    pub fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }
}

impl Server {
    /// Creates a server that is reached through in-memory pipes. It needs no socket and no port,
    /// and works under a paused clock.
    ///
    /// Give the client its [`dialer`](Self::dialer). A pipe holds 64 KiB in each direction.
    pub fn in_memory() -> Self {
        let (sender, pipes) = mpsc::unbounded_channel();
        let network = Arc::new(Network::new(sender));
        Self::new(Transport::Pipe { network, pipes: Pipes::new(pipes) })
    }

    /// Creates a server on a free port of 127.0.0.1. Give the client its [`url`](Self::url), and do
    /// not pause the clock.
    ///
    /// # Panics
    ///
    /// If no port can be bound.
    pub async fn tcp() -> Self {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        match bound.and_then(|listener| Ok((listener.local_addr()?, listener))) {
            Ok((address, listener)) => Self::new(Transport::Tcp {
                listener,
                url: format!("ws://{address}/"),
                accepted: AtomicU64::new(0),
            }),
            Err(error) => panic!("mock server: no port on 127.0.0.1: {error}"),
        }
    }

    fn new(transport: Transport) -> Self {
        Self { transport, used_ids: UsedIds::default(), deadline: Mutex::new(DEFAULT_DEADLINE) }
    }

    /// Returns the endpoint for the client: `ws://127.0.0.1:PORT/`, or `ws://mock/` for an
    /// in-memory server.
    pub fn url(&self) -> &str {
        match &self.transport {
            Transport::Pipe { .. } => "ws://mock/",
            Transport::Tcp { url, .. } => url,
        }
    }

    /// Returns the dialer for the client.
    ///
    /// # Panics
    ///
    /// On a [`tcp`](Self::tcp) server, for which the client needs no dialer.
    #[track_caller]
    pub fn dialer(&self) -> PipeDialer {
        PipeDialer::new(Arc::clone(self.network()))
    }

    /// Sets how long each wait may take before it panics: of the `accept` methods, and of the peers
    /// that are accepted from now on. Default: 60 s of tokio's time.
    ///
    /// The deadline only keeps a test from hanging. Raise it for a test in which the client rightly
    /// does nothing for longer.
    pub fn set_deadline(&self, deadline: Duration) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    /// Forgets the operation ids of earlier connections.
    ///
    /// A client never uses an id twice, so an id that an earlier connection has seen breaks a rule.
    /// Call this before a second client dials the same server.
    pub fn forget_ids(&self) {
        self.used_ids.clear();
    }

    /// Refuses the next `dials` attempts to dial, with
    /// [`io::ErrorKind::ConnectionRefused`](std::io::ErrorKind::ConnectionRefused).
    ///
    /// # Panics
    ///
    /// On a [`tcp`](Self::tcp) server, as do the other methods that make dials fail.
    #[track_caller]
    pub fn refuse_dials(&self, dials: u64) {
        self.network().faults().refusals_left = dials;
    }

    /// Refuses all dials until [`online`](Self::online) is called. Connections that exist are not
    /// affected.
    #[track_caller]
    pub fn offline(&self) {
        self.network().faults().offline = true;
    }

    /// Accepts all dials from now on: ends [`offline`](Self::offline), and cancels what is left of
    /// [`refuse_dials`](Self::refuse_dials) and [`hang_dials`](Self::hang_dials).
    #[track_caller]
    pub fn online(&self) {
        *self.network().faults() = super::dialer::DialFaults::default();
    }

    /// Lets the next `dials` attempts to dial never finish, as when the network drops packets.
    /// They come before the attempts that are refused.
    #[track_caller]
    pub fn hang_dials(&self, dials: u64) {
        self.network().faults().hangs_left = dials;
    }

    /// Returns how often the server was dialed, with or without success. A [`tcp`](Self::tcp)
    /// server counts a dial only when it accepts the connection.
    pub fn dials(&self) -> u64 {
        match &self.transport {
            Transport::Pipe { network, .. } => *network.dials().borrow(),
            Transport::Tcp { accepted, .. } => accepted.load(Ordering::Relaxed),
        }
    }

    /// Waits until the server has been dialed this often since its start.
    ///
    /// # Panics
    ///
    /// If the deadline passes first, and on a [`tcp`](Self::tcp) server.
    #[track_caller]
    pub fn dialed(&self, dials: u64) -> impl Future<Output = ()> {
        let (at, mut seen) = (Location::caller(), self.network().dials());
        async move {
            self.within_deadline(at, &format!("dial number {dials}"), async {
                // Waiting fails only if the sender is dropped, and `self` holds it.
                drop(seen.wait_for(|seen| *seen >= dials).await);
            })
            .await;
        }
    }

    /// Waits for this long, in tokio's time, and expects that nobody dials.
    ///
    /// # Panics
    ///
    /// If somebody dials, and on a [`tcp`](Self::tcp) server.
    #[track_caller]
    pub fn expect_no_dial_for(&self, duration: Duration) -> impl Future<Output = ()> {
        let (at, mut seen) = (Location::caller(), self.network().dials());
        async move {
            let dialed = timeout(duration, seen.changed()).await.is_ok();
            assert!(
                !dialed,
                "mock server: expected no dial for {duration:?}, but the client dialed\n  at {at}"
            );
        }
    }

    /// Accepts the next connection, and its upgrade with the subprotocol that the client offers.
    ///
    /// # Panics
    ///
    /// If nobody connects within the deadline, if the client drops the connection before it is
    /// upgraded, or if the request is not a WebSocket upgrade that offers exactly one subprotocol.
    #[track_caller]
    pub fn accept(&self) -> impl Future<Output = Peer> {
        self.accept_with(Upgrade::new())
    }

    /// Accepts the next connection, with another answer than that of [`accept`](Self::accept).
    ///
    /// # Panics
    ///
    /// Like [`accept`](Self::accept).
    #[track_caller]
    pub fn accept_with(&self, upgrade: Upgrade) -> impl Future<Output = Peer> {
        let at = Location::caller();
        async move {
            let (mut wire, request) = self.next_request(at).await;
            match upgrade.answer(&mut wire, &request).await {
                Ok(subprotocol) => {
                    wire.watch_frames();
                    Peer::new(wire, request, subprotocol, self.used_ids.clone(), self.deadline())
                        .await
                }
                Err(problem) => panic!("mock server: {problem}\n  at {at}"),
            }
        }
    }

    /// Answers the next upgrade with an HTTP status, then closes the connection. Returns the
    /// request.
    ///
    /// Any status may be used, also 200. `Content-Length` is added unless it is given.
    ///
    /// # Panics
    ///
    /// Like [`accept`](Self::accept), except that any subprotocols may be offered.
    #[track_caller]
    pub fn refuse(
        &self,
        status: u16,
        headers: &[(&str, &str)],
        body: &str,
    ) -> impl Future<Output = Request> {
        let (at, response) = (Location::caller(), refusal(status, headers, body));
        async move { self.answer_raw(&response, at).await.1 }
    }

    /// Answers the next upgrade with these bytes and nothing else, and keeps the connection open.
    ///
    /// # Panics
    ///
    /// Like [`refuse`](Self::refuse).
    #[track_caller]
    pub fn accept_raw(&self, answer: impl AsRef<[u8]> + Send) -> impl Future<Output = Silence> {
        let at = Location::caller();
        async move {
            let (wire, request) = self.answer_raw(answer.as_ref(), at).await;
            Silence::new(Some(request), wire)
        }
    }

    /// Takes the next connection and never answers its upgrade.
    ///
    /// # Panics
    ///
    /// If nobody connects within the deadline.
    #[track_caller]
    pub fn accept_silent(&self) -> impl Future<Output = Silence> {
        let at = Location::caller();
        async move {
            Silence::new(None, self.within_deadline(at, "a connection", self.next_wire()).await)
        }
    }

    async fn answer_raw(&self, answer: &[u8], at: &'static Location<'static>) -> (Wire, Request) {
        let (mut wire, request) = self.next_request(at).await;
        let written = wire.write_all(answer).await.is_ok() && wire.flush().await.is_ok();
        assert!(
            written,
            "mock server: the client dropped the connection before its upgrade was answered\n  \
             at {at}"
        );
        (wire, request)
    }

    async fn next_request(&self, at: &'static Location<'static>) -> (Wire, Request) {
        let mut wire = self.within_deadline(at, "a connection", self.next_wire()).await;
        match self.within_deadline(at, "an upgrade request", Request::read(&mut wire)).await {
            Ok(request) => (wire, request),
            Err(problem) => panic!("mock server: {problem}\n  at {at}"),
        }
    }

    async fn next_wire(&self) -> Wire {
        match &self.transport {
            Transport::Pipe { pipes, .. } => match pipes.lock().await.recv().await {
                Some(pipe) => Wire::new(WireStream::Pipe(pipe)),
                None => unreachable!("the server holds the network, which holds the sender"),
            },
            Transport::Tcp { listener, accepted, .. } => match listener.accept().await {
                Ok((stream, _)) => {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    // Nagle's algorithm would delay small frames. The option cannot be set on a
                    // socket that the client has closed already, which does not matter.
                    drop(stream.set_nodelay(true));
                    Wire::new(WireStream::Tcp(stream))
                }
                Err(error) => panic!("mock server: the socket failed: {error}"),
            },
        }
    }

    async fn within_deadline<T>(
        &self,
        at: &'static Location<'static>,
        wanted: &str,
        wait: impl Future<Output = T>,
    ) -> T {
        let deadline = self.deadline();
        let Ok(result) = timeout(deadline, wait).await else {
            panic!(
                "mock server: waited for {wanted}, but none came within {deadline:?} \
                 ({} dials so far)\n  at {at}",
                self.dials()
            );
        };
        result
    }

    fn deadline(&self) -> Duration {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    fn network(&self) -> &Arc<Network> {
        match &self.transport {
            Transport::Pipe { network, .. } => network,
            Transport::Tcp { .. } => {
                panic!("mock server: this needs a server from `Server::in_memory`")
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("url", &self.url())
            .field("dials", &self.dials())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Silence").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Longer than any wait of a client with default options, its backoff included.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);
