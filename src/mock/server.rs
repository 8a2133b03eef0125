//! The listening side: connections, and what becomes of their upgrade requests.
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
/// [`refuse`](Self::refuse) takes it, in the order in which they were made. Dropping the server
/// refuses further dials; accepted connections live on.
pub struct Server {
    transport: Transport,
    used_ids: UsedIds,
    deadline: Mutex<Duration>,
}

/// Where connections come from.
enum Transport {
    Pipe { network: Arc<Network>, pipes: Pipes },
    Tcp { listener: TcpListener, url: String, accepted: AtomicU64 },
}

/// The mutex is held while a test waits for the next dial.
type Pipes = tokio::sync::Mutex<mpsc::UnboundedReceiver<DuplexStream>>;

/// A connection on which nothing is read or written, and which stays open until this is dropped.
///
/// To the client that is a half-open connection: a server that hangs, or a network that swallows
/// everything.
#[must_use = "dropping it ends the connection"]
pub struct Silence {
    request: Option<Request>,
    _connection: Box<dyn Send>,
}

impl Silence {
    pub(super) fn new(request: Option<Request>, connection: impl Send + 'static) -> Self {
        Self { request, _connection: Box::new(connection) }
    }

    /// The upgrade request, unless the server fell silent before it read one.
    pub fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }
}

impl Server {
    /// A server at the other end of in-memory pipes: no socket, no port, and it works under a
    /// paused clock.
    ///
    /// Give the client its [`dialer`](Self::dialer). A pipe holds 64 KiB in each direction.
    pub fn in_memory() -> Self {
        let (sender, pipes) = mpsc::unbounded_channel();
        let network = Arc::new(Network::new(sender));
        Self::new(Transport::Pipe { network, pipes: Pipes::new(pipes) })
    }

    /// A server on a free port of 127.0.0.1. Give the client its [`url`](Self::url), and do not
    /// pause the clock.
    ///
    /// # Panics
    ///
    /// When no port can be had.
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

    /// The endpoint for the client: `ws://127.0.0.1:PORT/`, or `ws://mock/` for an in-memory
    /// server.
    pub fn url(&self) -> &str {
        match &self.transport {
            Transport::Pipe { .. } => "ws://mock/",
            Transport::Tcp { url, .. } => url,
        }
    }

    /// The dialer for the client.
    ///
    /// # Panics
    ///
    /// On a [`tcp`](Self::tcp) server, which the client's own dialer reaches.
    #[track_caller]
    pub fn dialer(&self) -> PipeDialer {
        PipeDialer::new(Arc::clone(self.network()))
    }

    /// Sets how long accepting, and each wait of later peers, may take before it panics. Default:
    /// 60 s of tokio's time.
    ///
    /// It only keeps a test from hanging; raise it for a test in which the client rightly does
    /// nothing for longer.
    pub fn set_deadline(&self, deadline: Duration) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    /// Forgets the operation ids of earlier connections.
    ///
    /// An id that an earlier connection saw breaks a rule, as one client never uses an id twice.
    /// Call this when a second client dials the same server.
    pub fn forget_ids(&self) {
        self.used_ids.clear();
    }

    /// Refuses the next dials with
    /// [`io::ErrorKind::ConnectionRefused`](std::io::ErrorKind::ConnectionRefused).
    ///
    /// # Panics
    ///
    /// On a [`tcp`](Self::tcp) server; so do the other methods that make dials fail.
    #[track_caller]
    pub fn refuse_dials(&self, dials: u64) {
        self.network().weather().refusals_left = dials;
    }

    /// Refuses all dials until [`online`](Self::online). Connections that exist are not touched.
    #[track_caller]
    pub fn offline(&self) {
        self.network().weather().offline = true;
    }

    /// Accepts dials again. Forgets what [`refuse_dials`](Self::refuse_dials) and
    /// [`hang_dials`](Self::hang_dials) left.
    #[track_caller]
    pub fn online(&self) {
        *self.network().weather() = super::dialer::Weather::default();
    }

    /// Lets the next dials never finish, as when packets are dropped on the way. It goes before
    /// refusals.
    #[track_caller]
    pub fn hang_dials(&self, dials: u64) {
        self.network().weather().hangs_left = dials;
    }

    /// How often the server was dialed, with or without success. A [`tcp`](Self::tcp) server sees a
    /// dial only when it accepts it.
    pub fn dials(&self) -> u64 {
        match &self.transport {
            Transport::Pipe { network, .. } => *network.dials().borrow(),
            Transport::Tcp { accepted, .. } => accepted.load(Ordering::Relaxed),
        }
    }

    /// Waits until the server was dialed this often since its start.
    ///
    /// # Panics
    ///
    /// When the deadline passes first, or on a [`tcp`](Self::tcp) server.
    #[track_caller]
    pub fn dialed(&self, dials: u64) -> impl Future<Output = ()> {
        let (at, mut seen) = (Location::caller(), self.network().dials());
        async move {
            self.within_deadline(at, &format!("dial number {dials}"), async {
                // The sender lives in `self`, so waiting cannot fail.
                drop(seen.wait_for(|seen| *seen >= dials).await);
            })
            .await;
        }
    }

    /// Waits this long, of tokio's time, in which nobody may dial.
    ///
    /// # Panics
    ///
    /// When somebody does, or on a [`tcp`](Self::tcp) server.
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

    /// Accepts the next connection, and its upgrade with the subprotocol that the client offered.
    ///
    /// # Panics
    ///
    /// When nobody connects within the deadline, when the client gave up on that connection, and
    /// when its request is not a WebSocket upgrade that offers exactly one subprotocol.
    #[track_caller]
    pub fn accept(&self) -> impl Future<Output = Peer> {
        self.accept_with(Upgrade::new())
    }

    /// Accepts the next connection with an answer of your own making.
    ///
    /// # Panics
    ///
    /// As [`accept`](Self::accept).
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

    /// Answers the next upgrade with an HTTP status, then ends the connection. Returns the refused
    /// request.
    ///
    /// `Content-Length` is added unless it is given. Any status may be used, 200 included.
    ///
    /// # Panics
    ///
    /// As [`accept`](Self::accept), but the offered subprotocols are not looked at.
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
    /// As [`refuse`](Self::refuse).
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
    /// When nobody connects within the deadline.
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
                None => {
                    unreachable!("the network, which sends the pipes, lives as long as the server")
                }
            },
            Transport::Tcp { listener, accepted, .. } => match listener.accept().await {
                Ok((stream, _)) => {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    // Small frames must not wait for each other; a socket that is already gone has
                    // no such option.
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
