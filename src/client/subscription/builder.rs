//! Options of a subscription.

use std::{fmt, hash::Hash, num::NonZeroUsize, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;

#[cfg(doc)]
use super::Subscription;
use super::{items::Items, position::Position, rows::Rows};
use crate::{
    client::{Client, builder::MAX_DURATION},
    delivery::{
        Overflow,
        mailbox::Limits,
        position::Resume,
        recent::Recent,
        sharing::Replay,
        writer::{ByKey, Keys, RestartHook},
    },
    error::GraphQlError,
    operation::Operation,
    protocol::Payload,
    response::{Response, decode},
    session::WatchOptions,
};

mod losses;
mod start;

/// Configures a [`Subscription`]. Created by [`Client::subscription_to`].
#[must_use = "a builder does nothing until `start` is called"]
pub struct SubscriptionBuilder<O: Operation, T = <O as Operation>::Data> {
    client: Client,
    operation: O,
    limits: Limits,
    watch_options: WatchOptions,
    /// Creates the hook at the start, because the hook owns the operation.
    resume: Option<ResumeFor<O, T>>,
    position_lost: Option<PositionLost<O>>,
    /// Creates the index of keys at the start, because it depends on the limits.
    keys: Option<KeysFor<T>>,
    restart: Option<RestartHook>,
    items: Items<T>,
    recent: Option<Recent>,
    start: Start,
    /// Why the options do not go together, as far as that is known before `start`.
    conflict: Option<&'static str>,
    is_shared: bool,
    replay: Replay,
    is_unchecked: bool,
    is_dedicated: bool,
}

/// Where the first request starts.
enum Start {
    /// Where the variables say, which are not known to have a position.
    Anywhere,
    /// At a position in the variables.
    AtVariables,
    After(Position),
}

type ResumeFor<O, T> =
    Box<dyn FnOnce(O, Option<PositionLost<O>>, Rows<T>) -> Box<dyn Resume> + Send>;

/// Whether errors mean that the position is lost. If so, it was removed from the operation.
type PositionLost<O> =
    Box<dyn FnMut(&[GraphQlError], &mut O) -> Result<bool, serde_json::Error> + Send>;

type KeysFor<T> = Box<dyn FnOnce(Limits, Rows<T>) -> Box<dyn Keys> + Send>;

impl<O: Operation> SubscriptionBuilder<O> {
    pub(crate) fn new(client: Client, operation: O, limits: Limits) -> Self {
        Self {
            client,
            operation,
            limits,
            watch_options: WatchOptions::default(),
            resume: None,
            position_lost: None,
            keys: None,
            restart: None,
            items: Items::default(),
            recent: None,
            start: Start::Anywhere,
            conflict: None,
            is_shared: false,
            replay: Replay::Nothing,
            is_unchecked: false,
            is_dedicated: false,
        }
    }

    /// Makes a stream of rows out of items that are lists: each row is an item of its own. Default:
    /// an item is yielded as it is.
    ///
    /// Use this for servers that send several events at once, such as Hasura's streaming
    /// subscriptions. `rows` takes the rows out of an item's data. The other options are then about
    /// rows: keys, numbers and positions are those of a row, so a stream that is sent again
    /// continues in the middle of a list. The errors and extensions of an item come with its first
    /// row. An empty list yields nothing, or an item without data if it comes with errors.
    /// [`capacity`](Self::capacity) and [`Gap::dropped`](crate::Gap::dropped) count lists.
    ///
    /// Call this before the other options that look at items; [`start`](Self::start) fails
    /// otherwise. It does not go with [`latest_by`](Self::latest_by).
    ///
    /// ```
    /// # use resub::{Client, Request, SubscribeError, Subscription};
    /// # use serde::Deserialize;
    /// #[derive(Deserialize)]
    /// struct Data {
    ///     trades_stream: Vec<Trade>,
    /// }
    ///
    /// #[derive(Deserialize)]
    /// struct Trade {
    ///     id: u64,
    /// }
    ///
    /// # fn start(client: &Client, request: Request<Data>) -> Result<(), SubscribeError> {
    /// let trades: Subscription<Trade> = client
    ///     .subscription_to(request)
    ///     .flatten(|data| data.trades_stream)
    ///     .resume_with(|last, variables| variables["after"] = last.id.into())
    ///     .start()?;
    /// # drop(trades);
    /// # Ok(())
    /// # }
    /// ```
    pub fn flatten<T>(
        self,
        rows: impl Fn(O::Data) -> Vec<T> + Send + Sync + 'static,
    ) -> SubscriptionBuilder<O, T> {
        // These are about items of the other type.
        let is_late = self.resume.is_some() || self.keys.is_some() || self.items.is_wanted();
        let conflict = is_late.then_some("flatten comes before the options that look at items");
        let read = move |item: &Payload| {
            let Response { data, errors, extensions } = decode::<O::Data>(item)?;
            Ok(Response { data: data.map(&rows), errors, extensions })
        };
        SubscriptionBuilder {
            client: self.client,
            operation: self.operation,
            limits: self.limits,
            watch_options: self.watch_options,
            resume: None,
            position_lost: self.position_lost,
            keys: None,
            restart: self.restart,
            items: Items::of_rows(Arc::new(read)),
            recent: None,
            start: self.start,
            conflict,
            is_shared: self.is_shared,
            replay: self.replay,
            is_unchecked: self.is_unchecked,
            is_dedicated: self.is_dedicated,
        }
    }
}

impl<O: Operation, T: DeserializeOwned> SubscriptionBuilder<O, T> {
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
    /// fast. An item without data, or that does not decode, has no key: it is never replaced, and
    /// it is dropped if there is no room, as it must not take the place of another key's item. If
    /// `key` panics, the subscription ends with
    /// [`SubscriptionError::Hook`](crate::SubscriptionError::Hook).
    pub fn latest_by<K>(mut self, key: impl FnMut(&T) -> K + Send + 'static) -> Self
    where
        K: Hash + Eq + Send + 'static,
        T: 'static,
    {
        self.limits.overflow = Overflow::LatestBy;
        self.keys = Some(keys(key));
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
}

fn keys<T, K>(mut key: impl FnMut(&T) -> K + Send + 'static) -> KeysFor<T>
where
    T: DeserializeOwned + 'static,
    K: Hash + Eq + Send + 'static,
{
    Box::new(|limits, rows| {
        let key = move |data: &T| rows.left_out(data).is_none().then(|| key(data));
        Box::new(ByKey::new(key, limits))
    })
}

/// Leaves out the variables of the operation, which may be secret.
impl<O: Operation, T> fmt::Debug for SubscriptionBuilder<O, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionBuilder")
            .field("operation", &self.operation.name())
            .field("limits", &self.limits)
            .field("watch_options", &self.watch_options)
            .finish_non_exhaustive()
    }
}
