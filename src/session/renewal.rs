//! When a connection that works is to be replaced, and the attempts at that, none of which can be
//! fatal.

use std::time::{Duration, Instant};

use super::{
    End, Output, Session,
    handover::LOOK_AGAIN,
    leg::{Phase, Role},
    timers::Timer,
};
use crate::{
    error::Disconnect,
    protocol::close::{Stage, verdict},
    session::Status,
};

impl<S: Clone> Session<S> {
    /// Somebody wants another connection in place of the one that there is; answered by
    /// `Output::Rotated`.
    pub(crate) fn rotate(&mut self, now: Instant) {
        self.handover.is_wanted = true;
        match self.leg.phase {
            Phase::Open(_) => self.renew(now),
            // The next one will be another.
            Phase::Idle => self.answer_rotate(Ok(())),
            Phase::Closing(_) | Phase::Ended => self.answer_rotate(Err(End::ShutDown)),
            Phase::Waiting | Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_) => {}
        }
    }

    /// Tells who waits for another connection.
    pub(super) fn answer_rotate(&mut self, answer: Result<(), End>) {
        if std::mem::take(&mut self.handover.is_wanted) {
            self.outputs.push_back(Output::Rotated(answer));
        }
    }

    /// The server will not keep the connection for long. Everybody else is told the same, so there
    /// is a delay, which grows if it says so again and again.
    pub(super) fn is_told_goodbye(&mut self, now: Instant) {
        if self.leg.role == Role::Current && !std::mem::replace(&mut self.leg.is_told_goodbye, true)
        {
            let delay = self.retry.next_delay();
            self.leg.timers.arm_by(Timer::Renewal, now + delay);
        }
    }

    /// Decides when the connection is to be replaced, if it lives that long: ahead of the end of
    /// its credentials.
    pub(super) fn plan_renewal(&mut self, now: Instant) {
        let lifetime = self
            .leg
            .expires_at
            .map(|at| at.saturating_duration_since(now))
            .filter(|left| !left.is_zero());
        let credentials = lifetime.map(|lifetime| {
            let latest =
                lifetime.saturating_sub(HANDOVER).max(lifetime / 2).min(lifetime.mul_f64(0.9));
            self.retry.within(latest, 7.0 / 9.0, 1.0).max(SHORTEST_LIFE)
        });
        let age = self.config.max_connection_age.map(|age| self.retry.within(age, 0.9, 1.0));
        self.leg.expiring_from = credentials.map(|after| now + after);
        if let Some(after) = credentials.into_iter().chain(age).min() {
            self.leg.timers.arm(Timer::Renewal, now + after);
        }
    }

    /// The connection is to be replaced: now, or when nothing else is under way that needs all
    /// attention.
    pub(super) fn renew(&mut self, now: Instant) {
        if self.other.is_some() || self.suspicion.is_on_trial() {
            return self.leg.timers.arm(Timer::Renewal, now + LOOK_AGAIN);
        }
        self.leg.timers.disarm(Timer::Renewal);
        self.hand_over(now);
    }

    pub(super) fn hand_over(&mut self, now: Instant) {
        if self.leg.expiring_from.is_some_and(|from| from <= now) {
            self.retry.expiring();
        }
        let successor = self.leg.successor(&self.config);
        let id = successor.id;
        self.other = Some(Box::new(successor));
        self.on(now, id, |session| session.start(now));
    }

    /// The successor failed. The current leg goes on, and another attempt follows.
    pub(super) fn postpone(&mut self, now: Instant, cause: Disconnect) {
        self.leg.leave_socket();
        self.space(now, cause, Stage::Opening);
        self.start(now);
    }

    /// Spaces the next attempt. It cannot be fatal while there is a connection.
    pub(super) fn space(&mut self, now: Instant, cause: Disconnect, stage: Stage) {
        let wanted = self.retry.wanted(&cause);
        let verdict = wanted.unwrap_or_else(|| verdict(&cause, stage, self.negotiation.is_open()));
        let _ = self.retry.judge(now, cause.clone(), verdict, &mut self.negotiation);
        self.retry.closed();
        self.outputs.push_back(Output::Postponed(cause));
    }

    /// The current leg was lost while its successor was under way. Whether that takes its place.
    pub(super) fn adopt(&mut self, now: Instant) -> bool {
        if !self.has_reason() {
            return false;
        }
        let Some(successor) = self.other.take_if(|other| other.role == Role::Successor) else {
            return false;
        };
        self.leg = *successor;
        self.leg.role = Role::Current;
        if self.leg.phase == Phase::Waiting {
            // The loss may say more of that.
            self.leg.timers.clear();
            self.start(now);
            return true;
        }
        let (attempt, cause) = (self.retry.attempts(), self.last_cause.clone());
        self.status(Status::Connecting { attempt, cause });
        true
    }

    /// Whether an attempt at a successor is under way.
    pub(super) fn is_succeeding(&self) -> bool {
        let is_attempt =
            |phase| matches!(phase, Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_));
        self.other
            .as_ref()
            .is_some_and(|other| other.role == Role::Successor && is_attempt(other.phase))
    }
}

/// How long before credentials end a handover begins at the latest, if they last: it takes a dial
/// and mostly no more than 10 s.
const HANDOVER: Duration = Duration::from_secs(12);

/// No connection is replaced sooner because its credentials end: a provider that gives what is over
/// at once must not make it spin.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
