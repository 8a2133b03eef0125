//! Byte streams that misbehave below the WebSocket, through dialers of their own.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
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
        let text =
            json!({"type": "next", "id": "1.0", "payload": data("x".repeat(60_000))}).to_string();
        let mut frame = vec![0x81, 126];
        frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend(text.into_bytes());
        Box::pin(async move {
            let io = self.pipe.dial(endpoint).await?;
            Ok(Box::new(FaultyIo { io, fault: self.fault, on: Arc::clone(&self.on), frame, at: 0 })
                as BoxedIo)
        })
    }
}

impl FaultyIo {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault && self.on.load(SeqCst)
    }
}

impl AsyncRead for FaultyIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.has(Fault::Deaf) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.has(Fault::DeafLater) {
            self.at += 1;
            return if self.at <= 3 {
                Poll::Pending
            } else {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            };
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
    timeout(secs(20), client.shutdown(Duration::from_millis(100)))
        .await
        .expect("shutdown always returns");
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
    let Status::Waiting { cause: Some(cause), .. } = status else { unreachable!() };
    assert!(text(&cause).contains("the dialer panicked"), "{cause:?}");
}

/// A stream that is never ready at once, takes and gives a few bytes at a time, and sends nothing
/// that is not flushed.
struct Choppy {
    io: BoxedIo,
    random: u64,
    /// Taken and not sent.
    taken: Vec<u8>,
    /// Whether reading, writing and flushing have been put off.
    put_off: [bool; 3],
}

struct ChoppyDialer(PipeDialer, u64);

impl Dialer for ChoppyDialer {
    fn dial<'a>(&'a self, endpoint: &'a Url) -> DialFuture<'a> {
        Box::pin(async move {
            let io = self.0.dial(endpoint).await?;
            Ok(Box::new(Choppy { io, random: self.1, taken: Vec::new(), put_off: [false; 3] })
                as BoxedIo)
        })
    }
}

impl Choppy {
    fn random(&mut self, below: u64) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % below).unwrap()
    }

    /// Not ready now, but a while later; whoever asked last is told.
    fn poll_turn(&mut self, what: usize, cx: &Context<'_>) -> Poll<()> {
        self.put_off[what] = !self.put_off[what] && self.random(3) > 0;
        if !self.put_off[what] {
            return Poll::Ready(());
        }
        let (waker, later) = (cx.waker().clone(), Duration::from_millis(self.random(3) as u64));
        tokio::spawn(async move {
            tokio::time::sleep(later).await;
            waker.wake();
        });
        Poll::Pending
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.taken.is_empty() {
            let len = ready!(Pin::new(&mut self.io).poll_write(cx, &self.taken))?;
            self.taken.drain(..len);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl AsyncRead for Choppy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(0, cx));
        let len = self.random(300) + 1;
        let mut part = buf.take(len);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let len = part.filled().len();
        buf.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Choppy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(1, cx));
        if self.taken.len() > 5_000 {
            ready!(self.poll_send(cx))?;
        }
        let len = bytes.len().min(self.random(3_000) + 1);
        self.taken.extend_from_slice(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(2, cx));
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_late_on_a_stream_that_is_never_ready_and_takes_few_bytes_at_a_time() {
    for seed in 1..=20 {
        let server = Server::in_memory();
        let dialer = ChoppyDialer(server.dialer(), seed);
        let client =
            Client::builder(server.url()).dialer(dialer).ping_interval(None).build().unwrap();
        let big = json!({"padding": "x".repeat(1_000)});
        let mut streams: Vec<_> =
            (0..200).map(|_| client.subscribe_to(request("a").variables(&big)).unwrap()).collect();
        let mut peer = connected(&server).await;
        let ids: Vec<_> = peer.expect_subscribes(200).await.into_iter().map(|s| s.id).collect();
        for n in 0..5 {
            for id in &ids {
                peer.next(id, data(n)).await;
            }
            peer.ping(Some(json!({"n": n}))).await;
            assert_eq!(
                timeout(secs(1), peer.expect_pong()).await.expect("a pong"),
                Some(json!({"n": n}))
            );
            peer.ws_ping(b"p").await;
            assert_eq!(
                timeout(secs(1), peer.expect_ws_pong()).await.expect("a pong of the WebSocket"),
                b"p"
            );
        }
        for stream in &mut streams {
            for n in 0..5 {
                assert_eq!(timeout(secs(1), item(stream)).await.expect("an item"), n);
            }
        }
        drop(streams.split_off(100));
        for _ in 0..100 {
            timeout(secs(1), peer.expect_complete()).await.expect("a complete");
        }
        let shutdown = tokio::spawn(async move { client.shutdown(secs(10)).await });
        for _ in 0..100 {
            timeout(secs(1), peer.expect_complete()).await.expect("a complete");
        }
        assert_eq!(timeout(secs(1), peer.expect_close()).await.expect("a close").0, 1000);
        peer.close(1000, "").await;
        timeout(secs(1), shutdown).await.expect("the end").unwrap();
    }
}

type Interrupt = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Runs something in the middle of the driver's turn: after it has looked for commands, before it
/// reads.
struct Interrupting {
    pipe: PipeDialer,
    interrupt: Interrupt,
}

struct InterruptingIo(BoxedIo, Interrupt);

impl Dialer for Interrupting {
    fn dial<'a>(&'a self, endpoint: &'a Url) -> DialFuture<'a> {
        Box::pin(async move {
            let io = self.pipe.dial(endpoint).await?;
            Ok(Box::new(InterruptingIo(io, Arc::clone(&self.interrupt))) as BoxedIo)
        })
    }
}

impl AsyncRead for InterruptingIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        if let Some(interrupt) = self.1.lock().unwrap().take() {
            interrupt();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for InterruptingIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_for_a_reader_that_goes_while_it_is_read_is_not_queued() {
    let server = Server::in_memory();
    let interrupt = Arc::new(Mutex::new(None::<Box<dyn FnOnce() + Send>>));
    let dialer = Interrupting { pipe: server.dialer(), interrupt: Arc::clone(&interrupt) };
    let client = Client::builder(server.url()).dialer(dialer).build().unwrap();
    let stream = subscribe(&client, "a");
    let mut peer = connected(&server).await;
    let id = peer.expect_subscribe().await.id;
    *interrupt.lock().unwrap() = Some(Box::new(move || drop(stream)));
    peer.next(&id, data(1)).await;
    assert_eq!(peer.expect_complete().await, id);
    assert_eq!((client.stats().items, client.stats().queued_items), (1, 0));
}
