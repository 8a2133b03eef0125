//! Reads what the client sends, checks it, keeps it in order for the script, and panics with an
//! explanation.
//!
//! Owns [`Incoming`] and the private methods of [`Peer`]. Reading is cancel-safe: everything that
//! was read is in the inbox until it is returned.

use std::{fmt, panic::Location};

use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

use super::{
    check::{Rule, close_frame},
    peer::{Peer, Stage},
};

/// What the client sent, in the order in which it was read.
pub(super) enum Incoming {
    Message(Value),
    WsPing(Vec<u8>),
    WsPong(Vec<u8>),
    Close(u16, String),
    End,
}

impl Peer {
    pub(super) async fn expect_message(
        &mut self,
        kind: &str,
        at: &'static Location<'static>,
    ) -> Value {
        self.expect(&format!("`{kind}`"), at, |incoming| match incoming {
            Incoming::Message(message) if message["type"] == kind => Ok(Some(message)),
            other => Err(other),
        })
        .await
    }

    /// Waits until `pick` accepts something that the client sent.
    ///
    /// `pick` returns `Ok(Some(_))` to accept it, `Ok(None)` to consume it and wait on, and `Err`
    /// to decline it. What is declined is skipped if it may be, and is a failure otherwise.
    pub(super) async fn expect<T>(
        &mut self,
        wanted: &str,
        at: &'static Location<'static>,
        mut pick: impl FnMut(Incoming) -> Result<Option<T>, Incoming>,
    ) -> T {
        let deadline = self.deadline;
        let wait = async {
            loop {
                let declined = match pick(self.next_incoming(at).await) {
                    Ok(Some(picked)) => return picked,
                    Ok(None) => continue,
                    Err(declined) => declined,
                };
                if let Some(unexpected) = self.skip(declined).await {
                    self.fail(at, &format!("expected {wanted}, got {unexpected}"));
                }
            }
        };
        match timeout(deadline, wait).await {
            Ok(picked) => picked,
            Err(_) => self
                .fail(at, &format!("expected {wanted}, but it did not arrive within {deadline:?}")),
        }
    }

    /// Returns the next thing that is not skipped.
    pub(super) async fn next_unskipped(&mut self, at: &'static Location<'static>) -> Incoming {
        loop {
            let incoming = self.next_incoming(at).await;
            if let Some(incoming) = self.skip(incoming).await {
                return incoming;
            }
        }
    }

    /// Reads until the client has closed or dropped the connection, after the script sent a close
    /// frame.
    pub(super) async fn read_to_close(&mut self, at: &'static Location<'static>) {
        let deadline = self.deadline;
        let wait = async {
            while self.stage == Stage::Open {
                self.read(at).await;
            }
        };
        if timeout(deadline, wait).await.is_err() {
            self.fail(
                at,
                &format!("the client did not answer the close frame within {deadline:?}"),
            );
        }
    }

    /// Answers the pings in the inbox, unless the script has switched that off.
    pub(super) async fn answer_queued_pings(&mut self) {
        let is_ping = |incoming: &Incoming| match incoming {
            Incoming::Message(message) => message["type"] == "ping",
            _ => false,
        };
        while let Some(index) = self.inbox.iter().position(is_ping).filter(|_| self.answer_pings) {
            let Some(Incoming::Message(ping)) = self.inbox.remove(index) else { return };
            self.answer(ping).await;
        }
    }

    /// Reads one frame, or the end of the stream, into the inbox.
    pub(super) async fn read(&mut self, at: &'static Location<'static>) {
        match self.stage {
            Stage::Open => {
                let frame = self.socket.next().await;
                self.receive(frame, at);
                if let Some(Incoming::WsPing(_)) = self.inbox.back() {
                    // tungstenite has queued the answer. If this fails, the client is gone.
                    let _ = self.socket.flush().await;
                }
                if self.stage == Stage::Closed {
                    self.finish_close().await;
                }
            }
            Stage::Closed => {
                self.finish_close().await;
                if !self.socket.get_ref().has_sent_after_close() {
                    // `Wire` notices any bytes that are read, and a reset is an end as well.
                    let _ = self.socket.get_mut().read(&mut [0]).await;
                }
                if self.socket.get_ref().has_sent_after_close() {
                    self.fail_rule(Rule::AfterClose, "more bytes", at);
                }
                self.end();
            }
            Stage::Ended => self.end(),
        }
    }

    async fn next_incoming(&mut self, at: &'static Location<'static>) -> Incoming {
        loop {
            if let Some(incoming) = self.inbox.pop_front() {
                return incoming;
            }
            self.read(at).await;
        }
    }

    /// Answers and drops what may be skipped, and returns anything else.
    async fn skip(&mut self, incoming: Incoming) -> Option<Incoming> {
        match incoming {
            Incoming::WsPing(_) | Incoming::WsPong(_) => None,
            Incoming::Message(message) if self.should_answer(&message) => {
                self.answer(message).await;
                None
            }
            other @ (Incoming::Message(_) | Incoming::Close(..) | Incoming::End) => Some(other),
        }
    }

    fn should_answer(&self, message: &Value) -> bool {
        self.answer_pings && message["type"] == "ping"
    }

    async fn answer(&mut self, ping: Value) {
        // Nothing may follow a close frame, so a ping that crossed it stays unanswered.
        if !self.close_sent {
            self.send("pong", None, payload(ping), Location::caller()).await;
        }
    }

    fn receive(&mut self, frame: Option<Result<Message, Error>>, at: &'static Location<'static>) {
        let incoming = match frame {
            Some(Ok(Message::Text(text))) => match self.checker.received(&text) {
                Ok(message) => {
                    self.log_line('<', &text);
                    Incoming::Message(message)
                }
                Err(rule) => self.fail_rule(rule, &text, at),
            },
            Some(Ok(Message::Binary(bytes))) => {
                self.fail_rule(Rule::Binary, &format!("{bytes:?}"), at)
            }
            Some(Ok(Message::Ping(body))) => Incoming::WsPing(body.into()),
            Some(Ok(Message::Pong(body))) => Incoming::WsPong(body.into()),
            Some(Ok(Message::Close(_))) => self.receive_close(at),
            Some(Ok(Message::Frame(_))) => unreachable!("raw frames are written, never read"),
            None
            | Some(Err(
                Error::Io(_)
                | Error::ConnectionClosed
                | Error::AlreadyClosed
                | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
            )) => return self.end(),
            // tungstenite rejects this close frame as a whole; the checker knows which rule broke.
            Some(Err(_)) if self.socket.get_ref().close_body().is_some() => self.receive_close(at),
            Some(Err(error)) => {
                self.fail(at, &format!("the client sent an illegal frame: {error}"))
            }
        };
        self.inbox.push_back(incoming);
    }

    fn receive_close(&mut self, at: &'static Location<'static>) -> Incoming {
        self.stage = Stage::Closed;
        let body = self.socket.get_ref().close_body().unwrap_or_default().to_vec();
        match close_frame(&body) {
            Ok((code, reason)) => {
                let close = Incoming::Close(code, reason);
                self.log_line('<', &close.to_string());
                close
            }
            Err(rule) => {
                let code = body.first_chunk().map(|code| u16::from_be_bytes(*code));
                let reason =
                    String::from_utf8_lossy(body.get(2..).unwrap_or_default()).into_owned();
                self.fail_rule(rule, &format!("a close frame with {code:?} `{reason}`"), at)
            }
        }
    }

    fn end(&mut self) {
        self.stage = Stage::Ended;
        self.inbox.push_back(Incoming::End);
    }

    /// Lets tungstenite answer the close frame, then ends the stream. RFC 6455 section 7.1.1 leaves
    /// it to the server to close the TCP connection first.
    async fn finish_close(&mut self) {
        while let Some(Ok(_)) = self.socket.next().await {}
        // This fails only if the client has dropped the stream already.
        let _ = self.socket.get_mut().shutdown().await;
    }

    fn fail_rule(&self, rule: Rule, sent: &str, at: &'static Location<'static>) -> ! {
        self.fail(at, &format!("protocol rule broken: {rule}; the client sent {sent}"))
    }

    pub(super) fn fail(&self, at: &'static Location<'static>, problem: &str) -> ! {
        let (mut log, separator) = (String::new(), "\n    ");
        for line in &self.log {
            log += separator;
            log += line;
        }
        if log.is_empty() {
            log += " none";
        }
        panic!(
            "mock server: {problem}\n  at {at}\n  on {}, the last messages:{log}",
            self.subprotocol
        )
    }

    pub(super) fn log_line(&mut self, direction: char, line: &str) {
        if self.log.len() == LOGGED_LINES {
            self.log.pop_front();
        }
        let mut line: String =
            [direction, ' '].into_iter().chain(line.chars().take(LOGGED_CHARS + 1)).collect();
        if line.chars().count() > LOGGED_CHARS + 2 {
            line.pop();
            line.push_str("..");
        }
        self.log.push_back(line);
    }
}

/// Returns the payload of a message, unless it is absent or `null`.
pub(super) fn payload(mut message: Value) -> Option<Value> {
    message.get_mut("payload").map(Value::take).filter(|payload| !payload.is_null())
}

impl fmt::Display for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => message.fmt(f),
            Self::WsPing(body) => write!(f, "a WebSocket ping with {body:?}"),
            Self::WsPong(body) => write!(f, "a WebSocket pong with {body:?}"),
            Self::Close(code, reason) => write!(f, "a close frame with {code} `{reason}`"),
            Self::End => f.write_str("the end of the connection"),
        }
    }
}

/// How many messages a panic shows.
const LOGGED_LINES: usize = 12;

/// How many characters of one message a panic shows.
const LOGGED_CHARS: usize = 200;
