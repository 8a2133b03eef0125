//! The ledger of pings: which ones are not answered, and what their answers prove.
//!
//! A ping remembers the serial of the last operation that was written before it. Its pong proves
//! that the server has read that operation. Keepalive pings overtake the data; a probe is a ping
//! in its place behind the data.
//!
//! Each ping carries a number. WebSocket pongs repeat it (RFC 6455 section 5.5.3), and so do some
//! servers with the payload of a `ping`. Such a pong is matched exactly. Most servers answer
//! `ping` without the payload, and both sides may send a `pong` that nobody asked for: juniper does
//! every 15 s. So a pong without the number answers the oldest ping, and proves only what the pong
//! before it has answered. One unsolicited pong then proves nothing too much.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The pings of one connection.
#[derive(Debug)]
pub(crate) struct Pings {
    interval: Option<Duration>,
    /// Written and not answered, oldest first.
    unanswered: VecDeque<Ping>,
    /// Pings that were written after those and are only counted: a server that leaves so many
    /// unanswered costs no more memory.
    uncounted: u64,
    /// The number of the last ping.
    last_number: u64,
    /// Operations with a serial up to this one were read by the server.
    proven: u64,
    /// What the last pong without a number has answered.
    unconfirmed: u64,
    /// What was proven at some time, and what was proven `SURVIVAL` before that at least.
    recent: (u64, Option<Instant>),
    outlived: u64,
    /// The server has repeated the number of a ping.
    echoes: bool,
    /// A probe is queued or not answered. One is enough: whoever is too late for it gets the next.
    pub(crate) is_probing: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    number: u64,
    /// The last serial that was written before it.
    serial: u64,
    /// When it was queued; `None` for a probe, which waits behind data and measures nothing.
    sent_at: Option<Instant>,
}

impl Pings {
    pub(crate) fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            unanswered: VecDeque::new(),
            uncounted: 0,
            last_number: 0,
            proven: 0,
            unconfirmed: 0,
            recent: (0, None),
            outlived: 0,
            echoes: false,
            is_probing: false,
        }
    }

    /// A ping is written, after everything up to this serial. Returns its number.
    pub(super) fn written(&mut self, serial: u64, sent_at: Option<Instant>) -> u64 {
        self.last_number += 1;
        // A ping that is not remembered must not be followed by one that is: pongs without a number
        // would be matched with the wrong ping.
        if self.unanswered.len() < MAX_UNANSWERED && self.uncounted == 0 {
            self.unanswered.push_back(Ping { number: self.last_number, serial, sent_at });
        } else {
            self.uncounted += 1;
        }
        self.last_number
    }

    /// A pong arrived, with the number of its ping if it has one. Returns the round-trip time if
    /// that was measured.
    pub(crate) fn answered(&mut self, now: Instant, number: Option<u64>) -> Option<Duration> {
        let time = match number {
            Some(number) => self.answered_exactly(now, number),
            // It answers none of our pings.
            None if self.echoes => None,
            None => self.answered_in_order(now),
        };
        // One that is recent is kept, or frequent pongs would let none become old.
        if self.proven > self.recent.0 && Self::is_old(now, self.recent.1) {
            self.outlived = self.recent.0;
            self.recent = (self.proven, Some(now));
        }
        time
    }

    /// The last serial that the server has read without closing the connection afterwards. Only the
    /// time since `read_since` counts, when reading was last resumed.
    pub(crate) fn outlived(&self, now: Instant, read_since: Option<Instant>) -> u64 {
        let (serial, at) = self.recent;
        if Self::is_old(now, at.max(read_since)) { serial } else { self.outlived }
    }

    fn is_old(now: Instant, proven_at: Option<Instant>) -> bool {
        proven_at.is_none_or(|at| now.saturating_duration_since(at) >= SURVIVAL)
    }

    /// Whether the server has read the operation that was written with this serial.
    pub(crate) fn has_read(&self, serial: u64) -> bool {
        serial <= self.proven
    }

    fn answered_exactly(&mut self, now: Instant, number: u64) -> Option<Duration> {
        // Also if a pong without a number has taken its place.
        self.echoes |= (1..=self.last_number).contains(&number);
        let index = self.unanswered.iter().position(|ping| ping.number == number);
        let Some(index) = index else {
            if number == self.last_number && self.uncounted > 0 {
                // Everything before it is answered as well, but what it proves was not kept.
                self.unanswered.clear();
                self.uncounted = 0;
                self.is_probing = false;
            }
            return None;
        };
        let ping = self.unanswered[index];
        for answered in self.unanswered.drain(..=index) {
            self.is_probing &= answered.sent_at.is_some();
        }
        self.proven = self.proven.max(ping.serial);
        ping.sent_at.map(|at| now.saturating_duration_since(at))
    }

    fn answered_in_order(&mut self, now: Instant) -> Option<Duration> {
        let Some(ping) = self.unanswered.pop_front() else {
            if self.uncounted > 0 {
                self.uncounted -= 1;
                // The probe may have been one of those.
                self.is_probing &= self.uncounted > 0;
            }
            return None;
        };
        self.proven = std::mem::replace(&mut self.unconfirmed, ping.serial);
        self.is_probing &= ping.sent_at.is_some();
        self.sent_at(ping, now).map(|at| now.saturating_duration_since(at))
    }

    /// When the ping was sent that is answered now, if this one was the next to be answered.
    fn sent_at(&self, next: Ping, now: Instant) -> Option<Instant> {
        let first = next.sent_at?;
        let all = || {
            let later = self.unanswered.iter().filter_map(|ping| ping.sent_at);
            std::iter::once(first).chain(later)
        };
        // An answer that never came shifts all that follow: then this one is of a later ping.
        let is_late = |at: &Instant| self.interval.is_some_and(|interval| *at + interval < now);
        all().find(|at| !is_late(at)).or(all().last())
    }
}

/// If a connection lives for this long after a pong, what was written before that ping does not
/// close it. Quarantine waits as long as this at most.
const SURVIVAL: Duration = Duration::from_secs(4);

/// How many unanswered pings are remembered.
pub(crate) const MAX_UNANSWERED: usize = 16;
