//! The timers of a connection, as a table: what can be waited for is a list, and the next deadline
//! a minimum.

use std::time::Instant;

/// In the order in which they are handled when several are due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// Waiting: the retry delay is over.
    Backoff,
    /// Authorizing: the provider takes too long. Dialing: the connection attempt does.
    Connect,
    /// Opening: no acknowledgement.
    Ack,
    /// Open: nothing has arrived since the ping. Before `Ping`, as both may be due at once.
    Liveness,
    /// Open: it is time to ping, or to check whether it is.
    Ping,
    /// Open: the server's `ka` is overdue.
    KeepAlive,
    /// Open: the connection has been healthy for a while.
    Healthy,
    /// Trial: the operations that are tried had their time to close the connection.
    Settled,
    /// Opening or open: writing failed a while ago, and reading has not told why.
    Broken,
    /// Open: more operations may be re-issued.
    Pace,
    /// Open: no operation was live for a while.
    Idle,
    /// Open: the connection is to be replaced.
    Renewal,
    /// Retiring: check which operations had their time on both connections.
    Overlap,
    /// Retiring: queries and mutations had their time.
    Grace,
    /// Closing: the peer does not answer the close frame.
    Shutdown,
}

impl Timer {
    const ALL: [Self; 15] = [
        Self::Backoff,
        Self::Connect,
        Self::Ack,
        Self::Liveness,
        Self::Ping,
        Self::KeepAlive,
        Self::Healthy,
        Self::Settled,
        Self::Broken,
        Self::Pace,
        Self::Idle,
        Self::Renewal,
        Self::Overlap,
        Self::Grace,
        Self::Shutdown,
    ];
}

#[derive(Debug, Default)]
pub(crate) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    pub(crate) fn arm(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Arms a timer unless it is due sooner.
    pub(crate) fn arm_by(&mut self, timer: Timer, at: Instant) {
        let slot = &mut self.0[timer as usize];
        *slot = Some(slot.map_or(at, |armed| armed.min(at)));
    }

    /// Arms a timer unless it is armed.
    pub(crate) fn arm_if_idle(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize].get_or_insert(at);
    }

    pub(crate) fn disarm(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    #[cfg(test)]
    pub(crate) fn at(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Disarms and returns a timer that is due, in the table's order.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Timer> {
        let timer =
            Timer::ALL.into_iter().find(|&t| self.0[t as usize].is_some_and(|at| at <= now))?;
        self.disarm(timer);
        Some(timer)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }
}
