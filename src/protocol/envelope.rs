//! The messages that the server sends, read with one lenient vocabulary for both subprotocols
//! (rule 2).
//!
//! There are two readers. A scan of the beginning locates the payload of a `next` without reading
//! it, so that the payload is parsed only once, when it is decoded (I12). A reference parser
//! reads all other messages. The scan declines every frame that it is not sure about, and a
//! property test checks that both readers agree.

use std::{borrow::Cow, ops::Range, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::encode::{ForeignId, WireId};

/// The type of a message. `data` is read as [`Next`](Self::Next).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Ack,
    Next,
    Error,
    Complete,
    Ping,
    Pong,
    KeepAlive,
    /// `connection_error`.
    ConnectionError,
    /// `connection_terminate`. In the legacy protocol only a client sends it, but some servers do.
    Terminate,
    /// A type that is in neither subprotocol.
    Unknown,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ack => "connection_ack",
            Self::Next => "next",
            Self::Error => "error",
            Self::Complete => "complete",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::KeepAlive => "ka",
            Self::ConnectionError => "connection_error",
            Self::Terminate => "connection_terminate",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the message is about one operation. Otherwise it is about the connection.
    fn is_about_an_operation(self) -> bool {
        match self {
            Self::Next | Self::Error | Self::Complete => true,
            Self::Ack
            | Self::Ping
            | Self::Pong
            | Self::KeepAlive
            | Self::ConnectionError
            | Self::Terminate
            | Self::Unknown => false,
        }
    }

    fn read(name: &str) -> Self {
        match name {
            "next" | "data" => Self::Next,
            "complete" => Self::Complete,
            "error" => Self::Error,
            "ping" => Self::Ping,
            "pong" => Self::Pong,
            "ka" => Self::KeepAlive,
            "connection_ack" => Self::Ack,
            "connection_error" => Self::ConnectionError,
            "connection_terminate" => Self::Terminate,
            _ => Self::Unknown,
        }
    }
}

/// A message from the server.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) kind: Kind,
    pub(crate) id: Id,
    /// Where the JSON of the payload is in the frame. `None` if it is absent or `null`, or if the
    /// message is about the connection and the payload has more than 64 KiB.
    pub(crate) payload: Option<Range<usize>>,
}

/// Which operation a message is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Id {
    /// There is none, or it is neither a string nor a number.
    Absent,
    /// This client did not make the id.
    Foreign,
    /// The id of an operation that this client sent.
    Ours(WireId),
}

/// The text is not a message: it is not a JSON object with a `type`, or has a known field twice.
#[derive(Debug)]
pub(crate) struct Unreadable;

impl Envelope {
    /// Reads a message, with the scan if it can and with the reference parser otherwise.
    pub(crate) fn parse(frame: &str) -> Result<Self, Unreadable> {
        match Self::locate(frame) {
            Some(envelope) => Ok(envelope),
            None => Self::parse_fully(frame),
        }
    }

    /// Reads the whole frame, with the reference parser.
    pub(crate) fn parse_fully(frame: &str) -> Result<Self, Unreadable> {
        let wire = RawEnvelope::read(frame).map_err(|_| Unreadable)?;
        let kind = Kind::read(&wire.kind);
        let payload = wire.payload.filter(|payload| {
            kind.is_about_an_operation() || payload.get().len() <= MAX_CONNECTION_PAYLOAD
        });
        Ok(Self {
            kind,
            id: wire.id.map_or(Id::Absent, Id::read),
            payload: payload.map(|payload| range_of(frame, payload)),
        })
    }

    /// Locates the payload of a `next` by a scan of the beginning.
    ///
    /// Returns `None` unless the payload is the last field, the id is one of this client's, and
    /// there is no other field and no escape sequence.
    fn locate(frame: &str) -> Option<Self> {
        let mut scan = Scan(frame.as_bytes());
        let (mut is_next, mut id) = (false, None);
        scan.take(b"{")?;
        loop {
            if !is_next && scan.take(b"\"type\"").is_some() {
                scan.take(b":")?;
                scan.take(b"\"next\"").or_else(|| scan.take(b"\"data\""))?;
                is_next = true;
            } else if id.is_none() && scan.take(b"\"id\"").is_some() {
                scan.take(b":")?;
                scan.take(b"\"")?;
                let (ours, rest) = WireId::read(scan.0)?;
                scan.0 = rest.strip_prefix(b"\"")?;
                id = Some(ours);
            } else {
                scan.take(b"\"payload\"")?;
                scan.take(b":")?;
                scan.skip_whitespace();
                let start = frame.len() - scan.0.len();
                // The reference parser turns a `null`, which is rare, into `None`.
                if !is_next || scan.0.first() == Some(&b'n') {
                    return None;
                }
                let mut end = frame.as_bytes();
                while let [rest @ .., b' ' | b'\t' | b'\n' | b'\r'] = end {
                    end = rest;
                }
                // A frame that is cut short has no brace: decoding the empty payload fails.
                let end = end.strip_suffix(b"}").map_or(start, <[u8]>::len);
                return Some(Self {
                    kind: Kind::Next,
                    id: Id::Ours(id?),
                    payload: Some(start..end),
                });
            }
            scan.take(b",")?;
        }
    }
}

impl Id {
    fn read(raw: &RawValue) -> Self {
        let raw = raw.get();
        let text = match raw.as_bytes().first() {
            Some(b'"') => serde_json::from_str::<Text<'_>>(raw).ok().map(|text| text.0),
            Some(b'-' | b'0'..=b'9') => Some(Cow::Borrowed(raw)),
            _ => None,
        };
        match text.map(|text| text.parse()) {
            Some(Ok(id)) => Self::Ours(id),
            Some(Err(ForeignId)) => Self::Foreign,
            None => Self::Absent,
        }
    }
}

/// The payload of one message: the frame, and where the JSON is in it.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    frame: Frame,
    json: Range<usize>,
}

/// The text of a frame. This enum is as large as a `String`, because the capacity of a `String` has
/// a niche for the other variant.
#[derive(Clone, Debug)]
enum Frame {
    /// A buffer that can be used again.
    Owned(String),
    /// Text that all readers of a shared operation share.
    Shared(Arc<str>),
}

impl Payload {
    /// Creates a payload from a frame and the range that its [`Envelope`] has.
    pub(crate) fn new(frame: String, json: Range<usize>) -> Self {
        Self { frame: Frame::Owned(frame), json }
    }

    /// Like [`new`](Self::new), but copies the frame, and clones share the copy.
    pub(crate) fn shared(frame: &str, json: Range<usize>) -> Self {
        Self { frame: Frame::Shared(Arc::from(frame)), json }
    }

    /// Deserializes the payload. This is the only pass over its bytes if the scan located it (I12).
    pub(crate) fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        let frame = self.frame();
        serde_json::from_str(&frame[self.json.clone()]).or_else(|error| {
            // Either the payload is not a `T`, or the scan was wrong about where the payload ends.
            // The reference parser finds out which.
            match RawEnvelope::read(frame)?.payload {
                Some(payload) if range_of(frame, payload) != self.json => {
                    serde_json::from_str(payload.get())
                }
                Some(_) | None => Err(error),
            }
        })
    }

    /// Returns the JSON of the payload, as the reference parser reads the frame. It is not the
    /// usual way to read a payload, because it is one more pass over the frame.
    ///
    /// # Errors
    ///
    /// Fails if the frame is not a message.
    pub(crate) fn json(&self) -> Result<&str, serde_json::Error> {
        let payload = RawEnvelope::read(self.frame())?.payload;
        Ok(payload.map_or("null", RawValue::get))
    }

    /// Where the payload is in the frame.
    pub(crate) fn range(&self) -> Range<usize> {
        self.json.clone()
    }

    /// The whole frame.
    pub(crate) fn frame(&self) -> &str {
        match &self.frame {
            Frame::Owned(frame) => frame,
            Frame::Shared(frame) => frame,
        }
    }

    /// Returns the buffer, to be used again, unless the text is shared.
    #[inline]
    pub(crate) fn into_buffer(self) -> Option<String> {
        match self.frame {
            Frame::Owned(frame) => Some(frame),
            Frame::Shared(_) => None,
        }
    }
}

/// The size limit for the payload of a message about the connection, in bytes. Such a payload is
/// read into a `serde_json::Value`, which may take a hundred times as much memory.
const MAX_CONNECTION_PAYLOAD: usize = 64 * 1024;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Returns where `part` is in the frame from which it was borrowed.
fn range_of(frame: &str, part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr().addr() - frame.as_ptr().addr();
    start..start + part.get().len()
}

/// A message as the reference parser reads it. Unknown fields are ignored, and a known field that
/// comes twice is an error.
#[derive(Deserialize)]
struct RawEnvelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

impl<'a> RawEnvelope<'a> {
    fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        // Some servers write one, which JSON does not allow (rule 31).
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        // The derived code would accept an array of the fields' values as well.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(serde::de::Error::custom("not an object"));
        }
        serde_json::from_str(text)
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The rest of a frame that is being scanned.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn skip_whitespace(&mut self) {
        // Mostly there is none, which one comparison shows.
        while let [byte @ ..=b' ', rest @ ..] = self.0
            && matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
        {
            self.0 = rest;
        }
    }

    /// Skips whitespace, then takes exactly this token.
    fn take(&mut self, token: &[u8]) -> Option<()> {
        self.skip_whitespace();
        self.0 = self.0.strip_prefix(token)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    type Meaning = (Kind, Id, Result<Value, ()>);

    const ID: Id = Id::Ours(WireId { serial: 1, slot: 0 });

    fn meaning(frame: &str, Envelope { kind, id, payload }: Envelope) -> Meaning {
        let decode = |json| Payload::new(frame.to_owned(), json).decode().map_err(|_| ());
        (kind, id, payload.map_or(Ok(Value::Null), decode))
    }

    fn read(text: &str) -> Option<Meaning> {
        Envelope::parse(text).ok().map(|envelope| meaning(text, envelope))
    }

    fn located(text: &str) -> bool {
        Envelope::locate(text).is_some()
    }

    #[test]
    fn a_usual_next_is_located_and_other_messages_are_read_fully() {
        assert!(located(r#"{"type":"next","id":"1.0","payload":{"data":{"a":1}}}"#));
        assert!(located(r#"{"id":"1.0","type":"data","payload":{"data":{"a":1}}}"#));
        assert!(located(" { \"id\" : \"1.0\" ,\n\"type\" :\t\"next\", \"payload\" : {} } "));
        for declined in [
            r#"{"type":"next","payload":{},"id":"1.0"}"#,
            r#"{"payload":{},"type":"next","id":"1.0"}"#,
            r#"{"type":"next","id":"1.0","extra":1,"payload":{}}"#,
            r#"{"type":"n\u0065xt","id":"1.0","payload":{}}"#,
            r#"{"type":"next","id":1,"payload":{}}"#,
            r#"{"type":"next","id":"1.0","payload":null}"#,
            r#"{"type":"next","id":"1.0","payload": null}"#,
            r#"{"id":"1.0","id":"2.0","type":"next","payload":{}}"#,
            r#"{"type":"error","id":"1.0","payload":[]}"#,
            r#"{"type":"next","type":"next","id":"1.0","payload":{}}"#,
            "",
            "{",
        ] {
            assert!(!located(declined), "{declined}");
        }
    }

    #[test]
    fn the_payload_of_a_message_about_the_connection_has_its_own_size_limit() {
        for (kind, is_about_an_operation) in [
            ("connection_ack", false),
            ("connection_error", false),
            ("ping", false),
            ("error", true),
            ("next", true),
        ] {
            for (len, fits) in [(MAX_CONNECTION_PAYLOAD, true), (MAX_CONNECTION_PAYLOAD + 1, false)]
            {
                let text = format!(
                    r#"{{"payload":"{}","type":"{kind}","id":"1.0"}}"#,
                    "x".repeat(len - 2)
                );
                let payload = Envelope::parse(&text).unwrap().payload;
                assert_eq!(payload.is_some(), fits || is_about_an_operation, "{kind}");
            }
        }
    }

    #[test]
    fn every_spelling_of_a_message_means_the_same() {
        let expected = Some((Kind::Next, ID, Ok(serde_json::json!({"data": 1}))));
        for text in [
            r#"{"type":"next","id":"1.0","payload":{"data":1}}"#,
            r#"{"payload":{"data":1},"id":"1.0","type":"data","extra":[1,{}]}"#,
            r#"{"type":"next","id":"1.0","payload":{"data":1},"later":"field"}"#,
            r#"{"type":"n\u0065xt","id":"1\u002e0","payload":{"data":1}}"#,
            r#"{"type":"next","id":1.0,"payload":{"data":1}}"#,
            "\u{feff}{\"type\":\"next\",\"id\":\"1.0\",\"payload\":{\"data\":1}}",
            "\u{feff} {\"payload\":{\"data\":1},\"type\":\"next\",\"id\":\"1.0\"}",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn garbage_is_unreadable_and_odd_fields_are_absent() {
        for text in [
            "",
            "x",
            "[]",
            "{}",
            "null",
            r#"{"type":1}"#,
            r#"["next","1",{}]"#,
            r#"{"type":"ka","type":"ka"}"#,
            "\u{feff}",
            "\u{feff}\u{feff}{\"type\":\"ka\"}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let odd = r#"{"type":"odd","id":null,"payload":null}"#;
        assert_eq!(read(odd), Some((Kind::Unknown, Id::Absent, Ok(Value::Null))));
        assert_eq!(
            read(r#"{"type":"complete","id":{}}"#),
            Some((Kind::Complete, Id::Absent, Ok(Value::Null)))
        );
    }

    #[test]
    fn a_located_payload_that_is_not_the_last_field_or_not_whole_is_caught_when_decoded() {
        let cases = [
            (r#"{"type":"next","id":"1.0","payload":{"data":1},"payload":{"data":2}}"#, Err(())),
            (r#"{"type":"next","id":"1.0","payload":{"data":1}"#, Err(())),
            (r#"{"type":"next","id":"1.0","payload":{"data":1}}}"#, Err(())),
            (r#"{"type":"next","id":"1.0","payload":}"#, Err(())),
            (r#"{"type":"next","id":"1.0","payload":"#, Err(())),
            (r#"{"type":"next","id":"1.0","payload":5"#, Err(())),
            (r#"{"type":"next","id":"1.0","payload":5}"#, Ok(serde_json::json!(5))),
            // A form feed is whitespace in ASCII but not in JSON.
            ("{\"type\":\"next\",\"id\":\"1.0\",\"payload\":5}\u{c}", Err(())),
        ];
        for (text, payload) in cases {
            assert_eq!(read(text).map(|m| m.2), Some(payload), "{text}");
        }
    }

    #[test]
    fn a_hundred_thousand_nested_lists_are_an_error_and_no_stack_overflow() {
        let deep = format!(
            r#"{{"type":"next","id":"1.0","payload":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(read(&deep).map(|m| m.2), Some(Err(())));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// A frame with any fields in any order, some of them repeated or unknown, and with unusual
    /// whitespace.
    fn frame() -> impl Strategy<Value = String> {
        let kind =
            prop::sample::select(vec!["next", "data", "error", "complete", "ping", "ka", "odd"]);
        let field = prop_oneof![
            4 => kind.prop_map(|kind| format!("\"type\":\"{kind}\"")),
            4 => "[0-9.]{1,4}".prop_map(|id| format!("\"id\" : \"{id}\"")),
            4 => json().prop_map(|payload| format!("\"payload\":\n{payload}")),
            1 => json().prop_map(|id| format!("\"id\":{id}")),
            1 => json().prop_map(|value| format!("\"extra\": {value}")),
        ];
        let intact = prop::collection::vec(field, 0..5)
            .prop_map(|fields| format!("{{{}}}", fields.join(" ,")));
        (intact, any::<prop::sample::Index>(), 0..8_u8).prop_map(|(text, index, damage)| {
            let mut cut = index.index(text.len() + 1);
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            match damage {
                0 => text[..cut].to_owned(),
                1 => format!("{}}}{}", &text[..cut], &text[cut..]),
                _ => text,
            }
        })
    }

    proptest! {
        #[test]
        fn both_readers_agree_on_every_frame(text in frame()) {
            match (Envelope::locate(&text), Envelope::parse_fully(&text)) {
                (None, _) => {}
                (Some(fast), Ok(reference)) => {
                    prop_assert_eq!(meaning(&text, fast), meaning(&text, reference), "{}", text);
                }
                // The scan does not read to the end of the frame, so decoding has to fail.
                (Some(fast), Err(_)) => {
                    prop_assert_eq!(meaning(&text, fast).2, Err(()), "{}", text);
                }
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String) {
            if let Ok(envelope) = Envelope::parse(&text) {
                let _ = meaning(&text, envelope);
            }
        }
    }
}
