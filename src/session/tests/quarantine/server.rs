//! A server by rules, not by script.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::{
    world::{Event, World},
    *,
};

pub(super) struct Server {
    /// How long a message takes.
    pub(super) latency: Duration,
    /// Which operations close the connection, how long after they have arrived, and how.
    pub(super) bad: BTreeMap<u64, (Duration, Disconnect)>,
    /// Queries and mutations, and how often each was executed.
    pub(super) calls: BTreeMap<u64, u32>,
    pub(super) answers: Answers,
    /// The result of a call comes in two parts.
    pub(super) defers: bool,
    pub(super) pongs: Pongs,
    /// How many pings have arrived.
    pub(super) pings: u32,
    pub(super) down: Option<Down>,
    pub(super) flaps: Option<Flaps>,
    /// How long a connection lives that carries anything, and how it ends.
    pub(super) age: Option<(Duration, Disconnect)>,
    /// One more is refused before it is acknowledged.
    pub(super) most_sockets: usize,
    pub(super) sockets: [Option<Socket>; 2],
}

/// Which good operations get an item as soon as they arrive.
#[derive(Clone, PartialEq)]
pub(super) enum Answers {
    AtOnce,
    Never,
    AtOnceExcept(BTreeSet<u64>),
}

/// How pings are answered.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Pongs {
    WithTheNumber,
    WithoutTheNumber,
    Never,
}

/// Every operation closes the connection, after between nothing and this.
pub(super) struct Down {
    pub(super) until: Instant,
    pub(super) most: Duration,
    pub(super) cause: Disconnect,
    pub(super) rng: Rng,
}

/// Connections end at random.
pub(super) struct Flaps {
    pub(super) mean: Duration,
    pub(super) cause: Disconnect,
    pub(super) rng: Rng,
}

/// What the server knows of one socket.
#[derive(Default)]
pub(super) struct Socket {
    is_acknowledged: bool,
    /// By id on the wire.
    pub(super) carried: BTreeMap<String, u64>,
    ids: BTreeSet<String>,
}

impl Server {
    pub(super) fn new(answers: Answers) -> Self {
        Self {
            latency: Duration::from_millis(2),
            bad: BTreeMap::new(),
            calls: BTreeMap::new(),
            answers,
            defers: false,
            pongs: Pongs::WithoutTheNumber,
            pings: 0,
            down: None,
            flaps: None,
            age: None,
            most_sockets: 2,
            sockets: [None, None],
        }
    }

    fn is_answered(&self, id: u64) -> bool {
        match &self.answers {
            Answers::AtOnce => true,
            Answers::Never => false,
            Answers::AtOnceExcept(silent) => !silent.contains(&id),
        }
    }
}

impl World {
    pub(super) fn accept(&mut self, on: ConnectionId) {
        self.server.sockets[on as usize] = Some(Socket::default());
    }

    /// The server closes a socket.
    pub(super) fn close(&mut self, on: ConnectionId, cause: Disconnect) {
        if self.server.sockets[on as usize].take().is_some() {
            self.schedule(on, self.server.latency, Event::Lost(cause));
        }
    }

    /// The server closes a socket over this operation, unless that was completed in time.
    pub(super) fn break_over(&mut self, on: ConnectionId, wire_id: &str, cause: Disconnect) {
        let socket = self.server.sockets[on as usize].as_ref();
        if socket.is_some_and(|socket| socket.carried.contains_key(wire_id)) {
            self.close(on, cause);
        }
    }

    fn say(&mut self, on: ConnectionId, message: Value) {
        self.schedule(on, self.server.latency, Event::Down(message));
    }

    /// A message arrives at the server.
    pub(super) fn hear(&mut self, on: ConnectionId, transmit: Transmit) {
        let latency = self.server.latency;
        let Some(socket) = &mut self.server.sockets[on as usize] else { return };
        let message = match transmit {
            Transmit::Text(text) => read(&text),
            Transmit::Ping(number) => {
                self.server.pings += 1;
                if self.server.pongs != Pongs::Never {
                    self.schedule(on, latency, Event::Pong(number));
                }
                return;
            }
            Transmit::Close(code, _) => return self.close(on, closed(code.0)),
        };
        let wire_id = message["id"].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str().unwrap() {
            "connection_init" => self.initialize(on),
            "subscribe" | "start" => {
                assert!(socket.is_acknowledged, "rule 5: nothing before the acknowledgement");
                assert!(socket.ids.insert(wire_id.clone()), "rule 9: {wire_id} was used");
                let id = message["payload"]["query"].as_str().unwrap().parse().unwrap();
                self.begin_on_server(on, wire_id, id);
            }
            "complete" | "stop" => {
                socket.carried.remove(&wire_id);
            }
            "ping" => {
                self.server.pings += 1;
                match self.server.pongs {
                    Pongs::WithTheNumber => {
                        self.say(on, json!({"type": "pong", "payload": message["payload"]}));
                    }
                    Pongs::WithoutTheNumber => self.say(on, json!({"type": "pong"})),
                    Pongs::Never => {}
                }
            }
            _ => {}
        }
    }

    fn initialize(&mut self, on: ConnectionId) {
        if self.server.sockets.iter().flatten().count() > self.server.most_sockets {
            return self.close(on, closed(4429));
        }
        if let Some(socket) = &mut self.server.sockets[on as usize] {
            socket.is_acknowledged = true;
        }
        self.say(on, json!({"type": "connection_ack"}));
        if let Some(Flaps { mean, cause, rng }) = &mut self.server.flaps {
            let life = mean.mul_f64(-(1.0 - rng.f64()).ln());
            let cause = cause.clone();
            self.schedule(on, life, Event::Doom(cause));
        }
    }

    fn begin_on_server(&mut self, on: ConnectionId, wire_id: String, id: u64) {
        let now = self.rig.now;
        let Some(socket) = &mut self.server.sockets[on as usize] else { return };
        let is_first = socket.carried.is_empty();
        socket.carried.insert(wire_id.clone(), id);
        if let Some(times) = self.server.calls.get_mut(&id) {
            *times += 1;
        }
        if let Some((age, cause)) = self.server.age.clone().filter(|_| is_first) {
            self.schedule(on, age, Event::Doom(cause));
        }
        if let Some(down) = self.server.down.as_mut().filter(|down| now < down.until) {
            let after = down.most.mul_f64(down.rng.f64());
            let cause = down.cause.clone();
            return self.schedule(on, after, Event::Break(wire_id, cause));
        }
        if let Some((after, cause)) = self.server.bad.get(&id).cloned() {
            return self.schedule(on, after, Event::Break(wire_id, cause));
        }
        if self.server.is_answered(id) {
            let is_call = self.server.calls.contains_key(&id);
            if is_call && self.server.defers {
                let first = json!({"data": 1, "hasNext": true});
                self.say(on, json!({"type": "next", "id": wire_id, "payload": first}));
                let last = json!({"hasNext": false});
                self.say(on, json!({"type": "next", "id": wire_id, "payload": last}));
            } else {
                self.say(on, json!({"type": "next", "id": wire_id, "payload": {"data": 1}}));
            }
            if is_call {
                self.say(on, json!({"type": "complete", "id": wire_id}));
                if let Some(socket) = &mut self.server.sockets[on as usize] {
                    socket.carried.remove(&wire_id);
                }
            }
        }
    }

    /// Something arrives for every good operation on the current connection.
    pub(super) fn publish(&mut self) {
        let on = self.rig.session.current;
        let Some(socket) = &self.server.sockets[on as usize] else { return };
        let Server { bad, .. } = &self.server;
        let good = socket.carried.iter().filter(|(_, id)| !bad.contains_key(id));
        for wire_id in good.map(|(wire_id, _)| wire_id.clone()).collect::<Vec<_>>() {
            self.say(on, json!({"type": "next", "id": wire_id, "payload": {"data": 1}}));
        }
    }
}
