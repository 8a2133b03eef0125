//! Connections that one subscription has for itself.
//!
//! Owns their list, through which commands to the whole client reach them, and the counters of
//! those that have ended. A connection ends with its subscription: its session decides that, and a
//! driver whose last handle was dropped closes its connection. Must not keep either of them alive.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

use super::{Connected, Lasting};
use crate::{
    client::{driver::Command, telemetry::Counters},
    session::Stats,
};

/// The dedicated connections of one client.
#[derive(Default)]
pub(super) struct Dedicated {
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// By number, so in the order in which they were made.
    live: BTreeMap<u64, Live>,
    /// The counters of all connections that have ended.
    ended: Stats,
    lasting: Lasting,
}

/// A connection whose driver runs, or whose subscription was not dropped yet.
struct Live {
    /// Weak, because the driver ends when the last handle is dropped.
    commands: mpsc::WeakUnboundedSender<Command>,
    counters: Arc<Counters>,
}

/// Keeps a connection in the list. Its driver and its handle share this, because both count.
pub(crate) struct Listed {
    dedicated: Arc<Dedicated>,
    number: u64,
}

impl Dedicated {
    /// Adds a connection. Returns `None` if the client was shut down.
    pub(super) fn add(
        self: &Arc<Self>,
        number: u64,
        commands: &mpsc::UnboundedSender<Command>,
        counters: &Arc<Counters>,
    ) -> Option<Arc<Listed>> {
        let mut state = self.lock();
        if state.lasting.is_shut_down {
            return None;
        }
        if state.lasting.is_paused {
            // The receiver exists, because its driver was not started yet.
            let _ = commands.send(Command::Pause);
        }
        let (commands, counters) = (commands.downgrade(), Arc::clone(counters));
        state.live.insert(number, Live { commands, counters });
        Some(Arc::new(Listed { dedicated: Arc::clone(self), number }))
    }

    /// Begins a command to the whole client. Other commands wait until the lock is released, so
    /// that all connections see the commands of two threads in the same order.
    pub(super) fn begin_command(
        &self,
        remember: impl FnOnce(&mut Lasting),
    ) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        remember(&mut state.lasting);
        state
    }

    /// Replaces every connection.
    pub(super) fn rotate(&self) -> Vec<Connected> {
        let state = self.lock();
        let rotate = |live: &Live| {
            let (waiter, answer) = oneshot::channel();
            live.send(Command::Rotate(waiter));
            Connected { answer, counters: Arc::clone(&live.counters), may_end: true }
        };
        state.live.values().map(rotate).collect()
    }

    /// The counters of all connections, including those that have ended.
    pub(super) fn stats(&self) -> Stats {
        let state = self.lock();
        state.live.values().map(|live| live.counters.snapshot()).fold(state.ended, Stats::and)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Poisoning is ignored, because nothing under this lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A send under the lock wakes only tasks of the runtime (I11).
    pub(super) fn send_all(&self, command: impl Fn() -> Command) {
        self.live.values().for_each(|live| live.send(command()));
    }
}

impl Live {
    /// Sends a command, unless the subscription was dropped. Then the connection is closing.
    fn send(&self, command: Command) {
        if let Some(commands) = self.commands.upgrade() {
            let _ = commands.send(command);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut state = self.dedicated.lock();
        if let Some(Live { counters, .. }) = state.live.remove(&self.number) {
            // What describes the present describes this connection no more.
            let ended = Stats {
                queued_items: 0,
                live_operations: 0,
                round_trip_time: None,
                ..counters.snapshot()
            };
            state.ended = state.ended.and(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Counts;

    #[test]
    fn the_counters_of_a_connection_outlive_it_and_nothing_else_does() {
        let dedicated = Arc::new(Dedicated::default());
        for number in 1..=1_000 {
            let (commands, receiver) = mpsc::unbounded_channel();
            let counters = Arc::default();
            let by_driver = dedicated.add(number, &commands, &counters).unwrap();
            let by_handle = Arc::clone(&by_driver);
            counters.record(&Counts { items: 3, ..Counts::default() }, 1);
            drop((by_driver, receiver));
            assert_eq!((dedicated.stats().queued_items, dedicated.lock().live.len()), (3, 1));
            counters.dequeued(1);
            drop((by_handle, commands));
            let stats = dedicated.stats();
            assert_eq!(
                (stats.items, stats.queued_items, stats.live_operations),
                (3 * number, 0, 0)
            );
            assert!(dedicated.lock().live.is_empty());
        }
    }

    #[test]
    fn what_was_commanded_before_is_known_to_a_connection_that_is_made_later() {
        let dedicated = Arc::new(Dedicated::default());
        let (commands, mut receiver) = mpsc::unbounded_channel();
        drop(dedicated.begin_command(|lasting| lasting.is_paused = true));
        let listed = dedicated.add(1, &commands, &Arc::default());
        assert!(listed.is_some() && matches!(receiver.try_recv(), Ok(Command::Pause)));
        dedicated.begin_command(|lasting| lasting.is_paused = false).send_all(|| Command::Resume);
        assert!(matches!(receiver.try_recv(), Ok(Command::Resume)));
        drop(dedicated.begin_command(|lasting| lasting.is_shut_down = true));
        assert!(dedicated.add(2, &commands, &Arc::default()).is_none());
        // The list keeps no driver alive.
        drop(commands);
        assert!(matches!(receiver.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }
}
