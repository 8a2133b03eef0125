//! The servers themselves, seen by a client that knows no GraphQL: what the other tests may rely
//! on.

use serde_json::{Value, json};

use crate::fixture::{Options, REJECTION, TestServer, WithoutToken};
use crate::raw::Subprotocol::{self, Legacy, Transport};
use crate::raw::{RawClient, Seen, until, within};
use crate::{async_graphql, juniper};

type Start = fn(Options) -> TestServer;

const BOTH_SERVERS: [Start; 2] = [async_graphql::start, juniper::start];

/// Each server with each subprotocol.
fn pairs() -> impl Iterator<Item = (Start, Subprotocol)> {
    BOTH_SERVERS
        .into_iter()
        .flat_map(|start| Subprotocol::BOTH.map(|subprotocol| (start, subprotocol)))
}

#[tokio::test]
async fn each_server_delivers_and_completes_on_each_subprotocol() {
    for (start, subprotocol) in pairs() {
        let server = start(Options::default());
        let mut client = RawClient::acked(&server.url(), subprotocol).await;
        client.subscribe("a", "subscription { ticks(n: 3, everyMs: 1) }").await;
        for n in 0..3 {
            assert_eq!(client.item("a").await, json!({"data": {"ticks": n}}));
        }
        client.completed("a").await;
    }
}

#[tokio::test]
async fn each_server_answers_queries_and_mutations_on_each_subprotocol() {
    for (start, subprotocol) in pairs() {
        let server = start(Options::default());
        let mut client = RawClient::acked(&server.url(), subprotocol).await;
        client.subscribe("q", "{ answer }").await;
        assert_eq!(client.item("q").await, json!({"data": {"answer": 42}}));
        client.completed("q").await;
        client.subscribe("m", "mutation { add(a: 1, b: 2) }").await;
        assert_eq!(client.item("m").await, json!({"data": {"add": 3}}));
        client.completed("m").await;
    }
}

#[tokio::test]
async fn a_nullable_field_that_fails_is_left_out_by_one_server_and_nulls_the_item_on_the_other() {
    let left_out: fn(usize) -> Value = |n| json!({"partial": {"value": n}});
    let nulled: fn(usize) -> Value = |_| json!({"partial": null});
    for (start, data) in [(async_graphql::start as Start, left_out), (juniper::start, nulled)] {
        for subprotocol in Subprotocol::BOTH {
            let server = start(Options::default());
            let mut client = RawClient::acked(&server.url(), subprotocol).await;
            client.subscribe("a", "subscription { partial(n: 2) { value broken } }").await;
            for n in 0..2 {
                let item = client.item("a").await;
                assert_eq!(item["data"], data(n));
                assert_eq!(item["errors"][0]["message"], "no reading");
                assert_eq!(item["errors"][0]["path"], json!(["partial", "broken"]));
            }
            client.completed("a").await;
        }
    }
}

#[tokio::test]
async fn a_failing_stream_ends_with_an_error_item_and_a_complete() {
    for (start, subprotocol) in pairs() {
        let server = start(Options::default());
        let mut client = RawClient::acked(&server.url(), subprotocol).await;
        client.subscribe("a", "subscription { failing }").await;
        for n in 0..2 {
            assert_eq!(client.item("a").await, json!({"data": {"failing": n}}));
        }
        let failure = client.item("a").await;
        assert_eq!(failure["errors"][0]["message"], "the source has failed");
        assert_eq!(failure["data"]["failing"], Value::Null);
        client.completed("a").await;
    }
}

#[tokio::test]
async fn a_token_that_is_not_good_is_rejected_in_four_ways() {
    let connection_error =
        || Seen::Message(json!({"type": "connection_error", "payload": {"message": REJECTION}}));
    let closed = |code| Seen::Closed(Some((code, REJECTION.to_owned())));
    for (start, subprotocol, rejection) in [
        (async_graphql::start as Start, Transport, vec![closed(1002)]),
        (async_graphql::start, Legacy, vec![connection_error(), Seen::Cut]),
        (juniper::start, Transport, vec![closed(4403)]),
        (juniper::start, Legacy, vec![connection_error(), Seen::Closed(None)]),
    ] {
        for (without_token, init) in
            [(WithoutToken::Accept, json!({"token": "bad"})), (WithoutToken::Reject, json!({}))]
        {
            let server = start(Options { without_token, ..Options::default() });
            let mut client = RawClient::open(&server.url(), subprotocol).await;
            client.init(init).await;
            for expected in &rejection {
                assert_eq!(client.seen().await, *expected);
            }
        }
    }
}

#[tokio::test]
async fn a_good_token_is_accepted() {
    for (start, subprotocol) in pairs() {
        let server = start(Options { without_token: WithoutToken::Reject, ..Options::default() });
        let mut client = RawClient::open(&server.url(), subprotocol).await;
        client.init(json!({"token": "good"})).await;
        assert_eq!(client.message().await["type"], "connection_ack");
    }
}

#[tokio::test]
async fn a_stream_ends_on_the_server_when_the_client_stops_it() {
    for (start, subprotocol) in pairs() {
        let server = start(Options::default());
        let mut client = RawClient::acked(&server.url(), subprotocol).await;
        client.subscribe("a", "subscription { forever(everyMs: 1) }").await;
        client.item("a").await;
        assert_eq!(server.streams().borrow().now, 1);
        client.stop("a").await;
        until(server.streams(), |streams| streams.now == 0).await;
    }
}

#[tokio::test]
async fn a_stream_ends_on_the_server_when_the_client_is_gone() {
    for (start, subprotocol) in pairs() {
        let server = start(Options::default());
        let mut client = RawClient::acked(&server.url(), subprotocol).await;
        client.subscribe("a", "subscription { forever(everyMs: 1) }").await;
        client.item("a").await;
        drop(client);
        until(server.streams(), |streams| streams.now == 0).await;
        until(server.connections(), |connections| connections.now == 0).await;
    }
}

#[tokio::test]
async fn a_killed_server_cuts_without_a_close_frame_refuses_and_comes_back_on_its_port() {
    for (start, subprotocol) in pairs() {
        let server = start(Options::default());
        let mut client = RawClient::acked(&server.url(), subprotocol).await;
        client.subscribe("a", "subscription { forever(everyMs: 1) }").await;
        client.item("a").await;

        server.kill();
        while let seen = client.seen().await
            && seen != Seen::Cut
        {
            assert!(matches!(seen, Seen::Message(_)), "{seen:?}");
        }
        until(server.streams(), |streams| streams.now == 0).await;
        let refused = within(tokio::net::TcpStream::connect(server.addr())).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

        server.restart();
        let mut client = RawClient::acked(&server.url(), subprotocol).await;
        client.subscribe("a", "subscription { ticks(n: 1) }").await;
        client.item("a").await;
        assert_eq!(server.connections().borrow().ever, 2);
    }
}

#[tokio::test]
async fn another_server_can_take_over_the_port() {
    for start in BOTH_SERVERS {
        let first = start(Options::default());
        let _client = RawClient::acked(&first.url(), Transport).await;
        first.kill();
        let second = start(Options { port: first.addr().port(), ..Options::default() });
        RawClient::acked(&second.url(), Transport).await;
    }
}

#[tokio::test]
async fn dropped_connections_leave_the_server_listening() {
    for (start, subprotocol) in pairs() {
        let server = start(Options::default());
        let mut client = RawClient::acked(&server.url(), subprotocol).await;
        server.drop_connections();
        assert_eq!(client.seen().await, Seen::Cut);
        RawClient::acked(&server.url(), subprotocol).await;
    }
}
