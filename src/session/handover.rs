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
//! Whatever is cut over may repeat what came before, which the gap counts in `overlaps`. Until the
//! last operation is cut over the way back is open: if the new connection fails, the old one goes
//! on as before. Queries and mutations do not move; they stay where they were sent.

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

/// Which operations keep the retiring connection open. May name some that have left it.
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
enum Cut {
    /// It has nothing to add.
    Complete,
    /// It works, but nothing proves that it has delivered everything.
    Unproven,
    /// It is gone, or has ended the operation.
    OldLost(Option<Disconnect>),
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

    /// The new connection is to carry what the old one carries.
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
            connection.send_queue.push_paced(id);
        } else {
            let turn = self.operations.queue(id, on);
            connection.send_queue.subscribe(id, turn);
        }
    }

    /// An item arrived on the new connection for an operation that is moving.
    pub(super) fn hold(&mut self, now: Instant, id: u64, frame: &str, payload: Range<usize>) {
        self.operations.hold(id, frame, payload.clone());
        let Some(moving) = self.operations.moving_mut(id) else { return };
        let is_proven = moving.overlap.new_said(&frame[payload]) || moving.is_resumed;
        if is_proven {
            self.cut_over_proven(now, id);
        } else if self.operations.held_bytes() > MAX_HELD_BYTES {
            self.cut_over(now, id, &Cut::Unproven);
        }
    }

    /// The server has ended an operation on the new connection while it is moving. The end is held
    /// behind the items that are.
    pub(super) fn hold_end(&mut self, now: Instant, id: u64, end: End) {
        // Without a position it waits for the old connection to say the same, or for its time.
        let Some(moving) = self.operations.moving_mut(id) else { return };
        moving.backlog.end.get_or_insert(end);
        if moving.is_resumed {
            self.cut_over_proven(now, id);
        }
    }

    /// An item arrived on the old connection for an operation that is moving.
    pub(super) fn old_said(&mut self, now: Instant, id: u64, item: &str) {
        if self.operations.moving_mut(id).is_some_and(|moving| moving.overlap.old_said(item)) {
            self.cut_over_proven(now, id);
        }
    }

    /// The old connection has nothing to add. If it had not begun the operation before the new one
    /// was asked, the new one may have items that came before everything that the old one said.
    fn cut_over_proven(&mut self, now: Instant, id: u64) {
        let Some(moving) = self.operations.moving_mut(id) else { return };
        let is_in_order = moving.is_resumed || moving.had_begun;
        self.cut_over(now, id, if is_in_order { &Cut::Complete } else { &Cut::Unproven });
    }

    /// The server has ended an operation on the old connection while it is moving. Returns whether
    /// it goes on all the same, because the new one has said something already.
    pub(super) fn old_side_ended(&mut self, now: Instant, id: u64) -> bool {
        let Some(moving) = self.operations.moving_mut(id) else { return false };
        if moving.backlog.is_empty() {
            return false;
        }
        // Nothing says whether the old one had more to say when it ended.
        self.cut_over(now, id, &Cut::OldLost(None));
        true
    }

    /// From here on an operation is on the new connection alone.
    fn cut_over(&mut self, now: Instant, id: u64, cut: &Cut) {
        self.handover.moving.remove(&id);
        let Some(moving) = self.operations.moving_mut(id) else { return };
        let (from, new, is_resumed) = (moving.from, moving.new, moving.is_resumed);
        let has_old_said = moving.overlap.has_old_said();
        let is_ended = moving.backlog.end.is_some();
        let (lost, cause, may_miss) = match cut {
            Cut::Complete => (None, None, false),
            Cut::Unproven => (None, None, !is_resumed),
            Cut::OldLost(cause) => (Some(from), cause.clone(), true),
        };
        let Some(operation) = self.operations.get(id) else { return };
        let can_be_resumed = operation.is_resumable && !is_resumed && has_old_said;
        let Some(serial) = new.filter(|_| !(may_miss && can_be_resumed)) else {
            // The new connection does not know it yet, or not from where to go on: it is sent there
            // after the last item that was received.
            return self.send_anew(now, id, lost, cause);
        };
        self.complete_old(id, lost);
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

    /// Takes an operation off both connections of a handover, and sends it on the new one.
    fn send_anew(
        &mut self,
        now: Instant,
        id: u64,
        lost: Option<ConnectionId>,
        cause: Option<Disconnect>,
    ) {
        self.leave(id, lost, Why::Connection);
        if let Some(operation) = self.operations.get_mut(id) {
            operation.outage = Some(Arc::new(Outage { since: now, cause }));
        }
        self.issue(now, id);
        self.probe_awaited();
    }

    /// Completes an operation on the connection that it moves away from, unless that is lost.
    fn complete_old(&mut self, id: u64, lost: Option<ConnectionId>) {
        let Some((from, wire_id)) = self.operations.wire_ids(id).next() else { return };
        if lost.is_none()
            && let Some(old) = self.connection_mut(from)
        {
            old.complete(wire_id, OperationType::Subscription);
        }
    }

    /// Cuts over the operations that both connections have carried for [`OVERLAP`].
    pub(super) fn check_overlap(&mut self, now: Instant, retiring: ConnectionId) {
        let Some(old) = self.connection_mut(retiring) else { return };
        old.timers.arm(Timer::Overlap, now + LOOK_AGAIN);
        // What is not read may be there already.
        if old.liveness.is_paused() {
            return;
        }
        let read_since = old.liveness.resumed_at();
        for id in self.handover.moving.clone() {
            let Some(moving) = self.operations.moving_mut(id) else { continue };
            if moving.new.is_none() {
                continue;
            }
            let since = *moving.since.get_or_insert(now);
            let since = read_since.map_or(since, |read| read.max(since));
            if now.saturating_duration_since(since) >= OVERLAP {
                self.cut_over(now, id, &Cut::Unproven);
            }
        }
    }

    /// Queries and mutations had their time on the retiring connection.
    pub(super) fn end_grace(&mut self, now: Instant, retiring: ConnectionId) {
        let Some(old) = self.connection_mut(retiring) else { return };
        // The answers may be there already.
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
        cause: Option<&Disconnect>,
    ) {
        for id in std::mem::take(&mut self.handover.moving) {
            self.cut_over(now, id, &Cut::OldLost(cause.cloned()));
        }
        self.give_up_calls(now, retiring, cause);
        self.remove_connection(retiring);
        self.handover_is_over(now);
    }

    /// Whether the loss of the current connection leaves one that still carries the operations.
    pub(super) fn can_undo_handover(&mut self) -> bool {
        let operations = &self.operations;
        self.handover.moving.retain(|id| operations.is_moving(*id));
        !self.handover.moving.is_empty()
            && self.other().is_some_and(|other| other.role == Role::Retiring && other.is_open())
    }

    /// The current connection was lost while operations were moving to it. The one that they come
    /// from still works: they stay there, and nothing is missing.
    pub(super) fn undo_handover(&mut self, now: Instant, cause: Disconnect) {
        let new = self.current;
        self.counts.handovers -= 1;
        self.give_up_mutations(new, Some(&cause));
        for id in std::mem::take(&mut self.handover.moving) {
            if let Some(&mut Moving { from, old, .. }) = self.operations.moving_mut(id) {
                self.operations.set_place(id, Place::On(from, old));
            }
        }
        self.handover.staying.clear();
        self.strand(new, &Arc::new(Outage { since: now, cause: Some(cause.clone()) }));
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
        self.space(now, cause, Stage::Open);
        self.dial_successor(now);
    }

    /// Closes the retiring connection once nothing depends on it.
    pub(super) fn close_retired(&mut self, now: Instant) {
        if self.phase() == Some(Phase::Waiting) && !self.has_reason() {
            return self.rest();
        }
        let Some(Connection { role: Role::Retiring, phase: Phase::Open(_), id, .. }) = self.other()
        else {
            return;
        };
        let (retiring, operations) = (*id, &self.operations);
        // Mostly the first one is still there, and nothing else is looked at.
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
                for moving in std::mem::take(&mut self.handover.moving) {
                    self.cut_over(now, moving, &Cut::OldLost(Some(cause.clone())));
                }
                self.give_up_calls(now, id, Some(cause));
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
