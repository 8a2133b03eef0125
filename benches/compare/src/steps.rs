//! The hot path without a kernel: events from memory through an in-memory pipe, on one thread.
//!
//! For counting instructions: run twice with different numbers of events, the difference is what
//! the events cost. The pipe's own part is the same for all, and small: it is filled 64 KiB at a
//! time.

use std::{
    hint::black_box,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use resub::{BoxedIo, DialError, DialFuture, Dialer, Event, SubscribeError, Subscription};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::{
    clients::{Client, Contender, Located, Routed, Scanned, Trades, builder},
    feed::{Data, Frame, Many, One, Shape, Small},
    job::Result,
    wire,
};

/// Reads so many events of each of so many subscriptions, of about so many bytes.
pub(crate) fn run(
    contender: Contender,
    bytes: usize,
    subscriptions: usize,
    events: usize,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shape = Shape::of_bytes(bytes);
    runtime.block_on(async {
        match shape {
            Shape::Tick => with::<Small>(contender, shape, subscriptions, events).await,
            Shape::One => with::<One>(contender, shape, subscriptions, events).await,
            Shape::Rows(_) => with::<Many>(contender, shape, subscriptions, events).await,
        }
    })
}

async fn with<T: Data>(
    contender: Contender,
    shape: Shape,
    subscriptions: usize,
    events: usize,
) -> Result<()> {
    let (near, far) = duplex(PIPE);
    let operations = if contender == Contender::ResubShared { 1 } else { subscriptions };
    let server = tokio::spawn(async move {
        if let Err(error) = serve(far, shape, operations, events).await {
            eprintln!("the server failed: {error}");
        }
    });
    match contender {
        Contender::Routed => {
            read_by_hand(
                &mut Routed::<T, Scanned>::over(Box::new(near)).await?,
                subscriptions,
                events,
            )
            .await?;
        }
        Contender::Prefix => {
            read_by_hand(
                &mut Routed::<T, Located>::over(Box::new(near)).await?,
                subscriptions,
                events,
            )
            .await?;
        }
        Contender::ResubTasks => {
            let subscribe = |client: &resub::Client, n| client.subscribe_to(Trades::<T>::number(n));
            read_by_tasks(near, subscriptions, events, subscribe).await?;
        }
        Contender::ResubShared => {
            let subscribe =
                |client: &resub::Client, _| client.subscribe_shared_to(Trades::<T>::number(0));
            read_by_tasks(near, subscriptions, events, subscribe).await?;
        }
        Contender::Sink
        | Contender::ResubSelect
        | Contender::ResubTasksMt
        | Contender::ResubSelectMt
        | Contender::Peer
        | Contender::PeerMt
        | Contender::Node => return Err("not in memory".into()),
    }
    server.abort();
    Ok(())
}

async fn read_by_hand<T: Data, E: crate::clients::Envelope>(
    client: &mut Routed<T, E>,
    subscriptions: usize,
    events: usize,
) -> Result<()> {
    client.subscribe(0..subscriptions).await?;
    for _ in 0..events * subscriptions {
        black_box(client.next().await?);
    }
    Ok(())
}

type Subscribed<T> = std::result::Result<Subscription<T>, SubscribeError>;

async fn read_by_tasks<T: Data>(
    io: DuplexStream,
    subscriptions: usize,
    events: usize,
    subscribe: impl Fn(&resub::Client, usize) -> Subscribed<T>,
) -> Result<()> {
    let client = builder(1).dialer(Pipe(Mutex::new(Some(io)))).build()?;
    let mut tasks = Vec::with_capacity(subscriptions);
    for n in 0..subscriptions {
        let mut subscription = subscribe(&client, n)?;
        tasks.push(tokio::spawn(async move {
            for _ in 0..events {
                match StreamExt::next(&mut subscription).await {
                    Some(Ok(Event::Next(response))) => drop(black_box(response)),
                    other => return Err(format!("{:?}", other.map(|end| end.map(|_| ())))),
                }
            }
            Ok(subscription)
        }));
    }
    for task in tasks {
        std::mem::forget(task.await??);
    }
    Ok(())
}

/// Dials the one pipe there is.
struct Pipe(Mutex<Option<DuplexStream>>);

impl Dialer for Pipe {
    fn dial<'a>(&'a self, _: &'a url::Url) -> DialFuture<'a> {
        let io = self.0.lock().ok().and_then(|mut io| io.take());
        Box::pin(async {
            io.map(|io| Box::new(io) as BoxedIo).ok_or_else(|| {
                DialError::Permanent(Arc::new(std::io::Error::other("dialed twice")))
            })
        })
    }
}

async fn serve(mut io: DuplexStream, shape: Shape, operations: usize, events: usize) -> Result<()> {
    let mut unread = Vec::new();
    let answer = loop {
        io.read_buf(&mut unread).await?;
        if let Some((answer, len)) = wire::upgrade(&unread)? {
            unread.drain(..len);
            break answer;
        }
    };
    io.write_all(answer.as_bytes()).await?;
    let mut frames = Vec::new();
    let mut left = operations;
    while left > 0 {
        while let Some((message, len)) = wire::first_frame(&unread, usize::MAX)? {
            unread.drain(..len);
            if wire::is("connection_init", &message) {
                io.write_all(&wire::ack()).await?;
            } else if wire::is("subscribe", &message) {
                frames.extend_from_slice(&Frame::new(&wire::id(&message)?, shape).bytes);
                left -= 1;
            }
        }
        if left > 0 {
            io.read_buf(&mut unread).await?;
        }
    }
    for _ in 0..events {
        io.write_all(&frames).await?;
    }
    std::future::pending().await
}

/// Bytes on their way.
const PIPE: usize = 64 * 1024;
