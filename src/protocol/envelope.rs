//! What the server says, read with one lenient vocabulary for both subprotocols (rule 2).
//!
//! Two readers: a prefix scan that LOCATES the payload of a `next` without reading it, and a
//! reference parser for everything else. The scan declines whatever it is not sure of; a
//! differential test holds the two together.

use std::{borrow::Cow, ops::Range, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::encode::{NotOurs, WireId};

/// What a message is. `data` reads as [`Next`](Self::Next).
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
    /// `connection_terminate`: the client's to say on the legacy subprotocol, and some servers'
    /// goodbye.
    Terminate,
    /// A type of neither subprotocol.
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

    /// Whether it is about one operation, or else about the connection.
    fn is_of_operation(self) -> bool {
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
    /// Where its JSON is in the frame; absent for `null`, and for more than 64 KiB about the
    /// connection.
    pub(crate) payload: Option<Range<usize>>,
}

/// Which operation a message is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Id {
    /// No string and no number.
    Absent,
    /// Not one that this client made.
    Foreign,
    Ours(WireId),
}

/// Text that is not a message: no JSON, no object, no type, or a field given twice.
#[derive(Debug)]
pub(crate) struct Unreadable;

impl Envelope {
    /// Reads a message by whichever reader can.
    pub(crate) fn parse(frame: &str) -> Result<Self, Unreadable> {
        match Self::locate(frame) {
            Some(envelope) => Ok(envelope),
            None => Self::parse_fully(frame),
        }
    }

    /// The reference parser: reads the whole frame.
    pub(crate) fn parse_fully(frame: &str) -> Result<Self, Unreadable> {
        let wire = Wire::read(frame).map_err(|_| Unreadable)?;
        let kind = Kind::read(&wire.kind);
        let payload = wire
            .payload
            .filter(|payload| kind.is_of_operation() || payload.get().len() <= MAX_ASIDE);
        Ok(Self {
            kind,
            id: wire.id.map_or(Id::Absent, Id::read),
            payload: payload.map(|payload| place(frame, payload)),
        })
    }

    /// The prefix scan: knows a `next` that ends with its payload, has our ids, no escapes, and
    /// nothing else.
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
                // A `null` is rare and means "absent": the reference parser says so.
                if !is_next || scan.0.first() == Some(&b'n') {
                    return None;
                }
                // Nothing, where the frame is cut short: whoever decodes it finds out.
                let end = frame
                    .trim_end_matches([' ', '\t', '\n', '\r'])
                    .strip_suffix('}')
                    .map_or(start, str::len);
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
            Some(Err(NotOurs)) => Self::Foreign,
            None => Self::Absent,
        }
    }
}

/// The payload of one message: JSON, as a part of the frame that carried it.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    frame: Frame,
    json: Range<usize>,
}

/// The text of a frame. As large as a `String`, in whose capacity there is room to tell the two
/// apart.
#[derive(Clone, Debug)]
enum Frame {
    /// In a buffer that can be used again.
    Owned(String),
    /// For all who read one operation.
    Shared(Arc<str>),
}

impl Payload {
    /// The part of the frame that an [`Envelope`] named.
    pub(crate) fn new(frame: String, json: Range<usize>) -> Self {
        Self { frame: Frame::Owned(frame), json }
    }

    /// As [`new`](Self::new), copied once: a clone is the same text.
    pub(crate) fn shared(frame: &str, json: Range<usize>) -> Self {
        Self { frame: Frame::Shared(Arc::from(frame)), json }
    }

    /// Deserializes the payload; the only pass over its bytes when it was located.
    pub(crate) fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        let frame = self.frame();
        serde_json::from_str(&frame[self.json.clone()]).or_else(|error| {
            // Not a `T`, or not what the scan took it for: the reference parser knows which.
            match Wire::read(frame)?.payload {
                Some(payload) if place(frame, payload) != self.json => {
                    serde_json::from_str(payload.get())
                }
                Some(_) | None => Err(error),
            }
        })
    }

    /// Where it is in the frame.
    pub(crate) fn place(&self) -> Range<usize> {
        self.json.clone()
    }

    /// The whole frame.
    pub(crate) fn frame(&self) -> &str {
        match &self.frame {
            Frame::Owned(frame) => frame,
            Frame::Shared(frame) => frame,
        }
    }

    /// The buffer, to be used again, unless others read the text, too.
    #[inline]
    pub(crate) fn into_buffer(self) -> Option<String> {
        match self.frame {
            Frame::Owned(frame) => Some(frame),
            Frame::Shared(_) => None,
        }
    }
}

/// The longest payload of a message about the connection, in bytes: it is read into a value of any
/// shape, which may be a hundred times as large.
const MAX_ASIDE: usize = 64 * 1024;

/// Where a part of the frame is.
fn place(frame: &str, part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr().addr() - frame.as_ptr().addr();
    start..start + part.get().len()
}

/// A message as the reference parser sees it: unknown fields are ignored, known ones given twice
/// are an error.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

impl<'a> Wire<'a> {
    fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        // Derived code would take a list of fields, too.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(serde::de::Error::custom("not an object"));
        }
        serde_json::from_str(text)
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What is left of a frame.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn skip_whitespace(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// Takes exactly this, after any whitespace.
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
    fn the_usual_next_is_located_and_others_are_read_fully() {
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
    fn what_is_said_about_the_connection_has_a_bound_of_its_own() {
        for (kind, is_of_operation) in [
            ("connection_ack", false),
            ("connection_error", false),
            ("ping", false),
            ("error", true),
            ("next", true),
        ] {
            for (len, fits) in [(MAX_ASIDE, true), (MAX_ASIDE + 1, false)] {
                let text = format!(
                    r#"{{"payload":"{}","type":"{kind}","id":"1.0"}}"#,
                    "x".repeat(len - 2)
                );
                let payload = Envelope::parse(&text).unwrap().payload;
                assert_eq!(payload.is_some(), fits || is_of_operation, "{kind}");
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
            // A form feed is white space to ASCII, but not to JSON.
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

    /// A frame built field by field, in any order, with repeats, foreign fields and odd white
    /// space.
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
                // The scan has not seen the end of the frame; whoever decodes it does.
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
