//! A subscription as its reader sees it: a stream of events with a typed end.
//!
//! Owns decoding, in the reader's task. Knows the mailbox and nothing behind it.

use std::{
    fmt,
    marker::PhantomData,
    num::NonZeroUsize,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt, future, stream::FusedStream};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::{
    buffers::Buffers,
    client::Client,
    driver::{Command, Sink},
    error::{SubscribeError, SubscriptionError},
    mailbox::{Batch, Gap, Limits, Overflow, Read},
    operation::Operation,
    protocol::Payload,
    response::{GraphQlError, Response, decode},
    session::End,
    telemetry::Counters,
};

/// What a subscription yields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<T> {
    /// An item.
    Next(Response<T>),
    /// Something is, or may be, missing here.
    Gap(Gap),
}

/// A live operation: a stream of [`Event`]s.
///
/// It survives reconnects: the operation is sent again on every new connection, and an [`Event::Gap`] marks the place.
/// The stream ends with `None` when the server completed the operation, and otherwise with one error for which
/// [`is_terminal`](SubscriptionError::is_terminal) holds, then `None`.
///
/// Items are decoded when they are read, so what an overflow policy drops costs nothing. Dropping the stream cancels the
/// operation on the server.
#[must_use = "dropping a subscription cancels it"]
pub struct Subscription<T> {
    sink: Sink,
    batch: Batch<Payload>,
    commands: mpsc::UnboundedSender<Command>,
    counters: Arc<Counters>,
    buffers: Arc<Buffers>,
    /// The end was read.
    over: bool,
    data: PhantomData<fn() -> T>,
}

/// Options of one subscription; made by [`Client::subscription_to`].
#[derive(Debug)]
#[must_use = "a subscription begins with `start`"]
pub struct SubscriptionBuilder<O> {
    client: Client,
    operation: O,
    limits: Limits,
}

impl<O: Operation> SubscriptionBuilder<O> {
    pub(crate) fn new(client: Client, operation: O, limits: Limits) -> Self {
        Self { client, operation, limits }
    }

    /// Sets what happens to an item for which there is no room. Default: what the client was built with, else
    /// [`Overflow::DropOldest`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.limits.overflow = overflow;
        self
    }

    /// Sets how many undelivered items the subscription may hold. Default: what the client was built with, else 1024.
    ///
    /// What happens to the next item is decided by [`overflow`](Self::overflow). A stream that is read takes
    /// up to 32 items at once, and at most an eighth of the capacity; those are held besides.
    pub fn capacity(mut self, items: NonZeroUsize) -> Self {
        self.limits.items = items;
        self
    }

    /// Sets how many bytes of undelivered items the subscription may hold. Default: what the client was built with,
    /// else 16 MiB. A larger item is held alone. As with [`capacity`](Self::capacity), an eighth may be held besides; and as
    /// buffers are used again, they may be twice as large as their items and 1 KiB more.
    pub fn capacity_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// Begins. Never blocks; works offline, too: the operation is sent once there is a connection.
    ///
    /// # Errors
    ///
    /// If the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    pub fn start(self) -> Result<Subscription<O::Data>, SubscribeError> {
        let Self { client, operation, limits } = self;
        let payload = operation.payload().map_err(SubscribeError::Serialize)?;
        client.start(payload, operation.name(), limits)
    }
}

impl<T> Subscription<T> {
    pub(crate) fn new(
        sink: Sink,
        commands: mpsc::UnboundedSender<Command>,
        counters: Arc<Counters>,
        buffers: Arc<Buffers>,
    ) -> Self {
        Self { sink, batch: Batch::new(), commands, counters, buffers, over: false, data: PhantomData }
    }
}

impl<T: DeserializeOwned> Subscription<T> {
    /// The next event; the same as `StreamExt::next`, without the import. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Event<T>, SubscriptionError>> {
        future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Only the data, for those who do not care what was missed.
    ///
    /// Gaps are left out, and errors that come with data, too. An item without data is
    /// [`SubscriptionError::NoData`], which does not end the stream.
    pub fn data(self) -> impl Stream<Item = Result<T, SubscriptionError>> + Unpin {
        self.filter_map(|event| {
            future::ready(match event {
                Ok(Event::Next(Response { data: Some(data), .. })) => Some(Ok(data)),
                Ok(Event::Next(Response { data: None, errors, .. })) => Some(Err(SubscriptionError::NoData(errors))),
                Ok(Event::Gap(_)) => None,
                Err(error) => Some(Err(error)),
            })
        })
    }
}

impl<T: DeserializeOwned> Stream for Subscription<T> {
    type Item = Result<Event<T>, SubscriptionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { sink, batch, .. } = &mut *self;
        let read = ready!(sink.mailbox.poll_read(batch, cx));
        if let Some(Read::Item(_)) = read {
            self.counters.dequeued(1);
        }
        Poll::Ready(match read {
            Some(Read::Item(payload)) => {
                let event = decode(&payload).map(Event::Next).map_err(SubscriptionError::Decode);
                self.buffers.give_back(payload.into_frame());
                Some(event)
            }
            Some(Read::Gap(gap)) => Some(Ok(Event::Gap(gap))),
            Some(Read::End(end)) => {
                self.over = true;
                error(end).map(Err)
            }
            None => None,
        })
    }
}

impl<T: DeserializeOwned> FusedStream for Subscription<T> {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let unread = self.sink.mailbox.close(&mut self.batch);
        self.counters.dequeued(unread as u64);
        if !self.over {
            // The driver may be gone; so is the operation then.
            let _ = self.commands.send(Command::Cancel(self.sink.id));
        }
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.sink.id).field("over", &self.over).finish_non_exhaustive()
    }
}

fn error(end: End) -> Option<SubscriptionError> {
    Some(match end {
        // The latter three are of queries and mutations.
        End::Completed | End::Answered(_) | End::Ambiguous(_) | End::TimedOut => return None,
        End::Rejected(payload) => SubscriptionError::Rejected(GraphQlError::read(payload.as_deref())),
        End::Lost(cause) => SubscriptionError::Lost(cause),
        End::GaveUp { attempts, cause } => SubscriptionError::GaveUp { attempts, cause },
        End::Overflow => SubscriptionError::Overflow,
        End::ShutDown => SubscriptionError::ShutDown,
    })
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::{buffers::Stock, mailbox::Mailbox};

    #[test]
    fn the_buffer_of_an_item_that_was_read_is_used_for_another() {
        let limit = NonZeroUsize::MAX;
        let limits = Limits { items: limit, bytes: limit, overflow: Overflow::DropOldest };
        let sink = Sink { id: 1, mailbox: Arc::new(Mailbox::new(limits)) };
        let buffers = Arc::new(Buffers::default());
        let mut frame = String::with_capacity(500);
        frame.push_str(r#"{"data":1}"#);
        let (_, waker) = sink.mailbox.push(Payload::new(frame, 0..10), 10);
        assert!(waker.is_none());
        let mut stream =
            Subscription::<u32>::new(sink, mpsc::unbounded_channel().0, Arc::default(), Arc::clone(&buffers));
        let read = stream.poll_next_unpin(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(read, Poll::Ready(Some(Ok(Event::Next(Response { data: Some(1), .. }))))));
        assert_eq!(Stock::default().copy("again", &buffers).capacity(), 500);
    }
}
