//! The example `live_feed` as its users see it: a process with arguments, output and an exit code.
#![allow(dead_code, reason = "what only the program itself needs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

mod program;
#[cfg(unix)]
mod signals;
// Elsewhere a program cannot be told in its environment what to trust.
#[cfg(all(target_os = "linux", feature = "ring", feature = "platform-roots"))]
mod tls;

// The example's modules, for their table tests: an example has tests or is built as a program,
// never both.
#[path = "../../examples/live_feed/args.rs"]
mod args;
#[path = "../../examples/live_feed/demo.rs"]
mod demo;
#[path = "../../examples/live_feed/document.rs"]
mod document;
#[path = "../../examples/live_feed/duration.rs"]
mod duration;
#[path = "../../examples/live_feed/events.rs"]
mod events;
#[path = "../../examples/live_feed/market/mod.rs"]
mod market;
#[path = "../../examples/live_feed/network.rs"]
mod network;
#[path = "../../examples/live_feed/news.rs"]
mod news;
#[path = "../../examples/live_feed/outcome.rs"]
mod outcome;
#[path = "../../examples/live_feed/output.rs"]
mod output;
#[path = "../../examples/live_feed/settings.rs"]
mod settings;
#[path = "../../examples/live_feed/show.rs"]
mod show;

use serde_json::Value;

use crate::{
    market::{MarketServer, Options},
    program::{Running, live_feed, live_feed_logging},
};

const TRADES: &str = include_str!("../../queries/trades.graphql");

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/market.graphql");

/// What the market answers and completes at once.
const SYMBOLS: &str = include_str!("../../queries/symbols.graphql");

fn server() -> MarketServer {
    MarketServer::start(Options::default()).unwrap()
}

fn guarded_server() -> MarketServer {
    MarketServer::start(Options { token: Some("GOOD".into()), ..Options::default() }).unwrap()
}

fn sequence(line: &Value) -> i64 {
    line["data"]["trades"]["sequence"].as_i64().unwrap()
}

#[tokio::test]
async fn without_arguments_it_shows_the_embedded_market_in_lines_for_people() {
    let run = live_feed(&["--count", "20"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.stdout.lines().count(), 20, "{run:?}");
    for line in run.stdout.lines() {
        let columns: Vec<_> = line.split_whitespace().collect();
        assert!(matches!(columns[1], "trade" | "quote"), "{line}");
        columns[3].parse::<f64>().unwrap();
    }
    for news in [
        "serving a market at ws://127.0.0.1:",
        "connected (graphql-transport-ws)",
        "20 events, 0 gaps",
    ] {
        assert!(run.stderr.contains(news), "{run:?}");
    }
}

#[tokio::test]
async fn json_is_one_object_per_line_and_every_operation_has_an_end() {
    let run = live_feed(&["--json", "--count", "20", "--quiet"]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(run.count("next"), 20);
    for line in run.json() {
        let named = match line["operation"].as_str().unwrap() {
            "Trades" => "trades",
            "Quotes" => "quotes",
            other => panic!("{other}"),
        };
        match line["type"].as_str().unwrap() {
            "next" => assert!(line["data"][named]["symbol"].is_string(), "{line}"),
            kind => assert_eq!((kind, &line["reason"]), ("end", &"shut_down".into())),
        }
    }
    assert_eq!(run.types()[20..], ["end", "end"]);
}

#[tokio::test]
async fn cut_connections_are_gaps_and_the_streams_go_on() {
    let run = live_feed(&["--json", "--demo-drop-every", "400ms", "--count", "60"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.count("next"), 60, "{run:?}");
    let lines = run.json();
    for operation in ["Trades", "Quotes"] {
        let of_it: Vec<_> = lines.iter().filter(|line| line["operation"] == operation).collect();
        let gap = of_it.iter().position(|line| line["type"] == "gap").expect("a gap");
        assert!(of_it[gap]["reconnects"].as_u64() >= Some(1), "{}", of_it[gap]);
        assert!(
            of_it[gap]["down_for_ms"].is_u64() && of_it[gap]["cause"].is_string(),
            "{}",
            of_it[gap]
        );
    }
    let last_gap = lines.iter().rposition(|line| line["type"] == "gap").unwrap();
    assert!(lines[last_gap..].iter().any(|line| line["type"] == "next"), "{run:?}");
    assert!(run.stderr.contains("lost: the connection broke off"), "{run:?}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_a_gap_and_no_end() {
    let server = server();
    let mut running = Running::start(&[&server.url(), "--query", TRADES, "--json"]);
    let before: Value = serde_json::from_str(&running.line().await.unwrap()).unwrap();
    server.kill();
    server.restart().unwrap();
    let after = loop {
        let line: Value = serde_json::from_str(&running.line().await.unwrap()).unwrap();
        if line["type"] == "gap" {
            assert_eq!((&line["operation"], &line["dropped"]), (&"Trades".into(), &0.into()));
            break serde_json::from_str(&running.line().await.unwrap()).unwrap();
        }
    };
    assert!(sequence(&after) > sequence(&before));
}

#[tokio::test]
async fn data_keeps_the_order_of_the_servers_keys() {
    let server = server();
    let query = "subscription Odd { trades { size at symbol price } }";
    let run = live_feed(&[&server.url(), "--query", query, "--json", "-n", "1"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    let line = run.stdout.lines().next().unwrap();
    assert!(
        line.starts_with(r#"{"type":"next","operation":"Odd","data":{"trades":{"size":"#),
        "{line}"
    );
    let places: Vec<_> = ["size", "at", "symbol", "price"]
        .map(|key| line.find(&format!("\"{key}\":")).unwrap())
        .into();
    assert!(places.is_sorted(), "{line}");
}

#[tokio::test]
async fn each_operation_has_its_own_variables_and_the_run_ends_with_the_last() {
    let last_trade = concat!(env!("CARGO_MANIFEST_DIR"), "/queries/last_trade.graphql");
    let server = server();
    let args = [
        "--query-file",
        last_trade,
        "--variables",
        r#"{"symbol": "BTC"}"#,
        "--query",
        SYMBOLS,
        "--json",
    ];
    let run = live_feed(&[&[&*server.url()], &args[..]].concat()).await;
    assert_eq!(run.code, 0, "{run:?}");
    let lines = run.json();
    assert_eq!(lines.len(), 4, "{run:?}");
    for (operation, field) in [("LastTrade", "lastTrade"), ("Symbols", "symbols")] {
        let of_it: Vec<_> = lines.iter().filter(|line| line["operation"] == operation).collect();
        assert!(of_it[0]["data"].as_object().unwrap().contains_key(field), "{run:?}");
        assert_eq!(of_it[1]["reason"], "completed", "{run:?}");
    }
}

#[tokio::test]
async fn the_time_limit_is_no_failure() {
    let server =
        MarketServer::start(Options { trades_per_second: 0, ..Options::default() }).unwrap();
    let run = live_feed(&[&server.url(), "--query", TRADES, "--for", "200ms", "--json"]).await;
    assert_eq!((run.code, run.types()), (0, vec!["end".to_owned()]), "{run:?}");
}

#[tokio::test]
async fn wrong_usage_is_2_and_one_line_that_names_the_flag() {
    let url = "ws://127.0.0.1/graphql";
    for (args, expected) in [
        (&[url][..], "a URL needs an operation: add --query"),
        (&["no url", "--query", "{ a }"], "URL: invalid endpoint URL"),
        (&["ftp://h/", "--query", "{ a }"], "URL: unsupported URL scheme `ftp`"),
        (&["ws://user:SECRET@h/", "--query", "{ a }"], "URL: the endpoint URL carries a user name"),
        (&[url, "--query", " "], "--query: the document is empty"),
        (&[url, "--query", "mutation { a }"], "--query: anonymous: the operation is a mutation"),
        (&[url, "--query", "subscription {"], "--query: anonymous: syntax error at 1:15: expected"),
        (&[url, "--query", "{ a"], "--query: anonymous: syntax error at 1:4: expected `}`"),
        (
            &[url, "--query", "{ a }", "--operation-name", "B"],
            "--query: B: the document has no operation named `B`",
        ),
        (&[url, "--query-file", "/no/such/file"], "--query-file: cannot read `/no/such/file`"),
        (&["--variables", "{}"], "--variables was given 1 times, for 0 of --query"),
        (&[url, "--query", "{ a }", "--variables", "[1]"], "--variables: expected a JSON object"),
        (&[url, "--query", "{ a }", "--variables", "{"], "--variables: not valid JSON"),
        (&["--init-payload", r#"{"SECRET""#], "--init-payload: not valid JSON"),
        (&["--init-payload", r#""SECRET""#], "--init-payload: expected a JSON object"),
        (&["-H", "SECRET"], "--header: expected 'name: value'"),
        (&["-H", "Bearer SECRET: 1"], "--header: what is before the colon"),
        (&["-H", "Authorization: SE\nCRET"], "--header: invalid header `Authorization`"),
        (&["-H", "Sec-WebSocket-Key: SECRET"], "--header: invalid header `Sec-WebSocket-Key`"),
        (&["--cacert", "/no/such/file"], "--cacert: cannot read `/no/such/file`"),
        (&["--cacert", SCHEMA], "--cacert: not a certificate: neither PEM nor the DER"),
        (&["--cert", "/no/such/file"], "--cert: cannot read `/no/such/file`"),
        (&["--cert", SCHEMA, "--key", SCHEMA], "--cert: not a certificate: "),
        (&["--key", "/no/such/file"], "--cert <FILE>"),
        (&["--pinnedpubkey", "sha256//AAAA"], "--pinnedpubkey: not a pin: expected `sha256//`"),
        (&["--pinnedpubkey", "key.pem"], "--pinnedpubkey: not a pin: expected `sha256//`"),
        (&["--proxy", "ftp://u:SECRET@h"], "--proxy: cannot use the proxy: its scheme is not http"),
        (&["--proxy", "u:SECRET@h:x"], "--proxy: cannot use the proxy: not a URL"),
        (&["--resolve", "example.com:192.0.2.1"], "--resolve: expected HOST:PORT:ADDRESS"),
        (&["--connect-timeout", "0"], "--connect-timeout <SECONDS>': must be longer"),
        (&["--for", "soon"], "--for"),
        (&["--count", "0"], "--count"),
        (&[url, "--demo-drop-every", "1s"], "--demo-drop-every"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let run = live_feed(args).await;
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{args:?} {run:?}");
        let error = run.stderr.lines().last().unwrap();
        assert!(error.starts_with("error: ") && error.contains(expected), "{args:?} {run:?}");
        assert_eq!(run.stderr.matches("error: ").count(), 1, "{args:?} {run:?}");
        assert!(!run.stderr.contains("SECRET"), "{args:?} {run:?}");
    }
}

#[tokio::test]
async fn help_explains_the_exit_codes() {
    let run = live_feed(&["--help"]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    for expected in
        ["Usage: live_feed [OPTIONS] [URL]", "Exit codes:", "4  gave up connecting (--retries)"]
    {
        assert!(run.stdout.contains(expected), "{}", run.stdout);
    }
    assert_eq!(run.stdout.lines().find(|line| line.chars().count() > 110), None);
}

#[tokio::test]
async fn giving_up_is_4() {
    let server = server();
    server.kill();
    let run = live_feed(&[&server.url(), "--query", TRADES, "--retries", "2", "--json"]).await;
    assert_eq!((run.code, run.types()), (4, vec!["end".to_owned()]), "{run:?}");
    assert_eq!(run.json()[0]["reason"], "gave_up");
    assert!(run.stderr.contains("error: Trades: gave up after 2 failed attempts"), "{run:?}");
    assert!(run.stderr.contains("failed: ") && run.stderr.contains("; retry in "), "{run:?}");
}

#[tokio::test]
async fn rejected_credentials_are_3_and_shown_nowhere() {
    let server = guarded_server();
    let args = ["--query", TRADES, "--json"];
    for (payload, code) in [(r#"{"token": "SECRET"}"#, 3), ("{}", 3), (r#"{"token": "GOOD"}"#, 0)] {
        let url = server.url();
        let args =
            [&[&*url, "--init-payload", payload, "-H", "X-Key: SECRET", "-n", "1"], &args[..]]
                .concat();
        let run = live_feed(&args).await;
        assert_eq!(run.code, code, "{run:?}");
        let end = run.json().pop().unwrap();
        assert_eq!(end["reason"], if code == 3 { "lost" } else { "shut_down" }, "{run:?}");
        assert!(!format!("{run:?}").contains("SECRET"), "{run:?}");
    }
}

#[tokio::test]
async fn a_log_of_everything_shows_no_credential() {
    let args = ["--init-payload", r#"{"token": "SECRET"}"#, "-H", "X-Key: SECRET", "--count", "1"];
    let run = live_feed_logging("trace", &args).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("TRACE") && !run.stderr.contains("SECRET"), "{run:?}");
    let run = live_feed_logging("a=b=c", &args).await;
    assert!(run.code == 2 && run.stderr.starts_with("error: RUST_LOG: "), "{run:?}");
}

#[tokio::test]
async fn an_endpoint_that_does_not_exist_is_3() {
    let server = server();
    let run =
        live_feed(&[&format!("{}/nowhere?key=SECRET", server.url()), "--query", TRADES]).await;
    assert_eq!((run.code, run.stdout.as_str()), (3, ""), "{run:?}");
    assert!(
        run.stderr.contains("error: Trades: the connection was lost for good")
            && run.stderr.contains("404")
    );
    assert!(!run.stderr.contains("SECRET"), "{run:?}");
}

#[tokio::test]
async fn an_operation_that_brings_only_errors_is_1() {
    let server = server();
    let url = server.url();
    for (query, expected) in [
        ("subscription Bad { nonsense }", "Unknown field \"nonsense\""),
        ("subscription Bad { quotes(symbol: \"NONE\") { bid } }", "no such symbol: NONE"),
    ] {
        for subprotocol in ["graphql-transport-ws", "graphql-ws"] {
            for count in [&[][..], &["--count", "1"]] {
                let args =
                    [&[&*url, "--query", query, "--subprotocol", subprotocol, "--json"], count]
                        .concat();
                let run = live_feed(&args).await;
                assert_eq!(
                    (run.code, run.types()),
                    (1, vec!["next".to_owned(), "end".to_owned()]),
                    "{run:?}"
                );
                assert!(
                    run.json()[0]["errors"][0]["message"].as_str().unwrap().contains(expected),
                    "{run:?}"
                );
                assert_eq!(run.json()[0]["data"], Value::Null);
            }
        }
    }
}

#[tokio::test]
async fn an_unchecked_document_is_for_the_server_to_judge() {
    let server = server();
    let args = [&*server.url(), "--query", "subscription {", "--unchecked", "--json"];
    let run = live_feed(&args).await;
    assert_eq!((run.code, run.types()), (1, vec!["next".to_owned(), "end".to_owned()]), "{run:?}");
}

#[tokio::test]
async fn the_greatest_code_of_all_operations_counts() {
    let server = server();
    let run =
        live_feed(&[&server.url(), "--query", SYMBOLS, "--query", "subscription Bad { nonsense }"])
            .await;
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stdout.contains("--- Symbols: completed"), "{run:?}");
    assert!(run.stderr.contains("error: Bad: Unknown field"), "{run:?}");
}

#[tokio::test]
async fn a_reader_that_leaves_ends_it_quietly() {
    for format in [&[][..], &["--json"]] {
        let mut running = Running::start(&[&["--quiet"], format].concat());
        running.line().await.unwrap();
        let run = running.hang_up().await;
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    }
}
