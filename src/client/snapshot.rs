//! A snapshot, then what is newer, and a snapshot again wherever something is missing.
//!
//! Owns the order of the two, and trying again. Knows a subscription and a call as their users do,
//! and nothing behind them.

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

/// What a [`SnapshotStream`] yields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Synced<S, T> {
    /// The state as the query returned it, with data: forget what came before.
    Snapshot(Response<S>),
    /// What came since. An item is newer than the last snapshot, as far as it has data to tell.
    Live(Event<T>),
}

/// A query's result, then what a subscription brings that is newer: a stream of [`Synced`], made by
/// [`Subscription::with_snapshot`].
///
/// Whoever applies all of it has what the server has, once an item was read; nothing is missed
/// between query and subscription. The query runs when the subscription is
/// [established](Subscription::established), and items that arrive meanwhile wait in the
/// subscription's queue. But a server may begin a subscription later than it has read it, so that
/// the query overtakes it: if no item had arrived before the query was sent, it runs once more at
/// the first that comes, which is the only proof that there is. After a [`Gap`](crate::Gap) that is
/// not [lossless](crate::Gap::is_lossless), a reconnect for one, all of this happens again, and
/// there is no item between the gap and the next snapshot.
///
/// Under [`Overflow::Latest`](crate::Overflow::Latest) and
/// [`latest_by`](crate::SubscriptionBuilder::latest_by) items must be values and not changes: one
/// that a newer one replaced is no reason for another snapshot.
///
/// Of several connections the query uses the subscription's own, as long as that may carry one more
/// operation: another may lead to another server, which may know less than this one has sent.
///
/// The [`capacity`](crate::SubscriptionBuilder::capacity) should hold what arrives while the query
/// runs: what it does not hold is a gap and so leads to yet another snapshot. That holds for
/// [`Overflow::Block`](crate::Overflow::Block), too, which would stall the query's own result and
/// therefore drops what it holds.
///
/// A query that fails is an error in the stream, and is tried again with the delays of
/// [`ClientBuilder::backoff`](crate::ClientBuilder::backoff); the subscription goes on. The stream
/// ends as the subscription does, also while a snapshot is waited for: with `None` after one more
/// snapshot and the items that it held when the server has completed it (should that last query
/// fail, with a gap in their place), else at once with the error. Dropping the stream cancels both.
#[must_use = "dropping it cancels the subscription"]
pub struct SnapshotStream<S, T> {
    subscription: Subscription<T>,
    query: Box<dyn FnMut() -> Call<S> + Send>,
    newer: Box<dyn Newer<S, T>>,
    backoff: Backoff,
    rng: Rng,
    state: State<S>,
    /// An item has come since the operation was sent the last time, before the query: the server
    /// had begun it.
    has_begun: bool,
}

enum State<S> {
    /// The server may not have read the operation yet.
    Subscribing,
    /// It has.
    Querying(Call<S>),
    /// The query has failed.
    Waiting(Pin<Box<Sleep>>),
    /// The snapshot was read.
    Live,
    Over,
}

impl<T: DeserializeOwned> Subscription<T> {
    /// Yields the result of a query first, then what is newer, and again after everything that was
    /// missed.
    ///
    /// `position` says how far a snapshot reaches: a version, the time or number of the last event,
    /// or a map of those. `is_newer` says whether an item is of later; others are left out, as the
    /// snapshot has them. Items without data are always yielded.
    ///
    /// See [`SnapshotStream`] for what it promises, and what to watch out for.
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
    ///         Err(error) => eprintln!("{error}"), // tried again
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
    /// The next of both; the same as `StreamExt::next`, without the import. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Synced<S, T>, SnapshotError>> {
        future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// On the subscription's own connection: another may lead to another server, which knows less.
    fn query(&mut self) -> State<S> {
        State::Querying((self.query)().near(self.subscription.connection()))
    }

    /// Begins again: what is held by now is read after the snapshot.
    fn restart(&mut self) {
        self.subscription.probe();
        self.state = State::Subscribing;
    }

    fn fail(&mut self, error: SnapshotError, cx: &mut Context<'_>) -> SnapshotError {
        if self.subscription.poll_over(cx).is_ready() {
            // Nothing will come that would be worth another try, and without a snapshot nobody
            // knows what the rest means.
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
                    // The last try: there is nothing left to wait for.
                    Poll::Ready(Ok(())) => this.restart(),
                    Poll::Pending => {
                        this.subscription.give_way();
                        ready!(sleep.as_mut().poll(cx));
                        this.restart();
                    }
                },
                // What was published before this item, but after the query and before the
                // subscription, is in neither.
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
                            // What was only dropped had come.
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

/// Which items the last snapshot lacks.
trait Newer<S, T>: Send {
    fn begin(&mut self, snapshot: &S);

    fn is_newer(&mut self, item: &T) -> bool;
}

struct Since<F, G, P> {
    position: F,
    is_newer: G,
    /// Of the last snapshot.
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
