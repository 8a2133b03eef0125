//! Access to private code for `benches/pure.rs`.
//!
//! This module exists only with the private feature `_bench` and is not part of the public API. It
//! uses the builder's default options.

use std::{
    ops::Range,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    Operation, Request, Response, SubscriptionBuilder,
    client::{
        Client, Retries,
        builder::ClientBuilder,
        driver::Command,
        pool::{ConnectionHandle, Pool},
        subscription::Subscription,
    },
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

/// Locates the payload of a frame as the client does.
pub fn parse(frame: &str) -> Option<Range<usize>> {
    std::hint::black_box(Envelope::parse(frame)).ok()?.payload
}

/// Locates the payload of a frame with the reference parser.
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

/// A session on an acknowledged connection. Its clock advances only to end a backoff.
pub struct Session {
    session: session::Session<Arc<Writer>>,
    now: Instant,
}

impl Session {
    /// Starts an operation for each request. Their ids are `1.0`, `2.1` and so on.
    #[expect(clippy::disallowed_methods, reason = "the clock is read once, for the start time")]
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

    /// Handles a frame and returns where its payload is, if it is an item of a live operation.
    pub fn handle_frame(&mut self, frame: &str) -> Option<Range<usize>> {
        self.session.handle_frame(self.now, ConnectionId::A, frame).map(|item| item.payload)
    }

    /// Loses the connection and reconnects. Returns the number of operations that were re-issued.
    pub fn reissue(&mut self) -> usize {
        // Not a reset: a second reset in a row without an item would quarantine the operations.
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

/// A mailbox with the policy `DropOldest`, and the buffers that its items are copied into.
pub struct Mailbox {
    queue: mailbox::Mailbox<protocol::Payload, End>,
    batch: Batch<protocol::Payload>,
    buffers: Buffers,
    stock: Stock,
}

impl Mailbox {
    /// Creates a mailbox without items or buffers.
    pub fn empty() -> Self {
        let queue = mailbox::Mailbox::new(ClientBuilder::new("").limits);
        Self { queue, batch: Batch::new(), buffers: Buffers::default(), stock: Stock::default() }
    }

    /// Pushes an item as the driver does. Returns whether nothing was dropped.
    pub fn push(&mut self, frame: &str) -> bool {
        let payload = protocol::Payload::new(self.stock.copy(frame, &self.buffers), 0..frame.len());
        self.queue.push(payload, frame.len()).0 == Pushed::Kept { dropped: 0 }
    }

    /// Reads an item as a reader does, without decoding it. Returns whether there was an item.
    pub fn read(&mut self) -> bool {
        let read = self.queue.poll_read(&mut self.batch, &mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(Read::Item(payload))) = read else { return false };
        self.buffers.give_back(payload);
        true
    }
}

/// A frame as a reader holds it.
pub struct Payload(protocol::Payload);

impl Payload {
    /// Returns `None` if the frame has no payload.
    pub fn new(frame: &str) -> Option<Self> {
        Some(Self(protocol::Payload::new(frame.to_owned(), parse(frame)?)))
    }

    /// Decodes the payload as a reader does. Returns `None` if it is not a response with a `T`.
    pub fn decode<'a, T: serde::Deserialize<'a>>(&'a self) -> Option<Response<T>> {
        self.0.decode().ok()
    }
}

/// A subscription whose items come from the caller.
pub struct Stream<T> {
    subscription: Subscription<T>,
    writer: Arc<Writer>,
    stock: Stock,
    buffers: Buffers,
}

impl<T: serde::de::DeserializeOwned> Stream<T> {
    /// Starts a subscription with options. `None` if they conflict.
    pub fn start<D, O>(
        runtime: tokio::runtime::Handle,
        options: impl FnOnce(SubscriptionBuilder<Request<D>>) -> SubscriptionBuilder<O, T>,
    ) -> Option<Self>
    where
        D: serde::de::DeserializeOwned,
        O: Operation,
    {
        let (commands, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let retries = Retries { runtime, base: Duration::ZERO, cap: Duration::ZERO, seed: 0 };
        let connection = ConnectionHandle::new(commands, Arc::default(), Arc::new(retries), None);
        let limits = ClientBuilder::new("").limits;
        let client = Client::new(Pool::without_driver(connection), limits, 1 << 20);
        let request = Request::new("subscription { trades }");
        let subscription = options(client.subscription_to(request)).start().ok()?;
        let Ok(Command::Subscribe { writer, .. }) = receiver.try_recv() else { return None };
        Some(Self { subscription, writer, stock: Stock::default(), buffers: Buffers::default() })
    }

    /// Passes an item from the driver to the reader, who decodes it. Returns whether it was read.
    pub fn pass(&mut self, frame: &str) -> bool {
        let Some(json) = parse(frame) else { return false };
        let payload = protocol::Payload::new(self.stock.copy(frame, &self.buffers), json);
        if self.writer.push(payload, frame).is_err() {
            return false;
        }
        let cx = &mut Context::from_waker(Waker::noop());
        let read = futures::Stream::poll_next(std::pin::Pin::new(&mut self.subscription), cx);
        matches!(read, Poll::Ready(Some(Ok(crate::Event::Next(_)))))
    }
}
