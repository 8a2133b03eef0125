//! What the server says, read with one lenient vocabulary for both subprotocols (rule 2).
//!
//! Two readers: a prefix scan that LOCATES the payload of a `next` without reading it, and a reference parser for
//! everything else. The scan declines whatever it is not sure of; a differential test holds the two together.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Deserializer, value::RawValue};

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
            Self::Unknown => "unknown",
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
            _ => Self::Unknown,
        }
    }
}

/// A message from the server.
#[derive(Clone, Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) kind: Kind,
    /// The text of a string, or of a number; absent for `null` and anything else.
    pub(crate) id: Option<Cow<'a, str>>,
    /// Absent for `null`.
    pub(crate) payload: Option<Payload>,
}

/// Bytes that are not a message: not UTF-8, not JSON, no object, no type, or a field given twice.
#[derive(Debug)]
pub(crate) struct Unreadable;

impl<'a> Envelope<'a> {
    /// Reads a message by whichever reader can.
    pub(crate) fn parse(frame: &'a Bytes) -> Result<Self, Unreadable> {
        match Self::locate(frame) {
            Some(envelope) => Ok(envelope),
            None => Self::parse_fully(frame),
        }
    }

    /// The reference parser: reads the whole frame.
    pub(crate) fn parse_fully(frame: &'a Bytes) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(frame).map_err(|_| Unreadable)?;
        let wire = Wire::read(text).map_err(|_| Unreadable)?;
        let payload = wire.payload.map(|raw| {
            let start = raw.get().as_ptr().addr() - text.as_ptr().addr();
            Payload { frame: frame.clone(), start, end: Some(start + raw.get().len()) }
        });
        Ok(Self { kind: Kind::read(&wire.kind), id: wire.id.and_then(id_text), payload })
    }

    /// The prefix scan: knows a `next` with `type` and `id` before `payload`, without escapes, and nothing else.
    fn locate(frame: &'a Bytes) -> Option<Self> {
        let mut scan = Scan { bytes: frame, at: 0 };
        let (mut kind, mut id) = (None, None);
        scan.byte(b'{')?;
        loop {
            let key = scan.simple_string()?;
            scan.byte(b':')?;
            match key {
                "type" if kind.is_none() => kind = Some(Kind::read(scan.simple_string()?)),
                "id" if id.is_none() => id = Some(scan.simple_string()?),
                "payload" => {
                    scan.skip_whitespace();
                    // A `null` is rare and means "absent": the reference parser says so.
                    if kind? != Kind::Next || *scan.bytes.get(scan.at)? == b'n' {
                        return None;
                    }
                    let payload = Payload { frame: frame.clone(), start: scan.at, end: None };
                    return Some(Self { kind: Kind::Next, id: Some(Cow::Borrowed(id?)), payload: Some(payload) });
                }
                _ => return None,
            }
            scan.byte(b',')?;
        }
    }
}

/// The payload of one message: JSON, as a part of the frame that carried it.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    frame: Bytes,
    start: usize,
    /// `None`: located only. It ends where its JSON value does, and the envelope's brace must follow.
    end: Option<usize>,
}

impl Payload {
    /// Deserializes the payload; the only pass over its bytes when it was located.
    pub(crate) fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        if let Some(end) = self.end {
            return serde_json::from_slice(&self.frame[self.start..end]);
        }
        if let Ok(text) = std::str::from_utf8(&self.frame[self.start..]) {
            let mut values = Deserializer::from_str(text).into_iter();
            if let Some(Ok(value)) = values.next()
                && text.as_bytes()[values.byte_offset()..].trim_ascii() == b"}"
            {
                return Ok(value);
            }
        }
        // Not what the scan took it for, or not a `T`: the reference parser knows which.
        let text = std::str::from_utf8(&self.frame).map_err(serde::de::Error::custom)?;
        match Wire::read(text)?.payload {
            Some(raw) => serde_json::from_str(raw.get()),
            None => serde_json::from_str("null"),
        }
    }

    /// The JSON text; `None` when the frame turns out not to be JSON.
    pub(crate) fn json(&self) -> Option<&str> {
        self.decode::<&RawValue>().ok().map(RawValue::get)
    }

    /// Bytes held: the whole frame, whatever else it carries.
    pub(crate) fn len(&self) -> usize {
        self.frame.len()
    }
}

/// A message as the reference parser sees it: unknown fields are ignored, known ones given twice are an error.
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

fn id_text(raw: &RawValue) -> Option<Cow<'_, str>> {
    match raw.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(raw.get())),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// Takes this byte, after any whitespace.
    fn byte(&mut self, wanted: u8) -> Option<()> {
        self.skip_whitespace();
        (*self.bytes.get(self.at)? == wanted).then(|| self.at += 1)
    }

    /// Takes a string of printable ASCII without escapes; those stand for themselves.
    fn simple_string(&mut self) -> Option<&'a str> {
        self.byte(b'"')?;
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&b| !(b' '..=b'~').contains(&b) || b == b'"' || b == b'\\')?;
        if rest[length] != b'"' {
            return None;
        }
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    type Meaning = (Kind, Option<String>, Result<Value, ()>);

    fn meaning(envelope: &Envelope<'_>) -> Meaning {
        let payload = envelope.payload.as_ref().map_or(Ok(Value::Null), |p| p.decode().map_err(|_| ()));
        (envelope.kind, envelope.id.as_deref().map(str::to_owned), payload)
    }

    fn read(text: &str) -> Option<Meaning> {
        Envelope::parse(&Bytes::copy_from_slice(text.as_bytes())).ok().map(|e| meaning(&e))
    }

    fn located(text: &str) -> bool {
        Envelope::locate(&Bytes::copy_from_slice(text.as_bytes())).is_some()
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
            r#"{"type":"error","id":"1.0","payload":[]}"#,
            r#"{"type":"next","type":"next","id":"1.0","payload":{}}"#,
            "",
            "{",
        ] {
            assert!(!located(declined), "{declined}");
        }
    }

    #[test]
    fn every_spelling_of_a_message_means_the_same() {
        let expected = Some((Kind::Next, Some("1.0".to_owned()), Ok(serde_json::json!({"data": 1}))));
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
        for text in ["", "x", "[]", "{}", "null", r#"{"type":1}"#, r#"["next","1",{}]"#, r#"{"type":"ka","type":"ka"}"#]
        {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(Envelope::parse(&Bytes::from_static(b"{\"type\":\"ka\xff\"}")).is_err());
        let odd = r#"{"type":"odd","id":null,"payload":null}"#;
        assert_eq!(read(odd), Some((Kind::Unknown, None, Ok(Value::Null))));
        assert_eq!(read(r#"{"type":"complete","id":{}}"#), Some((Kind::Complete, None, Ok(Value::Null))));
    }

    #[test]
    fn a_located_payload_that_is_not_the_last_field_or_not_whole_is_caught_when_decoded() {
        let cases = [
            (r#"{"type":"next","id":"1.0","payload":{"data":1},"payload":{"data":2}}"#, Err(())),
            (r#"{"type":"next","id":"1.0","payload":{"data":1}"#, Err(())),
            (r#"{"type":"next","id":"1.0","payload":{"data":1}}}"#, Err(())),
            (r#"{"type":"next","id":"1.0","payload":}"#, Err(())),
            (r#"{"type":"next","id":"1.0","payload":5}"#, Ok(serde_json::json!(5))),
        ];
        for (text, payload) in cases {
            assert_eq!(read(text).map(|m| m.2), Some(payload), "{text}");
        }
    }

    #[test]
    fn a_hundred_thousand_nested_lists_are_an_error_and_no_stack_overflow() {
        let deep = format!(r#"{{"type":"next","id":"1.0","payload":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
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

    /// A frame built field by field, in any order, with repeats, foreign fields and odd white space.
    fn frame() -> impl Strategy<Value = String> {
        let kind = prop::sample::select(vec!["next", "data", "error", "complete", "ping", "ka", "odd"]);
        let field = prop_oneof![
            4 => kind.prop_map(|kind| format!("\"type\":\"{kind}\"")),
            4 => "[0-9.]{1,4}".prop_map(|id| format!("\"id\" : \"{id}\"")),
            4 => json().prop_map(|payload| format!("\"payload\":\n{payload}")),
            1 => json().prop_map(|id| format!("\"id\":{id}")),
            1 => json().prop_map(|value| format!("\"extra\": {value}")),
        ];
        let intact = prop::collection::vec(field, 0..5).prop_map(|fields| format!("{{{}}}", fields.join(" ,")));
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
            let bytes = Bytes::from(text.clone());
            match (Envelope::locate(&bytes), Envelope::parse_fully(&bytes)) {
                (None, _) => {}
                (Some(fast), Ok(reference)) => prop_assert_eq!(meaning(&fast), meaning(&reference), "{}", text),
                // The scan has not seen the end of the frame; whoever decodes it does.
                (Some(fast), Err(_)) => prop_assert_eq!(meaning(&fast).2, Err(()), "{}", text),
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            if let Ok(envelope) = Envelope::parse(&Bytes::from(bytes)) {
                let _ = meaning(&envelope);
            }
        }
    }
}
