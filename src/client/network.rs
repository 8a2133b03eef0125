//! Reports changes of this machine's network to every connection of a client.
//!
//! Owns the watcher of each client, which combines changes that follow each other closely. Must not
//! know how a connection reacts: its session decides that, as after
//! [`Client::network_changed`](crate::Client::network_changed).

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::stream::TryStreamExt;
use tokio::sync::{mpsc::WeakUnboundedSender, watch};

use crate::{
    client::{driver::Command, telemetry},
    session::Status,
    transport::network::{self, Changes},
};

/// The option of the builder.
pub(crate) struct NetworkWatchOption {
    /// `None` means: watch if the server is on another machine.
    pub(crate) wanted: Option<bool>,
    open: Open,
}

/// The watcher of one client.
#[derive(Clone)]
pub(crate) struct NetworkWatch {
    open: Open,
    /// The drivers of all connections, which a watcher does not keep alive.
    drivers: Arc<Mutex<Vec<WeakUnboundedSender<Command>>>>,
}

/// Starts to listen. Runs on the client's runtime.
type Open = Arc<dyn Fn() -> io::Result<Changes> + Send + Sync>;

impl NetworkWatchOption {
    pub(crate) fn into_watch(self, leads_away: bool) -> Option<NetworkWatch> {
        self.wanted
            .unwrap_or(leads_away)
            .then(|| NetworkWatch { open: self.open, drivers: Arc::default() })
    }
}

impl Default for NetworkWatchOption {
    fn default() -> Self {
        Self { wanted: None, open: Arc::new(network::open) }
    }
}

impl NetworkWatch {
    /// Adds the driver of a connection, and forgets those that nobody can command any more.
    pub(crate) fn add_driver(&self, driver: WeakUnboundedSender<Command>) {
        // Poisoning is ignored, because nothing under this lock can panic halfway.
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|driver| driver.strong_count() > 0);
        drivers.push(driver);
    }

    /// Watches until the last driver has ended, or the network cannot be watched.
    pub(crate) async fn run(self, status: watch::Receiver<Status>) {
        tokio::select! {
            () = all_drivers_ended(status.clone()) => {}
            error = self.listen(&status) => telemetry::unwatched(&error),
        }
    }

    async fn listen(&self, status: &watch::Receiver<Status>) -> io::Error {
        let mut changes = match (self.open)() {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        let mut delay = DEBOUNCE;
        loop {
            // Without a recent change there is no delay to reset, so no timer wakes the task.
            let change = if delay == DEBOUNCE {
                changes.try_next().await
            } else if let Some(change) = within(MAX_INTERVAL, changes.try_next()).await {
                change
            } else {
                delay = DEBOUNCE;
                continue;
            };
            match change {
                Ok(Some(())) => {}
                Ok(None) => return io::ErrorKind::UnexpectedEof.into(),
                Err(error) => return error,
            }
            // A connection that is dialed later uses the new network anyway.
            if !has_connection(&status.borrow()) {
                continue;
            }
            // Changes are read during the delay, because the system's queue of them is short.
            if let Some(error) = within(delay, discard(&mut changes)).await {
                return error;
            }
            telemetry::network_changed();
            self.notify_drivers();
            delay = (delay * 2).min(MAX_INTERVAL);
        }
    }

    fn notify_drivers(&self) {
        // A send under the lock wakes only tasks of the runtime (I11).
        for driver in &*self.drivers.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Some(driver) = driver.upgrade() {
                // An error means that the driver has ended, and so has its connection.
                let _ = driver.send(Command::NetworkChanged);
            }
        }
    }
}

/// Returns when the last driver has ended.
async fn all_drivers_ended(mut status: watch::Receiver<Status>) {
    while status.changed().await.is_ok() {}
}

/// Discards changes until reading them fails, and returns the error.
async fn discard(changes: &mut Changes) -> io::Error {
    loop {
        match changes.try_next().await {
            Ok(Some(())) => {}
            Ok(None) => return io::ErrorKind::UnexpectedEof.into(),
            Err(error) => return error,
        }
    }
}

/// Whether a change may affect any connection.
fn has_connection(status: &Status) -> bool {
    match status {
        Status::Connecting { .. } | Status::Open { .. } | Status::Waiting { .. } => true,
        Status::Idle | Status::Paused | Status::Ended => false,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the watcher belongs to no session, so it has its own timer"
)]
async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        // The timer comes first, because a flood of changes can use up the budget that tokio gives
        // a task for one poll.
        biased;
        () = tokio::time::sleep(time) => None,
        output = future => Some(output),
    }
}

/// Changes within this time count as one, because the system reports a change of the network as
/// several messages: addresses of both families, and routes.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// The longest interval between two reports, and the time without a change that resets the
/// interval. While changes continue the interval grows, because an interface that keeps coming and
/// going must not undo the backoff.
const MAX_INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
