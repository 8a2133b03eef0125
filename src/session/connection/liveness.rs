//! Whether the peer is alive: when a ping is due, what silence means, and the server's own
//! keepalive (rules 20 and 21).

use std::time::{Duration, Instant};

use super::timers::{Timer, Timers};
use crate::{protocol::Subprotocol, session::Config};

/// Anything that arrives is a sign of life, not only a pong.
pub(crate) struct Liveness {
    interval: Option<Duration>,
    timeout: Duration,
    last_inbound: Option<Instant>,
    /// The first ping since which nothing has arrived.
    unanswered: Option<Instant>,
    /// Silence until then means that the peer is dead, earlier than `timeout` would say.
    doubted_until: Option<Instant>,
    last_keep_alive: Option<Instant>,
    /// The longest time seen between two `ka` messages, on any connection to this server.
    keep_alive_interval: Duration,
    /// The socket is not read for now: silence means nothing.
    is_paused: bool,
    /// Since when it is read again.
    resumed_at: Option<Instant>,
}

impl Liveness {
    /// `keep_alive_interval` is what was seen on earlier connections; `is_paused` says that the
    /// sockets are not read at the moment.
    pub(crate) fn new(config: &Config, keep_alive_interval: Duration, is_paused: bool) -> Self {
        Self {
            interval: config.ping_interval,
            timeout: config.ping_timeout,
            last_inbound: None,
            unanswered: None,
            doubted_until: None,
            last_keep_alive: None,
            keep_alive_interval,
            is_paused,
            resumed_at: None,
        }
    }

    /// The connection was acknowledged.
    pub(crate) fn open(&mut self, now: Instant, subprotocol: Subprotocol, timers: &mut Timers) {
        if let Some(pace) = self.pace(subprotocol) {
            timers.arm(Timer::Ping, now + pace);
        }
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.last_inbound = Some(now);
        self.unanswered = None;
        self.doubted_until = None;
    }

    /// Decides whether a ping is due, and when to look again.
    ///
    /// Modern: at every interval, as some servers close the connection of a client that sends no
    /// ping. Legacy: only after nothing has arrived for twice the interval, as several servers
    /// answer a WebSocket ping with an error.
    pub(crate) fn ping(
        &mut self,
        now: Instant,
        subprotocol: Subprotocol,
        timers: &mut Timers,
    ) -> bool {
        let Some(pace) = self.pace(subprotocol) else { return false };
        let due = match subprotocol {
            Subprotocol::GraphqlTransportWs => now,
            Subprotocol::GraphqlWs => self.last_inbound.unwrap_or(now) + pace,
        };
        if due > now {
            timers.arm(Timer::Ping, due);
            return false;
        }
        timers.arm(Timer::Ping, now + pace);
        let since = *self.unanswered.get_or_insert(now);
        let due = since + self.timeout;
        timers.arm(Timer::Liveness, self.doubted_until.map_or(due, |until| until.min(due)));
        true
    }

    /// A ping is sent out of turn. The peer counts as dead if nothing arrives within `patience`.
    pub(crate) fn doubt(&mut self, now: Instant, patience: Duration, timers: &mut Timers) {
        self.unanswered.get_or_insert(now);
        let until = self.doubted_until.unwrap_or(now + patience).min(now + patience);
        self.doubted_until = Some(until);
        timers.arm_by(Timer::Liveness, until);
    }

    /// The time for an answer is over. Returns how long nothing has arrived, if nothing has.
    pub(crate) fn check(&self, now: Instant, timers: &mut Timers) -> Option<Duration> {
        let since = self.unanswered?;
        let due = self.doubted_until.unwrap_or(since + self.timeout).min(since + self.timeout);
        if due > now {
            timers.arm(Timer::Liveness, due);
            return None;
        }
        (!self.is_paused).then_some(due - since)
    }

    /// The first `ka` shows that the server sends them, the second one how often; from then on
    /// their absence counts, unless something else arrives.
    pub(crate) fn keep_alive(&mut self, now: Instant, timers: &mut Timers) {
        if let Some(last) = self.last_keep_alive.replace(now) {
            self.keep_alive_interval =
                self.keep_alive_interval.max(now.saturating_duration_since(last));
            timers.arm(Timer::KeepAlive, now + self.keep_alive_patience());
        }
    }

    /// A `ka` may be overdue. Returns how long nothing has arrived, if nothing has.
    pub(crate) fn check_keep_alive(&self, now: Instant, timers: &mut Timers) -> Option<Duration> {
        let patience = self.keep_alive_patience();
        let due = self.last_inbound.unwrap_or(now) + patience;
        if due <= now && !self.is_paused {
            return Some(patience);
        }
        timers.arm(Timer::KeepAlive, if due > now { due } else { now + patience });
        None
    }

    pub(crate) fn pause(&mut self) {
        self.is_paused = true;
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// From when on silence means something; `None` if the socket was always read.
    pub(crate) fn resumed_at(&self) -> Option<Instant> {
        self.resumed_at
    }

    /// The socket is read again. The time until now does not count as silence.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.is_paused = false;
        self.resumed_at = Some(now);
        self.heard(now);
        // It does not count as the server's interval either.
        self.last_keep_alive = None;
    }

    /// The server's longest interval, for the next connection.
    pub(crate) fn keep_alive_interval(&self) -> Duration {
        self.keep_alive_interval
    }

    fn pace(&self, subprotocol: Subprotocol) -> Option<Duration> {
        match subprotocol {
            Subprotocol::GraphqlTransportWs => self.interval,
            Subprotocol::GraphqlWs => self.interval.map(|interval| interval * 2),
        }
    }

    fn keep_alive_patience(&self) -> Duration {
        (self.keep_alive_interval * 3).max(MIN_PATIENCE)
    }
}

/// The least patience with a server that sends `ka`.
const MIN_PATIENCE: Duration = Duration::from_secs(30);
