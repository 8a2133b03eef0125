//! A server with up to two sockets, messages that take their time, and readers that check what they get.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::test_runner::TestCaseError;

use super::*;

/// What lies between the client and the server on one leg, and what the server knows of it.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; the session has the state machine")]
pub(super) struct Wire {
    pub(super) asked: bool,
    pub(super) dialing: bool,
    pub(super) open: bool,
    init: bool,
    pub(super) acked: bool,
    up: VecDeque<Transmit>,
    down: VecDeque<Down>,
    /// By id on the wire.
    pub(super) carried: BTreeMap<String, u64>,
    ids: BTreeSet<String>,
    completed: BTreeSet<String>,
}

enum Down {
    Text(Value),
    Pong,
    Lost(Disconnect),
}

/// What one reader saw.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) published: u64,
    pub(super) last: Option<u64>,
    /// A gap was announced since the last item.
    gap: bool,
    overlap: bool,
    pub(super) gaps: u32,
    pub(super) overlaps: u32,
    pub(super) repeated: u64,
}

#[expect(clippy::struct_excessive_bools, reason = "each is an oddity of its own of one server")]
pub(super) struct World {
    pub(super) rig: Rig,
    pub(super) wires: [Wire; 2],
    pub(super) readers: BTreeMap<u64, Reader>,
    pub(super) calls: BTreeMap<u64, OperationType>,
    pub(super) executed: BTreeMap<u64, u32>,
    pub(super) ends: BTreeMap<u64, String>,
    pub(super) lifetime: Option<Duration>,
    pub(super) asked: Vec<(Instant, &'static str)>,
    pub(super) postponed: u32,
    pub(super) rotated: u32,
    pub(super) closes: Vec<u16>,
    /// Answer calls only when told to.
    pub(super) slow_calls: bool,
    /// Answer no ping.
    pub(super) mute: bool,
    /// Say goodbye after every acknowledgement.
    pub(super) farewell: bool,
    pub(super) established: Vec<u64>,
    pub(super) stale: Vec<u64>,
}

type Tried = Result<(), TestCaseError>;

impl World {
    pub(super) fn new(config: Config) -> Self {
        Self {
            rig: Rig::new(config),
            wires: Default::default(),
            readers: BTreeMap::new(),
            calls: BTreeMap::new(),
            executed: BTreeMap::new(),
            ends: BTreeMap::new(),
            lifetime: None,
            asked: Vec::new(),
            postponed: 0,
            rotated: 0,
            closes: Vec::new(),
            slow_calls: false,
            mute: false,
            farewell: false,
            established: Vec::new(),
            stale: Vec::new(),
        }
    }

    /// With so many subscriptions on an open connection.
    pub(super) fn open(config: Config, subscriptions: u64) -> Self {
        let mut world = Self::new(config);
        for _ in 0..subscriptions {
            world.subscribe();
        }
        world.settle().unwrap();
        world
    }

    pub(super) fn subscribe(&mut self) -> u64 {
        let id = self.rig.subscribe();
        self.readers.insert(id, Reader::default());
        id
    }

    pub(super) fn call(&mut self, kind: OperationType) -> u64 {
        let id = self.rig.begin(kind);
        self.calls.insert(id, kind);
        id
    }

    pub(super) fn cancel(&mut self, id: u64) {
        self.rig.cancel(id);
        self.readers.remove(&id);
        self.calls.remove(&id);
    }

    /// The server publishes an event, wherever this is subscribed.
    pub(super) fn publish(&mut self, id: u64) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        reader.published += 1;
        let n = reader.published;
        for wire in &mut self.wires {
            for (wire_id, _) in wire.carried.iter().filter(|(_, carried)| **carried == id) {
                let item = json!({"type": "next", "id": wire_id, "payload": {"data": n}});
                wire.down.push_back(Down::Text(item));
            }
        }
    }

    pub(super) fn publish_all(&mut self) {
        let ids: Vec<_> = self.readers.keys().copied().collect();
        for id in ids {
            self.publish(id);
        }
    }

    /// The server ends what it carries there.
    pub(super) fn end(&mut self, leg: LegId, index: usize) {
        let wire = &mut self.wires[leg as usize];
        let subscriptions = wire.carried.iter().filter(|(_, id)| self.readers.contains_key(id));
        let Some(wire_id) = subscriptions.map(|(wire_id, _)| wire_id.clone()).nth(index) else { return };
        wire.carried.remove(&wire_id);
        wire.down.push_back(Down::Text(json!({"type": "complete", "id": wire_id})));
    }

    /// The socket is gone, with what is under way on it.
    pub(super) fn lose(&mut self, leg: LegId, cause: Disconnect) -> Tried {
        let wire = &mut self.wires[leg as usize];
        if wire.asked || !(wire.dialing || wire.open) {
            return Ok(());
        }
        self.rig.session.handle_lost(self.rig.now, leg, cause);
        self.perform()
    }

    pub(super) fn fail_credentials(&mut self, leg: LegId) -> Tried {
        if std::mem::take(&mut self.wires[leg as usize].asked) {
            let error = crate::error::CredentialsError::transient("not now");
            self.rig.session.handle_credentials(self.rig.now, leg, Err(error));
        }
        self.perform()
    }

    /// The next thing on the way to a socket happens.
    pub(super) fn advance(&mut self, leg: LegId) -> Tried {
        let wire = &mut self.wires[leg as usize];
        if std::mem::take(&mut wire.asked) {
            let granted = Granted { lifetime: self.lifetime, ..granted() };
            self.rig.session.handle_credentials(self.rig.now, leg, Ok(granted));
        } else if std::mem::take(&mut wire.dialing) {
            wire.open = true;
            self.rig.session.handle_open(self.rig.now, leg);
        }
        self.perform()
    }

    /// The client's socket takes so many messages.
    pub(super) fn write(&mut self, leg: LegId, most: usize) {
        for _ in 0..most {
            let Some(transmit) = self.rig.session.poll_transmit(leg) else { return };
            self.wires[leg as usize].up.push_back(transmit);
        }
    }

    /// The server reads a message.
    pub(super) fn up(&mut self, leg: LegId) -> Result<bool, TestCaseError> {
        let Some(transmit) = self.wires[leg as usize].up.pop_front() else { return Ok(false) };
        let wire = &mut self.wires[leg as usize];
        let message = match transmit {
            Transmit::Text(text) => serde_json::from_str::<Value>(&text).unwrap(),
            Transmit::Ping => {
                wire.down.extend((!self.mute).then_some(Down::Pong));
                return Ok(true);
            }
            Transmit::Close(code, _) => {
                self.closes.push(code.0);
                wire.carried.clear();
                wire.down.push_back(Down::Lost(closed(code.0)));
                return Ok(true);
            }
        };
        let wire_id = message["id"].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str().unwrap() {
            "connection_init" => {
                prop_assert!(!std::mem::replace(&mut wire.init, true), "rule 4: one init for each socket");
                wire.down.push_back(Down::Text(json!({"type": "connection_ack"})));
                wire.down.extend(self.farewell.then(|| Down::Text(json!({"type": "connection_terminate"}))));
            }
            "ping" => wire.down.extend((!self.mute).then(|| Down::Text(json!({"type": "pong"})))),
            "subscribe" | "start" => {
                prop_assert!(wire.acked, "rule 5: nothing before the acknowledgement");
                prop_assert!(wire.ids.insert(wire_id.clone()), "rule 9: {wire_id} was used");
                let id: u64 = message["payload"]["query"].as_str().unwrap().parse().unwrap();
                prop_assert!(!wire.carried.values().any(|carried| *carried == id), "I2: once on each socket");
                wire.carried.insert(wire_id, id);
                if self.calls.contains_key(&id) || !self.readers.contains_key(&id) {
                    *self.executed.entry(id).or_default() += 1;
                    if !self.slow_calls {
                        self.answer(leg);
                    }
                }
            }
            "complete" | "stop" => {
                prop_assert!(wire.ids.contains(&wire_id), "rule 12: {wire_id} is not known here");
                prop_assert!(wire.completed.insert(wire_id.clone()), "{wire_id} was completed");
                wire.carried.remove(&wire_id);
            }
            "pong" | "connection_terminate" => {}
            other => prop_assert!(false, "{other}"),
        }
        Ok(true)
    }

    /// The server answers the calls that it has there.
    pub(super) fn answer(&mut self, leg: LegId) {
        let wire = &mut self.wires[leg as usize];
        let calls: Vec<_> = wire.carried.iter().filter(|(_, id)| !self.readers.contains_key(id)).collect();
        let calls: Vec<_> = calls.into_iter().map(|(wire_id, _)| wire_id.clone()).collect();
        for wire_id in calls {
            wire.carried.remove(&wire_id);
            wire.down.push_back(Down::Text(json!({"type": "next", "id": wire_id, "payload": {"data": 1}})));
            wire.down.push_back(Down::Text(json!({"type": "complete", "id": wire_id})));
        }
    }

    /// The client reads a message.
    pub(super) fn down(&mut self, leg: LegId) -> Result<bool, TestCaseError> {
        let Some(down) = self.wires[leg as usize].down.pop_front() else { return Ok(false) };
        match down {
            Down::Pong => self.rig.session.handle_pong(self.rig.now, leg),
            Down::Lost(cause) => self.rig.session.handle_lost(self.rig.now, leg, cause),
            Down::Text(message) => {
                if message["type"] == "connection_ack" {
                    self.wires[leg as usize].acked = true;
                }
                let frame = message.to_string();
                let item = self.rig.session.handle_frame(self.rig.now, leg, &frame);
                if let Some((id, payload)) = item.map(|item| (*item.sink, read(&frame[item.payload]))) {
                    self.receive(id, &payload)?;
                }
            }
        }
        self.perform()?;
        Ok(true)
    }

    fn receive(&mut self, id: u64, payload: &Value) -> Tried {
        prop_assert!(!self.ends.contains_key(&id), "I1: nothing follows the end");
        // Cancelled: its reader is gone.
        let Some(reader) = self.readers.get_mut(&id) else { return Ok(()) };
        let n = payload["data"].as_u64().unwrap();
        if let (Some(last), false) = (reader.last, reader.gap) {
            let repeats = reader.overlap && n <= last;
            prop_assert!(n == last + 1 || repeats, "{id}: {n} after {last}, overlap {}", reader.overlap);
            reader.repeated += u64::from(n <= last);
        }
        (reader.last, reader.gap, reader.overlap) = (Some(n), false, false);
        Ok(())
    }

    fn mark(&mut self, id: u64, gap: &Gap) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        if gap.overlaps > 0 {
            reader.overlap = true;
            reader.overlaps += 1;
        }
        if gap.reconnects + gap.restarts > 0 {
            reader.gap = true;
            reader.gaps += 1;
        }
    }

    pub(super) fn perform(&mut self) -> Tried {
        while let Some(output) = self.rig.session.poll_output() {
            match output {
                Output::Authorize(leg, reason) => {
                    let wire = &mut self.wires[leg as usize];
                    prop_assert!(!wire.asked && !wire.dialing && !wire.open, "one attempt at a time on a leg");
                    wire.asked = true;
                    let reason = match reason {
                        CredentialsReason::Initial => "initial",
                        CredentialsReason::Reconnect => "reconnect",
                        CredentialsReason::Expiring => "expiring",
                        CredentialsReason::Rejected { .. } => "rejected",
                    };
                    self.asked.push((self.rig.now, reason));
                }
                Output::Dial(leg, _) => self.wires[leg as usize].dialing = true,
                Output::Hangup(leg, close) => {
                    if self.wires[leg as usize].open {
                        self.closes.extend(close.map(|(code, _)| code.0));
                    }
                    self.wires[leg as usize] = Wire::default();
                }
                Output::Reissue { sink, gap } => {
                    if let Some(gap) = gap {
                        self.mark(sink, &gap);
                    }
                }
                Output::Moved { sink, gap } => self.mark(sink, &gap),
                Output::Deliver { sink, frame, payload, .. } => self.receive(sink, &read(&frame[payload]))?,
                Output::Finish { sink, end } => {
                    prop_assert!(self.ends.insert(sink, describe(&end)).is_none(), "I1: one end");
                    self.readers.remove(&sink);
                }
                Output::Rotated(answer) => self.rotated += u32::from(answer.is_ok()),
                Output::Postponed(_) => self.postponed += 1,
                Output::Ended => self.wires = Default::default(),
                Output::Established { sink } => self.established.push(sink),
                Output::Stale { sink, .. } => self.stale.push(sink),
                Output::Judge { .. } | Output::Connected(_) | Output::Status(_) => {}
            }
        }
        Ok(())
    }

    /// Everything that is under way arrives; no time passes.
    pub(super) fn settle(&mut self) -> Tried {
        self.perform()?;
        for _ in 0..10_000 {
            let mut busy = false;
            for leg in LegId::ALL {
                let wire = &self.wires[leg as usize];
                busy |= wire.asked || wire.dialing;
                self.advance(leg)?;
                self.write(leg, usize::MAX);
                while self.up(leg)? {
                    busy = true;
                }
                while self.down(leg)? {
                    busy = true;
                }
            }
            if !busy {
                return Ok(());
            }
        }
        prop_assert!(false, "it never settles");
        Ok(())
    }

    /// Time passes, timer by timer; what is written arrives within that.
    pub(super) fn pass(&mut self, duration: Duration) -> Tried {
        let until = self.rig.now + duration;
        self.flush()?;
        while let Some(at) = self.rig.session.poll_timeout().filter(|&at| at <= until) {
            self.rig.now = self.rig.now.max(at);
            self.rig.session.handle_timeout(self.rig.now);
            self.perform()?;
            self.flush()?;
        }
        self.rig.now = until;
        Ok(())
    }

    /// Time passes, in which only this leg works.
    pub(super) fn live_on(&mut self, leg: LegId, duration: Duration) -> Tried {
        let until = self.rig.now + duration;
        while self.rig.now < until {
            self.pass(secs(1))?;
            while self.down(leg)? {}
        }
        Ok(())
    }

    /// The server has read all that was written.
    fn flush(&mut self) -> Tried {
        for leg in LegId::ALL {
            self.write(leg, usize::MAX);
            while self.up(leg)? {}
        }
        Ok(())
    }

    /// As `pass`, and everything arrives in time.
    pub(super) fn live(&mut self, duration: Duration) -> Tried {
        let until = self.rig.now + duration;
        loop {
            self.settle()?;
            let Some(at) = self.rig.session.poll_timeout().filter(|&at| at <= until) else {
                self.rig.now = until;
                return Ok(());
            };
            self.rig.now = self.rig.now.max(at);
            self.rig.session.handle_timeout(self.rig.now);
        }
    }

    /// Every subscription is carried once, on one socket, and nothing else is.
    pub(super) fn check_settled(&self) -> Tried {
        let open: Vec<_> = self.wires.iter().filter(|wire| wire.open).collect();
        prop_assert!(open.len() <= 1, "one socket");
        let carried: Vec<_> = open.iter().flat_map(|wire| wire.carried.values()).copied().collect();
        let mut sorted = carried.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, self.readers.keys().copied().collect::<Vec<_>>());
        prop_assert!(self.rig.session.other.is_none());
        prop_assert!(!self.rig.session.is_moving());
        Ok(())
    }
}
