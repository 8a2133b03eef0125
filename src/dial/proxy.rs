//! Proxies: what one is, which one to use, and the way through it.
//!
//! Credentials of a proxy are in no output.

mod connect;
mod environment;
mod socks;

use std::{fmt, io, str::FromStr, sync::Arc};

use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use url::{Host, Url};

pub(crate) use self::environment::environment;
use super::tcp::{Tcp, lookup, port};
use crate::error::{BuildError, DialError};

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
/// ```
/// let proxy: resub::Proxy = "http://user:p%40ss@proxy.internal:3128".parse()?;
/// assert_eq!(proxy.to_string(), "http://proxy.internal:3128");
/// # Ok::<_, resub::BuildError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(docsrs, doc(cfg(feature = "proxy")))]
pub struct Proxy {
    kind: Kind,
    /// Without a name and a password.
    url: Url,
    port: u16,
    login: Option<Login>,
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

/// Who the client is to the proxy.
#[derive(Clone, PartialEq, Eq)]
struct Login {
    user: String,
    password: String,
}

impl Proxy {
    /// Sets the name and the password to log in with, as they are. Default: those of the URL.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some(Login { user: user.to_owned(), password: password.to_owned() });
        self
    }

    /// A connection to the endpoint's host.
    pub(super) async fn connect(&self, tcp: Tcp, endpoint: &Url) -> Result<TcpStream, DialError> {
        let mut stream = tcp.connect(&self.url, self.port).await.map_err(|error| self.unreachable(error))?;
        let login = self.login.as_ref();
        let passed = match self.kind {
            Kind::Connect => connect::pass(&mut stream, &host(endpoint), port(endpoint), login).await,
            Kind::Socks(names) => {
                let target = socks::Target::of(endpoint, names).await?;
                socks::pass(&mut stream, &target, port(endpoint), login).await
            }
        };
        match passed {
            Ok(()) => Ok(stream),
            Err(Refusal::Login) => Err(DialError::ProxyAuthRequired),
            Err(Refusal::Passing(reason)) => Err(DialError::ProxyFailed { reason }),
            Err(Refusal::Lasting(reason)) => Err(DialError::ProxyRefused { reason }),
            Err(Refusal::Io(error)) => Err(self.unreachable(DialError::Connect(Arc::new(error)))),
        }
    }

    fn unreachable(&self, error: DialError) -> DialError {
        DialError::ProxyUnreachable { proxy: self.to_string(), source: Arc::new(error) }
    }
}

/// Why a proxy did not let the client through.
enum Refusal {
    Login,
    Passing(String),
    Lasting(String),
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl FromStr for Proxy {
    type Err = BuildError;

    /// # Errors
    ///
    /// [`BuildError::Proxy`] if it is not a URL with a host, or its scheme is another one. A proxy that is itself reached by TLS
    /// (`https://`) is not supported.
    fn from_str(text: &str) -> Result<Self, BuildError> {
        let explicit = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url = Url::parse(&explicit).map_err(|_| BuildError::Proxy("not a URL"))?;
        let (kind, port) = match url.scheme() {
            "http" => (Kind::Connect, 80),
            "socks5" => (Kind::Socks(Names::Here), 1080),
            "socks5h" => (Kind::Socks(Names::There), 1080),
            _ => return Err(BuildError::Proxy("its scheme is none of http, socks5 and socks5h")),
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(BuildError::Proxy("it has no host"));
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some(Login { user: decode(user), password: decode(password.unwrap_or_default()) }),
        };
        if url.set_username("").and_then(|()| url.set_password(None)).is_err() {
            return Err(BuildError::Proxy("it has no host"));
        }
        if login.as_ref().is_some_and(|login| kind != Kind::Connect && !login.fits_socks()) {
            return Err(BuildError::Proxy("SOCKS5 takes names and passwords of 255 bytes at most"));
        }
        let port = url.port().unwrap_or(port);
        Ok(Self { kind, url, port, login })
    }
}

impl Login {
    fn fits_socks(&self) -> bool {
        u8::try_from(self.user.len()).is_ok() && u8::try_from(self.password.len()).is_ok()
    }
}

/// Without its login.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.url.scheme(), host(&self.url), self.port)
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
    pub(crate) fn to(self, endpoint: &Url) -> Result<Option<Proxy>, BuildError> {
        match self {
            Self::Environment => environment(endpoint, |name| std::env::var(name).ok()),
            Self::Direct => Ok(None),
            Self::Through(proxy) => Ok(Some(proxy)),
        }
    }
}

/// An IPv6 address in brackets.
fn host(url: &Url) -> String {
    url.host().as_ref().map(Host::to_string).unwrap_or_default()
}
