//! What is to be written on one connection, in order. Messages are encoded when they are taken.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::{ConnectionId, pings::Pings};
use crate::{
    error::CloseCode,
    protocol::{Outgoing, Subprotocol, Transmit, WireId, close_reason},
    session::operations::{Place, Registry, Why},
};

/// The messages that are not written yet. Not `Debug`: it holds the init payload (I13).
#[derive(Default)]
pub(crate) struct SendQueue {
    /// Set by the provider's answer until it is written; goes before everything (rule 3).
    init: Option<Box<str>>,
    /// Overtakes the queue. Only the latest pong is owed (rule 19).
    pong: Option<Pong>,
    /// When a keepalive ping was queued. Overtakes the queue, too.
    ping: Option<Instant>,
    queue: VecDeque<Queued>,
    /// The `complete`s in the queue that are still to be sent, by serial.
    completing: BTreeMap<u64, Completing>,
    /// How many `Subscribe`s in the queue are out of date: their operation was dropped, or waits
    /// for something else now.
    outdated: usize,
    /// Operations that are sent as soon as `reissue_rate` allows, in order of creation.
    paced: VecDeque<u64>,
}

/// A message in the queue. Small, as there is one for each operation after a reconnect.
#[derive(Clone, Copy, Debug)]
enum Queued {
    /// The operation with this number, if its place is this queue when its turn comes, and it has
    /// not entered a queue again since: see `Registry::queue`.
    Subscribe(u64, u32),
    /// By serial, if it is still to be completed.
    Complete(u64),
    /// A ping in its place behind the data.
    Probe,
    Terminate,
    Close,
}

/// An operation that is to be completed.
struct Completing {
    slot: u32,
    /// Legacy only: it is sent even though the server has ended the operation.
    is_stop: bool,
}

/// The answer to a `ping`, with its payload.
struct Pong {
    payload: Option<Box<str>>,
}

impl SendQueue {
    pub(crate) fn owe_init(&mut self, payload: Box<str>) {
        self.init = Some(payload);
    }

    pub(crate) fn owe_pong(&mut self, payload: Option<&str>) {
        let payload = payload.filter(|payload| payload.len() <= MAX_ECHO).map(Box::from);
        self.pong = Some(Pong { payload });
    }

    /// Queues an operation whose turn this is, see `Registry::queue`.
    pub(crate) fn subscribe(&mut self, id: u64, turn: u32) {
        self.queue.push_back(Queued::Subscribe(id, turn));
    }

    pub(crate) fn complete(&mut self, WireId { serial, slot }: WireId, is_stop: bool) {
        self.completing.insert(serial, Completing { slot, is_stop });
        self.queue.push_back(Queued::Complete(serial));
    }

    pub(super) fn probe(&mut self) {
        self.queue.push_back(Queued::Probe);
    }

    /// Closes the connection after everything else.
    pub(crate) fn close(&mut self, subprotocol: Subprotocol) {
        if subprotocol == Subprotocol::GraphqlWs {
            self.queue.push_back(Queued::Terminate);
        }
        self.queue.push_back(Queued::Close);
    }

    /// Queues a keepalive ping, unless there is one already.
    pub(super) fn ping(&mut self, now: Instant) {
        self.ping.get_or_insert(now);
    }

    /// Sends an operation as soon as `reissue_rate` allows.
    pub(crate) fn push_paced(&mut self, id: u64) {
        self.paced.push_back(id);
    }

    /// Lets so many paced operations be sent now. Returns whether any are left.
    pub(crate) fn release_paced<W>(
        &mut self,
        on: ConnectionId,
        operations: &mut Registry<W>,
        count: u32,
    ) -> bool {
        let mut left = count;
        while left > 0
            && let Some(id) = self.paced.pop_front()
        {
            let is_due = match operations.place(id) {
                Some(Place::Waiting(Why::Pacing)) => true,
                Some(Place::Moving(moving)) => moving.new_serial.is_none(),
                Some(Place::Waiting(_) | Place::Queued(..) | Place::On(..)) | None => false,
            };
            if is_due {
                let turn = operations.queue(id, on);
                self.subscribe(id, turn);
                left -= 1;
            }
        }
        if self.paced.is_empty() {
            self.paced.shrink_to(KEPT_CAPACITY);
        }
        !self.paced.is_empty()
    }

    /// Before a polite close: operations that the server knows are completed, and nothing else is
    /// sent but the init, without which the close would not be polite.
    pub(crate) fn keep_only_completes(&mut self) {
        self.pong = None;
        self.ping = None;
        self.queue.retain(|queued| matches!(queued, Queued::Complete(_)));
        self.outdated = 0;
        self.paced.clear();
    }

    /// No operation is sent here any more.
    pub(crate) fn forget_subscribes(&mut self) {
        self.queue.retain(|queued| !matches!(queued, Queued::Subscribe(..)));
        self.outdated = 0;
        self.paced.clear();
    }

    /// An operation has left the queue without being written. Removes what is out of date once that
    /// is half of the queue, so that a peer that never reads cannot make it grow without bound.
    pub(crate) fn left<W>(&mut self, on: ConnectionId, operations: &Registry<W>) {
        self.outdated += 1;
        if self.outdated * 2 <= self.queue.len() {
            return;
        }
        self.outdated = 0;
        self.queue.retain(|queued| match queued {
            Queued::Subscribe(id, turn) => operations.has_turn(*id, *turn, on),
            Queued::Complete(_) | Queued::Probe | Queued::Terminate | Queued::Close => true,
        });
    }

    /// The server has ended the operation that this side is about to complete: nothing is said any
    /// more (rule 13).
    pub(crate) fn ended(&mut self, WireId { serial, slot }: WireId) {
        let completing = self.completing.get(&serial);
        if completing.is_some_and(|completing| completing.slot == slot && !completing.is_stop) {
            self.completing.remove(&serial);
        }
    }

    /// Takes the next message. What was not taken from here was not sent.
    pub(crate) fn next<W>(
        &mut self,
        on: ConnectionId,
        subprotocol: Subprotocol,
        operations: &mut Registry<W>,
        pings: &mut Pings,
    ) -> Option<Transmit> {
        let text = |message: Outgoing<'_>| Some(Transmit::Text(message.encode(subprotocol)));
        let ping = |number| match subprotocol {
            Subprotocol::GraphqlTransportWs => text(Outgoing::Ping { number }),
            // A `ping` message is an error on the legacy subprotocol.
            Subprotocol::GraphqlWs => Some(Transmit::Ping(number)),
        };
        if let Some(payload) = self.init.take() {
            return text(Outgoing::Init { payload: &payload });
        }
        if let Some(Pong { payload }) = self.pong.take() {
            return text(Outgoing::Pong { payload: payload.as_deref() });
        }
        if let Some(queued_at) = self.ping.take() {
            return ping(pings.written(operations.last_serial(), Some(queued_at)));
        }
        loop {
            let Some(message) = self.queue.pop_front() else {
                self.queue.shrink_to(KEPT_CAPACITY);
                return None;
            };
            return match message {
                Queued::Subscribe(id, turn) => {
                    let Some((id, payload)) = operations.write(id, turn, on) else {
                        // Dropped before it was written: never mentioned (rule 12).
                        self.outdated = self.outdated.saturating_sub(1);
                        continue;
                    };
                    text(Outgoing::Subscribe { id, payload })
                }
                Queued::Complete(serial) => {
                    let Some(Completing { slot, .. }) = self.completing.remove(&serial) else {
                        continue;
                    };
                    text(Outgoing::Complete { id: WireId { serial, slot } })
                }
                Queued::Probe => ping(pings.written(operations.last_serial(), None)),
                Queued::Terminate => text(Outgoing::Terminate),
                Queued::Close => Some(Transmit::Close(CloseCode::NORMAL, close_reason(""))),
            };
        }
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.queue.capacity() + self.paced.capacity()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// How many messages an empty queue keeps room for. It is longer after a reconnect, which is rare.
const KEPT_CAPACITY: usize = 64;

/// The longest payload of a `ping` that is repeated, in bytes: a pong must not become a burden.
const MAX_ECHO: usize = 64 * 1024;
