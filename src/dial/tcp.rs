//! The default dialer: name resolution and TCP, then TLS where the scheme asks for it.

use std::{io, sync::Arc};

use tokio::net::{TcpStream, lookup_host};
use url::{Host, Url};

use super::{BoxedIo, DialFuture, Dialer};
use crate::error::DialError;

/// Dials TCP, resolving the name anew at every attempt, and TLS for `wss`.
pub(crate) struct NetDialer {
    pub(crate) tcp_nodelay: bool,
    #[cfg(feature = "_tls")]
    pub(crate) tls: Option<super::tls::Tls>,
}

impl Dialer for NetDialer {
    fn dial<'a>(&'a self, endpoint: &'a Url) -> DialFuture<'a> {
        Box::pin(async move {
            let tcp = connect(endpoint).await?;
            tcp.set_nodelay(self.tcp_nodelay).map_err(|error| DialError::Connect(Arc::new(error)))?;
            #[cfg(feature = "_tls")]
            if let Some(tls) = &self.tls {
                return tls.handshake(endpoint, tcp).await;
            }
            Ok(Box::new(tcp) as BoxedIo)
        })
    }
}

async fn connect(endpoint: &Url) -> Result<TcpStream, DialError> {
    let host = match endpoint.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => String::new(),
    };
    let port = endpoint.port_or_known_default().unwrap_or_default();
    let resolve = |source| DialError::Resolve { host: host.clone(), source: Arc::new(source) };
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut resolved = false;
    for address in lookup_host((host.as_str(), port)).await.map_err(resolve)? {
        resolved = true;
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(failed) => error = failed,
        }
    }
    Err(if resolved { DialError::Connect(Arc::new(error)) } else { resolve(error) })
}
