//! The loop that one would write by hand for exactly this job: no task, no queue, no policy.
//!
//! What a frame costs beyond this is what a client costs. [`Scanned`] reads the envelope with a raw
//! payload, as most would; [`Located`] knows where the payload begins and reads it once.

use std::{collections::HashMap, marker::PhantomData, net::Ipv4Addr, ops::Range};

use ::resub::BoxedIo;
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message, client::IntoClientRequest, http::HeaderValue, protocol::WebSocketConfig,
    },
};

use super::{Client, gate::Gate};
use crate::{
    feed::{Data, Operation, Response},
    job::Result,
};

pub(crate) struct Routed<T, E> {
    port: u16,
    socket: WebSocketStream<BoxedIo>,
    operations: HashMap<String, Held>,
    types: PhantomData<(T, E)>,
}

/// One subscription: what to send again, and how far it is.
struct Held {
    message: String,
    events: u64,
}

/// How the id and the data of a frame are found.
pub(crate) trait Envelope {
    fn read<T: Data>(text: &str) -> Result<(&str, T)>;
}

/// The envelope is parsed, and the payload after it.
pub(crate) struct Scanned;

/// The payload is parsed where it begins.
pub(crate) struct Located;

impl Envelope for Scanned {
    fn read<T: Data>(text: &str) -> Result<(&str, T)> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            id: &'a str,
            #[serde(borrow)]
            payload: &'a RawValue,
        }
        let wire: Wire<'_> = serde_json::from_str(text)?;
        if wire.kind != "next" {
            return Err("not an event".into());
        }
        let response: Response<T> = serde_json::from_str(wire.payload.get())?;
        Ok((wire.id, response.data.ok_or("no data")?))
    }
}

impl Envelope for Located {
    fn read<T: Data>(text: &str) -> Result<(&str, T)> {
        let rest = text.strip_prefix("{\"id\":\"").ok_or("another order")?;
        let (id, rest) = rest.split_once('"').ok_or("no id")?;
        let rest = rest.strip_prefix(",\"type\":\"next\",\"payload\":").ok_or("another order")?;
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Response<T>>();
        let response = values.next().ok_or("no payload")??;
        if &rest[values.byte_offset()..] != "}" {
            return Err("something follows".into());
        }
        Ok((id, response.data.ok_or("no data")?))
    }
}

impl<T: Data, E: Envelope> Routed<T, E> {
    /// Over any byte stream, to which it will not connect again.
    pub(crate) async fn over(io: BoxedIo) -> Result<Self> {
        Ok(Self {
            port: 0,
            socket: Self::upgrade(io).await?,
            operations: HashMap::new(),
            types: PhantomData,
        })
    }

    async fn open(port: u16) -> Result<WebSocketStream<BoxedIo>> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        Self::upgrade(Box::new(stream)).await
    }

    async fn upgrade(io: BoxedIo) -> Result<WebSocketStream<BoxedIo>> {
        let mut request = "ws://localhost/".into_client_request()?;
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", HeaderValue::from_static("graphql-transport-ws"));
        let config = WebSocketConfig::default().read_buffer_size(16 * 1024);
        let (mut socket, _) = client_async_with_config(request, io, Some(config)).await?;
        socket.send(Message::text(r#"{"type":"connection_init"}"#)).await?;
        socket.next().await.ok_or("no ack")??;
        Ok(socket)
    }

    /// Counts it where it belongs.
    pub(crate) async fn next(&mut self) -> Result<T> {
        loop {
            if let Message::Text(text) =
                self.socket.next().await.ok_or("the connection was lost")??
            {
                let (id, data) = E::read::<T>(&text)?;
                self.operations.get_mut(id).ok_or("an unknown id")?.events += 1;
                return Ok(data);
            }
        }
    }
}

impl<T: Data, E: Envelope> Client for Routed<T, E> {
    async fn connect(port: u16) -> Result<Self> {
        Ok(Self {
            port,
            socket: Self::open(port).await?,
            operations: HashMap::new(),
            types: PhantomData,
        })
    }

    async fn subscribe(&mut self, numbers: Range<usize>) -> Result<()> {
        for n in numbers {
            let payload = serde_json::to_string(&Operation::number(n))?;
            let message = format!(r#"{{"id":"{n}","type":"subscribe","payload":{payload}}}"#);
            self.socket.feed(Message::text(message.clone())).await?;
            self.operations.insert(n.to_string(), Held { message, events: 0 });
        }
        Ok(self.socket.flush().await?)
    }

    async fn read(&mut self, phases: [u64; 2], gate: &mut Gate) -> Result<()> {
        let count = self.operations.len() as u64;
        let mut meter = gate.meter(phases[1] * count);
        for events in phases {
            for _ in 0..events * count {
                meter.see(&self.next().await?);
            }
            meter.hand_in();
            gate.passed().await?;
        }
        let events: u64 = phases.iter().sum();
        if self.operations.values().any(|held| held.events != events) {
            return Err("an event went astray".into());
        }
        Ok(())
    }

    async fn read_one_each(&mut self) -> Result<()> {
        for _ in 0..self.operations.len() {
            self.next().await?;
        }
        Ok(())
    }

    async fn reissue(&mut self) -> Result<()> {
        while self.socket.next().await.is_some_and(|message| message.is_ok()) {}
        self.socket = Self::open(self.port).await?;
        for held in self.operations.values() {
            self.socket.feed(Message::text(held.message.clone())).await?;
        }
        Ok(self.socket.flush().await?)
    }
}
