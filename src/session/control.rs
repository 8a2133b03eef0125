//! Commands about the connection itself: connect, pause, resume, reconnect, shut down, and check
//! whether it still works.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Output, Session, Status,
    connection::{Connection, Phase, timers::Timer},
    operations::Outage,
};
use crate::{error::Disconnect, response::ConnectionEnd};

impl<W: Clone> Session<W> {
    /// Somebody waits for a connection, with or without operations; answered by
    /// `Output::Connected`.
    pub(crate) fn connect(&mut self, now: Instant) {
        self.is_connection_awaited = true;
        self.is_kept |= self.config.idle_timeout.is_none();
        match self.phase() {
            Some(Phase::Open(_)) => self.answer_connect(Ok(())),
            None | Some(Phase::Closing(_)) if self.is_closing() => {
                self.answer_connect(Err(ConnectionEnd::ShutDown));
            }
            None => self.start(now),
            Some(
                Phase::Waiting
                | Phase::Authorizing
                | Phase::Dialing(_)
                | Phase::Opening(_)
                | Phase::Closing(_),
            ) => {}
        }
        // A connection that nobody uses is not kept for ever.
        self.look_for_idleness(now);
    }

    /// Closes the connection and makes no other until `resume`. Operations stay.
    pub(crate) fn pause(&mut self, now: Instant) {
        if self.is_paused || self.is_closing() {
            return;
        }
        self.is_paused = true;
        self.hang_up(now);
        self.retry.not_refused();
        // The next connection will be another one.
        self.answer_rotate(Ok(()));
        self.outputs.push_back(Output::Status(Status::Paused));
    }

    /// Ends a `pause`.
    pub(crate) fn resume(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_paused) && !self.is_closing() && self.current().is_none() {
            self.start(now);
        }
    }

    /// Ends the retry delay, or makes another connection in place of the current one.
    pub(crate) fn reconnect_now(&mut self, now: Instant) {
        match self.phase() {
            Some(Phase::Waiting) => self.start_now(now),
            // The dial budget is used up, so the current connection is kept.
            Some(Phase::Open(_) | Phase::Opening(_)) if self.retry.budget_due(now).is_some() => {}
            Some(Phase::Open(_) | Phase::Opening(_)) => {
                self.hang_up(now);
                if self.has_reason() {
                    self.start_now(now);
                } else {
                    self.rest();
                }
            }
            // There is an attempt already, or nothing to connect for.
            None | Some(Phase::Authorizing | Phase::Dialing(_) | Phase::Closing(_)) => {}
        }
    }

    /// The network is another one, or is back: connections may be dead, and what failed may work.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        match self.phase() {
            Some(Phase::Waiting) => self.start_now(now),
            Some(Phase::Open(_)) => {
                let patience = DOUBT_TIMEOUT.min(self.config.ping_timeout);
                for connection in self.connections.iter_mut().flatten() {
                    connection.doubt(now, patience);
                }
            }
            None
            | Some(
                Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_) | Phase::Closing(_),
            ) => {}
        }
    }

    /// Ends everything: politely where there is a socket, and by `deadline` in any case (rule 29).
    pub(crate) fn shutdown(&mut self, now: Instant, deadline: Instant) {
        if self.has_ended {
            return;
        }
        if let Some(current) = self.current_mut()
            && matches!(current.phase, Phase::Closing(_))
        {
            return current.timers.arm_by(Timer::Shutdown, deadline);
        }
        let current = self.current;
        let known: Vec<_> = (self.operations.iter())
            .flat_map(|operation| self.operations.wire_ids(operation.id))
            .filter(|(on, _)| *on == current)
            .collect();
        self.finish_all(&ConnectionEnd::ShutDown);
        self.drop_other(now, &Disconnect::Requested);
        self.quarantine.clear();
        self.answer_connect(Err(ConnectionEnd::ShutDown));
        self.answer_rotate(Err(ConnectionEnd::ShutDown));
        let subprotocol = match self.phase() {
            Some(Phase::Opening(subprotocol) | Phase::Open(subprotocol)) => subprotocol,
            None | Some(Phase::Waiting | Phase::Authorizing | Phase::Dialing(_)) => {
                self.outputs.push_back(Output::Hangup(current, None));
                self.remove_connection(current);
                self.has_ended = true;
                self.outputs.push_back(Output::Ended);
                return;
            }
            Some(Phase::Closing(_)) => return,
        };
        let Some(connection) = self.current_mut() else { return };
        connection.send_queue.keep_only_completes();
        connection.timers.clear();
        for (_, wire_id) in known {
            connection.send_queue.complete(wire_id, false);
        }
        connection.send_queue.close(subprotocol);
        connection.phase = Phase::Closing(subprotocol);
        connection.timers.arm(Timer::Shutdown, deadline);
    }

    /// Ends everything without a word to the server: the driver itself is dropped.
    pub(crate) fn abandon(&mut self) {
        self.finish_all(&ConnectionEnd::ShutDown);
    }

    /// Whether there is anything to be connected for.
    pub(super) fn has_reason(&self) -> bool {
        !self.operations.is_empty() || self.is_connection_awaited || self.is_kept
    }

    /// Answers everyone who waits for a connection.
    pub(super) fn answer_connect(&mut self, answer: Result<(), ConnectionEnd>) {
        if std::mem::take(&mut self.is_connection_awaited) {
            self.outputs.push_back(Output::Connected(answer));
        }
    }

    /// No operation was live on the connection for a while.
    pub(super) fn close_idle(&mut self) {
        if self.is_open() && !self.has_reason() {
            let close = self.current().and_then(Connection::close_frame);
            self.outputs.push_back(Output::Hangup(self.current, close));
            self.retry.uncount_attempt();
            // Nothing was lost.
            self.last_cause = None;
            self.rest();
        }
    }

    /// Gives every connection up, and every attempt at one, because the application says so.
    fn hang_up(&mut self, now: Instant) {
        let cause = Disconnect::Requested;
        self.drop_other(now, &cause);
        let id = self.current;
        let close = self.current().and_then(Connection::close_frame);
        match self.phase() {
            Some(Phase::Open(_)) => self.retry.uncount_attempt(),
            Some(_) => self.abandon_attempt(id),
            None => {}
        }
        if self.current().is_some_and(|connection| connection.phase != Phase::Waiting) {
            self.outputs.push_back(Output::Hangup(id, close));
        }
        self.quarantine.no_loss();
        self.give_up_mutations(id, Some(&cause));
        let outage = Arc::new(Outage { since: now, cause: Some(cause.clone()) });
        self.return_to_waiting(id, &outage);
        self.note_outage(&outage);
        self.remove_connection(id);
        self.last_cause = Some(cause);
        // The end of a mutation may leave one operation alone in quarantine (rule 22e).
        self.go_on_with_quarantine(now);
    }

    /// Dials without the backoff, but not beyond the budget.
    fn start_now(&mut self, now: Instant) {
        self.retry.skip_delay();
        self.start(now);
    }
}

/// How long the answer to a ping may take when there is a reason to doubt the connection.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(2);
