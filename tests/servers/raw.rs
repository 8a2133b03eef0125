//! A WebSocket client that knows no GraphQL: it sends the JSON it is told to, and shows what comes.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::market::listener::Count;

/// The two protocols, and the words in which they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subprotocol {
    Transport,
    Legacy,
}

impl Subprotocol {
    pub(crate) const BOTH: [Self; 2] = [Self::Transport, Self::Legacy];

    fn name(self) -> &'static str {
        match self {
            Self::Transport => "graphql-transport-ws",
            Self::Legacy => "graphql-ws",
        }
    }

    fn subscribe(self) -> &'static str {
        match self {
            Self::Transport => "subscribe",
            Self::Legacy => "start",
        }
    }

    fn next(self) -> &'static str {
        match self {
            Self::Transport => "next",
            Self::Legacy => "data",
        }
    }

    fn stop(self) -> &'static str {
        match self {
            Self::Transport => "complete",
            Self::Legacy => "stop",
        }
    }
}

/// What came.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Message(Value),
    /// A close frame, with its code and reason if it had any.
    Closed(Option<(u16, String)>),
    /// The end of the connection, without a close frame.
    Cut,
}

pub(crate) struct RawClient {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    subprotocol: Subprotocol,
}

impl RawClient {
    /// Opens a WebSocket, and says nothing on it.
    pub(crate) async fn open(url: &str, subprotocol: Subprotocol) -> Self {
        let mut request = url.into_client_request().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", HeaderValue::from_static(subprotocol.name()));
        let (socket, response) = within(tokio_tungstenite::connect_async(request)).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], subprotocol.name());
        Self { socket, subprotocol }
    }

    /// Opens a WebSocket and the conversation on it.
    pub(crate) async fn acked(url: &str, subprotocol: Subprotocol) -> Self {
        let mut client = Self::open(url, subprotocol).await;
        client.init(json!({})).await;
        assert_eq!(client.message().await["type"], "connection_ack");
        client
    }

    pub(crate) async fn init(&mut self, payload: Value) {
        self.send(json!({"type": "connection_init", "payload": payload})).await;
    }

    pub(crate) async fn subscribe(&mut self, id: &str, query: &str) {
        self.send(
            json!({"id": id, "type": self.subprotocol.subscribe(), "payload": {"query": query}}),
        )
        .await;
    }

    pub(crate) async fn stop(&mut self, id: &str) {
        self.send(json!({"id": id, "type": self.subprotocol.stop()})).await;
    }

    pub(crate) async fn send(&mut self, message: Value) {
        within(self.socket.send(Message::text(message.to_string()))).await.unwrap();
    }

    /// The next item of subscription `id`.
    pub(crate) async fn item(&mut self, id: &str) -> Value {
        let mut message = self.message().await;
        assert_eq!(
            (&message["type"], &message["id"]),
            (&json!(self.subprotocol.next()), &json!(id)),
            "{message}"
        );
        message["payload"].take()
    }

    pub(crate) async fn completed(&mut self, id: &str) {
        let message = self.message().await;
        assert_eq!(
            (&message["type"], &message["id"]),
            (&json!("complete"), &json!(id)),
            "{message}"
        );
    }

    /// The next message of operation `id`, past those of others.
    pub(crate) async fn message_of(&mut self, id: &str) -> Value {
        loop {
            let message = self.message().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    /// The next message that is not of the heartbeat.
    pub(crate) async fn message(&mut self) -> Value {
        match self.seen().await {
            Seen::Message(message) => message,
            end @ (Seen::Closed(_) | Seen::Cut) => panic!("{end:?}"),
        }
    }

    /// Whatever comes next that is not of the heartbeat.
    pub(crate) async fn seen(&mut self) -> Seen {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if !["ping", "pong", "ka"].contains(&message["type"].as_str().unwrap()) {
                        return Seen::Message(message);
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    return Seen::Closed(
                        frame.map(|frame| (frame.code.into(), frame.reason.to_string())),
                    );
                }
                Some(Ok(
                    Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
                )) => {}
                Some(Err(_)) | None => return Seen::Cut,
            }
        }
    }
}

/// Waits until the count is what the test waits for.
pub(crate) async fn until(
    mut counts: watch::Receiver<Count>,
    is_reached: impl FnMut(&Count) -> bool,
) {
    within(counts.wait_for(is_reached)).await.unwrap();
}

/// Turns a test that hangs into a test that fails.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("nothing happened for 20 seconds")
}
