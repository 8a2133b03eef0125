use super::*;
use fastrand::Rng;

#[test]
fn silent60() {
    for pongs in [Pongs::WithTheNumber, Pongs::WithoutTheNumber, Pongs::Never] {
        for sub in [MODERN, LEGACY] {
            let mut worst = vec![];
            for seed in 0..10u64 {
                for position in 1..=60u64 {
                    let cause = &strong()[(seed % 5) as usize];
                    let mut world = World::new(Config { seed, ..fixed(sub) }, Answers::Never);
                    world.server.pongs = pongs;
                    world.subscribe_all(position - 1);
                    let bad = world.subscribe_bad(cause);
                    world.subscribe_all(60 - position);
                    let (ended, took) = find(&mut world, 1);
                    assert_eq!(ended, [bad]);
                    worst.push((took, position, seed, world.lost_trials, world.losses.len()));
                }
            }
            worst.sort();
            println!(
                "{pongs:?} {sub:?} median {:?} worst {:?}",
                worst[worst.len() / 2],
                worst.last()
            );
        }
    }
}

#[test]
fn flaps() {
    let mut total = 0;
    for mean in [500, 1000, 2_000, 5_000, 10_000, 20_000u64] {
        for cause in [Disconnect::Reset(None), closed(4500)] {
            let (mut ended, mut losses, mut runs) = (0, 0, 0);
            for seed in 0..40u64 {
                for (cleared, quiet) in [(0, 20), (10, 1), (10, 5), (1, 2), (0, 3)] {
                    let mut world = World::with_cleared(seeded(seed), cleared);
                    world.server.flaps = Some(Flaps {
                        mean: millis(mean),
                        cause: cause.clone(),
                        rng: Rng::with_seed(seed),
                    });
                    world.subscribe_all(quiet);
                    world.lose(cause.clone());
                    world.pass(secs(900));
                    ended += world.ends.len();
                    losses += world.losses.len();
                    runs += 1;
                    world.server.flaps = None;
                    assert!(world.reach(World::all_are_carried));
                }
            }
            println!("mean {mean} {cause}: {ended} ended, {losses} losses, {runs} runs");
            total += ended;
        }
    }
    println!("{total}");
}
#[test]
fn single() {
    let mut world = World::new(Config { seed: 0, ..fixed(MODERN) }, Answers::Never);
    world.server.pongs = Pongs::WithTheNumber;
    world.server.latency = Duration::ZERO;
    world.server.most_sockets = 1;
    world.begin_bad(OperationType::Subscription, millis(0), &closed(1009));
    world.begin_bad(OperationType::Subscription, millis(0), &closed(1009));
    world.subscribe_all(1);
    world.rig.cancel(3);
    let t = world.rig.now;
    let mut last = String::new();
    for _ in 0..3000 {
        world.pass(millis(50));
        let q = format!("{:?}", world.rig.session.quarantine);
        let s = format!(
            "losses {} trials {} carried {:?} {} {:?}",
            world.losses.len(),
            world.lost_trials,
            world.carried(),
            q,
            world.ends
        );
        if s != last {
            println!("{:?} {} {s}", world.rig.now - t, world.rig.session.is_open());
            last = s;
        }
    }
}
