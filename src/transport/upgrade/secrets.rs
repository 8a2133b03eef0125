//! Masks in a server's text what the client has sent in the upgrade request (I13).
//!
//! Servers repeat it: an error page may show the request, and a redirection the path. Pure. Owns
//! what counts as a secret. Must not know where the text comes from.

use http::{HeaderMap, header};
use url::Url;

/// The texts to mask.
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Collects the secrets of a request to this endpoint with these headers.
    pub(super) fn of(endpoint: &Url, headers: &HeaderMap) -> Self {
        let mut secrets = Self(Vec::new());
        for (_, value) in headers.iter().filter(|(name, _)| *name != header::HOST) {
            secrets.add(&String::from_utf8_lossy(value.as_bytes()));
        }
        secrets.add(endpoint.query().unwrap_or_default());
        for (_, value) in endpoint.query_pairs() {
            secrets.add(&value);
        }
        let path = endpoint.path();
        secrets.add_path(path);
        secrets.add_path(&percent_decoded(path));
        for segment in path.split('/') {
            secrets.add_words([segment, &percent_decoded(segment)].into_iter());
        }
        secrets
    }

    /// Returns the text with `***` in place of each secret.
    pub(super) fn mask(&self, text: &str) -> String {
        let mut masked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let hidden = self.0.iter().map(|secret| shown(secret, rest)).max().unwrap_or_default();
            if hidden > 0 {
                // The slash that begins a path is no secret.
                masked.push_str(if first == '/' { "/***" } else { "***" });
            } else {
                masked.push(first);
            }
            rest = &rest[if hidden > 0 { hidden } else { first.len_utf8() }..];
        }
        masked
    }

    /// Adds a value, and the parts of it that may be secrets by themselves.
    fn add(&mut self, text: &str) {
        if text.len() >= MIN_SECRET {
            self.0.push(text.to_owned());
        }
        // A server may repeat a token without the `Bearer` before it, and the value of a cookie
        // without its name. A token may have any character of base64.
        let elements = || text.split(|c: char| c.is_whitespace() || ";,".contains(c));
        self.add_words(elements());
        self.add_words(
            elements().filter_map(|element| element.split_once('=')).map(|(_, value)| value),
        );
        // A page may escape some characters, which leaves the words between them unchanged.
        self.add_words(text.split(|c: char| !c.is_ascii_alphanumeric() && !"-._~".contains(c)));
    }

    /// Adds a path and each of its prefixes, as a server may show paths that are relative to one.
    fn add_path(&mut self, path: &str) {
        self.add(path);
        let ends = path.match_indices('/').map(|(at, _)| at);
        self.0.extend(ends.filter(|&end| end >= MIN_SECRET).map(|end| path[..end].to_owned()));
    }

    fn add_words<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        self.0.extend(words.filter(|word| word.len() >= MIN_SECRET_WORD).map(str::to_owned));
    }
}

/// Returns how many bytes of `secret` are at the beginning of `text`: all of them, or those before
/// the end of a text that was cut.
fn shown(secret: &str, text: &str) -> usize {
    let is_cut = text.len() >= MIN_SECRET && secret.starts_with(text);
    if text.starts_with(secret) || is_cut { secret.len().min(text.len()) } else { 0 }
}

/// Decodes percent-encoding, as a server does before it shows a path.
fn percent_decoded(text: &str) -> String {
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, others @ ..] = rest {
        let byte = match rest {
            [b'%', digits @ ..] => digits.first_chunk::<2>().and_then(|digits| {
                let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
                u8::try_from(high? * 16 + low?).ok()
            }),
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &others[2..] } else { others };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// How many bytes a header's value or a path must have to be masked. Masking shorter ones would
/// mask half of a page.
const MIN_SECRET: usize = 4;

/// How many bytes a word in a value must have to be masked. `Bearer` is shorter, and so are most
/// words of a `User-Agent`.
const MIN_SECRET_WORD: usize = 8;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Masks a text that shows a request to this endpoint.
    fn masked(endpoint: &str, text: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("example.com"));
        Secrets::of(&Url::parse(endpoint).unwrap(), &headers).mask(text)
    }

    #[test]
    fn parts_of_the_path_that_may_be_a_token_are_masked() {
        for (path, shown, expected) in [
            ("/SECRET-0123456789", "no /SECRET-0123456789 here", "no /*** here"),
            ("/SECRET-0123456789", "no SECRET-0123456789 here", "no *** here"),
            ("/v1/SECRET-0123456789/ws", "GET /v1/SECRET-0123456789/ws", "GET /***"),
            ("/v1/SECRET-0123456789/ws", "GET /v1/SECRET-0123456789", "GET /***"),
            ("/v1/SECRET-0123456789/ws", "GET /v2/SECRET-0123456789/x", "GET /v2/***/x"),
            ("/v1/SECRET-0123456789/ws", "v1 ws /v1 /ws", "v1 ws /v1 /ws"),
            // Short segments are masked as parts of a path.
            ("/k3y/graphql", "/k3y/graphql and /k3y/ too", "/*** and /***/ too"),
            ("/graphql", "Cannot GET /graphql", "Cannot GET /***"),
            ("/graphql", "graphql: not found", "graphql: not found"),
            ("/", "Cannot GET / or //", "Cannot GET / or //"),
            ("/a", "Cannot GET /a", "Cannot GET /a"),
            // Encoded and decoded.
            ("/t/S%2Fx%3D%3D", "/t/S%2Fx%3D%3D and /t/S/x==", "/*** and /***"),
            ("/t/SECRET%2F1%3D%3D", "SECRET/1== and SECRET%2F1%3D%3D", "*** and ***"),
            ("/geheimnis-\u{fc}", "geheimnis-\u{fc} geheimnis-%C3%BC", "*** ***"),
            ("/100%-SECRET", "/100%-SECRET", "/***"),
            // Words are masked in another notation as well.
            ("/t/SECRET-0123456789/ws", r"\/t\/SECRET-0123456789\/ws", r"\/t\/***\/ws"),
        ] {
            let endpoint = format!("wss://example.com{path}");
            assert_eq!(masked(&endpoint, shown), expected, "{path}");
        }
    }

    #[test]
    fn a_secret_of_the_path_that_is_cut_is_masked() {
        assert_eq!(masked("ws://h/SECRET-0123456789", "see /SECRET-01"), "see /***");
        assert_eq!(masked("ws://h/SECRET-0123456789", "see SECRET-01"), "see ***");
    }

    #[test]
    fn the_host_is_not_masked() {
        assert_eq!(masked("ws://example.com/graphql", "example.com"), "example.com");
    }
}
