//! Prints the last trade, then every new one.
//!
//! Start it with `cargo run --example ticker`. It queries the last trade of the market that
//! `live_feed` embeds and follows the feed from there. No trade between the two is lost. The server
//! drops the connection every second, and after each loss the example queries the last trade again.

use std::{error::Error, time::Duration};

use graphql_client::GraphQLQuery;
use resub::{Client, Event, Synced};

use crate::market::{MarketServer, Options};

#[path = "live_feed/market/mod.rs"]
mod market;

#[derive(GraphQLQuery)]
#[graphql(schema_path = "schema/market.graphql", query_path = "queries/last_trade.graphql")]
struct LastTrade;

#[derive(GraphQLQuery)]
#[graphql(schema_path = "schema/market.graphql", query_path = "queries/trades.graphql")]
struct Trades;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let drop_every = Some(Duration::from_secs(1));
    let server =
        MarketServer::start(Options { drop_every, trades_per_second: 50, ..Options::default() })?;
    let client = Client::builder(server.url())
        .backoff(Duration::from_millis(50), Duration::from_secs(1))
        .build()?;

    let symbol = "BTC".to_owned();
    let trades = client
        .subscribe::<Trades>(trades::Variables { symbol: Some(symbol.clone()), after: None })?;
    let queries = client.clone();
    let mut ticker = trades.with_snapshot(
        move || queries.query::<LastTrade>(last_trade::Variables { symbol: symbol.clone() }),
        |snapshot| snapshot.last_trade.as_ref().map(|trade| trade.sequence),
        |last, item| Some(item.trades.sequence) > *last,
    );

    let mut cuts = 0;
    while let Some(synced) = ticker.next().await {
        match synced {
            Ok(Synced::Snapshot(snapshot)) => {
                match snapshot.data.and_then(|data| data.last_trade) {
                    Some(last) => println!("last   {:>9.2}  #{}", last.price, last.sequence),
                    None => println!("nothing was traded so far"),
                }
            }
            Ok(Synced::Live(Event::Next(item))) => {
                if let Some(trade) = item.data.map(|data| data.trades) {
                    println!("trade  {:>9.2}  #{}", trade.price, trade.sequence);
                }
                if cuts == 2 {
                    break; // enough for a demonstration
                }
            }
            Ok(Synced::Live(Event::Gap(gap))) => {
                println!("disconnected for {:?}: querying again", gap.down_for);
                cuts += 1;
            }
            Ok(_) => {}
            Err(error) if error.is_terminal() => return Err(error.into()),
            Err(error) => eprintln!("{error}; trying again"),
        }
    }
    drop(ticker);
    client.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
