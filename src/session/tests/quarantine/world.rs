//! The client with its clock, up to two sockets, and messages that take their time.

use std::collections::BTreeMap;

use super::{server::Server, *};

pub(super) struct World {
    pub(super) rig: Rig,
    pub(super) server: Server,
    events: BTreeMap<(Instant, u64), (ConnectionId, u64, Event)>,
    scheduled: u64,
    /// Which attempt at a socket this is; what is under way for an earlier one never arrives.
    ages: [u64; 2],
    /// What arrived while the sockets were not read.
    unread: Vec<(ConnectionId, u64, Event)>,
    is_stalled: bool,
    /// The sockets take nothing.
    pub(super) is_blocked: bool,
    /// When each loss of the current connection was noticed, and of one for trials.
    pub(super) losses: Vec<Instant>,
    pub(super) lost_trials: u32,
    pub(super) dials: Vec<Instant>,
    pub(super) ends: Vec<(u64, String)>,
    pub(super) gaps: BTreeMap<u64, Vec<Gap>>,
    pub(super) received: BTreeMap<u64, u32>,
    pub(super) established: Vec<u64>,
    pub(super) stale: Vec<u64>,
    pub(super) rotated: u32,
    pub(super) last_status: Option<Status>,
}

/// What is under way.
pub(super) enum Event {
    Granted,
    Opened,
    /// To the server.
    Up(Transmit),
    /// The server closes the socket, whatever that carries, or over the operation with this id.
    Doom(Disconnect),
    Break(String, Disconnect),
    /// To the client.
    Down(Value),
    Pong(u64),
    Lost(Disconnect),
}

impl World {
    pub(super) fn new(config: Config, answers: Answers) -> Self {
        let rig = Rig::new(config);
        Self {
            server: Server::new(answers),
            rig,
            events: BTreeMap::new(),
            scheduled: 0,
            ages: [0; 2],
            unread: Vec::new(),
            is_stalled: false,
            is_blocked: false,
            losses: Vec::new(),
            lost_trials: 0,
            dials: Vec::new(),
            ends: Vec::new(),
            gaps: BTreeMap::new(),
            received: BTreeMap::new(),
            established: Vec::new(),
            stale: Vec::new(),
            rotated: 0,
            last_status: None,
        }
    }

    /// With this many good operations, which are cleared and then silent.
    pub(super) fn with_cleared(config: Config, good: u64) -> Self {
        let mut world = Self::new(config, Answers::AtOnce);
        world.subscribe_all(good);
        world.pass(secs(1));
        assert!(world.all_are_carried());
        world.server.answers = Answers::Never;
        world
    }

    pub(super) fn subscribe_all(&mut self, good: u64) {
        for _ in 0..good {
            self.rig.subscribe();
        }
    }

    /// It closes the connection 20 ms after it has arrived.
    pub(super) fn subscribe_bad(&mut self, cause: &Disconnect) -> u64 {
        self.begin_bad(OperationType::Subscription, Duration::from_millis(20), cause)
    }

    pub(super) fn begin_bad(
        &mut self,
        kind: OperationType,
        after: Duration,
        cause: &Disconnect,
    ) -> u64 {
        self.server.bad.insert(self.rig.next_id, (after, cause.clone()));
        self.begin(kind)
    }

    pub(super) fn begin(&mut self, kind: OperationType) -> u64 {
        let watch_options = std::mem::take(&mut self.rig.watch_options);
        let id = self.rig.begin(kind);
        self.rig.watch_options = watch_options;
        if kind != OperationType::Subscription {
            self.server.calls.insert(id, 0);
        }
        id
    }

    pub(super) fn stall(&mut self) {
        self.is_stalled = true;
        self.rig.session.stall();
    }

    pub(super) fn unstall(&mut self) {
        self.is_stalled = false;
        self.rig.session.unstall(self.rig.now);
        for (on, age, event) in std::mem::take(&mut self.unread) {
            self.schedule_for(on, age, Duration::ZERO, event);
        }
    }

    /// The current connection is lost, as the client sees at once.
    pub(super) fn lose(&mut self, cause: Disconnect) {
        self.lost(self.rig.session.current, cause);
        self.perform();
    }

    pub(super) fn pass(&mut self, duration: Duration) {
        self.pass_until(self.rig.now + duration, |_| false);
    }

    /// Returns whether it came to that within an hour.
    pub(super) fn reach(&mut self, is_wanted: impl Fn(&Self) -> bool) -> bool {
        self.pass_until(self.rig.now + secs(3_600), is_wanted)
    }

    fn pass_until(&mut self, until: Instant, is_wanted: impl Fn(&Self) -> bool) -> bool {
        self.perform();
        let mut at_once = 0;
        loop {
            if is_wanted(self) {
                return true;
            }
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let timer = self.rig.session.poll_timeout();
            let Some(at) = event.into_iter().chain(timer).min().filter(|at| *at <= until) else {
                self.rig.now = until;
                return false;
            };
            at_once = if at > self.rig.now { 0 } else { at_once + 1 };
            assert!(at_once < 5_000, "time goes on");
            self.rig.now = self.rig.now.max(at);
            if event.is_some_and(|event| event <= at) {
                let (_, (on, age, event)) = self.events.pop_first().unwrap();
                if self.ages[on as usize] == age {
                    self.happen(on, age, event);
                }
            } else {
                self.rig.session.handle_timeout(self.rig.now);
            }
            self.perform();
        }
    }

    pub(super) fn schedule(&mut self, on: ConnectionId, after: Duration, event: Event) {
        self.schedule_for(on, self.ages[on as usize], after, event);
    }

    fn schedule_for(&mut self, on: ConnectionId, age: u64, after: Duration, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.rig.now + after, self.scheduled), (on, age, event));
    }

    fn happen(&mut self, on: ConnectionId, age: u64, event: Event) {
        let now = self.rig.now;
        let is_inbound = matches!(event, Event::Down(_) | Event::Pong(_) | Event::Lost(_));
        if is_inbound && self.is_stalled {
            self.unread.push((on, age, event));
            return;
        }
        match event {
            Event::Granted => self.rig.session.handle_credentials(now, on, Ok(granted())),
            Event::Opened => {
                self.accept(on);
                self.rig.session.handle_open(now, on);
            }
            Event::Up(transmit) => self.hear(on, transmit),
            Event::Doom(cause) => self.close(on, cause),
            Event::Break(wire_id, cause) => self.break_over(on, &wire_id, cause),
            Event::Down(message) => {
                let frame = message.to_string();
                let role = self.rig.session.connection(on).map(|connection| connection.role);
                if let Some(item) = self.rig.session.handle_frame(now, on, &frame) {
                    assert_ne!(role, Some(Role::Trial), "nothing is delivered from a trial");
                    *self.received.entry(*item.writer).or_default() += 1;
                }
            }
            Event::Pong(number) => self.rig.session.handle_pong(now, on, Some(number)),
            Event::Lost(cause) => self.lost(on, cause),
        }
    }

    fn lost(&mut self, on: ConnectionId, cause: Disconnect) {
        if self.rig.session.current == on {
            self.losses.push(self.rig.now);
        } else {
            self.lost_trials += 1;
        }
        self.rig.session.handle_lost(self.rig.now, on, cause);
    }

    /// Performs all that is to be done, and writes all that is to be written.
    pub(super) fn perform(&mut self) {
        while let Some(output) = self.rig.session.poll_output() {
            self.perform_one(output);
        }
        for on in ConnectionId::ALL {
            while !self.is_blocked
                && let Some(transmit) = self.rig.session.poll_transmit(on)
            {
                self.schedule(on, self.server.latency, Event::Up(transmit));
            }
        }
    }

    fn perform_one(&mut self, output: Output<u64>) {
        match output {
            Output::Authorize(on, _) => self.schedule(on, Duration::ZERO, Event::Granted),
            Output::Dial(on, _) => {
                self.dials.push(self.rig.now);
                self.schedule(on, 4 * self.server.latency, Event::Opened);
            }
            Output::Hangup(on, _) => {
                self.ages[on as usize] += 1;
                self.server.sockets[on as usize] = None;
            }
            Output::Reissue { writer, gap } | Output::Gap { writer, gap } => {
                self.gaps.entry(writer).or_default().push(gap);
            }
            Output::Deliver { id, writer, mut backlog } => {
                while backlog.pop().is_some() {
                    *self.received.entry(writer).or_default() += 1;
                }
                self.rig.session.delivered(self.rig.now, id, backlog);
            }
            Output::Finish { writer, end } => {
                assert!(self.ends.iter().all(|(id, _)| *id != writer), "I1: one end");
                self.ends.push((writer, describe(&end)));
            }
            Output::AskIfTransient { writer, .. } => self.rig.session.restart(self.rig.now, writer),
            Output::Established { writer } => self.established.push(writer),
            Output::Stale { writer, .. } => self.stale.push(writer),
            Output::Rotated(answer) => self.rotated += u32::from(answer.is_ok()),
            Output::Status(status) => self.last_status = Some(status),
            Output::Resume { .. }
            | Output::Connected(_)
            | Output::Postponed(_)
            | Output::Refused(..)
            | Output::Unattributed(_)
            | Output::Ended => {}
        }
    }

    /// Every live operation is on the current connection, and none is in quarantine.
    pub(super) fn all_are_carried(&self) -> bool {
        let session = &self.rig.session;
        let live: Vec<_> = session.operations.iter().map(|operation| operation.id).collect();
        let is_replaced = session.other().is_none_or(|other| other.role == Role::Successor);
        self.carried() == live && is_replaced && !session.quarantine.is_active()
    }

    /// What the server knows on the current connection, in order.
    pub(super) fn carried(&self) -> Vec<u64> {
        let socket = self.server.sockets[self.rig.session.current as usize].as_ref();
        let mut carried: Vec<_> =
            socket.into_iter().flat_map(|socket| socket.carried.values()).copied().collect();
        carried.sort_unstable();
        carried
    }

    pub(super) fn is_carried(&self, id: u64) -> bool {
        self.carried().contains(&id)
    }

    /// Waiting to be tried, or being tried.
    pub(super) fn quarantined(&self) -> Vec<u64> {
        let session = &self.rig.session;
        let trial = session.current.other();
        let is_tried = |id: u64| {
            let on_trial =
                session.operations.is_on(id, trial) || session.operations.is_queued(id, trial);
            let has_trial = session.other().is_some_and(|other| other.role == Role::Trial);
            session.operations.waits(id, Why::Quarantine) || has_trial && on_trial
        };
        session.operations.ids(|_| true).into_iter().filter(|id| is_tried(*id)).collect()
    }

    pub(super) fn ended(&self) -> Vec<u64> {
        let mut ended: Vec<_> = self.ends.iter().map(|(id, _)| *id).collect();
        ended.sort_unstable();
        ended
    }

    /// How many gaps the reader of an operation was told.
    pub(super) fn gaps_of(&self, id: u64) -> usize {
        self.gaps.get(&id).map_or(0, Vec::len)
    }
}
