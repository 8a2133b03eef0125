//! One WebSocket: the upgrade, and a pump in each direction.
//!
//! Owns the translation between tungstenite's messages and errors and our own. Decides nothing.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{Sink, Stream};
use http::{HeaderMap, HeaderValue, Response, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as WsError, Message,
        client::IntoClientRequest,
        error::{CapacityError, ProtocolError},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode as WsCloseCode},
    },
};
use url::Url;

use crate::{
    dial::{BoxedIo, Dialer},
    error::{CloseCode, ConnectError, DialError, Disconnect},
    protocol::Subprotocol,
    session::Transmit,
};

/// An open WebSocket.
pub(crate) struct Socket {
    ws: WebSocketStream<Metered>,
    /// Bytes read when last asked.
    seen: u64,
    max_message_size: usize,
    /// Something was written and not flushed.
    unflushed: bool,
    /// Writing failed. Reading goes on, as the server may still have something to say, such as why.
    broken: Option<Disconnect>,
    traffic: Traffic,
}

/// Bytes of messages, since last asked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// What arrived.
pub(crate) enum Inbound {
    Message(Bytes),
    /// Answered by tungstenite.
    Ping,
    Pong,
    /// The last thing.
    Lost(Disconnect),
}

impl Socket {
    /// Dials, and upgrades to WebSocket.
    pub(crate) async fn open(
        dialer: &dyn Dialer,
        endpoint: &Url,
        subprotocol: Subprotocol,
        headers: HeaderMap,
        max_message_size: usize,
    ) -> Result<Self, ConnectError> {
        let io = dialer.dial(endpoint).await.map_err(ConnectError::Dial)?;
        let broken = |error: WsError| ConnectError::Upgrade(error.to_string());
        let mut request = endpoint.as_str().into_client_request().map_err(broken)?;
        request.headers_mut().extend(headers);
        let offer = HeaderValue::from_static(subprotocol.name());
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offer);
        let config = WebSocketConfig::default()
            // It is zero-filled before every read: at tungstenite's own default, small frames pay for 128 KiB each.
            .read_buffer_size(16 * 1024)
            .write_buffer_size(WRITE_BUFFER)
            // Written to only when the last write went through, so one message above the buffer is the most.
            .max_write_buffer_size(max_message_size.saturating_add(WRITE_BUFFER + 1024))
            .max_message_size(Some(max_message_size))
            .max_frame_size(Some(max_message_size));
        match client_async_with_config(request, Metered { io, read: 0 }, Some(config)).await {
            Ok((ws, _)) => {
                Ok(Self { ws, seen: 0, max_message_size, unflushed: false, broken: None, traffic: Traffic::default() })
            }
            Err(error) => Err(upgrade_error(error, subprotocol)),
        }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Inbound> {
        loop {
            let message = match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(Inbound::Lost(self.disconnect(error))),
                None => return Poll::Ready(Inbound::Lost(Disconnect::Reset(None))),
            };
            self.traffic.bytes_in += message.len() as u64;
            return Poll::Ready(match message {
                Message::Text(text) => Inbound::Message(text.into()),
                Message::Binary(bytes) => Inbound::Message(bytes),
                Message::Ping(_) => Inbound::Ping,
                Message::Pong(_) => Inbound::Pong,
                Message::Close(frame) => Inbound::Lost(closed(frame)),
                Message::Frame(_) => continue,
            });
        }
    }

    /// Whether any byte arrived since last asked, be it of a message that is not complete.
    pub(crate) fn has_moved(&mut self) -> bool {
        let read = self.ws.get_ref().read;
        std::mem::replace(&mut self.seen, read) != read
    }

    /// Writes what `next` gives, as long as the network takes it, and flushes once. Fails from the first failure on.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<Transmit>,
    ) -> Result<(), Disconnect> {
        if let Some(cause) = &self.broken {
            return Err(cause.clone());
        }
        let result = loop {
            match Pin::new(&mut self.ws).poll_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Ready(Ok(())) => {}
            }
            let Some(transmit) = next() else {
                break if self.unflushed { self.flush(cx) } else { Ok(()) };
            };
            if let Err(error) = self.start_send(transmit) {
                break Err(error);
            }
        };
        result.map_err(|error| self.broken.insert(self.disconnect(error)).clone())
    }

    /// Says goodbye as far as that works at once. The socket is dropped next.
    pub(crate) fn hang_up(&mut self, cx: &mut Context<'_>, close: Option<(CloseCode, &'static str)>) {
        if let Some((code, reason)) = close {
            // Whatever is wrong with the socket, it is the last thing that happens to it.
            let _ = self.start_send(Transmit::Close(code, reason));
        }
        // Also sends the answer to a close frame.
        let _ = self.flush(cx);
    }

    /// Bytes since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    fn start_send(&mut self, transmit: Transmit) -> Result<(), WsError> {
        let message = match transmit {
            Transmit::Text(text) => Message::text(text),
            Transmit::Ping => Message::Ping(Bytes::new()),
            Transmit::Close(code, reason) => {
                Message::Close(Some(CloseFrame { code: WsCloseCode::from(code.0), reason: reason.into() }))
            }
        };
        self.traffic.bytes_out += message.len() as u64;
        self.unflushed = true;
        Pin::new(&mut self.ws).start_send(message)
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), WsError> {
        match Pin::new(&mut self.ws).poll_flush(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(result) => {
                self.unflushed = false;
                result
            }
        }
    }

    fn disconnect(&self, error: WsError) -> Disconnect {
        match error {
            WsError::ConnectionClosed
            | WsError::AlreadyClosed
            | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Disconnect::Reset(None),
            WsError::Io(error) => Disconnect::Reset(Some(Arc::new(error))),
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
                Disconnect::MessageTooBig { limit: self.max_message_size }
            }
            other => Disconnect::WebSocket(other.to_string()),
        }
    }
}

/// Counts the bytes that are read.
struct Metered {
    io: BoxedIo,
    read: u64,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.read += (buf.filled().len() - before) as u64;
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn closed(frame: Option<CloseFrame>) -> Disconnect {
    match frame {
        Some(frame) => {
            Disconnect::Closed { code: CloseCode(frame.code.into()), reason: frame.reason.as_str().to_owned() }
        }
        None => Disconnect::Closed { code: CloseCode::NO_STATUS, reason: String::new() },
    }
}

fn upgrade_error(error: WsError, offered: Subprotocol) -> ConnectError {
    match error {
        WsError::Http(response) => refused(&response),
        WsError::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            ConnectError::Subprotocol { offered: offered.name() }
        }
        WsError::Io(error) => ConnectError::Dial(DialError::Connect(Arc::new(error))),
        WsError::Protocol(ProtocolError::HandshakeIncomplete) | WsError::ConnectionClosed => {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            ConnectError::Dial(DialError::Connect(Arc::new(error)))
        }
        // Old balancers say 503 in it while they have no server; the status is not told apart.
        WsError::Protocol(ProtocolError::WrongHttpVersion) => {
            let error = io::Error::other("the server answered in HTTP/1.0");
            ConnectError::Dial(DialError::Other(Arc::new(error)))
        }
        other => ConnectError::Upgrade(other.to_string()),
    }
}

fn refused(response: &Response<Option<Vec<u8>>>) -> ConnectError {
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let body = response.body().as_deref().unwrap_or_default();
    ConnectError::Http {
        status: response.status().as_u16(),
        retry_after: retry_after
            .and_then(|text| text.trim().parse().ok())
            .map(|secs| Duration::from_secs(secs).min(MAX_RETRY_AFTER)),
        body: String::from_utf8_lossy(&body[..body.len().min(MAX_BODY)]).into_owned(),
    }
}

/// How many bytes are gathered before they are written.
const WRITE_BUFFER: usize = 128 * 1024;

/// The longest `Retry-After` that is honoured: no server parks its clients for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// How much of a refusal's body is kept, in bytes.
const MAX_BODY: usize = 1024;
