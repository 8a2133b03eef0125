//! The live operations: what is wanted, and how far the current socket has got with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{Care, suspicion::Outage, upkeep::Upkeep};
use crate::{operation::OperationType, protocol::WireId};

/// What is asked of the server, and until when.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) kind: OperationType,
    /// JSON.
    pub(crate) payload: Box<str>,
    /// When to end a query or mutation without a result.
    pub(crate) deadline: Option<Instant>,
    pub(crate) care: Option<Box<Care>>,
}

/// One live operation.
#[derive(Debug)]
pub(super) struct Operation<S> {
    /// The client's number for it: never reused, and rising in the order of creation.
    pub(super) id: u64,
    pub(super) kind: OperationType,
    /// Who reads it.
    pub(super) sink: S,
    /// The payload of its `subscribe`, serialized once.
    payload: Box<str>,
    /// The serial that it was sent with; 0 before the first time, and while it waits.
    serial: u64,
    /// Whether any socket ever carried it.
    pub(super) was_issued: bool,
    pub(super) wait: Wait,
    /// A connection survived it: never suspected again (rule 22).
    pub(super) is_cleared: bool,
    /// While it is held back for a trial: since when it has no connection.
    pub(super) outage: Option<Box<Outage>>,
    /// Rarely asked for.
    pub(super) upkeep: Option<Box<Upkeep>>,
}

/// What an operation waits for before it is sent, besides a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    Nothing,
    /// Its reader, which is to catch up first.
    Reader,
    /// Word whether the end that the server gave it is one.
    Verdict,
    /// Its own backoff: the deadline says until when, unless a new connection comes first.
    Backoff,
    /// Its turn to be tried: it may be what closes the connection.
    Trial,
}

/// Operations by the client's number, and by their id on the wire.
#[derive(Debug)]
pub(super) struct Registry<S> {
    slots: Vec<Option<Operation<S>>>,
    free: Vec<u32>,
    /// Slots in order of creation (rule 26).
    order: BTreeMap<u64, u32>,
    /// When something is to be done about an operation: by operation, and in order.
    deadline_of: BTreeMap<u64, Instant>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// The last serial given out.
    serial: u64,
    /// What was sent with a serial up to this one went to an earlier socket.
    before_socket: u64,
    /// Removed with their result, and not completed by the server yet. The latest only: some servers never do.
    answered: BTreeSet<WireId>,
}

impl<S> Registry<S> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            order: BTreeMap::new(),
            deadline_of: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            serial: 0,
            before_socket: 0,
            answered: BTreeSet::new(),
        }
    }

    /// Registers an operation, before anything of it is written (rule 9).
    #[expect(clippy::expect_used, reason = "the message names the invariant")]
    pub(super) fn insert(&mut self, id: u64, request: Request, sink: S) {
        debug_assert!(!self.order.contains_key(&id), "an operation's number is used once");
        let Request { kind, payload, deadline, care } = request;
        let upkeep = care.filter(|care| care.is_wanted()).map(|care| Box::new(Upkeep::new(*care)));
        let operation = Some(Operation {
            id,
            kind,
            sink,
            payload,
            serial: 0,
            was_issued: false,
            wait: Wait::Nothing,
            is_cleared: false,
            outage: None,
            upkeep,
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

    /// Sets when something is to be done about an operation, in place of what was set before.
    pub(super) fn set_deadline(&mut self, id: u64, at: Instant) {
        self.clear_deadline(id);
        self.deadline_of.insert(id, at);
        self.deadlines.insert((at, id));
    }

    pub(super) fn clear_deadline(&mut self, id: u64) {
        if let Some(at) = self.deadline_of.remove(&id) {
            self.deadlines.remove(&(at, id));
        }
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Operation<S>> {
        let slot = self.order.remove(&id)?;
        self.free.push(slot);
        let operation = self.slots[slot as usize].take()?;
        self.clear_deadline(id);
        Some(operation)
    }

    /// The first deadline, and whose it is.
    pub(super) fn next_deadline(&self) -> Option<(Instant, u64)> {
        self.deadlines.first().copied()
    }

    /// An operation was removed with its result: its `complete` may follow.
    pub(super) fn expect_complete(&mut self, id: WireId) {
        self.answered.insert(id);
        if self.answered.len() > MAX_ANSWERED {
            self.answered.pop_first();
        }
    }

    /// Whether this `complete` was to be expected.
    pub(super) fn take_expected(&mut self, id: WireId) -> bool {
        self.answered.remove(&id)
    }

    /// Gives a live operation its id on the current socket; returns what to write. `None` if it is gone.
    pub(super) fn issue(&mut self, id: u64) -> Option<(WireId, &str)> {
        let slot = *self.order.get(&id)?;
        let operation = self.slots[slot as usize].as_mut()?;
        self.serial += 1;
        operation.serial = self.serial;
        operation.was_issued = true;
        Some((WireId { serial: self.serial, slot }, &operation.payload))
    }

    /// From here on nothing counts as sent: the socket is gone.
    pub(super) fn forget_socket(&mut self) {
        self.before_socket = self.serial;
        self.answered.clear();
    }

    /// Removes everything, in order of creation.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Operation<S>> + use<S> {
        self.free.clear();
        self.deadline_of.clear();
        self.deadlines.clear();
        let mut slots = std::mem::take(&mut self.slots);
        std::mem::take(&mut self.order).into_values().filter_map(move |slot| slots[slot as usize].take())
    }

    /// The operation behind an id that the server sent, if it is live and was sent on this socket.
    pub(super) fn by_wire_id(&self, id: WireId) -> Option<&Operation<S>> {
        let operation = self.slots.get(id.slot as usize)?.as_ref()?;
        (operation.serial == id.serial && id.serial > self.before_socket).then_some(operation)
    }

    pub(super) fn by_wire_id_mut(&mut self, id: WireId) -> Option<&mut Operation<S>> {
        let operation = self.slots.get_mut(id.slot as usize)?.as_mut()?;
        (operation.serial == id.serial && id.serial > self.before_socket).then_some(operation)
    }

    /// From here on the operation waits: what still comes for it is late. Returns the id that the current socket knew.
    pub(super) fn park(&mut self, id: u64, wait: Wait) -> Option<WireId> {
        let wire_id = self.wire_id(self.get(id)?);
        let operation = self.get_mut(id)?;
        operation.wait = wait;
        operation.serial = 0;
        self.clear_deadline(id);
        wire_id
    }

    /// Removes the mutations that the current socket carries: they must not be sent again.
    pub(super) fn take_written_mutations(&mut self) -> Vec<Operation<S>> {
        let written = |operation: &&Operation<S>| operation.kind == OperationType::Mutation && self.is_sent(operation);
        let ids: Vec<_> = self.iter().filter(written).map(|operation| operation.id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Whether the current socket carries an operation.
    pub(super) fn is_sent(&self, operation: &Operation<S>) -> bool {
        operation.serial > self.before_socket
    }

    /// The last serial that was sent, on whatever socket.
    pub(super) fn last_sent(&self) -> u64 {
        self.serial
    }

    /// Whether an operation is live and waits for this.
    pub(super) fn waits(&self, id: u64, wait: Wait) -> bool {
        self.get(id).is_some_and(|operation| operation.wait == wait)
    }

    /// Nobody waits for this any more.
    pub(super) fn end_wait(&mut self, wait: Wait) {
        for operation in self.slots.iter_mut().flatten().filter(|operation| operation.wait == wait) {
            operation.wait = Wait::Nothing;
        }
    }

    /// The connection has outlived what it carried up to this serial: none of that closes it.
    pub(super) fn clear_up_to(&mut self, serial: u64) {
        for operation in self.slots.iter_mut().flatten() {
            operation.is_cleared |= operation.serial > self.before_socket && operation.serial <= serial;
        }
    }

    /// The id under which the current socket knows an operation; `None` if it was not sent there.
    pub(super) fn wire_id(&self, operation: &Operation<S>) -> Option<WireId> {
        let slot = *self.order.get(&operation.id)?;
        self.is_sent(operation).then_some(WireId { serial: operation.serial, slot })
    }

    pub(super) fn get(&self, id: u64) -> Option<&Operation<S>> {
        self.slots[*self.order.get(&id)? as usize].as_ref()
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Operation<S>> {
        self.slots[*self.order.get(&id)? as usize].as_mut()
    }

    /// Live operations in order of creation.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Operation<S>> {
        self.order.values().filter_map(|&slot| self.slots[slot as usize].as_ref())
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl<S> Operation<S> {
    /// Sends something else from now on: the same operation from another position.
    pub(super) fn revise(&mut self, payload: Box<str>) {
        self.payload = payload;
    }
}

/// Results whose `complete` is remembered to be due.
const MAX_ANSWERED: usize = 1024;
