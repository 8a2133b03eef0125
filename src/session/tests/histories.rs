//! Random histories: whatever happens in whatever order, on both connections, the invariants hold,
//! and the same seed gives the same history.
//!
//! Nothing is handed over here; the random histories of that have a server of their own.

mod expect;
mod health;
mod model;
mod quarantine;
mod server;
mod steps;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use proptest::prelude::*;

use self::{
    model::{Model, Wire},
    steps::{Step, step},
};
use super::*;
use crate::{
    error::CredentialsError,
    session::{DialBudget, VerdictHook},
};

struct History {
    rig: Rig,
    model: Model,
    /// The server repeats the numbers of pings.
    echoes: bool,
}

type Checked = Result<(), TestCaseError>;

impl History {
    fn new(config: Config, echoes: bool) -> Self {
        Self { rig: Rig::new(config), model: Model::default(), echoes }
    }

    fn run(&mut self, step: &Step) -> Checked {
        let now = self.rig.now;
        match step {
            Step::Subscribe => drop(self.subscribe()),
            Step::SubscribeBad(code) => {
                let id = self.subscribe();
                self.model.bad.insert(id, *code);
            }
            Step::Call(kind) => self.call(*kind),
            Step::SubscribeWith(watch_options) => self.subscribe_with(*watch_options),
            Step::Cancel(index) if self.rig.next_id > 1 => {
                let id = self.any_of(std::iter::empty(), *index);
                self.rig.cancel(id);
                self.model.gone(id);
            }
            Step::Rewind(index) if self.rig.next_id > 1 => {
                let sent: Vec<_> = self.model.sent().collect();
                self.rewind(self.any_of(sent.into_iter(), *index));
            }
            Step::CatchUp(index) if self.rig.next_id > 1 => {
                self.catch_up(self.any_of(self.model.watch.waiting(), *index));
            }
            Step::Probe(index) if self.rig.next_id > 1 => {
                let id = self.any_of(std::iter::empty(), *index);
                self.rig.session.probe(id);
            }
            // There is none.
            Step::Cancel(_) | Step::Rewind(_) | Step::CatchUp(_) | Step::Probe(_) => {}
            Step::AnswerJudge(restart) => self.answer_judge(*restart),
            Step::Pause => self.pause(true),
            Step::Resume => self.pause(false),
            Step::ReconnectNow => self.rig.session.reconnect_now(now),
            Step::NetworkChanged => self.rig.session.network_changed(now),
            Step::Want => self.want(),
            Step::Hold(true) => self.rig.session.pause(now),
            Step::Hold(false) => self.rig.session.resume(now),
            Step::Shutdown => {
                self.model.shut_down = true;
                self.rig.session.shutdown(now, now + secs(3));
            }
            Step::Silence => self.pass(120_000)?,
            Step::Pass(millis) => self.pass(*millis)?,
            Step::Serve => self.serve()?,
            Step::Search(code, meanwhile) => self.search(*code, meanwhile)?,
            Step::On(is_second, event) => self.happen(self.either(*is_second), event)?,
        }
        self.perform()?;
        self.check()
    }

    fn subscribe(&mut self) -> u64 {
        let id = self.rig.subscribe();
        self.model.live.insert(id);
        id
    }

    fn call(&mut self, kind: OperationType) {
        let id = self.rig.begin(kind);
        self.model.live.insert(id);
        let calls = if kind == OperationType::Query {
            &mut self.model.queries
        } else {
            &mut self.model.mutations
        };
        calls.insert(id);
    }

    fn want(&mut self) {
        self.model.is_wanted = true;
        self.model.is_kept |= self.model.keeps;
        self.rig.session.connect(self.rig.now);
    }

    /// One of those ever made; as likely as not, one of these.
    fn any_of(&self, likely: impl Iterator<Item = u64> + Clone, index: prop::sample::Index) -> u64 {
        let made = usize::try_from(self.rig.next_id - 1).unwrap();
        let ids: Vec<_> = (1..self.rig.next_id).chain(likely.cycle().take(made)).collect();
        ids[index.index(ids.len())]
    }

    /// The second connection, if there is one and it is meant.
    fn either(&self, is_second: bool) -> ConnectionId {
        if is_second && self.model.wires[1].is_used() { ConnectionId::B } else { ConnectionId::A }
    }

    fn pass(&mut self, millis: u64) -> Checked {
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

fn run(config: Config, echoes: bool, steps: &[Step]) -> Result<Vec<String>, TestCaseError> {
    let (budget, healthy_after) = (config.max_dials, config.healthy_after);
    let has_hook = config.on_disconnect.is_some();
    let mut history = History::new(config, echoes);
    history.model.keeps = history.rig.session.config.idle_timeout.is_none();
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
    let (count, all) = steps::count(steps, demands);
    let model = &history.model;
    let dials = |wanted| model.dials.iter().filter(move |(on, _)| *on == wanted).map(|it| it.1);
    let is_quick = |pair: &[Instant], least| pair[1] - pair[0] < Duration::from_millis(least);
    let first: Vec<_> = dials(ConnectionId::A).collect();
    let quick = first.windows(2).filter(|pair| is_quick(pair, 500)).count();
    let healthy_or_fatal = model.log.iter().filter(|line| line.starts_with("Finish")).count() + 1;
    let calm = steps::count(steps, |step| {
        matches!(step, Step::Pass(ms) if *ms >= 10_000) || matches!(step, Step::Silence)
    });
    let most = count + 4 * (healthy_or_fatal + calm.0);
    // One that is healthy at once is rejected for the first time each time; and whoever asks for it
    // gets new credentials.
    let is_usual = !healthy_after.is_zero() && !has_hook;
    prop_assert!(!is_usual || quick <= most, "{quick} quick dials of {}", first.len());
    // Each search begins at once.
    let second: Vec<_> = dials(ConnectionId::B).collect();
    let quick = second.windows(2).filter(|pair| is_quick(pair, 250)).count();
    let most = model.searches + all;
    prop_assert!(quick <= most, "{quick} quick dials for trials, {most} reasons");
    if let Some(DialBudget { dials: most, per }) = budget {
        let spaced =
            |dials: &[(ConnectionId, Instant)]| dials[dials.len() - 1].1 - dials[0].1 >= per;
        prop_assert!(model.dials.windows(most.get() as usize + 1).all(spaced), "beyond the budget");
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
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(1_000),
        ..ProptestConfig::default()
    })]

    #[test]
    fn i1_to_i7_hold_in_every_history_and_the_same_seed_replays_it(
        steps in prop::collection::vec(step(), 0..120),
        seed: u64,
        subprotocol in prop::sample::select(vec![None, Some(MODERN), Some(LEGACY)]),
        (strict, echoes) in any::<(bool, bool)>(),
        give_up_after in prop::sample::select(vec![None, None, Some(1), Some(3)]),
        max_dials in prop::sample::select(vec![None, None, Some((1, 5)), Some((3, 60))]),
        reissue_rate in prop::sample::select(vec![None, None, None, Some(2), Some(100)]),
        grace in prop::sample::select(vec![0, 20, 300]),
        (idle, healthy) in prop::sample::select(vec![
            (Some(30_000), 10_000),
            (Some(30_000), 10_000),
            (Some(1_000), 10_000),
            (Some(10), 0),
            (None, 10_000),
        ]),
        verdicts in prop::option::weighted(0.2, prop::collection::vec(steps::verdict(), 1..5)),
    ) {
        let budget = |(dials, per)| {
            DialBudget { dials: NonZeroU32::new(dials).unwrap(), per: secs(per) }
        };
        let config = Config {
            subprotocol,
            strictness: if strict { Strictness::Strict } else { Strictness::Lenient },
            healthy_after: Duration::from_millis(healthy),
            give_up_after,
            refusal_grace: secs(grace),
            max_dials: max_dials.map(budget),
            idle_timeout: idle.map(Duration::from_millis),
            reissue_rate: reissue_rate.and_then(NonZeroU32::new),
            seed,
            ..config()
        };
        let config = || {
            let (verdicts, asked) = (verdicts.clone(), AtomicUsize::new(0));
            let hook = |verdicts: Vec<_>| {
                VerdictHook::new(move |_, _| verdicts[asked.fetch_add(1, Relaxed) % verdicts.len()])
            };
            Config { on_disconnect: verdicts.map(hook), ..config.clone() }
        };
        let first = run(config(), echoes, &steps)?;
        prop_assert_eq!(first, run(config(), echoes, &steps)?);
    }
}
