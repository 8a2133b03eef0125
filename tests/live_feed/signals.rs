//! Ctrl-C.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::HeaderValue,
    },
};

use crate::program::Running;

#[tokio::test]
async fn an_interrupt_ends_every_operation_and_sums_up() {
    let mut running = Running::start(&["--json"]);
    running.line().await.unwrap();
    running.interrupt().await;
    let mut ends = Vec::new();
    while let Some(line) = running.line().await {
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["type"] == "end" {
            assert_eq!(line["reason"], "shut_down");
            ends.push(line["operation"].as_str().unwrap().to_owned());
        }
    }
    ends.sort();
    assert_eq!(ends, ["Quotes", "Trades"]);
    let run = running.hang_up().await;
    assert_eq!(run.code, 130, "{run:?}");
    let summary = run.stderr.lines().last().unwrap();
    assert!(summary.contains(" event") && summary.contains("0 gaps, 0 reconnects in "), "{run:?}");
}

#[tokio::test]
async fn a_second_interrupt_does_not_wait_for_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let mut running = Running::start(&[&url, "--query", "subscription { a }", "--json"]);
    let _server = first_item(listener).await;
    running.line().await.unwrap();
    running.interrupt().await;
    // The end of the operation is printed at once; then the program waits for a server that never
    // answers its close.
    assert!(running.line().await.unwrap().contains("shut_down"));
    running.interrupt().await;
    let run = running.hang_up().await;
    assert_eq!(run.code, 130, "{run:?}");
    assert!(!run.stderr.contains("reconnects"), "it did not stay to sum up: {run:?}");
}

/// A server that acknowledges, delivers one item, and does nothing more.
async fn first_item(listener: TcpListener) -> WebSocketStream<TcpStream> {
    let (stream, _) = listener.accept().await.unwrap();
    let mut socket = accept_hdr_async(stream, choose_subprotocol).await.unwrap();
    assert_eq!(receive(&mut socket).await["type"], "connection_init");
    socket.send(Message::text(r#"{"type":"connection_ack"}"#)).await.unwrap();
    let id = receive(&mut socket).await["id"].take();
    let item = json!({"type": "next", "id": id, "payload": {"data": {"a": 1}}});
    socket.send(Message::text(item.to_string())).await.unwrap();
    socket
}

#[expect(clippy::result_large_err, clippy::unnecessary_wraps, reason = "tungstenite's signature")]
fn choose_subprotocol(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let chosen = HeaderValue::from_static("graphql-transport-ws");
    response.headers_mut().insert("sec-websocket-protocol", chosen);
    Ok(response)
}

async fn receive(socket: &mut WebSocketStream<TcpStream>) -> Value {
    let message = socket.next().await.unwrap().unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}
