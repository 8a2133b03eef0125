//! Performs the outputs of the session, each as soon as it is taken (I8).

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures::{FutureExt, future::BoxFuture};
use http::HeaderMap;
use tokio::sync::oneshot;

use super::{Connector, Driver, Link, waiters::Waiters};
use crate::{
    client::telemetry::{self, Losses},
    delivery::writer::{Continue, Writer},
    error::{ConnectError, CredentialsError, DialError, SharedError, SubscribeError},
    protocol::Subprotocol,
    response::{ConnectionEnd, End, StreamEnd},
    session::{Output, Status},
    transport::socket::Socket,
};

impl Driver {
    /// Performs all outputs of the session. After most frames there are none.
    pub(super) fn perform(&mut self, now: Instant) {
        if self.session.has_output() {
            self.perform_all(now);
        }
    }

    fn perform_all(&mut self, now: Instant) {
        let mut losses = Losses::default();
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Authorize(connection, reason) => {
                    let connector = Arc::clone(&self.connector);
                    // The provider is the application's code. Its panic must not end the driver.
                    let asked = AssertUnwindSafe(async move { (connector.provider)(reason).await })
                        .catch_unwind();
                    self.connections[connection as usize].link = Link::Asking(
                        asked
                            .map(|answer| {
                                answer.unwrap_or_else(|_| {
                                    Err(CredentialsError::transient("the provider panicked"))
                                })
                            })
                            .boxed(),
                    );
                }
                Output::Dial(connection, subprotocol) => {
                    let io = &mut self.connections[connection as usize];
                    io.link = Link::Dialing(dial(
                        &self.connector,
                        subprotocol,
                        std::mem::take(&mut io.headers),
                    ));
                }
                Output::Hangup(connection, close) => {
                    let link = std::mem::replace(
                        &mut self.connections[connection as usize].link,
                        Link::None,
                    );
                    if let Link::Open(mut socket) = link {
                        socket.hang_up(close);
                        self.counters.moved(socket.take_traffic());
                    }
                }
                Output::Reissue { writer, mut gap } => {
                    if self.resume(now, &writer) {
                        writer.reissued(&mut gap);
                        losses.reissued(writer.id, &gap);
                        writer.push_gap(gap);
                    }
                }
                Output::Resume { writer } => {
                    self.resume(now, &writer);
                }
                Output::Gap { writer, mut gap } => {
                    writer.moved(&mut gap);
                    losses.reissued(writer.id, &gap);
                    writer.push_gap(gap);
                }
                Output::Deliver { id, writer, backlog } => {
                    self.deliver_all(now, id, &writer, backlog);
                }
                Output::Established { writer } => writer.establish(),
                Output::Stale { writer, idle_for } => {
                    telemetry::stale(writer.id, idle_for);
                    writer.push_stale(idle_for);
                }
                Output::AskIfTransient { writer, end } => match writer.is_transient(&end) {
                    Ok(true) => self.session.restart(now, writer.id),
                    Ok(false) => self.end(now, &writer, end),
                    Err(error) => self.end(now, &writer, End::Stream(StreamEnd::Hook(error))),
                },
                Output::Finish { writer, end } => {
                    losses.finished(writer.id, &end);
                    self.sharing.forget(&writer);
                    writer.finish(end, || self.counters.ended());
                }
                Output::Connected(answer) => answer_all(&mut self.waiters, &answer),
                Output::Rotated(answer) => answer_all(&mut self.rotating, &answer),
                Output::Postponed(cause) => telemetry::postponed(&cause),
                Output::Refused(cause, grace) => telemetry::refused(&cause, grace),
                Output::Unattributed(message) => telemetry::unattributed(message.as_deref()),
                Output::Status(status) => {
                    telemetry::status(&status);
                    self.status.set(status);
                }
                Output::Ended => {
                    self.connections.iter_mut().for_each(|io| io.link = Link::None);
                    self.ended = true;
                    // Before the status is set, so that subscribing fails once the end is visible.
                    self.commands.close();
                    telemetry::status(&Status::Ended);
                    self.status.set(Status::Ended);
                }
            }
        }
        losses.report();
    }

    /// Asks the application for the position to resume from, and ends the operation if that fails.
    /// Returns whether the operation continues.
    fn resume(&mut self, now: Instant, writer: &Writer) -> bool {
        let limit = self.connector.max_message_size;
        let error: SharedError = match writer.position() {
            Ok(Continue::After(request) | Continue::Anew(request))
                if request.get().len() > limit =>
            {
                Arc::new(SubscribeError::TooLarge { size: request.get().len(), limit })
            }
            Ok(Continue::Anywhere) => {
                self.session.resume_from_nowhere(writer.id, None);
                return true;
            }
            Ok(Continue::Anew(request)) => {
                self.session.resume_from_nowhere(writer.id, Some(request.into()));
                return true;
            }
            Ok(Continue::Unchanged) => {
                self.session.resume_from(writer.id, None);
                return true;
            }
            Ok(Continue::After(request)) => {
                self.session.resume_from(writer.id, Some(request.into()));
                return true;
            }
            Err(error) => error,
        };
        self.end(now, writer, End::Stream(StreamEnd::Hook(error)));
        false
    }

    /// Ends a subscription that the server has not ended.
    pub(super) fn end(&mut self, now: Instant, writer: &Writer, end: End) {
        Losses::default().finished(writer.id, &end);
        self.cancel(now, writer.id);
        writer.finish(end, || self.counters.ended());
    }
}

fn dial(
    connector: &Arc<Connector>,
    subprotocol: Subprotocol,
    headers: HeaderMap,
) -> BoxFuture<'static, Result<Socket, ConnectError>> {
    let connector = Arc::clone(connector);
    let opened = AssertUnwindSafe(async move {
        let Connector { endpoint, dialer, max_message_size, .. } = &*connector;
        Socket::open(&**dialer, endpoint, subprotocol, headers, *max_message_size).await
    });
    // The dialer may be the application's code. Its panic must not end the driver.
    let panicked = || {
        ConnectError::Dial(DialError::Other(Arc::new(std::io::Error::other("the dialer panicked"))))
    };
    opened.catch_unwind().map(move |opened| opened.unwrap_or_else(|_| Err(panicked()))).boxed()
}

/// Answers all waiters. An error means that a waiter was dropped and needs no answer.
fn answer_all(
    waiters: &mut Waiters<oneshot::Sender<Result<(), ConnectionEnd>>>,
    answer: &Result<(), ConnectionEnd>,
) {
    for waiter in waiters.take() {
        let _ = waiter.send(answer.clone());
    }
}
