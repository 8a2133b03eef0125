//! Changes of this machine's network, told to every connection of a client.
//!
//! Owns the watcher, one for each client, and how many changes are one. Must not know what follows:
//! each session decides, as after [`Client::network_changed`](crate::Client::network_changed).

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

/// What the builder was told.
pub(crate) struct NetworkWatchOption {
    /// `None`: if the server is elsewhere.
    pub(crate) wanted: Option<bool>,
    open: Open,
}

/// The watcher of one client.
#[derive(Clone)]
pub(crate) struct NetworkWatch {
    open: Open,
    /// Who is told: the drivers, none of which it keeps alive. As many as there are connections,
    /// and none is removed.
    drivers: Arc<Mutex<Vec<WeakUnboundedSender<Command>>>>,
}

/// Begins to listen; on the client's runtime.
type Open = Arc<dyn Fn() -> io::Result<Changes> + Send + Sync>;

impl NetworkWatchOption {
    pub(crate) fn made(self, leads_away: bool) -> Option<NetworkWatch> {
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
    /// Adds a connection.
    pub(crate) fn tell_also(&self, driver: WeakUnboundedSender<Command>) {
        // Nothing that can panic half-way runs under the lock, here and below.
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).push(driver);
    }

    /// Watches until the last driver is gone, or there is nothing to watch.
    pub(crate) async fn run(self, status: watch::Receiver<Status>) {
        tokio::select! {
            () = gone(status.clone()) => {}
            error = self.listen(&status) => telemetry::unwatched(&error),
        }
    }

    async fn listen(&self, status: &watch::Receiver<Status>) -> io::Error {
        let mut changes = match (self.open)() {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        let mut delay = SETTLE;
        loop {
            // While nothing changes there is no timer.
            let change = if delay == SETTLE {
                changes.try_next().await
            } else if let Some(change) = within(CALM, changes.try_next()).await {
                change
            } else {
                delay = SETTLE;
                continue;
            };
            match change {
                Ok(Some(())) => {}
                Ok(None) => return io::ErrorKind::UnexpectedEof.into(),
                Err(error) => return error,
            }
            // What is dialed later has the new network.
            if !has_connection(&status.borrow()) {
                continue;
            }
            // Read all the same, as the system's queue is short.
            if let Some(error) = within(delay, last(&mut changes)).await {
                return error;
            }
            telemetry::network_changed();
            self.tell();
            delay = (delay * 2).min(CALM);
        }
    }

    fn tell(&self) {
        // What is woken under the lock is the runtime's own (I11).
        for driver in &*self.drivers.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Some(driver) = driver.upgrade() {
                // It may be gone, and so is its connection.
                let _ = driver.send(Command::NetworkChanged);
            }
        }
    }
}

/// Returns when the last driver is.
async fn gone(mut status: watch::Receiver<Status>) {
    while status.changed().await.is_ok() {}
}

/// Returns when nothing comes any more.
async fn last(changes: &mut Changes) -> io::Error {
    loop {
        match changes.try_next().await {
            Ok(Some(())) => {}
            Ok(None) => return io::ErrorKind::UnexpectedEof.into(),
            Err(error) => return error,
        }
    }
}

/// Whether any connection may be affected.
fn has_connection(status: &Status) -> bool {
    match status {
        Status::Connecting { .. } | Status::Open { .. } | Status::Waiting { .. } => true,
        Status::Idle | Status::Paused | Status::Ended => false,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "one for all of a client's sessions, and only while the network changes"
)]
async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        // The timer first: a flood of changes uses up the budget that tokio gives a task for one
        // poll.
        biased;
        () = tokio::time::sleep(time) => None,
        output = future => Some(output),
    }
}

/// One change is several messages: addresses of both families, routes. More of them within this
/// time are the same change.
const SETTLE: Duration = Duration::from_secs(1);

/// After this time without any, changes begin anew. An interface that comes and goes must not undo
/// the backoff, so it is told of at longer and longer intervals, up to this one.
const CALM: Duration = Duration::from_secs(30);

#[cfg(not(any(
    target_os = "linux",
    target_os = "macos",
    target_os = "ios",
    target_os = "windows"
)))]
mod system {
    //! Systems that can only be asked again and again, which would wake every client for nothing.

    pub(super) fn open() -> std::io::Result<super::Changes> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests;
