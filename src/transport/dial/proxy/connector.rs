//! Connects through a proxy.
//!
//! Uses hyper-util's connectors over this crate's own [`Tcp`], so that the options of TCP and the
//! choice of an address apply to the connection to the proxy as well.

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
    NameResolution, Protocol, Proxy,
    status_tap::{AnswerStart, StatusTap},
    target,
};
use crate::{
    error::{BuildError, DialError},
    transport::dial::tcp::{Tcp, resolve},
};

/// Connects to one endpoint through one proxy.
pub(crate) struct ProxyConnector {
    proxy: Proxy,
    /// The proxy in the form that hyper-util uses, with the encoded login.
    intercept: Intercept,
    /// The endpoint that the proxy is asked to connect to.
    target: Uri,
}

impl ProxyConnector {
    pub(super) fn new(proxy: Proxy, endpoint: &Url) -> Result<Self, BuildError> {
        let target = target(endpoint)?;
        let intercept = proxy.intercept(&target)?;
        let is_long = |text: &str| u8::try_from(text.len()).is_err();
        if intercept.raw_auth().is_some_and(|(user, password)| is_long(user) || is_long(password)) {
            return Err(BuildError::Proxy("SOCKS5 takes names and passwords of 255 bytes at most"));
        }
        Ok(Self { proxy, intercept, target })
    }

    /// Connects to the endpoint's host. `addresses` are those of the endpoint, and are used only if
    /// the client resolves the name.
    pub(crate) async fn connect(
        &self,
        tcp: Tcp,
        endpoint: &Url,
        addresses: &[IpAddr],
    ) -> Result<TcpStream, DialError> {
        let answer = AnswerStart::default();
        let connector = TcpConnector { tcp, to: self.proxy.url.clone(), answer: answer.clone() };
        let uri = self.intercept.uri().clone();
        // `poll_ready` need not be called, because `TcpConnector` is always ready.
        let tunnelled = match self.proxy.protocol {
            Protocol::Connect => {
                let mut tunnel = Tunnel::new(uri, connector);
                if let Some(login) = self.intercept.basic_auth() {
                    tunnel = tunnel.with_auth(login.clone());
                }
                tunnel
                    .call(self.target.clone())
                    .await
                    .map_err(|error| self.http_error(error, answer.status()))
            }
            Protocol::Socks5(resolution) => {
                let mut socks = SocksV5::new(uri, connector);
                if let Some((user, password)) = self.intercept.raw_auth() {
                    socks = socks.with_auth(user.to_owned(), password.to_owned());
                }
                let target = match resolution {
                    NameResolution::ByProxy => self.target.clone(),
                    NameResolution::Local => resolved_target(endpoint, addresses).await?,
                };
                socks.call(target).await.map_err(|error| self.socks_error(error))
            }
        };
        tunnelled.map(|tunnelled| tunnelled.into_inner().into_inner())
    }

    fn http_error(&self, error: TunnelError, status: Option<u16>) -> DialError {
        match error {
            TunnelError::ConnectFailed(error) => match error.downcast() {
                Ok(error) => self.unreachable(*error),
                Err(error) => DialError::Other(error.into()),
            },
            TunnelError::Io(error) => self.io_error(error),
            TunnelError::TunnelUnexpectedEof => self.io_error(io::ErrorKind::UnexpectedEof.into()),
            TunnelError::ProxyAuthRequired => DialError::ProxyAuthRequired,
            TunnelError::TunnelUnsuccessful => match status {
                // 401 is meant for origin servers, but tinyproxy answers a wrong login with it.
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

    fn socks_error(&self, error: SocksError) -> DialError {
        match error {
            SocksError::Inner(error) => self.unreachable(error),
            SocksError::Io(error) => self.io_error(error),
            SocksError::V5(reply) => socks_reply(reply.to_string()),
            // Retried: some proxies have reply codes of their own, which may be temporary.
            SocksError::Parsing(_) => {
                DialError::ProxyFailed { reason: "its answer is not one of SOCKS5".into() }
            }
            SocksError::Serialize(_) => DialError::ProxyRefused {
                reason: "the login and the endpoint's host are too long together".into(),
            },
            other => DialError::ProxyFailed { reason: other.to_string() },
        }
    }

    fn io_error(&self, error: io::Error) -> DialError {
        self.unreachable(DialError::Connect(Arc::new(error)))
    }

    fn unreachable(&self, error: DialError) -> DialError {
        DialError::ProxyUnreachable { proxy: self.proxy.to_string(), source: Arc::new(error) }
    }
}

/// Returns the endpoint with its first address in place of its name. If hyper-util resolved the
/// name itself, it would block this thread, which belongs to the runtime.
async fn resolved_target(endpoint: &Url, addresses: &[IpAddr]) -> Result<Uri, DialError> {
    let found = resolve(endpoint, addresses).await?;
    let address = found.first().map(ToString::to_string).unwrap_or_default();
    format!("http://{address}/")
        .parse()
        .map_err(|error: http::uri::InvalidUri| DialError::Permanent(Arc::new(error)))
}

/// Classifies the reply of a SOCKS5 proxy by its text, as hyper-util shows nothing else. A text
/// that is not known, such as one that hyper-util has reworded, is retried.
fn socks_reply(reason: String) -> DialError {
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

/// These errors of hyper-util have no public name, although their variants are public.
type TunnelError = <Tunnel<TcpConnector> as Service<Uri>>::Error;
type SocksError = <SocksV5<TcpConnector> as Service<Uri>>::Error;

/// Adapts [`Tcp`] to hyper-util's connectors. It connects to the proxy, and ignores the URI that
/// they pass.
struct TcpConnector {
    tcp: Tcp,
    to: Url,
    answer: AnswerStart,
}

impl Service<Uri> for TcpConnector {
    type Response = TokioIo<StatusTap>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Self::Response, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (tcp, to, answer) = (self.tcp, self.to.clone(), self.answer.clone());
        Box::pin(async move {
            let tcp = tcp.connect(resolve(&to, &[]).await?).await?;
            Ok(TokioIo::new(StatusTap::new(tcp, answer)))
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
    async fn the_options_of_tcp_apply_to_the_connection_to_the_proxy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy: Proxy = listener.local_addr().unwrap().to_string().parse().unwrap();
        let endpoint = Url::parse("wss://market.invalid/").unwrap();
        let accept = async {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = [0; 512];
            let read = client.read(&mut head).await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        };
        let idle = Duration::from_secs(60);
        let tcp = Tcp { nodelay: true, keepalive: Some(idle), user_timeout: Some(idle) };
        let connector = ProxyConnector::new(proxy, &endpoint).unwrap();
        let (head, stream) = tokio::join!(accept, connector.connect(tcp, &endpoint, &[]));
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
