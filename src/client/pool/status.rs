//! One status of several connections.
//!
//! Owns which of them is shown. Knows nothing of what they do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::session::Status;

/// What each connection does, and what of it the application sees. It lives as long as a driver
/// does, so that who watches learns of the end of the last one.
pub(crate) struct SharedStatus {
    /// By the index of the connection.
    connections: Mutex<Vec<Status>>,
    shown: watch::Sender<Status>,
}

/// Where one connection says what it does.
pub(crate) struct StatusSlot {
    shared_status: Arc<SharedStatus>,
    index: usize,
}

impl SharedStatus {
    pub(crate) fn new() -> (Arc<Self>, watch::Receiver<Status>) {
        let (shown, status) = watch::channel(Status::Idle);
        (Arc::new(Self { connections: Mutex::default(), shown }), status)
    }

    /// For one more connection, which has nothing to do yet. It is not shown before it says
    /// something: nothing is less.
    pub(crate) fn add(self: &Arc<Self>) -> StatusSlot {
        let mut connections = self.connections();
        connections.push(Status::Idle);
        StatusSlot { shared_status: Arc::clone(self), index: connections.len() - 1 }
    }

    /// How many connections are acknowledged.
    pub(super) fn open(&self) -> usize {
        self.connections().iter().filter(|status| matches!(status, Status::Open { .. })).count()
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Status>> {
        // Nothing that can panic half-way runs under the lock.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatusSlot {
    pub(crate) fn set(&self, status: Status) {
        // In there, so that two connections are shown in the order in which they spoke; readers are
        // woken after both locks are released (I11).
        self.shared_status.shown.send_if_modified(|shown| {
            let mut connections = self.shared_status.connections();
            let before = worst(&connections);
            connections[self.index] = status;
            let now = worst(&connections);
            let is_seen = now == self.index || now != before;
            if is_seen {
                shown.clone_from(&connections[now]);
            }
            is_seen
        });
    }
}

/// Which status stands for all: the one that says most about what is wrong; of equals, the first.
fn worst(connections: &[Status]) -> usize {
    let by_rank = connections.iter().enumerate().rev().max_by_key(|(_, status)| rank(status));
    by_rank.map_or(0, |(index, _)| index)
}

/// A connection without operations says nothing as long as another has some, and one that has ended
/// nothing while another lives.
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
    fn the_worst_is_shown_and_rest_only_where_all_rest() {
        for (connections, shown) in [
            (vec![open(), waiting(3), connecting(1), waiting(4)], waiting(3)),
            (vec![open(), connecting(7), connecting(1), Status::Idle], connecting(7)),
            (vec![Status::Idle, Status::Paused, open(), Status::Ended], open()),
            (vec![Status::Idle, Status::Idle], Status::Idle),
            (vec![Status::Paused, Status::Paused], Status::Paused),
            (vec![Status::Ended, Status::Idle], Status::Idle),
            (vec![Status::Ended, Status::Ended], Status::Ended),
        ] {
            assert_eq!(text(&connections[worst(&connections)]), text(&shown), "of {connections:?}");
        }
    }

    #[test]
    fn who_watches_learns_of_the_end_when_the_last_connection_is_gone() {
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
        fn of_one_connection_every_change_is_seen_as_it_is(said in vec(any_status(), 0..20)) {
            let (shared_status, mut status) = SharedStatus::new();
            let slot = shared_status.add();
            for one in said {
                slot.set(one.clone());
                prop_assert!(status.has_changed().unwrap());
                prop_assert_eq!(text(&status.borrow_and_update()), text(&one));
            }
        }

        #[test]
        fn of_several_the_worst_is_shown_and_nobody_is_woken_by_the_others(
            connections in 1..5_usize,
            said in vec((0..5_usize, any_status()), 0..40),
        ) {
            let (shared_status, mut status) = SharedStatus::new();
            let slots: Vec<_> = (0..connections).map(|_| shared_status.add()).collect();
            let (mut all, mut shown) = (vec![Status::Idle; connections], 0);
            for (connection, one) in said {
                let connection = connection % connections;
                status.mark_unchanged();
                all[connection] = one.clone();
                slots[connection].set(one);
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
