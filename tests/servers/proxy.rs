//! The client behind a proxy. The endpoint's name is one that nobody but the proxy knows.

pub(crate) mod stand;

use std::{env, net::SocketAddr};

use resub::{Client, ClientBuilder, ConnectError, DialError, Disconnect, Proxy, SubscriptionError};
use serde_json::json;

use self::stand::{Manner, Stand};
use crate::{
    fixture::{Options, TestServer},
    pair::{Server, end, gap, impatient, item, subscribe, text},
};

#[tokio::test]
async fn items_come_through_a_proxy_that_resolves_the_name_and_so_they_do_after_a_loss() {
    for (manner, scheme) in [(Manner::Connect, "http"), (Manner::Socks, "socks5h")] {
        let server = start();
        let stand = Stand::start(manner, server.addr()).await;
        let client = through(&format!("{scheme}://{}", stand.addr())).build().unwrap();
        let mut numbers = subscribe(&client, "subscription { forever(everyMs: 60000) }");
        assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
        server.drop_connections();
        gap(&mut numbers).await;
        assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
        assert_eq!(stand.asked(), ["market.invalid:4000", "market.invalid:4000"]);
    }
}

#[tokio::test]
async fn an_address_is_passed_on_as_it_is() {
    for (manner, scheme) in [(Manner::Connect, "http"), (Manner::Socks, "socks5h")] {
        let server = start();
        let stand = Stand::start(manner, server.addr()).await;
        let proxy: Proxy = format!("{scheme}://{}", stand.addr()).parse().unwrap();
        for endpoint in ["ws://192.0.2.1/graphql", "ws://[2001:db8::1]:81/graphql"] {
            assert_ticks(&impatient(endpoint).proxy(proxy.clone()).build().unwrap()).await;
        }
        let bracketed = if scheme == "http" { "[2001:db8::1]:81" } else { "2001:db8::1:81" };
        assert_eq!(stand.asked(), ["192.0.2.1:80", bracketed]);
    }
}

#[tokio::test]
async fn socks5_without_the_h_resolves_the_name_here() {
    let server = start();
    let stand = Stand::start(Manner::Socks, server.addr()).await;
    let proxy: Proxy = format!("socks5://{}", stand.addr()).parse().unwrap();
    let client =
        |endpoint| impatient(endpoint).give_up_after(1).proxy(proxy.clone()).build().unwrap();
    assert_ticks(&client("ws://localhost:4000/graphql")).await;
    let asked = stand.asked().join(" ");
    assert!(["127.0.0.1:4000", "::1:4000"].contains(&asked.as_str()), "{asked}");
    let (error, _) = failure(&client("ws://market.invalid/graphql")).await;
    assert!(matches!(error, DialError::Resolve { .. }), "{error:?}");
}

#[tokio::test]
async fn a_login_is_that_of_the_url_or_of_the_option() {
    for (manner, scheme) in [(Manner::ConnectLogin, "http"), (Manner::SocksLogin, "socks5h")] {
        let server = start();
        let stand = Stand::start(manner, server.addr()).await;
        let in_url = format!("{scheme}://Aladdin:open%20sesame@{}", stand.addr());
        assert_ticks(&through(&in_url).build().unwrap()).await;
        let plain: Proxy = format!("{scheme}://{}", stand.addr()).parse().unwrap();
        let option = impatient(ENDPOINT).proxy(plain.login("Aladdin", "open sesame"));
        assert_ticks(&option.build().unwrap()).await;
    }
}

#[tokio::test]
async fn without_the_right_login_it_says_so_once_and_shows_nothing_of_it() {
    for (manner, scheme) in [(Manner::ConnectLogin, "http"), (Manner::SocksLogin, "socks5h")] {
        let server = start();
        let stand = Stand::start(manner, server.addr()).await;
        for login in ["", "Aladdin:wrongword@"] {
            let url = format!("{scheme}://{login}{}", stand.addr());
            let client = through(&url).build().unwrap();
            let (error, is_fatal) = failure(&client).await;
            assert!(matches!(error, DialError::ProxyAuthRequired) && is_fatal, "{error:?}");
            let proxy: Proxy = url.parse().unwrap();
            let shown = format!("{error:?} {} {proxy} {proxy:?} {:?}", text(&error), through(&url));
            assert!(!shown.contains("Aladdin") && !shown.contains("wrongword"), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_login_that_does_not_fit_next_to_the_name_is_not_tried_again() {
    let server = start();
    let stand = Stand::start(Manner::SocksLogin, server.addr()).await;
    let proxy: Proxy = format!("socks5h://{}", stand.addr()).parse().unwrap();
    let client =
        impatient(ENDPOINT).proxy(proxy.login("Aladdin", &"s".repeat(255))).build().unwrap();
    let (error, is_fatal) = failure(&client).await;
    assert!(matches!(error, DialError::ProxyRefused { .. }) && is_fatal, "{error:?}");
}

#[tokio::test]
async fn what_a_proxy_says_decides_whether_it_is_tried_again() {
    let server = start();
    for (manner, scheme, reason, fatal) in [
        (Manner::ConnectSaying("403 Forbidden"), "http", "its answer is HTTP 403", false),
        (Manner::ConnectSaying("502 Bad Gateway"), "http", "its answer is HTTP 502", false),
        (Manner::ConnectSaying("nonsense"), "http", "its answer is not valid HTTP", false),
        (Manner::SocksReplying(2), "socks5h", "connection not allowed", true),
        (Manner::SocksReplying(7), "socks5h", "command not supported", true),
        (Manner::SocksReplying(8), "socks5h", "address type not supported", true),
        (Manner::SocksReplying(4), "socks5h", "host unreachable", false),
        (Manner::SocksReplying(5), "socks5h", "connection refused", false),
        (Manner::SocksReplying(0xf0), "socks5h", "its answer is not one of SOCKS5", false),
    ] {
        let stand = Stand::start(manner, server.addr()).await;
        let (error, is_fatal) =
            failure(&through(&format!("{scheme}://{}", stand.addr())).build().unwrap()).await;
        let said = match &error {
            DialError::ProxyRefused { reason } if fatal => reason,
            DialError::ProxyFailed { reason } if !fatal => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!((said.as_str(), is_fatal), (reason, fatal));
        assert_eq!(stand.asked().len(), if fatal { 1 } else { 2 });
    }
}

#[tokio::test]
async fn a_proxy_that_is_gone_or_is_none_is_named_without_its_login() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (error, is_fatal) =
        failure(&through(&format!("socks5h://me:secret@{gone}")).build().unwrap()).await;
    let DialError::ProxyUnreachable { proxy, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*proxy, format!("socks5h://{gone}"));
    assert!(!is_fatal && !format!("{error:?}").contains("secret"), "{error:?}");

    // A SOCKS client at an HTTP server.
    let server = start();
    let (error, _) =
        failure(&through(&format!("socks5h://{}", server.addr())).build().unwrap()).await;
    assert!(
        matches!(error, DialError::ProxyFailed { .. } | DialError::ProxyUnreachable { .. }),
        "{error:?}"
    );
}

/// Variables are those of a process, so this test runs in one of its own, too.
#[tokio::test]
async fn the_environment_names_the_proxy_unless_an_option_does_and_no_log_shows_a_login() {
    if let Ok(addr) = env::var(INNER) {
        let level = tracing_subscriber::filter::LevelFilter::TRACE;
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
        let addr: SocketAddr = addr.parse().unwrap();
        assert_ticks(&impatient(ENDPOINT).build().unwrap()).await;
        let own = Stand::start(Manner::Connect, addr).await;
        let option: Proxy = own.addr().to_string().parse().unwrap();
        assert_ticks(&impatient(ENDPOINT).proxy(option).build().unwrap()).await;
        assert_eq!(own.asked().len(), 1);
        for direct in [impatient(ENDPOINT).proxy(None), impatient("ws://exempt.invalid/")] {
            let (error, _) = failure(&direct.give_up_after(1).build().unwrap()).await;
            assert!(matches!(error, DialError::Resolve { .. }), "{error:?}");
        }
        // For this one there is a value that cannot be read.
        let error = Client::builder("wss://market.invalid/").build().unwrap_err();
        assert!(matches!(error, resub::BuildError::Proxy(_)), "{error:?}");
        return;
    }
    let server = start();
    let stand = Stand::start(Manner::ConnectLogin, server.addr()).await;
    let inner = tokio::process::Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "proxy::the_environment_names_the_proxy_unless_an_option_does_and_no_log_shows_a_login",
            "--nocapture",
        ])
        .env(INNER, server.addr().to_string())
        .env("http_proxy", format!("http://Aladdin:open%20sesame@{}", stand.addr()))
        .env("HTTPS_PROXY", "gopher://proxy")
        .env("NO_PROXY", "exempt.invalid")
        .env_remove("no_proxy")
        .env_remove("ws_proxy")
        .env_remove("wss_proxy")
        .env_remove("https_proxy")
        .output();
    let inner = inner.await.unwrap();
    let logged = String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success() && logged.contains("connecting"), "{logged}");
    for secret in ["Aladdin", "sesame", "QWxhZGRpbj"] {
        assert!(!logged.contains(secret), "{logged}");
    }
    assert_eq!(stand.asked(), ["market.invalid:4000"]);
}

fn start() -> TestServer {
    Server::AsyncGraphql.start(Options::default())
}

fn through(proxy: &str) -> ClientBuilder {
    impatient(ENDPOINT).give_up_after(2).proxy(proxy.parse::<Proxy>().unwrap())
}

async fn assert_ticks(client: &Client) {
    let mut ticks = subscribe(client, "subscription { ticks(n: 3, everyMs: 1) }");
    for n in 0..3 {
        assert_eq!(item(&mut ticks).await, json!({ "ticks": n }));
    }
    assert!(end(&mut ticks).await.is_none());
}

/// Why the client could not dial, and whether it took that for final.
async fn failure(client: &Client) -> (DialError, bool) {
    match end(&mut subscribe(client, "subscription { ticks(n: 3) }")).await {
        Some(SubscriptionError::Lost(Disconnect::Connect(ConnectError::Dial(error)))) => {
            (error, true)
        }
        Some(SubscriptionError::GaveUp {
            cause: Disconnect::Connect(ConnectError::Dial(error)),
            ..
        }) => (error, false),
        other => panic!("{other:?}"),
    }
}

const ENDPOINT: &str = "ws://market.invalid:4000/graphql";

/// Marks the inner process, and holds its server's address.
const INNER: &str = "RESUB_TEST_PROXY";
