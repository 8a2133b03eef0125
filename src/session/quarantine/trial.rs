//! Trying the operations that are in quarantine, in groups, on a connection of their own.

use std::time::{Duration, Instant};

use super::Trial;
use crate::{
    error::Disconnect,
    session::{
        ConnectionId, Session,
        connection::{Role, timers::Timer},
        operations::{Place, Why},
        quarantine::Quarantine,
        reconnect::verdicts::{Stage, evidence},
    },
};

impl<W: Clone> Session<W> {
    /// Begins the next trial if it can begin, or concludes when nobody is left.
    pub(crate) fn go_on_with_quarantine(&mut self, now: Instant) {
        if !self.quarantine.is_active {
            return;
        }
        if self.operations.len() == 1 {
            return self.conclude_quarantine(now);
        }
        self.quarantine.not_before.take_if(|at| *at <= now);
        if self.is_trying() {
            return;
        }
        if !self.is_open() {
            // The server may allow one connection only.
            return self.drop_trial();
        }
        if self.quarantine.not_before.is_some() {
            return;
        }
        let (operations, quarantine) = (&self.operations, &mut self.quarantine);
        let Quarantine { suspects, unknown, set_aside, .. } = quarantine;
        for list in [&mut *suspects, &mut *unknown, &mut *set_aside] {
            list.retain(|id| operations.waits(*id, Why::Quarantine));
        }
        if suspects.is_empty() && unknown.is_empty() {
            suspects.append(set_aside);
        }
        if suspects.is_empty() && unknown.is_empty() {
            return self.conclude_quarantine(now);
        }
        quarantine.trial = None;
        self.look_for_control(now);
        let quarantine = &mut self.quarantine;
        let is_second_allowed = quarantine.is_second_allowed();
        if quarantine.unknown.is_empty() || !is_second_allowed {
            quarantine.not_before = quarantine.lone_waits(now);
            if quarantine.not_before.is_some() {
                return;
            }
        }
        self.put_off_renewal(now);
        let (current, second) = (self.current, self.current.other());
        match self.other().map(|other| (other.role, other.is_open())) {
            Some((Role::Trial, true)) => self.try_group(now, second),
            None if is_second_allowed => self.dial_for_trial(now, second),
            None => self.try_group(now, current),
            // A handover goes first, or the connection for trials is on its way.
            Some((Role::Trial | Role::Successor | Role::Retiring | Role::Current, _)) => {}
        }
    }

    fn dial_for_trial(&mut self, now: Instant, on: ConnectionId) {
        self.quarantine.not_before = self.retry.budget_due(now);
        if self.quarantine.not_before.is_none() {
            self.add_connection(on, Role::Trial);
            self.authorize(now, on);
        }
    }

    /// Sends the next group, with a ping behind it.
    fn try_group(&mut self, now: Instant, on: ConnectionId) {
        let group = self.quarantine.take_group(now);
        for &id in &group {
            if on == self.current {
                self.release_from_quarantine(now, id);
            } else {
                self.enqueue(id, on);
                self.quarantine.failed_dials = 0;
            }
        }
        self.quarantine.trial = Some(Trial { group, on, begun: now });
        if let Some(connection) = self.connection_mut(on) {
            connection.probe();
            connection.timers.arm(Timer::Settled, now + MAX_SETTLE_TIME);
        }
    }

    /// Whether any operation is being tried.
    fn is_trying(&self) -> bool {
        let Some(Trial { group, on, .. }) = &self.quarantine.trial else { return false };
        group.iter().any(|id| self.is_tried(*id, *on))
    }

    fn is_tried(&self, id: u64, on: ConnectionId) -> bool {
        match self.operations.place(id) {
            Some(Place::Queued(other, _) | Place::On(other, _)) => *other == on,
            Some(Place::Waiting(why)) => *why == Why::Pacing && on == self.current,
            Some(Place::Moving(_)) | None => false,
        }
    }

    /// The serial of the last operation that is tried on a connection, if all are written.
    fn serial_of_trial(&self, on: ConnectionId) -> Option<u64> {
        let trial = self.quarantine.trial.as_ref().filter(|trial| trial.on == on)?;
        let last = trial.group.iter().rfind(|id| self.is_tried(**id, on))?;
        self.operations.serial_on(*last, on)
    }

    /// A ping was answered on a connection on which operations may be tried.
    pub(crate) fn trial_ponged(&mut self, now: Instant, on: ConnectionId) {
        if self.quarantine.trial.as_ref().is_none_or(|trial| trial.on != on) || !self.is_trying() {
            return;
        }
        let (last, settle_time) = (self.serial_of_trial(on), self.quarantine.settle_time());
        let Some(connection) = self.connection_mut(on) else { return };
        if last.is_some_and(|serial| connection.pings.has_read(serial)) {
            connection.timers.arm_by(Timer::Settled, now + settle_time);
        } else {
            self.probe_trial(on);
        }
    }

    /// Sends a ping behind what is tried on a connection. Not while some of it waits for its turn
    /// under `reissue_rate`: that ping would go before it, and each pong would cause the next ping.
    pub(crate) fn probe_trial(&mut self, on: ConnectionId) {
        let Some(trial) = self.quarantine.trial.as_ref().filter(|trial| trial.on == on) else {
            return;
        };
        let is_paced = trial.group.iter().any(|id| self.operations.waits(*id, Why::Pacing));
        if let Some(connection) = self.connection_mut(on).filter(|_| !is_paced) {
            connection.probe();
        }
    }

    /// The group had its time to close the connection, and has not.
    pub(crate) fn trial_settled(&mut self, now: Instant, on: ConnectionId) {
        if self.quarantine.trial.as_ref().is_none_or(|trial| trial.on != on) {
            return;
        }
        let (last, settle_time) = (self.serial_of_trial(on), self.quarantine.settle_time());
        let Some(connection) = self.connection_mut(on) else { return };
        // It is not written, or the close may be there and is not read.
        if last.is_none() || connection.liveness.is_paused() {
            return connection.timers.arm(Timer::Settled, now + settle_time);
        }
        let group = self.quarantine.trial.take().map(|trial| trial.group);
        self.quarantine.lost_trials = 0;
        for id in group.into_iter().flatten() {
            if on != self.current && self.is_tried(id, on) {
                self.release_from_quarantine(now, id);
            }
        }
    }

    /// A message arrived for an operation that is tried: the server has begun it.
    pub(crate) fn trial_answered(&mut self, now: Instant, id: u64) {
        self.quarantine.lost_trials = 0;
        self.release_from_quarantine(now, id);
        self.after_change(now);
    }

    pub(super) fn release_from_quarantine(&mut self, now: Instant, id: u64) {
        self.leave(id, None, Why::Connection);
        self.issue(now, id);
    }

    /// The connection for trials was lost, or could not be made.
    pub(crate) fn trial_lost(
        &mut self,
        now: Instant,
        on: ConnectionId,
        stage: Stage,
        cause: &Disconnect,
    ) {
        self.abandon_attempt(on);
        self.remove_connection(on);
        let quarantine = &mut self.quarantine;
        quarantine.lost_trials += 1;
        quarantine.failed_dials += u32::from(stage == Stage::Opening);
        quarantine.not_before = Some(now + quarantine.delay());
        let Some(Trial { group, begun, .. }) = &quarantine.trial else { return };
        let written = group.iter().filter(|id| self.operations.is_on(**id, on)).count();
        let begun = *begun;
        self.return_group(on);
        if let Some(evidence) = evidence(cause).filter(|_| written > 0) {
            let written = self.quarantine.suspects.drain(..written).collect();
            self.suspect(now, written, Some(begun), evidence, cause);
        }
    }

    /// The group is not tried any more: it comes first the next time.
    fn return_group(&mut self, on: ConnectionId) {
        let Some(trial) = self.quarantine.trial.take_if(|trial| trial.on == on) else { return };
        let group: Vec<_> = trial.group.into_iter().filter(|id| self.is_tried(*id, on)).collect();
        for &id in &group {
            self.operations.set_place(id, Place::Waiting(Why::Quarantine));
        }
        self.quarantine.suspects.splice(0..0, group);
    }

    /// Closes the connection for trials, if there is one.
    pub(crate) fn drop_trial(&mut self) {
        if self.other().is_some_and(|other| other.role == Role::Trial) {
            self.return_group(self.current.other());
            self.hang_up_other();
        }
    }
}

/// How long the answer to the ping behind a group may take.
const MAX_SETTLE_TIME: Duration = Duration::from_secs(5);
