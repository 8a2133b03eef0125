//! Reads bytes and nothing else: proves that the server is quicker than whoever decodes.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    ops::Range,
};

use super::{Client, gate::Gate};
use crate::{
    feed::Operation,
    job::{Failure, Result},
};

pub(crate) struct Sink {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Sink {
    /// Reads exactly so many bytes.
    fn skip(&mut self, mut left: u64) -> Result<()> {
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left)?);
            match self.stream.read(&mut self.buffer[..most])? {
                0 => return Err("the connection was lost".into()),
                read => left -= read as u64,
            }
        }
        Ok(())
    }

    /// With a mask of zeros, which is one, too.
    fn send(&mut self, text: &str) -> Result<()> {
        let len = u16::try_from(text.len())?;
        let mut frame = vec![0x81, 0xfe];
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        Ok(self.stream.write_all(&frame)?)
    }
}

impl Client for Sink {
    async fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let mut sink = Self { stream, buffer: vec![0; 256 * 1024] };
        write!(
            sink.stream,
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            sink.stream.read_exact(&mut byte)?;
            head.extend_from_slice(&byte);
        }
        sink.send(r#"{"type":"connection_init"}"#)?;
        sink.skip(crate::wire::ack().len() as u64)?;
        Ok(sink)
    }

    async fn subscribe(&mut self, numbers: Range<usize>) -> Result<()> {
        for n in numbers {
            let payload = serde_json::to_string(&Operation::number(n))?;
            self.send(&format!(r#"{{"id":"{n}","type":"subscribe","payload":{payload}}}"#))?;
        }
        Ok(())
    }

    async fn read(&mut self, _: [u64; 2], gate: &mut Gate) -> Result<()> {
        for bytes in gate.bytes {
            self.skip(bytes)?;
            gate.passed().await?;
        }
        Ok(())
    }

    async fn read_one_each(&mut self) -> Result<()> {
        Err(unfit())
    }

    async fn reissue(&mut self) -> Result<()> {
        Err(unfit())
    }
}

fn unfit() -> Failure {
    "it only reads bytes".into()
}
