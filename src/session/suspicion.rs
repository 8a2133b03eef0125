//! Finding the operation that makes the server close the connection (rule 22), so that its siblings
//! live on.
//!
//! Owns who is suspected, who is held back, and who is blamed. Must not know how an operation is
//! sent, or when the next dial is.
//!
//! An operation is cleared, for good, by the first message that arrives for it, or by a connection
//! that outlives it. A loss while others were sent is a strike; the second in a row begins a trial.
//! From then on what is cleared is sent at once, and the others in groups that double, each when
//! the one before has survived for a while. A group that is lost comes first next time, and groups
//! are of one again; so a bad operation is soon alone. It is blamed once the connection was lost
//! right after it several times in a row, while others lived on that connection; and each time it
//! is sent later in the life of the connection, so that connections which die young anyway convict
//! nobody.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use super::{
    End, Output, Role, Session,
    registry::{Operation, Wait},
    timers::{Timer, Timers},
    trial::Trial,
};
use crate::{
    error::Disconnect,
    operation::OperationType,
    protocol::close::{Evidence, Stage, Verdict, evidence, verdict},
    response::Gap,
};

/// Since when there is no connection, and why.
pub(super) type Outage = (Instant, Disconnect);

/// What was concluded from the losses so far.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// Losses in a row while something was sent that is not cleared.
    strikes: u32,
    /// How many of the latest of these were strong evidence.
    strong: u32,
    /// What the connection carries up to this serial is cleared when it has been healthy for a
    /// while more; 0 at first.
    mark: u64,
    /// The last operation that there was when the connection was opened.
    newest: u64,
    trial: Option<Box<Trial>>,
    /// Trials without a result since all was well: what closes the connection may take longer.
    in_vain: u32,
    /// Fatal verdicts that were not acted on since then.
    spared: u32,
}

impl Suspicion {
    /// A message arrived for an operation that was not cleared, so what was sent last may be
    /// cleared by now.
    pub(super) fn cleared(&mut self, now: Instant, id: u64, timers: &mut Timers) {
        let Some(trial) = &mut self.trial else { return };
        trial.pardon(id);
        if let Some(group) = trial.group.as_mut().filter(|group| group.contains(&id)) {
            group.remove(&id);
            if group.is_empty() {
                timers.arm(Timer::Settled, now);
            }
        }
    }

    /// Until when it is to be seen whether this operation, which was sent last, closes the
    /// connection.
    pub(super) fn tried_until(&self, now: Instant, id: u64) -> Option<Instant> {
        let group = self.trial.as_ref()?.group.as_ref()?;
        group.contains(&id).then(|| now + self.settle_time())
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.trial
            .as_ref()
            .map_or(0, |trial| trial.held.len() + trial.prime.len() + trial.accused.len())
    }

    fn no_strike(&mut self) {
        (self.strikes, self.strong) = (0, 0);
    }

    /// Within this time a bad operation closes the connection.
    fn settle_time(&self) -> Duration {
        SETTLE_TIME * 2_u32.pow(self.in_vain.min(MAX_DOUBLINGS))
    }

    /// How long a connection is to live before the next in turn is sent.
    fn patience(&self) -> Duration {
        let first = self.trial.as_ref().and_then(|trial| trial.losses_of(*trial.held.front()?));
        // Longer each time, and not only once: a connection that dies of age must die before.
        self.settle_time() * (4 * first.unwrap_or(0)).max(1)
    }
}

impl<S: Clone> Session<S> {
    /// What follows a loss, where the operations that the socket carried are taken into account.
    pub(super) fn weigh(&mut self, cause: &Disconnect, stage: Stage) -> Verdict {
        let wanted = self.retry.wanted(cause);
        let verdict = wanted.unwrap_or_else(|| verdict(cause, stage, self.negotiation.is_open()));
        // A server that crashed is not there for a while; that says no more. And the application
        // knows best.
        if stage == Stage::Opening || wanted == Some(Verdict::Fatal) {
            return verdict;
        }
        let mut weighed = verdict;
        if let Some(evidence) = evidence(cause, verdict) {
            weighed = self.suspect(cause, verdict, evidence);
        } else {
            self.suspicion.no_strike();
        }
        if weighed != verdict {
            weighed = self.spare();
        }
        self.hold_back();
        weighed
    }

    fn suspect(&mut self, cause: &Disconnect, verdict: Verdict, evidence: Evidence) -> Verdict {
        let sent = self.operations.iter().filter(|operation| operation.is_on(self.leg.span));
        let (mut suspects, mut mutations, mut last_suspect) = (0, 0, None);
        for operation in sent {
            suspects += usize::from(!operation.is_cleared);
            match operation.kind {
                // Given up in any case.
                OperationType::Mutation => mutations += 1,
                OperationType::Query | OperationType::Subscription if !operation.is_cleared => {
                    last_suspect = Some(operation.id);
                }
                OperationType::Query | OperationType::Subscription => {}
            }
        }
        let retiring = self.other_span();
        let elsewhere =
            self.operations.iter().filter(|operation| operation.is_on(retiring)).count();
        let remaining = self.operations.len() - mutations - elsewhere;
        if suspects == 0 {
            self.end_trial();
            return verdict;
        }
        match (last_suspect, remaining) {
            // A mutation's doing.
            (None, _) => self.end_trial(),
            (Some(_), 1) if suspects == 1 && verdict == Verdict::Fatal => return verdict,
            (Some(id), 1) => {
                // It needs no siblings to be protected.
                if self.suspicion.trial.is_some() {
                    self.end_trial();
                }
                if self.strike(evidence) >= STRIKES_WHEN_ALONE {
                    self.blame(id, cause);
                }
            }
            (Some(_), _) if self.suspicion.trial.is_some() => {
                return self.hear(cause, verdict, evidence, remaining);
            }
            (Some(_), _) => {
                self.strike(evidence);
                if self.suspicion.strikes >= STRIKES {
                    self.suspicion.trial = Some(Trial::new());
                }
            }
        }
        Verdict::Retry
    }

    /// Returns how many in a row were strong evidence.
    fn strike(&mut self, evidence: Evidence) -> u32 {
        self.suspicion.strikes += 1;
        self.suspicion.strong = match evidence {
            Evidence::Strong => self.suspicion.strong + 1,
            Evidence::Weak => 0,
        };
        self.suspicion.strong
    }

    /// A connection was lost during a trial, and carried suspects.
    fn hear(
        &mut self,
        cause: &Disconnect,
        verdict: Verdict,
        evidence: Evidence,
        remaining: usize,
    ) -> Verdict {
        let (operations, span) = (&self.operations, self.leg.span);
        let is_suspect =
            |id: &u64| operations.get(*id).is_some_and(|it| !it.is_cleared && it.is_on(span));
        let Some(trial) = &mut self.suspicion.trial else { return verdict };
        let group: Vec<_> = trial.group.iter().flatten().copied().filter(is_suspect).collect();
        trial.prime = group.iter().copied().collect();
        match group[..] {
            // What had survived for a while was lost after all; so it is not about who came last.
            [] => self.end_trial(),
            [id] => {
                // That others live on it shows that the server takes operations.
                let control = operations.iter().any(|other| other.id != id && other.is_on(span));
                let enough = match evidence {
                    Evidence::Strong => 2,
                    Evidence::Weak => 3,
                };
                if control {
                    trial.without_control = 0;
                    if trial.accuse(id, 1) >= enough {
                        self.blame(id, cause);
                    }
                } else {
                    trial.accuse(id, 0);
                    trial.without_control += 1;
                    if verdict == Verdict::Fatal
                        && trial.without_control >= remaining.min(MAX_WITHOUT_CONTROL)
                    {
                        return verdict;
                    }
                }
            }
            [..] => {}
        }
        Verdict::Retry
    }

    /// A fatal verdict is not acted on, as it may be about one operation. Not without end.
    fn spare(&mut self) -> Verdict {
        self.suspicion.spared += 1;
        if self.suspicion.spared > MAX_SPARED { Verdict::Fatal } else { Verdict::Retry }
    }

    /// Ends the operation that closes the connection, and it alone.
    fn blame(&mut self, id: u64, cause: &Disconnect) {
        let Some(Operation { writer, .. }) = self.operations.remove(id) else { return };
        self.forget_awaited(id);
        self.outputs.push_back(Output::Finish { writer, end: End::Lost(cause.clone()) });
        // The losses so far were its doing.
        self.retry.forgive();
        self.suspicion.in_vain = 0;
        self.suspicion.spared = 0;
        if let Some(trial) = &mut self.suspicion.trial {
            trial.pardon(id);
        }
    }

    /// The trial is over, and nobody waits for it any more.
    fn end_trial(&mut self) {
        self.suspicion.no_strike();
        if self.suspicion.trial.take().is_some() {
            self.suspicion.in_vain += 1;
            self.operations.end_wait(Wait::Trial);
        }
    }

    /// The connection goes for a reason of this side's.
    pub(super) fn acquit(&mut self) {
        self.suspicion.no_strike();
        self.hold_back();
    }

    /// After a loss during a trial: who is not cleared waits until it is its turn; those sent last
    /// come first.
    fn hold_back(&mut self) {
        let Some(trial) = &mut self.suspicion.trial else { return };
        trial.size = 1;
        let (group, mut order) = (trial.group.take().unwrap_or_default(), VecDeque::new());
        let held = std::mem::take(&mut trial.held);
        order.extend(group.into_iter().filter(|&id| self.hold(id)));
        order.extend(held.into_iter().filter(|&id| self.operations.waits(id, Wait::Trial)));
        let others = self
            .operations
            .iter()
            .filter(|operation| operation.wait == Wait::Nothing && !operation.is_cleared);
        let others = others.map(|operation| (!operation.is_on(self.leg.span), operation.id));
        let mut others: Vec<_> = others.collect();
        others.sort_unstable();
        order.extend(others.into_iter().map(|(_, id)| id).filter(|&id| self.hold(id)));
        match &mut self.suspicion.trial {
            Some(trial) if !order.is_empty() => trial.held = order,
            Some(_) | None => self.end_trial(),
        }
    }

    /// Holds back an operation that is not cleared. Whether it is one.
    fn hold(&mut self, id: u64) -> bool {
        let retiring = self.other_span();
        let Some(operation) = self.operations.get_mut(id) else { return false };
        // Nor what is on a connection that was replaced, and is not to be sent again.
        if operation.is_cleared || operation.wait != Wait::Nothing || operation.is_on(retiring) {
            return false;
        }
        operation.wait = Wait::Trial;
        if operation.was_issued {
            operation.outage = self.outage.clone().map(Box::new);
        }
        true
    }

    /// During a trial a new operation waits for its turn, too, or it would blur what a loss says of
    /// the others. Whether it does.
    pub(super) fn hold_new(&mut self, id: u64) -> bool {
        let (Some(trial), Some(operation)) =
            (&mut self.suspicion.trial, self.operations.get_mut(id))
        else {
            return false;
        };
        operation.wait = Wait::Trial;
        // While nobody is tried, those that are gone must not pile up.
        if trial.held.len() > 2 * self.operations.len() {
            trial.held.retain(|&id| self.operations.waits(id, Wait::Trial));
        }
        trial.held.push_back(id);
        true
    }

    /// The connection is open.
    pub(super) fn await_trial(&mut self, now: Instant) {
        if let Some(trial) = &mut self.suspicion.trial {
            let has_cleared =
                self.operations.iter().any(|it| it.is_cleared && it.wait == Wait::Nothing);
            trial.held.retain(|&id| self.operations.waits(id, Wait::Trial));
            if !has_cleared {
                // The others are to show first that the server takes any.
                let rank = |id: &u64| {
                    trial.accused.iter().position(|accused| accused.id == *id).map_or(0, |n| n + 1)
                };
                trial.held.make_contiguous().sort_by_key(rank);
            }
        }
        self.suspicion.mark = 0;
        self.suspicion.newest = self.operations.iter().last().map_or(0, |operation| operation.id);
        self.leg.timers.arm(Timer::Settled, now + self.suspicion.patience());
    }

    /// What was sent last has had its time to close the connection.
    pub(super) fn settled(&mut self, now: Instant) {
        let again = now + self.suspicion.settle_time();
        // It is not read, so the end may be there already.
        if self.leg.liveness.is_paused() {
            return self.leg.timers.arm(Timer::Settled, again);
        }
        if self.suspicion.mark == 0 {
            self.suspicion.mark = self.operations.last_sent();
        }
        let Some(trial) = &mut self.suspicion.trial else { return };
        if let Some(group) = trial.group.take() {
            let (operations, span) = (&self.operations, self.leg.span);
            let is_queued = |id: &u64| {
                operations.waits(*id, Wait::Nothing)
                    && !operations.get(*id).is_some_and(|it| it.is_on(span))
            };
            if group.iter().any(is_queued) {
                trial.group = Some(group);
                return self.leg.timers.arm(Timer::Settled, again);
            }
            trial.survived(&group);
            trial.held.retain(|&id| operations.waits(id, Wait::Trial));
            let patience = self.suspicion.patience();
            if patience > self.suspicion.settle_time() {
                return self.leg.timers.arm(Timer::Settled, now + patience);
            }
        }
        self.try_next(now);
    }

    fn try_next(&mut self, now: Instant) {
        let Some(trial) = &mut self.suspicion.trial else { return };
        let mut group = BTreeSet::new();
        while group.len() < trial.size
            && let Some(id) = trial.held.pop_front()
        {
            // Whoever is gone is nobody's turn, or the others would be let go unsent.
            if !self.operations.waits(id, Wait::Trial) {
                continue;
            }
            let is_accused = trial.losses_of(id).is_some();
            let mixes = |first: &u64| {
                is_accused || trial.prime.contains(first) != trial.prime.contains(&id)
            };
            if group.first().is_some_and(mixes) {
                trial.held.push_front(id);
                break;
            }
            group.insert(id);
            if is_accused {
                break;
            }
        }
        if group.is_empty() {
            return self.end_trial();
        }
        trial.group = Some(group.clone());
        for id in group {
            let Some(operation) = self.operations.get_mut(id) else { continue };
            let gap = reconnected(now, operation.outage.take().map(|outage| *outage));
            self.reissue(now, id, gap);
        }
        self.probe_awaited();
        self.leg.timers.arm(Timer::Settled, now + self.suspicion.settle_time());
    }

    /// The connection has been healthy for a while, and with it what it carries since then.
    pub(super) fn prove(&mut self, now: Instant) {
        if self.other.as_ref().is_some_and(|other| other.role == Role::Successor) {
            self.retry.still_healthy(u32::from(self.is_succeeding()));
        } else {
            self.retry.healthy();
        }
        let (mark, last_sent) = (self.suspicion.mark, self.operations.last_sent());
        // What is not read proves nothing.
        let is_paused = self.leg.liveness.is_paused();
        if !is_paused {
            self.operations.clear_up_to(mark, self.leg.span);
            self.suspicion.mark = last_sent;
        }
        let newest = self.suspicion.newest;
        // All that could have closed connections before this one is cleared; something new begins
        // every now and then.
        if self.suspicion.trial.is_none()
            && self.operations.iter().all(|it| it.is_cleared || it.id > newest)
        {
            self.suspicion =
                Suspicion { mark: self.suspicion.mark, newest, ..Suspicion::default() };
        }
        if is_paused || mark != last_sent {
            // Whatever is asked for, it must not spin.
            self.leg.timers.arm(Timer::Healthy, now + self.config.healthy_after.max(SETTLE_TIME));
        }
    }
}

/// The gap of an operation that is sent again on a new connection.
pub(super) fn reconnected(now: Instant, outage: Option<Outage>) -> Gap {
    let mut gap = Gap { reconnects: 1, ..Gap::default() };
    if let Some((since, cause)) = outage {
        gap.down_for = now.saturating_duration_since(since);
        gap.cause = Some(cause);
    }
    gap
}

/// How long what was sent has to close the connection: several round trips, and a server that
/// thinks first.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// How often that time doubles at most.
const MAX_DOUBLINGS: u32 = 2;

/// Losses in a row that begin a trial.
const STRIKES: u32 = 2;

/// Losses in a row, with strong evidence, that end the only operation: nothing else can show that
/// it is the one.
const STRIKES_WHEN_ALONE: u32 = 5;

/// With a fatal verdict, so many operations that were tried in vain speak for all.
const MAX_WITHOUT_CONTROL: usize = 4;

/// So many fatal verdicts are not about one operation; perhaps about how many there are.
const MAX_SPARED: u32 = 40;
