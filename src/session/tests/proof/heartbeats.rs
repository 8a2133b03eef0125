//! Servers that send pongs of their own accord, and answer pings in their own time: nothing counts
//! as read before the server has read it, and everything is proven in the end.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// A server that reads in order, with what is under way in both directions.
struct Server {
    rig: Rig,
    subprotocol: Subprotocol,
    /// Its pongs repeat the payload of the ping.
    echoes: bool,
    unread: VecDeque<Value>,
    pongs: VecDeque<Option<u64>>,
    /// Operations that it has read.
    read: BTreeSet<u64>,
    /// Operations that somebody waits for.
    asked: BTreeSet<u64>,
    /// The client knows that pongs without a number are no answers.
    is_known_to_echo: bool,
    /// It has sent a pong of its own accord since everything was answered.
    has_beaten: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe,
    /// Any operation ever made.
    Ask(prop::sample::Index),
    Cancel(prop::sample::Index),
    Read(usize),
    Deliver(usize),
    Heartbeat(Option<Value>),
    /// Until so many keepalive pings were due.
    Pass(u64),
    Reconnect,
}

impl Server {
    fn new(subprotocol: Subprotocol, echoes: bool) -> Self {
        let config =
            Config { ping_timeout: secs(1_000_000), idle_timeout: None, ..fixed(subprotocol) };
        let mut rig = Rig::new(config);
        rig.subscribe();
        let mut server = Self {
            rig,
            subprotocol,
            echoes,
            unread: VecDeque::new(),
            pongs: VecDeque::new(),
            read: BTreeSet::new(),
            asked: BTreeSet::new(),
            is_known_to_echo: false,
            has_beaten: false,
        };
        server.connect();
        server
    }

    fn connect(&mut self) {
        (self.unread, self.pongs, self.read) = Default::default();
        (self.is_known_to_echo, self.has_beaten) = (false, false);
        let did = self.rig.connect();
        self.sent(did).unwrap();
    }

    /// The client did this.
    fn sent(&mut self, did: Vec<Did>) -> Result<(), TestCaseError> {
        for did in did {
            match did {
                Did::Established(id) => {
                    prop_assert!(self.read.contains(&id), "{id} is not read yet");
                    prop_assert!(self.asked.remove(&id), "told once");
                }
                Did::Wrote(message) => self.unread.push_back(message),
                Did::WrotePing(number) => {
                    self.unread.push_back(json!({"type": "ping", "payload": {"n": number}}));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let made = usize::try_from(self.rig.next_id - 1).unwrap();
        match step {
            Step::Subscribe => {
                let id = self.rig.subscribe();
                self.ask(id);
            }
            Step::Ask(index) => self.ask(1 + index.index(made) as u64),
            Step::Cancel(index) => {
                let id = 1 + index.index(made) as u64;
                self.rig.cancel(id);
                self.asked.remove(&id);
            }
            Step::Read(most) => self.read(*most),
            Step::Deliver(most) => self.deliver(*most)?,
            Step::Heartbeat(payload) => self.beat(payload.as_ref())?,
            Step::Pass(times) => {
                let did = self.rig.pass(secs(20 * times));
                self.sent(did)?;
            }
            Step::Reconnect => {
                if self.rig.session.live_operations() == 0 {
                    self.rig.subscribe();
                }
                // No loss, so that nobody is quarantined.
                self.rig.session.reconnect_now(self.rig.now);
                self.connect();
            }
        }
        let did = self.rig.take();
        self.sent(did)
    }

    fn ask(&mut self, id: u64) {
        if self.rig.session.operations.get(id).is_some() {
            self.asked.insert(id);
            self.rig.session.probe(id);
        }
    }

    fn read(&mut self, most: usize) {
        for _ in 0..most {
            let Some(message) = self.unread.pop_front() else { return };
            match message["type"].as_str().unwrap() {
                "subscribe" | "start" => {
                    self.read
                        .insert(message["payload"]["query"].as_str().unwrap().parse().unwrap());
                }
                "ping" => {
                    let number = message["payload"]["n"].as_u64().unwrap();
                    self.pongs.push_back(self.echoes.then_some(number));
                }
                _ => {}
            }
        }
    }

    fn deliver(&mut self, most: usize) -> Result<(), TestCaseError> {
        for _ in 0..most {
            let Some(number) = self.pongs.pop_front() else { break };
            let did = match (self.subprotocol, number) {
                (MODERN, None) => self.rig.receive(pong()),
                (MODERN, Some(number)) => self.rig.receive(echo(number)),
                (LEGACY, number) => {
                    self.rig.session.handle_pong(self.rig.now, ConnectionId::A, number);
                    self.rig.take()
                }
            };
            self.is_known_to_echo |= number.is_some();
            self.sent(did)?;
        }
        self.has_beaten &= !(self.unread.is_empty() && self.pongs.is_empty());
        Ok(())
    }

    /// A pong that answers nothing overtakes those that do. If the client cannot tell it from an
    /// answer there is only one until everything is answered: a heartbeat is slower than that.
    fn beat(&mut self, payload: Option<&Value>) -> Result<(), TestCaseError> {
        let looks_like_an_answer = payload.is_none_or(|payload| payload["n"].as_u64().is_none());
        if looks_like_an_answer && !self.is_known_to_echo {
            if self.has_beaten {
                return Ok(());
            }
            self.has_beaten = true;
        }
        let did = match (self.subprotocol, payload) {
            (MODERN, None) => self.rig.receive(pong()),
            (MODERN, Some(payload)) => {
                self.rig.receive(json!({"type": "pong", "payload": payload}))
            }
            (LEGACY, payload) => {
                let number = payload.and_then(|payload| payload["n"].as_u64());
                self.rig.session.handle_pong(self.rig.now, ConnectionId::A, number);
                self.rig.take()
            }
        };
        self.sent(did)
    }

    /// The server goes on for as long as anything is to be done.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..100 {
            self.read(usize::MAX);
            self.deliver(usize::MAX)?;
        }
        prop_assert!(self.asked.is_empty(), "never proven: {:?}", self.asked);
        Ok(())
    }
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let payloads = vec![
        None,
        Some(json!(null)),
        Some(json!({"heartbeat": true})),
        Some(json!({"n": "1"})),
        // No ping has this number.
        Some(json!({"n": 1_000_000})),
    ];
    prop_oneof![
        8 => Just(Step::Subscribe),
        3 => index().prop_map(Step::Ask),
        1 => index().prop_map(Step::Cancel),
        10 => (1..4_usize).prop_map(Step::Read),
        10 => (1..4_usize).prop_map(Step::Deliver),
        3 => prop::sample::select(payloads).prop_map(Step::Heartbeat),
        6 => Just(Step::Pass(1)),
        // More than are remembered.
        1 => (1..20_u64).prop_map(Step::Pass),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(1_000),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_is_established_before_it_is_read_and_everything_is_in_the_end(
        steps in prop::collection::vec(step(), 0..100),
        (subprotocol, echoes) in
            prop::sample::select(vec![(MODERN, true), (MODERN, false), (LEGACY, true)]),
    ) {
        let mut server = Server::new(subprotocol, echoes);
        for step in &steps {
            server.run(step)?;
        }
        server.settle()?;
    }
}

/// Juniper answers a `ping` with an empty `pong`, and sends another one after the acknowledgement
/// and every 15 s, whatever it has read by then.
#[test]
fn a_heartbeat_every_fifteen_seconds_proves_nothing_that_was_not_read() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut server = Server::new(MODERN, false);
        let begun_at = server.rig.now;
        let mut proven = 0;
        // The time from one to the other, and back; a heartbeat is not behind.
        let delay = Duration::from_millis(rng.u64(1..100));
        let (mut reads, mut arrivals) = (VecDeque::<Instant>::new(), VecDeque::<Instant>::new());
        let mut next_heartbeat = begun_at + secs(15).mul_f64(rng.f64());
        while server.rig.now < begun_at + secs(600) {
            let asks = rng.u8(..4) == 0;
            if asks {
                server.run(&Step::Subscribe).unwrap();
            }
            while reads.len() < server.unread.len() {
                reads.push_back(server.rig.now + delay);
            }
            let until = server.rig.now + Duration::from_millis(rng.u64(1..3_000));
            loop {
                let due = [reads.front(), arrivals.front(), Some(&next_heartbeat)];
                let Some(at) = due.into_iter().flatten().min().copied().filter(|at| *at <= until)
                else {
                    break;
                };
                let did = server.rig.pass(at - server.rig.now);
                server.sent(did).unwrap();
                if reads.front() == Some(&at) {
                    reads.pop_front();
                    let before = server.pongs.len();
                    server.read(1);
                    arrivals.extend((before < server.pongs.len()).then_some(at + delay));
                } else if arrivals.front() == Some(&at) {
                    arrivals.pop_front();
                    let before = server.asked.len();
                    server.deliver(1).unwrap();
                    proven += before - server.asked.len();
                } else {
                    server.has_beaten = false;
                    server.beat(None).unwrap();
                    next_heartbeat += secs(15);
                }
                while reads.len() < server.unread.len() {
                    reads.push_back(server.rig.now + delay);
                }
            }
            let did = server.rig.pass(until - server.rig.now);
            server.sent(did).unwrap();
        }
        assert!(proven > 20, "{proven} in ten minutes, {delay:?} away");
    }
}
