//! A TCP listener that can close its port and reset its connections at any moment.
//!
//! Owns the port and every accepted connection. Must not know GraphQL.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Serves a router on a port of the loopback interface. The server can go down and come back.
///
/// The port stays reserved until this is dropped, so that no other program gets it while the server
/// is down.
pub(crate) struct Serving {
    router: Router,
    addr: SocketAddr,
    connections: Gauge,
    /// `None` while the server is down.
    listening: Mutex<Option<Listening>>,
    /// A socket that is bound but never listens, so connecting to it is refused.
    _reservation: TcpSocket,
}

impl Serving {
    /// Serves `router` on `port`, or on a free port if it is 0. Must be called in a tokio runtime.
    pub(crate) fn start(port: u16, router: Router) -> io::Result<Self> {
        let reservation = bind(port)?;
        let serving = Self {
            router,
            addr: reservation.local_addr()?,
            connections: Gauge::default(),
            listening: Mutex::new(None),
            _reservation: reservation,
        };
        serving.restart()?;
        Ok(serving)
    }

    /// Goes down if the server is up, then listens again on the same port.
    pub(crate) fn restart(&self) -> io::Result<()> {
        let mut listening = lock(&self.listening);
        *listening = None;
        let listener = bind(self.addr.port())?.listen(1024)?;
        let shared = Arc::new(Connections {
            open: Mutex::new(Open { listener: Some(listener), streams: Vec::new() }),
        });
        let acceptor = Acceptor {
            addr: self.addr,
            shared: Arc::clone(&shared),
            connections: self.connections.clone(),
        };
        let accepting =
            tokio::spawn(axum::serve(acceptor, self.router.clone()).into_future()).abort_handle();
        *listening = Some(Listening { shared, accepting });
        Ok(())
    }

    /// Stops listening and resets every connection, before it returns.
    pub(crate) fn kill(&self) {
        *lock(&self.listening) = None;
    }

    /// Resets every connection, like a load balancer that dies: without a close frame, and without
    /// sending queued data.
    pub(crate) fn drop_connections(&self) {
        if let Some(listening) = &*lock(&self.listening) {
            listening.shared.reset_all();
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Counts the connections that the server's own tasks still hold.
    pub(crate) fn connections(&self) -> watch::Receiver<Count> {
        self.connections.watch()
    }
}

/// The server while it is up. It shares no state with its successor, because its aborted task may
/// still run when the successor starts.
struct Listening {
    shared: Arc<Connections>,
    accepting: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
        lock(&self.shared.open).listener = None;
        self.shared.reset_all();
    }
}

/// Counts things that are alive now, and all that ever were.
#[derive(Clone, Default)]
pub(crate) struct Gauge(watch::Sender<Count>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) now: usize,
    /// Never decreases, so waiting for it cannot miss something short-lived.
    pub(crate) ever: usize,
    /// The maximum of `now`.
    pub(crate) most: usize,
}

impl Gauge {
    /// Counts one more until the guard is dropped.
    pub(crate) fn enter(&self) -> Entered {
        self.0.send_modify(|count| {
            count.now += 1;
            count.ever += 1;
            count.most = count.most.max(count.now);
        });
        Entered(self.clone())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Count> {
        self.0.subscribe()
    }
}

pub(crate) struct Entered(Gauge);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| count.now -= 1);
    }
}

/// The listener and the connections. They share a lock, so that no connection is accepted after the
/// server went down.
struct Connections {
    open: Mutex<Open>,
}

struct Open {
    listener: Option<TcpListener>,
    streams: Vec<Weak<SharedStream>>,
}

impl Connections {
    fn reset_all(&self) {
        let streams = std::mem::take(&mut lock(&self.open).streams);
        streams.iter().filter_map(Weak::upgrade).for_each(|stream| stream.reset());
    }
}

/// Accepts connections for axum.
struct Acceptor {
    addr: SocketAddr,
    shared: Arc<Connections>,
    connections: Gauge,
}

impl Acceptor {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<(Connection, SocketAddr)> {
        let mut open = lock(&self.shared.open);
        let Some(listener) = &open.listener else {
            return Poll::Pending; // the server went down, and this task is being aborted
        };
        let Ok((stream, peer)) = std::task::ready!(listener.poll_accept(cx)) else {
            // The client has probably given up while it was queued. Try the next one.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        // Nagle's algorithm would delay small frames. If this fails, the socket is only slower.
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(SharedStream(Mutex::new(StreamState {
            stream: Some(stream),
            reader: None,
            writer: None,
        })));
        open.streams.retain(|stream| stream.strong_count() > 0);
        open.streams.push(Arc::downgrade(&stream));
        Poll::Ready((Connection { stream, _entered: self.connections.enter() }, peer))
    }
}

impl axum::serve::Listener for Acceptor {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

/// A socket that can be closed while other tasks read and write it.
struct SharedStream(Mutex<StreamState>);

struct StreamState {
    stream: Option<TcpStream>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl SharedStream {
    fn reset(&self) {
        let mut state = lock(&self.0);
        if let Some(stream) = state.stream.take() {
            // Otherwise closing would send the queued bytes and a FIN. This may fail if the socket
            // is already dead.
            let _ = stream.set_zero_linger();
        }
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// An accepted connection, which hyper reads and writes.
pub(crate) struct Connection {
    stream: Arc<SharedStream>,
    _entered: Entered,
}

impl Connection {
    fn poll_write_with<T>(
        &self,
        cx: &mut Context<'_>,
        io: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut state = lock(&self.stream.0);
        let Some(stream) = &mut state.stream else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let poll = io(Pin::new(stream), cx);
        if poll.is_pending() {
            state.writer = Some(cx.waker().clone());
        }
        poll
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = lock(&self.stream.0);
        let Some(stream) = &mut state.stream else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let poll = Pin::new(stream).poll_read(cx, buf);
        if poll.is_pending() {
            state.reader = Some(cx.waker().clone());
        }
        poll
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_with(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_with(cx, AsyncWrite::poll_shutdown)
    }
}

/// Binds a port. `SO_REUSEADDR` lets the listener share the port with its reservation, and with
/// connections from before a restart.
fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

/// Ignores poisoning, because nothing under these locks can panic halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
