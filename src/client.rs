//! The handle: sends commands to the driver and never blocks.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::value::RawValue;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::Sleep,
};

use crate::{
    buffers::Buffers,
    builder::{ClientBuilder, MAX_DURATION},
    call::Call,
    driver::Command,
    error::{NotConnected, SubscribeError},
    mailbox::Limits,
    operation::{self, Operation, OperationType},
    session::{Care, End},
    shared::Replay,
    sink::{Hooks, Sink},
    status::{Stats, Status},
    subscription::{Subscription, SubscriptionBuilder},
    telemetry::{self, Counters},
};

/// A client of one server: a handle to its connection and everything subscribed on it. Cheap to clone.
///
/// The connection is made when the first operation is started, or by [`connect`](Self::connect). It is closed when nothing was live
/// on it for [`idle_timeout`](ClientBuilder::idle_timeout), when the last clone, the last [`Subscription`] and the last [`Call`] are dropped, or by [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<Status>,
    counters: Arc<Counters>,
    buffers: Arc<Buffers>,
    next_id: AtomicU64,
    limits: Limits,
    max_message_size: usize,
    retries: Retries,
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
    /// The client's where there are none.
    pub(crate) limits: Option<Limits>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) care: Care,
    pub(crate) hooks: Option<Hooks>,
    /// `None` for an operation of its own.
    pub(crate) sharing: Option<Replay>,
}

impl Client {
    /// Options for a client of the server at `endpoint`: `ws://` or `wss://`; `http://` and `https://` mean the same.
    pub fn builder(endpoint: impl AsRef<str>) -> ClientBuilder {
        ClientBuilder::new(endpoint.as_ref())
    }

    pub(crate) fn new(
        commands: mpsc::UnboundedSender<Command>,
        status: watch::Receiver<Status>,
        counters: Arc<Counters>,
        buffers: Arc<Buffers>,
        limits: Limits,
        max_message_size: usize,
        retries: Retries,
    ) -> Self {
        let next_id = AtomicU64::new(1);
        let shared = Shared { commands, status, counters, buffers, next_id, limits, max_message_size, retries };
        Self { shared: Arc::new(shared) }
    }

    /// Subscribes to an operation that `graphql_client` generated. Never blocks; works offline, too: the operation is
    /// sent once there is a connection.
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

    /// Subscribes to any operation, such as a [`Request`](crate::Request). Never blocks; works offline, too.
    ///
    /// # Errors
    ///
    /// If the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    pub fn subscribe_to<O: Operation>(&self, operation: O) -> Result<Subscription<O::Data>, SubscribeError> {
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

    /// As [`subscribe_to`](Self::subscribe_to), but equal subscriptions of this client are one operation:
    /// [`SubscriptionBuilder::shared`].
    ///
    /// # Errors
    ///
    /// If the client was shut down, or the operation cannot be sent; see [`SubscribeError`].
    pub fn subscribe_shared_to<O: Operation>(&self, operation: O) -> Result<Subscription<O::Data>, SubscribeError> {
        self.subscription_to(operation).shared().start()
    }

    /// Hands an operation to the driver.
    pub(crate) fn begin(
        &self,
        payload: Box<RawValue>,
        name: Option<&str>,
        plan: Plan,
    ) -> Result<Arc<Sink>, SubscribeError> {
        let Shared { commands, next_id, max_message_size: limit, limits, .. } = &*self.shared;
        let Plan { kind, limits: own_limits, timeout, care, hooks, sharing } = plan;
        let size = payload.get().len();
        if size > *limit {
            return Err(SubscribeError::TooLarge { size, limit: *limit });
        }
        operation::check(&payload, kind)?;
        let sink = Arc::new(Sink::new(next_id.fetch_add(1, Relaxed), own_limits.unwrap_or(*limits), hooks));
        telemetry::subscribed(sink.id, name);
        let (request, reader) = (payload.into(), Arc::clone(&sink));
        let command = match sharing {
            None => {
                let care = (care != Care::default()).then(|| Box::new(care));
                Command::Subscribe { kind, payload: request, timeout, care, sink: reader }
            }
            // The operation has a number of its own, as it may outlive the one who began it.
            Some(replay) => Command::Share { request, operation: next_id.fetch_add(1, Relaxed), replay, reader },
        };
        commands.send(command).map_err(|_| SubscribeError::ShutDown)?;
        // The driver may have gone between the two steps of a send, and does not see the command then.
        if commands.is_closed() {
            sink.mailbox.finish(End::ShutDown);
        }
        Ok(sink)
    }

    /// Tells the driver. It may be gone, and so is all that could be done then.
    pub(crate) fn command(&self, command: Command) {
        let _ = self.shared.commands.send(command);
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub(crate) fn retries(&self) -> &Retries {
        &self.shared.retries
    }

    pub(crate) fn buffers(&self) -> &Buffers {
        &self.shared.buffers
    }

    /// As [`query_with`](Self::query_with), of a query that `graphql_client` generated.
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn query<Q: graphql_client::GraphQLQuery>(&self, variables: Q::Variables) -> Call<Q::ResponseData> {
        self.query_with(crate::operation::Typed::<Q>::new(variables))
    }

    /// As [`mutate_with`](Self::mutate_with), of a mutation that `graphql_client` generated.
    #[cfg(feature = "graphql-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "graphql-client")))]
    pub fn mutate<M: graphql_client::GraphQLQuery>(&self, variables: M::Variables) -> Call<M::ResponseData> {
        self.mutate_with(crate::operation::Typed::<M>::new(variables))
    }

    /// Runs a query, such as a [`Request`](crate::Request), when the returned [`Call`] is awaited.
    ///
    /// It is sent again if the connection is lost before the result came. A persisted operation, without a document, is
    /// taken at its word: see that it is no mutation.
    #[expect(clippy::needless_pass_by_value, reason = "as `subscribe_to` takes it")]
    pub fn query_with<O: Operation>(&self, operation: O) -> Call<O::Data> {
        Call::new(self.clone(), OperationType::Query, &operation)
    }

    /// Runs a mutation when the returned [`Call`] is awaited.
    ///
    /// It is never sent twice: when the connection is lost before the result came, the call ends with
    /// [`CallError::Ambiguous`](crate::CallError::Ambiguous).
    #[expect(clippy::needless_pass_by_value, reason = "as `subscribe_to` takes it")]
    pub fn mutate_with<O: Operation>(&self, operation: O) -> Call<O::Data> {
        Call::new(self.clone(), OperationType::Mutation, &operation)
    }

    /// The connection's status, now and as it changes. Intermediate values may be skipped.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.clone()
    }

    /// Counts since the client was built.
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// Connects, also when nothing is subscribed, and returns once the server has acknowledged. Works at once if it has.
    ///
    /// Attempts are repeated as for operations. A connection on which nothing is started is closed after
    /// [`idle_timeout`](ClientBuilder::idle_timeout). Dropping the future does not end the attempt.
    ///
    /// # Errors
    ///
    /// If no connection is to be had; see [`NotConnected`]. The client stays usable unless it was shut down.
    pub async fn connect(&self) -> Result<(), NotConnected> {
        let (waiter, answer) = oneshot::channel();
        self.command(Command::Connect(waiter));
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(End::Lost(cause))) => Err(NotConnected::Lost(cause)),
            Ok(Err(End::GaveUp { attempts, cause })) => Err(NotConnected::GaveUp { attempts, cause }),
            // The others are of operations; and the driver may be gone.
            Ok(Err(
                End::ShutDown
                | End::Completed
                | End::Answered(_)
                | End::Ambiguous(_)
                | End::TimedOut
                | End::Rejected(_)
                | End::Overflow
                | End::Hook(_),
            ))
            | Err(_) => Err(NotConnected::ShutDown),
        }
    }

    /// Closes the connection with 1000, and makes no other until [`resume`](Self::resume): for an application in the
    /// background. Streams stay, and see a gap then; operations that are started meanwhile wait. A mutation whose result is out ends as
    /// [`CallError::Ambiguous`](crate::CallError::Ambiguous).
    pub fn pause(&self) {
        self.command(Command::Pause);
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.command(Command::Resume);
    }

    /// Makes a new connection now: ends the retry sleep, if the client is in one, or closes the connection that there is with
    /// 1000.
    ///
    /// Delays are skipped, so do not call it in a loop; [`max_dials`](ClientBuilder::max_dials) holds all the same, and while it
    /// allows no other connection the one that there is stays.
    pub fn reconnect_now(&self) {
        self.command(Command::ReconnectNow);
    }

    /// Tells the client that the network is another one, or is back: ends the retry sleep, or asks the server at once
    /// whether the connection still works, and makes another if nothing arrives within 2 s.
    pub fn network_changed(&self) {
        self.command(Command::NetworkChanged);
    }

    /// Ends every subscription with [`SubscriptionError::ShutDown`](crate::SubscriptionError::ShutDown) and every call
    /// with [`CallError::ShutDown`](crate::CallError::ShutDown), or a mutation that was sent with
    /// [`CallError::Ambiguous`](crate::CallError::Ambiguous); completes the operations on the server, closes the connection with 1000, and returns once the server has answered that or
    /// `deadline` has passed. Other clones of the client are shut down with it; of several deadlines the earliest counts.
    pub async fn shutdown(self, deadline: Duration) {
        self.command(Command::Shutdown { within: deadline.min(MAX_DURATION) });
        // An error means that the driver is gone, which is as good.
        let _ = self.status().wait_for(|status| matches!(status, Status::Ended)).await;
    }
}

impl Retries {
    #[expect(clippy::disallowed_methods, reason = "the session times what is its own; a reader's own delay is not")]
    pub(crate) fn sleep(&self, delay: Duration) -> Pin<Box<Sleep>> {
        let _entered = self.runtime.enter();
        Box::pin(tokio::time::sleep(delay))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("status", &*self.shared.status.borrow()).finish_non_exhaustive()
    }
}
