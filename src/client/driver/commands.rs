//! What the application wants, told to the session in the order in which it was wanted.

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
    response::End,
    session::{Request, WatchOptions},
};

/// What the application wants.
pub(crate) enum Command {
    Subscribe {
        kind: OperationType,
        payload: Box<str>,
        /// Until a query or mutation ends without a result.
        timeout: Option<Duration>,
        /// Few have any.
        watch_options: Option<Box<WatchOptions>>,
        writer: Arc<Writer>,
    },
    /// Another reader of the live operation with this request, or the first of a new one with this
    /// number.
    Share {
        request: Box<str>,
        operation: u64,
        replay: Replay,
        reader: Arc<Writer>,
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
    /// Answered once there is another connection, or none to be had.
    Rotate(oneshot::Sender<Result<(), End>>),
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
            // Every handle and every stream is gone. Said again at every turn, which does nothing.
            self.session.shutdown(now, now + ORPHAN_DEADLINE);
        }
        for command in batch.drain(..) {
            match command {
                Command::Subscribe { kind, payload, timeout, watch_options, writer } => {
                    let request = Request {
                        kind,
                        payload,
                        deadline: timeout.map(|timeout| now + timeout),
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

/// Commands for each turn.
const COMMANDS: usize = 256;

/// How long a client that nobody holds any more waits for the peer to answer its close.
const ORPHAN_DEADLINE: Duration = Duration::from_secs(1);
