//! The client's only task: carries out what the session decides, and tells it what happened.
//!
//! Owns the socket, the one timer, the only reading of the clock, and the session. Decides nothing. Between taking an
//! output and performing it nothing is awaited (I8): the whole driver is one `poll`.

mod outputs;
mod readers;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use http::HeaderMap;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Sleep,
};
use url::Url;

use crate::{
    auth::{Credentials, Provider},
    buffers::{Buffers, Stock},
    dial::Dialer,
    error::{ConnectError, CredentialsError, Disconnect},
    mailbox::Pushed,
    operation::OperationType,
    protocol::Payload,
    session::{Care, End, Item, Output, Request, Session},
    shared::{Replay, Sharing},
    sink::Sink,
    socket::{Inbound, Socket},
    status::Status,
    telemetry::{self, Counters},
};

/// What the application wants.
pub(crate) enum Command {
    Subscribe {
        kind: OperationType,
        payload: Box<str>,
        /// Until a query or mutation ends without a result.
        timeout: Option<Duration>,
        /// Few have any.
        care: Option<Box<Care>>,
        sink: Arc<Sink>,
    },
    /// Another reader of the live operation with this request, or the first of a new one with this number.
    Share {
        request: Box<str>,
        operation: u64,
        replay: Replay,
        reader: Arc<Sink>,
    },
    Cancel(u64),
    /// The reader has made the room that was waited for, or has caught up.
    Released(u64),
    /// Answered once there is a connection, or none to be had.
    Connect(oneshot::Sender<Result<(), End>>),
    Pause,
    Resume,
    /// The reader waits until the server is known to have the operation.
    Probe(u64),
    ReconnectNow,
    NetworkChanged,
    Shutdown {
        within: Duration,
    },
}

/// How to get a socket: fixed for a client's life.
pub(crate) struct Connector {
    pub(crate) endpoint: Url,
    pub(crate) dialer: Arc<dyn Dialer>,
    /// What the provider's answers lack.
    pub(crate) fixed: Credentials,
    pub(crate) provider: Provider,
    pub(crate) max_message_size: usize,
}

pub(crate) struct Driver {
    session: Session<Arc<Sink>>,
    connector: Arc<Connector>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Commands on their way to the session.
    batch: Vec<Command>,
    link: Link,
    /// Of the credentials that the next dial uses.
    headers: HeaderMap,
    /// Who reads which shared operation.
    sharing: Sharing,
    /// The full mailboxes that the socket waits for, under `Overflow::Block`: several only of a shared operation.
    blocked: Vec<Arc<Sink>>,
    /// Who waits for a connection.
    waiters: Vec<oneshot::Sender<Result<(), End>>>,
    /// Readers that have something to read since this turn's reads.
    wakers: VecDeque<Waker>,
    buffers: Arc<Buffers>,
    stock: Stock,
    timer: Pin<Box<Sleep>>,
    status: watch::Sender<Status>,
    counters: Arc<Counters>,
    ended: bool,
}

/// What leads to the server.
enum Link {
    None,
    Asking(BoxFuture<'static, Result<Credentials, CredentialsError>>),
    Dialing(BoxFuture<'static, Result<Socket, ConnectError>>),
    Open(Box<Socket>),
}

impl Driver {
    pub(crate) fn new(
        session: Session<Arc<Sink>>,
        connector: Connector,
        commands: mpsc::UnboundedReceiver<Command>,
        status: watch::Sender<Status>,
        counters: Arc<Counters>,
        buffers: Arc<Buffers>,
    ) -> Self {
        Self {
            session,
            connector: Arc::new(connector),
            commands,
            batch: Vec::new(),
            link: Link::None,
            headers: HeaderMap::new(),
            sharing: Sharing::default(),
            blocked: Vec::new(),
            waiters: Vec::new(),
            wakers: VecDeque::new(),
            buffers,
            stock: Stock::default(),
            timer: Box::pin(tokio::time::sleep_until(now().into())),
            status,
            counters,
            ended: false,
        }
    }

    /// One turn: everything that can be done now, up to a budget.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = now();
        for _ in 0..TURNS {
            let mut busy = self.take_commands(cx, now);
            busy |= self.advance(cx, now);
            // Before the reads, which can use up the budget that tokio gives a task for one poll.
            self.write(cx, now);
            // Before the timers: what has arrived counts, even if this task was late to look.
            busy |= self.read(cx, now);
            self.wake();
            busy |= self.look_for_room(now);
            busy |= self.watch_time(cx, now);
            self.write(cx, now);
            self.count();
            // A write that failed has set a deadline, which the timer does not know yet.
            busy |= self.session.poll_timeout().is_some_and(|at| at != self.timer.deadline().into_std());
            if self.ended {
                return Poll::Ready(());
            }
            if !busy {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        let taken = match self.commands.poll_recv_many(cx, &mut batch, COMMANDS) {
            Poll::Pending => {
                self.batch = batch;
                return false;
            }
            Poll::Ready(taken) => taken,
        };
        if taken == 0 {
            // Every handle and every stream is gone. Said again at every turn, which does nothing.
            self.session.shutdown(now + ORPHAN_DEADLINE);
        }
        for command in batch.drain(..) {
            match command {
                Command::Subscribe { kind, payload, timeout, care, sink } => {
                    let request = Request { kind, payload, deadline: timeout.map(|timeout| now + timeout), care };
                    self.session.subscribe(now, sink.id, request, sink);
                }
                Command::Share { request, operation, replay, reader } => {
                    self.share(now, request, operation, replay, reader);
                }
                Command::Cancel(id) => {
                    telemetry::cancelled(id);
                    self.cancel(now, id);
                }
                Command::Released(id) => self.session.catch_up(now, id),
                Command::Connect(waiter) => {
                    // Who asks again and again, and does not wait, must not pile up.
                    self.waiters.retain(|waiter| !waiter.is_closed());
                    self.waiters.push(waiter);
                    self.session.connect(now);
                }
                Command::Pause => self.session.pause(now),
                Command::Resume => self.session.resume(now),
                Command::Probe(id) => self.session.probe(self.sharing.operation_of(id)),
                Command::ReconnectNow => self.session.reconnect_now(now),
                Command::NetworkChanged => self.session.network_changed(now),
                Command::Shutdown { within } => self.session.shutdown(now + within),
            }
        }
        self.batch = batch;
        self.perform(now);
        taken > 0
    }

    /// Credentials, then the dial.
    fn advance(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        match &mut self.link {
            Link::None | Link::Open(_) => return false,
            Link::Asking(provider) => match provider.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(answer) => {
                    self.link = Link::None;
                    let Connector { fixed, max_message_size, .. } = &*self.connector;
                    let answer = answer.and_then(|answer| {
                        let Credentials { init_payload, headers } = answer.or(fixed);
                        self.headers = headers;
                        match init_payload {
                            Some(payload) if payload.len() > *max_message_size => {
                                Err(CredentialsError::fatal("the init payload is larger than a message may be"))
                            }
                            payload => Ok(payload.unwrap_or_else(|| "{}".into())),
                        }
                    });
                    self.session.handle_credentials(now, answer);
                }
            },
            Link::Dialing(dial) => match dial.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(socket)) => {
                    self.link = Link::Open(Box::new(socket));
                    self.session.handle_open(now);
                }
                Poll::Ready(Err(error)) => self.session.handle_lost(now, Disconnect::Connect(error)),
            },
        }
        self.perform(now);
        true
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut bytes = 0;
        for frames in 0..FRAMES {
            if bytes > BYTES {
                break;
            }
            // A full mailbox stops a live connection only: opening and closing one go on.
            if !self.blocked.is_empty() && self.session.is_open() {
                return frames > 0;
            }
            let Link::Open(socket) = &mut self.link else { return frames > 0 };
            match socket.poll_read(cx) {
                Poll::Pending => {
                    // A part of a large message is a sign of life, too.
                    if socket.has_moved() {
                        self.session.handle_activity(now);
                    }
                    return frames > 0;
                }
                Poll::Ready(Inbound::Message(text)) => {
                    bytes += text.len() + self.receive(now, &text);
                }
                Poll::Ready(Inbound::Unreadable) => self.session.handle_unreadable(now),
                Poll::Ready(Inbound::Ping) => self.session.handle_activity(now),
                Poll::Ready(Inbound::Pong) => self.session.handle_pong(now),
                Poll::Ready(Inbound::Lost(cause)) => self.session.handle_lost(now, cause),
            }
            self.perform(now);
        }
        true
    }

    /// Returns what it costs beside its length, in bytes to read.
    fn receive(&mut self, now: Instant, text: &str) -> usize {
        telemetry::received(text.len());
        let Some(Item { sink, payload }) = self.session.handle_frame(now, text) else { return 0 };
        if sink.is_shared() {
            let sink = Arc::clone(sink);
            return self.fan_out(now, &sink, Payload::shared(text, payload));
        }
        let payload = Payload::new(self.stock.copy(text, &self.buffers), payload);
        match sink.push(payload, text) {
            Ok((Pushed::Kept { dropped: 0 }, waker)) => self.wakers.extend(waker),
            other => {
                let sink = Arc::clone(sink);
                self.settle(now, sink, other);
            }
        }
        0
    }

    /// One by one, so that one that panics takes no other with it.
    fn wake(&mut self) {
        while let Some(waker) = self.wakers.pop_front() {
            waker.wake();
        }
    }

    /// A reader that makes some sends a command, which wakes this task.
    fn look_for_room(&mut self, now: Instant) -> bool {
        if self.blocked.is_empty() {
            return false;
        }
        self.blocked.retain(|sink| !sink.mailbox.has_room());
        if self.blocked.is_empty() {
            self.session.unstall(now);
        }
        self.blocked.is_empty()
    }

    fn watch_time(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(deadline) = self.session.poll_timeout() else { return false };
        if self.timer.deadline().into_std() != deadline {
            self.timer.as_mut().reset(deadline.into());
        }
        // The clock decides: a timer reports nothing once the task's budget is used up.
        if deadline > now && self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.session.handle_timeout(now.max(deadline));
        self.perform(now);
        true
    }

    fn write(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Self { link, session, .. } = self;
        if let Link::Open(socket) = link
            && let Err(cause) = socket.poll_write(cx, || session.poll_transmit())
        {
            session.handle_broken(now, cause);
        }
    }

    fn count(&mut self) {
        if let Link::Open(socket) = &mut self.link {
            self.counters.moved(socket.take_traffic());
        }
        self.counters.record(&self.session.counts(), self.session.live_operations());
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.turn(cx)
    }
}

/// However the task ends, no reader waits for one that will never come.
impl Drop for Driver {
    fn drop(&mut self) {
        self.wake();
        // First, so that whoever finds the channel closed does not say another end (I1).
        self.session.abandon();
        while let Some(output) = self.session.poll_output() {
            if let Output::Finish { sink, end } = output {
                sink.finish(end);
            }
        }
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Subscribe { sink, .. } | Command::Share { reader: sink, .. } = command {
                sink.mailbox.finish(End::ShutDown);
            }
        }
        self.status.send_replace(Status::Ended);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Turns before other tasks get theirs.
const TURNS: usize = 4;

/// Commands for each turn.
const COMMANDS: usize = 256;

/// Frames for each turn: fewer cost up to 40 % on a multi-thread runtime.
const FRAMES: usize = 256;

/// Bytes of messages for each turn: readers find what they read in the cache.
const BYTES: usize = 128 * 1024;

/// How long a client that nobody holds any more waits for the peer to answer its close.
const ORPHAN_DEADLINE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
