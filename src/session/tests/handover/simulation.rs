//! Random histories with two connections: nothing is lost or doubled in silence, whatever fails when.

use std::num::NonZeroU32;

use proptest::sample::Index;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Subscribe,
    Call(OperationType),
    Cancel(Index),
    Publish(Index),
    Rotate,
    Advance(LegId),
    FailCredentials(LegId),
    Lose(LegId, u16),
    Write(LegId, usize),
    Up(LegId),
    Down(LegId),
    End(LegId, usize),
    Rewind(Index),
    Settle,
    Pass(u64),
    Live(u64),
    Pause,
    Resume,
    ReconnectNow,
    NetworkChanged,
}

fn step() -> impl Strategy<Value = Step> {
    let leg = || prop::sample::select(vec![A, B]);
    let code = prop::sample::select(vec![1000, 1001, 1012, 4400, 4403, 4409, 4500, 1013]);
    prop_oneof![
        2 => Just(Step::Subscribe),
        2 => prop::sample::select(vec![OperationType::Query, OperationType::Mutation]).prop_map(Step::Call),
        1 => any::<Index>().prop_map(Step::Cancel),
        8 => any::<Index>().prop_map(Step::Publish),
        4 => Just(Step::Rotate),
        8 => leg().prop_map(Step::Advance),
        1 => leg().prop_map(Step::FailCredentials),
        2 => (leg(), code).prop_map(|(leg, code)| Step::Lose(leg, code)),
        8 => (leg(), 1..5_usize).prop_map(|(leg, most)| Step::Write(leg, most)),
        12 => leg().prop_map(Step::Up),
        12 => leg().prop_map(Step::Down),
        1 => (leg(), 0..3_usize).prop_map(|(leg, index)| Step::End(leg, index)),
        1 => any::<Index>().prop_map(Step::Rewind),
        2 => Just(Step::Settle),
        3 => prop::sample::select(vec![1, 100, 600, 2_100, 12_000]).prop_map(Step::Pass),
        2 => prop::sample::select(vec![1, 100, 600, 2_100, 12_000, 40_000]).prop_map(Step::Live),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        1 => Just(Step::ReconnectNow),
        1 => Just(Step::NetworkChanged),
    ]
}

fn run(world: &mut World, step: &Step) -> Result<(), TestCaseError> {
    let now = world.rig.now;
    let any = |world: &World, index: &Index| {
        let ids: Vec<_> = world.readers.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[index.index(ids.len())])
    };
    match step {
        Step::Subscribe => drop(world.subscribe()),
        Step::Call(kind) => drop(world.call(*kind)),
        Step::Cancel(index) => any(world, index).into_iter().for_each(|id| world.cancel(id)),
        Step::Publish(index) => any(world, index).into_iter().for_each(|id| world.publish(id)),
        Step::Rotate => world.rig.session.rotate(now),
        Step::Advance(leg) => world.advance(*leg)?,
        Step::FailCredentials(leg) => world.fail_credentials(*leg)?,
        Step::Lose(leg, code) => world.lose(*leg, closed(*code))?,
        Step::Write(leg, most) => world.write(*leg, *most),
        Step::Up(leg) => drop(world.up(*leg)?),
        Step::Down(leg) => drop(world.down(*leg)?),
        Step::End(leg, index) => world.end(*leg, *index),
        Step::Rewind(index) => {
            if let Some(id) = any(world, index) {
                world.rig.session.rewind(id);
                world.perform()?;
                world.rig.session.catch_up(now, id);
            }
        }
        Step::Settle => world.settle()?,
        Step::Pass(millis) => world.pass(in_millis(*millis))?,
        Step::Live(millis) => world.live(in_millis(*millis))?,
        Step::Pause => world.rig.session.pause(now),
        Step::Resume => world.rig.session.resume(now),
        Step::ReconnectNow => world.rig.session.reconnect_now(now),
        Step::NetworkChanged => world.rig.session.network_changed(now),
    }
    world.perform()?;
    let waits = world.rig.session.other.is_some();
    prop_assert!(!waits || world.rig.session.poll_timeout().is_some(), "I6: a handover has a deadline");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1_000), ..ProptestConfig::default() })]

    #[test]
    fn i1_to_i4_hold_with_two_connections_and_no_mutation_is_executed_twice(
        steps in prop::collection::vec(step(), 0..200),
        seed: u64,
        lifetime in prop::option::of(2_000..40_000_u64),
        slow_calls: bool,
        pace in prop::option::weighted(0.2, 1..30_u32),
    ) {
        let reissue_rate = pace.and_then(NonZeroU32::new);
        let mut world = World::open(Config { reissue_rate, seed, ..config() }, 2);
        world.lifetime = lifetime.map(in_millis);
        world.slow_calls = slow_calls;
        for step in &steps {
            run(&mut world, step)?;
        }
        world.rig.session.resume(world.rig.now);
        world.slow_calls = false;
        for leg in LegId::ALL {
            world.answer(leg);
        }
        // Longer than every backoff, trial, overlap and grace period.
        world.lifetime = None;
        world.live(secs(400))?;
        world.publish_all();
        world.live(secs(1))?;
        world.check_settled()?;
        for (id, reader) in &world.readers {
            prop_assert_eq!(reader.last, Some(reader.published), "{} lives", id);
        }
        for (id, kind) in &world.calls {
            prop_assert!(world.ends.contains_key(id), "I4: every call has an end");
            let (executed, end) = (world.executed.get(id).copied().unwrap_or_default(), &world.ends[id]);
            let is_told = ["answered", "ambiguous"].iter().any(|told| end.starts_with(told));
            prop_assert!(*kind == OperationType::Query || executed == 0 || is_told, "rule 27: {}", end);
            prop_assert!(*kind == OperationType::Query || executed <= 1, "rule 27: executed {} times", executed);
        }
    }
}
