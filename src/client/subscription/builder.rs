//! Options of one subscription.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    hash::Hash,
    num::NonZeroUsize,
    time::Duration,
};

use crate::{
    client::{
        Client, Plan,
        builder::MAX_DURATION,
        subscription::{Repeats, Subscription},
    },
    delivery::{
        Overflow,
        mailbox::Limits,
        sharing::Replay,
        writer::{ByKey, Hooks, Keys, RestartHook, ResumeHook},
    },
    error::{GraphQlError, SubscribeError},
    operation::{Operation, OperationType, Resumable},
    protocol::Payload,
    response::Response,
    session::WatchOptions,
};

/// Options of one subscription; made by [`Client::subscription_to`].
#[must_use = "a subscription begins with `start`"]
pub struct SubscriptionBuilder<O: Operation> {
    client: Client,
    operation: O,
    limits: Limits,
    watch_options: WatchOptions,
    /// Made at the start, as it takes the operation.
    resume: Option<Box<dyn FnOnce(O) -> ResumeHook + Send>>,
    /// Made at the start, as it depends on the limits.
    keys: Option<KeysFor>,
    restart: Option<RestartHook>,
    repeats: Option<Repeats<O::Data>>,
    is_shared: bool,
    replay: Replay,
    is_unchecked: bool,
}

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
        }
    }

    /// Sets what happens to an item for which there is no room. Default: what the client was built
    /// with, else [`Overflow::DropOldest`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.limits.overflow = overflow;
        self
    }

    /// Sets how many undelivered items the subscription may hold. Default: what the client was
    /// built with, else 1024.
    ///
    /// What happens to the next item is decided by [`overflow`](Self::overflow). A stream that is
    /// read takes up to 32 items at once, and at most an eighth of the capacity; those are held
    /// besides.
    pub fn capacity(mut self, items: NonZeroUsize) -> Self {
        self.limits.items = items;
        self
    }

    /// Sets how many bytes of undelivered items the subscription may hold. Default: what the client
    /// was built with, else 16 MiB. A larger item is held alone. As with
    /// [`capacity`](Self::capacity), an eighth may be held besides; and as buffers are used again,
    /// they may be twice as large as their items and 1 KiB more.
    pub fn capacity_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// Keeps the newest item of each key, in the order in which the keys first arrived:
    /// [`Overflow::LatestBy`].
    ///
    /// What is replaced is counted as dropped in a gap before what waits. `key` is called for each
    /// item as it arrives, in the client's task, which therefore decodes each item as well: keep it
    /// quick. An item without data has no key and is kept as it is. If `key` panics, the
    /// subscription ends with [`SubscriptionError::Hook`](crate::SubscriptionError::Hook).
    pub fn latest_by<K>(mut self, key: impl FnMut(&O::Data) -> K + Send + 'static) -> Self
    where
        K: Hash + Eq + Send + 'static,
        O::Data: 'static,
    {
        self.limits.overflow = Overflow::LatestBy;
        self.keys = Some(keys(key));
        self
    }

    /// Sets how the operation goes on after the last item received whenever it is sent again.
    /// Default: it is sent as it was.
    ///
    /// `hook` takes the last item that arrived with data, read or not yet read, and changes the
    /// variables; what it changes stays for the next time; if that item does not decode, `hook` is
    /// not called, and the operation goes on from where it was sent last. A [`Gap`](crate::Gap)
    /// then says [`resumed`](crate::Gap::resumed). If the server honours the position, nothing is
    /// lost by a reconnect; if it may repeat what lies before it, add
    /// [`dedupe_by`](Self::dedupe_by), and do not go back where positions can be compared, as the
    /// last item may then be such a repetition:
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
    /// It runs in the client's task, and only when the operation is sent again. If it panics, or
    /// leaves variables that do not serialize, the subscription ends with
    /// [`SubscriptionError::Hook`](crate::SubscriptionError::Hook).
    pub fn resume_with(
        mut self,
        mut hook: impl FnMut(&O::Data, &mut O::Variables) + Send + 'static,
    ) -> Self
    where
        O: Resumable + Send + 'static,
    {
        self.resume = Some(Box::new(move |mut operation: O| {
            Box::new(move |last: &Payload| {
                let last =
                    last.decode::<Response<O::Data>>().ok().and_then(|response| response.data);
                let Some(last) = last else { return Ok(None) };
                operation.change(|variables| hook(&last, variables))?;
                operation.payload().map(Some)
            })
        }));
        self
    }

    /// Leaves out an item whose key is among those of the last `window` items that were read.
    /// Default: everything is read.
    ///
    /// For what a server repeats after the operation was sent again: the key is to name an event,
    /// such as its number, and the window to be as large as the overlap can be, or some times that
    /// with positions that cannot be compared. Each key of the window is kept twice. `key` runs
    /// where the stream is read, and so does its panic. Items without data are never left out.
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

    /// Sends the operation again, with a backoff of its own, when the server has ended it and
    /// `is_transient` says so. Default: its end is the stream's.
    ///
    /// `is_transient` gets the errors of the server's `error` message, or those of the last item if
    /// the server completed the operation after an item without data, as many servers do when their
    /// backend fails; it gets none when the server just completed it. A [`Gap`](crate::Gap) with
    /// [`restarts`](crate::Gap::restarts) and these errors marks the place. The delays are as
    /// between [attempts to connect](crate::ClientBuilder::backoff), and start over once the
    /// operation ran for [`healthy_after`](crate::ClientBuilder::healthy_after).
    ///
    /// It runs in the client's task. If it panics, the subscription ends with
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
    /// operation was sent. Default: none; with [`idle_longer_than`](Self::idle_longer_than) alone,
    /// that counts from the start.
    ///
    /// Servers do lose operations silently. The time without a connection does not count, nor that
    /// in which [`Overflow::Block`] keeps the connection from being read.
    pub fn first_item_within(mut self, patience: Duration) -> Self {
        self.watch_options.first_item_within = Some(patience.min(MAX_DURATION));
        self
    }

    /// Yields [`Event::Stale`](crate::Event::Stale) when no item arrives for this long, once until
    /// the next item. Default: none. The time without a connection does not count, nor that in
    /// which [`Overflow::Block`] keeps it from being read.
    pub fn idle_longer_than(mut self, patience: Duration) -> Self {
        self.watch_options.idle_longer_than = Some(patience.min(MAX_DURATION));
        self
    }

    /// Completes a stale operation on the server and sends it again, each time that it is found to
    /// be stale; a [`Gap`](crate::Gap) with [`restarts`](crate::Gap::restarts) marks the place.
    /// Default: it is left alone.
    pub fn reissue_stale(mut self) -> Self {
        self.watch_options.reissue_stale = true;
        self
    }

    /// Reads the same operation as every other shared subscription of this client with an equal
    /// request: the server is asked once, however many readers there are; with several
    /// [`connections`](crate::ClientBuilder::connections), those of one request are on the same one
    /// as long as it has room. Default: an operation of its own.
    ///
    /// Equal are requests whose JSON is: document, variables, operation name and extensions. The
    /// first reader begins the operation and the last one that is dropped ends it on the server.
    /// What is received is kept once for all, the last item for as long as the operation lives;
    /// each reader has its own queue, with its own [`capacity`](Self::capacity),
    /// [`overflow`](Self::overflow), [`latest_by`](Self::latest_by) and
    /// [`dedupe_by`](Self::dedupe_by), and decodes for itself. One that ends by [`Overflow::Fail`],
    /// or by a hook that panics, ends alone.
    ///
    /// A reader gets what arrives from the time on when it was started, or [the item before
    /// that](Self::replay_last), too. Each gap is in every stream, also of a reader that joined
    /// while the connection was down: what was published meanwhile it has missed as well. When the
    /// server ends the operation, or it is lost for good, all its readers get that end, and the
    /// next subscription begins it anew; one that is started in that moment does either.
    ///
    /// What is about the operation itself cannot differ between its readers, and is refused by
    /// [`start`](Self::start): [`resume_with`](Self::resume_with) and with it [`Overflow::Rewind`],
    /// [`restart_if`](Self::restart_if), [`first_item_within`](Self::first_item_within) and
    /// [`idle_longer_than`](Self::idle_longer_than).
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Begins with the last item that arrived before this reader, if there was one. Default: with
    /// the next to arrive. For [shared](Self::shared) subscriptions.
    ///
    /// Then follows what arrived after it, with nothing left out and nothing twice; if the
    /// connection was lost since, a [`Gap`](crate::Gap) says so behind it. The item may be old: the
    /// server sends another when it has one.
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

    /// Begins. Never blocks; works offline, too: the operation is sent once there is a connection.
    ///
    /// # Errors
    ///
    /// If the client was shut down, the operation cannot be sent, or options do not go together;
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
        } = self;
        if is_shared {
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

/// What differs between readers must not be about the operation that they share.
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

/// Without the operation's variables, which may hold what nobody else may see.
impl<O: Operation> fmt::Debug for SubscriptionBuilder<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionBuilder")
            .field("operation", &self.operation.name())
            .field("limits", &self.limits)
            .field("watch_options", &self.watch_options)
            .finish_non_exhaustive()
    }
}
