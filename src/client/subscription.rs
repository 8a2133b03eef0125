//! The reader's side of a subscription: a stream of events with a typed end.
//!
//! Owns decoding, in the reader's task. Knows the mailbox, but not the driver or the session behind
//! it.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt, future, stream::FusedStream};
use serde::de::DeserializeOwned;

use self::items::{Items, Step};
pub use self::{builder::SubscriptionBuilder, position::Position};
use crate::{
    client::{driver::Command, pool::ConnectionHandle, telemetry},
    delivery::{
        mailbox::{Batch, Read},
        writer::Writer,
    },
    error::{GraphQlError, SubscriptionError},
    protocol::Payload,
    response::{ConnectionEnd, End, Gap, Response, StreamEnd, decode},
};

mod builder;
mod items;
mod numbers;
mod position;
mod rows;

/// An element of a [`Subscription`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<T> {
    /// An item.
    Next(Response<T>),
    /// Items are missing here, may be missing, or may come twice.
    Gap(Gap),
    /// No item arrived in time, though the connection was up; see
    /// [`idle_longer_than`](SubscriptionBuilder::idle_longer_than) and
    /// [`first_item_within`](SubscriptionBuilder::first_item_within).
    Stale {
        /// The time since the last item, or since the operation was sent.
        idle_for: Duration,
    },
}

/// A live operation: a stream of [`Event`]s.
///
/// A subscription survives reconnects: the client sends the operation again on every new
/// connection, and an [`Event::Gap`] marks the place. When the server completes the operation, the
/// stream ends with `None`. Otherwise it ends with one error for which
/// [`is_terminal`](SubscriptionError::is_terminal) returns `true`, then `None`.
///
/// Items are decoded when they are read, so an item that an overflow policy drops is never decoded.
/// Dropping the stream cancels the operation on the server.
#[must_use = "dropping a subscription cancels it"]
pub struct Subscription<T> {
    /// The connection that carries the operation, to which all commands about it go.
    connection: Arc<ConnectionHandle>,
    writer: Arc<Writer>,
    batch: Batch<Payload>,
    /// In a mutex that is never locked by two, so that the stream is `Sync`. Boxed to keep the
    /// stream small, because few subscriptions have options about items.
    items: Option<Box<Mutex<Items<T>>>>,
    /// Set once the end was read: the error, or `None` if the server completed the operation.
    end: Option<Box<Option<SubscriptionError>>>,
}

impl<T> Subscription<T> {
    pub(crate) fn new(
        connection: Arc<ConnectionHandle>,
        writer: Arc<Writer>,
        items: Option<Items<T>>,
    ) -> Self {
        Self {
            connection,
            writer,
            batch: Batch::new(),
            items: items.map(|items| Box::new(Mutex::new(items))),
            end: None,
        }
    }

    /// Waits until the server has read the operation on the current connection. Cancel safe: items
    /// that arrive meanwhile wait in the queue, under the [`Overflow`](crate::Overflow) policy.
    ///
    /// The proof is the first item, or the answer to a ping that was sent after the operation. On
    /// the legacy subprotocol this is a WebSocket ping, which a proxy may answer before the server
    /// has read the operation. If there is no connection, or it is lost meanwhile, this waits for
    /// the next one. There is no timeout. An operation that the server has completed counts as
    /// established. So does one that waits for its reader, with
    /// [`Overflow::Block`](crate::Overflow::Block) or
    /// [`Overflow::Rewind`](crate::Overflow::Rewind).
    ///
    /// Many servers start an operation some microseconds after they have read it, so events that
    /// are published right after this returns may still be missed. Only an item proves that the
    /// operation has started. [`with_snapshot`](Self::with_snapshot) takes this into account.
    ///
    /// # Errors
    ///
    /// Fails if the operation has ended with an error, and returns that error. The stream still
    /// yields the items that wait in the queue, then the same error, if its end was not read yet.
    pub async fn established(&mut self) -> Result<(), SubscriptionError> {
        self.probe();
        future::poll_fn(|cx| self.poll_established(cx)).await
    }

    /// Starts to check again whether the server has read the operation.
    pub(crate) fn probe(&self) {
        self.writer.mailbox.forget_established();
        self.connection.command(Command::Probe(self.writer.id));
    }

    pub(crate) fn poll_established(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SubscriptionError>> {
        self.or_ended(|| self.writer.mailbox.poll_established(cx))
    }

    /// Ready once the operation has ended, even if items still wait in the queue. Returns `Ok` if
    /// the server has completed it.
    pub(crate) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<Result<(), SubscriptionError>> {
        self.or_ended(|| self.writer.mailbox.poll_over(cx))
    }

    /// Returns where the stream is: after the last item that was read, or where
    /// [`starting_after`](SubscriptionBuilder::starting_after) began. `None` before the first item,
    /// and without [`resume_with`](SubscriptionBuilder::resume_with).
    ///
    /// Store it together with what an item led to, and a later stream that starts
    /// [after](SubscriptionBuilder::starting_after) it continues with the next item. If the
    /// position is stored after the item was processed, a crash in between means that the item is
    /// processed twice; if both are stored in one transaction, each item is processed exactly once.
    /// An item that does not decode has no position.
    ///
    /// The position is a copy of the item, and of the keys in the window of
    /// [`dedupe_by`](SubscriptionBuilder::dedupe_by), so it costs as much as they are large.
    pub fn position(&self) -> Option<Position> {
        self.items.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).position()
    }

    /// Returns whether the next event in the queue is an item. Pending while the queue is empty.
    pub(crate) fn poll_is_item(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if items_of(&mut self.items).is_some_and(|items| items.has_next()) {
            return Poll::Ready(true);
        }
        let is_item = self.writer.mailbox.poll_is_item(&mut self.batch, cx);
        self.tell_released();
        is_item
    }

    fn or_ended(
        &self,
        poll: impl FnOnce() -> Poll<Option<End>>,
    ) -> Poll<Result<(), SubscriptionError>> {
        match &self.end {
            Some(end) => Poll::Ready((**end).clone().map_or(Ok(()), Err)),
            None => poll()
                .map(|end| end.and_then(|end| error(end, &self.connection)).map_or(Ok(()), Err)),
        }
    }

    /// Drops the items in the queue if they block a connection that others use, because this reader
    /// does not read for now. A gap takes their place.
    pub(crate) fn give_way(&mut self) {
        if !self.connection.is_dedicated() && self.writer.mailbox.blocks() {
            self.discard();
        }
    }

    /// Drops the items in the queue. A gap takes their place.
    pub(crate) fn discard(&mut self) {
        let rows = items_of(&mut self.items).map_or(0, Items::discard);
        let discarded = self.writer.mailbox.discard(&mut self.batch, rows) as u64;
        if discarded > 0 {
            self.connection.counters().dequeued(discarded);
            self.connection.counters().dropped(discarded);
            telemetry::overflowed(self.writer.id, discarded);
        }
        self.tell_released();
    }

    /// Tells the driver if the queue has room again and the writer waits for that.
    fn tell_released(&mut self) {
        if std::mem::take(&mut self.batch.released) {
            self.connection.command(Command::Released(self.writer.id));
        }
    }

    pub(crate) fn connection(&self) -> &Arc<ConnectionHandle> {
        &self.connection
    }

    /// The id, which is unique within the client.
    pub(crate) fn id(&self) -> u64 {
        self.writer.id
    }
}

impl<T: DeserializeOwned> Subscription<T> {
    /// Returns the next event, like `StreamExt::next` without the import. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Event<T>, SubscriptionError>> {
        future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Yields only the data, for applications that need not know what was missed.
    ///
    /// This leaves out gaps, stale events, and GraphQL errors that arrive with data. An item
    /// without data yields [`SubscriptionError::NoData`], which does not end the stream.
    pub fn data(self) -> impl Stream<Item = Result<T, SubscriptionError>> + Unpin {
        self.filter_map(|event| {
            future::ready(match event {
                Ok(Event::Next(Response { data: Some(data), .. })) => Some(Ok(data)),
                Ok(Event::Next(Response { data: None, errors, .. })) => {
                    Some(Err(SubscriptionError::NoData(errors)))
                }
                Ok(Event::Gap(_) | Event::Stale { .. }) => None,
                Err(error) => Some(Err(error)),
            })
        })
    }
}

impl<T: DeserializeOwned> Stream for Subscription<T> {
    type Item = Result<Event<T>, SubscriptionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match items_of(&mut this.items).map(Items::step) {
                None | Some(Step::Receive) => {}
                Some(Step::Yield(event)) => {
                    if let Some(item) = items_of(&mut this.items).and_then(Items::take_unneeded) {
                        this.connection.buffers().give_back(item);
                    }
                    return Poll::Ready(Some(event));
                }
                Some(Step::Ask(item, row)) => {
                    let writer = Arc::clone(&this.writer);
                    this.connection.command(Command::AskAgain(Box::new((writer, item, row))));
                    // The other rows of the item come again, too.
                    continue;
                }
            }
            let read = this.writer.mailbox.poll_read(&mut this.batch, cx);
            this.tell_released();
            let Self { connection, items, end: known_end, .. } = &mut *this;
            return Poll::Ready(match ready!(read) {
                Some(Read::Item(payload)) => {
                    connection.counters().dequeued(1);
                    if let Some(items) = items_of(items) {
                        if let Some(payload) = items.receive(payload) {
                            connection.buffers().give_back(payload);
                        }
                        continue;
                    }
                    let event =
                        decode(&payload).map(Event::Next).map_err(SubscriptionError::Decode);
                    connection.buffers().give_back(payload);
                    Some(event)
                }
                Some(Read::Gap(gap)) => {
                    let gap = match items_of(items) {
                        Some(items) => items.gap(gap),
                        None => (!gap.is_empty()).then_some(gap),
                    };
                    let Some(gap) = gap else { continue };
                    Some(Ok(Event::Gap(gap)))
                }
                Some(Read::Stale(idle_for)) => Some(Ok(Event::Stale { idle_for })),
                Some(Read::End(end)) => {
                    let error = error(end, connection);
                    *known_end = Some(Box::new(error.clone()));
                    match items_of(items).and_then(|items| items.end(error.clone())) {
                        Some(gap) => Some(Ok(Event::Gap(gap))),
                        None => error.map(Err),
                    }
                }
                None => None,
            });
        }
    }
}

impl<T: DeserializeOwned> FusedStream for Subscription<T> {
    fn is_terminated(&self) -> bool {
        let has_next = |items: &Mutex<Items<T>>| {
            items.lock().unwrap_or_else(PoisonError::into_inner).has_next()
        };
        self.end.is_some() && !self.items.as_deref().is_some_and(has_next)
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        self.connection.leave(&self.writer, &mut self.batch, self.end.is_some());
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.writer.id)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

fn items_of<T>(items: &mut Option<Box<Mutex<Items<T>>>>) -> Option<&mut Items<T>> {
    Some(items.as_mut()?.get_mut().unwrap_or_else(PoisonError::into_inner))
}

fn error(end: End, connection: &ConnectionHandle) -> Option<SubscriptionError> {
    Some(match end {
        End::Completed | End::Call(_) => return None,
        End::Rejected(payload) => {
            SubscriptionError::Rejected(GraphQlError::read(payload.as_deref()))
        }
        End::Connection(ConnectionEnd::Lost(cause)) => SubscriptionError::Lost(cause),
        End::Connection(ConnectionEnd::GaveUp { attempts, cause }) => {
            SubscriptionError::GaveUp { attempts, cause }
        }
        End::Stream(StreamEnd::Hook(error)) => SubscriptionError::Hook(error),
        End::Stream(StreamEnd::Overflow) => SubscriptionError::Overflow,
        End::Connection(ConnectionEnd::ShutDown) if connection.counters().is_runtime_gone() => {
            SubscriptionError::RuntimeGone
        }
        End::Connection(ConnectionEnd::ShutDown) => SubscriptionError::ShutDown,
    })
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, task::Waker};

    use tokio::{runtime::Handle, sync::mpsc};

    use super::*;
    use crate::{
        client::Retries,
        delivery::{
            Overflow,
            buffers::{Buffers, Stock},
            mailbox::Limits,
        },
    };

    #[tokio::test]
    async fn the_buffer_of_a_read_item_is_reused_for_another() {
        let limit = NonZeroUsize::MAX;
        let limits = Limits { items: limit, bytes: limit, overflow: Overflow::DropOldest };
        let buffers = Arc::new(Buffers::default());
        let retries = Retries {
            runtime: Handle::current(),
            base: Duration::ZERO,
            cap: Duration::ZERO,
            seed: 0,
        };
        let connection = ConnectionHandle::new(
            mpsc::unbounded_channel().0,
            Arc::clone(&buffers),
            Arc::new(retries),
            None,
        );
        let writer = Arc::new(Writer::new(1, limits, None));
        let mut frame = String::with_capacity(500);
        frame.push_str(r#"{"data":1}"#);
        let (_, waker) = writer.mailbox.push(Payload::new(frame, 0..10), 10);
        assert!(waker.is_none());
        let mut stream = Subscription::<u32>::new(Arc::new(connection), writer, None);
        let read = stream.poll_next_unpin(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(read, Poll::Ready(Some(Ok(Event::Next(Response { data: Some(1), .. }))))));
        assert_eq!(Stock::default().copy("again", &buffers).capacity(), 500);
    }

    #[test]
    fn a_subscription_is_send_and_sync() {
        fn is_both<T: Send + Sync + Unpin>() {}
        is_both::<Subscription<u32>>();
    }
}
