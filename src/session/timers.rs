//! The session's timers: a table, so that what can be waited for is a list and the next deadline a
//! minimum.

use std::time::Instant;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timer {
    /// Waiting: the retry sleep is over.
    Backoff,
    /// Authorizing: the provider takes too long. Dialing: the socket does.
    Connect,
    /// Opening: no acknowledgement.
    Ack,
    /// Open: nothing arrived since the ping. Before `Ping`, as both may be due at once.
    Liveness,
    /// Open: time to ping, or to look whether it is.
    Ping,
    /// Open: the server's `ka` is overdue.
    KeepAlive,
    /// Open: the connection has been healthy for a while.
    Healthy,
    /// Open: what was sent last has had time to close the connection.
    Settled,
    /// Any with a socket: writing failed a while ago, and reading has not told why.
    Broken,
    /// Open: more operations may be sent again.
    Pace,
    /// Open: nothing was live for a while.
    Idle,
    /// Open: the connection is to be replaced.
    Renewal,
    /// Open, and replaced: subscriptions had their time on both connections.
    Overlap,
    /// Open, and replaced: calls had theirs.
    Grace,
    /// Closing: the peer does not answer the close.
    Shutdown,
}

#[derive(Debug, Default)]
pub(super) struct Timers([Option<Instant>; Timer::ALL.len()]);

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

impl Timers {
    pub(super) fn arm(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Arms a timer unless it is due sooner.
    pub(super) fn arm_by(&mut self, timer: Timer, at: Instant) {
        let slot = &mut self.0[timer as usize];
        *slot = Some(slot.map_or(at, |armed| armed.min(at)));
    }

    pub(super) fn disarm(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    #[cfg(test)]
    pub(super) fn at(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Disarms and returns a timer that is due, in the table's order.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Timer> {
        let timer =
            Timer::ALL.into_iter().find(|&t| self.0[t as usize].is_some_and(|at| at <= now))?;
        self.disarm(timer);
        Some(timer)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }
}
