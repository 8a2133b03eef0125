//! The WebSocket upgrade of a byte stream (RFC 6455 section 4).
//!
//! Owns the request, and how long the answer of a refusal is read. The request is in no log and no
//! error, because it has credentials (I13).

mod answer;
mod refusal;
mod secrets;
#[cfg(test)]
mod tests;

use std::{
    io,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tungstenite::handshake::{client::generate_key, derive_accept_key};
use url::Url;

use self::{
    answer::{AnswerError, Head, MAX_HEAD, MAX_HEADERS, MAX_INTERIMS, Reader},
    refusal::{Body, refused},
};
use crate::{
    error::{ConnectError, UpgradeError},
    protocol::Subprotocol,
    transport::dial::{self, BoxedIo},
};

/// Upgrades the stream to WebSocket. Returns the bytes that followed the server's answer in the
/// same read.
///
/// The caller sets the deadline. Only the body of a refusal has a shorter one here.
pub(crate) async fn upgrade(
    io: &mut BoxedIo,
    endpoint: &Url,
    subprotocol: Subprotocol,
    headers: &HeaderMap,
) -> Result<Vec<u8>, ConnectError> {
    let key = generate_key();
    let mut reader = Reader::default();
    let head = match send(io, &request(endpoint, subprotocol, headers, &key)).await {
        Ok(()) => receive(io, &mut reader, subprotocol).await?,
        // A server that closes the connection before it has read the request may have answered.
        Err(error) => match timeout(REFUSAL_TIMEOUT, receive(io, &mut reader, subprotocol)).await {
            Ok(head) => head?,
            Err(_) => return Err(io_error(error)),
        },
    };
    if head.status == 101 {
        let accept = derive_accept_key(key.as_bytes());
        head.verify(&accept, subprotocol).map_err(|error| upgrade_error(error, subprotocol))?;
        return Ok(reader.into_rest());
    }
    let mut body = Body::new(&head, reader.into_rest());
    // What has arrived in time is enough. The status is known, and a body that never ends must not
    // turn it into a timeout.
    let _ = timeout(REFUSAL_TIMEOUT, async {
        while !body.is_complete() && matches!(read(io, body.buffer()).await, Ok(1..)) {}
    })
    .await;
    Err(refused(&head, &body, endpoint, headers, wall_clock))
}

async fn send(io: &mut BoxedIo, request: &[u8]) -> io::Result<()> {
    io.write_all(request).await?;
    io.flush().await
}

async fn receive(
    io: &mut BoxedIo,
    reader: &mut Reader,
    offered: Subprotocol,
) -> Result<Head, ConnectError> {
    loop {
        if let Some(head) = reader.poll_head().map_err(|error| upgrade_error(error, offered))? {
            return Ok(head);
        }
        if read(io, reader.buffer()).await.map_err(io_error)? == 0 {
            return Err(io_error(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Reads once, up to [`READ`] bytes, and appends them to `buffer`. Cancel-safe.
async fn read(io: &mut BoxedIo, buffer: &mut Vec<u8>) -> io::Result<usize> {
    // `read_buf` would pass uninitialized memory, which a stream of the application may not expect.
    let mut part = vec![0; READ];
    let len = io.read(&mut part).await?;
    buffer.extend_from_slice(&part[..len]);
    Ok(len)
}

/// Returns the bytes of the request.
///
/// The names of headers are capitalized as most clients do, because some servers are
/// case-sensitive.
fn request(endpoint: &Url, subprotocol: Subprotocol, headers: &HeaderMap, key: &str) -> Vec<u8> {
    let mut request = Vec::with_capacity(512);
    let mut line = |parts: [&[u8]; 2]| {
        for part in parts {
            request.extend_from_slice(part);
        }
        request.extend_from_slice(b"\r\n");
    };
    let query = endpoint.query().map(|query| format!("?{query}")).unwrap_or_default();
    // Nothing needs to be escaped: `Url` has no spaces and no control characters, and
    // `HeaderValue` has no line breaks.
    line([b"GET ", format!("{}{query} HTTP/1.1", endpoint.path()).as_bytes()]);
    // Only the last one is sent, because servers refuse two (RFC 9112 section 3.2).
    match headers.get_all(header::HOST).iter().next_back() {
        Some(host) => line([b"Host: ", host.as_bytes()]),
        None => line([b"Host: ", authority(endpoint).as_bytes()]),
    }
    line([b"Connection: Upgrade", b""]);
    line([b"Upgrade: websocket", b""]);
    line([b"Sec-WebSocket-Version: 13", b""]);
    line([b"Sec-WebSocket-Key: ", key.as_bytes()]);
    line([b"Sec-WebSocket-Protocol: ", subprotocol.name().as_bytes()]);
    for (name, value) in headers.iter().filter(|(name, _)| *name != header::HOST) {
        line([format!("{}: ", title_case(name.as_str())).as_bytes(), value.as_bytes()]);
    }
    line([b"", b""]);
    request
}

/// Returns the host, and the port unless it is the default of the scheme (RFC 9110 section 7.2).
fn authority(endpoint: &Url) -> String {
    let host = endpoint.host_str().unwrap_or_default();
    endpoint.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn title_case(name: &str) -> String {
    let mut begins = true;
    let capital = |c: char| {
        let first = std::mem::replace(&mut begins, c == '-');
        if first { c.to_ascii_uppercase() } else { c }
    };
    name.chars().map(capital).collect()
}

fn io_error(error: io::Error) -> ConnectError {
    ConnectError::Dial(dial::broke_off(error))
}

fn upgrade_error(error: AnswerError, offered: Subprotocol) -> ConnectError {
    ConnectError::Upgrade(match error {
        AnswerError::Subprotocol => return ConnectError::Subprotocol { offered: offered.name() },
        AnswerError::NotHttp => UpgradeError::NotHttp,
        AnswerError::Tls => UpgradeError::Tls,
        AnswerError::Malformed(how) => UpgradeError::Malformed(how),
        AnswerError::TooLarge => UpgradeError::TooLarge { limit: MAX_HEAD },
        AnswerError::TooManyHeaders => UpgradeError::TooManyHeaders { limit: MAX_HEADERS },
        AnswerError::TooManyInterims => UpgradeError::TooManyInterims { limit: MAX_INTERIMS },
        AnswerError::Http10 => UpgradeError::Http10,
        AnswerError::NoUpgrade => UpgradeError::NoUpgrade,
        AnswerError::NoConnection => UpgradeError::NoConnection,
        AnswerError::WrongAccept => UpgradeError::WrongAccept,
        AnswerError::Extension => UpgradeError::Extension,
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a date in `Retry-After` refers to the wall clock, and no timer depends on it"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// How long the client goes on reading after the server has refused or closed the connection.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(500);

/// How many bytes are read at once.
const READ: usize = 4 * 1024;
