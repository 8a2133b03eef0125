//! Random histories with two connections: nothing is lost or doubled in silence, whatever fails
//! when.

use std::num::NonZeroU32;

use proptest::sample::Index;

use super::{odds::acknowledge, world::Down, *};
use crate::session::{DialBudget, Verdict, VerdictHook};

#[derive(Clone, Debug)]
enum Step {
    /// With a position, or without.
    Subscribe(bool),
    Call(OperationType),
    Cancel(Index),
    Publish(Index),
    Rotate,
    Advance(ConnectionId),
    FailCredentials(ConnectionId),
    Lose(ConnectionId, u16),
    Write(ConnectionId, usize),
    Up(ConnectionId),
    Down(ConnectionId),
    End(ConnectionId, usize),
    Rewind(Index),
    /// From now on the reader takes only so many items.
    Fill(Index, u32),
    /// The reader catches up.
    Read(Index),
    Settle,
    Pass(u64),
    Live(u64),
    Pause,
    Resume,
    ReconnectNow,
    NetworkChanged,
    Connect,
    Probe(Index),
    Begin(ConnectionId),
    Stall,
    Unstall,
    Goodbye(ConnectionId),
    Garbage(ConnectionId),
    Shutdown,
}

/// What the client is told to do, and what the server is like.
#[derive(Clone, Debug)]
struct Setting {
    config: Config,
    watch_options: WatchOptions,
    lifetime: Option<u64>,
    slow_calls: bool,
    lazy: bool,
    restarts: bool,
    call_timeout: u64,
}

fn setting() -> impl Strategy<Value = Setting> {
    let rare = |range: std::ops::Range<u64>| prop::option::weighted(0.15, range);
    let connection = (
        prop::sample::select(vec![None, Some(MODERN), Some(LEGACY)]),
        prop::option::weighted(0.2, 1..30_u32),
        rare(1_000..40_000),
        prop::option::weighted(0.1, 1..5_u32),
        prop::option::weighted(0.1, 2..5_u32),
        prop::option::weighted(0.5, Just(secs(30))),
        prop::bool::weighted(0.1),
        prop::option::weighted(
            0.2,
            prop::sample::select(vec![
                Verdict::Retry,
                Verdict::RetryAfter(secs(3)),
                Verdict::NewCredentials,
                Verdict::Fatal,
            ]),
        ),
        any::<u64>(),
    );
    let config = connection.prop_map(
        |(subprotocol, pace, age, most, dials, idle_timeout, strict, verdict, seed)| Config {
            subprotocol,
            reissue_rate: pace.and_then(NonZeroU32::new),
            max_connection_age: age.map(in_millis),
            give_up_after: most,
            max_dials: dials
                .and_then(NonZeroU32::new)
                .map(|dials| DialBudget { dials, per: secs(20) }),
            idle_timeout,
            strictness: if strict { Strictness::Strict } else { Strictness::Lenient },
            on_disconnect: verdict.map(|verdict| VerdictHook::new(move |_, _| verdict)),
            seed,
            ..config()
        },
    );
    let watch_options =
        (prop::bool::weighted(0.2), rare(200..20_000), rare(200..20_000), any::<bool>());
    let watch_options =
        watch_options.prop_map(|(restart, first, idle, reissue_stale)| WatchOptions {
            restart,
            first_item_within: first.map(in_millis),
            idle_longer_than: idle.map(in_millis),
            reissue_stale,
        });
    let lifetime = prop::option::of(2_000..40_000_u64);
    let call_timeout = prop_oneof![Just(300_000_u64), 50..40_000_u64];
    (config, watch_options, lifetime, any::<bool>(), any::<bool>(), any::<bool>(), call_timeout)
        .prop_map(|(config, watch_options, lifetime, slow_calls, lazy, restarts, call_timeout)| {
            Setting { config, watch_options, lifetime, slow_calls, lazy, restarts, call_timeout }
        })
}

fn step() -> impl Strategy<Value = Step> {
    let on = || prop::sample::select(vec![A, B]);
    let code = prop::sample::select(vec![1000, 1001, 1012, 4400, 4403, 4409, 4500, 1013]);
    prop_oneof![
        2 => any::<bool>().prop_map(Step::Subscribe),
        1 => Just(Step::Call(OperationType::Query)),
        1 => Just(Step::Call(OperationType::Mutation)),
        1 => any::<Index>().prop_map(Step::Cancel),
        8 => any::<Index>().prop_map(Step::Publish),
        4 => Just(Step::Rotate),
        8 => on().prop_map(Step::Advance),
        1 => on().prop_map(Step::FailCredentials),
        2 => (on(), code).prop_map(|(on, code)| Step::Lose(on, code)),
        8 => (on(), 1..5_usize).prop_map(|(on, most)| Step::Write(on, most)),
        12 => on().prop_map(Step::Up),
        12 => on().prop_map(Step::Down),
        1 => (on(), 0..3_usize).prop_map(|(on, index)| Step::End(on, index)),
        1 => any::<Index>().prop_map(Step::Rewind),
        1 => (any::<Index>(), 0..6_u32).prop_map(|(index, room)| Step::Fill(index, room)),
        1 => any::<Index>().prop_map(Step::Read),
        2 => Just(Step::Settle),
        3 => prop::sample::select(vec![1, 100, 600, 2_100, 12_000]).prop_map(Step::Pass),
        2 => prop::sample::select(vec![1, 100, 600, 2_100, 12_000, 40_000]).prop_map(Step::Live),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        1 => Just(Step::ReconnectNow),
        1 => Just(Step::NetworkChanged),
        1 => Just(Step::Connect),
        2 => any::<Index>().prop_map(Step::Probe),
        4 => on().prop_map(Step::Begin),
        1 => Just(Step::Stall),
        3 => Just(Step::Unstall),
        1 => on().prop_map(Step::Goodbye),
        1 => on().prop_map(Step::Garbage),
        // Little is left to see after that.
        1 => prop_oneof![1 => Just(Step::Shutdown), 4 => Just(Step::Settle)],
    ]
}

fn run(world: &mut World, step: &Step) -> Result<(), TestCaseError> {
    let now = world.rig.now;
    let any = |world: &World, index: &Index| {
        let ids: Vec<_> = world.readers.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[index.index(ids.len())])
    };
    match step {
        Step::Subscribe(resumes) => {
            world.rig.is_resumable = *resumes;
            world.subscribe();
        }
        Step::Call(kind) => drop(world.call(*kind)),
        Step::Cancel(index) => any(world, index).into_iter().for_each(|id| world.cancel(id)),
        Step::Publish(index) => any(world, index).into_iter().for_each(|id| world.publish(id)),
        Step::Rotate => {
            world.waits_for_rotation = true;
            world.rig.session.rotate(now);
        }
        Step::Advance(on) => world.advance(*on)?,
        Step::FailCredentials(on) => world.fail_credentials(*on)?,
        Step::Lose(on, code) => world.lose(*on, closed(*code))?,
        Step::Write(on, most) => world.write(*on, *most),
        Step::Up(on) => drop(world.up(*on)?),
        Step::Down(on) => drop(world.down(*on)?),
        Step::End(on, index) => world.end(*on, *index),
        Step::Rewind(index) => {
            if let Some(id) = any(world, index) {
                world.rig.session.rewind(id);
                world.perform()?;
                world.rig.session.catch_up(now, id);
            }
        }
        Step::Fill(index, room) => {
            let reader = any(world, index).and_then(|id| world.readers.get_mut(&id));
            if let Some(reader) = reader {
                reader.room = Some(*room);
            }
        }
        Step::Read(index) => any(world, index).into_iter().for_each(|id| world.read(id)),
        Step::Settle => world.settle()?,
        Step::Pass(millis) => world.pass(in_millis(*millis))?,
        Step::Live(millis) => world.live(in_millis(*millis))?,
        Step::Pause => world.rig.session.pause(now),
        Step::Resume => world.rig.session.resume(now),
        Step::ReconnectNow => world.rig.session.reconnect_now(now),
        Step::NetworkChanged => world.rig.session.network_changed(now),
        Step::Connect => {
            world.waits_for_connection = true;
            world.rig.session.connect(now);
        }
        Step::Probe(index) => {
            if let Some(id) = any(world, index) {
                world.rig.session.probe(id);
            }
        }
        Step::Begin(on) => world.begin(*on),
        Step::Stall => {
            world.stalled = true;
            world.rig.session.stall();
        }
        Step::Unstall => unstall(world),
        Step::Goodbye(on) => world.say(*on, Down::Text(json!({"type": "connection_terminate"}))),
        Step::Garbage(on) => world.say(*on, Down::Garbage),
        Step::Shutdown => world.rig.session.shutdown(now, now + secs(2)),
    }
    world.perform()?;
    let waits = world.rig.session.other().is_some();
    prop_assert!(
        !waits || world.rig.session.poll_timeout().is_some(),
        "I6: a handover has a deadline"
    );
    Ok(())
}

fn unstall(world: &mut World) {
    if std::mem::take(&mut world.stalled) {
        world.rig.session.unstall(world.rig.now);
    }
}

/// What may happen while operations move from one connection to the other.
fn step_of_a_handover() -> impl Strategy<Value = Step> {
    let on = || prop::sample::select(vec![A, B]);
    let index = || any::<Index>();
    prop_oneof![
        10 => index().prop_map(Step::Publish),
        12 => on().prop_map(Step::Down),
        3 => (on(), 1..5_usize).prop_map(|(on, most)| Step::Write(on, most)),
        3 => on().prop_map(Step::Up),
        2 => on().prop_map(Step::Begin),
        2 => on().prop_map(|on| Step::Lose(on, 1001)),
        2 => (on(), 0..3_usize).prop_map(|(on, index)| Step::End(on, index)),
        1 => index().prop_map(Step::Rewind),
        2 => (index(), 0..4_u32).prop_map(|(index, room)| Step::Fill(index, room)),
        1 => index().prop_map(Step::Read),
        2 => prop::sample::select(vec![1_000, 6_000, 12_000]).prop_map(Step::Pass),
        1 => Just(Step::Settle),
        1 => Just(Step::ReconnectNow),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        1 => Just(Step::Stall),
        1 => Just(Step::Unstall),
        1 => index().prop_map(Step::Probe),
        1 => index().prop_map(Step::Cancel),
        1 => any::<bool>().prop_map(Step::Subscribe),
        1 => Just(Step::Rotate),
    ]
}

/// All trouble is over: everything goes on, and nobody waits in vain.
fn check_the_end(world: &mut World) -> Tried {
    unstall(world);
    world.rig.session.resume(world.rig.now);
    world.slow_calls = false;
    for on in ConnectionId::ALL {
        world.begin(on);
        world.answer(on);
    }
    for id in world.readers.keys().copied().collect::<Vec<_>>() {
        world.read(id);
    }
    // Longer than every backoff, trial, overlap and grace period.
    (world.lifetime, world.rig.session.config.max_connection_age) = (None, None);
    world.rig.watch_options = WatchOptions::default();
    world.live(secs(400))?;
    world.publish_all();
    world.live(secs(1))?;
    world.check_settled()?;
    prop_assert!(!world.waits_for_rotation && !world.waits_for_connection, "who waits is answered");
    for (id, reader) in &world.readers {
        prop_assert_eq!(reader.last, Some(reader.published), "{} lives", id);
    }
    for (id, kind) in &world.calls {
        prop_assert!(world.ends.contains_key(id), "I4: every call has an end");
        let end = &world.ends[id];
        let executed = world.executed.get(id).copied().unwrap_or_default();
        let is_told = ["answered", "ambiguous"].iter().any(|told| end.starts_with(told));
        let is_query = *kind == OperationType::Query;
        prop_assert!(is_query || executed == 0 || is_told, "rule 27: {}", end);
        prop_assert!(is_query || executed <= 1, "rule 27: executed {} times", executed);
    }
    if world.over {
        prop_assert!(world.readers.is_empty() && world.rig.session.poll_timeout().is_none());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(1_000),
        ..ProptestConfig::default()
    })]

    #[test]
    fn i1_to_i4_hold_with_two_connections_and_no_mutation_is_executed_twice(
        steps in prop::collection::vec(step(), 0..200),
        setting in setting(),
    ) {
        let mut world = World::new(setting.config);
        world.rig.watch_options = setting.watch_options;
        world.lifetime = setting.lifetime.map(in_millis);
        world.slow_calls = setting.slow_calls;
        (world.lazy, world.restarts) = (setting.lazy, setting.restarts);
        world.call_timeout = in_millis(setting.call_timeout);
        world.subscribe();
        world.rig.is_resumable = true;
        world.subscribe();
        world.settle()?;
        for step in &steps {
            run(&mut world, step)?;
        }
        check_the_end(&mut world)?;
    }

    #[test]
    fn from_the_middle_of_a_handover_nothing_is_lost_or_repeated_that_is_not_announced(
        before in prop::collection::vec(any::<Index>(), 0..4),
        unsent in prop::collection::vec(any::<Index>(), 0..6),
        steps in prop::collection::vec(step_of_a_handover(), 0..60),
        (is_lazy, restarts) in any::<(bool, bool)>(),
        pace in prop::option::weighted(0.2, 1..30_u32),
        seed in any::<u64>(),
    ) {
        let reissue_rate = pace.and_then(NonZeroU32::new);
        let mut world = World::new(Config { reissue_rate, seed, ..config() });
        (world.lazy, world.restarts) = (is_lazy, restarts);
        world.rig.watch_options.restart = restarts;
        world.subscribe();
        world.rig.is_resumable = true;
        world.subscribe();
        world.settle()?;
        for index in &before {
            run(&mut world, &Step::Publish(*index))?;
        }
        world.settle()?;
        // The old connection is behind from here on.
        for index in &unsent {
            run(&mut world, &Step::Publish(*index))?;
        }
        world.rig.session.rotate(world.rig.now);
        acknowledge(&mut world, B);
        for step in &steps {
            run(&mut world, step)?;
        }
        check_the_end(&mut world)?;
    }
}
