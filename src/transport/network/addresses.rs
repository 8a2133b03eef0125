//! What macOS, iOS and Windows tell of addresses, by `if-watch`.

use std::{future, io};

use futures::{
    FutureExt,
    stream::{StreamExt, TryStreamExt},
};
use if_watch::{IfEvent, IpNet, tokio::IfWatcher};

use super::Changes;

pub(crate) fn open() -> io::Result<Changes> {
    let mut watcher = IfWatcher::new()?;
    // What there is comes first, and at once.
    while let Some(Some(event)) = watcher.next().now_or_never() {
        event?;
    }
    Ok(watcher.try_filter_map(|event| future::ready(Ok(leads_away(event).then_some(())))).boxed())
}

/// What is valid on this machine or this link only leads to no remote peer.
fn leads_away(event: IfEvent) -> bool {
    let (IfEvent::Up(net) | IfEvent::Down(net)) = event;
    match net {
        IpNet::V4(net) => !net.addr().is_loopback() && !net.addr().is_link_local(),
        IpNet::V6(net) => !net.addr().is_loopback() && !net.addr().is_unicast_link_local(),
    }
}
