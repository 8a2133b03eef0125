//! What is to be written, in order, and encoded when it is taken.

use std::collections::{BTreeSet, VecDeque};

use super::{
    Transmit,
    proof::{Pinged, Proofs},
    registry::Registry,
};
use crate::{
    error::CloseCode,
    protocol::{Outgoing, Subprotocol, WireId, close::close_reason},
};

/// The messages of one socket that are not written yet. Not `Debug`: it holds the init payload
/// (I13).
#[derive(Default)]
pub(super) struct Outbox {
    /// From the provider's answer until it is written; goes before everything (rule 3).
    init: Option<Box<str>>,
    /// Overtakes the queue, and only the latest is owed (rule 19).
    pong: Option<Pong>,
    queue: VecDeque<Queued>,
    /// The `complete`s in the queue that are still to be said.
    completing: BTreeSet<WireId>,
    /// How many in the queue are of operations that were dropped before they were written.
    stale: usize,
    /// Operations that are to be sent again, in order of creation, when they are allowed to.
    paced: VecDeque<u64>,
}

/// A message in the queue; of an operation only its number, as it may be gone when its turn comes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Queued {
    Subscribe(u64),
    Complete(WireId),
    /// Legacy only: said even though the server has answered.
    Stop(WireId),
    Ping,
    WebSocketPing,
    /// A ping in its place in the queue, of the kind of the subprotocol.
    Probe,
    Terminate,
    Close(CloseCode, &'static str),
}

/// The answer to a `ping`, echoing its payload.
struct Pong {
    payload: Option<Box<str>>,
}

impl Outbox {
    pub(super) fn owe_init(&mut self, payload: Box<str>) {
        self.init = Some(payload);
    }

    pub(super) fn owe_pong(&mut self, payload: Option<&str>) {
        self.pong = Some(Pong {
            payload: payload.filter(|payload| payload.len() <= MAX_ECHO).map(Box::from),
        });
    }

    pub(super) fn push(&mut self, message: Queued) {
        if let Queued::Complete(id) = message {
            self.completing.insert(id);
        }
        self.queue.push_back(message);
    }

    /// Sends an operation again when it is allowed to.
    pub(super) fn push_paced(&mut self, id: u64) {
        self.paced.push_back(id);
    }

    /// So many more may be sent. Whether any are left that may not.
    pub(super) fn allow(&mut self, operations: u32) -> bool {
        let allowed = self.paced.len().min(operations as usize);
        self.queue.extend(self.paced.drain(..allowed).map(Queued::Subscribe));
        !self.paced.is_empty()
    }

    /// Whether an operation that is not sent waits until it is allowed to.
    pub(super) fn is_paced(&self, id: u64) -> bool {
        // What lies in between and is not among them waits for something else.
        self.paced.front().is_some_and(|first| *first <= id)
            && self.paced.back().is_some_and(|last| id <= *last)
    }

    /// Ahead of the data: the answer is waited for. Unless one still waits to be written, which
    /// will do.
    pub(super) fn push_ping(&mut self, ping: Queued) -> bool {
        let new = !matches!(self.queue.front(), Some(Queued::Ping | Queued::WebSocketPing));
        if new {
            self.queue.push_front(ping);
        }
        new
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// For a goodbye: what was started is still to be completed, and nothing else said but the
    /// init, without which there is no goodbye either.
    pub(super) fn keep_only_completes(&mut self) {
        self.pong = None;
        self.queue.retain(|queued| matches!(queued, Queued::Complete(_) | Queued::Stop(_)));
        self.stale = 0;
        self.paced.clear();
    }

    /// An operation is not to be sent for now.
    pub(super) fn forget_subscribe(&mut self, id: u64) {
        self.queue.retain(|queued| !matches!(queued, Queued::Subscribe(queued) if *queued == id));
        self.paced.retain(|paced| *paced != id);
    }

    /// Another socket says what was not written here.
    pub(super) fn forget_subscribes(&mut self) {
        self.queue.retain(|queued| !matches!(queued, Queued::Subscribe(_)));
        self.stale = 0;
        self.paced.clear();
    }

    /// An operation was dropped before it was written. Sweeps once half of the queue is stale, so
    /// that a peer that never reads cannot make it grow without end.
    pub(super) fn forget<S>(&mut self, operations: &Registry<S>) {
        self.stale += 1;
        if self.stale * 2 > self.queue.len() {
            self.queue.retain(
                |queued| !matches!(queued, Queued::Subscribe(id) if operations.get(*id).is_none()),
            );
            self.stale = 0;
        }
    }

    /// The server ended what this side is about to end, too: that is not to be said any more (rule
    /// 13).
    pub(super) fn ended(&mut self, wire_id: WireId) {
        self.completing.remove(&wire_id);
    }

    /// Takes the next message. What was not taken from here was not sent.
    pub(super) fn next<S>(
        &mut self,
        subprotocol: Subprotocol,
        operations: &mut Registry<S>,
        proofs: &mut Proofs,
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
                Queued::Subscribe(id) => {
                    let Some((id, payload)) = operations.issue(id) else {
                        // Dropped before it was written: never mentioned (rule 12).
                        self.stale = self.stale.saturating_sub(1);
                        continue;
                    };
                    text(Outgoing::Subscribe { id, payload })
                }
                Queued::Complete(id) if self.completing.remove(&id) => {
                    text(Outgoing::Complete { id })
                }
                Queued::Complete(_) => continue,
                Queued::Stop(id) => text(Outgoing::Complete { id }),
                Queued::Ping => {
                    proofs.pinged(operations.last_sent(), Pinged::ForLife);
                    text(Outgoing::Ping)
                }
                Queued::WebSocketPing => {
                    proofs.pinged(operations.last_sent(), Pinged::ForLife);
                    Some(Transmit::Ping)
                }
                Queued::Probe => {
                    proofs.pinged(operations.last_sent(), Pinged::ForProof);
                    match subprotocol {
                        Subprotocol::GraphqlTransportWs => text(Outgoing::Ping),
                        // A `ping` message is an error on this one.
                        Subprotocol::GraphqlWs => Some(Transmit::Ping),
                    }
                }
                Queued::Terminate => text(Outgoing::Terminate),
                Queued::Close(code, reason) => Some(Transmit::Close(code, close_reason(reason))),
            };
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// The longest payload of a `ping` that is echoed, in bytes: a pong is not to become a burden.
const MAX_ECHO: usize = 64 * 1024;
