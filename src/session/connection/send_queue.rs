//! What is to be written on one connection, in order. Messages are encoded when they are taken.

use std::{
    collections::{BTreeSet, VecDeque},
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
    queue: VecDeque<Queued>,
    /// The `complete`s in the queue that are still to be sent.
    completing: BTreeSet<WireId>,
    /// How many `Subscribe`s in the queue are out of date: their operation was dropped, or waits
    /// for something else now.
    outdated: usize,
    /// Operations that are sent as soon as `reissue_rate` allows, in order of creation.
    paced: VecDeque<u64>,
}

/// A message in the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Queued {
    /// The operation with this number, if its place is this queue when its turn comes, and it has
    /// not entered a queue again since: see `Registry::queue`.
    Subscribe(u64, u32),
    Complete(WireId),
    /// Legacy only: sent even though the server has ended the operation.
    Stop(WireId),
    /// A keepalive ping, and when it was queued.
    Ping(Instant),
    WebSocketPing(Instant),
    /// A ping in its place behind the data, of the kind of the subprotocol.
    Probe,
    Terminate,
    Close(CloseCode, &'static str),
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

    pub(crate) fn push(&mut self, message: Queued) {
        if let Queued::Complete(id) = message {
            self.completing.insert(id);
        }
        self.queue.push_back(message);
    }

    /// Queues a keepalive ping ahead of the data, unless one is there already.
    pub(super) fn push_ping(&mut self, ping: Queued) {
        if !matches!(self.queue.front(), Some(Queued::Ping(_) | Queued::WebSocketPing(_))) {
            self.queue.push_front(ping);
        }
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
                Some(Place::Moving(moving)) => moving.new.is_none(),
                Some(Place::Waiting(_) | Place::Queued(_) | Place::On(..)) | None => false,
            };
            if is_due {
                let turn = operations.queue(id, on);
                self.queue.push_back(Queued::Subscribe(id, turn));
                left -= 1;
            }
        }
        !self.paced.is_empty()
    }

    /// Before a polite close: operations that the server knows are completed, and nothing else is
    /// sent but the init, without which the close would not be polite.
    pub(crate) fn keep_only_completes(&mut self) {
        self.pong = None;
        self.queue.retain(|queued| matches!(queued, Queued::Complete(_) | Queued::Stop(_)));
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
            Queued::Complete(_)
            | Queued::Stop(_)
            | Queued::Ping(_)
            | Queued::WebSocketPing(_)
            | Queued::Probe
            | Queued::Terminate
            | Queued::Close(..) => true,
        });
    }

    /// The server has ended the operation that this side is about to complete: nothing is said any
    /// more (rule 13).
    pub(crate) fn ended(&mut self, wire_id: WireId) {
        self.completing.remove(&wire_id);
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
        if let Some(payload) = self.init.take() {
            return text(Outgoing::Init { payload: &payload });
        }
        if let Some(Pong { payload }) = self.pong.take() {
            return text(Outgoing::Pong { payload: payload.as_deref() });
        }
        loop {
            return match self.queue.pop_front()? {
                Queued::Subscribe(id, turn) => {
                    let Some((id, payload)) = operations.write(id, turn, on) else {
                        // Dropped before it was written: never mentioned (rule 12).
                        self.outdated = self.outdated.saturating_sub(1);
                        continue;
                    };
                    text(Outgoing::Subscribe { id, payload })
                }
                Queued::Complete(id) if self.completing.remove(&id) => {
                    text(Outgoing::Complete { id })
                }
                Queued::Complete(_) => continue,
                Queued::Stop(id) => text(Outgoing::Complete { id }),
                Queued::Ping(at) => {
                    let number = pings.written(operations.last_serial(), Some(at));
                    text(Outgoing::Ping { number })
                }
                Queued::WebSocketPing(at) => {
                    Some(Transmit::Ping(pings.written(operations.last_serial(), Some(at))))
                }
                Queued::Probe => {
                    let number = pings.written(operations.last_serial(), None);
                    match subprotocol {
                        Subprotocol::GraphqlTransportWs => text(Outgoing::Ping { number }),
                        // A `ping` message is an error on the legacy subprotocol.
                        Subprotocol::GraphqlWs => Some(Transmit::Ping(number)),
                    }
                }
                Queued::Terminate => text(Outgoing::Terminate),
                Queued::Close(code, reason) => Some(Transmit::Close(code, close_reason(reason))),
            };
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// The longest payload of a `ping` that is repeated, in bytes: a pong must not become a burden.
const MAX_ECHO: usize = 64 * 1024;
