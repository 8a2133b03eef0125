//! A connection to a proxy whose first bytes are listened to, as hyper-util does not tell what a
//! proxy has answered.
//!
//! Knows nothing of what they decide.

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

/// Reads and writes as the connection does, and remembers how the answer begins.
pub(super) struct Overheard {
    tcp: TcpStream,
    answer: Answer,
}

/// How a proxy's answer begins; still there when the connection is not.
#[derive(Clone, Default)]
pub(super) struct Answer(Arc<Mutex<Vec<u8>>>);

impl Overheard {
    pub(super) fn new(tcp: TcpStream, answer: Answer) -> Self {
        Self { tcp, answer }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.tcp
    }
}

impl Answer {
    /// The status, if it is an answer of HTTP/1 and has one (RFC 9112 section 4).
    pub(super) fn status(&self) -> Option<u16> {
        let begin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = str::from_utf8(&begin).ok()?;
        let (_, status) = begin.strip_prefix("HTTP/1.")?.split_once(' ')?;
        status.parse().ok().filter(|status| (100..=999).contains(status))
    }

    fn hear(&self, bytes: &[u8]) {
        let mut begin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = STATUS_END.saturating_sub(begin.len());
        begin.extend_from_slice(&bytes[..missing.min(bytes.len())]);
    }
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        self.answer.hear(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Overheard {
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

/// Where the status ends.
const STATUS_END: usize = b"HTTP/1.1 200".len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_what_stands_where_http_has_it() {
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
            let answer = Answer::default();
            for part in parts {
                answer.hear(part.as_bytes());
            }
            assert_eq!(answer.status(), expected, "{parts:?}");
        }
        let endless = Answer::default();
        for _ in 0..1_000 {
            endless.hear(&[b'x'; 100]);
        }
        assert_eq!(endless.0.lock().unwrap().len(), STATUS_END);
    }
}
