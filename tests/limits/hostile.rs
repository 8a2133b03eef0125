//! A server that writes bytes, right or wrong, and reads only when it likes. Allocates next to
//! nothing.

use std::sync::{Arc, Mutex};

use resub::{BoxedIo, DialError, DialFuture, Dialer, Url};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Where dials arrive.
pub(crate) struct Hostile {
    dials: mpsc::UnboundedReceiver<DuplexStream>,
    dialer: PipeDialer,
}

#[derive(Clone)]
pub(crate) struct PipeDialer(Arc<Mutex<mpsc::UnboundedSender<DuplexStream>>>);

/// One connection, below WebSocket.
pub(crate) struct Line(DuplexStream);

impl Dialer for PipeDialer {
    fn dial<'a>(&'a self, _: &'a Url) -> DialFuture<'a> {
        Box::pin(async {
            let (client, server) = duplex(64 * 1024);
            let sent = self.0.lock().unwrap().send(server);
            sent.map_err(|_| {
                DialError::Other(Arc::new(std::io::Error::other("the test is over")))
            })?;
            Ok(Box::new(client) as BoxedIo)
        })
    }
}

impl Hostile {
    pub(crate) fn new() -> Self {
        let (sender, dials) = mpsc::unbounded_channel();
        Self { dials, dialer: PipeDialer(Arc::new(Mutex::new(sender))) }
    }

    pub(crate) fn dialer(&self) -> PipeDialer {
        self.dialer.clone()
    }

    /// The next connection; nothing is read from it.
    pub(crate) async fn accept(&mut self) -> Line {
        Line(self.dials.recv().await.unwrap())
    }

    /// The next connection, upgraded and acknowledged, with one operation read: what that is, is
    /// not looked at.
    pub(crate) async fn subscribed(&mut self) -> Line {
        let mut line = self.accept().await;
        line.upgrade().await;
        line.read_frame().await;
        line.text(r#"{"type":"connection_ack"}"#).await;
        assert!(line.read_frame().await.contains(r#""type":"subscribe""#));
        line
    }
}

impl Line {
    /// Answers the upgrade.
    pub(crate) async fn upgrade(&mut self) {
        let request = self.request().await;
        let key =
            request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let answer = format!(
            "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        self.bytes(answer.as_bytes()).await;
    }

    pub(crate) async fn request(&mut self) -> String {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(self.0.read_u8().await.unwrap());
        }
        String::from_utf8(request).unwrap()
    }

    /// The payload of the client's next frame, unmasked.
    pub(crate) async fn read_frame(&mut self) -> String {
        let [_, len] = self.array().await;
        let len = match len & 0x7f {
            126 => usize::from(u16::from_be_bytes(self.array().await)),
            127 => usize::try_from(u64::from_be_bytes(self.array().await)).unwrap(),
            len => usize::from(len),
        };
        let mask: [u8; 4] = self.array().await;
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).await.unwrap();
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        String::from_utf8(payload).unwrap_or_default()
    }

    /// Sends bytes. A client that has hung up may do so.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    pub(crate) async fn text(&mut self, text: &str) -> bool {
        self.frame(FIN | TEXT, text.as_bytes()).await
    }

    /// Sends a frame. Its first byte says what it is.
    pub(crate) async fn frame(&mut self, first: u8, payload: &[u8]) -> bool {
        let (head, len) = header(first, payload.len());
        self.bytes(&head[..len]).await && self.bytes(payload).await
    }

    /// Sends one frame of which the payload is begun, and then a part that is repeated, and then
    /// its end.
    pub(crate) async fn repeated(
        &mut self,
        begin: &str,
        part: &str,
        times: usize,
        end: &str,
    ) -> bool {
        let (head, len) = header(FIN | TEXT, begin.len() + part.len() * times + end.len());
        let many = part.repeat((32 * 1024 / part.len()).max(1));
        let mut left = part.len() * times;
        let mut alive = self.bytes(&head[..len]).await && self.bytes(begin.as_bytes()).await;
        while left > 0 && alive {
            let len = left.min(many.len());
            alive = self.bytes(&many.as_bytes()[..len]).await;
            left -= len;
        }
        alive && self.bytes(end.as_bytes()).await
    }

    async fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).await.unwrap();
        bytes
    }
}

/// Of a frame from a server, which is not masked (RFC 6455 section 5.2), and its length.
fn header(first: u8, len: usize) -> ([u8; 10], usize) {
    let mut head = [first, 127, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Ok(len @ 0..126) = u8::try_from(len) {
        head[1] = len;
        return (head, 2);
    }
    head[2..].copy_from_slice(&(len as u64).to_be_bytes());
    (head, 10)
}

/// The last, or only, frame of a message.
pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
