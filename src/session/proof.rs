//! What the server has provably read: everything that was written before a ping that it has answered.
//!
//! A message that arrives for an operation proves that one. For all others there is a probe: a ping behind what is queued.
//! Ordinary pings overtake the queue, but what they were written behind they prove as well.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use super::{Output, Phase, Session, outbox::Queued, registry::Wait};
use crate::protocol::Subprotocol;

/// What was proven on the current socket, what its next pongs will prove, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// Operations to prove, on whatever socket; the others are nobody's business.
    awaited: BTreeSet<u64>,
    /// The pings that were written and not answered yet, oldest first: the n-th pong answers the n-th ping (rule 20).
    marks: VecDeque<Mark>,
    /// Pings behind those, which are only counted: whoever leaves so many unanswered is not to be remembered without end.
    unmarked: u64,
    /// Operations with a serial up to this one were read.
    proven: u64,
    /// A probe is queued or not answered. One is enough: who is too late for it gets the next one.
    is_probing: bool,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The last one that was written before the ping.
    serial: u64,
    ping: Pinged,
}

/// Why a ping was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pinged {
    /// To see whether the peer is alive, and how far it is.
    ForLife,
    /// To see what it has read. Neither its answer's lateness nor its absence means anything: what is queued before it
    /// may take its time.
    ForProof,
}

impl Proofs {
    /// A ping is written, after everything up to this serial.
    pub(super) fn pinged(&mut self, serial: u64, ping: Pinged) {
        // One that is not remembered must not be followed by one that is, or its pong would be taken for the other's.
        if self.marks.len() < MAX_MARKS && self.unmarked == 0 {
            self.marks.push_back(Mark { serial, ping });
        } else {
            self.unmarked += 1;
        }
    }

    /// A pong arrived. Returns what it answers, if that is known.
    fn answered(&mut self) -> Option<Pinged> {
        let Some(Mark { serial, ping }) = self.marks.pop_front() else {
            if self.unmarked > 0 {
                self.unmarked -= 1;
                // The probe may have been among those.
                self.is_probing &= self.unmarked > 0;
            }
            return None;
        };
        self.proven = serial;
        self.is_probing &= ping != Pinged::ForProof;
        Some(ping)
    }

    /// The socket is gone; who waits goes on waiting.
    pub(super) fn forget_socket(&mut self) {
        *self = Self { awaited: std::mem::take(&mut self.awaited), ..Self::default() };
    }

    /// The operation is over, or proven by what arrived for it. Returns whether anybody waited.
    pub(super) fn settle(&mut self, id: u64) -> bool {
        // Mostly nobody waits for anything.
        !self.awaited.is_empty() && self.awaited.remove(&id)
    }
}

impl<S: Clone> Session<S> {
    /// Says `Output::Established` once the server has read the operation on the current connection: now, if that is known.
    pub(crate) fn probe(&mut self, id: u64) {
        let Some(operation) = self.operations.get(id) else { return };
        if self.operations.wire_id(operation).is_some_and(|wire_id| wire_id.serial <= self.proofs.proven) {
            self.outputs.push_back(Output::Established { sink: operation.sink.clone() });
        } else {
            self.proofs.awaited.insert(id);
            self.probe_awaited();
        }
    }

    /// Sends a probe behind all that is queued, unless one is on its way, or nobody waits for what it could prove: an
    /// operation that is held back is not in the queue.
    pub(super) fn probe_awaited(&mut self) {
        let operations = &self.operations;
        let is_due = |id: &u64| operations.get(*id).is_some_and(|operation| operation.wait == Wait::Nothing);
        if self.is_open() && !self.proofs.is_probing && self.proofs.awaited.iter().any(is_due) {
            self.proofs.is_probing = true;
            self.outbox.push(Queued::Probe);
        }
    }

    /// A pong arrived, of the kind that answers the pings of this subprotocol. On the other one nobody has asked for it,
    /// which is legal, but proves nothing.
    pub(super) fn ponged(&mut self, now: Instant, subprotocol: Subprotocol) {
        self.liveness.heard(now);
        if self.phase != Phase::Open(subprotocol) {
            return;
        }
        if self.proofs.answered() == Some(Pinged::ForLife)
            && let Some(time) = self.liveness.pong(now)
        {
            self.counts.round_trip_time = Some(time);
        }
        let Self { proofs: Proofs { awaited, proven, .. }, operations, outputs, .. } = self;
        awaited.retain(|&id| {
            let Some(operation) = operations.get(id) else { return false };
            let is_proven = operations.wire_id(operation).is_some_and(|wire_id| wire_id.serial <= *proven);
            if is_proven {
                outputs.push_back(Output::Established { sink: operation.sink.clone() });
            }
            !is_proven
        });
        self.probe_awaited();
    }
}

/// Unanswered pings that are remembered.
pub(super) const MAX_MARKS: usize = 16;
