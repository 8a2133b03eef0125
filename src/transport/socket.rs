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
        close::{Close, Frames},
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
    /// What the server is told before the socket is dropped: the answer to its close frame, or what
    /// is wrong with what it sent.
    last_words: Option<Message>,
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
        let mut io = dialer.dial(endpoint).await.map_err(ConnectError::Dial)?;
        let mut received = upgrade(&mut io, endpoint, subprotocol, &headers).await?;
        let config = WebSocketConfig::default()
            // It is zero-filled before every read: at tungstenite's own default, small frames pay
            // for 128 KiB each.
            .read_buffer_size(16 * 1024)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(PONG_ROOM)
            .max_message_size(Some(max_message_size))
            .max_frame_size(Some(max_message_size));
        let mut wire = Wire {
            io,
            read: received.len() as u64,
            frames: Frames::default(),
            waker: Waker::noop().clone(),
        };
        received.truncate(wire.frames.follow(&received));
        let ws = WebSocket::from_partially_read(wire, received, Role::Client, Some(config));
        Ok(Self {
            ws,
            seen: 0,
            max_message_size,
            unflushed: false,
            blocked: false,
            broken: None,
            last_words: None,
            traffic: Traffic::default(),
        })
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Inbound> {
        self.ws.get_mut().waker.clone_from(cx.waker());
        loop {
            let message = match self.ws.read() {
                Ok(message) => message,
                // All that came before the close frame was read.
                Err(error) if would_block(&error) => match self.ws.get_ref().frames.close() {
                    Some(close) => return Poll::Ready(Inbound::Lost(self.closed(close))),
                    None => return Poll::Pending,
                },
                Err(error) => {
                    self.last_words = objection(&error);
                    return Poll::Ready(Inbound::Lost(self.disconnect(error)));
                }
            };
            self.traffic.bytes_in += message.len() as u64;
            return Poll::Ready(match message {
                Message::Text(text) => Inbound::Message(text),
                Message::Binary(bytes) => {
                    Utf8Bytes::try_from(bytes).map_or(Inbound::Unreadable, Inbound::Message)
                }
                Message::Ping(_) => Inbound::Ping,
                Message::Pong(_) => Inbound::Pong,
                // Neither is read: close frames are taken out of the stream.
                Message::Close(_) | Message::Frame(_) => continue,
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
            if let Err(error) = self.start_send(message(transmit)) {
                break Err(error);
            }
        };
        result.map_err(|error| self.broken.insert(self.disconnect(error)).clone())
    }

    /// Says goodbye as far as that works at once. Without a `close` of the caller's, the answer to
    /// the server's close frame is sent, or what is wrong with what the server sent. The socket is
    /// dropped next.
    pub(crate) fn hang_up(&mut self, close: Option<(CloseCode, &'static str)>) {
        let close = close.map(|(code, reason)| close_message(code, reason));
        if let Some(close) = close.or(self.last_words.take())
            && self.ws.can_write()
        {
            // Whatever is wrong with the socket, it is the last thing that happens to it.
            let _ = self.start_send(close);
        }
        let _ = self.flush();
    }

    /// Bytes since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    fn start_send(&mut self, message: Message) -> Result<(), WsError> {
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

    /// Has an answer ready. A code that is valid is repeated (RFC 6455 section 5.5.1).
    fn closed(&mut self, close: Close) -> Disconnect {
        match close {
            Close::NoStatus => {
                self.last_words = Some(Message::Close(None));
                Disconnect::Closed { code: CloseCode::NO_STATUS, reason: String::new() }
            }
            Close::Status(code, reason) => {
                self.last_words = Some(close_message(code, reason.clone()));
                Disconnect::Closed { code, reason }
            }
            Close::Invalid { code, answer } => {
                self.last_words = Some(close_message(answer, "Invalid close frame"));
                Disconnect::InvalidCloseFrame { code }
            }
        }
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
    /// What was read. It ends for tungstenite where the close frame begins.
    frames: Frames,
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
        loop {
            let mut buffer = ReadBuf::new(bytes);
            self.poll(|io, cx| io.poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            self.read += read.len() as u64;
            let before = self.frames.follow(read);
            if before > 0 || read.is_empty() {
                return Ok(before);
            }
            if self.frames.close().is_some() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
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

fn message(transmit: Transmit) -> Message {
    match transmit {
        Transmit::Text(text) => Message::text(text),
        Transmit::Ping => Message::Ping([].as_slice().into()),
        Transmit::Close(code, reason) => close_message(code, reason),
    }
}

fn close_message(code: CloseCode, reason: impl Into<Utf8Bytes>) -> Message {
    Message::Close(Some(CloseFrame { code: WsCloseCode::from(code.0), reason: reason.into() }))
}

/// What to close the connection with, if the server sent what no server may send.
fn objection(error: &WsError) -> Option<Message> {
    let (code, reason) = match error {
        // It hung up.
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        WsError::Protocol(_) => (CloseCode::PROTOCOL_ERROR, "Protocol violation"),
        WsError::Utf8(_) => (CloseCode::INVALID_DATA, "Invalid UTF-8"),
        WsError::Capacity(_) => (CloseCode::TOO_BIG, "Message too big"),
        _ => return None,
    };
    Some(close_message(code, reason))
}

/// How many bytes are gathered before they are written.
const WRITE_BUFFER: usize = 128 * 1024;

/// How many bytes may wait to be written for a pong to be added. Of those that find no room the
/// latest is owed.
const PONG_ROOM: usize = WRITE_BUFFER + 1024;
