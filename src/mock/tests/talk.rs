//! Messages, pings and rules.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::mock::*;

#[tokio::test(start_paused = true)]
async fn an_operation_runs_on_the_modern_subprotocol() {
    let server = Server::in_memory();
    let (mut client, peer) = connect(&server, "graphql-transport-ws").await;
    assert_eq!(peer.subprotocol(), Subprotocol::GraphqlTransportWs);
    client.send(text(json!({"type": "connection_init", "payload": {"token": "t"}}))).await.unwrap();
    let mut peer = peer.expect_init().await.ack_with(json!({"session": 1})).await;
    assert_eq!(peer.init_payload(), &json!({"token": "t"}));
    assert_eq!(
        receive(&mut client).await,
        json!({"type": "connection_ack", "payload": {"session": 1}})
    );

    let payload = json!({
        "query": "{ a }", "operationName": "A", "variables": {"x": 1}, "extensions": {"y": 2},
    });
    client.send(text(json!({"type": "subscribe", "id": "1", "payload": payload}))).await.unwrap();
    let operation = peer.expect_subscribe().await;
    assert_eq!(operation.id, "1");
    assert_eq!(operation.query, "{ a }");
    assert_eq!(operation.operation_name.as_deref(), Some("A"));
    assert_eq!(operation.variables, json!({"x": 1}));
    assert_eq!(operation.extensions, Some(json!({"y": 2})));
    assert_eq!(operation.payload, payload);

    peer.next("1", json!({"data": 1})).await;
    assert_eq!(
        receive(&mut client).await,
        json!({"type": "next", "id": "1", "payload": {"data": 1}})
    );
    client.send(text(json!({"type": "complete", "id": "1"}))).await.unwrap();
    assert_eq!(peer.expect_complete().await, "1");
    peer.error("1", json!([{"message": "m"}])).await;
    assert_eq!(
        receive(&mut client).await,
        json!({"type": "error", "id": "1", "payload": [{"message": "m"}]})
    );
}

#[tokio::test(start_paused = true)]
async fn an_operation_runs_on_the_legacy_subprotocol() {
    let server = Server::in_memory();
    let (mut client, peer) = connect(&server, "graphql-ws").await;
    client.send(text(json!({"type": "connection_init", "payload": {}}))).await.unwrap();
    let mut peer = peer.expect_init().await.ack().await;
    assert_eq!(receive(&mut client).await, json!({"type": "connection_ack"}));
    peer.keep_alive().await;
    assert_eq!(receive(&mut client).await, json!({"type": "ka"}));

    for id in ["1", "2"] {
        client
            .send(text(json!({"type": "start", "id": id, "payload": {"query": "{ a }"}})))
            .await
            .unwrap();
    }
    let operations = peer.expect_subscribes(2).await;
    assert_eq!((operations[0].id.as_str(), operations[1].id.as_str()), ("1", "2"));
    assert_eq!(operations[0].variables, Value::Null);
    peer.next("1", json!({"data": 1})).await;
    assert_eq!(
        receive(&mut client).await,
        json!({"type": "data", "id": "1", "payload": {"data": 1}})
    );
    peer.complete("1").await;
    assert_eq!(receive(&mut client).await, json!({"type": "complete", "id": "1"}));
    client.send(text(json!({"type": "stop", "id": "1"}))).await.unwrap();
    assert_eq!(peer.expect_complete().await, "1");
    client.send(text(json!({"type": "connection_terminate"}))).await.unwrap();
    peer.expect_terminate().await;
}

#[tokio::test(start_paused = true)]
async fn any_text_and_binary_can_be_sent() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    peer.send_text("{").await;
    peer.send_json(json!([1])).await;
    peer.send_binary(&[1, 2]).await;
    peer.connection_error(json!({"message": "no"})).await;
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("{"));
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("[1]"));
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![1, 2]));
    assert_eq!(
        receive(&mut client).await,
        json!({"type": "connection_error", "payload": {"message": "no"}})
    );
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_the_script_waits_for_something_else() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    client.send(text(json!({"type": "ping", "payload": {"n": 1}}))).await.unwrap();
    client.send(Message::Ping("frame".into())).await.unwrap();
    client.send(text(subscribe("1"))).await.unwrap();
    peer.expect_subscribe().await;
    assert_eq!(receive(&mut client).await, json!({"type": "pong", "payload": {"n": 1}}));
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("frame".into()));
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_the_script_waits_for_is_not_answered() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    client.send(text(json!({"type": "ping"}))).await.unwrap();
    assert_eq!(peer.expect_ping().await, None);
    assert!(timeout(A_WHILE, client.next()).await.is_err());
    peer.pong(Some(json!({"n": 1}))).await;
    assert_eq!(receive(&mut client).await, json!({"type": "pong", "payload": {"n": 1}}));
    peer.ping(None).await;
    assert_eq!(receive(&mut client).await, json!({"type": "ping"}));
    client.send(text(json!({"type": "pong"}))).await.unwrap();
    assert_eq!(peer.expect_pong().await, None);

    client.send(Message::Ping("a".into())).await.unwrap();
    assert_eq!(peer.expect_ws_ping().await, b"a");
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("a".into()));
    peer.ws_ping(b"b").await;
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Ping("b".into()));
    client.flush().await.unwrap();
    assert_eq!(peer.expect_ws_pong().await, b"b");
}

#[tokio::test(start_paused = true)]
async fn without_automatic_pongs_a_ping_is_a_message_like_any_other() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    peer.auto_pong(false);
    client.send(text(json!({"type": "ping"}))).await.unwrap();
    let message = panics_with(peer.expect_subscribe()).await;
    assert!(message.contains(r#"expected `subscribe`, got {"type":"ping"}"#), "{message}");
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_a_future_runs_and_other_messages_are_kept() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    client.send(text(subscribe("1"))).await.unwrap();
    client.send(text(json!({"type": "ping"}))).await.unwrap();
    client.send(text(subscribe("2"))).await.unwrap();
    let pong = peer.serve_while(receive(&mut client)).await;
    assert_eq!(pong, json!({"type": "pong"}));
    assert_eq!(peer.expect_subscribe().await.id, "1");
    assert_eq!(peer.expect_subscribe().await.id, "2");
    drop(client);
    assert_eq!(peer.serve_while(async { 1 }).await, 1);
    peer.serve_while(timeout(A_WHILE, futures::future::pending::<()>())).await.unwrap_err();
    peer.expect_eof().await;
}

#[tokio::test(start_paused = true)]
async fn serving_pings_ends_with_the_next_message() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    client.send(text(json!({"type": "ping"}))).await.unwrap();
    client.send(text(subscribe("1"))).await.unwrap();
    assert_eq!(peer.serve_pings().await, Some(subscribe("1")));
    client.send(text(json!({"type": "ping"}))).await.unwrap();
    assert_eq!(peer.next_message().await, Some(json!({"type": "ping"})));
    client.close(None).await.unwrap();
    assert_eq!(peer.serve_pings().await, None);
    assert_eq!(peer.next_message().await, None);
    assert_eq!(peer.expect_close().await, (1005, String::new()));
}

#[tokio::test(start_paused = true)]
async fn expecting_nothing_allows_only_pings_that_are_answered() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    client.send(text(json!({"type": "ping"}))).await.unwrap();
    peer.expect_nothing_for(A_WHILE).await;
    client.send(text(subscribe("1"))).await.unwrap();
    let message = panics_with(peer.expect_nothing_for(A_WHILE)).await;
    assert!(message.contains("expected nothing for 1s, got {"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_times_out_panics_with_what_was_expected_and_where() {
    let server = Server::in_memory();
    server.set_deadline(A_WHILE);
    let message = panics_with(server.accept()).await;
    assert!(
        message.contains("waited for a connection, but none came within 1s (0 dials so far)"),
        "{message}"
    );
    let (_client, mut peer) = open(&server, "graphql-transport-ws").await;
    peer.set_deadline(2 * A_WHILE);
    let message = panics_with(peer.expect_complete()).await;
    assert!(message.contains("expected `complete`, but it did not arrive within 2s"), "{message}");
    assert!(message.contains("talk.rs"), "{message}");
    assert!(message.contains(r#"> {"type":"connection_ack"}"#), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_rule_panics_with_the_message() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    client.send(text(json!({"type": "complete", "id": "9"}))).await.unwrap();
    let message = panics_with(peer.expect_complete()).await;
    assert!(
        message.contains("protocol rule broken: only an operation that was started"),
        "{message}"
    );
    assert!(message.contains(r#""id":"9""#), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_binary_message_breaks_a_rule() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    client.send(Message::binary(b"{}".to_vec())).await.unwrap();
    assert!(
        panics_with(peer.next_message()).await.contains("protocol rule broken: messages are text")
    );
}

#[tokio::test(start_paused = true)]
async fn a_complete_may_cross_the_servers_end_and_breaks_a_rule_after_a_sync() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    for id in ["1", "2"] {
        client.send(text(subscribe(id))).await.unwrap();
    }
    peer.expect_subscribes(2).await;
    peer.complete("1").await;
    client.send(text(json!({"type": "complete", "id": "1"}))).await.unwrap();
    peer.complete("2").await;
    let echo = async {
        loop {
            let message = receive(&mut client).await;
            if message["type"] == "ping" {
                let pong = json!({"type": "pong", "payload": message["payload"]});
                client.send(text(pong)).await.unwrap();
                client.send(text(json!({"type": "complete", "id": "2"}))).await.unwrap();
                break;
            }
        }
    };
    tokio::join!(peer.sync(), echo);
    assert_eq!(peer.expect_complete().await, "1");
    assert!(
        panics_with(peer.expect_complete()).await.contains("an operation that the server ended")
    );
}

#[tokio::test(start_paused = true)]
async fn a_sync_on_the_legacy_subprotocol_uses_a_websocket_ping() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-ws").await;
    let ((), frame) = tokio::join!(peer.sync(), async {
        let frame = client.next().await.unwrap().unwrap();
        client.flush().await.unwrap();
        frame
    });
    assert!(frame.is_ping());
    peer.expect_nothing_for(A_WHILE).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_client_may_use_the_ids_of_the_first_when_they_are_forgotten() {
    let server = Server::in_memory();
    for _ in 0..2 {
        let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
        client.send(text(subscribe("1"))).await.unwrap();
        assert_eq!(peer.expect_subscribe().await.id, "1");
        server.forget_ids();
    }
}
