//! curl, which is asked what the proxy variables mean.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::TcpListener, process::Command, task::AbortHandle};

use crate::pair::{end, impatient, subscribe};

/// Two places that could be a proxy, and which of them were dialed.
struct Proxies {
    /// By the name that stands for them in a value.
    urls: Vec<(&'static str, String)>,
    dialed: Arc<Mutex<Vec<&'static str>>>,
    listening: Vec<AbortHandle>,
}

impl Proxies {
    async fn listen() -> Self {
        let mut this = Self { urls: Vec::new(), dialed: Arc::default(), listening: Vec::new() };
        for name in ["ONE", "TWO"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            this.urls.push((name, format!("http://{}", listener.local_addr().unwrap())));
            let dialed = Arc::clone(&this.dialed);
            let accepting = tokio::spawn(async move {
                // It hangs up at once.
                while listener.accept().await.is_ok() {
                    dialed.lock().unwrap().push(name);
                }
            });
            this.listening.push(accepting.abort_handle());
        }
        this
    }

    /// Which one a program dials that has these variables and no others.
    async fn dialed_by(
        &self,
        command: &mut Command,
        variables: &[(&str, &str)],
    ) -> Option<&'static str> {
        for name in ["ws", "wss", "http", "https", "all", "no"].map(|name| format!("{name}_proxy"))
        {
            command.env_remove(name.to_ascii_uppercase()).env_remove(name);
        }
        for (name, value) in variables {
            let value = self
                .urls
                .iter()
                .fold((*value).to_owned(), |value, (name, url)| value.replace(name, url));
            command.env(name, value);
        }
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.await.expect("the program is installed");
        self.dialed.lock().unwrap().drain(..).next()
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.listening.iter().for_each(AbortHandle::abort);
    }
}

/// Variables are those of a process, so each client runs in one of its own.
#[tokio::test]
#[ignore = "needs curl"]
async fn curl_chooses_the_same_proxy() {
    if let Ok(endpoint) = std::env::var(INNER) {
        let client = impatient(&endpoint).give_up_after(1).connect_timeout(Duration::from_secs(1));
        end(&mut subscribe(&client.build().unwrap(), "subscription { ticks(n: 3) }")).await;
        return;
    }
    let (proxies, mut seen) = (Proxies::listen().await, Vec::new());
    // No endpoint exists. curl knows this scheme longer than that of WebSocket.
    for (host, variables) in CASES {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--connect-timeout", "1", "-m", "2", &format!("http://{host}/")]);
        let mut client = Command::new(std::env::current_exe().unwrap());
        client
            .args(["--exact", "real::curl::curl_chooses_the_same_proxy", "--ignored"])
            .env(INNER, format!("ws://{host}/"));
        let by_curl = proxies.dialed_by(&mut curl, variables).await;
        let by_client = proxies.dialed_by(&mut client, variables).await;
        assert_eq!(by_client, by_curl, "{host} with {variables:?}");
        seen.push(by_curl);
    }
    assert!([None, Some("ONE"), Some("TWO")].iter().all(|choice| seen.contains(choice)));
}

/// Hosts of an endpoint, with variables in which `ONE` and `TWO` are proxies.
const CASES: &[(&str, &[(&str, &str)])] = &[
    ("a.invalid", &[]),
    ("a.invalid", &[("http_proxy", "ONE")]),
    ("a.invalid", &[("HTTP_PROXY", "ONE")]),
    ("a.invalid", &[("HTTP_PROXY", "ONE"), ("all_proxy", "TWO")]),
    ("a.invalid", &[("https_proxy", "ONE"), ("HTTPS_PROXY", "ONE")]),
    ("a.invalid", &[("http_proxy", "ONE"), ("all_proxy", "TWO")]),
    ("a.invalid", &[("http_proxy", ""), ("ALL_PROXY", "TWO")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("all_proxy", "TWO")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("all_proxy", "")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "a.invalid"), ("no_proxy", "b.invalid")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "b.invalid"), ("no_proxy", "a.invalid")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "a.invalid"), ("no_proxy", "")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "*")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "*.invalid")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "b.invalid a.invalid")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "b.invalid\ta.invalid")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", " b.invalid , a.invalid ")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", ",,A.Invalid,,")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "b.invalid;a.invalid")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "a.invalid.")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", ".invalid.")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "..invalid")]),
    ("a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", ".")]),
    ("a.invalid.", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "a.invalid")]),
    ("a.invalid.", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "a.invalid.")]),
    ("a.invalid.", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "b.invalid")]),
    ("ba.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "a.invalid")]),
    ("b.a.invalid", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "a.invalid")]),
    ("a.invalid:81", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "a.invalid:81")]),
    ("192.0.2.7", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "b.invalid 192.0.2.7")]),
    ("192.0.2.7", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "192.0.2.7.")]),
    ("192.0.2.7.", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "192.0.2.7")]),
    ("192.0.2.7", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "192.0.2.0/24")]),
    ("192.0.2.7", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "192.0.2.0/33")]),
    ("192.0.2.7", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "198.51.100.0/24")]),
    ("[2001:db8::7]", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "2001:db8::7")]),
    ("[2001:db8::7]", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "[2001:db8::7]")]),
    ("[2001:db8::7]", &[("ALL_PROXY", "ONE"), ("NO_PROXY", "2001:db9::/32")]),
];

/// Marks the inner process, and holds its endpoint.
const INNER: &str = "RESUB_TEST_CURL";
