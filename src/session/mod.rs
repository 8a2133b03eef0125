//! The conversation with one server, over as many sockets as it takes.
//!
//! Owns every decision: when to dial, what to say, what a loss means, which operation gets what. Pure: `now` is an
//! argument, randomness is one seed, no map is iterated in an order of its own; so the same inputs give the same
//! outputs. Knows no socket and no task. `handle_*` takes what happened, verbs take what the application wants,
//! `poll_*` gives what is to be done; spurious calls do nothing.
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

mod backoff;
mod config;
mod control;
mod liveness;
mod messages;
mod negotiation;
mod operations;
mod outbox;
mod output;
mod proof;
mod registry;
mod retry;
mod suspicion;
mod timers;
mod trial;
mod upkeep;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Instant};

pub use self::config::{Strictness, Verdict};
#[cfg(feature = "client")]
pub(crate) use self::{
    backoff::Backoff,
    config::{DialBudget, MAX_DURATION},
};
pub(crate) use self::{
    config::{Config, VerdictHook},
    output::{Counts, End, Item, Output, Transmit},
    registry::Request,
    upkeep::Care,
};
use self::{
    liveness::{Liveness, Ping},
    negotiation::Negotiation,
    outbox::{Outbox, Queued},
    proof::Proofs,
    registry::{Registry, Wait},
    retry::{Plan, Retry},
    suspicion::{Outage, Suspicion, reconnected},
    timers::{Timer, Timers},
};
use crate::{
    error::{CloseCode, ConnectError, CredentialsError, Disconnect},
    operation::OperationType,
    protocol::{Subprotocol, close::Stage},
    status::Status,
};

/// The state machine. `S` is who reads an operation; the session only hands it back. Not `Debug`: it holds
/// the init payload (I13).
pub(crate) struct Session<S> {
    config: Config,
    phase: Phase,
    operations: Registry<S>,
    timers: Timers,
    retry: Retry,
    negotiation: Negotiation,
    liveness: Liveness,
    suspicion: Suspicion,
    proofs: Proofs,
    outputs: VecDeque<Output<S>>,
    outbox: Outbox,
    /// Why writing to the socket failed.
    broken: Option<Disconnect>,
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing to be connected for.
    Idle,
    /// The retry sleep.
    Waiting,
    /// The credentials provider was asked.
    Authorizing,
    /// Name resolution, TCP, TLS and the upgrade.
    Dialing(Subprotocol),
    /// `connection_init` is on its way; no acknowledgement yet.
    Opening(Subprotocol),
    /// Acknowledged.
    Open(Subprotocol),
    /// Shut down; the peer has not answered the close yet.
    Closing(Subprotocol),
    Ended,
}

impl<S: Clone> Session<S> {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            phase: Phase::Idle,
            operations: Registry::new(),
            timers: Timers::default(),
            retry: Retry::new(&config),
            negotiation: Negotiation::new(config.subprotocol),
            liveness: Liveness::new(&config),
            suspicion: Suspicion::default(),
            proofs: Proofs::default(),
            outputs: VecDeque::new(),
            outbox: Outbox::default(),
            broken: None,
            outage: None,
            last_cause: None,
            is_wanted: false,
            is_paused: false,
            counts: Counts::default(),
            config,
        }
    }

    /// The provider answered. `Ok` is the init payload, a JSON object.
    pub(crate) fn handle_credentials(&mut self, now: Instant, answer: Result<Box<str>, CredentialsError>) {
        if self.phase != Phase::Authorizing {
            return;
        }
        match answer {
            // The last operation went meanwhile.
            Ok(_) if !self.has_reason() => {
                self.retry.unused();
                self.rest();
            }
            Ok(init_payload) => {
                let subprotocol = self.negotiation.offer();
                self.outbox.owe_init(init_payload);
                self.phase = Phase::Dialing(subprotocol);
                self.timers.arm(Timer::Connect, now + self.config.connect_timeout);
                self.counts.dials += 1;
                self.outputs.push_back(Output::Dial(subprotocol));
            }
            Err(error) => self.handle_lost(now, Disconnect::Credentials(error)),
        }
    }

    /// The socket is there: `connection_init` goes first, and at once (rule 3).
    pub(crate) fn handle_open(&mut self, now: Instant) {
        if let Phase::Dialing(subprotocol) = self.phase {
            self.phase = Phase::Opening(subprotocol);
            self.timers.disarm(Timer::Connect);
            self.timers.arm(Timer::Ack, now + self.config.ack_timeout);
        }
    }

    /// Something arrived that is no message: a WebSocket ping, which the socket itself answers, or a part of a message.
    pub(crate) fn handle_activity(&mut self, now: Instant) {
        self.liveness.heard(now);
    }

    /// A WebSocket pong frame arrived. Matched by order alone (rule 20); one that was not asked for is legal.
    pub(crate) fn handle_pong(&mut self, now: Instant) {
        self.ponged(now, Subprotocol::GraphqlWs);
    }

    /// Writing to the socket failed. What can still be read has a while to say why.
    pub(crate) fn handle_broken(&mut self, now: Instant, cause: Disconnect) {
        if let (Phase::Opening(_) | Phase::Open(_), None) = (self.phase, &self.broken) {
            self.broken = Some(cause);
            self.timers.arm(Timer::Broken, now + self.config.ping_timeout);
        }
    }

    /// The socket, or the attempt at one, is of no more use.
    pub(crate) fn handle_lost(&mut self, now: Instant, cause: Disconnect) {
        let too_big = matches!(cause, Disconnect::MessageTooBig { .. });
        let close = too_big.then_some((CloseCode::TOO_BIG, "Message too big"));
        self.break_off(now, cause, close);
    }

    /// Drops the socket, or the attempt at one, and decides what follows.
    fn break_off(&mut self, now: Instant, cause: Disconnect, close: Option<(CloseCode, &'static str)>) {
        let stage = match self.phase {
            Phase::Idle | Phase::Waiting | Phase::Ended => return,
            Phase::Closing(_) => return self.end(),
            Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_) => Stage::Opening,
            Phase::Open(_) => {
                self.outage.get_or_insert_with(|| (now, cause.clone()));
                Stage::Open
            }
        };
        self.outputs.push_back(Output::Hangup(close));
        let verdict = self.weigh(&cause, stage);
        self.give_up_mutations(Some(&cause));
        self.leave_socket();
        self.last_cause = Some(cause.clone());
        match self.retry.judge(now, cause.clone(), verdict, &mut self.negotiation) {
            Plan::Again => self.start(now),
            Plan::GiveUp => self.fail_all(&End::GaveUp { attempts: self.retry.attempts(), cause }),
            Plan::Fatal(cause) => self.fail_all(&End::Lost(cause)),
        }
    }

    /// Time has passed; `poll_timeout` says when to call.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Backoff => self.authorize(now),
                Timer::Connect => {
                    let cause = if self.phase == Phase::Authorizing {
                        let timeout = self.config.credentials_timeout;
                        Disconnect::Credentials(CredentialsError::transient(format!("no answer within {timeout:?}")))
                    } else {
                        Disconnect::Connect(ConnectError::Timeout(self.config.connect_timeout))
                    };
                    self.break_off(now, cause, None);
                }
                Timer::Ack => {
                    let cause = Disconnect::AckTimeout(self.config.ack_timeout);
                    self.break_off(now, cause, Some((CloseCode::ACK_TIMEOUT, "Connection acknowledgement timeout")));
                }
                Timer::Liveness => {
                    if let Some(silence) = self.liveness.check(now, &mut self.timers) {
                        self.break_off(now, Disconnect::Silent(silence), None);
                    }
                }
                Timer::Ping => self.ping(now),
                Timer::KeepAlive => {
                    if let Some(silence) = self.liveness.check_keep_alive(now, &mut self.timers) {
                        self.break_off(now, Disconnect::Silent(silence), None);
                    }
                }
                Timer::Healthy => self.prove(now),
                Timer::Settled => self.settled(now),
                // It is not read, so it cannot have said anything.
                Timer::Broken if self.liveness.is_paused() => {
                    self.timers.arm(Timer::Broken, now + self.config.ping_timeout);
                }
                Timer::Broken => {
                    let cause = self.broken.take().unwrap_or(Disconnect::Reset(None));
                    self.break_off(now, cause, None);
                }
                Timer::Idle => self.close_idle(),
                Timer::Shutdown => {
                    self.outputs.push_back(Output::Hangup(None));
                    self.end();
                }
            }
        }
    }

    /// The socket is not read for a while: silence means nothing now.
    pub(crate) fn stall(&mut self) {
        self.liveness.pause();
    }

    /// It is read again; the time until now does not count as silence.
    pub(crate) fn unstall(&mut self, now: Instant) {
        self.liveness.resume(now);
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output<S>> {
        self.outputs.pop_front()
    }

    /// The next thing to write. What was not taken from here was not sent.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        let (Phase::Opening(subprotocol) | Phase::Open(subprotocol) | Phase::Closing(subprotocol)) = self.phase else {
            return None;
        };
        self.outbox.next(subprotocol, &mut self.operations, &mut self.proofs)
    }

    /// When to call `handle_timeout`, if nothing else happens.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.operations.next_deadline().map(|(at, _)| at);
        self.timers.next().into_iter().chain(deadline).min()
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn live_operations(&self) -> usize {
        self.operations.len()
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
                self.phase = Phase::Waiting;
                self.timers.arm(Timer::Backoff, at);
                self.status(Status::Waiting { delay: at - now, cause: self.last_cause.clone() });
            }
        }
    }

    fn authorize(&mut self, now: Instant) {
        let (attempt, reason) = self.retry.begin(now);
        self.phase = Phase::Authorizing;
        self.timers.clear();
        self.timers.arm(Timer::Connect, now + self.config.credentials_timeout);
        self.status(Status::Connecting { attempt, cause: self.last_cause.clone() });
        self.outputs.push_back(Output::Authorize(reason));
    }

    /// Re-issues what is live, in its original order, as one batch (rule 26), with its gap announced first (rule 28).
    fn enter_open(&mut self, now: Instant, subprotocol: Subprotocol, ack: Option<&str>) {
        self.phase = Phase::Open(subprotocol);
        self.negotiation.acked(subprotocol);
        self.retry.acked();
        self.counts.connections += 1;
        self.timers.clear();
        // Said again at every turn.
        self.broken = None;
        self.timers.arm(Timer::Healthy, now + self.config.healthy_after);
        self.liveness.open(now, subprotocol, &mut self.timers);
        let ack_payload = ack.and_then(|payload| serde_json::from_str(payload).ok()).map(Arc::new);
        self.status(Status::Open { subprotocol, ack_payload });
        self.await_trial(now);
        let gap = reconnected(now, self.outage.take());
        let mut watched = Vec::new();
        for operation in self.operations.iter() {
            match operation.wait {
                // Sent with the others: the connection's own backoff was for this one, too.
                Wait::Nothing | Wait::Backoff => {}
                Wait::Reader | Wait::Verdict | Wait::Trial => continue,
            }
            if operation.was_issued && operation.kind == OperationType::Subscription {
                let held = operation.outage.as_deref().cloned();
                let gap = held.map_or_else(|| gap.clone(), |outage| reconnected(now, Some(outage)));
                self.outputs.push_back(Output::Reissue { sink: operation.sink.clone(), gap });
            }
            self.outbox.push(Queued::Subscribe(operation.id));
            watched.extend((operation.upkeep.is_some() || operation.outage.is_some()).then_some(operation.id));
        }
        for id in watched {
            self.watch(now, id);
        }
        self.answer_connect(Ok(()));
        self.look_for_idleness(now);
        self.probe_awaited();
    }

    /// Ends what is live; the next subscribe starts afresh (rule 23).
    fn fail_all(&mut self, end: &End) {
        self.retry.forgive();
        self.negotiation.reset();
        self.finish_all(end);
        self.answer_connect(Err(end.clone()));
        self.rest();
    }

    fn rest(&mut self) {
        self.timers.clear();
        self.phase = Phase::Idle;
        self.outage = None;
        self.suspicion = Suspicion::default();
        self.status(Status::Idle);
    }

    fn end(&mut self) {
        self.leave_socket();
        self.phase = Phase::Ended;
        self.outputs.push_back(Output::Ended);
    }

    /// Forgets all that belonged to one socket.
    fn leave_socket(&mut self) {
        self.timers.clear();
        self.outbox.clear();
        self.broken = None;
        self.liveness.reset();
        self.proofs.forget_socket();
        self.operations.forget_socket();
    }

    fn ping(&mut self, now: Instant) {
        let Phase::Open(subprotocol) = self.phase else { return };
        let ping = match self.liveness.ping(now, subprotocol, &mut self.timers) {
            Some(Ping::Message) => Queued::Ping,
            Some(Ping::WebSocket) => Queued::WebSocketPing,
            None => return,
        };
        if self.outbox.push_ping(ping) {
            self.liveness.pinged(now);
        }
    }

    fn status(&mut self, status: Status) {
        self.outputs.push_back(Output::Status(status));
    }
}
