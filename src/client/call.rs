//! A query or mutation, which is an operation with one result.
//!
//! Owns waiting for the result. Knows the mailbox, but not the driver or the session behind it.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::{
    client::{Client, Plan, builder::MAX_DURATION, pool::ConnectionHandle},
    delivery::{
        mailbox::{Batch, Read},
        writer::Writer,
    },
    error::{CallError, GraphQlError, IncrementalError, SubscribeError},
    operation::{Operation, OperationType},
    response::{CallEnd, ConnectionEnd, End, Response, decode, decode_parts, errors_of},
    session::WatchOptions,
};

/// A query or mutation, which starts when it is first polled. Created by [`Client::query_with`] and
/// [`Client::mutate_with`], or, for generated operations, by `query` and `mutate`.
///
/// Without a connection, a call waits for one until its [`timeout`](Self::timeout). If the
/// connection is lost before the result arrives, the client sends a query again, but never a
/// mutation; see [`CallError::Ambiguous`]. Dropping the call cancels the operation on the server,
/// but does not undo what the server has executed.
///
/// If the server delivers the result in parts (`@defer`, `@stream`), the call returns the merged
/// result once the last part has arrived, in all formats that servers use. A part is never taken
/// for a whole result: what does not make one is [`CallError::Incremental`].
///
/// A call can be polled on any executor, because the client's driver keeps the time.
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<T> {
    client: Client,
    kind: OperationType,
    name: Option<String>,
    timeout: Duration,
    is_unchecked: bool,
    /// The preferred connection, which is used if it has room.
    near: Option<Arc<ConnectionHandle>>,
    /// `None` once the call has started.
    payload: Option<Result<Box<RawValue>, serde_json::Error>>,
    pending: Option<Pending>,
    data: PhantomData<fn() -> T>,
}

impl<T> Call<T> {
    pub(crate) fn new<O: Operation<Data = T>>(
        client: Client,
        kind: OperationType,
        operation: &O,
    ) -> Self {
        let (payload, name) = (Some(operation.payload()), operation.name().map(str::to_owned));
        Self {
            client,
            kind,
            name,
            timeout: DEFAULT_TIMEOUT,
            is_unchecked: false,
            near: None,
            payload,
            pending: None,
            data: PhantomData,
        }
    }

    /// Sets how long to wait for the result. Default: 30 s. The time starts with the first poll and
    /// includes the wait for a connection. After this time the call fails with
    /// [`CallError::Timeout`], or, if it is a mutation that was sent, [`CallError::Ambiguous`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the document as it is. Default: a document that is not GraphQL, or does not have the
    /// operation to run, is refused.
    ///
    /// For syntax that the client does not know yet, such as descriptions of operations. What the
    /// operation is, a query or a mutation, is then what you say: a query is sent again after a
    /// reconnect. See [`SubscriptionBuilder::unchecked`](crate::SubscriptionBuilder::unchecked).
    pub fn unchecked(mut self) -> Self {
        self.is_unchecked = true;
        self
    }

    /// Prefers the connection of another operation. It is used if it belongs to the same client and
    /// has room.
    pub(crate) fn near(mut self, connection: &Arc<ConnectionHandle>) -> Self {
        self.near = Some(Arc::clone(connection));
        self
    }

    fn begin(
        &self,
        payload: Result<Box<RawValue>, serde_json::Error>,
    ) -> Result<Pending, SubscribeError> {
        let payload = payload.map_err(SubscribeError::Serialize)?;
        let plan = Plan {
            kind: self.kind,
            is_unchecked: self.is_unchecked,
            limits: None,
            timeout: Some(self.timeout.min(MAX_DURATION)),
            watch_options: WatchOptions::default(),
            hooks: None,
            near: self.near.clone(),
            sharing: None,
            is_dedicated: false,
        };
        let (connection, writer) = self.client.begin(payload, self.name.as_deref(), plan)?;
        Ok(Pending { writer, connection, is_over: false })
    }
}

impl<T: DeserializeOwned> Future for Call<T> {
    type Output = Result<Response<T>, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(payload) = self.payload.take() {
            match self.begin(payload) {
                Ok(pending) => self.pending = Some(pending),
                Err(error) => return Poll::Ready(Err(CallError::NotSent(error))),
            }
        }
        let result = match &mut self.pending {
            Some(pending) => match ready!(pending.poll_end(cx)) {
                End::Connection(ConnectionEnd::ShutDown)
                    if pending.connection.counters().is_runtime_gone() =>
                {
                    Err(CallError::RuntimeGone)
                }
                end => response(end, self.timeout),
            },
            // The call could not start and was polled again.
            None => Err(CallError::ShutDown),
        };
        Poll::Ready(result)
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// An operation that was started and has not ended.
struct Pending {
    writer: Arc<Writer>,
    connection: Arc<ConnectionHandle>,
    is_over: bool,
}

impl Pending {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            match ready!(self.writer.mailbox.poll_read(&mut Batch::new(), cx)) {
                Some(Read::End(end)) => {
                    self.is_over = true;
                    return Poll::Ready(end);
                }
                // The driver sends nothing but the end to a call.
                Some(Read::Item(_) | Read::Gap(_) | Read::Stale(_)) => {}
                None => return Poll::Ready(End::Connection(ConnectionEnd::ShutDown)),
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.connection.leave(&self.writer, &mut Batch::new(), self.is_over);
    }
}

fn response<T: DeserializeOwned>(end: End, timeout: Duration) -> Result<Response<T>, CallError> {
    match end {
        End::Call(CallEnd::Answered(payload)) => match decode(&payload) {
            Err(error) if error.is_incremental() => decode_parts(&[payload]),
            result => result.map_err(CallError::Decode),
        },
        End::Call(CallEnd::AnsweredInParts(parts)) => decode_parts(&parts),
        End::Call(CallEnd::Incomplete(parts)) => {
            Err(CallError::Incremental(IncrementalError::Incomplete(errors_of(&parts))))
        }
        End::Call(CallEnd::PartsTooLarge(limit)) => {
            Err(CallError::Incremental(IncrementalError::TooLarge { limit }))
        }
        End::Completed => Err(CallError::NoResult),
        End::Rejected(payload) => Err(CallError::Rejected(GraphQlError::read(payload.as_deref()))),
        End::Call(CallEnd::Ambiguous(cause)) => Err(CallError::Ambiguous(cause)),
        End::Call(CallEnd::TimedOut) => Err(CallError::Timeout(timeout)),
        End::Connection(ConnectionEnd::Lost(cause)) => Err(CallError::Lost(cause)),
        End::Connection(ConnectionEnd::GaveUp { attempts, cause }) => {
            Err(CallError::GaveUp { attempts, cause })
        }
        End::Connection(ConnectionEnd::ShutDown) | End::Stream(_) => Err(CallError::ShutDown),
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
