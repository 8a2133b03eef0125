//! How operations begin and end, from either side.

use std::time::Instant;

use super::{Backlog, Operation, Place, Request, Why};
use crate::{
    error::Disconnect,
    operation::OperationType,
    protocol::WireId,
    response::{CallEnd, ConnectionEnd, End},
    session::{
        Output, Session,
        connection::{ConnectionId, Phase, Role, timers::Timer},
    },
};

impl<W: Clone> Session<W> {
    /// Starts an operation. `id` rises with every call.
    pub(crate) fn subscribe(&mut self, now: Instant, id: u64, request: Request, writer: W) {
        if self.is_closing() {
            self.outputs.push_back(Output::Finish {
                writer,
                end: End::Connection(ConnectionEnd::ShutDown),
            });
            return;
        }
        self.operations.insert(id, request, writer);
        self.is_used = true;
        match self.phase() {
            Some(Phase::Open(_)) => self.issue(now, id),
            None => self.start(now),
            Some(
                Phase::Waiting
                | Phase::Authorizing
                | Phase::Dialing(_)
                | Phase::Opening(_)
                | Phase::Closing(_),
            ) => {}
        }
    }

    /// Ends an operation from this side: its reader is gone. Nothing is sent about one that was
    /// never written (rule 12).
    pub(crate) fn cancel(&mut self, now: Instant, id: u64) {
        self.remove_and_complete(now, id);
    }

    /// Ends the queries and mutations whose time is up. Subscriptions have a deadline, too: their
    /// backoff is over, or they are checked for silence.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((_, id)) = self.operations.next_deadline().filter(|(at, _)| *at <= now) {
            if self.operations.get(id).is_some_and(Operation::is_subscription) {
                self.deadline_passed(now, id);
                continue;
            }
            let Some((operation, is_known)) = self.remove_and_complete(now, id) else { return };
            let end = match operation.kind {
                OperationType::Mutation if is_known => End::Call(CallEnd::Ambiguous(None)),
                OperationType::Mutation | OperationType::Query | OperationType::Subscription => {
                    End::Call(CallEnd::TimedOut)
                }
            };
            self.outputs.push_back(Output::Finish { writer: operation.writer, end });
        }
    }

    /// Removes an operation, and says so to a server that knows it. Returns whether one does.
    pub(in crate::session) fn remove_and_complete(
        &mut self,
        now: Instant,
        id: u64,
    ) -> Option<(Operation<W>, bool)> {
        let is_known = self.leave(id, None, Why::Connection);
        let operation = self.operations.remove(id)?;
        self.forget_awaited(id);
        self.look_for_idleness(now);
        self.after_change(now);
        Some((operation, is_known))
    }

    /// Takes an operation off the connections that carry it. The server is told on each of them,
    /// but not on `silent_on`, which has ended it or is lost. From then on the operation waits for
    /// `why`. Returns whether the server knew it.
    pub(crate) fn leave(&mut self, id: u64, silent_on: Option<ConnectionId>, why: Why) -> bool {
        let Some(kind) = self.operations.get(id).map(|operation| operation.kind) else {
            return false;
        };
        let wire_ids: Vec<(ConnectionId, WireId)> = self.operations.wire_ids(id).collect();
        for (on, wire_id) in &wire_ids {
            if Some(*on) != silent_on
                && let Some(connection) = self.connection_mut(*on)
            {
                connection.complete(*wire_id, kind);
            }
        }
        let queued_on = ConnectionId::ALL.into_iter().find(|on| self.operations.is_queued(id, *on));
        self.operations.set_place(id, Place::Waiting(why));
        if let Some(on) = queued_on
            && let Some(connection) = self.connections[on as usize].as_mut()
        {
            connection.send_queue.left(on, &self.operations);
        }
        !wire_ids.is_empty()
    }

    /// The server has ended an operation on a connection, or answered a call there.
    pub(crate) fn finish(&mut self, now: Instant, on: ConnectionId, wire_id: WireId, end: End) {
        let Some((_, operation)) = self.operations.by_wire_id(wire_id, on) else { return };
        let (id, kind) = (operation.id, operation.kind);
        self.leave(id, Some(on), Why::Application);
        if let Some(connection) = self.connection_mut(on) {
            // Both sides end it at once: what is not written yet is not sent any more (rule 13).
            connection.send_queue.ended(wire_id);
            if connection.must_stop(kind) {
                connection.send_queue.complete(wire_id, true);
            }
        }
        self.remove_or_ask(now, id, end);
    }

    /// An operation was ended by the server: the application is asked whether that was transient,
    /// or it is over.
    pub(crate) fn remove_or_ask(&mut self, now: Instant, id: u64, end: End) {
        let Some(operation) = self.operations.get(id) else { return };
        if operation.watch.as_ref().is_some_and(|watch| watch.options.restart) {
            let writer = operation.writer.clone();
            self.outputs.push_back(Output::AskIfTransient { writer, end });
            self.operations.set_place(id, Place::Waiting(Why::Application));
            self.operations.clear_deadline(id);
        } else if let Some(operation) = self.operations.remove(id) {
            self.forget_awaited(id);
            self.outputs.push_back(Output::Finish { writer: operation.writer, end });
        }
        self.look_for_idleness(now);
        self.after_change(now);
    }

    /// Answers `Output::Deliver`; `backlog` is what the writer did not take. What is left is held
    /// for a reader that has to catch up. If it cannot be, the operation will be sent again or its
    /// reader is gone. The driver has dropped a held end, because the server will send it again.
    pub(crate) fn delivered(&mut self, now: Instant, id: u64, backlog: Backlog) {
        let left = backlog.len() as u64;
        self.counts.items -= left;
        if left > 0 {
            if !self.hold_rest(id, backlog) && self.operations.waits(id, Why::Reader) {
                self.counts.discarded += left;
            }
            return;
        }
        let Some(end) = backlog.end else { return self.delivered_late(now, id) };
        self.remove_or_ask(now, id, end);
    }

    /// Ends the mutations that a connection carried. They may have been executed, so they are never
    /// sent again (rule 27). Returns whether there were any.
    pub(crate) fn give_up_mutations(
        &mut self,
        on: ConnectionId,
        cause: Option<&Disconnect>,
    ) -> bool {
        let mutations = self.operations.take_mutations(on);
        let are_there_any = !mutations.is_empty();
        for operation in mutations {
            let end = End::Call(CallEnd::Ambiguous(cause.cloned()));
            self.outputs.push_back(Output::Finish { writer: operation.writer, end });
        }
        are_there_any
    }

    /// Ends everything.
    pub(crate) fn finish_all(&mut self, end: &ConnectionEnd) {
        for on in ConnectionId::ALL {
            self.give_up_mutations(on, end.cause());
        }
        self.awaited.clear();
        for operation in self.operations.drain() {
            let end = End::Connection(end.clone());
            self.outputs.push_back(Output::Finish { writer: operation.writer, end });
        }
    }

    /// An open connection without operations is closed after `idle_timeout`.
    pub(crate) fn look_for_idleness(&mut self, now: Instant) {
        let is_unused = !self.has_reason();
        let Some(timeout) = self.config.idle_timeout else { return };
        let Some(connection) = self.current_mut() else { return };
        debug_assert_eq!(connection.role, Role::Current, "the current connection is current");
        if connection.is_open() && is_unused {
            connection.timers.arm_by(Timer::Idle, now + timeout);
        } else {
            connection.timers.disarm(Timer::Idle);
        }
    }
}
