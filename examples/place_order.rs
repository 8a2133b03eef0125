//! Runs a query, a mutation and a subscription over one connection.
//!
//! Start it with `cargo run --example place_order`. It places an order on the market that
//! `live_feed` embeds, and reads the trade that fills it from the feed.

use std::{error::Error, time::Duration};

use graphql_client::GraphQLQuery;
use resub::{CallError, Client};

use crate::market::{MarketServer, Options};

#[path = "live_feed/market/mod.rs"]
mod market;

#[derive(GraphQLQuery)]
#[graphql(schema_path = "schema/market.graphql", query_path = "queries/symbols.graphql")]
struct Symbols;

#[derive(GraphQLQuery)]
#[graphql(schema_path = "schema/market.graphql", query_path = "queries/place_order.graphql")]
struct PlaceOrder;

#[derive(GraphQLQuery)]
#[graphql(schema_path = "schema/market.graphql", query_path = "queries/trades.graphql")]
struct Trades;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = MarketServer::start(Options { trades_per_second: 0, ..Options::default() })?;
    let client = Client::builder(server.url()).build()?;
    let mut trades =
        client.subscribe::<Trades>(trades::Variables { symbol: None, after: None })?.data();

    let symbols =
        client.query::<Symbols>(symbols::Variables).await?.data.ok_or("no symbols")?.symbols;
    let symbol = symbols.first().ok_or("nothing is traded")?.clone();

    let order = place_order::Variables { symbol, side: place_order::Side::BUY, size: 3 };
    match client.mutate::<PlaceOrder>(order).timeout(Duration::from_secs(5)).await {
        Ok(response) => {
            let order = response.data.ok_or("no order")?.place_order;
            println!(
                "order {} was filled by trade {} at {}",
                order.id, order.trade.sequence, order.trade.price
            );
        }
        // The client does not send the order again. Check the feed before you do.
        Err(CallError::Ambiguous(_)) => {
            println!("the order may have been placed: check the feed");
        }
        Err(error) if error.may_have_been_executed() => return Err(error.into()),
        Err(error) => println!("not placed, so it could be tried again: {error}"),
    }

    if let Some(trade) = futures::StreamExt::next(&mut trades).await {
        let trade = trade?.trades;
        println!("in the feed: trade {} of {} {}", trade.sequence, trade.size, trade.symbol);
    }
    client.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
