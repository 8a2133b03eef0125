//! The live operations, by the client's number and by their id on the wire.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Instant,
};

use super::{Late, Moving, Operation, Place, Request, Watch, Why};
use crate::{operation::OperationType, protocol::WireId, session::connection::ConnectionId};

/// An id on the wire is `serial.slot`: the slot finds the operation without a search, and the
/// serial is never used twice, so that what still arrives for an earlier id finds nothing.
#[derive(Debug)]
pub(crate) struct Registry<W> {
    slots: Vec<Option<Operation<W>>>,
    free: Vec<u32>,
    /// Slots in order of creation (rule 26).
    order: BTreeMap<u64, u32>,
    /// When something is to be done about an operation: by operation, and in order.
    deadline_of: BTreeMap<u64, Instant>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// The last serial given out.
    serial: u64,
    /// The last turn given out.
    turn: u32,
    /// What all backlogs cost together.
    held_bytes: usize,
}

/// Which side of a handover an id on the wire belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// The operation is on one connection only.
    Only,
    /// On the connection that is being replaced.
    Old,
    /// On the one that replaces it.
    New,
}

impl<W> Registry<W> {
    /// The first operation to be sent gets the serial after this one.
    pub(crate) fn new(serial: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            order: BTreeMap::new(),
            deadline_of: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            serial,
            turn: 0,
            held_bytes: 0,
        }
    }

    /// Registers an operation, before anything of it is written (rule 9).
    #[expect(clippy::expect_used, reason = "the message names the invariant")]
    pub(crate) fn insert(&mut self, id: u64, request: Request, writer: W) {
        debug_assert!(!self.order.contains_key(&id), "an operation's number is used once");
        let Request { kind, payload, deadline, watch_options, is_resumable } = request;
        // What can be resumed is watched as well: whether it makes progress.
        let options = watch_options.filter(|options| options.is_wanted());
        let options = options.or_else(|| is_resumable.then(Box::default));
        let operation = Some(Operation {
            id,
            kind,
            writer,
            payload,
            place: Place::Waiting(Why::Connection),
            is_issued: false,
            is_resumable,
            has_begun: false,
            is_cleared: false,
            outage: None,
            watch: options.map(|options| Box::new(Watch::new(*options))),
            parts: None,
        });
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("2^32 operations do not fit in memory")
        });
        self.slots[slot as usize] = operation;
        self.order.insert(id, slot);
        if let Some(at) = deadline {
            self.set_deadline(id, at);
        }
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Operation<W>> {
        let slot = self.order.remove(&id)?;
        self.free.push(slot);
        let operation = self.slots[slot as usize].take()?;
        self.clear_deadline(id);
        self.held_bytes -= held_bytes(&operation);
        Some(operation)
    }

    /// Removes everything, in order of creation.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Operation<W>> + use<W> {
        self.free.clear();
        self.deadline_of.clear();
        self.deadlines.clear();
        self.held_bytes = 0;
        let mut slots = std::mem::take(&mut self.slots);
        std::mem::take(&mut self.order)
            .into_values()
            .filter_map(move |slot| slots[slot as usize].take())
    }

    /// Moves an operation to another place. Returns the one before.
    pub(crate) fn set_place(&mut self, id: u64, place: Place) -> Option<Place> {
        let operation = self.get_mut(id)?;
        if let Place::Waiting(_) = place {
            // The whole result comes again.
            operation.parts = None;
        }
        let before = std::mem::replace(&mut operation.place, place);
        if let Place::Moving(moving) = &before {
            self.held_bytes -= moving.backlog.bytes();
        }
        Some(before)
    }

    /// Sends something else from now on: the same operation from another position. Returns whether
    /// it is another one.
    pub(crate) fn revise(&mut self, id: u64, payload: Box<str>) -> bool {
        let Some(operation) = self.get_mut(id) else { return false };
        let before = std::mem::replace(&mut operation.payload, payload);
        before != operation.payload
    }

    /// Queues an operation and returns its turn. Its earlier entries are out of date: sending one
    /// of them could put its `subscribe` ahead of the `complete` of its previous request.
    pub(crate) fn queue(&mut self, id: u64, on: ConnectionId) -> u32 {
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn;
        if let Some(moving) = self.moving_mut(id) {
            moving.turn = turn;
        } else {
            self.set_place(id, Place::Queued(on, turn));
        }
        turn
    }

    /// The turn of an operation has come: it is written on a connection, and gets its id there.
    /// Returns what to write, unless it is gone or is not to be sent there any more.
    pub(crate) fn write(&mut self, id: u64, turn: u32, on: ConnectionId) -> Option<(WireId, &str)> {
        let slot = *self.order.get(&id)?;
        let operation = self.slots[slot as usize].as_mut()?;
        let serial = self.serial + 1;
        match &mut operation.place {
            Place::Queued(queue, other) if (*queue, *other) == (on, turn) => {
                operation.place = Place::On(on, serial);
                operation.has_begun = false;
            }
            Place::Moving(moving)
                if moving.from.other() == on
                    && moving.new_serial.is_none()
                    && moving.turn == turn =>
            {
                moving.new_serial = Some(serial);
            }
            Place::Waiting(_) | Place::Queued(..) | Place::On(..) | Place::Moving(_) => {
                return None;
            }
        }
        self.serial = serial;
        operation.is_issued = true;
        Some((WireId { serial, slot }, &operation.payload))
    }

    /// Holds an item that arrived on the new connection of a handover.
    pub(crate) fn hold(&mut self, id: u64, frame: &str, payload: Range<usize>) {
        if let Some(moving) = self.moving_mut(id) {
            let before = moving.backlog.bytes();
            moving.backlog.push(frame, payload);
            let added = moving.backlog.bytes() - before;
            self.held_bytes += added;
        }
    }

    /// Changes what is held of an operation that was rewound. Does nothing for one that is not
    /// watched, because it cannot be resumed.
    pub(crate) fn change_late<R>(
        &mut self,
        id: u64,
        change: impl FnOnce(&mut Late) -> R,
    ) -> Option<R> {
        let watch = self.get_mut(id)?.watch.as_mut()?;
        let late = watch.late.get_or_insert_default();
        let before = late.bytes();
        let result = change(late);
        let after = late.bytes();
        self.held_bytes = self.held_bytes - before + after;
        Some(result)
    }

    /// Sets when something is to be done about an operation, in place of what was set before.
    pub(crate) fn set_deadline(&mut self, id: u64, at: Instant) {
        self.clear_deadline(id);
        self.deadline_of.insert(id, at);
        self.deadlines.insert((at, id));
    }

    pub(crate) fn clear_deadline(&mut self, id: u64) {
        if let Some(at) = self.deadline_of.remove(&id) {
            self.deadlines.remove(&(at, id));
        }
    }

    /// As [`clear_deadline`](Self::clear_deadline), unless the deadline ends a query or mutation.
    pub(crate) fn clear_subscription_deadline(&mut self, id: u64) {
        if self.get(id).is_some_and(Operation::is_subscription) {
            self.clear_deadline(id);
        }
    }

    /// The first deadline, and of which operation.
    pub(crate) fn next_deadline(&self) -> Option<(Instant, u64)> {
        self.deadlines.first().copied()
    }

    /// The operation behind an id that the server sent on this connection, and on which side of a
    /// handover that is.
    pub(crate) fn by_wire_id(
        &mut self,
        id: WireId,
        on: ConnectionId,
    ) -> Option<(Side, &mut Operation<W>)> {
        let operation = self.slots.get_mut(id.slot as usize)?.as_mut()?;
        let side = match &operation.place {
            Place::On(connection, serial) if *serial == id.serial && *connection == on => {
                Side::Only
            }
            Place::Moving(moving) if moving.old_serial == id.serial && moving.from == on => {
                Side::Old
            }
            Place::Moving(moving)
                if moving.new_serial == Some(id.serial) && moving.from.other() == on =>
            {
                Side::New
            }
            Place::Waiting(_) | Place::Queued(..) | Place::On(..) | Place::Moving(_) => {
                return None;
            }
        };
        Some((side, operation))
    }

    /// The ids under which the server knows an operation, each with its connection.
    pub(crate) fn wire_ids(
        &self,
        id: u64,
    ) -> impl Iterator<Item = (ConnectionId, WireId)> + use<W> {
        let known = self.order.get(&id).zip(self.place(id)).map(|(&slot, place)| {
            let wire_id = |serial| WireId { serial, slot };
            match place {
                Place::Waiting(_) | Place::Queued(..) => [None, None],
                Place::On(connection, serial) => [Some((*connection, wire_id(*serial))), None],
                Place::Moving(moving) => {
                    // An end that is held is known: nothing is to be completed there (rule 13).
                    let new = moving.new_serial.filter(|_| moving.backlog.end.is_none());
                    [
                        Some((moving.from, wire_id(moving.old_serial))),
                        new.map(|new| (moving.from.other(), wire_id(new))),
                    ]
                }
            }
        });
        known.into_iter().flatten().flatten()
    }

    pub(crate) fn place(&self, id: u64) -> Option<&Place> {
        self.get(id).map(Operation::place)
    }

    pub(crate) fn moving_mut(&mut self, id: u64) -> Option<&mut Moving> {
        match &mut self.get_mut(id)?.place {
            Place::Moving(moving) => Some(moving),
            Place::Waiting(_) | Place::Queued(..) | Place::On(..) => None,
        }
    }

    pub(crate) fn is_moving(&self, id: u64) -> bool {
        matches!(self.place(id), Some(Place::Moving(_)))
    }

    /// Whether an operation waits for this.
    pub(crate) fn waits(&self, id: u64, why: Why) -> bool {
        matches!(self.place(id), Some(Place::Waiting(other)) if *other == why)
    }

    /// Whether an operation is yet to be written on this connection.
    pub(crate) fn is_queued(&self, id: u64, on: ConnectionId) -> bool {
        match self.place(id) {
            Some(Place::Queued(connection, _)) => *connection == on,
            Some(Place::Moving(moving)) => moving.new_serial.is_none() && moving.from.other() == on,
            Some(Place::Waiting(_) | Place::On(..)) | None => false,
        }
    }

    /// Whether an operation is to be written on this connection when this turn comes.
    pub(crate) fn has_turn(&self, id: u64, turn: u32, on: ConnectionId) -> bool {
        let is_its_turn = match self.place(id) {
            Some(Place::Queued(_, other)) => *other == turn,
            Some(Place::Moving(moving)) => moving.turn == turn,
            Some(Place::Waiting(_) | Place::On(..)) | None => false,
        };
        is_its_turn && self.is_queued(id, on)
    }

    /// Whether an operation was sent on this connection and has not left it.
    pub(crate) fn is_on(&self, id: u64, on: ConnectionId) -> bool {
        self.serial_on(id, on).is_some()
    }

    /// With which serial an operation was sent on this connection, if it has not left it.
    pub(crate) fn serial_on(&self, id: u64, on: ConnectionId) -> Option<u64> {
        match self.place(id)? {
            Place::On(connection, serial) => (*connection == on).then_some(*serial),
            Place::Waiting(_) | Place::Queued(..) | Place::Moving(_) => None,
        }
    }

    /// Removes the mutations that were sent on a connection: they must not be sent again (rule 27).
    pub(crate) fn take_mutations(&mut self, on: ConnectionId) -> Vec<Operation<W>> {
        let is_mutation = |operation: &Operation<W>| match operation.kind {
            OperationType::Mutation => true,
            OperationType::Query | OperationType::Subscription => false,
        };
        let sent = self.iter().filter(|operation| is_mutation(operation));
        let ids: Vec<_> = sent.map(|it| it.id).filter(|&id| self.is_on(id, on)).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// The last serial that was written, on whatever connection.
    pub(crate) fn last_serial(&self) -> u64 {
        self.serial
    }

    /// What all backlogs cost together, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The operation in a slot.
    pub(crate) fn at(&self, slot: u32) -> Option<&Operation<W>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Operation<W>> {
        self.slots[*self.order.get(&id)? as usize].as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Operation<W>> {
        self.slots[*self.order.get(&id)? as usize].as_mut()
    }

    /// Live operations in order of creation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Operation<W>> {
        self.order.values().filter_map(|&slot| self.slots[slot as usize].as_ref())
    }

    /// The numbers of those in this state, in order of creation.
    pub(crate) fn ids(&self, is_meant: impl Fn(&Operation<W>) -> bool) -> Vec<u64> {
        self.iter().filter(|operation| is_meant(operation)).map(|operation| operation.id).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// What an operation holds, in bytes.
fn held_bytes<W>(operation: &Operation<W>) -> usize {
    let late = operation.watch.as_ref().and_then(|watch| watch.late.as_ref());
    let late = late.map_or(0, |late| late.bytes());
    match &operation.place {
        Place::Moving(moving) => moving.backlog.bytes() + late,
        Place::Waiting(_) | Place::Queued(..) | Place::On(..) => late,
    }
}
