//! The default dialer: name resolution and TCP, then TLS if the scheme is `wss`.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use url::{Host, Url};

use super::{BoxedIo, DialFuture, Dialer, race::race};
use crate::error::DialError;

/// Connects by TCP, and adds TLS for `wss`. Resolves the name at every attempt.
pub(crate) struct NetDialer {
    pub(crate) tcp: Tcp,
    /// The addresses of the endpoint's host. If empty, the resolver is asked.
    pub(crate) addresses: Vec<IpAddr>,
    #[cfg(feature = "_tls")]
    pub(crate) tls: Option<super::tls::TlsStep>,
    #[cfg(feature = "proxy")]
    pub(crate) proxy: Option<super::ProxyConnector>,
}

/// Options of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp {
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) user_timeout: Option<Duration>,
}

impl Dialer for NetDialer {
    fn dial<'a>(&'a self, endpoint: &'a Url) -> DialFuture<'a> {
        Box::pin(async move {
            let tcp = self.connect(endpoint).await?;
            #[cfg(feature = "_tls")]
            if let Some(tls) = &self.tls {
                return tls.handshake(endpoint, tcp).await;
            }
            Ok(Box::new(tcp) as BoxedIo)
        })
    }
}

impl NetDialer {
    async fn connect(&self, endpoint: &Url) -> Result<TcpStream, DialError> {
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.proxy {
            return proxy.connect(self.tcp, endpoint, &self.addresses).await;
        }
        self.tcp.connect(resolve(endpoint, &self.addresses).await?).await
    }

    /// Whether data for the endpoint stays on this machine, as far as that can be known without
    /// asking the resolver.
    pub(crate) fn stays_here(&self, endpoint: &Url) -> bool {
        // A proxy on this machine leads to other machines as well.
        #[cfg(feature = "proxy")]
        if self.proxy.is_some() {
            return false;
        }
        let is_local = |address: IpAddr| address.to_canonical().is_loopback();
        if !self.addresses.is_empty() {
            return self.addresses.iter().copied().all(is_local);
        }
        match endpoint.host() {
            // These names always stand for loopback addresses (RFC 6761 section 6.3).
            Some(Host::Domain(name)) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                name == "localhost" || name.ends_with(".localhost")
            }
            Some(Host::Ipv4(address)) => is_local(address.into()),
            Some(Host::Ipv6(address)) => is_local(address.into()),
            None => false,
        }
    }
}

impl Tcp {
    /// Connects to one of the addresses.
    pub(super) async fn connect(self, addresses: Vec<SocketAddr>) -> Result<TcpStream, DialError> {
        let tcp = race(addresses, TcpStream::connect).await.map_err(connect_error)?;
        self.configure(&tcp).map_err(connect_error)?;
        Ok(tcp)
    }

    fn configure(self, tcp: &TcpStream) -> io::Result<()> {
        tcp.set_nodelay(self.nodelay)?;
        let socket = SockRef::from(tcp);
        if let Some(idle) = self.keepalive {
            let keepalive = TcpKeepalive::new().with_time(idle);
            #[cfg(any(
                target_os = "android",
                target_os = "freebsd",
                target_os = "ios",
                target_os = "linux",
                target_os = "macos",
                target_os = "windows",
            ))]
            // The option is in seconds, and 0 is not allowed.
            let keepalive = keepalive
                .with_interval((idle / PROBES).max(Duration::from_secs(1)))
                .with_retries(PROBES);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(any(target_os = "android", target_os = "linux"))]
        if let Some(timeout) = self.user_timeout {
            socket.set_tcp_user_timeout(Some(timeout))?;
        }
        Ok(())
    }
}

pub(super) fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or_default()
}

/// Returns the addresses of a URL's host, at least one: those that are given, or else those of the
/// resolver.
pub(super) async fn resolve(url: &Url, given: &[IpAddr]) -> Result<Vec<SocketAddr>, DialError> {
    let port = port(url);
    if !given.is_empty() {
        return Ok(given.iter().map(|&address| (address, port).into()).collect());
    }
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => String::new(),
    };
    let found = lookup_host((host.as_str(), port)).await.map(Iterator::collect::<Vec<_>>);
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let found = found.and_then(|found| if found.is_empty() { Err(none()) } else { Ok(found) });
    found.map_err(|source| DialError::Resolve { host, source: Arc::new(source) })
}

fn connect_error(error: io::Error) -> DialError {
    DialError::Connect(Arc::new(error))
}

/// After how many unanswered probes the kernel drops the connection. They are sent a fraction of
/// the idle time apart.
const PROBES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_stays_on_this_machine() {
        let stays_here = |host: &str, addresses: &[&str]| {
            let tcp = Tcp { nodelay: true, keepalive: None, user_timeout: None };
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let dialer = NetDialer {
                tcp,
                addresses,
                #[cfg(feature = "_tls")]
                tls: None,
                #[cfg(feature = "proxy")]
                proxy: None,
            };
            dialer.stays_here(&Url::parse(&format!("ws://{host}/")).unwrap())
        };
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(stays_here(host, &[]), "{host}");
            assert!(!stays_here(host, &["192.0.2.1"]), "{host}");
        }
        for host in [
            "example.com",
            "notlocalhost",
            "localhost.example",
            "192.0.2.1",
            "0.0.0.0",
            "[2001:db8::1]",
        ] {
            assert!(!stays_here(host, &[]), "{host}");
            assert!(stays_here(host, &["127.0.0.1", "::1"]), "{host}");
            assert!(!stays_here(host, &["127.0.0.1", "192.0.2.1"]), "{host}");
        }
    }
}

#[cfg(test)]
#[cfg(any(target_os = "android", target_os = "linux"))]
mod socket_tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_options_are_set_on_the_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("ws://{}/", listener.local_addr().unwrap())).unwrap();
        let secs = Duration::from_secs;
        let options =
            Tcp { nodelay: true, keepalive: Some(secs(60)), user_timeout: Some(secs(30)) };
        let tcp = options.connect(resolve(&url, &[]).await.unwrap()).await.unwrap();
        let socket = SockRef::from(&tcp);
        assert!(tcp.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(
            (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap()),
            (secs(60), secs(15))
        );
        assert_eq!(
            (socket.tcp_keepalive_retries().unwrap(), socket.tcp_user_timeout().unwrap()),
            (4, Some(secs(30)))
        );

        let tcp = Tcp { nodelay: false, keepalive: None, user_timeout: None }
            .connect(resolve(&url, &[]).await.unwrap())
            .await
            .unwrap();
        let socket = SockRef::from(&tcp);
        assert!(!tcp.nodelay().unwrap() && !socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }

    /// A listener whose backlog is full, so that the kernel drops further requests to connect.
    struct Full {
        addr: SocketAddr,
        _held: Vec<socket2::Socket>,
    }

    impl Full {
        fn new() -> Self {
            use socket2::{Domain, Socket, Type};
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            listener.listen(0).unwrap();
            let addr = listener.local_addr().unwrap();
            let mut held = vec![listener];
            // The backlog has room for one or two. Further attempts hang.
            for _ in 0..4 {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&addr);
                held.push(socket);
            }
            Self { addr: addr.as_socket().unwrap(), _held: held }
        }
    }

    #[tokio::test]
    async fn a_good_address_wins_against_one_that_hangs() {
        let full = Full::new();
        let hangs =
            tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(full.addr)).await;
        assert!(hangs.is_err(), "the backlog is full");
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = good.local_addr().unwrap();
        let raced = race([full.addr, good], TcpStream::connect);
        // Without the second address, the kernel would try for more than two minutes.
        let tcp = tokio::time::timeout(Duration::from_secs(30), raced)
            .await
            .expect("the other one is tried")
            .unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn a_good_address_wins_against_one_that_refuses() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = good.local_addr().unwrap();
        assert_eq!(
            race([gone, good], TcpStream::connect).await.unwrap().peer_addr().unwrap(),
            good
        );
        assert_eq!(
            race([gone], TcpStream::connect).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
