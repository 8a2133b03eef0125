//! Reads an answer that is not an upgrade: its status, `Retry-After`, redirection, headers and
//! body.
//!
//! Pure. Owns what the error keeps of the answer. Cookies are left out, and everything that the
//! client has sent is masked.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use url::Url;

use super::{answer::Head, secrets::Secrets};
use crate::error::{ConnectError, is_unprintable};

/// Returns the error for a refusal. `clock` is used if the answer has no `Date`.
pub(super) fn refused(
    head: &Head,
    body: &Body,
    endpoint: &Url,
    headers: &HeaderMap,
    clock: impl FnOnce() -> SystemTime,
) -> ConnectError {
    let secrets = Secrets::of(endpoint, headers);
    let status = head.status;
    if let (300..=399, Some(location)) = (status, head.text("location")) {
        return ConnectError::Redirected { status, to: secrets.mask(&target(endpoint, location)) };
    }
    let headers = kept(head).map(|(name, value)| (name.to_owned(), secrets.mask(&value))).collect();
    let body = secrets.mask(&body.text());
    ConnectError::Http { status, retry_after: retry_after(head, clock), headers, body }
}

/// Returns the headers that are kept, as text that is cut to the limit.
fn kept(head: &Head) -> impl Iterator<Item = (&str, String)> {
    let is_kept = |name: &str| !NOT_KEPT.iter().any(|not_kept| name.eq_ignore_ascii_case(not_kept));
    let headers = head
        .headers()
        .filter(move |(name, _)| is_kept(name) && name.len() <= MAX_HEADER)
        .take(MAX_HEADERS);
    headers.map(|(name, value)| {
        let value = String::from_utf8_lossy(&value[..value.len().min(MAX_HEADER)]).into_owned();
        (name, value.chars().map(|c| if is_unprintable(c) { ' ' } else { c }).collect())
    })
}

/// Reads `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3).
fn retry_after(head: &Head, clock: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let text = head.text("retry-after")?;
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit is above the limit anyway.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        // Compare with the server's own `Date`, because this machine's clock may be wrong.
        let now = head
            .text("date")
            .and_then(|now| httpdate::parse_http_date(now).ok())
            .unwrap_or_else(clock);
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Returns the target of a redirection without its user, query and fragment, which may be secret.
fn target(endpoint: &Url, location: &str) -> String {
    let Ok(mut target) = endpoint.join(location) else { return "an invalid URL".to_owned() };
    target.set_query(None);
    target.set_fragment(None);
    // These fail only for a URL without a host, which has no user.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    target.as_str().chars().take(MAX_BODY).collect()
}

/// The beginning of a refusal's body.
pub(super) struct Body {
    framing: Framing,
    received: Vec<u8>,
}

/// How the end of the body is found (RFC 9112 section 6).
enum Framing {
    Length(usize),
    Chunked,
    Close,
}

impl Body {
    /// Creates a body. `received` are the bytes that followed the head.
    pub(super) fn new(head: &Head, received: Vec<u8>) -> Self {
        let length = head.text("content-length").and_then(|length| length.parse().ok());
        // The client accepts no content coding, so an encoded body is neither read nor shown.
        let encoded =
            head.tokens("content-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
        let framing = if encoded || matches!(head.status, 204 | 304) {
            Framing::Length(0)
        } else if head
            .tokens("transfer-encoding")
            .any(|coding| coding.eq_ignore_ascii_case(b"chunked"))
        {
            Framing::Chunked
        } else {
            length.map_or(Framing::Close, Framing::Length)
        };
        Self { framing, received }
    }

    /// The buffer to which received bytes are appended.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.received
    }

    /// Whether everything that is kept has been received.
    pub(super) fn is_complete(&self) -> bool {
        // A server could send chunks that consist of little but framing, without end.
        if self.received.len() >= 4 * MAX_BODY {
            return true;
        }
        let (content, ended) = self.content();
        ended || content.len() >= MAX_BODY
    }

    /// Returns the body as text, cut to the limit.
    fn text(&self) -> String {
        let (content, _) = self.content();
        let kept = &content[..content.len().min(MAX_BODY)];
        let text = String::from_utf8_lossy(kept);
        // The limit may cut a character in two.
        let cut = if kept.len() < content.len() {
            text.trim_end_matches(char::REPLACEMENT_CHARACTER)
        } else {
            &text
        };
        cut.to_owned()
    }

    /// Returns what has been received, without framing, and whether it is complete.
    fn content(&self) -> (Vec<u8>, bool) {
        match self.framing {
            Framing::Length(length) => {
                let here = self.received.len().min(length);
                (self.received[..here].to_owned(), here == length)
            }
            Framing::Chunked => unchunk(&self.received),
            Framing::Close => (self.received.clone(), false),
        }
    }
}

fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    loop {
        match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete((start, size))) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let rest = &bytes[start..];
                let here = rest.len().min(size);
                content.extend_from_slice(&rest[..here]);
                // The last chunk is empty. Each of the others is followed by a line break.
                match rest[here..].get(b"\r\n".len()..) {
                    _ if size == 0 => return (content, true),
                    Some(next) => bytes = next,
                    None => return (content, false),
                }
            }
            Ok(httparse::Status::Partial) => return (content, false),
            Err(_) => return (content, true),
        }
    }
}

/// The longest `Retry-After` that is honoured, so that a server cannot stop its clients for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// Headers that are not kept, because they carry credentials from the server.
const NOT_KEPT: [&str; 4] =
    ["set-cookie", "set-cookie2", "authentication-info", "proxy-authentication-info"];

/// How many headers are kept.
const MAX_HEADERS: usize = 32;

/// How many bytes of a header's value are kept.
const MAX_HEADER: usize = 256;

/// How many bytes of a body are kept.
const MAX_BODY: usize = 1024;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::{super::answer::Reader, *};

    /// Reads the head of an answer and the beginning of its body.
    fn answer(text: &str) -> (Head, Body) {
        let mut reader = Reader::default();
        reader.buffer().extend_from_slice(text.as_bytes());
        let head = reader.poll_head().unwrap().expect("a whole head");
        let body = Body::new(&head, reader.into_rest());
        (head, body)
    }

    fn error(text: &str) -> ConnectError {
        let endpoint =
            Url::parse("wss://example.com:8443/graphql?token=SECRET-query&user=me%26you").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer SECRET/header=="));
        headers.insert("x-key", HeaderValue::from_static("hunter2"));
        headers.insert("x-flag", HeaderValue::from_static("1"));
        headers.insert("cookie", HeaderValue::from_static("theme=dark; session=SECRET+co/okie="));
        let (head, body) = answer(text);
        // Sun, 06 Nov 1994 08:49:37 GMT.
        let clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        refused(&head, &body, &endpoint, &headers, clock)
    }

    fn body(text: &str) -> String {
        let ConnectError::Http { body, .. } = error(text) else { panic!("not a refusal: {text}") };
        body
    }

    #[test]
    fn retry_after_is_read_in_seconds_or_as_any_date_and_limited_to_an_hour() {
        let retry_after =
            |headers: &str| match error(&format!("HTTP/1.1 503 Busy\r\n{headers}\r\n\r\n")) {
                ConnectError::Http { status: 503, retry_after, .. } => {
                    retry_after.map(|wait| wait.as_secs())
                }
                other => panic!("{other:?}"),
            };
        for (headers, expected) in [
            ("Retry-After: 40", Some(40)),
            ("retry-after:  0 ", Some(0)),
            ("Retry-After: 3601", Some(3600)),
            ("Retry-After: 18446744073709551616", Some(3600)),
            // Dates are compared with this machine's clock.
            ("Retry-After: Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Retry-After: Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Retry-After: Sun Nov  6 08:50:37 1994", Some(60)),
            ("Retry-After: Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", Some(3600)),
            // Dates are compared with that of the server.
            (
                "Date: Tue, 10 Nov 2026 10:00:00 GMT\r\nRetry-After: Tue, 10 Nov 2026 10:02:00 GMT",
                Some(120),
            ),
            ("Date: nonsense\r\nRetry-After: Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Retry-After: soon", None),
            ("Retry-After: -1", None),
            ("Retry-After: 1.5", None),
            ("Retry-After:", None),
            ("Retry-After: \u{fc}", None),
            ("X: y", None),
        ] {
            assert_eq!(retry_after(headers), expected, "{headers}");
        }
    }

    #[test]
    fn a_redirection_names_its_target_without_secrets() {
        for (status, location, expected) in [
            (301, "https://other.example/ws?token=SECRET#SECRET", "https://other.example/ws"),
            (302, "https://user:SECRET@other.example/", "https://other.example/"),
            (303, "/login?next=/graphql", "wss://example.com:8443/login"),
            (307, "//other.example", "wss://other.example/"),
            (308, "v2", "wss://example.com:8443/v2"),
            (301, "/a/SECRET-query/b", "wss://example.com:8443/a/***/b"),
            (301, "/graphql/", "wss://example.com:8443/***/"),
            (301, "https://other.example/graphql?x", "https://other.example/***"),
            (301, "mailto:x@y?z", "mailto:x@y"),
            (301, "http://[", "an invalid URL"),
        ] {
            let answer = format!(
                "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n\
                 Set-Cookie: SECRET\r\n\r\nSECRET"
            );
            let error = error(&answer);
            let ConnectError::Redirected { status: told, to } = &error else { panic!("{error:?}") };
            assert_eq!((*told, to.as_str()), (status, expected));
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
        }
        assert!(matches!(
            error("HTTP/1.1 304 Not Modified\r\n\r\n"),
            ConnectError::Http { status: 304, .. }
        ));
        assert!(matches!(
            error("HTTP/1.1 201 X\r\nLocation: /x\r\n\r\n"),
            ConnectError::Http { status: 201, .. }
        ));
    }

    #[test]
    fn headers_are_kept_without_cookies_and_up_to_a_limit() {
        let text = format!(
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"market\"\r\n\
             Set-Cookie: s=1234567890\r\n\
             X-Long: {}\r\nX-Odd: a\x01b\r\n{}\r\n",
            "y".repeat(1000),
            "X-Many: z\r\n".repeat(90),
        );
        let ConnectError::Http { headers, .. } = error(&text) else { panic!("not a refusal") };
        assert_eq!(headers.get("www-authenticate"), Some("Bearer realm=\"market\""));
        assert_eq!(
            (headers.get("set-cookie"), headers.get("x-long").map(str::len)),
            (None, Some(MAX_HEADER))
        );
        assert_eq!(headers.iter().count(), MAX_HEADERS);
    }

    #[test]
    fn a_body_is_read_to_its_end_and_not_beyond() {
        for (text, expected, complete) in [
            ("Content-Length: 4\r\n\r\nnope and more", "nope", true),
            ("Content-Length: 9\r\n\r\nnope", "nope", false),
            ("Content-Length: 0\r\n\r\n", "", true),
            ("\r\nuntil the end", "until the end", false),
            ("Content-Length: many\r\n\r\nnope", "nope", false),
            (
                "Transfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n6;x=y\r\n, said\r\n0\r\n\r\n",
                "nope, said",
                true,
            ),
            ("Transfer-Encoding: gzip, Chunked\r\n\r\n4\r\nno", "no", false),
            ("Transfer-Encoding: chunked\r\n\r\n4\r\nnope\r", "nope", false),
            ("Transfer-Encoding: chunked\r\n\r\n4\r\nnope\r\nnonsense", "nope", true),
            ("Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nno", "no", false),
            ("Content-Encoding: gzip\r\n\r\n\u{1f}\u{8b}", "", true),
            ("Content-Encoding: identity\r\nContent-Length: 2\r\n\r\nno", "no", true),
        ] {
            let (head, read) = answer(&format!("HTTP/1.1 404 Not Found\r\n{text}"));
            assert_eq!(
                (read.text().as_str(), read.is_complete(), head.status),
                (expected, complete, 404),
                "{text}"
            );
        }
        let (_, none) = answer("HTTP/1.1 204 No Content\r\n\r\n");
        assert!(none.is_complete());
    }

    #[test]
    fn the_beginning_of_a_long_body_is_kept_and_no_half_character() {
        for text in
            ["x".repeat(5_000), "\u{1F600}".repeat(2_000), format!("x{}", "\u{fc}".repeat(2_000))]
        {
            let kept = body(&format!("HTTP/1.1 500 No\r\n\r\n{text}"));
            assert!(
                text.starts_with(&kept) && kept.len() > MAX_BODY - 4 && kept.len() <= MAX_BODY,
                "{kept}"
            );
        }
        let (_, mut endless) = answer("HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n");
        while !endless.is_complete() {
            // Chunks with more framing than content.
            endless.buffer().extend_from_slice(b"1;xxxxxxxx\r\n.\r\n");
        }
        assert!(endless.received.len() <= 4 * MAX_BODY + 16);
    }

    #[test]
    fn an_error_does_not_show_secrets_that_a_page_repeats() {
        for (page, expected) in [
            ("Cannot GET /graphql?token=SECRET-query&user=me%26you", "Cannot GET /***?***"),
            ("token SECRET-query, user me&you", "token ***, user ***"),
            ("Bearer SECRET/header== has expired", "*** has expired"),
            ("the token SECRET/header== has expired", "the token *** has expired"),
            ("the session SECRET+co/okie= has expired", "the session *** has expired"),
            (
                "authorization: Bearer SECRET/header==; x-key: hunter2; x-flag: 1",
                "authorization: ***; x-key: ***; x-flag: 1",
            ),
            ("nothing of it", "nothing of it"),
        ] {
            assert_eq!(body(&format!("HTTP/1.1 404 Not Found\r\n\r\n{page}")), expected);
        }
        // A secret at the end of the kept part is cut.
        let page = format!("{}SECRET-query", "x".repeat(MAX_BODY - 8));
        assert_eq!(
            body(&format!("HTTP/1.1 404 Not Found\r\n\r\n{page}")),
            format!("{}***", "x".repeat(MAX_BODY - 8))
        );
    }

    proptest! {
        #[test]
        fn any_headers_and_any_body_make_an_error(
            headers in "[^\\x00-\\x1f\\x7f]{0,60}",
            text in any::<Vec<u8>>(),
            status in 200..600_u16,
        ) {
            let chunked = "Transfer-Encoding: chunked\r\nDate";
            for name in ["Location", "Retry-After", "Content-Length", chunked] {
                let head = format!("HTTP/1.1 {status} X\r\n{name}: {headers}\r\n\r\n");
                let (head, mut body) = answer(&head);
                body.buffer().extend_from_slice(&text);
                let _ = body.is_complete();
                let endpoint = Url::parse("ws://h/").unwrap();
                let clock = || SystemTime::UNIX_EPOCH;
                let error = refused(&head, &body, &endpoint, &HeaderMap::new(), clock);
                prop_assert!(error.to_string().contains(&status.to_string()));
            }
        }
    }
}
