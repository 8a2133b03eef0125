//! Combines a snapshot with newer items, and takes a new snapshot after a loss.
//!
//! Owns the order of snapshots and items, and retries of the query. Must only use the public
//! behaviour of a subscription and a call.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use fastrand::Rng;
use futures::{Stream, future, stream::FusedStream};
use serde::de::DeserializeOwned;
use tokio::time::Sleep;

use crate::{
    client::{
        call::Call,
        subscription::{Event, Subscription},
    },
    error::{SnapshotError, SubscriptionError},
    response::Response,
    session::Backoff,
};

/// An element of a [`SnapshotStream`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Synced<S, T> {
    /// The state that the query returned, always with data. Discard everything before it.
    Snapshot(Response<S>),
    /// An event of the subscription. An item with data is newer than the last snapshot.
    Live(Event<T>),
}

/// A stream of a query's result and the newer items of a subscription, as [`Synced`]. Created by
/// [`Subscription::with_snapshot`].
///
/// A reader that applies every element has the server's state from the first item on. No change is
/// lost between the query and the subscription. The query runs when the subscription is
/// [established](Subscription::established), and items that arrive meanwhile wait in the
/// subscription's queue.
///
/// A server may start a subscription some time after it has read the request, and the query may
/// overtake it. Only an item proves that the subscription has started. So if no item arrived before
/// the query was sent, the query runs again when the first item arrives.
///
/// After a [`Gap`](crate::Gap) that is not [lossless](crate::Gap::is_lossless), such as after a
/// reconnect, the stream starts over. It yields no item between the gap and the next snapshot.
///
/// With [`Overflow::Latest`](crate::Overflow::Latest) and
/// [`latest_by`](crate::SubscriptionBuilder::latest_by), items must be values and not changes,
/// because a replaced item does not cause another snapshot.
///
/// With several connections, the query uses the subscription's connection as long as that has room.
/// Another connection may lead to another server, whose state may be older than the items. The
/// query of a [dedicated](crate::SubscriptionBuilder::dedicated) subscription always uses another
/// one.
///
/// The [`capacity`](crate::SubscriptionBuilder::capacity) should suffice for the items that arrive
/// while the query runs. If it does not, the loss is a gap, which causes another snapshot. This
/// includes [`Overflow::Block`](crate::Overflow::Block): waiting would block the query's own
/// result, so the stream drops the waiting items. On a dedicated connection it does not: there the
/// items wait.
///
/// A query that fails yields an error, and the stream retries it with the delays of
/// [`ClientBuilder::backoff`](crate::ClientBuilder::backoff). The subscription continues meanwhile.
///
/// The stream ends when the subscription ends. If the subscription ends with an error, the stream
/// yields it at once, even while it waits for a snapshot. If the server completes the subscription,
/// the stream yields one more snapshot and the items that still wait, then `None`. If that last
/// query fails, a gap takes the place of these items. Dropping the stream cancels both operations.
#[must_use = "dropping it cancels the subscription"]
pub struct SnapshotStream<S, T> {
    subscription: Subscription<T>,
    query: Box<dyn FnMut() -> Call<S> + Send>,
    newer: Box<dyn Newer<S, T>>,
    backoff: Backoff,
    rng: Rng,
    state: State<S>,
    /// Whether an item has arrived since the operation was last sent and before the query. It
    /// proves that the server had started the operation.
    has_begun: bool,
}

enum State<S> {
    /// Waits until the server has read the operation.
    Subscribing,
    /// Waits for the result of the query.
    Querying(Call<S>),
    /// Waits to retry a query that failed.
    Waiting(Pin<Box<Sleep>>),
    /// Yields items that are newer than the snapshot.
    Live,
    Over,
}

impl<T: DeserializeOwned> Subscription<T> {
    /// Yields the result of a query first, then newer items, and starts over after every loss.
    ///
    /// `position` returns the position of a snapshot: a version, the time or number of the last
    /// event, or a map of those. `is_newer` returns whether an item is newer than that position.
    /// The stream leaves out other items with data, because the snapshot contains them.
    ///
    /// See [`SnapshotStream`] for the guarantees and limits.
    ///
    /// ```no_run
    /// # use resub::{Client, Event, Request, Synced};
    /// # use serde_json::Value;
    /// # async fn doc(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let request = Request::<Value>::new("subscription { stock { version change } }");
    /// let updates = client.subscribe_to(request)?;
    /// let mut stock = updates.with_snapshot(
    ///     move || client.query_with(Request::<Value>::new("{ stock { version amount } }")),
    ///     |snapshot| snapshot["stock"]["version"].as_u64(),
    ///     |version, item| item["stock"]["version"].as_u64() > *version,
    /// );
    /// while let Some(synced) = stock.next().await {
    ///     match synced {
    ///         Ok(Synced::Snapshot(snapshot)) => println!("begin with {:?}", snapshot.data),
    ///         Ok(Synced::Live(Event::Next(item))) => println!("apply {:?}", item.data),
    ///         Ok(_) => {} // a gap: a snapshot follows if it is needed
    ///         Err(error) if error.is_terminal() => return Err(error.into()),
    ///         Err(error) => eprintln!("{error}"), // the stream retries the query
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_snapshot<S, P>(
        self,
        query: impl FnMut() -> Call<S> + Send + 'static,
        position: impl FnMut(&S) -> P + Send + 'static,
        is_newer: impl FnMut(&P, &T) -> bool + Send + 'static,
    ) -> SnapshotStream<S, T>
    where
        S: DeserializeOwned,
        P: Send + 'static,
    {
        self.probe();
        let retries = self.connection().retries();
        SnapshotStream {
            backoff: Backoff::new(retries.base, retries.cap),
            rng: Rng::with_seed(retries.seed.wrapping_add(self.id())),
            subscription: self,
            query: Box::new(query),
            newer: Box::new(Since { position, is_newer, last: None }),
            state: State::Subscribing,
            has_begun: false,
        }
    }
}

impl<S: DeserializeOwned, T: DeserializeOwned> SnapshotStream<S, T> {
    /// Returns the next element, like `StreamExt::next` without the import. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Synced<S, T>, SnapshotError>> {
        future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Starts the query on the subscription's connection, because another connection may lead to
    /// another server, whose state may be older.
    fn query(&mut self) -> State<S> {
        State::Querying((self.query)().near(self.subscription.connection()))
    }

    /// Starts over. Items that wait in the queue are read after the snapshot.
    fn restart(&mut self) {
        self.subscription.probe();
        self.state = State::Subscribing;
    }

    fn fail(&mut self, error: SnapshotError, cx: &mut Context<'_>) -> SnapshotError {
        if self.subscription.poll_over(cx).is_ready() {
            // No item will follow that would justify another try, and the waiting items mean
            // nothing without a snapshot.
            self.subscription.discard();
            self.state = State::Live;
        } else {
            let delay = self.backoff.next(&mut self.rng, std::time::Duration::ZERO);
            self.state = State::Waiting(self.subscription.connection().retries().sleep(delay));
        }
        error
    }

    fn end(&mut self, error: SubscriptionError) -> SnapshotError {
        self.state = State::Over;
        SnapshotError::Subscription(error)
    }
}

impl<S: DeserializeOwned, T: DeserializeOwned> Stream for SnapshotStream<S, T> {
    type Item = Result<Synced<S, T>, SnapshotError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Subscribing => match ready!(this.subscription.poll_established(cx)) {
                    Ok(()) => {
                        this.has_begun |= this.subscription.poll_is_item(cx) == Poll::Ready(true);
                        this.state = this.query();
                    }
                    Err(error) => return Poll::Ready(Some(Err(this.end(error)))),
                },
                State::Querying(call) => {
                    if let Poll::Ready(Err(error)) = this.subscription.poll_over(cx) {
                        return Poll::Ready(Some(Err(this.end(error))));
                    }
                    this.subscription.give_way();
                    let result = ready!(Pin::new(call).poll(cx));
                    return Poll::Ready(Some(match result {
                        Ok(Response { data: Some(data), errors, extensions }) => {
                            this.newer.begin(&data);
                            this.backoff.reset();
                            this.state = State::Live;
                            Ok(Synced::Snapshot(Response { data: Some(data), errors, extensions }))
                        }
                        Ok(Response { data: None, errors, .. }) => {
                            Err(this.fail(SnapshotError::NoData(errors), cx))
                        }
                        Err(error) => Err(this.fail(SnapshotError::Query(error), cx)),
                    }));
                }
                State::Waiting(sleep) => match this.subscription.poll_over(cx) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(this.end(error)))),
                    // The subscription has ended, so the last try need not wait.
                    Poll::Ready(Ok(())) => this.restart(),
                    Poll::Pending => {
                        this.subscription.give_way();
                        ready!(sleep.as_mut().poll(cx));
                        this.restart();
                    }
                },
                // Changes that were published after the query and before the server started the
                // subscription are in neither.
                State::Live if !this.has_begun && ready!(this.subscription.poll_is_item(cx)) => {
                    this.has_begun = true;
                    this.state = this.query();
                }
                State::Live => match ready!(Pin::new(&mut this.subscription).poll_next(cx)) {
                    Some(Ok(Event::Next(Response { data: Some(data), .. })))
                        if !this.newer.is_newer(&data) => {}
                    Some(Ok(event)) => {
                        if let Event::Gap(gap) = &event
                            && !gap.is_lossless()
                        {
                            // If items were only dropped, the server had started the operation.
                            this.has_begun = gap.times_sent() == 0;
                            this.restart();
                        }
                        return Poll::Ready(Some(Ok(Synced::Live(event))));
                    }
                    Some(Err(error)) if error.is_terminal() => {
                        return Poll::Ready(Some(Err(this.end(error))));
                    }
                    Some(Err(error)) => {
                        return Poll::Ready(Some(Err(SnapshotError::Subscription(error))));
                    }
                    None => this.state = State::Over,
                },
                State::Over => return Poll::Ready(None),
            }
        }
    }
}

impl<S: DeserializeOwned, T: DeserializeOwned> FusedStream for SnapshotStream<S, T> {
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Over)
    }
}

impl<S, T> fmt::Debug for SnapshotStream<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Subscribing => "subscribing",
            State::Querying(_) => "querying",
            State::Waiting(_) => "waiting",
            State::Live => "live",
            State::Over => "over",
        };
        f.debug_struct("SnapshotStream")
            .field("subscription", &self.subscription)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

/// Decides which items the last snapshot does not contain.
trait Newer<S, T>: Send {
    fn begin(&mut self, snapshot: &S);

    fn is_newer(&mut self, item: &T) -> bool;
}

struct Since<F, G, P> {
    position: F,
    is_newer: G,
    /// The position of the last snapshot.
    last: Option<P>,
}

impl<S, T, P, F, G> Newer<S, T> for Since<F, G, P>
where
    F: FnMut(&S) -> P + Send,
    G: FnMut(&P, &T) -> bool + Send,
    P: Send,
{
    fn begin(&mut self, snapshot: &S) {
        self.last = Some((self.position)(snapshot));
    }

    fn is_newer(&mut self, item: &T) -> bool {
        self.last.as_ref().is_none_or(|last| (self.is_newer)(last, item))
    }
}
