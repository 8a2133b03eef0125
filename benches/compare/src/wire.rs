//! The server's side of the WebSocket: as little of RFC 6455 as the load server and the in-memory
//! run need.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::job::Result;

/// The answer to an upgrade request, and the request's length; `None` when its end has not arrived.
pub(crate) fn upgrade(request: &[u8]) -> Result<Option<(String, usize)>> {
    let text = String::from_utf8_lossy(request);
    let Some(end) = text.find("\r\n\r\n") else { return Ok(None) };
    let key = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| derive_accept_key(value.trim().as_bytes()))
    });
    let key = key.ok_or("no key in the upgrade")?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Protocol: graphql-transport-ws\r\nSec-WebSocket-Accept: {key}\r\n\r\n"
    );
    Ok(Some((answer, end + 4)))
}

/// The first masked frame: the beginning of its payload, of at most that length, and the frame's
/// whole length. `None` when its end has not arrived.
pub(crate) fn first_frame(bytes: &[u8], most: usize) -> Result<Option<(Vec<u8>, usize)>> {
    let Some((start, len)) = payload_of(bytes) else { return Ok(None) };
    if bytes.len() < start + len {
        return Ok(None);
    }
    if bytes[0] & 0x0f == CLOSE {
        return Err("the client closed".into());
    }
    let mask = &bytes[start - 4..start];
    let masked = &bytes[start..start + len.min(most)];
    let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    Ok(Some((payload, start + len)))
}

/// Whether the message is of that type. Looks at its beginning only, to be quick.
pub(crate) fn is(kind: &str, message: &[u8]) -> bool {
    let head = &message[..message.len().min(HEAD)];
    head.windows(kind.len() + 2).any(|window| {
        window[0] == b'"'
            && window[kind.len() + 1] == b'"'
            && &window[1..=kind.len()] == kind.as_bytes()
    })
}

/// The id of a message.
pub(crate) fn id(message: &[u8]) -> Result<String> {
    let message: serde_json::Value = serde_json::from_slice(message)?;
    Ok(message["id"].as_str().ok_or("a message without id")?.to_owned())
}

/// The frame of a `connection_ack`.
pub(crate) fn ack() -> Vec<u8> {
    let mut frame = vec![0x81, 25];
    frame.extend_from_slice(ACK.as_bytes());
    frame
}

fn payload_of(bytes: &[u8]) -> Option<(usize, usize)> {
    let short = usize::from(bytes.get(1)? & 0x7f);
    Some(match short {
        126 => (8, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (14, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        len => (6, len),
    })
}

/// Where the type of a message is, whatever the order of the fields and the length of its id.
pub(crate) const HEAD: usize = 96;

pub(crate) const ACK: &str = r#"{"type":"connection_ack"}"#;

const CLOSE: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_frame_is_read_when_it_is_whole() {
        let text = br#"{"id":"x","type":"subscribe"}"#;
        let key = [1, 2, 3, 4];
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap()];
        frame.extend_from_slice(&key);
        frame.extend(text.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        assert_eq!(first_frame(&frame[..frame.len() - 1], 99).unwrap(), None);
        let (payload, len) = first_frame(&frame, 99).unwrap().unwrap();
        assert_eq!((&payload[..], len), (&text[..], frame.len()));
        assert!(is("subscribe", &payload) && !is("ping", &payload));
        assert_eq!(id(&payload).unwrap(), "x");
    }

    #[test]
    fn the_ack_is_as_long_as_it_says() {
        assert_eq!(ack().len(), 2 + ACK.len());
        assert_eq!(usize::from(ack()[1]), ACK.len());
    }
}
