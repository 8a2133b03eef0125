//! The market that the example embeds, seen by a client that knows no GraphQL.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::market::feed::{HISTORY, Side};
use crate::market::{MarketServer, Options, schema};
use crate::raw::Subprotocol::{self, Legacy, Transport};
use crate::raw::{RawClient, Seen, until, within};

/// A market that trades only when the test says so.
fn quiet() -> Options {
    Options { trades_per_second: 0, ..Options::default() }
}

fn sequence(item: &Value) -> i64 {
    item["data"]["trades"]["sequence"].as_i64().unwrap()
}

#[tokio::test]
async fn the_schema_file_is_what_the_server_exports() {
    let server = MarketServer::start(quiet()).unwrap();
    assert_eq!(
        schema::sdl(&schema::of(server.market().clone())),
        include_str!("../../schema/market.graphql")
    );
}

#[tokio::test]
async fn every_operation_of_the_queries_folder_is_served() {
    let server = MarketServer::start(quiet()).unwrap();
    server.market().trade();
    let mut client = RawClient::acked(&server.url(), Transport).await;
    for (document, variables, field) in [
        (
            include_str!("../../queries/trades.graphql"),
            json!({"symbol": null, "after": 0}),
            "trades",
        ),
        (include_str!("../../queries/quotes.graphql"), json!({"symbol": "BTC"}), "quotes"),
        (include_str!("../../queries/symbols.graphql"), json!({}), "symbols"),
        (include_str!("../../queries/last_trade.graphql"), json!({"symbol": "BTC"}), "lastTrade"),
        (
            include_str!("../../queries/place_order.graphql"),
            json!({"symbol": "BTC", "side": "SELL", "size": 5}),
            "placeOrder",
        ),
    ] {
        let payload = json!({"query": document, "variables": variables});
        client.send(json!({"id": field, "type": "subscribe", "payload": payload})).await;
        let answer = client.message_of(field).await;
        assert_eq!(answer["payload"].get("errors"), None, "{answer}");
        assert!(answer["payload"]["data"].get(field).is_some(), "{answer}");
    }
}

#[tokio::test]
async fn trades_come_by_themselves_in_sequence_on_each_subprotocol() {
    for subprotocol in Subprotocol::BOTH {
        let server =
            MarketServer::start(Options { trades_per_second: 1000, ..Options::default() }).unwrap();
        let mut client = RawClient::acked(&server.url(), subprotocol).await;
        client
            .subscribe("a", "subscription { trades { sequence symbol price size side at } }")
            .await;
        let first = sequence(&client.item("a").await);
        for expected in first + 1..first + 20 {
            assert_eq!(sequence(&client.item("a").await), expected);
        }
    }
}

#[tokio::test]
async fn one_seed_makes_one_series_of_trades() {
    let [first, second] = [(); 2].map(|()| MarketServer::start(quiet()).unwrap());
    for _ in 0..100 {
        let [a, b] = [&first, &second].map(|server| server.market().trade());
        assert_eq!((a.symbol, a.price, a.size, a.side), (b.symbol, b.price, b.size, b.side));
    }
}

#[tokio::test]
async fn a_reader_that_was_cut_off_misses_nothing_when_it_names_its_last_trade() {
    let server = MarketServer::start(quiet()).unwrap();
    let mut client = RawClient::acked(&server.url(), Transport).await;
    client.subscribe("a", "subscription { trades(after: 0) { sequence } }").await;
    server.market().trade();
    assert_eq!(sequence(&client.item("a").await), 1);

    server.kill();
    assert_eq!(client.seen().await, Seen::Cut);
    for _ in 0..3 {
        server.market().trade();
    }
    server.restart().unwrap();

    let mut client = RawClient::acked(&server.url(), Legacy).await;
    client.subscribe("b", "subscription { trades(after: 1) { sequence } }").await;
    for expected in 2..=4 {
        assert_eq!(sequence(&client.item("b").await), expected);
    }
    server.market().trade();
    assert_eq!(sequence(&client.item("b").await), 5);
}

#[tokio::test]
async fn history_is_bounded_and_what_is_older_leaves_a_hole() {
    let server = MarketServer::start(quiet()).unwrap();
    for _ in 0..HISTORY + 7 {
        server.market().trade();
    }
    let mut client = RawClient::acked(&server.url(), Transport).await;
    client.subscribe("a", "subscription { trades(after: 1) { sequence } }").await;
    assert_eq!(sequence(&client.item("a").await), 8);
}

#[tokio::test]
async fn trades_of_one_symbol_are_only_its_own() {
    let server = MarketServer::start(quiet()).unwrap();
    let mut client = RawClient::acked(&server.url(), Transport).await;
    client
        .subscribe("a", "subscription { trades(symbol: \"SOL\", after: 0) { sequence symbol } }")
        .await;
    for symbol in ["BTC", "SOL", "ETH", "SOL"] {
        server.market().fill(symbol, Side::Buy, 1).unwrap();
    }
    for expected in [2, 4] {
        assert_eq!(
            client.item("a").await,
            json!({"data": {"trades": {"sequence": expected, "symbol": "SOL"}}})
        );
    }
}

#[tokio::test]
async fn a_quote_comes_at_once_and_again_when_its_symbol_is_traded() {
    let server = MarketServer::start(quiet()).unwrap();
    let mut client = RawClient::acked(&server.url(), Transport).await;
    client.subscribe("a", "subscription { quotes(symbol: \"BTC\") { bid ask } }").await;
    let before = client.item("a").await;
    server.market().fill("ETH", Side::Buy, 1).unwrap();
    server.market().fill("BTC", Side::Buy, 1).unwrap();
    let after = client.item("a").await;
    let [before, after] =
        [before, after].map(|item| item["data"]["quotes"]["ask"].as_f64().unwrap());
    assert!(before < after, "{before} {after}");
}

#[tokio::test]
async fn an_unknown_symbol_is_an_error() {
    let server = MarketServer::start(quiet()).unwrap();
    let mut client = RawClient::acked(&server.url(), Transport).await;
    client.subscribe("a", "subscription { trades(symbol: \"NONE\") { sequence } }").await;
    assert_eq!(client.item("a").await["errors"][0]["message"], "no such symbol: NONE");
    client.completed("a").await;
}

#[tokio::test]
async fn only_the_token_opens_a_market_that_has_one() {
    let server =
        MarketServer::start(Options { token: Some("good".to_owned()), ..quiet() }).unwrap();
    for init in [json!({"token": "good"}), json!({"authorization": "good"})] {
        let mut client = RawClient::open(&server.url(), Transport).await;
        client.init(init).await;
        assert_eq!(client.message().await["type"], "connection_ack");
    }
    for init in [json!({}), json!({"token": "bad"})] {
        let mut client = RawClient::open(&server.url(), Transport).await;
        client.init(init).await;
        assert_eq!(
            client.seen().await,
            Seen::Closed(Some((1002, "the token was not accepted".to_owned())))
        );
    }
}

/// The token's time is what this test waits by.
#[tokio::test]
async fn a_minted_token_opens_a_market_until_it_ends_and_its_connection_lives_no_longer() {
    let options = Options { token_lifetime: Some(Duration::from_millis(500)), ..quiet() };
    let server = MarketServer::start(options).unwrap();
    let tokens = server.tokens().unwrap();
    let token = tokens.mint();
    let mut client = RawClient::open(&server.url(), Transport).await;
    client.init(json!({ "token": token })).await;
    assert_eq!(client.message().await["type"], "connection_ack");
    assert_eq!((client.seen().await, tokens.cut()), (Seen::Cut, 1));
    for init in [json!({}), json!({"token": "bad"}), json!({ "token": token })] {
        let mut client = RawClient::open(&server.url(), Transport).await;
        client.init(init).await;
        assert_eq!(
            client.seen().await,
            Seen::Closed(Some((1002, "the token was not accepted".to_owned())))
        );
    }
}

#[tokio::test]
async fn a_market_that_drops_connections_drops_every_one_of_them() {
    let options = Options { drop_every: Some(Duration::from_millis(10)), ..quiet() };
    let server = MarketServer::start(options).unwrap();
    for _ in 0..3 {
        let mut stream = within(TcpStream::connect(server.addr())).await.unwrap();
        let end = within(stream.read_u8()).await.unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(server.connections().borrow().ever, 3);
}

#[tokio::test]
async fn a_stopped_market_leaves_its_port_to_the_next_one() {
    let server = MarketServer::start(quiet()).unwrap();
    let mut client = RawClient::acked(&server.url(), Transport).await;
    let (port, connections) = (server.addr().port(), server.connections());
    server.stop().await;
    assert_eq!(connections.borrow().now, 0);
    assert_eq!(client.seen().await, Seen::Cut);

    let next = MarketServer::start(Options { port, ..quiet() }).unwrap();
    RawClient::acked(&next.url(), Transport).await;
    next.drop_connections();
    until(next.connections(), |connections| connections.now == 0).await;
}
