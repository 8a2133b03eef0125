//! Commands of the application, which the driver passes to the session in order.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::Driver;
use crate::{
    client::telemetry,
    delivery::{sharing::Replay, writer::Writer},
    operation::OperationType,
    protocol::Payload,
    response::{ConnectionEnd, End, StreamEnd},
    session::{Request, WatchOptions},
};

/// A command of the application.
pub(crate) enum Command {
    Subscribe {
        kind: OperationType,
        payload: Box<str>,
        /// The time after which a query or mutation ends without a result. Boxed, because
        /// subscriptions have none and there may be many.
        timeout: Option<Box<Duration>>,
        /// Boxed, because few operations have any.
        watch_options: Option<Box<WatchOptions>>,
        writer: Arc<Writer>,
    },
    /// Adds a reader to the live operation with this request, or starts a new operation with this
    /// id.
    Share {
        request: Box<str>,
        operation: u64,
        replay: Replay,
        reader: Arc<Writer>,
    },
    Cancel(u64),
    /// The writer may continue: the reader has made room, or has caught up.
    Released(u64),
    /// The reader asks for what follows this row of an item again. Boxed, because it is rare.
    AskAgain(Box<(Arc<Writer>, Payload, usize)>),
    /// Answered when a connection is open, or when the client gives up.
    Connect(oneshot::Sender<Result<(), ConnectionEnd>>),
    Pause,
    Resume,
    /// The reader waits until the server has read the operation.
    Probe(u64),
    /// Answered when another connection has replaced this one, or when the client gives up.
    Rotate(oneshot::Sender<Result<(), ConnectionEnd>>),
    ReconnectNow,
    NetworkChanged,
    Shutdown {
        within: Duration,
    },
}

impl Driver {
    pub(super) fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        let taken = match self.commands.poll_recv_many(cx, &mut batch, COMMANDS) {
            Poll::Pending => {
                self.batch = batch;
                return false;
            }
            Poll::Ready(taken) => taken,
        };
        self.look_for_sleep(now);
        if taken == 0 {
            // Every handle and stream was dropped. The channel reports this on every poll, but only
            // the first `shutdown` has an effect.
            self.session.shutdown(now, now + ORPHAN_DEADLINE);
        }
        for command in batch.drain(..) {
            match command {
                Command::Subscribe { kind, payload, timeout, watch_options, writer } => {
                    let request = Request {
                        kind,
                        payload,
                        deadline: timeout.map(|timeout| now + *timeout),
                        watch_options,
                        is_resumable: writer.is_resumable(),
                    };
                    self.session.subscribe(now, writer.id, request, writer);
                }
                Command::Share { request, operation, replay, reader } => {
                    self.share(now, request, operation, replay, reader);
                }
                Command::Cancel(id) => {
                    telemetry::cancelled(id);
                    self.cancel(now, id);
                }
                Command::Released(id) => self.session.catch_up(now, id),
                Command::AskAgain(asked) => {
                    let (writer, item, row) = *asked;
                    telemetry::asked_again(writer.id);
                    match writer.ask_after(&item, row) {
                        Ok(()) => self.session.ask_again(now, writer.id),
                        Err(error) => self.end(now, &writer, End::Stream(StreamEnd::Hook(error))),
                    }
                }
                Command::Connect(waiter) => {
                    self.waiters.push(waiter, oneshot::Sender::is_closed);
                    self.session.connect(now);
                }
                Command::Pause => self.session.pause(now),
                Command::Resume => self.session.resume(now),
                Command::Probe(id) => self.session.probe(self.sharing.operation_of(id)),
                Command::Rotate(waiter) => {
                    self.rotating.push(waiter, oneshot::Sender::is_closed);
                    self.session.rotate(now);
                }
                Command::ReconnectNow => self.session.reconnect_now(now),
                Command::NetworkChanged => self.session.network_changed(now),
                Command::Shutdown { within } => self.session.shutdown(now, now + within),
            }
        }
        self.batch = batch;
        self.perform(now);
        taken > 0
    }
}

/// The maximum number of commands handled in one turn.
const COMMANDS: usize = 256;

/// How long a client without any handle waits for the server to answer its close frame.
const ORPHAN_DEADLINE: Duration = Duration::from_secs(1);
