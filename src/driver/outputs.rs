//! What the session wants done, done at once (I8).

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures::{FutureExt, future::BoxFuture};

use super::{Connector, Driver, Link};
use crate::{
    error::{ConnectError, CredentialsError, DialError, SharedError, SubscribeError},
    mailbox::Gap,
    protocol::Subprotocol,
    session::{End, Output},
    sink::Sink,
    socket::Socket,
    status::Status,
    telemetry::{self, Losses},
};

impl Driver {
    /// Does everything that the session wants done.
    pub(super) fn perform(&mut self, now: Instant) {
        let mut losses = Losses::default();
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Authorize(reason) => {
                    let connector = Arc::clone(&self.connector);
                    // The provider is the application's code: its panic is its failure, not ours.
                    let asked = AssertUnwindSafe(async move { (connector.provider)(reason).await }).catch_unwind();
                    self.link = Link::Asking(
                        asked
                            .map(|answer| {
                                answer.unwrap_or_else(|_| Err(CredentialsError::transient("the provider panicked")))
                            })
                            .boxed(),
                    );
                }
                Output::Dial(subprotocol) => self.link = Link::Dialing(self.dial(subprotocol)),
                Output::Hangup(close) => {
                    if let Link::Open(socket) = &mut self.link {
                        socket.hang_up(close);
                        self.counters.moved(socket.take_traffic());
                    }
                    self.link = Link::None;
                }
                Output::Reissue { sink, mut gap } => match self.resume(&sink, &mut gap) {
                    Ok(()) => {
                        losses.reissued(sink.id, &gap);
                        sink.push_gap(gap);
                    }
                    Err(error) => self.end(now, &sink, End::Hook(error)),
                },
                Output::Established { sink } => sink.establish(),
                Output::Stale { sink, idle_for } => {
                    telemetry::stale(sink.id, idle_for);
                    sink.push_stale(idle_for);
                }
                Output::Judge { sink, end } => match sink.is_transient(&end) {
                    Ok(true) => self.session.restart(now, sink.id),
                    Ok(false) => self.end(now, &sink, end),
                    Err(error) => self.end(now, &sink, End::Hook(error)),
                },
                Output::Finish { sink, end } => {
                    losses.finished(sink.id, &end);
                    self.sharing.forget(&sink);
                    sink.finish(end);
                }
                Output::Connected(answer) => {
                    for waiter in self.waiters.drain(..) {
                        // Who does not wait any more needs no answer.
                        let _ = waiter.send(answer.clone());
                    }
                }
                Output::Status(status) => {
                    telemetry::status(&status);
                    self.status.send_replace(status);
                }
                Output::Ended => {
                    self.link = Link::None;
                    self.ended = true;
                    // Whoever learns of the end must not find that subscribing still works.
                    self.commands.close();
                    telemetry::status(&Status::Ended);
                    self.status.send_replace(Status::Ended);
                }
            }
        }
        losses.report();
    }

    /// Where the operation goes on is the application's to say.
    fn resume(&mut self, sink: &Sink, gap: &mut Gap) -> Result<(), SharedError> {
        let Some(request) = sink.resume(gap)? else { return Ok(()) };
        let (size, limit) = (request.get().len(), self.connector.max_message_size);
        if size > limit {
            return Err(Arc::new(SubscribeError::TooLarge { size, limit }));
        }
        self.session.revise(sink.id, request.into());
        Ok(())
    }

    fn dial(&mut self, subprotocol: Subprotocol) -> BoxFuture<'static, Result<Socket, ConnectError>> {
        let connector = Arc::clone(&self.connector);
        let headers = std::mem::take(&mut self.headers);
        let opened = AssertUnwindSafe(async move {
            let Connector { endpoint, dialer, max_message_size, .. } = &*connector;
            Socket::open(&**dialer, endpoint, subprotocol, headers, *max_message_size).await
        });
        // The dialer may be the application's code, as the provider is.
        let panicked = || ConnectError::Dial(DialError::Other(Arc::new(std::io::Error::other("the dialer panicked"))));
        opened.catch_unwind().map(move |opened| opened.unwrap_or_else(|_| Err(panicked()))).boxed()
    }

    /// Ends a subscription from this side.
    pub(super) fn end(&mut self, now: Instant, sink: &Sink, end: End) {
        Losses::default().finished(sink.id, &end);
        self.cancel(now, sink.id);
        sink.finish(end);
    }
}
