//! From the socket to the script: reading, checking, keeping in order, and failing with an
//! explanation.
//!
//! Owns [`Incoming`] and the private half of [`Peer`]. Reading is cancel-safe: whatever was read is
//! in the inbox or in the hands of whoever waited for it.

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

/// Something that the client did.
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

    /// Waits until `pick` takes something: `Ok(None)` consumes and goes on, `Err` declines.
    pub(super) async fn expect<T>(
        &mut self,
        wanted: &str,
        at: &'static Location<'static>,
        mut pick: impl FnMut(Incoming) -> Result<Option<T>, Incoming>,
    ) -> T {
        let deadline = self.deadline;
        let wait = async {
            loop {
                let declined = match pick(self.arrival(at).await) {
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

    /// What the script has to see next.
    pub(super) async fn next_unskipped(&mut self, at: &'static Location<'static>) -> Incoming {
        loop {
            let incoming = self.arrival(at).await;
            if let Some(incoming) = self.skip(incoming).await {
                return incoming;
            }
        }
    }

    /// Reads until the client closed or dropped the connection, after a close frame of ours.
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

    /// Answers the pings that wait in the inbox, if that is what the script wants.
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

    /// Reads one thing into the inbox.
    pub(super) async fn read(&mut self, at: &'static Location<'static>) {
        match self.stage {
            Stage::Open => {
                let frame = self.socket.next().await;
                self.take(frame, at);
                if let Some(Incoming::WsPing(_)) = self.inbox.back() {
                    // The answer is queued in the socket, and lost on a client that is gone.
                    let _ = self.socket.flush().await;
                }
                if self.stage == Stage::Closed {
                    self.finish_close().await;
                }
            }
            Stage::Closed => {
                self.finish_close().await;
                if !self.socket.get_ref().went_on_after_close() {
                    // The wire sees what comes, and a reset is an end as well.
                    let _ = self.socket.get_mut().read(&mut [0]).await;
                }
                if self.socket.get_ref().went_on_after_close() {
                    self.fail_rule(Rule::AfterClose, "more bytes", at);
                }
                self.end();
            }
            Stage::Ended => self.end(),
        }
    }

    async fn arrival(&mut self, at: &'static Location<'static>) -> Incoming {
        loop {
            if let Some(incoming) = self.inbox.pop_front() {
                return incoming;
            }
            self.read(at).await;
        }
    }

    /// Deals with what is in nobody's way, and hands back the rest.
    async fn skip(&mut self, incoming: Incoming) -> Option<Incoming> {
        match incoming {
            Incoming::WsPing(_) | Incoming::WsPong(_) => None,
            Incoming::Message(message) if self.answers(&message) => {
                self.answer(message).await;
                None
            }
            other @ (Incoming::Message(_) | Incoming::Close(..) | Incoming::End) => Some(other),
        }
    }

    fn answers(&self, message: &Value) -> bool {
        self.answer_pings && message["type"] == "ping"
    }

    async fn answer(&mut self, ping: Value) {
        // Nothing follows a close frame, and the client knows that it will not get this answer.
        if !self.close_sent {
            self.say("pong", None, payload(ping), Location::caller()).await;
        }
    }

    fn take(&mut self, frame: Option<Result<Message, Error>>, at: &'static Location<'static>) {
        let incoming = match frame {
            Some(Ok(Message::Text(text))) => match self.checker.received(&text) {
                Ok(message) => {
                    self.note('<', &text);
                    Incoming::Message(message)
                }
                Err(rule) => self.fail_rule(rule, &text, at),
            },
            Some(Ok(Message::Binary(bytes))) => {
                self.fail_rule(Rule::Binary, &format!("{bytes:?}"), at)
            }
            Some(Ok(Message::Ping(body))) => Incoming::WsPing(body.into()),
            Some(Ok(Message::Pong(body))) => Incoming::WsPong(body.into()),
            Some(Ok(Message::Close(_))) => self.take_close(at),
            Some(Ok(Message::Frame(_))) => unreachable!("raw frames are written, never read"),
            None
            | Some(Err(
                Error::Io(_)
                | Error::ConnectionClosed
                | Error::AlreadyClosed
                | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
            )) => return self.end(),
            // A close frame that tungstenite rejects as a whole; the checker knows the rule.
            Some(Err(_)) if self.socket.get_ref().close_body().is_some() => self.take_close(at),
            Some(Err(error)) => {
                self.fail(at, &format!("the client sent an illegal frame: {error}"))
            }
        };
        self.inbox.push_back(incoming);
    }

    fn take_close(&mut self, at: &'static Location<'static>) -> Incoming {
        self.stage = Stage::Closed;
        let body = self.socket.get_ref().close_body().unwrap_or_default().to_vec();
        match close_frame(&body) {
            Ok((code, reason)) => {
                let close = Incoming::Close(code, reason);
                self.note('<', &close.to_string());
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

    /// Lets tungstenite answer the close frame, then ends our half, as the server is the one to end
    /// the stream (RFC 6455 section 7.1.1).
    async fn finish_close(&mut self) {
        while let Some(Ok(_)) = self.socket.next().await {}
        // On a stream that the client has dropped there is nothing left to end.
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

    pub(super) fn note(&mut self, direction: char, line: &str) {
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

/// The payload of a message, if there is one that is not `null`.
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

/// How much of the conversation a panic tells.
const LOGGED_LINES: usize = 12;

/// How much of one message of it.
const LOGGED_CHARS: usize = 200;
