//! The server's side of one connection: what the script sends.
//!
//! Owns the server's vocabulary. Sends what it is told to, right or wrong: a client has to live
//! with wrong servers.

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
            self.say("connection_ack", None, None, at).await;
            self
        }
    }

    /// Sends `connection_ack` with a payload.
    #[track_caller]
    pub fn ack_with(mut self, payload: Value) -> impl Future<Output = Self> {
        let at = Location::caller();
        async move {
            self.say("connection_ack", None, Some(payload), at).await;
            self
        }
    }

    /// Sends a result: `next`, or `data` on the legacy subprotocol.
    #[track_caller]
    pub fn next(&mut self, id: &str, payload: Value) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.say(self.subprotocol.result(), Some(id), Some(payload), at).await }
    }

    /// Sends `error`, which ends the operation. The payload is a list of errors, on the legacy
    /// subprotocol one error.
    #[track_caller]
    pub fn error(&mut self, id: &str, payload: Value) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.say("error", Some(id), Some(payload), at).await }
    }

    /// Sends `complete`, which ends the operation.
    #[track_caller]
    pub fn complete(&mut self, id: &str) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.say("complete", Some(id), None, at).await }
    }

    /// Sends a `ping` message. The answer is left to [`expect_pong`](Self::expect_pong).
    #[track_caller]
    pub fn ping(&mut self, payload: Option<Value>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.say("ping", None, payload, at).await }
    }

    /// Sends a `pong` message, asked for or not.
    #[track_caller]
    pub fn pong(&mut self, payload: Option<Value>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.say("pong", None, payload, at).await }
    }

    /// Sends `ka`, the legacy keepalive.
    #[track_caller]
    pub fn keep_alive(&mut self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.say("ka", None, None, at).await }
    }

    /// Sends `connection_error`, the legacy refusal.
    #[track_caller]
    pub fn connection_error(&mut self, payload: Value) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.say("connection_error", None, Some(payload), at).await }
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
        async move { self.deliver(message, at).await }
    }

    /// Sends a WebSocket ping frame. The answer is skipped, unless
    /// [`expect_ws_pong`](Self::expect_ws_pong) waits for it.
    #[track_caller]
    pub fn ws_ping(&mut self, body: &[u8]) -> impl Future<Output = ()> {
        let (at, message) = (Location::caller(), Message::Ping(body.to_vec().into()));
        async move { self.deliver(message, at).await }
    }

    /// Writes bytes as they are where the next frame would be, such as a frame that RFC 6455
    /// forbids.
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
            self.delivered(&format!("{} raw bytes", bytes.len()), written.ok(), at);
        }
    }

    /// Closes the connection as a good server does: sends a close frame, waits for the client's,
    /// ends the stream.
    ///
    /// What the client had sent before, and its close frame, wait for their turn. Any code and any
    /// length of reason go out as they are.
    ///
    /// # Panics
    ///
    /// When the client neither answers nor drops the connection within the
    /// [deadline](Self::set_deadline).
    #[track_caller]
    pub fn close(&mut self, code: u16, reason: &str) -> impl Future<Output = ()> {
        let (at, frame) = (Location::caller(), close_frame(code, reason));
        async move {
            self.deliver(frame, at).await;
            self.read_to_close(at).await;
        }
    }

    /// As [`close`](Self::close), with an empty close frame.
    ///
    /// # Panics
    ///
    /// As [`close`](Self::close).
    #[track_caller]
    pub fn close_without_code(&mut self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            self.deliver(Message::Close(None), at).await;
            self.read_to_close(at).await;
        }
    }

    /// Sends a close frame and nothing more: the stream stays open, and the client's answer unread.
    #[track_caller]
    pub fn send_close(&mut self, code: u16, reason: &str) -> impl Future<Output = ()> {
        let (at, frame) = (Location::caller(), close_frame(code, reason));
        async move { self.deliver(frame, at).await }
    }

    /// Sends a message of the server's vocabulary.
    pub(super) async fn say(
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
        self.deliver(Message::text(text), at).await;
    }

    async fn deliver(&mut self, message: Message, at: &'static Location<'static>) {
        let line = describe(&message);
        if self.close_sent {
            self.fail(at, &format!("the script sends {line} after its own close frame"));
        }
        self.close_sent = message.is_close();
        let sent = match self.stage {
            Stage::Open => timeout(self.deadline, self.socket.send(message)).await.ok(),
            Stage::Closed | Stage::Ended => Some(Err(Error::AlreadyClosed)),
        };
        self.delivered(&line, sent, at);
    }

    fn delivered(
        &mut self,
        line: &str,
        sent: Option<Result<(), Error>>,
        at: &'static Location<'static>,
    ) {
        match sent {
            Some(Ok(())) => self.note('>', line),
            // The client is gone: as on a network, nobody tells the sender.
            Some(Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed)) => {
                self.note('>', &format!("(lost) {line}"));
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
