//! Random histories: whatever happens in whatever order, the invariants hold, and the same seed
//! gives the same history.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use proptest::prelude::*;

use self::steps::{Step, step};
use super::*;
use crate::{
    error::{ConnectError, CredentialsError},
    session::{DialBudget, VerdictHook},
};

mod expect;
mod health;
mod steps;
mod watch;

/// What the outside knows: the operations, and the one socket with what was sent on it.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; the session has the state machine"
)]
struct Model {
    live: BTreeSet<u64>,
    finished: BTreeSet<u64>,
    cancelled: BTreeSet<u64>,
    /// Of the current socket: wire id to operation, as sent and not completed by the client.
    sent: BTreeMap<String, u64>,
    issued_ever: BTreeSet<u64>,
    queries: BTreeSet<u64>,
    mutations: BTreeSet<u64>,
    /// Of the current socket: given up by the client, and still to be completed.
    expired: BTreeSet<String>,
    /// Of the current socket: answered, and on the legacy subprotocol still to be stopped.
    answered: BTreeSet<String>,
    /// Not written since.
    reissue_announced: BTreeSet<u64>,
    watch: watch::Watch,
    /// Of the current socket: for each ping that is not answered, what was sent before it.
    pings: VecDeque<BTreeSet<String>>,
    /// Of the current socket: what the server has shown to have read.
    proven: BTreeSet<String>,
    every_wire_id: BTreeSet<String>,
    asked: bool,
    dialing: bool,
    socket: bool,
    init_sent: bool,
    acked: bool,
    /// The operations' ends are ours, so each is completed.
    shut_down: bool,
    /// Somebody waits for a connection.
    wanted: bool,
    dials: Vec<Instant>,
    /// Since when operations that were sent once are without a connection.
    down_since: BTreeMap<u64, Instant>,
    /// What an operator was told last.
    status: Option<Status>,
    log: Vec<String>,
}

struct History {
    rig: Rig,
    model: Model,
}

impl History {
    fn new(config: Config) -> Self {
        Self { rig: Rig::new(config), model: Model::default() }
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.rig.now;
        match step {
            Step::Subscribe => {
                let id = self.rig.subscribe();
                self.model.live.insert(id);
            }
            Step::Call(kind) => {
                let id = self.rig.begin(*kind);
                self.model.live.insert(id);
                let calls = if *kind == OperationType::Query {
                    &mut self.model.queries
                } else {
                    &mut self.model.mutations
                };
                calls.insert(id);
            }
            Step::SubscribeWith(watch_options) => self.subscribe_with(*watch_options),
            Step::Cancel(index) if self.rig.next_id > 1 => {
                let id = self.any_of(std::iter::empty(), *index);
                self.rig.cancel(id);
                self.model.gone(id);
            }
            Step::Rewind(index) if self.rig.next_id > 1 => {
                self.rewind(self.any_of(self.model.sent.values().copied(), *index));
            }
            Step::CatchUp(index) if self.rig.next_id > 1 => {
                self.catch_up(self.any_of(self.model.watch.waiting(), *index));
            }
            Step::AnswerJudge(restart) => self.answer_judge(*restart),
            Step::Answer => self.answer()?,
            Step::Connect => self.connect()?,
            Step::Probe(index) if self.rig.next_id > 1 => {
                let id = self.any_of(std::iter::empty(), *index);
                self.rig.session.probe(id);
            }
            Step::WebSocketPong if self.model.socket => {
                if self.is_spoken(LEGACY) {
                    self.model.proven.extend(self.model.pings.pop_front().unwrap_or_default());
                }
                self.rig.session.handle_pong(now, ConnectionId::A, None);
            }
            Step::FailCredentials(fatal) if self.model.asked => {
                let error = if *fatal {
                    CredentialsError::fatal("f")
                } else {
                    CredentialsError::transient("t")
                };
                self.rig.session.handle_credentials(now, ConnectionId::A, Err(error));
            }
            Step::FailDial(status) if self.model.dialing => {
                let error = match status {
                    0 => ConnectError::Timeout(secs(1)),
                    &status => refused(status),
                };
                self.rig.session.handle_lost(now, ConnectionId::A, Disconnect::Connect(error));
            }
            Step::Receive(kind, index) if self.model.socket => {
                // Half of them known to the server.
                let Model { every_wire_id, sent, .. } = &self.model;
                let ids: Vec<_> = every_wire_id
                    .iter()
                    .chain(sent.keys().cycle().take(every_wire_id.len()))
                    .collect();
                let id =
                    if ids.is_empty() { None } else { Some(ids[index.index(ids.len())].clone()) };
                self.receive(kind, id)?;
            }
            Step::Garbage(bytes) if self.model.socket => match std::str::from_utf8(bytes) {
                Ok(text) => {
                    let item = self.rig.session.handle_frame(now, ConnectionId::A, text);
                    prop_assert!(item.is_none(), "I3: deliveries only for live ids");
                }
                Err(_) => self.rig.session.handle_unreadable(now, ConnectionId::A),
            },
            Step::Close(code) if self.model.socket => {
                self.rig.session.handle_lost(now, ConnectionId::A, closed(*code))
            }
            Step::Reset if self.model.socket => {
                self.rig.session.handle_lost(now, ConnectionId::A, Disconnect::Reset(None))
            }
            // Nothing there that could happen.
            Step::Cancel(_)
            | Step::Rewind(_)
            | Step::CatchUp(_)
            | Step::Probe(_)
            | Step::WebSocketPong
            | Step::FailCredentials(_)
            | Step::FailDial(_)
            | Step::Receive(..)
            | Step::Garbage(_)
            | Step::Close(_)
            | Step::Reset => {}
            Step::Trial(code, meanwhile) => self.trial(*code, meanwhile)?,
            Step::Silence => self.pass(120_000)?,
            Step::Pass(millis) => self.pass(*millis)?,
            Step::Pause => self.pause(true),
            Step::Resume => self.pause(false),
            Step::ReconnectNow => self.rig.session.reconnect_now(now),
            Step::NetworkChanged => self.rig.session.network_changed(now),
            Step::Want => {
                self.model.wanted = true;
                self.rig.session.connect(now);
            }
            Step::Hold(true) => self.rig.session.pause(now),
            Step::Hold(false) => self.rig.session.resume(now),
            Step::Write(most) => self.write(*most)?,
            Step::Shutdown => {
                self.model.shut_down = true;
                self.rig.session.shutdown(now, now + secs(3));
            }
        }
        self.perform()?;
        self.check()
    }

    /// From asking the provider to the acknowledgement, as far as it has to go.
    fn connect(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..2 {
            self.answer()?;
            self.perform()?;
        }
        if !self.model.init_sent {
            self.write(1)?;
        }
        self.answer()
    }

    /// Losses in a row by this code, and time for a trial in between, in which something else
    /// happens.
    fn trial(&mut self, code: u16, meanwhile: &[Step]) -> Result<(), TestCaseError> {
        let close = || Step::Close(code);
        let time = || [Step::Pass(1_100), Step::Write(99)];
        let trial = [time(), time(), time(), time(), time(), time()].into_iter().flatten();
        let (before, after) = (meanwhile.iter().cloned(), meanwhile.iter().cloned());
        let first = [close(), close()].into_iter().chain(before).chain(trial.clone());
        for then in first.chain([close()]).chain(time()).chain(after).chain(trial) {
            if !self.model.acked {
                let due = self.rig.session.poll_timeout().unwrap_or(self.rig.now);
                let wait = u64::try_from((due - self.rig.now.min(due)).as_millis()).unwrap();
                let connect = [Step::Subscribe, Step::Pass(wait + 1), Step::Answer, Step::Answer];
                for step in
                    connect.into_iter().chain([Step::Write(9), Step::Answer, Step::Write(99)])
                {
                    self.run(&step)?;
                }
            }
            self.run(&then)?;
        }
        Ok(())
    }

    /// One of those ever made; as likely as not, one of these.
    fn any_of(&self, likely: impl Iterator<Item = u64> + Clone, index: prop::sample::Index) -> u64 {
        let made = usize::try_from(self.rig.next_id - 1).unwrap();
        let ids: Vec<_> = (1..self.rig.next_id).chain(likely.cycle().take(made)).collect();
        ids[index.index(ids.len())]
    }

    fn answer(&mut self) -> Result<(), TestCaseError> {
        let now = self.rig.now;
        if std::mem::take(&mut self.model.asked) {
            self.rig.session.handle_credentials(now, ConnectionId::A, Ok(granted()));
        } else if std::mem::take(&mut self.model.dialing) {
            self.model.socket = true;
            self.rig.session.handle_open(now, ConnectionId::A);
        } else if self.model.init_sent && !self.model.acked {
            self.receive("connection_ack", None)?;
        }
        Ok(())
    }

    fn receive(&mut self, kind: &str, id: Option<String>) -> Result<(), TestCaseError> {
        let mut message = json!({"type": kind, "payload": {"data": self.model.log.len()}});
        if let Some(id) = &id {
            message["id"] = id.clone().into();
        }
        let (acked, shut_down) = (self.model.acked, self.model.shut_down);
        if kind == "pong" && self.is_spoken(MODERN) {
            self.model.proven.extend(self.model.pings.pop_front().unwrap_or_default());
        }
        if let Some(super::super::Item { writer, payload }) =
            self.rig.session.handle_frame(self.rig.now, ConnectionId::A, &message.to_string())
        {
            let model = &mut self.model;
            model.log.push(format!("{writer} gets {payload:?}"));
            prop_assert!(model.live.contains(writer), "I3: deliveries only for live ids");
            model.proven.extend(id.clone());
            prop_assert_eq!(
                model.sent.get(id.as_deref().unwrap_or_default()),
                Some(writer),
                "I3: under their own id"
            );
            model.watch.received(self.rig.now, *writer);
        }
        if let (true, false, "complete" | "error", Some(id)) = (acked, shut_down, kind, id) {
            // Also of an operation that was dropped, whose `complete` may not be written yet (rule
            // 13).
            self.model.watch.completed(&id);
            let calls = [&self.model.queries, &self.model.mutations];
            // On legacy a call is stopped all the same (rule 15).
            if let Some(operation) = self.model.sent.remove(&id)
                && calls.iter().any(|calls| calls.contains(&operation))
            {
                self.model.answered.insert(id);
            }
        }
        Ok(())
    }

    fn is_spoken(&self, subprotocol: Subprotocol) -> bool {
        self.rig.session.phase() == Some(super::super::Phase::Open(subprotocol))
    }

    fn pass(&mut self, millis: u64) -> Result<(), TestCaseError> {
        let until = self.rig.now + Duration::from_millis(millis);
        let mut turns = 0;
        while let Some(at) = self.rig.session.poll_timeout().filter(|&at| at <= until) {
            self.rig.now = self.rig.now.max(at);
            self.rig.session.handle_timeout(self.rig.now);
            self.perform()?;
            turns += 1;
            prop_assert!(turns < 10_000, "timers spin");
        }
        self.rig.now = until;
        Ok(())
    }
}

fn run(config: Config, steps: &[Step]) -> Result<Vec<String>, TestCaseError> {
    let (budget, healthy_after) = (config.max_dials, config.healthy_after);
    let has_hook = config.on_disconnect.is_some();
    let mut history = History::new(config);
    for step in steps {
        history.run(step)?;
    }
    history.settle()?;
    // I7: however often something was dropped, subscribed or rejected, dials are spaced: at most
    // the first, a fallback and the two of a rejection come without a delay, and then only
    // `reconnect_now` does.
    let demands = |step: &&Step| {
        matches!(step, Step::ReconnectNow | Step::NetworkChanged | Step::Hold(false))
    };
    let demanded = steps.iter().filter(demands).count();
    let dials = &history.model.dials;
    let quick =
        dials.windows(2).filter(|pair| pair[1] - pair[0] < Duration::from_millis(500)).count();
    let healthy_or_fatal =
        history.model.log.iter().filter(|line| line.starts_with("Finish")).count() + 1;
    let calm = steps.iter().filter(|step| {
        matches!(step, Step::Pass(ms) if *ms >= 10_000) || matches!(step, Step::Silence)
    });
    let most = demanded + 4 * (healthy_or_fatal + calm.count());
    // One that is healthy at once is rejected for the first time each time; and whoever asks for it
    // gets new credentials.
    let is_usual = !healthy_after.is_zero() && !has_hook;
    prop_assert!(!is_usual || quick <= most, "{quick} quick dials of {}", dials.len());
    if let Some(DialBudget { dials: most, per }) = budget {
        let spaced = |dials: &[Instant]| dials[dials.len() - 1] - dials[0] >= per;
        prop_assert!(dials.windows(most.get() as usize + 1).all(spaced), "beyond the budget");
    }
    if !history.model.shut_down {
        history.recover()?;
    }
    // I4: however it goes on, a shutdown ends what is live.
    history.run(&Step::Shutdown)?;
    history.run(&Step::Pass(3_000))?;
    prop_assert!(history.model.live.is_empty());
    prop_assert!(history.rig.session.has_ended);
    Ok(history.model.log)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1_000), ..ProptestConfig::default() })]

    #[test]
    fn i1_to_i7_hold_in_every_history_and_the_same_seed_replays_it(
        steps in prop::collection::vec(step(), 0..120),
        seed: u64,
        subprotocol in prop::sample::select(vec![None, Some(MODERN), Some(LEGACY)]),
        strict: bool,
        give_up_after in prop::sample::select(vec![None, None, Some(1), Some(3)]),
        max_dials in prop::sample::select(vec![None, None, Some((1, 5)), Some((3, 60))]),
        (idle, healthy) in prop::sample::select(vec![(30_000, 10_000), (30_000, 10_000), (1_000, 10_000), (10, 0)]),
        verdicts in prop::option::weighted(0.2, prop::collection::vec(steps::verdict(), 1..5)),
    ) {
        let strictness = if strict { Strictness::Strict } else { Strictness::Lenient };
        let max_dials =
            max_dials.map(|(dials, per)| DialBudget { dials: NonZeroU32::new(dials).unwrap(), per: secs(per) });
        let (idle_timeout, healthy_after) = (Some(Duration::from_millis(idle)), Duration::from_millis(healthy));
        let config =
            Config { subprotocol, strictness, healthy_after, give_up_after, max_dials, idle_timeout, seed, ..config() };
        let config = || {
            let (verdicts, asked) = (verdicts.clone(), AtomicUsize::new(0));
            let hook = |verdicts: Vec<_>| {
                VerdictHook::new(move |_, _| verdicts[asked.fetch_add(1, Relaxed) % verdicts.len()])
            };
            Config { on_disconnect: verdicts.map(hook), ..config.clone() }
        };
        let first = run(config(), &steps)?;
        prop_assert_eq!(first, run(config(), &steps)?);
    }
}
