//! Mutual TLS: the client's own certificate.

use std::sync::Arc;

use tokio_rustls::rustls::{RootCertStore, server::WebPkiClientVerifier, version::TLS13};

use super::*;

const TLS13_ONLY: &[&SupportedProtocolVersion] = &[&TLS13];

/// A server that demands a certificate of this authority.
async fn demanding(
    identity: Identity,
    versions: &[&'static SupportedProtocolVersion],
    clients: &Authority,
) -> Secure {
    let mut roots = RootCertStore::empty();
    roots.add(clients.certificate().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let server = Server::AsyncGraphql.start(Options::default());
    Secure { front: Front::start_asking(identity, versions, verifier, server.addr()).await, server }
}

fn showing(tls: Tls, identity: &Identity) -> Tls {
    tls.identity(
        certificates(&identity.certificate_pem),
        PrivateKey::parse(&identity.key_pem).unwrap(),
    )
}

#[tokio::test]
async fn a_client_with_a_certificate_is_served_by_a_server_that_demands_one() {
    let authority = Authority::new();
    let own = authority.certify("client");
    for versions in [TLS12, TLS13_ONLY] {
        let secure = demanding(authority.certify("localhost"), versions, &authority).await;
        secure.assert_served(showing(trusting(&authority), &own)).await;
        let der = PrivateKey::parse(own.key.secret_der()).unwrap();
        secure
            .assert_served(trusting(&authority).identity(certificates(&own.certificate), der))
            .await;
    }
}

#[tokio::test]
async fn without_a_certificate_it_says_that_one_is_required_and_does_not_try_again() {
    let authority = Authority::new();
    for versions in [TLS12, TLS13_ONLY] {
        let secure = demanding(authority.certify("localhost"), versions, &authority).await;
        let error = secure.refused(trusting(&authority)).await;
        assert!(matches!(error, DialError::ClientCertificateRequired(_)), "{error:?}");
        assert!(
            text(&error).starts_with("the server requires a client certificate: "),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_certificate_that_the_server_does_not_accept_is_fatal() {
    let (authority, unknown) = (Authority::new(), Authority::new());
    for versions in [TLS12, TLS13_ONLY] {
        for own in [unknown.certify("client"), authority.certify_the_past("client")] {
            let secure = demanding(authority.certify("localhost"), versions, &authority).await;
            let error = secure.refused(showing(trusting(&authority), &own)).await;
            assert!(matches!(error, DialError::ClientCertificateRefused(_)), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_session_is_resumed_by_the_next_connection_with_identity_and_pin() {
    let authority = Authority::new();
    for versions in [TLS12, TLS13_ONLY] {
        let identity = authority.certify("localhost");
        let tls = showing(trusting(&authority).pin(pin(&identity)), &authority.certify("client"));
        let secure = demanding(identity, versions, &authority).await;
        let client = secure.client(tls);
        let mut numbers = subscribe(&client, "subscription { forever(everyMs: 60000) }");
        assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
        secure.server.drop_connections();
        gap(&mut numbers).await;
        assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
        let resumed: Vec<_> = secure.front.agreed().iter().map(|agreed| agreed.resumed).collect();
        assert_eq!(resumed, [false, true]);
    }
}
