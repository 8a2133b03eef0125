//! The handle: sends commands to the driver and never blocks.

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

/// A client of one server: a handle to its connection and everything subscribed on it. Cheap to
/// clone.
///
/// There is one connection unless [`connections`](ClientBuilder::connections) or
/// [`max_subscriptions_per_connection`](ClientBuilder::max_subscriptions_per_connection) say
/// otherwise; what is said here of the connection is then true of each.
///
/// The connection is made when the first operation is started, or by [`connect`](Self::connect). It
/// is closed when nothing was live on it for [`idle_timeout`](ClientBuilder::idle_timeout), when
/// the last clone, the last [`Subscription`] and the last [`Call`] are dropped, or by
/// [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    connections: Pool,
    next_id: AtomicU64,
    limits: Limits,
    max_message_size: usize,
    documents: Documents,
}

/// What delays are made of where a reader tries again.
pub(crate) struct Retries {
    /// The client's, as a reader need not have one.
    pub(crate) runtime: Handle,
    pub(crate) base: Duration,
    pub(crate) cap: Duration,
    pub(crate) seed: u64,
}

/// How an operation is to run.
pub(crate) struct Plan {
    pub(crate) kind: OperationType,
    /// Whether the document is sent as it is.
    pub(crate) is_unchecked: bool,
    /// The client's where there are none.
    pub(crate) limits: Option<Limits>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) watch_options: WatchOptions,
    pub(crate) hooks: Option<Hooks>,
    /// Of an operation that it is to share a connection with, if that has room.
    pub(crate) near: Option<Arc<ConnectionHandle>>,
    /// `None` for an operation of its own.
    pub(crate) sharing: Option<Replay>,
}

impl Client {
    /// Options for a client of the server at `endpoint`: `ws://` or `wss://`; `http://` and
    /// `https://` mean the same.
    pub fn builder(endpoint: impl AsRef<str>) -> ClientBuilder {
        ClientBuilder::new(endpoint.as_ref())
    }

    pub(crate) fn new(connections: Pool, limits: Limits, max_message_size: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                connections,
                next_id: AtomicU64::new(1),
                limits,
                max_message_size,
                documents: Documents::default(),
            }),
        }
    }

    /// Subscribes to an operation that `graphql_client` generated. Never blocks; works offline,
    /// too: the operation is sent once there is a connection.
    ///
    /// # Errors
    ///
    /// If the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn subscribe<Q: graphql_client::GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> Result<Subscription<Q::ResponseData>, SubscribeError> {
        self.subscription::<Q>(variables).start()
    }

    /// As [`subscribe`](Self::subscribe), with options.
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn subscription<Q: graphql_client::GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> SubscriptionBuilder<crate::operation::Typed<Q>> {
        self.subscription_to(crate::operation::Typed::new(variables))
    }

    /// Subscribes to any operation, such as a [`Request`](crate::Request). Never blocks; works
    /// offline, too.
    ///
    /// # Errors
    ///
    /// If the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    pub fn subscribe_to<O: Operation>(
        &self,
        operation: O,
    ) -> Result<Subscription<O::Data>, SubscribeError> {
        self.subscription_to(operation).start()
    }

    /// As [`subscribe_to`](Self::subscribe_to), with options.
    pub fn subscription_to<O: Operation>(&self, operation: O) -> SubscriptionBuilder<O> {
        SubscriptionBuilder::new(self.clone(), operation, self.shared.limits)
    }

    /// As [`subscribe`](Self::subscribe), but equal subscriptions of this client are one operation:
    /// [`SubscriptionBuilder::shared`].
    ///
    /// # Errors
    ///
    /// If the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn subscribe_shared<Q: graphql_client::GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> Result<Subscription<Q::ResponseData>, SubscribeError> {
        self.subscription::<Q>(variables).shared().start()
    }

    /// As [`subscribe_to`](Self::subscribe_to), but equal subscriptions of this client are one
    /// operation: [`SubscriptionBuilder::shared`].
    ///
    /// # Errors
    ///
    /// If the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    pub fn subscribe_shared_to<O: Operation>(
        &self,
        operation: O,
    ) -> Result<Subscription<O::Data>, SubscribeError> {
        self.subscription_to(operation).shared().start()
    }

    /// Hands an operation to a driver. Returns the connection that carries it, and where its items
    /// will be.
    pub(crate) fn begin(
        &self,
        payload: Box<RawValue>,
        name: Option<&str>,
        plan: Plan,
    ) -> Result<(Arc<ConnectionHandle>, Arc<Writer>), SubscribeError> {
        let Shared { connections, next_id, limits, max_message_size: limit, documents } =
            &*self.shared;
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
                    timeout,
                    watch_options,
                    writer: reader,
                }
            }
            // The operation has a number of its own, as it may outlive the one who began it.
            Some(replay) => {
                Command::Share { request, operation: next_id.fetch_add(1, Relaxed), replay, reader }
            }
        };
        connection.begin(command, &writer)?;
        Ok((connection, writer))
    }

    /// As [`query_with`](Self::query_with), of a query that `graphql_client` generated.
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn query<Q: graphql_client::GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> Call<Q::ResponseData> {
        self.query_with(crate::operation::Typed::<Q>::new(variables))
    }

    /// As [`mutate_with`](Self::mutate_with), of a mutation that `graphql_client` generated.
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
    /// It is sent again if the connection is lost before the result came. A persisted operation,
    /// without a document, is taken at its word: see that it is no mutation. A document that is not
    /// GraphQL ends the call with [`CallError::NotSent`](crate::CallError::NotSent).
    #[expect(clippy::needless_pass_by_value, reason = "as `subscribe_to` takes it")]
    pub fn query_with<O: Operation>(&self, operation: O) -> Call<O::Data> {
        Call::new(self.clone(), OperationType::Query, &operation)
    }

    /// Runs a mutation when the returned [`Call`] is awaited.
    ///
    /// It is never sent twice: when the connection is lost before the result came, the call ends
    /// with [`CallError::Ambiguous`](crate::CallError::Ambiguous).
    #[expect(clippy::needless_pass_by_value, reason = "as `subscribe_to` takes it")]
    pub fn mutate_with<O: Operation>(&self, operation: O) -> Call<O::Data> {
        Call::new(self.clone(), OperationType::Mutation, &operation)
    }

    /// The connection's status, now and as it changes. Intermediate values may be skipped.
    ///
    /// Of several connections the worst is shown: one that is [`Waiting`](Status::Waiting), else
    /// one that is [`Connecting`](Status::Connecting), else one that is [`Open`](Status::Open); of
    /// equals always that which was made first. So `Open` means that all that are needed are. The
    /// others are shown when they hold for all. [`Stats::connections_open`] says how many are open.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.connections.status().clone()
    }

    /// Counts since the client was built, of all connections together.
    pub fn stats(&self) -> Stats {
        self.shared.connections.stats()
    }

    /// Connects, also when nothing is subscribed, and returns once the server has acknowledged.
    /// Works at once if it has.
    ///
    /// Attempts are repeated as for operations. A connection on which nothing is started is closed
    /// after [`idle_timeout`](ClientBuilder::idle_timeout). Dropping the future does not end the
    /// attempt. Of several [`connections`](ClientBuilder::connections) all are made.
    ///
    /// # Errors
    ///
    /// If no connection is to be had, or not all of several; see [`NotConnected`]. The client stays
    /// usable unless it was shut down.
    pub async fn connect(&self) -> Result<(), NotConnected> {
        all_connected(self.shared.connections.connect()).await
    }

    /// Moves to another connection without an outage, and returns once that is acknowledged and
    /// every subscription is on its way there, at [`reissue_rate`](ClientBuilder::reissue_rate) if
    /// that is set: for what an application knows that the client does not, such as that a balancer
    /// has new backends.
    ///
    /// The new connection is opened, with credentials of its own, while the one before goes on.
    /// Every subscription is sent there, with the position of
    /// [`resume_with`](crate::SubscriptionBuilder::resume_with), and goes on where it was until
    /// both have brought the same two items in a row; one for which nothing comes for 2 s, one to
    /// which the two never say the same for 10 s, and one with a position until it runs. Then it is
    /// completed on the connection before, which is closed with 1000 when nothing is left on it.
    /// Calls stay where they were sent for up to 30 s.
    ///
    /// A stream has first what came on the one connection, then what came on the other, and no gap:
    /// nothing is lost, unless a server is later than these 10 s with what it sends on the
    /// connection before, or a feed repeats itself so closely that two items say nothing. What came
    /// on both comes twice, after a [`Gap`](crate::Gap) that counts
    /// [`overlaps`](crate::Gap::overlaps), unless
    /// [`dedupe_by`](crate::SubscriptionBuilder::dedupe_by) removes it; its window is to hold what
    /// comes in that time.
    ///
    /// If the new connection fails, the one before goes on, and another attempt follows with
    /// backoff, for which this waits, too. Dropping the future does not end the attempt. Without a
    /// connection there is nothing to replace: this returns at once, or with the connection that is
    /// being made.
    ///
    /// The same happens ahead of the end of credentials
    /// ([`expires_at`](crate::Credentials::expires_at)), after
    /// [`max_connection_age`](ClientBuilder::max_connection_age), and when the server says
    /// `connection_terminate`.
    ///
    /// # Errors
    ///
    /// If the connection was lost meanwhile and no other is to be had; see [`NotConnected`].
    pub async fn rotate(&self) -> Result<(), NotConnected> {
        all_connected(self.shared.connections.rotate()).await
    }

    /// Closes the connection with 1000, and makes no other until [`resume`](Self::resume): for an
    /// application in the background. Streams stay, and see a gap then; operations that are started
    /// meanwhile wait. A mutation whose result is out ends as
    /// [`CallError::Ambiguous`](crate::CallError::Ambiguous).
    pub fn pause(&self) {
        self.shared.connections.pause();
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.shared.connections.resume();
    }

    /// Makes a new connection now: ends the retry sleep, if the client is in one, or closes the
    /// connection that there is with
    /// 1000. Of several, each is replaced, so that is one dial for each.
    ///
    /// Delays are skipped, so do not call it in a loop; [`max_dials`](ClientBuilder::max_dials)
    /// holds all the same, and while it allows no other connection the one that there is stays.
    pub fn reconnect_now(&self) {
        self.shared.connections.reconnect_now();
    }

    /// Tells the client that the network is another one, or is back: ends the retry sleep, or asks
    /// the server at once whether the connection still works, and makes another if nothing arrives
    /// within 2 s.
    ///
    /// With the feature `network-watch` the client finds out by itself:
    /// `ClientBuilder::watch_network`.
    ///
    /// After a sleep of the machine of 30 s or more a connection is asked so without this call, but
    /// not before the next ping or the next call, and a retry sleep goes on where it was.
    pub fn network_changed(&self) {
        self.shared.connections.network_changed();
    }

    /// Ends every subscription with
    /// [`SubscriptionError::ShutDown`](crate::SubscriptionError::ShutDown) and every call with
    /// [`CallError::ShutDown`](crate::CallError::ShutDown), or a mutation that was sent with
    /// [`CallError::Ambiguous`](crate::CallError::Ambiguous); completes the operations on the
    /// server, closes the connection with 1000, and returns once the server has answered that or
    /// `deadline` has passed. Other clones of the client are shut down with it; of several
    /// deadlines the earliest counts.
    pub async fn shutdown(self, deadline: Duration) {
        self.shared.connections.shut_down(deadline.min(MAX_DURATION));
        // An error means that the driver is gone, which is as good.
        let _ = self.status().wait_for(|status| matches!(status, Status::Ended)).await;
    }
}

async fn all_connected(answers: Vec<Connected>) -> Result<(), NotConnected> {
    future::try_join_all(answers.into_iter().map(Connected::outcome)).await.map(drop)
}

impl Retries {
    #[expect(
        clippy::disallowed_methods,
        reason = "the session times what is its own; a reader's own delay is not"
    )]
    pub(crate) fn sleep(&self, delay: Duration) -> Pin<Box<Sleep>> {
        let _entered = self.runtime.enter();
        Box::pin(tokio::time::sleep(delay))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("status", &*self.shared.connections.status().borrow())
            .finish_non_exhaustive()
    }
}
