//! Keeps a stream open while its tokens expire.
//!
//! Start it with `cargo run --example token_refresh`, or with `-- 3s` for tokens that expire after
//! 3 s instead of 30 s. The market that `live_feed` embeds issues tokens, refuses expired ones, and
//! drops a connection when its token expires. The client asks for a new token before that, and
//! moves to another connection with it.

use std::{
    convert::Infallible, env, error::Error, future::ready, num::NonZeroUsize, time::Duration,
};

use graphql_client::GraphQLQuery;
use resub::{Client, Credentials, CredentialsError, CredentialsReason, Event, Subscription};
use tokio::time::timeout;

use crate::market::{MarketServer, Options, tokens::Tokens};

#[allow(dead_code, reason = "another example uses the rest")]
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

/// Larger than the number of trades that both connections can deliver during a handover.
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
    // The first two tokens have expired by then.
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

/// Reads until something is wrong. Stores the first and the last trade in `read`.
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

/// Issues a new token, and sets its lifetime.
fn provide(tokens: &Tokens, reason: &CredentialsReason) -> Result<Credentials, CredentialsError> {
    match reason {
        CredentialsReason::Initial => println!("a token for the first connection"),
        CredentialsReason::Expiring => println!("another token, because the last one expires soon"),
        CredentialsReason::Reconnect => {
            println!("a token for a connection after one that was lost");
        }
        CredentialsReason::Rejected { cause, .. } => {
            println!("another token, because the server rejected the last one: {cause}");
        }
        other => println!("a token: {other:?}"),
    }
    let token = serde_json::json!({"token": tokens.mint()});
    Ok(Credentials::none().init_payload(&token)?.expires_in(tokens.lifetime()))
}
