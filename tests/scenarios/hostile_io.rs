//! Byte streams that misbehave below the WebSocket, through dialers of their own.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
};

use resub::{BoxedIo, DialFuture, Dialer, Url, mock::PipeDialer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

/// What goes wrong once the switch is on.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// There is always another item to read.
    Endless,
    /// Writes fail.
    Deaf,
    /// Writes are not ready a few times, without a promise to wake, and then fail.
    DeafLater,
}

struct Faulty {
    pipe: PipeDialer,
    fault: Fault,
    on: Arc<AtomicBool>,
}

struct FaultyIo {
    io: BoxedIo,
    fault: Fault,
    on: Arc<AtomicBool>,
    frame: Vec<u8>,
    at: usize,
}

impl Dialer for Faulty {
    fn dial<'a>(&'a self, endpoint: &'a Url) -> DialFuture<'a> {
        let text = json!({"type": "next", "id": "1.0", "payload": data("x".repeat(60_000))}).to_string();
        let mut frame = vec![0x81, 126];
        frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend(text.into_bytes());
        Box::pin(async move {
            let io = self.pipe.dial(endpoint).await?;
            Ok(Box::new(FaultyIo { io, fault: self.fault, on: Arc::clone(&self.on), frame, at: 0 }) as BoxedIo)
        })
    }
}

impl FaultyIo {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault && self.on.load(SeqCst)
    }
}

impl AsyncRead for FaultyIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.has(Fault::Endless) {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        // As every socket of tokio does.
        let budget = ready!(tokio::task::coop::poll_proceed(cx));
        let this = &mut *self;
        let part = buf.remaining().min(this.frame.len() - this.at);
        buf.put_slice(&this.frame[this.at..this.at + part]);
        this.at = (this.at + part) % this.frame.len();
        budget.made_progress();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FaultyIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.has(Fault::Deaf) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.has(Fault::DeafLater) {
            self.at += 1;
            return if self.at <= 3 { Poll::Pending } else { Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        }
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn faulty(server: &Server, fault: Fault) -> (Client, Arc<AtomicBool>) {
    let on = Arc::new(AtomicBool::new(false));
    let dialer = Faulty { pipe: server.dialer(), fault, on: Arc::clone(&on) };
    (Client::builder(server.url()).dialer(dialer).build().unwrap(), on)
}

/// On a real clock: the paused one does not move while a task is always busy.
#[tokio::test]
async fn a_socket_that_always_has_more_to_read_starves_neither_writes_nor_timers() {
    let server = Server::in_memory();
    let (client, endless) = faulty(&server, Fault::Endless);
    let stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    endless.store(true, SeqCst);
    // Wakes the driver, which then finds more than this.
    peer.next(&id, data(0)).await;
    while client.stats().items < 100 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    assert_eq!(timeout(secs(20), peer.expect_complete()).await.expect("the cancel is written"), id);
    timeout(secs(20), client.shutdown(Duration::from_millis(100))).await.expect("shutdown always returns");
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_no_more_writes_is_given_up_although_it_can_be_read() {
    let server = Server::in_memory();
    let (client, deaf) = faulty(&server, Fault::Deaf);
    let _stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    deaf.store(true, SeqCst);
    let _never_sent = subscribe(&client, "b");
    for n in 0..60 {
        peer.next(&id, data(n)).await;
        timeout(secs(1), std::future::pending::<()>()).await.unwrap_err();
        if !matches!(*client.status().borrow(), Status::Open { .. }) {
            return;
        }
    }
    panic!("still {:?}", *client.status().borrow());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_late_in_a_turn_is_noticed_without_any_other_wake() {
    let server = Server::in_memory();
    let on = Arc::new(AtomicBool::new(false));
    let dialer = Faulty { pipe: server.dialer(), fault: Fault::DeafLater, on: Arc::clone(&on) };
    let client = Client::builder(server.url()).dialer(dialer).ping_interval(None).build().unwrap();
    let _stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    peer.expect_subscribe().await;
    // Every timer is over.
    timeout(secs(60), std::future::pending::<()>()).await.unwrap_err();
    on.store(true, SeqCst);
    let _never_sent = subscribe(&client, "b");
    until(&client, |status| matches!(status, Status::Waiting { .. })).await;
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_dialer_that_panics_is_an_attempt_that_failed() {
    struct Bomb;
    impl Dialer for Bomb {
        fn dial<'a>(&'a self, _: &'a Url) -> DialFuture<'a> {
            Box::pin(async { panic!("a bug of the application") })
        }
    }
    let client = Client::builder("ws://host/").dialer(Bomb).build().unwrap();
    let _stream = subscribe(&client, "a");
    let status = until(&client, |status| matches!(status, Status::Waiting { .. })).await;
    let Status::Waiting { cause, .. } = status else { unreachable!() };
    assert!(text(&cause).contains("the dialer panicked"), "{cause:?}");
}
