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
mod negotiation;
mod registry;
mod timers;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fastrand::Rng;

use self::{
    backoff::Backoff,
    negotiation::Negotiation,
    registry::Registry,
    timers::{Timer, Timers},
};
use crate::{
    auth::CredentialsReason,
    error::{CloseCode, CredentialsError, Disconnect, Violation},
    mailbox::Gap,
    protocol::{
        Envelope, Kind, Outgoing, Payload, Subprotocol, WireId,
        close::{Stage, Verdict, close_reason, verdict},
    },
    status::Status,
};

/// How a session behaves; every field is an option of the builder, which documents it.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) subprotocol: Option<Subprotocol>,
    pub(crate) strictness: Strictness,
    pub(crate) credentials_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) ack_timeout: Duration,
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) ping_timeout: Duration,
    pub(crate) backoff_base: Duration,
    pub(crate) backoff_cap: Duration,
    pub(crate) healthy_after: Duration,
    pub(crate) give_up_after: Option<u32>,
    pub(crate) seed: u64,
}

/// What to make of messages that cannot be read (rule 31).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Strictness {
    /// Ignore and count them. The default: real servers send odd things.
    #[default]
    Lenient,
    /// Close the connection with 4004 and end every operation.
    Strict,
}

/// The state machine. `S` is who reads an operation; the session only hands it back. Not `Debug`: it holds
/// the init payload (I13).
pub(crate) struct Session<S> {
    config: Config,
    rng: Rng,
    phase: Phase,
    operations: Registry<S>,
    timers: Timers,
    backoff: Backoff,
    negotiation: Negotiation,
    outputs: VecDeque<Output<S>>,
    /// What is to be written, in order; a `subscribe` is encoded when it is taken.
    queue: VecDeque<Queued>,
    /// A pong overtakes the queue, and only the latest is owed (rule 19).
    pong: Option<Option<Box<str>>>,
    /// The init payload, from the provider's answer until it is written.
    init_payload: Option<Box<str>>,
    /// Why the provider is asked next.
    reason: CredentialsReason,
    /// Attempts since the last healthy connection.
    attempts: u32,
    streaks: Streaks,
    /// No dial before this, whatever was subscribed or dropped meanwhile (I7).
    not_before: Option<Instant>,
    /// Since when operations are without a connection.
    outage: Option<Instant>,
    /// Why the last connection was lost.
    last_cause: Option<Disconnect>,
    last_inbound: Option<Instant>,
    /// The ping that `Timer::Liveness` watches over.
    watched_ping: Option<Instant>,
    /// Pings that are not answered, oldest first.
    pings: VecDeque<Instant>,
    /// The last `ka` and the longest time between two.
    keep_alive: (Option<Instant>, Duration),
    /// The reader of some mailbox asked for the socket to be left alone.
    paused: bool,
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

/// How often in a row something was answered that may not be repeated forever.
#[derive(Clone, Copy, Debug, Default)]
struct Streaks {
    rejected: u32,
    suspect: u32,
    duplicate_id: u32,
}

/// What the session counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) dials: u64,
    pub(crate) connections: u64,
    pub(crate) items: u64,
    pub(crate) ignored: u64,
    pub(crate) round_trip_time: Option<Duration>,
}

/// Something to do, in order.
#[derive(Debug)]
pub(crate) enum Output<S> {
    /// Ask the provider; answer with `handle_credentials`.
    Authorize(CredentialsReason),
    /// Make a socket; answer with `handle_open` or `handle_lost`.
    Dial(Subprotocol),
    /// Drop the socket, or the attempt at one, after sending this close frame as far as that works at once.
    Hangup(Option<(CloseCode, &'static str)>),
    /// An item.
    Deliver {
        sink: S,
        payload: Payload,
    },
    /// The operation is about to be sent again.
    Reissue {
        sink: S,
        gap: Gap,
    },
    /// The operation is over (I1).
    Finish {
        sink: S,
        end: End,
    },
    Status(Status),
    /// Nothing will follow.
    Ended,
}

/// Something to write, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Transmit {
    Text(String),
    /// A WebSocket ping frame.
    Ping,
    Close(CloseCode, &'static str),
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Completed,
    Rejected(Option<Payload>),
    Lost(Disconnect),
    GaveUp { attempts: u32, cause: Disconnect },
    Overflow,
    ShutDown,
}

#[derive(Clone, Copy, Debug)]
enum Queued {
    Init,
    Subscribe(u64),
    Complete(WireId),
    Ping,
    WebSocketPing,
    Terminate,
    Close(CloseCode, &'static str),
}

/// What follows a verdict.
enum Plan {
    Now,
    Backoff { floor: Duration },
    Fatal(Disconnect),
}

impl<S: Clone> Session<S> {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            rng: Rng::with_seed(config.seed),
            phase: Phase::Idle,
            operations: Registry::new(),
            timers: Timers::default(),
            backoff: Backoff::new(config.backoff_base, config.backoff_cap),
            negotiation: Negotiation::new(config.subprotocol),
            outputs: VecDeque::new(),
            queue: VecDeque::new(),
            pong: None,
            init_payload: None,
            reason: CredentialsReason::Initial,
            attempts: 0,
            streaks: Streaks::default(),
            not_before: None,
            outage: None,
            last_cause: None,
            last_inbound: None,
            watched_ping: None,
            pings: VecDeque::new(),
            keep_alive: (None, Duration::ZERO),
            paused: false,
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
            Ok(init_payload) => {
                let subprotocol = self.negotiation.offer();
                self.init_payload = Some(init_payload);
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
            self.queue.push_back(Queued::Init);
        }
    }

    /// A text or binary message arrived.
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: &Bytes) {
        self.last_inbound = Some(now);
        let parsed = match self.config.strictness {
            Strictness::Lenient => Envelope::parse(frame),
            // The quick reader leaves the end of a frame unread.
            Strictness::Strict => Envelope::parse_fully(frame),
        };
        match parsed {
            Ok(envelope) => self.handle_message(now, envelope),
            Err(_) => self.handle_unreadable(now),
        }
    }

    fn handle_message(&mut self, now: Instant, Envelope { kind, id, payload }: Envelope<'_>) {
        match (self.phase, kind) {
            (Phase::Idle | Phase::Waiting | Phase::Authorizing | Phase::Dialing(_), _) => {}
            // The operations are over; only the peer's close is awaited.
            (Phase::Closing(_) | Phase::Ended, _) => {}
            (Phase::Opening(_) | Phase::Open(_), Kind::Ping) => {
                self.pong = Some(payload.as_ref().and_then(Payload::json).map(Box::from));
            }
            (Phase::Opening(_) | Phase::Open(_), Kind::Pong) => self.handle_pong(now),
            (Phase::Opening(_) | Phase::Open(_), Kind::KeepAlive) => self.handle_keep_alive(now),
            (Phase::Opening(subprotocol), Kind::Ack) => self.enter_open(now, subprotocol, payload.as_ref()),
            (Phase::Opening(_), Kind::ConnectionError) => {
                let message = payload.as_ref().map(refusal_message).unwrap_or_default();
                self.break_off(now, Disconnect::Refused { message }, None);
            }
            (Phase::Opening(_) | Phase::Open(_), Kind::Unknown) => self.handle_unreadable(now),
            // Some servers answer what they do not like with an error that names no operation.
            (Phase::Opening(_) | Phase::Open(_), Kind::Error) if id.is_none() => self.counts.ignored += 1,
            (Phase::Opening(_), Kind::Next | Kind::Error | Kind::Complete) => {
                let cause = Disconnect::Violation(Violation::BeforeAck(kind.name()));
                self.break_off(now, cause, Some((CloseCode::BAD_RESPONSE, "Unexpected message before ack")));
            }
            (Phase::Open(_), Kind::Next) => self.deliver(id.as_deref(), payload),
            (Phase::Open(_), Kind::Error) => self.finish(id.as_deref(), End::Rejected(payload)),
            (Phase::Open(_), Kind::Complete) => self.finish(id.as_deref(), End::Completed),
            // A second ack is odd but harmless (rule 7), and after the ack a connection_error is no end (rule 21).
            (Phase::Open(_), Kind::Ack | Kind::ConnectionError) => self.counts.ignored += 1,
        }
    }

    /// A WebSocket ping arrived, which the socket itself answers: a proof of life.
    pub(crate) fn handle_activity(&mut self, now: Instant) {
        self.last_inbound = Some(now);
    }

    /// A pong arrived, of either kind. Matched by order alone (rule 20); one that was not asked for is legal.
    pub(crate) fn handle_pong(&mut self, now: Instant) {
        self.last_inbound = Some(now);
        if let Some(sent) = self.pings.pop_front() {
            self.counts.round_trip_time = Some(now.saturating_duration_since(sent));
        }
    }

    /// The socket, or the attempt at one, is of no more use.
    pub(crate) fn handle_lost(&mut self, now: Instant, cause: Disconnect) {
        let close = match cause {
            Disconnect::MessageTooBig { .. } => Some((CloseCode::TOO_BIG, "Message too big")),
            _ => None,
        };
        self.break_off(now, cause, close);
    }

    /// Drops the socket, or the attempt at one, and decides what follows.
    fn break_off(&mut self, now: Instant, cause: Disconnect, close: Option<(CloseCode, &'static str)>) {
        let stage = match self.phase {
            Phase::Idle | Phase::Waiting | Phase::Ended => return,
            Phase::Closing(_) => return self.end(),
            Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_) => Stage::Opening,
            Phase::Open(_) => {
                self.outage.get_or_insert(now);
                Stage::Open
            }
        };
        self.outputs.push_back(Output::Hangup(close));
        self.leave_socket();
        self.last_cause = Some(cause.clone());
        match self.plan(cause, stage) {
            Plan::Now => {
                self.not_before = None;
                self.start(now);
            }
            Plan::Backoff { floor } => {
                self.not_before = Some(now + self.backoff.next(&mut self.rng, floor));
                match self.config.give_up_after {
                    Some(most) if self.attempts >= most => self.give_up(),
                    Some(_) | None => self.start(now),
                }
            }
            Plan::Fatal(cause) => {
                self.not_before = Some(now + self.backoff.next(&mut self.rng, Duration::ZERO));
                self.fail_all(&End::Lost(cause));
            }
        }
    }

    /// Time has passed; `poll_timeout` says when to call.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Backoff => self.authorize(now),
                Timer::Connect => {
                    let cause = match self.phase {
                        Phase::Authorizing => Disconnect::Credentials(CredentialsError::transient(format!(
                            "no answer within {:?}",
                            self.config.credentials_timeout
                        ))),
                        _ => Disconnect::Connect(crate::error::ConnectError::Timeout(self.config.connect_timeout)),
                    };
                    self.break_off(now, cause, None);
                }
                Timer::Ack => {
                    let cause = Disconnect::AckTimeout(self.config.ack_timeout);
                    self.break_off(now, cause, Some((CloseCode::ACK_TIMEOUT, "Connection acknowledgement timeout")));
                }
                Timer::Liveness => self.check_liveness(now),
                Timer::Ping => self.ping(now),
                Timer::KeepAlive => self.check_keep_alive(now),
                Timer::Healthy => {
                    self.attempts = 0;
                    self.streaks = Streaks::default();
                    self.backoff.reset();
                }
                Timer::Shutdown => {
                    self.outputs.push_back(Output::Hangup(None));
                    self.end();
                }
            }
        }
    }

    /// Starts an operation. `id` rises with every call; `payload` is the JSON of its request.
    pub(crate) fn subscribe(&mut self, now: Instant, id: u64, payload: Box<str>, sink: S) {
        match self.phase {
            Phase::Closing(_) | Phase::Ended => {
                self.outputs.push_back(Output::Finish { sink, end: End::ShutDown });
                return;
            }
            Phase::Open(_) => self.queue.push_back(Queued::Subscribe(id)),
            Phase::Idle | Phase::Waiting | Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_) => {}
        }
        self.operations.insert(id, sink, payload);
        if self.phase == Phase::Idle {
            self.start(now);
        }
    }

    /// Ends an operation from this side: its reader is gone. Nothing is said of one that was never written (rule 12).
    pub(crate) fn cancel(&mut self, id: u64) {
        let Some(operation) = self.operations.get(id) else { return };
        if let (Phase::Open(_), Some(wire_id)) = (self.phase, self.operations.wire_id(operation)) {
            self.queue.push_back(Queued::Complete(wire_id));
        }
        self.operations.remove(id);
        if self.operations.is_empty() && self.phase == Phase::Waiting {
            self.rest();
        }
    }

    /// Ends the retry sleep, if there is one.
    pub(crate) fn reconnect_now(&mut self, now: Instant) {
        if self.phase == Phase::Waiting {
            self.authorize(now);
        }
    }

    /// Ends everything: politely where there is a socket, and by `deadline` in any case (rule 29).
    pub(crate) fn shutdown(&mut self, deadline: Instant) {
        let subprotocol = match self.phase {
            Phase::Ended | Phase::Closing(_) => return,
            Phase::Opening(subprotocol) | Phase::Open(subprotocol) => Some(subprotocol),
            Phase::Idle | Phase::Waiting | Phase::Authorizing | Phase::Dialing(_) => None,
        };
        self.queue.clear();
        self.pong = None;
        self.timers.clear();
        if let Phase::Open(_) = self.phase {
            let sent = self.operations.iter().filter_map(|operation| self.operations.wire_id(operation));
            self.queue.extend(sent.map(Queued::Complete));
        }
        self.finish_all(&End::ShutDown);
        let Some(subprotocol) = subprotocol else {
            self.outputs.push_back(Output::Hangup(None));
            return self.end();
        };
        if subprotocol == Subprotocol::GraphqlWs {
            self.queue.push_back(Queued::Terminate);
        }
        self.queue.push_back(Queued::Close(CloseCode::NORMAL, ""));
        self.phase = Phase::Closing(subprotocol);
        self.timers.arm(Timer::Shutdown, deadline);
    }

    /// The socket is not read for a while: silence means nothing now.
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// It is read again; the time until now does not count as silence.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.paused = false;
        self.last_inbound = Some(now);
        if !self.pings.is_empty() {
            self.timers.arm(Timer::Liveness, now + self.config.ping_timeout);
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output<S>> {
        self.outputs.pop_front()
    }

    /// The next thing to write. What was not taken from here was not sent.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        let (Phase::Opening(subprotocol) | Phase::Open(subprotocol) | Phase::Closing(subprotocol)) = self.phase else {
            return None;
        };
        let text = |message: Outgoing<'_>| Some(Transmit::Text(message.encode(subprotocol)));
        if !matches!(self.queue.front(), Some(Queued::Init))
            && let Some(payload) = self.pong.take()
        {
            return text(Outgoing::Pong { payload: payload.as_deref() });
        }
        loop {
            return match self.queue.pop_front()? {
                Queued::Init => {
                    let payload = self.init_payload.take();
                    text(Outgoing::Init { payload: payload.as_deref().unwrap_or("{}") })
                }
                Queued::Subscribe(id) => match self.operations.issue(id) {
                    Some((id, payload)) => text(Outgoing::Subscribe { id, payload }),
                    // Dropped before it was written: never mentioned (rule 12).
                    None => continue,
                },
                Queued::Complete(id) => text(Outgoing::Complete { id }),
                Queued::Ping => text(Outgoing::Ping),
                Queued::WebSocketPing => Some(Transmit::Ping),
                Queued::Terminate => text(Outgoing::Terminate),
                Queued::Close(code, reason) => Some(Transmit::Close(code, close_reason(reason))),
            };
        }
    }

    /// When to call `handle_timeout`, if nothing else happens.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
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

    /// Takes every live operation's reader; for when the driver itself goes.
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = S> + use<S> {
        self.operations.drain().map(|operation| operation.sink)
    }

    /// Dials as soon as the spacing of dials allows, if there is anything to dial for.
    fn start(&mut self, now: Instant) {
        match (self.operations.is_empty(), self.not_before) {
            (true, _) => self.rest(),
            (false, Some(at)) if at > now => {
                self.phase = Phase::Waiting;
                self.timers.arm(Timer::Backoff, at);
                if let Some(cause) = self.last_cause.clone() {
                    self.status(Status::Waiting { delay: at - now, cause });
                }
            }
            (false, _) => self.authorize(now),
        }
    }

    fn authorize(&mut self, now: Instant) {
        self.timers.clear();
        self.phase = Phase::Authorizing;
        self.attempts = self.attempts.saturating_add(1);
        self.timers.arm(Timer::Connect, now + self.config.credentials_timeout);
        self.status(Status::Connecting { attempt: self.attempts });
        let reason = std::mem::replace(&mut self.reason, CredentialsReason::Reconnect);
        self.outputs.push_back(Output::Authorize(reason));
    }

    /// Re-issues what is live, in its original order, as one batch (rule 26), with its gap announced first (rule 28).
    fn enter_open(&mut self, now: Instant, subprotocol: Subprotocol, ack: Option<&Payload>) {
        self.phase = Phase::Open(subprotocol);
        self.negotiation.acked(subprotocol);
        self.streaks.suspect = 0;
        self.counts.connections += 1;
        self.timers.clear();
        self.timers.arm(Timer::Healthy, now + self.config.healthy_after);
        if let Some(interval) = self.config.ping_interval {
            self.timers.arm(Timer::Ping, now + self.ping_pace(interval));
        }
        let ack_payload = ack.and_then(|payload| payload.decode().ok()).map(Arc::new);
        self.status(Status::Open { subprotocol, ack_payload });
        let down_for = self.outage.take().map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        for operation in self.operations.iter() {
            self.queue.push_back(Queued::Subscribe(operation.id));
            if operation.was_issued() {
                let gap = Gap { reconnects: 1, dropped: 0, down_for, cause: self.last_cause.clone() };
                self.outputs.push_back(Output::Reissue { sink: operation.sink.clone(), gap });
            }
        }
    }

    /// Decides what follows a loss: the verdict table, and what may not be repeated forever.
    fn plan(&mut self, cause: Disconnect, stage: Stage) -> Plan {
        let verdict = verdict(&cause, stage, self.negotiation.is_open());
        if matches!(verdict, Verdict::Rejected | Verdict::Suspect) {
            self.reason = CredentialsReason::Rejected { cause: cause.clone() };
        }
        let limit = |streak: &mut u32, most| {
            *streak += 1;
            *streak >= most
        };
        match verdict {
            Verdict::RetryAfter(floor) => Plan::Backoff { floor },
            Verdict::Rejected if limit(&mut self.streaks.rejected, 2) => Plan::Fatal(cause),
            Verdict::Suspect if limit(&mut self.streaks.suspect, 5) => Plan::Fatal(cause),
            Verdict::DuplicateId if limit(&mut self.streaks.duplicate_id, 2) => Plan::Fatal(cause),
            Verdict::Rejected => {
                self.negotiation.retry_from_the_start();
                Plan::Now
            }
            Verdict::Retry | Verdict::Suspect | Verdict::DuplicateId => Plan::Backoff { floor: Duration::ZERO },
            Verdict::OtherSubprotocol => match self.negotiation.refused(cause) {
                Ok(()) => Plan::Now,
                Err(both) => Plan::Fatal(both),
            },
            Verdict::Fatal => Plan::Fatal(cause),
        }
    }

    fn handle_unreadable(&mut self, now: Instant) {
        self.counts.ignored += 1;
        if self.config.strictness == Strictness::Strict {
            let cause = Disconnect::Violation(Violation::Unreadable);
            self.break_off(now, cause, Some((CloseCode::BAD_RESPONSE, "Unreadable message")));
        }
    }

    fn deliver(&mut self, id: Option<&str>, payload: Option<Payload>) {
        let operation = id.and_then(|id| id.parse().ok()).and_then(|id| self.operations.by_wire_id(id));
        match (operation, payload) {
            (Some(operation), Some(payload)) => {
                let sink = operation.sink.clone();
                self.counts.items += 1;
                self.outputs.push_back(Output::Deliver { sink, payload });
            }
            // Unknown ids are late, not wrong (rule 14); a `next` without a payload says nothing.
            (None, _) | (Some(_), None) => self.counts.ignored += 1,
        }
    }

    fn finish(&mut self, id: Option<&str>, end: End) {
        let operation = id.and_then(|id| id.parse().ok()).and_then(|id| self.operations.by_wire_id(id));
        match operation.map(|operation| operation.id).and_then(|id| self.operations.remove(id)) {
            Some(operation) => self.outputs.push_back(Output::Finish { sink: operation.sink, end }),
            None => self.counts.ignored += 1,
        }
    }

    fn finish_all(&mut self, end: &End) {
        for operation in self.operations.drain() {
            self.outputs.push_back(Output::Finish { sink: operation.sink, end: end.clone() });
        }
    }

    /// Ends what is live; the next subscribe starts afresh (rule 23).
    fn fail_all(&mut self, end: &End) {
        self.attempts = 0;
        self.streaks = Streaks::default();
        self.negotiation.reset();
        self.finish_all(end);
        self.rest();
    }

    fn give_up(&mut self) {
        if let Some(cause) = self.last_cause.clone() {
            self.fail_all(&End::GaveUp { attempts: self.attempts, cause });
        }
    }

    fn rest(&mut self) {
        self.timers.clear();
        self.phase = Phase::Idle;
        self.outage = None;
        self.status(Status::Idle);
    }

    fn end(&mut self) {
        self.leave_socket();
        self.phase = Phase::Ended;
        self.status(Status::Ended);
        self.outputs.push_back(Output::Ended);
    }

    /// Forgets all that belonged to one socket.
    fn leave_socket(&mut self) {
        self.timers.clear();
        self.queue.clear();
        self.pings.clear();
        self.pong = None;
        self.init_payload = None;
        self.keep_alive.0 = None;
        self.operations.forget_socket();
    }

    /// Modern: a protocol ping at every interval, as some servers cut a client that sends none. Legacy: a WebSocket
    /// ping, and only after twice the interval without anything inbound, as servers take pings badly (rule 20).
    fn ping(&mut self, now: Instant) {
        let (Phase::Open(subprotocol), Some(interval)) = (self.phase, self.config.ping_interval) else { return };
        let pace = self.ping_pace(interval);
        let ping = match subprotocol {
            Subprotocol::GraphqlTransportWs => Queued::Ping,
            Subprotocol::GraphqlWs => {
                let heard = self.last_inbound.unwrap_or(now);
                if now < heard + pace {
                    return self.timers.arm(Timer::Ping, heard + pace);
                }
                Queued::WebSocketPing
            }
        };
        // Ahead of the data: the answer is waited for.
        self.queue.push_front(ping);
        if self.pings.len() == MAX_PINGS {
            self.pings.clear();
        }
        self.pings.push_back(now);
        self.timers.arm(Timer::Ping, now + pace);
        if !self.timers.is_armed(Timer::Liveness) {
            self.watched_ping = Some(now);
            self.timers.arm(Timer::Liveness, now + self.config.ping_timeout);
        }
    }

    fn ping_pace(&self, interval: Duration) -> Duration {
        match self.phase {
            Phase::Open(Subprotocol::GraphqlWs) => interval * 2,
            _ => interval,
        }
    }

    /// Any inbound frame since the ping proves life, whatever it is.
    fn check_liveness(&mut self, now: Instant) {
        if !self.paused && self.last_inbound < self.watched_ping {
            self.break_off(now, Disconnect::Silent(self.config.ping_timeout), None);
        }
    }

    /// The first `ka` shows that the server sends them, the second one how often; from then on their absence counts
    /// (rule 21), unless other messages arrive.
    fn handle_keep_alive(&mut self, now: Instant) {
        if let Some(last) = self.keep_alive.0.replace(now) {
            self.keep_alive.1 = self.keep_alive.1.max(now - last);
            self.timers.arm(Timer::KeepAlive, now + self.keep_alive_patience());
        }
    }

    fn keep_alive_patience(&self) -> Duration {
        (self.keep_alive.1 * 3).max(MIN_KEEP_ALIVE_PATIENCE)
    }

    fn check_keep_alive(&mut self, now: Instant) {
        let (Some(last), patience) = (self.keep_alive.0, self.keep_alive_patience()) else { return };
        let heard = self.last_inbound.unwrap_or(last);
        if self.paused || heard + patience > now {
            self.timers.arm(Timer::KeepAlive, now.max(heard) + patience);
        } else {
            self.break_off(now, Disconnect::Silent(patience), None);
        }
    }

    fn status(&mut self, status: Status) {
        self.outputs.push_back(Output::Status(status));
    }
}

/// The server's words in a `connection_error`.
fn refusal_message(payload: &Payload) -> String {
    let mut message = match payload.decode::<serde_json::Value>() {
        Ok(serde_json::Value::String(text)) => text,
        Ok(value) => match value.get("message") {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(_) | None => value.to_string(),
        },
        Err(_) => String::new(),
    };
    if message.len() > MAX_REFUSAL_BYTES {
        message = message.chars().take(MAX_REFUSAL_BYTES / 4).collect();
    }
    message
}

/// Unanswered pings that are remembered, for the round-trip time only.
const MAX_PINGS: usize = 16;

/// No `ka` watchdog is more nervous than this.
const MIN_KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(30);

/// How much of a server's refusal is kept.
const MAX_REFUSAL_BYTES: usize = 1024;
