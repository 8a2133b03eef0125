//! Options of a subscription.

use std::{fmt, hash::Hash, num::NonZeroUsize, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    items::{Items, KeyWindow},
    position::Position,
    rows::Rows,
};

use crate::{
    client::{Client, Plan, builder::MAX_DURATION, subscription::Subscription},
    delivery::{
        Overflow,
        mailbox::Limits,
        position::Resume,
        recent::Recent,
        sharing::Replay,
        writer::{ByKey, Hooks, Keys, RestartHook},
    },
    error::{GraphQlError, SharedError, SubscribeError},
    operation::{Operation, OperationType, Resumable},
    protocol::Payload,
    response::{Response, decode},
    session::WatchOptions,
};

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
    /// before the position, add [`dedupe_by`](Self::dedupe_by) or
    /// [`sequence_by`](Self::sequence_by). With [`dedupe_by`](Self::dedupe_by) the last item may
    /// be such a repetition, so never move the position back if positions can be compared:
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
    pub fn resume_with(mut self, hook: impl FnMut(&T, &mut O::Variables) + Send + 'static) -> Self
    where
        O: Resumable + Send + 'static,
        T: 'static,
    {
        self.resume = Some(Box::new(|operation, position_lost, rows| {
            Box::new(ResumeWith { operation, position_lost, hook, rows })
        }));
        self.items.keep_position();
        self
    }

    /// Says which errors mean that the server no longer has the position it was given, and removes
    /// the position from the variables. Default: such an error ends the stream, or is left to
    /// [`restart_if`](Self::restart_if).
    ///
    /// Servers keep a finite log and refuse a position that is too old. `is_lost` gets the errors
    /// with which the server has ended an operation whose variables have a position, as
    /// [`restart_if`](Self::restart_if) does. If it returns `true`, the operation is sent again
    /// with the variables as `is_lost` leaves them: usually without a position, or with one from
    /// which to begin. The gap is not [lossless](crate::Gap::is_lossless), and has the errors. If
    /// it returns `false`, the variables must be unchanged.
    ///
    /// The operation is sent again after the delay of [`restart_if`](Self::restart_if). Until
    /// another item arrives its variables have no position, so `is_lost` is not asked again. Needs
    /// [`resume_with`](Self::resume_with). A panic ends the subscription with
    /// [`SubscriptionError::Hook`](crate::SubscriptionError::Hook).
    ///
    /// ```
    /// # use resub::{Client, Request, SubscribeError};
    /// # use serde_json::{Value, json};
    /// # fn start(client: &Client, request: Request<Value>) -> Result<(), SubscribeError> {
    /// let events = client
    ///     .subscription_to(request)
    ///     .resume_with(|last, variables| variables["after"] = last["event"]["cursor"].clone())
    ///     .position_lost(|errors, variables| {
    ///         let is_lost = errors.iter().any(|error| error.message.contains("cursor expired"));
    ///         if is_lost {
    ///             variables["after"] = json!(null);
    ///         }
    ///         is_lost
    ///     })
    ///     .start()?;
    /// # drop(events);
    /// # Ok(())
    /// # }
    /// ```
    pub fn position_lost(
        mut self,
        mut is_lost: impl FnMut(&[GraphQlError], &mut O::Variables) -> bool + Send + 'static,
    ) -> Self
    where
        O: Resumable + Send + 'static,
    {
        self.position_lost = Some(Box::new(move |errors, operation| {
            let mut lost = false;
            operation.change(|variables| lost = is_lost(errors, variables))?;
            Ok(lost)
        }));
        self.watch_options.restart = true;
        self
    }

    /// Continues after a [`Position`] that another stream of the same operation has returned, for
    /// instance before the application was restarted. Default: the server decides where to start.
    ///
    /// The hook of [`resume_with`](Self::resume_with) puts the position into the variables of the
    /// first request, and the window of [`dedupe_by`](Self::dedupe_by) is that of the position.
    /// Needs [`resume_with`](Self::resume_with).
    pub fn starting_after(mut self, position: Position) -> Self {
        self.start = Start::After(position);
        self
    }

    /// Says that the variables have a position from the beginning, because the application stores
    /// positions itself. Default: without [`starting_after`](Self::starting_after), the client
    /// assumes that the first request has none.
    ///
    /// If the operation has to be sent again before the first item, the gap is then
    /// [lossless](crate::Gap::is_lossless), and [`position_lost`](Self::position_lost) may be
    /// asked. Needs [`resume_with`](Self::resume_with).
    pub fn starting_at_variables(mut self) -> Self {
        self.start = Start::AtVariables;
        self
    }

    /// Finds out by the numbers of the items what the server has left out. Default: only what the
    /// client has lost is known.
    ///
    /// Many servers and routers drop items for a client that is slow for a moment, and do not say
    /// so. `number` returns the number of an item, which the server must count up by one for each
    /// item of the stream. A jump is a [`Gap`](crate::Gap) at its place with the number of
    /// [`missing`](crate::Gap::missing) items, unless earlier gaps have counted them. An item with
    /// the number of the last one or a smaller one is a repetition and left out, without a window
    /// as [`dedupe_by`](Self::dedupe_by) has it.
    ///
    /// With [`resume_with`](Self::resume_with), the client first asks the server for what is
    /// missing: it sends the operation again from the last item before the jump. A lossless gap
    /// marks the place, and the server sends what followed the jump once more. The hook must set
    /// the position of the item that it gets, even if the variables have a newer one. The client
    /// asks once for each jump, and at most once in 32 items. After three requests that brought
    /// nothing it stops asking until the operation is resumed for another reason. A gap counts what
    /// is still missing then.
    ///
    /// Numbers that begin again, as those of a server that counts in memory do when it restarts,
    /// look like repetitions. After 1,024 of them the stream continues, and a gap counts them as
    /// [`dropped`](crate::Gap::dropped). If that may happen, put a number that rises with each
    /// restart into the upper bits.
    ///
    /// `number` runs in the task that reads the stream, and a panic in it propagates there. An item
    /// that has no data or does not decode has no number, so it counts as missing. With
    /// [`flatten`](Self::flatten), `dropped` counts lists, and their other rows count as missing.
    /// Does not go with [`latest_by`](Self::latest_by), which changes
    /// the order.
    pub fn sequence_by(mut self, number: impl FnMut(&T) -> u64 + Send + 'static) -> Self {
        self.items.number = Some(Box::new(number));
        self.recent.get_or_insert_with(|| Recent::new(NonZeroUsize::MAX));
        self
    }

    /// Turns items that say that the server has left something out into gaps. Default: every item
    /// is yielded.
    ///
    /// `missing` returns `None` for an ordinary item. For one that says "you lagged by 3" it
    /// returns `Some(3)`, and the stream yields a [`Gap`](crate::Gap) with 3
    /// [`missing`](crate::Gap::missing) items in its place. `Some(0)` yields no gap. Such an item
    /// has no key, no number and no position, so no other hook gets it.
    ///
    /// `missing` runs in the task that reads the stream, and a panic in it propagates there. With
    /// [`resume_with`](Self::resume_with) and [`latest_by`](Self::latest_by), it also runs in the
    /// client's task, where a panic is treated like one of their hooks.
    pub fn gap_if(mut self, missing: impl Fn(&T) -> Option<u64> + Send + Sync + 'static) -> Self {
        self.items.rows.notice = Some(Arc::new(missing));
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
        key: impl FnMut(&T) -> K + Send + 'static,
    ) -> Self
    where
        K: Hash + Eq + Clone + Serialize + DeserializeOwned + Send + 'static,
        T: 'static,
    {
        self.items.window = Some(Box::new(KeyWindow::new(window, key)));
        self.recent = Some(Recent::new(window));
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
    pub fn start(self) -> Result<Subscription<T>, SubscribeError> {
        self.check()?;
        let Self {
            client,
            operation,
            limits,
            watch_options,
            resume,
            position_lost,
            keys,
            restart,
            mut items,
            recent,
            start,
            conflict: _,
            is_shared,
            replay,
            is_unchecked,
            is_dedicated,
        } = self;
        items.has_missed = is_shared;
        let name = operation.name().map(str::to_owned);
        let mut payload = operation.payload().map_err(SubscribeError::Serialize)?;
        let mut resume = resume.map(|resume| resume(operation, position_lost, items.rows.clone()));
        let is_resumed = !matches!(start, Start::Anywhere);
        if let (Start::After(position), Some(resume)) = (start, &mut resume) {
            let (item, row) = (position.item(), position.row);
            items.start_after(position).map_err(SubscribeError::Position)?;
            payload = resume.request_after(&item, Some(row)).map_err(SubscribeError::Position)?;
        }
        let keys = keys.filter(|_| limits.overflow == Overflow::LatestBy);
        let keys = keys.map(|keys| keys(limits, items.rows.clone()));
        let hooks = Hooks::new(resume, keys, restart, recent, is_resumed);
        let plan = Plan {
            kind: OperationType::Subscription,
            is_unchecked,
            limits: Some(limits),
            timeout: None,
            watch_options,
            hooks,
            near: None,
            sharing: is_shared.then_some(replay),
            is_dedicated,
        };
        let (connection, writer) = client.begin(payload, name.as_deref(), plan)?;
        let items = items.is_wanted().then_some(items);
        Ok(Subscription::new(connection, writer, items))
    }

    fn check(&self) -> Result<(), SubscribeError> {
        let conflict = |text| Err(SubscribeError::Option(text));
        if let Some(text) = self.conflict {
            return conflict(text);
        }
        if self.keys.is_some() && self.items.rows.split.is_some() {
            return conflict("latest_by does not go with flatten: an item has several keys");
        }
        if self.limits.overflow == Overflow::LatestBy && self.items.number.is_some() {
            return conflict("sequence_by does not go with latest_by, which changes the order");
        }
        if self.resume.is_none() {
            if self.position_lost.is_some() {
                return conflict("position_lost needs resume_with");
            }
            match self.start {
                Start::Anywhere => {}
                Start::AtVariables => return conflict("starting_at_variables needs resume_with"),
                Start::After(_) => return conflict("starting_after needs resume_with"),
            }
        }
        if self.is_shared {
            if self.is_dedicated {
                return conflict("dedicated needs an operation of its own, not a shared one");
            }
            check_shared(self.limits.overflow, self.watch_options, self.resume.is_some())?;
        } else if self.replay == Replay::Last {
            return conflict(
                "replay_last needs shared: nothing comes before an operation of its own",
            );
        }
        let (resumes, has_key) = (self.resume.is_some(), self.keys.is_some());
        check(self.limits.overflow, self.watch_options, resumes, has_key)
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

/// The operation with the position of the last time, and the hooks that change it.
struct ResumeWith<O: Operation, T, F> {
    operation: O,
    position_lost: Option<PositionLost<O>>,
    hook: F,
    rows: Rows<T>,
}

impl<O, T, F> Resume for ResumeWith<O, T, F>
where
    O: Resumable + Send,
    T: DeserializeOwned,
    F: FnMut(&T, &mut O::Variables) + Send,
{
    fn decodes(&self, item: &Payload) -> bool {
        self.rows.last(item).is_ok_and(|row| row.is_some())
    }

    fn request_after(
        &mut self,
        item: &Payload,
        row: Option<usize>,
    ) -> Result<Box<RawValue>, SharedError> {
        let last = match row {
            Some(row) => self.rows.at(item, row),
            None => self.rows.last(item),
        };
        let Some(last) = last.map_err(shared)? else {
            return Err(Arc::from(Box::from("the item has no such row")));
        };
        self.operation.change(|variables| (self.hook)(&last, variables)).map_err(shared)?;
        self.operation.payload().map_err(shared)
    }

    fn without_position(
        &mut self,
        errors: &[GraphQlError],
    ) -> Option<Result<Box<RawValue>, SharedError>> {
        match self.position_lost.as_mut()?(errors, &mut self.operation) {
            Ok(true) => Some(self.operation.payload().map_err(shared)),
            Ok(false) => None,
            Err(error) => Some(Err(shared(error))),
        }
    }
}

fn shared(error: impl std::error::Error + Send + Sync + 'static) -> SharedError {
    Arc::new(error)
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
