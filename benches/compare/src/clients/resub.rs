//! This crate, as its README shows it. Nothing may be dropped: `Block`, and the counts are checked.

use std::{marker::PhantomData, mem, ops::Range, time::Duration};

use futures::{FutureExt, StreamExt, stream::Map};
use resub::{ClientBuilder, Event, Overflow, Subscription, SubscriptionError};
use serde_json::value::{RawValue, to_raw_value};

use super::{Client, gate::Gate, streams::Style};
use crate::{
    feed::{Data, Operation},
    job::Result,
};

pub(crate) struct Resub<T, S> {
    client: resub::Client,
    subscriptions: Vec<Subscription<T>>,
    style: PhantomData<S>,
}

/// An operation of the feed, with the type of its data.
pub(crate) struct Trades<T>(Operation, PhantomData<fn() -> T>);

impl<T> Trades<T> {
    pub(crate) fn number(n: usize) -> Self {
        Self(Operation::number(n), PhantomData)
    }
}

impl<T: Data> resub::Operation for Trades<T> {
    type Data = T;

    fn payload(&self) -> std::result::Result<Box<RawValue>, serde_json::Error> {
        to_raw_value(&self.0)
    }
}

/// As it is measured.
pub(crate) fn builder(port: u16) -> ClientBuilder {
    resub::Client::builder(format!("ws://127.0.0.1:{port}/"))
        .overflow(Overflow::Block)
        .backoff(Duration::from_millis(1), Duration::from_millis(2))
        // On, as it is by default, but not due: the server is busy and does not answer.
        .ping_interval(Duration::from_secs(300))
}

impl<T: Data, S: Style> Client for Resub<T, S> {
    async fn connect(port: u16) -> Result<Self> {
        let client = builder(port).build()?;
        Ok(Self { client, subscriptions: Vec::new(), style: PhantomData })
    }

    async fn subscribe(&mut self, numbers: Range<usize>) -> Result<()> {
        self.subscriptions.reserve_exact(numbers.len());
        for n in numbers {
            self.subscriptions.push(self.client.subscribe_to(Trades::number(n))?);
        }
        Ok(())
    }

    async fn read(&mut self, phases: [u64; 2], gate: &mut Gate) -> Result<()> {
        let streams: Vec<Map<_, _>> =
            mem::take(&mut self.subscriptions).into_iter().map(|stream| stream.map(data)).collect();
        S::read(streams, phases, gate).await?;
        let stats = self.client.stats();
        if stats.dropped > 0 || stats.ignored > 0 || stats.reconnects > 0 {
            return Err(format!("something was lost: {stats:?}").into());
        }
        Ok(())
    }

    async fn read_one_each(&mut self) -> Result<()> {
        for subscription in &mut self.subscriptions {
            data(subscription.next().await.ok_or("a stream ended early")?)?;
        }
        Ok(())
    }

    async fn reissue(&mut self) -> Result<()> {
        // Done by the client. What is read here are the gaps of the time before.
        for subscription in &mut self.subscriptions {
            while subscription.next().now_or_never().is_some() {}
        }
        Ok(())
    }
}

fn data<T>(event: std::result::Result<Event<T>, SubscriptionError>) -> Result<T> {
    match event? {
        Event::Next(response) => response.data.ok_or_else(|| "no data".into()),
        other_event => {
            drop(other_event);
            Err("a gap".into())
        }
    }
}
