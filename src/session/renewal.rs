//! When a connection that works is replaced, and the attempts at that. None of them can be fatal.

use std::time::{Duration, Instant};

use super::{
    LOOK_AGAIN, Output, Session,
    connection::{ConnectionId, Phase, Role, timers::Timer},
    reconnect::verdicts::Stage,
};
use crate::{error::Disconnect, response::ConnectionEnd};

impl<W: Clone> Session<W> {
    /// Somebody wants another connection in place of the current one; answered by
    /// `Output::Rotated`.
    pub(crate) fn rotate(&mut self, now: Instant) {
        self.handover.is_rotation_awaited = true;
        match self.phase() {
            Some(Phase::Open(_)) => self.renew(now),
            None | Some(Phase::Closing(_)) if self.is_closing() => {
                self.answer_rotate(Err(ConnectionEnd::ShutDown));
            }
            // The next connection will be another one.
            None => self.answer_rotate(Ok(())),
            Some(
                Phase::Waiting
                | Phase::Authorizing
                | Phase::Dialing(_)
                | Phase::Opening(_)
                | Phase::Closing(_),
            ) => {}
        }
    }

    /// Answers everyone who waits for another connection.
    pub(super) fn answer_rotate(&mut self, answer: Result<(), ConnectionEnd>) {
        if std::mem::take(&mut self.handover.is_rotation_awaited) {
            self.outputs.push_back(Output::Rotated(answer));
        }
    }

    /// The server has sent `connection_terminate`: it will not keep the connection for long. It has
    /// told every client the same, so the renewal has a delay, which grows if that happens again
    /// and again.
    pub(super) fn terminated(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connection_mut(id) else { return };
        if connection.role == Role::Current
            && !std::mem::replace(&mut connection.is_terminated, true)
        {
            let at = now + self.retry.next_delay();
            if let Some(connection) = self.connection_mut(id) {
                connection.timers.arm_by(Timer::Renewal, at);
            }
        }
    }

    /// Decides when the current connection is replaced, if it lives that long: before its
    /// credentials expire, or at `max_connection_age`.
    pub(super) fn plan_renewal(&mut self, now: Instant) {
        let expires_at = self.current().and_then(|connection| connection.expires_at);
        let lifetime = expires_at.map(|at| at.saturating_duration_since(now));
        let before_expiry = lifetime.filter(|lifetime| !lifetime.is_zero()).map(|lifetime| {
            let latest = lifetime.saturating_sub(HANDOVER).max(lifetime / 2);
            let latest = latest.min(lifetime.mul_f64(0.9));
            self.retry.random_part(latest, 7.0 / 9.0, 1.0).max(SHORTEST_LIFE)
        });
        let age = self.config.max_connection_age;
        let at_age = age.map(|age| self.retry.random_part(age, 0.9, 1.0));
        let Some(connection) = self.current_mut() else { return };
        connection.expiring_from = before_expiry.map(|after| now + after);
        if let Some(after) = before_expiry.into_iter().chain(at_age).min() {
            connection.timers.arm(Timer::Renewal, now + after);
        }
    }

    /// The current connection is to be replaced: now, or when the other slot is free.
    pub(super) fn renew(&mut self, now: Instant) {
        if self.quarantine.is_stuck() {
            self.drop_trial();
        }
        let is_tried = self.quarantine.is_active() && !self.quarantine.is_stuck();
        let is_busy = self.other().is_some() || is_tried;
        let Some(connection) = self.current_mut() else { return };
        if is_busy {
            return connection.timers.arm(Timer::Renewal, now + LOOK_AGAIN);
        }
        connection.timers.disarm(Timer::Renewal);
        self.dial_successor(now);
    }

    /// Gives up an attempt at a successor that waits for its time, as the slot is needed.
    pub(super) fn put_off_renewal(&mut self, now: Instant) {
        if self.other().is_some_and(|it| it.role == Role::Successor && it.phase == Phase::Waiting) {
            self.remove_connection(self.current.other());
            if let Some(connection) = self.current_mut() {
                connection.timers.arm(Timer::Renewal, now + LOOK_AGAIN);
            }
        }
    }

    /// Begins an attempt at a successor.
    pub(super) fn dial_successor(&mut self, now: Instant) {
        let expiring_from = self.current().and_then(|connection| connection.expiring_from);
        if expiring_from.is_some_and(|from| from <= now) {
            self.retry.expiring();
        }
        let id = self.current.other();
        self.add_connection(id, Role::Successor);
        self.attempt(now, id);
    }

    /// The attempt at a successor has failed. The current connection goes on, and another attempt
    /// follows.
    pub(super) fn successor_failed(&mut self, now: Instant, id: ConnectionId, cause: Disconnect) {
        self.add_connection(id, Role::Successor);
        self.delay_next_attempt(now, cause, Stage::Opening);
        self.attempt(now, id);
    }

    /// An attempt at a successor has failed, or the successor was lost: the next attempt is
    /// delayed. It cannot be fatal while there is a connection.
    pub(super) fn delay_next_attempt(&mut self, now: Instant, cause: Disconnect, stage: Stage) {
        let verdict = self.retry.verdict(&cause, stage, &self.negotiation).verdict();
        self.retry.judge_beside(now, cause.clone(), verdict, &mut self.negotiation);
        self.outputs.push_back(Output::Postponed(cause));
    }

    /// The current connection was lost while an attempt at a successor was under way. Returns
    /// whether that takes its place.
    pub(super) fn adopt_successor(&mut self, now: Instant) -> bool {
        let id = self.current.other();
        let is_successor =
            self.connection(id).is_some_and(|connection| connection.role == Role::Successor);
        if !is_successor || !self.has_reason() {
            return false;
        }
        self.current = id;
        let Some(connection) = self.connection_mut(id) else { return false };
        connection.role = Role::Current;
        if connection.is_attempt() {
            self.count_attempt(id);
        } else {
            // The loss may say more about when to dial.
            self.attempt(now, id);
        }
        true
    }

    /// Whether an attempt at a successor is under way.
    pub(super) fn is_succeeding(&self) -> bool {
        self.other().is_some_and(|other| other.role == Role::Successor && other.is_attempt())
    }
}

/// How long before credentials expire a handover begins at the latest, if they last that long: it
/// takes a dial, and mostly no more than 10 s.
const HANDOVER: Duration = Duration::from_secs(12);

/// No connection is replaced earlier because its credentials expire: a provider whose credentials
/// expire at once must not make the client spin.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
