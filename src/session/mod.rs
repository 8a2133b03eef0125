//! The conversation with one server, over as many sockets as it takes.
//!
//! Owns every decision: when to dial, what to say, what a loss means, which operation gets what.
//! Pure: `now` is an argument, randomness is one seed, no map is iterated in an order of its own;
//! so the same inputs give the same outputs. Knows no socket and no task. `handle_*` takes what
//! happened, verbs take what the application wants, `poll_*` gives what is to be done; spurious
//! calls do nothing.
//!
//! ```text
//!        subscribe               credentials          upgraded            acknowledged
//!  Idle ───────────> Authorizing ───────────> Dialing ────────> Opening ──────────────> Open
//!   ^ ^                   ^                      │                 │                      │
//!   │ └─ nothing live ─┐  │ backoff over         │ lost            │ lost                 │ lost
//!   │                  │  │                      v                 v                      v
//!   └── fatal ──────── Waiting <────────────────────────── verdict ────────────────────────
//!
//!  any ── shutdown ──> Closing (where there is a socket) ──> Ended
//! ```
//!
//! These are the phases of one leg. During a handover there is a second one: a successor on its way
//! to `Open`, where it becomes the current one, or one that it has replaced, on its way through
//! `Closing`; see `handover.rs`.

mod backoff;
mod config;
mod control;
mod credentials;
mod handover;
mod issue;
mod leg;
mod liveness;
mod messages;
mod moving;
mod negotiation;
mod operations;
mod outbox;
mod output;
mod proof;
mod registry;
mod renewal;
mod retry;
mod status;
mod suspicion;
mod timers;
mod trial;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

#[cfg(feature = "client")]
pub(crate) use self::{
    backoff::Backoff,
    config::{DialBudget, MAX_DURATION},
};
pub(crate) use self::{
    config::{Config, VerdictHook},
    leg::ConnectionId,
    output::{Counts, Granted, Item, Output},
    registry::Request,
    watch::WatchOptions,
};
pub use self::{
    config::{Strictness, Verdict},
    credentials::CredentialsReason,
    status::{Stats, Status},
};
use self::{
    handover::Handover,
    leg::{Leg, Phase, Role},
    negotiation::Negotiation,
    registry::{Registry, Span},
    retry::{Plan, Retry},
    suspicion::{Outage, Suspicion},
    timers::Timer,
};
use crate::{
    error::{CloseCode, ConnectError, CredentialsError, Disconnect},
    protocol::{Subprotocol, Transmit, close::Stage},
    response::End,
};

/// The state machine. `S` is who reads an operation; the session only hands it back. Not `Debug`:
/// it holds the init payload (I13).
pub(crate) struct Session<S> {
    config: Config,
    /// What is being handled is about this one; between two inputs it is the current one.
    leg: Leg,
    /// During a handover: what is to replace the current one, or what it has replaced.
    other: Option<Box<Leg>>,
    handover: Handover,
    operations: Registry<S>,
    retry: Retry,
    negotiation: Negotiation,
    suspicion: Suspicion,
    /// Operations of which somebody waits for a proof that the server has them.
    awaited: BTreeSet<u64>,
    outputs: VecDeque<Output<S>>,
    /// Since when operations are without a connection, and why they lost the one they had.
    outage: Option<Outage>,
    /// Why the last connection was lost, or the last attempt at one failed.
    last_cause: Option<Disconnect>,
    /// Somebody waits for a connection.
    is_wanted: bool,
    /// The application wants no connection for now.
    is_paused: bool,
    counts: Counts,
}

impl<S: Clone> Session<S> {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            leg: Leg::new(&config),
            other: None,
            handover: Handover::default(),
            operations: Registry::new(config.first_serial),
            retry: Retry::new(&config),
            negotiation: Negotiation::new(config.subprotocol),
            suspicion: Suspicion::default(),
            awaited: BTreeSet::new(),
            outputs: VecDeque::new(),
            outage: None,
            last_cause: None,
            is_wanted: false,
            is_paused: false,
            counts: Counts::default(),
            config,
        }
    }

    /// The provider answered.
    pub(crate) fn handle_credentials(
        &mut self,
        now: Instant,
        leg: ConnectionId,
        answer: Result<Granted, CredentialsError>,
    ) {
        self.on(now, leg, |session| {
            if session.leg.phase != Phase::Authorizing {
                return;
            }
            match answer {
                // The last operation went meanwhile.
                Ok(_) if !session.has_reason() => {
                    session.retry.unused();
                    session.rest();
                }
                Ok(Granted { init_payload, lifetime }) => {
                    let subprotocol = session.negotiation.offer();
                    session.leg.outbox.owe_init(init_payload);
                    session.leg.expires_at =
                        lifetime.map(|lifetime| now + lifetime.min(config::MAX_DURATION));
                    session.leg.phase = Phase::Dialing(subprotocol);
                    session.leg.timers.arm(Timer::Connect, now + session.config.connect_timeout);
                    session.counts.dials += 1;
                    session.outputs.push_back(Output::Dial(leg, subprotocol));
                }
                Err(error) => session.lose(now, Disconnect::Credentials(error)),
            }
        });
    }

    /// The socket is there: `connection_init` goes first, and at once (rule 3).
    pub(crate) fn handle_open(&mut self, now: Instant, leg: ConnectionId) {
        self.on(now, leg, |session| {
            if let Phase::Dialing(subprotocol) = session.leg.phase {
                session.leg.phase = Phase::Opening(subprotocol);
                session.leg.timers.disarm(Timer::Connect);
                session.leg.timers.arm(Timer::Ack, now + session.config.ack_timeout);
            }
        });
    }

    /// Something arrived that is no message: a WebSocket ping, which the socket itself answers, or
    /// a part of a message.
    pub(crate) fn handle_activity(&mut self, now: Instant, leg: ConnectionId) {
        self.on(now, leg, |session| session.leg.liveness.heard(now));
    }

    /// A WebSocket pong frame arrived. Matched by order alone (rule 20); one that was not asked for
    /// is legal.
    pub(crate) fn handle_pong(&mut self, now: Instant, leg: ConnectionId) {
        self.on(now, leg, |session| session.ponged(now, Subprotocol::GraphqlWs));
    }

    /// Writing to the socket failed. What can still be read has a while to say why.
    pub(crate) fn handle_broken(&mut self, now: Instant, leg: ConnectionId, cause: Disconnect) {
        self.on(now, leg, |session| {
            if let (Phase::Opening(_) | Phase::Open(_), None) =
                (session.leg.phase, &session.leg.broken)
            {
                session.leg.broken = Some(cause);
                session.leg.timers.arm(Timer::Broken, now + session.config.ping_timeout);
            }
        });
    }

    /// The socket, or the attempt at one, is of no more use.
    pub(crate) fn handle_lost(&mut self, now: Instant, leg: ConnectionId, cause: Disconnect) {
        self.on(now, leg, |session| session.lose(now, cause));
    }

    fn lose(&mut self, now: Instant, cause: Disconnect) {
        let too_big = matches!(cause, Disconnect::MessageTooBig { .. });
        let close = too_big.then_some((CloseCode::TOO_BIG, "Message too big"));
        self.break_off(now, cause, close);
    }

    /// Drops the socket, or the attempt at one, and decides what follows.
    fn break_off(
        &mut self,
        now: Instant,
        cause: Disconnect,
        close: Option<(CloseCode, &'static str)>,
    ) {
        let stage = match self.leg.phase {
            Phase::Idle | Phase::Waiting | Phase::Ended => return,
            Phase::Closing(_) => {
                if self.leg.role == Role::Retiring {
                    self.outputs.push_back(Output::Hangup(self.leg.id, None));
                }
                return self.end();
            }
            Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_) => Stage::Opening,
            Phase::Open(_) => Stage::Open,
        };
        self.outputs.push_back(Output::Hangup(self.leg.id, close));
        match self.leg.role {
            Role::Current => {}
            Role::Successor => return self.postpone(now, cause),
            Role::Retiring => {
                self.leg.broken = Some(cause);
                return self.end();
            }
        }
        if self.is_moving() {
            return self.go_back(now, cause);
        }
        if stage == Stage::Open {
            self.outage.get_or_insert_with(|| (now, cause.clone()));
        }
        let verdict = self.weigh(&cause, stage);
        self.give_up_mutations(self.leg.span, Some(&cause));
        self.leg.leave_socket();
        self.last_cause = Some(cause.clone());
        match self.retry.judge(now, cause.clone(), verdict, &mut self.negotiation) {
            Plan::Again if self.adopt(now) => {}
            // One that is under way has not failed.
            Plan::GiveUp if self.is_succeeding() && self.adopt(now) => {}
            Plan::Again => self.start(now),
            Plan::GiveUp => self.fail_all(&End::GaveUp { attempts: self.retry.attempts(), cause }),
            Plan::Fatal(cause) => self.fail_all(&End::Lost(cause)),
        }
    }

    /// Time has passed; `poll_timeout` says when to call.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        for leg in ConnectionId::ALL {
            self.on(now, leg, |session| session.expire_timers(now));
        }
    }

    fn expire_timers(&mut self, now: Instant) {
        while let Some(timer) = self.leg.timers.expire(now) {
            match timer {
                Timer::Backoff => self.authorize(now),
                Timer::Connect => {
                    let cause = if self.leg.phase == Phase::Authorizing {
                        let timeout = self.config.credentials_timeout;
                        Disconnect::Credentials(CredentialsError::transient(format!(
                            "no answer within {timeout:?}"
                        )))
                    } else {
                        Disconnect::Connect(ConnectError::Timeout(self.config.connect_timeout))
                    };
                    self.break_off(now, cause, None);
                }
                Timer::Ack => {
                    let cause = Disconnect::AckTimeout(self.config.ack_timeout);
                    self.break_off(
                        now,
                        cause,
                        Some((CloseCode::ACK_TIMEOUT, "Connection acknowledgement timeout")),
                    );
                }
                Timer::Liveness => {
                    if let Some(silence) = self.leg.liveness.check(now, &mut self.leg.timers) {
                        self.break_off(now, Disconnect::Silent(silence), None);
                    }
                }
                Timer::Ping => self.leg.ping(now),
                Timer::KeepAlive => {
                    if let Some(silence) =
                        self.leg.liveness.check_keep_alive(now, &mut self.leg.timers)
                    {
                        self.break_off(now, Disconnect::Silent(silence), None);
                    }
                }
                Timer::Healthy => self.prove(now),
                Timer::Settled => self.settled(now),
                // It is not read, so it cannot have said anything.
                Timer::Broken if self.leg.liveness.is_paused() => {
                    self.leg.timers.arm(Timer::Broken, now + self.config.ping_timeout);
                }
                Timer::Broken => {
                    let cause = self.leg.broken.take().unwrap_or(Disconnect::Reset(None));
                    self.break_off(now, cause, None);
                }
                Timer::Pace => self.pace(now),
                Timer::Idle => self.close_idle(),
                Timer::Renewal => self.renew(now),
                Timer::Overlap => self.end_overlap(now),
                Timer::Grace => self.end_grace(now),
                Timer::Shutdown => {
                    self.outputs.push_back(Output::Hangup(self.leg.id, None));
                    self.end();
                }
            }
        }
    }

    /// The sockets are not read for a while: silence means nothing now.
    pub(crate) fn stall(&mut self) {
        self.legs().for_each(|leg| leg.liveness.pause());
    }

    /// They are read again; the time until now does not count as silence.
    pub(crate) fn unstall(&mut self, now: Instant) {
        self.legs().for_each(|leg| leg.liveness.resume(now));
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output<S>> {
        self.outputs.pop_front()
    }

    /// The next thing to write on a leg. What was not taken from here was not sent.
    pub(crate) fn poll_transmit(&mut self, leg: ConnectionId) -> Option<Transmit> {
        let leg = if self.leg.id == leg { &mut self.leg } else { self.other.as_deref_mut()? };
        let (Phase::Opening(subprotocol) | Phase::Open(subprotocol) | Phase::Closing(subprotocol)) =
            leg.phase
        else {
            return None;
        };
        leg.outbox.next(subprotocol, &mut self.operations, &mut leg.proofs)
    }

    /// When to call `handle_timeout`, if nothing else happens.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.operations.next_deadline().map(|(at, _)| at);
        let other = self.other.as_deref().and_then(|leg| leg.timers.next());
        self.leg.timers.next().into_iter().chain(other).chain(deadline).min()
    }

    /// Whether operations are sent.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.leg.phase, Phase::Open(_))
    }

    /// Whether a leg is acknowledged.
    pub(crate) fn is_live(&self, leg: ConnectionId) -> bool {
        let other = self.other.as_deref().filter(|other| other.id == leg);
        let leg = if self.leg.id == leg { Some(&self.leg) } else { other };
        leg.is_some_and(|leg| matches!(leg.phase, Phase::Open(_)))
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn live_operations(&self) -> usize {
        self.operations.len()
    }

    /// Handles what is about a leg as if it were the only one. Nothing happens if it is gone.
    fn on<R>(
        &mut self,
        now: Instant,
        leg: ConnectionId,
        handle: impl FnOnce(&mut Self) -> R,
    ) -> Option<R> {
        if self.leg.id != leg {
            let other = self.other.as_mut().filter(|other| other.id == leg)?;
            std::mem::swap(&mut self.leg, other);
        }
        let result = handle(self);
        if let Some(other) = &mut self.other {
            if other.role == Role::Current {
                std::mem::swap(&mut self.leg, other);
            }
            self.tend_other(now);
        }
        Some(result)
    }

    /// The one that is being handled, and the other.
    fn legs(&mut self) -> impl Iterator<Item = &mut Leg> {
        std::iter::once(&mut self.leg).chain(self.other.as_deref_mut())
    }

    /// What was sent on the other leg.
    fn other_span(&self) -> Span {
        self.other.as_deref().map_or(Span::NONE, |other| other.span)
    }

    /// Dials as soon as the spacing of dials allows, if there is anything to dial for.
    fn start(&mut self, now: Instant) {
        if self.is_paused {
            return;
        }
        match (self.has_reason(), self.retry.due(now)) {
            (false, _) => self.rest(),
            (true, None) => self.authorize(now),
            (true, Some(at)) => {
                self.leg.phase = Phase::Waiting;
                self.leg.timers.arm(Timer::Backoff, at);
                self.status(Status::Waiting { delay: at - now, cause: self.last_cause.clone() });
            }
        }
    }

    fn authorize(&mut self, now: Instant) {
        let (attempt, reason) = self.retry.begin(now);
        self.leg.phase = Phase::Authorizing;
        self.leg.timers.clear();
        self.leg.timers.arm(Timer::Connect, now + self.config.credentials_timeout);
        self.status(Status::Connecting { attempt, cause: self.last_cause.clone() });
        self.outputs.push_back(Output::Authorize(self.leg.id, reason));
    }

    /// Ends what is live; the next subscribe starts afresh (rule 23).
    fn fail_all(&mut self, end: &End) {
        self.retry.forgive();
        self.negotiation.reset();
        self.finish_all(end);
        self.answer_connect(Err(end.clone()));
        self.answer_rotate(Err(end.clone()));
        self.rest();
    }

    /// There is nothing to be connected for.
    fn rest(&mut self) {
        self.leg.timers.clear();
        self.leg.phase = Phase::Idle;
        if self.leg.role != Role::Current {
            return;
        }
        self.drop_other();
        // The next one will be another.
        self.answer_rotate(Ok(()));
        self.outage = None;
        self.suspicion = Suspicion::default();
        self.status(Status::Idle);
    }

    /// The peer has answered the goodbye, or had time to.
    fn end(&mut self) {
        match self.leg.role {
            Role::Current => {
                self.leg.leave_socket();
                self.leg.phase = Phase::Ended;
                self.outputs.push_back(Output::Ended);
            }
            Role::Successor | Role::Retiring => self.leg.phase = Phase::Idle,
        }
    }

    /// What an operator sees is the leg that operations are sent on.
    fn status(&mut self, status: Status) {
        if self.leg.role == Role::Current {
            self.outputs.push_back(Output::Status(status));
        }
    }

    fn status_open(&mut self) {
        if let Phase::Open(subprotocol) = self.leg.phase {
            self.status(Status::Open { subprotocol, ack_payload: self.leg.ack_payload.clone() });
        }
    }
}
