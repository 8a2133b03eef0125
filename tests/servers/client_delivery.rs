//! What is missing, and where a stream goes on, with real servers.

use std::time::Duration;

use resub::{Client, Event, Overflow, Position, Request, Subscription};
use serde_json::{Value, json};

use crate::market::{self, MarketServer};
use crate::pair::{Pair, event, impatient, on_each_pair};
use crate::raw::until;

on_each_pair!(what_a_server_leaves_out_is_counted_and_what_it_repeats_is_left_out);
async fn what_a_server_leaves_out_is_counted_and_what_it_repeats_is_left_out(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let number = |data: &Value| data["feed"].as_u64().unwrap();
    let mut feed = client
        .subscription_to(Request::<Value>::new("subscription { feed }"))
        .sequence_by(number)
        .start()
        .unwrap();
    until(server.streams(), |running| running.now == 1).await;
    let (mut next, mut published) = (0, 0);
    while published < 600 {
        next += 1 + i32::from(published % 7 == 3) * 2;
        server.publish(next);
        if published % 5 == 0 {
            server.publish(next);
        }
        published += 1;
    }
    let (mut last, mut items, mut missing) = (0, 0, 0);
    while last < u64::try_from(next).unwrap() {
        match event(&mut feed).await {
            Event::Next(response) => {
                let n = number(&response.data.unwrap());
                assert_eq!(n, last + 1 + std::mem::take(&mut missing), "after {last}");
                (last, items) = (n, items + 1);
            }
            Event::Gap(gap) => {
                assert!(gap.missing == 2 && !gap.is_lossless(), "{gap:?}");
                missing = gap.missing;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(items, published);
}

fn trades(client: &Client, after: Option<Position>) -> Subscription<Value> {
    let request = Request::<Value>::new(
        "subscription Trades($after: Int) { trades(after: $after) { sequence } }",
    );
    let options = client
        .subscription_to(request.variables(&json!({"after": 0})))
        .sequence_by(sequence)
        .resume_with(|last, variables| variables["after"] = sequence(last).into())
        .overflow(Overflow::Rewind)
        .capacity(64.try_into().unwrap());
    match after {
        Some(position) => options.starting_after(position),
        None => options.starting_at_variables(),
    }
    .start()
    .unwrap()
}

fn sequence(data: &Value) -> u64 {
    data["trades"]["sequence"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_clients_reads_every_trade_once_over_connections_that_are_cut() {
    let server = MarketServer::start(market::Options {
        trades_per_second: 500,
        drop_every: Some(Duration::from_millis(300)),
        ..market::Options::default()
    })
    .unwrap();
    let (mut position, mut last) = (None, 0);
    for _ in 0..20 {
        let client = impatient(&server.url()).build().unwrap();
        let mut stream = trades(&client, position.take());
        for _ in 0..50 {
            let data = loop {
                match event(&mut stream).await {
                    Event::Next(response) => break response.data.unwrap(),
                    Event::Gap(gap) => assert!(gap.is_lossless(), "{gap:?}"),
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(sequence(&data), last + 1);
            last += 1;
        }
        // As if the process was killed here: what waits to be read is gone.
        let stored = serde_json::to_vec(&stream.position().unwrap()).unwrap();
        position = Some(serde_json::from_slice(&stored).unwrap());
    }
    assert_eq!(last, 1_000);
}
