//! The server's close frame, read from the bytes.
//!
//! tungstenite hides a close frame that may not be sent: it replaces the code by 1002, which nobody
//! sent, and does so with 1014, which is a legal code. Its errors about such a frame do not name
//! the code either. So the close frame is taken out of the stream before tungstenite sees it.
//!
//! Pure. Owns what a valid close frame is. Must not know where the bytes come from.

use crate::error::CloseCode;

/// Follows the server's frames up to the close frame, and keeps that one.
#[derive(Default)]
pub(super) struct Frames {
    /// How many bytes of the current frame's payload are still to come.
    left: u64,
    /// The beginning of a frame's header whose rest is still to come. Mostly empty.
    header: Vec<u8>,
    /// What has arrived of the close frame, with its header.
    close: Vec<u8>,
}

/// What a close frame says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Close {
    /// Nothing (RFC 6455 section 7.1.5).
    NoStatus,
    Status(CloseCode, String),
    /// It is a frame that may not be sent.
    Invalid {
        /// The code in it, if there is one.
        code: Option<u16>,
        /// The code to answer it with.
        answer: CloseCode,
    },
}

impl Frames {
    /// Takes the bytes that arrived next. Returns how many of them precede the close frame.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> usize {
        if !self.close.is_empty() {
            self.keep(bytes);
            return 0;
        }
        let mut at = 0;
        loop {
            let here = bytes.len() - at;
            match usize::try_from(self.left) {
                Ok(left) if left < here => at += left,
                _ => {
                    self.left -= here as u64;
                    return bytes.len();
                }
            }
            self.left = 0;
            if !self.header.is_empty() {
                self.header.push(bytes[at]);
                at += 1;
                if let Some(header) = Header::parse(&self.header) {
                    self.left = header.payload;
                    self.header.clear();
                }
            } else if bytes[at] == FIN_CLOSE {
                self.keep(&bytes[at..]);
                return at;
            } else if let Some(header) = Header::parse(&bytes[at..]) {
                at += header.len;
                self.left = header.payload;
            } else {
                self.header.extend_from_slice(&bytes[at..]);
                return bytes.len();
            }
        }
    }

    /// The close frame, once enough of it is here.
    pub(super) fn close(&self) -> Option<Close> {
        let header = Header::parse(&self.close)?;
        let body = &self.close[header.len..];
        let code = body.first_chunk().map(|code| u16::from_be_bytes(*code));
        let invalid = |code| Some(Close::Invalid { code, answer: CloseCode::PROTOCOL_ERROR });
        let payload = match usize::try_from(header.payload) {
            Ok(payload) if payload <= MAX_PAYLOAD => payload,
            // Its end need not be waited for.
            _ => return code.and_then(|code| invalid(Some(code))),
        };
        let body = body.get(..payload)?;
        if header.is_masked {
            return invalid(None);
        }
        let (Some(code), Some(reason)) = (code, body.get(2..)) else {
            return if body.is_empty() { Some(Close::NoStatus) } else { invalid(None) };
        };
        if !CloseCode(code).may_be_sent() {
            return invalid(Some(code));
        }
        Some(match str::from_utf8(reason) {
            Ok(reason) => Close::Status(CloseCode(code), reason.to_owned()),
            Err(_) => Close::Invalid { code: Some(code), answer: CloseCode::INVALID_DATA },
        })
    }

    /// What follows the close frame is for nobody.
    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_HEADER + MAX_PAYLOAD - self.close.len();
        self.close.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// How a frame begins (RFC 6455 section 5.2).
struct Header {
    /// Bytes of the header, without the mask, which no server may send.
    len: usize,
    /// Bytes that follow it, with the mask.
    payload: u64,
    is_masked: bool,
}

impl Header {
    /// `None` if the header is not complete.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let ([_, second], rest) = bytes.split_first_chunk()?;
        let (len, payload) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
            payload => (2, u64::from(payload)),
        };
        let is_masked = second & 0x80 != 0;
        let mask = if is_masked { 4 } else { 0 };
        Some(Self { len, payload: payload.saturating_add(mask), is_masked })
    }
}

/// The first byte of a close frame. One with reserved bits, or one that is not final, is a frame
/// that tungstenite objects to.
const FIN_CLOSE: u8 = 0x88;

/// The longest header, without a mask.
const MAX_HEADER: usize = 10;

/// Bytes of payload that a control frame may have (RFC 6455 section 5.5).
const MAX_PAYLOAD: usize = 125;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ ..126 => frame.push(u8::try_from(len).unwrap()),
            len => {
                frame.push(126);
                frame.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    fn close(code: u16, reason: &[u8]) -> Vec<u8> {
        frame(FIN_CLOSE, &[&code.to_be_bytes(), reason].concat())
    }

    /// Of bytes that begin with a close frame.
    fn read(bytes: &[u8]) -> Option<Close> {
        let mut frames = Frames::default();
        assert_eq!(frames.follow(bytes), 0);
        frames.close()
    }

    fn invalid(code: u16) -> Close {
        Close::Invalid { code: Some(code), answer: CloseCode::PROTOCOL_ERROR }
    }

    #[test]
    fn of_all_codes_those_that_may_be_sent_are_told_and_the_others_are_invalid() {
        for code in 0..=u16::MAX {
            let is_valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            let expected =
                if is_valid { Close::Status(CloseCode(code), "why".into()) } else { invalid(code) };
            assert_eq!(read(&close(code, b"why")), Some(expected), "{code}");
        }
    }

    #[test]
    fn a_body_is_nothing_or_a_code_with_a_text_of_up_to_123_bytes() {
        assert_eq!(read(&frame(FIN_CLOSE, b"")), Some(Close::NoStatus));
        let no_code = Close::Invalid { code: None, answer: CloseCode::PROTOCOL_ERROR };
        assert_eq!(read(&frame(FIN_CLOSE, b"\x03")), Some(no_code.clone()));
        let said = Close::Status(CloseCode::BAD_REQUEST, "r".repeat(123));
        assert_eq!(read(&close(4400, &[b'r'; 123])), Some(said));
        assert_eq!(read(&close(4400, b"")), Some(Close::Status(CloseCode(4400), String::new())));
        assert_eq!(read(&close(4400, &[b'r'; 124])), Some(invalid(4400)));
        assert_eq!(read(&close(4400, &b"r".repeat(60_000))), Some(invalid(4400)));
        for reason in [b"\xff" as &[u8], b"caf\xc3", &[0xed, 0xa0, 0x80]] {
            let answer = CloseCode::INVALID_DATA;
            let bad_text = Close::Invalid { code: Some(4400), answer };
            assert_eq!(read(&close(4400, reason)), Some(bad_text));
        }
        let masked = [&[FIN_CLOSE, 0x82, 1, 2, 3, 4][..], &1000_u16.to_be_bytes()].concat();
        assert_eq!(read(&masked), Some(no_code));
    }

    #[test]
    fn the_end_of_a_frame_that_is_too_long_is_not_waited_for_and_that_of_any_other_is() {
        let huge = [&[FIN_CLOSE, 127][..], &u64::MAX.to_be_bytes(), &4400_u16.to_be_bytes()];
        assert_eq!(read(&huge.concat()), Some(invalid(4400)));
        let whole = close(1001, b"going");
        for len in 1..whole.len() {
            assert_eq!(read(&whole[..len]), None);
        }
    }

    /// Frames that are none of close, in every form of length, with and without a mask.
    fn other_frames() -> impl Strategy<Value = Vec<u8>> {
        let first = (any::<u8>()).prop_filter("a close frame", |first| *first != FIN_CLOSE);
        let len = prop_oneof![0..4_usize, 120..130_usize, Just(70_000)];
        // What is in a payload may look like a close frame.
        let one = (first, len, 0..3_usize, any::<bool>()).prop_map(|(first, len, form, masked)| {
            let mask = if masked { 0x80_u8 } else { 0 };
            let mut frame = match (form, u8::try_from(len), u16::try_from(len)) {
                (0, Ok(len @ ..126), _) => vec![first, mask + len],
                (0 | 1, _, Ok(len)) => [&[first, mask + 126][..], &len.to_be_bytes()].concat(),
                _ => [&[first, mask + 127][..], &(len as u64).to_be_bytes()].concat(),
            };
            frame.extend([FIN_CLOSE, 0].iter().cycle().take(len + if masked { 4 } else { 0 }));
            frame
        });
        vec(one, 0..5).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn the_close_frame_is_found_behind_any_frames_however_the_bytes_are_split(
            before in other_frames(),
            after in vec(any::<u8>(), 0..200),
            pieces in vec(1..100_usize, 1..20),
        ) {
            let bytes = [before.clone(), close(4400, b"why"), after].concat();
            let (mut frames, mut rest, mut passed) = (Frames::default(), bytes.as_slice(), 0);
            for piece in pieces.iter().cycle() {
                // Large payloads in fewer steps.
                let piece = if rest.len() > 5_000 { 4_096 + piece } else { *piece };
                let (next, others) = rest.split_at(piece.min(rest.len()));
                passed += frames.follow(next);
                rest = others;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(passed, before.len());
            prop_assert_eq!(
                frames.close(),
                Some(Close::Status(CloseCode::BAD_REQUEST, "why".into()))
            );
        }

        #[test]
        fn any_bytes_are_passed_on_or_kept_and_what_is_kept_is_bounded(
            pieces in vec(vec(any::<u8>(), 0..300), 0..10),
        ) {
            let mut frames = Frames::default();
            for piece in pieces {
                prop_assert!(frames.follow(&piece) <= piece.len());
                let _ = frames.close();
                prop_assert!(frames.close.len() <= 135 && frames.header.len() < 10);
            }
        }
    }
}
