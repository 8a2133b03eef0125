//! Tests of the mock with a plain WebSocket client, over the pipe dialer.

mod connect;
mod end;
mod talk;

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Message, client::IntoClientRequest as _, http::HeaderValue, protocol::CloseFrame,
    },
};
use url::Url;

use super::{Peer, Server};
use crate::{
    error::DialError,
    transport::dial::{BoxedIo, Dialer as _},
};

pub(super) type Client = WebSocketStream<BoxedIo>;

pub(super) async fn dial(server: &Server) -> Result<BoxedIo, DialError> {
    let url = Url::parse(server.url()).unwrap();
    server.dialer().dial(&url).await
}

pub(super) async fn connect(server: &Server, subprotocol: &'static str) -> (Client, Peer) {
    let pipe = dial(server).await.unwrap();
    let (client, peer) =
        tokio::join!(client_async(upgrade_request(subprotocol), pipe), server.accept());
    (client.unwrap().0, peer)
}

pub(super) async fn open(server: &Server, subprotocol: &'static str) -> (Client, Peer) {
    let (mut client, peer) = connect(server, subprotocol).await;
    client.send(text(json!({"type": "connection_init", "payload": {}}))).await.unwrap();
    let peer = peer.expect_init().await.ack().await;
    assert_eq!(receive(&mut client).await, json!({"type": "connection_ack"}));
    (client, peer)
}

pub(super) fn upgrade_request(subprotocol: &'static str) -> http::Request<()> {
    let mut request = "ws://mock/".into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(subprotocol));
    request
}

pub(super) async fn receive(client: &mut Client) -> Value {
    let message = client.next().await.unwrap().unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

pub(super) async fn read_to_end(mut pipe: BoxedIo) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).await.unwrap();
    text
}

pub(super) async fn is_silent(pipe: &mut BoxedIo) -> bool {
    timeout(A_WHILE, pipe.read_u8()).await.is_err()
}

/// Returns the message of the panic that ends the future.
pub(super) async fn panics_with<T>(future: impl Future<Output = T>) -> String {
    let Err(panic) = AssertUnwindSafe(future).catch_unwind().await else {
        panic!("it did not panic")
    };
    panic.downcast_ref::<String>().unwrap().clone()
}

pub(super) fn is_refused(dialed: &Result<BoxedIo, DialError>) -> bool {
    matches!(
        dialed,
        Err(DialError::Connect(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused
    )
}

#[expect(clippy::needless_pass_by_value, reason = "callers build the message in place")]
pub(super) fn text(message: Value) -> Message {
    Message::text(message.to_string())
}

pub(super) fn close(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
}

pub(super) fn subscribe(id: &str) -> Value {
    json!({"type": "subscribe", "id": id, "payload": {"query": "{ a }"}})
}

pub(super) const A_WHILE: Duration = Duration::from_secs(1);

pub(super) const UPGRADE_REQUEST: &str = "GET / HTTP/1.1\r\nHost: mock\r\n\
    Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n";
