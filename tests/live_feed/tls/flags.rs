//! The flags that people know from curl: whom to trust, what to show, and which way to go.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use resub::{Certificates, Pin};
use tokio::net::TcpListener;
use tokio_rustls::rustls::{RootCertStore, crypto::ring, server::WebPkiClientVerifier};

use self::stand::{Manner, Stand};
use super::*;
use crate::program::{Finished, live_feed, live_feed_with};

#[path = "../../servers/proxy/stand.rs"]
#[allow(dead_code, reason = "shared with tests/servers")]
mod stand;

#[tokio::test]
async fn cacert_is_trusted_as_pem_and_as_der() {
    let authority = Authority::new();
    let market = SecureMarket::start(authority.certify("localhost")).await;
    let der = Written::new(authority.certificate());
    for file in [authority.roots(), &der.0] {
        assert_feeds(
            &live_feed(&feed(&market.front.url("localhost"), &["--cacert", path(file)])).await,
        );
    }
}

#[tokio::test]
async fn beside_cacert_nobody_is_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let market = SecureMarket::start(authority.certify("localhost")).await;
    let url = market.front.url("localhost");
    assert_feeds(&live_feed_trusting(authority.roots(), &feed(&url, &[])).await);
    let args = feed(&url, &["--cacert", path(other.roots())]);
    let run = live_feed_trusting(authority.roots(), &args).await;
    assert_refused(
        &run,
        "the server's certificate was not accepted: invalid peer certificate: UnknownIssuer",
    );
}

#[tokio::test]
async fn a_client_certificate_is_shown_with_its_key_from_one_file_or_from_two() {
    let authority = Authority::new();
    let own = authority.certify("client");
    let (front, _server) = demanding(&authority).await;
    let both = Written::new(format!("{}{}", own.key_pem, own.certificate_pem));
    let (cert, key) = (Written::new(&own.certificate_pem), Written::new(&own.key_pem));
    let (cert_der, key_der) = (Written::new(&own.certificate), Written::new(own.key.secret_der()));
    for files in [
        &["--cert", both.path()][..],
        &["--cert", cert.path(), "--key", key.path()],
        &["--cert", both.path(), "--key", key_der.path()],
        &["--cert", cert_der.path(), "--key", key_der.path()],
    ] {
        let flags = [files, &["--cacert", path(authority.roots())]].concat();
        assert_feeds(&live_feed(&feed(&front.url("localhost"), &flags)).await);
    }
}

#[tokio::test]
async fn without_the_right_client_certificate_it_is_refused_and_told_which_is_missing() {
    let (authority, unknown) = (Authority::new(), Authority::new());
    let (front, _server) = demanding(&authority).await;
    let stranger = unknown.certify("client");
    let stranger = Written::new(format!("{}{}", stranger.certificate_pem, stranger.key_pem));
    for (files, expected) in [
        (&[][..], "the server requires a client certificate: "),
        (&["--cert", stranger.path()], "the server did not accept the client's certificate: "),
    ] {
        let flags = [files, &["--cacert", path(authority.roots())]].concat();
        assert_refused(&live_feed(&feed(&front.url("localhost"), &flags)).await, expected);
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_wrong_usage() {
    let authority = Authority::new();
    let (own, other) = (authority.certify("client"), authority.certify("client"));
    let (cert, key, text) =
        (Written::new(&own.certificate_pem), Written::new(&other.key_pem), Written::new("SECRET"));
    for (files, expected) in [
        (
            &["--cert", cert.path()][..],
            "--cert, as there is no --key: not a private key: the PEM holds none",
        ),
        (
            &["--cert", cert.path(), "--key", key.path()],
            "--cert: the client's certificate and key cannot be used: ",
        ),
        (
            &["--cert", cert.path(), "--key", text.path()],
            "--key: not a private key: neither PEM nor",
        ),
        (
            &["--cert", cert.path(), "--key", "/no/such/file"],
            "--key: cannot read `/no/such/file`: ",
        ),
    ] {
        let run = live_feed(&feed("wss://localhost/graphql", files)).await;
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
        assert!(
            run.stderr.starts_with(&format!("error: {expected}")) && !run.stderr.contains("SECRET"),
            "{run:?}"
        );
    }
}

#[tokio::test]
async fn the_key_of_the_server_is_one_of_those_pinned_or_it_is_refused() {
    let authority = Authority::new();
    let (identity, other) = (authority.certify("localhost"), authority.certify("localhost"));
    let [pin, next] = [&identity, &other].map(|identity| {
        Pin::of(&Certificates::parse(&identity.certificate_pem).unwrap()).unwrap().to_string()
    });
    let market = SecureMarket::start(identity).await;
    let url = market.front.url("localhost");
    for pins in [pin.clone(), format!("{next};{pin}")] {
        let flags = ["--cacert", path(authority.roots()), "--pinnedpubkey", &pins];
        assert_feeds(&live_feed(&feed(&url, &flags)).await);
    }
    let flags = ["--cacert", path(authority.roots()), "--pinnedpubkey", &next];
    let expected = format!("the server's key is not one that is pinned: it is {pin}");
    assert_refused(&live_feed(&feed(&url, &flags)).await, &expected);
    // A pin replaces no other check.
    let unknown = Authority::new();
    let flags = ["--cacert", path(unknown.roots()), "--pinnedpubkey", &pin];
    assert_refused(
        &live_feed(&feed(&url, &flags)).await,
        "the server's certificate was not accepted: ",
    );
}

#[tokio::test]
async fn the_proxy_gets_the_login_of_its_url_and_nobody_else_sees_it() {
    let authority = Authority::new();
    let market = SecureMarket::start(authority.certify("market.invalid")).await;
    for (manner, scheme) in [(Manner::ConnectLogin, "http"), (Manner::SocksLogin, "socks5h")] {
        let stand = Stand::start(manner, market.front.addr()).await;
        for (login, is_known) in
            [("Aladdin:open%20sesame@", true), ("SECRET:SECRET@", false), ("", false)]
        {
            let proxy = format!("{scheme}://{login}{}", stand.addr());
            let flags = ["--cacert", path(authority.roots()), "--proxy", &proxy];
            let run = live_feed_with(
                &[("RUST_LOG", "trace")],
                &feed("wss://market.invalid/graphql", &flags),
            )
            .await;
            if is_known {
                assert_feeds(&run);
                assert_eq!(stand.asked().last().unwrap(), "market.invalid:443");
            } else {
                assert_refused(
                    &run,
                    "the proxy requires a login, or does not accept the one that it was given",
                );
            }
            for secret in
                ["SECRET", "Aladdin", "sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ", "U0VDUkVUOlNFQ1JFV"]
            {
                assert!(!format!("{run:?}").contains(secret), "{run:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_gone_is_named_without_its_login_and_tried_again() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = format!("socks5h://SECRET:SECRET@{gone}");
    let run = live_feed(&feed("wss://market.invalid/graphql", &["--proxy", &proxy])).await;
    assert_eq!(run.code, 4, "{run:?}");
    assert!(
        run.stderr.contains(&format!("could not reach the proxy socks5h://{gone}: ")),
        "{run:?}"
    );
    assert!(!format!("{run:?}").contains("SECRET"), "{run:?}");
}

#[tokio::test]
async fn the_flag_goes_before_the_environment_and_an_empty_one_means_no_proxy() {
    let authority = Authority::new();
    let market = SecureMarket::start(authority.certify("market.invalid")).await;
    let stand = Stand::start(Manner::Socks, market.front.addr()).await;
    let url = market.front.url("market.invalid");
    let rule = format!("market.invalid:{}:127.0.0.1", market.front.addr().port());
    let environment = [("HTTPS_PROXY", "SECRET://")];
    let proxy = format!("socks5h://{}", stand.addr());
    for proxy in [proxy.as_str(), ""] {
        let flags = ["--cacert", path(authority.roots()), "--proxy", proxy, "--resolve", &rule];
        assert_feeds(&live_feed_with(&environment, &feed(&url, &flags)).await);
        // The proxy resolves names itself, and the second time there was none.
        assert_eq!(stand.asked(), [format!("market.invalid:{}", market.front.addr().port())]);
    }
    let run = live_feed_with(&environment, &feed(&url, &[])).await;
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
    assert!(
        run.stderr.contains("cannot use the proxy: ") && !run.stderr.contains("SECRET"),
        "{run:?}"
    );
}

#[tokio::test]
async fn a_resolved_name_is_called_and_verified_by_its_name() {
    let authority = Authority::new();
    let market = SecureMarket::start(authority.certify("market.invalid")).await;
    let port = market.front.addr().port();
    let resolve = |host: &str, rules: &[String]| {
        let mut args =
            feed(&market.front.url(host), &["--cacert", path(authority.roots()), "--proxy", ""])
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>();
        args.extend(rules.iter().flat_map(|rule| ["--resolve".to_owned(), rule.clone()]));
        args
    };
    let run = async |args: Vec<String>| {
        live_feed(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };

    let rule = format!("MARKET.invalid:{port}:127.0.0.1");
    let others =
        ["other.invalid:1:192.0.2.1".to_owned(), rule.clone(), format!("*:{port}:192.0.2.1")];
    for rules in [&[rule][..], &[format!("*:{port}:127.0.0.1")], &others] {
        assert_feeds(&run(resolve("market.invalid", rules)).await);
        assert_eq!(market.front.agreed().pop().unwrap().name.as_deref(), Some("market.invalid"));
    }

    let refused = run(resolve("other.invalid", &[format!("other.invalid:{port}:127.0.0.1")])).await;
    let expected = "the server's certificate was not accepted: \
        invalid peer certificate: certificate not valid for name \"other.invalid\"";
    assert_refused(&refused, expected);

    // For another port, which is no rule for this one.
    let unresolved = run(resolve("market.invalid", &["market.invalid:1:127.0.0.1".into()])).await;
    assert_eq!(unresolved.code, 4, "{unresolved:?}");
    assert!(unresolved.stderr.contains("could not resolve `market.invalid`"), "{unresolved:?}");
}

#[tokio::test]
async fn socks5_without_the_h_is_told_the_resolved_address() {
    let server = server();
    let stand = Stand::start(Manner::Socks, server.addr()).await;
    let proxy = format!("socks5://{}", stand.addr());
    let flags = ["--proxy", &proxy, "--resolve", "market.invalid:80:192.0.2.7"];
    assert_feeds(&live_feed(&feed("ws://market.invalid/graphql", &flags)).await);
    assert_eq!(stand.asked(), ["192.0.2.7:80"]);
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_the_connect_timeout() {
    // Connections wait to be accepted, and nobody does.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = Authority::new();
    let url = format!("wss://{}/graphql", silent.local_addr().unwrap());
    let flags = ["--cacert", path(authority.roots()), "--connect-timeout", "0.25"];
    let run = live_feed(&feed(&url, &flags)).await;
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stderr.contains("250ms"), "{run:?}");
}

/// A market behind a front that demands a certificate of this authority.
async fn demanding(authority: &Authority) -> (Front, MarketServer) {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let server = server();
    let identity = authority.certify("localhost");
    (Front::start_asking(identity, ALL_VERSIONS, clients, server.addr()).await, server)
}

/// Three trades of a server; a failure that passes is tolerated once.
fn feed<'a>(url: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [&[url, "--query", TRADES, "--json", "--count", "3", "--retries", "2"], flags].concat()
}

fn assert_feeds(run: &Finished) {
    assert_eq!(
        (run.code, run.types()),
        (0, ["next", "next", "next", "end"].map(str::to_owned).into()),
        "{run:?}"
    );
}

fn assert_refused(run: &Finished, expected: &str) {
    assert_eq!((run.code, run.types()), (3, vec!["end".to_owned()]), "{run:?}");
    let error = format!("error: Trades: the connection was lost for good: {expected}");
    assert!(run.stderr.contains(&error) && !run.stderr.contains("retry in"), "{run:?}");
}

/// A file of one test. Removed when this is dropped.
struct Written(PathBuf);

impl Written {
    fn new(content: impl AsRef<[u8]>) -> Self {
        static WRITTEN: AtomicU32 = AtomicU32::new(0);
        let name = format!("flag-{}-{}", process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&file, content).unwrap();
        Self(file)
    }

    fn path(&self) -> &str {
        path(&self.0)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // What stays behind is in a directory for such files.
        let _ = fs::remove_file(&self.0);
    }
}

fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}
