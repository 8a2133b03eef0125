//! The live operations: what is wanted, and how far each leg has got with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{
    WatchOptions,
    moving::{Due, Moving},
    suspicion::Outage,
    watch::Watch,
};
use crate::{operation::OperationType, protocol::WireId};

/// What is asked of the server, and until when.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) kind: OperationType,
    /// JSON.
    pub(crate) payload: Box<str>,
    /// When to end a query or mutation without a result.
    pub(crate) deadline: Option<Instant>,
    pub(crate) watch_options: Option<Box<WatchOptions>>,
}

/// One live operation.
#[derive(Debug)]
pub(super) struct Operation<S> {
    /// The client's number for it: never reused, and rising in the order of creation.
    pub(super) id: u64,
    pub(super) kind: OperationType,
    /// Who reads it.
    pub(super) writer: S,
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
    pub(super) watch: Option<Box<Watch>>,
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
    /// Of a handover: the operations that the old leg carries and the new one is to, by the
    /// client's number.
    moving: BTreeMap<u64, Moving>,
    /// Of the messages that are held, all together.
    held_bytes: usize,
}

/// The serials that were sent on one leg.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    after: u64,
    to: u64,
}

impl Span {
    /// Nothing.
    pub(super) const NONE: Self = Self { after: u64::MAX, to: u64::MAX };

    /// All from the one after this.
    pub(super) fn after(serial: u64) -> Self {
        Self { after: serial, to: u64::MAX }
    }

    /// No more after this one.
    pub(super) fn end(&mut self, serial: u64) {
        self.to = serial;
    }

    /// More is sent.
    pub(super) fn go_on(&mut self) {
        self.to = u64::MAX;
    }

    /// Whether that serial was sent there.
    pub(super) fn has(self, serial: u64) -> bool {
        self.after < serial && serial <= self.to
    }
}

impl<S> Registry<S> {
    /// What it sends first has the serial after this.
    pub(super) fn new(serial: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            order: BTreeMap::new(),
            deadline_of: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            serial,
            moving: BTreeMap::new(),
            held_bytes: 0,
        }
    }

    /// Registers an operation, before anything of it is written (rule 9).
    #[expect(clippy::expect_used, reason = "the message names the invariant")]
    pub(super) fn insert(&mut self, id: u64, request: Request, writer: S) {
        debug_assert!(!self.order.contains_key(&id), "an operation's number is used once");
        let Request { kind, payload, deadline, watch_options } = request;
        let watch = watch_options
            .filter(|watch_options| watch_options.is_wanted())
            .map(|watch_options| Box::new(Watch::new(*watch_options)));
        let operation = Some(Operation {
            id,
            kind,
            writer,
            payload,
            serial: 0,
            was_issued: false,
            wait: Wait::Nothing,
            is_cleared: false,
            outage: None,
            watch,
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
        self.forget_moving(id);
        Some(operation)
    }

    /// The first deadline, and whose it is.
    pub(super) fn next_deadline(&self) -> Option<(Instant, u64)> {
        self.deadlines.first().copied()
    }

    /// Gives a live operation its id on the current leg; returns what to write. `None` if it is
    /// gone.
    pub(super) fn issue(&mut self, id: u64) -> Option<(WireId, &str)> {
        let slot = *self.order.get(&id)?;
        let operation = self.slots[slot as usize].as_mut()?;
        self.serial += 1;
        // Mostly nothing is moving.
        match self.moving.get_mut(&id) {
            Some(moving) => moving.new = self.serial,
            None => operation.serial = self.serial,
        }
        operation.was_issued = true;
        Some((WireId { serial: self.serial, slot }, &operation.payload))
    }

    /// Removes everything, in order of creation.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Operation<S>> + use<S> {
        self.free.clear();
        self.deadline_of.clear();
        self.deadlines.clear();
        self.cancel_moving();
        let mut slots = std::mem::take(&mut self.slots);
        std::mem::take(&mut self.order)
            .into_values()
            .filter_map(move |slot| slots[slot as usize].take())
    }

    /// The operation behind an id that the server sent, if it is live and was sent on that leg.
    pub(super) fn by_wire_id(&self, id: WireId, span: Span) -> Option<&Operation<S>> {
        let operation = self.slots.get(id.slot as usize)?.as_ref()?;
        (operation.serial == id.serial && operation.is_on(span)).then_some(operation)
    }

    pub(super) fn by_wire_id_mut(&mut self, id: WireId, span: Span) -> Option<&mut Operation<S>> {
        let operation = self.slots.get_mut(id.slot as usize)?.as_mut()?;
        (operation.serial == id.serial && operation.is_on(span)).then_some(operation)
    }

    /// From here on the operation waits: what still comes for it is late.
    pub(super) fn park(&mut self, id: u64, wait: Wait) {
        self.forget_moving(id);
        self.clear_deadline(id);
        if let Some(operation) = self.get_mut(id) {
            operation.wait = wait;
            operation.serial = 0;
        }
    }

    /// The ids under which the server knows an operation, on whatever leg, and that are to be
    /// completed.
    pub(super) fn wire_ids(&self, id: u64) -> Option<impl Iterator<Item = WireId> + use<S>> {
        let (slot, operation) = (*self.order.get(&id)?, self.get(id)?);
        let (old, new) = match self.moving.get(&id) {
            None => (operation.serial, 0),
            Some(Moving { new, is_completed: false, .. }) => (operation.serial, *new),
            Some(Moving { new, is_completed: true, .. }) => (0, *new),
        };
        Some([old, new].into_iter().map(move |serial| WireId { serial, slot }))
    }

    /// From here on the subscriptions that this leg carries are to move to the current one. Returns
    /// the calls, which are not.
    pub(super) fn begin_moving(&mut self, now: Instant, span: Span) -> BTreeSet<u64> {
        let mut staying = BTreeSet::new();
        let mut moving = BTreeMap::new();
        for operation in self.iter().filter(|operation| operation.is_on(span)) {
            match operation.kind {
                OperationType::Subscription => drop(moving.insert(operation.id, Moving::new(now))),
                OperationType::Query | OperationType::Mutation => {
                    staying.insert(operation.id);
                }
            }
        }
        self.moving = moving;
        staying
    }

    /// The operation is to be completed on the old leg. Returns its id there; `None` if it was, or
    /// is not written on the new one yet.
    pub(super) fn begin_draining(&mut self, id: u64) -> Option<WireId> {
        let (slot, moving) = (*self.order.get(&id)?, self.moving.get_mut(&id)?);
        if moving.new == 0 || std::mem::replace(&mut moving.is_completed, true) {
            return None;
        }
        Some(WireId { serial: self.slots[slot as usize].as_ref()?.serial, slot })
    }

    /// From here on the operation is on the new leg alone.
    pub(super) fn end_moving(&mut self, id: u64) -> Option<Moving> {
        let moving = self.forget_moving(id)?;
        self.get_mut(id)?.serial = moving.new;
        Some(moving)
    }

    fn forget_moving(&mut self, id: u64) -> Option<Moving> {
        let moving = self.moving.remove(&id)?;
        self.held_bytes -= moving.held.iter().map(|frame| held_size(frame)).sum::<usize>();
        Some(moving)
    }

    /// Keeps a message that came on the new leg, with an item or with none, or its end. Returns
    /// whether the old one has said that item, too, and the size of all that is kept, in bytes.
    pub(super) fn hold(
        &mut self,
        now: Instant,
        id: u64,
        frame: &str,
        item: Option<&str>,
        is_end: bool,
    ) -> (bool, usize) {
        // Nothing follows the end.
        let Some(moving) = self.moving.get_mut(&id).filter(|moving| !moving.has_ended) else {
            return (false, self.held_bytes);
        };
        self.held_bytes += held_size(frame);
        moving.has_ended |= is_end;
        (moving.came_on_new(now, frame, item), self.held_bytes)
    }

    /// What is to be done with the operations that both legs carry.
    pub(super) fn due(&mut self, now: Instant, read_since: Option<Instant>) -> Vec<(u64, Due)> {
        let due = self.moving.iter_mut().map(|(id, moving)| (*id, moving.due(now, read_since)));
        due.filter(|(_, due)| *due != Due::Nothing).collect()
    }

    /// What was moving stays where it was.
    pub(super) fn cancel_moving(&mut self) {
        self.moving.clear();
        self.held_bytes = 0;
    }

    /// What this leg carries is not sent any more. Returns what that is, but for what is moving to
    /// another.
    pub(super) fn forget_sent(&mut self, span: Span) -> Vec<u64> {
        let sent: Vec<_> = self
            .iter()
            .filter(|it| it.is_on(span) && !self.is_moving(it.id))
            .map(|it| it.id)
            .collect();
        for id in &sent {
            if let Some(operation) = self.get_mut(*id) {
                operation.serial = 0;
            }
        }
        sent
    }

    /// The operation that is known by this id to the leg that it is moving to.
    pub(super) fn moving_as(&self, id: WireId) -> Option<u64> {
        let operation = self.at(id.slot)?;
        let new = self.moving.get(&operation.id)?.new;
        (new != 0 && new == id.serial).then_some(operation.id)
    }

    pub(super) fn moving_mut(&mut self, id: u64) -> Option<&mut Moving> {
        self.moving.get_mut(&id)
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether the server has ended what it knows by this serial, and that is held.
    pub(super) fn has_ended(&self, id: u64, serial: u64) -> bool {
        self.moving.get(&id).is_some_and(|moving| moving.has_ended && moving.new == serial)
    }

    pub(super) fn is_moving(&self, id: u64) -> bool {
        self.moving.contains_key(&id)
    }

    pub(super) fn is_any_moving(&self) -> bool {
        !self.moving.is_empty()
    }

    /// What is moving, in order of creation.
    pub(super) fn moving(&self) -> Vec<u64> {
        self.moving.keys().copied().collect()
    }

    /// Removes the mutations that a leg carries: they must not be sent again.
    pub(super) fn take_mutations(&mut self, span: Span) -> Vec<Operation<S>> {
        let sent = |operation: &&Operation<S>| {
            operation.kind == OperationType::Mutation && operation.is_on(span)
        };
        let ids: Vec<_> = self.iter().filter(sent).map(|operation| operation.id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
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
        for operation in self.slots.iter_mut().flatten().filter(|operation| operation.wait == wait)
        {
            operation.wait = Wait::Nothing;
        }
    }

    /// The connection has outlived what it carried up to this serial: none of that closes it.
    pub(super) fn clear_up_to(&mut self, serial: u64, span: Span) {
        for operation in self.slots.iter_mut().flatten() {
            operation.is_cleared |= operation.is_on(span) && operation.serial <= serial;
        }
    }

    /// The id under which a leg knows an operation; `None` if it was not sent there.
    pub(super) fn wire_id(&self, operation: &Operation<S>, span: Span) -> Option<WireId> {
        let slot = *self.order.get(&operation.id)?;
        operation.is_on(span).then_some(WireId { serial: operation.serial, slot })
    }

    /// Who reads what arrives under this id.
    pub(super) fn at(&self, slot: u32) -> Option<&Operation<S>> {
        self.slots.get(slot as usize)?.as_ref()
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
    /// Whether it was sent on that leg.
    pub(super) fn is_on(&self, span: Span) -> bool {
        span.has(self.serial)
    }

    /// Sends something else from now on: the same operation from another position.
    pub(super) fn revise(&mut self, payload: Box<str>) {
        self.payload = payload;
    }
}

/// What a message costs that is held: its text, and what is known of it.
fn held_size(frame: &str) -> usize {
    frame.len() + 64
}
