//! Tokens that end, and a stream that does not: `cargo run --example token_refresh`, or with `--
//! 3s` for tokens that end sooner than after 30 s.
//!
//! The market that `live_feed` embeds mints tokens, refuses those that have ended, and cuts a
//! connection when its token ends. The client asks for the next one ahead of that, and moves to
//! another connection with it.

use std::{
    convert::Infallible, env, error::Error, future::ready, num::NonZeroUsize, time::Duration,
};

use graphql_client::GraphQLQuery;
use resub::{Client, Credentials, CredentialsError, CredentialsReason, Event, Subscription};
use tokio::time::timeout;

use crate::market::{MarketServer, Options, tokens::Tokens};

#[allow(dead_code, reason = "it reads seconds, too, for others")]
#[path = "live_feed/duration.rs"]
mod duration;
#[path = "live_feed/market/mod.rs"]
mod market;

#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "schema/market.graphql",
    query_path = "queries/trades.graphql",
    response_derives = "Debug"
)]
struct Trades;

/// More than the two connections can both carry of a trade.
const WINDOW: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let lifetime =
        env::args().nth(1).map_or(Ok(Duration::from_secs(30)), |text| duration::parse(&text))?;
    let token_lifetime = Some(lifetime);
    let server = MarketServer::start(Options {
        token_lifetime,
        trades_per_second: 50,
        ..Options::default()
    })?;
    let tokens = server.tokens().ok_or("a market without tokens")?;

    let minting = tokens.clone();
    let client = Client::builder(server.url())
        .credentials(move |reason| ready(provide(&minting, &reason)))
        .build()?;
    let mut trades = client
        .subscription::<Trades>(trades::Variables { symbol: None, after: None })
        .dedupe_by(WINDOW, |data| data.trades.sequence)
        .start()?;

    let mut read = None;
    // The first two tokens have ended by then.
    if let Ok(Err(wrong)) =
        timeout(lifetime * 2 + Duration::from_secs(1), follow(&mut trades, &mut read)).await
    {
        return Err(wrong);
    }
    let renewals = client.stats().handovers;
    if renewals < 2 || tokens.cut() > 0 {
        return Err(format!(
            "{renewals} renewals, and {} connections cut by the server",
            tokens.cut()
        )
        .into());
    }
    let (first, last) = read.ok_or("no trade at all")?;
    println!(
        "trades {first} to {last} over {renewals} renewals: \
         none is missing, none came twice, and there was no gap"
    );
    client.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

/// Reads until something is wrong. `read` becomes the first trade and the last.
async fn follow(
    trades: &mut Subscription<trades::ResponseData>,
    read: &mut Option<(i64, i64)>,
) -> Result<Infallible, Box<dyn Error>> {
    loop {
        match trades.next().await.ok_or("the stream has ended")?? {
            Event::Next(response) => {
                let sequence = response.data.ok_or("an item without data")?.trades.sequence;
                let (first, last) = read.unwrap_or((sequence, sequence - 1));
                if sequence != last + 1 {
                    return Err(format!("trade {sequence} follows {last}").into());
                }
                *read = Some((first, sequence));
            }
            other => return Err(format!("not a trade: {other:?}").into()),
        }
    }
}

/// A new token each time, which says how long it is good.
fn provide(tokens: &Tokens, reason: &CredentialsReason) -> Result<Credentials, CredentialsError> {
    match reason {
        CredentialsReason::Initial => println!("a token for the first connection"),
        CredentialsReason::Expiring => println!("another token, as the last one ends soon"),
        CredentialsReason::Reconnect => {
            println!("a token for a connection after one that was lost");
        }
        CredentialsReason::Rejected { cause, .. } => {
            println!("another token, as the server took the last one for bad: {cause}");
        }
        other => println!("a token: {other:?}"),
    }
    let token = serde_json::json!({"token": tokens.mint()});
    Ok(Credentials::none().init_payload(&token)?.expires_in(tokens.lifetime()))
}
