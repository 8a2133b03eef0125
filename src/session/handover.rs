//! Moving to another connection without an outage: the new one is made before the old one is
//! closed.
//!
//! Once the successor is acknowledged it is the current connection, and the one before it retires.
//! Every subscription is sent on the new one as well, and for a while both carry it: the reader
//! gets what arrives on the old one, and what arrives on the new one is held. The operation is cut
//! over, which delivers what is held and completes it on the old connection,
//!
//! - when both have said the same two items in a row (`overlap.rs`),
//! - when the new one was told the position after which to go on, and has said something,
//! - or after about 10 s in which both were read. Then nothing proves that the old one has said
//!   everything, and a gap says so. If the operation has a position, it is sent again after that.
//!
//! After a cut-over, items from before it may arrive again; the gap counts it in `overlaps`. Until
//! the last operation is cut over the way back is open: if the new connection fails, the old one
//! goes on as before. Queries and mutations do not move; they stay where they were sent.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    LOOK_AGAIN, Output, Session,
    connection::{Connection, ConnectionId, Phase, Role, timers::Timer},
    operations::{Moving, Outage, Place, Why},
    reconnect::verdicts::Stage,
};
use crate::{
    error::Disconnect,
    operation::OperationType,
    response::{End, Gap},
};

/// The operations that keep the retiring connection open. Ids of operations that have left the
/// connection are removed lazily.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// Subscriptions that are not cut over yet.
    moving: BTreeSet<u64>,
    /// Queries and mutations without a result.
    staying: BTreeSet<u64>,
    /// Somebody waits for [`Client::rotate`](crate::Client::rotate).
    pub(super) is_rotation_awaited: bool,
}

/// What is known of the old connection when an operation is cut over.
enum OldSide {
    /// It has nothing to add to what the new one says.
    Done,
    /// It works, but nothing proves that it has delivered everything.
    Unproven,
    /// It is gone, for this reason, or it has ended the operation.
    Lost(Option<Disconnect>),
}

impl<W: Clone> Session<W> {
    /// The successor is acknowledged: it becomes the current connection, and the one that it
    /// replaces retires.
    pub(super) fn promote_successor(&mut self, now: Instant, successor: ConnectionId) {
        let old = self.current;
        self.current = successor;
        self.counts.handovers += 1;
        if let Some(new) = self.connection_mut(successor) {
            new.role = Role::Current;
        }
        let Some(old) = self.connection_mut(old) else { return };
        old.role = Role::Retiring;
        for timer in [Timer::Healthy, Timer::Pace, Timer::Idle, Timer::Renewal] {
            old.timers.disarm(timer);
        }
        old.timers.arm(Timer::Overlap, now + LOOK_AGAIN);
        old.timers.arm(Timer::Grace, now + GRACE);
        // What is not written there is sent on the new one.
        old.send_queue.forget_subscribes();
    }

    /// Begins to move one operation of the retiring connection. A subscription is sent on the new
    /// connection as well. A query or mutation stays where it was sent.
    pub(super) fn begin_moving(&mut self, id: u64) {
        let Some(on) = self.open_connection() else { return };
        let Some(operation) = self.operations.get(id) else { return };
        let &Place::On(from, serial) = operation.place() else { return };
        if !operation.is_subscription() {
            self.handover.staying.insert(id);
            return;
        }
        let had_begun = operation.has_begun;
        self.outputs.push_back(Output::Resume { writer: operation.writer.clone() });
        self.handover.moving.insert(id);
        self.operations
            .set_place(id, Place::Moving(Box::new(Moving::new(from, serial, had_begun))));
        let Some(connection) = self.connections[on as usize].as_mut() else { return };
        if self.config.reissue_rate.is_some() {
            // `issue_all`, which calls this for each operation, ends with a call of `pace`.
            connection.send_queue.push_paced(id);
        } else {
            self.enqueue(id, on);
        }
    }

    /// An item arrived on the new connection for an operation that is moving.
    pub(super) fn hold(&mut self, now: Instant, id: u64, frame: &str, payload: Range<usize>) {
        self.operations.hold(id, frame, payload.clone());
        let Some(moving) = self.operations.moving_mut(id) else { return };
        let is_overlap_proven = moving.overlap.item_on_new(&frame[payload]);
        if is_overlap_proven || moving.is_resumed {
            self.cut_over_proven(now, id);
        } else if self.operations.held_bytes() > MAX_HELD_BYTES {
            self.cut_over(now, id, &OldSide::Unproven);
        }
    }

    /// The server has ended an operation on the new connection while it is moving. The end is held,
    /// and follows the items that are held.
    pub(super) fn hold_end(&mut self, now: Instant, id: u64, end: End) {
        let Some(moving) = self.operations.moving_mut(id) else { return };
        moving.backlog.end.get_or_insert(end);
        // Without a position, the operation is cut over when the old connection has said the same
        // two items or has ended it as well, and after `OVERLAP` at the latest.
        if moving.is_resumed {
            self.cut_over_proven(now, id);
        }
    }

    /// An item arrived on the old connection for an operation that is moving.
    pub(super) fn item_on_old(&mut self, now: Instant, id: u64, item: &str) {
        if self.operations.moving_mut(id).is_some_and(|moving| moving.overlap.item_on_old(item)) {
            self.cut_over_proven(now, id);
        }
    }

    /// The old connection has nothing to add.
    ///
    /// If the server had not begun the operation there before the new connection was asked, what is
    /// held may begin before what the reader got. For example, the reader got items 3 and 4 from
    /// the old connection, and items 1 to 4 are held. Then 1 and 2 come too late, so nothing counts
    /// as proven: a gap says that something may be missing, or the operation is sent again.
    fn cut_over_proven(&mut self, now: Instant, id: u64) {
        let Some(moving) = self.operations.moving_mut(id) else { return };
        let is_in_order = moving.is_resumed || moving.had_begun;
        self.cut_over(now, id, if is_in_order { &OldSide::Done } else { &OldSide::Unproven });
    }

    /// The server has ended an operation on the old connection while it is moving. Returns whether
    /// the operation goes on on the new one, because something has arrived there.
    pub(super) fn old_side_ended(&mut self, now: Instant, id: u64) -> bool {
        let Some(moving) = self.operations.moving_mut(id) else { return false };
        if moving.backlog.is_empty() {
            return false;
        }
        // Nothing says whether the old one had more to say when it ended.
        self.cut_over(now, id, &OldSide::Lost(None));
        true
    }

    /// Moves an operation to the new connection alone, or sends it again there.
    fn cut_over(&mut self, now: Instant, id: u64, old_side: &OldSide) {
        self.handover.moving.remove(&id);
        let Some(moving) = self.operations.moving_mut(id) else { return };
        let (from, new_serial, is_resumed) = (moving.from, moving.new_serial, moving.is_resumed);
        let old_delivered_any = moving.overlap.old_delivered_any();
        let is_ended = moving.backlog.end.is_some();
        let (silent_on, cause, may_miss) = match old_side {
            OldSide::Done => (None, None, false),
            OldSide::Unproven => (None, None, !is_resumed),
            OldSide::Lost(cause) => (Some(from), cause.clone(), true),
        };
        let Some(operation) = self.operations.get(id) else { return };
        // One that is not resumed had no position when it was sent on the new connection. Only an
        // item on the old one can have brought a position since.
        let has_position_now = operation.is_resumable && !is_resumed && old_delivered_any;
        // With a position, the new connection delivers what may be missing.
        let is_sent_anew = may_miss && has_position_now;
        // Without a serial there, it is not written on the new connection yet.
        let Some(serial) = new_serial.filter(|_| !is_sent_anew) else {
            return self.send_anew(now, id, silent_on, cause);
        };
        if silent_on.is_none()
            && let Some((_, wire_id)) = self.operations.wire_ids(id).find(|(on, _)| *on == from)
            && let Some(old) = self.connection_mut(from)
        {
            old.complete(wire_id, OperationType::Subscription);
        }
        let place = if is_ended {
            // It is on no connection any more: nothing is said about it there (rule 13).
            Place::Waiting(Why::Reader)
        } else {
            Place::On(from.other(), serial)
        };
        let Some(Place::Moving(moving)) = self.operations.set_place(id, place) else { return };
        let Some(operation) = self.operations.get(id) else { return };
        let (writer, backlog) = (operation.writer.clone(), moving.backlog);
        self.watch_moved(now, id, !backlog.is_empty());
        let gap = Gap { reconnects: u32::from(may_miss), overlaps: 1, cause, ..Gap::default() };
        self.outputs.push_back(Output::Gap { writer: writer.clone(), gap });
        if !backlog.is_empty() {
            self.counts.items += backlog.len() as u64;
            self.outputs.push_back(Output::Deliver { id, writer, backlog });
        }
        self.probe_awaited();
    }

    /// Takes an operation off both connections of a handover, and sends it on the new one: from its
    /// position, if it has one. Nothing is said about it on `silent_on`, which is lost or has ended
    /// the operation.
    fn send_anew(
        &mut self,
        now: Instant,
        id: u64,
        silent_on: Option<ConnectionId>,
        cause: Option<Disconnect>,
    ) {
        self.leave(id, silent_on, Why::Connection);
        if let Some(operation) = self.operations.get_mut(id) {
            operation.outage = Some(Arc::new(Outage { since: now, cause }));
        }
        self.issue(now, id);
        self.probe_awaited();
    }

    /// Cuts over the operations that both connections have carried for [`OVERLAP`].
    pub(super) fn check_overlap(&mut self, now: Instant, retiring: ConnectionId) {
        let Some(old) = self.connection_mut(retiring) else { return };
        old.timers.arm(Timer::Overlap, now + LOOK_AGAIN);
        // Reading is paused: items of the old connection may wait in its socket.
        if old.liveness.is_paused() {
            return;
        }
        let read_since = old.liveness.resumed_at();
        for id in self.handover.moving.clone() {
            let Some(moving) = self.operations.moving_mut(id) else { continue };
            if moving.new_serial.is_none() {
                continue;
            }
            let carried_since = *moving.since.get_or_insert(now);
            // Only the time counts in which both were read.
            let counted_since = read_since.map_or(carried_since, |read| read.max(carried_since));
            if now.saturating_duration_since(counted_since) >= OVERLAP {
                self.cut_over(now, id, &OldSide::Unproven);
            }
        }
    }

    /// Queries and mutations had their time on the retiring connection.
    pub(super) fn end_grace(&mut self, now: Instant, retiring: ConnectionId) {
        let Some(old) = self.connection_mut(retiring) else { return };
        // Reading is paused: the answers may wait in the socket.
        if old.liveness.is_paused() {
            return old.timers.arm(Timer::Grace, now + LOOK_AGAIN);
        }
        for id in std::mem::take(&mut self.handover.staying) {
            let wire_id = self.operations.wire_ids(id).find(|(on, _)| *on == retiring);
            let kind = self.operations.get(id).map(|operation| operation.kind);
            if let (Some((_, wire_id)), Some(kind), Some(old)) =
                (wire_id, kind, self.connection_mut(retiring))
            {
                old.complete(wire_id, kind);
            }
        }
        self.give_up_calls(now, retiring, None);
    }

    /// Calls on this connection will not be answered: mutations are ambiguous, and queries are sent
    /// again.
    fn give_up_calls(&mut self, now: Instant, on: ConnectionId, cause: Option<&Disconnect>) {
        self.give_up_mutations(on, cause);
        for id in self.operations.ids(|operation| !operation.is_subscription()) {
            if self.operations.is_on(id, on) {
                self.operations.set_place(id, Place::Waiting(Why::Connection));
                self.issue(now, id);
            }
        }
    }

    /// The retiring connection is gone, and with it what it had still to say.
    pub(super) fn retiring_lost(
        &mut self,
        now: Instant,
        retiring: ConnectionId,
        cause: &Disconnect,
    ) {
        self.take_over(now, retiring, cause);
        self.remove_connection(retiring);
        self.handover_is_over(now);
    }

    /// The retiring connection is lost or given up: what it carried goes on on the current one.
    fn take_over(&mut self, now: Instant, retiring: ConnectionId, cause: &Disconnect) {
        for id in std::mem::take(&mut self.handover.moving) {
            self.cut_over(now, id, &OldSide::Lost(Some(cause.clone())));
        }
        self.give_up_calls(now, retiring, Some(cause));
    }

    /// Whether the loss of the current connection leaves one that still carries operations.
    pub(super) fn can_undo_handover(&self) -> bool {
        self.handover.moving.iter().any(|id| self.operations.is_moving(*id))
            && self.other().is_some_and(|other| other.role == Role::Retiring && other.is_open())
    }

    /// The current connection was lost while operations were moving to it. The one that they come
    /// from still works: they stay there, and nothing is missing.
    pub(super) fn undo_handover(&mut self, now: Instant, cause: Disconnect) {
        let new = self.current;
        self.counts.handovers -= 1;
        self.give_up_mutations(new, Some(&cause));
        for id in std::mem::take(&mut self.handover.moving) {
            if let Some(&mut Moving { from, old_serial, .. }) = self.operations.moving_mut(id) {
                self.operations.set_place(id, Place::On(from, old_serial));
            }
        }
        self.handover.staying.clear();
        self.return_to_waiting(new, &Arc::new(Outage { since: now, cause: Some(cause.clone()) }));
        self.remove_connection(new);
        self.current = new.other();
        let healthy_at = now + self.config.healthy_after;
        if let Some(old) = self.current_mut() {
            old.role = Role::Current;
            old.timers.disarm(Timer::Overlap);
            old.timers.disarm(Timer::Grace);
            old.timers.arm(Timer::Healthy, healthy_at);
        }
        self.status_open();
        self.issue_all(now, None);
        self.look_for_idleness(now);
        self.delay_next_attempt(now, cause, Stage::Open);
        self.dial_successor(now);
    }

    /// Gives up what nothing depends on any more: the next attempt at a connection, or the retiring
    /// connection.
    pub(super) fn close_unneeded(&mut self, now: Instant) {
        if self.phase() == Some(Phase::Waiting) && !self.has_reason() {
            return self.rest();
        }
        let Some(Connection { role: Role::Retiring, phase: Phase::Open(_), id, .. }) = self.other()
        else {
            return;
        };
        let (retiring, operations) = (*id, &self.operations);
        // Usually the first id is still moving, so the loop ends at once.
        while let Some(&id) = self.handover.moving.first()
            && !operations.is_moving(id)
        {
            self.handover.moving.pop_first();
        }
        while let Some(&id) = self.handover.staying.first()
            && !operations.is_on(id, retiring)
        {
            self.handover.staying.pop_first();
        }
        if self.handover.moving.is_empty()
            && self.handover.staying.is_empty()
            && let Some(old) = self.connection_mut(retiring)
        {
            old.close();
            old.timers.arm(Timer::Shutdown, now + CLOSE_WITHIN);
        }
    }

    /// The connection that was replaced is gone.
    pub(super) fn handover_is_over(&mut self, now: Instant) {
        self.handover.moving.clear();
        self.handover.staying.clear();
        self.look_for_idleness(now);
        self.probe_awaited();
        if self.handover.is_rotation_awaited && self.is_open() {
            self.renew(now);
        }
    }

    /// Drops the connection that is not current, because this side gives everything up. What it
    /// carried is on the current one, or waits for it.
    pub(super) fn drop_other(&mut self, now: Instant, cause: &Disconnect) {
        let id = self.current.other();
        match self.connection(id).map(|other| other.role) {
            Some(Role::Retiring) => {
                self.take_over(now, id, cause);
                self.handover.staying.clear();
            }
            Some(Role::Trial) => return self.drop_trial(),
            Some(Role::Successor | Role::Current) | None => {}
        }
        self.hang_up_other();
    }

    /// Closes the connection that is not current, on which nothing is live.
    pub(super) fn hang_up_other(&mut self) {
        let id = self.current.other();
        let Some(close) = self.connection(id).map(Connection::close_frame) else { return };
        self.abandon_attempt(id);
        self.remove_connection(id);
        self.outputs.push_back(Output::Hangup(id, close));
    }
}

/// How long both connections carry a subscription, unless something proves earlier that the old one
/// has said everything.
const OVERLAP: Duration = Duration::from_secs(10);

/// How long queries and mutations may take on a connection that was replaced.
const GRACE: Duration = Duration::from_secs(30);

/// How long the peer has to answer the close of a connection that was replaced.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What is held of all operations together, in bytes.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;
