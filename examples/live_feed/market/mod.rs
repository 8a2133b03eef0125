//! An embedded GraphQL server with a market feed, on both subprotocols, whose network can be made
//! to fail.
#![allow(dead_code, reason = "the example and the tests use different halves of it")]
#![allow(clippy::similar_names, reason = "a trade has a side and a size")]

pub(crate) mod feed;
pub(crate) mod listener;
pub(crate) mod schema;
pub(crate) mod tokens;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_graphql::http::ALL_WEBSOCKET_PROTOCOLS;
use async_graphql_axum::{GraphQLProtocol, GraphQLWebSocket};
use axum::Router;
use axum::extract::{State, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::feed::Market;
use self::listener::{Count, Serving};
use self::schema::Schema;
use self::tokens::Tokens;

/// How a market server is started.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// 0 for a free one.
    pub(crate) port: u16,
    /// Every connection is reset this often.
    pub(crate) drop_every: Option<Duration>,
    /// What `connection_init` must carry as `token` or as `authorization`.
    pub(crate) token: Option<String>,
    /// It must carry a token that was minted instead, which is good for this long. So is the
    /// connection that it opens.
    pub(crate) token_lifetime: Option<Duration>,
    /// Over all symbols together. At 0 the market trades only when it is told to.
    pub(crate) trades_per_second: u32,
    /// The same seed makes the same prices.
    pub(crate) seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            drop_every: None,
            token: None,
            token_lifetime: None,
            trades_per_second: 20,
            seed: 1,
        }
    }
}

/// A market, served on a port of the loopback interface until this is dropped.
pub(crate) struct MarketServer {
    market: Market,
    tokens: Option<Tokens>,
    serving: Arc<Serving>,
}

impl MarketServer {
    /// To be called in a tokio runtime.
    pub(crate) fn start(options: Options) -> io::Result<Self> {
        let Options { port, drop_every, token, token_lifetime, trades_per_second, seed } = options;
        let market = Market::open(seed, trades_per_second);
        let tokens = token_lifetime.map(|lifetime| Tokens::new(seed, lifetime));
        let gate = Gate {
            schema: schema::of(market.clone()),
            token: token.map(Arc::from),
            tokens: tokens.clone(),
        };
        let router = Router::new().route("/graphql", any(upgrade)).with_state(gate);
        let serving = Arc::new(Serving::start(port, router)?);
        if let Some(period) = drop_every {
            tokio::spawn(keep_dropping(Arc::downgrade(&serving), period));
        }
        Ok(Self { market, tokens, serving })
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/graphql", self.addr())
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.serving.addr()
    }

    pub(crate) fn market(&self) -> &Market {
        &self.market
    }

    /// Of a market that was opened with [`Options::token_lifetime`].
    pub(crate) fn tokens(&self) -> Option<Tokens> {
        self.tokens.clone()
    }

    pub(crate) fn connections(&self) -> watch::Receiver<Count> {
        self.serving.connections()
    }

    /// Resets every connection, without a close frame. The market goes on, and so does its history.
    pub(crate) fn drop_connections(&self) {
        self.serving.drop_connections();
    }

    /// Goes down: resets every connection and refuses new ones. The market goes on.
    pub(crate) fn kill(&self) {
        self.serving.kill();
    }

    /// Comes back on the same port.
    pub(crate) fn restart(&self) -> io::Result<()> {
        self.serving.restart()
    }

    /// Goes down for good, and waits until nothing of it runs.
    pub(crate) async fn stop(self) {
        self.kill();
        let mut connections = self.connections();
        // The sender is part of `self`, so this cannot fail.
        let _ = connections.wait_for(|count| count.now == 0).await;
    }
}

impl Drop for MarketServer {
    fn drop(&mut self) {
        self.kill(); // `keep_dropping` may hold the serving for another moment
    }
}

async fn keep_dropping(serving: Weak<Serving>, period: Duration) {
    let mut interval = tokio::time::interval(period);
    interval.tick().await; // the first is due at once
    loop {
        interval.tick().await;
        let Some(serving) = serving.upgrade() else { return };
        serving.drop_connections();
    }
}

#[derive(Clone)]
struct Gate {
    schema: Schema,
    token: Option<Arc<str>>,
    tokens: Option<Tokens>,
}

impl Gate {
    /// Decides on a `connection_init`: until when its connection may live, if it may.
    fn admit(&self, init: &Value) -> async_graphql::Result<Option<Instant>> {
        let mut shown = ["token", "authorization"].iter().filter_map(|key| init.get(key)?.as_str());
        let admitted = match (&self.tokens, &self.token) {
            (Some(tokens), _) => shown.find_map(|shown| tokens.end_of(shown)).map(Some),
            (None, Some(token)) => shown.any(|shown| shown == &**token).then_some(None),
            (None, None) => Some(None),
        };
        admitted.ok_or_else(|| "the token was not accepted".into())
    }

    /// Returns when the token has ended with which a connection was opened.
    async fn ended(&self, admitted: oneshot::Receiver<Option<Instant>>) {
        match (admitted.await, &self.tokens) {
            (Ok(Some(end)), Some(tokens)) => {
                tokio::time::sleep_until(end).await;
                tokens.count_cut();
            }
            // It may stay for ever, or was never opened.
            (Ok(None) | Err(_), _) | (_, None) => pending().await,
        }
    }
}

async fn upgrade(
    State(gate): State<Gate>,
    protocol: GraphQLProtocol,
    ws: WebSocketUpgrade,
) -> Response {
    ws.protocols(ALL_WEBSOCKET_PROTOCOLS).on_upgrade(async move |socket| {
        let (admit, admitted) = oneshot::channel();
        let (schema, door) = (gate.schema.clone(), gate.clone());
        let serve = GraphQLWebSocket::new(socket, schema, protocol)
            .on_connection_init(async move |init| {
                // Nobody listens if the connection is gone.
                let _ = admit.send(door.admit(&init)?);
                Ok(async_graphql::Data::default())
            })
            .serve();
        tokio::select! {
            () = serve => {}
            () = gate.ended(admitted) => {}
        }
    })
}
