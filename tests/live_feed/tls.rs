//! `wss://` with real TLS on the loopback interface. What is trusted is in the environment of the
//! program alone, where the platform's verifier reads it on Linux.

#[allow(dead_code, reason = "shared with tests/servers")]
mod authority;
mod flags;
#[allow(dead_code, reason = "shared with tests/servers")]
mod front;

use serde_json::Value;
use tokio_rustls::rustls::{
    ALL_VERSIONS, ProtocolVersion,
    version::{TLS12, TLS13},
};

use self::{
    authority::{Authority, Identity},
    front::{Agreed, Front},
};
use crate::{
    TRADES,
    market::MarketServer,
    program::{Running, live_feed_trusting},
    sequence, server,
};

/// A market behind TLS.
struct SecureMarket {
    front: Front,
    server: MarketServer,
}

impl SecureMarket {
    async fn start(identity: Identity) -> Self {
        let server = server();
        let front = Front::start(identity, ALL_VERSIONS, server.addr()).await;
        Self { front, server }
    }
}

#[tokio::test]
async fn a_server_is_trusted_by_its_host_name_and_speaks_http_1() {
    let authority = Authority::new();
    let market = SecureMarket::start(authority.certify("localhost")).await;
    assert_trades_arrive(&authority, &market.front, "localhost").await;
    let agreed = Agreed {
        version: ProtocolVersion::TLSv1_3,
        name: Some("localhost".into()),
        // The front prefers h2.
        protocol: Some("http/1.1".into()),
        resumed: false,
    };
    assert_eq!(market.front.agreed(), [agreed]);
}

#[tokio::test]
async fn a_server_is_trusted_by_its_ip_address() {
    let authority = Authority::new();
    let market = SecureMarket::start(authority.certify("127.0.0.1")).await;
    assert_trades_arrive(&authority, &market.front, "127.0.0.1").await;
    // An address is not sent (RFC 6066 section 3).
    assert_eq!(market.front.agreed()[0].name, None);
}

#[tokio::test]
async fn each_version_of_tls_will_do_alone() {
    let authority = Authority::new();
    let market = server();
    for version in [&TLS12, &TLS13] {
        let front = Front::start(authority.certify("localhost"), &[version], market.addr()).await;
        assert_trades_arrive(&authority, &front, "localhost").await;
        assert_eq!(front.agreed()[0].version, version.version);
    }
}

#[tokio::test]
async fn a_reset_connection_is_a_gap_and_its_session_is_resumed() {
    let authority = Authority::new();
    let market = SecureMarket::start(authority.certify("localhost")).await;
    let cause = assert_goes_on(&authority, &market, || market.front.cut()).await;
    assert!(cause.starts_with("the connection broke off: Connection reset by peer"), "{cause}");
    let resumed: Vec<_> = market.front.agreed().iter().map(|agreed| agreed.resumed).collect();
    assert_eq!(resumed, [false, true]);
}

#[tokio::test]
async fn a_connection_that_ends_without_a_goodbye_of_tls_is_a_gap() {
    let authority = Authority::new();
    let market = SecureMarket::start(authority.certify("localhost")).await;
    // The front closes TCP when it loses the server.
    let cause = assert_goes_on(&authority, &market, || market.server.drop_connections()).await;
    assert!(
        cause.starts_with(
            "the connection broke off: peer closed connection without sending TLS close_notify"
        ),
        "{cause}"
    );
}

#[tokio::test]
async fn an_unknown_authority_is_refused_at_once() {
    let (trusted, unknown) = (Authority::new(), Authority::new());
    let identity = unknown.certify("localhost");
    assert_refused_at_once(
        &trusted,
        identity,
        "localhost",
        "invalid peer certificate: UnknownIssuer",
    )
    .await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_at_once() {
    let authority = Authority::new();
    let identity = authority.certify_the_past("localhost");
    assert_refused_at_once(
        &authority,
        identity,
        "localhost",
        "invalid peer certificate: certificate expired",
    )
    .await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_at_once() {
    let authority = Authority::new();
    for (certified, called) in
        [("example.com", "localhost"), ("localhost", "127.0.0.1"), ("127.0.0.1", "localhost")]
    {
        let expected =
            format!("invalid peer certificate: certificate not valid for name \"{called}\"");
        assert_refused_at_once(&authority, authority.certify(certified), called, &expected).await;
    }
}

#[tokio::test]
async fn without_any_root_it_says_so_and_does_not_dial() {
    let authority = Authority::new();
    let market = SecureMarket::start(authority.certify("localhost")).await;
    let url = market.front.url("localhost");
    let run =
        live_feed_trusting("/no/such/file".as_ref(), &[&url, "--query", TRADES, "--json"]).await;
    assert_eq!((run.code, run.stdout.as_str()), (3, ""), "{run:?}");
    assert!(run.stderr.contains("error: TLS is not available: "), "{run:?}");
    assert_eq!(market.front.dialed().await, 0);
}

#[tokio::test]
async fn a_server_without_tls_is_tried_again() {
    let authority = Authority::new();
    let market = server();
    let url = market.url().replace("ws://", "wss://");
    let args = [&url, "--query", TRADES, "--retries", "2", "--json"];
    let run = live_feed_trusting(authority.roots(), &args).await;
    assert_eq!((run.code, run.types()), (4, vec!["end".to_owned()]), "{run:?}");
    let error = "error: Trades: gave up after 2 failed attempts to connect: \
        TLS handshake failed: received corrupt message of type InvalidContentType\n";
    assert!(run.stderr.contains(error) && run.stderr.contains("; retry in "), "{run:?}");
    assert_eq!(market.connections().borrow().ever, 2);
}

/// Trades arrive, then the connection is lost, then there is a gap and trades arrive again. Returns
/// the gap's cause.
async fn assert_goes_on(
    authority: &Authority,
    market: &SecureMarket,
    lose: impl FnOnce(),
) -> String {
    let url = market.front.url("localhost");
    let mut running =
        Running::start_trusting(authority.roots(), &[&url, "--query", TRADES, "--json"]);
    let before = next(&mut running).await;
    lose();
    let gap = loop {
        let line = next(&mut running).await;
        // Some may have arrived before the loss.
        if line["type"] != "next" {
            break line;
        }
    };
    assert_eq!((&gap["type"], &gap["reconnects"]), (&"gap".into(), &1.into()), "{gap}");
    assert!(sequence(&next(&mut running).await) > sequence(&before));
    gap["cause"].as_str().unwrap().to_owned()
}

/// A program that trusts `authority` dials once, sees no event, and says why.
async fn assert_refused_at_once(
    authority: &Authority,
    identity: Identity,
    called: &str,
    expected: &str,
) {
    let SecureMarket { front, server: _server } = SecureMarket::start(identity).await;
    // It must not come to that, but if it does, it ends soon.
    let args = [&front.url(called), "--query", TRADES, "--json", "--retries", "2"];
    let run = live_feed_trusting(authority.roots(), &args).await;
    assert_eq!((run.code, run.types()), (3, vec!["end".to_owned()]), "{run:?}");
    assert_eq!(run.json()[0]["reason"], "lost", "{run:?}");
    let error = "error: Trades: the connection was lost for good: \
                 the server's certificate was not accepted: ";
    assert!(run.stderr.contains(&format!("{error}{expected}")), "{run:?}");
    assert!(!run.stderr.contains("retry in"), "{run:?}");
    assert_eq!(front.dialed().await, 1);
}

/// Nothing went wrong until three of them had arrived.
async fn assert_trades_arrive(authority: &Authority, front: &Front, called: &str) {
    let args = [&front.url(called), "--query", TRADES, "--json", "--count", "3"];
    let run = live_feed_trusting(authority.roots(), &args).await;
    assert_eq!(
        (run.code, run.types()),
        (0, ["next", "next", "next", "end"].map(str::to_owned).into()),
        "{run:?}"
    );
    assert_eq!(front.dialed().await, 1);
}

async fn next(running: &mut Running) -> Value {
    serde_json::from_str(&running.line().await.unwrap()).unwrap()
}
