//! Operations begin and end from this side.

use std::time::Instant;

use super::{
    End, Output, Phase, Request, Session, Timer,
    outbox::Queued,
    registry::{Operation, Wait},
};
use crate::{error::Disconnect, operation::OperationType, protocol::Subprotocol};

impl<S: Clone> Session<S> {
    /// Starts an operation. `id` rises with every call.
    pub(crate) fn subscribe(&mut self, now: Instant, id: u64, request: Request, sink: S) {
        match self.phase {
            Phase::Closing(_) | Phase::Ended => {
                self.outputs.push_back(Output::Finish { sink, end: End::ShutDown });
                return;
            }
            Phase::Idle
            | Phase::Waiting
            | Phase::Authorizing
            | Phase::Dialing(_)
            | Phase::Opening(_)
            | Phase::Open(_) => {}
        }
        self.operations.insert(id, request, sink);
        if !self.hold_new(id) && self.is_open() {
            self.timers.disarm(Timer::Idle);
            self.issue(now, id);
        }
        if self.phase == Phase::Idle {
            self.start(now);
        }
    }

    /// Ends an operation from this side: its reader is gone. Nothing is said of one that was never written (rule 12).
    pub(crate) fn cancel(&mut self, now: Instant, id: u64) {
        self.withdraw(now, id);
    }

    /// Ends the queries and mutations whose time is up, and looks after the subscriptions whose time has come.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, id)) = self.operations.next_deadline().filter(|(at, _)| *at <= now) {
            if self.operations.get(id).is_some_and(|operation| operation.kind == OperationType::Subscription) {
                self.tend(now, id);
                continue;
            }
            let Some((operation, written)) = self.withdraw(now, id) else { return };
            let ambiguous = written && operation.kind == OperationType::Mutation;
            let end = if ambiguous { End::Ambiguous(None) } else { End::TimedOut };
            self.outputs.push_back(Output::Finish { sink: operation.sink, end });
        }
    }

    /// Removes an operation, and says so to a server that knows of it.
    fn withdraw(&mut self, now: Instant, id: u64) -> Option<(Operation<S>, bool)> {
        let wire_id = self.operations.get(id).and_then(|operation| self.operations.wire_id(operation));
        let operation = self.operations.remove(id)?;
        self.proofs.settle(id);
        match wire_id {
            Some(wire_id) if self.must_stop(&operation) => self.outbox.push(Queued::Stop(wire_id)),
            Some(wire_id) => self.outbox.push(Queued::Complete(wire_id)),
            None if self.is_open() && operation.wait == Wait::Nothing => self.outbox.forget(&self.operations),
            // Not in any queue.
            None => {}
        }
        if !self.has_reason() && self.phase == Phase::Waiting {
            self.rest();
        }
        self.look_for_idleness(now);
        Some((operation, wire_id.is_some()))
    }

    /// On legacy a query or mutation is stopped whoever ended it: one server commits only then (rule 15).
    pub(super) fn must_stop(&self, operation: &Operation<S>) -> bool {
        let single = match operation.kind {
            OperationType::Query | OperationType::Mutation => true,
            OperationType::Subscription => false,
        };
        single && self.phase == Phase::Open(Subprotocol::GraphqlWs)
    }

    /// Ends the mutations whose result will not come. They may have been executed, so they are never sent again (rule 27).
    pub(super) fn give_up_mutations(&mut self, cause: Option<&Disconnect>) {
        for operation in self.operations.take_written_mutations() {
            let end = End::Ambiguous(cause.cloned());
            self.outputs.push_back(Output::Finish { sink: operation.sink, end });
        }
    }

    pub(super) fn finish_all(&mut self, end: &End) {
        for operation in self.operations.drain() {
            self.proofs.settle(operation.id);
            self.outputs.push_back(Output::Finish { sink: operation.sink, end: end.clone() });
        }
    }
}
