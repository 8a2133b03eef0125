//! The clock, and everything that happens on it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    faults::{Fault, Outage},
    oracle::{Checked, broken},
    performer::Performer,
    reader::{Pace, Reader},
    setting::{Kind, Setting},
    wire::{Feed, Stage, Wire},
};
use crate::{
    client::{
        Client, Retries,
        pool::{ConnectionHandle, Pool},
    },
    delivery::{Overflow, mailbox::Limits},
    session::{ConnectionId, Granted},
};

pub(super) struct World {
    pub(super) now: Instant,
    origin: Instant,
    pub(super) rng: Rng,
    /// How many closes with a code that points at an operation were planned.
    pub(super) strong_closes: u32,
    pub(super) setting: Setting,
    pub(super) client: Client,
    pub(super) performer: Performer,
    pub(super) feeds: Vec<Feed>,
    /// `None` once the application has dropped the stream.
    pub(super) readers: Vec<Option<Reader>>,
    pub(super) wires: [Option<Wire>; 2],
    /// How many connections were begun.
    attempts: u64,
    events: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    pub(super) outage: Option<Outage>,
    trouble_until: Instant,
    /// Connections that died.
    pub(super) losses: u32,
    log: Option<Vec<String>>,
}

/// What happens at some time. What is about a connection names its age, as another may have taken
/// its place.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Publish(usize),
    /// The credentials are there.
    Granted(ConnectionId, u64),
    /// The socket is there, or is not to be had.
    Dialed(ConnectionId, u64),
    Acknowledge(ConnectionId, u64),
    Up(ConnectionId, u64),
    Down(ConnectionId, u64),
    Begin(ConnectionId, u64, String),
    Send(ConnectionId, u64, String),
    Complete(ConnectionId, u64, String),
    /// A reader reads, if it is slow.
    Read(usize),
    /// A reader that read nothing for a while goes on.
    WakeUp(usize),
    Fault(Fault),
    /// Nothing but time passes: something that was stopped goes on.
    GoOn,
    /// The faults are over.
    Calm,
}

/// What a fault may follow on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Asked,
    Dialing,
    Open,
    Greeted,
    Acknowledged,
    Subscribed,
    Begun,
    Sent,
    Completed,
    Closed,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "an origin, never read again")]
    pub(super) fn new(seed: u64, is_calm: bool, runtime: Handle, is_logged: bool) -> Self {
        let now = Instant::now();
        let mut rng = Rng::with_seed(seed);
        let setting = Setting::random(&mut rng);
        let setting = if is_calm { setting.calm() } else { setting };
        let (commands, receiver) = mpsc::unbounded_channel();
        let retries = Retries { runtime, base: Duration::ZERO, cap: Duration::ZERO, seed: 0 };
        let connection = ConnectionHandle::new(commands, Arc::default(), Arc::new(retries), None);
        let limits = Limits {
            items: 1_000.try_into().unwrap(),
            bytes: (1 << 24).try_into().unwrap(),
            overflow: Overflow::DropOldest,
        };
        Self {
            now,
            origin: now,
            rng,
            strong_closes: 0,
            client: Client::new(Pool::without_driver(connection), limits, 1 << 20),
            performer: Performer::new(setting.config.clone(), receiver),
            feeds: Vec::new(),
            readers: Vec::new(),
            wires: [None, None],
            attempts: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            outage: None,
            trouble_until: now + setting.trouble,
            losses: 0,
            log: is_logged.then(|| vec![format!("{setting:?}")]),
            setting,
        }
    }

    /// A whole history: faults, then a time to recover, then what must work again.
    pub(super) fn run(&mut self) -> Checked {
        for _ in 0..self.rng.usize(1..4) {
            self.subscribe();
        }
        if self.rng.u8(..4) == 0 {
            self.subscribe_shared();
        }
        self.plan_faults();
        self.schedule(self.trouble_until, Event::Calm);
        self.pass_until(self.trouble_until + RECOVERY)?;
        // So that none is said to be stale, and begun anew, while it is looked at.
        (0..self.feeds.len()).for_each(|feed| self.publish(feed));
        self.pass_until(self.now + Duration::from_millis(1_500))?;
        for reader in self.readers.iter_mut().flatten() {
            reader.seen.owe(self.feeds[reader.feed].head());
        }
        self.log(|| "from here on everything is owed".into());
        for _ in 0..6 {
            (0..self.feeds.len()).for_each(|feed| self.publish(feed));
            self.pass_until(self.now + Duration::from_millis(1_500))?;
        }
        for feed in &mut self.feeds {
            feed.is_read = false;
        }
        self.pass_until(self.now + Duration::from_secs(2))?;
        for reader in self.readers.iter_mut().flatten() {
            reader.seen.check_owed(self.feeds[reader.feed].head())?;
        }
        self.check_stale()
    }

    /// Who wants to know that nothing comes is told.
    fn check_stale(&mut self) -> Checked {
        let limits = self.readers.iter().flatten().filter(|reader| !reader.seen.is_over);
        let Some(most) = limits.filter_map(|reader| reader.kind.idle_longer_than).max() else {
            return Ok(());
        };
        self.log(|| "from here on nothing is published".into());
        let before: Vec<_> = self.readers.iter().flatten().map(|it| it.seen.stale).collect();
        self.pass_until(self.now + most + Duration::from_secs(15))?;
        let Setting { config, lifetime, server, .. } = &self.setting;
        let is_replaced = config.max_connection_age.or(*lifetime).is_some();
        for (reader, before) in self.readers.iter().flatten().zip(before) {
            let is_watched = reader.kind.idle_longer_than.is_some() && !reader.seen.is_over;
            // What comes again is a sign of life, too.
            let is_repeated = server.repeats_position || reader.kind.is_odd;
            let hears_repetitions = is_replaced && reader.kind.resumes && is_repeated;
            if is_watched && !hears_repetitions && reader.seen.stale == before {
                let said = format!("f{}: {:?}", reader.feed, reader.kind);
                return broken("a stream for which nothing comes is said to be stale", said);
            }
        }
        Ok(())
    }

    /// The application subscribes to something that nobody else reads.
    pub(super) fn subscribe(&mut self) {
        let kind = self.kind();
        let feed = self.feed(kind);
        self.read(feed, kind);
    }

    /// Several readers of one operation.
    fn subscribe_shared(&mut self) {
        let kind = self.kind().shared(&mut self.rng);
        let feed = self.feed(kind);
        for _ in 0..2 {
            let kind = self.kind().shared(&mut self.rng);
            self.read(feed, kind);
        }
    }

    fn kind(&mut self) -> Kind {
        let kind = Kind::random(&mut self.rng);
        if self.setting.is_calm { kind.calm() } else { kind }
    }

    fn feed(&mut self, kind: Kind) -> usize {
        let paces = if kind.is_calm { 1 } else { 4 };
        let pace = Duration::from_millis([200, 1_500, 5_000, 20_000][self.rng.usize(..paces)]);
        let mut feed = Feed::new(self.now, pace, kind);
        // Before anybody asked.
        feed.published.extend((0..self.rng.usize(..4)).map(|_| self.now));
        self.feeds.push(feed);
        let (feed, at) = (self.feeds.len() - 1, self.soon(2_000));
        self.schedule(at, Event::Publish(feed));
        feed
    }

    pub(super) fn read(&mut self, feed: usize, kind: Kind) {
        let is_slow = self.is_troubled() && !kind.is_calm && self.rng.u8(..100) < 35;
        let pace = if is_slow {
            let every = Duration::from_millis(self.rng.u64(300..8_000));
            Pace::Slow { every, most: self.rng.usize(1..20) }
        } else {
            Pace::Fast
        };
        let reader = Reader::new(&self.client, feed, kind, pace, self.now);
        self.readers.push(Some(reader));
        let reader = self.readers.len() - 1;
        self.log(|| format!("reader {reader} reads f{feed}, {pace:?}, {kind:?}"));
        if let Pace::Slow { every, .. } = pace {
            self.schedule(self.now + every, Event::Read(reader));
        }
    }

    /// Whether there may still be faults.
    pub(super) fn is_troubled(&self) -> bool {
        self.now < self.trouble_until
    }

    /// The end of the faults, or this time if that is sooner.
    pub(super) fn in_trouble(&self, at: Instant) -> Instant {
        at.min(self.trouble_until)
    }

    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    /// Within so many milliseconds.
    pub(super) fn soon(&mut self, millis: u64) -> Instant {
        self.now + Duration::from_millis(self.rng.u64(..=millis))
    }

    /// A random part of this time.
    pub(super) fn part_of(&mut self, most: Duration) -> Duration {
        if most.is_zero() { most } else { most.mul_f64(self.rng.f64()) }
    }

    pub(super) fn latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(1..40))
    }

    pub(super) fn log(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:9.3} {}", (self.now - self.origin).as_secs_f64(), line()));
        }
    }

    pub(super) fn is_logged(&self) -> bool {
        self.log.is_some()
    }

    /// The age of the next connection.
    pub(super) fn next_age(&mut self) -> u64 {
        self.attempts += 1;
        self.attempts
    }

    pub(super) fn take_log(&mut self) -> Vec<String> {
        self.log.take().unwrap_or_default()
    }

    /// For how long the history ran.
    pub(super) fn age(&self) -> Duration {
        self.now - self.origin
    }

    fn pass_until(&mut self, until: Instant) -> Checked {
        let mut at_once = 0;
        self.settle()?;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let timer = self.performer.poll_timeout();
            let Some(at) = event.into_iter().chain(timer).min().filter(|at| *at <= until) else {
                self.now = until;
                return Ok(());
            };
            at_once = if at > self.now { 0 } else { at_once + 1 };
            if at_once > 1_000 {
                return broken("time goes on", format!("{:?}", self.events.first_key_value()));
            }
            self.now = self.now.max(at);
            // What has arrived counts before the timers.
            if event.is_some_and(|event| event <= at) {
                if let Some((_, event)) = self.events.pop_first() {
                    self.happen(event)?;
                }
            } else {
                self.performer.handle_timeout(self.now);
            }
            self.settle()?;
        }
    }

    fn happen(&mut self, event: Event) -> Checked {
        let now = self.now;
        match event {
            Event::Publish(feed) => self.publish_on_time(feed),
            Event::Granted(id, age) if self.is_there(id, age, Stage::Asking) => {
                let granted =
                    Granted { init_payload: "{}".into(), lifetime: self.setting.lifetime };
                self.performer.handle_credentials(now, id, granted);
            }
            Event::Dialed(id, age) if self.is_there(id, age, Stage::Dialing) => self.dialed(id),
            Event::Acknowledge(id, age) if self.is_there(id, age, Stage::Greeted) => {
                if !self.swallows_acknowledgement(id) {
                    self.acknowledge(id);
                }
            }
            Event::Up(id, age) if self.has(id, age) => self.hear(id)?,
            Event::Down(id, age) if self.has(id, age) => self.arrive(id),
            Event::Begin(id, age, wire_id) if self.has(id, age) => self.begin(id, &wire_id),
            Event::Send(id, age, wire_id) if self.has(id, age) => self.send(id, &wire_id),
            Event::Complete(id, age, wire_id) if self.has(id, age) => self.complete(id, &wire_id),
            Event::Read(reader) => self.read_slowly(reader)?,
            Event::WakeUp(reader) => {
                self.readers[reader].iter().for_each(Reader::wake_up);
            }
            Event::Fault(fault) => self.strike(&fault),
            Event::GoOn => self.arrive_all(),
            Event::Calm => self.calm(),
            // That connection is gone.
            Event::Granted(..)
            | Event::Dialed(..)
            | Event::Acknowledge(..)
            | Event::Up(..)
            | Event::Down(..)
            | Event::Begin(..)
            | Event::Send(..)
            | Event::Complete(..) => {}
        }
        Ok(())
    }

    fn has(&self, id: ConnectionId, age: u64) -> bool {
        self.wires[id as usize].as_ref().is_some_and(|wire| wire.age == age)
    }

    fn is_there(&self, id: ConnectionId, age: u64, stage: Stage) -> bool {
        self.wires[id as usize].as_ref().is_some_and(|it| it.age == age && it.stage == stage)
    }

    /// In bursts, at random, and sometimes nothing for long.
    fn publish_on_time(&mut self, feed: usize) {
        if self.feeds[feed].is_read && self.feeds[feed].quiet_until <= self.now {
            self.publish(feed);
        }
        let pace = self.feeds[feed].pace;
        let is_busy = self.is_troubled() || self.setting.is_calm;
        let pace = if is_busy { pace } else { pace.max(Duration::from_secs(15)) };
        let next = match self.rng.u8(..100) {
            _ if self.setting.is_calm => self.part_of(pace * 2),
            0..15 => Duration::from_millis(5),
            15..18 => pace + Duration::from_secs(self.rng.u64(..120)),
            _ => self.part_of(pace * 2),
        };
        self.schedule(self.now + next, Event::Publish(feed));
    }

    fn calm(&mut self) {
        self.log(|| "the faults are over".into());
        self.outage = None;
        self.client.resume();
        self.wires.iter_mut().flatten().for_each(Wire::hurry);
        let now = self.now;
        self.readers.iter_mut().flatten().for_each(|reader| reader.hurry(now));
    }
}

/// For how long all is well before everything is owed again: longer than every timeout and backoff.
const RECOVERY: Duration = Duration::from_secs(120);
