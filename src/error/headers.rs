//! The headers of an answer that refused the upgrade.

use std::sync::Arc;

/// The headers of an answer that refused the upgrade.
///
/// They help to find out who refused and why: `WWW-Authenticate`, `Server`, or the id of the
/// request. At most 32 headers are kept, with at most 256 bytes of text each. Cookies are left out,
/// and values that the client sent itself are masked, as in the body.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResponseHeaders(Arc<Vec<(String, String)>>);

impl ResponseHeaders {
    /// Returns the first value of a header, whose name may be in upper or lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns all names and values in the order in which the server sent them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for ResponseHeaders {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(headers: I) -> Self {
        Self(Arc::new(headers.into_iter().collect()))
    }
}
