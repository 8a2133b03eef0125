//! A query or mutation over the same connection: one operation with one result.
//!
//! Owns waiting for the end of it, with a time limit. Knows the mailbox and nothing behind it.

use std::{
    fmt,
    future::{self, IntoFuture},
    marker::PhantomData,
    task::{Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::{
    client::Client,
    driver::{Command, Sink},
    error::{CallError, DecodeError, SubscribeError},
    mailbox::{Batch, Read},
    operation::{Operation, OperationType},
    response::{GraphQlError, Response},
    session::End,
};

/// A query or mutation that begins when it is awaited; made by [`Client::query`] and [`Client::mutate`].
///
/// Without a connection it waits for one, up to its [`timeout`](Self::timeout). A query is sent again if the connection is
/// lost before its result; a mutation never is: see [`CallError::Ambiguous`]. Dropping the future cancels the operation on
/// the server.
#[must_use = "a call begins when it is awaited"]
pub struct Call<T> {
    client: Client,
    kind: OperationType,
    payload: Result<Box<RawValue>, serde_json::Error>,
    name: Option<String>,
    timeout: Duration,
    data: PhantomData<fn() -> T>,
}

impl<T> Call<T> {
    pub(crate) fn new<O: Operation<Data = T>>(client: Client, kind: OperationType, operation: &O) -> Self {
        let (payload, name) = (operation.payload(), operation.name().map(str::to_owned));
        Self { client, kind, payload, name, timeout: DEFAULT_TIMEOUT, data: PhantomData }
    }

    /// Sets how long to wait for the result, the wait for a connection included. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl<T: DeserializeOwned + 'static> IntoFuture for Call<T> {
    type Output = Result<Response<T>, CallError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, kind, payload, name, timeout, data: _ } = self;
        Box::pin(async move {
            let payload = payload.map_err(|error| CallError::NotSent(SubscribeError::Serialize(error)))?;
            let (sink, commands) = client.begin(kind, payload, name.as_deref(), None).map_err(CallError::NotSent)?;
            let mut pending = Pending { sink, commands, over: false };
            let end = if let Ok(end) = tokio::time::timeout(timeout, pending.end()).await {
                end
            } else {
                // Whether it was written is the session's to say; if that is gone, the mailbox has its end.
                let _ = pending.commands.send(Command::Expire(pending.sink.id));
                pending.end().await
            };
            response(end, timeout)
        })
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("kind", &self.kind).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What was sent, or will be.
struct Pending {
    sink: Sink,
    commands: mpsc::UnboundedSender<Command>,
    over: bool,
}

impl Pending {
    async fn end(&mut self) -> End {
        let mut batch = Batch::new();
        future::poll_fn(|cx| {
            loop {
                match ready!(self.sink.mailbox.poll_read(&mut batch, cx)) {
                    Some(Read::End(end)) => {
                        self.over = true;
                        return Poll::Ready(end);
                    }
                    // Nothing else comes to a call.
                    Some(Read::Item(_) | Read::Gap(_)) => {}
                    None => return Poll::Ready(End::ShutDown),
                }
            }
        })
        .await
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.sink.mailbox.close(&mut Batch::new());
        if !self.over {
            // The driver may be gone; so is the operation then.
            let _ = self.commands.send(Command::Cancel(self.sink.id));
        }
    }
}

fn response<T: DeserializeOwned>(end: End, timeout: Duration) -> Result<Response<T>, CallError> {
    match end {
        End::Answered(json) => serde_json::from_str(&json).map_err(|error| {
            let errors = serde_json::from_str::<Response<IgnoredAny>>(&json).map(|response| response.errors);
            CallError::Decode(DecodeError::new(error, errors.unwrap_or_default()))
        }),
        End::Completed => Err(CallError::NoResult),
        End::Rejected(payload) => Err(CallError::Rejected(GraphQlError::read(payload.as_deref()))),
        End::Ambiguous(cause) => Err(CallError::Ambiguous(cause)),
        End::TimedOut => Err(CallError::Timeout(timeout)),
        End::Lost(cause) => Err(CallError::Lost(cause)),
        End::GaveUp { attempts, cause } => Err(CallError::GaveUp { attempts, cause }),
        End::ShutDown | End::Overflow => Err(CallError::ShutDown),
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
