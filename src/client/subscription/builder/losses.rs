//! Options about what may be missing or come twice, and about positions.

use std::{hash::Hash, num::NonZeroUsize, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{PositionLost, Start, SubscriptionBuilder};
use crate::{
    client::subscription::{items::KeyWindow, position::Position, rows::Rows},
    delivery::{position::Resume, recent::Recent},
    error::{GraphQlError, SharedError, shared},
    operation::{Operation, Resumable},
    protocol::Payload,
};

impl<O: Operation, T: DeserializeOwned> SubscriptionBuilder<O, T> {
    /// Sets a hook that changes the variables before the operation is sent again, so that the
    /// server continues after the last item received. Default: the operation is sent unchanged.
    ///
    /// `hook` gets the last item that arrived with data and decodes, whether it was read or not,
    /// and the variables. Its changes to the variables are kept. To know which items decode, the
    /// client decodes about one in 32 a second time, and keeps up to 32 KiB of items. Items after
    /// the position that do not decode may come again; under
    /// [`Overflow::Rewind`](crate::Overflow::Rewind) they are left out then. The
    /// [`Gap`](crate::Gap) is marked [`resumed`](crate::Gap::resumed), unless no item with a
    /// position has arrived yet.
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
    ///
    /// [`start`](Self::start) fails with
    /// [`SubscribeError::Position`](crate::SubscribeError::Position) if the position is not one of
    /// this operation. The hook runs there, and a panic in it propagates.
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
