//! Combines the statuses of several connections into one.
//!
//! Owns the choice of the status that the application sees. Must not know what connections do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::session::Status;

/// The status of each connection, and the one that the application sees. Drivers keep it alive, so
/// that a watcher is notified when the last driver ends.
pub(crate) struct SharedStatus {
    connections: Mutex<Connections>,
    shown: watch::Sender<Status>,
}

/// The statuses of the connections whose drivers live, from the oldest to the newest.
#[derive(Default)]
struct Connections {
    statuses: BTreeMap<u64, Status>,
    added: u64,
}

/// Sets the status of one connection.
pub(crate) struct StatusSlot {
    shared_status: Arc<SharedStatus>,
    connection: u64,
}

impl SharedStatus {
    pub(crate) fn new() -> (Arc<Self>, watch::Receiver<Status>) {
        let (shown, status) = watch::channel(Status::Idle);
        (Arc::new(Self { connections: Mutex::default(), shown }), status)
    }

    /// Adds a connection, which is idle. This never changes the status that the application sees.
    pub(crate) fn add(self: &Arc<Self>) -> StatusSlot {
        let mut connections = self.connections();
        let connection = connections.added;
        connections.added += 1;
        connections.statuses.insert(connection, Status::Idle);
        StatusSlot { shared_status: Arc::clone(self), connection }
    }

    /// The number of acknowledged connections.
    pub(super) fn open(&self) -> usize {
        let connections = self.connections();
        connections.statuses.values().filter(|status| matches!(status, Status::Open { .. })).count()
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        // Poisoning is ignored, because nothing under this lock can panic halfway.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatusSlot {
    pub(crate) fn set(&self, status: Status) {
        // The change is made inside of the closure, so that the application sees two connections
        // change in the order in which they did. Watchers are woken after both locks are released
        // (I11).
        self.shared_status.shown.send_if_modified(|shown| {
            let mut connections = self.shared_status.connections();
            let statuses = &mut connections.statuses;
            let before = worst(statuses);
            statuses.insert(self.connection, status);
            let now = worst(statuses);
            let is_seen = now == Some(self.connection) || now != before;
            if let Some(status) = now.filter(|_| is_seen).and_then(|now| statuses.get(&now)) {
                shown.clone_from(status);
            }
            is_seen
        });
    }
}

/// The connection has ended, and its status with it. This never changes the status that the
/// application sees: any other one is worse.
impl Drop for StatusSlot {
    fn drop(&mut self) {
        self.shared_status.connections().statuses.remove(&self.connection);
    }
}

/// Returns the connection whose status is shown for all: the one with the highest rank. If several
/// have it, the oldest.
fn worst(statuses: &BTreeMap<u64, Status>) -> Option<u64> {
    let by_rank = statuses.iter().rev().max_by_key(|(_, status)| rank(status));
    by_rank.map(|(&connection, _)| connection)
}

/// Ranks a status by how much an operator needs to see it. An idle connection is hidden while
/// another has operations, and an ended connection while another lives.
fn rank(status: &Status) -> u8 {
    match status {
        Status::Waiting { .. } => 5,
        Status::Connecting { .. } => 4,
        Status::Open { .. } => 3,
        Status::Paused => 2,
        Status::Idle => 1,
        Status::Ended => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::protocol::Subprotocol;

    fn waiting(secs: u64) -> Status {
        Status::Waiting { delay: Duration::from_secs(secs), cause: None, refused_since: None }
    }

    fn connecting(attempt: u32) -> Status {
        Status::Connecting { attempt, cause: None, refused_since: None }
    }

    fn open() -> Status {
        Status::Open { subprotocol: Subprotocol::GraphqlTransportWs, ack_payload: None }
    }

    fn any_status() -> impl Strategy<Value = Status> {
        prop_oneof![
            Just(Status::Idle),
            (1..9_u32).prop_map(connecting),
            Just(open()),
            (1..9_u64).prop_map(waiting),
            Just(Status::Paused),
            Just(Status::Ended),
        ]
    }

    fn text(status: &Status) -> String {
        format!("{status:?}")
    }

    #[test]
    fn the_worst_status_is_shown_and_idle_only_if_no_connection_is_in_use() {
        for (connections, shown) in [
            (vec![open(), waiting(3), connecting(1), waiting(4)], waiting(3)),
            (vec![open(), connecting(7), connecting(1), Status::Idle], connecting(7)),
            (vec![Status::Idle, Status::Paused, open(), Status::Ended], open()),
            (vec![Status::Idle, Status::Idle], Status::Idle),
            (vec![Status::Paused, Status::Paused], Status::Paused),
            (vec![Status::Ended, Status::Idle], Status::Idle),
            (vec![Status::Ended, Status::Ended], Status::Ended),
        ] {
            let statuses: BTreeMap<_, _> = (0..).zip(connections).collect();
            let worst = &statuses[&worst(&statuses).unwrap()];
            assert_eq!(text(worst), text(&shown), "of {statuses:?}");
        }
    }

    #[test]
    fn a_watcher_is_notified_of_the_end_when_the_last_connection_is_dropped() {
        let (shared_status, status) = SharedStatus::new();
        let slots = [shared_status.add(), shared_status.add()];
        drop(shared_status);
        let [first, second] = slots;
        drop(first);
        assert!(status.has_changed().is_ok());
        drop(second);
        assert!(status.has_changed().is_err());
    }

    proptest! {
        #[test]
        fn every_change_of_a_single_connection_is_shown_unchanged(
            changes in vec(any_status(), 0..20),
        ) {
            let (shared_status, mut status) = SharedStatus::new();
            let slot = shared_status.add();
            for next in changes {
                slot.set(next.clone());
                prop_assert!(status.has_changed().unwrap());
                prop_assert_eq!(text(&status.borrow_and_update()), text(&next));
            }
        }

        #[test]
        fn the_worst_status_of_several_is_shown_and_changes_of_the_others_wake_no_watcher(
            connections in 1..5_usize,
            changes in vec((0..5_usize, any_status()), 0..40),
        ) {
            let (shared_status, mut status) = SharedStatus::new();
            let slots: Vec<_> = (0..connections).map(|_| shared_status.add()).collect();
            let (mut all, mut shown) = (vec![Status::Idle; connections], 0);
            for (connection, next) in changes {
                let connection = connection % connections;
                status.mark_unchanged();
                all[connection] = next.clone();
                slots[connection].set(next);
                let highest = all.iter().map(rank).max().unwrap();
                let first = all.iter().position(|status| rank(status) == highest).unwrap();
                prop_assert_eq!(text(&status.borrow()), text(&all[first]));
                let changes = first == connection || first != shown;
                prop_assert_eq!(status.has_changed().unwrap(), changes);
                shown = first;
                let is_open = |status: &&Status| matches!(status, Status::Open { .. });
                let opened = all.iter().filter(is_open).count();
                prop_assert_eq!(shared_status.open(), opened);
            }
        }
    }
}
