//! One leg of the conversation: a socket, from the retry sleep before it to its end.
//!
//! Owns what belongs to one socket and is forgotten with it. A session has one leg and, during a
//! handover, a second; both are of this type, and what arrives on either is handled by the same
//! code. Knows of operations only which of them it carries.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Config,
    liveness::{Liveness, Ping},
    outbox::{Outbox, Queued},
    proof::Proofs,
    registry::Span,
    timers::Timers,
};
use crate::{
    error::{CloseCode, Disconnect},
    operation::OperationType,
    protocol::{Subprotocol, WireId},
};

/// Which leg something is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ConnectionId {
    A,
    B,
}

/// What a leg is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Operations are sent here.
    Current,
    /// It is to take the place of the current one once it is acknowledged.
    Successor,
    /// It was the current one, and is closed once nothing is left on it.
    Retiring,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
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
    /// This side has said goodbye; the peer has not answered the close yet.
    Closing(Subprotocol),
    Ended,
}

/// Not `Debug`: it holds the init payload (I13).
pub(super) struct Leg {
    pub(super) id: ConnectionId,
    pub(super) role: Role,
    pub(super) phase: Phase,
    pub(super) timers: Timers,
    pub(super) outbox: Outbox,
    pub(super) liveness: Liveness,
    pub(super) proofs: Proofs,
    /// What was sent here.
    pub(super) span: Span,
    /// Removed with their result, and not completed by the server yet. The latest only: some
    /// servers never do.
    answered: BTreeSet<WireId>,
    /// Why writing to the socket failed.
    pub(super) broken: Option<Disconnect>,
    /// When the credentials end that it was made with.
    pub(super) expires_at: Option<Instant>,
    /// From when on that is why it is to be replaced.
    pub(super) expiring_from: Option<Instant>,
    /// The server has said goodbye.
    pub(super) is_told_goodbye: bool,
    /// What came with the acknowledgement.
    pub(super) ack_payload: Option<Arc<Value>>,
}

impl ConnectionId {
    /// In the order in which they are looked after.
    pub(crate) const ALL: [Self; 2] = [Self::A, Self::B];

    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl Leg {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            id: ConnectionId::A,
            role: Role::Current,
            phase: Phase::Idle,
            timers: Timers::default(),
            outbox: Outbox::default(),
            liveness: Liveness::new(config),
            proofs: Proofs::default(),
            span: Span::NONE,
            answered: BTreeSet::new(),
            broken: None,
            expires_at: None,
            expiring_from: None,
            is_told_goodbye: false,
            ack_payload: None,
        }
    }

    /// One that is to take the place of this one.
    pub(super) fn successor(&self, config: &Config) -> Self {
        Self {
            id: self.id.other(),
            role: Role::Successor,
            liveness: self.liveness.of_another_socket(config),
            ..Self::new(config)
        }
    }

    /// Forgets the socket.
    pub(super) fn leave_socket(&mut self) {
        self.timers.clear();
        self.outbox.clear();
        self.liveness.reset();
        self.proofs = Proofs::default();
        self.span = Span::NONE;
        self.answered.clear();
        self.broken = None;
        self.expires_at = None;
        self.is_told_goodbye = false;
        self.ack_payload = None;
    }

    pub(super) fn ping(&mut self, now: Instant) {
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

    /// Asks whether the peer is alive, out of turn; it is not if nothing comes within `patience`.
    pub(super) fn doubt(&mut self, now: Instant, patience: Duration) {
        let Phase::Open(subprotocol) = self.phase else { return };
        let queued = self.outbox.push_ping(match subprotocol {
            Subprotocol::GraphqlTransportWs => Queued::Ping,
            // No such message there.
            Subprotocol::GraphqlWs => Queued::WebSocketPing,
        });
        self.liveness.doubt(now, patience, &mut self.timers);
        if queued {
            self.liveness.pinged(now);
        }
    }

    /// Nothing is left here.
    pub(super) fn say_goodbye(&mut self) {
        let Phase::Open(subprotocol) = self.phase else { return };
        if subprotocol == Subprotocol::GraphqlWs {
            self.outbox.push(Queued::Terminate);
        }
        self.outbox.push(Queued::Close(CloseCode::NORMAL, ""));
        self.phase = Phase::Closing(subprotocol);
        self.timers.clear();
    }

    /// A probe behind all that is queued, unless one is on its way. Whether it was sent now.
    pub(super) fn probe(&mut self) -> bool {
        let is_due = !std::mem::replace(&mut self.proofs.is_probing, true);
        if is_due {
            self.outbox.push(Queued::Probe);
        }
        is_due
    }

    /// Tells the server that this side has ended an operation.
    pub(super) fn complete(&mut self, wire_id: WireId, kind: OperationType) {
        self.outbox.push(if self.must_stop(kind) {
            Queued::Stop(wire_id)
        } else {
            Queued::Complete(wire_id)
        });
    }

    /// On legacy a query or mutation is stopped whoever ended it: one server commits only then
    /// (rule 15).
    pub(super) fn must_stop(&self, kind: OperationType) -> bool {
        let is_single = match kind {
            OperationType::Query | OperationType::Mutation => true,
            OperationType::Subscription => false,
        };
        is_single && self.phase == Phase::Open(Subprotocol::GraphqlWs)
    }

    /// An operation was removed with its result: its `complete` may follow.
    pub(super) fn expect_complete(&mut self, id: WireId) {
        self.answered.insert(id);
        if self.answered.len() > MAX_ANSWERED {
            self.answered.pop_first();
        }
    }

    /// Whether this `complete` was to be expected.
    pub(super) fn take_expected(&mut self, id: WireId) -> bool {
        self.answered.remove(&id)
    }
}

/// Results whose `complete` is remembered to be due.
const MAX_ANSWERED: usize = 1024;
