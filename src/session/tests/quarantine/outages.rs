//! Who is not blamed: anybody, for the doing of a server that is down or of a network.

use fastrand::Rng;

use super::*;

/// Every operation closes the connection for so long, after between nothing and `most`.
fn go_down(world: &mut World, seed: u64, long: Duration, most: Duration, cause: &Disconnect) {
    let (until, cause, rng) = (world.rig.now + long, cause.clone(), Rng::with_seed(seed));
    world.server.down = Some(Down { until, most, cause, rng });
    world.lose(Disconnect::Reset(None));
}

#[test]
fn a_backend_that_is_down_for_a_minute_or_for_an_hour_blames_nobody() {
    let causes = [closed(4500), closed(1011), Disconnect::Reset(None), closed(1009)];
    for (long, seeds) in [(secs(60), 0..10), (secs(3_600), 10..12)] {
        for (cause, seed) in causes.iter().flat_map(|it| seeds.clone().map(move |n| (it, n))) {
            for (cleared, new) in [(10, 0), (10, 1), (10, 5), (0, 2), (0, 20)] {
                let mut world = World::with_cleared(seeded(seed), cleared);
                world.subscribe_all(new);
                let most =
                    [Duration::ZERO, millis(30), millis(300)][usize::try_from(seed % 3).unwrap()];
                go_down(&mut world, seed, long, most, cause);
                world.pass(long);
                assert_eq!(world.ends, [], "{cause}, {cleared} before, {new} new, seed {seed}");
                let (dials, most) = (world.dials.len() as u64, 60 + long.as_secs() / 10);
                assert!(dials <= most, "{cause}, {cleared} before, {new} new: {dials} dials");
                world.pass(secs(100));
                assert!(
                    world.all_are_carried(),
                    "{cause}, {cleared} before, {new} new: {:?}",
                    world.quarantined()
                );
                assert_eq!(world.rig.session.live_operations() as u64, cleared + new);
            }
        }
    }
}

#[test]
fn a_server_that_refuses_for_good_what_has_worked_ends_all_when_refusal_grace_is_over() {
    let mut world = World::with_cleared(config(), 10);
    let began = world.rig.now;
    go_down(&mut world, 0, secs(10_000), Duration::ZERO, &closed(4400));
    assert!(world.reach(|world| !world.ends.is_empty()));
    assert!((secs(300)..secs(340)).contains(&(world.rig.now - began)));
    assert_eq!(world.ends.len(), 10);
    assert!(world.ends.iter().all(|(_, end)| *end == format!("lost: {}", closed(4400))));
}

#[test]
fn a_server_that_refuses_everything_from_the_start_blames_nobody_and_is_dialed_ever_less_often() {
    for new in [2, 20] {
        let mut world = World::new(config(), Answers::Never);
        world.subscribe_all(new);
        go_down(&mut world, 0, secs(10_000), Duration::ZERO, &closed(4400));
        world.pass(secs(3_600));
        assert_eq!(world.ends, []);
        assert!(world.dials.len() < 150, "{}", world.dials.len());
    }
}

#[test]
fn connections_that_die_of_age_for_which_nobody_is_to_blame_are_not_replaced_over_and_over() {
    let mut world = World::new(config(), Answers::Never);
    world.server.age = Some((secs(8), closed(4400)));
    world.subscribe_all(10);
    world.pass(secs(3_600));
    assert_eq!(world.ends, []);
    assert!(world.dials.len() < 800, "{}", world.dials.len());
}

#[test]
fn a_connection_that_dies_of_age_convicts_nobody() {
    for age in (100..12_000).step_by(700) {
        for cause in [closed(4500), closed(4400), closed(1000)] {
            for (cleared, new) in [(5, 3), (0, 3), (5, 1)] {
                let mut world = World::with_cleared(config(), cleared);
                world.server.age = Some((millis(age), cause.clone()));
                world.subscribe_all(new);
                world.pass(millis(50));
                world.lose(cause.clone());
                world.pass(secs(250));
                assert_eq!(world.ends, [], "{cause} after {age} ms, {cleared} and {new}");
                world.server.age = None;
                assert!(world.reach(World::all_are_carried));
            }
        }
    }
}

#[test]
fn a_network_that_flaps_convicts_nobody() {
    for (mean, cause) in [500, 2_000, 5_000, 10_000]
        .iter()
        .flat_map(|mean| weak().into_iter().map(move |it| (mean, it)))
    {
        for (seed, cleared, quiet) in [(1, 0, 20), (2, 10, 1), (3, 10, 5), (4, 1, 2), (5, 0, 3)] {
            let mut world = World::with_cleared(seeded(seed), cleared);
            let rng = Rng::with_seed(seed);
            world.server.flaps = Some(Flaps { mean: millis(*mean), cause: cause.clone(), rng });
            world.subscribe_all(quiet);
            world.lose(cause.clone());
            world.pass(secs(900));
            assert!(world.losses.len() > 15, "{}", world.losses.len());
            assert_eq!(world.ends, [], "{cause} after {mean} ms, {cleared} and {quiet}");
            world.server.flaps = None;
            assert!(world.reach(World::all_are_carried), "nobody is held back for good");
        }
    }
}

#[test]
fn losses_between_which_the_connection_was_healthy_are_not_in_a_row_however_much_is_started() {
    let mut world = World::with_cleared(config(), 5);
    for _ in 0..5 {
        for _ in 0..60 {
            world.rig.subscribe();
            world.pass(secs(1));
        }
        world.lose(Disconnect::Reset(None));
        assert_eq!(world.quarantined(), [0; 0]);
        assert!(world.reach(World::all_are_carried));
    }
}

#[test]
fn losses_that_one_operation_is_to_blame_for_are_no_failed_attempts() {
    let mut world = World::with_cleared(Config { give_up_after: Some(4), ..config() }, 10);
    for _ in 0..6 {
        let bad = world.subscribe_bad(&closed(4500));
        assert!(world.reach(|world| world.ended().contains(&bad)));
        assert!(world.reach(World::all_are_carried));
    }
    assert_eq!(world.ends.len(), 6);
}
