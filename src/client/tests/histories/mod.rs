//! Random histories against an honest server: it is late, its connections stall and die at any
//! step of a handover, readers are slow, and the application does what it may. No stream loses,
//! repeats or reorders anything that it does not announce, and every stream goes on.
//!
//! Everything but sockets and tasks is real: the session, the mailboxes with their policies, and
//! the streams as the application holds them. A history is a function of its seed:
//!
//! ```text
//! RESUB_HISTORIES=100000 cargo test --release --lib histories     so many, instead of 5,000
//! RESUB_HISTORY=4711 cargo test --lib histories                   this one, with its log
//! ```

mod client;
mod faults;
mod oracle;
mod performer;
mod reader;
mod server;
mod setting;
mod wire;
mod world;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tokio::runtime::Handle;

use self::{oracle::Violation, world::World};

/// The shortest history in which a promise was broken, and in how many it was.
struct Found {
    seed: u64,
    age: Duration,
    detail: String,
    count: u32,
}

fn run(
    seed: u64,
    is_calm: bool,
    runtime: &Handle,
    is_logged: bool,
) -> (Option<Violation>, Duration, Vec<String>) {
    let mut world = World::new(seed, is_calm, runtime.clone(), is_logged);
    let run = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match run {
        Ok(checked) => checked.err(),
        Err(_) => Some(Violation { claim: "nothing panics", detail: String::new() }),
    };
    (violation, world.age(), world.take_log())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// Runs so many histories, and shows the shortest of each kind that breaks a promise.
fn check(histories: u64, is_calm: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let seeds = number("RESUB_HISTORY").map_or(0..histories, |seed| seed..seed + 1);
    let mut found = BTreeMap::<&str, Found>::new();
    for seed in seeds.clone() {
        let (violation, age, _) = run(seed, is_calm, runtime.handle(), false);
        let Some(Violation { claim, detail }) = violation else { continue };
        let known =
            found.entry(claim).or_insert(Found { seed, age, detail: detail.clone(), count: 0 });
        known.count += 1;
        if age < known.age {
            *known = Found { seed, age, detail, ..*known };
        }
    }
    let Some(Found { seed, .. }) = found.values().max_by_key(|found| found.count) else { return };
    let (_, _, log) = run(*seed, is_calm, runtime.handle(), true);
    println!("seed {seed}\n{}", log.join("\n"));
    for (claim, Found { seed, detail, count, .. }) in &found {
        println!("{count} of {}: not \"{claim}\": seed {seed}, {detail}", seeds.end - seeds.start);
    }
    panic!("{} promises were broken; RESUB_HISTORY=<seed> replays a history", found.len());
}

#[test]
fn no_stream_loses_repeats_or_reorders_what_it_does_not_announce() {
    check(number("RESUB_HISTORIES").unwrap_or(5_000), false);
}

#[test]
fn a_busy_stream_of_a_prompt_server_has_no_lossy_gap_when_its_connection_is_replaced() {
    check(number("RESUB_HISTORIES").unwrap_or(5_000) / 20, true);
}
