//! Proxies that lead to one server, whatever they are asked for, and remember what that was.

use std::net::SocketAddr;

use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// Serves until it is dropped.
pub(crate) struct Stand {
    addr: SocketAddr,
    asked: watch::Sender<Vec<String>>,
    accepting: AbortHandle,
}

#[derive(Clone, Copy)]
pub(crate) enum Manner {
    /// To whoever.
    Connect,
    /// To Aladdin, whose password is `open sesame` (RFC 7617 section 2).
    ConnectLogin,
    /// Says this and hangs up.
    ConnectSaying(&'static str),
    Socks,
    SocksLogin,
    /// Replies with this, and hangs up.
    SocksReplying(u8),
}

impl Stand {
    pub(crate) async fn start(manner: Manner, server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = watch::Sender::new(Vec::new());
        let log = asked.clone();
        let accepting = tokio::spawn(async move {
            // Ends them with itself.
            let mut tunnels = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let log = log.clone();
                tunnels.spawn(async move {
                    // A client that leaves is none of its business.
                    let _ = manner.serve(tcp, server, &log).await;
                });
            }
        });
        Self { addr, asked, accepting: accepting.abort_handle() }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it was asked to connect to, as `host:port`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Manner {
    async fn serve(
        self,
        mut tcp: TcpStream,
        server: SocketAddr,
        log: &watch::Sender<Vec<String>>,
    ) -> io::Result<()> {
        let admitted = match self {
            Self::Connect | Self::ConnectLogin | Self::ConnectSaying(_) => {
                self.connect(&mut tcp, log).await?
            }
            Self::Socks | Self::SocksLogin | Self::SocksReplying(_) => {
                self.socks(&mut tcp, log).await?
            }
        };
        if admitted {
            copy_bidirectional(&mut tcp, &mut TcpStream::connect(server).await?).await?;
        }
        Ok(())
    }

    async fn connect(
        self,
        tcp: &mut TcpStream,
        log: &watch::Sender<Vec<String>>,
    ) -> io::Result<bool> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.strip_prefix("CONNECT ").unwrap().split_once(" HTTP/1.1\r\n").unwrap().0;
        assert!(head.contains(&format!("\r\nHost: {target}\r\n")), "{head}");
        log.send_modify(|log| log.push(target.to_owned()));
        let known =
            head.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n");
        let (answer, admitted) = match self {
            Self::ConnectSaying(answer) => (answer, false),
            Self::ConnectLogin if !known => ("407 Proxy Authentication Required", false),
            _ => ("200 Connection established", true),
        };
        tcp.write_all(format!("HTTP/1.1 {answer}\r\nVia: stand\r\n\r\n").as_bytes()).await?;
        Ok(admitted)
    }

    async fn socks(
        self,
        tcp: &mut TcpStream,
        log: &watch::Sender<Vec<String>>,
    ) -> io::Result<bool> {
        assert_eq!(tcp.read_u8().await?, 5);
        let methods = field(tcp).await?;
        let method = if matches!(self, Self::SocksLogin) { 2 } else { 0 };
        if !methods.contains(&method) {
            tcp.write_all(&[5, 0xff]).await?;
            return Ok(false);
        }
        tcp.write_all(&[5, method]).await?;
        if method == 2 {
            assert_eq!(tcp.read_u8().await?, 1);
            let known = (field(tcp).await?, field(tcp).await?)
                == (b"Aladdin".to_vec(), b"open sesame".to_vec());
            tcp.write_all(&[1, u8::from(!known)]).await?;
            if !known {
                return Ok(false);
            }
        }
        let mut request = [0; 4];
        tcp.read_exact(&mut request).await?;
        assert_eq!(request[..3], [5, 1, 0]);
        let host = match request[3] {
            1 => std::net::Ipv4Addr::from(tcp.read_u32().await?).to_string(),
            4 => std::net::Ipv6Addr::from(tcp.read_u128().await?).to_string(),
            _ => String::from_utf8(field(tcp).await?).unwrap(),
        };
        let target = format!("{host}:{}", tcp.read_u16().await?);
        log.send_modify(|log| log.push(target));
        let reply = if let Self::SocksReplying(reply) = self { reply } else { 0 };
        // With a name for its own address, as some do.
        tcp.write_all(&[5, reply, 0, 3, 5]).await?;
        tcp.write_all(b"stand\x12\x34").await?;
        Ok(reply == 0)
    }
}

/// What stands behind its length.
async fn field(tcp: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut field = vec![0; tcp.read_u8().await?.into()];
    tcp.read_exact(&mut field).await?;
    Ok(field)
}
