//! The task of a connection. It performs the outputs of the session and reports events to it.
//!
//! Owns the session, the sockets, the only timer and the reading of the clock. Must not decide
//! anything. The driver awaits nothing between taking an output and performing it (I8), because the
//! whole driver is one `poll` function.

mod clocks;
mod commands;
mod outputs;
mod readers;
mod waiters;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Instant, SystemTime},
};

use futures::future::BoxFuture;
use http::HeaderMap;
use tokio::{
    sync::{mpsc, oneshot},
    time::Sleep,
};
use url::Url;

pub(crate) use self::commands::Command;
use self::{clocks::Clocks, waiters::Waiters};
use crate::{
    client::{
        credentials::{Credentials, Provider},
        pool::StatusSlot,
        telemetry::{self, Counters},
    },
    delivery::{
        buffers::{Buffers, Stock},
        mailbox::Pushed,
        sharing::Sharing,
        writer::{PushResult, Writer},
    },
    error::{ConnectError, CredentialsError, Disconnect},
    protocol::Payload,
    response::{ConnectionEnd, End},
    session::{Backlog, ConnectionId, Granted, HeldItem, Item, Output, Session, Status},
    transport::{
        dial::Dialer,
        socket::{Inbound, Socket},
    },
};

/// Everything that is needed to open a socket. Fixed for the life of a client, and the same for all
/// of its connections.
pub(crate) struct Connector {
    pub(crate) endpoint: Url,
    pub(crate) dialer: Arc<dyn Dialer>,
    /// Credentials that fill what the provider's answers lack.
    pub(crate) fixed: Credentials,
    pub(crate) provider: Provider,
    pub(crate) max_message_size: usize,
}

pub(crate) struct Driver {
    session: Session<Arc<Writer>>,
    connector: Arc<Connector>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// A buffer for commands, which is reused.
    batch: Vec<Command>,
    connections: [ConnectionIo; 2],
    /// The shared operations and their readers.
    sharing: Sharing,
    /// The full mailboxes that stall reading, under `Overflow::Block`. Only a shared operation can
    /// add more than one.
    blocked: Vec<Arc<Writer>>,
    /// Callers of `connect`.
    waiters: Waiters<oneshot::Sender<Result<(), ConnectionEnd>>>,
    /// Callers of `rotate`.
    rotating: Waiters<oneshot::Sender<Result<(), ConnectionEnd>>>,
    /// Readers to wake after the reads of this turn.
    wakers: VecDeque<Waker>,
    buffers: Arc<Buffers>,
    stock: Stock,
    timer: Pin<Box<Sleep>>,
    clocks: Clocks,
    status: StatusSlot,
    counters: Arc<Counters>,
    ended: bool,
}

/// The I/O of one of the two connections that a session can have.
struct ConnectionIo {
    connection: ConnectionId,
    link: Link,
    /// The headers that the next dial sends.
    headers: HeaderMap,
}

/// How far a connection is on its way to an open socket.
enum Link {
    None,
    Asking(BoxFuture<'static, Result<Credentials, CredentialsError>>),
    Dialing(BoxFuture<'static, Result<Socket, ConnectError>>),
    Open(Box<Socket>),
}

impl Driver {
    pub(crate) fn new(
        session: Session<Arc<Writer>>,
        connector: Arc<Connector>,
        commands: mpsc::UnboundedReceiver<Command>,
        status: StatusSlot,
        counters: Arc<Counters>,
        buffers: Arc<Buffers>,
    ) -> Self {
        Self {
            session,
            connector,
            commands,
            batch: Vec::new(),
            connections: ConnectionId::ALL.map(|connection| ConnectionIo {
                connection,
                link: Link::None,
                headers: HeaderMap::new(),
            }),
            sharing: Sharing::default(),
            blocked: Vec::new(),
            waiters: Waiters::new(),
            rotating: Waiters::new(),
            wakers: VecDeque::new(),
            buffers,
            stock: Stock::default(),
            timer: Box::pin(tokio::time::sleep_until(now().into())),
            clocks: Clocks::new(now()),
            status,
            counters,
            ended: false,
        }
    }

    /// Does everything that can be done now, up to a budget.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = now();
        for _ in 0..TURNS {
            let mut busy = self.take_commands(cx, now);
            for connection in ConnectionId::ALL {
                busy |= self.advance(cx, now, connection);
            }
            // Writes go before reads, because reads can use up the budget that tokio gives a task
            // for one poll.
            self.write(cx, now);
            // Reads go before timers: a message that arrived in time counts, even if this task was
            // polled late.
            for connection in ConnectionId::ALL {
                busy |= self.read(cx, now, connection);
            }
            self.wake();
            busy |= self.look_for_room(now);
            busy |= self.watch_time(cx, now);
            self.write(cx, now);
            self.count();
            // A failed write has set a deadline for which the timer is not armed yet.
            busy |= self
                .session
                .poll_timeout()
                .is_some_and(|at| at != self.timer.deadline().into_std());
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

    /// Polls the provider or the dial of a connection that is not open yet. Returns whether it made
    /// progress.
    fn advance(&mut self, cx: &mut Context<'_>, now: Instant, connection: ConnectionId) -> bool {
        let io = &mut self.connections[connection as usize];
        match &mut io.link {
            Link::None | Link::Open(_) => return false,
            Link::Asking(provider) => match provider.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(answer) => {
                    io.link = Link::None;
                    let Connector { fixed, max_message_size, .. } = &*self.connector;
                    let answer = answer.and_then(|answer| {
                        let lifetime = answer.lifetime(wall_clock());
                        let Credentials { init_payload, headers, .. } = answer.or(fixed);
                        io.headers = headers;
                        match init_payload {
                            Some(payload) if payload.len() > *max_message_size => {
                                Err(CredentialsError::fatal(
                                    "the init payload is larger than a message may be",
                                ))
                            }
                            payload => Ok(Granted {
                                init_payload: payload.unwrap_or_else(|| "{}".into()),
                                lifetime,
                            }),
                        }
                    });
                    self.session.handle_credentials(now, connection, answer);
                }
            },
            Link::Dialing(dial) => match dial.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(socket)) => {
                    io.link = Link::Open(Box::new(socket));
                    self.session.handle_open(now, connection);
                }
                Poll::Ready(Err(error)) => {
                    self.session.handle_lost(now, connection, Disconnect::Connect(error));
                }
            },
        }
        self.perform(now);
        true
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant, connection: ConnectionId) -> bool {
        let mut bytes = 0;
        for frames in 0..FRAMES {
            if bytes > BYTES {
                break;
            }
            // A full mailbox stalls only a live connection. Opening and closing continue.
            if !self.blocked.is_empty() && self.session.is_live(connection) {
                return frames > 0;
            }
            let Link::Open(socket) = &mut self.connections[connection as usize].link else {
                return frames > 0;
            };
            match socket.poll_read(cx) {
                Poll::Pending => {
                    // A part of a large message also proves that the server is alive.
                    if socket.has_moved() {
                        self.session.handle_activity(now, connection);
                    }
                    return frames > 0;
                }
                Poll::Ready(Inbound::Message(text)) => {
                    bytes += text.len() + self.receive(now, connection, &text);
                }
                Poll::Ready(Inbound::Unreadable) => self.session.handle_unreadable(now, connection),
                Poll::Ready(Inbound::Ping) => self.session.handle_activity(now, connection),
                Poll::Ready(Inbound::Pong(number)) => {
                    self.session.handle_pong(now, connection, number);
                }
                Poll::Ready(Inbound::Lost(cause)) => {
                    self.session.handle_lost(now, connection, cause);
                }
            }
            self.perform(now);
        }
        true
    }

    /// Handles a message. Returns its cost besides its length, in the unit of the read budget.
    fn receive(&mut self, now: Instant, connection: ConnectionId, text: &str) -> usize {
        telemetry::received(text.len());
        let Some(Item { writer, payload }) = self.session.handle_frame(now, connection, text)
        else {
            return 0;
        };
        if writer.is_shared() {
            let writer = Arc::clone(writer);
            return self.fan_out(now, &writer, Payload::shared(text, payload));
        }
        let range = payload.clone();
        let payload = Payload::new(self.stock.copy(text, &self.buffers), payload);
        match writer.push(payload, text) {
            Ok((Pushed::Kept { dropped: 0 }, waker)) => self.wakers.extend(waker),
            other => {
                let (writer, is_refused) = (Arc::clone(writer), is_refused(&other));
                let id = writer.id;
                self.handle_push_result(now, writer, other);
                if is_refused && !self.session.refused(id, text, range) {
                    self.counters.dequeued(1);
                }
            }
        }
        0
    }

    /// Delivers the items of a backlog in order, then its end. Stops early if the writer accepts no
    /// more.
    fn deliver_all(&mut self, now: Instant, id: u64, writer: &Arc<Writer>, mut backlog: Backlog) {
        while let Some(item) = backlog.pop() {
            let HeldItem { frame, payload } = &item;
            let payload = payload.clone();
            if writer.is_shared() {
                self.fan_out(now, writer, Payload::shared(frame, payload));
                continue;
            }
            let payload = Payload::new(self.stock.copy(frame, &self.buffers), payload);
            let result = writer.push(payload, frame);
            let is_refused = is_refused(&result);
            if !self.handle_push_result(now, Arc::clone(writer), result) {
                // The end was behind it, and comes again with it.
                backlog.end = None;
                if is_refused {
                    backlog.put_back(item);
                }
                break;
            }
        }
        self.session.delivered(now, id, backlog);
    }

    /// Wakes readers one by one, so that the others stay queued if a waker panics.
    fn wake(&mut self) {
        while let Some(waker) = self.wakers.pop_front() {
            waker.wake();
        }
    }

    /// Resumes reading once no mailbox is full. A reader that makes room sends a command, which
    /// wakes this task.
    fn look_for_room(&mut self, now: Instant) -> bool {
        if self.blocked.is_empty() {
            return false;
        }
        self.blocked.retain(|writer| !writer.mailbox.has_room());
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
        // The clock is compared as well, because a timer stays pending once the task has used up
        // its budget.
        if deadline > now && self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.session.handle_timeout(now.max(deadline));
        self.look_for_sleep(now);
        self.perform(now);
        true
    }

    /// Pings the server at once if the machine was asleep, because the connection may have died
    /// meanwhile. Called only for commands and timers, so that items do not pay for it. A retry
    /// delay continues, because the server may have asked for it.
    fn look_for_sleep(&mut self, now: Instant) {
        if self.clocks.have_diverged(now) && self.session.is_open() {
            telemetry::slept();
            self.session.network_changed(now);
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Self { connections, session, .. } = self;
        for ConnectionIo { connection, link, .. } in connections {
            if let Link::Open(socket) = link
                && let Err(cause) = socket.poll_write(cx, || session.poll_transmit(*connection))
            {
                session.handle_broken(now, *connection, cause);
            }
        }
    }

    fn count(&mut self) {
        for io in &mut self.connections {
            if let Link::Open(socket) = &mut io.link {
                self.counters.moved(socket.take_traffic());
            }
        }
        self.counters.record(&self.session.counts(), self.session.live_operations());
    }
}

/// Whether the item was not accepted because its reader has to catch up.
fn is_refused(result: &PushResult) -> bool {
    matches!(result, Ok((Pushed::Rewind, _)))
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.turn(cx)
    }
}

/// Ends every operation, so that no reader waits for an end that never arrives, even if the task
/// panics or the runtime is dropped.
impl Drop for Driver {
    fn drop(&mut self) {
        // If the task panics, the driver is at fault and not the runtime.
        if !self.ended && !std::thread::panicking() {
            self.counters.runtime_gone();
        }
        self.wake();
        // Before the channel is closed, so that `ConnectionHandle::begin` does not set another end
        // (I1).
        self.session.abandon();
        while let Some(output) = self.session.poll_output() {
            if let Output::Finish { writer, end } = output {
                writer.finish(end, || self.counters.ended());
            }
        }
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Subscribe { writer, .. } | Command::Share { reader: writer, .. } =
                command
            {
                writer.finish(End::Connection(ConnectionEnd::ShutDown), || self.counters.ended());
            }
        }
        self.count();
        self.status.set(Status::Ended);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The maximum number of turns in one poll, so that other tasks get to run.
const TURNS: usize = 4;

/// The maximum number of frames read in one turn. Fewer cost up to 40 % on a multi-thread runtime.
const FRAMES: usize = 256;

/// The maximum number of bytes read in one turn, so that readers find them in the CPU cache.
const BYTES: usize = 128 * 1024;

#[cfg(test)]
mod tests;
