//! What follows a loss: the verdict table applied, with what may not be repeated forever.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::{
    Config, VerdictHook,
    backoff::Backoff,
    config::{self, DialBudget},
    negotiation::Negotiation,
};
use crate::{error::Disconnect, protocol::close::Verdict, session::CredentialsReason};

/// Attempts, their spacing and their limits.
pub(super) struct Retry {
    rng: Rng,
    backoff: Backoff,
    give_up_after: Option<u32>,
    budget: Option<DialBudget>,
    /// When the last attempts began, as many as the budget counts.
    begun: VecDeque<Instant>,
    hook: Option<VerdictHook>,
    /// Attempts since the last healthy connection.
    attempts: u32,
    streaks: Streaks,
    /// No dial before this, whatever was subscribed or dropped meanwhile (I7).
    not_before: Option<Instant>,
    /// Why the provider is asked next.
    reason: CredentialsReason,
    /// Why it was asked last.
    asked: CredentialsReason,
}

/// How often in a row something was answered that may not be repeated forever.
#[derive(Clone, Copy, Debug, Default)]
struct Streaks {
    rejected: u32,
    suspect: u32,
    duplicate_id: u32,
}

/// What to do after a loss.
#[derive(Debug)]
pub(super) enum Plan {
    /// Dial again, as soon as [`Retry::due`] allows.
    Again,
    /// End what is live: too many attempts failed in a row.
    GiveUp,
    /// End what is live: another attempt would end the same way.
    Fatal(Disconnect),
}

impl Retry {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            rng: Rng::with_seed(config.seed),
            backoff: Backoff::new(config.backoff_base, config.backoff_cap),
            give_up_after: config.give_up_after,
            budget: config.max_dials,
            begun: VecDeque::new(),
            hook: config.on_disconnect.clone(),
            attempts: 0,
            streaks: Streaks::default(),
            not_before: None,
            reason: CredentialsReason::Initial,
            asked: CredentialsReason::Initial,
        }
    }

    /// An attempt begins. Returns its number, and why the provider is asked.
    pub(super) fn begin(&mut self, now: Instant) -> (u32, CredentialsReason) {
        if let Some(budget) = self.budget {
            if self.begun.len() == budget.dials.get() as usize {
                self.begun.pop_front();
            }
            self.begun.push_back(now);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.asked = std::mem::replace(&mut self.reason, CredentialsReason::Reconnect);
        (self.attempts, self.asked.clone())
    }

    /// Nobody wanted the attempt any more before it dialed: it did not fail, and what the provider
    /// said was not tried.
    pub(super) fn unused(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.reason = self.asked.clone();
    }

    /// This side closed the connection, or gave up opening it: that is no failure.
    pub(super) fn closed(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
    }

    /// The server acknowledged: it did not reject, and took what the provider gave.
    pub(super) fn acked(&mut self) {
        self.streaks.suspect = 0;
        (self.reason, self.asked) = (CredentialsReason::Reconnect, CredentialsReason::Reconnect);
    }

    /// The connection has been up for a while; never called at the acknowledgement, since a server
    /// that acknowledges and drops must see growing delays (rule 24).
    pub(super) fn healthy(&mut self) {
        self.forgive();
        self.backoff.reset();
    }

    /// The connection has been up for a while, and another is wanted all the same, which has to
    /// show first that it can be had; so many attempts at that are under way.
    pub(super) fn still_healthy(&mut self, under_way: u32) {
        self.attempts = under_way;
    }

    /// Every operation was ended: the next one gets every chance again, but no dial sooner (rule
    /// 23, I7).
    pub(super) fn forgive(&mut self) {
        self.attempts = 0;
        self.streaks = Streaks::default();
    }

    /// The application's own verdict, if it has one.
    pub(super) fn wanted(&self, cause: &Disconnect) -> Option<Verdict> {
        match self.hook.as_ref()?.ask(cause, self.attempts) {
            config::Verdict::Default => None,
            config::Verdict::Retry => Some(Verdict::Retry),
            config::Verdict::RetryAfter(delay) => {
                Some(Verdict::RetryAfter(delay.min(config::MAX_DURATION)))
            }
            config::Verdict::NewCredentials => Some(Verdict::Rejected),
            config::Verdict::Fatal => Some(Verdict::Fatal),
        }
    }

    /// Decides, and spaces the next attempt.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        cause: Disconnect,
        verdict: Verdict,
        negotiation: &mut Negotiation,
    ) -> Plan {
        if matches!(verdict, Verdict::Rejected | Verdict::Suspect) {
            self.reason = CredentialsReason::Rejected { cause: cause.clone() };
        }
        match (&cause, &self.asked, &self.reason) {
            // Not answered, so asked again: a rejection must not be forgotten on the way. Nor that
            // what was given last ends.
            (Disconnect::Credentials(_), _, _)
            | (_, CredentialsReason::Expiring, CredentialsReason::Reconnect) => {
                self.reason = self.asked.clone();
            }
            (_, _, _) => {}
        }
        let (at_once, fatal) = match verdict {
            Verdict::Retry | Verdict::RetryAfter(_) => (false, None),
            Verdict::Rejected => {
                negotiation.retry_from_the_start();
                (true, reaches(&mut self.streaks.rejected, 2).then_some(cause))
            }
            Verdict::Suspect => (false, reaches(&mut self.streaks.suspect, 5).then_some(cause)),
            Verdict::DuplicateId => {
                (false, reaches(&mut self.streaks.duplicate_id, 2).then_some(cause))
            }
            Verdict::OtherSubprotocol => (true, negotiation.refused(cause).err()),
            Verdict::Fatal => (false, Some(cause)),
        };
        let floor = if let Verdict::RetryAfter(floor) = verdict { floor } else { Duration::ZERO };
        if at_once && fatal.is_none() {
            self.not_before = None;
            return Plan::Again;
        }
        self.not_before = Some(now + self.backoff.next(&mut self.rng, floor));
        match (fatal, self.give_up_after) {
            (Some(cause), _) => Plan::Fatal(cause),
            (None, Some(most)) if self.attempts >= most => Plan::GiveUp,
            (None, Some(_) | None) => Plan::Again,
        }
    }

    /// The credentials end soon: that is why they are asked for, unless there is more to say.
    pub(super) fn expiring(&mut self) {
        match self.reason {
            CredentialsReason::Initial | CredentialsReason::Reconnect => {
                self.reason = CredentialsReason::Expiring
            }
            CredentialsReason::Expiring | CredentialsReason::Rejected { .. } => {}
        }
    }

    /// A random part of this, from that share to that one.
    pub(super) fn within(&mut self, duration: Duration, from: f64, to: f64) -> Duration {
        duration.mul_f64(from + (to - from) * self.rng.f64())
    }

    /// The next delay, of what is no attempt.
    pub(super) fn next_delay(&mut self) -> Duration {
        self.backoff.next(&mut self.rng, Duration::ZERO)
    }

    /// The next delay of a backoff of its own.
    pub(super) fn jitter(&mut self, backoff: &mut Backoff) -> Duration {
        backoff.next(&mut self.rng, Duration::ZERO)
    }

    /// When the next attempt may begin, if not now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.not_before.max(self.budget_from()).filter(|&at| at > now)
    }

    /// Whether the budget allows no attempt now, whoever wants one.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        self.budget_from().is_some_and(|at| at > now)
    }

    /// From when the budget allows the next attempt, if it does not anyway.
    fn budget_from(&self) -> Option<Instant> {
        let DialBudget { dials, per } = self.budget?;
        let is_spent = self.begun.len() == dials.get() as usize;
        self.begun.front().filter(|_| is_spent).map(|&begun| begun + per)
    }

    /// The application wants the next attempt at once.
    pub(super) fn hurry(&mut self) {
        self.not_before = None;
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }
}

fn reaches(streak: &mut u32, limit: u32) -> bool {
    *streak += 1;
    *streak >= limit
}
