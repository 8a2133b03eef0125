//! The door for `benches/pure.rs`: what is measured there, by plain arguments.
//!
//! Owns no behaviour and promises none: it exists only with the private feature `_bench`. The
//! options are the builder's.

use std::{
    ops::Range,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    Response,
    client::builder::ClientBuilder,
    delivery::{
        buffers::{Buffers, Stock},
        mailbox::{self, Batch, Pushed, Read},
        writer::Writer,
    },
    error::Disconnect,
    operation::{OperationType, document},
    protocol::{self, Envelope},
    response::End,
    session::{self, ConnectionId, Granted},
};

/// Where the payload is, as the client reads a frame.
pub fn parse(frame: &str) -> Option<Range<usize>> {
    std::hint::black_box(Envelope::parse(frame)).ok()?.payload
}

/// Where the payload is, by the reference parser.
pub fn parse_fully(frame: &str) -> Option<Range<usize>> {
    std::hint::black_box(Envelope::parse_fully(frame)).ok()?.payload
}

/// The documents of a client that passed the check.
#[derive(Default)]
pub struct Documents(document::Documents);

impl Documents {
    /// As a client does it for a subscription. `None` if it is refused.
    pub fn check(&self, payload: &serde_json::value::RawValue) -> Option<()> {
        self.0.check(payload, OperationType::Subscription).ok()
    }
}

/// A session on an acknowledged connection. Its clock stands still, except to end a backoff.
pub struct Session {
    session: session::Session<Arc<Writer>>,
    now: Instant,
}

impl Session {
    /// With an operation for each request; their ids are `1.0`, `2.1` and so on.
    #[expect(clippy::disallowed_methods, reason = "an origin, never read again")]
    pub fn open<'a>(requests: impl IntoIterator<Item = &'a str>) -> Self {
        let ClientBuilder { config, limits, .. } = ClientBuilder::new("");
        let (mut session, now) = (session::Session::new(config), Instant::now());
        for (id, request) in (1..).zip(requests) {
            let request = session::Request {
                kind: OperationType::Subscription,
                payload: request.into(),
                deadline: None,
                watch_options: None,
                is_resumable: false,
            };
            session.subscribe(now, id, request, Arc::new(Writer::new(id, limits, None)));
        }
        let mut this = Self { session, now };
        this.connect();
        this
    }

    /// Where the payload is, if this is an item of a live operation.
    pub fn handle_frame(&mut self, frame: &str) -> Option<Range<usize>> {
        self.session.handle_frame(self.now, ConnectionId::A, frame).map(|item| item.payload)
    }

    /// Loses the connection and makes another. Returns how many operations were written again.
    pub fn reissue(&mut self) -> usize {
        // Not a reset: the second in a row, without an item, would begin a trial.
        self.session.handle_lost(self.now, ConnectionId::A, Disconnect::Silent(Duration::ZERO));
        self.now = self.session.poll_timeout().unwrap_or(self.now);
        self.session.handle_timeout(self.now);
        self.connect()
    }

    fn connect(&mut self) -> usize {
        let Self { session, now } = self;
        session.handle_credentials(
            *now,
            ConnectionId::A,
            Ok(Granted { init_payload: "{}".into(), lifetime: None }),
        );
        session.handle_open(*now, ConnectionId::A);
        drop(session.poll_transmit(ConnectionId::A));
        session.handle_frame(*now, ConnectionId::A, r#"{"type":"connection_ack"}"#);
        while session.poll_output().is_some() {}
        std::iter::from_fn(|| session.poll_transmit(ConnectionId::A)).count()
    }
}

/// A mailbox under `DropOldest`, and the buffers that its items are copied into.
pub struct Mailbox {
    queue: mailbox::Mailbox<protocol::Payload, End>,
    batch: Batch<protocol::Payload>,
    buffers: Buffers,
    stock: Stock,
}

impl Mailbox {
    /// Nothing waits in it, and no buffer is there yet.
    pub fn empty() -> Self {
        let queue = mailbox::Mailbox::new(ClientBuilder::new("").limits);
        Self { queue, batch: Batch::new(), buffers: Buffers::default(), stock: Stock::default() }
    }

    /// As the driver does it. Whether nothing was dropped.
    pub fn push(&mut self, frame: &str) -> bool {
        let payload = protocol::Payload::new(self.stock.copy(frame, &self.buffers), 0..frame.len());
        self.queue.push(payload, frame.len()).0 == Pushed::Kept { dropped: 0 }
    }

    /// As a reader does it, without decoding. Whether there was an item.
    pub fn read(&mut self) -> bool {
        let read = self.queue.poll_read(&mut self.batch, &mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(Read::Item(payload))) = read else { return false };
        self.buffers.give_back(payload);
        true
    }
}

/// A frame as its reader holds it.
pub struct Payload(protocol::Payload);

impl Payload {
    /// `None` if there is no payload in it.
    pub fn new(frame: &str) -> Option<Self> {
        Some(Self(protocol::Payload::new(frame.to_owned(), parse(frame)?)))
    }

    /// As a reader does it. `None` if it is no response with a `T`.
    pub fn decode<'a, T: serde::Deserialize<'a>>(&'a self) -> Option<Response<T>> {
        self.0.decode().ok()
    }
}
