//! Attempts: when the next one may begin, what it is asked for, and when it is the last one.

use std::{
    collections::VecDeque,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::{
    Backoff, CredentialsReason,
    negotiation::Negotiation,
    verdicts::{AskAgain, Endpoint, Stage, Verdict, verdict},
};
use crate::{
    error::{CloseCode, Disconnect},
    session::{
        Config, VerdictHook,
        config::{self, DialBudget, DialLog},
    },
};

/// Attempts, their spacing and their limits.
pub(crate) struct Retry {
    rng: Rng,
    backoff: Backoff,
    give_up_after: Option<u32>,
    grace: Duration,
    budget: Option<DialBudget>,
    /// Shared with the sessions that share the budget.
    begun: DialLog,
    hook: Option<VerdictHook>,
    /// Attempts since the last healthy connection.
    attempts: u32,
    /// How often in a row credentials were rejected, or seemed to be.
    rejected: u32,
    /// Whether that was certain the last time.
    was_certain: bool,
    /// How often in a row an operation id was in use.
    duplicate_id: u32,
    /// The operations ended with [`Disconnect::ProbablyRejected`]. Until an acknowledgement, one
    /// more such close ends the next ones at once.
    has_suspected_rejection: bool,
    /// A connection was acknowledged in the life of the client, by this session or another one.
    is_proven: Arc<AtomicBool>,
    /// Since when the server has done nothing but refuse.
    refused_since: Option<Instant>,
    /// No attempt before this, whatever was subscribed or dropped meanwhile (I7).
    not_before: Option<Instant>,
    /// Why the provider is asked next.
    reason: CredentialsReason,
    /// Why it was asked last.
    asked: CredentialsReason,
}

/// What to do after a loss.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Dial again, as soon as [`Retry::due`] allows.
    Again,
    /// End what is live: too many attempts failed in a row.
    GiveUp,
    /// End what is live: another attempt would end the same way.
    Fatal(Disconnect),
}

impl Retry {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            rng: Rng::with_seed(config.seed),
            backoff: Backoff::new(config.backoff_base, config.backoff_cap),
            give_up_after: config.give_up_after,
            grace: config.refusal_grace,
            budget: config.max_dials,
            begun: config.dial_log.clone().unwrap_or_default(),
            hook: config.on_disconnect.clone(),
            attempts: 0,
            rejected: 0,
            was_certain: false,
            duplicate_id: 0,
            has_suspected_rejection: false,
            is_proven: config.is_proven.clone().unwrap_or_default(),
            refused_since: None,
            not_before: None,
            reason: CredentialsReason::Initial,
            asked: CredentialsReason::Initial,
        }
    }

    /// An attempt begins. Returns why the provider is asked.
    pub(crate) fn begin(&mut self, now: Instant) -> CredentialsReason {
        if let Some(budget) = self.budget {
            let mut begun = self.begun();
            if begun.len() == budget.dials.get() as usize {
                begun.pop_front();
            }
            begun.push_back(now);
        }
        self.asked = std::mem::replace(&mut self.reason, CredentialsReason::Reconnect);
        self.asked.clone()
    }

    /// The attempt counts: no connection works beside it. Returns its number since the last healthy
    /// connection.
    pub(crate) fn count_attempt(&mut self) -> u32 {
        self.attempts = self.attempts.saturating_add(1);
        self.attempts
    }

    /// An attempt that counted did not fail: this side has given it up, or has closed the
    /// connection.
    pub(crate) fn uncount_attempt(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
    }

    /// The provider's answer was not used: the next question has the same reason.
    pub(crate) fn unused(&mut self) {
        self.reason = self.asked.clone();
    }

    /// The server acknowledged: it has accepted what the provider gave.
    pub(crate) fn acked(&mut self) {
        self.is_proven.store(true, Relaxed);
        self.has_suspected_rejection = false;
        self.reason = CredentialsReason::Reconnect;
        self.asked = CredentialsReason::Reconnect;
    }

    /// The connection has been open for a while. Never called at the acknowledgement: a server that
    /// acknowledges and drops must see growing delays (rule 24).
    pub(crate) fn healthy(&mut self) {
        self.reset_attempts();
        self.refused_since = None;
        self.rejected = 0;
        self.duplicate_id = 0;
        self.backoff.reset();
    }

    /// The connection has been open for a while, but another one is wanted in its place: only the
    /// attempts are counted anew, and the delays between them stay.
    pub(crate) fn reset_attempts(&mut self) {
        self.attempts = 0;
    }

    /// Everything was ended. The next operation may attempt as often as the first one, but not
    /// sooner (rule 23, I7).
    pub(crate) fn ended(&mut self, cause: &Disconnect) {
        self.has_suspected_rejection |= matches!(cause, Disconnect::ProbablyRejected { .. });
        self.reset_counts();
    }

    /// The failures so far had another reason.
    pub(crate) fn reset_counts(&mut self) {
        self.attempts = 0;
        self.rejected = 0;
        self.duplicate_id = 0;
    }

    /// The application's own verdict, or else the table's.
    pub(crate) fn verdict(
        &self,
        cause: &Disconnect,
        stage: Stage,
        negotiation: &Negotiation,
    ) -> Judged {
        let endpoint = self.endpoint();
        let table = || verdict(cause, stage, endpoint, negotiation.offer());
        let hook = self.hook.as_ref().map(|hook| hook.ask(cause, self.attempts));
        match hook {
            None | Some(config::Verdict::Default) => Judged::ByTable(table()),
            Some(config::Verdict::Retry) => Judged::ByApplication(Verdict::Retry),
            Some(config::Verdict::RetryAfter(delay)) => {
                let delay = delay.min(config::MAX_DURATION);
                Judged::ByApplication(Verdict::RetryAfter(delay))
            }
            Some(config::Verdict::NewCredentials) => {
                Judged::ByApplication(Verdict::rejected(endpoint))
            }
            Some(config::Verdict::Fatal) => Judged::ByApplication(Verdict::Fatal),
        }
    }

    /// Carries out a verdict: decides, and spaces the next attempt.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        cause: Disconnect,
        verdict: Verdict,
        negotiation: &mut Negotiation,
    ) -> Plan {
        self.keep_reason(&cause, verdict);
        let floor = if let Verdict::RetryAfter(delay) = verdict { delay } else { Duration::ZERO };
        // What to do, and whether at once.
        let (fatal, at_once) = match verdict {
            Verdict::Retry | Verdict::RetryAfter(_) => {
                self.not_refused();
                (None, false)
            }
            Verdict::RetryTimes(times) => {
                self.duplicate_id += 1;
                ((self.duplicate_id > times).then_some(cause), false)
            }
            Verdict::AskAgain(ask) => self.ask_again(now, cause, ask, negotiation),
            Verdict::OtherSubprotocol => match negotiation.refused(cause) {
                Ok(()) => (None, true),
                Err(neither) => match self.endpoint() {
                    Endpoint::Unproven => (Some(neither), false),
                    Endpoint::Proven => (self.is_refused_too_long(now).then_some(neither), false),
                },
            },
            Verdict::Persist => (self.is_refused_too_long(now).then_some(cause), false),
            // Decided by who knows the operations.
            Verdict::OneOperation | Verdict::Fatal => (Some(cause), false),
        };
        if at_once && fatal.is_none() {
            self.not_before = None;
            return Plan::Again;
        }
        self.not_before = Some(now + self.backoff.next(&mut self.rng, floor));
        match (fatal, self.give_up_after) {
            (Some(cause), _) => {
                negotiation.reset();
                Plan::Fatal(cause)
            }
            (None, Some(most)) if self.attempts >= most => Plan::GiveUp,
            (None, Some(_) | None) => Plan::Again,
        }
    }

    /// Which reason the provider is given next.
    fn keep_reason(&mut self, cause: &Disconnect, verdict: Verdict) {
        let is_unused = match (cause, verdict) {
            (_, Verdict::AskAgain(_)) => {
                self.reason = CredentialsReason::Rejected { cause: cause.clone() };
                false
            }
            // The provider has not answered, or its answer was spent on offering the other
            // subprotocol.
            (Disconnect::Credentials(_), _) | (_, Verdict::OtherSubprotocol) => true,
            (_, _) => false,
        };
        // A later attempt tells the provider no less than an earlier one.
        let is_asked_again = match self.asked {
            CredentialsReason::Expiring => true,
            CredentialsReason::Rejected { .. } => is_unused,
            CredentialsReason::Initial => matches!(cause, Disconnect::Credentials(_)),
            CredentialsReason::Reconnect => false,
        };
        if is_asked_again && matches!(self.reason, CredentialsReason::Reconnect) {
            self.unused();
        }
    }

    fn ask_again(
        &mut self,
        now: Instant,
        cause: Disconnect,
        ask: AskAgain,
        negotiation: &mut Negotiation,
    ) -> (Option<Disconnect>, bool) {
        if std::mem::replace(&mut self.was_certain, ask.is_certain) != ask.is_certain {
            self.interrupt_rejections();
        }
        self.rejected += 1;
        let is_over = match ask.times {
            None => self.is_refused_too_long(now),
            Some(times) => {
                self.rejected > times || (self.has_suspected_rejection && !ask.is_certain)
            }
        };
        let is_protocol_error =
            matches!(cause, Disconnect::Closed { code: CloseCode::PROTOCOL_ERROR, .. });
        let cause = if ask.is_certain {
            cause
        } else {
            Disconnect::ProbablyRejected { times: self.rejected, cause: Arc::new(cause) }
        };
        let is_first = self.rejected == 1;
        // A server that has changed its subprotocol may look like one that rejects.
        if !is_first && is_protocol_error {
            negotiation.try_the_other();
        }
        (is_over.then_some(cause), ask.is_first_at_once() && is_first)
    }

    /// Something else has failed, or nothing is attempted any more: the next refusal is the first
    /// one.
    pub(crate) fn not_refused(&mut self) {
        self.refused_since = None;
        self.interrupt_rejections();
    }

    /// Another failure came between two rejections. They are no longer in a row, which matters
    /// where few of them are fatal. A proven endpoint gets no further attempt at once for it.
    fn interrupt_rejections(&mut self) {
        match self.endpoint() {
            Endpoint::Unproven => self.rejected = 0,
            Endpoint::Proven => {}
        }
    }

    /// As [`judge`](Self::judge), for an attempt beside a connection that works. The endpoint does
    /// not refuse as long as that lives.
    pub(crate) fn judge_beside(
        &mut self,
        now: Instant,
        cause: Disconnect,
        verdict: Verdict,
        negotiation: &mut Negotiation,
    ) {
        let refused_since = self.refused_since;
        let _ = self.judge(now, cause, verdict, negotiation);
        self.refused_since = refused_since;
    }

    /// A proven endpoint has refused. Returns whether it has done so for too long.
    fn is_refused_too_long(&mut self, now: Instant) -> bool {
        let since = *self.refused_since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.grace
    }

    fn endpoint(&self) -> Endpoint {
        let is_proven = self.is_proven.load(Relaxed);
        if is_proven && !self.grace.is_zero() { Endpoint::Proven } else { Endpoint::Unproven }
    }

    /// Since when a proven endpoint has done nothing but refuse.
    pub(crate) fn refused_since(&self) -> Option<Instant> {
        self.refused_since
    }

    /// The credentials expire soon: that is why they are asked for, unless there is more to say.
    pub(crate) fn expiring(&mut self) {
        match self.reason {
            CredentialsReason::Initial | CredentialsReason::Reconnect => {
                self.reason = CredentialsReason::Expiring;
            }
            CredentialsReason::Expiring | CredentialsReason::Rejected { .. } => {}
        }
    }

    /// A random share of a duration, between `from` and `to`.
    pub(crate) fn random_part(&mut self, duration: Duration, from: f64, to: f64) -> Duration {
        duration.mul_f64(from + (to - from) * self.rng.f64())
    }

    /// The next delay of the backoff, for something that is no attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.backoff.next(&mut self.rng, Duration::ZERO)
    }

    /// The next delay of another backoff.
    pub(crate) fn next_delay_of(&mut self, backoff: &mut Backoff) -> Duration {
        backoff.next(&mut self.rng, Duration::ZERO)
    }

    /// When the next attempt may begin, if not now.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.not_before.max(self.budget_from()).filter(|&at| at > now)
    }

    /// From when on the budget allows the next attempt, if not now.
    pub(crate) fn budget_due(&self, now: Instant) -> Option<Instant> {
        self.budget_from().filter(|&at| at > now)
    }

    fn budget_from(&self) -> Option<Instant> {
        let DialBudget { dials, per } = self.budget?;
        let begun = self.begun();
        let is_spent = begun.len() == dials.get() as usize;
        begun.front().filter(|_| is_spent).map(|&begun| begun + per)
    }

    fn begun(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        // Poisoning is ignored, because nothing under this lock can panic halfway.
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The application wants the next attempt at once.
    pub(crate) fn skip_delay(&mut self) {
        self.not_before = None;
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// A verdict, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Judged {
    ByTable(Verdict),
    ByApplication(Verdict),
}

impl Judged {
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::ByTable(verdict) | Self::ByApplication(verdict) => verdict,
        }
    }
}
