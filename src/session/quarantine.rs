//! Finding the operation that makes the server close connections (rule 22), on a connection of its
//! own, so that the others see nothing of it.
//!
//! An operation is cleared, for good, by the first message that arrives for it, or by a ping behind
//! it that was answered by a connection that then lived for a moment. When a connection is lost in
//! a way that points at an operation, those on it that are not cleared are quarantined, and
//! everything else is re-issued at once.
//!
//! Quarantined operations are tried on a second connection, in groups. A trial is not the real
//! thing: its items are ignored, and no gap is announced for it. A group that survives is re-issued
//! on the current connection. One that loses the connection is divided, until one operation is
//! alone. That one is blamed when it was lost several times while another one had lived on the
//! current connection for much longer. Otherwise the server may close connections over anything.
//!
//! Where the server allows no second connection, groups are tried on the current one.

mod trial;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ConnectionId, Output, Session,
    operations::{Outage, Place, Why},
    reconnect::verdicts::{Evidence, evidence},
};
use crate::{
    error::Disconnect,
    response::{ConnectionEnd, End},
};

/// What is known of the operations in quarantine. May name some that have left it.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// It has begun and has not been concluded.
    is_active: bool,
    /// One of these closes connections.
    suspects: Vec<u64>,
    /// Of these nothing is known.
    unknown: Vec<u64>,
    /// Each of these was alone when the connection was lost, but nothing else lived at that time.
    set_aside: Vec<u64>,
    trial: Option<Trial>,
    lone: Lone,
    /// An operation that lives on the current connection, and since when.
    control: Option<(u64, Instant)>,
    /// No trial before this.
    not_before: Option<Instant>,
    /// Trials since the last survivor that were lost or never began.
    lost_trials: u32,
    /// Attempts in a row at a connection for trials that were not acknowledged.
    failed_dials: u32,
    /// Losses in a row that point at an operation, but weakly.
    weak_losses: u32,
    /// How often operations were quarantined since one was blamed, each time soon after the time
    /// before: what closes the connection may take longer than it was waited for.
    rounds: u32,
    /// When nobody was left.
    concluded_at: Option<Instant>,
}

/// Some operations that are tried together.
#[derive(Debug)]
struct Trial {
    group: Vec<u64>,
    on: ConnectionId,
    begun: Instant,
}

/// The operation that was alone when the connection was lost.
#[derive(Debug, Default)]
struct Lone {
    id: u64,
    /// How often that was neither the server's nor the network's doing.
    losses: u32,
    /// How long another one must have lived before that is certain.
    patience: Duration,
}

impl Quarantine {
    /// Whether operations are in quarantine, or were until a moment ago.
    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    /// The connection on which some are tried.
    #[cfg(test)]
    pub(super) fn tried_on(&self) -> Option<ConnectionId> {
        self.trial.as_ref().map(|trial| trial.on)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        let tried = self.trial.as_ref().map_or(0, |trial| trial.group.len());
        self.suspects.len() + self.unknown.len() + self.set_aside.len() + tried
    }

    /// Whether many trials in a row have told nothing: others need not wait for the end.
    pub(super) fn is_stuck(&self) -> bool {
        self.lost_trials >= QUICK_TRIALS
    }

    /// When the next trial is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before
    }

    /// Nothing is live any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The current connection is gone: nothing lives on it, and what was tried on it is to be sent
    /// with everything else. That must not count as a trial on the next connection.
    pub(super) fn nothing_lives(&mut self, current: ConnectionId) {
        self.control = None;
        self.trial.take_if(|trial| trial.on == current);
    }

    /// The current connection has been open for a while, or has ended for another reason.
    pub(super) fn no_loss(&mut self) {
        self.weak_losses = 0;
    }

    /// How long a group has to close the connection after its ping was answered.
    fn settle_time(&self) -> Duration {
        SETTLE_TIME * 2_u32.pow(self.rounds.saturating_sub(1).min(MAX_DOUBLINGS))
    }

    /// How long until the next trial. Short as long as trials tell something.
    fn delay(&self) -> Duration {
        let doublings = self.lost_trials.saturating_sub(QUICK_TRIALS).min(7);
        TRIAL_DELAY * 2_u32.pow(doublings)
    }

    /// Until when the only suspect waits. Others must have lived for long before its loss tells
    /// something.
    fn lone_waits(&self, now: Instant) -> Option<Instant> {
        let (&[id], Some((_, since))) = (&self.suspects[..], self.control) else { return None };
        Some(since + self.patience(id)).filter(|at| *at > now)
    }

    /// How long others must have lived before the loss of this one alone tells something.
    fn patience(&self, id: u64) -> Duration {
        let least = if self.is_second_allowed() { MIN_CONTROL } else { MIN_CONTROL_BESIDE };
        if self.lone.id == id { self.lone.patience.max(least) } else { least }
    }

    fn is_second_allowed(&self) -> bool {
        self.failed_dials < MAX_FAILED_DIALS
    }

    /// Takes the next group: most of the suspects, as a lost connection tells sooner than one that
    /// survives. The unknown ones all at once.
    fn take_group(&mut self, now: Instant) -> Vec<u64> {
        if self.suspects.is_empty() || self.lone_waits(now).is_some() {
            return std::mem::take(&mut self.unknown);
        }
        let most = (self.suspects.len() * 2 / 3).max(1);
        self.suspects.drain(..most).collect()
    }

    /// The only suspect was tried, and the connection was lost, while another operation had lived
    /// since then, if any does. Returns whether it is to blame.
    fn lone_lost(
        &mut self,
        now: Instant,
        id: u64,
        begun: Instant,
        evidence: Evidence,
        lives_since: Option<Instant>,
    ) -> bool {
        let Some(since) = lives_since else {
            self.set_aside.append(&mut self.suspects);
            return false;
        };
        // A network that flaps, too, loses one connection now and then and keeps the other one. It
        // hardly ever does so that soon and that often.
        let (losses, times) = match evidence {
            Evidence::Strong => (2, 16),
            Evidence::Weak => (3, 32),
        };
        if self.lone.id != id {
            self.lone = Lone { id, ..Lone::default() };
        }
        let patience = now.saturating_duration_since(begun) * times;
        self.lone.patience = self.lone.patience.max(patience.min(MAX_PATIENCE));
        self.lone.losses += u32::from(since + self.patience(id) <= begun);
        self.lone.losses >= losses
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
        let mut suspects = self.uncleared_on(now, on);
        let quarantine = &mut self.quarantine;
        let trial = quarantine.trial.take_if(|trial| trial.on == on);
        let begun = trial.and_then(|Trial { mut group, begun, .. }| {
            group.retain(|id| suspects.binary_search(id).is_ok());
            let is_any_left = !group.is_empty();
            is_any_left.then(|| suspects = group).map(|()| begun)
        });
        // A lone operation has nobody to protect (rule 22e).
        let has_siblings = !suspects.is_empty() && self.operations.len() > 1;
        let Some(evidence) = evidence(cause).filter(|_| has_siblings) else {
            quarantine.weak_losses = 0;
            return false;
        };
        quarantine.weak_losses += 1;
        if evidence == Evidence::Weak && begun.is_none() && quarantine.weak_losses < WEAK_LOSSES {
            return false;
        }
        quarantine.weak_losses = 0;
        if quarantine.concluded_at.take().is_some_and(|at| now - at > MEMORY) {
            quarantine.rounds = 0;
        }
        quarantine.rounds += u32::from(begun.is_none());
        quarantine.is_active = true;
        let outage = Arc::new(Outage { since: now, cause: Some(cause.clone()) });
        for &id in &suspects {
            self.operations.set_place(id, Place::Waiting(Why::Quarantine));
            self.operations.clear_subscription_deadline(id);
            if let Some(operation) = self.operations.get_mut(id) {
                operation.outage.get_or_insert_with(|| Arc::clone(&outage));
            }
        }
        self.suspect(now, suspects, begun, evidence, cause);
        true
    }

    /// The operations on a connection that may have closed it. Clears what was written before a
    /// ping that was answered, if the connection lived on for a moment.
    fn uncleared_on(&mut self, now: Instant, on: ConnectionId) -> Vec<u64> {
        let cleared = self.connection(on).map_or(0, |connection| {
            // The close may have been there while the connection was not read.
            let read_since = connection.liveness.resumed_at();
            connection.pings.outlived(now, read_since)
        });
        let mut uncleared = self.operations.ids(|operation| !operation.is_cleared);
        uncleared.retain(|&id| {
            let Some(serial) = self.operations.serial_on(id, on) else { return false };
            if let Some(operation) = self.operations.get_mut(id) {
                operation.is_cleared = serial <= cleared;
            }
            serial > cleared
        });
        uncleared
    }

    /// These are the suspects now, as one of them closes connections. Those before were not on the
    /// connection that was lost, so nothing is known of them.
    fn suspect(
        &mut self,
        now: Instant,
        suspects: Vec<u64>,
        tried_since: Option<Instant>,
        evidence: Evidence,
        cause: &Disconnect,
    ) {
        let before = std::mem::replace(&mut self.quarantine.suspects, suspects);
        self.quarantine.unknown.extend(before);
        let (Some(begun), &[id]) = (tried_since, &self.quarantine.suspects[..]) else { return };
        self.look_for_control(now);
        // One that is still queued has not shown that it lives.
        let control = self.quarantine.control;
        let living = control.filter(|(other, _)| self.operations.is_on(*other, self.current));
        let lives_since = living.map(|(_, since)| since);
        if self.quarantine.lone_lost(now, id, begun, evidence, lives_since) {
            self.blame(id, cause.clone());
        }
    }

    /// Ends the operation that closes connections, and it alone.
    fn blame(&mut self, id: u64, cause: Disconnect) {
        let Some(operation) = self.operations.remove(id) else { return };
        self.forget_awaited(id);
        let end = End::Connection(ConnectionEnd::Lost(cause));
        self.outputs.push_back(Output::Finish { writer: operation.writer, end });
        // The losses so far were its doing.
        self.retry.reset_counts();
        self.quarantine.lost_trials = 0;
        self.quarantine.rounds = 0;
    }

    /// Since when another operation lives on the current connection.
    fn look_for_control(&mut self, now: Instant) {
        let is_there = |id: u64| {
            self.operations.is_on(id, self.current) || self.operations.is_queued(id, self.current)
        };
        if self.quarantine.control.is_none_or(|(id, _)| !is_there(id)) {
            let mut subscriptions = self.operations.iter().filter(|it| it.is_subscription());
            let living = subscriptions.find(|operation| is_there(operation.id));
            self.quarantine.control = living.map(|operation| (operation.id, now));
        }
    }

    /// Nobody is to be tried any more. What is still in quarantine has nobody to be kept away from
    /// (rule 22e).
    fn conclude_quarantine(&mut self, now: Instant) {
        self.drop_trial();
        let Quarantine { rounds, weak_losses, .. } = self.quarantine;
        let concluded_at = Some(now);
        self.quarantine = Quarantine { weak_losses, rounds, concluded_at, ..Quarantine::default() };
        for id in self.operations.ids(|_| true) {
            if self.operations.waits(id, Why::Quarantine) {
                self.release_from_quarantine(now, id);
            }
        }
    }
}

/// How long a group has to close the connection after the answer to its ping: several round trips,
/// and a server that thinks first.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// How often that time doubles at most, while nobody is found.
const MAX_DOUBLINGS: u32 = 2;

/// How long after a quarantine a loss may have to do with it.
const MEMORY: Duration = Duration::from_secs(300);

/// The longest that others must have lived before a loss tells something.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// Losses in a row that point weakly at an operation before any is quarantined.
const WEAK_LOSSES: u32 = 2;

/// How long another operation must have lived at least before one that is alone is tried.
const MIN_CONTROL: Duration = Duration::from_millis(500);

/// The same where it is tried on the connection that carries the others: so long that none of them
/// closes it.
const MIN_CONTROL_BESIDE: Duration = Duration::from_secs(5);

/// From a lost trial to the next one.
const TRIAL_DELAY: Duration = Duration::from_millis(250);

/// After so many lost trials in a row without a survivor the delay doubles each time.
const QUICK_TRIALS: u32 = 10;

/// After so many failed attempts at a connection for trials, in a row, there is none.
const MAX_FAILED_DIALS: u32 = 4;
