//! Rule 22: an operation that makes the server close the connection is found, and ends alone. Its
//! siblings notice nothing of the search.

mod beside;
mod finding;
mod lone;
mod meanwhile;
mod outages;
mod random;
mod server;
mod targets;
mod world;

use self::{
    server::{Answers, Down, Flaps, Pongs},
    world::{Event, World},
};
use super::*;
use crate::session::{
    connection::{Connection, Phase, Role},
    operations::{Operation, Why},
};

const PONGS: [Pongs; 3] = [Pongs::WithTheNumber, Pongs::WithoutTheNumber, Pongs::Never];

fn strong() -> Vec<Disconnect> {
    let too_big = Disconnect::MessageTooBig { limit: 1 };
    vec![closed(4500), closed(4400), closed(1009), closed(1002), too_big]
}

fn weak() -> Vec<Disconnect> {
    vec![
        Disconnect::Reset(None),
        closed(1000),
        closed(1006),
        closed(1011),
        Disconnect::WebSocket("control frame too big".into()),
    ]
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn seeded(seed: u64) -> Config {
    Config { seed, ..config() }
}

/// Runs until so many have ended and the others live on: who has ended, and how long after the
/// first loss the last of them did.
fn find(world: &mut World, bad: usize) -> (Vec<u64>, Duration) {
    assert!(world.reach(|world| !world.losses.is_empty()), "no loss");
    let since = world.losses[0];
    assert!(world.reach(|world| world.ends.len() >= bad), "not found: {:?}", world.quarantined());
    let took = world.rig.now - since;
    assert!(world.reach(World::all_are_carried), "the siblings live on");
    (world.ended(), took)
}
