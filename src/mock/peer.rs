//! The server's side of one connection: everything that a script waits for.
//!
//! Owns the state of the connection. The methods that send are in `send.rs`; reading, checking and
//! ordering what the client sends is in `inbox.rs`.

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
/// Messages from the client are read only while a method waits for something. Each is checked
/// against the [rules](super#the-rules) when it is read, and the script consumes them strictly in
/// order. Three things are skipped unless a method waits for them: a WebSocket ping, which is
/// answered; a WebSocket pong; and a `ping` message, which is answered with a `pong` unless
/// [`auto_pong`](Self::auto_pong) is off.
///
/// Every `expect_*` method panics if something else arrives, if nothing arrives within the
/// [deadline](Self::set_deadline), or if a message breaks a rule. The panic says what was expected,
/// what came instead, the place in the test, and the last messages in both directions.
///
/// Messages to a client that has closed the connection are lost without an error, as on a real
/// network. Dropping a peer drops the connection, like [`vanish`](Self::vanish).
#[must_use = "dropping it drops the connection"]
pub struct Peer {
    pub(super) socket: WebSocketStream<Wire>,
    pub(super) subprotocol: Subprotocol,
    pub(super) checker: Checker,
    pub(super) stage: Stage,
    /// Whether the script has sent a close frame. Nothing may follow it.
    pub(super) close_sent: bool,
    pub(super) deadline: Duration,
    request: Request,
    init_payload: Value,
    /// What was read and is not consumed yet.
    pub(super) inbox: VecDeque<Incoming>,
    /// See [`auto_pong`](Self::auto_pong).
    pub(super) answer_pings: bool,
    /// How often [`sync`](Self::sync) was called. Makes each of its pings unique.
    syncs: u64,
    /// The last messages in both directions, for panics.
    pub(super) log: VecDeque<String>,
}

/// What the client can still send.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Stage {
    Open,
    /// Its close frame was read: only the end of the stream can follow.
    Closed,
    /// The end of the stream was read.
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
    /// The name of the operation in the document to execute.
    pub operation_name: Option<String>,
    /// The variables; `null` if there are none.
    pub variables: Value,
    /// The extensions of the request.
    pub extensions: Option<Value>,
    /// The whole payload, as the client sent it.
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

    /// Sets whether `ping` messages are answered and skipped while the script waits for something
    /// else. Default: `true`.
    ///
    /// If they are not, a `ping` is a message like any other, and the script has to consume it with
    /// [`expect_ping`](Self::expect_ping).
    pub fn auto_pong(&mut self, answer: bool) {
        self.answer_pings = answer;
    }

    /// Sets how long each wait may take before it panics. Default: the
    /// [server's](super::Server::set_deadline).
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Waits for `connection_init`. [`init_payload`](Self::init_payload) then returns its payload.
    #[track_caller]
    pub fn expect_init(mut self) -> impl Future<Output = Self> {
        let at = Location::caller();
        async move {
            self.init_payload =
                payload(self.expect_message("connection_init", at).await).unwrap_or_default();
            self
        }
    }

    /// Waits until the client starts an operation: `subscribe`, or `start` on the legacy
    /// subprotocol.
    #[track_caller]
    pub fn expect_subscribe(&mut self) -> impl Future<Output = Subscribe> {
        let at = Location::caller();
        async move { Subscribe::new(self.expect_message(self.subprotocol.start(), at).await) }
    }

    /// Waits until the client starts so many operations in a row. Returns them in their order.
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
    /// Returns the operation's id.
    #[track_caller]
    pub fn expect_complete(&mut self) -> impl Future<Output = String> {
        let at = Location::caller();
        async move {
            text(&self.expect_message(self.subprotocol.stop(), at).await, "id").unwrap_or_default()
        }
    }

    /// Waits for a `ping` message and returns its payload. It is not answered: use
    /// [`pong`](Self::pong).
    #[track_caller]
    pub fn expect_ping(&mut self) -> impl Future<Output = Option<Value>> {
        let at = Location::caller();
        async move { payload(self.expect_message("ping", at).await) }
    }

    /// Waits for a `pong` message and returns its payload.
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

    /// Waits for a WebSocket ping frame and returns its body. It has been answered.
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

    /// Waits for a WebSocket pong frame and returns its body.
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

    /// Waits for the client's close frame, which may be its answer to [`close`](Self::close).
    /// Returns the code and the reason.
    ///
    /// The code is 1005 if the frame has none. The close frame has been answered, and the client
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

    /// Waits until the client drops the connection, with or without a close frame.
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

    /// Waits until the client drops the connection, and panics if it sends a close frame first.
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

    /// Waits for this long, in tokio's time, and expects that the client sends nothing but pings
    /// that are skipped.
    ///
    /// # Panics
    ///
    /// If the client does anything else, such as dropping the connection.
    #[track_caller]
    pub fn expect_nothing_for(&mut self, duration: Duration) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            if let Ok(incoming) = timeout(duration, self.next_unskipped(at)).await {
                self.fail(at, &format!("expected nothing for {duration:?}, got {incoming}"));
            }
        }
    }

    /// Waits for the next message of any type. A `ping` is returned too, and is not answered.
    /// Returns `None` if the client closes or drops the connection instead.
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

    /// Answers pings until another message arrives, and returns that message. Returns `None` if the
    /// client closes or drops the connection instead. There is no deadline.
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

    /// Runs a future to completion and answers pings meanwhile. Everything else that arrives is
    /// kept for the methods that follow.
    ///
    /// This is for a test that waits for its client:
    /// `let event = peer.serve_while(trades.next()).await;`.
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

    /// Reads until the client drops the connection, and returns the messages. Pings are answered
    /// and left out.
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

    /// Waits until the client has read everything that was sent so far, by sending a ping and
    /// waiting for its answer.
    ///
    /// Everything else that arrives meanwhile is kept for the methods that follow. From now on it
    /// breaks a rule if the client sends `complete` for an operation that the server had ended.
    /// Before, that `complete` may have crossed the server's end on the wire, which is allowed.
    ///
    /// # Panics
    ///
    /// If the client does not answer within the [deadline](Self::set_deadline), or does not echo
    /// the payload of the ping.
    #[track_caller]
    pub fn sync(&mut self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            self.syncs += 1;
            let mark = format!("sync {}", self.syncs);
            match self.subprotocol {
                Subprotocol::GraphqlTransportWs => self.ping(Some(json!({ "mock": mark }))).await,
                // On the legacy subprotocol a `ping` message is an error.
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

    /// Drops the connection without a close frame, as when a load balancer dies. Over TCP the
    /// connection is reset.
    pub fn vanish(mut self) {
        self.socket.get_mut().reset_on_drop();
    }

    /// Stops reading and writing, and keeps the connection open until the result is dropped.
    pub fn go_silent(self) -> Silence {
        Silence::new(Some(self.request.clone()), self)
    }

    /// Returns the upgrade request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Returns the subprotocol that this side speaks.
    pub fn subprotocol(&self) -> Subprotocol {
        self.subprotocol
    }

    /// Returns the payload of `connection_init`; `null` before
    /// [`expect_init`](Self::expect_init).
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
