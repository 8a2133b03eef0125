//! Sending an operation: the one way to do it, for the first time and again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Outage, Place, Why};
use crate::{
    response::Gap,
    session::{
        Output, Session,
        connection::{ConnectionId, timers::Timer},
    },
};

impl<W: Clone> Session<W> {
    /// Queues a waiting operation on the current connection. If a subscription was sent before,
    /// `Output::Reissue` comes first: it announces a gap (rule 28), and asks the application for
    /// the position from which to go on. Does nothing while the connection is not open.
    pub(crate) fn issue(&mut self, now: Instant, id: u64) {
        let Some(on) = self.open_connection() else { return };
        let Some(operation) = self.operations.get_mut(id) else { return };
        let outage = operation.outage.take();
        let is_paced =
            operation.is_issued && outage.is_some() && self.config.reissue_rate.is_some();
        if operation.is_issued && operation.is_subscription() {
            let gap = gap_of(now, outage.as_deref());
            self.outputs.push_back(Output::Reissue { writer: operation.writer.clone(), gap });
        }
        let healthy_at = now + self.config.healthy_after;
        let Some(connection) = self.connections[on as usize].as_mut() else { return };
        // The connection may have been found healthy before. The check is repeated, so that
        // failures since then, such as those of a successor, are forgotten.
        connection.timers.arm_by(Timer::Healthy, healthy_at);
        connection.timers.disarm(Timer::Idle);
        if is_paced {
            connection.send_queue.push_paced(id);
            connection.timers.arm_if_idle(Timer::Pace, now);
            self.operations.set_place(id, Place::Waiting(Why::Pacing));
        } else {
            self.enqueue(id, on);
        }
        self.restart_silence_check(now, id);
    }

    /// A connection is open and current: sends everything that waits for it, in the original order,
    /// as one batch (rule 26). In a handover `replaced` is the old connection: the subscriptions
    /// that it carries begin to move, and what waits in its send queue is sent on the new one.
    pub(crate) fn issue_all(&mut self, now: Instant, replaced: Option<ConnectionId>) {
        for id in self.operations.ids(|_| true) {
            match self.operations.place(id) {
                // A new connection ends the backoff of an operation, too.
                Some(Place::Waiting(Why::Connection | Why::Backoff)) => self.issue(now, id),
                // The new connection keeps the rate.
                Some(Place::Waiting(Why::Pacing)) if replaced.is_some() => {
                    if let Some(current) = self.current_mut() {
                        current.send_queue.push_paced(id);
                    }
                }
                Some(Place::Queued(connection, _)) if replaced == Some(*connection) => {
                    self.enqueue(id, self.current);
                }
                Some(Place::On(connection, _)) if replaced == Some(*connection) => {
                    self.begin_moving(id);
                }
                // It is sent later, and not because of this outage, which is over by then. So its
                // gap must not report the outage.
                Some(Place::Waiting(Why::Reader | Why::Application)) => {
                    if let Some(operation) = self.operations.get_mut(id) {
                        operation.outage = None;
                    }
                }
                // It is queued or sent already, or quarantine decides when it is sent.
                Some(
                    Place::Waiting(Why::Pacing | Why::Quarantine)
                    | Place::Queued(..)
                    | Place::On(..)
                    | Place::Moving(_),
                )
                | None => {}
            }
        }
        self.pace(now);
    }

    /// Puts an operation into the send queue of a connection.
    pub(crate) fn enqueue(&mut self, id: u64, on: ConnectionId) {
        if let Some(connection) = self.connections[on as usize].as_mut() {
            let turn = self.operations.queue(id, on);
            connection.send_queue.subscribe(id, turn);
        }
    }

    /// Queues as many of the paced operations as `reissue_rate` allows in one period, and comes
    /// back after that period if any are left.
    pub(crate) fn pace(&mut self, now: Instant) {
        let Some(rate) = self.config.reissue_rate else { return };
        let Some(on) = self.open_connection() else { return };
        // What the rate allows in a tenth of a second, to avoid bursts; or else one operation.
        let count = (rate.get() / 10).max(1);
        let Some(connection) = self.connections[on as usize].as_mut() else { return };
        if connection.send_queue.release_paced(on, &mut self.operations, count) {
            let period = Duration::from_secs(1) * count / rate.get();
            connection.timers.arm(Timer::Pace, now + period);
        }
        self.probe_awaited();
        self.probe_trial(on);
    }

    /// A connection is lost. The operations that it carried, or that were to be sent on it, wait
    /// for the next one.
    pub(crate) fn return_to_waiting(&mut self, on: ConnectionId, outage: &Arc<Outage>) {
        let lost = self.operations.ids(|operation| match operation.place() {
            Place::Queued(connection, _) | Place::On(connection, _) => *connection == on,
            Place::Waiting(Why::Pacing) => true,
            Place::Waiting(
                Why::Connection | Why::Reader | Why::Application | Why::Backoff | Why::Quarantine,
            )
            | Place::Moving(_) => false,
        });
        for id in lost {
            self.operations.set_place(id, Place::Waiting(Why::Connection));
            self.operations.clear_subscription_deadline(id);
            if let Some(operation) = self.operations.get_mut(id)
                && operation.is_issued
            {
                operation.outage.get_or_insert_with(|| Arc::clone(outage));
            }
        }
    }

    /// No connection is left. Operations that wait for their reader, for the application or for
    /// their own backoff take part in the outage if they are to be sent before it is over:
    /// `issue_all` forgets it for those that still wait for something else by then.
    pub(crate) fn note_outage(&mut self, outage: &Arc<Outage>) {
        let waiting = self.operations.ids(|operation| {
            operation.is_issued
                && matches!(
                    operation.place(),
                    Place::Waiting(Why::Reader | Why::Application | Why::Backoff)
                )
        });
        for id in waiting {
            if let Some(operation) = self.operations.get_mut(id) {
                operation.outage.get_or_insert_with(|| Arc::clone(outage));
            }
        }
    }
}

/// The gap of an operation that is sent again. `outage` is `None` if the connection has worked all
/// the time, and the operation alone was restarted.
fn gap_of(now: Instant, outage: Option<&Outage>) -> Gap {
    match outage {
        None => Gap { restarts: 1, ..Gap::default() },
        Some(Outage { since, cause }) => Gap {
            reconnects: 1,
            down_for: now.saturating_duration_since(*since),
            cause: cause.clone(),
            ..Gap::default()
        },
    }
}
