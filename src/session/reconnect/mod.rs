//! Attempts at a connection, and what follows when one fails or is lost.

mod backoff;
mod credentials;
pub(super) mod negotiation;
pub(super) mod retry;
pub(super) mod verdicts;

use std::{sync::Arc, time::Instant};

pub(crate) use self::backoff::Backoff;
pub use self::credentials::CredentialsReason;
use self::{
    retry::{Judged, Plan},
    verdicts::{Stage, Verdict, evidence},
};
use super::{
    Granted, Output, Session, Status,
    config::MAX_DURATION,
    connection::{Connection, ConnectionId, Phase, Role, timers::Timer},
    operations::Outage,
};
use crate::{
    error::{CloseCode, CredentialsError, Disconnect},
    response::ConnectionEnd,
};

impl<W: Clone> Session<W> {
    /// Connects as soon as the spacing of attempts allows, if there is anything to connect for.
    pub(super) fn start(&mut self, now: Instant) {
        if self.is_paused {
            return;
        }
        if !self.has_reason() {
            return self.rest();
        }
        let id = self.current;
        if self.connections[id as usize].is_none() {
            self.add_connection(id, Role::Current);
        }
        self.attempt(now, id);
    }

    /// Begins the next attempt of a connection, now or when the spacing allows.
    pub(super) fn attempt(&mut self, now: Instant, id: ConnectionId) {
        let Some(at) = self.retry.due(now) else { return self.authorize(now, id) };
        let Some(connection) = self.connection_mut(id) else { return };
        connection.phase = Phase::Waiting;
        connection.timers.clear();
        connection.timers.arm(Timer::Backoff, at);
        let refused_since = self.retry.refused_since();
        let cause = self.last_cause.clone();
        self.status(id, Status::Waiting { delay: at - now, cause, refused_since });
    }

    /// Asks for credentials.
    pub(super) fn authorize(&mut self, now: Instant, id: ConnectionId) {
        let timeout = self.config.credentials_timeout;
        let Some(connection) = self.connection_mut(id) else { return };
        connection.phase = Phase::Authorizing;
        connection.timers.clear();
        connection.timers.arm(Timer::Connect, now + timeout);
        let role = connection.role;
        let reason = self.retry.begin(now);
        if role == Role::Current {
            self.count_attempt(id);
        }
        self.outputs.push_back(Output::Authorize(id, reason));
    }

    /// An attempt at the current connection is under way: it counts.
    pub(super) fn count_attempt(&mut self, id: ConnectionId) {
        let attempt = self.retry.count_attempt();
        let refused_since = self.retry.refused_since();
        let cause = self.last_cause.clone();
        self.status(id, Status::Connecting { attempt, cause, refused_since });
    }

    /// The provider has answered.
    pub(crate) fn handle_credentials(
        &mut self,
        now: Instant,
        id: ConnectionId,
        answer: Result<Granted, CredentialsError>,
    ) {
        if self.connection(id).is_none_or(|connection| connection.phase != Phase::Authorizing) {
            return;
        }
        let Granted { init_payload, lifetime } = match answer {
            Ok(granted) => granted,
            Err(error) => return self.lose(now, id, Disconnect::Credentials(error)),
        };
        // The last operation was dropped meanwhile.
        if self.current == id && !self.has_reason() {
            self.abandon_attempt(id);
            return self.rest();
        }
        let subprotocol = self.negotiation.next();
        let connect_timeout = self.config.connect_timeout;
        let Some(connection) = self.connection_mut(id) else { return };
        connection.send_queue.owe_init(init_payload);
        connection.expires_at = lifetime.map(|lifetime| now + lifetime.min(MAX_DURATION));
        connection.phase = Phase::Dialing(subprotocol);
        connection.timers.arm(Timer::Connect, now + connect_timeout);
        self.counts.dials += 1;
        self.outputs.push_back(Output::Dial(id, subprotocol));
    }

    /// An attempt is given up by this side: it has not failed.
    pub(super) fn abandon_attempt(&mut self, id: ConnectionId) {
        let Some(&Connection { phase, role, .. }) = self.connection(id) else { return };
        match phase {
            Phase::Authorizing | Phase::Dialing(_) => self.retry.unused(),
            Phase::Opening(_) => {}
            Phase::Waiting | Phase::Open(_) | Phase::Closing(_) => return,
        }
        if role == Role::Current {
            self.retry.uncount_attempt();
        }
    }

    /// The socket, or the attempt at one, is of no more use.
    pub(super) fn lose(&mut self, now: Instant, id: ConnectionId, cause: Disconnect) {
        let close = match cause {
            Disconnect::MessageTooBig { .. } => Some((CloseCode::TOO_BIG, "Message too big")),
            _ => None,
        };
        self.break_off(now, id, cause, close);
    }

    /// Drops a connection, or the attempt at one, and decides what follows.
    pub(super) fn break_off(
        &mut self,
        now: Instant,
        id: ConnectionId,
        cause: Disconnect,
        close: Option<(CloseCode, &'static str)>,
    ) {
        let Some(connection) = self.connection(id) else { return };
        let (role, phase) = (connection.role, connection.phase);
        let stage = match phase {
            // There is no socket.
            Phase::Waiting => return,
            // The peer has answered the close, or will not.
            Phase::Closing(_) => return self.closed(now, id),
            Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_) => Stage::Opening,
            Phase::Open(_) => Stage::Open,
        };
        self.outputs.push_back(Output::Hangup(id, close));
        match role {
            Role::Successor => self.successor_failed(now, id, cause),
            Role::Retiring => self.retiring_lost(now, id, &cause),
            Role::Trial => self.trial_lost(now, id, stage, &cause),
            Role::Current if self.can_undo_handover() => self.undo_handover(now, cause),
            Role::Current => self.current_lost(now, stage, cause),
        }
    }

    /// The current connection was lost, or the attempt at it failed, and no other one takes over
    /// what it carried.
    fn current_lost(&mut self, now: Instant, stage: Stage, cause: Disconnect) {
        let id = self.current;
        let had_mutations = self.give_up_mutations(id, Some(&cause));
        let is_loss = stage == Stage::Open;
        self.is_reconnecting |= is_loss;
        let judged = self.retry.verdict(&cause, stage, &self.negotiation);
        let is_the_end = matches!(judged, Judged::ByApplication(Verdict::Fatal));
        // One operation is at fault, not the server. A mutation is the likely one, and it is gone.
        let is_of_one = is_loss
            && !is_the_end
            && (had_mutations && evidence(&cause).is_some()
                || self.quarantine_suspects(now, id, &cause));
        let verdict = match judged {
            Judged::ByApplication(verdict) => verdict,
            Judged::ByTable(Verdict::OneOperation) if !is_of_one && self.operations.len() == 1 => {
                Verdict::Fatal
            }
            Judged::ByTable(verdict) if !is_of_one && verdict != Verdict::OneOperation => verdict,
            Judged::ByTable(_) => Verdict::Retry,
        };
        let outage = Arc::new(Outage { since: now, cause: Some(cause.clone()) });
        self.return_to_waiting(id, &outage);
        if is_loss {
            self.note_outage(&outage);
        }
        self.remove_connection(id);
        self.last_cause = Some(cause.clone());
        let was_refused = self.retry.refused_since().is_some();
        let plan = self.retry.judge(now, cause.clone(), verdict, &mut self.negotiation);
        if !was_refused && self.retry.refused_since().is_some() {
            self.outputs.push_back(Output::Refused(cause.clone(), self.config.refusal_grace));
        }
        match plan {
            Plan::Again if self.adopt_successor(now) => {}
            // The attempt that is under way has not failed.
            Plan::GiveUp if self.is_succeeding() && self.adopt_successor(now) => {}
            Plan::Again => self.start(now),
            Plan::GiveUp => {
                let attempts = self.retry.attempts();
                self.fail_all(&ConnectionEnd::GaveUp { attempts, cause });
            }
            Plan::Fatal(cause) => self.fail_all(&ConnectionEnd::Lost(cause)),
        }
    }

    /// Ends what is live. The client stays usable, and the next operation starts afresh (rule 23).
    pub(super) fn fail_all(&mut self, end: &ConnectionEnd) {
        match end {
            ConnectionEnd::Lost(cause) => self.retry.ended(cause),
            ConnectionEnd::GaveUp { .. } | ConnectionEnd::ShutDown => self.retry.reset_counts(),
        }
        self.is_kept = false;
        self.finish_all(end);
        self.answer_connect(Err(end.clone()));
        self.answer_rotate(Err(end.clone()));
        self.rest();
    }

    /// There is nothing to be connected for.
    pub(super) fn rest(&mut self) {
        self.remove_connection(self.current);
        self.hang_up_other();
        // The next connection will be another one.
        self.answer_rotate(Ok(()));
        self.quarantine.clear();
        self.retry.not_refused();
        self.is_reconnecting = false;
        self.outputs.push_back(Output::Status(Status::Idle));
    }

    /// Tells an operator, if this is the connection that operations are sent on.
    pub(super) fn status(&mut self, id: ConnectionId, status: Status) {
        if self.connection(id).is_some_and(|connection| connection.role == Role::Current) {
            self.outputs.push_back(Output::Status(status));
        }
    }

    pub(super) fn status_open(&mut self) {
        let Some(Connection { phase: Phase::Open(subprotocol), ack_payload, .. }) = self.current()
        else {
            return;
        };
        let (subprotocol, ack_payload) = (*subprotocol, ack_payload.clone());
        self.outputs.push_back(Output::Status(Status::Open { subprotocol, ack_payload }));
    }
}
