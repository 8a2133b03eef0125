//! What stands in front of a server and terminates TLS, as a load balancer does. Remembers what it
//! saw.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    select,
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection, SupportedProtocolVersion,
        crypto::ring,
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};

use super::authority::Identity;

/// Forwards to a server behind it, until it is dropped.
pub(crate) struct Front {
    addr: SocketAddr,
    log: watch::Sender<Log>,
    cut: Arc<Notify>,
    accepting: AbortHandle,
}

/// What a handshake came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) version: ProtocolVersion,
    /// The host name that the client asked for (SNI).
    pub(crate) name: Option<String>,
    /// The protocol to be spoken inside (ALPN).
    pub(crate) protocol: Option<String>,
    pub(crate) resumed: bool,
}

#[derive(Default)]
struct Log {
    /// Of everyone who connected, with or without a handshake.
    peers: Vec<SocketAddr>,
    /// Of those whose handshake ended well.
    agreed: Vec<Agreed>,
}

impl Front {
    pub(crate) async fn start(
        identity: Identity,
        versions: &[&'static SupportedProtocolVersion],
        server: SocketAddr,
    ) -> Self {
        Self::start_asking(identity, versions, WebPkiClientVerifier::no_client_auth(), server).await
    }

    /// Of its clients it demands what the verifier says.
    pub(crate) async fn start_asking(
        identity: Identity,
        versions: &[&'static SupportedProtocolVersion],
        clients: Arc<dyn ClientCertVerifier>,
        server: SocketAddr,
    ) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let mut config = builder
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![identity.certificate], identity.key)
            .unwrap();
        // As load balancers do it: their own preference decides among what the client offers.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (log, cut) = (watch::Sender::default(), Arc::new(Notify::new()));
        let line = Line {
            acceptor: Arc::new(config).into(),
            server,
            log: log.clone(),
            cut: Arc::clone(&cut),
        };
        let accepting = tokio::spawn(accept(listener, line)).abort_handle();
        Self { addr, log, cut, accepting }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// For a client that calls it by this name.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("wss://{name}:{}/graphql", self.addr.port())
    }

    /// Resets every connection: neither WebSocket nor TLS says goodbye.
    pub(crate) fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// How often it was dialed until now. Connections are accepted in their order, so once one of
    /// our own has been, all before it have been, too.
    pub(crate) async fn dialed(&self) -> usize {
        let own = TcpStream::connect(self.addr).await.unwrap();
        let own = own.local_addr().unwrap();
        let mut log = self.log.subscribe();
        let accepted = log.wait_for(|log| log.peers.contains(&own));
        let log =
            timeout(Duration::from_secs(60), accepted).await.expect("the front accepts").unwrap();
        log.peers.iter().filter(|peer| **peer != own).count()
    }

    pub(crate) fn agreed(&self) -> Vec<Agreed> {
        self.log.borrow().agreed.clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, line: Line) {
    // Ends them with itself.
    let mut lines = JoinSet::new();
    loop {
        let (tcp, peer) = listener.accept().await.unwrap();
        line.log.send_modify(|log| log.peers.push(peer));
        lines.spawn(line.clone().forward(tcp));
    }
}

/// All that one connection needs.
#[derive(Clone)]
struct Line {
    acceptor: TlsAcceptor,
    server: SocketAddr,
    log: watch::Sender<Log>,
    cut: Arc<Notify>,
}

impl Line {
    async fn forward(self, tcp: TcpStream) {
        // From here on no cut is missed.
        let cut = self.cut.notified();
        // A client that does not like the certificate leaves; it is the client's side that is
        // tested.
        let Ok(mut tls) = self.acceptor.accept(tcp).await else { return };
        let agreed = Agreed::of(tls.get_ref().1);
        self.log.send_modify(|log| log.agreed.push(agreed));
        let mut server = TcpStream::connect(self.server).await.unwrap();
        select! {
            // How either side ends it is theirs.
            _ = copy_bidirectional(&mut tls, &mut server) => {}
            () = cut => tls.get_ref().0.set_zero_linger().unwrap(),
        }
    }
}

impl Agreed {
    fn of(connection: &ServerConnection) -> Self {
        Self {
            version: connection.protocol_version().unwrap(),
            name: connection.server_name().map(str::to_owned),
            protocol: connection
                .alpn_protocol()
                .map(|name| String::from_utf8(name.to_vec()).unwrap()),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}
