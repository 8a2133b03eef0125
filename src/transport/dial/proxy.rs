//! Proxies: what one is, which one to use, and the way through it.
//!
//! Credentials of a proxy are in no output.

mod environment;
mod overheard;
mod way;

use std::{fmt, str::FromStr};

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use url::{Host, Url};

use self::environment::environment;
pub(crate) use self::way::Way;
use super::tcp::port;
use crate::error::BuildError;

/// A proxy, for [`ClientBuilder::proxy`](crate::ClientBuilder::proxy).
///
/// Parsed from a URL, in which a name and a password may stand:
///
/// | URL | |
/// |---|---|
/// | `http://host:port` | HTTP `CONNECT`, for `ws` as for `wss`. Without a scheme, this one is meant; without a port, 80 |
/// | `socks5h://host:port` | SOCKS5; the proxy resolves the endpoint's name. Without a port, 1080 |
/// | `socks5://host:port` | SOCKS5; the client resolves it, and passes the first address on |
///
/// A SOCKS5 proxy that knows no logins turns away a client that has one. Which refusals are retried
/// is said where they are, as at [`DialError::ProxyFailed`](crate::DialError::ProxyFailed).
///
/// ```
/// let proxy: resub::Proxy = "http://user:p%40ss@proxy.internal:3128".parse()?;
/// assert_eq!(proxy.to_string(), "http://proxy.internal:3128");
/// # Ok::<_, resub::BuildError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(docsrs, doc(cfg(feature = "proxy")))]
pub struct Proxy {
    kind: Kind,
    /// With a name and a password, if there are any, and with a port that is known.
    url: Url,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connect,
    Socks(Names),
}

/// Who resolves the endpoint's name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Here,
    There,
}

impl Proxy {
    /// Sets the name and the password to log in with, as they are. Default: those of the URL.
    ///
    /// For SOCKS5 they have 255 bytes each at most, or `build` fails, and about 240 together with
    /// the endpoint's host, or every dial does.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        // The URL takes what looks encoded for encoded.
        let encode = |text: &str| text.replace('%', "%25");
        // They fail where there is no host, and here is one.
        let _ = self.url.set_username(&encode(user));
        let _ = self.url.set_password(Some(&encode(password)));
        self
    }

    /// This proxy as hyper-util reads it.
    fn intercept(&self, target: &Uri) -> Result<Intercept, BuildError> {
        let matcher = Matcher::builder().all(self.url.as_str()).build();
        matcher.intercept(target).ok_or(BuildError::Proxy("not a URL"))
    }
}

impl FromStr for Proxy {
    type Err = BuildError;

    /// # Errors
    ///
    /// [`BuildError::Proxy`] if it is not a URL with a host, or its scheme is another one. A proxy
    /// that is itself reached by TLS (`https://`) is not supported.
    fn from_str(text: &str) -> Result<Self, BuildError> {
        let explicit =
            if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url = Url::parse(&explicit).map_err(|_| BuildError::Proxy("not a URL"))?;
        let (kind, port) = match url.scheme() {
            "http" => (Kind::Connect, None),
            "socks5" => (Kind::Socks(Names::Here), Some(1080)),
            "socks5h" => (Kind::Socks(Names::There), Some(1080)),
            "https" => {
                return Err(BuildError::Proxy(
                    "one that is itself reached by TLS is not supported",
                ));
            }
            _ => return Err(BuildError::Proxy("its scheme is none of http, socks5 and socks5h")),
        };
        let port = url.port().or(port);
        if url.host_str().is_none_or(str::is_empty) || url.set_port(port).is_err() {
            return Err(BuildError::Proxy("it has no host"));
        }
        // What is behind the host is not for a proxy.
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        let proxy = Self { kind, url };
        proxy.intercept(&Uri::from_static("http://endpoint/"))?;
        Ok(proxy)
    }
}

/// Without its login.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.url.scheme(), host(&self.url), port(&self.url))
    }
}

/// Without its login.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Of the client: an option, or else what the environment says.
#[derive(Clone, Debug, Default)]
pub(crate) enum Route {
    #[default]
    Environment,
    Direct,
    Through(Proxy),
}

impl Route {
    pub(crate) fn to(self, endpoint: &Url) -> Result<Option<Way>, BuildError> {
        let proxy = match self {
            Self::Environment => environment(endpoint, |name| std::env::var(name).ok())?,
            Self::Direct => None,
            Self::Through(proxy) => Some(proxy),
        };
        proxy.map(|proxy| Way::new(proxy, endpoint)).transpose()
    }
}

/// The endpoint in the form that hyper-util understands: it knows neither `ws` nor `wss`, and takes
/// 443 for a port that is not there.
fn target(endpoint: &Url) -> Result<Uri, BuildError> {
    let target = format!("http://{}:{}/", host(endpoint), port(endpoint)).parse();
    target.map_err(|_| BuildError::Proxy("the endpoint's host is none that it could be told"))
}

/// An IPv6 address in brackets.
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
    fn a_login_is_sent_as_it_was_given() {
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
    fn socks5_takes_no_login_that_is_too_long() {
        let endpoint = Url::parse("ws://example.com/").unwrap();
        let proxy: Proxy = "socks5h://proxy".parse().unwrap();
        let way = |login: usize| Way::new(proxy.clone().login(&"u".repeat(login), ""), &endpoint);
        assert!(way(255).is_ok());
        assert!(matches!(way(256), Err(BuildError::Proxy(_))));
    }

    #[test]
    fn what_is_no_proxy_is_told_so() {
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
