//! HTTP `CONNECT` (RFC 9110 section 9.3.6).

use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Login, Refusal};

/// Asks for a tunnel. Reads no byte that is behind the answer's head.
pub(super) async fn pass(
    proxy: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    port: u16,
    login: Option<&Login>,
) -> Result<(), Refusal> {
    let login = login.map_or_else(String::new, |Login { user, password }| {
        let credentials = BASE64.encode(format!("{user}:{password}").as_bytes());
        format!("Proxy-Authorization: Basic {credentials}\r\n")
    });
    let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{login}\r\n");
    proxy.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        if head.len() == MAX_HEAD {
            return Err(Refusal::Lasting("its answer is too long".into()));
        }
        head.push(proxy.read_u8().await?);
    }
    match status(&head) {
        Some(200..=299) => Ok(()),
        Some(407) => Err(Refusal::Login),
        Some(status @ (408 | 425 | 429 | 500..=599)) => Err(Refusal::Passing(format!("HTTP {status}"))),
        Some(status) => Err(Refusal::Lasting(format!("HTTP {status}"))),
        None => Err(Refusal::Lasting("its answer is not HTTP".into())),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let (version, rest) = std::str::from_utf8(head.split(|&byte| byte == b'\n').next()?).ok()?.split_once(' ')?;
    let status = rest.get(..3)?;
    let ends = rest[3..].chars().next().is_none_or(char::is_whitespace);
    if version.starts_with("HTTP/1.") && ends { status.parse().ok() } else { None }
}

/// In bytes.
const MAX_HEAD: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_first_line() {
        for (head, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            ("HTTP/1.0 407\r\nProxy-Authenticate: Basic\r\n\r\n", Some(407)),
            ("HTTP/1.1 200\n\n", Some(200)),
            ("HTTP/1.1 2000 OK\r\n\r\n", None),
            ("HTTP/2 200 OK\r\n\r\n", None),
            ("HTTP/1.1 20\r\n\r\n", None),
            ("SSH-2.0-OpenSSH\r\n\r\n", None),
            ("HTTP/1.1 \u{e4}\u{e4} x\r\n\r\n", None),
            ("\r\n\r\n", None),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head:?}");
        }
    }
}
