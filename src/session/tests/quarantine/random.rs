//! Random operations, servers and disturbances: in the end exactly the bad operations were blamed.

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::select, test_runner::TestCaseError};

use super::*;

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    subprotocol: Subprotocol,
    pongs: Pongs,
    latency: u64,
    most_sockets: usize,
    cause: Disconnect,
    /// What is subscribed, and how long after the one before it.
    operations: Vec<(u64, Kind)>,
    disturbances: Vec<(u64, Disturbance)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Answering,
    Silent,
    /// Closes the connection so many milliseconds after it has arrived.
    Bad(u64),
    Query,
    Mutation,
}

#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Restart,
    Flap,
    TrialLost,
    Reconnect,
    Pause(u64),
    Stall(u64),
    Block(u64),
    Rotate,
    Cancel(usize),
    Rewind(usize),
    Probe(usize),
    Publish,
}

fn kind(latest: u64) -> impl Strategy<Value = Kind> {
    prop_oneof![
        8 => Just(Kind::Answering),
        8 => Just(Kind::Silent),
        3 => (0..latest).prop_map(Kind::Bad),
        1 => Just(Kind::Query),
        1 => Just(Kind::Mutation),
    ]
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    use Disturbance::*;
    let time = 1..5_000_u64;
    let number = 0..30_usize;
    prop_oneof![
        Just(Restart),
        Just(Flap),
        Just(TrialLost),
        Just(Reconnect),
        time.clone().prop_map(Pause),
        time.clone().prop_map(Stall),
        time.prop_map(Block),
        Just(Rotate),
        number.clone().prop_map(Cancel),
        number.clone().prop_map(Rewind),
        number.prop_map(Probe),
        Just(Publish),
    ]
}

fn case(latest: u64, disturbances: usize, most_sockets: Vec<usize>) -> impl Strategy<Value = Case> {
    let pause = prop_oneof![4 => Just(0_u64), 1 => 0..3_000_u64];
    (
        any::<u64>(),
        select(vec![MODERN, LEGACY]),
        select(PONGS[..2].to_vec()),
        0..10_u64,
        select(most_sockets),
        select([strong(), weak()].concat()),
        prop::collection::vec((pause, kind(latest)), 1..40),
        prop::collection::vec((0..4_000_u64, disturbance()), 0..=disturbances),
    )
        .prop_map(
            |(seed, subprotocol, pongs, latency, most_sockets, cause, operations, disturbances)| {
                Case {
                    seed,
                    subprotocol,
                    pongs,
                    latency,
                    most_sockets,
                    cause,
                    operations,
                    disturbances,
                }
            },
        )
}

impl Case {
    /// Lets it all happen.
    fn run(&self) -> (World, BTreeSet<u64>) {
        let config = Config { seed: self.seed, ..fixed(self.subprotocol) };
        let mut world = World::new(config, Answers::AtOnceExcept(BTreeSet::new()));
        world.server.pongs = self.pongs;
        world.server.latency = millis(self.latency);
        world.server.most_sockets = self.most_sockets;
        let start = world.rig.now;
        let mut at = start;
        let mut happenings = Vec::new();
        for (pause, kind) in &self.operations {
            at += millis(*pause);
            happenings.push((at, Ok(*kind)));
        }
        at = start;
        for (pause, disturbance) in &self.disturbances {
            at += millis(*pause);
            happenings.push((at, Err(*disturbance)));
        }
        happenings.sort_by_key(|(at, _)| *at);
        let mut bad = BTreeSet::new();
        for (at, happening) in happenings {
            world.pass(at.saturating_duration_since(world.rig.now));
            match happening {
                Ok(kind) => bad.extend(self.begin(&mut world, kind)),
                Err(disturbance) => disturb(&mut world, disturbance),
            }
        }
        // What was cancelled is not found.
        bad.retain(|id| {
            world.ended().contains(id) || world.rig.session.operations.get(*id).is_some()
        });
        (world, bad)
    }

    fn begin(&self, world: &mut World, kind: Kind) -> Option<u64> {
        let subscription = OperationType::Subscription;
        let id = match kind {
            Kind::Answering => return Some(world.begin(subscription)).filter(|_| false),
            Kind::Silent => {
                let id = world.begin(subscription);
                if let Answers::AtOnceExcept(silent) = &mut world.server.answers {
                    silent.insert(id);
                }
                return None;
            }
            Kind::Bad(late) => world.begin_bad(subscription, millis(late), &self.cause),
            Kind::Query => return Some(world.begin(OperationType::Query)).filter(|_| false),
            Kind::Mutation => return Some(world.begin(OperationType::Mutation)).filter(|_| false),
        };
        Some(id)
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let (mut world, bad) = self.run();
        let is_good = |operation: &Operation<u64>| {
            operation.is_subscription() && !bad.contains(&operation.id)
        };
        let others = world.rig.session.operations.ids(is_good);
        if others.is_empty() {
            world.pass(secs(200));
            // A lone one is the table's, and while others lived it may have been found.
            let cause = self.cause.to_string();
            let is_retried = weak().iter().chain([&closed(4500)]).any(|it| it.to_string() == cause);
            if is_retried && self.operations.iter().all(|(_, kind)| matches!(kind, Kind::Bad(_))) {
                prop_assert_eq!(world.ends, [], "nobody is blamed while nothing else lives");
            }
            return Ok(());
        }
        world.pass(secs(400));
        let is_over = world.reach(|world| {
            let calls = &world.server.calls;
            world.all_are_carried()
                && bad.iter().all(|id| world.ended().contains(id))
                && calls.keys().all(|id| world.ended().contains(id))
        });
        let quarantine = &world.rig.session.quarantine;
        prop_assert!(
            is_over,
            "{:?} ended, {:?} bad, {:?}, {:?} {:?}",
            world.ended(),
            bad,
            quarantine,
            world.last_status,
            world.carried()
        );
        prop_assert_eq!(quarantine.remembered(), 0);
        let mut ended: BTreeSet<_> = world.ended().into_iter().collect();
        ended.retain(|id| !world.server.calls.contains_key(id));
        prop_assert_eq!(ended, bad);
        for (id, times) in &world.server.calls {
            let is_query =
                world.ends.iter().any(|(ended, end)| ended == id && end.starts_with("answered"));
            prop_assert!(*times <= 1 || is_query, "{} was executed {} times", id, times);
        }
        Ok(())
    }
}

fn disturb(world: &mut World, disturbance: Disturbance) {
    let ids = world.rig.session.operations.ids(Operation::is_subscription);
    let nth = |number: usize| ids.get(number % ids.len().max(1)).copied();
    match disturbance {
        Disturbance::Restart => world.close(world.rig.session.current, closed(1012)),
        Disturbance::Flap => {
            for on in ConnectionId::ALL {
                world.close(on, Disconnect::Reset(None));
            }
        }
        Disturbance::TrialLost => world.close(world.rig.session.current.other(), closed(1001)),
        Disturbance::Reconnect => world.rig.session.reconnect_now(world.rig.now),
        Disturbance::Pause(time) => {
            world.rig.session.pause(world.rig.now);
            world.pass(millis(time));
            world.rig.session.resume(world.rig.now);
        }
        Disturbance::Stall(time) => {
            world.stall();
            world.pass(millis(time));
            world.unstall();
        }
        Disturbance::Block(time) => {
            world.is_blocked = true;
            world.pass(millis(time));
            world.is_blocked = false;
        }
        Disturbance::Rotate => world.rig.session.rotate(world.rig.now),
        Disturbance::Cancel(number) => {
            if let Some(id) = nth(number) {
                world.rig.cancel(id);
            }
        }
        Disturbance::Rewind(number) => {
            if let Some(id) = nth(number) {
                world.rig.session.rewind(id);
                world.pass(millis(100));
                world.rig.session.catch_up(world.rig.now, id);
            }
        }
        Disturbance::Probe(number) => {
            if let Some(id) = nth(number) {
                world.rig.session.probe(id);
            }
        }
        Disturbance::Publish => world.publish(),
    }
    world.perform();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn exactly_the_bad_operations_are_blamed(case in case(200, 0, vec![2])) {
        case.check()?;
    }

    #[test]
    fn exactly_those_that_are_bad_late_are_blamed(case in case(3_500, 0, vec![2])) {
        case.check()?;
    }

    #[test]
    fn exactly_the_bad_operations_are_blamed_on_a_single_connection(case in case(200, 0, vec![1])) {
        case.check()?;
    }

    #[test]
    fn exactly_the_bad_operations_are_blamed_whatever_else_happens(
        case in case(1_000, 12, vec![1, 2, 2, 2])
    ) {
        case.check()?;
    }
}
