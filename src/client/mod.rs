//! The client: a handle that sends commands to the drivers and never blocks.

pub(crate) mod builder;
pub(crate) mod call;
pub(crate) mod credentials;
pub(crate) mod driver;
#[cfg(feature = "network-watch")]
pub(crate) mod network;
pub(crate) mod pool;
pub(crate) mod snapshot;
pub(crate) mod subscription;
pub(crate) mod telemetry;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future;
use serde_json::value::RawValue;
use tokio::{runtime::Handle, sync::watch, time::Sleep};

use crate::{
    client::{
        builder::{ClientBuilder, MAX_DURATION},
        call::Call,
        driver::Command,
        pool::{Connected, ConnectionHandle, Pool},
        subscription::{Subscription, SubscriptionBuilder},
    },
    delivery::{
        mailbox::Limits,
        sharing::Replay,
        writer::{Hooks, Writer},
    },
    error::{NotConnected, SubscribeError},
    operation::{
        Operation, OperationType,
        document::{self, Documents},
    },
    session::{Stats, Status, WatchOptions},
};

/// A client of one server: a handle to its connection and the operations on it. Cheap to clone.
///
/// A client has one connection, unless [`connections`](ClientBuilder::connections) or
/// [`max_subscriptions_per_connection`](ClientBuilder::max_subscriptions_per_connection) is set.
/// Each [dedicated](SubscriptionBuilder::dedicated) subscription has one more. With several, the
/// documentation of "the connection" applies to each.
///
/// The client connects when the first operation starts, or on [`connect`](Self::connect). It closes
/// the connection when no operation was live for
/// [`idle_timeout`](ClientBuilder::idle_timeout), when the last clone, [`Subscription`] and
/// [`Call`] are dropped, or on [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    connections: Pool,
    next_id: AtomicU64,
    limits: Limits,
    max_message_size: usize,
    documents: Documents,
}

/// The backoff settings for retries in a reader's task.
pub(crate) struct Retries {
    /// The runtime of the client, because a reader may run without one.
    pub(crate) runtime: Handle,
    pub(crate) base: Duration,
    pub(crate) cap: Duration,
    pub(crate) seed: u64,
}

/// The options of an operation.
pub(crate) struct Plan {
    pub(crate) kind: OperationType,
    /// Whether the document is sent without a check.
    pub(crate) is_unchecked: bool,
    /// `None` for the limits of the client.
    pub(crate) limits: Option<Limits>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) watch_options: WatchOptions,
    pub(crate) hooks: Option<Hooks>,
    /// The preferred connection, which is used if it has room.
    pub(crate) near: Option<Arc<ConnectionHandle>>,
    /// `None` if the operation is not shared.
    pub(crate) sharing: Option<Replay>,
    /// Whether the operation gets a connection of its own.
    pub(crate) is_dedicated: bool,
}

impl Client {
    /// Returns a builder for a client of the server at `endpoint`, a `ws://` or `wss://` URL.
    /// `http://` and `https://` mean the same.
    pub fn builder(endpoint: impl AsRef<str>) -> ClientBuilder {
        ClientBuilder::new(endpoint.as_ref())
    }

    pub(crate) fn new(connections: Pool, limits: Limits, max_message_size: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                connections,
                next_id: AtomicU64::new(1),
                limits,
                max_message_size,
                documents: Documents::default(),
            }),
        }
    }

    /// Subscribes to an operation that `graphql_client` generated. Never blocks, and works offline:
    /// the client sends the operation once it is connected.
    ///
    /// # Errors
    ///
    /// Fails if the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn subscribe<Q: graphql_client::GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> Result<Subscription<Q::ResponseData>, SubscribeError> {
        self.subscription::<Q>(variables).start()
    }

    /// Like [`subscribe`](Self::subscribe), with options.
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn subscription<Q: graphql_client::GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> SubscriptionBuilder<crate::operation::Typed<Q>> {
        self.subscription_to(crate::operation::Typed::new(variables))
    }

    /// Subscribes to any operation, such as a [`Request`](crate::Request). Never blocks, and works
    /// offline: the client sends the operation once it is connected.
    ///
    /// # Errors
    ///
    /// Fails if the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    pub fn subscribe_to<O: Operation>(
        &self,
        operation: O,
    ) -> Result<Subscription<O::Data>, SubscribeError> {
        self.subscription_to(operation).start()
    }

    /// Like [`subscribe_to`](Self::subscribe_to), with options.
    pub fn subscription_to<O: Operation>(&self, operation: O) -> SubscriptionBuilder<O> {
        SubscriptionBuilder::new(self.clone(), operation, self.inner.limits)
    }

    /// Like [`subscribe`](Self::subscribe), but equal subscriptions of this client share one
    /// operation; see [`SubscriptionBuilder::shared`].
    ///
    /// # Errors
    ///
    /// Fails if the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn subscribe_shared<Q: graphql_client::GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> Result<Subscription<Q::ResponseData>, SubscribeError> {
        self.subscription::<Q>(variables).shared().start()
    }

    /// Like [`subscribe_to`](Self::subscribe_to), but equal subscriptions of this client share one
    /// operation; see [`SubscriptionBuilder::shared`].
    ///
    /// # Errors
    ///
    /// Fails if the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    pub fn subscribe_shared_to<O: Operation>(
        &self,
        operation: O,
    ) -> Result<Subscription<O::Data>, SubscribeError> {
        self.subscription_to(operation).shared().start()
    }

    /// Sends an operation to a driver. Returns its connection, and the writer whose mailbox gets
    /// the items.
    pub(crate) fn begin(
        &self,
        payload: Box<RawValue>,
        name: Option<&str>,
        plan: Plan,
    ) -> Result<(Arc<ConnectionHandle>, Arc<Writer>), SubscribeError> {
        let Inner { connections, next_id, limits, max_message_size: limit, documents } =
            &*self.inner;
        let Plan { kind, is_unchecked, timeout, watch_options, hooks, near, sharing, .. } = plan;
        let size = payload.get().len();
        if size > *limit {
            return Err(SubscribeError::TooLarge { size, limit: *limit });
        }
        if is_unchecked {
            document::check_shape(&payload)?;
        } else {
            documents.check(&payload, kind)?;
        }
        let connection = match sharing {
            None if plan.is_dedicated => connections.dedicate()?,
            None => connections.place(near.as_ref())?,
            Some(_) => connections.place_shared(payload.get())?,
        };
        let writer = Arc::new(Writer::new(
            next_id.fetch_add(1, Relaxed),
            plan.limits.unwrap_or(*limits),
            hooks,
        ));
        telemetry::subscribed(writer.id, name, connection.number());
        let (request, reader) = (payload.into(), Arc::clone(&writer));
        let command = match sharing {
            None => {
                let watch_options =
                    (watch_options != WatchOptions::default()).then(|| Box::new(watch_options));
                Command::Subscribe {
                    kind,
                    payload: request,
                    timeout: timeout.map(Box::new),
                    watch_options,
                    writer: reader,
                }
            }
            // The operation has its own id, because it may outlive the reader that started it.
            Some(replay) => {
                Command::Share { request, operation: next_id.fetch_add(1, Relaxed), replay, reader }
            }
        };
        connection.begin(command, &writer)?;
        Ok((connection, writer))
    }

    /// Like [`query_with`](Self::query_with), for a query that `graphql_client` generated.
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn query<Q: graphql_client::GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> Call<Q::ResponseData> {
        self.query_with(crate::operation::Typed::<Q>::new(variables))
    }

    /// Like [`mutate_with`](Self::mutate_with), for a mutation that `graphql_client` generated.
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn mutate<M: graphql_client::GraphQLQuery>(
        &self,
        variables: M::Variables,
    ) -> Call<M::ResponseData> {
        self.mutate_with(crate::operation::Typed::<M>::new(variables))
    }

    /// Runs a query, such as a [`Request`](crate::Request), when the returned [`Call`] is awaited.
    ///
    /// If the connection is lost before the result arrives, the client sends the query again. The
    /// client cannot check a persisted operation, which has no document: make sure that it is not a
    /// mutation.
    ///
    /// A document with a syntax error ends the call with
    /// [`CallError::NotSent`](crate::CallError::NotSent).
    #[expect(clippy::needless_pass_by_value, reason = "consistent with `subscribe_to`")]
    pub fn query_with<O: Operation>(&self, operation: O) -> Call<O::Data> {
        Call::new(self.clone(), OperationType::Query, &operation)
    }

    /// Runs a mutation when the returned [`Call`] is awaited.
    ///
    /// The client never sends it twice. If the connection is lost before the result arrives, the
    /// call fails with [`CallError::Ambiguous`](crate::CallError::Ambiguous).
    #[expect(clippy::needless_pass_by_value, reason = "consistent with `subscribe_to`")]
    pub fn mutate_with<O: Operation>(&self, operation: O) -> Call<O::Data> {
        Call::new(self.clone(), OperationType::Mutation, &operation)
    }

    /// Returns the status of the connection, and reports its changes. Intermediate values may be
    /// skipped.
    ///
    /// With several connections, this is the worst status: [`Waiting`](Status::Waiting), then
    /// [`Connecting`](Status::Connecting), then [`Open`](Status::Open). If several connections have
    /// the worst status, the oldest of them is shown. So `Open` means that every connection that is
    /// needed is open. The other statuses are shown only if no connection has a worse one.
    /// [`Stats::connections_open`] is the number of open connections.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.connections.status().clone()
    }

    /// Returns counters since the client was built, summed over all connections.
    pub fn stats(&self) -> Stats {
        self.inner.connections.stats()
    }

    /// Connects, even if there are no operations, and waits until the server has acknowledged the
    /// connection. Returns at once if it is already open.
    ///
    /// The client retries failed attempts as it does for operations. If no operation starts, it
    /// closes the connection after [`idle_timeout`](ClientBuilder::idle_timeout). Dropping the
    /// future does not end the attempt. With several [`connections`](ClientBuilder::connections),
    /// this opens all of them, but not the connections of
    /// [dedicated](SubscriptionBuilder::dedicated) subscriptions.
    ///
    /// # Errors
    ///
    /// Fails if the client gives up, for any of its connections; see [`NotConnected`]. The client
    /// stays usable unless it was shut down, so you may call this again.
    pub async fn connect(&self) -> Result<(), NotConnected> {
        all_connected(self.inner.connections.connect()).await
    }

    /// Replaces the connection without an outage, and waits until the new one is acknowledged. Use
    /// this if you know a reason that the client does not, such as new backends behind a load
    /// balancer.
    ///
    /// The client opens the new connection, with new credentials, while the old one continues. It
    /// then sends every subscription on the new connection as well, with the position of
    /// [`resume_with`](crate::SubscriptionBuilder::resume_with), and at
    /// [`reissue_rate`](ClientBuilder::reissue_rate) if that is set. For a while both connections
    /// carry a subscription, and its stream continues with the old one. The subscription moves
    /// when both have delivered the same two items in a row; with a position, when the new one
    /// delivers its first item; and after 10 s at the latest. The client completes it on the old
    /// connection, and closes that with 1000 when nothing is left on it. Queries and mutations stay
    /// where they were sent for up to 30 s.
    ///
    /// Where a subscription moves, its stream has a [`Gap`](crate::Gap) that counts
    /// [`overlaps`](crate::Gap::overlaps). Items from before the gap may repeat after it, unless
    /// [`dedupe_by`](crate::SubscriptionBuilder::dedupe_by) removes them. Its window must be large
    /// enough for the items of that time. The gap is [lossless](crate::Gap::is_lossless) unless the
    /// subscription has no position and moved only because the 10 s were over, or because the old
    /// connection was lost. Then the old connection may not have delivered every item. Two items in
    /// a row are no proof for a feed that repeats them, such as one that alternates between two
    /// values: give such a subscription a position, or items a number.
    ///
    /// If the new connection fails, the old one continues, and the client tries again with backoff.
    /// This method waits for that. Dropping the future does not end the attempt. Without a
    /// connection there is nothing to replace: this returns at once, or waits for an attempt that
    /// is already running.
    ///
    /// The client does the same before credentials expire
    /// ([`expires_at`](crate::Credentials::expires_at)), at
    /// [`max_connection_age`](ClientBuilder::max_connection_age), and when the server sends
    /// `connection_terminate`.
    ///
    /// # Errors
    ///
    /// Fails if the connection was lost meanwhile and the client gives up; see [`NotConnected`].
    pub async fn rotate(&self) -> Result<(), NotConnected> {
        all_connected(self.inner.connections.rotate()).await
    }

    /// Closes the connection with 1000, and does not connect again until [`resume`](Self::resume).
    /// Use this while an application is in the background.
    ///
    /// Streams stay alive and have a gap after the pause. Operations that start meanwhile wait. A
    /// mutation that was sent and has no result fails with
    /// [`CallError::Ambiguous`](crate::CallError::Ambiguous).
    pub fn pause(&self) {
        self.inner.connections.pause();
    }

    /// Ends a [`pause`](Self::pause), and connects if there are operations. Has no effect if the
    /// client is not paused.
    pub fn resume(&self) {
        self.inner.connections.resume();
    }

    /// Connects again without delay: ends the wait for a retry, or closes the current connection
    /// with 1000 and dials. With several connections, this replaces each of them.
    ///
    /// This skips the backoff, so do not call it in a loop. [`max_dials`](ClientBuilder::max_dials)
    /// still applies: while it allows no dial, the client keeps the current connection.
    pub fn reconnect_now(&self) {
        self.inner.connections.reconnect_now();
    }

    /// Tells the client that the network has changed or is back. If the client waits to retry, it
    /// retries at once. If it is connected, it pings the server at once and replaces the connection
    /// if nothing arrives within 2 s.
    ///
    /// With the feature `network-watch`, the client detects changes itself; see
    /// `ClientBuilder::watch_network`.
    ///
    /// The client also does this, without a call, after the machine was asleep for at least 30 s.
    /// But it notices the sleep only at the next ping or operation, and it does not end the wait
    /// for a retry.
    pub fn network_changed(&self) {
        self.inner.connections.network_changed();
    }

    /// Shuts the client down, including all of its clones.
    ///
    /// Every subscription ends with
    /// [`SubscriptionError::ShutDown`](crate::SubscriptionError::ShutDown) and every call with
    /// [`CallError::ShutDown`](crate::CallError::ShutDown), or, if it is a mutation that was sent,
    /// with [`CallError::Ambiguous`](crate::CallError::Ambiguous). The client completes the
    /// operations on the server and closes the connection with 1000. This method returns when the
    /// server has answered the close, or after `deadline`, which counts from now. If several calls
    /// set a deadline, the earliest applies.
    pub async fn shutdown(self, deadline: Duration) {
        self.inner.connections.shut_down(deadline.min(MAX_DURATION));
        // An error means that the driver has already ended.
        let _ = self.status().wait_for(|status| matches!(status, Status::Ended)).await;
    }
}

async fn all_connected(answers: Vec<Connected>) -> Result<(), NotConnected> {
    future::try_join_all(answers.into_iter().map(Connected::outcome)).await.map(drop)
}

impl Retries {
    #[expect(
        clippy::disallowed_methods,
        reason = "a reader has no session, so its delay needs its own timer"
    )]
    pub(crate) fn sleep(&self, delay: Duration) -> Pin<Box<Sleep>> {
        let _entered = self.runtime.enter();
        Box::pin(tokio::time::sleep(delay))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("status", &*self.inner.connections.status().borrow())
            .finish_non_exhaustive()
    }
}
