//! A server by rules, not by script, for what takes many connections.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;

use super::*;

/// A server that closes the connection over some documents, with the clock that it shares with the
/// client.
pub(super) struct World {
    pub(super) rig: Rig,
    /// Which operations close the connection, how long after they arrived, and how.
    pub(super) bad: BTreeMap<u64, (Duration, Disconnect)>,
    /// Whether a good one gets an item at once.
    pub(super) answers: Answers,
    /// Until then every operation closes the connection.
    pub(super) down_until: Instant,
    pub(super) down: Disconnect,
    /// Random ends of connections: their mean life, and how they end.
    pub(super) flaps: Option<(Rng, Duration, Disconnect)>,
    /// When the current connection ends, and how.
    pub(super) doomed: Option<(Instant, Disconnect)>,
    pub(super) losses: u32,
    /// What the current connection carries, by id on the wire.
    pub(super) carried: BTreeMap<String, u64>,
    pub(super) ends: Vec<(u64, String)>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Answers {
    AtOnce,
    Never,
}

impl World {
    pub(super) fn new(config: Config, answers: Answers) -> Self {
        let rig = Rig::new(config);
        Self {
            down_until: rig.now,
            down: closed(4500),
            rig,
            bad: BTreeMap::new(),
            answers,
            flaps: None,
            doomed: None,
            losses: 0,
            carried: BTreeMap::new(),
            ends: Vec::new(),
        }
    }

    /// With this many good operations, which are cleared.
    pub(super) fn with_cleared(config: Config, good: u64) -> Self {
        let mut world = Self::new(config, Answers::AtOnce);
        world.subscribe_all(good);
        world.pass(secs(1));
        world.answers = Answers::Never;
        world
    }

    pub(super) fn subscribe_all(&mut self, good: u64) {
        for _ in 0..good {
            self.rig.subscribe();
        }
    }

    pub(super) fn subscribe_bad(&mut self, kind: OperationType, cause: &Disconnect) -> u64 {
        let id = self.rig.next_id;
        self.bad.insert(id, (Duration::from_millis(20), cause.clone()));
        self.rig.begin(kind)
    }

    pub(super) fn pass(&mut self, duration: Duration) {
        self.pass_until(self.rig.now + duration, |_| false);
    }

    /// Returns whether it came to that within an hour.
    pub(super) fn reach(&mut self, wanted: impl Fn(&Self) -> bool) -> bool {
        self.pass_until(self.rig.now + secs(3_600), wanted)
    }

    fn pass_until(&mut self, until: Instant, wanted: impl Fn(&Self) -> bool) -> bool {
        let did = self.rig.take();
        self.perform(did);
        loop {
            if wanted(self) {
                return true;
            }
            let doom = self.doomed.as_ref().map(|doomed| doomed.0);
            let Some(at) = self
                .rig
                .session
                .poll_timeout()
                .into_iter()
                .chain(doom)
                .min()
                .filter(|at| *at <= until)
            else {
                self.rig.now = until;
                return false;
            };
            self.rig.now = self.rig.now.max(at);
            let did = if let Some((_, cause)) = self.doomed.take_if(|doomed| doomed.0 <= at) {
                self.losses += 1;
                self.rig.lose(cause)
            } else {
                self.rig.session.handle_timeout(self.rig.now);
                self.rig.take()
            };
            self.perform(did);
        }
    }

    pub(super) fn perform(&mut self, did: Vec<Did>) {
        let mut did = VecDeque::from(did);
        while let Some(next) = did.pop_front() {
            match next {
                Did::Authorize(_) => did.extend(self.rig.dial()),
                Did::Dial(_) => {
                    self.rig.session.handle_open(self.rig.now, ConnectionId::A);
                    did.extend(self.rig.receive(json!({"type": "connection_ack"})));
                    if let Some((rng, mean, cause)) = &mut self.flaps {
                        let life = mean.mul_f64(-(1.0 - rng.f64()).ln());
                        self.doomed = Some((self.rig.now + life, cause.clone()));
                    }
                }
                Did::Hangup(_) => {
                    self.doomed = None;
                    self.carried.clear();
                }
                Did::Finish(id, end) => self.ends.push((id, end)),
                Did::Wrote(message) => did.extend(self.hear(&message)),
                Did::Deliver(..)
                | Did::Reissue(..)
                | Did::Moved(..)
                | Did::Rotated(_)
                | Did::Postponed(_)
                | Did::Stale(..)
                | Did::Judge(..)
                | Did::Established(_)
                | Did::Connected(_)
                | Did::Connecting(_)
                | Did::Open
                | Did::Waiting(_)
                | Did::Idle
                | Did::Paused
                | Did::Ended
                | Did::WroteClose(_)
                | Did::WrotePing(_) => {}
            }
        }
    }

    fn hear(&mut self, message: &Value) -> Vec<Did> {
        let wire_id = message["id"].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str().unwrap() {
            "subscribe" | "start" => {
                let id = message["payload"]["query"].as_str().unwrap().parse().unwrap();
                self.carried.insert(wire_id.clone(), id);
                let down =
                    (self.rig.now < self.down_until).then(|| (Duration::ZERO, self.down.clone()));
                if let Some((delay, cause)) = down.or_else(|| self.bad.get(&id).cloned()) {
                    let at = self.rig.now + delay;
                    if self.doomed.as_ref().is_none_or(|doomed| doomed.0 > at) {
                        self.doomed = Some((at, cause));
                    }
                } else if self.answers == Answers::AtOnce {
                    return self
                        .rig
                        .receive(json!({"type": "next", "id": wire_id, "payload": {"data": 1}}));
                }
            }
            "complete" | "stop" => {
                self.carried.remove(&wire_id);
            }
            "ping" => return self.rig.receive(json!({"type": "pong"})),
            _ => {}
        }
        Vec::new()
    }

    /// Every live operation, and nothing else, is on the current connection.
    pub(super) fn all_are_carried(&self) -> bool {
        self.carried.len() == self.rig.session.live_operations()
    }

    pub(super) fn held(&self) -> usize {
        let operations = &self.rig.session.operations;
        operations
            .iter()
            .filter(|operation| matches!(operation.place(), crate::session::operations::Place::Waiting(crate::session::operations::Why::Quarantine)))
            .count()
    }
}
