//! Simulated years: a proven endpoint is down now and then, and says anything meanwhile. No stream
//! ends, and each goes on soon after.
//!
//! ```text
//! RESUB_OUTAGES=10000 cargo test --release --lib outages     so many clients, instead of 300
//! RESUB_OUTAGE=4711 cargo test --lib outages                 this one, with its log
//! ```

mod endpoint;
mod refusals;

use std::collections::BTreeMap;

use self::endpoint::Endpoint;
use super::*;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn no_stream_ends_over_an_outage_and_each_goes_on_soon_after() {
    let seeds = match number("RESUB_OUTAGE") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RESUB_OUTAGES").unwrap_or(300),
    };
    // By what was broken, and by what the endpoint said.
    let mut found = BTreeMap::<(&str, String), (u64, u32)>::new();
    let mut lived = Duration::ZERO;
    for seed in seeds {
        let mut endpoint = Endpoint::new(seed, false);
        if let Err(claim) = endpoint.run() {
            found.entry((claim, endpoint.said())).or_insert((seed, 0)).1 += 1;
        }
        lived += endpoint.age();
    }
    println!("{} days", lived.as_secs() / 86_400);
    let Some((seed, _)) = found.values().next() else { return };
    let mut endpoint = Endpoint::new(*seed, true);
    let _ = endpoint.run();
    println!("seed {seed}\n{}", endpoint.take_log().join("\n"));
    for ((claim, said), (seed, count)) in &found {
        println!("{count} times not \"{claim}\": seed {seed}, when the endpoint said {said}");
    }
    panic!("{} kinds of outages were not survived", found.len());
}
