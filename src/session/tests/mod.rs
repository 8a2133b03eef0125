//! The session by example: every rule that it decides, against a clock that is only a number.

mod calls;
mod control;
mod handover;
mod histories;
mod late;
mod liveness;
mod opening;
mod outages;
mod pace;
mod proof;
mod quarantine;
mod rules;
mod single_use;
mod staleness;
mod verdicts;
mod watch;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Config, ConnectionId, Granted, HeldItem, Output, Request, Session, Strictness, WatchOptions,
};
use crate::{
    error::{CloseCode, ConnectError, Disconnect, ResponseHeaders},
    operation::OperationType,
    protocol::{Subprotocol, Transmit},
    response::{CallEnd, ConnectionEnd, End, Gap, StreamEnd},
    session::{CredentialsReason, Status},
};

const CALL_TIMEOUT: Duration = Duration::from_secs(300);
const MODERN: Subprotocol = Subprotocol::GraphqlTransportWs;
const LEGACY: Subprotocol = Subprotocol::GraphqlWs;

fn config() -> Config {
    Config::new(7)
}

/// Refusals end everything, also those of an endpoint that has worked.
fn impatient() -> Config {
    Config { refusal_grace: Duration::ZERO, ..config() }
}

fn fixed(subprotocol: Subprotocol) -> Config {
    Config { subprotocol: Some(subprotocol), ..config() }
}

fn granted() -> Granted {
    Granted { init_payload: "{}".into(), lifetime: None }
}

fn refused(status: u16) -> ConnectError {
    ConnectError::Http {
        status,
        retry_after: None,
        headers: ResponseHeaders::default(),
        body: String::new(),
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn closed(code: u16) -> Disconnect {
    Disconnect::Closed { code: CloseCode(code), reason: "words".into() }
}

/// What the session did, as far as tests compare it.
#[derive(Clone, PartialEq, Debug)]
enum Did {
    Authorize(&'static str),
    Dial(Subprotocol),
    Hangup(Option<u16>),
    Deliver(u64, Value),
    Reissue(u64, u32),
    /// Sent on the new connection of a handover as well.
    Resume(u64),
    /// With its overlaps and its reconnects.
    Moved(u64, u32, u32),
    Rotated(Result<(), String>),
    Postponed(String),
    Refused(String),
    Established(u64),
    Finish(u64, String),
    Stale(u64, Duration),
    Judge(u64, String),
    Connected(Result<(), String>),
    Connecting(u32),
    Open,
    Waiting(Duration),
    Idle,
    Paused,
    Ended,
    Wrote(Value),
    WroteClose(u16),
    /// A WebSocket ping, with its number.
    WrotePing(u64),
}

impl Session<u64> {
    /// Whether any operation is carried by both connections of a handover.
    fn is_moving(&self) -> bool {
        self.operations.iter().any(|operation| self.operations.is_moving(operation.id))
    }
}

/// A session with its clock.
struct Rig {
    session: Session<u64>,
    now: Instant,
    next_id: u64,
    gaps: Vec<Gap>,
    /// Of the subscriptions made from now on.
    watch_options: WatchOptions,
    is_resumable: bool,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "an origin, never read again")]
    fn new(config: Config) -> Self {
        Self {
            session: Session::new(config),
            now: Instant::now(),
            next_id: 1,
            gaps: Vec::new(),
            watch_options: WatchOptions::default(),
            is_resumable: false,
        }
    }

    /// A session with `operations` live on an acknowledged connection.
    fn open(config: Config, operations: u64) -> Self {
        let mut rig = Self::new(config);
        for _ in 0..operations {
            rig.subscribe();
        }
        rig.connect();
        rig
    }

    fn subscribe(&mut self) -> u64 {
        self.begin(OperationType::Subscription)
    }

    fn begin(&mut self, kind: OperationType) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let deadline = (kind != OperationType::Subscription).then(|| self.now + CALL_TIMEOUT);
        let request = Request {
            kind,
            payload: format!("{{\"query\":\"{id}\"}}").into(),
            deadline,
            watch_options: Some(Box::new(self.watch_options)),
            is_resumable: self.is_resumable,
        };
        self.session.subscribe(self.now, id, request, id);
        id
    }

    fn cancel(&mut self, id: u64) {
        self.session.cancel(self.now, id);
    }

    /// From asking the provider to the acknowledgement.
    fn connect(&mut self) -> Vec<Did> {
        let mut did = self.upgrade();
        did.extend(self.receive(json!({"type": "connection_ack"})));
        did
    }

    fn upgrade(&mut self) -> Vec<Did> {
        let mut did = self.take();
        did.extend(self.dial());
        self.session.handle_open(self.now, ConnectionId::A);
        did.extend(self.take());
        did
    }

    fn dial(&mut self) -> Vec<Did> {
        self.session.handle_credentials(self.now, ConnectionId::A, Ok(granted()));
        self.take()
    }

    #[expect(clippy::needless_pass_by_value, reason = "called with `json!`")]
    fn receive(&mut self, message: Value) -> Vec<Did> {
        self.receive_text(&message.to_string())
    }

    fn receive_text(&mut self, frame: &str) -> Vec<Did> {
        let item = self.session.handle_frame(self.now, ConnectionId::A, frame);
        let mut did: Vec<_> = item
            .map(|item| Did::Deliver(*item.writer, read(&frame[item.payload])))
            .into_iter()
            .collect();
        did.extend(self.take());
        did
    }

    fn lose(&mut self, cause: Disconnect) -> Vec<Did> {
        self.session.handle_lost(self.now, ConnectionId::A, cause);
        self.take()
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, duration: Duration) -> Vec<Did> {
        let until = self.now + duration;
        let mut did = Vec::new();
        while let Some(at) = self.session.poll_timeout().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            did.extend(self.take());
        }
        self.now = until;
        did
    }

    /// Sleeps through the backoff; the time that it took.
    fn sleep(&mut self) -> Duration {
        let at = self.session.poll_timeout().expect("a retry sleep");
        let slept = at - self.now;
        let did = self.pass(slept);
        assert!(matches!(did[..], [Did::Connecting(_), Did::Authorize(_)]), "{did:?}");
        slept
    }

    /// Takes all that is to be done and to be written.
    fn take(&mut self) -> Vec<Did> {
        let mut did = Vec::new();
        while let Some(output) = self.session.poll_output() {
            did.push(match output {
                Output::Authorize(_, reason) => Did::Authorize(match reason {
                    CredentialsReason::Expiring => "expiring",
                    CredentialsReason::Initial => "initial",
                    CredentialsReason::Reconnect => "reconnect",
                    CredentialsReason::Rejected { .. } => "rejected",
                }),
                Output::Dial(_, subprotocol) => Did::Dial(subprotocol),
                Output::Hangup(_, close) => Did::Hangup(close.map(|(code, _)| code.0)),
                Output::Reissue { writer, gap } => {
                    let reconnects = gap.reconnects;
                    self.gaps.push(gap);
                    Did::Reissue(writer, reconnects)
                }
                Output::Resume { writer } => Did::Resume(writer),
                Output::Gap { writer, gap } => {
                    let moved = Did::Moved(writer, gap.overlaps, gap.reconnects);
                    self.gaps.push(gap);
                    moved
                }
                Output::Deliver { id, writer, mut backlog } => {
                    while let Some(HeldItem { frame, payload }) = backlog.pop() {
                        did.push(Did::Deliver(writer, read(&frame[payload])));
                    }
                    self.session.delivered(self.now, id, backlog);
                    continue;
                }
                Output::Refused(cause, _) => Did::Refused(cause.to_string()),
                Output::Unattributed(_) => continue,
                Output::Rotated(answer) => {
                    Did::Rotated(answer.map_err(|end| describe(&End::Connection(end))))
                }
                Output::Postponed(cause) => Did::Postponed(cause.to_string()),
                Output::Established { writer } => Did::Established(writer),
                Output::Finish { writer, end } => Did::Finish(writer, describe(&end)),
                Output::Stale { writer, idle_for } => Did::Stale(writer, idle_for),
                Output::AskIfTransient { writer, end } => Did::Judge(writer, describe(&end)),
                Output::Connected(answer) => {
                    Did::Connected(answer.map_err(|end| describe(&End::Connection(end))))
                }
                Output::Status(Status::Paused) => Did::Paused,
                Output::Status(Status::Connecting { attempt, .. }) => Did::Connecting(attempt),
                Output::Status(Status::Open { .. }) => Did::Open,
                Output::Status(Status::Waiting { delay, .. }) => Did::Waiting(delay),
                Output::Status(Status::Idle) => Did::Idle,
                Output::Status(Status::Ended) => unreachable!("the driver's to say"),
                Output::Ended => Did::Ended,
            });
        }
        while let Some(transmit) = self.session.poll_transmit(ConnectionId::A) {
            did.push(match transmit {
                Transmit::Text(text) => {
                    Did::Wrote(serde_json::from_str(&text).expect("the client writes JSON"))
                }
                Transmit::Ping(number) => Did::WrotePing(number),
                Transmit::Close(code, _) => Did::WroteClose(code.0),
            });
        }
        did
    }
}

fn read(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or(Value::Null)
}

fn describe(end: &End) -> String {
    match end {
        End::Completed => "completed".into(),
        End::Call(CallEnd::Answered(payload)) => {
            format!("answered {}", payload.decode::<Value>().expect("JSON"))
        }
        End::Call(CallEnd::AnsweredInParts(parts)) => format!("answered in {} parts", parts.len()),
        End::Call(CallEnd::Incomplete(parts)) => format!("incomplete: {} parts", parts.len()),
        End::Call(CallEnd::PartsTooLarge(limit)) => format!("above {limit} bytes"),
        End::Call(CallEnd::Ambiguous(cause)) => {
            format!("ambiguous: {}", cause.as_ref().map_or("no cause".into(), ToString::to_string))
        }
        End::Call(CallEnd::TimedOut) => "timed out".into(),
        End::Rejected(_) => "rejected".into(),
        End::Connection(ConnectionEnd::Lost(
            cause @ Disconnect::ProbablyRejected { cause: last, .. },
        )) => {
            format!("lost: {cause}: {last}")
        }
        End::Connection(ConnectionEnd::Lost(cause)) => format!("lost: {cause}"),
        End::Connection(ConnectionEnd::GaveUp { attempts, .. }) => {
            format!("gave up after {attempts}")
        }
        End::Stream(StreamEnd::Hook(error)) => format!("hook: {error}"),
        End::Stream(StreamEnd::Overflow) => "overflow".into(),
        End::Connection(ConnectionEnd::ShutDown) => "shut down".into(),
    }
}

/// The ids of the operations that were sent, in order.
fn issued(did: &[Did]) -> Vec<(String, String)> {
    did.iter()
        .filter_map(|did| match did {
            Did::Wrote(message) if ["subscribe", "start"].contains(&message["type"].as_str()?) => {
                Some((
                    message["id"].as_str()?.to_owned(),
                    message["payload"]["query"].as_str()?.to_owned(),
                ))
            }
            _ => None,
        })
        .collect()
}

fn wrote(did: &[Did]) -> Vec<String> {
    did.iter()
        .filter_map(|did| match did {
            Did::Wrote(message) => Some(message["type"].as_str()?.to_owned()),
            Did::WroteClose(code) => Some(format!("close {code}")),
            Did::WrotePing(_) => Some("websocket ping".into()),
            _ => None,
        })
        .collect()
}

fn waiting(did: &[Did]) -> Option<Duration> {
    did.iter().find_map(|did| match did {
        Did::Waiting(delay) => Some(*delay),
        _ => None,
    })
}

fn finished(did: &[Did]) -> Vec<(u64, String)> {
    did.iter()
        .filter_map(|did| match did {
            Did::Finish(id, end) => Some((*id, end.clone())),
            _ => None,
        })
        .collect()
}
