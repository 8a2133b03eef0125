//! Moves from connection to connection under load.
//!
//! Start it with `cargo run --example rotation`, or with `-- 50` for 50 rotations instead of 10. It
//! reads the market that `live_feed` embeds with 50 subscriptions and places orders, while the
//! client keeps moving to another connection. In the end it compares the trades that it read and
//! the orders that it placed with the records of the market.

use std::{
    env,
    error::Error,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use graphql_client::GraphQLQuery;
use resub::{Client, Event, Subscription};
use tokio::time::interval;

use crate::market::{MarketServer, Options, feed};

#[path = "live_feed/market/mod.rs"]
mod market;

#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "schema/market.graphql",
    query_path = "queries/trades.graphql",
    response_derives = "Debug"
)]
struct Trades;

#[derive(GraphQLQuery)]
#[graphql(schema_path = "schema/market.graphql", query_path = "queries/place_order.graphql")]
struct PlaceOrder;

type Failure = Box<dyn Error + Send + Sync>;

const READERS_PER_SYMBOL: usize = 10;
const WINDOW: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();
/// The time between two rotations.
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let rotations = env::args().nth(1).map_or(Ok(10), |text| text.parse::<u32>())?;
    let server = MarketServer::start(Options { trades_per_second: 300, ..Options::default() })?;
    let client = Client::builder(server.url()).build()?;
    let is_over = Arc::new(AtomicBool::new(false));

    let mut readers = Vec::new();
    for symbol in feed::symbols() {
        for _ in 0..READERS_PER_SYMBOL {
            let trades = client
                .subscription::<Trades>(trades::Variables {
                    symbol: Some(symbol.into()),
                    after: None,
                })
                .dedupe_by(WINDOW, |data| data.trades.sequence)
                .start()?;
            readers.push(tokio::spawn(read(symbol, trades)));
        }
    }
    let buyer = tokio::spawn(buy(client.clone(), Arc::clone(&is_over)));
    client.connect().await?;

    let mut times = Vec::new();
    for _ in 0..rotations {
        tokio::time::timeout(PAUSE, std::future::pending::<()>()).await.unwrap_or_default();
        let begun = now();
        client.rotate().await?;
        times.push(now() - begun);
    }
    is_over.store(true, Relaxed);
    let mut orders = buyer.await??;
    for symbol in feed::symbols() {
        order(&client, symbol, LAST).await?;
        orders += 1;
    }

    let mut items = 0;
    for reader in try_join_all(readers).await? {
        let (symbol, sequences) = reader?;
        let (Some(first), Some(last)) = (sequences.first(), sequences.last()) else {
            return Err("nothing was read".into());
        };
        let books = server.market().history(symbol);
        let traded =
            books.into_iter().map(i64::from).filter(|sequence| (first..=last).contains(&sequence));
        if !traded.eq(sequences.iter().copied()) {
            return Err(format!("{symbol}: what was read is not what was traded").into());
        }
        items += sequences.len();
    }
    println!(
        "{items} trades by 50 subscriptions over {rotations} rotations: \
         none was lost, none came twice"
    );

    let (fills, stats) = (server.market().fills(), client.stats());
    if fills != orders || stats.dials != u64::from(rotations) + 1 || stats.reconnects > 0 {
        return Err(format!("{orders} orders, {fills} fills, {stats:?}").into());
    }
    println!("{orders} orders: each was executed once; {} connections were made", stats.dials);
    times.sort_unstable();
    let nth = |percent: usize| {
        times.get(times.len() * percent / 100).or(times.last()).copied().unwrap_or_default()
    };
    println!("a rotation took {:.1?} (p50) to {:.1?} (p99)", nth(50), nth(99));
    client.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

/// Reads the trades of a symbol up to the last order.
async fn read(
    symbol: &'static str,
    mut trades: Subscription<trades::ResponseData>,
) -> Result<(&'static str, Vec<i64>), Failure> {
    let mut sequences = Vec::new();
    while let Some(event) = trades.next().await {
        match event? {
            Event::Next(response) => {
                let trade = response.data.ok_or("an item without data")?.trades;
                sequences.push(trade.sequence);
                if trade.size == LAST {
                    return Ok((symbol, sequences));
                }
            }
            other => return Err(format!("{symbol}: not a trade: {other:?}").into()),
        }
    }
    Err("the stream has ended".into())
}

/// Places one order after the other. Returns the number of orders.
async fn buy(client: Client, is_over: Arc<AtomicBool>) -> Result<u64, Failure> {
    let mut pace = interval(Duration::from_millis(5));
    let mut orders = 0;
    for symbol in feed::symbols().collect::<Vec<_>>().into_iter().cycle() {
        if is_over.load(Relaxed) {
            break;
        }
        pace.tick().await;
        order(&client, symbol, 1).await?;
        orders += 1;
    }
    Ok(orders)
}

async fn order(client: &Client, symbol: &str, size: i64) -> Result<(), Failure> {
    let order =
        place_order::Variables { symbol: symbol.into(), side: place_order::Side::BUY, size };
    client.mutate::<PlaceOrder>(order).await?.data.ok_or("no order")?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the rule is for the library; this program measures time"
)]
fn now() -> Instant {
    Instant::now()
}

/// The size of the last order of each symbol. No other trade has it.
const LAST: i64 = 1_000;
