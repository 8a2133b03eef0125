//! Whether the peer is alive: pings, their answers, and the server's own keepalive (rules 19 to
//! 21).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    Config,
    timers::{Timer, Timers},
};
use crate::protocol::Subprotocol;

/// Anything inbound is a proof of life, not only a pong.
pub(super) struct Liveness {
    interval: Option<Duration>,
    timeout: Duration,
    last_inbound: Option<Instant>,
    /// The first ping since which nothing arrived.
    unanswered: Option<Instant>,
    /// When silence since then is death, sooner than after a ping.
    doubted_until: Option<Instant>,
    /// Pings without a pong, oldest first, for the round-trip time; matched by order, as few
    /// servers echo a payload.
    pings: VecDeque<Instant>,
    last_keep_alive: Option<Instant>,
    /// The longest time seen between two `ka`, on any socket.
    keep_alive_pace: Duration,
    /// The socket is not read: silence means nothing.
    paused: bool,
    /// Since when it is read again.
    resumed_at: Option<Instant>,
}

/// Which kind of ping is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ping {
    Message,
    WebSocket,
}

impl Liveness {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            interval: config.ping_interval,
            timeout: config.ping_timeout,
            last_inbound: None,
            unanswered: None,
            doubted_until: None,
            pings: VecDeque::new(),
            last_keep_alive: None,
            keep_alive_pace: Duration::ZERO,
            paused: false,
            resumed_at: None,
        }
    }

    /// The same server on another socket.
    pub(super) fn of_another_socket(&self, config: &Config) -> Self {
        Self { keep_alive_pace: self.keep_alive_pace, paused: self.paused, ..Self::new(config) }
    }

    /// The connection was acknowledged.
    pub(super) fn open(&mut self, now: Instant, subprotocol: Subprotocol, timers: &mut Timers) {
        if let Some(pace) = self.pace(subprotocol) {
            timers.arm(Timer::Ping, now + pace);
        }
    }

    /// The socket is gone.
    pub(super) fn reset(&mut self) {
        self.last_inbound = None;
        self.unanswered = None;
        self.doubted_until = None;
        self.pings.clear();
        self.last_keep_alive = None;
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_inbound = Some(now);
        self.unanswered = None;
        self.doubted_until = None;
    }

    /// Returns the round-trip time; a pong that nobody asked for has none.
    pub(super) fn pong(&mut self, now: Instant) -> Option<Duration> {
        // One that was never answered must not shift all that follow.
        while self.pings.len() > 1
            && self.interval.is_some_and(|interval| self.pings[0] + interval < now)
        {
            self.pings.pop_front();
        }
        self.pings.pop_front().map(|sent| now.saturating_duration_since(sent))
    }

    /// Modern: a message at every interval, as some servers cut a client that sends none. Legacy: a
    /// WebSocket ping, and only after twice the interval without anything inbound, as servers take
    /// pings badly.
    pub(super) fn ping(
        &mut self,
        now: Instant,
        subprotocol: Subprotocol,
        timers: &mut Timers,
    ) -> Option<Ping> {
        let pace = self.pace(subprotocol)?;
        let ping = match subprotocol {
            Subprotocol::GraphqlTransportWs => Ping::Message,
            Subprotocol::GraphqlWs => {
                let quiet_until = self.last_inbound.unwrap_or(now) + pace;
                if quiet_until > now {
                    timers.arm(Timer::Ping, quiet_until);
                    return None;
                }
                Ping::WebSocket
            }
        };
        timers.arm(Timer::Ping, now + pace);
        let since = *self.unanswered.get_or_insert(now);
        let due = since + self.timeout;
        timers.arm(Timer::Liveness, self.doubted_until.map_or(due, |until| until.min(due)));
        Some(ping)
    }

    /// A ping is sent out of turn, as there is doubt: nothing within `patience` is death.
    pub(super) fn doubt(&mut self, now: Instant, patience: Duration, timers: &mut Timers) {
        self.unanswered.get_or_insert(now);
        let until = self.doubted_until.unwrap_or(now + patience).min(now + patience);
        self.doubted_until = Some(until);
        timers.arm_by(Timer::Liveness, until);
    }

    /// A ping was queued that is to be answered by a pong of its own.
    pub(super) fn pinged(&mut self, now: Instant) {
        if self.pings.len() == MAX_PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back(now);
    }

    /// A ping's time is over. Returns how long nothing arrived, if nothing did.
    pub(super) fn check(&self, now: Instant, timers: &mut Timers) -> Option<Duration> {
        let since = self.unanswered?;
        let due = self.doubted_until.unwrap_or(since + self.timeout).min(since + self.timeout);
        if due > now {
            timers.arm(Timer::Liveness, due);
            return None;
        }
        (!self.paused).then_some(due - since)
    }

    /// The first `ka` shows that the server sends them, the second one how often; from then on
    /// their absence counts, unless something else arrives.
    pub(super) fn keep_alive(&mut self, now: Instant, timers: &mut Timers) {
        if let Some(last) = self.last_keep_alive.replace(now) {
            self.keep_alive_pace = self.keep_alive_pace.max(now.saturating_duration_since(last));
            timers.arm(Timer::KeepAlive, now + self.keep_alive_patience());
        }
    }

    /// A `ka` may be overdue. Returns how long nothing arrived, if nothing did.
    pub(super) fn check_keep_alive(&self, now: Instant, timers: &mut Timers) -> Option<Duration> {
        let patience = self.keep_alive_patience();
        let due = self.last_inbound.unwrap_or(now) + patience;
        if due <= now && !self.paused {
            return Some(patience);
        }
        timers.arm(Timer::KeepAlive, if due > now { due } else { now + patience });
        None
    }

    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// From when on silence means something; `None` if it always did.
    pub(super) fn resumed_at(&self) -> Option<Instant> {
        self.resumed_at
    }

    /// The time until now does not count as silence.
    pub(super) fn resume(&mut self, now: Instant) {
        self.paused = false;
        self.resumed_at = Some(now);
        self.heard(now);
        // Nor as the server's pace.
        self.last_keep_alive = None;
    }

    fn pace(&self, subprotocol: Subprotocol) -> Option<Duration> {
        match subprotocol {
            Subprotocol::GraphqlTransportWs => self.interval,
            Subprotocol::GraphqlWs => self.interval.map(|interval| interval * 2),
        }
    }

    fn keep_alive_patience(&self) -> Duration {
        (self.keep_alive_pace * 3).max(MIN_PATIENCE)
    }
}

/// Unanswered pings that are remembered, for the round-trip time only.
const MAX_PINGS: usize = 16;

/// No `ka` watchdog is more nervous than this.
const MIN_PATIENCE: Duration = Duration::from_secs(30);
