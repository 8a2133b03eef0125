//! Owns the port and every accepted connection, so that both can be taken away at any moment. Knows
//! nothing of GraphQL.

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

/// A router served on one port of the loopback interface, which can go down and come back.
///
/// The port stays reserved until this is dropped, so nothing else can be given it while the server
/// is down.
pub(crate) struct Serving {
    router: Router,
    addr: SocketAddr,
    connections: Gauge,
    /// `None` while it is down.
    life: Mutex<Option<Life>>,
    /// Bound, but never listening: a dial to it is refused.
    _reservation: TcpSocket,
}

impl Serving {
    /// Serves `router` on `port`, or on a free one if it is 0. To be called in a tokio runtime.
    pub(crate) fn start(port: u16, router: Router) -> io::Result<Self> {
        let reservation = bind(port)?;
        let serving = Self {
            router,
            addr: reservation.local_addr()?,
            connections: Gauge::default(),
            life: Mutex::new(None),
            _reservation: reservation,
        };
        serving.restart()?;
        Ok(serving)
    }

    /// Goes down if it was up, and listens again on the same port.
    pub(crate) fn restart(&self) -> io::Result<()> {
        let mut life = lock(&self.life);
        *life = None;
        let listener = bind(self.addr.port())?.listen(1024)?;
        let desk = Arc::new(Desk {
            open: Mutex::new(Open { listener: Some(listener), lines: Vec::new() }),
        });
        let door = Door {
            addr: self.addr,
            desk: Arc::clone(&desk),
            connections: self.connections.clone(),
        };
        let accepting =
            tokio::spawn(axum::serve(door, self.router.clone()).into_future()).abort_handle();
        *life = Some(Life { desk, accepting });
        Ok(())
    }

    /// Stops listening and resets every connection. Both have happened when this returns.
    pub(crate) fn kill(&self) {
        *lock(&self.life) = None;
    }

    /// Resets every connection, as a load balancer that dies: no close frame, what was not yet sent
    /// is lost.
    pub(crate) fn drop_connections(&self) {
        if let Some(life) = &*lock(&self.life) {
            life.desk.cut_lines();
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The connections that the server's own tasks still hold.
    pub(crate) fn connections(&self) -> watch::Receiver<Count> {
        self.connections.watch()
    }
}

/// The time between going up and going down. It shares nothing with the next, which an aborted task
/// may still see begin.
struct Life {
    desk: Arc<Desk>,
    accepting: AbortHandle,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.accepting.abort();
        lock(&self.desk.open).listener = None;
        self.desk.cut_lines();
    }
}

/// Counts what is alive, and what ever was.
#[derive(Clone, Default)]
pub(crate) struct Gauge(watch::Sender<Count>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) now: usize,
    /// Never falls, so a wait for it cannot miss something short-lived.
    pub(crate) ever: usize,
    /// At any one time.
    pub(crate) most: usize,
}

impl Gauge {
    /// Counts one more, until the guard is dropped.
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

/// What the end of a [`Life`] must reach. One lock holds both, so that no connection is accepted
/// behind its back.
struct Desk {
    open: Mutex<Open>,
}

struct Open {
    listener: Option<TcpListener>,
    lines: Vec<Weak<Line>>,
}

impl Desk {
    fn cut_lines(&self) {
        let lines = std::mem::take(&mut lock(&self.open).lines);
        lines.iter().filter_map(Weak::upgrade).for_each(|line| line.cut());
    }
}

/// The end of [`Desk`] that axum accepts from.
struct Door {
    addr: SocketAddr,
    desk: Arc<Desk>,
    connections: Gauge,
}

impl Door {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<(Connection, SocketAddr)> {
        let mut open = lock(&self.desk.open);
        let Some(listener) = &open.listener else {
            return Poll::Pending; // killed: this task is being aborted
        };
        let Ok((stream, peer)) = std::task::ready!(listener.poll_accept(cx)) else {
            // Most likely the peer gave up while it was queued; the next one need not have.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        // Small frames must not wait for Nagle; a socket that refuses this is only slower.
        let _ = stream.set_nodelay(true);
        let line =
            Arc::new(Line(Mutex::new(Ends { stream: Some(stream), reader: None, writer: None })));
        open.lines.retain(|line| line.strong_count() > 0);
        open.lines.push(Arc::downgrade(&line));
        Poll::Ready((Connection { line, _entered: self.connections.enter() }, peer))
    }
}

impl axum::serve::Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

/// A socket that can be taken from whoever reads and writes it.
struct Line(Mutex<Ends>);

struct Ends {
    stream: Option<TcpStream>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Line {
    fn cut(&self) {
        let mut ends = lock(&self.0);
        if let Some(stream) = ends.stream.take() {
            // Without it the close would be a FIN behind the bytes still queued. A socket that is
            // already dead may refuse.
            let _ = stream.set_zero_linger();
        }
        let wakers = [ends.reader.take(), ends.writer.take()];
        drop(ends);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// One accepted connection, as hyper sees it.
pub(crate) struct Connection {
    line: Arc<Line>,
    _entered: Entered,
}

impl Connection {
    fn poll_write_with<T>(
        &self,
        cx: &mut Context<'_>,
        io: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut ends = lock(&self.line.0);
        let Some(stream) = &mut ends.stream else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let poll = io(Pin::new(stream), cx);
        if poll.is_pending() {
            ends.writer = Some(cx.waker().clone());
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
        let mut ends = lock(&self.line.0);
        let Some(stream) = &mut ends.stream else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let poll = Pin::new(stream).poll_read(cx, buf);
        if poll.is_pending() {
            ends.reader = Some(cx.waker().clone());
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

/// Reuse lets the listener share the port with its reservation, and with connections of an earlier
/// life.
fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

/// Nothing under these locks can leave a half-made value, so a poisoned one is as good as new.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
