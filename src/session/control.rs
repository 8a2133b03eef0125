//! What the application wants of the connection itself: to have one, to have none for a while or
//! any more, to have another, to know whether it still works.

use std::time::{Duration, Instant};

use super::{End, Output, Phase, Role, Session, outbox::Queued, timers::Timer};
use crate::{
    error::{CloseCode, Disconnect},
    protocol::Subprotocol,
    session::Status,
};

impl<S: Clone> Session<S> {
    /// Somebody waits for a connection, with or without operations; answered by
    /// `Output::Connected`.
    pub(crate) fn connect(&mut self, now: Instant) {
        self.is_wanted = true;
        match self.leg.phase {
            Phase::Open(_) => self.answer_connect(Ok(())),
            Phase::Closing(_) | Phase::Ended => self.answer_connect(Err(End::ShutDown)),
            Phase::Idle => self.start(now),
            Phase::Waiting | Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_) => {}
        }
        // A connection that nobody uses is not kept for ever.
        self.look_for_idleness(now);
    }

    /// Closes the connection and makes no other until `resume`. Operations stay.
    pub(crate) fn pause(&mut self, now: Instant) {
        if self.is_paused || matches!(self.leg.phase, Phase::Closing(_) | Phase::Ended) {
            return;
        }
        self.is_paused = true;
        self.hang_up(now);
        self.leg.phase = Phase::Idle;
        // The next one will be another.
        self.answer_rotate(Ok(()));
        self.status(Status::Paused);
    }

    /// Ends a `pause`.
    pub(crate) fn resume(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_paused) && self.leg.phase == Phase::Idle {
            self.start(now);
        }
    }

    /// Ends the retry sleep, or makes another connection in place of the one that there is.
    pub(crate) fn reconnect_now(&mut self, now: Instant) {
        match self.leg.phase {
            Phase::Waiting => self.start_now(now),
            // Better the connection that there is than none.
            Phase::Open(_) | Phase::Opening(_) if self.retry.is_spent(now) => {}
            Phase::Open(_) | Phase::Opening(_) => {
                self.hang_up(now);
                if self.has_reason() {
                    self.start_now(now);
                } else {
                    self.rest();
                }
            }
            // There is an attempt already, or nothing to connect for.
            Phase::Idle
            | Phase::Authorizing
            | Phase::Dialing(_)
            | Phase::Closing(_)
            | Phase::Ended => {}
        }
    }

    /// The network is another one, or is back: what there is may be dead, and what failed may work.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        match self.leg.phase {
            Phase::Waiting => self.start_now(now),
            Phase::Open(_) => {
                let patience = DOUBT_TIMEOUT.min(self.config.ping_timeout);
                self.legs().for_each(|leg| leg.doubt(now, patience));
            }
            Phase::Idle
            | Phase::Authorizing
            | Phase::Dialing(_)
            | Phase::Opening(_)
            | Phase::Closing(_)
            | Phase::Ended => {}
        }
    }

    /// Ends everything: politely where there is a socket, and by `deadline` in any case (rule 29).
    pub(crate) fn shutdown(&mut self, deadline: Instant) {
        let subprotocol = match self.leg.phase {
            Phase::Ended => return,
            Phase::Closing(_) => return self.leg.timers.arm_by(Timer::Shutdown, deadline),
            Phase::Opening(subprotocol) | Phase::Open(subprotocol) => Some(subprotocol),
            Phase::Idle | Phase::Waiting | Phase::Authorizing | Phase::Dialing(_) => None,
        };
        self.leg.outbox.keep_only_completes();
        self.leg.timers.clear();
        let (operations, span) = (&self.operations, self.leg.span);
        let known = operations.iter().flat_map(|operation| {
            let wire_ids = operations.wire_ids(operation.id).into_iter().flatten();
            wire_ids.filter(move |wire_id| !operations.has_ended(operation.id, wire_id.serial))
        });
        for wire_id in known.filter(|wire_id| span.has(wire_id.serial)) {
            self.leg.outbox.push(Queued::Complete(wire_id));
        }
        self.finish_all(&End::ShutDown);
        self.drop_other();
        self.answer_connect(Err(End::ShutDown));
        self.answer_rotate(Err(End::ShutDown));
        let Some(subprotocol) = subprotocol else {
            self.outputs.push_back(Output::Hangup(self.leg.id, None));
            return self.end();
        };
        if subprotocol == Subprotocol::GraphqlWs {
            self.leg.outbox.push(Queued::Terminate);
        }
        self.leg.outbox.push(Queued::Close(CloseCode::NORMAL, ""));
        self.leg.phase = Phase::Closing(subprotocol);
        self.leg.timers.arm(Timer::Shutdown, deadline);
    }

    /// Ends everything without a word to the server; for when the driver itself goes.
    pub(crate) fn abandon(&mut self) {
        self.finish_all(&End::ShutDown);
    }

    /// Whether there is anything to be connected for.
    pub(super) fn has_reason(&self) -> bool {
        !self.operations.is_empty() || self.is_wanted || self.leg.role == Role::Successor
    }

    /// Tells who waits for a connection.
    pub(super) fn answer_connect(&mut self, answer: Result<(), End>) {
        if std::mem::take(&mut self.is_wanted) {
            self.outputs.push_back(Output::Connected(answer));
        }
    }

    /// An open connection without operations is closed after a while.
    pub(super) fn look_for_idleness(&mut self, now: Instant) {
        // On another leg nothing begins.
        let (Some(timeout), Role::Current) = (self.config.idle_timeout, self.leg.role) else {
            return;
        };
        if self.is_open() && !self.has_reason() {
            self.leg.timers.arm_by(Timer::Idle, now + timeout);
        } else {
            self.leg.timers.disarm(Timer::Idle);
        }
    }

    /// Nothing was started on the connection for a while.
    pub(super) fn close_idle(&mut self) {
        if self.is_open() && !self.has_reason() {
            self.outputs.push_back(Output::Hangup(self.leg.id, Some((CloseCode::NORMAL, ""))));
            self.retry.closed();
            self.leg.leave_socket();
            // Nothing was lost.
            self.last_cause = None;
            self.rest();
        }
    }

    /// Gives the connection up, or the attempt at one, because the application says so.
    fn hang_up(&mut self, now: Instant) {
        let cause = Disconnect::Requested;
        if let Some(mut other) = self.drop_other() {
            other.broken = Some(cause.clone());
            self.forsake(now, other);
        }
        match self.leg.phase {
            Phase::Opening(_) => {
                self.retry.closed();
                self.outputs.push_back(Output::Hangup(self.leg.id, Some((CloseCode::NORMAL, ""))));
            }
            Phase::Open(_) => {
                self.outage.get_or_insert_with(|| (now, cause.clone()));
                self.acquit();
                self.retry.closed();
                self.outputs.push_back(Output::Hangup(self.leg.id, Some((CloseCode::NORMAL, ""))));
            }
            Phase::Authorizing | Phase::Dialing(_) => {
                self.retry.unused();
                self.outputs.push_back(Output::Hangup(self.leg.id, None));
            }
            Phase::Idle | Phase::Waiting | Phase::Closing(_) | Phase::Ended => {}
        }
        self.give_up_mutations(self.leg.span, Some(&cause));
        self.leg.leave_socket();
        self.last_cause = Some(cause);
    }

    /// Dials without the backoff, but not beyond the budget.
    fn start_now(&mut self, now: Instant) {
        self.retry.hurry();
        self.start(now);
    }
}

/// How long the answer to a ping may take when there is a reason to doubt the connection.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(2);
