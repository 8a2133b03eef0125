//! Options of a client, and their defaults.

use std::{
    fmt,
    future::Future,
    net::IpAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use serde::Serialize;
use tokio::runtime::Handle;

use crate::{
    client::{
        Client,
        credentials::{Credentials, Provider},
        driver::Connector,
        pool::{Placement, Pool, Template},
        telemetry,
    },
    delivery::{Overflow, mailbox::Limits},
    error::{BuildError, CredentialsError, Disconnect},
    protocol::Subprotocol,
    session::{Config, CredentialsReason, DialBudget, Strictness, Verdict, VerdictHook},
    transport::dial::{Dialer, NetDialer, Tcp},
};

mod check;
mod connections;
mod network;

use self::check::{Schemes, check_runtime, parse_endpoint};
pub(crate) use crate::session::MAX_DURATION;

#[cfg(feature = "_tls")]
use crate::transport::dial::{Tls, TlsStep};

/// Configures a [`Client`]. Created by [`Client::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClientBuilder {
    endpoint: String,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    max_message_size: usize,
    placement: Placement,
    tcp: Tcp,
    /// Addresses of the endpoint's host. If empty, the name is resolved.
    addresses: Vec<IpAddr>,
    /// Which schemes the endpoint may have.
    schemes: Schemes,
    #[cfg(feature = "_tls")]
    tls: TlsChoice,
    #[cfg(feature = "proxy")]
    route: crate::transport::dial::Route,
    #[cfg(feature = "network-watch")]
    pub(crate) watch: crate::client::network::NetworkWatchOption,
    dialer: Option<Arc<dyn Dialer>>,
    /// Sent with every connection. The first error is kept for `build` to report.
    fixed: Result<Credentials, BuildError>,
    provider: Option<Provider>,
}

impl ClientBuilder {
    pub(crate) fn new(endpoint: &str) -> Self {
        let limit = |n| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        Self {
            endpoint: endpoint.to_owned(),
            config: Config::new(random_seed()),
            limits: Limits {
                items: limit(1024),
                bytes: limit(16 << 20),
                overflow: Overflow::DropOldest,
            },
            max_message_size: 16 << 20,
            placement: Placement::default(),
            tcp: Tcp {
                nodelay: true,
                keepalive: Some(Duration::from_secs(60)),
                user_timeout: Some(Duration::from_secs(30)),
            },
            addresses: Vec::new(),
            schemes: Schemes::Any,
            #[cfg(feature = "_tls")]
            tls: TlsChoice::Options(Tls::new()),
            #[cfg(feature = "proxy")]
            route: crate::transport::dial::Route::default(),
            #[cfg(feature = "network-watch")]
            watch: crate::client::network::NetworkWatchOption::default(),
            dialer: None,
            fixed: Ok(Credentials::none()),
            provider: None,
        }
    }

    /// Fixes the subprotocol. Default: the client offers `graphql-transport-ws`, and `graphql-ws`
    /// if the server does not accept that. It remembers which one worked.
    ///
    /// The client never offers both at once, because several servers then choose one and speak the
    /// other.
    pub fn subprotocol(mut self, subprotocol: Subprotocol) -> Self {
        self.config.subprotocol = Some(subprotocol);
        self
    }

    /// Sets a fixed payload for `connection_init`: a JSON object such as
    /// `json!({"token": token})`. Default: `{}`.
    pub fn init_payload(mut self, payload: &impl Serialize) -> Self {
        self.fixed = self.fixed.and_then(|credentials| credentials.init_payload(payload));
        self
    }

    /// Adds a fixed header to the upgrade request, such as `Authorization`. Default: none.
    ///
    /// `Host` replaces the host of the endpoint; the last one set is used. [`build`](Self::build)
    /// refuses headers that the upgrade itself sets (`Connection`, `Upgrade`, and names that begin
    /// with `Sec-WebSocket-`) or that announce a body (`Content-Length`, `Transfer-Encoding`).
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fixed = self.fixed.and_then(|credentials| credentials.header(name, value));
        self
    }

    /// Sets a function that provides the credentials. The client calls it before every dial, with
    /// the reason. Its payload replaces [`init_payload`](Self::init_payload), and its headers
    /// replace each [`header`](Self::header) of the same name. Default: only these two are sent.
    ///
    /// When the server rejects the credentials, the client calls the provider again with
    /// [`CredentialsReason::Rejected`] and dials at once. A second rejection in a row ends every
    /// operation if the server has never acknowledged a connection of this client. If it has, the
    /// client asks again, with backoff, for [`refusal_grace`](Self::refusal_grace). If the provider
    /// fails
    /// with [`CredentialsError::transient`], the client calls it again after a backoff.
    ///
    /// ```
    /// # use resub::{Client, Credentials, CredentialsError, CredentialsReason};
    /// # async fn fetch_token(_anew: bool) -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # let builder = Client::builder("ws://localhost/graphql");
    /// builder.credentials(|reason| async move {
    ///     let anew = matches!(reason, CredentialsReason::Rejected { .. });
    ///     let token = fetch_token(anew).await.map_err(CredentialsError::transient)?;
    ///     Ok(Credentials::none().init_payload(&serde_json::json!({ "token": token }))?)
    /// })
    /// # ;
    /// ```
    pub fn credentials<F, Fut>(mut self, provider: F) -> Self
    where
        F: Fn(CredentialsReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, CredentialsError>> + Send + 'static,
    {
        self.provider = Some(Credentials::provider(provider));
        self
    }

    /// Sets how long the credentials provider may take. Default: 30 s. After this time the attempt
    /// counts as failed.
    pub fn credentials_timeout(mut self, timeout: Duration) -> Self {
        self.config.credentials_timeout = timeout;
        self
    }

    /// Sets how long name resolution, TCP, TLS and the WebSocket upgrade may take together.
    /// Default: 10 s. After this time the attempt counts as failed.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// Sets how long the server may take to acknowledge `connection_init`. Default: 10 s. After
    /// this time the client closes the connection with 4504, and the attempt counts as failed.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.config.ack_timeout = timeout;
        self
    }

    /// Sets the interval of keepalive pings. Default: 10 s; `None` turns them off, and then only
    /// [`tcp_keepalive`](Self::tcp_keepalive) detects a half-open connection.
    ///
    /// On `graphql-transport-ws` the client sends a `ping` message at this interval, because some
    /// servers close a connection without one for 15 s, even while they deliver items. `graphql-ws`
    /// has no such message. There the client sends a WebSocket ping when it has received nothing
    /// for twice this interval.
    pub fn ping_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.config.ping_interval = interval.into();
        self
    }

    /// Sets how long the server may be silent after a ping. Default: 10 s. After this time the
    /// connection counts as lost. Any message or frame from the server keeps the connection, not
    /// only a pong.
    pub fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.config.ping_timeout = timeout;
        self
    }

    /// Sets the shortest and the longest delay between attempts. Default: 500 ms and 30 s.
    ///
    /// Delays have decorrelated jitter: each is random between the previous one (`base` at first)
    /// and three times that, up to `cap`. So clients that lost the same server do not reconnect at
    /// the same moment, and within one outage no delay is shorter than the previous one. The client
    /// honours a server's `Retry-After` beyond `cap`, up to one hour. A `cap` below `base` counts
    /// as `base`.
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.config.backoff_base = base;
        self.config.backoff_cap = cap;
        self
    }

    /// Sets how long a connection must last to reset the backoff. Default: 10 s.
    ///
    /// A server that acknowledges connections and then drops them sees growing delays.
    pub fn healthy_after(mut self, duration: Duration) -> Self {
        self.config.healthy_after = duration;
        self
    }

    /// Sets after how many failed attempts in a row every operation ends with
    /// [`SubscriptionError::GaveUp`](crate::SubscriptionError::GaveUp). Default: never. Must be at
    /// least 1.
    ///
    /// An attempt whose connection does not last for [`healthy_after`](Self::healthy_after) counts
    /// as failed. An attempt that follows at once, after rejected credentials or a refused
    /// subprotocol, is made even when this limit is reached.
    pub fn give_up_after(mut self, attempts: u32) -> Self {
        self.config.give_up_after = Some(attempts);
        self
    }

    /// Sets how long the client persists when a server that has worked refuses connections.
    /// Default: 5 minutes.
    ///
    /// A server that has acknowledged a connection of this client and then answers with an HTTP
    /// status like 404 or 403, `connection_error`, a close code like 4400, another subprotocol or
    /// an expired certificate is probably being deployed. The client tries again, with backoff, and
    /// asks for credentials each time. If refusals are the only answers for this long, every
    /// operation ends with the last one. [`Status`](crate::Status) says since when the server has
    /// refused, and a warning is logged when it begins.
    ///
    /// Zero makes such refusals fatal at once, or after few attempts, as they always are for a
    /// server that has never acknowledged a connection.
    pub fn refusal_grace(mut self, duration: Duration) -> Self {
        self.config.refusal_grace = duration;
        self
    }

    /// Limits the client to `dials` attempts to connect within any period of length `per`. Default:
    /// only the backoff limits attempts.
    ///
    /// Use this for gateways that ban clients which connect too often. An attempt begins when the
    /// client asks for credentials, so it counts even if it ends before a dial. The limit includes
    /// attempts without a backoff, such as those after rejected credentials or
    /// [`reconnect_now`](Client::reconnect_now). The limit holds for the whole client: several
    /// [`connections`](Self::connections) get equal parts of it. All
    /// [dedicated](crate::SubscriptionBuilder::dedicated) connections share the part of the first
    /// one, so with a single connection they share the whole limit. `build` fails if `dials` is
    /// below the number of connections.
    pub fn max_dials(mut self, dials: NonZeroU32, per: Duration) -> Self {
        self.config.max_dials = Some(DialBudget { dials, per });
        self
    }

    /// Sets how long the client keeps a connection without live operations. Default: 30 s; `None`
    /// keeps it until the last handle is dropped.
    ///
    /// The next operation connects again. With `None`, a call of
    /// [`Client::connect`](crate::Client::connect) keeps the client connected: it reconnects after
    /// a loss even if there are no live operations.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.idle_timeout = timeout.into();
        self
    }

    /// Sets the maximum age of a connection. Default: no limit. Each connection gets a random age
    /// between 90 and 100 % of this, so that connections are not replaced at the same moment. Must
    /// be at least one second.
    ///
    /// The client replaces an old connection without an outage, as [`rotate`](Client::rotate) does.
    /// Use this behind a load balancer that picks a backend for each connection, so that new
    /// backends get their share.
    pub fn max_connection_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.config.max_connection_age = age.into();
        self
    }

    /// Limits how many subscriptions and queries a new connection re-issues per second. Default: it
    /// re-issues all at once. With several connections, the limit holds for each.
    ///
    /// Use this for servers that cannot take thousands of subscriptions at once. The client sends
    /// operations again in order of creation, a tenth of the rate every 100 ms. The gap of each
    /// operation appears at once, and its items follow after its turn. Operations that are started
    /// or dropped meanwhile do not wait.
    pub fn reissue_rate(mut self, per_second: NonZeroU32) -> Self {
        self.config.reissue_rate = Some(per_second);
        self
    }

    /// Sets a hook that decides what the client does after each lost connection and each failed
    /// attempt. Default: the client decides by a table of causes.
    ///
    /// `hook` gets the cause and the number of attempts that failed in a row. [`Verdict::Default`]
    /// leaves the decision to the table, and [`Verdict::Fatal`] is final. While another connection
    /// still works, as during [`rotate`](Client::rotate), nothing ends: the verdict only decides
    /// when the next attempt is made. The client looks for an operation that makes the server close
    /// the connection only after `Default` and [`Verdict::Retry`]. The hook runs in the client's
    /// task, so it must not block. A panic in it counts as `Default`.
    pub fn on_disconnect(
        mut self,
        hook: impl Fn(&Disconnect, u32) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        self.config.on_disconnect = Some(VerdictHook::new(hook));
        self
    }

    /// Sets how the client treats invalid messages. Default: [`Strictness::Lenient`].
    pub fn strictness(mut self, strictness: Strictness) -> Self {
        self.config.strictness = strictness;
        self
    }

    /// Sets the maximum size of a message in bytes, in both directions. This includes the init
    /// payload. Default: 16 MiB. Must be at least 1024 bytes.
    ///
    /// If the server sends a larger message, the client closes the connection with 1009. If only
    /// one operation was live, it ends. If there were several, the client finds the one at fault,
    /// because the server would send the message again.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Sets [`SubscriptionBuilder::overflow`](crate::SubscriptionBuilder::overflow) for every
    /// subscription. Default: [`Overflow::DropOldest`].
    ///
    /// With [`Overflow::Rewind`], every subscription needs
    /// [`resume_with`](crate::SubscriptionBuilder::resume_with); with [`Overflow::LatestBy`], it
    /// needs [`latest_by`](crate::SubscriptionBuilder::latest_by). Others fail to start.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.limits.overflow = overflow;
        self
    }

    /// Sets [`SubscriptionBuilder::capacity`](crate::SubscriptionBuilder::capacity) for every
    /// subscription. Default: 1024 items.
    pub fn capacity(mut self, items: NonZeroUsize) -> Self {
        self.limits.items = items;
        self
    }

    /// Sets [`SubscriptionBuilder::capacity_bytes`](crate::SubscriptionBuilder::capacity_bytes) for
    /// every subscription. Default: 16 MiB.
    pub fn capacity_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// Makes [`build`](Self::build) fail with [`BuildError::TlsRequired`] unless the scheme of the
    /// endpoint is `wss`. Default: `ws` is accepted, and sending credentials over it to another
    /// host logs a warning.
    ///
    /// Use this if the endpoint comes from a configuration. There are no exceptions, not even for
    /// `localhost`, so do not call it in tests or for a server behind a tunnel. With a custom
    /// [`dialer`](Self::dialer), only the scheme is checked; the dialer is responsible for TLS.
    pub fn require_tls(mut self) -> Self {
        self.schemes = Schemes::WssOnly;
        self
    }

    /// Sets the trusted certificate authorities and the client certificate for `wss`; see [`Tls`].
    /// Default: [`Tls::new`].
    ///
    /// Replaces an earlier [`tls_rustls_0_23`](Self::tls_rustls_0_23).
    #[cfg(feature = "_tls")]
    #[cfg_attr(
        docsrs,
        doc(cfg(any(
            feature = "ring",
            feature = "aws-lc-rs",
            feature = "platform-roots",
            feature = "webpki-roots"
        )))
    )]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = TlsChoice::Options(tls);
        self
    }

    /// Sets the rustls configuration for `wss`, for everything that [`Tls`] has no option for.
    /// Default: none.
    ///
    /// The client uses it unchanged. It replaces an earlier [`tls`](Self::tls). Set
    /// `alpn_protocols` to `http/1.1`, because a server that prefers HTTP/2 may otherwise speak
    /// that. Clients that share the configuration share its TLS session cache.
    #[cfg(feature = "_tls")]
    #[cfg_attr(
        docsrs,
        doc(cfg(any(
            feature = "ring",
            feature = "aws-lc-rs",
            feature = "platform-roots",
            feature = "webpki-roots"
        )))
    )]
    pub fn tls_rustls_0_23(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = TlsChoice::Ready(config);
        self
    }

    /// Sets the proxy to connect through. `None` connects directly. Default: the proxy that the
    /// environment names when the client is built.
    ///
    /// The client reads the same variables as curl, lower case before upper case: `wss_proxy`, then
    /// `https_proxy`, for `wss`; `ws_proxy`, then `http_proxy`, for `ws`; then `all_proxy`. An
    /// empty variable counts as not set. The client does not read `HTTP_PROXY` in upper case,
    /// because in a CGI program it is a header of the request. It connects directly to hosts in
    /// `no_proxy` and to this machine.
    ///
    /// `no_proxy` lists domains (which include their subdomains), addresses, networks such as
    /// `192.0.2.0/24`, or `*` for all hosts, separated by commas or blanks. An invalid value makes
    /// [`build`](Self::build) fail with [`BuildError::Proxy`].
    ///
    /// With `wss`, TLS is end to end: the proxy sees only the server's host and port.
    #[cfg(feature = "proxy")]
    #[cfg_attr(docsrs, doc(cfg(feature = "proxy")))]
    pub fn proxy(mut self, proxy: impl Into<Option<crate::transport::dial::Proxy>>) -> Self {
        self.route = proxy
            .into()
            .map_or(crate::transport::dial::Route::Direct, crate::transport::dial::Route::Through);
        self
    }

    /// Sets a dialer that opens the byte stream, including TLS. Default: TCP, with TLS for `wss`.
    ///
    /// The options for TCP, TLS, proxies and addresses have no effect on a custom dialer.
    pub fn dialer(mut self, dialer: impl Dialer) -> Self {
        self.dialer = Some(Arc::new(dialer));
        self
    }

    /// Sets the seed of the random number generator, which adds jitter to delays. Default: random.
    /// Use a fixed seed in tests only, because clients with the same seed dial at the same moments.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// Builds the client and spawns its task on the current tokio runtime. The tasks of further
    /// connections run on the same runtime. The client does not dial before the first operation.
    ///
    /// # Errors
    ///
    /// Fails if an option is invalid, TLS cannot be set up, no tokio runtime is current, or the
    /// runtime has no timers or no I/O; see [`BuildError`]. Correct the cause and build again.
    ///
    /// tokio reports that a runtime lacks timers or I/O only by a panic. This method catches the
    /// panic, but a panic hook sees it, and with `panic = "abort"` it aborts the process.
    pub fn build(self) -> Result<Client, BuildError> {
        let endpoint = parse_endpoint(&self.endpoint)?;
        self.schemes.check(&endpoint)?;
        self.check()?;
        let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        check_runtime(self.dialer.is_none())?;
        let fixed = self.fixed?;
        let span = telemetry::client_span(&endpoint);
        let sensitive = self.provider.is_some() || fixed.are_sensitive();
        // A custom dialer may be a pipe or a tunnel, so nothing is known about its destination.
        let (dialer, leads_away) = if let Some(dialer) = self.dialer {
            (dialer, false)
        } else {
            let net = NetDialer {
                tcp: self.tcp,
                addresses: self.addresses,
                #[cfg(feature = "proxy")]
                proxy: self.route.to(&endpoint)?,
                #[cfg(feature = "_tls")]
                tls: match (endpoint.scheme(), self.tls) {
                    ("wss", TlsChoice::Options(tls)) => Some(TlsStep::new(tls)?),
                    ("wss", TlsChoice::Ready(config)) => Some(TlsStep::ready(config)),
                    (_, TlsChoice::Options(_) | TlsChoice::Ready(_)) => None,
                },
            };
            let leads_away = !net.stays_here(&endpoint);
            (Arc::new(net) as Arc<dyn Dialer>, leads_away)
        };
        if endpoint.scheme() == "ws" && sensitive && leads_away {
            span.in_scope(telemetry::unprotected_credentials);
        }
        let provider = self.provider.unwrap_or_else(|| {
            Credentials::provider(|_| std::future::ready(Ok(Credentials::none())))
        });
        let connector = Connector {
            endpoint,
            dialer,
            fixed,
            provider,
            max_message_size: self.max_message_size,
        };
        let template = Template {
            runtime,
            connector: Arc::new(connector),
            config: Config {
                is_proven: Some(Arc::default()),
                dial_log: Some(Arc::default()),
                max_message_size: self.max_message_size,
                ..self.config
            },
            placement: self.placement,
            span,
            made: AtomicU64::new(0),
            #[cfg(feature = "network-watch")]
            watch: self.watch.into_watch(leads_away),
        };
        Ok(Client::new(Pool::new(template), self.limits, self.max_message_size))
    }
}

/// The configuration of TLS.
#[cfg(feature = "_tls")]
enum TlsChoice {
    Options(Tls),
    Ready(Arc<rustls::ClientConfig>),
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The endpoint is left out because its path or query may hold a token.
        f.debug_struct("ClientBuilder")
            .field("config", &self.config)
            .field("limits", &self.limits)
            .field("max_message_size", &self.max_message_size)
            .field("placement", &self.placement)
            .finish_non_exhaustive()
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where randomness enters")]
fn random_seed() -> u64 {
    fastrand::Rng::new().u64(..)
}
