//! The way through a proxy: hyper-util's connectors, over this crate's own TCP, so that what holds
//! for a connection to the server holds for one to the proxy as well.

use std::{
    io,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::{
    client::{
        legacy::connect::proxy::{SocksV5, Tunnel},
        proxy::matcher::Intercept,
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;
use url::Url;

use super::{
    Kind, Names, Proxy,
    overheard::{Answer, Overheard},
    target,
};
use crate::{
    error::{BuildError, DialError},
    transport::dial::tcp::{Tcp, locate},
};

/// From here to one endpoint, through one proxy.
pub(crate) struct Way {
    proxy: Proxy,
    /// The proxy as hyper-util reads it, with the login in the form that it is sent in.
    intercept: Intercept,
    /// The endpoint, as the proxy is told.
    target: Uri,
}

impl Way {
    pub(super) fn new(proxy: Proxy, endpoint: &Url) -> Result<Self, BuildError> {
        let target = target(endpoint)?;
        let intercept = proxy.intercept(&target)?;
        let is_long = |text: &str| u8::try_from(text.len()).is_err();
        if intercept.raw_auth().is_some_and(|(user, password)| is_long(user) || is_long(password)) {
            return Err(BuildError::Proxy("SOCKS5 takes names and passwords of 255 bytes at most"));
        }
        Ok(Self { proxy, intercept, target })
    }

    /// A connection to the endpoint's host, whose addresses count where the name is resolved here.
    pub(crate) async fn connect(
        &self,
        tcp: Tcp,
        endpoint: &Url,
        addresses: &[IpAddr],
    ) -> Result<TcpStream, DialError> {
        let answer = Answer::default();
        let connector = TcpConnector { tcp, to: self.proxy.url.clone(), answer: answer.clone() };
        let uri = self.intercept.uri().clone();
        // Neither waits to be ready, as the connector does not.
        let passed = match self.proxy.kind {
            Kind::Connect => {
                let mut tunnel = Tunnel::new(uri, connector);
                if let Some(login) = self.intercept.basic_auth() {
                    tunnel = tunnel.with_auth(login.clone());
                }
                tunnel
                    .call(self.target.clone())
                    .await
                    .map_err(|error| self.no_tunnel(error, answer.status()))
            }
            Kind::Socks(names) => {
                let mut socks = SocksV5::new(uri, connector);
                if let Some((user, password)) = self.intercept.raw_auth() {
                    socks = socks.with_auth(user.to_owned(), password.to_owned());
                }
                let target = match names {
                    Names::There => self.target.clone(),
                    Names::Here => resolved(endpoint, addresses).await?,
                };
                socks.call(target).await.map_err(|error| self.no_socks(error))
            }
        };
        passed.map(|passed| passed.into_inner().into_inner())
    }

    fn no_tunnel(&self, error: TunnelError, status: Option<u16>) -> DialError {
        match error {
            TunnelError::ConnectFailed(error) => match error.downcast() {
                Ok(error) => self.unreachable(*error),
                Err(error) => DialError::Other(error.into()),
            },
            TunnelError::Io(error) => self.hung_up(error),
            TunnelError::TunnelUnexpectedEof => self.hung_up(io::ErrorKind::UnexpectedEof.into()),
            TunnelError::ProxyAuthRequired => DialError::ProxyAuthRequired,
            TunnelError::TunnelUnsuccessful => match status {
                // An origin server's word, but tinyproxy says it of a wrong login.
                Some(401) => DialError::ProxyAuthRequired,
                Some(200) | None => {
                    DialError::ProxyFailed { reason: "its answer is not valid HTTP".into() }
                }
                Some(status) => {
                    DialError::ProxyFailed { reason: format!("its answer is HTTP {status}") }
                }
            },
            other => DialError::ProxyFailed { reason: other.to_string() },
        }
    }

    fn no_socks(&self, error: SocksError) -> DialError {
        match error {
            SocksError::Inner(error) => self.unreachable(error),
            SocksError::Io(error) => self.hung_up(error),
            SocksError::V5(reply) => refusal(reply.to_string()),
            // Some proxies have replies of their own, which may pass.
            SocksError::Parsing(_) => {
                DialError::ProxyFailed { reason: "its answer is not one of SOCKS5".into() }
            }
            SocksError::Serialize(_) => DialError::ProxyRefused {
                reason: "the login and the endpoint's host are too long together".into(),
            },
            other => DialError::ProxyFailed { reason: other.to_string() },
        }
    }

    fn hung_up(&self, error: io::Error) -> DialError {
        self.unreachable(DialError::Connect(Arc::new(error)))
    }

    fn unreachable(&self, error: DialError) -> DialError {
        DialError::ProxyUnreachable { proxy: self.proxy.to_string(), source: Arc::new(error) }
    }
}

/// The endpoint by its first address. hyper-util would ask the resolver on this thread, which is
/// the runtime's.
async fn resolved(endpoint: &Url, addresses: &[IpAddr]) -> Result<Uri, DialError> {
    let found = locate(endpoint, addresses).await?;
    let address = found.first().map(ToString::to_string).unwrap_or_default();
    format!("http://{address}/")
        .parse()
        .map_err(|error: http::uri::InvalidUri| DialError::Permanent(Arc::new(error)))
}

/// What a proxy's reply means. Of these errors hyper-util shows nothing but the text; one that it
/// words anew is retried.
fn refusal(reason: String) -> DialError {
    match reason.as_str() {
        "server does not support user/pass authentication"
        | "server implements authentication incorrectly"
        | "credentials not accepted" => DialError::ProxyAuthRequired,
        "connection not allowed" | "command not supported" | "address type not supported" => {
            DialError::ProxyRefused { reason }
        }
        _ => DialError::ProxyFailed { reason },
    }
}

/// hyper-util's errors have no public name, but public variants.
type TunnelError = <Tunnel<TcpConnector> as Service<Uri>>::Error;
type SocksError = <SocksV5<TcpConnector> as Service<Uri>>::Error;

/// [`Tcp`] in the form that hyper-util builds upon. Where to is its own matter, not the caller's.
struct TcpConnector {
    tcp: Tcp,
    to: Url,
    answer: Answer,
}

impl Service<Uri> for TcpConnector {
    type Response = TokioIo<Overheard>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Self::Response, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (tcp, to, answer) = (self.tcp, self.to.clone(), self.answer.clone());
        Box::pin(async move {
            let tcp = tcp.connect(locate(&to, &[]).await?).await?;
            Ok(TokioIo::new(Overheard::new(tcp, answer)))
        })
    }
}

#[cfg(test)]
#[cfg(any(target_os = "android", target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn the_options_of_tcp_hold_for_the_connection_to_the_proxy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy: Proxy = listener.local_addr().unwrap().to_string().parse().unwrap();
        let endpoint = Url::parse("wss://market.invalid/").unwrap();
        let admitting = async {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = [0; 512];
            let read = client.read(&mut head).await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        };
        let idle = Duration::from_secs(60);
        let tcp = Tcp { nodelay: true, keepalive: Some(idle), user_timeout: Some(idle) };
        let way = Way::new(proxy, &endpoint).unwrap();
        let (head, stream) = tokio::join!(admitting, way.connect(tcp, &endpoint, &[]));
        assert_eq!(head, "CONNECT market.invalid:443 HTTP/1.1\r\nHost: market.invalid:443\r\n\r\n");
        let stream = stream.unwrap();
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap());
        assert_eq!(
            (socket.tcp_keepalive_time().unwrap(), socket.tcp_user_timeout().unwrap()),
            (idle, Some(idle))
        );
    }
}
