//! The WebSocket upgrade: from a byte stream to one on which frames may follow (RFC 6455 section
//! 4).
//!
//! Owns the request, and the patience with the answer. The request is shown to nobody: there are
//! credentials in it (I13).

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
    answer::{Flaw, Head, MAX_HEAD, MAX_HEADERS, MAX_INTERIMS, Reader},
    refusal::{Body, refused},
};
use crate::{
    error::{ConnectError, UpgradeFlaw},
    protocol::Subprotocol,
    transport::dial::{self, BoxedIo},
};

/// Upgrades. Returns what the server has sent already after its answer, as a server may that speaks
/// first.
///
/// Time is the caller's affair but for the body of a refusal, for which nobody waits long.
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
        // Who hangs up before it has read all may have said why.
        Err(error) => match timeout(LAST_WORDS, receive(io, &mut reader, subprotocol)).await {
            Ok(head) => head?,
            Err(_) => return Err(broken(error)),
        },
    };
    if head.status == 101 {
        let accept = derive_accept_key(key.as_bytes());
        head.verify(&accept, subprotocol).map_err(|flaw| flawed(flaw, subprotocol))?;
        return Ok(reader.into_rest());
    }
    let mut body = Body::new(&head, reader.into_rest());
    // Whatever is here by then: the status is known, and a body that never ends must not turn it
    // into a timeout.
    let _ = timeout(LAST_WORDS, async {
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
        if let Some(head) = reader.poll_head().map_err(|flaw| flawed(flaw, offered))? {
            return Ok(head);
        }
        if read(io, reader.buffer()).await.map_err(broken)? == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Appends what there is, which is never more than a bounded part; nothing if it is dropped before.
async fn read(io: &mut BoxedIo, buffer: &mut Vec<u8>) -> io::Result<usize> {
    // Not the spare room of `buffer`: a stream of the application's own may rely on memory that is
    // initialized.
    let mut part = vec![0; READ];
    let len = io.read(&mut part).await?;
    buffer.extend_from_slice(&part[..len]);
    Ok(len)
}

/// The request's bytes.
///
/// Names are written as most clients write them: there are servers to which case matters.
fn request(endpoint: &Url, subprotocol: Subprotocol, headers: &HeaderMap, key: &str) -> Vec<u8> {
    let mut request = Vec::with_capacity(512);
    let mut line = |parts: [&[u8]; 2]| {
        for part in parts {
            request.extend_from_slice(part);
        }
        request.extend_from_slice(b"\r\n");
    };
    let query = endpoint.query().map(|query| format!("?{query}")).unwrap_or_default();
    // A URL has neither spaces nor control characters in it, and a header's value has no line
    // breaks.
    line([b"GET ", format!("{}{query} HTTP/1.1", endpoint.path()).as_bytes()]);
    // The last one given counts: RFC 9112 section 3.2 has servers refuse two.
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

/// Host and port, the latter only if it is not the scheme's own (RFC 9110 section 7.2).
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

fn broken(error: io::Error) -> ConnectError {
    ConnectError::Dial(dial::broke_off(error))
}

fn flawed(flaw: Flaw, offered: Subprotocol) -> ConnectError {
    ConnectError::Upgrade(match flaw {
        Flaw::Subprotocol => return ConnectError::Subprotocol { offered: offered.name() },
        Flaw::NotHttp => UpgradeFlaw::NotHttp,
        Flaw::Tls => UpgradeFlaw::Tls,
        Flaw::Malformed(how) => UpgradeFlaw::Malformed(how),
        Flaw::TooLarge => UpgradeFlaw::TooLarge { limit: MAX_HEAD },
        Flaw::TooManyHeaders => UpgradeFlaw::TooManyHeaders { limit: MAX_HEADERS },
        Flaw::TooManyInterims => UpgradeFlaw::TooManyInterims { limit: MAX_INTERIMS },
        Flaw::Http10 => UpgradeFlaw::Http10,
        Flaw::NoUpgrade => UpgradeFlaw::NoUpgrade,
        Flaw::NoConnection => UpgradeFlaw::NoConnection,
        Flaw::WrongAccept => UpgradeFlaw::WrongAccept,
        Flaw::Extension => UpgradeFlaw::Extension,
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a date in `Retry-After` is of the wall clock, and no timer follows it"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// How long a server that has refused, or hung up, is listened to.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Bytes for each read.
const READ: usize = 4 * 1024;
