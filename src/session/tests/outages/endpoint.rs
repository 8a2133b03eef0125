//! An endpoint that is down now and then, with the client that it has.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::{
    refusals::{Refusal, close},
    *,
};

pub(super) struct Endpoint {
    session: Session<u64>,
    now: Instant,
    origin: Instant,
    rng: Rng,
    subprotocol: Subprotocol,
    /// Until the client finds out that nothing comes any more.
    patience: Duration,
    /// How many items each has received.
    streams: BTreeMap<u64, u64>,
    wires: [Option<Wire>; 2],
    attempts: u64,
    events: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    outage: Option<Outage>,
    /// Since the outage began.
    dials: u64,
    /// What was said last to an attempt that failed.
    said: String,
    ended: Option<u64>,
    log: Option<Vec<String>>,
}

/// One connection, or an attempt at one.
struct Wire {
    age: u64,
    is_dialed: bool,
    /// It says nothing any more.
    is_silent: bool,
    operations: BTreeMap<String, u64>,
    refusal: Option<Refusal>,
}

enum Outage {
    /// Every attempt fails in this way.
    Of(Box<Refusal>),
    /// Each fails in a way of its own.
    OfAll,
}

enum Event {
    Granted(ConnectionId, u64),
    Dialed(ConnectionId, u64),
    Up(ConnectionId, u64, String),
    Down(ConnectionId, u64, String),
    Pong(ConnectionId, u64),
    Lost(ConnectionId, u64, Disconnect),
    Publish(u64),
}

type Checked = Result<(), &'static str>;

impl Endpoint {
    #[expect(clippy::disallowed_methods, reason = "an origin, never read again")]
    pub(super) fn new(seed: u64, is_logged: bool) -> Self {
        let (now, mut rng) = (Instant::now(), Rng::with_seed(seed));
        let subprotocol = if rng.u8(..4) == 0 { LEGACY } else { MODERN };
        let interval = secs(rng.u64(10..60));
        let config = Config {
            subprotocol: (subprotocol == LEGACY || rng.bool()).then_some(subprotocol),
            ping_interval: Some(interval),
            seed,
            ..config()
        };
        // On the legacy subprotocol the client asks half as often.
        let patience = interval * 2 + config.ping_timeout;
        Self {
            session: Session::new(config),
            now,
            origin: now,
            rng,
            subprotocol,
            patience,
            streams: BTreeMap::new(),
            wires: [None, None],
            attempts: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            outage: None,
            dials: 0,
            said: String::new(),
            ended: None,
            log: is_logged.then(Vec::new),
        }
    }

    /// Some hours, with some outages.
    pub(super) fn run(&mut self) -> Checked {
        for id in 1..=self.rng.u64(1..6) {
            let request = Request {
                kind: OperationType::Subscription,
                payload: format!("{{\"query\":\"{id}\"}}").into(),
                deadline: None,
                watch_options: None,
                is_resumable: false,
            };
            self.session.subscribe(self.now, id, request, id);
            self.streams.insert(id, 0);
            // For the others nothing is published while all goes well.
            if self.rng.bool() {
                self.schedule(secs(30), Event::Publish(id));
            }
        }
        for _ in 0..self.rng.u64(3..7) {
            let calm = secs(self.rng.u64(60..4_000));
            self.pass(calm)?;
            self.check_carried()?;
            self.fail()?;
            self.pass(CAP + self.patience + secs(15))?;
            self.log(|| "it should be back".into());
            self.check_carried()?;
        }
        self.check_received()
    }

    /// The endpoint is down for a while.
    fn fail(&mut self) -> Checked {
        let duration = Duration::from_millis(self.rng.u64(1_000..240_000));
        let refusal = Refusal::random(&mut self.rng);
        self.log(|| format!("is down for {duration:?}: {refusal:?}"));
        self.outage = Some(match self.rng.u8(..3) {
            0 => Outage::OfAll,
            _ => Outage::Of(Box::new(refusal)),
        });
        self.dials = 0;
        for id in ConnectionId::ALL {
            let is_silent = self.rng.u8(..6) == 0;
            let cause = close(&mut self.rng);
            let Some(wire) = &mut self.wires[id as usize] else { continue };
            let age = wire.age;
            self.said = cause.to_string();
            if is_silent {
                wire.is_silent = true;
            } else {
                self.lose(id, age, Duration::ZERO, cause);
            }
        }
        self.pass(duration)?;
        self.outage = None;
        self.log(|| "is up again".into());
        // The first few are as quick as they may be.
        if self.dials > 20 + 2 * duration.as_secs() {
            return Err("the endpoint is not dialed over and over");
        }
        Ok(())
    }

    /// Every stream is on a connection.
    fn check_carried(&self) -> Checked {
        let wires = self.wires.iter().flatten().filter(|wire| !wire.is_silent);
        let carried = wires.flat_map(|wire| wire.operations.values()).collect::<Vec<_>>();
        if self.streams.keys().all(|id| carried.contains(&id)) {
            Ok(())
        } else {
            Err("every stream goes on")
        }
    }

    /// Every stream gets what is published.
    fn check_received(&mut self) -> Checked {
        let before: Vec<_> = self.streams.values().copied().collect();
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.publish(id);
        }
        self.pass(secs(2))?;
        if self.streams.values().zip(before).all(|(received, before)| *received > before) {
            Ok(())
        } else {
            Err("every stream gets what is published")
        }
    }

    pub(super) fn age(&self) -> Duration {
        self.now - self.origin
    }

    /// What was said last to an attempt that failed.
    pub(super) fn said(&self) -> String {
        self.said.clone()
    }

    pub(super) fn take_log(&mut self) -> Vec<String> {
        self.log.take().unwrap_or_default()
    }

    fn log(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:10.3} {}", (self.now - self.origin).as_secs_f64(), line()));
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now + after, self.scheduled), event);
    }

    fn pass(&mut self, duration: Duration) -> Checked {
        let until = self.now + duration;
        let mut at_once = 0;
        self.perform();
        loop {
            if self.ended.is_some() {
                return Err("no stream ends");
            }
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let timer = self.session.poll_timeout();
            let Some(at) = event.into_iter().chain(timer).min().filter(|at| *at <= until) else {
                self.now = until;
                return Ok(());
            };
            at_once = if at > self.now { 0 } else { at_once + 1 };
            if at_once > 1_000 {
                return Err("time goes on");
            }
            self.now = self.now.max(at);
            if event.is_some_and(|event| event <= at) {
                if let Some((_, event)) = self.events.pop_first() {
                    self.happen(event);
                }
            } else {
                self.session.handle_timeout(self.now);
            }
            self.perform();
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Granted(id, age) if self.has(id, age) => {
                self.session.handle_credentials(now, id, Ok(granted()));
            }
            Event::Dialed(id, age) if self.has(id, age) => self.dialed(id, age),
            Event::Up(id, age, text) if self.has(id, age) => self.hear(id, age, &text),
            Event::Down(id, age, text) if self.has(id, age) => {
                if let Some(item) = self.session.handle_frame(now, id, &text) {
                    let stream = *item.writer;
                    self.received(stream);
                }
            }
            Event::Pong(id, age) if self.has(id, age) => self.session.handle_pong(now, id, None),
            Event::Lost(id, age, cause) if self.has(id, age) => {
                self.log(|| format!("{id:?} is lost: {cause}"));
                self.session.handle_lost(now, id, cause);
            }
            Event::Publish(stream) => {
                self.publish(stream);
                let next = secs(self.rng.u64(20..120));
                self.schedule(next, Event::Publish(stream));
            }
            // That connection is gone.
            Event::Granted(..)
            | Event::Dialed(..)
            | Event::Up(..)
            | Event::Down(..)
            | Event::Pong(..)
            | Event::Lost(..) => {}
        }
    }

    fn has(&self, id: ConnectionId, age: u64) -> bool {
        self.wires[id as usize].as_ref().is_some_and(|wire| wire.age == age)
    }

    fn received(&mut self, stream: u64) {
        *self.streams.entry(stream).or_default() += 1;
    }

    /// The socket is there, or is not to be had.
    fn dialed(&mut self, id: ConnectionId, age: u64) {
        let refusal = match &self.outage {
            None => None,
            Some(Outage::Of(refusal)) => Some((**refusal).clone()),
            Some(Outage::OfAll) => Some(Refusal::random(&mut self.rng)),
        };
        if let Some(refusal) = &refusal {
            self.said = format!("{refusal:?}");
        }
        match &refusal {
            Some(Refusal::NoAnswer) => return,
            Some(Refusal::Dial(cause)) => return self.lose(id, age, LATENCY, cause.clone()),
            _ => {}
        }
        if let Some(wire) = &mut self.wires[id as usize] {
            wire.is_dialed = true;
            wire.refusal = refusal;
        }
        self.session.handle_open(self.now, id);
    }

    fn lose(&mut self, id: ConnectionId, age: u64, after: Duration, cause: Disconnect) {
        self.schedule(after, Event::Lost(id, age, cause));
    }

    fn say(&mut self, id: ConnectionId, age: u64, text: impl Into<String>) {
        self.schedule(LATENCY, Event::Down(id, age, text.into()));
    }

    /// The endpoint reads a message.
    fn hear(&mut self, id: ConnectionId, age: u64, text: &str) {
        let Some(wire) = self.wires[id as usize].as_mut().filter(|wire| !wire.is_silent) else {
            return;
        };
        let message = read(text);
        let wire_id = message["id"].as_str().unwrap_or_default();
        match message["type"].as_str().unwrap() {
            "connection_init" => {
                let refusal = wire.refusal.clone();
                self.greet(id, age, refusal);
            }
            "subscribe" | "start" => {
                let stream = message["payload"]["query"].as_str().unwrap().parse().unwrap();
                wire.operations.insert(wire_id.to_owned(), stream);
            }
            "complete" | "stop" => drop(wire.operations.remove(wire_id)),
            "ping" => self.say(id, age, r#"{"type":"pong"}"#),
            _ => {}
        }
    }

    fn greet(&mut self, id: ConnectionId, age: u64, refusal: Option<Refusal>) {
        match refusal {
            Some(Refusal::BeforeAcknowledgement(cause)) => {
                return self.lose(id, age, LATENCY, cause);
            }
            Some(Refusal::ConnectionError) => {
                let refused = r#"{"type":"connection_error","payload":{"message":"down"}}"#;
                return self.say(id, age, refused);
            }
            Some(Refusal::NoAcknowledgement) => return,
            Some(Refusal::AfterAcknowledgement(after, cause)) => {
                self.lose(id, age, LATENCY + after, cause);
            }
            Some(Refusal::Silence) => {
                if let Some(wire) = &mut self.wires[id as usize] {
                    wire.is_silent = true;
                }
            }
            Some(Refusal::Dial(_) | Refusal::NoAnswer) | None => {}
        }
        self.say(id, age, r#"{"type":"connection_ack"}"#);
    }

    fn publish(&mut self, stream: u64) {
        let name = if self.subprotocol == LEGACY { "data" } else { "next" };
        for id in ConnectionId::ALL {
            let Some(wire) = &self.wires[id as usize] else { continue };
            let carried = wire.operations.iter().find(|(_, carried)| **carried == stream);
            if let (Some((wire_id, _)), false) = (carried, wire.is_silent) {
                let age = wire.age;
                let item =
                    format!(r#"{{"type":"{name}","id":"{wire_id}","payload":{{"data":1}}}}"#);
                self.say(id, age, item);
            }
        }
    }

    /// Everything that the session wants done.
    fn perform(&mut self) {
        loop {
            let mut is_busy = false;
            while let Some(output) = self.session.poll_output() {
                is_busy = true;
                self.carry_out(output);
            }
            for id in ConnectionId::ALL {
                while self.wires[id as usize].as_ref().is_some_and(|wire| wire.is_dialed) {
                    let Some(transmit) = self.session.poll_transmit(id) else { break };
                    is_busy = true;
                    let age = self.wires[id as usize].as_ref().map_or(0, |wire| wire.age);
                    match transmit {
                        Transmit::Text(text) => self.schedule(LATENCY, Event::Up(id, age, text)),
                        Transmit::Ping(_) => self.ping(id, age),
                        Transmit::Close(code, _) => self.lose(id, age, LATENCY, closed(code.0)),
                    }
                }
            }
            if !is_busy {
                return;
            }
        }
    }

    fn ping(&mut self, id: ConnectionId, age: u64) {
        if self.wires[id as usize].as_ref().is_some_and(|wire| !wire.is_silent) {
            self.schedule(LATENCY * 2, Event::Pong(id, age));
        }
    }

    fn carry_out(&mut self, output: Output<u64>) {
        match output {
            Output::Authorize(id, _) => {
                self.attempts += 1;
                self.wires[id as usize] = Some(Wire {
                    age: self.attempts,
                    is_dialed: false,
                    is_silent: false,
                    operations: BTreeMap::new(),
                    refusal: None,
                });
                self.schedule(LATENCY, Event::Granted(id, self.attempts));
            }
            Output::Dial(id, subprotocol) => {
                self.dials += 1;
                self.log(|| format!("{id:?} is dialed, {subprotocol}"));
                let age = self.wires[id as usize].as_ref().map_or(0, |wire| wire.age);
                if subprotocol == self.subprotocol {
                    self.schedule(LATENCY, Event::Dialed(id, age));
                } else {
                    let refused = ConnectError::Subprotocol { offered: "" };
                    self.lose(id, age, LATENCY, Disconnect::Connect(refused));
                }
            }
            Output::Hangup(id, _) => self.wires[id as usize] = None,
            Output::Deliver { id, writer, mut backlog } => {
                while backlog.pop().is_some() {
                    self.received(writer);
                }
                self.session.delivered(self.now, id, backlog);
            }
            Output::Finish { writer, end } => {
                self.log(|| format!("{writer} ends: {}", describe(&end)));
                self.ended = Some(writer);
            }
            Output::Reissue { .. }
            | Output::Resume { .. }
            | Output::Gap { .. }
            | Output::Refused(..)
            | Output::Unattributed(_)
            | Output::Established { .. }
            | Output::Stale { .. }
            | Output::AskIfTransient { .. }
            | Output::Connected(_)
            | Output::Rotated(_)
            | Output::Postponed(_)
            | Output::Status(_)
            | Output::Ended => {}
        }
    }
}

/// One way.
const LATENCY: Duration = Duration::from_millis(20);

/// Of the backoff.
const CAP: Duration = Duration::from_secs(30);
