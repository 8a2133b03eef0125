//! How a connection ends.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, time::timeout};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

use super::*;
use crate::mock::*;

#[tokio::test(start_paused = true)]
async fn a_vanished_server_is_seen_as_the_end_without_a_close_frame() {
    let server = Server::in_memory();
    let (mut client, peer) = open(&server, "graphql-transport-ws").await;
    peer.vanish();
    let end = client.next().await;
    assert!(
        matches!(end, Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)))),
        "{end:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_sends_nothing_until_the_guard_is_dropped() {
    let server = Server::in_memory();
    let (mut client, peer) = open(&server, "graphql-transport-ws").await;
    let silence = peer.go_silent();
    client.send(text(json!({"type": "ping"}))).await.unwrap();
    client.send(Message::Ping("x".into())).await.unwrap();
    assert!(timeout(A_WHILE, client.next()).await.is_err());
    drop(silence);
    assert!(matches!(client.next().await, Some(Err(_))));
}

#[tokio::test(start_paused = true)]
async fn an_illegal_frame_reaches_the_client_as_it_is() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    // A close frame of 126 bytes: RFC 6455 section 5.5 allows 125.
    let frame = [&[0x88, 126, 0, 126, 3, 232][..], &[b'x'; 124]].concat();
    peer.send_raw_frame_bytes(&frame).await;
    let error = client.next().await;
    assert!(
        matches!(error, Some(Err(Error::Protocol(ProtocolError::ControlFrameTooBig)))),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn all_messages_until_the_end_are_collected() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    for message in [json!({"type": "ping"}), subscribe("1"), json!({"type": "complete", "id": "1"})]
    {
        client.send(text(message)).await.unwrap();
    }
    drop(client);
    assert_eq!(
        peer.pump_until_end().await,
        [subscribe("1"), json!({"type": "complete", "id": "1"})]
    );
}

#[tokio::test(start_paused = true)]
async fn the_client_closes_and_then_sees_the_end() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    client.send(close(1000, "bye")).await.unwrap();
    assert_eq!(peer.expect_close().await, (1000, "bye".to_owned()));
    assert_eq!(client.next().await.unwrap().unwrap(), close(1000, "bye"));
    assert!(client.next().await.is_none());
    drop(client);
    peer.expect_end().await;
}

#[tokio::test(start_paused = true)]
async fn the_server_closes_and_the_answer_is_read_in_order() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    client.send(text(subscribe("1"))).await.unwrap();
    let (closed, ()) = tokio::join!(
        async {
            let frame = client.next().await.unwrap().unwrap();
            assert!(client.next().await.is_none());
            frame
        },
        peer.close(4403, "Forbidden")
    );
    assert_eq!(closed, close(4403, "Forbidden"));
    drop(client);
    peer.expect_subscribe().await;
    assert_eq!(peer.expect_close().await, (4403, "Forbidden".to_owned()));
    peer.expect_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_can_send_a_close_frame_and_keep_the_stream_open() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    peer.send_close(1001, "").await;
    assert_eq!(client.next().await.unwrap().unwrap(), close(1001, ""));
    assert!(timeout(A_WHILE, client.next()).await.is_err(), "the stream stays open");
    let message = panics_with(peer.ping(None)).await;
    assert!(message.contains("after its own close frame"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_connection_without_a_close_frame_is_not_a_close() {
    let server = Server::in_memory();
    let (client, mut peer) = open(&server, "graphql-transport-ws").await;
    drop(client);
    peer.next("1", json!({})).await; // lost, as on a network
    peer.expect_eof().await;
    peer.expect_end().await;
    let message = panics_with(peer.expect_close()).await;
    assert!(message.contains("expected a close frame, got the end of the connection"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_bad_close_frame_breaks_a_rule_though_tungstenite_hides_it() {
    for (frame, rule) in [
        (close(1005, ""), "this close code is never sent"),
        (close(1000, &"x".repeat(124)), "a close reason has at most 123 bytes"),
    ] {
        let server = Server::in_memory();
        let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
        client.send(frame).await.unwrap();
        let message = panics_with(peer.expect_close()).await;
        assert!(message.contains(rule), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_after_a_close_frame_break_a_rule() {
    let server = Server::in_memory();
    let (mut client, mut peer) = open(&server, "graphql-transport-ws").await;
    client.send(close(1000, "")).await.unwrap();
    client.get_mut().write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(peer.expect_close().await.0, 1000);
    assert!(
        panics_with(peer.expect_end())
            .await
            .contains("protocol rule broken: nothing follows a close frame")
    );
}
