//! SOCKS5 (RFC 1928), with a name and a password where they are given (RFC 1929).

use std::{net::IpAddr, sync::Arc};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::{Host, Url};

use super::{Login, Names, Refusal, lookup};
use crate::error::DialError;

/// What the proxy is asked to connect to.
pub(super) enum Target {
    Name(String),
    Address(IpAddr),
}

impl Target {
    pub(super) async fn of(endpoint: &Url, names: Names) -> Result<Self, DialError> {
        match (endpoint.host(), names) {
            (Some(Host::Ipv4(address)), _) => Ok(Self::Address(address.into())),
            (Some(Host::Ipv6(address)), _) => Ok(Self::Address(address.into())),
            (Some(Host::Domain(name)), Names::There) => Ok(Self::Name(name.to_owned())),
            (Some(Host::Domain(_)) | None, Names::Here | Names::There) => {
                let found = lookup(endpoint, 0).await?;
                let none = || DialError::Permanent(Arc::new(std::io::Error::from(std::io::ErrorKind::InvalidInput)));
                found.first().map(|first| Self::Address(first.ip())).ok_or_else(none)
            }
        }
    }
}

/// Asks for a connection. Reads no byte that is behind the proxy's answers.
pub(super) async fn pass(
    proxy: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &Target,
    port: u16,
    login: Option<&Login>,
) -> Result<(), Refusal> {
    match login {
        Some(_) => proxy.write_all(&[VERSION, 2, NO_LOGIN, LOGIN]).await?,
        None => proxy.write_all(&[VERSION, 1, NO_LOGIN]).await?,
    }
    match (answer(proxy, VERSION).await?, login) {
        (NO_LOGIN, _) => {}
        (LOGIN, Some(login)) => log_in(proxy, login).await?,
        (NO_METHOD, _) => return Err(Refusal::Login),
        _ => return Err(Refusal::Lasting("it chose a method that was not offered".into())),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match target {
        Target::Address(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Target::Address(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Target::Name(name) => {
            request.push(NAME);
            field(&mut request, name)?;
        }
    }
    request.extend(port.to_be_bytes());
    proxy.write_all(&request).await?;
    match answer(proxy, VERSION).await? {
        0 => {}
        1 => return Err(Refusal::Passing("general failure".into())),
        2 => return Err(Refusal::Lasting("not allowed by its rules".into())),
        3 => return Err(Refusal::Passing("network unreachable".into())),
        4 => return Err(Refusal::Passing("host unreachable".into())),
        5 => return Err(Refusal::Passing("connection refused".into())),
        6 => return Err(Refusal::Passing("TTL expired".into())),
        7 => return Err(Refusal::Lasting("command not supported".into())),
        8 => return Err(Refusal::Lasting("address type not supported".into())),
        other => return Err(Refusal::Passing(format!("reply {other}"))),
    }
    // Where the proxy connected from, which nobody needs.
    let _reserved = proxy.read_u8().await?;
    let len = match proxy.read_u8().await? {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(proxy.read_u8().await?),
        _ => return Err(Refusal::Lasting(NOT_SOCKS.into())),
    };
    proxy.read_exact(&mut [0; 255 + 2][..len + 2]).await?;
    Ok(())
}

async fn log_in(proxy: &mut (impl AsyncRead + AsyncWrite + Unpin), login: &Login) -> Result<(), Refusal> {
    let mut request = vec![LOGIN_VERSION];
    field(&mut request, &login.user)?;
    field(&mut request, &login.password)?;
    proxy.write_all(&request).await?;
    match answer(proxy, LOGIN_VERSION).await? {
        0 => Ok(()),
        _ => Err(Refusal::Login),
    }
}

/// The byte behind a version.
async fn answer(proxy: &mut (impl AsyncRead + Unpin), version: u8) -> Result<u8, Refusal> {
    if proxy.read_u8().await? != version {
        return Err(Refusal::Lasting(NOT_SOCKS.into()));
    }
    Ok(proxy.read_u8().await?)
}

/// A text behind its length.
fn field(request: &mut Vec<u8>, text: &str) -> Result<(), Refusal> {
    let too_long = |_| Refusal::Lasting("SOCKS5 takes names and passwords of 255 bytes at most".into());
    request.push(u8::try_from(text.len()).map_err(too_long)?);
    request.extend(text.as_bytes());
    Ok(())
}

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;

// Methods.
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const NO_METHOD: u8 = 0xff;

const CONNECT: u8 = 1;

// Types of an address.
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

const NOT_SOCKS: &str = "its answer is not SOCKS5";
