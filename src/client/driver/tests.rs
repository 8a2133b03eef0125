//! Tests of the driver: its end, its waiters, and what it does after a sleep.

mod sharing;

use std::{num::NonZeroUsize, task::Wake, time::Duration};

use super::{
    clocks::{
        ASLEEP,
        tests::{set_forward, wall},
    },
    *,
};
use crate::{
    client::{builder::ClientBuilder, pool::SharedStatus},
    delivery::{
        Overflow,
        mailbox::{Batch, Limits, Read},
    },
    operation::OperationType,
    protocol::Transmit,
    response::CallEnd,
    session::Request,
    transport::dial::DialFuture,
};

struct Nowhere;

impl Dialer for Nowhere {
    fn dial<'a>(&'a self, _: &'a Url) -> DialFuture<'a> {
        Box::pin(std::future::pending())
    }
}

/// Runs the last step of `ConnectionHandle::begin` at the moment when a reader is woken.
struct LastStep {
    commands: mpsc::UnboundedSender<Command>,
    writer: Arc<Writer>,
}

impl Wake for LastStep {
    fn wake(self: Arc<Self>) {
        if self.commands.is_closed() {
            self.writer.mailbox.finish(End::Connection(ConnectionEnd::ShutDown), || {});
        }
    }
}

fn writer(id: u64) -> Arc<Writer> {
    let limit = NonZeroUsize::MAX;
    Arc::new(Writer::new(
        id,
        Limits { items: limit, bytes: limit, overflow: Overflow::DropOldest },
        None,
    ))
}

fn read(writer: &Writer, waker: &Waker) -> Poll<Option<Read<Payload, End>>> {
    writer.mailbox.poll_read(&mut Batch::new(), &mut Context::from_waker(waker))
}

/// A driver that never gets credentials.
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
    let status = SharedStatus::new().0.add();
    (
        Driver::new(session, Arc::new(connector), receiver, status, Arc::default(), Arc::default()),
        commands,
    )
}

/// `begin` sends a command, then checks whether the driver has ended. In between, the driver may
/// take the command, write the mutation and be dropped. The mutation must have its end before the
/// channel is closed.
#[tokio::test(start_paused = true)]
async fn a_mutation_that_was_written_is_ambiguous_if_the_driver_is_dropped() {
    let (mut driver, commands) = driver();
    let (written, waiting) = (writer(1), writer(2));
    let request = Request {
        kind: OperationType::Mutation,
        payload: "{}".into(),
        deadline: None,
        watch_options: None,
        is_resumable: false,
    };
    driver.session.subscribe(now(), 1, request, written.clone());
    driver.session.handle_credentials(
        now(),
        ConnectionId::A,
        Ok(Granted { init_payload: "{}".into(), lifetime: None }),
    );
    driver.session.handle_open(now(), ConnectionId::A);
    assert!(
        driver
            .session
            .handle_frame(now(), ConnectionId::A, r#"{"type":"connection_ack"}"#)
            .is_none()
    );
    while driver.session.poll_transmit(ConnectionId::A).is_some() {}

    let subscribe = Command::Subscribe {
        kind: OperationType::Query,
        payload: "{}".into(),
        timeout: None,
        watch_options: None,
        writer: waiting.clone(),
    };
    assert!(commands.send(subscribe).is_ok());
    let waker = Waker::from(Arc::new(LastStep { commands, writer: written.clone() }));
    assert!(read(&waiting, &waker).is_pending());
    drop(driver);
    let end = read(&written, Waker::noop());
    assert!(
        matches!(end, Poll::Ready(Some(Read::End(End::Call(CallEnd::Ambiguous(None)))))),
        "{end:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn callers_that_stopped_waiting_for_a_connection_do_not_accumulate() {
    let (mut driver, commands) = driver();
    let mut answers = Vec::new();
    for n in 0..1_000 {
        let (waiter, answer) = oneshot::channel();
        assert!(commands.send(Command::Connect(waiter)).is_ok());
        answers.extend((n % 100 == 0).then_some(answer));
    }
    while driver.take_commands(&mut Context::from_waker(Waker::noop()), now()) {}
    let kept = driver.waiters.take().len();
    assert!((10..=32).contains(&kept), "{kept}");
}

/// A driver with an open connection and a simulated wall clock.
fn open() -> (Driver, mpsc::UnboundedSender<Command>) {
    let (mut driver, commands) = driver();
    driver.clocks = Clocks::with(now(), wall);
    driver.session.connect(now());
    driver.session.handle_credentials(
        now(),
        ConnectionId::A,
        Ok(Granted { init_payload: "{}".into(), lifetime: None }),
    );
    driver.session.handle_open(now(), ConnectionId::A);
    assert!(
        driver
            .session
            .handle_frame(now(), ConnectionId::A, r#"{"type":"connection_ack"}"#)
            .is_none()
    );
    while driver.session.poll_transmit(ConnectionId::A).is_some() {}
    (driver, commands)
}

/// Advances both clocks while nothing arrives.
async fn pass(driver: &mut Driver, mut time: Duration) {
    let step = Duration::from_millis(100);
    while !time.is_zero() {
        tokio::time::advance(step).await;
        set_forward(step);
        time -= step;
        driver.watch_time(&mut Context::from_waker(Waker::noop()), now());
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_the_next_command_pings_the_server_at_once() {
    let (mut driver, commands) = open();
    let command = |driver: &mut Driver| {
        assert!(commands.send(Command::Resume).is_ok());
        assert!(driver.take_commands(&mut Context::from_waker(Waker::noop()), now()));
        driver.session.poll_transmit(ConnectionId::A)
    };
    assert!(command(&mut driver).is_none());
    set_forward(ASLEEP);
    let Some(Transmit::Text(ping)) = command(&mut driver) else { panic!("no ping") };
    assert_eq!(ping, r#"{"type":"ping","payload":{"n":1}}"#);
    pass(&mut driver, Duration::from_millis(1_900)).await;
    assert!(driver.session.is_open());
    pass(&mut driver, Duration::from_millis(200)).await;
    assert!(!driver.session.is_open());

    // A retry delay continues, because the server may have asked for it.
    let waits = driver.session.poll_timeout();
    set_forward(ASLEEP);
    assert!(command(&mut driver).is_none());
    assert_eq!(driver.session.poll_timeout(), waits);
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_the_next_ping_has_a_shorter_timeout() {
    for (slept, patience) in [(Duration::ZERO, 10), (ASLEEP, 2)] {
        let (mut driver, _commands) = open();
        pass(&mut driver, Duration::from_secs(9)).await;
        assert!(driver.session.poll_transmit(ConnectionId::A).is_none());
        set_forward(slept);
        let mut waited = Duration::ZERO;
        while driver.session.is_open() {
            pass(&mut driver, Duration::from_millis(100)).await;
            waited += Duration::from_millis(100);
            while driver.session.poll_transmit(ConnectionId::A).is_some() {}
        }
        assert!(waited.as_secs() <= 1 + patience, "{waited:?}");
        assert!(slept > Duration::ZERO || waited.as_secs() > 1 + 2, "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_working_connection_is_kept_after_a_sleep() {
    let (mut driver, commands) = open();
    // In total less than the idle timeout.
    for _ in 0..4 {
        set_forward(ASLEEP * 100);
        assert!(commands.send(Command::Resume).is_ok());
        driver.take_commands(&mut Context::from_waker(Waker::noop()), now());
        assert!(matches!(driver.session.poll_transmit(ConnectionId::A), Some(Transmit::Text(_))));
        pass(&mut driver, Duration::from_millis(1_900)).await;
        assert!(
            driver.session.handle_frame(now(), ConnectionId::A, r#"{"type":"pong"}"#).is_none()
        );
        pass(&mut driver, Duration::from_secs(5)).await;
        while driver.session.poll_transmit(ConnectionId::A).is_some() {
            assert!(
                driver.session.handle_frame(now(), ConnectionId::A, r#"{"type":"pong"}"#).is_none()
            );
        }
        assert!(driver.session.is_open());
    }
    assert_eq!(driver.session.counts().dials, 1);
}
