//! Operations begin and end from this side.

use std::time::Instant;

use super::{
    ConnectionId, End, Output, Phase, Request, Session, Timer,
    registry::{Operation, Span, Wait},
};
use crate::{error::Disconnect, operation::OperationType};

impl<S: Clone> Session<S> {
    /// Starts an operation. `id` rises with every call.
    pub(crate) fn subscribe(&mut self, now: Instant, id: u64, request: Request, writer: S) {
        match self.leg.phase {
            Phase::Closing(_) | Phase::Ended => {
                self.outputs.push_back(Output::Finish { writer, end: End::ShutDown });
                return;
            }
            Phase::Idle
            | Phase::Waiting
            | Phase::Authorizing
            | Phase::Dialing(_)
            | Phase::Opening(_)
            | Phase::Open(_) => {}
        }
        self.operations.insert(id, request, writer);
        if !self.hold_new(id) && self.is_open() {
            self.leg.timers.disarm(Timer::Idle);
            self.issue(now, id);
        }
        if self.leg.phase == Phase::Idle {
            self.start(now);
        }
    }

    /// Ends an operation from this side: its reader is gone. Nothing is said of one that was never
    /// written (rule 12).
    pub(crate) fn cancel(&mut self, now: Instant, id: u64) {
        self.withdraw(now, id);
    }

    /// Ends the queries and mutations whose time is up, and looks after the subscriptions whose
    /// time has come.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, id)) = self.operations.next_deadline().filter(|(at, _)| *at <= now) {
            if self
                .operations
                .get(id)
                .is_some_and(|operation| operation.kind == OperationType::Subscription)
            {
                self.tend(now, id);
                continue;
            }
            let Some((operation, written)) = self.withdraw(now, id) else { return };
            let ambiguous = written && operation.kind == OperationType::Mutation;
            let end = if ambiguous { End::Ambiguous(None) } else { End::TimedOut };
            self.outputs.push_back(Output::Finish { writer: operation.writer, end });
        }
    }

    /// Removes an operation, and says so to a server that knows of it. Whether it does.
    fn withdraw(&mut self, now: Instant, id: u64) -> Option<(Operation<S>, bool)> {
        let is_waiting = self.operations.get(id)?.wait == Wait::Nothing;
        let is_known = self.complete(id, None);
        let is_written = self.operations.moving_mut(id).map_or(is_known, |moving| moving.new != 0);
        let operation = self.operations.remove(id)?;
        self.forget_awaited(id);
        // Otherwise it is not in any queue.
        if self.is_open() && is_waiting && !is_written {
            self.leg.outbox.forget(&self.operations);
        }
        if !self.has_reason() && self.leg.phase == Phase::Waiting {
            self.rest();
        }
        self.look_for_idleness(now);
        self.tend_other(now);
        Some((operation, is_known))
    }

    /// Tells the server on every leg that carries an operation, but this one, that it is over.
    /// Whether there is any.
    pub(super) fn complete(&mut self, id: u64, but: Option<ConnectionId>) -> bool {
        let (Some(operation), Some(wire_ids)) =
            (self.operations.get(id), self.operations.wire_ids(id))
        else {
            return false;
        };
        let kind = operation.kind;
        let mut is_known = false;
        for wire_id in wire_ids {
            // Nor is its end said twice (rule 13).
            let is_over = self.operations.has_ended(id, wire_id.serial);
            let legs =
                self.legs().filter(|leg| Some(leg.id) != but && leg.span.has(wire_id.serial));
            for leg in legs {
                if !is_over {
                    leg.complete(wire_id, kind);
                }
                is_known = true;
            }
        }
        is_known
    }

    /// Ends the mutations of a leg whose result will not come. They may have been executed, so they
    /// are never sent again (rule 27).
    pub(super) fn give_up_mutations(&mut self, span: Span, cause: Option<&Disconnect>) {
        for operation in self.operations.take_mutations(span) {
            let end = End::Ambiguous(cause.cloned());
            self.outputs.push_back(Output::Finish { writer: operation.writer, end });
        }
    }

    pub(super) fn finish_all(&mut self, end: &End) {
        let cause = match end {
            End::Lost(cause) | End::GaveUp { cause, .. } => Some(cause),
            End::Completed
            | End::Answered(_)
            | End::Ambiguous(_)
            | End::TimedOut
            | End::Rejected(_)
            | End::Overflow
            | End::Hook(_)
            | End::ShutDown => None,
        };
        for span in [self.leg.span, self.other_span()] {
            self.give_up_mutations(span, cause);
        }
        for operation in self.operations.drain() {
            self.forget_awaited(operation.id);
            self.outputs.push_back(Output::Finish { writer: operation.writer, end: end.clone() });
        }
    }
}
