//! A handle to one connection, and what it answers.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::dedicated::Listed;
use crate::{
    client::{Retries, driver::Command, telemetry::Counters},
    delivery::{
        buffers::Buffers,
        mailbox::{Batch, Closed},
        writer::Writer,
    },
    error::{NotConnected, SubscribeError},
    protocol::Payload,
    response::{ConnectionEnd, End},
};

/// A handle to one connection. The reader of an operation holds the handle of its connection.
pub(crate) struct ConnectionHandle {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) counters: Arc<Counters>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) retries: Arc<Retries>,
    /// Counts from 1. `None` for the only connection of a client without other ones.
    number: Option<u64>,
    /// `None` if operations are placed on the connection, and do not have it for themselves.
    pub(super) listed: Option<Arc<Listed>>,
}

/// The answer of the driver once the connection is open, or cannot be opened.
pub(crate) struct Connected {
    pub(super) answer: oneshot::Receiver<Result<(), ConnectionEnd>>,
    pub(super) counters: Arc<Counters>,
    /// The connection may end while the client lives. Then there is nothing left to wait for.
    pub(super) may_end: bool,
}

impl Connected {
    pub(crate) async fn outcome(self) -> Result<(), NotConnected> {
        match self.answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ConnectionEnd::Lost(cause))) => Err(NotConnected::Lost(cause)),
            Ok(Err(ConnectionEnd::GaveUp { attempts, cause })) => {
                Err(NotConnected::GaveUp { attempts, cause })
            }
            Ok(Err(ConnectionEnd::ShutDown)) | Err(_)
                if self.may_end && !self.counters.is_runtime_gone() =>
            {
                Ok(())
            }
            // `Err` means that the driver has ended.
            Ok(Err(ConnectionEnd::ShutDown)) | Err(_) => Err(if self.counters.is_runtime_gone() {
                NotConnected::RuntimeGone
            } else {
                NotConnected::ShutDown
            }),
        }
    }
}

impl ConnectionHandle {
    pub(crate) fn new(
        commands: mpsc::UnboundedSender<Command>,
        buffers: Arc<Buffers>,
        retries: Arc<Retries>,
        number: Option<u64>,
    ) -> Self {
        Self { commands, counters: Arc::default(), buffers, retries, number, listed: None }
    }

    /// Sends a command to the driver. If the driver has ended, there is nothing left to do.
    pub(crate) fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Sends a command that the driver answers.
    pub(super) fn request(
        &self,
        command: fn(oneshot::Sender<Result<(), ConnectionEnd>>) -> Command,
    ) -> Connected {
        let (waiter, answer) = oneshot::channel();
        self.command(command(waiter));
        Connected { answer, counters: Arc::clone(&self.counters), may_end: false }
    }

    /// Sends an operation that was placed on this connection to the driver.
    pub(crate) fn begin(&self, command: Command, writer: &Writer) -> Result<(), SubscribeError> {
        if self.commands.send(command).is_err() {
            self.counters.ended();
            return Err(self.refusal());
        }
        // The driver may have ended between the two steps of a send. Then it never sees the
        // command.
        if self.commands.is_closed() {
            writer.finish(End::Connection(ConnectionEnd::ShutDown), || self.counters.ended());
        }
        Ok(())
    }

    /// Returns why no operation can start here once the driver has ended.
    pub(super) fn refusal(&self) -> SubscribeError {
        if self.counters.is_runtime_gone() {
            SubscribeError::RuntimeGone
        } else {
            SubscribeError::ShutDown
        }
    }

    /// Removes the reader of an operation. `is_over` says whether it has read the end.
    pub(crate) fn leave(&self, writer: &Writer, batch: &mut Batch<Payload>, is_over: bool) {
        let Closed { unread, was_open } = writer.mailbox.close(batch);
        self.counters.dequeued(unread as u64);
        if !is_over {
            self.command(Command::Cancel(writer.id));
        }
        // This comes last, so that an operation that takes the freed place is also sent later.
        if was_open {
            self.counters.ended();
        }
    }

    pub(crate) fn number(&self) -> Option<u64> {
        self.number
    }

    /// Whether one subscription has this connection for itself.
    pub(crate) fn is_dedicated(&self) -> bool {
        self.listed.is_some()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    pub(crate) fn retries(&self) -> &Retries {
        &self.retries
    }
}
