//! The head of the server's answer to the upgrade: reads it incrementally, and checks it.
//!
//! Pure. Owns the limits of what is read. Must not know where the bytes come from, nor how a
//! refusal is handled.

use std::fmt;

use httparse::{EMPTY_HEADER, ParserConfig, Response, Status};

use crate::protocol::Subprotocol;

/// Why an answer is not the upgrade that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum AnswerError {
    NotHttp,
    Tls,
    Malformed(String),
    TooLarge,
    TooManyHeaders,
    TooManyInterims,
    Http10,
    NoUpgrade,
    NoConnection,
    WrongAccept,
    Extension,
    /// The server did not choose the subprotocol that was offered. The other one may work.
    Subprotocol,
}

/// Reads the heads of interim answers and that of the final one.
#[derive(Default)]
pub(super) struct Reader {
    /// Bytes that were received and not parsed.
    bytes: Vec<u8>,
    /// Where the search for the end of the head continues, so that a head that arrives in small
    /// pieces is searched only once.
    searched: usize,
    /// The size of all interim answers in bytes.
    passed: usize,
    /// The number of interim answers.
    interims: usize,
}

impl Reader {
    /// The buffer to which received bytes are appended.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Returns the head of the final answer if it is complete. Must not be called again after that.
    pub(super) fn poll_head(&mut self) -> Result<Option<Head>, AnswerError> {
        loop {
            begins_like_http(&self.bytes)?;
            let end = self.find_end();
            if self.passed + end.unwrap_or(self.bytes.len()) > MAX_HEAD {
                return Err(AnswerError::TooLarge);
            }
            let Some(end) = end else { return Ok(None) };
            let head = Head::parse(&self.bytes[..end])?;
            self.bytes.drain(..end);
            self.searched = 0;
            // Any number of interim answers may precede the final one, and a client may ignore
            // them (RFC 9110 section 15.2).
            if !matches!(head.status, 100 | 102..=199) {
                return Ok(Some(head));
            }
            self.passed += end;
            self.interims += 1;
            if self.interims > MAX_INTERIMS {
                return Err(AnswerError::TooManyInterims);
            }
        }
    }

    /// Returns the bytes that followed the head.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns the position after the empty line that ends the head.
    fn find_end(&mut self) -> Option<usize> {
        let end = self.bytes[self.searched..]
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte == b'\n')
            .find_map(|(at, _)| {
                let next = self.searched + at + 1;
                match &self.bytes[next..] {
                    [b'\n', ..] => Some(next + 1),
                    [b'\r', b'\n', ..] => Some(next + 2),
                    _ => None,
                }
            });
        self.searched = self.bytes.len().saturating_sub(b"\n\r".len());
        end
    }
}

/// Checks the first bytes before the head is complete, because a server of another protocol may
/// never send an empty line.
fn begins_like_http(bytes: &[u8]) -> Result<(), AnswerError> {
    let version = b"HTTP/1.";
    let len = bytes.len().min(version.len());
    if bytes[..len] == version[..len] {
        return Ok(());
    }
    // A TLS record of any version, with an alert or a handshake message (RFC 8446 section 5.1).
    let tls = matches!(bytes, [0x15 | 0x16, 0x03, ..] | [0x15 | 0x16]);
    Err(if tls { AnswerError::Tls } else { AnswerError::NotHttp })
}

/// The status and the headers of an answer.
pub(super) struct Head {
    pub(super) status: u16,
    is_http_1_0: bool,
    /// In the server's order. Values may be any bytes.
    headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// Parses a head. `bytes` must end with the empty line.
    fn parse(bytes: &[u8]) -> Result<Self, AnswerError> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut response = Response::new(&mut headers);
        let mut config = ParserConfig::default();
        // Lines that are not valid headers are ignored, because the status is enough to go on.
        config.ignore_invalid_headers_in_responses(true);
        match config.parse_response(&mut response, bytes) {
            Ok(Status::Complete(len)) if len == bytes.len() => {}
            Ok(_) => return Err(AnswerError::Malformed("it ends before its end".to_owned())),
            Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::TooManyHeaders),
            Err(error) => return Err(AnswerError::Malformed(error.to_string())),
        }
        let (Some(status), Some(version)) = (response.code, response.version) else {
            return Err(AnswerError::Malformed("it has no status".to_owned()));
        };
        let headers =
            response.headers.iter().map(|header| (header.name.to_owned(), header.value.to_owned()));
        Ok(Self { status, is_http_1_0: version == 0, headers: headers.collect() })
    }

    /// Checks whether this answer completes the handshake (RFC 6455 section 4.1).
    pub(super) fn verify(&self, accept: &str, offered: Subprotocol) -> Result<(), AnswerError> {
        if self.is_http_1_0 {
            return Err(AnswerError::Http10);
        }
        if !self.tokens("upgrade").any(|token| token.eq_ignore_ascii_case(b"websocket")) {
            return Err(AnswerError::NoUpgrade);
        }
        if !self.tokens("connection").any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
            return Err(AnswerError::NoConnection);
        }
        if !self.is_exactly("sec-websocket-accept", accept) {
            return Err(AnswerError::WrongAccept);
        }
        if self.tokens("sec-websocket-extensions").next().is_some() {
            return Err(AnswerError::Extension);
        }
        if !self.is_exactly("sec-websocket-protocol", offered.name()) {
            return Err(AnswerError::Subprotocol);
        }
        Ok(())
    }

    /// All names and values, in the server's order.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The first value of that header, if it is text.
    pub(super) fn text(&self, name: &'static str) -> Option<&str> {
        self.values(name).next().and_then(|value| str::from_utf8(value).ok())
    }

    /// The list elements of all headers of that name (RFC 9110 section 5.6.1), without empty ones.
    pub(super) fn tokens(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        let elements = self.values(name).flat_map(|value| value.split(|&byte| byte == b','));
        elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
    }

    fn values(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        self.headers
            .iter()
            .filter(move |header| header.0.eq_ignore_ascii_case(name))
            .map(|header| header.1.as_slice())
    }

    /// Whether there is exactly one header of that name, with this value.
    fn is_exactly(&self, name: &'static str, expected: &str) -> bool {
        let mut values = self.values(name);
        values.next().is_some_and(|value| value.trim_ascii() == expected.as_bytes())
            && values.next().is_none()
    }
}

/// Does not show the headers, which may have cookies.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("status", &self.status).finish_non_exhaustive()
    }
}

/// The size limit of all heads together in bytes, including those of interim answers.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// How many headers an answer may have.
pub(super) const MAX_HEADERS: usize = 128;

/// How many interim answers may precede the final one.
pub(super) const MAX_INTERIMS: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    const GOOD: [&str; 4] = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: graphql-transport-ws",
    ];

    fn answer(first: &str, headers: &[&str]) -> Vec<u8> {
        [&[first], headers, &["", ""]].concat().join("\r\n").into_bytes()
    }

    /// Reads bytes that arrive in pieces of this size. Returns the head and the bytes that follow
    /// it.
    fn read(bytes: &[u8], piece: usize) -> Result<Option<(Head, Vec<u8>)>, AnswerError> {
        let mut reader = Reader::default();
        let mut pieces = bytes.chunks(piece.max(1));
        for received in pieces.by_ref() {
            reader.buffer().extend_from_slice(received);
            if let Some(head) = reader.poll_head()? {
                let mut rest = reader.into_rest();
                rest.extend(pieces.flatten());
                return Ok(Some((head, rest)));
            }
        }
        Ok(None)
    }

    fn verified(first: &str, headers: &[&str]) -> Result<(), AnswerError> {
        let (head, _) = read(&answer(first, headers), usize::MAX)?.expect("a whole head");
        assert_eq!(head.status, 101);
        head.verify(ACCEPT, Subprotocol::GraphqlTransportWs)
    }

    /// Verifies the good answer with one line replaced.
    fn with(line: usize, instead: &[&str]) -> Result<(), AnswerError> {
        let mut headers = GOOD.to_vec();
        headers.splice(line..=line, instead.iter().copied());
        verified("HTTP/1.1 101 Switching Protocols", &headers)
    }

    #[test]
    fn the_handshake_of_the_rfc_is_accepted_however_it_is_written() {
        assert_eq!(verified("HTTP/1.1 101 Switching Protocols", &GOOD), Ok(()));
        assert_eq!(verified("HTTP/1.1 101", &GOOD), Ok(()));
        for (line, instead) in [
            (0, &["UPGRADE:WebSocket"] as &[_]),
            (0, &["upgrade: h2c, websocket"]),
            (1, &["Connection: keep-alive, Upgrade"]),
            (1, &["connection: upgrade,keep-alive"]),
            (1, &["Connection: keep-alive", "Connection:  UPGRADE  "]),
            (2, &["sec-websocket-accept:s3pPLMBiTxaQ9kYGzzhZRbK+xOo= "]),
            (3, &["sec-websocket-protocol:\tgraphql-transport-ws"]),
            (3, &[GOOD[3], "Sec-WebSocket-Extensions:"]),
            (3, &[GOOD[3], "Set-Cookie: a=\u{fc}\u{1F600}", "not a header", "X Y: z"]),
        ] {
            assert_eq!(with(line, instead), Ok(()), "{instead:?}");
        }
    }

    #[test]
    fn every_invalid_handshake_has_an_error_of_its_own() {
        for (line, instead, error) in [
            (0, &[] as &[_], AnswerError::NoUpgrade),
            (0, &["Upgrade: h2c"], AnswerError::NoUpgrade),
            (0, &["Upgrade: websockets"], AnswerError::NoUpgrade),
            (1, &[], AnswerError::NoConnection),
            (1, &["Connection: keep-alive"], AnswerError::NoConnection),
            (1, &["Connection: no-upgrade"], AnswerError::NoConnection),
            (2, &[], AnswerError::WrongAccept),
            (2, &["Sec-WebSocket-Accept: S3PPLMBITXAQ9KYGZZHZRBK+XOO="], AnswerError::WrongAccept),
            (2, &[GOOD[2], GOOD[2]], AnswerError::WrongAccept),
            (3, &[], AnswerError::Subprotocol),
            (3, &["Sec-WebSocket-Protocol: graphql-ws"], AnswerError::Subprotocol),
            (3, &["Sec-WebSocket-Protocol: GraphQL-Transport-WS"], AnswerError::Subprotocol),
            (
                3,
                &["Sec-WebSocket-Protocol: graphql-transport-ws, graphql-ws"],
                AnswerError::Subprotocol,
            ),
            (3, &[GOOD[3], GOOD[3]], AnswerError::Subprotocol),
            (3, &[GOOD[3], "Sec-WebSocket-Extensions: permessage-deflate"], AnswerError::Extension),
            (
                3,
                &[GOOD[3], "sec-websocket-extensions:", "sec-websocket-extensions: x; y=1"],
                AnswerError::Extension,
            ),
        ] {
            assert_eq!(with(line, instead), Err(error), "{instead:?}");
        }
        assert_eq!(verified("HTTP/1.0 101 Switching Protocols", &GOOD), Err(AnswerError::Http10));
    }

    #[test]
    fn another_protocol_is_detected_before_an_empty_line_arrives() {
        for (bytes, error) in [
            (b"SSH-2.0-OpenSSH_9.2\r\n" as &[u8], AnswerError::NotHttp),
            (b"\r\nHTTP/1.1 200 OK\r\n\r\n", AnswerError::NotHttp),
            (b"HTTQ", AnswerError::NotHttp),
            (b"HTTP/2 200\r\n", AnswerError::NotHttp),
            (b"\0\0\x12\x04\0\0\0\0\0", AnswerError::NotHttp),
            (b"\x15\x03\x01\0\x02\x02\x46", AnswerError::Tls),
            (b"\x15\x15\x15", AnswerError::NotHttp),
        ] {
            assert_eq!(read(bytes, usize::MAX).unwrap_err(), error, "{bytes:?}");
        }
        for waits in [b"" as &[u8], b"H", b"HTTP/1.", b"HTTP/1.1 200 OK\r\nA: b\r\n\r"] {
            assert!(read(waits, 1).unwrap().is_none());
        }
    }

    #[test]
    fn an_answer_may_be_split_anywhere() {
        let mut bytes = answer("HTTP/1.1 103 Early Hints", &["Link: </style.css>"]);
        bytes.extend(b"HTTP/1.1 100 Continue\n\n");
        bytes.extend(answer("HTTP/1.1 101 Switching Protocols", &GOOD));
        bytes.extend(b"\x81\x02{}");
        for at in 0..=bytes.len() {
            let mut reader = Reader::default();
            reader.buffer().extend_from_slice(&bytes[..at]);
            let head = reader.poll_head().unwrap().or_else(|| {
                reader.buffer().extend_from_slice(&bytes[at..]);
                reader.poll_head().unwrap()
            });
            assert_eq!(
                head.unwrap().verify(ACCEPT, Subprotocol::GraphqlTransportWs),
                Ok(()),
                "{at}"
            );
            let frames = bytes.len() - 4;
            assert_eq!(
                reader.into_rest(),
                if at < frames { &bytes[frames..] } else { &bytes[frames..at] },
                "{at}"
            );
        }
        for piece in 1..10 {
            let (head, rest) = read(&bytes, piece).unwrap().unwrap();
            assert_eq!((head.status, rest.as_slice()), (101, b"\x81\x02{}" as &[u8]));
        }
    }

    #[test]
    fn endless_headers_are_an_error_at_the_limit_also_when_they_trickle() {
        let endless = || b"HTTP/1.1 200 OK\r\nX: ".iter().copied().chain(std::iter::repeat(b'x'));
        let mut reader = Reader::default();
        for (n, byte) in endless().enumerate() {
            reader.buffer().push(byte);
            match reader.poll_head() {
                Ok(None) => assert!(n < MAX_HEAD),
                Err(error) => {
                    assert_eq!((n, error), (MAX_HEAD, AnswerError::TooLarge));
                    break;
                }
                Ok(Some(_)) => panic!("no end was sent"),
            }
        }
        // A complete head may be too large as well.
        let mut whole: Vec<u8> = endless().take(MAX_HEAD - 3).collect();
        whole.extend(b"\r\n\r\n");
        assert_eq!(read(&whole, usize::MAX).unwrap_err(), AnswerError::TooLarge);
        assert_eq!(read(&whole, 1).unwrap_err(), AnswerError::TooLarge);
        whole.remove(100);
        assert!(read(&whole, usize::MAX).unwrap().is_some());

        let many = |n| answer("HTTP/1.1 200 OK", &vec!["A: b"; n]);
        assert!(read(&many(MAX_HEADERS), usize::MAX).unwrap().is_some());
        assert_eq!(
            read(&many(MAX_HEADERS + 1), usize::MAX).unwrap_err(),
            AnswerError::TooManyHeaders
        );

        let hints = |n| answer("HTTP/1.1 103 Early Hints", &[]).repeat(n);
        assert!(read(&hints(MAX_INTERIMS), 7).unwrap().is_none());
        assert_eq!(read(&hints(MAX_INTERIMS + 1), 7).unwrap_err(), AnswerError::TooManyInterims);
        let large =
            answer("HTTP/1.1 103 Early Hints", &[&format!("Link: {}", "x".repeat(MAX_HEAD / 2))]);
        assert_eq!(read(&large.repeat(2), usize::MAX).unwrap_err(), AnswerError::TooLarge);
    }

    #[test]
    fn a_head_shows_no_header() {
        let (head, _) =
            read(&answer("HTTP/1.1 401 No", &["Set-Cookie: SECRET"]), usize::MAX).unwrap().unwrap();
        assert_eq!(format!("{head:?}"), "Head { status: 401, .. }");
    }

    /// Bytes that resemble an answer.
    fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"HTTP/1.1 ".to_vec()),
            Just(b"HTTP/1.0 101".to_vec()),
            Just(b"101 Switching\r\n".to_vec()),
            Just(b"103\r\n\r\n".to_vec()),
            Just(b"Connection: Upgrade\r\n".to_vec()),
            Just(b": \r\n".to_vec()),
            Just(b"\r\n\r\n".to_vec()),
            Just(b"\n\n".to_vec()),
            Just(b"\r\n folded\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..20),
        ];
        (any::<bool>(), proptest::collection::vec(piece, 0..12)).prop_map(|(begins, pieces)| {
            let begin = if begins { b"HTTP/1.1 101 OK\r\n" as &[u8] } else { b"" };
            [begin, &pieces.concat()].concat()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn garbage_never_panics_and_pieces_change_nothing(
            bytes in nearly_http(),
            piece in 1_usize..40,
        ) {
            let outcome = |piece| {
                let outcome = read(&bytes, piece);
                let parts = |(head, rest): (Head, _)| (head.status, head.headers, rest);
                // Whether it is TLS or something else may depend on how many bytes are there.
                outcome.map(|read| read.map(parts)).map_err(|error| match error {
                    AnswerError::Tls => AnswerError::NotHttp,
                    error => error,
                })
            };
            prop_assert_eq!(outcome(piece), outcome(usize::MAX));
            if let Ok(Some((head, _))) = read(&bytes, piece) {
                let _ = head.verify(ACCEPT, Subprotocol::GraphqlWs);
            }
        }
    }
}
