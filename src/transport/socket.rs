//! One WebSocket: a pump in each direction.
//!
//! Owns the translation between tungstenite's messages and errors and our own. Decides nothing.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::{
    Error as WsError, Message, Utf8Bytes, WebSocket,
    error::{CapacityError, ProtocolError},
    protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode as WsCloseCode},
};
use url::Url;

use crate::{
    error::{CloseCode, ConnectError, Disconnect},
    protocol::{Subprotocol, Transmit},
    transport::{
        dial::{BoxedIo, Dialer},
        upgrade::upgrade,
    },
};

/// An open WebSocket.
pub(crate) struct Socket {
    ws: WebSocket<Wire>,
    /// Bytes read when last asked.
    seen: u64,
    max_message_size: usize,
    /// Something was written and not flushed.
    unflushed: bool,
    /// The network takes no more for now.
    blocked: bool,
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
    /// Text, or binary that is text.
    Message(Utf8Bytes),
    Unreadable,
    /// Answered by tungstenite.
    Ping,
    /// With the number of one of our pings, if it repeats one.
    Pong(Option<u64>),
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
        let mut io = dialer.dial(endpoint).await.map_err(ConnectError::Dial)?;
        let received = upgrade(&mut io, endpoint, subprotocol, &headers).await?;
        let config = WebSocketConfig::default()
            // It is zero-filled before every read: at tungstenite's own default, small frames pay
            // for 128 KiB each.
            .read_buffer_size(16 * 1024)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(PONG_ROOM)
            .max_message_size(Some(max_message_size))
            .max_frame_size(Some(max_message_size));
        let wire = Wire { io, read: received.len() as u64, waker: Waker::noop().clone() };
        let ws = WebSocket::from_partially_read(wire, received, Role::Client, Some(config));
        Ok(Self {
            ws,
            seen: 0,
            max_message_size,
            unflushed: false,
            blocked: false,
            broken: None,
            traffic: Traffic::default(),
        })
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Inbound> {
        self.ws.get_mut().waker.clone_from(cx.waker());
        loop {
            let message = match self.ws.read() {
                Ok(message) => message,
                Err(error) if would_block(&error) => return Poll::Pending,
                Err(error) => return Poll::Ready(Inbound::Lost(self.disconnect(error))),
            };
            self.traffic.bytes_in += message.len() as u64;
            return Poll::Ready(match message {
                Message::Text(text) => Inbound::Message(text),
                Message::Binary(bytes) => {
                    Utf8Bytes::try_from(bytes).map_or(Inbound::Unreadable, Inbound::Message)
                }
                Message::Ping(_) => Inbound::Ping,
                Message::Pong(body) => {
                    let number = body.as_ref().try_into().ok().map(u64::from_be_bytes);
                    Inbound::Pong(number)
                }
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

    /// Writes what `next` gives, as long as the network takes it, and flushes once. Fails from the
    /// first failure on.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<Transmit>,
    ) -> Result<(), Disconnect> {
        if let Some(cause) = &self.broken {
            return Err(cause.clone());
        }
        self.ws.get_mut().waker.clone_from(cx.waker());
        let result = loop {
            if self.blocked
                && let Err(error) = self.flush()
            {
                break Err(error);
            }
            if self.blocked {
                return Ok(());
            }
            let Some(transmit) = next() else {
                break if self.unflushed { self.flush() } else { Ok(()) };
            };
            if let Err(error) = self.start_send(transmit) {
                break Err(error);
            }
        };
        result.map_err(|error| self.broken.insert(self.disconnect(error)).clone())
    }

    /// Says goodbye as far as that works at once. The socket is dropped next.
    pub(crate) fn hang_up(&mut self, close: Option<(CloseCode, &'static str)>) {
        if let Some((code, reason)) = close {
            // Whatever is wrong with the socket, it is the last thing that happens to it.
            let _ = self.start_send(Transmit::Close(code, reason));
        }
        // Also sends the answer to a close frame.
        let _ = self.flush();
    }

    /// Bytes since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    fn start_send(&mut self, transmit: Transmit) -> Result<(), WsError> {
        let message = match transmit {
            Transmit::Text(text) => Message::text(text),
            Transmit::Ping(number) => Message::Ping(number.to_be_bytes().to_vec().into()),
            Transmit::Close(code, reason) => Message::Close(Some(CloseFrame {
                code: WsCloseCode::from(code.0),
                reason: reason.into(),
            })),
        };
        self.traffic.bytes_out += message.len() as u64;
        self.unflushed = true;
        // Messages are written only when the last write went through, so one above the buffer is
        // the most. The limit is for the pongs of tungstenite, which come without being asked for:
        // else a server that pings and never reads fills it.
        self.ws.set_config(|config| config.max_write_buffer_size = usize::MAX);
        let result = self.ws.write(message);
        self.ws.set_config(|config| config.max_write_buffer_size = PONG_ROOM);
        match result {
            // It was taken; the buffer is full.
            Err(error) if would_block(&error) => {
                self.blocked = true;
                Ok(())
            }
            result => result,
        }
    }

    fn flush(&mut self) -> Result<(), WsError> {
        let result = self.ws.flush();
        self.blocked = result.as_ref().is_err_and(would_block);
        if self.blocked {
            return Ok(());
        }
        self.unflushed = false;
        result
    }

    fn disconnect(&self, error: WsError) -> Disconnect {
        match error {
            WsError::ConnectionClosed
            | WsError::AlreadyClosed
            | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Disconnect::Reset(None)
            }
            WsError::Io(error) => Disconnect::Reset(Some(Arc::new(error))),
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
                Disconnect::MessageTooBig { limit: self.max_message_size }
            }
            other => Disconnect::WebSocket(other.to_string()),
        }
    }
}

/// The byte stream as tungstenite wants it: what would block says so, and wakes whoever asked last.
struct Wire {
    io: BoxedIo,
    /// Bytes, in total.
    read: u64,
    /// Of the one task that reads and writes here.
    waker: Waker,
}

impl Wire {
    fn poll<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut BoxedIo>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        match poll(Pin::new(&mut self.io), &mut Context::from_waker(&self.waker)) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut bytes = ReadBuf::new(bytes);
        self.poll(|io, cx| io.poll_read(cx, &mut bytes))?;
        let len = bytes.filled().len();
        self.read += len as u64;
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.poll(|io, cx| io.poll_write(cx, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.poll(AsyncWrite::poll_flush)
    }
}

fn would_block(error: &WsError) -> bool {
    matches!(error, WsError::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn closed(frame: Option<CloseFrame>) -> Disconnect {
    match frame {
        Some(frame) => Disconnect::Closed {
            code: CloseCode(frame.code.into()),
            reason: frame.reason.as_str().to_owned(),
        },
        None => Disconnect::Closed { code: CloseCode::NO_STATUS, reason: String::new() },
    }
}

/// How many bytes are gathered before they are written.
const WRITE_BUFFER: usize = 128 * 1024;

/// How many bytes may wait to be written for a pong to be added. Of those that find no room the
/// latest is owed.
const PONG_ROOM: usize = WRITE_BUFFER + 1024;
