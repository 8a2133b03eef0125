//! Options of a client, and their defaults.

use std::{
    fmt,
    future::Future,
    net::IpAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
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

/// Options of a [`Client`]; made by [`Client::builder`].
#[must_use = "a client begins with `build`"]
pub struct ClientBuilder {
    endpoint: String,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    max_message_size: usize,
    placement: Placement,
    tcp: Tcp,
    /// Those of the endpoint's host; none: the resolver's.
    addresses: Vec<IpAddr>,
    /// What the endpoint may be.
    schemes: Schemes,
    #[cfg(feature = "_tls")]
    tls: TlsChoice,
    #[cfg(feature = "proxy")]
    route: crate::transport::dial::Route,
    #[cfg(feature = "network-watch")]
    pub(crate) watch: crate::client::network::NetworkWatchOption,
    dialer: Option<Arc<dyn Dialer>>,
    /// Sent with every connection; the first one that was wrong is reported by `build`.
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

    /// Fixes the subprotocol. Default: `graphql-transport-ws` is offered, and if the server does
    /// not take it, `graphql-ws`; what worked is remembered. Never both at once: several servers
    /// then choose one and speak the other.
    pub fn subprotocol(mut self, subprotocol: Subprotocol) -> Self {
        self.config.subprotocol = Some(subprotocol);
        self
    }

    /// Sets a fixed payload of `connection_init`, a JSON object such as `json!({"token": token})`.
    /// Default: `{}`.
    pub fn init_payload(mut self, payload: &impl Serialize) -> Self {
        self.fixed = self.fixed.and_then(|credentials| credentials.init_payload(payload));
        self
    }

    /// Adds a fixed header to the upgrade request, such as `Authorization`. Default: none.
    ///
    /// `Host` replaces the endpoint's own; the last one counts. What makes the upgrade is refused
    /// by [`build`](Self::build): `Connection`, `Upgrade`, all that begins with `Sec-WebSocket-`,
    /// and what would announce a body (`Content-Length`, `Transfer-Encoding`).
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fixed = self.fixed.and_then(|credentials| credentials.header(name, value));
        self
    }

    /// Sets who provides the credentials: asked before every dial, with the reason. What it returns
    /// goes before [`init_payload`](Self::init_payload) and, for headers of the same name,
    /// [`header`](Self::header).
    ///
    /// When the server rejects the credentials, the provider is asked again with
    /// [`CredentialsReason::Rejected`] and the client dials at once; a second rejection in a row
    /// ends every operation. If the provider fails with [`CredentialsError::transient`], it is
    /// asked again after a backoff.
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

    /// Sets how long the credentials provider may take. Default: 30 s. Then the attempt counts as
    /// failed.
    pub fn credentials_timeout(mut self, timeout: Duration) -> Self {
        self.config.credentials_timeout = timeout;
        self
    }

    /// Sets how long name resolution, TCP, TLS and the WebSocket upgrade may take together.
    /// Default: 10 s. Then the attempt counts as failed.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// Sets how long the server may take to acknowledge `connection_init`. Default: 10 s. Then the
    /// connection is closed with 4504, and the attempt counts as failed.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.config.ack_timeout = timeout;
        self
    }

    /// Sets the pace of the keepalive. Default: 10 s; `None` turns it off, and a half-open
    /// connection is then noticed by [`tcp_keepalive`](Self::tcp_keepalive) only.
    ///
    /// On `graphql-transport-ws` a `ping` message is sent at this interval: some servers close the
    /// connection of a client that sends none within 15 s, even while they deliver. On
    /// `graphql-ws`, which has no such message, a WebSocket ping is sent after twice this interval
    /// without anything inbound.
    pub fn ping_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.config.ping_interval = interval.into();
        self
    }

    /// Sets how long nothing may arrive after a ping. Default: 10 s. Then the connection counts as
    /// lost; anything that arrives is a proof of life, not only a pong.
    pub fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.config.ping_timeout = timeout;
        self
    }

    /// Sets the shortest and the longest delay between attempts. Default: 500 ms and 30 s.
    ///
    /// Delays have decorrelated jitter: each is random between the one before, or `base` at first, and
    /// three times that, up to `cap`. So clients that lost the same server do not come back together,
    /// and within one outage no delay is shorter than the one before. A
    /// server's `Retry-After` is honoured beyond the cap, for up to an hour. A `cap` below `base`
    /// means `base`.
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.config.backoff_base = base;
        self.config.backoff_cap = cap;
        self
    }

    /// Sets how long a connection must live for the next loss to start with a short delay again.
    /// Default: 10 s. A server that acknowledges and drops sees growing delays.
    pub fn healthy_after(mut self, duration: Duration) -> Self {
        self.config.healthy_after = duration;
        self
    }

    /// Sets after how many failed attempts in a row every operation ends with
    /// [`SubscriptionError::GaveUp`](crate::SubscriptionError::GaveUp). Default: never. At least 1.
    ///
    /// An attempt whose connection does not live for [`healthy_after`](Self::healthy_after) counts
    /// as failed. One that follows at once, after rejected credentials or a refused subprotocol, is
    /// made in any case.
    pub fn give_up_after(mut self, attempts: u32) -> Self {
        self.config.give_up_after = Some(attempts);
        self
    }

    /// Sets how long the client persists when a server that has worked refuses connections. Default:
    /// 5 minutes.
    ///
    /// A server that has acknowledged a connection of this client and then answers with an HTTP
    /// status like 404 or 403, `connection_error`, a close code like 4400, another subprotocol or an
    /// expired certificate is probably being deployed. The client tries again, with backoff, and
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

    /// Sets how many attempts to connect may begin within any period of this length. Default: as
    /// many as the delays allow.
    ///
    /// For gateways that ban who dials too often. It also holds for attempts that follow at once,
    /// after rejected credentials or [`reconnect_now`](Client::reconnect_now). It is the client's:
    /// several [`connections`](Self::connections) get equal parts of it, and at least one attempt
    /// each, or `build` fails.
    pub fn max_dials(mut self, dials: NonZeroU32, per: Duration) -> Self {
        self.config.max_dials = Some(DialBudget { dials, per });
        self
    }

    /// Sets how long a connection without live operations is kept. Default: 30 s; `None` keeps it
    /// until the last handle is dropped.
    ///
    /// The next operation makes a new one. With `None`, [`Client::connect`](crate::Client::connect)
    /// keeps the client connected: a lost connection is made again even while nothing is
    /// subscribed.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.idle_timeout = timeout.into();
        self
    }

    /// Sets for how long a connection is used at most, less up to a tenth by chance. Default: as
    /// long as it works.
    ///
    /// It is replaced as by [`rotate`](Client::rotate), without an outage: behind a balancer that
    /// picks a backend for each connection, so that new backends get their share.
    pub fn max_connection_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.config.max_connection_age = age.into();
        self
    }

    /// Sets how many subscriptions and queries a second are sent again on a new connection, of each
    /// of several. Default: all at once.
    ///
    /// For servers to which ten thousand at once are a burst: they are sent in order of creation, a
    /// tenth of the rate every 100 ms, and each has its gap until then. What is started or dropped
    /// meanwhile does not wait for them.
    pub fn reissue_rate(mut self, per_second: NonZeroU32) -> Self {
        self.config.reissue_rate = Some(per_second);
        self
    }

    /// Sets what decides, for each lost connection and each failed attempt, what is to follow.
    /// Default: the client's own table of causes.
    ///
    /// `hook` gets the cause and how many attempts failed in a row; [`Verdict::Default`] leaves the
    /// decision to the table, and [`Verdict::Fatal`] is final. An operation that makes the server
    /// close the connection is looked for under `Default` and [`Verdict::Retry`] only. It runs in
    /// the client's task; one that panics has no say.
    pub fn on_disconnect(
        mut self,
        hook: impl Fn(&Disconnect, u32) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        self.config.on_disconnect = Some(VerdictHook::new(hook));
        self
    }

    /// Sets what to make of messages that cannot be read. Default: [`Strictness::Lenient`].
    pub fn strictness(mut self, strictness: Strictness) -> Self {
        self.config.strictness = strictness;
        self
    }

    /// Sets how many bytes a message may have, in either direction, the init payload included.
    /// Default: 16 MiB. A larger one from the server closes the connection with 1009. A lone operation
    /// ends then; among several, the one at fault is looked for, as the server would send the
    /// message again. A connection keeps room for the largest one
    /// that it received.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Sets [`SubscriptionBuilder::overflow`](crate::SubscriptionBuilder::overflow) for every
    /// subscription. Default: [`Overflow::DropOldest`]. With [`Overflow::Rewind`], one without
    /// [`resume_with`](crate::SubscriptionBuilder::resume_with) is refused; with
    /// [`Overflow::LatestBy`], one without [`latest_by`](crate::SubscriptionBuilder::latest_by).
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

    /// Makes [`build`](Self::build) fail with [`BuildError::TlsRequired`] unless the endpoint is
    /// `wss`. Default: `ws` will do, with a warning in the log if credentials leave this machine by
    /// it.
    ///
    /// For endpoints that come from a configuration. There are no exceptions, not even for this
    /// machine: a test or a server behind a tunnel does not call this. With a
    /// [`dialer`](Self::dialer) of your own the scheme counts, and TLS is that one's affair.
    pub fn require_tls(mut self) -> Self {
        self.schemes = Schemes::WssOnly;
        self
    }

    /// Sets whom to trust for `wss`, and what to show of oneself: see [`Tls`]. Default:
    /// [`Tls::new`].
    ///
    /// Replaces a [`tls_rustls_0_23`](Self::tls_rustls_0_23).
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

    /// Sets rustls' own configuration for `wss`, for whatever [`Tls`] has no option for. Default:
    /// none.
    ///
    /// It is used as it is, and replaces [`tls`](Self::tls). Offer `http/1.1` (`alpn_protocols`),
    /// as a server that prefers HTTP/2 may otherwise speak that. Sessions resume across the
    /// reconnects of all clients that share it.
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

    /// Sets the proxy to connect through; `None` is none. Default: what the environment says when
    /// the client is built.
    ///
    /// The variables are those of curl, lower case before upper case, and one that is empty counts
    /// as not set: `wss_proxy`, else `https_proxy`, for `wss`; `ws_proxy`, else `http_proxy`, for
    /// `ws`; else `all_proxy`. `HTTP_PROXY` in upper case is not read, as it is a header of the
    /// request in a CGI program. Hosts of `no_proxy` and this machine are dialed directly.
    ///
    /// `no_proxy` lists names (each with what is below it), addresses, networks such as
    /// `192.0.2.0/24`, or `*` for all, separated by commas or blanks. A value that cannot be read
    /// is a [`BuildError::Proxy`].
    ///
    /// TLS goes through the proxy to the server: the proxy sees its name, and nothing else.
    #[cfg(feature = "proxy")]
    #[cfg_attr(docsrs, doc(cfg(feature = "proxy")))]
    pub fn proxy(mut self, proxy: impl Into<Option<crate::transport::dial::Proxy>>) -> Self {
        self.route = proxy
            .into()
            .map_or(crate::transport::dial::Route::Direct, crate::transport::dial::Route::Through);
        self
    }

    /// Sets who makes the byte stream, TLS included. Default: TCP, and TLS for `wss`; what is set
    /// for those is theirs alone.
    pub fn dialer(mut self, dialer: impl Dialer) -> Self {
        self.dialer = Some(Arc::new(dialer));
        self
    }

    /// Sets the seed of all randomness, which is the jitter of delays. Default: random. For tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// Builds the client and starts its task on the current tokio runtime; so do the tasks of
    /// further connections. Dials nothing: the first operation does.
    ///
    /// # Errors
    ///
    /// If an option is wrong, TLS cannot be set up, or there is no runtime or one without timers or
    /// I/O; see [`BuildError`].
    ///
    /// tokio says what a runtime lacks by a panic alone. It is caught here, but a panic hook sees
    /// it, and with `panic = "abort"` it ends the process.
    pub fn build(self) -> Result<Client, BuildError> {
        let endpoint = parse_endpoint(&self.endpoint)?;
        self.schemes.check(&endpoint)?;
        self.check()?;
        let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        check_runtime(self.dialer.is_none())?;
        let fixed = self.fixed?;
        let span = telemetry::client_span(&endpoint);
        let sensitive = self.provider.is_some() || fixed.are_sensitive();
        // What is below a dialer of the application's own, be it a pipe or a tunnel, is not known.
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
            config: self.config,
            span,
            #[cfg(feature = "network-watch")]
            watch: self.watch.made(leads_away),
        };
        Ok(Client::new(Pool::new(template, self.placement), self.limits, self.max_message_size))
    }
}

/// Where the configuration of TLS comes from.
#[cfg(feature = "_tls")]
enum TlsChoice {
    Options(Tls),
    Ready(Arc<rustls::ClientConfig>),
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the endpoint: its path or its query may hold a token.
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
