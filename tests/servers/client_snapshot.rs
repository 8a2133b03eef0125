//! Whether a server that has read a subscription is known, and what follows from it.

use std::time::Duration;

use resub::{
    Client, Event, Gap, Request, Response, Subprotocol, Subscription, SubscriptionError, Synced,
};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::market::feed::{Market, Side};
use crate::market::{MarketServer, Options};
use crate::pair::{Pair, end, impatient, item, on_each_pair, subscribe};
use crate::raw::within;

const BOTH: [Subprotocol; 2] = [Subprotocol::GraphqlTransportWs, Subprotocol::GraphqlWs];

/// A market that trades only when the test says so.
fn quiet() -> MarketServer {
    MarketServer::start(Options { trades_per_second: 0, ..Options::default() }).unwrap()
}

fn client(server: &MarketServer, subprotocol: Subprotocol) -> Client {
    impatient(&server.url()).subprotocol(subprotocol).build().unwrap()
}

fn trades(client: &Client) -> Subscription<Value> {
    subscribe(client, "subscription { trades { sequence } }")
}

/// Trades of one symbol, some each millisecond.
fn keep_trading(market: &Market) -> AbortHandle {
    let market = market.clone();
    let trading = tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_millis(1));
        loop {
            interval.tick().await;
            for _ in 0..3 {
                market.fill("BTC", Side::Buy, 1);
            }
        }
    });
    trading.abort_handle()
}

on_each_pair!(a_subscription_is_established_or_ends);
async fn a_subscription_is_established_or_ends(pair: Pair) {
    let server = pair.start();
    let client = pair.client(&server);
    let mut numbers = subscribe(&client, "subscription { forever(everyMs: 60000) }");
    within(numbers.established()).await.unwrap();
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    within(numbers.established()).await.expect("by a ping, as nothing else comes");
    let mut none = subscribe(&client, "subscription { ticks(n: 0) }");
    within(none.established()).await.unwrap();
    assert!(end(&mut none).await.is_none());
    let mut wrong = subscribe(&client, "subscription { nothing }");
    match within(wrong.established()).await {
        Err(SubscriptionError::Rejected(errors)) => {
            assert!(errors[0].message.contains("nothing"), "{errors:?}");
        }
        // Some servers say so in an item.
        Ok(()) => {}
        Err(other) => panic!("{other:?}"),
    }
    assert_eq!(server.connections().borrow().ever, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trade_is_missing_behind_a_snapshot_while_connections_are_cut() {
    for subprotocol in BOTH {
        let server = quiet();
        let trading = keep_trading(server.market());
        let client = client(&server, subprotocol);
        for _ in 0..5 {
            let queries = client.clone();
            let mut last_trade = trades(&client).with_snapshot(
                move || {
                    queries.query_with(Request::<Value>::new(
                        "{ lastTrade(symbol: \"BTC\") { sequence } }",
                    ))
                },
                |snapshot| snapshot["lastTrade"]["sequence"].as_i64(),
                |last, trade| trade["trades"]["sequence"].as_i64() > *last,
            );
            let (mut last, mut snapshots, mut items) = (None, 0, 0);
            while snapshots < 4 || items < 50 {
                match within(last_trade.next()).await.expect("not the end").expect("not an error") {
                    Synced::Snapshot(Response { data: Some(data), .. }) => {
                        let snapshot = data["lastTrade"]["sequence"].as_i64();
                        assert!(snapshot >= last, "{snapshot:?} after {last:?}");
                        (last, snapshots, items) = (snapshot, snapshots + 1, 0);
                    }
                    Synced::Live(Event::Next(Response { data: Some(data), .. })) => {
                        let sequence = data["trades"]["sequence"].as_i64();
                        assert_eq!(sequence, last.map(|last| last + 1), "in snapshot {snapshots}");
                        (last, items) = (sequence, items + 1);
                        if items == 20 && snapshots < 4 {
                            server.drop_connections();
                        }
                    }
                    Synced::Live(Event::Gap(Gap { reconnects: 1, dropped: 0, .. })) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        trading.abort();
    }
}
