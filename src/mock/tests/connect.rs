//! Dials and upgrades.

use std::io::ErrorKind;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, http::HeaderValue},
};
use url::Url;

use super::*;
use crate::{mock::*, transport::dial::Dialer as _};

#[tokio::test(start_paused = true)]
async fn the_upgrade_request_can_be_read() {
    let server = Server::in_memory();
    let mut request = "ws://mock/graphql?v=1".into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("graphql-ws"));
    request.headers_mut().insert("Authorization", HeaderValue::from_static("Bearer t"));
    let pipe = dial(&server).await.unwrap();
    let (answer, peer) = tokio::join!(client_async(request, pipe), server.accept());
    assert_eq!(answer.unwrap().1.headers()["sec-websocket-protocol"], "graphql-ws");
    assert_eq!(peer.request().path(), "/graphql?v=1");
    assert_eq!(peer.request().header("authorization"), Some("Bearer t"));
    assert_eq!(peer.request().header("cookie"), None);
    assert!(peer.request().headers().any(|header| header == ("authorization", "Bearer t")));
    assert_eq!(peer.request().subprotocols(), ["graphql-ws"]);
}

#[tokio::test(start_paused = true)]
async fn another_subprotocol_is_chosen_and_spoken() {
    let server = Server::in_memory();
    let mut pipe = dial(&server).await.unwrap();
    pipe.write_all(UPGRADE_REQUEST.as_bytes()).await.unwrap();
    let upgrade = Upgrade::new().subprotocol("graphql-ws").header("X-Node", "7");
    let peer = server.accept_with(upgrade).await;
    assert_eq!(peer.subprotocol(), Subprotocol::GraphqlWs);
    peer.vanish();
    let answer = read_to_end(pipe).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: graphql-ws\r\n"), "{answer}");
    assert!(answer.contains("x-node: 7\r\n"), "{answer}");
    // The example key of RFC 6455 section 1.3 and its answer.
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn no_subprotocol_is_chosen() {
    let server = Server::in_memory();
    let mut pipe = dial(&server).await.unwrap();
    pipe.write_all(UPGRADE_REQUEST.as_bytes()).await.unwrap();
    let peer = server.accept_with(Upgrade::new().without_subprotocol()).await;
    assert_eq!(peer.subprotocol(), Subprotocol::GraphqlTransportWs);
    peer.vanish();
    assert!(!read_to_end(pipe).await.contains("sec-websocket-protocol"));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_refused_with_a_status() {
    let server = Server::in_memory();
    let pipe = dial(&server).await.unwrap();
    let request = upgrade_request("graphql-transport-ws");
    let (answer, request) = tokio::join!(
        client_async(request, pipe),
        server.refuse(503, &[("Retry-After", "7")], "busy")
    );
    let Err(Error::Http(response)) = answer else { panic!("it was accepted") };
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "7");
    assert_eq!(response.headers()["content-length"], "4");
    assert_eq!(response.body().as_deref(), Some(&b"busy"[..]));
    assert_eq!(request.path(), "/");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_answered_with_raw_bytes_and_held_open() {
    let server = Server::in_memory();
    let mut pipe = dial(&server).await.unwrap();
    pipe.write_all(UPGRADE_REQUEST.as_bytes()).await.unwrap();
    let silence = server.accept_raw("not HTTP").await;
    assert_eq!(silence.request().unwrap().path(), "/");
    let mut answer = [0; 8];
    pipe.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"not HTTP");
    assert!(is_silent(&mut pipe).await);
    drop(silence);
    assert_eq!(read_to_end(pipe).await, "");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_never_answered() {
    let server = Server::in_memory();
    let mut pipe = dial(&server).await.unwrap();
    pipe.write_all(UPGRADE_REQUEST.as_bytes()).await.unwrap();
    let silence = server.accept_silent().await;
    assert!(silence.request().is_none());
    assert!(is_silent(&mut pipe).await);
    drop(silence);
    assert_eq!(read_to_end(pipe).await, "");
}

#[tokio::test(start_paused = true)]
async fn dials_are_counted_and_fail_as_the_script_says() {
    let server = Server::in_memory();
    server.refuse_dials(1);
    assert!(is_refused(&dial(&server).await));
    assert!(dial(&server).await.is_ok());
    server.offline();
    assert!(is_refused(&dial(&server).await));
    assert!(is_refused(&dial(&server).await));
    server.online();
    assert!(dial(&server).await.is_ok());
    server.hang_dials(1);
    assert!(timeout(A_WHILE, dial(&server)).await.is_err());
    assert!(dial(&server).await.is_ok());
    assert_eq!(server.dials(), 7);
    server.dialed(7).await;
    server.expect_no_dial_for(A_WHILE).await;

    let dialer = server.dialer();
    drop(server);
    assert!(is_refused(&dialer.dial(&Url::parse("ws://mock/").unwrap()).await));
}

#[tokio::test(start_paused = true)]
async fn a_dial_where_none_is_expected_panics() {
    let server = Server::in_memory();
    let message = panics_with(async {
        tokio::join!(server.expect_no_dial_for(A_WHILE), async { dial(&server).await.is_ok() });
    });
    assert!(message.await.contains("expected no dial"));
}

#[tokio::test(start_paused = true)]
async fn offering_both_subprotocols_breaks_a_rule() {
    let server = Server::in_memory();
    let mut pipe = dial(&server).await.unwrap();
    let request =
        UPGRADE_REQUEST.replace("graphql-transport-ws", "graphql-transport-ws, graphql-ws");
    pipe.write_all(request.as_bytes()).await.unwrap();
    assert!(
        panics_with(server.accept())
            .await
            .contains("protocol rule broken: exactly one subprotocol")
    );
}

#[tokio::test]
async fn it_works_over_tcp() {
    let server = Server::tcp().await;
    let url = Url::parse(server.url()).unwrap();
    let address = (url.host_str().unwrap().to_owned(), url.port().unwrap());
    // Spawning requires that the peer's futures are `Send`.
    let script = tokio::spawn(async move {
        let mut peer = server.accept().await.expect_init().await.ack().await;
        assert_eq!(peer.expect_subscribe().await.id, "1");
        peer.close(4400, "no").await;
        assert_eq!(peer.expect_close().await.0, 4400);
        server.accept().await.vanish();
        assert_eq!(server.dials(), 2);
    });
    let stream = tokio::net::TcpStream::connect(address.clone()).await.unwrap();
    let (mut client, _) =
        client_async(upgrade_request("graphql-transport-ws"), stream).await.unwrap();
    client.send(text(json!({"type": "connection_init", "payload": {}}))).await.unwrap();
    assert_eq!(
        client.next().await.unwrap().unwrap(),
        Message::text(r#"{"type":"connection_ack"}"#)
    );
    client.send(text(subscribe("1"))).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), close(4400, "no"));
    assert!(client.next().await.is_none());
    drop(client);

    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut client, _) =
        client_async(upgrade_request("graphql-transport-ws"), stream).await.unwrap();
    let end = client.next().await;
    assert!(
        matches!(&end, Some(Err(Error::Io(error))) if error.kind() == ErrorKind::ConnectionReset),
        "{end:?}"
    );
    script.await.unwrap();
}
