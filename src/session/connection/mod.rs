//! One connection to the server, from the retry delay before it to its end.
//!
//! Owns what belongs to one socket and is forgotten with it: the phase, the timers, the send
//! queue, liveness and the ledger of pings. A session has up to two connections. Knows of
//! operations only the ids that it puts on the wire.

pub(super) mod liveness;
pub(super) mod pings;
pub(super) mod send_queue;
pub(super) mod timers;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use self::{liveness::Liveness, pings::Pings, send_queue::SendQueue, timers::Timers};
use super::Config;
use crate::{
    error::{CloseCode, Disconnect},
    operation::OperationType,
    protocol::{Subprotocol, WireId},
};

/// Names one of the two connections that a session can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ConnectionId {
    A,
    B,
}

impl ConnectionId {
    /// Both, in the order in which they are served.
    pub(crate) const ALL: [Self; 2] = [Self::A, Self::B];

    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What a connection is for. At most one is `Current`; the other one, if there is any, has one of
/// the remaining roles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Operations are sent here.
    Current,
    /// It replaces the current one as soon as it is acknowledged.
    Successor,
    /// A handover has replaced it. It is closed once no operation depends on it.
    Retiring,
    /// Quarantined operations are tried here.
    Trial,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The retry delay.
    Waiting,
    /// The credentials provider was asked.
    Authorizing,
    /// Name resolution, TCP, TLS and the upgrade.
    Dialing(Subprotocol),
    /// `connection_init` was queued; there is no acknowledgement yet.
    Opening(Subprotocol),
    /// Acknowledged.
    Open(Subprotocol),
    /// This side has sent its close frame, or is about to.
    Closing(Subprotocol),
}

/// Not `Debug`: it holds the init payload (I13).
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) role: Role,
    pub(super) phase: Phase,
    pub(super) timers: Timers,
    pub(super) send_queue: SendQueue,
    pub(super) liveness: Liveness,
    pub(super) pings: Pings,
    /// Queries and mutations that were removed with their result, and that the server has not
    /// completed yet. Only the latest: some servers never complete them.
    answered: BTreeSet<WireId>,
    /// Why writing to the socket failed.
    pub(super) broken: Option<Disconnect>,
    /// When the credentials expire that it was opened with.
    pub(super) expires_at: Option<Instant>,
    /// From this time on a renewal happens because the credentials expire.
    pub(super) expiring_from: Option<Instant>,
    /// The server has sent `connection_terminate`.
    pub(super) is_terminated: bool,
    /// The payload of `connection_ack`.
    pub(super) ack_payload: Option<Arc<Value>>,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, role: Role, config: &Config, liveness: Liveness) -> Self {
        Self {
            id,
            role,
            phase: Phase::Waiting,
            timers: Timers::default(),
            send_queue: SendQueue::default(),
            liveness,
            pings: Pings::new(config.ping_interval),
            answered: BTreeSet::new(),
            broken: None,
            expires_at: None,
            expiring_from: None,
            is_terminated: false,
            ack_payload: None,
        }
    }

    /// Sends a keepalive ping if one is due, ahead of the data.
    pub(super) fn ping(&mut self, now: Instant) {
        let Phase::Open(subprotocol) = self.phase else { return };
        if self.liveness.ping(now, subprotocol, &mut self.timers) {
            self.send_queue.ping(now);
        }
    }

    /// Pings out of turn. The peer counts as dead if nothing arrives within `patience`.
    pub(super) fn doubt(&mut self, now: Instant, patience: Duration) {
        if self.is_open() {
            self.send_queue.ping(now);
            self.liveness.doubt(now, patience, &mut self.timers);
        }
    }

    /// Queues a ping behind everything that is queued, unless such a ping is under way already.
    pub(super) fn probe(&mut self) {
        if self.is_open() && !std::mem::replace(&mut self.pings.is_probing, true) {
            self.send_queue.probe();
        }
    }

    /// Closes the connection, as nothing depends on it any more.
    pub(super) fn close(&mut self) {
        let Phase::Open(subprotocol) = self.phase else { return };
        self.send_queue.close(subprotocol);
        self.phase = Phase::Closing(subprotocol);
        self.timers.clear();
    }

    /// Tells the server that this side has ended an operation.
    pub(super) fn complete(&mut self, wire_id: WireId, kind: OperationType) {
        if !self.is_open() {
            return;
        }
        self.send_queue.complete(wire_id, self.must_stop(kind));
    }

    /// On the legacy subprotocol a query or mutation is stopped even after its result:
    /// `PostGraphile` 4 commits only then (rule 15).
    pub(super) fn must_stop(&self, kind: OperationType) -> bool {
        let is_call = match kind {
            OperationType::Query | OperationType::Mutation => true,
            OperationType::Subscription => false,
        };
        is_call && self.phase == Phase::Open(Subprotocol::GraphqlWs)
    }

    /// Remembers that a `complete` may follow for an operation that was removed with its result.
    pub(super) fn expect_complete(&mut self, id: WireId) {
        self.answered.insert(id);
        if self.answered.len() > MAX_ANSWERED {
            self.answered.pop_first();
        }
    }

    /// Whether this `complete` was expected.
    pub(super) fn take_expected(&mut self, id: WireId) -> bool {
        self.answered.remove(&id)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether there is a socket that can take messages.
    pub(super) fn has_socket(&self) -> bool {
        match self.phase {
            Phase::Opening(_) | Phase::Open(_) => true,
            Phase::Waiting | Phase::Authorizing | Phase::Dialing(_) | Phase::Closing(_) => false,
        }
    }

    /// The close frame with which this side gives the connection up, if there is a socket for it.
    pub(super) fn close_frame(&self) -> Option<(CloseCode, &'static str)> {
        self.has_socket().then_some((CloseCode::NORMAL, ""))
    }

    /// Whether an attempt is under way: asked for credentials, dialing or not acknowledged yet.
    pub(super) fn is_attempt(&self) -> bool {
        match self.phase {
            Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_) => true,
            Phase::Waiting | Phase::Open(_) | Phase::Closing(_) => false,
        }
    }
}

/// How many results are remembered whose `complete` is due.
const MAX_ANSWERED: usize = 1024;
