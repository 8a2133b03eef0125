//! Nobody sees what only the server and the proxy may know: a session from its first dial to its
//! end, with everything that it logs, and every error and `Debug` output that an application could
//! print.

use std::{env, fmt::Debug, net::SocketAddr};

use resub::{
    BuildError, Certificates, Client, ClientBuilder, Credentials, CredentialsError,
    CredentialsReason, PrivateKey, Proxy, Request, Status, Tls,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    fixture::{Options, WithoutToken},
    pair::{Server, end, gap, impatient, item, subscribe, text},
    proxy::stand::{Manner, Stand},
    raw::within,
    tls::authority::Authority,
};

/// Each is somewhere in what the session sends; the password as it is and as HTTP sends it.
const SECRETS: [&str; 11] = [
    "token-of-the-path",
    "variable-of-an-operation",
    "token-of-the-query",
    "token-of-the-header",
    "session-cookie",
    "token-of-the-provider",
    "rest-of-the-payload",
    "Aladdin",
    "open sesame",
    "open%20sesame",
    "QWxhZGRpbjpvcGVuIHNlc2FtZQ",
];

/// A level of logging is that of a process, so the session runs in one of its own.
#[tokio::test]
async fn no_token_cookie_password_or_payload_is_in_anything_that_a_session_shows() {
    if let Ok(addr) = env::var(INNER) {
        let filter =
            tracing_subscriber::EnvFilter::new("trace,tungstenite=info,tokio_tungstenite=info");
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        return session(addr.parse().unwrap()).await;
    }
    let server = Server::AsyncGraphql
        .start(Options { without_token: WithoutToken::Reject, ..Options::default() });
    let inner = tokio::process::Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "secrets::no_token_cookie_password_or_payload_is_in_anything_that_a_session_shows",
            "--nocapture",
        ])
        .env(INNER, server.addr().to_string())
        .output();
    let inner = inner.await.unwrap();
    let (shown, logged) =
        (String::from_utf8_lossy(&inner.stdout), String::from_utf8_lossy(&inner.stderr));
    assert!(inner.status.success(), "{logged}\n{shown}");
    // It is what it seems to be: the session came to its end, and everything was looked at.
    for expected in ["connecting", "open", "waiting", "subscribed", "received", "shown: "] {
        assert!(
            logged.contains(expected) || shown.contains(expected),
            "{expected} in {logged}\n{shown}"
        );
    }
    assert!(shown.matches("shown: ").count() >= 20, "{shown}");
    for (text, whose) in [(&shown, "shown"), (&logged, "logged")] {
        for secret in SECRETS {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} is {whose}");
        }
    }
}

/// All of it, in the inner process.
async fn session(server: SocketAddr) {
    let stand = Stand::start(Manner::ConnectLogin, server).await;
    let proxy: Proxy = format!("http://Aladdin:open%20sesame@{}", stand.addr()).parse().unwrap();
    show(&proxy);
    let builder =
        secretive("ws://market.invalid/graphql?token=token-of-the-query").proxy(proxy.clone());
    show(&builder);
    let client = builder.build().unwrap();
    show(&client);

    // Items, a loss, items.
    let mut numbers = subscribe(&client, "subscription { forever(everyMs: 60000) }");
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    show(&*client.status().borrow());
    let operation = Request::<Value>::new("subscription { forever(everyMs: 60000) }")
        .variables(&json!({"unused": "variable-of-an-operation"}));
    show(&operation);
    let options = client.subscription_to(operation);
    show(&options);
    let mut others = options.start().unwrap();
    show(&others);
    assert_eq!(item(&mut others).await, json!({"forever": 0}));
    client.reconnect_now();
    show(&gap(&mut numbers).await);
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    let call = client.mutate_with(Request::<Value>::new("mutation { add(a: 1, b: 2) }"));
    show(&call);
    show(&call.await.unwrap());
    show(&client.stats());
    client.shutdown(std::time::Duration::from_secs(5)).await;
    show(&numbers);

    // Whoever refuses.
    let refusal = refusing().await;
    let refused = |builder: ClientBuilder| show_end(builder.give_up_after(2).build().unwrap());
    let endpoint = format!("ws://{refusal}/v1/token-of-the-path/ws?token=token-of-the-query");
    refused(secretive(&endpoint).proxy(None)).await;
    refused(
        impatient("ws://market.invalid/").proxy(proxy.clone().login("Aladdin", "not open sesame")),
    )
    .await;
    let socks = Stand::start(Manner::SocksLogin, server).await;
    let socks: Proxy =
        format!("socks5h://Aladdin:not%20open%20sesame@{}", socks.addr()).parse().unwrap();
    show(&socks);
    refused(impatient("ws://market.invalid/").proxy(socks)).await;
    let nobody = format!("http://Aladdin:open%20sesame@{}", gone().await).parse::<Proxy>().unwrap();
    refused(impatient("ws://market.invalid/").proxy(nobody)).await;
    // The server's own refusal, of a payload that it does not like.
    let rejected = impatient("ws://market.invalid/graphql").proxy(proxy);
    refused(rejected.init_payload(&json!({"token": "token-of-the-provider"}))).await;

    // What cannot be built.
    for error in [
        builder_error("ws://Aladdin:token-of-the-query@host/"),
        builder_error("ws://host:99999/?token-of-the-query"),
        builder_error("ws://host/token-of-the-path#token-of-the-query"),
        builder_error("gopher://host/token-of-the-path"),
        Client::builder("ws://host/").header("Cookie", "session-cookie\n").build().unwrap_err(),
        Client::builder("ws://host/")
            .header("Bearer token-of-the-header", "x")
            .build()
            .unwrap_err(),
        Client::builder("ws://host/")
            .header("Authorization: Bearer token-of-the-header", "")
            .build()
            .unwrap_err(),
        Client::builder("ws://host/").header("Upgrade", "token-of-the-header").build().unwrap_err(),
        Client::builder("ws://host/").init_payload(&"token-of-the-provider").build().unwrap_err(),
        "gopher://Aladdin:open%20sesame@host".parse::<Proxy>().unwrap_err(),
        "http://Aladdin:open%20sesame@host:99999".parse::<Proxy>().unwrap_err(),
    ] {
        show(&error);
        show_text(&text(&error));
    }
    let credentials = Credentials::none().header("Authorization", "token-of-the-header").unwrap();
    show(&credentials.init_payload(&json!({"token": "good", "x": "rest-of-the-payload"})).unwrap());
    let identity = Authority::new().certify("client");
    let (own, key) = (
        Certificates::parse(&identity.certificate_pem).unwrap(),
        PrivateKey::parse(&identity.key_pem).unwrap(),
    );
    show(&key);
    let shown = format!("{:?}", Tls::new().identity(own, key));
    assert!(!shown.contains(&identity.key_pem[40..60]), "{shown}");
    show_text(&shown);
}

/// With every kind of credential.
fn secretive(endpoint: &str) -> ClientBuilder {
    impatient(endpoint)
        .header("Authorization", "Bearer token-of-the-header")
        .header("Cookie", "theme=dark; session=session-cookie")
        .credentials(|reason| async move {
            show(&reason);
            if let CredentialsReason::Rejected { cause, .. } = &reason {
                show_text(&text(cause));
            }
            let credentials = Credentials::none()
                .init_payload(&json!({"token": "good", "x": "rest-of-the-payload"}));
            credentials
                .and_then(|it| it.header("X-Key", "token-of-the-provider"))
                .map_err(CredentialsError::fatal)
        })
}

/// Every status until it ends, and how it does.
async fn show_end(client: Client) {
    let mut status = client.status();
    let shower = tokio::spawn(async move {
        while status.changed().await.is_ok() {
            show(&*status.borrow_and_update());
        }
        assert!(matches!(*status.borrow(), Status::Ended));
    });
    let error = end(&mut subscribe(&client, "subscription { ticks(n: 3) }")).await.unwrap();
    show(&error);
    show_text(&text(&error));
    drop(client);
    within(shower).await.unwrap();
}

fn builder_error(endpoint: &str) -> BuildError {
    Client::builder(endpoint).build().unwrap_err()
}

fn show(value: &dyn Debug) {
    show_text(&format!("{value:?} {value:#?}"));
}

fn show_text(text: &str) {
    println!("shown: {text}");
}

/// A server that answers every upgrade with 401, cookies, and a page that shows the request.
async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let len = tcp.read(&mut request).await.unwrap();
            let page = String::from_utf8_lossy(&request[..len]).into_owned();
            let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"x\"\r\n\
                        Set-Cookie: session=session-cookie";
            let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{page}", page.len());
            // A client that leaves is none of its business.
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    });
    addr
}

/// Where nobody listens.
async fn gone() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Marks the inner process, and holds its server's address.
const INNER: &str = "RESUB_TEST_SECRETS";
