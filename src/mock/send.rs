//! The server's side of one connection: everything that a script sends.
//!
//! Owns the server's vocabulary. It sends whatever the script asks for, right or wrong, because a
//! client has to cope with servers that break the rules.

use std::panic::Location;

use futures::SinkExt as _;
use serde_json::{Map, Value};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes, protocol::CloseFrame};

use super::peer::{Peer, Stage};

impl Peer {
    /// Sends `connection_ack` without a payload.
    #[track_caller]
    pub fn ack(mut self) -> impl Future<Output = Self> {
        let at = Location::caller();
        async move {
            self.send("connection_ack", None, None, at).await;
            self
        }
    }

    /// Sends `connection_ack` with a payload.
    #[track_caller]
    pub fn ack_with(mut self, payload: Value) -> impl Future<Output = Self> {
        let at = Location::caller();
        async move {
            self.send("connection_ack", None, Some(payload), at).await;
            self
        }
    }

    /// Sends a result: `next`, or `data` on the legacy subprotocol.
    #[track_caller]
    pub fn next(&mut self, id: &str, payload: Value) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.send(self.subprotocol.result(), Some(id), Some(payload), at).await }
    }

    /// Sends `error`, which ends the operation. The payload is a list of errors on the modern
    /// subprotocol, and one error on the legacy one.
    #[track_caller]
    pub fn error(&mut self, id: &str, payload: Value) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.send("error", Some(id), Some(payload), at).await }
    }

    /// Sends `complete`, which ends the operation.
    #[track_caller]
    pub fn complete(&mut self, id: &str) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.send("complete", Some(id), None, at).await }
    }

    /// Sends a `ping` message. The answer is a message like any other: wait for it with
    /// [`expect_pong`](Self::expect_pong).
    #[track_caller]
    pub fn ping(&mut self, payload: Option<Value>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.send("ping", None, payload, at).await }
    }

    /// Sends a `pong` message, whether or not the client has sent a `ping`.
    #[track_caller]
    pub fn pong(&mut self, payload: Option<Value>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.send("pong", None, payload, at).await }
    }

    /// Sends `ka`, the keepalive of the legacy subprotocol.
    #[track_caller]
    pub fn keep_alive(&mut self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.send("ka", None, None, at).await }
    }

    /// Sends `connection_error`, the refusal of the legacy subprotocol.
    #[track_caller]
    pub fn connection_error(&mut self, payload: Value) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.send("connection_error", None, Some(payload), at).await }
    }

    /// Sends any JSON as a message.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "scripts build the message in place")]
    pub fn send_json(&mut self, message: Value) -> impl Future<Output = ()> {
        let (at, text) = (Location::caller(), message.to_string());
        async move { self.send_text_at(&text, at).await }
    }

    /// Sends any text as a message.
    #[track_caller]
    pub fn send_text(&mut self, text: &str) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.send_text_at(text, at).await }
    }

    /// Sends a binary message.
    #[track_caller]
    pub fn send_binary(&mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        let (at, message) = (Location::caller(), Message::binary(bytes.to_vec()));
        async move { self.send_frame(message, at).await }
    }

    /// Sends a WebSocket ping frame. The answer is skipped unless
    /// [`expect_ws_pong`](Self::expect_ws_pong) waits for it.
    #[track_caller]
    pub fn ws_ping(&mut self, body: &[u8]) -> impl Future<Output = ()> {
        let (at, message) = (Location::caller(), Message::Ping(body.to_vec().into()));
        async move { self.send_frame(message, at).await }
    }

    /// Writes these bytes in place of a frame, such as a frame that RFC 6455 forbids.
    #[track_caller]
    pub fn send_raw_frame_bytes(&mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let write = async {
                self.socket.flush().await?;
                self.socket.get_mut().write_all(bytes).await?;
                self.socket.get_mut().flush().await?;
                Ok(())
            };
            let written = timeout(self.deadline, write).await;
            self.log_sent(&format!("{} raw bytes", bytes.len()), written.ok(), at);
        }
    }

    /// Closes the connection in the way that RFC 6455 asks for: sends a close frame, waits for that
    /// of the client, and ends the stream.
    ///
    /// Messages that the client sent before, and its close frame, are kept for the methods that
    /// follow. The code and the reason are sent as they are, also if RFC 6455 forbids them.
    ///
    /// # Panics
    ///
    /// If the client neither answers nor drops the connection within the
    /// [deadline](Self::set_deadline).
    #[track_caller]
    pub fn close(&mut self, code: u16, reason: &str) -> impl Future<Output = ()> {
        let (at, frame) = (Location::caller(), close_frame(code, reason));
        async move {
            self.send_frame(frame, at).await;
            self.read_to_close(at).await;
        }
    }

    /// Like [`close`](Self::close), but with an empty close frame.
    ///
    /// # Panics
    ///
    /// Like [`close`](Self::close).
    #[track_caller]
    pub fn close_without_code(&mut self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            self.send_frame(Message::Close(None), at).await;
            self.read_to_close(at).await;
        }
    }

    /// Sends a close frame and does nothing else: the stream stays open, and the client's answer is
    /// not read.
    #[track_caller]
    pub fn send_close(&mut self, code: u16, reason: &str) -> impl Future<Output = ()> {
        let (at, frame) = (Location::caller(), close_frame(code, reason));
        async move { self.send_frame(frame, at).await }
    }

    /// Sends a message of the server's vocabulary.
    pub(super) async fn send(
        &mut self,
        kind: &str,
        id: Option<&str>,
        payload: Option<Value>,
        at: &'static Location<'static>,
    ) {
        let mut message = Map::new();
        message.insert("type".to_owned(), kind.into());
        if let Some(id) = id {
            message.insert("id".to_owned(), id.into());
        }
        if let Some(payload) = payload {
            message.insert("payload".to_owned(), payload);
        }
        self.send_text_at(&Value::Object(message).to_string(), at).await;
    }

    async fn send_text_at(&mut self, text: &str, at: &'static Location<'static>) {
        if let Ok(message) = serde_json::from_str(text) {
            self.checker.sent(&message);
        }
        self.send_frame(Message::text(text), at).await;
    }

    async fn send_frame(&mut self, message: Message, at: &'static Location<'static>) {
        let line = describe(&message);
        if self.close_sent {
            self.fail(at, &format!("the script sends {line} after its own close frame"));
        }
        self.close_sent = message.is_close();
        let sent = match self.stage {
            Stage::Open => timeout(self.deadline, self.socket.send(message)).await.ok(),
            Stage::Closed | Stage::Ended => Some(Err(Error::AlreadyClosed)),
        };
        self.log_sent(&line, sent, at);
    }

    fn log_sent(
        &mut self,
        line: &str,
        sent: Option<Result<(), Error>>,
        at: &'static Location<'static>,
    ) {
        match sent {
            Some(Ok(())) => self.log_line('>', line),
            // The client has closed the connection. On a network the sender would not learn of it.
            Some(Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed)) => {
                self.log_line('>', &format!("(lost) {line}"));
            }
            Some(Err(error)) => self.fail(at, &format!("could not send {line}: {error}")),
            None => {
                self.fail(at, &format!("the client did not read {line} within {:?}", self.deadline))
            }
        }
    }
}

fn close_frame(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame { code: code.into(), reason: Utf8Bytes::from(reason) }))
}

fn describe(message: &Message) -> String {
    match message {
        Message::Text(text) => text.to_string(),
        Message::Binary(bytes) => format!("{} binary bytes", bytes.len()),
        Message::Ping(_) => "a WebSocket ping".to_owned(),
        Message::Pong(_) => "a WebSocket pong".to_owned(),
        Message::Close(Some(frame)) => {
            format!("a close frame with {} `{}`", u16::from(frame.code), frame.reason)
        }
        Message::Close(None) => "an empty close frame".to_owned(),
        Message::Frame(_) => "a raw frame".to_owned(),
    }
}
