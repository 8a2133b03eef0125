//! Options for the network between this machine and the server.

use std::{net::IpAddr, time::Duration};

use super::ClientBuilder;

impl ClientBuilder {
    /// Sets `TCP_NODELAY`, which sends small messages without delay. Default: on.
    pub fn tcp_nodelay(mut self, nodelay: bool) -> Self {
        self.tcp.nodelay = nodelay;
        self
    }

    /// Sets how long a connection may be without traffic before the operating system sends TCP
    /// keepalive probes. Default: 60 s; `None` turns them off. Must be at least one second.
    ///
    /// The connection is lost after four unanswered probes, a quarter of this time apart, on
    /// platforms that allow these to be set. [`ping_interval`](Self::ping_interval) detects a dead
    /// connection sooner. Use this for clients that turned pings off, and for gateways that drop
    /// connections without traffic.
    pub fn tcp_keepalive(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.tcp.keepalive = idle.into();
        self
    }

    /// Sets how long sent data may stay unacknowledged by TCP before the connection counts as lost
    /// (`TCP_USER_TIMEOUT`). Default: 30 s; `None` leaves it to the operating system, which keeps
    /// trying for many minutes. Must be at least one millisecond.
    ///
    /// This works on Linux and Android and has no effect on other systems.
    pub fn tcp_user_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.tcp.user_timeout = timeout.into();
        self
    }

    /// Sets the addresses of the endpoint's host, like curl's `--resolve`. The client tries them in
    /// turn. Default: none, and the client resolves the name at every dial.
    ///
    /// TLS and the `Host` header still use the name. A proxy that resolves the name itself ignores
    /// these addresses.
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// Sets whether the client watches the network of this machine. Default: on, unless the
    /// endpoint is on this machine or a custom [`dialer`](Self::dialer) is set, because its
    /// destination is unknown.
    ///
    /// After a change the client does what [`network_changed`](crate::Client::network_changed)
    /// does. It pings the server at once and replaces the connection if nothing arrives within 2 s;
    /// without this it could take 20 s. It keeps a connection that still works. If it waits to
    /// retry, it retries at once.
    ///
    /// A change is a new or lost address, default route or interface (on macOS, iOS and Windows: an
    /// address). Loopback and link-local addresses do not count. Changes within one second count as
    /// one. If they continue, the client reacts after 2 s, 4 s and so on, up to every 30 s.
    ///
    /// This costs one task and one socket for each client, both of them idle while nothing changes.
    /// If the network cannot be watched, as in some sandboxes and on other systems, the client logs
    /// that at level `debug` and works without it.
    #[cfg(feature = "network-watch")]
    #[cfg_attr(docsrs, doc(cfg(feature = "network-watch")))]
    pub fn watch_network(mut self, watch: bool) -> Self {
        self.watch.wanted = Some(watch);
        self
    }
}
