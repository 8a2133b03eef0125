//! The server's side of one connection: what the script waits for.
//!
//! Owns the order in which the client's messages are consumed, and passes each through the checker
//! as it is read. What the script sends is in `speak.rs`, reading in `inbox.rs`.

use std::{
    collections::VecDeque,
    fmt,
    panic::Location,
    pin::{Pin, pin},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::{
    check::{Checker, Subprotocol, UsedIds},
    inbox::{Incoming, payload},
    server::Silence,
    upgrade::Request,
    wire::Wire,
};

/// One connection, scripted from the server's side.
///
/// What the client sends is read only while a method waits for something, is checked against the
/// protocol's rules as it is read, and is consumed strictly in order. Three things are not in
/// anyone's way: a WebSocket ping, which is answered and skipped unless it is what is waited for; a
/// WebSocket pong; and a `ping` message, which is answered with a `pong` and skipped likewise,
/// unless [`auto_pong`](Self::auto_pong) is off.
///
/// Every `expect_*` method panics when something else arrives, when nothing arrives within the
/// [deadline](Self::set_deadline), and when what arrives breaks a rule. The panic tells what was
/// expected, what came instead, where in the test, and what went back and forth last.
///
/// What is sent to a client that is gone is lost without a word, as on a real network. Dropping a
/// peer drops the connection, as [`vanish`](Self::vanish) does.
#[must_use = "dropping it drops the connection"]
pub struct Peer {
    pub(super) socket: WebSocketStream<Wire>,
    pub(super) subprotocol: Subprotocol,
    pub(super) checker: Checker,
    pub(super) stage: Stage,
    /// Whether a close frame went out: nothing may follow it.
    pub(super) close_sent: bool,
    pub(super) deadline: Duration,
    request: Request,
    init_payload: Value,
    /// What was read and not yet consumed.
    pub(super) inbox: VecDeque<Incoming>,
    pub(super) answer_pings: bool,
    /// How often [`sync`](Self::sync) was called; makes each of its pings unique.
    syncs: u64,
    /// The last lines of the conversation, for panics.
    pub(super) log: VecDeque<String>,
}

/// How much the client can still send.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Stage {
    Open,
    /// Its close frame was read: only the end of the stream is left.
    Closed,
    Ended,
}

/// An operation that the client started.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Subscribe {
    /// The id for [`next`](Peer::next), [`error`](Peer::error) and [`complete`](Peer::complete).
    pub id: String,
    /// The GraphQL document.
    pub query: String,
    /// Which of the document's operations to execute.
    pub operation_name: Option<String>,
    /// The variables; `null` when there are none.
    pub variables: Value,
    /// The request's extensions.
    pub extensions: Option<Value>,
    /// The whole payload, as it came.
    pub payload: Value,
}

impl Peer {
    pub(super) async fn new(
        wire: Wire,
        request: Request,
        subprotocol: Subprotocol,
        used_ids: UsedIds,
        deadline: Duration,
    ) -> Self {
        Self {
            socket: WebSocketStream::from_raw_socket(wire, Role::Server, None).await,
            subprotocol,
            checker: Checker::new(subprotocol, used_ids),
            stage: Stage::Open,
            close_sent: false,
            deadline,
            request,
            init_payload: Value::Null,
            inbox: VecDeque::new(),
            answer_pings: true,
            syncs: 0,
            log: VecDeque::new(),
        }
    }

    /// Sets whether `ping` messages are answered while something else is waited for. Default: they
    /// are.
    ///
    /// When they are not, a ping is a message like any other, and
    /// [`expect_ping`](Self::expect_ping) must consume it.
    pub fn auto_pong(&mut self, answer: bool) {
        self.answer_pings = answer;
    }

    /// Sets how long each wait may take before it panics. Default: the
    /// [server's](super::Server::set_deadline).
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Waits for `connection_init`. Its payload is then in [`init_payload`](Self::init_payload).
    #[track_caller]
    pub fn expect_init(mut self) -> impl Future<Output = Self> {
        let at = Location::caller();
        async move {
            self.init_payload =
                payload(self.expect_message("connection_init", at).await).unwrap_or_default();
            self
        }
    }

    /// Waits for an operation: `subscribe`, or `start` on the legacy subprotocol.
    #[track_caller]
    pub fn expect_subscribe(&mut self) -> impl Future<Output = Subscribe> {
        let at = Location::caller();
        async move { Subscribe::new(self.expect_message(self.subprotocol.start(), at).await) }
    }

    /// Waits for that many operations in a row. Returns them in the order in which they came.
    #[track_caller]
    pub fn expect_subscribes(&mut self, operations: usize) -> impl Future<Output = Vec<Subscribe>> {
        let at = Location::caller();
        async move {
            let mut all = Vec::with_capacity(operations);
            while all.len() < operations {
                all.push(Subscribe::new(self.expect_message(self.subprotocol.start(), at).await));
            }
            all
        }
    }

    /// Waits until the client stops an operation: `complete`, or `stop` on the legacy subprotocol.
    /// Returns the id.
    #[track_caller]
    pub fn expect_complete(&mut self) -> impl Future<Output = String> {
        let at = Location::caller();
        async move {
            text(&self.expect_message(self.subprotocol.stop(), at).await, "id").unwrap_or_default()
        }
    }

    /// Waits for a `ping` message. Returns its payload, and leaves the answer to
    /// [`pong`](Self::pong).
    #[track_caller]
    pub fn expect_ping(&mut self) -> impl Future<Output = Option<Value>> {
        let at = Location::caller();
        async move { payload(self.expect_message("ping", at).await) }
    }

    /// Waits for a `pong` message. Returns its payload.
    #[track_caller]
    pub fn expect_pong(&mut self) -> impl Future<Output = Option<Value>> {
        let at = Location::caller();
        async move { payload(self.expect_message("pong", at).await) }
    }

    /// Waits for a `connection_terminate` message (legacy).
    #[track_caller]
    pub fn expect_terminate(&mut self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            self.expect_message("connection_terminate", at).await;
        }
    }

    /// Waits for a WebSocket ping frame, which is answered already. Returns its body.
    #[track_caller]
    pub fn expect_ws_ping(&mut self) -> impl Future<Output = Vec<u8>> {
        let at = Location::caller();
        async move {
            self.expect("a WebSocket ping", at, |incoming| match incoming {
                Incoming::WsPing(body) => Ok(Some(body)),
                other => Err(other),
            })
            .await
        }
    }

    /// Waits for a WebSocket pong frame. Returns its body.
    #[track_caller]
    pub fn expect_ws_pong(&mut self) -> impl Future<Output = Vec<u8>> {
        let at = Location::caller();
        async move {
            self.expect("a WebSocket pong", at, |incoming| match incoming {
                Incoming::WsPong(body) => Ok(Some(body)),
                other => Err(other),
            })
            .await
        }
    }

    /// Waits for the client's close frame, its answer to [`close`](Self::close) included. Returns
    /// code and reason.
    ///
    /// The code is 1005 when the frame has none. The closing handshake is then done, and the client
    /// sees the end of the stream. For a server that never answers a close frame use
    /// [`go_silent`](Self::go_silent).
    #[track_caller]
    pub fn expect_close(&mut self) -> impl Future<Output = (u16, String)> {
        let at = Location::caller();
        async move {
            self.expect("a close frame", at, |incoming| match incoming {
                Incoming::Close(code, reason) => Ok(Some((code, reason))),
                other => Err(other),
            })
            .await
        }
    }

    /// Waits until the client drops the connection, after a close frame or without one.
    #[track_caller]
    pub fn expect_end(&mut self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            self.expect("the end of the connection", at, |incoming| match incoming {
                Incoming::Close(..) => Ok(None),
                Incoming::End => Ok(Some(())),
                other => Err(other),
            })
            .await;
        }
    }

    /// Waits until the client drops the connection, and panics when a close frame comes first.
    #[track_caller]
    pub fn expect_eof(&mut self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            self.expect("the end of the connection without a close frame", at, |incoming| {
                match incoming {
                    Incoming::End => Ok(Some(())),
                    other => Err(other),
                }
            })
            .await;
        }
    }

    /// Waits this long, of tokio's time, in which the client may do nothing but send pings that are
    /// answered.
    ///
    /// # Panics
    ///
    /// When it does anything else, ending the connection included.
    #[track_caller]
    pub fn expect_nothing_for(&mut self, duration: Duration) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            if let Ok(incoming) = timeout(duration, self.next_unskipped(at)).await {
                self.fail(at, &format!("expected nothing for {duration:?}, got {incoming}"));
            }
        }
    }

    /// The next message whatever it is, a `ping` included, which is not answered. `None` when the
    /// client closes or drops the connection instead.
    #[track_caller]
    pub fn next_message(&mut self) -> impl Future<Output = Option<Value>> {
        let at = Location::caller();
        async move {
            let next = self.expect("a message", at, |incoming| match incoming {
                Incoming::Message(message) => Ok(Some(Ok(message))),
                end @ (Incoming::Close(..) | Incoming::End) => Ok(Some(Err(end))),
                other => Err(other),
            });
            match next.await {
                Ok(message) => Some(message),
                Err(end) => {
                    self.inbox.push_front(end);
                    None
                }
            }
        }
    }

    /// Answers pings, without a deadline, until another message arrives, which it returns. `None`
    /// when the client closes or drops the connection instead.
    #[track_caller]
    pub fn serve_pings(&mut self) -> impl Future<Output = Option<Value>> {
        let at = Location::caller();
        async move {
            match self.next_unskipped(at).await {
                Incoming::Message(message) => Some(message),
                end => {
                    self.inbox.push_front(end);
                    None
                }
            }
        }
    }

    /// Runs a future to its end, and answers pings meanwhile. Everything else that arrives waits
    /// for its turn.
    ///
    /// For a test that waits for its client: `let event = peer.serve_while(trades.next()).await;`.
    #[track_caller]
    pub fn serve_while<F: Future>(&mut self, future: F) -> impl Future<Output = F::Output> {
        let at = Location::caller();
        async move {
            let mut future: Pin<&mut F> = pin!(future);
            loop {
                self.answer_queued_pings().await;
                if self.stage == Stage::Ended {
                    return future.await;
                }
                tokio::select! {
                    biased;
                    output = &mut future => return output,
                    () = self.read(at) => {}
                }
            }
        }
    }

    /// Reads until the client closes or drops the connection, answers pings, and returns the
    /// messages that came.
    #[track_caller]
    pub fn pump_until_end(&mut self) -> impl Future<Output = Vec<Value>> {
        let at = Location::caller();
        async move {
            let mut messages = Vec::new();
            self.expect("the end of the connection", at, |incoming| match incoming {
                Incoming::Message(message) if message["type"] == "ping" => {
                    Err(Incoming::Message(message))
                }
                Incoming::Message(message) => {
                    messages.push(message);
                    Ok(None)
                }
                Incoming::Close(..) => Ok(None),
                Incoming::End => Ok(Some(())),
                other => Err(other),
            })
            .await;
            messages
        }
    }

    /// Makes sure that the client has read everything that was sent so far, with a ping of its own
    /// and its answer.
    ///
    /// What else arrives meanwhile waits for its turn. From here on a `complete` for an operation
    /// that was ended before breaks a rule; without this, it may have crossed the end on the wire,
    /// which is normal.
    ///
    /// # Panics
    ///
    /// When the client does not answer, or does not echo the payload.
    #[track_caller]
    pub fn sync(&mut self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            self.syncs += 1;
            let mark = format!("sync {}", self.syncs);
            match self.subprotocol {
                Subprotocol::GraphqlTransportWs => self.ping(Some(json!({ "mock": mark }))).await,
                // A `ping` message is an error on this one.
                Subprotocol::GraphqlWs => self.ws_ping(mark.as_bytes()).await,
            }
            let deadline = self.deadline;
            let answered = timeout(deadline, async {
                loop {
                    self.read(at).await;
                    match self.inbox.back() {
                        Some(Incoming::WsPong(body)) if *body == mark.as_bytes() => break,
                        Some(Incoming::Message(pong))
                            if pong["type"] == "pong" && pong["payload"]["mock"] == mark =>
                        {
                            break;
                        }
                        Some(end @ (Incoming::Close(..) | Incoming::End)) => {
                            self.fail(at, &format!("expected the answer to a ping, got {end}"))
                        }
                        _ => {}
                    }
                }
            });
            if answered.await.is_err() {
                self.fail(
                    at,
                    &format!(
                        "expected the answer to a ping, but it did not come within {deadline:?}"
                    ),
                );
            }
            self.inbox.pop_back();
            self.checker.synced();
        }
    }

    /// Drops the connection without a close frame, as when a load balancer dies. Over TCP it is a
    /// reset.
    pub fn vanish(mut self) {
        self.socket.get_mut().reset_on_drop();
    }

    /// Neither reads nor writes from here on, and keeps the connection open until the result is
    /// dropped.
    pub fn go_silent(self) -> Silence {
        Silence::new(Some(self.request.clone()), self)
    }

    /// The upgrade request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The subprotocol that this side speaks.
    pub fn subprotocol(&self) -> Subprotocol {
        self.subprotocol
    }

    /// The payload of `connection_init`; `null` before [`expect_init`](Self::expect_init).
    pub fn init_payload(&self) -> &Value {
        &self.init_payload
    }
}

impl Subscribe {
    fn new(message: Value) -> Self {
        let id = text(&message, "id").unwrap_or_default();
        let payload = payload(message).unwrap_or_default();
        Self {
            id,
            query: text(&payload, "query").unwrap_or_default(),
            operation_name: text(&payload, "operationName"),
            variables: payload["variables"].clone(),
            extensions: payload
                .get("extensions")
                .filter(|extensions| !extensions.is_null())
                .cloned(),
            payload,
        }
    }
}

fn text(object: &Value, key: &str) -> Option<String> {
    object[key].as_str().map(ToOwned::to_owned)
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("subprotocol", &self.subprotocol)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}
