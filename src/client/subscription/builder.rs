//! Options of a subscription.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    hash::Hash,
    num::NonZeroUsize,
    time::Duration,
};

use serde_json::value::RawValue;

use crate::{
    client::{
        Client, Plan,
        builder::MAX_DURATION,
        subscription::{Repeats, Subscription},
    },
    delivery::{
        Overflow,
        mailbox::Limits,
        position::Resume,
        sharing::Replay,
        writer::{ByKey, Hooks, Keys, RestartHook},
    },
    error::{GraphQlError, SubscribeError},
    operation::{Operation, OperationType, Resumable},
    protocol::Payload,
    response::Response,
    session::WatchOptions,
};

/// Configures a [`Subscription`]. Created by [`Client::subscription_to`].
#[must_use = "a builder does nothing until `start` is called"]
pub struct SubscriptionBuilder<O: Operation> {
    client: Client,
    operation: O,
    limits: Limits,
    watch_options: WatchOptions,
    /// Creates the hook at the start, because the hook owns the operation.
    resume: Option<ResumeFor<O>>,
    /// Creates the index of keys at the start, because it depends on the limits.
    keys: Option<KeysFor>,
    restart: Option<RestartHook>,
    repeats: Option<Repeats<O::Data>>,
    is_shared: bool,
    replay: Replay,
    is_unchecked: bool,
    is_dedicated: bool,
}

type ResumeFor<O> = Box<dyn FnOnce(O) -> Box<dyn Resume> + Send>;

type KeysFor = Box<dyn FnOnce(Limits) -> Box<dyn Keys> + Send>;

impl<O: Operation> SubscriptionBuilder<O> {
    pub(crate) fn new(client: Client, operation: O, limits: Limits) -> Self {
        Self {
            client,
            operation,
            limits,
            watch_options: WatchOptions::default(),
            resume: None,
            keys: None,
            restart: None,
            repeats: None,
            is_shared: false,
            replay: Replay::Nothing,
            is_unchecked: false,
            is_dedicated: false,
        }
    }

    /// Sets what happens to an item when the queue is full. Default: the client's
    /// [`overflow`](crate::ClientBuilder::overflow), else [`Overflow::DropOldest`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.limits.overflow = overflow;
        self
    }

    /// Sets how many unread items the queue may hold. Default: the client's
    /// [`capacity`](crate::ClientBuilder::capacity), else 1024.
    ///
    /// [`overflow`](Self::overflow) decides what happens when the queue is full. The stream itself
    /// takes up to 32 items from the queue at once, but at most an eighth of the capacity. These
    /// items no longer count.
    pub fn capacity(mut self, items: NonZeroUsize) -> Self {
        self.limits.items = items;
        self
    }

    /// Sets how many bytes of unread items the queue may hold. Default: the client's
    /// [`capacity_bytes`](crate::ClientBuilder::capacity_bytes), else 16 MiB.
    ///
    /// A larger item is accepted if the queue is empty. As with [`capacity`](Self::capacity), the
    /// stream may hold another eighth. The memory in use can be larger, because the client reuses
    /// buffers: up to twice the size of an item, plus 1 KiB.
    pub fn capacity_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// Keeps only the newest unread item of each key, in the order in which the keys first arrived.
    /// Sets [`overflow`](Self::overflow) to [`Overflow::LatestBy`].
    ///
    /// A gap before the waiting items counts replaced items as dropped. The client calls `key` for
    /// each item as it arrives, in its own task, and has to decode the item there, so `key` must be
    /// fast. An item without data has no key and is always kept. If `key` panics, the subscription
    /// ends with [`SubscriptionError::Hook`](crate::SubscriptionError::Hook).
    pub fn latest_by<K>(mut self, key: impl FnMut(&O::Data) -> K + Send + 'static) -> Self
    where
        K: Hash + Eq + Send + 'static,
        O::Data: 'static,
    {
        self.limits.overflow = Overflow::LatestBy;
        self.keys = Some(keys(key));
        self
    }

    /// Sets a hook that changes the variables before the operation is sent again, so that the
    /// server continues after the last item received. Default: the operation is sent unchanged.
    ///
    /// `hook` gets the last item that arrived with data and decodes, whether it was read or not,
    /// and the variables. Its changes to the variables are kept. To know which items decode, the
    /// client decodes about one in 32 a second time, and keeps up to 32 KiB of items. Items after
    /// the position that do not decode may come again; under [`Overflow::Rewind`] they are left out
    /// then. The [`Gap`](crate::Gap) is marked [`resumed`](crate::Gap::resumed), unless no item
    /// with a position has arrived yet.
    ///
    /// If the server honours the position, a reconnect loses nothing. If it may repeat items from
    /// before the position, add [`dedupe_by`](Self::dedupe_by). The last item may then be such a
    /// repetition, so never move the position back if positions can be compared:
    ///
    /// ```
    /// # use resub::{Client, Request, SubscribeError};
    /// # use serde_json::Value;
    /// # fn start(client: &Client, request: Request<Value>) -> Result<(), SubscribeError> {
    /// // The variables of a `Request` are a JSON value; generated operations have their own type.
    /// let events = client
    ///     .subscription_to(request)
    ///     .resume_with(|last, variables| {
    ///         let known = variables["after"].as_u64();
    ///         variables["after"] = last["event"]["number"].as_u64().max(known).into();
    ///     })
    ///     .start()?;
    /// # drop(events);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The hook runs in the client's task, and only when the operation is sent again. If it panics,
    /// or the variables no longer serialize, the subscription ends with
    /// [`SubscriptionError::Hook`](crate::SubscriptionError::Hook).
    pub fn resume_with(
        mut self,
        hook: impl FnMut(&O::Data, &mut O::Variables) + Send + 'static,
    ) -> Self
    where
        O: Resumable + Send + 'static,
    {
        self.resume = Some(Box::new(|operation| Box::new(ResumeWith { operation, hook })));
        self
    }

    /// Leaves out an item whose key was among the last `window` items read. Default: the stream
    /// yields every item.
    ///
    /// Use this for items that the server repeats after the operation was sent again. The key must
    /// identify an event, such as its number. The window must be at least as large as the overlap,
    /// and several times that if positions cannot be compared. The stream stores each key of the
    /// window twice. `key` runs in the task that reads the stream, and a panic in it propagates
    /// there. Items without data are never left out.
    pub fn dedupe_by<K>(
        mut self,
        window: NonZeroUsize,
        key: impl FnMut(&O::Data) -> K + Send + 'static,
    ) -> Self
    where
        K: Hash + Eq + Clone + Send + 'static,
        O::Data: 'static,
    {
        self.repeats = Some(repeats(window, key));
        self
    }

    /// Restarts the operation when the server has ended it and `is_transient` returns `true`.
    /// Default: the stream ends.
    ///
    /// `is_transient` gets the errors of the server's `error` message. Many servers complete the
    /// operation after an item without data when their backend fails; `is_transient` then gets the
    /// errors of that item. If the server just completed the operation, there are no errors. A
    /// [`Gap`](crate::Gap) with [`restarts`](crate::Gap::restarts) and the errors marks the place.
    /// Each operation has its own backoff, with the delays of
    /// [`ClientBuilder::backoff`](crate::ClientBuilder::backoff). It resets once the operation has
    /// run for [`healthy_after`](crate::ClientBuilder::healthy_after).
    ///
    /// `is_transient` runs in the client's task. If it panics, the subscription ends with
    /// [`SubscriptionError::Hook`](crate::SubscriptionError::Hook).
    pub fn restart_if(
        mut self,
        is_transient: impl FnMut(&[GraphQlError]) -> bool + Send + 'static,
    ) -> Self {
        self.watch_options.restart = true;
        self.restart = Some(Box::new(is_transient));
        self
    }

    /// Yields [`Event::Stale`](crate::Event::Stale) when no item arrives within this time after the
    /// operation was sent. Default: the time of [`idle_longer_than`](Self::idle_longer_than), if
    /// that is set. Must not be zero.
    ///
    /// Use this because some servers lose operations silently. Time without a connection does not
    /// count, and neither does time in which [`Overflow::Block`] stalls the connection.
    pub fn first_item_within(mut self, patience: Duration) -> Self {
        self.watch_options.first_item_within = Some(patience.min(MAX_DURATION));
        self
    }

    /// Yields [`Event::Stale`](crate::Event::Stale) when no item arrives for this long. Default:
    /// never. Must not be zero.
    ///
    /// The stream yields it once, and again only after another item. Time without a connection does
    /// not count, and neither does time in which [`Overflow::Block`] stalls the connection.
    pub fn idle_longer_than(mut self, patience: Duration) -> Self {
        self.watch_options.idle_longer_than = Some(patience.min(MAX_DURATION));
        self
    }

    /// Restarts a stale operation: completes it on the server and sends it again. Default: the
    /// stream only yields [`Event::Stale`](crate::Event::Stale).
    ///
    /// A [`Gap`](crate::Gap) with [`restarts`](crate::Gap::restarts) marks the place. Needs
    /// [`idle_longer_than`](Self::idle_longer_than) or
    /// [`first_item_within`](Self::first_item_within).
    pub fn reissue_stale(mut self) -> Self {
        self.watch_options.reissue_stale = true;
        self
    }

    /// Shares one operation on the server with every other shared subscription of this client that
    /// has an equal request. Default: every subscription has its own operation.
    ///
    /// Requests are equal if their JSON is equal: document, variables, operation name and
    /// extensions. The first reader starts the operation, and the client completes it on the server
    /// when the last reader is dropped. With several
    /// [`connections`](crate::ClientBuilder::connections), all readers of a request use the same
    /// connection as long as it has room.
    ///
    /// The client stores each item once for all readers, and the last item as long as the operation
    /// lives. Each reader decodes for itself. It has its own queue, with its own
    /// [`capacity`](Self::capacity), [`overflow`](Self::overflow), [`latest_by`](Self::latest_by)
    /// and [`dedupe_by`](Self::dedupe_by). If one reader ends by [`Overflow::Fail`] or a hook that
    /// panics, the others continue.
    ///
    /// A reader gets the items that arrive after its start, and with
    /// [`replay_last`](Self::replay_last) the last one before that. Every reader gets every gap.
    /// This includes a reader that joined while the connection was down, because it also missed
    /// what was published since. A reader with [`dedupe_by`](Self::dedupe_by) gets overlaps too:
    /// what comes again may be from before it joined. When the server ends the operation, or it is
    /// lost for good, all readers get that end. The next subscription starts the operation again; a
    /// subscription that starts at that moment may do either.
    ///
    /// [`start`](Self::start) refuses options that concern the operation itself, because readers
    /// cannot set different ones: [`resume_with`](Self::resume_with), [`Overflow::Rewind`],
    /// [`restart_if`](Self::restart_if), [`first_item_within`](Self::first_item_within) and
    /// [`idle_longer_than`](Self::idle_longer_than).
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Starts a [shared](Self::shared) subscription with the last item that arrived before its
    /// start, if there was one. Default: it starts with the next item to arrive.
    ///
    /// The stream then yields each item that arrived later, exactly once. If the connection was
    /// lost since that last item, a [`Gap`](crate::Gap) follows it. The item may be old, because
    /// the client does not ask the server for a new one.
    pub fn replay_last(mut self) -> Self {
        self.replay = Replay::Last;
        self
    }

    /// Sends the document as it is. Default: a document that is not GraphQL, or does not have the
    /// operation to run, is refused by [`start`](Self::start), as servers are known to close the
    /// whole connection over it.
    ///
    /// For syntax that the client does not know yet. It knows the September 2025 edition of the
    /// GraphQL specification, except for descriptions of operations, fragments and variables, and
    /// documents nested up to 200 levels and of up to a million tokens. That the operation is no
    /// mutation is then taken at your word: it would be executed again at every reconnect.
    pub fn unchecked(mut self) -> Self {
        self.is_unchecked = true;
        self
    }

    /// Gives the subscription a connection of its own. Default: it uses a connection of the client
    /// together with other operations.
    ///
    /// Use this for a slow reader that must lose nothing, with [`Overflow::Block`]: while its queue
    /// is full, the client does not read that connection, and TCP slows the server down. Nobody
    /// else waits, and nothing is received twice. Without `Block` it keeps a busy feed apart from
    /// everything else.
    ///
    /// It costs one more connection, with its own credentials, handshake and pings. The client
    /// opens it when the subscription starts, and closes it with 1000 when the subscription ends or
    /// is dropped. [`connect`](Client::connect) does not open it in advance, and no other operation
    /// uses it. All commands to the client reach it, such as [`pause`](Client::pause),
    /// [`rotate`](Client::rotate) and [`shutdown`](Client::shutdown), and
    /// [`status`](Client::status) and [`stats`](Client::stats) include it. It does not count for
    /// [`connections`](crate::ClientBuilder::connections). Under
    /// [`max_dials`](crate::ClientBuilder::max_dials), all dedicated connections share the part of
    /// the client's first connection. Without `max_dials`, each start dials at once, even right
    /// after an earlier subscription has failed.
    ///
    /// A connection that is not read answers none of the server's pings. A server that needs the
    /// answers closes it, and the subscription is then sent again behind a gap. With
    /// [`resume_with`](Self::resume_with) nothing is lost by that.
    ///
    /// Not for [shared](Self::shared) subscriptions, which have several readers: `start` refuses
    /// both together.
    pub fn dedicated(mut self) -> Self {
        self.is_dedicated = true;
        self
    }

    /// Starts the subscription. Never blocks, and works offline: the client sends the operation
    /// once it is connected.
    ///
    /// # Errors
    ///
    /// Fails if the client was shut down, the operation cannot be sent, or the options conflict;
    /// see [`SubscribeError`].
    pub fn start(self) -> Result<Subscription<O::Data>, SubscribeError> {
        let Self {
            client,
            operation,
            limits,
            watch_options,
            resume,
            keys,
            restart,
            repeats,
            is_shared,
            replay,
            is_unchecked,
            is_dedicated,
        } = self;
        if is_shared {
            if is_dedicated {
                return Err(SubscribeError::Option(
                    "dedicated needs an operation of its own, not a shared one",
                ));
            }
            check_shared(limits.overflow, watch_options, resume.is_some())?;
        } else if replay == Replay::Last {
            return Err(SubscribeError::Option(
                "replay_last needs shared: nothing comes before an operation of its own",
            ));
        }
        self::check(limits.overflow, watch_options, resume.is_some(), keys.is_some())?;
        let payload = operation.payload().map_err(SubscribeError::Serialize)?;
        let name = operation.name().map(str::to_owned);
        let keys = keys.filter(|_| limits.overflow == Overflow::LatestBy);
        let hooks = Hooks::new(
            resume.map(|resume| resume(operation)),
            keys.map(|keys| keys(limits)),
            restart,
        );
        let sharing = is_shared.then_some(replay);
        let plan = Plan {
            kind: OperationType::Subscription,
            is_unchecked,
            limits: Some(limits),
            timeout: None,
            watch_options,
            hooks,
            near: None,
            sharing,
            is_dedicated,
        };
        let (connection, writer) = client.begin(payload, name.as_deref(), plan)?;
        let repeats = repeats.map(|repeats| Repeats { has_missed: is_shared, ..repeats });
        Ok(Subscription::new(connection, writer, repeats))
    }
}

fn check(
    overflow: Overflow,
    watch_options: WatchOptions,
    resumes: bool,
    has_key: bool,
) -> Result<(), SubscribeError> {
    if overflow == Overflow::Rewind && !resumes {
        return Err(SubscribeError::Option(
            "Overflow::Rewind needs resume_with, or it would lose what it does not hold",
        ));
    }
    if overflow == Overflow::LatestBy && !has_key {
        return Err(SubscribeError::Option("Overflow::LatestBy has no key: use latest_by"));
    }
    let WatchOptions { first_item_within, idle_longer_than, reissue_stale, restart: _ } =
        watch_options;
    if first_item_within.or(idle_longer_than).is_none() && reissue_stale {
        return Err(SubscribeError::Option(
            "reissue_stale needs idle_longer_than or first_item_within",
        ));
    }
    if [first_item_within, idle_longer_than].contains(&Some(Duration::ZERO)) {
        return Err(SubscribeError::Option(
            "a subscription that may not be idle for any time is always stale",
        ));
    }
    Ok(())
}

/// Checks that a shared subscription sets no option that concerns the operation itself.
fn check_shared(
    overflow: Overflow,
    watch_options: WatchOptions,
    resumes: bool,
) -> Result<(), SubscribeError> {
    if overflow == Overflow::Rewind {
        return Err(SubscribeError::Option(
            "Overflow::Rewind needs an operation of its own, not a shared one",
        ));
    }
    if resumes {
        return Err(SubscribeError::Option(
            "resume_with needs an operation of its own, not a shared one",
        ));
    }
    if watch_options.restart {
        return Err(SubscribeError::Option(
            "restart_if needs an operation of its own, not a shared one",
        ));
    }
    if watch_options != WatchOptions::default() {
        return Err(SubscribeError::Option(
            "what looks for silence needs an operation of its own, not a shared one",
        ));
    }
    Ok(())
}

/// The operation with the position of the last time, and the hook that moves it.
struct ResumeWith<O, F> {
    operation: O,
    hook: F,
}

impl<O, F> Resume for ResumeWith<O, F>
where
    O: Resumable + Send,
    F: FnMut(&O::Data, &mut O::Variables) + Send,
{
    fn decodes(&self, item: &Payload) -> bool {
        item.decode::<Response<O::Data>>().is_ok_and(|response| response.data.is_some())
    }

    fn request_after(&mut self, item: &Payload) -> Result<Box<RawValue>, serde_json::Error> {
        if let Some(last) = item.decode::<Response<O::Data>>()?.data {
            self.operation.change(|variables| (self.hook)(&last, variables))?;
        }
        self.operation.payload()
    }
}

fn keys<T, K>(key: impl FnMut(&T) -> K + Send + 'static) -> KeysFor
where
    T: serde::de::DeserializeOwned + 'static,
    K: Hash + Eq + Send + 'static,
{
    Box::new(|limits| Box::new(ByKey::new(key, limits)))
}

fn repeats<T, K>(window: NonZeroUsize, mut key: impl FnMut(&T) -> K + Send + 'static) -> Repeats<T>
where
    K: Hash + Eq + Clone + Send + 'static,
{
    let (mut known, mut order) = (HashSet::new(), VecDeque::new());
    let is_known = move |data: &T| {
        let key = key(data);
        if !known.insert(key.clone()) {
            return true;
        }
        if order.len() == window.get()
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        order.push_back(key);
        false
    };
    Repeats { is_known: Box::new(is_known), has_missed: false }
}

/// Leaves out the variables of the operation, which may be secret.
impl<O: Operation> fmt::Debug for SubscriptionBuilder<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionBuilder")
            .field("operation", &self.operation.name())
            .field("limits", &self.limits)
            .field("watch_options", &self.watch_options)
            .finish_non_exhaustive()
    }
}
