//! Whom the client trusts, and what it shows of itself: real TLS on the loopback interface, on
//! certificates made for each test.

#[path = "../live_feed/tls/authority.rs"]
#[allow(dead_code, reason = "shared with tests/live_feed")]
pub(crate) mod authority;
#[path = "../live_feed/tls/front.rs"]
#[allow(dead_code, reason = "shared with tests/live_feed")]
mod front;
mod identity;
mod input;

use std::{env, process::Command, sync::Arc};

use resub::{
    Certificates, Client, ConnectError, DialError, Disconnect, Pin, PrivateKey, Proxy,
    SubscriptionError, Tls,
};
use serde_json::json;
use tokio_rustls::rustls::{self, ALL_VERSIONS, SupportedProtocolVersion, crypto::ring};

use self::{
    authority::{Authority, Identity},
    front::Front,
};
use crate::{
    fixture::{Options, TestServer},
    pair::{Server, end, gap, impatient, item, subscribe, text},
    proxy::stand::{Manner, Stand},
};

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_as_pem_and_as_der() {
    let (authority, other) = (Authority::new(), Authority::new());
    let secure = Secure::start(authority.certify("localhost")).await;
    let several = format!("Of two\n{}{}", other.pem(), authority.pem());
    let file = Certificates::from_file(authority.roots()).unwrap();
    for roots in [certificates(several), certificates(authority.certificate()), file] {
        secure.assert_served(Tls::new().only_roots(roots.clone())).await;
        secure
            .assert_served(Tls::new().only_roots(certificates(other.pem())).roots(roots.clone()))
            .await;
    }
    let agreed = secure.front.agreed();
    assert!(agreed.iter().all(|agreed| agreed.name.as_deref() == Some("localhost")), "{agreed:?}");
    assert!(
        agreed.iter().all(|agreed| agreed.protocol.as_deref() == Some("http/1.1")),
        "{agreed:?}"
    );
}

/// The platform trusts what the environment says, so this test runs in a process of its own, too.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn own_roots_are_trusted_beside_those_of_the_platform_or_instead() {
    if env::var_os(INNER).is_none() {
        let authority = Authority::new();
        let certified = authority.certify("localhost");
        let inner = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "tls::own_roots_are_trusted_beside_those_of_the_platform_or_instead",
                "--nocapture",
            ])
            .env("SSL_CERT_FILE", authority.roots())
            .env("SSL_CERT_DIR", "/no/such/directory")
            .env(INNER, format!("{}{}", certified.certificate_pem, certified.key_pem))
            .output()
            .unwrap();
        assert!(inner.status.success(), "{}", String::from_utf8_lossy(&inner.stderr));
        return;
    }
    let own = Authority::new();
    let known = Secure::start(Identity::from_pem(&env::var(INNER).unwrap())).await;
    let private = Secure::start(own.certify("localhost")).await;

    known.assert_served(Tls::new()).await;
    assert!(matches!(private.refused(Tls::new()).await, DialError::UnknownIssuer(_)));

    let beside = Tls::new().roots(certificates(own.pem()));
    known.assert_served(beside.clone()).await;
    private.assert_served(beside).await;

    let instead = Tls::new().only_roots(certificates(own.pem()));
    assert!(matches!(known.refused(instead.clone()).await, DialError::UnknownIssuer(_)));
    private.assert_served(instead).await;
}

#[tokio::test]
async fn each_flaw_of_a_certificate_is_an_error_of_its_own_and_fatal() {
    let (authority, unknown) = (Authority::new(), Authority::new());
    for versions in [ALL_VERSIONS, TLS12] {
        let refused = async |identity| {
            Secure::start_speaking(identity, versions).await.refused(trusting(&authority)).await
        };
        let error = refused(unknown.certify("localhost")).await;
        assert!(matches!(error, DialError::UnknownIssuer(_)), "{error:?}");
        let error = refused(authority.certify_the_past("localhost")).await;
        assert!(matches!(error, DialError::Expired(_)), "{error:?}");
        let error = refused(authority.certify_the_future("localhost")).await;
        assert!(matches!(error, DialError::NotYetValid(_)), "{error:?}");
        let error = refused(authority.certify("example.com")).await;
        assert!(matches!(error, DialError::WrongName(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_pinned_key_is_accepted_and_another_is_not() {
    let authority = Authority::new();
    let (current, next) = (authority.certify("localhost"), authority.certify("localhost"));
    let (pin, next_pin) = (pin(&current), pin(&next));
    let before = Secure::start(current).await;
    before.assert_served(trusting(&authority).pin(pin)).await;
    before.assert_served(trusting(&authority).pin(next_pin).pin(pin)).await;

    let DialError::PinMismatch { found } = before.refused(trusting(&authority).pin(next_pin)).await
    else {
        panic!()
    };
    assert_eq!(found, pin.to_string());

    // The server rotates its key.
    let after = Secure::start(next).await;
    after.assert_served(trusting(&authority).pin(pin).pin(next_pin)).await;
    let error = after.refused(trusting(&authority).pin(pin)).await;
    assert_eq!(
        text(&error),
        format!("the server's key is not one that is pinned: it is {next_pin}")
    );
}

#[tokio::test]
async fn a_pin_replaces_no_other_check() {
    let (authority, unknown) = (Authority::new(), Authority::new());
    let refused = async |identity: Identity| {
        let tls = trusting(&authority).pin(pin(&identity));
        Secure::start(identity).await.refused(tls).await
    };
    let error = refused(unknown.certify("localhost")).await;
    assert!(matches!(error, DialError::UnknownIssuer(_)), "{error:?}");
    let error = refused(authority.certify_the_past("localhost")).await;
    assert!(matches!(error, DialError::Expired(_)), "{error:?}");
    let error = refused(authority.certify("example.com")).await;
    assert!(matches!(error, DialError::WrongName(_)), "{error:?}");
}

#[tokio::test]
async fn a_configuration_of_rustls_is_used_as_it_is() {
    let authority = Authority::new();
    let secure = Secure::start(authority.certify("localhost")).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(TLS12)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let client = impatient(&secure.url()).tls_rustls_0_23(Arc::new(config)).build().unwrap();
    assert_ticks(&client).await;
    assert_eq!(secure.front.agreed()[0].version, rustls::ProtocolVersion::TLSv1_2);
}

#[tokio::test]
async fn tls_goes_through_a_proxy_to_the_server_that_is_behind_it() {
    let authority = Authority::new();
    let secure = Secure::start(authority.certify("market.invalid")).await;
    for (manner, scheme) in [(Manner::ConnectLogin, "http"), (Manner::SocksLogin, "socks5h")] {
        let stand = Stand::start(manner, secure.front.addr()).await;
        let proxy: Proxy =
            format!("{scheme}://Aladdin:open%20sesame@{}", stand.addr()).parse().unwrap();
        let builder =
            impatient("wss://market.invalid/graphql").tls(trusting(&authority)).proxy(proxy);
        assert_ticks(&builder.build().unwrap()).await;
        assert_eq!(stand.asked(), ["market.invalid:443"]);
    }
    assert_eq!(secure.front.agreed()[1].name.as_deref(), Some("market.invalid"));
}

/// A server behind TLS.
struct Secure {
    front: Front,
    server: TestServer,
}

impl Secure {
    async fn start(identity: Identity) -> Self {
        Self::start_speaking(identity, ALL_VERSIONS).await
    }

    async fn start_speaking(
        identity: Identity,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let server = Server::AsyncGraphql.start(Options::default());
        Self { front: Front::start(identity, versions, server.addr()).await, server }
    }

    fn url(&self) -> String {
        self.front.url("localhost")
    }

    fn client(&self, tls: Tls) -> Client {
        // It must not come to a retry, but if it does, it ends soon.
        impatient(&self.url()).tls(tls).give_up_after(3).build().unwrap()
    }

    async fn assert_served(&self, tls: Tls) {
        assert_ticks(&self.client(tls)).await;
    }

    /// Why the client gave up, after one attempt.
    async fn refused(&self, tls: Tls) -> DialError {
        let before = self.front.dialed().await;
        let error = lost(&self.client(tls)).await;
        assert_eq!(self.front.dialed().await, before + 2, "one of them is the one that counted");
        error
    }
}

async fn assert_ticks(client: &Client) {
    let mut ticks = subscribe(client, "subscription { ticks(n: 3, everyMs: 1) }");
    for n in 0..3 {
        assert_eq!(item(&mut ticks).await, json!({ "ticks": n }));
    }
    assert!(end(&mut ticks).await.is_none());
}

async fn lost(client: &Client) -> DialError {
    match end(&mut subscribe(client, "subscription { ticks(n: 3) }")).await {
        Some(SubscriptionError::Lost(Disconnect::Connect(ConnectError::Dial(error)))) => error,
        other => panic!("{other:?}"),
    }
}

fn trusting(authority: &Authority) -> Tls {
    Tls::new().only_roots(certificates(authority.pem()))
}

fn certificates(bytes: impl AsRef<[u8]>) -> Certificates {
    Certificates::parse(bytes).unwrap()
}

fn pin(identity: &Identity) -> Pin {
    Pin::of(&certificates(&identity.certificate)).unwrap()
}

/// Marks the inner process, and holds its server's identity.
const INNER: &str = "RESUB_TEST_INNER";

const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
