//! What both test servers share: one shape to drive them by, and the streams that their
//! subscriptions serve.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::{broadcast, watch};

use crate::market::listener::{Count, Gauge, Serving};

/// A server that can be killed in mid-stream and restarted on its port.
///
/// Its schema, whichever library serves it:
/// ```graphql
/// type Query { answer: Int! }
/// type Mutation { add(a: Int!, b: Int!): Int! }
/// type Subscription {
///   ticks(n: Int!, everyMs: Int! = 10): Int!   # 0 .. n-1, then completes
///   forever(everyMs: Int! = 10): Int!          # 0, 1, 2 ...
///   partial(n: Int! = 3): Reading!             # n readings, in each of which `broken` fails
///   failing: Int!                              # 0, 1, an error, the end
///   feed: Int!                                 # what the test publishes, to all alike
/// }
/// type Reading { value: Int! broken: Int }
/// ```
/// Of a `partial` item async-graphql sends `{"value": 0}`, without the key `broken`; juniper sends
/// null for the whole reading, although its type is not nullable.
///
/// `connection_init` may carry `{"token": "good"}`; any other token is rejected, none is decided by
/// [`Options`].
pub(crate) struct TestServer {
    serving: Serving,
    desk: Desk,
}

/// What the resolvers of a server share, and its test.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) streams: Gauge,
    pub(crate) feed: broadcast::Sender<i32>,
    /// The `a` of every `add`, in the order in which they were executed.
    pub(crate) added: Arc<Mutex<Vec<i32>>>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            streams: Gauge::default(),
            feed: broadcast::Sender::new(FEED_ROOM),
            added: Arc::default(),
        }
    }
}

impl Desk {
    pub(crate) fn add(&self, a: i32, b: i32) -> i32 {
        self.added.lock().unwrap().push(a);
        a + b
    }
}

/// What a stream may be behind by, in items; it ends beyond that.
const FEED_ROOM: usize = 1 << 16;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// 0 for a free one.
    pub(crate) port: u16,
    pub(crate) without_token: WithoutToken,
}

/// What happens to a `connection_init` without a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WithoutToken {
    #[default]
    Accept,
    Reject,
}

impl WithoutToken {
    /// Decides on the token of a `connection_init`.
    pub(crate) fn admits(self, token: Option<&str>) -> bool {
        token.map_or(self == Self::Accept, |token| token == "good")
    }
}

/// What both servers say to a bad token.
pub(crate) const REJECTION: &str = "the token was not accepted";

impl TestServer {
    pub(crate) fn serve(port: u16, router: Router, desk: Desk) -> Self {
        Self { serving: Serving::start(port, router).expect("a loopback port"), desk }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/graphql", self.addr())
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.serving.addr()
    }

    /// The connections that the server holds.
    pub(crate) fn connections(&self) -> watch::Receiver<Count> {
        self.serving.connections()
    }

    /// The subscription streams that run on the server, over all connections.
    pub(crate) fn streams(&self) -> watch::Receiver<Count> {
        self.desk.streams.watch()
    }

    /// Sends an item to every `feed` that runs.
    pub(crate) fn publish(&self, n: i32) {
        // It is fine if there is none.
        let _ = self.desk.feed.send(n);
    }

    /// The `a` of every `add` that was executed, in order.
    pub(crate) fn added(&self) -> Vec<i32> {
        self.desk.added.lock().unwrap().clone()
    }

    /// Resets every connection, without a close frame; new ones are accepted.
    pub(crate) fn drop_connections(&self) {
        self.serving.drop_connections();
    }

    /// Resets every connection and refuses new ones, until [`restart`](Self::restart).
    pub(crate) fn kill(&self) {
        self.serving.kill();
    }

    /// Listens again, on the same port.
    pub(crate) fn restart(&self) {
        self.serving.restart().expect("the port is reserved");
    }
}

/// 0, 1, 2 ... for as long as it is not dropped, and counted by `streams` for as long.
pub(crate) fn counting(streams: &Gauge, every_ms: i32) -> impl Stream<Item = i32> + Send + use<> {
    let entered = streams.enter();
    let period = Duration::from_millis(u64::try_from(every_ms).unwrap_or(0).max(1));
    stream::unfold(
        (0, tokio::time::interval(period), entered),
        |(n, mut interval, entered)| async move {
            interval.tick().await;
            Some((n, (n + 1, interval, entered)))
        },
    )
}

/// The first `n` of [`counting`].
pub(crate) fn ticks(
    streams: &Gauge,
    n: i32,
    every_ms: i32,
) -> impl Stream<Item = i32> + Send + use<> {
    counting(streams, every_ms).take(usize::try_from(n).unwrap_or(0))
}

/// Two items, one error, the end.
pub(crate) fn failing(
    streams: &Gauge,
) -> impl Stream<Item = Result<i32, &'static str>> + Send + use<> {
    ticks(streams, 3, 1).map(|n| if n < 2 { Ok(n) } else { Err("the source has failed") })
}

/// What is published from now on.
pub(crate) fn feed(desk: &Desk) -> impl Stream<Item = i32> + Send + use<> {
    let (feed, entered) = (desk.feed.subscribe(), desk.streams.enter());
    stream::unfold((feed, entered), |(mut feed, entered)| async move {
        Some((feed.recv().await.ok()?, (feed, entered)))
    })
}
