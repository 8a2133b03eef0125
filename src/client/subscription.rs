//! A subscription as its reader sees it: a stream of events with a typed end.
//!
//! Owns decoding, in the reader's task. Knows the mailbox and nothing behind it.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt, future, stream::FusedStream};
use serde::de::DeserializeOwned;

pub use self::builder::SubscriptionBuilder;
use crate::{
    client::{driver::Command, pool::ConnectionHandle, telemetry},
    delivery::{
        mailbox::{Batch, Read},
        writer::Writer,
    },
    error::{GraphQlError, SubscriptionError},
    protocol::Payload,
    response::{End, Gap, Response, decode},
};

mod builder;

/// What a subscription yields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<T> {
    /// An item.
    Next(Response<T>),
    /// Something is, or may be, missing here.
    Gap(Gap),
    /// Nothing had arrived for so long, though the connection was up:
    /// [`idle_longer_than`](SubscriptionBuilder::idle_longer_than), or
    /// [`first_item_within`](SubscriptionBuilder::first_item_within).
    Stale {
        /// Since the last item, or since the operation was sent.
        idle_for: Duration,
    },
}

/// A live operation: a stream of [`Event`]s.
///
/// It survives reconnects: the operation is sent again on every new connection, and an
/// [`Event::Gap`] marks the place. The stream ends with `None` when the server completed the
/// operation, and otherwise with one error for which
/// [`is_terminal`](SubscriptionError::is_terminal) holds, then `None`.
///
/// Items are decoded when they are read, so what an overflow policy drops costs nothing. Dropping
/// the stream cancels the operation on the server.
#[must_use = "dropping a subscription cancels it"]
pub struct Subscription<T> {
    /// Not the client: what is said about the operation is for the connection that carries it.
    connection: Arc<ConnectionHandle>,
    writer: Arc<Writer>,
    batch: Batch<Payload>,
    /// Boxed once more, as few have it; and in a mutex that is never locked, so that a stream can
    /// be shared.
    repeats: Option<Box<Mutex<Repeats<T>>>>,
    /// What was read last: why it is over, unless the server has completed it.
    end: Option<Box<Option<SubscriptionError>>>,
}

/// What removes repetitions, for [`dedupe_by`](SubscriptionBuilder::dedupe_by).
pub(crate) struct Repeats<T> {
    /// Whether an item was seen before.
    pub(super) is_known: Box<dyn FnMut(&T) -> bool + Send>,
    /// There are items that were never seen here: the overflow policy has dropped them, or the reader
    /// has joined a shared operation after them.
    pub(super) has_missed: bool,
}

impl<T> Subscription<T> {
    pub(crate) fn new(
        connection: Arc<ConnectionHandle>,
        writer: Arc<Writer>,
        repeats: Option<Repeats<T>>,
    ) -> Self {
        Self {
            connection,
            writer,
            batch: Batch::new(),
            repeats: repeats.map(|repeats| Box::new(Mutex::new(repeats))),
            end: None,
        }
    }

    /// Waits until the server has provably read the operation on the current connection. Cancel
    /// safe: items that arrive meanwhile wait to be read, under the [`Overflow`](crate::Overflow)
    /// policy.
    ///
    /// That is when the first item arrives, or when a ping is answered that was sent behind the
    /// operation: one for all who wait. On the legacy subprotocol that is a WebSocket ping, which a
    /// proxy may answer before the server has read anything. Without a connection, or when it is
    /// lost meanwhile, the next one is waited for. There is no timeout. An operation that the
    /// server has completed was established; so is one that waits for its reader, under
    /// [`Overflow::Block`](crate::Overflow::Block) or
    /// [`Overflow::Rewind`](crate::Overflow::Rewind).
    ///
    /// A server may begin an operation later than it has read it, and many do by some microseconds,
    /// so that what it publishes right after this can still be missed. That it has begun is proven
    /// by an item alone, which is what [`with_snapshot`](Self::with_snapshot) takes into account.
    ///
    /// # Errors
    ///
    /// If the operation has ended otherwise, with the error that ends the stream. A stream whose
    /// end was not read yet still yields what it holds, and this error.
    pub async fn established(&mut self) -> Result<(), SubscriptionError> {
        self.probe();
        future::poll_fn(|cx| self.poll_established(cx)).await
    }

    /// Asks anew whether the server has the operation.
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

    /// Ready once nothing more arrives, though something may be held; `Ok` if the server has
    /// completed the operation.
    pub(crate) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<Result<(), SubscriptionError>> {
        self.or_ended(|| self.writer.mailbox.poll_over(cx))
    }

    /// Whether the next thing to read is an item; ready as soon as there is anything.
    pub(crate) fn poll_is_item(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
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

    /// Lets a socket go on that waits for this reader, which reads nothing for now: a gap takes the
    /// place of what it holds.
    pub(crate) fn give_way(&mut self) {
        if self.writer.mailbox.blocks() {
            self.discard();
        }
    }

    /// Drops what is held, and leaves a gap.
    pub(crate) fn discard(&mut self) {
        let discarded = self.writer.mailbox.discard(&mut self.batch) as u64;
        if discarded > 0 {
            self.connection.counters().dequeued(discarded);
            self.connection.counters().dropped(discarded);
            telemetry::overflowed(self.writer.id, discarded);
        }
        self.tell_released();
    }

    /// Tells the writer, if what it waited for has come.
    fn tell_released(&mut self) {
        if std::mem::take(&mut self.batch.released) {
            self.connection.command(Command::Released(self.writer.id));
        }
    }

    pub(crate) fn connection(&self) -> &Arc<ConnectionHandle> {
        &self.connection
    }

    /// Of no other operation of this client.
    pub(crate) fn id(&self) -> u64 {
        self.writer.id
    }
}

impl<T: DeserializeOwned> Subscription<T> {
    /// The next event; the same as `StreamExt::next`, without the import. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Event<T>, SubscriptionError>> {
        future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Yields only the data, for applications that need not know what was missed.
    ///
    /// Gaps and the like are left out, and errors that come with data, too. An item without data is
    /// [`SubscriptionError::NoData`], which does not end the stream.
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
        loop {
            let Self { writer, batch, .. } = &mut *self;
            let read = writer.mailbox.poll_read(batch, cx);
            self.tell_released();
            let Self { connection, repeats, .. } = &mut *self;
            let repeats = repeats.as_mut();
            let repeats = repeats.map(|it| it.get_mut().unwrap_or_else(PoisonError::into_inner));
            return Poll::Ready(match ready!(read) {
                Some(Read::Item(payload)) => {
                    connection.counters().dequeued(1);
                    let event =
                        decode(&payload).map(Event::Next).map_err(SubscriptionError::Decode);
                    connection.buffers().give_back(payload);
                    if let (Some(repeats), Ok(Event::Next(Response { data: Some(data), .. }))) =
                        (repeats, &event)
                        && (repeats.is_known)(data)
                    {
                        continue;
                    }
                    Some(event)
                }
                Some(Read::Gap(mut gap)) => {
                    if let Some(Repeats { has_missed, .. }) = repeats {
                        *has_missed |= gap.dropped > 0;
                        // An item that was never seen here may still come again, after newer ones.
                        if !*has_missed {
                            gap.overlaps = 0;
                        }
                    }
                    if gap.is_empty() {
                        continue;
                    }
                    Some(Ok(Event::Gap(gap)))
                }
                Some(Read::Stale(idle_for)) => Some(Ok(Event::Stale { idle_for })),
                Some(Read::End(end)) => {
                    let error = error(end, connection);
                    self.end = Some(Box::new(error.clone()));
                    error.map(Err)
                }
                None => None,
            });
        }
    }
}

impl<T: DeserializeOwned> FusedStream for Subscription<T> {
    fn is_terminated(&self) -> bool {
        self.end.is_some()
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

fn error(end: End, connection: &ConnectionHandle) -> Option<SubscriptionError> {
    Some(match end {
        // The latter three are of queries and mutations.
        End::Completed | End::Answered(_) | End::Ambiguous(_) | End::TimedOut => return None,
        End::Rejected(payload) => {
            SubscriptionError::Rejected(GraphQlError::read(payload.as_deref()))
        }
        End::Lost(cause) => SubscriptionError::Lost(cause),
        End::GaveUp { attempts, cause } => SubscriptionError::GaveUp { attempts, cause },
        End::Hook(error) => SubscriptionError::Hook(error),
        End::Overflow => SubscriptionError::Overflow,
        End::ShutDown if connection.counters().is_runtime_gone() => SubscriptionError::RuntimeGone,
        End::ShutDown => SubscriptionError::ShutDown,
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
    async fn the_buffer_of_an_item_that_was_read_is_used_for_another() {
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
    fn a_stream_can_be_sent_and_shared() {
        fn is_both<T: Send + Sync + Unpin>() {}
        is_both::<Subscription<u32>>();
    }
}
