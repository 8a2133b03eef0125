//! Credentials, which the client asks for before every dial.
//!
//! Owns the types between the application's provider and the handshake. Never exposes a secret: no
//! `Debug` output, error or log contains one (I13).

use std::{
    fmt,
    future::Future,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Serialize;

use crate::{
    error::{BuildError, CredentialsError},
    session::CredentialsReason,
};

/// Credentials that the client sends to the server: the payload of `connection_init`, headers of
/// the WebSocket upgrade, or both.
#[derive(Clone, Default)]
pub struct Credentials {
    /// A JSON object, serialized.
    pub(crate) init_payload: Option<Box<str>>,
    pub(crate) headers: HeaderMap,
    expiry: Option<Expiry>,
}

/// When credentials expire.
#[derive(Clone, Copy)]
enum Expiry {
    At(SystemTime),
    In(Duration),
}

impl Credentials {
    /// Creates empty credentials: no headers, and an empty object as the payload of
    /// `connection_init`.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether these contain a secret.
    pub(crate) fn are_sensitive(&self) -> bool {
        self.init_payload.is_some() || self.headers.values().any(HeaderValue::is_sensitive)
    }

    /// Sets the payload of `connection_init`, such as `json!({"token": token})`.
    ///
    /// # Errors
    ///
    /// Returns [`BuildError::InitPayload`] if `payload` does not serialize to a JSON object.
    pub fn init_payload(mut self, payload: &impl Serialize) -> Result<Self, BuildError> {
        let json =
            serde_json::to_string(payload).map_err(|error| BuildError::InitPayload(Some(error)))?;
        if !json.starts_with('{') {
            return Err(BuildError::InitPayload(None));
        }
        self.init_payload = Some(json.into());
        Ok(self)
    }

    /// Adds a header to the upgrade request, such as `Authorization`. `Host` replaces the host of
    /// the endpoint.
    ///
    /// # Errors
    ///
    /// Returns [`BuildError::HeaderName`] if the name is invalid, and [`BuildError::Header`] if the
    /// value is invalid or the upgrade itself sets this header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, BuildError> {
        let (name, value) = parse_header(name, value)?;
        self.headers.append(name, value);
        Ok(self)
    }
}

impl Credentials {
    /// Sets when these credentials expire, such as the `exp` of a token. Default: unknown.
    ///
    /// Before they expire, the client calls the provider with [`CredentialsReason::Expiring`] and
    /// moves to another connection while the current one still works; see
    /// [`Client::rotate`](crate::Client::rotate). It does so after 70 to 90 % of the time that is
    /// left when the connection is acknowledged, and, if that time is long enough, at least 12 s
    /// before its end. A time in the past has no effect.
    #[must_use]
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expiry = Some(Expiry::At(time));
        self
    }

    /// Sets how long these credentials are valid from now, such as the `expires_in` of an OAuth
    /// response.
    ///
    /// This works like [`expires_at`](Self::expires_at), but does not depend on the system clock.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expiry = Some(Expiry::In(lifetime));
        self
    }

    /// Returns how long these are valid from now, if that is known.
    pub(crate) fn lifetime(&self, now: SystemTime) -> Option<Duration> {
        match self.expiry? {
            Expiry::At(time) => time.duration_since(now).ok(),
            Expiry::In(lifetime) => Some(lifetime),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

pub(crate) type Provider = Box<
    dyn Fn(CredentialsReason) -> BoxFuture<'static, Result<Credentials, CredentialsError>>
        + Send
        + Sync,
>;

impl Credentials {
    /// Adds the headers and the payload of `others` that these credentials do not have.
    pub(crate) fn or(self, others: &Self) -> Self {
        let mut headers = others.headers.clone();
        for name in self.headers.keys() {
            headers.remove(name);
        }
        headers.extend(self.headers);
        let init_payload = self.init_payload.or_else(|| others.init_payload.clone());
        Self { init_payload, headers, expiry: self.expiry }
    }

    /// Turns a closure that returns a future into a provider.
    pub(crate) fn provider<F, Fut>(provide: F) -> Provider
    where
        F: Fn(CredentialsReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Self, CredentialsError>> + Send + 'static,
    {
        Box::new(move |reason| Box::pin(provide(reason)))
    }
}

/// Parses a header for the upgrade request. The value is marked as sensitive, except for `Host`.
fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), BuildError> {
    // An invalid name may be a secret in the wrong place, so the error does not contain it.
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| BuildError::HeaderName)?;
    let invalid = || BuildError::Header(name.to_owned());
    // The last two announce a body, which the server would wait for.
    let reserved =
        [header::CONNECTION, header::UPGRADE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    if parsed.as_str().starts_with("sec-websocket-") || reserved.contains(&parsed) {
        return Err(invalid());
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| invalid())?;
    // A host name is no secret, so it must not cause the warning about credentials without TLS.
    value.set_sensitive(parsed != header::HOST);
    Ok((parsed, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_header_shows_a_valid_name_but_never_the_value() {
        let error = |name, value| Credentials::none().header(name, value).unwrap_err();
        for name in [
            "Authorization: Bearer SECRET",
            "Authorization=SECRET",
            "Bearer SECRET",
            "SECRET\n",
            "\u{fc}SECRET",
            "",
        ] {
            let error = error(name, "SECRET");
            assert!(matches!(error, BuildError::HeaderName), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
        }
        for (name, value) in [
            ("Authorization", "Bearer SECRET\n"),
            ("Authorization", "SECRET\r\nX: y"),
            ("Upgrade", "SECRET"),
            ("Sec-WebSocket-Key", "SECRET"),
        ] {
            let error = error(name, value);
            assert!(matches!(&error, BuildError::Header(told) if told == name), "{error:?}");
            assert_eq!(error.to_string(), format!("invalid header `{name}`"));
            assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
        }
    }
}
