//! Changes of this machine's network, as the system tells them.

#[cfg(any(target_os = "macos", target_os = "ios", target_os = "windows"))]
mod addresses;
#[cfg(target_os = "linux")]
mod netlink;

use std::io;

use futures::stream::BoxStream;

#[cfg(any(target_os = "macos", target_os = "ios", target_os = "windows"))]
pub(crate) use self::addresses::open;
#[cfg(target_os = "linux")]
pub(crate) use self::netlink::open;

/// One item or several for each change that matters for a connection that leads away. Nothing for
/// what there is already.
pub(crate) type Changes = BoxStream<'static, io::Result<()>>;
