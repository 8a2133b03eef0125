//! Changes of addresses on macOS, iOS and Windows, with `if-watch`.

use std::{future, io};

use futures::{
    FutureExt,
    stream::{StreamExt, TryStreamExt},
};
use if_watch::{IfEvent, IpNet, tokio::IfWatcher};

use super::Changes;

pub(crate) fn open() -> io::Result<Changes> {
    let mut watcher = IfWatcher::new()?;
    // Skip the existing addresses. They are yielded first, without waiting.
    while let Some(Some(event)) = watcher.next().now_or_never() {
        event?;
    }
    Ok(watcher.try_filter_map(|event| future::ready(Ok(is_routable(event).then_some(())))).boxed())
}

/// Whether other machines are reached from the address. Loopback and link-local addresses are not
/// used for that.
fn is_routable(event: IfEvent) -> bool {
    let (IfEvent::Up(net) | IfEvent::Down(net)) = event;
    match net {
        IpNet::V4(net) => !net.addr().is_loopback() && !net.addr().is_link_local(),
        IpNet::V6(net) => !net.addr().is_loopback() && !net.addr().is_unicast_link_local(),
    }
}
