//! Finding the operation that makes the server close connections (rule 22), on a connection of its
//! own, so that the others see nothing of it.
//!
//! An operation is cleared, for good, by the first message that arrives for it, or by a ping behind
//! it that was answered by a connection that then lived for a moment. When a connection is lost in a
//! way that points at an operation, those on it that are not cleared are quarantined, and everything
//! else is re-issued at once.
//!
//! Quarantined operations are tried on a second connection, in groups. A trial is not the real
//! thing: its items are ignored, and no gap is announced for it. A group that survives is re-issued
//! on the current connection. One that loses the connection is divided, until one operation is
//! alone. That one is blamed when it was lost several times while others live, for only then is it
//! certain that the server takes any operation at all.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ConnectionId, Output, Session,
    connection::{Role, send_queue::Queued, timers::Timer},
    operations::{Operation, Outage, Place, Why},
    reconnect::verdicts::{Evidence, Stage, evidence},
};
use crate::{error::Disconnect, response::End};

/// What is known of the operations in quarantine. May name some that have left it.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// One of these closes connections.
    suspects: VecDeque<u64>,
    /// Of these nothing is known.
    unknown: VecDeque<u64>,
    /// These were alone when the connection was lost, but nothing else lived at that time.
    set_aside: VecDeque<u64>,
    /// Being tried.
    group: Vec<u64>,
    /// How often the connection was lost with this operation alone on it while others lived.
    losses: BTreeMap<u64, u32>,
    /// A group has survived.
    has_survivors: bool,
    /// Trials since the last survivor that were lost or never began.
    lost_trials: u32,
    /// No trial before this.
    not_before: Option<Instant>,
    /// Losses in a row that point at an operation, but weakly.
    weak_losses: u32,
    /// How often quarantine found nobody: what closes the connection may take longer.
    in_vain: u32,
    has_blamed: bool,
    /// It has begun and has not been concluded.
    is_running: bool,
    /// Attempts in a row at a connection for trials that were not acknowledged.
    failed_dials: u32,
}

impl Quarantine {
    /// Whether any operation is in quarantine.
    pub(super) fn is_active(&self) -> bool {
        !self.group.is_empty()
            || !self.suspects.is_empty()
            || !self.unknown.is_empty()
            || !self.set_aside.is_empty()
    }

    /// When the next trial is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before
    }

    /// Nothing is live any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The current connection has been open for a while.
    pub(super) fn connection_is_healthy(&mut self) {
        self.weak_losses = 0;
        if !self.is_active() {
            self.in_vain = 0;
        }
    }

    /// The connection ended for another reason.
    pub(super) fn no_loss(&mut self) {
        self.weak_losses = 0;
    }

    /// How long a group has to close the connection after its ping was answered.
    fn settle_time(&self) -> Duration {
        SETTLE_TIME * 2_u32.pow(self.in_vain.min(MAX_DOUBLINGS))
    }

    /// How long until the next trial. Short as long as trials tell something.
    fn delay(&self) -> Duration {
        let doublings = self.lost_trials.saturating_sub(QUICK_TRIALS).min(7);
        TRIAL_DELAY * 2_u32.pow(doublings)
    }

    /// Takes the next group: most of the suspects, as a lost connection tells sooner than one that
    /// survives. The unknown ones all at once.
    fn take_group(&mut self) -> Vec<u64> {
        if self.suspects.is_empty() && self.unknown.is_empty() {
            std::mem::swap(&mut self.suspects, &mut self.set_aside);
        }
        if self.suspects.is_empty() {
            return self.unknown.drain(..).collect();
        }
        let most = (self.suspects.len() * 2 / 3).max(1);
        self.suspects.drain(..most).collect()
    }
}

impl<W: Clone> Session<W> {
    /// The current connection was lost. If that points at an operation, those that are not cleared
    /// are quarantined. Returns whether any is.
    pub(super) fn quarantine_suspects(
        &mut self,
        now: Instant,
        on: ConnectionId,
        cause: &Disconnect,
    ) -> bool {
        let Some(evidence) = evidence(cause) else {
            self.quarantine.weak_losses = 0;
            return false;
        };
        self.clear_proven(now, on);
        let suspects = self.operations.ids(|operation| {
            !operation.is_cleared
                && matches!(operation.place(), Place::On(other, _) if *other == on)
        });
        // A lone operation has nobody to protect (rule 22e).
        if suspects.is_empty() || self.operations.len() == 1 {
            self.quarantine.weak_losses = 0;
            return false;
        }
        match evidence {
            Evidence::Strong => {}
            Evidence::Weak => {
                self.quarantine.weak_losses += 1;
                if self.quarantine.weak_losses < WEAK_LOSSES {
                    return false;
                }
            }
        }
        self.quarantine.weak_losses = 0;
        let outage = Arc::new(Outage { since: now, cause: Some(cause.clone()) });
        for id in suspects {
            self.operations.set_place(id, Place::Waiting(Why::Quarantine));
            self.operations.clear_subscription_deadline(id);
            if let Some(operation) = self.operations.get_mut(id) {
                operation.outage.get_or_insert_with(|| Arc::clone(&outage));
            }
            self.quarantine.suspects.push_back(id);
        }
        self.quarantine.not_before = Some(now);
        self.quarantine.is_running = true;
        true
    }

    /// Clears what was written before a ping that was answered, if the connection lived on for a
    /// moment.
    fn clear_proven(&mut self, now: Instant, on: ConnectionId) {
        let Some(cleared) = self.connection(on).map(|it| it.pings.outlived(now, SETTLE_TIME))
        else {
            return;
        };
        for id in self.operations.ids(|operation| !operation.is_cleared) {
            if let Some(operation) = self.operations.get_mut(id)
                && matches!(operation.place(), Place::On(other, serial)
                    if *other == on && *serial <= cleared)
            {
                operation.is_cleared = true;
            }
        }
    }

    /// Begins the next trial if it can begin, or concludes when nobody is left.
    pub(super) fn go_on_with_quarantine(&mut self, now: Instant) {
        if !self.quarantine.is_running {
            return;
        }
        let trial = self.current.other();
        let (operations, quarantine) = (&self.operations, &mut self.quarantine);
        for list in [&mut quarantine.suspects, &mut quarantine.unknown, &mut quarantine.set_aside] {
            list.retain(|id| operations.waits(*id, Why::Quarantine));
        }
        quarantine
            .group
            .retain(|id| operations.is_on(*id, trial) || operations.is_queued(*id, trial));
        let is_hopeless = quarantine.failed_dials >= MAX_FAILED_DIALS;
        if is_hopeless || self.operations.len() == 1 {
            // There is no way to find out, or nobody to protect.
            self.release_all(now);
        }
        if !self.quarantine.is_active() {
            return self.conclude_quarantine(now);
        }
        if !self.quarantine.group.is_empty() || !self.is_open() {
            self.quarantine.not_before = None;
            return;
        }
        match self.other().map(|other| (other.role, other.is_open())) {
            Some((Role::Trial, true)) => self.try_group(now, trial),
            // A handover goes first, or the connection for trials is on its way.
            Some((Role::Trial | Role::Successor | Role::Retiring | Role::Current, _)) => {
                self.quarantine.not_before = None;
            }
            None => self.dial_for_trial(now, trial),
        }
    }

    /// Everything in quarantine is sent on the current connection.
    fn release_all(&mut self, now: Instant) {
        let quarantine = &mut self.quarantine;
        let mut released: Vec<_> = std::mem::take(&mut quarantine.group);
        for list in [&mut quarantine.suspects, &mut quarantine.unknown, &mut quarantine.set_aside] {
            released.extend(list.drain(..));
        }
        released.sort_unstable();
        for id in released {
            self.leave(id, None, Why::Connection);
            self.issue(now, id);
        }
    }

    fn dial_for_trial(&mut self, now: Instant, trial: ConnectionId) {
        let at = self.quarantine.not_before.max(self.retry.budget_due(now));
        self.quarantine.not_before = at.filter(|at| *at > now);
        if self.quarantine.not_before.is_none() {
            self.add_connection(trial, Role::Trial);
            self.authorize(now, trial);
        }
    }

    /// Sends the next group, with a ping behind it.
    fn try_group(&mut self, now: Instant, trial: ConnectionId) {
        let group = self.quarantine.take_group();
        let Some(connection) = self.connections[trial as usize].as_mut() else { return };
        for &id in &group {
            let turn = self.operations.queue(id, trial);
            connection.send_queue.push(Queued::Subscribe(id, turn));
        }
        connection.probe();
        connection.timers.arm(Timer::Settled, now + MAX_SETTLE_TIME);
        self.quarantine.failed_dials = 0;
        self.quarantine.group = group;
        self.quarantine.not_before = None;
    }

    /// A ping was answered on the connection for trials.
    pub(super) fn trial_ponged(&mut self, now: Instant) {
        let settle_time = self.quarantine.settle_time();
        let trial = self.current.other();
        let Some(connection) = self.connections[trial as usize].as_mut() else { return };
        let operations = &self.operations;
        let is_read = |id: &u64| match operations.place(*id) {
            Some(Place::On(on, serial)) if *on == trial => connection.pings.has_read(*serial),
            Some(Place::Queued(on)) if *on == trial => false,
            Some(Place::Waiting(_) | Place::Queued(_) | Place::On(..) | Place::Moving(_))
            | None => true,
        };
        if self.quarantine.group.iter().all(is_read) {
            connection.timers.arm_by(Timer::Settled, now + settle_time);
        } else {
            connection.probe();
        }
    }

    /// The group had its time to close the connection, and has not.
    pub(super) fn trial_settled(&mut self, now: Instant) {
        let again = now + self.quarantine.settle_time();
        let Some(connection) = self.other_mut() else { return };
        // It is not read, so the close may be there already.
        if connection.liveness.is_paused() {
            return connection.timers.arm(Timer::Settled, again);
        }
        for id in std::mem::take(&mut self.quarantine.group) {
            self.release_from_quarantine(now, id);
        }
    }

    /// A message arrived for an operation that is tried: the server has begun it.
    pub(super) fn trial_answered(&mut self, now: Instant, id: u64) {
        self.release_from_quarantine(now, id);
        self.after_change(now);
    }

    fn release_from_quarantine(&mut self, now: Instant, id: u64) {
        self.quarantine.losses.remove(&id);
        self.quarantine.has_survivors = true;
        self.quarantine.lost_trials = 0;
        self.leave(id, None, Why::Connection);
        self.issue(now, id);
    }

    /// The connection for trials was lost, or could not be made.
    pub(super) fn trial_lost(
        &mut self,
        now: Instant,
        trial: ConnectionId,
        stage: Stage,
        cause: Disconnect,
    ) {
        let has_control = self.quarantine.has_survivors || self.is_any_alive();
        let written = self
            .operations
            .ids(|operation| matches!(operation.place(), Place::On(on, _) if *on == trial));
        self.abandon_attempt(trial);
        self.return_group(trial);
        self.remove_connection(trial);
        self.quarantine.lost_trials += 1;
        self.quarantine.not_before = Some(now + self.quarantine.delay());
        if stage == Stage::Opening {
            self.quarantine.failed_dials += 1;
        }
        let Some(evidence) = evidence(&cause).filter(|_| stage == Stage::Open) else { return };
        if written.is_empty() {
            return;
        }
        // The culprit is among these. Of the others nothing is known.
        let quarantine = &mut self.quarantine;
        let suspects = std::mem::take(&mut quarantine.suspects);
        quarantine.unknown.extend(suspects.into_iter().filter(|id| !written.contains(id)));
        quarantine.suspects = written.into();
        if quarantine.suspects.len() > 1 {
            return;
        }
        if !has_control {
            let alone = quarantine.suspects.pop_front();
            quarantine.set_aside.extend(alone);
            return;
        }
        let Some(&id) = quarantine.suspects.front() else { return };
        let losses = quarantine.losses.entry(id).or_insert(0);
        *losses += 1;
        let enough = match evidence {
            Evidence::Strong => 2,
            Evidence::Weak => 3,
        };
        if *losses >= enough {
            self.blame(id, cause);
        }
    }

    /// The group is not tried any more: it comes first the next time.
    pub(super) fn return_group(&mut self, trial: ConnectionId) {
        for id in std::mem::take(&mut self.quarantine.group).into_iter().rev() {
            if self.operations.is_on(id, trial) || self.operations.is_queued(id, trial) {
                self.operations.set_place(id, Place::Waiting(Why::Quarantine));
                self.quarantine.suspects.push_front(id);
            }
        }
    }

    /// Whether the current connection carries an operation that the server has taken.
    fn is_any_alive(&self) -> bool {
        self.open_connection().is_some_and(|on| {
            let is_alive = |operation: &Operation<W>| {
                operation.is_cleared && self.operations.is_on(operation.id, on)
            };
            self.operations.iter().any(is_alive)
        })
    }

    /// Ends the operation that closes connections, and it alone.
    fn blame(&mut self, id: u64, cause: Disconnect) {
        let Some(operation) = self.operations.remove(id) else { return };
        self.forget_awaited(id);
        let end = End::Lost(cause);
        self.outputs.push_back(Output::Finish { writer: operation.writer, end });
        // The losses so far were its doing.
        self.retry.forgive();
        self.quarantine.losses.remove(&id);
        self.quarantine.lost_trials = 0;
        self.quarantine.has_blamed = true;
    }

    /// Nobody is in quarantine any more.
    fn conclude_quarantine(&mut self, now: Instant) {
        let Quarantine { in_vain, has_blamed, weak_losses, .. } = self.quarantine;
        let in_vain = in_vain + u32::from(!has_blamed);
        self.quarantine = Quarantine { in_vain, weak_losses, ..Quarantine::default() };
        let Some(trial) = self.other_mut().filter(|other| other.role == Role::Trial) else {
            return;
        };
        if trial.is_open() {
            trial.close();
            trial.timers.arm(Timer::Shutdown, now + CLOSE_WITHIN);
        } else {
            let id = trial.id;
            self.abandon_attempt(id);
            self.remove_connection(id);
            self.outputs.push_back(Output::Hangup(id, None));
        }
    }
}

/// How long a connection must live after the answer to a ping for what was written before the ping
/// not to be what closes it: several round trips, and a server that thinks first.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// How often that time doubles at most, when quarantine has found nobody.
const MAX_DOUBLINGS: u32 = 2;

/// How long the answer to the ping behind a group may take.
const MAX_SETTLE_TIME: Duration = Duration::from_secs(5);

/// Losses in a row that point weakly at an operation before any is quarantined.
const WEAK_LOSSES: u32 = 2;

/// From a lost trial to the next one.
const TRIAL_DELAY: Duration = Duration::from_millis(250);

/// After so many lost trials in a row without a survivor the delay doubles each time.
const QUICK_TRIALS: u32 = 10;

/// After so many failed attempts at a connection for trials, in a row, there are none.
const MAX_FAILED_DIALS: u32 = 8;

/// How long the peer has to answer the close of the connection for trials.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
