//! One WebSocket: reads and writes messages.
//!
//! Owns the translation between tungstenite's messages and errors and those of this crate. Decides
//! nothing.

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
    /// The value of `Wire::read` at the last call of [`has_moved`](Self::has_moved).
    reported: u64,
    max_message_size: usize,
    /// Something was written and not flushed yet.
    unflushed: bool,
    /// The stream accepts no more bytes for now.
    blocked: bool,
    /// Writing has failed. Reading goes on, because the server may have sent a close frame that
    /// says why.
    write_error: Option<Disconnect>,
    /// The close frame to send before the socket is dropped: the answer to that of the server, or
    /// the code for an invalid frame.
    close_to_send: Option<Message>,
    traffic: Traffic,
}

/// The bytes of messages since the last call of [`take_traffic`](Socket::take_traffic).
#[derive(Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// What the server sent.
pub(crate) enum Inbound {
    /// A text message, or a binary message that is UTF-8.
    Message(Utf8Bytes),
    /// A binary message that is not UTF-8.
    Unreadable,
    /// A ping frame. tungstenite answers it.
    Ping,
    /// A pong frame, with the number of one of our pings if it repeats one.
    Pong(Option<u64>),
    /// The connection is lost. Nothing follows.
    Lost(Disconnect),
}

impl Socket {
    /// Dials the server and upgrades the connection to WebSocket.
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
            // tungstenite zero-fills this buffer before every read. With its default of 128 KiB
            // that costs more than reading a small frame.
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(PONG_ROOM)
            .max_message_size(Some(max_message_size))
            .max_frame_size(Some(max_message_size));
        let mut wire = Wire {
            io,
            read: received.len() as u64,
            frames: Frames::default(),
            waker: Waker::noop().clone(),
            large: None,
            filled_to: 0,
        };
        received.truncate(wire.frames.follow(&received));
        let ws = WebSocket::from_partially_read(wire, received, Role::Client, Some(config));
        Ok(Self {
            ws,
            reported: 0,
            max_message_size,
            unflushed: false,
            blocked: false,
            write_error: None,
            close_to_send: None,
            traffic: Traffic::default(),
        })
    }

    /// Reads the next message. Must not be called again after [`Inbound::Lost`].
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Inbound> {
        self.ws.get_mut().waker.clone_from(cx.waker());
        loop {
            let message = match self.ws.read() {
                Ok(message) => message,
                // Everything before the close frame has been read.
                Err(error) if would_block(&error) => match self.ws.get_ref().frames.close() {
                    Some(close) => return Poll::Ready(Inbound::Lost(self.closed(close))),
                    None => return Poll::Pending,
                },
                Err(error) => {
                    self.close_to_send = close_for_error(&error);
                    return Poll::Ready(Inbound::Lost(self.disconnect(error)));
                }
            };
            self.traffic.bytes_in += message.len() as u64;
            return Poll::Ready(match message {
                Message::Text(text) => self.received(text),
                Message::Binary(bytes) => match Utf8Bytes::try_from(bytes) {
                    Ok(text) => self.received(text),
                    Err(_) => Inbound::Unreadable,
                },
                Message::Ping(_) => Inbound::Ping,
                Message::Pong(body) => {
                    let number = body.as_ref().try_into().ok().map(u64::from_be_bytes);
                    Inbound::Pong(number)
                }
                // Neither occurs: `Wire` ends the stream before a close frame, and raw frames are
                // only written.
                Message::Close(_) | Message::Frame(_) => continue,
            });
        }
    }

    /// Whether any bytes have arrived since the last call, also those of an incomplete message.
    pub(crate) fn has_moved(&mut self) -> bool {
        let read = self.ws.get_ref().read;
        std::mem::replace(&mut self.reported, read) != read
    }

    /// Writes the messages that `next` returns for as long as the stream accepts them, then flushes
    /// once. After the first error every call returns that error.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<Transmit>,
    ) -> Result<(), Disconnect> {
        if let Some(cause) = &self.write_error {
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
        result.map_err(|error| self.write_error.insert(self.disconnect(error)).clone())
    }

    /// Sends a close frame, as far as the stream accepts it at once. Drop the socket after that.
    ///
    /// Without `close`, this answers the server's close frame, or reports an invalid frame to the
    /// server.
    pub(crate) fn hang_up(&mut self, close: Option<(CloseCode, &'static str)>) {
        let close = close.map(|(code, reason)| close_message(code, reason));
        if let Some(close) = close.or(self.close_to_send.take())
            && self.ws.can_write()
        {
            // The socket is dropped next, so an error has no consequence.
            let _ = self.start_send(close);
        }
        let _ = self.flush();
    }

    /// Returns the bytes of messages since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    fn received(&mut self, text: Utf8Bytes) -> Inbound {
        let wire = self.ws.get_mut();
        // A message of several frames has a buffer of its own.
        let end = text.as_ptr().addr() + text.len();
        if text.len() > LARGE && wire.filled_to.wrapping_sub(end) <= READ_BUFFER {
            wire.large = Some(text.clone());
        }
        Inbound::Message(text)
    }

    fn start_send(&mut self, message: Message) -> Result<(), WsError> {
        self.traffic.bytes_out += message.len() as u64;
        self.unflushed = true;
        // The limit is there for the pongs that tungstenite adds by itself: without it, a server
        // that pings and never reads would fill the buffer. It is lifted for a message, which is
        // written only after the previous one went through, so at most one exceeds the limit.
        self.ws.set_config(|config| config.max_write_buffer_size = usize::MAX);
        let result = self.ws.write(message);
        self.ws.set_config(|config| config.max_write_buffer_size = PONG_ROOM);
        match result {
            // The message is in the buffer, which is full.
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

    /// Prepares the answer to the server's close frame, which repeats a valid code (RFC 6455
    /// section 5.5.1).
    fn closed(&mut self, close: Close) -> Disconnect {
        match close {
            Close::NoStatus => {
                self.close_to_send = Some(Message::Close(None));
                Disconnect::Closed { code: CloseCode::NO_STATUS, reason: String::new() }
            }
            Close::Status(code, reason) => {
                self.close_to_send = Some(close_message(code, reason.clone()));
                Disconnect::Closed { code, reason }
            }
            Close::Invalid { code, answer } => {
                self.close_to_send = Some(close_message(answer, "Invalid close frame"));
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

/// Adapts the byte stream to the blocking traits that tungstenite uses: a pending operation is
/// [`WouldBlock`](io::ErrorKind::WouldBlock), and `waker` is woken when it can go on.
struct Wire {
    io: BoxedIo,
    /// How many bytes were read in total.
    read: u64,
    /// Finds the server's close frame. tungstenite does not see it or anything after it.
    frames: Frames,
    /// The waker of the task that polls the socket.
    waker: Waker,
    /// The last large message, until tungstenite reads into another buffer. Its read buffer grew to
    /// the size of that message, or to twice that, and would be used for as long as the connection
    /// lives. While somebody else uses a part of it, tungstenite takes a new one instead.
    large: Option<Utf8Bytes>,
    /// The address in tungstenite's read buffer up to which it was filled.
    filled_to: usize,
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
        let begin = bytes.as_ptr().addr();
        if begin != self.filled_to {
            self.large = None;
        }
        self.filled_to = begin;
        loop {
            let mut buffer = ReadBuf::new(bytes);
            self.poll(|io, cx| io.poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            self.read += read.len() as u64;
            let before = self.frames.follow(read);
            if before > 0 || read.is_empty() {
                self.filled_to += before;
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
        Transmit::Ping(number) => Message::Ping(number.to_be_bytes().to_vec().into()),
        Transmit::Close(code, reason) => close_message(code, reason),
    }
}

fn close_message(code: CloseCode, reason: impl Into<Utf8Bytes>) -> Message {
    Message::Close(Some(CloseFrame { code: WsCloseCode::from(code.0), reason: reason.into() }))
}

/// Returns the close frame for an error, if the server has sent an invalid frame.
fn close_for_error(error: &WsError) -> Option<Message> {
    let (code, reason) = match error {
        // The server has closed the connection, so there is nobody to tell.
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        WsError::Protocol(_) => (CloseCode::PROTOCOL_ERROR, "Protocol violation"),
        WsError::Utf8(_) => (CloseCode::INVALID_DATA, "Invalid UTF-8"),
        WsError::Capacity(_) => (CloseCode::TOO_BIG, "Message too big"),
        _ => return None,
    };
    Some(close_message(code, reason))
}

/// How many bytes are read at once, except of a message that is larger.
const READ_BUFFER: usize = 16 * 1024;

/// Messages of more bytes than this leave no buffer behind.
const LARGE: usize = 1024 * 1024;

/// How many bytes are gathered before they are written.
const WRITE_BUFFER: usize = 128 * 1024;

/// The limit of the write buffer when tungstenite adds a pong, in bytes. Of the pongs that do not
/// fit, tungstenite keeps the latest.
const PONG_ROOM: usize = WRITE_BUFFER + 1024;
