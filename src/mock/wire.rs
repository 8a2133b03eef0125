//! The byte stream under a connection, and the client's close frame as it was sent.
//!
//! Owns the pipe or socket, and watches its bytes for the client's close frame. tungstenite
//! replaces a close code that must not be sent by 1002, and drops a close frame that is too long,
//! so the checker has to read both from the bytes. Must not know GraphQL.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};

/// The server's end of a connection.
pub(super) struct Wire {
    stream: WireStream,
    /// `None` until the upgrade is done, as the bytes before it are HTTP.
    frames: Option<FrameWatch>,
}

/// The stream that carries the bytes.
pub(super) enum WireStream {
    Pipe(DuplexStream),
    Tcp(TcpStream),
}

impl Wire {
    pub(super) fn new(stream: WireStream) -> Self {
        Self { stream, frames: None }
    }

    /// Takes the client's bytes for frames from now on. Call it when the upgrade is done.
    pub(super) fn watch_frames(&mut self) {
        self.frames = Some(FrameWatch::default());
    }

    /// Makes dropping the stream reset the connection. On a pipe this has no effect.
    pub(super) fn reset_on_drop(&mut self) {
        match &self.stream {
            WireStream::Pipe(_) => {}
            // This fails only if the client has already closed the connection.
            WireStream::Tcp(stream) => drop(stream.set_zero_linger()),
        }
    }

    /// The body of the client's close frame, once the whole frame has been read.
    pub(super) fn close_body(&self) -> Option<&[u8]> {
        self.frames.as_ref()?.close_body.as_deref()
    }

    /// Whether the client has sent any bytes after its close frame.
    pub(super) fn has_sent_after_close(&self) -> bool {
        self.frames.as_ref().is_some_and(|frames| frames.has_sent_after_close)
    }
}

/// Finds the client's frames in its bytes, and keeps only the body of its close frame.
#[derive(Default)]
struct FrameWatch {
    /// The bytes of a frame header that is not complete yet.
    header: Vec<u8>,
    /// The body that is being read.
    body: Option<Body>,
    close_body: Option<Vec<u8>>,
    has_sent_after_close: bool,
}

/// The body of a frame, of which some bytes are still to come.
struct Body {
    mask: [u8; 4],
    bytes_left: u64,
    /// What was read so far, unmasked. `None` for any frame but a close frame.
    kept: Option<Vec<u8>>,
}

impl FrameWatch {
    fn observe(&mut self, mut bytes: &[u8]) {
        self.has_sent_after_close |= self.close_body.is_some() && !bytes.is_empty();
        while let Some((first, rest)) = bytes.split_first() {
            if let Some(mut body) = self.body.take() {
                let taken = bytes.len().min(usize::try_from(body.bytes_left).unwrap_or(usize::MAX));
                body.take(&bytes[..taken]);
                bytes = &bytes[taken..];
                self.enter(body);
            } else {
                self.header.push(*first);
                bytes = rest;
                if let Some(body) = Body::from_header(&self.header) {
                    self.header.clear();
                    self.enter(body);
                }
            }
            self.has_sent_after_close |= self.close_body.is_some() && !bytes.is_empty();
        }
    }

    fn enter(&mut self, body: Body) {
        if body.bytes_left > 0 {
            self.body = Some(body);
        } else if self.close_body.is_none() {
            self.close_body = body.kept;
        }
    }
}

impl Body {
    /// Returns the body that a header announces (RFC 6455 section 5.2), or `None` while the header
    /// is not complete.
    fn from_header(header: &[u8]) -> Option<Self> {
        let [start, length, rest @ ..] = header else { return None };
        let (extended_length_bytes, masked) = (
            match length & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            },
            length & 0x80 != 0,
        );
        if rest.len() < extended_length_bytes + if masked { 4 } else { 0 } {
            return None;
        }
        let (extended_length, mask) = rest.split_at(extended_length_bytes);
        let bytes_left = if extended_length.is_empty() {
            u64::from(length & 0x7f)
        } else {
            extended_length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let is_close = start & 0x0f == OPCODE_CLOSE;
        Some(Self {
            mask: mask.try_into().unwrap_or_default(),
            bytes_left,
            kept: is_close.then(Vec::new),
        })
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes_left -= bytes.len() as u64;
        if let Some(kept) = &mut self.kept {
            for byte in bytes {
                kept.push(byte ^ self.mask[kept.len() % 4]);
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let result = match &mut self.stream {
            WireStream::Pipe(stream) => Pin::new(stream).poll_read(cx, buffer),
            WireStream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if let Some(frames) = &mut self.frames {
            frames.observe(&buffer.filled()[filled..]);
        }
        result
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            WireStream::Pipe(stream) => Pin::new(stream).poll_write(cx, bytes),
            WireStream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            WireStream::Pipe(stream) => Pin::new(stream).poll_flush(cx),
            WireStream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            WireStream::Pipe(stream) => Pin::new(stream).poll_shutdown(cx),
            WireStream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// RFC 6455 section 5.2.
const OPCODE_CLOSE: u8 = 0x8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_close_body_is_found_however_the_bytes_are_split() {
        let bytes = [
            masked(0x1, &[b'x'; 300]),
            masked(0x1, &vec![b'y'; 70_000]),
            masked(0x8, &[3, 237, b'b']),
        ]
        .concat();
        for size in [1, 2, 7, 4096, bytes.len()] {
            let mut frames = FrameWatch::default();
            bytes.chunks(size).for_each(|chunk| frames.observe(chunk));
            assert_eq!(frames.close_body.as_deref(), Some(&[3, 237, b'b'][..]), "{size}");
            assert!(!frames.has_sent_after_close);
        }
    }

    #[test]
    fn an_empty_close_frame_has_an_empty_body() {
        let mut frames = FrameWatch::default();
        frames.observe(&masked(0x8, &[]));
        assert_eq!(frames.close_body, Some(Vec::new()));
    }

    #[test]
    fn bytes_after_the_close_frame_are_noticed_in_the_same_read_and_in_a_later_one() {
        let mut frames = FrameWatch::default();
        frames.observe(&[masked(0x8, &[]), masked(0x9, &[])].concat());
        assert!(frames.has_sent_after_close);
        let mut frames = FrameWatch::default();
        frames.observe(&masked(0x8, &[]));
        frames.observe(&masked(0x9, &[]));
        assert!(frames.has_sent_after_close);
    }

    fn masked(opcode: u8, body: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x80 | opcode];
        if let Ok(length @ ..126) = u8::try_from(body.len()) {
            frame.push(0x80 | length);
        } else if let Ok(length) = u16::try_from(body.len()) {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        } else {
            frame.push(0xff);
            frame.extend((body.len() as u64).to_be_bytes());
        }
        frame.extend(mask);
        frame.extend(body.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
        frame
    }
}
