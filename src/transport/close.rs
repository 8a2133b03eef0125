//! Reads the server's close frame from the bytes.
//!
//! tungstenite replaces a code that may not be sent by 1002, and also the code 1014, which is
//! valid. Its errors do not name the code either. So the close frame is taken out of the stream
//! before tungstenite sees it.
//!
//! Pure. Owns which close frames are valid. Must not know where the bytes come from.

use crate::error::CloseCode;

/// Skips the server's frames up to the close frame, and keeps that frame.
#[derive(Default)]
pub(super) struct Frames {
    /// How many bytes of the current frame's payload have not arrived yet.
    left: u64,
    /// The bytes of a header that is not complete yet. Empty most of the time.
    header: Vec<u8>,
    /// What has arrived of the close frame, including its header.
    close: Vec<u8>,
}

/// The content of a close frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Close {
    /// The frame has no code (RFC 6455 section 7.1.5).
    NoStatus,
    Status(CloseCode, String),
    /// The frame is one that may not be sent.
    Invalid {
        /// The code in the frame, if there is one.
        code: Option<u16>,
        /// The code for the answer.
        answer: CloseCode,
    },
}

impl Frames {
    /// Takes the bytes that have arrived. Returns how many of them precede the close frame.
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

    /// Returns the close frame once enough of it has arrived.
    pub(super) fn close(&self) -> Option<Close> {
        let header = Header::parse(&self.close)?;
        let body = &self.close[header.len..];
        let code = body.first_chunk().map(|code| u16::from_be_bytes(*code));
        let invalid = |code| Some(Close::Invalid { code, answer: CloseCode::PROTOCOL_ERROR });
        let payload = match usize::try_from(header.payload) {
            Ok(payload) if payload <= MAX_PAYLOAD => payload,
            // Too long. The rest makes no difference.
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

    /// Keeps the bytes of the close frame. Anything beyond its largest size is dropped.
    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_HEADER + MAX_PAYLOAD - self.close.len();
        self.close.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// The header of a frame (RFC 6455 section 5.2).
struct Header {
    /// The size in bytes, without the mask, which a server may not send.
    len: usize,
    /// The bytes that follow the header, including the mask.
    payload: u64,
    is_masked: bool,
}

impl Header {
    /// Returns `None` if the header is not complete.
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

/// The first byte of a valid close frame. tungstenite rejects close frames that have reserved bits
/// or are not final.
const FIN_CLOSE: u8 = 0x88;

/// The size of the longest header in bytes, without a mask.
const MAX_HEADER: usize = 10;

/// How many bytes of payload a control frame may have (RFC 6455 section 5.5).
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

    /// Reads bytes that begin with a close frame.
    fn read(bytes: &[u8]) -> Option<Close> {
        let mut frames = Frames::default();
        assert_eq!(frames.follow(bytes), 0);
        frames.close()
    }

    fn invalid(code: u16) -> Close {
        Close::Invalid { code: Some(code), answer: CloseCode::PROTOCOL_ERROR }
    }

    #[test]
    fn every_code_that_may_be_sent_is_valid_and_every_other_is_invalid() {
        for code in 0..=u16::MAX {
            let is_valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            let expected =
                if is_valid { Close::Status(CloseCode(code), "why".into()) } else { invalid(code) };
            assert_eq!(read(&close(code, b"why")), Some(expected), "{code}");
        }
    }

    #[test]
    fn a_body_is_empty_or_a_code_with_a_text_of_up_to_123_bytes() {
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
    fn a_frame_that_is_too_long_is_invalid_before_its_end_has_arrived() {
        let huge = [&[FIN_CLOSE, 127][..], &u64::MAX.to_be_bytes(), &4400_u16.to_be_bytes()];
        assert_eq!(read(&huge.concat()), Some(invalid(4400)));
        let whole = close(1001, b"going");
        for len in 1..whole.len() {
            assert_eq!(read(&whole[..len]), None);
        }
    }

    /// Frames other than close frames, in every form of length, with and without a mask.
    fn other_frames() -> impl Strategy<Value = Vec<u8>> {
        let first = (any::<u8>()).prop_filter("a close frame", |first| *first != FIN_CLOSE);
        let len = prop_oneof![0..4_usize, 120..130_usize, Just(70_000)];
        // The payload looks like a close frame.
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
                // Pass large payloads in fewer steps.
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
        fn any_bytes_are_passed_on_or_kept_up_to_a_limit(
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
