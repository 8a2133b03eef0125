//! The network between this machine and the server.

use std::{net::IpAddr, time::Duration};

use super::ClientBuilder;

impl ClientBuilder {
    /// Sets `TCP_NODELAY`, which sends small messages at once. Default: on.
    pub fn tcp_nodelay(mut self, nodelay: bool) -> Self {
        self.tcp.nodelay = nodelay;
        self
    }

    /// Sets after how long without traffic the operating system probes whether the server is still
    /// there. Default: 60 s; `None` turns it off.
    ///
    /// Four probes without an answer, a quarter of this time apart, are a lost connection where the
    /// platform lets an application say so. [`ping_interval`](Self::ping_interval) notices sooner;
    /// this is for clients that turned it off, and for gateways that forget connections without
    /// traffic. At least a second.
    pub fn tcp_keepalive(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.tcp.keepalive = idle.into();
        self
    }

    /// Sets how long what was sent may stay unacknowledged (`TCP_USER_TIMEOUT`; Linux and Android,
    /// no effect elsewhere). Default: 30 s; `None` leaves it to the operating system, which tries
    /// for many minutes. Then the connection counts as lost. At least a millisecond.
    pub fn tcp_user_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.tcp.user_timeout = timeout.into();
        self
    }

    /// Sets the addresses of the endpoint's host, tried in turn, as with curl's `--resolve`.
    /// Default: none, and the name is resolved at every dial.
    ///
    /// The server is called by its name all the same, in TLS as well. A proxy that resolves the
    /// name itself is not told.
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// Sets whether the network of this machine is watched. Default: on, unless the endpoint is on
    /// this machine or a [`dialer`](Self::dialer) of your own is set, which may lead anywhere.
    ///
    /// What follows a change is what [`network_changed`](crate::Client::network_changed) does: a
    /// connection is asked at once whether it lives, and replaced if nothing arrives within 2 s, in
    /// place of up to 20 s; one that lives is kept. A retry sleep ends. A change is a new or lost
    /// address, default route or interface (on macOS, iOS and Windows: an address); what concerns
    /// only this machine or this link is none. Changes within a second are one, and while they go
    /// on they are told after 2 s, 4 s and so on, up to 30 s.
    ///
    /// It costs one task and one socket for each client, which do nothing while nothing changes.
    /// Where there is nothing to watch, as in some sandboxes and on other systems, that is an event
    /// in the log at `debug`, and the client works as without.
    #[cfg(feature = "network-watch")]
    #[cfg_attr(docsrs, doc(cfg(feature = "network-watch")))]
    pub fn watch_network(mut self, watch: bool) -> Self {
        self.watch.wanted = Some(watch);
        self
    }
}
