//! What the outside knows: the operations, and the sockets with what was sent on them.

use super::*;

#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; the session has the state machine"
)]
pub(super) struct Model {
    pub(super) live: BTreeSet<u64>,
    pub(super) finished: BTreeSet<u64>,
    pub(super) issued_ever: BTreeSet<u64>,
    pub(super) queries: BTreeSet<u64>,
    pub(super) mutations: BTreeSet<u64>,
    /// The current connection is the first one. On the second one operations are tried.
    pub(super) wires: [Wire; 2],
    /// A gap was announced, and the operation is not written since.
    pub(super) reissue_announced: BTreeSet<u64>,
    /// To be written next, in this order (rule 26).
    pub(super) batch: VecDeque<u64>,
    /// In quarantine when the last message arrived. If that was the acknowledgement, these are not
    /// part of the batch: they are sent behind it, when they are tried or released.
    pub(super) kept_away: BTreeSet<u64>,
    pub(super) watch: watch::Watch,
    pub(super) every_wire_id: BTreeSet<String>,
    /// The operations' ends are ours, so each is completed.
    pub(super) shut_down: bool,
    /// Somebody waits for a connection.
    pub(super) is_wanted: bool,
    /// Whoever wanted a connection wants to keep it.
    pub(super) keeps: bool,
    /// There is to be a connection though nothing is live (rule 25).
    pub(super) is_kept: bool,
    pub(super) dials: Vec<(ConnectionId, Instant)>,
    /// Since when operations that were sent once are without a connection.
    pub(super) down_since: BTreeMap<u64, Instant>,
    /// The server closes a connection that carries one of these, with this code.
    pub(super) bad: BTreeMap<u64, u16>,
    /// The server has said something about these (rule 22b).
    pub(super) cleared: BTreeSet<u64>,
    /// How many connections were lost that carried these, in a way that points at an operation.
    pub(super) suspicious_losses: BTreeMap<u64, u32>,
    pub(super) last_loss: Option<quarantine::Loss>,
    /// How often operations were quarantined.
    pub(super) searches: usize,
    /// What an operator was told last.
    pub(super) status: Option<Status>,
    pub(super) log: Vec<String>,
}

/// One socket, or an attempt at one.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "as above")]
pub(super) struct Wire {
    pub(super) asked: bool,
    pub(super) dialing: bool,
    pub(super) socket: bool,
    pub(super) init_sent: bool,
    pub(super) acked: bool,
    /// By id on the wire: sent, and ended by neither side.
    pub(super) sent: BTreeMap<String, u64>,
    /// The client has given these up, or sends them elsewhere: they are still to be completed.
    pub(super) owed: BTreeMap<String, u64>,
    /// Answered, and on the legacy subprotocol still to be stopped.
    pub(super) answered: BTreeSet<String>,
    /// For each ping that is not answered its number, and what was sent before it.
    pub(super) pings: VecDeque<(u64, BTreeSet<String>)>,
    /// What the server has shown to have read.
    pub(super) proven: BTreeSet<String>,
}

impl Wire {
    pub(super) fn is_used(&self) -> bool {
        self.asked || self.dialing || self.socket
    }

    pub(super) fn carries(&self, id: u64) -> bool {
        self.sent.values().any(|sent| *sent == id)
    }

    /// The client has given this operation up, or sends it elsewhere. Returns whether it was sent.
    pub(super) fn give_up(&mut self, id: u64) -> bool {
        let Some(wire_id) = self.sent.iter().find(|sent| *sent.1 == id).map(|sent| sent.0.clone())
        else {
            return false;
        };
        self.sent.remove(&wire_id);
        self.owed.insert(wire_id, id);
        true
    }
}

impl Model {
    /// The operations that were sent and have not ended.
    pub(super) fn sent(&self) -> impl Iterator<Item = u64> {
        self.wires.iter().flat_map(|wire| wire.sent.values().copied())
    }

    pub(super) fn is_call(&self, id: u64) -> bool {
        self.queries.contains(&id) || self.mutations.contains(&id)
    }

    /// Cancelled.
    pub(super) fn gone(&mut self, id: u64) {
        self.live.remove(&id);
        self.batch.retain(|other| *other != id);
        self.watch.finished(id);
    }

    /// A connection that was acknowledged is gone.
    pub(super) fn lost(&mut self, now: Instant) {
        for &id in self.live.intersection(&self.issued_ever) {
            self.down_since.entry(id).or_insert(now);
        }
    }
}
