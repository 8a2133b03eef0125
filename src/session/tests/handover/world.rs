//! A server with up to two sockets, messages that take their time, and readers that check what they
//! get.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{reader::Reader, *};

/// What lies between the client and the server on one connection, and what the server knows of it.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; the session has the state machine"
)]
pub(super) struct Wire {
    pub(super) asked: bool,
    pub(super) dialing: bool,
    pub(super) open: bool,
    pub(super) init: bool,
    pub(super) acked: bool,
    pub(super) up: VecDeque<Transmit>,
    pub(super) down: VecDeque<Down>,
    /// By id on the wire.
    pub(super) carried: BTreeMap<String, u64>,
    pub(super) ids: BTreeSet<String>,
    pub(super) completed: BTreeSet<String>,
    /// What is published and not sent yet; what is completed by then never is.
    pub(super) unsent: VecDeque<(String, Value)>,
    /// Read, and not begun yet: by id on the wire, and after which item it goes on.
    pub(super) pending: Vec<(String, u64, Option<u64>)>,
    /// The client has read their end.
    over: BTreeSet<String>,
    /// What was ever read here.
    pub(super) read: BTreeSet<u64>,
}

pub(super) enum Down {
    Text(Value),
    Pong,
    Garbage,
    Lost(Disconnect),
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
    /// Every gap that was announced, of whichever reader.
    pub(super) gaps: Vec<Gap>,
    /// Begin what is subscribed only when told to, or before time passes.
    pub(super) lazy: bool,
    /// Take every end of a subscription for a passing one.
    pub(super) restarts: bool,
    /// The sockets that are open are not read.
    pub(super) stalled: bool,
    /// Completed after the server had ended it.
    pub(super) said_twice: Vec<String>,
    pub(super) call_timeout: Duration,
    pub(super) waits_for_rotation: bool,
    pub(super) waits_for_connection: bool,
    pub(super) over: bool,
}

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
            gaps: Vec::new(),
            lazy: false,
            restarts: false,
            stalled: false,
            said_twice: Vec::new(),
            call_timeout: CALL_TIMEOUT,
            waits_for_rotation: false,
            waits_for_connection: false,
            over: false,
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
        self.readers.insert(id, Reader::new(self.rig.is_resumable));
        id
    }

    pub(super) fn call(&mut self, kind: OperationType) -> u64 {
        // Nobody asks for that with a call.
        let watch_options = std::mem::take(&mut self.rig.watch_options);
        let id = self.rig.begin(kind);
        self.rig.watch_options = watch_options;
        self.calls.insert(id, kind);
        // It may be refused.
        if self.rig.session.operations.get(id).is_some() {
            self.rig.session.operations.set_deadline(id, self.rig.now + self.call_timeout);
        }
        id
    }

    pub(super) fn cancel(&mut self, id: u64) {
        self.rig.cancel(id);
        self.readers.remove(&id);
        self.calls.remove(&id);
    }

    /// The socket is gone, with what is under way on it.
    pub(super) fn lose(&mut self, on: ConnectionId, cause: Disconnect) -> Tried {
        let wire = &mut self.wires[on as usize];
        if wire.asked || !(wire.dialing || wire.open) {
            return Ok(());
        }
        self.rig.session.handle_lost(self.rig.now, on, cause);
        self.perform()
    }

    pub(super) fn fail_credentials(&mut self, on: ConnectionId) -> Tried {
        if std::mem::take(&mut self.wires[on as usize].asked) {
            let error = crate::error::CredentialsError::transient("not now");
            self.rig.session.handle_credentials(self.rig.now, on, Err(error));
        }
        self.perform()
    }

    /// The next thing on the way to a socket happens.
    pub(super) fn advance(&mut self, on: ConnectionId) -> Tried {
        let wire = &mut self.wires[on as usize];
        if std::mem::take(&mut wire.asked) {
            let granted = Granted { lifetime: self.lifetime, ..granted() };
            self.rig.session.handle_credentials(self.rig.now, on, Ok(granted));
        } else if std::mem::take(&mut wire.dialing) {
            wire.open = true;
            self.rig.session.handle_open(self.rig.now, on);
        }
        self.perform()
    }

    /// The client's socket takes so many messages.
    pub(super) fn write(&mut self, on: ConnectionId, most: usize) {
        for _ in 0..most {
            let Some(transmit) = self.rig.session.poll_transmit(on) else { return };
            if let Transmit::Text(text) = &transmit {
                let message = read(text);
                let is_over = message["id"]
                    .as_str()
                    .is_some_and(|id| self.wires[on as usize].over.contains(id));
                if is_over && message["type"] == "complete" && self.rig.session.is_live(on) {
                    self.said_twice.push(text.clone());
                }
            }
            self.wires[on as usize].up.push_back(transmit);
        }
    }

    /// The client reads a message.
    pub(super) fn down(&mut self, on: ConnectionId) -> Result<bool, TestCaseError> {
        if self.stalled && self.rig.session.is_live(on) {
            return Ok(false);
        }
        if self.wires[on as usize].down.is_empty() {
            self.send(on);
        }
        let Some(down) = self.wires[on as usize].down.pop_front() else { return Ok(false) };
        match down {
            Down::Garbage => drop(self.rig.session.handle_frame(self.rig.now, on, "{]")),
            Down::Pong => self.rig.session.handle_pong(self.rig.now, on, None),
            Down::Lost(cause) => self.rig.session.handle_lost(self.rig.now, on, cause),
            Down::Text(message) => {
                if message["type"] == "connection_ack" {
                    self.wires[on as usize].acked = true;
                }
                if message["type"] == "complete" {
                    self.wires[on as usize].over.insert(message["id"].as_str().unwrap().to_owned());
                }
                let frame = message.to_string();
                let item = self.rig.session.handle_frame(self.rig.now, on, &frame);
                if let Some((id, payload)) =
                    item.map(|item| (*item.writer, read(&frame[item.payload])))
                {
                    self.receive(id, &payload)?;
                }
            }
        }
        self.perform()?;
        Ok(true)
    }

    /// An item arrived. Returns whether its reader takes more.
    fn receive(&mut self, id: u64, payload: &Value) -> Result<bool, TestCaseError> {
        prop_assert!(!self.ends.contains_key(&id), "I1: nothing follows the end");
        // Cancelled: its reader is gone.
        let Some(reader) = self.readers.get_mut(&id) else { return Ok(false) };
        let takes_more = reader.receive(payload["data"].as_u64().unwrap())?;
        if !takes_more {
            self.rig.session.rewind(id);
        }
        Ok(takes_more)
    }

    /// The reader has caught up.
    pub(super) fn read(&mut self, id: u64) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.room = None;
            self.rig.session.catch_up(self.rig.now, id);
        }
    }

    fn mark(&mut self, id: u64, gap: Gap) -> Tried {
        self.readers.get_mut(&id).map_or(Ok(()), |reader| reader.mark(&gap))?;
        self.gaps.push(gap);
        Ok(())
    }

    /// The operations that the server has on a connection.
    pub(super) fn carried(&self, on: ConnectionId) -> Vec<u64> {
        let mut carried: Vec<_> = self.wires[on as usize].carried.values().copied().collect();
        carried.sort_unstable();
        carried
    }

    /// Says where a subscription goes on that is about to be sent.
    fn resume(&mut self, id: u64) {
        if let Some(after) = self.readers.get_mut(&id).and_then(Reader::position) {
            let payload = json!({"query": id.to_string(), "variables": {"after": after}});
            self.rig.session.resume_from(id, Some(payload.to_string().into()));
        }
    }

    pub(super) fn perform(&mut self) -> Tried {
        prop_assert!(self.said_twice.is_empty(), "rule 13: {:?}", self.said_twice);
        while let Some(output) = self.rig.session.poll_output() {
            match output {
                Output::Authorize(on, reason) => {
                    let wire = &mut self.wires[on as usize];
                    prop_assert!(
                        !wire.asked && !wire.dialing && !wire.open,
                        "one attempt at a time for a connection"
                    );
                    wire.asked = true;
                    let reason = match reason {
                        CredentialsReason::Initial => "initial",
                        CredentialsReason::Reconnect => "reconnect",
                        CredentialsReason::Expiring => "expiring",
                        CredentialsReason::Rejected { .. } => "rejected",
                    };
                    self.asked.push((self.rig.now, reason));
                }
                Output::Dial(on, _) => self.wires[on as usize].dialing = true,
                Output::Hangup(on, close) => {
                    if self.wires[on as usize].open {
                        self.closes.extend(close.map(|(code, _)| code.0));
                    }
                    self.wires[on as usize] = Wire::default();
                }
                Output::Reissue { writer, gap } => {
                    self.resume(writer);
                    self.mark(writer, gap)?;
                }
                Output::Resume { writer } => self.resume(writer),
                Output::Gap { writer, gap } => self.mark(writer, gap)?,
                Output::Refused(..) | Output::Unattributed(_) | Output::Status(_) => {}
                Output::Deliver { id, writer, mut backlog } => {
                    while let Some(HeldItem { frame, payload }) = backlog.pop() {
                        if !self.receive(writer, &read(&frame[payload]))? {
                            break;
                        }
                    }
                    self.rig.session.delivered(self.rig.now, id, backlog);
                }
                Output::Finish { writer, end } => {
                    prop_assert!(self.ends.insert(writer, describe(&end)).is_none(), "I1: one end");
                    self.readers.remove(&writer);
                }
                Output::Rotated(answer) => {
                    self.rotated += u32::from(answer.is_ok());
                    self.waits_for_rotation = false;
                }
                Output::Postponed(_) => self.postponed += 1,
                Output::Ended => {
                    self.wires = Default::default();
                    self.over = true;
                }
                Output::Established { writer } => {
                    // Which one was current by then is not known here: it may be lost by now.
                    prop_assert!(
                        self.wires.iter().any(|wire| wire.read.contains(&writer)),
                        "{writer} was not read"
                    );
                    self.established.push(writer);
                }
                Output::Stale { writer, .. } => self.stale.push(writer),
                Output::AskIfTransient { writer, end } => {
                    if self.restarts {
                        self.rig.session.restart(self.rig.now, writer);
                    } else {
                        self.rig.cancel(writer);
                        prop_assert!(
                            self.ends.insert(writer, describe(&end)).is_none(),
                            "I1: one end"
                        );
                        self.readers.remove(&writer);
                    }
                }
                Output::Connected(_) => self.waits_for_connection = false,
            }
        }
        Ok(())
    }

    /// Everything that is under way arrives; no time passes.
    pub(super) fn settle(&mut self) -> Tried {
        self.perform()?;
        for _ in 0..10_000 {
            let mut busy = false;
            for on in ConnectionId::ALL {
                let wire = &self.wires[on as usize];
                busy |= wire.asked || wire.dialing;
                self.advance(on)?;
                self.send(on);
                self.write(on, usize::MAX);
                while self.up(on)? {
                    busy = true;
                }
                self.begin(on);
                while self.down(on)? {
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
        let mut timers = 0;
        while let Some(at) = self.rig.session.poll_timeout().filter(|&at| at <= until) {
            timers = if at > self.rig.now { 0 } else { timers + 1 };
            prop_assert!(timers < 20, "it spins");
            self.rig.now = self.rig.now.max(at);
            self.rig.session.handle_timeout(self.rig.now);
            self.perform()?;
            self.flush()?;
        }
        self.rig.now = until;
        Ok(())
    }

    /// Time passes, in which only this connection works.
    pub(super) fn live_on(&mut self, on: ConnectionId, duration: Duration) -> Tried {
        let until = self.rig.now + duration;
        while self.rig.now < until {
            self.pass(secs(1))?;
            while self.down(on)? {}
        }
        Ok(())
    }

    /// The server has read all that was written.
    fn flush(&mut self) -> Tried {
        for on in ConnectionId::ALL {
            self.send(on);
            self.write(on, usize::MAX);
            while self.up(on)? {}
            self.begin(on);
        }
        Ok(())
    }

    /// As `pass`, and everything arrives in time.
    pub(super) fn live(&mut self, duration: Duration) -> Tried {
        let until = self.rig.now + duration;
        let mut timers = 0;
        loop {
            self.settle()?;
            let Some(at) = self.rig.session.poll_timeout().filter(|&at| at <= until) else {
                self.rig.now = until;
                return Ok(());
            };
            timers = if at > self.rig.now { 0 } else { timers + 1 };
            prop_assert!(timers < 20, "it spins");
            self.rig.now = self.rig.now.max(at);
            self.rig.session.handle_timeout(self.rig.now);
        }
    }

    /// As `live`, with two items a second for every subscription: what both connections say.
    pub(super) fn live_busily(&mut self, duration: Duration) -> Tried {
        let until = self.rig.now + duration;
        while self.rig.now < until {
            self.publish_all();
            self.publish_all();
            self.live(secs(1))?;
        }
        Ok(())
    }

    /// Every subscription is carried once, on one socket, and nothing else is.
    pub(super) fn check_settled(&self) -> Tried {
        let open: Vec<_> = self.wires.iter().filter(|wire| wire.open).collect();
        prop_assert!(open.len() <= 1, "one socket");
        let carried: Vec<_> = open.iter().flat_map(|wire| wire.carried.values()).copied().collect();
        let mut sorted = carried.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, self.readers.keys().copied().collect::<Vec<_>>());
        prop_assert!(self.rig.session.other().is_none());
        prop_assert!(!self.rig.session.is_moving());
        prop_assert_eq!(self.rig.session.operations.held_bytes(), 0);
        Ok(())
    }
}
