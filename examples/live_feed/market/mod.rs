//! An embedded GraphQL server with a market feed. It speaks both subprotocols, and its network can
//! be made to fail.
#![allow(dead_code, reason = "the examples and the tests use different parts of it")]
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

/// Options of a market server.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The port to listen on. 0 for a free port.
    pub(crate) port: u16,
    /// Resets every connection this often.
    pub(crate) drop_every: Option<Duration>,
    /// The token that `connection_init` must contain as `token` or `authorization`.
    pub(crate) token: Option<String>,
    /// Requires an issued token instead, which is valid for this long. The server drops a
    /// connection when its token expires.
    pub(crate) token_lifetime: Option<Duration>,
    /// The rate over all symbols. At 0, the market trades only on request.
    pub(crate) trades_per_second: u32,
    /// The seed of the prices.
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

/// A market that is served on a port of the loopback interface until this is dropped.
pub(crate) struct MarketServer {
    market: Market,
    tokens: Option<Tokens>,
    serving: Arc<Serving>,
}

impl MarketServer {
    /// Starts a server. Must be called in a tokio runtime.
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

    /// Returns the tokens, if [`Options::token_lifetime`] is set.
    pub(crate) fn tokens(&self) -> Option<Tokens> {
        self.tokens.clone()
    }

    pub(crate) fn connections(&self) -> watch::Receiver<Count> {
        self.serving.connections()
    }

    /// Resets every connection without a close frame. The market and its history continue.
    pub(crate) fn drop_connections(&self) {
        self.serving.drop_connections();
    }

    /// Goes down: resets every connection and refuses new ones. The market continues.
    pub(crate) fn kill(&self) {
        self.serving.kill();
    }

    /// Comes back on the same port.
    pub(crate) fn restart(&self) -> io::Result<()> {
        self.serving.restart()
    }

    /// Goes down for good, and waits until all of its tasks have ended.
    pub(crate) async fn stop(self) {
        self.kill();
        let mut connections = self.connections();
        // This cannot fail, because the sender is part of `self`.
        let _ = connections.wait_for(|count| count.now == 0).await;
    }
}

impl Drop for MarketServer {
    fn drop(&mut self) {
        self.kill(); // because `keep_dropping` may keep `serving` alive for another moment
    }
}

async fn keep_dropping(serving: Weak<Serving>, period: Duration) {
    let mut interval = tokio::time::interval(period);
    interval.tick().await; // the first tick is immediate
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
    /// Checks a `connection_init`. Returns when its token expires, if it does.
    fn admit(&self, init: &Value) -> async_graphql::Result<Option<Instant>> {
        let mut shown = ["token", "authorization"].iter().filter_map(|key| init.get(key)?.as_str());
        let admitted = match (&self.tokens, &self.token) {
            (Some(tokens), _) => shown.find_map(|shown| tokens.expiry_of(shown)).map(Some),
            (None, Some(token)) => shown.any(|shown| shown == &**token).then_some(None),
            (None, None) => Some(None),
        };
        admitted.ok_or_else(|| "the token was not accepted".into())
    }

    /// Resolves when the token of a connection expires.
    async fn expired(&self, admitted: oneshot::Receiver<Option<Instant>>) {
        match (admitted.await, &self.tokens) {
            (Ok(Some(end)), Some(tokens)) => {
                tokio::time::sleep_until(end).await;
                tokens.count_cut();
            }
            // The token never expires, or the connection was not accepted.
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
        let (schema, guard) = (gate.schema.clone(), gate.clone());
        let serve = GraphQLWebSocket::new(socket, schema, protocol)
            .on_connection_init(async move |init| {
                // An error means that the connection is gone.
                let _ = admit.send(guard.admit(&init)?);
                Ok(async_graphql::Data::default())
            })
            .serve();
        tokio::select! {
            () = serve => {}
            () = gate.expired(admitted) => {}
        }
    })
}
