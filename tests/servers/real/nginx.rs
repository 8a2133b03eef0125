//! nginx terminating TLS in front of the server, offering HTTP/2 too: reloaded, killed, and without
//! a server behind it.

use std::{process::Command, sync::Arc, time::Duration};

use resub::{
    Certificates, Client, ClientBuilder, ConnectError, Disconnect, Pin, Status, Subscription, Tls,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use super::{
    after_items, assert_ticks,
    daemon::{Daemon, PRINTED, Place},
    start,
};
use crate::{
    fixture::TestServer,
    pair::{impatient, item, subscribe},
    raw::within,
    tls::authority::{Authority, Identity},
};

/// It, and the server behind it.
struct Nginx {
    authority: Authority,
    server: TestServer,
    place: Place,
    daemon: Option<Daemon>,
    /// A line of the configuration.
    shutdown: &'static str,
}

impl Nginx {
    /// At a reload, workers stay until their last connection ends.
    async fn start() -> Self {
        Self::start_with("").await
    }

    async fn start_with(shutdown: &'static str) -> Self {
        let authority = Authority::new();
        let mut nginx =
            Self { authority, server: start(), place: Place::new("nginx"), daemon: None, shutdown };
        nginx.renew();
        nginx.restart().await;
        nginx
    }

    async fn restart(&mut self) {
        self.daemon = None;
        self.daemon = Some(Daemon::start(&mut self.command(), &self.place).await);
    }

    fn kill(&mut self) {
        self.daemon.take().unwrap().kill();
    }

    /// A new certificate, which it uses from its next start or reload on.
    fn renew(&self) -> Identity {
        let identity = self.authority.certify("localhost");
        self.place.write("certificate.pem", &identity.certificate_pem);
        self.place.write("key.pem", &identity.key_pem);
        identity
    }

    fn reload(&self) {
        let output = self.command().args(["-s", "reload"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn command(&self) -> Command {
        let (dir, shutdown) = (self.place.dir().display(), self.shutdown);
        let config = format!(
            r"
            daemon off;
            pid nginx.pid;
            error_log errors info;
            worker_processes 1;
            {shutdown}
            events {{ worker_connections 64; }}
            http {{
                log_format agreed '$server_protocol $ssl_alpn_protocol $status';
                access_log {dir}/requests agreed;
                client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
                uwsgi_temp_path {dir}; scgi_temp_path {dir};
                server {{
                    listen {addr} ssl http2;
                    ssl_certificate {dir}/certificate.pem;
                    ssl_certificate_key {dir}/key.pem;
                    location / {{
                        proxy_pass http://{server};
                        proxy_http_version 1.1;
                        proxy_set_header Upgrade $http_upgrade;
                        proxy_set_header Connection upgrade;
                        proxy_buffering off;
                    }}
                }}
            }}
            ",
            addr = self.place.addr(),
            server = self.server.addr(),
        );
        self.place.write("nginx.conf", &config);
        let mut command = Command::new("nginx");
        command.args(["-p", &dir.to_string(), "-e", "errors", "-c", "nginx.conf"]);
        command
    }

    fn builder(&self) -> ClientBuilder {
        self.builder_with(|tls| tls)
    }

    fn builder_with(&self, further: impl FnOnce(Tls) -> Tls) -> ClientBuilder {
        let roots = Certificates::parse(self.authority.pem()).unwrap();
        let tls = further(Tls::new().only_roots(roots));
        impatient(&format!("wss://localhost:{}/graphql", self.place.addr().port())).tls(tls)
    }

    fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    /// Waits until it shows this certificate to new connections.
    async fn until_shown(&self, identity: &Identity) {
        let pin = Pin::of(&Certificates::parse(&identity.certificate_pem).unwrap()).unwrap();
        within(async {
            while self.builder_with(|tls| tls.pin(pin)).build().unwrap().connect().await.is_err() {}
        })
        .await;
    }

    /// What was spoken, and its answer, of each connection that is over.
    fn requests(&self) -> String {
        self.place.read("requests")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn a_listener_that_would_rather_speak_http_2_upgrades_over_http_1_1() {
    let nginx = Nginx::start().await;
    assert_eq!(preferred(&nginx).await, b"h2", "{}", nginx.place.read(PRINTED));
    let client = nginx.client();
    assert_ticks(&client).await;
    client.shutdown(Duration::from_secs(5)).await;
    // It logs a request when it is over.
    within(async {
        while !nginx.requests().contains("HTTP/1.1 http/1.1 101") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn a_reload_leaves_a_stream_alone_and_the_next_connection_gets_the_new_certificate() {
    let nginx = Nginx::start().await;
    let client = nginx.client();
    let mut numbers = forever(&client);
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    let renewed = nginx.renew();
    nginx.reload();
    nginx.until_shown(&renewed).await;
    for n in 1..20 {
        assert_eq!(item(&mut numbers).await, json!({ "forever": n }), "no gap");
    }
    // The old worker goes with its last connection.
    client.reconnect_now();
    assert!(matches!(after_items(&mut numbers).await.cause, Some(Disconnect::Requested)));
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn a_reload_that_waits_for_nobody_is_a_gap_and_items_follow_it() {
    let nginx = Nginx::start_with("worker_shutdown_timeout 100ms;").await;
    let client = nginx.client();
    let mut numbers = forever(&client);
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    for _ in 0..3 {
        nginx.renew();
        nginx.reload();
        let gap = after_items(&mut numbers).await;
        assert!(matches!(gap.cause, Some(Disconnect::Reset(_))) && gap.reconnects == 1, "{gap:?}");
        assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    }
    assert_eq!(client.stats().connections, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn a_stream_outlives_an_nginx_that_is_killed_and_comes_back() {
    let mut nginx = Nginx::start().await;
    let client = nginx.client();
    let mut numbers = forever(&client);
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    nginx.kill();
    let mut status = client.status();
    within(status.wait_for(|status| matches!(status, Status::Waiting { .. }))).await.unwrap();
    nginx.restart().await;
    let gap = after_items(&mut numbers).await;
    assert!(matches!(gap.cause, Some(Disconnect::Reset(_))), "{gap:?}");
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn an_nginx_without_its_server_answers_502_and_is_tried_until_it_has_one_again() {
    let nginx = Nginx::start().await;
    let client = nginx.client();
    let mut numbers = forever(&client);
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    nginx.server.kill();
    let mut status = client.status();
    let is_502 = |status: &Status| {
        let Status::Waiting {
            cause: Some(Disconnect::Connect(ConnectError::Http { status, body, .. })),
            ..
        } = status
        else {
            return false;
        };
        assert!(*status == 502 && body.contains("502 Bad Gateway"), "{status}: {body}");
        true
    };
    within(status.wait_for(is_502)).await.unwrap();
    nginx.server.restart();
    let gap = after_items(&mut numbers).await;
    assert!(matches!(gap.cause, Some(Disconnect::Reset(_))), "{gap:?}");
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
}

fn forever(client: &Client) -> Subscription<Value> {
    subscribe(client, "subscription { forever(everyMs: 5) }")
}

/// What it chooses of a client that speaks either.
async fn preferred(nginx: &Nginx) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    roots.add(nginx.authority.certificate().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let tcp = TcpStream::connect(nginx.place.addr()).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let tls =
        within(connector.connect(ServerName::try_from("localhost").unwrap(), tcp)).await.unwrap();
    tls.get_ref().1.alpn_protocol().unwrap().to_vec()
}
