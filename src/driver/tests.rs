//! The driver's own end.

mod sharing;

use std::{num::NonZeroUsize, task::Wake};

use super::*;
use crate::{
    builder::ClientBuilder,
    dial::DialFuture,
    mailbox::{Batch, Limits, Overflow, Read},
};

struct Nowhere;

impl Dialer for Nowhere {
    fn dial<'a>(&'a self, _: &'a Url) -> DialFuture<'a> {
        Box::pin(std::future::pending())
    }
}

/// The last step of `Client::begin`, at the moment when this reader is woken.
struct LastStep {
    commands: mpsc::UnboundedSender<Command>,
    sink: Arc<Sink>,
}

impl Wake for LastStep {
    fn wake(self: Arc<Self>) {
        if self.commands.is_closed() {
            self.sink.mailbox.finish(End::ShutDown);
        }
    }
}

fn sink(id: u64) -> Arc<Sink> {
    let limit = NonZeroUsize::MAX;
    Arc::new(Sink::new(id, Limits { items: limit, bytes: limit, overflow: Overflow::DropOldest }, None))
}

fn read(sink: &Sink, waker: &Waker) -> Poll<Option<Read<Payload, End>>> {
    sink.mailbox.poll_read(&mut Batch::new(), &mut Context::from_waker(waker))
}

/// That never gets credentials.
fn driver() -> (Driver, mpsc::UnboundedSender<Command>) {
    let (commands, receiver) = mpsc::unbounded_channel();
    let connector = Connector {
        endpoint: Url::parse("ws://nowhere").unwrap(),
        dialer: Arc::new(Nowhere),
        fixed: Credentials::none(),
        provider: Credentials::provider(|_| std::future::pending()),
        max_message_size: usize::MAX,
    };
    let session = Session::new(ClientBuilder::new("").config);
    let status = watch::channel(Status::Idle).0;
    (Driver::new(session, connector, receiver, status, Arc::default(), Arc::default()), commands)
}

/// `begin` sends a command, then looks whether the driver is gone. In between the driver may take the command, write the
/// mutation and be dropped: once the channel is seen closed, what was written must have its own end already.
#[tokio::test(start_paused = true)]
async fn a_mutation_that_was_written_is_ambiguous_even_if_its_caller_is_slow_to_learn_that_the_driver_goes() {
    let (mut driver, commands) = driver();
    let (written, waiting) = (sink(1), sink(2));
    let request = Request { kind: OperationType::Mutation, payload: "{}".into(), deadline: None, care: None };
    driver.session.subscribe(now(), 1, request, written.clone());
    driver.session.handle_credentials(now(), Ok("{}".into()));
    driver.session.handle_open(now());
    assert!(driver.session.handle_frame(now(), r#"{"type":"connection_ack"}"#).is_none());
    while driver.session.poll_transmit().is_some() {}

    let subscribe = Command::Subscribe {
        kind: OperationType::Query,
        payload: "{}".into(),
        timeout: None,
        care: None,
        sink: waiting.clone(),
    };
    assert!(commands.send(subscribe).is_ok());
    let waker = Waker::from(Arc::new(LastStep { commands, sink: written.clone() }));
    assert!(read(&waiting, &waker).is_pending());
    drop(driver);
    let end = read(&written, Waker::noop());
    assert!(matches!(end, Poll::Ready(Some(Read::End(End::Ambiguous(None))))), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_connection_no_more_is_forgotten() {
    let (mut driver, commands) = driver();
    let mut answers = Vec::new();
    for n in 0..1_000 {
        let (waiter, answer) = oneshot::channel();
        assert!(commands.send(Command::Connect(waiter)).is_ok());
        answers.extend((n % 100 == 0).then_some(answer));
    }
    while driver.take_commands(&mut Context::from_waker(Waker::noop()), now()) {}
    assert!(driver.waiters.len() <= 11, "{}", driver.waiters.len());
}
