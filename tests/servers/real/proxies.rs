//! tinyproxy (HTTP `CONNECT`) and microsocks (SOCKS5), with and without a login.

use std::process::Command;

use resub::{Client, ClientBuilder, ConnectError, DialError, Disconnect, Proxy, SubscriptionError};
use serde_json::json;

use super::{
    after_items, assert_ticks,
    daemon::{Daemon, PRINTED, Place},
    start,
};
use crate::{
    fixture::TestServer,
    pair::{end, impatient, item, subscribe, text},
};

/// Who is told a name by the client, and looks it up itself.
#[derive(Clone, Copy)]
enum Program {
    Tinyproxy,
    Microsocks,
}

/// One of them, on a port of its own.
struct Running {
    program: Program,
    login: bool,
    place: Place,
    daemon: Option<Daemon>,
}

impl Program {
    async fn start(self) -> Running {
        self.start_asking(false).await
    }

    /// For Aladdin's password (RFC 7617 section 2), if for any.
    async fn start_asking(self, login: bool) -> Running {
        let mut running =
            Running { program: self, login, place: Place::new("proxy"), daemon: None };
        running.restart().await;
        running
    }
}

impl Running {
    async fn restart(&mut self) {
        let port = self.place.addr().port();
        let mut command = match self.program {
            Program::Tinyproxy => {
                let login = if self.login { "BasicAuth Aladdin opensesame\n" } else { "" };
                let config = format!(
                    "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nLogLevel Info\n\
                     {login}"
                );
                let config = self.place.write("tinyproxy.conf", &config);
                let mut command = Command::new("tinyproxy");
                command.arg("-d").arg("-c").arg(config);
                command
            }
            Program::Microsocks => {
                let mut command = Command::new("microsocks");
                command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
                if self.login {
                    command.args(["-u", "Aladdin", "-P", "opensesame"]);
                }
                command
            }
        };
        self.daemon = None;
        self.daemon = Some(Daemon::start(&mut command, &self.place).await);
    }

    fn kill(&mut self) {
        self.daemon.take().unwrap().kill();
    }

    fn url(&self, login: &str) -> String {
        let scheme = match self.program {
            Program::Tinyproxy => "http",
            Program::Microsocks => "socks5h",
        };
        format!("{scheme}://{login}{}", self.place.addr())
    }

    /// To a name, which is the proxy's to look up.
    fn builder(&self, login: &str, server: &TestServer) -> ClientBuilder {
        let endpoint = format!("ws://localhost:{}/graphql", server.addr().port());
        impatient(&endpoint).proxy(self.url(login).parse::<Proxy>().unwrap())
    }

    fn client(&self, login: &str, server: &TestServer) -> Client {
        self.builder(login, server).build().unwrap()
    }
}

/// Makes a test of the claim, an `async fn(Program)`, for each program.
macro_rules! with_each {
    ($claim:ident) => {
        mod $claim {
            use super::Program;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs tinyproxy"]
            async fn tinyproxy() {
                super::$claim(Program::Tinyproxy).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs microsocks"]
            async fn microsocks() {
                super::$claim(Program::Microsocks).await;
            }
        }
    };
}

with_each!(a_stream_goes_on_after_the_server_and_the_proxy_were_killed);

async fn a_stream_goes_on_after_the_server_and_the_proxy_were_killed(program: Program) {
    let server = start();
    let mut proxy = program.start().await;
    let mut numbers = subscribe(&proxy.client("", &server), "subscription { forever(everyMs: 5) }");
    for n in 0..3 {
        assert_eq!(item(&mut numbers).await, json!({ "forever": n }));
    }
    server.drop_connections();
    after_items(&mut numbers).await;
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    proxy.kill();
    proxy.restart().await;
    after_items(&mut numbers).await;
    assert_eq!(item(&mut numbers).await, json!({"forever": 0}));
    // By its name: whoever looks it up, it was not this machine.
    let printed = proxy.place.read(PRINTED);
    assert!(printed.contains("localhost"), "{printed}");
}

with_each!(a_name_that_only_the_proxy_could_know_is_asked_of_the_proxy);

async fn a_name_that_only_the_proxy_could_know_is_asked_of_the_proxy(program: Program) {
    let proxy = program.start().await;
    let builder =
        impatient("ws://market.invalid/graphql").proxy(proxy.url("").parse::<Proxy>().unwrap());
    let (error, is_fatal) = failure(&builder.give_up_after(2).build().unwrap()).await;
    // This machine was not asked, or it would be `Resolve`.
    assert!(matches!(error, DialError::ProxyFailed { .. }) && !is_fatal, "{error:?}");
}

with_each!(a_login_is_accepted_and_a_wrong_one_is_an_error_that_shows_nothing_of_it);

async fn a_login_is_accepted_and_a_wrong_one_is_an_error_that_shows_nothing_of_it(
    program: Program,
) {
    let server = start();
    let proxy = program.start_asking(true).await;
    assert_ticks(&proxy.client("Aladdin:opensesame@", &server)).await;
    for login in ["", "Aladdin:wrongword@", "Jafar:opensesame@"] {
        let builder = proxy.builder(login, &server).give_up_after(2);
        let configured = format!("{builder:?}");
        let (error, is_fatal) = failure(&builder.build().unwrap()).await;
        assert!(matches!(error, DialError::ProxyAuthRequired) && is_fatal, "{login}: {error:?}");
        let shown = format!("{configured} {error:?} {}", text(&error));
        for secret in ["Aladdin", "Jafar", "wrongword", "opensesame"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
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
