//! Credentials: what proves to the server who is connecting, asked for before every dial.
//!
//! Owns the types between the application's provider and the handshake. Shows a secret to nobody:
//! no `Debug`, error or log has its content (I13).

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

/// What is sent to the server to prove who is connecting: the payload of `connection_init`, headers
/// of the WebSocket upgrade, or both.
#[derive(Clone, Default)]
pub struct Credentials {
    /// A JSON object, serialized.
    pub(crate) init_payload: Option<Box<str>>,
    pub(crate) headers: HeaderMap,
    expiry: Option<Expiry>,
}

/// When credentials end.
#[derive(Clone, Copy)]
enum Expiry {
    At(SystemTime),
    In(Duration),
}

impl Credentials {
    /// None: `connection_init` carries an empty object.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there is something that nobody else may see.
    pub(crate) fn are_sensitive(&self) -> bool {
        self.init_payload.is_some() || self.headers.values().any(HeaderValue::is_sensitive)
    }

    /// Sets the payload of `connection_init`, such as `json!({"token": token})`.
    ///
    /// # Errors
    ///
    /// [`BuildError::InitPayload`] if it is not a JSON object.
    pub fn init_payload(mut self, payload: &impl Serialize) -> Result<Self, BuildError> {
        let json =
            serde_json::to_string(payload).map_err(|error| BuildError::InitPayload(Some(error)))?;
        if !json.starts_with('{') {
            return Err(BuildError::InitPayload(None));
        }
        self.init_payload = Some(json.into());
        Ok(self)
    }

    /// Adds a header to the upgrade request, such as `Authorization`. `Host` replaces the
    /// endpoint's own.
    ///
    /// # Errors
    ///
    /// [`BuildError::Header`] if name or value is not valid, or if it is a header that the upgrade
    /// itself sets.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, BuildError> {
        let (name, value) = parse_header(name, value)?;
        self.headers.append(name, value);
        Ok(self)
    }
}

impl Credentials {
    /// Says when these end, such as the `exp` of a token. Default: not known.
    ///
    /// Ahead of that, after 70 to 90 % of the time that is left when the connection is acknowledged
    /// and, if it lasts, 12 s before its end, the provider is asked again, with
    /// [`CredentialsReason::Expiring`], and the client moves to another connection while this one
    /// still works; see [`Client::rotate`](crate::Client::rotate). A time that is over already says
    /// nothing.
    #[must_use]
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expiry = Some(Expiry::At(time));
        self
    }

    /// Says for how long from now on these are good, such as the `expires_in` of an OAuth answer;
    /// as [`expires_at`](Self::expires_at), without a clock that could be wrong.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expiry = Some(Expiry::In(lifetime));
        self
    }

    /// For how long from now on these are good, if that is known.
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
    /// These, and of the others what these lack.
    pub(crate) fn or(self, others: &Self) -> Self {
        let mut headers = others.headers.clone();
        for name in self.headers.keys() {
            headers.remove(name);
        }
        headers.extend(self.headers);
        let init_payload = self.init_payload.or_else(|| others.init_payload.clone());
        Self { init_payload, headers, expiry: self.expiry }
    }

    /// A provider out of a closure that returns a future.
    pub(crate) fn provider<F, Fut>(provide: F) -> Provider
    where
        F: Fn(CredentialsReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Self, CredentialsError>> + Send + 'static,
    {
        Box::new(move |reason| Box::pin(provide(reason)))
    }
}

/// A header that may go into the upgrade request; its value is marked as sensitive, unless it is
/// `Host`.
fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), BuildError> {
    // What is no name may be a value in the wrong place, and is not shown.
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| BuildError::HeaderName)?;
    let invalid = || BuildError::Header(name.to_owned());
    // The last two would announce a body, which the server would wait for.
    let reserved =
        [header::CONNECTION, header::UPGRADE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    if parsed.as_str().starts_with("sec-websocket-") || reserved.contains(&parsed) {
        return Err(invalid());
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| invalid())?;
    // A name is not what credentials that travel in the open are warned of.
    value.set_sensitive(parsed != header::HOST);
    Ok((parsed, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_header_shows_its_name_if_it_is_one_and_never_its_value() {
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
