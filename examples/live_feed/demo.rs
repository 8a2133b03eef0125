//! The demo that runs without arguments: two typed operations on the embedded market, generated
//! from `queries/`.

use std::{borrow::Cow, time::Duration};

use graphql_client::GraphQLQuery;
use resub::{Client, SubscribeError};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    events::{Events, events},
    show::Show,
};

/// All trades.
#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "schema/market.graphql",
    query_path = "queries/trades.graphql",
    variables_derives = "Default",
    response_derives = "Serialize"
)]
pub(crate) struct Trades;

/// The quotes of one symbol.
#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "schema/market.graphql",
    query_path = "queries/quotes.graphql",
    response_derives = "Serialize"
)]
pub(crate) struct Quotes;

/// Subscribes to both operations. Returns their names as labels, and their events.
pub(crate) fn subscribe(client: &Client) -> Result<(Vec<String>, Vec<Events>), SubscribeError> {
    let trades = client.subscribe::<Trades>(trades::Variables::default())?;
    let quotes = client.subscribe::<Quotes>(quotes::Variables { symbol: "BTC".into() })?;
    let labels = [trades::OPERATION_NAME, quotes::OPERATION_NAME].map(str::to_owned).into();
    Ok((labels, vec![events(0, trades), events(1, quotes)]))
}

impl Show for trades::ResponseData {
    fn json(&self) -> serde_json::Result<Cow<'_, RawValue>> {
        json(self)
    }

    fn line(&self, _operation: &str) -> String {
        let trades::TradesTrades { sequence, symbol, price, size, side, at } = &self.trades;
        let side = match side {
            trades::Side::BUY => "buy",
            trades::Side::SELL => "sell",
            trades::Side::Other(other) => other,
        };
        format!(
            "{}  trade  {symbol:<4}  {price:>9.2}  {side:<4} {size:>4}  #{sequence}",
            time_of_day(*at)
        )
    }
}

impl Show for quotes::ResponseData {
    fn json(&self) -> serde_json::Result<Cow<'_, RawValue>> {
        json(self)
    }

    fn line(&self, _operation: &str) -> String {
        let quotes::QuotesQuotes { symbol, bid, ask, at } = &self.quotes;
        format!("{}  quote  {symbol:<4}  {bid:>9.2}  {ask:>9.2}", time_of_day(*at))
    }
}

fn json(data: &impl Serialize) -> serde_json::Result<Cow<'_, RawValue>> {
    to_raw_value(data).map(Cow::Owned)
}

/// Formats milliseconds since the Unix epoch as the time of day in UTC.
fn time_of_day(at: f64) -> String {
    let since = Duration::try_from_secs_f64(at / 1000.0).unwrap_or_default();
    let seconds = since.as_secs() % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", seconds % 60, since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_utc_to_the_millisecond() {
        assert_eq!(time_of_day(0.0), "00:00:00.000");
        assert_eq!(time_of_day(1_700_000_000_123.4), "22:13:20.123");
        assert_eq!(time_of_day(f64::NAN), "00:00:00.000");
    }
}
