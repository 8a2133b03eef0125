//! A TCP stream that records the first bytes of a proxy's answer, because hyper-util does not
//! return the status of an answer that it does not accept.
//!
//! Must not know what the status means.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A TCP stream that records how the answer begins.
pub(super) struct StatusTap {
    tcp: TcpStream,
    answer: AnswerStart,
}

/// The first bytes of a proxy's answer. It outlives the stream, which hyper-util drops on an error.
#[derive(Clone, Default)]
pub(super) struct AnswerStart(Arc<Mutex<Vec<u8>>>);

impl StatusTap {
    pub(super) fn new(tcp: TcpStream, answer: AnswerStart) -> Self {
        Self { tcp, answer }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.tcp
    }
}

impl AnswerStart {
    /// Returns the status, if the answer is HTTP/1 and has one (RFC 9112 section 4).
    pub(super) fn status(&self) -> Option<u16> {
        let begin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = str::from_utf8(&begin).ok()?;
        let (_, status) = begin.strip_prefix("HTTP/1.")?.split_once(' ')?;
        status.parse().ok().filter(|status| (100..=999).contains(status))
    }

    fn record(&self, bytes: &[u8]) {
        let mut begin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = STATUS_END.saturating_sub(begin.len());
        begin.extend_from_slice(&bytes[..missing.min(bytes.len())]);
    }
}

impl AsyncRead for StatusTap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        self.answer.record(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StatusTap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// How many bytes are recorded: up to the end of the status.
const STATUS_END: usize = b"HTTP/1.1 200".len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_its_place_in_the_status_line() {
        for (parts, expected) in [
            (&["HTTP/1.1 401 Unauthorized\r\n"][..], Some(401)),
            (&["HTTP/1.0 407"], Some(407)),
            (&["HT", "TP/1.1 4", "", "03 Forbidden"], Some(403)),
            (&["HTTP/1.1 40"], None),
            (&["HTTP/1.1 +40 x"], None),
            (&["HTTP/2 407 not of HTTP/1"], None),
            (&["SSH-2.0-OpenSSH"], None),
            (&["\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}"], None),
            (&[""], None),
        ] {
            let answer = AnswerStart::default();
            for part in parts {
                answer.record(part.as_bytes());
            }
            assert_eq!(answer.status(), expected, "{parts:?}");
        }
        let endless = AnswerStart::default();
        for _ in 0..1_000 {
            endless.record(&[b'x'; 100]);
        }
        assert_eq!(endless.0.lock().unwrap().len(), STATUS_END);
    }
}
