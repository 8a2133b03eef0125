//! What the server has provably read: everything that was written before a ping that it has
//! answered.
//!
//! A message that arrives for an operation proves that one. For all others there is a probe: a ping
//! behind what is queued. Ordinary pings overtake the queue, but what they were written behind they
//! prove as well.

use std::{collections::VecDeque, time::Instant};

use super::{
    Output, Phase, Role, Session,
    registry::{Operation, Wait},
};
use crate::protocol::Subprotocol;

/// What was proven on one socket, and what its next pongs will prove.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// The pings that were written and not answered yet, oldest first: the n-th pong answers the
    /// n-th ping (rule 20).
    marks: VecDeque<Mark>,
    /// Pings behind those, which are only counted: whoever leaves so many unanswered is not to be
    /// remembered without end.
    unmarked: u64,
    /// Operations with a serial up to this one were read.
    proven: u64,
    /// A probe is queued or not answered. One is enough: who is too late for it gets the next one.
    pub(super) is_probing: bool,
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
    /// To see what it has read. Neither its answer's lateness nor its absence means anything: what
    /// is queued before it may take its time.
    ForProof,
}

impl Proofs {
    /// A ping is written, after everything up to this serial.
    pub(super) fn pinged(&mut self, serial: u64, ping: Pinged) {
        // One that is not remembered must not be followed by one that is, or its pong would be
        // taken for the other's.
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
}

impl<S: Clone> Session<S> {
    /// Says `Output::Established` once the server has read the operation on the current connection:
    /// now, if that is known.
    pub(crate) fn probe(&mut self, id: u64) {
        let Some(operation) = self.operations.get(id) else { return };
        if self.is_proven(operation) {
            self.outputs.push_back(Output::Established { writer: operation.writer.clone() });
        } else {
            self.awaited.insert(id);
            self.probe_awaited();
        }
    }

    /// Sends a probe behind all that is queued, unless nobody waits for what it could prove: an
    /// operation that is held back is not in the queue, and one that is moving counts where it was.
    pub(super) fn probe_awaited(&mut self) {
        let (operations, leg) = (&self.operations, &self.leg);
        let is_due = |id: &u64| {
            let is_held = |it: &Operation<S>| !it.is_on(leg.span) && leg.outbox.is_paced(it.id);
            let is_due = |it: &Operation<S>| {
                it.wait == Wait::Nothing && !is_held(it) && !operations.is_moving(it.id)
            };
            operations.get(*id).is_some_and(is_due)
        };
        if self.is_open() && self.awaited.iter().any(is_due) {
            self.leg.probe();
        }
    }

    /// The operation is over, or proven by what arrived for it. Returns whether anybody waited.
    pub(super) fn forget_awaited(&mut self, id: u64) -> bool {
        // Mostly nobody waits for anything.
        !self.awaited.is_empty() && self.awaited.remove(&id)
    }

    /// A pong arrived, of the kind that answers the pings of this subprotocol. On the other one
    /// nobody has asked for it, which is legal, but proves nothing.
    pub(super) fn ponged(&mut self, now: Instant, subprotocol: Subprotocol) {
        self.leg.liveness.heard(now);
        if self.leg.phase != Phase::Open(subprotocol) {
            return;
        }
        let answered = self.leg.proofs.answered();
        if answered == Some(Pinged::ForLife)
            && let Some(time) = self.leg.liveness.pong(now)
        {
            self.counts.round_trip_time = Some(time);
        }
        match self.leg.role {
            Role::Current => {
                let awaited = std::mem::take(&mut self.awaited);
                self.awaited = awaited.into_iter().filter(|&id| !self.establish(id)).collect();
                self.probe_awaited();
            }
            Role::Retiring => self.ponged_old(now),
            Role::Successor => {}
        }
    }

    /// Tells who waits for an operation that it is proven. Whether nobody need wait for it any
    /// more.
    fn establish(&mut self, id: u64) -> bool {
        let Some(operation) = self.operations.get(id) else { return true };
        let is_proven = self.is_proven(operation);
        if is_proven {
            self.outputs.push_back(Output::Established { writer: operation.writer.clone() });
        }
        is_proven
    }

    fn is_proven(&self, operation: &Operation<S>) -> bool {
        let wire_id = self.operations.wire_id(operation, self.leg.span);
        wire_id.is_some_and(|wire_id| wire_id.serial <= self.leg.proofs.proven)
    }
}

/// Unanswered pings that are remembered.
pub(super) const MAX_MARKS: usize = 16;
