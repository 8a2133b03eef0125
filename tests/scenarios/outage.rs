//! An outage of minutes: an endpoint that was fine answers anything at all, or nothing. No stream
//! ends, and each goes on soon after the endpoint does.

use std::pin::Pin;

use futures::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt},
};
use resub::{
    Verdict,
    mock::{Subprotocol, Upgrade},
};

use super::*;

const MODERN: Subprotocol = Subprotocol::GraphqlTransportWs;
const LEGACY: Subprotocol = Subprotocol::GraphqlWs;

/// How an endpoint that is down treats whoever comes.
#[derive(Clone, Debug)]
enum Down {
    /// It refuses the upgrade with this status.
    Http(u16, Vec<(&'static str, &'static str)>),
    /// It writes this in place of an answer.
    Garbage(&'static str),
    /// It upgrades to this subprotocol, or to none.
    Subprotocol(Option<&'static str>),
    CutInUpgrade,
    CutBeforeAck,
    CutAfterAck,
    CloseBeforeAck(u16),
    CloseAfterAck(u16),
    ConnectionError,
    /// An operation's message comes before the acknowledgement.
    TooEarly,
    /// Dials are refused.
    Refuses,
    /// Dials never end.
    Hangs,
    NoUpgrade,
    NoAck,
    /// It acknowledges, and says nothing more.
    Silence,
}

impl Down {
    /// Treats everyone in this way. Never returns.
    async fn serve(&self, server: &Server) {
        let mut kept = Vec::new();
        let mut talks = FuturesUnordered::new();
        loop {
            match self {
                Down::Http(status, headers) => drop(server.refuse(*status, headers, "down").await),
                Down::Garbage(bytes) => kept.push(server.accept_raw(bytes).await),
                Down::Subprotocol(name) => {
                    let upgrade = Upgrade::new();
                    let upgrade = match name {
                        Some(name) => upgrade.subprotocol(name),
                        None => upgrade.without_subprotocol(),
                    };
                    drop(server.accept_with(upgrade).await);
                }
                Down::CutInUpgrade => drop(server.accept_silent().await),
                Down::NoUpgrade => kept.push(server.accept_silent().await),
                Down::Refuses => {
                    server.offline();
                    std::future::pending::<()>().await;
                }
                Down::Hangs => {
                    server.hang_dials(1_000);
                    std::future::pending::<()>().await;
                }
                Down::CutBeforeAck
                | Down::CutAfterAck
                | Down::CloseBeforeAck(_)
                | Down::CloseAfterAck(_)
                | Down::ConnectionError
                | Down::TooEarly
                | Down::NoAck
                | Down::Silence => {
                    tokio::select! {
                        peer = server.accept() => talks.push(self.talk(peer)),
                        Some(()) = talks.next() => {}
                    }
                }
            }
        }
    }

    /// Speaks with one client.
    async fn talk(&self, peer: Peer) {
        let mut peer = peer.expect_init().await;
        if matches!(self, Down::CutAfterAck | Down::CloseAfterAck(_) | Down::Silence) {
            peer = peer.ack().await;
            // Not every connection carries operations: these may be tried on another one.
            let _ = timeout(secs(1), peer.serve_pings()).await;
        }
        match self {
            Down::CutBeforeAck | Down::CutAfterAck => peer.vanish(),
            Down::CloseBeforeAck(code) | Down::CloseAfterAck(code) => {
                peer.close(*code, "down").await;
            }
            Down::ConnectionError => {
                peer.connection_error(json!({"message": "down"})).await;
                peer.expect_end().await;
            }
            Down::TooEarly => {
                peer.next("1.0", data(1)).await;
                peer.expect_end().await;
            }
            _ => {
                let _silence = peer.go_silent();
                std::future::pending::<()>().await;
            }
        }
    }
}

/// An endpoint that speaks one subprotocol, and sends every subscription this item.
struct Endpoint<'a> {
    server: &'a Server,
    speaks: Subprotocol,
    item: u64,
}

impl Endpoint<'_> {
    /// Never returns.
    async fn serve(&self) {
        let mut peers: FuturesUnordered<Pin<Box<dyn Future<Output = ()>>>> =
            FuturesUnordered::new();
        loop {
            tokio::select! {
                peer = self.server.accept() => peers.push(Box::pin(self.serve_peer(peer))),
                Some(()) = peers.next() => {}
            }
        }
    }

    async fn serve_peer(&self, mut peer: Peer) {
        if peer.subprotocol() != self.speaks {
            return peer.close(4406, "Subprotocol not acceptable").await;
        }
        peer = peer.expect_init().await.ack().await;
        while let Some(message) = peer.serve_pings().await {
            if matches!(message["type"].as_str(), Some("subscribe" | "start")) {
                let id = message["id"].as_str().unwrap();
                peer.next(id, data(self.item)).await;
            }
        }
    }
}

/// What is the same in every outage.
#[derive(Clone, Copy, Debug)]
struct Setting {
    streams: usize,
    /// The streams had items before. Those that had none might be what the server dislikes.
    had_items: bool,
    before: Subprotocol,
    after: Subprotocol,
    lasts: Duration,
}

const ALONE: Setting =
    Setting { streams: 1, had_items: true, before: MODERN, after: MODERN, lasts: secs(120) };

/// Lives through one outage.
async fn survive(builder: ClientBuilder, server: &Server, down: &Down, setting: Setting) {
    let Setting { streams, had_items, before, after, lasts } = setting;
    let case = format!("{down:?}, {setting:?}");
    server.set_deadline(secs(100_000));
    let client = builder.build().unwrap();
    let mut streams: Vec<_> =
        (0..streams).map(|nth| subscribe(&client, &format!("s{nth}"))).collect();
    let well = Endpoint { server, speaks: before, item: 1 };
    let begin = async {
        if had_items {
            for stream in &mut streams {
                assert_eq!(item(stream).await, 1);
            }
            tokio::time::sleep(secs(60)).await;
        } else {
            until(&client, |status| matches!(status, Status::Open { .. })).await;
        }
    };
    tokio::select! {
        () = begin => {}
        () = well.serve() => {}
    }
    // The endpoint is gone, and what is there in its place answers like this.
    let _ = timeout(lasts, down.serve(server)).await;
    server.online();
    let back = Instant::now();
    let well = Endpoint { server, speaks: after, item: 2 };
    let reads = streams.iter_mut().map(|stream| {
        let case = &case;
        async move {
            loop {
                match event(stream).await {
                    Some(Ok(Event::Next(Response { data: Some(data), .. }))) if data == 2 => break,
                    Some(Ok(Event::Next(_) | Event::Gap(_))) => {}
                    other => panic!("{case}: {other:?}"),
                }
            }
        }
    });
    tokio::select! {
        _ = join_all(reads) => {}
        () = well.serve() => {}
    }
    // The longest delay, and the longest attempt.
    assert!(back.elapsed() < secs(60), "{case}: after {:?}", back.elapsed());
}

fn close_codes() -> impl Iterator<Item = u16> {
    let ranges = [1000..=1015, 3000..=3010, 3999..=4010, 4400..=4430, 4490..=4510, 4999..=4999];
    ranges.into_iter().flatten()
}

/// All that has no number.
const OTHERS: [Down; 15] = [
    Down::Garbage("SSH-2.0-OpenSSH_9.6\r\n"),
    Down::Garbage("HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    Down::Garbage("\0\0\0"),
    Down::Subprotocol(None),
    Down::Subprotocol(Some("mqtt")),
    Down::CutInUpgrade,
    Down::CutBeforeAck,
    Down::CutAfterAck,
    Down::ConnectionError,
    Down::TooEarly,
    Down::Refuses,
    Down::Hangs,
    Down::NoUpgrade,
    Down::NoAck,
    Down::Silence,
];

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_every_http_status() {
    for status in 200..600 {
        let server = Server::in_memory();
        survive(builder(&server), &server, &Down::Http(status, vec![]), ALONE).await;
    }
    for (status, headers) in [
        (503, vec![("Retry-After", "50")]),
        (429, vec![("Retry-After", "1")]),
        (301, vec![("Location", "wss://elsewhere.invalid/")]),
        (401, vec![("WWW-Authenticate", "Bearer")]),
        (426, vec![("Upgrade", "h2c")]),
    ] {
        let server = Server::in_memory();
        survive(builder(&server), &server, &Down::Http(status, headers), ALONE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_every_close_code_before_and_after_the_acknowledgement() {
    for code in close_codes() {
        for down in [Down::CloseBeforeAck(code), Down::CloseAfterAck(code)] {
            // That is about the only operation, and not about the endpoint (rule 22).
            if matches!(down, Down::CloseAfterAck(1009)) {
                continue;
            }
            for had_items in [true, false] {
                let server = Server::in_memory();
                survive(builder(&server), &server, &down, Setting { had_items, ..ALONE }).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_blamed_for_a_close_code_that_every_connection_ends_with() {
    for code in close_codes() {
        for had_items in [true, false] {
            let server = Server::in_memory();
            let setting = Setting { streams: 3, had_items, ..ALONE };
            survive(builder(&server), &server, &Down::CloseAfterAck(code), setting).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_silence_garbage_and_cuts_at_every_moment() {
    for down in &OTHERS {
        for (streams, had_items) in [(1, true), (1, false), (3, true), (3, false)] {
            let server = Server::in_memory();
            survive(builder(&server), &server, down, Setting { streams, had_items, ..ALONE }).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_an_endpoint_that_comes_back_with_the_other_subprotocol() {
    let numbered = [
        Down::Http(400, vec![]),
        Down::Http(404, vec![]),
        Down::Http(502, vec![]),
        Down::CloseBeforeAck(1000),
        Down::CloseBeforeAck(1002),
        Down::CloseBeforeAck(1011),
        Down::CloseBeforeAck(4403),
        Down::CloseBeforeAck(4406),
        Down::CloseAfterAck(1012),
        Down::CloseAfterAck(4400),
    ];
    for (before, after) in [(MODERN, LEGACY), (LEGACY, MODERN), (LEGACY, LEGACY)] {
        for down in OTHERS.iter().chain(&numbered) {
            for lasts in [secs(1), secs(120)] {
                let server = Server::in_memory();
                let setting = Setting { before, after, lasts, ..ALONE };
                survive(builder(&server), &server, down, setting).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_application_that_says_retry_is_obeyed_beyond_the_grace() {
    let codes = [1000, 1002, 1003, 1007, 1008, 1009, 1011, 4400, 4401, 4403, 4406, 4409, 4500];
    let codes =
        codes.into_iter().flat_map(|code| [Down::CloseBeforeAck(code), Down::CloseAfterAck(code)]);
    let statuses = [200, 301, 400, 401, 403, 404, 426, 500].map(|code| Down::Http(code, vec![]));
    for down in OTHERS.into_iter().chain(codes).chain(statuses) {
        for had_items in [true, false] {
            let server = Server::in_memory();
            let builder = builder(&server).on_disconnect(|_, _| Verdict::Retry);
            let setting = Setting { had_items, lasts: secs(1_800), ..ALONE };
            survive(builder, &server, &down, setting).await;
        }
    }
}
