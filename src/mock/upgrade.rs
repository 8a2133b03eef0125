//! The HTTP request that opens a WebSocket, and the answers to it.
//!
//! Reads the request and writes the answer, right or wrong. Must not know frames or messages.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::server::{create_response, write_response};

use super::{
    check::{self, Subprotocol},
    wire::Wire,
};

/// The upgrade request that a client sent.
#[derive(Clone, Debug)]
pub struct Request {
    inner: http::Request<()>,
}

impl Request {
    /// Returns the path and query, as in the request line.
    pub fn path(&self) -> &str {
        self.inner.uri().path_and_query().map_or("", |path| path.as_str())
    }

    /// Returns the first header of that name, in upper or lower case; `None` if there is none, or
    /// if its value is not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// Returns all headers in their order, with names in lower case. Headers whose value is not
    /// text are left out.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }

    /// Returns the offered subprotocols in their order, from all `Sec-WebSocket-Protocol` headers.
    pub fn subprotocols(&self) -> Vec<&str> {
        let headers = self.inner.headers().get_all(SUBPROTOCOL_HEADER).iter();
        headers
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(str::trim))
            .collect()
    }

    /// Reads the head of the request.
    pub(super) async fn read(wire: &mut Wire) -> Result<Self, String> {
        let mut head = Vec::new();
        let end = loop {
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            match wire.read_buf(&mut head).await {
                Ok(0) => {
                    return Err(
                        "the client dropped the connection before its upgrade request".to_owned()
                    );
                }
                Ok(_) => {}
                Err(error) => {
                    return Err(format!(
                        "the connection broke off before the upgrade request: {error}"
                    ));
                }
            }
        };
        if head.len() > end + 4 {
            return Err(
                "the client went on before the upgrade was answered (RFC 6455 section 4.1)"
                    .to_owned(),
            );
        }
        let head = String::from_utf8_lossy(&head[..end]);
        Self::parse(&head).ok_or_else(|| format!("not an HTTP/1.1 GET request:\n{head}"))
    }

    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let path = lines.next()?.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")?;
        let mut inner = http::Request::get(path).version(http::Version::HTTP_11).body(()).ok()?;
        for line in lines {
            let (name, value) = line.split_once(':')?;
            append(inner.headers_mut(), name, value.trim())?;
        }
        Some(Self { inner })
    }

    /// Returns the offered subprotocol, or the message for a panic if the client did not offer
    /// exactly one.
    pub(super) fn offered(&self) -> Result<Subprotocol, String> {
        let names = self.subprotocols();
        check::offered(&names)
            .map_err(|rule| format!("protocol rule broken: {rule}, but {names:?} was offered"))
    }
}

/// How [`Server::accept_with`](super::Server::accept_with) answers an upgrade request.
///
/// By default it accepts, and chooses the subprotocol that was offered.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Upgrade {
    chosen: Chosen,
    headers: Vec<(String, String)>,
}

/// Which subprotocol the answer names.
#[derive(Clone, Debug, Default)]
enum Chosen {
    #[default]
    Offered,
    None,
    Name(String),
}

impl Upgrade {
    /// Creates an answer that accepts the upgrade and chooses the offered subprotocol.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses this subprotocol, offered or not.
    ///
    /// The peer speaks it if it is one of the two that exist. Otherwise the peer speaks the offered
    /// one, as some servers do that answer with another name.
    pub fn subprotocol(mut self, name: &str) -> Self {
        self.chosen = Chosen::Name(name.to_owned());
        self
    }

    /// Chooses no subprotocol: the answer has no `Sec-WebSocket-Protocol` header. The peer speaks
    /// the offered one.
    pub fn without_subprotocol(mut self) -> Self {
        self.chosen = Chosen::None;
        self
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes the answer. Returns the subprotocol that the peer speaks from now on.
    pub(super) async fn answer(
        self,
        wire: &mut Wire,
        request: &Request,
    ) -> Result<Subprotocol, String> {
        let offered = request.offered()?;
        let mut response = create_response(&request.inner)
            .map_err(|error| format!("not a WebSocket upgrade request: {error}"))?;
        let (name, spoken) = match self.chosen {
            Chosen::Offered => (Some(offered.name().to_owned()), offered),
            Chosen::None => (None, offered),
            Chosen::Name(name) => {
                (Some(name.clone()), Subprotocol::from_name(&name).unwrap_or(offered))
            }
        };
        let subprotocol = name.map(|name| (SUBPROTOCOL_HEADER.to_owned(), name));
        for (name, value) in subprotocol.into_iter().chain(self.headers) {
            append(response.headers_mut(), &name, &value)
                .ok_or_else(|| format!("not a header: {name}: {value}"))?;
        }
        let mut bytes = Vec::new();
        write_response(&mut bytes, &response)
            .map_err(|error| format!("the answer cannot be written: {error}"))?;
        wire.write_all(&bytes).await.map_err(|_| {
            "the client dropped the connection before its upgrade was answered".to_owned()
        })?;
        Ok(spoken)
    }
}

/// Returns a complete HTTP response. `Content-Length` is added unless it is among the headers.
pub(super) fn refusal(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    let mut response = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in headers {
        write_header(&mut response, name, value);
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        write_header(&mut response, "content-length", &body.len().to_string());
    }
    response.push_str("\r\n");
    response.push_str(body);
    response.into_bytes()
}

fn write_header(response: &mut String, name: &str, value: &str) {
    // Writing to a string does not fail.
    let _ = write!(response, "{name}: {value}\r\n");
}

fn append(headers: &mut HeaderMap, name: &str, value: &str) -> Option<()> {
    headers
        .append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
    Some(())
}

/// RFC 6455 section 11.3.4.
const SUBPROTOCOL_HEADER: &str = "sec-websocket-protocol";
