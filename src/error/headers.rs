//! What a refused upgrade's answer says beside its body.

use std::sync::Arc;

/// The headers of an answer, for whoever has to find out who refused and why: `WWW-Authenticate`,
/// `Server`, an id of the request.
///
/// At most 32, each of at most 256 bytes of text. Cookies are left out, and what the client has
/// sent is masked, as in the body.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResponseHeaders(Arc<Vec<(String, String)>>);

impl ResponseHeaders {
    /// The first value of a header; its name in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Names and values, in the server's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for ResponseHeaders {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(headers: I) -> Self {
        Self(Arc::new(headers.into_iter().collect()))
    }
}
