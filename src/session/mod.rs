//! The conversation with one server, over as many connections as it takes.
//!
//! Owns every decision: when to dial, what to say, what a loss means, which operation gets what.
//! Pure: `now` is an argument, randomness is one seed, and no map is iterated in an order of its
//! own; so the same inputs give the same outputs. (Sessions of one client share two inputs: whether
//! any of them has reached the server, and the attempts that count for a common dial budget.) Knows
//! no socket and no task. The methods follow one grammar: `handle_*` takes what happened, verbs
//! take what the application wants, `poll_*` gives what is to be done. Calls that come too late do
//! nothing.
//!
//! ```text
//!  no connection (idle)
//!     │ subscribe, connect
//!     v            credentials         upgraded           acknowledged
//!  Authorizing ───────────────> Dialing ──────> Opening ───────────────> Open ──> Closing
//!     ^                            │               │                      │
//!     │ delay is over              v               v                      v
//!  Waiting <──────────────────────────── lost: verdict ────────────> no connection
//! ```
//!
//! These are the phases of one connection. A session has up to two: one is current, and the other
//! one replaces it, was replaced by it (`handover.rs`), or carries the operations that are
//! suspected of closing connections (`quarantine.rs`).
//!
//! After each input: perform all of `poll_output`, in order; then write what `poll_transmit` gives
//! for each connection as far as its socket takes it; then wait until `poll_timeout`.

mod config;
mod connection;
mod control;
mod handover;
mod messages;
mod operations;
mod output;
mod overlap;
mod quarantine;
mod reconnect;
mod renewal;
mod status;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

pub(crate) use self::{
    config::{Config, VerdictHook},
    connection::ConnectionId,
    operations::Backlog,
    output::{Counts, Granted, Item, Output},
};
#[cfg(feature = "client")]
pub(crate) use self::{
    config::{DialBudget, MAX_DURATION},
    operations::{HeldItem, Request, WatchOptions},
    reconnect::Backoff,
};
pub use self::{
    config::{Strictness, Verdict},
    reconnect::CredentialsReason,
    status::{Stats, Status},
};
use self::{
    connection::{Connection, Phase, Role, liveness::Liveness, timers::Timer},
    handover::Handover,
    operations::Registry,
    quarantine::Quarantine,
    reconnect::{negotiation::Negotiation, retry::Retry},
};
use crate::{
    error::{CloseCode, ConnectError, CredentialsError, Disconnect},
    protocol::Transmit,
};

/// The state machine. `W` writes to the reader of an operation; the session only hands it back. Not
/// `Debug`: it holds the init payload (I13).
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Session<W> {
    config: Config,
    connections: [Option<Connection>; 2],
    /// Which of them is the current one, or becomes it next.
    current: ConnectionId,
    operations: Registry<W>,
    retry: Retry,
    negotiation: Negotiation,
    handover: Handover,
    quarantine: Quarantine,
    /// Operations for which somebody waits to learn that the server has them.
    awaited: BTreeSet<u64>,
    outputs: VecDeque<Output<W>>,
    counts: Counts,
    /// Why the last connection was lost, or the last attempt at one failed.
    last_cause: Option<Disconnect>,
    /// The current connection was lost, and no other one is open yet.
    is_reconnecting: bool,
    /// Somebody waits for a connection.
    is_connection_awaited: bool,
    /// The application wants a connection even while nothing is live (rule 25).
    is_kept: bool,
    /// The application wants no connection for now.
    is_paused: bool,
    /// The sockets are not read for now.
    is_stalled: bool,
    has_ended: bool,
    /// An operation was started.
    is_used: bool,
    /// The longest interval between two `ka` messages of the server.
    keep_alive_interval: Duration,
}

impl<W: Clone> Session<W> {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            connections: [None, None],
            current: ConnectionId::A,
            operations: Registry::new(config.first_serial),
            retry: Retry::new(&config),
            negotiation: Negotiation::new(config.subprotocol),
            handover: Handover::default(),
            quarantine: Quarantine::default(),
            awaited: BTreeSet::new(),
            outputs: VecDeque::new(),
            counts: Counts::default(),
            last_cause: None,
            is_reconnecting: false,
            is_connection_awaited: false,
            is_kept: false,
            is_paused: false,
            is_stalled: false,
            has_ended: false,
            is_used: false,
            keep_alive_interval: Duration::ZERO,
            config,
        }
    }

    /// The socket is there: `connection_init` goes first, and at once (rule 3).
    pub(crate) fn handle_open(&mut self, now: Instant, id: ConnectionId) {
        let ack_timeout = self.config.ack_timeout;
        let Some(connection) = self.connection_mut(id) else { return };
        if let Phase::Dialing(subprotocol) = connection.phase {
            connection.phase = Phase::Opening(subprotocol);
            connection.timers.disarm(Timer::Connect);
            connection.timers.arm(Timer::Ack, now + ack_timeout);
        }
    }

    /// Something arrived that is no message: a WebSocket ping, which the socket itself answers, or
    /// a part of a message.
    pub(crate) fn handle_activity(&mut self, now: Instant, id: ConnectionId) {
        if let Some(connection) = self.connection_mut(id) {
            connection.liveness.heard(now);
        }
    }

    /// A WebSocket pong frame arrived, with the number of a ping if it repeats one.
    pub(crate) fn handle_pong(&mut self, now: Instant, id: ConnectionId, number: Option<u64>) {
        self.handle_activity(now, id);
        self.ponged(now, id, crate::protocol::Subprotocol::GraphqlWs, number);
    }

    /// Writing to the socket failed. Reading goes on for a while, as the server may have said why.
    pub(crate) fn handle_broken(&mut self, now: Instant, id: ConnectionId, cause: Disconnect) {
        let ping_timeout = self.config.ping_timeout;
        let Some(connection) = self.connection_mut(id) else { return };
        if connection.has_socket() && connection.broken.is_none() {
            connection.broken = Some(cause);
            connection.timers.arm(Timer::Broken, now + ping_timeout);
        }
    }

    /// The socket, or the attempt at one, is of no more use.
    pub(crate) fn handle_lost(&mut self, now: Instant, id: ConnectionId, cause: Disconnect) {
        self.lose(now, id, cause);
        self.after_change(now);
    }

    /// Time has passed; `poll_timeout` says when to call.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        for id in ConnectionId::ALL {
            while let Some(timer) =
                self.connection_mut(id).and_then(|connection| connection.timers.expire(now))
            {
                self.expire_timer(now, id, timer);
            }
        }
        self.after_change(now);
    }

    fn expire_timer(&mut self, now: Instant, id: ConnectionId, timer: Timer) {
        let ping_timeout = self.config.ping_timeout;
        let Some(connection) = self.connections[id as usize].as_mut() else { return };
        let Connection { liveness, timers, .. } = connection;
        match timer {
            // Another session may have used up the budget that they share.
            Timer::Backoff => self.attempt(now, id),
            Timer::Connect => {
                let cause = if connection.phase == Phase::Authorizing {
                    let timeout = self.config.credentials_timeout;
                    let text = format!("no answer within {timeout:?}");
                    Disconnect::Credentials(CredentialsError::transient(text))
                } else {
                    Disconnect::Connect(ConnectError::Timeout(self.config.connect_timeout))
                };
                self.break_off(now, id, cause, None);
            }
            Timer::Ack => {
                let cause = Disconnect::AckTimeout(self.config.ack_timeout);
                let close = (CloseCode::ACK_TIMEOUT, "Connection acknowledgement timeout");
                self.break_off(now, id, cause, Some(close));
            }
            Timer::Liveness => {
                if let Some(silence) = liveness.check(now, timers) {
                    self.break_off(now, id, Disconnect::Silent(silence), None);
                }
            }
            Timer::Ping => connection.ping(now),
            Timer::KeepAlive => {
                if let Some(silence) = liveness.check_keep_alive(now, timers) {
                    self.break_off(now, id, Disconnect::Silent(silence), None);
                }
            }
            Timer::Healthy => self.healthy(now, id),
            Timer::Settled => self.trial_settled(now, id),
            // It is not read, so it cannot have said anything.
            Timer::Broken if liveness.is_paused() => {
                timers.arm(Timer::Broken, now + ping_timeout);
            }
            Timer::Broken => {
                let cause = connection.broken.take().unwrap_or(Disconnect::Reset(None));
                self.break_off(now, id, cause, None);
            }
            Timer::Pace => self.pace(now),
            Timer::Idle => self.close_idle(),
            Timer::Renewal => self.renew(now),
            Timer::Overlap => self.check_overlap(now, id),
            Timer::Grace => self.end_grace(now, id),
            Timer::Shutdown => {
                self.outputs.push_back(Output::Hangup(id, None));
                self.closed(now, id);
            }
        }
    }

    /// The sockets are not read for a while: silence means nothing.
    pub(crate) fn stall(&mut self) {
        self.is_stalled = true;
        for connection in self.connections.iter_mut().flatten() {
            connection.liveness.pause();
        }
    }

    /// They are read again. The time until now does not count as silence.
    pub(crate) fn unstall(&mut self, now: Instant) {
        self.is_stalled = false;
        for connection in self.connections.iter_mut().flatten() {
            connection.liveness.resume(now);
        }
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output<W>> {
        let output = self.outputs.pop_front();
        if output.is_none() {
            // There were many after a reconnect, which is rare.
            self.outputs.shrink_to(KEPT_OUTPUTS);
        }
        output
    }

    /// The next thing to write on a connection. What was not taken from here was not sent.
    pub(crate) fn poll_transmit(&mut self, id: ConnectionId) -> Option<Transmit> {
        let connection = self.connections[id as usize].as_mut()?;
        let (Phase::Opening(subprotocol) | Phase::Open(subprotocol) | Phase::Closing(subprotocol)) =
            connection.phase
        else {
            return None;
        };
        let Connection { send_queue, pings, .. } = connection;
        send_queue.next(id, subprotocol, &mut self.operations, pings)
    }

    /// When to call `handle_timeout`, if nothing else happens.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timers = self.connections.iter().flatten().filter_map(|it| it.timers.next());
        let deadline = self.operations.next_deadline().map(|(at, _)| at);
        timers.chain(deadline).chain(self.quarantine.due()).min()
    }

    /// Whether operations are sent.
    pub(crate) fn is_open(&self) -> bool {
        self.open_connection().is_some()
    }

    /// Whether a connection is acknowledged.
    pub(crate) fn is_live(&self, id: ConnectionId) -> bool {
        self.connection(id).is_some_and(Connection::is_open)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn live_operations(&self) -> usize {
        self.operations.len()
    }

    /// The connection has been open for a while.
    fn healthy(&mut self, now: Instant, id: ConnectionId) {
        let is_replaced = self.other().is_some_and(|other| other.role == Role::Successor);
        let healthy_after = self.config.healthy_after;
        let Some(connection) = self.connection_mut(id) else { return };
        // What is not read proves nothing.
        if connection.liveness.is_paused() {
            return connection.timers.arm(Timer::Healthy, now + healthy_after.max(LOOK_AGAIN));
        }
        if connection.role != Role::Current {
            return;
        }
        if is_replaced {
            self.retry.reset_attempts();
        } else {
            self.retry.healthy();
        }
        self.quarantine.no_loss();
    }

    /// What may follow from any input: a connection that nothing depends on any more is given up or
    /// closed, or a trial can begin.
    fn after_change(&mut self, now: Instant) {
        self.close_unneeded(now);
        if self.config.is_single_use && self.is_used && self.operations.is_empty() {
            self.shutdown(now, now + FAREWELL);
        }
        self.go_on_with_quarantine(now);
    }

    /// A closing handshake has ended, or was not waited for any longer.
    fn closed(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.remove_connection(id) else { return };
        match connection.role {
            Role::Current => {
                self.has_ended = true;
                self.outputs.push_back(Output::Ended);
            }
            Role::Retiring => {
                self.outputs.push_back(Output::Hangup(id, None));
                self.handover_is_over(now);
            }
            Role::Successor | Role::Trial => self.outputs.push_back(Output::Hangup(id, None)),
        }
    }

    fn add_connection(&mut self, id: ConnectionId, role: Role) {
        let liveness = Liveness::new(&self.config, self.keep_alive_interval, self.is_stalled);
        self.connections[id as usize] = Some(Connection::new(id, role, &self.config, liveness));
    }

    fn remove_connection(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections[id as usize].take()?;
        if id == self.current {
            self.quarantine.nothing_lives(id);
        }
        let interval = connection.liveness.keep_alive_interval();
        self.keep_alive_interval = self.keep_alive_interval.max(interval);
        Some(connection)
    }

    fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections[id as usize].as_ref()
    }

    fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections[id as usize].as_mut()
    }

    fn current(&self) -> Option<&Connection> {
        self.connection(self.current)
    }

    fn current_mut(&mut self) -> Option<&mut Connection> {
        self.connection_mut(self.current)
    }

    /// The one that is not current.
    fn other(&self) -> Option<&Connection> {
        self.connection(self.current.other())
    }

    /// The phase of the current connection.
    fn phase(&self) -> Option<Phase> {
        self.current().map(|connection| connection.phase)
    }

    /// The current connection, if it is open.
    fn open_connection(&self) -> Option<ConnectionId> {
        self.current().filter(|connection| connection.is_open()).map(|connection| connection.id)
    }

    /// Whether no operation can begin any more.
    fn is_closing(&self) -> bool {
        self.has_ended || matches!(self.phase(), Some(Phase::Closing(_)))
    }
}

/// When something that cannot be done now is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a session that is of no more use waits for the server to answer its close frame.
const FAREWELL: Duration = Duration::from_secs(1);

/// How many outputs the queue keeps room for when it is empty.
const KEPT_OUTPUTS: usize = 64;
