//! The GraphQL schema of the market. The doc comments here are the descriptions in
//! `schema/market.graphql`.
#![allow(clippy::unused_async, reason = "resolvers must be async")]

use async_graphql::{Context, ID, Object, Result, SDLExportOptions, SimpleObject, Subscription};
use futures::stream::Stream;

use super::feed::{self, Market, Quote, Side, Trade};

pub(crate) type Schema = async_graphql::Schema<Query, Mutation, Subscription>;

pub(crate) fn of(market: Market) -> Schema {
    Schema::build(Query, Mutation, Subscription).data(market).finish()
}

pub(crate) fn sdl(schema: &Schema) -> String {
    schema.sdl_with_options(SDLExportOptions::new().use_space_ident().indent_width(2))
}

pub(crate) struct Query;

#[Object]
impl Query {
    /// The symbols that are traded.
    async fn symbols(&self) -> Vec<&'static str> {
        feed::symbols().collect()
    }

    /// The newest trade of a symbol, if one is in the history.
    async fn last_trade(&self, ctx: &Context<'_>, symbol: String) -> Result<Option<Trade>> {
        Ok(market(ctx)?.last_trade(known(&symbol)?))
    }
}

pub(crate) struct Mutation;

#[Object]
impl Mutation {
    /// Buys or sells at the market price. The feed contains the trade that fills the order.
    async fn place_order(
        &self,
        ctx: &Context<'_>,
        symbol: String,
        side: Side,
        size: i32,
    ) -> Result<Order> {
        if size < 1 {
            return Err(format!("an order of {size} is not possible").into());
        }
        let trade = market(ctx)?.fill(&symbol, side, size).ok_or_else(|| unknown(&symbol))?;
        Ok(Order { id: trade.sequence.into(), trade })
    }
}

/// An order that was filled.
#[derive(SimpleObject)]
pub(crate) struct Order {
    id: ID,
    trade: Trade,
}

pub(crate) struct Subscription;

#[Subscription]
impl Subscription {
    /// The trades of one symbol, or of all. With `after`, the sequence of the last trade received,
    /// this starts with the trades since then. The history contains 10,000 trades. If older trades
    /// were missed, the sequence has a hole.
    async fn trades(
        &self,
        ctx: &Context<'_>,
        symbol: Option<String>,
        after: Option<i32>,
    ) -> Result<impl Stream<Item = Trade> + use<>> {
        let symbol = symbol.as_deref().map(known).transpose()?;
        Ok(market(ctx)?.trades(symbol, after))
    }

    /// The quote of a symbol, immediately and on every change.
    async fn quotes(
        &self,
        ctx: &Context<'_>,
        symbol: String,
    ) -> Result<impl Stream<Item = Quote> + use<>> {
        market(ctx)?.quotes(&symbol).ok_or_else(|| unknown(&symbol))
    }
}

fn market<'a>(ctx: &Context<'a>) -> Result<&'a Market> {
    ctx.data()
}

fn known(symbol: &str) -> Result<&'static str> {
    feed::symbols().find(|&known| known == symbol).ok_or_else(|| unknown(symbol))
}

fn unknown(symbol: &str) -> async_graphql::Error {
    format!("no such symbol: {symbol}").into()
}
