//! Checks of the options and the endpoint, made by `build`.

use std::{io, panic::catch_unwind, time::Duration};

use socket2::{Domain, Type};
use tokio::net::UdpSocket;
use url::Url;

use super::{ClientBuilder, MAX_DURATION};
use crate::{
    client::{credentials::Credentials, pool::Placement},
    error::BuildError,
};

impl ClientBuilder {
    /// Checks that the options are valid and go together.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        let config = &self.config;
        if config.backoff_base.is_zero() {
            return Err(BuildError::Option(
                "the shortest backoff is zero, which would hammer the server",
            ));
        }
        let positive = [
            config.credentials_timeout,
            config.connect_timeout,
            config.ack_timeout,
            config.ping_interval.unwrap_or(MAX_DURATION),
            config.ping_timeout,
            config.idle_timeout.unwrap_or(MAX_DURATION),
            config.max_connection_age.unwrap_or(MAX_DURATION),
            config.max_dials.map_or(MAX_DURATION, |budget| budget.per),
        ];
        if self.tcp.keepalive.is_some_and(|idle| idle < Duration::from_secs(1)) {
            return Err(BuildError::Option("tcp_keepalive is below a second"));
        }
        // The operating system takes zero for its own default.
        if self.tcp.user_timeout.is_some_and(|timeout| timeout < Duration::from_millis(1)) {
            return Err(BuildError::Option("tcp_user_timeout is below a millisecond"));
        }
        if config.max_connection_age.is_some_and(|age| age < Duration::from_secs(1)) {
            return Err(BuildError::Option("max_connection_age is below a second"));
        }
        if positive.contains(&Duration::ZERO) {
            return Err(BuildError::Option("a timeout or interval is zero"));
        }
        let tcp = [self.tcp.keepalive, self.tcp.user_timeout].map(Option::unwrap_or_default);
        let all = [config.backoff_base, config.backoff_cap, config.healthy_after, tcp[0], tcp[1]];
        if positive.iter().chain(&all).any(|&duration| duration > MAX_DURATION) {
            return Err(BuildError::Option("a duration is longer than a year"));
        }
        if let Some(budget) = config.max_dials {
            let Placement { connections, limit } = self.placement;
            if limit.is_some() && connections.is_none() {
                return Err(BuildError::Option(
                    "max_dials has to be divided: max_subscriptions_per_connection needs \
                     connections beside it",
                ));
            }
            if connections
                .is_some_and(|connections| connections.get() > budget.dials.get() as usize)
            {
                return Err(BuildError::Option("max_dials is below the number of connections"));
            }
        }
        if self.config.give_up_after == Some(0) {
            return Err(BuildError::Option("give_up_after is zero: nothing would ever be tried"));
        }
        if let Ok(Credentials { init_payload: Some(payload), .. }) = &self.fixed
            && payload.len() > self.max_message_size
        {
            return Err(BuildError::Option("the init payload is larger than a message may be"));
        }
        if self.max_message_size < 1024 {
            return Err(BuildError::Option("max_message_size is below 1024 bytes"));
        }
        #[cfg(not(feature = "_tls"))]
        if self.dialer.is_none() && parse_endpoint(&self.endpoint)?.scheme() == "wss" {
            let missing = std::io::Error::new(
                std::io::ErrorKind::Unsupported,
                "enable the features `ring` and `platform-roots`",
            );
            return Err(BuildError::Tls(std::sync::Arc::new(missing)));
        }
        Ok(())
    }
}

/// Checks that the current runtime has timers and, if `needs_io`, I/O.
pub(super) fn check_runtime(needs_io: bool) -> Result<(), BuildError> {
    // tokio reports a missing driver only by a panic.
    #[expect(clippy::disallowed_methods, reason = "it is dropped at once, without waiting")]
    let timer = || drop(tokio::time::sleep(Duration::ZERO));
    catch_unwind(timer).map_err(|_| BuildError::NoTimers)?;
    if needs_io && let Ok(socket) = unbound_socket() {
        catch_unwind(|| drop(UdpSocket::from_std(socket))).map_err(|_| BuildError::NoIo)?;
    }
    Ok(())
}

/// Creates a socket that is not bound, so it uses no port.
fn unbound_socket() -> io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Which endpoints are accepted.
#[derive(Clone, Copy)]
pub(super) enum Schemes {
    Any,
    WssOnly,
}

impl Schemes {
    pub(super) fn check(self, endpoint: &Url) -> Result<(), BuildError> {
        match self {
            Self::WssOnly if endpoint.scheme() != "wss" => Err(BuildError::TlsRequired),
            Self::WssOnly | Self::Any => Ok(()),
        }
    }
}

/// Parses an endpoint and turns `http` and `https` into `ws` and `wss`.
pub(super) fn parse_endpoint(endpoint: &str) -> Result<Url, BuildError> {
    let mut url = Url::parse(endpoint).map_err(BuildError::Url)?;
    let scheme = match url.scheme() {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        other => return Err(BuildError::Scheme(other.to_owned())),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BuildError::UserInfo);
    }
    if url.fragment().is_some() {
        return Err(BuildError::Fragment);
    }
    if url.set_scheme(scheme).is_err() {
        return Err(BuildError::Scheme(url.scheme().to_owned()));
    }
    Ok(url)
}
