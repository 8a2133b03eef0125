//! The published `graphql-ws-client`, used as its documentation shows, with a task for each stream.
//!
//! It does not reconnect; the harness connects and subscribes again by hand.

use std::{future::IntoFuture, marker::PhantomData, mem, net::Ipv4Addr, ops::Range};

use futures::StreamExt;
use graphql_ws_client::{Subscription, graphql::GraphqlOperation};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_tungstenite_028::{
    client_async,
    tungstenite::{client::IntoClientRequest, http::HeaderValue},
};

use super::{
    Client,
    gate::Gate,
    streams::{Style, Tasks},
};
use crate::{
    feed::{Data, Operation, Response},
    job::Result,
};

pub(crate) struct Peer<T: Data> {
    port: u16,
    client: graphql_ws_client::Client,
    subscriptions: Vec<Subscription<Trades<T>>>,
}

#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Trades<T>(Operation, #[serde(skip)] PhantomData<fn() -> T>);

impl<T: Data> GraphqlOperation for Trades<T> {
    type Response = T;
    type Error = serde_json::Error;

    fn decode(&self, data: serde_json::Value) -> std::result::Result<T, serde_json::Error> {
        let response: Response<T> = serde_json::from_value(data)?;
        response.data.ok_or_else(|| serde::de::Error::custom("no data"))
    }
}

impl<T: Data> Client for Peer<T> {
    async fn connect(port: u16) -> Result<Self> {
        let mut request = format!("ws://127.0.0.1:{port}/").into_client_request()?;
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", HeaderValue::from_static("graphql-transport-ws"));
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_async(request, stream).await?;
        let (client, actor) = graphql_ws_client::Client::build(socket).await?;
        tokio::spawn(actor.into_future());
        Ok(Self { port, client, subscriptions: Vec::new() })
    }

    async fn subscribe(&mut self, numbers: Range<usize>) -> Result<()> {
        self.subscriptions.reserve_exact(numbers.len());
        for n in numbers {
            let operation = Trades(Operation::number(n), PhantomData);
            self.subscriptions.push(self.client.subscribe(operation).await?);
        }
        Ok(())
    }

    async fn read(&mut self, phases: [u64; 2], gate: &mut Gate) -> Result<()> {
        let streams: Vec<_> = mem::take(&mut self.subscriptions)
            .into_iter()
            .map(|stream| stream.map(|data| data.map_err(crate::job::Failure::from)))
            .collect();
        Tasks::read(streams, phases, gate).await
    }

    async fn read_one_each(&mut self) -> Result<()> {
        for subscription in &mut self.subscriptions {
            subscription.next().await.ok_or("a stream ended early")??;
        }
        Ok(())
    }

    async fn reissue(&mut self) -> Result<()> {
        for subscription in &mut self.subscriptions {
            while subscription.next().await.is_some() {}
        }
        let all = self.subscriptions.len();
        *self = Self::connect(self.port).await?;
        self.subscribe(0..all).await
    }
}
