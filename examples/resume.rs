//! Reads every trade exactly once over a connection that the server keeps dropping.
//!
//! Start it with `cargo run --example resume`. It reads the trades of the market that `live_feed`
//! embeds, which numbers its trades and honours `after`.

use std::{error::Error, num::NonZeroUsize, time::Duration};

use graphql_client::GraphQLQuery;
use resub::{Client, Event, Overflow};

use crate::market::{MarketServer, Options};

#[path = "live_feed/market/mod.rs"]
mod market;

#[derive(GraphQLQuery)]
#[graphql(schema_path = "schema/market.graphql", query_path = "queries/trades.graphql")]
struct Trades;

const TRADES: i64 = 1_000;
const WINDOW: NonZeroUsize = NonZeroUsize::new(64).unwrap();

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cut = Some(Duration::from_millis(700));
    let server = MarketServer::start(Options {
        trades_per_second: 200,
        drop_every: cut,
        ..Options::default()
    })?;
    let backoff = Duration::from_millis(100);
    let client = Client::builder(server.url()).backoff(backoff, backoff * 5).build()?;

    let mut trades = client
        .subscription::<Trades>(trades::Variables { symbol: None, after: None })
        // Never move the position back: after a reconnect, the server may repeat older trades.
        .resume_with(|last, variables| {
            variables.after = variables.after.max(Some(last.trades.sequence));
        })
        .dedupe_by(WINDOW, |data| data.trades.sequence)
        .overflow(Overflow::Rewind)
        .start()?;

    let mut read = None;
    while let Some(event) = trades.next().await {
        match event? {
            Event::Next(response) => {
                let sequence = response.data.ok_or("an item without data")?.trades.sequence;
                let (first, last) = read.unwrap_or((sequence, sequence - 1));
                if sequence != last + 1 {
                    return Err(format!("trade {sequence} follows {last}").into());
                }
                read = Some((first, sequence));
                if sequence - first + 1 == TRADES {
                    println!(
                        "{TRADES} trades, from {first} to {sequence}: \
                         none is missing, none came twice"
                    );
                    break;
                }
            }
            Event::Gap(gap) if gap.is_lossless() => {
                println!(
                    "down for {:?}, then resumed after trade {:?}",
                    gap.down_for,
                    read.map(|(_, last)| last)
                );
            }
            // This can happen only before the first trade, when there is no position yet.
            Event::Gap(gap) => println!("something may be missing: {gap:?}"),
            _ => {}
        }
    }
    client.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
