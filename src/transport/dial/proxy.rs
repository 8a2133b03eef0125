//! Proxies: which one to use, and how to connect through it.
//!
//! The login of a proxy is in no output (I13).

mod connector;
mod environment;
mod status_tap;

use std::{fmt, str::FromStr};

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use url::{Host, Url};

pub(crate) use self::connector::ProxyConnector;
use self::environment::environment;
use super::tcp::port;
use crate::error::BuildError;

/// A proxy, for [`ClientBuilder::proxy`](crate::ClientBuilder::proxy).
///
/// It is parsed from a URL, which may have a name and a password:
///
/// | URL | protocol | default port |
/// |---|---|---|
/// | `http://host:port`, or no scheme | HTTP `CONNECT`, for both `ws` and `wss` | 80 |
/// | `socks5h://host:port` | SOCKS5; the proxy resolves the endpoint's name | 1080 |
/// | `socks5://host:port` | SOCKS5; the client resolves the name and sends the first address | 1080 |
///
/// A SOCKS5 proxy without logins rejects a client that has one. The variants of
/// [`DialError`](crate::DialError) say which refusals are retried.
///
/// ```
/// let proxy: resub::Proxy = "http://user:p%40ss@proxy.internal:3128".parse()?;
/// assert_eq!(proxy.to_string(), "http://proxy.internal:3128");
/// # Ok::<_, resub::BuildError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(docsrs, doc(cfg(feature = "proxy")))]
pub struct Proxy {
    protocol: Protocol,
    /// Has the login, if there is one, and always a port.
    url: Url,
}

/// How the proxy is asked to connect to the endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Connect,
    Socks5(NameResolution),
}

/// Who resolves the endpoint's name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NameResolution {
    /// The client, before it asks the proxy.
    Local,
    ByProxy,
}

impl Proxy {
    /// Sets the name and the password for the proxy, without any encoding. Default: those of the
    /// URL.
    ///
    /// With SOCKS5 each may have 255 bytes, otherwise `build` fails. Both together with the
    /// endpoint's host may have about 240 bytes, otherwise every dial fails.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        // `Url` keeps a `%` as it is, because it may belong to an encoded character.
        let encode = |text: &str| text.replace('%', "%25");
        // These fail only for a URL without a host.
        let _ = self.url.set_username(&encode(user));
        let _ = self.url.set_password(Some(&encode(password)));
        self
    }

    /// Returns this proxy in the form that hyper-util uses.
    fn intercept(&self, target: &Uri) -> Result<Intercept, BuildError> {
        let matcher = Matcher::builder().all(self.url.as_str()).build();
        matcher.intercept(target).ok_or(BuildError::Proxy("not a URL"))
    }
}

impl FromStr for Proxy {
    type Err = BuildError;

    /// # Errors
    ///
    /// [`BuildError::Proxy`] if the text is not a URL with a host, or has another scheme. Proxies
    /// that are reached by TLS (`https://`) are not supported.
    fn from_str(text: &str) -> Result<Self, BuildError> {
        let explicit =
            if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url = Url::parse(&explicit).map_err(|_| BuildError::Proxy("not a URL"))?;
        let (protocol, port) = match url.scheme() {
            "http" => (Protocol::Connect, None),
            "socks5" => (Protocol::Socks5(NameResolution::Local), Some(1080)),
            "socks5h" => (Protocol::Socks5(NameResolution::ByProxy), Some(1080)),
            "https" => {
                return Err(BuildError::Proxy(
                    "proxies that are reached by TLS (https://) are not supported",
                ));
            }
            _ => return Err(BuildError::Proxy("its scheme is not http, socks5 or socks5h")),
        };
        let port = url.port().or(port);
        if url.host_str().is_none_or(str::is_empty) || url.set_port(port).is_err() {
            return Err(BuildError::Proxy("it has no host"));
        }
        // A path, a query and a fragment have no meaning for a proxy.
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        let proxy = Self { protocol, url };
        proxy.intercept(&Uri::from_static("http://endpoint/"))?;
        Ok(proxy)
    }
}

/// Does not show the login.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.url.scheme(), host(&self.url), port(&self.url))
    }
}

/// Does not show the login.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// How a client reaches its server.
#[derive(Clone, Debug, Default)]
pub(crate) enum Route {
    /// As the environment variables say.
    #[default]
    Environment,
    /// Without a proxy.
    Direct,
    Through(Proxy),
}

impl Route {
    /// Returns the connector for this endpoint, or `None` if it is reached without a proxy.
    pub(crate) fn to(self, endpoint: &Url) -> Result<Option<ProxyConnector>, BuildError> {
        let proxy = match self {
            Self::Environment => environment(endpoint, |name| std::env::var(name).ok())?,
            Self::Direct => None,
            Self::Through(proxy) => Some(proxy),
        };
        proxy.map(|proxy| ProxyConnector::new(proxy, endpoint)).transpose()
    }
}

/// Returns the endpoint in the form that hyper-util understands. It does not know `ws` and `wss`,
/// and would use 443 if there was no port.
fn target(endpoint: &Url) -> Result<Uri, BuildError> {
    let target = format!("http://{}:{}/", host(endpoint), port(endpoint)).parse();
    target.map_err(|_| BuildError::Proxy("it cannot be asked for the endpoint's host"))
}

/// Returns the host, with brackets if it is an IPv6 address.
fn host(url: &Url) -> String {
    url.host().as_ref().map(Host::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intercept(proxy: &Proxy) -> Intercept {
        proxy.intercept(&Uri::from_static("http://endpoint/")).unwrap()
    }

    #[test]
    fn a_login_is_sent_without_changes() {
        for (user, password) in
            [("Aladdin", "open sesame"), ("a@b:/?#[]", "%20%"), ("ü'\"<>\\^`{|}", "p:w&;=+$,")]
        {
            let proxy: Proxy = "socks5h://other:login@proxy".parse().unwrap();
            assert_eq!(intercept(&proxy.login(user, password)).raw_auth(), Some((user, password)));
        }
        let proxy: Proxy = "http://proxy".parse().unwrap();
        // RFC 7617 section 2.
        let basic = Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let sent = |proxy: &Proxy| {
            intercept(proxy).basic_auth().map(|login| login.to_str().unwrap().to_owned())
        };
        assert_eq!(sent(&proxy.clone().login("Aladdin", "open sesame")).as_deref(), basic);
        assert_eq!(
            sent(&"http://Aladdin:open%20sesame@proxy:80".parse().unwrap()).as_deref(),
            basic
        );
        assert_eq!(sent(&proxy), None);
    }

    #[test]
    fn a_login_that_is_too_long_for_socks5_is_an_error() {
        let endpoint = Url::parse("ws://example.com/").unwrap();
        let proxy: Proxy = "socks5h://proxy".parse().unwrap();
        let with_login = |bytes: usize| {
            ProxyConnector::new(proxy.clone().login(&"u".repeat(bytes), ""), &endpoint)
        };
        assert!(with_login(255).is_ok());
        assert!(matches!(with_login(256), Err(BuildError::Proxy(_))));
    }

    #[test]
    fn only_the_url_of_a_proxy_is_parsed_and_its_login_is_not_shown() {
        for bad in [
            "",
            "http://",
            "socks5://",
            "https://p:1",
            "socks4://p",
            "p:99999",
            "socks5h://a b",
            "socks5h://a%41",
        ] {
            assert!(matches!(bad.parse::<Proxy>(), Err(BuildError::Proxy(_))), "{bad}");
        }
        for (url, shown) in [
            ("p", "http://p:80"),
            ("HTTP://u@P:3128/x?y#z", "http://p:3128"),
            ("[2001:db8::1]:1", "http://[2001:db8::1]:1"),
            ("socks5://[::1]", "socks5://[::1]:1080"),
            ("socks5h://u:p@p/", "socks5h://p:1080"),
        ] {
            let proxy: Proxy = url.parse().unwrap();
            assert_eq!(
                (proxy.to_string(), format!("{proxy:?}")),
                (shown.to_owned(), format!("Proxy({shown})"))
            );
        }
    }
}
